//! The contract of Bellhop: the names, subjects, bodies and headers that business systems and app
//! servers share with it.
//!
//! | module | |
//! | --- | --- |
//! | [`token`] | names of users, instances, sources and tags, and how a subject writes them |
//! | [`names`] | subjects, streams, buckets and consumers of an installation |
//! | [`headers`] | names of headers |
//! | [`reminder`] | a published set and its validation, a delivered reminder, an outcome and its line for the history, the codes of refusals |
//! | [`rules`] | the rule document of a tag |
//! | [`wire`] | routes, associates, members, answers, queries, CloudEvents |
//! | [`trace`] | the W3C trace context |
//! | [`partition`] | the number of a partition |
//! | `schema` | the contract as data: JSON Schemas, AsyncAPI; with the feature `schema` |
//! | [`numbers`] | numbers and times as people read them |
//! | [`printable`] | text from outside, made safe to show |
//! | [`byte_order_mark`] | the mark that some editors put before a text |
//!
//! The crate does no I/O, reads no clock and starts no task.

pub mod byte_order_mark;
pub mod headers;
mod json;
pub mod names;
pub mod numbers;
pub mod partition;
pub mod printable;
pub mod reminder;
pub mod rules;
#[cfg(feature = "schema")]
pub mod schema;
pub mod token;
pub mod trace;
pub mod wire;

/// The examples of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
