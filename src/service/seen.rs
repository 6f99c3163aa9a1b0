//! The idempotency window: which (source, id) were taken in lately, and with which set.
//!
//! It is kept in memory and in a stream of its own, whose age limit is the window, so that a new intake knows what the
//! last one took in. Age is measured between the times at which JetStream stored the sets: a backlog that is worked
//! off late is judged as if it had been worked off at once.
//!
//! A set is noted in the stream when everything else of it is durable. So a set that comes again although it is noted
//! (nats-server lost its acknowledgement in a crash) is complete, and its events must not be published again: those that
//! were worked are gone from their stream, and a partition that was taken over since does not know them. For a set
//! that was not noted yet when that happened, the outcomes tell which of its reminders are done.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use hashbrown::{HashMap, HashSet};
use serde::Deserialize;
use siphasher::sip128::Hasher128;

use crate::nats::replay::{last_sequence, replay};
use crate::nats::{Nats, NatsError};
use crate::reminder::hasher_of;
use crate::reminder::outcome::Batch;
use crate::token::Source;

/// A (source, id), in 128 bits: among 100 million, two are the same by chance once in 10²² times.
pub type Id = u128;

/// The identity of a reminder.
pub fn identity(source: &Source, id: &str) -> Id {
    let mut hasher = hasher_of([source.as_str()]);
    hasher.write(id.as_bytes());
    hasher.finish128().as_u128()
}

/// What one set brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The set's sequence.
    pub sequence: u64,
    /// When JetStream stored it, in milliseconds since 1970.
    pub stored_ms: i64,
    /// Its reminders.
    pub ids: Vec<Id>,
}

/// The window.
#[derive(Debug)]
pub struct Window {
    length_ms: i64,
    max_ids: usize,
    sets: HashMap<Id, u64>,
    by_age: VecDeque<(Id, u64, i64)>,
    /// Sets of which everything is durable, with their times.
    complete: BTreeMap<u64, i64>,
    /// Reminders with a recent outcome, and the last set that can have brought them.
    done: (HashSet<Id>, u64),
}

impl Window {
    /// An empty window of this length, for at most this many reminders.
    pub fn new(length: Duration, max_ids: usize) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self {
            length_ms,
            max_ids,
            sets: HashMap::new(),
            by_age: VecDeque::new(),
            complete: BTreeMap::new(),
            done: Default::default(),
        }
    }

    /// Whether a set with this sequence repeats a reminder of another set. A set that comes again itself, after a
    /// crash, repeats nothing: partitions know what of it is stored already.
    pub fn is_repeat(&self, id: Id, sequence: u64) -> bool {
        let (done, last_set) = &self.done;
        self.sets.get(&id).is_some_and(|&seen| seen != sequence) || (sequence <= *last_set && done.contains(&id))
    }

    /// Notes a set's reminders, and forgets what is too old or too much.
    pub fn note(&mut self, taken: &Taken) {
        for &id in &taken.ids {
            self.sets.insert(id, taken.sequence);
            self.by_age.push_back((id, taken.sequence, taken.stored_ms));
        }
        while let Some(&(id, sequence, stored_ms)) = self.by_age.front() {
            if self.by_age.len() <= self.max_ids && taken.stored_ms.saturating_sub(stored_ms) < self.length_ms {
                break;
            }
            self.by_age.pop_front();
            if self.sets.get(&id) == Some(&sequence) {
                self.sets.remove(&id);
            }
        }
    }

    /// Whether everything of this set is durable. A stream that was made anew has other sets of the same sequences.
    pub fn is_complete(&self, sequence: u64, stored_ms: i64) -> bool {
        self.complete.get(&sequence) == Some(&stored_ms)
    }

    /// A set that was noted before is in the stream.
    pub fn complete(&mut self, sequence: u64, stored_ms: i64) {
        self.complete.insert(sequence, stored_ms);
        while let Some(oldest) = self.complete.first_entry() {
            let age_ms = stored_ms.saturating_sub(*oldest.get());
            if age_ms < self.length_ms && self.complete.len() <= self.max_ids {
                break;
            }
            self.complete.pop_first();
        }
    }

    /// Reads back what earlier intakes noted.
    ///
    /// # Errors
    /// When the stream could not be read to its end.
    pub async fn load(&mut self, nats: &Nats) -> Result<(), NatsError> {
        let stream = nats.names.seen_stream();
        let last = last_sequence(nats, &stream).await?;
        replay(nats, &stream, pull::Config::default(), last, |message, _| {
            for taken in decode(&message.payload) {
                self.note(&taken);
                self.complete(taken.sequence, taken.stored_ms);
            }
        })
        .await?;
        self.load_done(nats).await
    }

    async fn load_done(&mut self, nats: &Nats) -> Result<(), NatsError> {
        let failed = |error: &dyn std::fmt::Display| NatsError::failed("read recent outcomes", error);
        let info = |stream| async { nats.jetstream.get_stream(stream).await.map_err(|error| failed(&error)) };
        let sets = info(nats.names.sets_stream()).await?.cached_info().state.clone();
        let outcomes = info(nats.names.outcomes_stream()).await?.cached_info().state.clone();
        if sets.messages == 0 || outcomes.messages == 0 {
            return Ok(());
        }
        self.done.1 = sets.last_sequence;
        let start_time = outcomes.last_timestamp - RECENT;
        let config = pull::Config { deliver_policy: DeliverPolicy::ByStartTime { start_time }, ..Default::default() };
        replay(nats, &nats.names.outcomes_stream(), config, outcomes.last_sequence, |message, _| {
            self.done.0.extend(done_in(&message.payload));
        })
        .await
    }
}

/// No set that waits for its acknowledgement had its first outcome longer ago than this before the last outcome.
const RECENT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Named {
    id: String,
    source: Source,
    #[serde(default)]
    escalated: bool,
}

/// The reminders of which a message of outcomes says for the first time what became of them. That one has been parked for
/// long was announced in its time: whoever publishes its id again now does not repeat what has just been taken in.
fn done_in(message: &[u8]) -> Vec<Id> {
    let outcomes = serde_json::from_slice::<Batch<Named>>(message).map(|batch| batch.outcomes).unwrap_or_default();
    let told = outcomes.iter().filter(|named| !named.escalated);
    told.map(|named| identity(&named.source, &named.id)).collect()
}

/// Writes sets as one message: for each its sequence, time and number of ids, then the ids, all little-endian.
pub fn encode(sets: &[Taken]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sets.iter().map(|taken| 20 + 16 * taken.ids.len()).sum());
    for taken in sets {
        out.extend_from_slice(&taken.sequence.to_le_bytes());
        out.extend_from_slice(&taken.stored_ms.to_le_bytes());
        out.extend_from_slice(&(taken.ids.len() as u32).to_le_bytes());
        taken.ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    }
    out
}

/// Reads such a message; a damaged end is left out.
fn decode(mut bytes: &[u8]) -> Vec<Taken> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*head)
    }
    let mut one = || {
        let sequence = u64::from_le_bytes(number(&mut bytes)?);
        let stored_ms = i64::from_le_bytes(number(&mut bytes)?);
        let count = u32::from_le_bytes(number(&mut bytes)?);
        let ids = (0..count).map(|_| number(&mut bytes).map(u128::from_le_bytes)).collect::<Option<_>>()?;
        Some(Taken { sequence, stored_ms, ids })
    };
    std::iter::from_fn(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sequence: u64, stored_ms: i64, ids: &[Id]) -> Taken {
        Taken { sequence, stored_ms, ids: ids.to_vec() }
    }

    #[test]
    fn another_set_repeats_and_the_same_set_does_not() {
        let mut window = Window::new(Duration::from_secs(10), 100);
        window.note(&taken(1, 0, &[7]));
        assert!(window.is_repeat(7, 2));
        assert!(!window.is_repeat(7, 1));
        assert!(!window.is_repeat(8, 2));
    }

    #[test]
    fn it_forgets_by_age_and_by_number() {
        let mut window = Window::new(Duration::from_secs(10), 2);
        window.note(&taken(1, 0, &[1]));
        window.note(&taken(2, 9_999, &[2]));
        assert!(window.is_repeat(1, 9));
        window.note(&taken(3, 10_000, &[3]));
        assert!(!window.is_repeat(1, 9));
        window.note(&taken(4, 10_000, &[4]));
        assert!(!window.is_repeat(2, 9), "more than two are not remembered");
        assert_eq!((window.sets.len(), window.by_age.len()), (2, 2));
    }

    #[test]
    fn an_id_taken_again_is_not_forgotten_with_its_first_set() {
        let mut window = Window::new(Duration::from_secs(10), 100);
        window.note(&taken(1, 0, &[1]));
        window.note(&taken(2, 9_000, &[1]));
        window.note(&taken(3, 11_000, &[]));
        assert!(window.is_repeat(1, 9));
    }

    #[test]
    fn completed_sets_are_remembered_for_the_window() {
        let mut window = Window::new(Duration::from_secs(10), 2);
        window.complete(1, 0);
        assert!(window.is_complete(1, 0) && !window.is_complete(2, 0));
        assert!(!window.is_complete(1, 1), "another stream's set of this sequence");
        window.complete(2, 9_000);
        window.complete(3, 10_000);
        assert!(!window.is_complete(1, 0) && window.is_complete(2, 9_000));
        window.complete(4, 10_001);
        assert!(!window.is_complete(2, 9_000), "more than two are not remembered");
    }

    #[test]
    fn an_announcement_of_what_is_parked_for_long_makes_no_repeat() {
        let source: Source = "billing".parse().unwrap();
        let outcomes = br#"{"outcomes":[{"id":"a","source":"billing","outcome":"parked"},
            {"id":"b","source":"billing","outcome":"parked","escalated":true}]}"#;
        assert_eq!(done_in(outcomes), [identity(&source, "a")]);
        assert_eq!(done_in(b"?"), []);
    }

    #[test]
    fn messages_round_trip_and_damage_is_left_out() {
        let sets = [taken(1, 5, &[1, u128::MAX]), taken(2, 6, &[])];
        let bytes = encode(&sets);
        assert_eq!(decode(&bytes), sets);
        assert_eq!(decode(&bytes[..bytes.len() - 1]), sets[..1]);
    }
}
