//! The idempotency window of a partition: which reminders were published lately, and what they
//! said.
//!
//! A reminder's identity is its source, its id and its user. It is judged against earlier sets
//! only, by the times at which the sets were stored. So a reader that catches up, or a new owner
//! that reads a set again, comes to the same verdict: what comes later in the log, and when it is
//! read, makes no difference.
//!
//! The entries of a set are stored before the position passes it. A new owner loads those that its
//! position covers, and makes the others again from the log.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::time::Duration;

use bellhop_protocol::reminder::Reminder;
use bellhop_protocol::token::{Source, UserId};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use jiff::Timestamp;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::position::Mark;
use crate::partition::{Partition, hash_of_user, of_hash};

/// An identity in 128 bits. Of a reminder it is the hash of the user and one of all its names, 64
/// bits each: among a million reminders of one user, two are the same by chance once in 37 million
/// times.
pub type Id = u128;

/// Returns the partition among `count` of the user of a reminder with this identity.
pub fn partition_of(id: Id, count: u16) -> Partition {
    of_hash((id >> 64) as u64, count)
}

/// The name by which a reminder's source identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// By the id that its publisher chose, or that Bellhop made of a chosen name of the set.
    Id(&'a str),
    /// By its place in a set without a name that was published under this `Nats-Msg-Id`.
    InMessage(&'a str, usize),
}

/// Returns the identity of a reminder. Those of different kinds are never the same: names have no
/// control characters. A reminder that its publisher scheduled has the moment in its identity: a
/// reminder that was delivered may be scheduled again, for another moment, under the same id.
pub fn identity(
    source: &Source,
    name: Name<'_>,
    user: &UserId,
    deliver_at: Option<Timestamp>,
) -> Id {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    let mut text = |text: &str| {
        hasher.write(text.as_bytes());
        hasher.write_u8(0xff); // No text has this byte.
    };
    text(source.as_str());
    text(user.as_str());
    match name {
        Name::Id(id) => text(id),
        Name::InMessage(message, place) => {
            text("\0message");
            text(message);
            hasher.write_u64(place as u64);
        }
    }
    if let Some(at) = deliver_at {
        hasher.write_i128(at.as_nanosecond());
    }
    u128::from(hash_of_user(user)) << 64 | u128::from(hasher.finish128().as_u128() as u64)
}

/// Returns a hash of what a reminder says as published: all but its names and the time of
/// publishing.
pub fn content_hash(reminder: &Reminder) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    let mut part = |bytes: Option<&[u8]>| {
        // The length tells a part from the next one, and a missing part from an empty one.
        hasher.write_u64(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64));
        hasher.write(bytes.unwrap_or_default());
    };
    part(reminder.title.as_ref().map(String::as_bytes));
    part(Some(reminder.content.as_bytes()));
    part(Some(&(reminder.tags.len() as u64).to_le_bytes()));
    reminder
        .tags
        .iter()
        .for_each(|tag| part(Some(tag.as_str().as_bytes())));
    part(Some(reminder.priority.as_str().as_bytes()));
    for time in [reminder.deliver_at, reminder.expires_at] {
        part(
            time.map(|at| at.as_nanosecond().to_le_bytes())
                .as_ref()
                .map(|bytes| &bytes[..]),
        );
    }
    part(reminder.data.as_ref().map(|data| data.get().as_bytes()));
    part(Some(&[
        u8::from(reminder.stays),
        u8::from(reminder.is_single),
    ]));
    hasher.finish128().as_u128() as u64
}

/// Returns a hash of a message's body.
pub fn hash_of(body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(body);
    hasher.finish128().as_u128() as u64
}

/// The window's verdict on a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No earlier set within the window has it.
    New,
    /// An earlier set has it, and it says the same: it is dropped and counted.
    Repeat,
    /// An earlier set has its name for another text: it is refused.
    DuplicateId,
}

/// The new entries of one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// The set's sequence.
    pub sequence: u64,
    /// Time at which it was stored, in milliseconds since 1970.
    pub stored_ms: i64,
    /// Its new reminders: identity and hash of the content.
    pub reminders: Vec<(Id, u64)>,
}

/// The last set that brought an identity, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    sequence: u64,
    stored_ms: i64,
    content: u64,
}

impl Known {
    fn order(&self) -> (i64, u64) {
        (self.stored_ms, self.sequence)
    }
}

/// The window of one partition.
#[derive(Debug)]
pub struct Window {
    length_ms: i64,
    max_ids: usize,
    known: HashMap<Id, Known>,
    by_age: VecDeque<(Id, Known)>,
}

impl Window {
    /// An empty window of this length, for at most this many identities.
    pub fn new(length: Duration, max_ids: usize) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self {
            length_ms,
            max_ids,
            known: HashMap::new(),
            by_age: VecDeque::new(),
        }
    }

    /// Judges a reminder of a set that was stored at `stored_ms`. To be asked for all sets in the
    /// order of the log, and for a set before its own entries are noted.
    pub fn judge(&self, id: Id, content: u64, stored_ms: i64) -> Verdict {
        match self.known.get(&id) {
            Some(known) if stored_ms.saturating_sub(known.stored_ms) < self.length_ms => {
                if known.content == content {
                    Verdict::Repeat
                } else {
                    Verdict::DuplicateId
                }
            }
            _ => Verdict::New,
        }
    }

    /// Returns when the last set that brought this identity was stored, in milliseconds since 1970.
    pub fn last_ms(&self, id: Id) -> Option<i64> {
        self.known.get(&id).map(|known| known.stored_ms)
    }

    /// Notes what a set brought, and forgets what no later set is judged by. Returns how many
    /// identities were forgotten before their time, because there are more than `max_ids`.
    pub fn note(&mut self, entries: &Entries) -> usize {
        let Entries {
            sequence,
            stored_ms,
            reminders,
        } = entries;
        for &(id, content) in reminders {
            let known = Known {
                sequence: *sequence,
                stored_ms: *stored_ms,
                content,
            };
            match self.known.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(known);
                }
                // Two owners may have stored the same entries, and the one that was late stored
                // them behind newer ones.
                Entry::Occupied(other) if other.get().order() >= known.order() => continue,
                Entry::Occupied(mut other) => {
                    other.insert(known);
                }
            }
            self.by_age.push_back((id, known));
        }
        let is_over = |known: &Known| stored_ms.saturating_sub(known.stored_ms) >= self.length_ms;
        let mut early = 0;
        while let Some((id, oldest)) = self.by_age.front().copied() {
            let is_over = is_over(&oldest);
            if !is_over && self.by_age.len() <= self.max_ids {
                break;
            }
            self.by_age.pop_front();
            if let Entry::Occupied(last) = self.known.entry(id)
                && *last.get() == oldest
            {
                last.remove();
                early += usize::from(!is_over);
            }
        }
        early
    }

    /// Takes in entries that an earlier owner stored. Entries that the position does not cover are
    /// left out: those sets are read again, and judged by what lies before them.
    pub fn load(&mut self, entries: &Entries, settled: Mark) {
        if settled.covers(entries.sequence, entries.stored_ms) {
            self.note(entries);
        }
    }

    /// Returns how many identities it holds.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns true if it holds none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Bytes of a set's head in a message of entries, and
const HEAD_BYTES: usize = 20;
/// of each of its reminders.
const ENTRY_BYTES: usize = 24;

/// Returns how many bytes these entries take in a message.
pub fn encoded_bytes(entries: &Entries) -> usize {
    HEAD_BYTES + ENTRY_BYTES * entries.reminders.len()
}

/// Writes entries as one message: for each set its sequence, time and number of reminders, then for
/// each of these its identity and the hash of its content, all little-endian.
pub fn encode(sets: &[Entries]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sets.iter().map(encoded_bytes).sum());
    for Entries {
        sequence,
        stored_ms,
        reminders,
    } in sets
    {
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&stored_ms.to_le_bytes());
        out.extend_from_slice(&(reminders.len() as u32).to_le_bytes());
        for (id, content) in reminders {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&content.to_le_bytes());
        }
    }
    out
}

/// Reads such a message; a damaged end is left out.
pub fn decode(mut bytes: &[u8]) -> Vec<Entries> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*head)
    }
    let mut one = || {
        let sequence = u64::from_le_bytes(number(&mut bytes)?);
        let stored_ms = i64::from_le_bytes(number(&mut bytes)?);
        let count = u32::from_le_bytes(number(&mut bytes)?);
        let mut entry = || {
            Some((
                u128::from_le_bytes(number(&mut bytes)?),
                u64::from_le_bytes(number(&mut bytes)?),
            ))
        };
        let reminders = (0..count).map(|_| entry()).collect::<Option<_>>()?;
        Some(Entries {
            sequence,
            stored_ms,
            reminders,
        })
    };
    std::iter::from_fn(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use bellhop_protocol::reminder::set::{self, Origin};

    use crate::partition::of_user;
    use proptest::prelude::*;

    use super::*;

    fn entries(sequence: u64, stored_ms: i64, ids: &[Id]) -> Entries {
        Entries {
            sequence,
            stored_ms,
            reminders: ids.iter().map(|id| (*id, 1)).collect(),
        }
    }

    fn window(max_ids: usize) -> Window {
        Window::new(Duration::from_secs(10), max_ids)
    }

    #[test]
    fn same_content_repeats_and_other_content_is_refused() {
        let mut window = window(100);
        window.note(&entries(1, 5, &[7]));
        assert_eq!(window.judge(7, 1, 6), Verdict::Repeat);
        assert_eq!(window.judge(7, 2, 6), Verdict::DuplicateId);
        assert_eq!(window.judge(8, 1, 6), Verdict::New);
    }

    #[test]
    fn window_ends_though_no_set_was_noted_since() {
        let mut window = window(100);
        window.note(&entries(1, 0, &[7]));
        assert_eq!(window.judge(7, 1, 9_999), Verdict::Repeat);
        assert_eq!(window.judge(7, 1, 10_000), Verdict::New);
    }

    #[test]
    fn early_forgetting_is_counted() {
        let mut window = window(2);
        assert_eq!(
            window.note(&entries(1, 0, &[1])) + window.note(&entries(2, 9_999, &[2])),
            0
        );
        assert_eq!(
            window.note(&entries(3, 10_000, &[3])),
            0,
            "its time was over"
        );
        assert_eq!(window.note(&entries(4, 10_000, &[4])), 1);
        assert_eq!(
            window.judge(2, 1, 10_000),
            Verdict::New,
            "more than two are not remembered"
        );
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn expired_window_takes_no_memory() {
        let mut window = window(100);
        window.note(&entries(1, 0, &[1, 2]));
        window.note(&entries(2, 10_000, &[1]));
        assert_eq!((window.len(), window.by_age.len()), (1, 1));
    }

    #[test]
    fn load_leaves_out_sets_above_the_position() {
        let (mut window, settled) = (
            window(100),
            Mark {
                sequence: 2,
                stored_ms: 20,
            },
        );
        window.load(&entries(2, 20, &[1]), settled);
        window.load(&entries(3, 20, &[2]), settled);
        window.load(&entries(1, 21, &[3]), settled);
        assert_eq!(
            [1, 2, 3].map(|id| window.judge(id, 1, 30)),
            [Verdict::Repeat, Verdict::New, Verdict::New]
        );
    }

    #[test]
    fn late_entries_do_not_replace_newer_ones() {
        let mut window = window(100);
        window.note(&entries(9, 12_000, &[1]));
        window.note(&entries(1, 0, &[1]));
        window.note(&entries(9, 12_000, &[1]));
        assert_eq!(window.judge(1, 1, 13_000), Verdict::Repeat);
        assert_eq!(window.by_age.len(), 1);
    }

    #[test]
    fn identities_are_apart() {
        let (source, other): (Source, Source) =
            ("billing".parse().unwrap(), "claims".parse().unwrap());
        let (alice, bob): (UserId, UserId) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let now = |source, name, user| identity(source, name, user, None);
        let at = |second| Timestamp::from_second(second).ok();
        let all = [
            now(&source, Name::Id("x"), &alice),
            now(&source, Name::Id("x"), &bob),
            now(&other, Name::Id("x"), &alice),
            now(&source, Name::InMessage("x", 0), &alice),
            now(&source, Name::InMessage("x", 1), &alice),
            identity(&source, Name::Id("x"), &alice, at(0)),
            identity(&source, Name::Id("x"), &alice, at(1)),
        ];
        assert_eq!(
            all.iter().collect::<hashbrown::HashSet<_>>().len(),
            all.len()
        );
        for count in [1, 7, 32] {
            for (id, user) in [(all[0], &alice), (all[1], &bob), (all[6], &alice)] {
                assert_eq!(partition_of(id, count), of_user(user, count));
            }
        }
    }

    #[test]
    fn content_is_all_that_a_publisher_says() {
        let origin = |sequence| Origin::new("billing".parse().unwrap(), sequence, sequence as i64);
        let hash = |sequence, reminder: &str| {
            let json = format!(r#"{{"reminders":[{reminder}]}}"#);
            let set = set::parse(&origin(sequence), json.as_bytes()).unwrap();
            content_hash(set.reminders[0].parsed.as_ref().unwrap())
        };
        let plain = hash(1, r#"{"id":"a","user":"u","content":"c"}"#);
        assert_eq!(
            plain,
            hash(
                2,
                r#"{"content":"c", "priority":"normal","tags":[],"user":"u"}"#
            )
        );
        let others = [
            r#"{"user":"u","content":"d"}"#,
            r#"{"user":"u","content":"c","title":""}"#,
            r#"{"user":"u","content":"c","tags":["t"]}"#,
            r#"{"user":"u","content":"c","priority":"high"}"#,
            r#"{"user":"u","content":"c","deliver_at":"2026-11-29T00:00:00Z"}"#,
            r#"{"user":"u","content":"c","expires_at":"2026-11-29T00:00:00Z"}"#,
            r#"{"user":"u","content":"c","data":{}}"#,
            r#"{"user":"u","content":"c","reroute":false}"#,
            r#"{"user":"u","content":"c","merge":false}"#,
        ];
        let all: hashbrown::HashSet<u64> = others
            .iter()
            .map(|other| hash(1, other))
            .chain([plain])
            .collect();
        assert_eq!(all.len(), others.len() + 1);
    }

    proptest! {
        /// The verdict is that of the accepted reminders before, also if an owner starts again at
        /// any position.
        #[test]
        fn verdict_follows_from_earlier_sets(
            sets in prop::collection::vec((0..4_000i64, 0..4u128, 0..2u64, any::<bool>()), 1..60),
        ) {
            const LENGTH: i64 = 5_000;
            let new = || Window::new(Duration::from_millis(LENGTH as u64), 1_000);
            let (mut window, mut stored_ms, mut accepted, mut stored) = (new(), 0, Vec::<(Id, u64, i64)>::new(), Vec::new());
            for (sequence, (pause, id, content, is_taken_over)) in (1..).zip(sets) {
                if is_taken_over {
                    window = new();
                    let settled = Mark { sequence: sequence - 1, stored_ms };
                    decode(&encode(&stored)).iter().for_each(|entries| window.load(entries, settled));
                }
                stored_ms += pause;
                let last = accepted.iter().rev().find(|(other, _, at)| *other == id && stored_ms - at < LENGTH);
                let expected = match last {
                    None => Verdict::New,
                    Some((_, other, _)) if *other == content => Verdict::Repeat,
                    Some(_) => Verdict::DuplicateId,
                };
                prop_assert_eq!(window.judge(id, content, stored_ms), expected);
                if expected == Verdict::New {
                    let entries = Entries { sequence, stored_ms, reminders: vec![(id, content)] };
                    window.note(&entries);
                    stored.push(entries);
                    accepted.push((id, content, stored_ms));
                }
            }
        }

        #[test]
        fn any_message_is_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            decode(&bytes);
        }
    }

    #[test]
    fn messages_round_trip_and_damage_is_left_out() {
        let sets = [entries(1, 5, &[1, u128::MAX]), entries(2, 6, &[])];
        let bytes = encode(&sets);
        assert_eq!(bytes.len(), sets.iter().map(encoded_bytes).sum::<usize>());
        assert_eq!(decode(&bytes), sets);
        assert_eq!(decode(&bytes[..bytes.len() - 1]), sets[..1]);
    }
}
