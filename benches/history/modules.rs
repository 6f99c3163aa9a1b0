//! The history, built for the benchmark without the rest.
#![allow(missing_docs)]

#[path = "../../src/history/mod.rs"]
pub mod history;
