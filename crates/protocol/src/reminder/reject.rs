//! Reasons for refusing input: a stable code for each, and a detail that helps the publisher to fix
//! it.

use std::fmt;

macro_rules! reject_codes {
    ($($code:ident = $text:literal, $meaning:literal;)*) => {
        /// The stable code of a refusal: header `Bellhop-Error` of a rejected message, and `error`
        /// of an outcome `rejected`. [`RejectCode::ALL`] with [`RejectCode::meaning`] is the table
        /// of them all.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RejectCode {
            $(#[doc = $meaning] $code,)*
        }

        impl RejectCode {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// Returns the meaning of the code, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }
        }
    };
}

reject_codes! {
    UnreadableMessage = "unreadable_message", "The message's headers or subject are malformed, so Bellhop's NATS client cannot read it, or the connection broke each time that the message was delivered.";
    NotJson = "not_json", "The body is not one JSON text in UTF-8, or begins with a byte order mark.";
    InvalidCloudEvent = "invalid_cloud_event", "The message is a CloudEvent, but lacks an attribute, is not of version 1.0, has no JSON data, or its id and source are too long.";
    InvalidSet = "invalid_set", "The body is JSON, but neither an object with a list `reminders` or `cancel` nor a CloudEvent.";
    InvalidSource = "invalid_source", "The last token of the subject is not an escaped source name.";
    InvalidSetId = "invalid_set_id", "The set's `id` is empty, longer than 256 bytes, or has control characters.";
    NoReminders = "no_reminders", "The set neither has reminders nor cancels any.";
    TooManyReminders = "too_many_reminders", "The set has more than 10,000 reminders, or cancels more.";
    TooManyRefused = "too_many_refused", "So many of the set's reminders are invalid that refusing each alone would use more than 8 times the set's bytes and 4 KiB; the whole set is refused, with its valid reminders.";
    InvalidCancel = "invalid_cancel", "An entry of the set's `cancel` is neither the `id` of a reminder nor an object with `id` and `user`.";
    InvalidReminder = "invalid_reminder", "The reminder is not an object, lacks `user` or `content`, or a field has the wrong type, appears twice or has half of a surrogate pair.";
    InvalidId = "invalid_id", "The reminder's `id` is empty, longer than 256 bytes, or has control characters.";
    InvalidUser = "invalid_user", "The `user` is empty, longer than 128 bytes, or has control characters.";
    InvalidTitle = "invalid_title", "The `title` is longer than 1 KiB.";
    InvalidContent = "invalid_content", "The `content` is empty or longer than 64 KiB.";
    InvalidTag = "invalid_tag", "A tag is empty, longer than 128 bytes, or has control characters.";
    TooManyTags = "too_many_tags", "The reminder has more than 16 tags.";
    InvalidPriority = "invalid_priority", "The `priority` is not `low`, `normal`, `high` or `urgent`.";
    InvalidExpiresAt = "invalid_expires_at", "The `expires_at` is not an RFC 3339 time, or a zero time: 1970-01-01T00:00:00Z or before.";
    InvalidDeliverAt = "invalid_deliver_at", "The `deliver_at`, of a reminder or of a whole set, is not an RFC 3339 time, is after `2262-01-01T00:00:00Z`, or is not before the `expires_at`.";
    InvalidRepeat = "invalid_repeat", "The `repeat` is not a cron pattern of five fields and a time zone, has no occurrence within four years, or belongs to a reminder without an `id` or with one of more than 235 bytes.";
    InvalidData = "invalid_data", "The `data` has more than 64 levels, a number of more than 300 characters or too large for a double, a field name of more than 50,000 bytes, or half of a surrogate pair.";
    DuplicateId = "duplicate_id", "Another reminder of the set, or one published within `idempotency.window`, has the same `id` and user, but different content. No outcome has this code: the outcome under that id and user belongs to the other one.";
    ReminderTooLarge = "reminder_too_large", "The reminder as delivered, with its `data` and after its rules, would not fit into one delivery request of 256 KiB.";
    TooManyMatches = "too_many_matches", "The rules of the reminder's tags match more than a million times in one text.";
    RulesUnusable = "rules_unusable", "Neither the rules of one of the reminder's tags nor an earlier version of them can be used, so text that they hide could show. When an operator has corrected them, `bellhop rejected requeue` publishes the reminder again.";
    ScheduledFull = "scheduled_full", "There is no room for another scheduled reminder, or its source has more than half of all of them. Publish it again when there is room; `bellhop scheduled cancel` makes some.";
    MailboxFull = "mailbox_full", "The user is not connected, and the user's mailbox has no room for this source or this priority.";
    CorruptEvent = "corrupt_event", "A message of Bellhop's own streams that Bellhop did not write; set aside under source `bellhop`.";
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: its code, and a sentence that carries the offending input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// The code of the refusal.
    pub code: RejectCode,
    /// The problem, its position, and the fix. One line.
    pub detail: String,
}

impl Rejection {
    /// Makes a refusal; line breaks in `detail` become spaces, since it travels in a header.
    pub fn new(code: RejectCode, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string().replace(char::is_control, " ");
        truncate(&mut detail, 500);
        Self { code, detail }
    }
}

/// Cuts `text` to at most `bytes` bytes, at a character boundary.
fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_header_values() {
        let mut codes: Vec<_> = RejectCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), RejectCode::ALL.len());
    }

    #[test]
    fn the_documented_table_is_this_enum() {
        let documented = include_str!("../../../../docs/protocol.md")
            .split("| code | |")
            .nth(1)
            .unwrap();
        let table: Vec<_> = documented
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let row = |code: &RejectCode| format!("| `{code}` | {} |", code.meaning());
        assert_eq!(table, RejectCode::ALL.iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn details_are_one_bounded_line() {
        let rejection = Rejection::new(RejectCode::NotJson, format!("a\r\nb{}", "张".repeat(400)));
        assert!(rejection.detail.starts_with("a  b张"));
        assert!(rejection.detail.len() < 510);
    }
}
