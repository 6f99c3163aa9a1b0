//! Knows a reminder that the intake has stored before. Pure.
//!
//! An intake that crashed stored events of sets that it had not acknowledged; the next one plans these sets again and stores
//! their events again, perhaps cut otherwise. Each intake stores what one source sends to one partition in the order of the
//! sets, and within a set in its order; and each begins at a set of which not everything is stored. So what does not stand
//! behind all that was seen of its source was stored before. The same holds for what an intake stores late that believes
//! itself still in office, and for an event that is stored twice because its first confirmation was lost.

use std::collections::BTreeMap;

use crate::event::OfSet;
use crate::token::Source;

/// Sources remembered. Of a source that is forgotten only what an intake was at work on when it crashed would come again.
const LIMIT: usize = 10_000;

/// How far each source's reminders have come.
#[derive(Debug, Default)]
pub(super) struct Repeats(BTreeMap<Source, Newest>);

/// The last one seen of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Newest {
    /// The sequence of its set, and its place there.
    at: (u64, usize),
    /// When the latest of the sets was published. A stream of sets that was made anew counts from 1 again, but later.
    published_ms: i64,
}

impl Repeats {
    /// Whether this reminder came before; from now on it has.
    pub(super) fn is_repeat(&mut self, set: &OfSet, place: usize) -> bool {
        let OfSet {
            source,
            published_ms,
            ..
        } = set;
        let (at, published_ms) = ((set.sequence, place), *published_ms);
        match self.0.get_mut(source) {
            Some(newest) if at <= newest.at && published_ms <= newest.published_ms => return true,
            Some(newest) => {
                *newest = Newest {
                    at,
                    published_ms: published_ms.max(newest.published_ms),
                }
            }
            None => {
                self.make_room();
                self.0.insert(source.clone(), Newest { at, published_ms });
            }
        }
        false
    }

    /// Forgets the older half when there are too many.
    fn make_room(&mut self) {
        if self.0.len() >= LIMIT {
            let mut ages: Vec<_> = self.0.values().copied().collect();
            let (_, middle, _) = ages.select_nth_unstable(LIMIT / 2);
            let middle = *middle;
            self.0.retain(|_, newest| *newest > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(sequence: u64, published_ms: i64) -> OfSet {
        of("a", sequence, published_ms)
    }

    fn of(source: impl ToString, sequence: u64, published_ms: i64) -> OfSet {
        let source = source.to_string().parse().unwrap();
        OfSet {
            source,
            id: "s".to_owned(),
            sequence,
            published_ms,
            trace: None,
        }
    }

    proptest! {
        /// Intakes that crash and begin again anywhere before what they had stored: each reminder counts once, in order.
        #[test]
        fn each_counts_once_and_in_order(begins in prop::collection::vec((0..100usize, 1..40usize), 0..8)) {
            let all: Vec<(u64, usize)> = (1..=25).flat_map(|sequence| (0..4).map(move |place| (sequence, place))).collect();
            let (mut repeats, mut counted, mut stored) = (Repeats::default(), Vec::new(), 0);
            let last = (0, all.len());
            for (begin, length) in begins.into_iter().chain([last]) {
                let begin = begin.min(stored);
                let end = (begin + length).min(all.len());
                stored = stored.max(end);
                for &(sequence, place) in &all[begin..end] {
                    if !repeats.is_repeat(&set(sequence, 5), place) {
                        counted.push((sequence, place));
                    }
                }
            }
            prop_assert_eq!(counted, all);
        }
    }

    #[test]
    fn a_stream_that_begins_anew_is_no_repeat() {
        let mut repeats = Repeats::default();
        assert!(!repeats.is_repeat(&set(1_000, 50), 0));
        assert!(
            !repeats.is_repeat(&set(1_001, 40), 0),
            "the clock was set back"
        );
        assert!(repeats.is_repeat(&set(1_000, 50), 0));
        assert!(!repeats.is_repeat(&set(1, 60), 0), "another stream");
        assert!(!repeats.is_repeat(&set(2, 61), 0));
        assert!(repeats.is_repeat(&set(1, 60), 0));
    }

    #[test]
    fn sources_are_apart_and_only_so_many_are_remembered() {
        let mut repeats = Repeats::default();
        for number in 0..2 * LIMIT {
            assert!(!repeats.is_repeat(&of(number, number as u64, 1), 0));
            assert!(repeats.0.len() <= LIMIT);
        }
        assert!(repeats.is_repeat(&of(2 * LIMIT - 1, 5, 1), 0));
    }
}
