//! The contract as data: a JSON Schema of every body, and an AsyncAPI document of every channel (`asyncapi.rs`).
//!
//! Schemas are made from the types that read and write the bodies. Where a body is read field by field, or put together from
//! finished JSON, `bodies.rs` and `queries.rs` have a type for its schema alone, and tests hold it against the reader or the
//! writer. Examples are those of `docs/protocol.md`.

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
    /// What its schema is called.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Whether Bellhop writes it. Others write the rest.
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
        "one reminder of it",
        of::<RawReminder<'static>>(),
    ),
    theirs(
        "cloud-event",
        "a CloudEvent that carries a set or a reminder",
        of::<Structured<'static>>(),
    ),
    ours(
        "outcomes",
        "what became of reminders",
        of::<Batch<Record>>(),
    ),
    theirs(
        "route",
        "that an instance holds a user's connection",
        of::<route::Value>(),
    ),
    ours(
        "heartbeat",
        "an instance is asked who is connected",
        of::<Heartbeat<UserId>>(),
    ),
    theirs(
        "heartbeat-answer",
        "who is",
        of::<HeartbeatAnswer<String>>(),
    ),
    ours(
        "delivery",
        "an instance is given reminders",
        of::<bodies::Delivery>(),
    ),
    ours("reminder", "one of them", of::<bodies::Delivered>()),
    theirs(
        "delivery-answer",
        "which of them it refuses",
        of::<DeliveryAnswer>(),
    ),
    theirs(
        "associates",
        "who may get a user's reminders while the user is away",
        of::<Associates>(),
    ),
    theirs(
        "rules",
        "what happens to the reminders of a tag",
        of::<Document>(),
    ),
    theirs(
        "history-query",
        "the history is asked",
        of::<queries::HistoryQuery>(),
    ),
    ours(
        "history-answer",
        "what it knows",
        of::<queries::HistoryAnswer>(),
    ),
    theirs(
        "why-query",
        "what became of one reminder is asked",
        of::<queries::WhyQuery>(),
    ),
    ours("why-answer", "that", of::<queries::WhyAnswer>()),
    theirs(
        "mailbox-query",
        "what waits for a user is asked",
        of::<queries::MailboxQuery>(),
    ),
    ours("mailbox-answer", "that", of::<queries::MailboxAnswer>()),
    theirs(
        "erase-query",
        "a user is to be erased",
        of::<queries::EraseQuery>(),
    ),
    ours("erase-answer", "how much was", of::<queries::EraseAnswer>()),
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

    /// Whoever reads may be given more than what is written.
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

/// Leaves out the formats that schemars makes of Rust's types of numbers, such as `uint64`. JSON Schema has none of
/// them, and a strict validator refuses a schema with a format that it does not know.
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
