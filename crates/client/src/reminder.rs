//! A reminder as an app server gets it.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use bellhop_protocol::reminder::{Mark, Priority};
use bellhop_protocol::token::{Source, Tag, UserId};

/// A reminder as it is delivered. What this client does not know of is left out of it, and stands in
/// [`Delivery::json`](super::Delivery::json).
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Reminder {
    /// Unique within its source. The same `source`, `id` and `user` is the same reminder.
    pub id: String,
    /// The business system that published it.
    pub source: Source,
    /// The name of the set in which it was published.
    pub set: String,
    /// Whom it is delivered to: a user who is connected here.
    pub user: UserId,
    /// A short headline.
    pub title: Option<String>,
    /// The text. It is empty where a rule removed all of it.
    pub content: String,
    /// What it is about.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// When it was published, by the clock of NATS.
    pub published_at: Timestamp,
    /// It was to be delivered then, if it said so.
    pub deliver_at: Option<Timestamp>,
    /// It says nothing any more after this.
    pub expires_at: Option<Timestamp>,
    /// The publisher's own JSON, byte for byte.
    pub data: Option<Box<RawValue>>,
    /// How many reminders it stands for, itself included.
    #[serde(default = "one")]
    pub count: usize,
    /// The ids of the others that it stands for.
    #[serde(default)]
    pub merged: Vec<String>,
    /// What is to stand out in its texts, or leads somewhere.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// The user for whom it was meant, where `user` is that user's associate.
    #[serde(rename = "for")]
    pub meant_for: Option<UserId>,
    /// The associate who got it, where this is the copy for the user for whom it was meant.
    pub rerouted_to: Option<UserId>,
    /// When it was put into the user's mailbox, where it waited there.
    pub parked_at: Option<Timestamp>,
}

fn one() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The protocol page's own example, and what it says of fields that are not always there.
    #[test]
    fn it_is_what_the_protocol_page_shows() {
        let page = include_str!("../../../docs/protocol.md").split("## Deliveries").nth(1).unwrap();
        let example = page.split("```json delivery\n").nth(1).unwrap().split("```").next().unwrap();
        let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
        let reminder: Reminder = serde_json::from_value(example["reminders"][0].take()).unwrap();
        assert_eq!((reminder.id.as_str(), reminder.user.as_str(), reminder.count), ("inv-981", "alice", 2));
        assert_eq!(reminder.data.unwrap().get(), r#"{"invoice":981}"#);
        assert_eq!((reminder.merged.len(), reminder.marks.len()), (1, 1));
        assert!(reminder.expires_at.is_some() && reminder.parked_at.is_some());

        let least = r#"{"id":"i","source":"s","set":"7","user":"bob","content":"c","tags":[],"priority":"urgent",
            "published_at":"2026-11-22T08:00:00Z","for":"alice","unheard_of":[1]}"#;
        let least: Reminder = serde_json::from_str(least).unwrap();
        assert_eq!((least.priority, least.count), (Priority::Urgent, 1));
        assert_eq!(least.meant_for.unwrap().as_str(), "alice");
    }
}
