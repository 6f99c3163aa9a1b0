//! The pure modules of Bellhop that rules need, built for the benchmark without the rest.
#![allow(missing_docs)]

#[path = "../../src/printable.rs"]
pub mod printable;
#[path = "../../src/reminder/mod.rs"]
pub mod reminder;
#[path = "../../src/rules/mod.rs"]
pub mod rules;
#[path = "../../src/token.rs"]
pub mod token;
