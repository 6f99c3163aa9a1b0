//! The contract as data: a JSON Schema of every body, and an AsyncAPI document of every channel
//! (`asyncapi.rs`).
//!
//! Schemas are made from the types that read and write the bodies. Where a body is read field by
//! field, or put together from finished JSON, `bodies.rs` and `queries.rs` have a type for its
//! schema alone, and tests hold it against the reader or the writer. Examples are those of
//! `docs/protocol.md`.

pub mod asyncapi;
pub mod bodies;
mod channels;
mod codes;
pub mod examples;
pub mod queries;
#[cfg(test)]
mod tests;

use schemars::generate::{Contract, SchemaSettings};
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::reminder::outcome::{Batch, Record};
use crate::reminder::raw::RawReminder;
use crate::reminder::set::RawSet;
use crate::rules::document::Document;
use crate::token::UserId;
use crate::wire::answer::{DeliveryAnswer, Heartbeat, HeartbeatAnswer};
use crate::wire::associates::Associates;
use crate::wire::cloud_event::Structured;
use crate::wire::route;

/// A body that travels over NATS.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// The name of its schema.
    pub name: &'static str,
    /// A short description.
    pub about: &'static str,
    /// True if Bellhop writes it. Others write the rest.
    is_ours: bool,
    of_type: OfType,
}

/// The two ways of making a type's schema.
#[derive(Debug, Clone, Copy)]
struct OfType {
    /// With everything that it refers to.
    whole: fn(&mut SchemaGenerator) -> Schema,
    /// A reference to it.
    part: fn(&mut SchemaGenerator) -> Schema,
}

const fn of<T: JsonSchema>() -> OfType {
    OfType {
        whole: |generator| generator.root_schema_for::<T>(),
        part: |generator| generator.subschema_for::<T>(),
    }
}

const fn theirs(name: &'static str, about: &'static str, of_type: OfType) -> Body {
    Body {
        name,
        about,
        is_ours: false,
        of_type,
    }
}

const fn ours(name: &'static str, about: &'static str, of_type: OfType) -> Body {
    Body {
        name,
        about,
        is_ours: true,
        of_type,
    }
}

/// All bodies, in the order of the protocol page.
pub const BODIES: &[Body] = &[
    theirs(
        "set",
        "a reminder set, as a business system publishes it",
        of::<RawSet<'static>>(),
    ),
    theirs(
        "published-reminder",
        "one reminder of a set",
        of::<RawReminder<'static>>(),
    ),
    theirs(
        "cloud-event",
        "a CloudEvent that contains a set or a reminder",
        of::<Structured<'static>>(),
    ),
    ours("outcomes", "outcomes of reminders", of::<Batch<Record>>()),
    theirs(
        "route",
        "a route: an instance holds a user's connection",
        of::<route::Value>(),
    ),
    ours(
        "heartbeat",
        "a request that asks which users are connected",
        of::<Heartbeat<UserId>>(),
    ),
    theirs(
        "heartbeat-answer",
        "the connected users among them",
        of::<HeartbeatAnswer<String>>(),
    ),
    ours(
        "delivery",
        "a request with reminders for an instance",
        of::<bodies::Delivery>(),
    ),
    ours(
        "reminder",
        "one reminder of a delivery",
        of::<bodies::Delivered>(),
    ),
    theirs(
        "delivery-answer",
        "the reminders that the instance refuses",
        of::<DeliveryAnswer>(),
    ),
    theirs(
        "associates",
        "the users who may get a user's reminders while the user is away",
        of::<Associates>(),
    ),
    theirs(
        "rules",
        "the rules for the reminders of a tag",
        of::<Document>(),
    ),
    theirs(
        "history-query",
        "a query of the history",
        of::<queries::HistoryQuery>(),
    ),
    ours(
        "history-answer",
        "the answer: reminders with their outcomes",
        of::<queries::HistoryAnswer>(),
    ),
    theirs(
        "why-query",
        "a query about one reminder",
        of::<queries::WhyQuery>(),
    ),
    ours(
        "why-answer",
        "the answer: one reminder with its outcomes",
        of::<queries::WhyAnswer>(),
    ),
    theirs(
        "mailbox-query",
        "a query about a user's mailbox",
        of::<queries::MailboxQuery>(),
    ),
    ours(
        "mailbox-answer",
        "the answer: the waiting reminders",
        of::<queries::MailboxAnswer>(),
    ),
    theirs(
        "erase-query",
        "a request to erase a user",
        of::<queries::EraseQuery>(),
    ),
    ours(
        "erase-answer",
        "the answer: numbers of erased entries",
        of::<queries::EraseAnswer>(),
    ),
];

impl Body {
    /// The body of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        BODIES.iter().find(|body| body.name == name)
    }

    /// Its JSON Schema, of draft 2020-12, which stands by itself.
    pub fn schema(&self) -> Schema {
        (self.of_type.whole)(
            &mut self
                .settings(SchemaSettings::draft2020_12())
                .into_generator(),
        )
    }

    /// Readers accept more fields than writers write.
    fn settings(&self, settings: SchemaSettings) -> SchemaSettings {
        let contract = if self.is_ours {
            Contract::Serialize
        } else {
            Contract::Deserialize
        };
        with_known_formats(settings.with(|settings| settings.contract = contract))
    }
}

/// The formats of JSON Schema that the schemas have.
const FORMATS: [&str; 1] = ["date-time"];

/// Leaves out the formats that schemars makes of Rust's types of numbers, such as `uint64`. JSON
/// Schema has none of them, and a strict validator refuses a schema with a format that it does not
/// know.
fn with_known_formats(settings: SchemaSettings) -> SchemaSettings {
    let leave_out = |schema: &mut Schema| {
        let format = schema.get("format").and_then(|format| format.as_str());
        if format.is_some_and(|format| !FORMATS.contains(&format)) {
            schema.remove("format");
        }
    };
    settings.with_transform(RecursiveTransform(leave_out))
}

/// A schema or another document as text that people read.
pub fn pretty(document: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("a document is JSON");
    text.push('\n');
    text
}
