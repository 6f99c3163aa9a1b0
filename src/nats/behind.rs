//! The distance of each position from the end of the log, and the set that holds the log's front
//! back.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Nats, NatsError, log, positions, raw, repartition};
use crate::log::Subscriber;
use crate::log::position::{LogState, Position};

/// The distance of a subscriber from the end of the log.
#[derive(Debug, Clone)]
pub struct Behind {
    /// The partition, or the role that works what belongs to sets.
    pub subscriber: Subscriber,
    /// The owner, and the time at which the position was stored; none if it has no position of this
    /// log.
    pub stored: Option<(Option<String>, Timestamp)>,
    /// Everything up to this sequence is settled.
    pub sequence: u64,
    /// Number of the log's sequences after the position.
    pub sets: u64,
}

/// The first set behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// Its sequence in the log.
    pub sequence: u64,
    /// Time at which JetStream stored it.
    pub stored_at: Timestamp,
}

/// Returns how far each subscriber of the installation is behind, in their order.
///
/// # Errors
/// When JetStream does not answer, or a position cannot be read.
pub async fn all(nats: &Nats) -> Result<Vec<Behind>, NatsError> {
    let partitions = repartition::noted(nats).await?.partitions;
    let (state, found) = (log::state(nats, 0).await?, positions::all(nats).await?);
    let mut stored: BTreeMap<_, _> = found
        .into_iter()
        .map(|(subscriber, position, at)| (subscriber, (position, at)))
        .collect();
    let behind = Subscriber::all(partitions)
        .map(|subscriber| of(subscriber, stored.remove(&subscriber), &state));
    Ok(behind.collect())
}

/// Returns the subscriber with the lowest position, if sets lie behind it. The front of the log
/// stays there.
pub fn furthest(behind: &[Behind]) -> Option<&Behind> {
    let waiting = behind.iter().filter(|one| one.sets > 0);
    waiting.min_by_key(|one| one.sequence)
}

/// Returns the first set behind a position, if there is one.
///
/// # Errors
/// When JetStream does not answer.
pub async fn oldest(nats: &Nats, behind: &Behind) -> Result<Option<Oldest>, NatsError> {
    if behind.sets == 0 {
        return Ok(None);
    }
    let (stream, subjects) = (nats.names.log_stream(), nats.names.all_sets());
    let found = raw::next(nats, &stream, &subjects, behind.sequence + 1).await?;
    Ok(found.map(|found| Oldest {
        sequence: found.sequence,
        stored_at: found.stored_at,
    }))
}

fn of(subscriber: Subscriber, stored: Option<(Position, Timestamp)>, state: &LogState) -> Behind {
    let stored = stored.filter(|(position, _)| position.stream_ns == state.created_ns);
    let settled = stored
        .as_ref()
        .map_or(0, |(position, _)| position.settled.sequence);
    // Sets that were removed from the front are settled.
    let sequence = settled.max(state.first.saturating_sub(1));
    Behind {
        subscriber,
        stored: stored.map(|(position, at)| (position.owner, at)),
        sequence,
        sets: state.last.saturating_sub(sequence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::position::Mark;
    use crate::partition::Partition;

    fn state(first: u64, last: u64) -> LogState {
        LogState {
            created_ns: 7,
            first,
            last,
            stored_ms_at: None,
        }
    }

    fn position(stream_ns: i64, sequence: u64) -> Option<(Position, Timestamp)> {
        let settled = Mark {
            sequence,
            stored_ms: 0,
        };
        let position = Position {
            settled,
            ..Position::first(stream_ns)
        };
        Some((position, Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn distance_is_counted_from_position_or_front() {
        let sets = |stored, state| {
            let behind = of(Subscriber::Sets, stored, &state);
            (behind.sequence, behind.sets)
        };
        assert_eq!(sets(position(7, 12), state(10, 15)), (12, 3));
        assert_eq!(sets(position(7, 15), state(16, 15)), (15, 0));
        assert_eq!(sets(None, state(10, 15)), (9, 6), "there is no position");
        assert_eq!(
            sets(position(8, 12), state(10, 15)),
            (9, 6),
            "it is of another log"
        );
        assert_eq!(
            sets(position(7, 12), state(1, 5)),
            (12, 0),
            "the log went back"
        );
    }

    #[test]
    fn lowest_position_holds_the_log_back() {
        let at = |number, sequence| {
            let subscriber = Subscriber::Partition(Partition(number));
            of(subscriber, position(7, sequence), &state(1, 9))
        };
        let all = [at(0, 9), at(1, 8), at(2, 3)];
        assert_eq!(furthest(&all).unwrap().subscriber, all[2].subscriber);
        assert!(furthest(&all[..1]).is_none(), "it is at the end");
    }
}
