//! The deciding part of Bellhop: it takes inputs and the time, and returns actions. No I/O, no
//! clock, no task.
//!
//! | module | |
//! | --- | --- |
//! | [`router`] | the state machine of a partition: delivers, parks, reads back, settles |
//! | [`rules`] | the keywords of tags: finds, masks, replaces, highlights, blocks |
//! | [`merge`](mod@merge) | makes one reminder of a set's duplicates |
//! | [`event`] | the format of a message of events |
//! | [`log`] | the log of published sets: positions, the idempotency window, planning in a partition |
//! | [`fair_queue`] | what waits, fair among those who ask |
//! | [`partition`] | which partition a user belongs to, and which member works it |

pub mod event;
pub mod fair_queue;
pub mod log;
pub mod lookalike;
pub mod merge;
pub mod partition;
pub mod router;
pub mod rules;

/// The examples of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
