//! Things that go to their destinations one after the other. Pure.
//!
//! One thing of a lane is on its way at a time, so that one that fails and is repeated cannot be overtaken, and no lane waits
//! for another one. What queues meanwhile goes together next: nothing waits for a batch to fill, and batches grow with load.

use std::collections::{BTreeMap, VecDeque};

/// All lanes in use. In one that is, something is under way.
#[derive(Debug)]
pub(super) struct Lanes<K, T>(BTreeMap<K, VecDeque<T>>);

impl<K: Ord + Clone, T> Lanes<K, T> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Queues something. Answers it when its turn is now.
    pub(super) fn push(&mut self, lane: &K, part: T) -> Option<T> {
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

    /// What was under way has arrived. Answers what goes next: if anything waits, one part at least, and as many as fit into
    /// `room` by their `size`.
    pub(super) fn arrived(&mut self, lane: &K, mut room: usize, size: impl Fn(&T) -> usize) -> Vec<T> {
        let Some(queue) = self.0.get_mut(lane) else { return Vec::new() };
        let fits = |part: &&T| room.checked_sub(size(part)).map(|left| room = left).is_some();
        let fitting = queue.iter().take_while(fits).count().max(1);
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
    fn a_lane_goes_batch_by_batch_and_waits_for_no_other() {
        let (flood, quiet) = ("flood", "quiet");
        let mut lanes = Lanes::new();
        let of_one = |_: &i32| 1;
        assert_eq!(lanes.push(&flood, 1), Some(1), "nothing waits for more to come");
        assert!((2..=4).all(|part| lanes.push(&flood, part).is_none()));
        assert_eq!(lanes.push(&quiet, 6), Some(6), "lanes do not wait for each other");
        assert!(lanes.arrived(&quiet, 2, of_one).is_empty());
        assert_eq!(lanes.arrived(&flood, 2, of_one), [2, 3], "what came meanwhile goes together, as far as it fits");
        assert_eq!(lanes.arrived(&flood, 0, of_one), [4], "what is too large goes alone");
        assert!(lanes.arrived(&flood, 2, of_one).is_empty());
        assert!(lanes.0.is_empty(), "what is over takes no memory");
    }
}
