//! The history, and what it uses of the rest, built for the benchmark.
#![allow(missing_docs)]

pub mod config {
    pub use crate::history_url::*;
}
#[path = "../../src/history/mod.rs"]
pub mod history;
#[path = "../../src/config/history_url.rs"]
mod history_url;
#[path = "../../src/reminder/mod.rs"]
pub mod reminder;
#[path = "../../src/token.rs"]
pub mod token;
#[path = "../../src/trace.rs"]
pub mod trace;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
