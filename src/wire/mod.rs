//! What others write and Bellhop reads, byte by byte: values of buckets, answers of app servers, queries, and the events that sets
//! may come in. Pure.
//!
//! Published sets are [`reminder::set`](crate::reminder::set)'s, rules [`rules::document`](crate::rules::document)'s, and what Bellhop
//! writes for itself [`event`](crate::event)'s.

pub mod answer;
pub mod associates;
pub mod cloud_event;
pub mod query;
pub mod route;
