//! Things that go to their destinations one after the other. Pure.
//!
//! To a destination one load is on its way at a time, so that one that fails and is repeated cannot be overtaken. What queues
//! meanwhile makes the next load: nothing waits for a load to fill, and loads grow with what there is to carry. Where only so
//! many loads may be on their way together, destinations take turns, and loads grow with that, too.

use std::collections::{BTreeMap, VecDeque};

use crate::fair_queue::FairQueue;

/// All lanes in use: something is on its way there, or waits.
#[derive(Debug)]
pub(super) struct Lanes<K, A, T> {
    waiting: BTreeMap<K, FairQueue<A, T>>,
    /// Those of which nothing is on its way.
    ready: VecDeque<K>,
    /// How many more loads may go.
    free: usize,
}

impl<K: Ord + Clone, A: Ord + Clone, T> Lanes<K, A, T> {
    /// With at most this many loads on their way.
    pub(super) fn new(most: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            free: most,
        }
    }

    /// Queues something of this size, at least 1.
    pub(super) fn push(&mut self, lane: K, asker: A, size: usize, thing: T) {
        let its = self.waiting.entry(lane.clone()).or_insert_with(|| {
            self.ready.push_back(lane);
            FairQueue::new()
        });
        its.push(asker, size, thing);
    }

    /// The next load that may go, and where: one thing at least, and no more than `room`. It is on its way from now on.
    pub(super) fn next(&mut self, room: usize) -> Option<(K, Vec<T>)> {
        self.free.checked_sub(1)?;
        let lane = self.ready.pop_front()?;
        self.free -= 1;
        let load = self.waiting.get_mut(&lane)?.take(room);
        Some((lane, load))
    }

    /// What was on its way has arrived.
    pub(super) fn arrived(&mut self, lane: &K) {
        self.free += 1;
        if self.waiting.get(lane).is_some_and(FairQueue::is_empty) {
            self.waiting.remove(lane);
        } else {
            self.ready.push_back(lane.clone());
        }
    }

    /// What was on its way does not arrive, and what waits for this lane is not to go either: answers it.
    pub(super) fn closed(&mut self, lane: &K) -> Vec<T> {
        self.free += 1;
        self.waiting
            .remove(lane)
            .map_or_else(Vec::new, |mut turns| turns.take(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_goes_load_by_load_and_waits_for_no_other() {
        let (busy, other) = ("busy", "other");
        let mut lanes = Lanes::new(usize::MAX);
        lanes.push(busy, (), 1, 1);
        assert_eq!(
            lanes.next(2),
            Some((busy, vec![1])),
            "nothing waits for more to come"
        );
        (2..=5).for_each(|thing| lanes.push(busy, (), 1, thing));
        assert_eq!(lanes.next(2), None);
        lanes.push(other, (), 1, 6);
        assert_eq!(
            lanes.next(2),
            Some((other, vec![6])),
            "lanes do not wait for each other"
        );
        lanes.arrived(&other);
        lanes.arrived(&busy);
        assert_eq!(
            lanes.next(2),
            Some((busy, vec![2, 3])),
            "what came meanwhile goes together, as far as it fits"
        );
        lanes.push(busy, (), 1, 7);
        assert_eq!(lanes.closed(&busy), [4, 5, 7]);
        assert_eq!(lanes.next(2), None);
        assert!(lanes.waiting.is_empty(), "what is over takes no memory");
    }

    #[test]
    fn where_few_may_be_on_their_way_lanes_take_turns_and_loads_grow() {
        let mut lanes = Lanes::new(2);
        ["a", "b", "c"]
            .iter()
            .for_each(|lane| lanes.push(*lane, (), 1, 1));
        assert_eq!(
            [lanes.next(9), lanes.next(9), lanes.next(9)],
            [Some(("a", vec![1])), Some(("b", vec![1])), None]
        );
        ["a", "c"]
            .iter()
            .for_each(|lane| lanes.push(*lane, (), 1, 2));
        lanes.arrived(&"a");
        assert_eq!(
            [lanes.next(9), lanes.next(9)],
            [Some(("c", vec![1, 2])), None]
        );
        lanes.arrived(&"c");
        assert_eq!(lanes.next(9), Some(("a", vec![2])));
    }
}
