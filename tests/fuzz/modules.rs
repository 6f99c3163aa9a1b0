//! The pure modules of Bellhop that read what others write, built for the fuzz targets without the rest.
#![allow(missing_docs)]

#[path = "../../src/event.rs"]
pub mod event;
#[path = "../../src/reminder/mod.rs"]
pub mod reminder;
#[path = "../../src/token.rs"]
pub mod token;
#[path = "../../src/trace.rs"]
pub mod trace;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
