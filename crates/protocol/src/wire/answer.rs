//! App servers' answers to heartbeats and deliveries, and the requests themselves.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::reminder::{DELIVERY_FRAME_BYTES, MAX_DELIVERY_BYTES};

/// The most bytes of an answer: four times what a delivery may have. All of it refused, with each
/// name escaped, takes less.
pub const MAX_ANSWER_BYTES: usize = 4 * MAX_DELIVERY_BYTES;

/// The most users that one heartbeat asks about.
pub const MAX_HEARTBEAT_USERS: usize = 1_000;

/// One refused reminder of a delivery's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// The reminder's id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// The reminder's user.
    pub user: String,
    /// `not_connected` or `busy`.
    pub reason: Reason,
}

/// The reason of a refusal, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The user is not connected there.
    NotConnected,
    /// Not now.
    Busy,
}

/// An answer to a delivery. Empty, it accepts all.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeliveryAnswer {
    /// The refused reminders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A heartbeat: who is asked about.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Heartbeat")
)]
pub struct Heartbeat<U> {
    /// The users, up to 1,000.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_HEARTBEAT_USERS)))]
    pub users: Vec<U>,
}

/// An answer to a heartbeat: who is connected.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "HeartbeatAnswer")
)]
pub struct HeartbeatAnswer<U> {
    /// The users that are. Names that were not asked about are ignored.
    pub connected: Vec<U>,
}

/// Puts finished reminders into the body of a delivery request.
pub fn delivery_body<'a>(reminders: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
    let mut body = Vec::with_capacity(
        DELIVERY_FRAME_BYTES + reminders.clone().map(|json| json.len() + 1).sum::<usize>(),
    );
    body.extend_from_slice(br#"{"reminders":["#);
    for (place, reminder) in reminders.enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(reminder);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// Reads an answer's body. None, if it is not the contract's: a JSON object of this form, of 1 MiB
/// at most.
pub fn read<A: for<'a> Deserialize<'a>>(body: &[u8]) -> Option<A> {
    if body.len() > MAX_ANSWER_BYTES {
        None
    } else {
        super::object(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contracts_answers_are_answers() {
        let answer = |body: &str| read::<DeliveryAnswer>(body.as_bytes());
        assert_eq!(answer("{}"), Some(DeliveryAnswer::default()));
        assert_eq!(
            answer(r#" {"note":"unknown fields are ignored"}"#),
            Some(DeliveryAnswer::default())
        );
        let refused = r#"{"refused":[{"id":"i","source":"s","user":"u","reason":"busy"}]}"#;
        assert_eq!(answer(refused).unwrap().refused[0].reason, Reason::Busy);
        for garbage in [
            "",
            "ok",
            "null",
            "[]",
            "[[]]",
            "{",
            r#"{"refused":7}"#,
            &refused.replace("busy", "tired"),
        ] {
            assert_eq!(answer(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn longest_answer_is_read() {
        let padded = |bytes: usize| format!("{{}}{}", " ".repeat(bytes - 2));
        let answer = |bytes| read::<DeliveryAnswer>(padded(bytes).as_bytes());
        assert!(answer(MAX_ANSWER_BYTES).is_some());
        assert_eq!(answer(MAX_ANSWER_BYTES + 1), None);
    }

    #[test]
    fn delivery_body_lists_the_reminders() {
        let body = |reminders: &[&str]| delivery_body(reminders.iter().map(|r| r.as_bytes()));
        assert_eq!(body(&[]), r#"{"reminders":[]}"#);
        assert_eq!(body(&["{\"a\":1}", "{}"]), r#"{"reminders":[{"a":1},{}]}"#);
    }
}
