//! A reminder as an app server receives it.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use bellhop_protocol::reminder::duplicate::Duplicate;
use bellhop_protocol::reminder::{Mark, Priority};
use bellhop_protocol::token::{Source, Tag, UserId};

/// A delivered reminder. Fields that this client does not know are in
/// [`Delivery::json`](super::Delivery::json) alone.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Reminder {
    /// Unique within its source. `source`, `id` and `user` together identify the reminder.
    pub id: String,
    /// The business system that published it.
    pub source: Source,
    /// The name of the set in which it was published.
    pub set: String,
    /// The user to show it to, who is connected here.
    pub user: UserId,
    /// A short headline.
    pub title: Option<String>,
    /// The text. It is empty if a rule removed all of it.
    pub content: String,
    /// Topics.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Its urgency.
    #[serde(default)]
    pub priority: Priority,
    /// Time of publishing, by the clock of NATS.
    pub published_at: Timestamp,
    /// The earliest delivery that its publisher asked for.
    pub deliver_at: Option<Timestamp>,
    /// Time of expiry.
    pub expires_at: Option<Timestamp>,
    /// The publisher's own JSON, byte for byte.
    pub data: Option<Box<RawValue>>,
    /// The number of merged reminders, itself included.
    #[serde(default = "one")]
    pub count: usize,
    /// The others.
    #[serde(default)]
    pub merged: Vec<Duplicate>,
    /// Parts of its texts to highlight or link.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// The original user, if `user` received it as an associate.
    #[serde(rename = "for")]
    pub meant_for: Option<UserId>,
    /// The associate who received it, if this is the copy for the original user.
    pub rerouted_to: Option<UserId>,
    /// Time at which it was put into the user's mailbox, if it waited there.
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
    fn reads_the_example_of_the_protocol_page() {
        let page = include_str!("../../../docs/protocol.md")
            .split("## Deliveries")
            .nth(1)
            .unwrap();
        let example = page
            .split("```json delivery\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
        let reminder: Reminder = serde_json::from_value(example["reminders"][0].take()).unwrap();
        assert_eq!(
            (reminder.id.as_str(), reminder.user.as_str(), reminder.count),
            ("inv-981", "alice", 2)
        );
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
