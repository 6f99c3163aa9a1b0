//! The history, built for the benchmark without the rest.
#![allow(missing_docs)]

pub use bellhop_protocol::{reminder, token, trace, wire};

pub mod config {
    pub use crate::history_url::*;
}
#[path = "../../src/history/mod.rs"]
pub mod history;
#[path = "../../src/config/history_url.rs"]
mod history_url;
