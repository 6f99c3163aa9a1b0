//! Things that go to their destinations one after the other. Pure.
//!
//! To a destination one load is on its way at a time, so that one that fails and is repeated cannot
//! be overtaken. Items that queue meanwhile form the next load: nothing waits for a load to fill,
//! and loads grow with what there is to carry. Where only so many loads may be on their way
//! together, destinations take turns, and loads grow with that, too.

use std::collections::{BTreeMap, VecDeque};

use crate::fair_queue::FairQueue;

/// All batch_queues in use: something is on its way there, or waits.
#[derive(Debug)]
pub(super) struct BatchQueues<K, A, T> {
    waiting: BTreeMap<K, FairQueue<A, T>>,
    /// Those of which nothing is on its way.
    ready: VecDeque<K>,
    /// Number of further loads that may go.
    free: usize,
}

impl<K: Ord + Clone, A: Ord + Clone, T> BatchQueues<K, A, T> {
    /// With at most this many loads on their way.
    pub(super) fn new(most: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            free: most,
        }
    }

    /// Queues something of this size, at least 1.
    pub(super) fn push(&mut self, destination: K, asker: A, size: usize, thing: T) {
        let its = self.waiting.entry(destination.clone()).or_insert_with(|| {
            self.ready.push_back(destination);
            FairQueue::new()
        });
        its.push(asker, size, thing);
    }

    /// The next load that may go, and where: one thing at least, and no more than `room`. It is on
    /// its way from now on.
    pub(super) fn next(&mut self, room: usize) -> Option<(K, Vec<T>)> {
        self.free.checked_sub(1)?;
        let destination = self.ready.pop_front()?;
        self.free -= 1;
        let load = self.waiting.get_mut(&destination)?.take(room);
        Some((destination, load))
    }

    /// Records that the load on its way has arrived.
    pub(super) fn arrived(&mut self, destination: &K) {
        self.free += 1;
        if self
            .waiting
            .get(destination)
            .is_some_and(FairQueue::is_empty)
        {
            self.waiting.remove(destination);
        } else {
            self.ready.push_back(destination.clone());
        }
    }

    /// Records that the load on its way does not arrive, and returns the items that wait for this
    /// destination, which are not to go either.
    pub(super) fn closed(&mut self, destination: &K) -> Vec<T> {
        self.free += 1;
        self.waiting
            .remove(destination)
            .map_or_else(Vec::new, |mut turns| turns.take(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_sends_one_load_at_a_time() {
        let (busy, other) = ("busy", "other");
        let mut batch_queues = BatchQueues::new(usize::MAX);
        batch_queues.push(busy, (), 1, 1);
        assert_eq!(
            batch_queues.next(2),
            Some((busy, vec![1])),
            "nothing waits for more to come"
        );
        (2..=5).for_each(|thing| batch_queues.push(busy, (), 1, thing));
        assert_eq!(batch_queues.next(2), None);
        batch_queues.push(other, (), 1, 6);
        assert_eq!(
            batch_queues.next(2),
            Some((other, vec![6])),
            "batch_queues do not wait for each other"
        );
        batch_queues.arrived(&other);
        batch_queues.arrived(&busy);
        assert_eq!(
            batch_queues.next(2),
            Some((busy, vec![2, 3])),
            "what came meanwhile goes together, as far as it fits"
        );
        batch_queues.push(busy, (), 1, 7);
        assert_eq!(batch_queues.closed(&busy), [4, 5, 7]);
        assert_eq!(batch_queues.next(2), None);
        assert!(
            batch_queues.waiting.is_empty(),
            "what is over takes no memory"
        );
    }

    #[test]
    fn destinations_take_turns_at_the_limit() {
        let mut batch_queues = BatchQueues::new(2);
        ["a", "b", "c"]
            .iter()
            .for_each(|destination| batch_queues.push(*destination, (), 1, 1));
        assert_eq!(
            [
                batch_queues.next(9),
                batch_queues.next(9),
                batch_queues.next(9)
            ],
            [Some(("a", vec![1])), Some(("b", vec![1])), None]
        );
        ["a", "c"]
            .iter()
            .for_each(|destination| batch_queues.push(*destination, (), 1, 2));
        batch_queues.arrived(&"a");
        assert_eq!(
            [batch_queues.next(9), batch_queues.next(9)],
            [Some(("c", vec![1, 2])), None]
        );
        batch_queues.arrived(&"c");
        assert_eq!(batch_queues.next(9), Some(("a", vec![2])));
    }
}
