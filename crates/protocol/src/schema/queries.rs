//! Queries and their answers, only for their schemas: the program reads requests field by field, so
//! that an error can name the field, and composes answers from finished JSON.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::bodies::Delivered;
use crate::reminder::id::MAX_ID_BYTES;
use crate::reminder::outcome;
use crate::reminder::reject::RejectCode;
use crate::token::{InstanceName, NO_CONTROL, Source, Tag, UserId};
use crate::wire::erased::Erased;
use crate::wire::query::{MAX_CONTAINS_BYTES, MAX_LIMIT};

/// The name of an outcome.
#[derive(Debug)]
pub struct OutcomeName;

impl JsonSchema for OutcomeName {
    fn schema_name() -> Cow<'static, str> {
        "OutcomeName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "What an outcome is called.", "type": "string", "enum": outcome::NAMES })
    }
}

/// A query of the history. All that is said must hold; nothing said asks for all.
#[derive(Debug, JsonSchema)]
pub struct HistoryQuery {
    /// The user for whom the reminders were published.
    pub user: Option<UserId>,
    /// The source of the reminders.
    pub source: Option<Source>,
    /// Their id.
    #[schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = NO_CONTROL))]
    pub id: Option<String>,
    /// One of their tags.
    pub tag: Option<Tag>,
    /// Their latest outcome.
    pub outcome: Option<OutcomeName>,
    /// Published then or later.
    pub from: Option<Timestamp>,
    /// Published before that.
    pub to: Option<Timestamp>,
    /// A part of their title or content, without regard to case; 1 to 1,024 bytes.
    #[schemars(length(min = 1, max = MAX_CONTAINS_BYTES))]
    pub contains: Option<String>,
    /// Maximum number of reminders; default: 100.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    pub limit: Option<usize>,
    /// The `cursor` of an earlier answer to the same question: what comes after it.
    pub cursor: Option<String>,
}

/// Reminders of the history, the one that was published last first.
#[derive(Debug, JsonSchema)]
pub struct HistoryAnswer {
    /// The reminders.
    pub reminders: Vec<StoredReminder>,
    /// There are more: ask the same with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A reminder of the history, and what became of it.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "HistoryReminder")]
pub struct StoredReminder {
    /// The reminder's text and fields.
    #[serde(flatten)]
    pub reminder: Known,
    /// Its latest outcome.
    pub outcome: OutcomeName,
    /// Time of the latest outcome.
    pub at: Timestamp,
    /// All its outcomes, the oldest first.
    pub trail: Vec<Step>,
}

/// A reminder as far as it is known.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "KnownReminder")]
pub enum Known {
    /// As it is delivered.
    Whole(Box<Delivered>),
    /// It was blocked or refused: its content must not be shown.
    Named(Named),
}

/// The identity of a reminder, without its text.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "NamedReminder")]
pub struct Named {
    /// Its id.
    pub id: String,
    /// The reminder's source.
    pub source: Source,
    /// Its set.
    pub set: String,
    /// The reminder's user; `null` if that was not a name.
    pub user: Option<UserId>,
    /// Time at which its set was published.
    pub published_at: Timestamp,
}

/// One outcome of a reminder. Which fields are there depends on `outcome`.
#[derive(Debug, JsonSchema)]
pub struct Step {
    /// The outcome.
    pub outcome: OutcomeName,
    /// Time of the outcome.
    pub at: Timestamp,
    /// `delivered`, `rerouted`: the instance that accepted it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceName>,
    /// `delivered`: all instances that accepted it, where they are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceName>>,
    /// `rerouted`: the associate who got it; `null` if that user was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<UserId>,
    /// `parked`: it has waited for long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalated: Option<bool>,
    /// `merged`: the reminder that stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// `expired`: the time after which it was not to be delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// `blocked`: the tag whose rule it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// `blocked`: the rule's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `rejected`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RejectCode>,
}

/// A query about one reminder.
#[derive(Debug, JsonSchema)]
pub struct WhyQuery {
    /// The reminder's source.
    pub source: Source,
    /// Its id.
    #[schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = NO_CONTROL))]
    pub id: String,
    /// The reminder's user. Else the answer is about the user whose reminder of this id was
    /// published last.
    pub user: Option<UserId>,
}

/// The outcomes of a reminder.
#[derive(Debug, JsonSchema)]
pub struct WhyAnswer {
    /// The reminder.
    pub reminder: Known,
    /// All its outcomes, the oldest first.
    pub trail: Vec<Step>,
    /// The users who have a reminder of this id, where they are several. The one of this answer is
    /// the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<UserId>>,
}

/// A query about a user's mailbox.
#[derive(Debug, JsonSchema)]
pub struct MailboxQuery {
    /// The user.
    pub user: UserId,
    /// Maximum number of reminders; default: 100.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    pub limit: Option<usize>,
}

/// The waiting reminders of a mailbox.
#[derive(Debug, JsonSchema)]
pub struct MailboxAnswer {
    /// Number of waiting reminders.
    pub parked: u64,
    /// Since when the oldest of them does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
    /// The first of them, the oldest first.
    pub reminders: Vec<Delivered>,
}

/// The user to erase.
#[derive(Debug, JsonSchema)]
pub struct EraseQuery {
    /// The user.
    pub user: UserId,
}

/// The result of erasing a user.
#[derive(Debug, JsonSchema)]
pub struct EraseAnswer {
    /// Numbers of removed entries.
    pub erased: Erased,
}
