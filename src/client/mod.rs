//! Bellhop's client: what a business system and an app server written in Rust need of Bellhop, over their own connection to NATS.
//!
//! [`AppServer`] is for the program that holds users' connections. Other languages do the same with the two requests and the one
//! bucket of `docs/protocol.md`; nothing here knows more than that page.

pub mod app_server;
mod reminder;

pub use app_server::{AppServer, Deliveries, Delivery};
pub use reminder::Reminder;

pub use crate::reminder::{Field, Mark, MarkAction, Priority};
pub use crate::token::{InstanceName, NameError, Source, Tag, UserId};
pub use crate::wire::answer::Reason;
