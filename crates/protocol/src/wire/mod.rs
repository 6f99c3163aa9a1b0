//! Foreign input, byte by byte: values of buckets, answers of app servers, queries, and the events
//! that contain sets. Pure.
//!
//! Published sets are [`reminder::set`](crate::reminder::set)'s, rules
//! [`rules::document`](crate::rules::document)'s, and what Bellhop writes for itself
//! `bellhop_core::event`'s.

pub mod answer;
pub mod associates;
pub mod cloud_event;
pub mod deletion;
pub mod erased;
pub mod header_block;
pub mod member;
pub mod query;
pub mod route;
pub mod subject;

use serde::Deserialize;
use serde::de::Error;

use crate::json::from_object;

/// Reads a struct from the bytes of a JSON object.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    std::str::from_utf8(json)
        .map_err(Error::custom)
        .and_then(from_object)
}
