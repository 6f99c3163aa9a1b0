//! Events that wait for their turn to be stored. Pure.
//!
//! A *lane* is what one source sends to one partition. One event of a lane is on its way to JetStream at a time and the next
//! ones queue behind it, so that one that fails and is repeated cannot be overtaken. That keeps the order of a user's
//! reminders from one source, which is all that is promised: no source waits for what another one has queued.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::partition::Partition;

/// A partition and the subject that a source publishes to.
pub(super) type Lane = (Partition, Arc<str>);

/// All lanes in use.
pub(super) struct Lanes<T>(BTreeMap<Lane, VecDeque<T>>);

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Queues an event. Answers it when its turn is now.
    pub(super) fn push(&mut self, lane: &Lane, event: T) -> Option<&T> {
        let queue = self.0.entry(lane.clone()).or_default();
        queue.push_back(event);
        queue.front().filter(|_| queue.len() == 1)
    }

    /// The first event of a lane is stored. Answers the one whose turn is now.
    pub(super) fn stored(&mut self, lane: &Lane) -> Option<&T> {
        let queue = self.0.get_mut(lane)?;
        queue.pop_front();
        if queue.is_empty() {
            self.0.remove(lane);
        }
        self.0.get(lane)?.front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_goes_one_by_one_and_waits_for_no_other_source() {
        let lane = |partition, source: &str| (Partition(partition), Arc::from(source));
        let (flood, elsewhere, quiet) = (lane(1, "flood"), lane(2, "flood"), lane(1, "quiet"));
        let mut lanes = Lanes::new();
        assert_eq!(lanes.push(&flood, 1), Some(&1));
        assert_eq!(lanes.push(&flood, 2), None);
        assert_eq!(lanes.push(&flood, 3), None);
        assert_eq!(lanes.push(&elsewhere, 4), Some(&4), "partitions do not wait for each other");
        assert_eq!(lanes.push(&quiet, 5), Some(&5), "sources do not wait for each other");
        assert_eq!(lanes.stored(&quiet), None);
        assert_eq!(lanes.stored(&flood), Some(&2));
        assert_eq!(lanes.stored(&flood), Some(&3));
        assert_eq!(lanes.stored(&flood), None);
        assert_eq!(lanes.stored(&elsewhere), None);
        assert!(lanes.0.is_empty(), "what is over takes no memory");
    }
}
