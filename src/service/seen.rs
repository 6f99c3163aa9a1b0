//! The idempotency window: which (source, id) were taken in lately, and with which set.
//!
//! It is kept in memory and in a stream of its own, whose age limit is the window, so that a new intake knows what the
//! last one took in. Age is measured between the times at which JetStream stored the sets: a backlog that is worked
//! off late is judged as if it had been worked off at once.
//!
//! A set is noted in the stream when everything else of it is durable. So a set that comes again although it is noted
//! (nats-server lost its acknowledgement in a crash) is complete, and its events must not be published again: those that
//! were worked are gone from their stream, and a partition that was taken over since does not know them.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use hashbrown::HashMap;
use siphasher::sip128::Hasher128;

use crate::nats::replay::{last_sequence, replay};
use crate::nats::{Nats, NatsError};
use crate::reminder::hasher_of;
use crate::token::Source;

/// A name of a source's, in 128 bits: among 100 million, two are the same by chance once in 10²² times.
pub type Id = u128;

/// Returns the identity of a reminder.
pub fn identity(source: &Source, id: &str) -> Id {
    of_names([source.as_str()], id)
}

/// Returns the identity of a set by its `Nats-Msg-Id`. No reminder has the same one: ids have no control characters.
pub fn message_identity(source: &Source, message_id: &str) -> Id {
    of_names([source.as_str(), "\0message"], message_id)
}

/// Returns the identity of a reminder whose name Bellhop made up of its set's sequence: it is no name that was chosen.
pub fn made_up_identity(source: &Source, id: &str) -> Id {
    of_names([source.as_str(), "\0sequence"], id)
}

/// Returns the identity of a reminder's cancellation.
pub fn cancellation_identity(source: &Source, id: &str) -> Id {
    of_names([source.as_str(), "\0cancel"], id)
}

fn of_names<const N: usize>(space: [&str; N], name: &str) -> Id {
    let mut hasher = hasher_of(space);
    hasher.write(name.as_bytes());
    hasher.finish128().as_u128()
}

/// What one set brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The set's sequence.
    pub sequence: u64,
    /// When JetStream stored it, in milliseconds since 1970.
    pub stored_ms: i64,
    /// Its reminders, its cancellations, and its message id.
    pub ids: Vec<Id>,
}

/// The set that brought an id last: its sequence, and when JetStream stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    sequence: u64,
    stored_ms: i64,
}

/// The window.
#[derive(Debug)]
pub struct Window {
    length_ms: i64,
    max_ids: usize,
    sets: HashMap<Id, Set>,
    by_age: VecDeque<(Id, Set)>,
    /// Sets of which everything is durable, with their times.
    complete: BTreeMap<u64, i64>,
}

impl Window {
    /// An empty window of this length, for at most this many ids.
    pub fn new(length: Duration, max_ids: usize) -> Self {
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self {
            length_ms,
            max_ids,
            sets: HashMap::new(),
            by_age: VecDeque::new(),
            complete: BTreeMap::new(),
        }
    }

    /// Returns when JetStream stored the other set that brought this id, if that was within the window before this set. A
    /// set that comes again itself, after a crash, repeats nothing: partitions know what of it is stored already.
    pub fn taken_before(&self, id: Id, sequence: u64, stored_ms: i64) -> Option<i64> {
        let set = self.sets.get(&id)?;
        let is_within = stored_ms.saturating_sub(set.stored_ms) < self.length_ms;
        (is_within && set.sequence != sequence).then_some(set.stored_ms)
    }

    /// Notes a set's ids. Returns how many others it forgets for that before their time, since there are more than `max_ids`.
    pub fn note(&mut self, taken: &Taken) -> usize {
        let set = Set {
            sequence: taken.sequence,
            stored_ms: taken.stored_ms,
        };
        for &id in &taken.ids {
            self.sets.insert(id, set);
            self.by_age.push_back((id, set));
        }
        let mut early = 0;
        while self.by_age.len() > self.max_ids {
            let Some(oldest) = self.by_age.pop_front() else {
                break;
            };
            let was_last = self.remove(oldest);
            early += usize::from(
                was_last && taken.stored_ms.saturating_sub(oldest.1.stored_ms) < self.length_ms,
            );
        }
        early
    }

    /// Forgets what is too old for all sets that are stored from now on.
    pub fn forget(&mut self, now_ms: i64) {
        while let Some(&oldest) = self.by_age.front() {
            if now_ms.saturating_sub(oldest.1.stored_ms) < self.length_ms {
                break;
            }
            self.by_age.pop_front();
            self.remove(oldest);
        }
    }

    /// Removes an id, unless a later set brought it again.
    fn remove(&mut self, (id, set): (Id, Set)) -> bool {
        let is_last = self.sets.get(&id) == Some(&set);
        if is_last {
            self.sets.remove(&id);
        }
        is_last
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
        replay(
            nats,
            &stream,
            pull::Config::default(),
            last,
            |message, _| {
                for taken in decode(&message.payload) {
                    self.note(&taken);
                    self.complete(taken.sequence, taken.stored_ms);
                }
            },
        )
        .await
    }
}

/// Writes sets as one message: for each its sequence, time and number of ids, then the ids, all little-endian.
pub fn encode(sets: &[Taken]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sets.iter().map(|taken| 20 + 16 * taken.ids.len()).sum());
    for taken in sets {
        out.extend_from_slice(&taken.sequence.to_le_bytes());
        out.extend_from_slice(&taken.stored_ms.to_le_bytes());
        out.extend_from_slice(&(taken.ids.len() as u32).to_le_bytes());
        taken
            .ids
            .iter()
            .for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
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
        let ids = (0..count)
            .map(|_| number(&mut bytes).map(u128::from_le_bytes))
            .collect::<Option<_>>()?;
        Some(Taken {
            sequence,
            stored_ms,
            ids,
        })
    };
    std::iter::from_fn(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(sequence: u64, stored_ms: i64, ids: &[Id]) -> Taken {
        Taken {
            sequence,
            stored_ms,
            ids: ids.to_vec(),
        }
    }

    #[test]
    fn another_set_repeats_and_the_same_set_does_not() {
        let mut window = Window::new(Duration::from_secs(10), 100);
        window.note(&taken(1, 5, &[7]));
        assert_eq!(window.taken_before(7, 2, 6), Some(5));
        assert_eq!(window.taken_before(7, 1, 5), None);
        assert_eq!(window.taken_before(8, 2, 6), None);
    }

    #[test]
    fn an_id_forgotten_early_is_counted() {
        let mut window = Window::new(Duration::from_secs(10), 2);
        assert_eq!(
            window.note(&taken(1, 0, &[1])) + window.note(&taken(2, 9_999, &[2])),
            0
        );
        assert_eq!(window.note(&taken(3, 10_000, &[3])), 0, "its time was over");
        assert_eq!(window.note(&taken(4, 10_000, &[4])), 1);
        assert_eq!(
            window.taken_before(2, 9, 10_000),
            None,
            "more than two are not remembered"
        );
        assert_eq!(
            window.note(&taken(5, 10_000, &[4, 4])),
            1,
            "one that is taken again is not forgotten"
        );
        assert_eq!((window.sets.len(), window.by_age.len()), (1, 2));
    }

    #[test]
    fn what_is_over_takes_no_memory() {
        let mut window = Window::new(Duration::from_secs(10), 100);
        window.note(&taken(1, 0, &[1, 2]));
        window.note(&taken(2, 9_000, &[1]));
        window.forget(9_999);
        assert_eq!(window.by_age.len(), 3);
        window.forget(10_000);
        assert_eq!((window.sets.len(), window.by_age.len()), (1, 1));
    }

    #[test]
    fn names_of_different_kinds_are_apart() {
        let source = "billing".parse().unwrap();
        let kinds = [
            identity,
            message_identity,
            made_up_identity,
            cancellation_identity,
        ];
        let all: hashbrown::HashSet<Id> = kinds.iter().map(|kind| kind(&source, "x")).collect();
        assert_eq!(all.len(), kinds.len());
    }

    proptest! {
        /// Sets are judged in another order than they were stored in where sources take turns: by up to 3 s here.
        #[test]
        fn a_repeat_is_what_was_accepted_within_the_window(
            sets in prop::collection::vec((0..4_000i64, 0..4u128, 0..3_000i64, any::<bool>()), 1..60),
        ) {
            const LENGTH: i64 = 5_000;
            let mut window = Window::new(Duration::from_millis(LENGTH as u64), 1_000);
            let (mut now, mut accepted) = (0, Vec::<(Id, i64)>::new());
            for (sequence, (pause, id, delay, is_idle)) in sets.into_iter().enumerate() {
                now += pause;
                // Of one source, and so of one id, the order is kept.
                let last = accepted.iter().filter(|(other, _)| *other == id).map(|(_, at)| *at).max();
                let stored_ms = last.map_or(now - delay, |last| last.max(now - delay));
                let is_repeat = last.is_some_and(|last| stored_ms - last < LENGTH);
                prop_assert_eq!(window.taken_before(id, sequence as u64, stored_ms), last.filter(|_| is_repeat));
                if !is_repeat {
                    window.note(&taken(sequence as u64, stored_ms, &[id]));
                    accepted.push((id, stored_ms));
                }
                if is_idle {
                    // What comes later may be judged late, too.
                    window.forget(now - 3_000);
                }
            }
        }
    }

    #[test]
    fn completed_sets_are_remembered_for_the_window() {
        let mut window = Window::new(Duration::from_secs(10), 2);
        window.complete(1, 0);
        assert!(window.is_complete(1, 0) && !window.is_complete(2, 0));
        assert!(
            !window.is_complete(1, 1),
            "another stream's set of this sequence"
        );
        window.complete(2, 9_000);
        window.complete(3, 10_000);
        assert!(!window.is_complete(1, 0) && window.is_complete(2, 9_000));
        window.complete(4, 10_001);
        assert!(
            !window.is_complete(2, 9_000),
            "more than two are not remembered"
        );
    }

    #[test]
    fn messages_round_trip_and_damage_is_left_out() {
        let sets = [taken(1, 5, &[1, u128::MAX]), taken(2, 6, &[])];
        let bytes = encode(&sets);
        assert_eq!(decode(&bytes), sets);
        assert_eq!(decode(&bytes[..bytes.len() - 1]), sets[..1]);
    }
}
