//! Bellhop routes reminders from business systems to the app-server instance that holds each user's
//! connection, over NATS, and keeps a durable mailbox for users who are away.
//!
//! `ARCHITECTURE.md` in the repository tells how and why. In short, and from the bottom up:
//!
//! | layer | modules | |
//! | --- | --- | --- |
//! | decide | [`router`], [`rules`], [`reminder`], [`partition`], [`token`], [`event`], [`wire`], [`trace`], [`printable`] | pure: no I/O, no clock, no task |
//! | set | [`config`] | every setting, with its default and bounds |
//! | translate | [`nats`], [`history`], [`http`] | streams, consumers, buckets, requests; SQL; probes. Decide nothing |
//! | run | [`service`] | tasks that feed the router and perform its actions |
//! | tell | [`schema`] | the contract as data: what others send and get |
//!
//! Programs that work with Bellhop use [`client`], which knows nothing of it but the contract.
//! `bellhop-terminal` is one.

pub use bellhop_client as client;
pub use bellhop_core::{event, fair_queue, log, lookalike, merge, partition, router, rules};
pub use bellhop_history as history;
pub use bellhop_protocol::{
    byte_order_mark, headers, numbers, printable, reminder, schema, token, trace, wire,
};

pub mod cli;
pub mod config;
pub mod http;
pub mod metrics;
pub mod nats;
pub mod service;
