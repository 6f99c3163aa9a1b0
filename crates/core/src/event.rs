//! The private format of `BELLHOP_PARKED`, and of what a partition plans: an index, and each
//! reminder's finished JSON.
//!
//! The intake writes a reminder's JSON once. The router reads the index alone and forwards the
//! bytes; nothing parses content again. A message is one line of JSON, the index, followed by the
//! reminders' bytes one after the other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use bellhop_protocol::reminder::Priority;
use bellhop_protocol::reminder::finished::{as_published, with_rerouted_to};
use bellhop_protocol::token::{Source, UserId};
use bellhop_protocol::trace::TraceParent;

/// The router's view of the reminders in a message: some of one or of several sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The sets that they came in.
    pub sets: Vec<OfSet>,
    /// One entry for each reminder, in order.
    pub reminders: Vec<IndexEntry>,
}

/// The set from which reminders came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfSet {
    /// The business system.
    pub source: Source,
    /// Its id.
    pub id: String,
    /// Its sequence in `BELLHOP_LOG`.
    pub sequence: u64,
    /// Time at which JetStream stored it, in milliseconds since 1970.
    pub published_ms: i64,
    /// The trace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
}

/// One reminder's line in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Index of its set in the list of sets.
    #[serde(default, skip_serializing_if = "is_default")]
    pub set: usize,
    /// Its index in that set as published.
    #[serde(default, skip_serializing_if = "is_default")]
    pub place: usize,
    /// The reminder's id.
    pub id: String,
    /// The user for whom it is published.
    pub user: UserId,
    /// Milliseconds since 1970 after which it is not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Its urgency.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// A hash of what it says, where there is a window for merging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<u128>,
    /// It is a copy for the user, of a reminder that this associate got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerouted_to: Option<UserId>,
    /// It is the user's alone: no associate may get it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stays: bool,
    /// It is not merged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_single: bool,
    /// Bytes of its finished JSON.
    pub bytes: usize,
}

/// Bytes of a line of an index, mostly.
const LINE_BYTES: usize = 160;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A decoded message: the index, and each reminder's finished JSON as a slice of the message.
#[derive(Debug, Clone)]
pub struct Event {
    /// The index.
    pub index: Index,
    /// The reminders' JSON, in the index's order.
    pub bodies: Vec<Bytes>,
}

/// The reason why a message is not an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is no line end after the index.
    #[error("the message has no index line")]
    NoIndex,
    /// The index is not the expected JSON.
    #[error("the index is not readable: {0}")]
    Index(#[from] serde_json::Error),
    /// The bodies are longer or shorter than the index says.
    #[error("the index names {indexed} bytes of reminders, the message has {found}")]
    Length {
        /// Bytes that the index names.
        indexed: usize,
        /// Bytes that follow the index.
        found: usize,
    },
    /// A reminder is of a set that the index does not describe.
    #[error("reminder {0} is of a set that the index does not describe")]
    Set(usize),
}

impl Event {
    /// Writes the message.
    pub fn encode(&self) -> Bytes {
        let bodies = self.bodies.iter().map(Bytes::len).sum::<usize>();
        let mut out = Vec::with_capacity(
            bodies + LINE_BYTES * (self.index.sets.len() + self.index.reminders.len()),
        );
        serde_json::to_writer(&mut out, &self.index).expect("an index has only string keys");
        out.push(b'\n');
        for body in &self.bodies {
            out.extend_from_slice(body);
        }
        out.into()
    }

    /// Reads a message without copying the reminders.
    ///
    /// # Errors
    /// Says what is wrong with a message that [`Event::encode`] did not write.
    pub fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let line = message
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(DecodeError::NoIndex)?;
        let index: Index = serde_json::from_slice(&message[..line])?;
        let mut rest = message.slice(line + 1..);
        let indexed = index
            .reminders
            .iter()
            .fold(0usize, |sum, entry| sum.saturating_add(entry.bytes));
        if indexed != rest.len() {
            return Err(DecodeError::Length {
                indexed,
                found: rest.len(),
            });
        }
        if let Some(at) = index
            .reminders
            .iter()
            .position(|entry| entry.set >= index.sets.len())
        {
            return Err(DecodeError::Set(at));
        }
        let bodies = index
            .reminders
            .iter()
            .map(|entry| rest.split_to(entry.bytes))
            .collect();
        Ok(Self { index, bodies })
    }

    /// The set that one of its reminders came in.
    pub fn set_of(&self, at: usize) -> &OfSet {
        &self.index.sets[self.index.reminders[at].set]
    }

    /// The event with one of its reminders alone.
    pub fn only(&self, at: usize) -> Self {
        let reminder = IndexEntry {
            set: 0,
            ..self.index.reminders[at].clone()
        };
        let sets = vec![self.set_of(at).clone()];
        Self {
            index: Index {
                sets,
                reminders: vec![reminder],
            },
            bodies: vec![self.bodies[at].clone()],
        }
    }

    /// One of its reminders' JSON in a form that may be published again: finished JSON does not
    /// have all that was said.
    pub fn publishable(&self, at: usize) -> Bytes {
        let IndexEntry {
            stays, is_single, ..
        } = self.index.reminders[at];
        as_published(self.bodies[at].to_vec(), stays, is_single).into()
    }

    /// A copy of one of its reminders, which an associate got, for the user. Nothing is merged into
    /// it.
    pub fn copy_of(&self, at: usize, rerouted_to: &UserId) -> Self {
        let mut copy = self.only(at);
        copy.bodies[0] = with_rerouted_to(&copy.bodies[0], rerouted_to).into();
        let reminder = &mut copy.index.reminders[0];
        (reminder.rerouted_to, reminder.text) = (Some(rerouted_to.clone()), None);
        reminder.bytes = copy.bodies[0].len();
        copy
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use bellhop_protocol::reminder::set;

    fn event(bodies: &[&str]) -> Event {
        let entry = |(i, body): (usize, &&str)| IndexEntry {
            set: i % 2,
            place: i,
            id: format!("r{i}"),
            user: "张三\"\\".parse().unwrap(),
            expires_at: (i % 2 == 0).then_some(i as i64),
            priority: if i == 0 {
                Priority::Urgent
            } else {
                Priority::Normal
            },
            text: (i != 1).then_some(u128::MAX),
            rerouted_to: (i == 0).then(|| "bob".parse().unwrap()),
            stays: i == 2,
            is_single: i == 1,
            bytes: body.len(),
        };
        let set = |sequence: u64| OfSet {
            source: "billing".parse().unwrap(),
            id: format!("s{sequence}"),
            sequence,
            published_ms: 1_763_000_000_123,
            trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .ok(),
        };
        Event {
            index: Index {
                sets: vec![set(7), set(8)],
                reminders: bodies.iter().enumerate().map(entry).collect(),
            },
            bodies: bodies
                .iter()
                .map(|body| Bytes::copy_from_slice(body.as_bytes()))
                .collect(),
        }
    }

    #[test]
    fn round_trips_and_takes_one_out() {
        let event = event(&["{\"a\":1}", "{}", "{\"b\":\"x\\ny\"}"]);
        let read = Event::decode(&event.encode()).unwrap();
        assert_eq!((&read.index, &read.bodies), (&event.index, &event.bodies));
        for at in 0..3 {
            let one = Event::decode(&read.only(at).encode()).unwrap();
            assert_eq!(
                (&one.index.reminders[0].id, &one.bodies[0]),
                (&format!("r{at}"), &event.bodies[at])
            );
            assert_eq!((one.index.sets.len(), one.set_of(0)), (1, event.set_of(at)));
        }
    }

    #[test]
    fn a_reminder_of_no_set_is_an_error() {
        let mut event = event(&["{}", "{}"]);
        event.index.sets.pop();
        assert!(matches!(
            Event::decode(&event.encode()),
            Err(DecodeError::Set(1))
        ));
    }

    #[test]
    fn requeued_reminder_says_the_same() {
        let origin = set::Origin {
            source: "billing".parse().unwrap(),
            sequence: 1,
            published_at: Timestamp::UNIX_EPOCH,
        };
        let event = event(&[r#"{"user":"a","content":"b"}"#; 3]);
        for (at, stays) in [(0, false), (1, false), (2, true)] {
            let again = [br#"{"reminders":["#, &*event.publishable(at), b"]}"].concat();
            let set = set::parse(&origin, &again).unwrap();
            let reminder = set.reminders[0].parsed.as_ref().unwrap();
            assert_eq!((reminder.stays, reminder.is_single), (stays, at == 1));
        }
    }

    proptest! {
        #[test]
        fn a_damaged_message_is_an_error(cut in 0usize..200, flip in 0usize..200, byte in any::<u8>()) {
            let mut bytes = event(&["{\"a\":1}", "{}"]).encode().to_vec();
            bytes.truncate(cut.max(1));
            let at = flip % bytes.len();
            bytes[at] = byte;
            let _ = Event::decode(&bytes.into()); // an error or another event, never a panic
        }
    }
}
