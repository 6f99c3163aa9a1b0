//! Servers that Bellhop's tests and benchmarks start for themselves.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.
#![allow(clippy::disallowed_methods)] // Deadlines are real time.

#[cfg(feature = "postgres")]
pub mod postgres;
