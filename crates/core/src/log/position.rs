//! The progress of a partition in the log. A position says: everything up to here is settled, and
//! that is recorded.
//!
//! A sequence alone identifies nothing. After a loss of power nats-server may bring the stream back
//! without its newest sets, and gives their sequences to other sets. So a position carries a time,
//! too, and counts only for sets that were stored at or before it. A stream that was deleted and
//! made again is recognized by its creation time.

use serde::{Deserialize, Serialize};

/// A place in the log: all sets up to this sequence that were stored up to this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The sequence of the last of these sets.
    pub sequence: u64,
    /// The latest time at which one of them was stored, in milliseconds since 1970.
    pub stored_ms: i64,
}

impl Mark {
    /// The place before all sets.
    pub const START: Self = Self {
        sequence: 0,
        stored_ms: i64::MIN,
    };

    /// Returns true if this set lies at or before the mark.
    pub fn covers(self, sequence: u64, stored_ms: i64) -> bool {
        sequence <= self.sequence && stored_ms <= self.stored_ms
    }

    /// Returns the mark after the next set. Times never decrease, even where a new leader's clock
    /// is behind.
    pub fn after(self, sequence: u64, stored_ms: i64) -> Self {
        Self {
            sequence,
            stored_ms: self.stored_ms.max(stored_ms),
        }
    }
}

/// The state of the log when a position is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Creation time of the stream, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The sequence of its first set; one more than `last` if it has none.
    pub first: u64,
    /// The sequence of its last set, also where that was removed.
    pub last: u64,
    /// Time at which the set at the position's sequence was stored, in milliseconds since 1970;
    /// none if there is no such set.
    pub stored_ms_at: Option<i64>,
}

/// The state of the stream of outcomes when a position is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomesState {
    /// The sequence of its last message.
    pub last: u64,
    /// Time at which the message at the position's `outcomes` was stored, in milliseconds since
    /// 1970; none if there is no such message.
    pub stored_ms_at: Option<i64>,
}

/// The point from which a new owner reads the outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomesStart {
    /// Behind this sequence.
    After(u64),
    /// At this time, in milliseconds since 1970.
    At(i64),
}

/// A partition's position as it is stored, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Creation time of the stream of sets, in nanoseconds since 1970: another stream has another
    /// time.
    pub stream_ns: i64,
    /// Everything up to here is settled.
    #[serde(flatten)]
    pub settled: Mark,
    /// The sequence of the stream of outcomes up to which nothing above the position was recorded.
    pub outcomes: u64,
    /// The owner of the partition. None if its last owner gave it up: nothing of that one can be
    /// recorded any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// The point from which a new owner reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Reading begins behind this sequence.
    pub after: u64,
    /// Sets that it covers are settled, and passed by.
    pub settled: Mark,
}

impl Position {
    /// Returns the position of a partition that no member has worked yet.
    pub fn first(stream_ns: i64) -> Self {
        Self {
            stream_ns,
            settled: Mark::START,
            outcomes: 0,
            owner: None,
        }
    }

    /// Returns where a new owner begins.
    ///
    /// In another stream that is its first set. In a stream that went back it is the first set,
    /// too; what the position covers is passed by, and what was stored under the same sequences
    /// since is not covered.
    pub fn start(&self, log: &LogState) -> Start {
        let before_first = log.first.saturating_sub(1);
        if self.stream_ns != log.created_ns {
            return Start {
                after: before_first,
                settled: Mark {
                    sequence: before_first,
                    ..Mark::START
                },
            };
        }
        let Mark {
            sequence,
            stored_ms,
        } = self.settled;
        let is_removed = sequence < log.first;
        let is_same = sequence <= log.last
            && (is_removed || log.stored_ms_at.is_some_and(|at| at <= stored_ms));
        if is_same {
            return Start {
                after: sequence.max(before_first),
                settled: self.settled,
            };
        }
        Start {
            after: before_first,
            settled: Mark {
                sequence: sequence.min(log.last),
                stored_ms,
            },
        }
    }

    /// Returns where reading the outcomes begins, so that everything is found that was recorded of
    /// sets above the position. `written_ms` is when the position was stored, in milliseconds since
    /// 1970.
    ///
    /// If the stream of outcomes went back, its sequences say nothing. Sets above the position were
    /// stored after the position's time, and recorded after that.
    pub fn outcomes_start(&self, outcomes: &OutcomesState, written_ms: i64) -> OutcomesStart {
        let is_same = self.outcomes <= outcomes.last
            && outcomes.stored_ms_at.is_none_or(|at| at <= written_ms);
        if is_same {
            OutcomesStart::After(self.outcomes)
        } else {
            OutcomesStart::At(self.settled.stored_ms)
        }
    }

    /// Writes the value of the bucket.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a position has only string keys")
    }

    /// Reads a value of the bucket.
    ///
    /// # Errors
    /// When it is not one that [`Position::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// Returns how far the front of the log may be removed: up to the lowest of all positions. None if
/// one of them is unknown or is of another stream.
///
/// Before the removal the shell looks up when the set at the mark's sequence was stored: see
/// [`may_remove`].
pub fn front<'a>(
    positions: impl IntoIterator<Item = Option<&'a Position>>,
    created_ns: i64,
) -> Option<Mark> {
    let mut front: Option<Mark> = None;
    for position in positions {
        let Mark {
            sequence,
            stored_ms,
        } = position
            .filter(|position| position.stream_ns == created_ns)?
            .settled;
        let lowest = front.unwrap_or(Mark {
            sequence,
            stored_ms,
        });
        let (sequence, stored_ms) = (
            lowest.sequence.min(sequence),
            lowest.stored_ms.min(stored_ms),
        );
        front = Some(Mark {
            sequence,
            stored_ms,
        });
    }
    front
}

/// Returns true if everything up to the front may be removed. `stored_ms_at` is when the set at the
/// front's sequence was stored, in milliseconds since 1970.
///
/// A position from before the stream went back has an older time than the sets that have its
/// sequences now. No position covers those, so nothing is removed until its partition is worked
/// again.
pub fn may_remove(front: Mark, stored_ms_at: i64) -> bool {
    stored_ms_at <= front.stored_ms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CREATED: i64 = 7;

    fn position(sequence: u64, stored_ms: i64) -> Position {
        Position {
            settled: Mark {
                sequence,
                stored_ms,
            },
            outcomes: 40,
            ..Position::first(CREATED)
        }
    }

    fn log(first: u64, last: u64, stored_ms_at: Option<i64>) -> LogState {
        LogState {
            created_ns: CREATED,
            first,
            last,
            stored_ms_at,
        }
    }

    #[test]
    fn json_round_trips() {
        let position = Position {
            owner: Some("m1.2".into()),
            ..position(12, 1_763_000_000_123)
        };
        let json = position.to_json();
        let expected = r#"{"stream_ns":7,"sequence":12,"stored_ms":1763000000123,"outcomes":40,"owner":"m1.2"}"#;
        assert_eq!(String::from_utf8_lossy(&json), expected);
        assert_eq!(Position::from_json(&json).unwrap(), position);
        let first = Position::first(CREATED);
        assert_eq!(Position::from_json(&first.to_json()).unwrap(), first);
        assert!(Position::from_json(b"{}").is_err());
    }

    #[test]
    fn reading_begins_behind_the_position() {
        let position = position(12, 500);
        let behind = Start {
            after: 12,
            settled: position.settled,
        };
        assert_eq!(position.start(&log(3, 20, Some(500))), behind);
        assert_eq!(
            position.start(&log(3, 20, Some(490))),
            behind,
            "an older leader's clock was ahead"
        );
        assert_eq!(
            position.start(&log(13, 20, None)),
            behind,
            "the position's own set is removed"
        );
        assert_eq!(
            position.start(&log(15, 20, None)),
            Start {
                after: 14,
                settled: position.settled
            }
        );
        assert_eq!(
            Position::first(CREATED).start(&log(1, 0, None)),
            Start {
                after: 0,
                settled: Mark::START
            }
        );
    }

    #[test]
    fn position_does_not_count_for_reused_sequences() {
        let position = position(12, 500);
        let start = position.start(&log(3, 20, Some(501)));
        assert_eq!(
            start,
            Start {
                after: 2,
                settled: position.settled
            }
        );
        assert!(
            start.settled.covers(12, 500)
                && !start.settled.covers(12, 501)
                && !start.settled.covers(13, 500)
        );
        let shorter = position.start(&log(3, 9, None));
        assert_eq!(
            shorter,
            Start {
                after: 2,
                settled: Mark {
                    sequence: 9,
                    stored_ms: 500
                }
            }
        );
        assert!(
            !shorter.settled.covers(10, 400),
            "what comes next is new, whatever the clock says"
        );
        assert_eq!(
            position.start(&log(3, 20, None)).after,
            2,
            "a gap at its place proves nothing"
        );
    }

    #[test]
    fn position_does_not_count_for_another_stream() {
        let start = position(12, 500).start(&LogState {
            created_ns: 8,
            ..log(1, 20, Some(400))
        });
        assert_eq!((start.after, start.settled.covers(1, 1)), (0, false));
    }

    #[test]
    fn outcomes_are_read_from_the_position_on() {
        let position = position(12, 500);
        let start = |last, stored_ms_at| {
            position.outcomes_start(&OutcomesState { last, stored_ms_at }, 600)
        };
        assert_eq!(start(40, Some(600)), OutcomesStart::After(40));
        assert_eq!(
            start(90, None),
            OutcomesStart::After(40),
            "older outcomes were removed"
        );
        assert_eq!(
            start(39, None),
            OutcomesStart::At(500),
            "the stream went back"
        );
        assert_eq!(
            start(90, Some(601)),
            OutcomesStart::At(500),
            "the stream went back and has grown again"
        );
    }

    #[test]
    fn front_is_the_lowest_position() {
        let (low, high) = (position(5, 100), position(9, 200));
        let mark = front([Some(&high), Some(&low)], CREATED).unwrap();
        assert_eq!(mark, low.settled);
        assert!(may_remove(mark, 100) && !may_remove(mark, 101));
        assert_eq!(front([Some(&high), None], CREATED), None);
        assert_eq!(front([Some(&high), Some(&low)], CREATED + 1), None);
        assert_eq!(front([], CREATED), None);
    }

    proptest! {
        /// A log grows, goes back and grows again. Positions are of any of these times. Removed
        /// sets are covered by each.
        #[test]
        fn front_keeps_uncovered_sets(
            lost in 0..20usize,
            grown in 0..30usize,
            of in prop::collection::vec((any::<bool>(), 0..40usize), 1..5),
        ) {
            let before: Vec<(u64, i64)> = (1..=20).map(|sequence| (sequence, 10 * sequence as i64)).collect();
            let mut now = before[..20 - lost].to_vec();
            now.extend((0..grown as u64).map(|more| (21 - lost as u64 + more, 1_000 + 10 * more as i64)));
            let positions: Vec<Position> = of.into_iter().map(|(is_old, at)| {
                let log = if is_old { &before } else { &now };
                let upto = &log[..at.min(log.len())];
                let settled = upto.iter().fold(Mark::START, |mark, (sequence, at)| mark.after(*sequence, *at));
                Position { settled, ..Position::first(CREATED) }
            }).collect();
            let front = front(positions.iter().map(Some), CREATED).unwrap();
            let at = now.iter().find(|(sequence, _)| *sequence == front.sequence).map(|(_, at)| *at);
            if at.is_some_and(|at| may_remove(front, at)) {
                for (sequence, stored_ms) in now.iter().filter(|(sequence, _)| *sequence <= front.sequence) {
                    prop_assert!(positions.iter().all(|position| position.settled.covers(*sequence, *stored_ms)));
                }
            }
            // A new owner reads everything that its position does not cover, and nothing is above
            // it twice.
            for position in &positions {
                let sequence = position.settled.sequence;
                let stored_ms_at = now.iter().find(|(at, _)| *at == sequence).map(|(_, ms)| *ms);
                let last = now.last().map_or(0, |(sequence, _)| *sequence);
                let start = position.start(&LogState { created_ns: CREATED, first: 1, last, stored_ms_at });
                let read: Vec<_> = now.iter().filter(|(at, ms)| *at > start.after && !start.settled.covers(*at, *ms)).collect();
                let expected: Vec<_> = now.iter().filter(|(at, ms)| !position.settled.covers(*at, *ms)).collect();
                prop_assert_eq!(read, expected);
            }
        }
    }
}
