//! Reminders: what a business system publishes, and what an app server receives. Pure.
//!
//! [`set`] reads and validates a published set, [`reject`] names what can be wrong with it.
//! [`Reminder`] is the result: the reminder as it is delivered; [`finished`] is about its JSON.

pub(crate) mod body;
pub mod cancellation;
pub mod duplicate;
pub mod fields;
pub mod finished;
pub mod history;
pub mod id;
pub mod outcome;
pub mod raw;
pub mod readable;
pub mod reject;
pub mod repeat;
pub mod set;
pub mod time;

use std::hash::Hasher;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::token::{Source, Tag, UserId};
use duplicate::Duplicate;
use raw::Lacking;
use repeat::Repeat;

/// The largest delivery request, in bytes of its JSON body.
pub const MAX_DELIVERY_BYTES: usize = 256 * 1024;

/// The number of bytes around the reminders in a delivery request's body: `{"reminders":[` and
/// `]}`.
pub const DELIVERY_FRAME_BYTES: usize = 16;

/// The largest finished reminder: one always fits into a request, with `parked_at` added.
pub const MAX_REMINDER_BYTES: usize = MAX_DELIVERY_BYTES - 64 - DELIVERY_FRAME_BYTES;

/// Bytes of a finished reminder beside its texts and data, mostly.
const FIELDS_BYTES: usize = 256;

/// The urgency of a reminder.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Can wait.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Matters today.
    High,
    /// Matters now.
    Urgent,
}

impl Priority {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Urgent];

    /// Its name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }

    /// The priority of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == name)
    }
}

/// A reminder as it is delivered to an app server. Field order is the contract's.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reminder {
    /// Unique within the source.
    pub id: String,
    /// The business system that published it.
    pub source: Source,
    /// The name of the set it came in.
    pub set: Arc<str>,
    /// The user for whom it is published.
    pub user: UserId,
    /// A short headline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text.
    pub content: String,
    /// They select the rules.
    pub tags: Vec<Tag>,
    /// Its urgency.
    pub priority: Priority,
    /// Time at which JetStream stored the set.
    pub published_at: Timestamp,
    /// Not delivered before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// Never delivered after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The publisher's own JSON, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    pub data: Option<Box<RawValue>>,
    /// Number of reminders of the set that this one stands for, if duplicates were merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// The reminders merged into this one: their ids, and their data if it is other data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Duplicate>,
    /// Marks of the rules, those of the title first, sorted by start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// No associate may get it. It is not announced.
    #[serde(skip)]
    pub stays: bool,
    /// It is not merged with its duplicates. App servers do not learn of it.
    #[serde(skip)]
    pub is_single: bool,
    /// The pattern of its recurrence. A delivered reminder is one occurrence, which has none.
    #[serde(skip)]
    pub repeat: Option<Box<Repeat>>,
    /// The fields that its published bytes lack; none if they cannot be forwarded. To be set to
    /// none by what changes a field that is delivered.
    #[serde(skip)]
    pub lacking: Option<Lacking>,
}

/// A place in a reminder's text that a rule marked. Offsets are in Unicode scalar values of the
/// text as delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Mark {
    /// The tag whose rule it is.
    pub tag: Tag,
    /// The rule's name.
    pub rule: String,
    /// The marked text.
    pub field: Field,
    /// Start of the mark.
    pub start: usize,
    /// End of the mark.
    pub end: usize,
    /// The way to show it.
    pub action: MarkAction,
    /// The address of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
}

/// A text of a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// The headline.
    Title,
    /// The text.
    Content,
}

/// The way to show a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MarkAction {
    /// It stands out.
    Highlight,
    /// It leads somewhere.
    Link,
}

/// A hasher that has read these texts, each separated from the next by a byte that no text has. The
/// results are stored, so this function must never change.
pub fn hasher_of<const N: usize>(texts: [&str; N]) -> SipHasher13 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher
}

impl Reminder {
    /// A reminder with what every one has.
    pub fn new(
        id: String,
        source: Source,
        set: impl Into<Arc<str>>,
        user: UserId,
        content: String,
        published_at: Timestamp,
    ) -> Self {
        Self {
            id,
            source,
            set: set.into(),
            user,
            title: None,
            content,
            tags: Vec::new(),
            priority: Priority::default(),
            published_at,
            deliver_at: None,
            expires_at: None,
            data: None,
            count: None,
            merged: Vec::new(),
            marks: Vec::new(),
            stays: false,
            is_single: false,
            repeat: None,
            lacking: None,
        }
    }

    /// A hash of what it says to whom, in 128 bits: among 100 million, two are the same by chance
    /// once in 10²² times.
    pub fn text_hash(&self) -> u128 {
        let mut hasher = hasher_of([self.source.as_str(), self.user.as_str(), &self.content]);
        // No title is another title than an empty one.
        if let Some(title) = &self.title {
            hasher.write(b"=");
            hasher.write(title.as_bytes());
        }
        hasher.finish128().as_u128()
    }

    /// The reminder as bytes of JSON, as they go into a delivery request.
    pub fn to_json(&self) -> Vec<u8> {
        let texts = self.title.as_ref().map_or(0, String::len) + self.content.len();
        let mut json = Vec::with_capacity(
            FIELDS_BYTES + texts + self.data.as_ref().map_or(0, |data| data.get().len()),
        );
        serde_json::to_writer(&mut json, self)
            .expect("a reminder has only string keys and valid JSON inside");
        json
    }
}
