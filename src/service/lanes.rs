//! Reminders that wait for their turn to be stored as events. Pure.
//!
//! A *lane* is what one source sends to one partition. One event of a lane is on its way to JetStream at a time, so that one
//! that fails and is repeated cannot be overtaken. That keeps the order of a user's reminders from one source, which is all
//! that is promised: no source waits for what another one has queued. What queues meanwhile, of one set or of many, makes
//! the next event: nothing waits for an event to fill, and events grow with load.

use std::collections::{BTreeMap, VecDeque};

use crate::partition::Partition;
use crate::token::Source;

/// A partition and a source.
pub(super) type Lane = (Partition, Source);

/// All lanes in use. In one that is, an event is under way.
pub(super) struct Lanes<T>(BTreeMap<Lane, VecDeque<T>>);

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Queues something. Answers it when its turn is now.
    pub(super) fn push(&mut self, lane: &Lane, part: T) -> Option<T> {
        match self.0.get_mut(lane) {
            None => {
                self.0.insert(lane.clone(), VecDeque::new());
                Some(part)
            }
            Some(queue) => {
                queue.push_back(part);
                None
            }
        }
    }

    /// The event that was under way is stored. Answers what goes next: one part at least, and as many as `fits` says.
    pub(super) fn stored(&mut self, lane: &Lane, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
        let Some(queue) = self.0.get_mut(lane) else { return Vec::new() };
        let fitting = queue.iter().take_while(|part| fits(part)).count().max(1);
        let next: Vec<T> = queue.drain(..fitting.min(queue.len())).collect();
        if next.is_empty() {
            self.0.remove(lane);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_goes_event_by_event_and_waits_for_no_other_source() {
        let lane = |partition, source: &str| (Partition(partition), source.parse().unwrap());
        let (flood, elsewhere, quiet) = (lane(1, "flood"), lane(2, "flood"), lane(1, "quiet"));
        let mut lanes = Lanes::new();
        let two = || {
            let mut room = 2;
            move |_: &i32| {
                room -= 1;
                room >= 0
            }
        };
        assert_eq!(lanes.push(&flood, 1), Some(1), "nothing waits for more to come");
        assert!((2..=4).all(|part| lanes.push(&flood, part).is_none()));
        assert_eq!(lanes.push(&elsewhere, 5), Some(5), "partitions do not wait for each other");
        assert_eq!(lanes.push(&quiet, 6), Some(6), "sources do not wait for each other");
        assert!(lanes.stored(&quiet, two()).is_empty());
        assert_eq!(lanes.stored(&flood, two()), [2, 3], "what came meanwhile goes together, as far as it fits");
        assert_eq!(lanes.stored(&flood, |_| false), [4], "what is too large goes alone");
        assert!(lanes.stored(&flood, two()).is_empty() && lanes.stored(&elsewhere, two()).is_empty());
        assert!(lanes.0.is_empty(), "what is over takes no memory");
    }
}
