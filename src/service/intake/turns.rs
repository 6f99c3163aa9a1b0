//! Sets that were received and wait to be planned. Sources share the work evenly, by bytes: one that sends little is served at
//! once, however much another one has waiting. Each one's sets keep their order. Pure.

use std::collections::{BTreeMap, VecDeque};

/// What waits, by source.
pub(super) struct Turns<T> {
    queues: BTreeMap<String, Queue<T>>,
    /// How much the source had been served whose turn it was. Who comes anew begins there: absence saves up nothing.
    served: u64,
}

/// What one source has waiting.
struct Queue<T> {
    served: u64,
    sets: VecDeque<(u64, T)>,
}

impl<T> Turns<T> {
    pub(super) fn new() -> Self {
        Self { queues: BTreeMap::new(), served: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Queues a set of so many bytes behind what its source has waiting.
    pub(super) fn push(&mut self, source: String, bytes: usize, set: T) {
        let new = || Queue { served: self.served, sets: VecDeque::new() };
        self.queues.entry(source).or_insert_with(new).sets.push_back((bytes as u64, set));
    }

    /// The first set of the source that was served least.
    pub(super) fn next(&mut self) -> Option<T> {
        let source = self.queues.iter().min_by_key(|(_, queue)| queue.served)?.0.clone();
        let queue = self.queues.get_mut(&source)?;
        let (bytes, set) = queue.sets.pop_front()?;
        self.served = queue.served;
        queue.served += bytes;
        if queue.sets.is_empty() {
            self.queues.remove(&source);
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_share_by_bytes_and_each_keeps_its_order() {
        let mut turns = Turns::new();
        for (source, bytes, set) in [("a", 100, 1), ("a", 100, 2), ("a", 100, 3), ("b", 40, 4), ("b", 40, 5)] {
            turns.push(source.to_owned(), bytes, set);
        }
        assert_eq!([(); 3].map(|()| turns.next()), [Some(1), Some(4), Some(5)], "what is small waits for one set");
        turns.push("b".to_owned(), 40, 6);
        assert_eq!([(); 4].map(|()| turns.next()), [Some(6), Some(2), Some(3), None]);
        assert!(turns.is_empty());
    }
}
