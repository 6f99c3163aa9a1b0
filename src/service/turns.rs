//! What several ask for, served by turns. Each gets the same share, by bytes: one that asks for little is served at once,
//! however much another one has waiting. What one asks for keeps its order. Pure.

use std::collections::{BTreeMap, VecDeque};

/// What waits, by who asked.
#[derive(Debug)]
pub(super) struct Turns<A, T> {
    queues: BTreeMap<A, Queue<T>>,
    /// How much the one had been served whose turn it was. Who comes anew begins there: absence saves up nothing.
    served: u64,
}

/// What one has waiting.
#[derive(Debug)]
struct Queue<T> {
    served: u64,
    things: VecDeque<(usize, T)>,
}

impl<A: Ord + Clone, T> Turns<A, T> {
    pub(super) fn new() -> Self {
        Self { queues: BTreeMap::new(), served: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Queues a thing of this size behind what its asker has waiting.
    pub(super) fn push(&mut self, asker: A, size: usize, thing: T) {
        let new = || Queue { served: self.served, things: VecDeque::new() };
        self.queues.entry(asker).or_insert_with(new).things.push_back((size, thing));
    }

    /// Takes what fits into `room`, and one thing at least if any waits, from whoever was served least.
    pub(super) fn take(&mut self, mut room: usize) -> Vec<T> {
        let mut taken = Vec::new();
        while let Some((asker, queue)) = self.queues.iter_mut().min_by_key(|(_, queue)| queue.served) {
            let Some((size, thing)) = queue.things.pop_front() else { break };
            if size > room && !taken.is_empty() {
                queue.things.push_front((size, thing));
                break;
            }
            taken.push(thing);
            room = room.saturating_sub(size);
            self.served = queue.served;
            queue.served += size as u64;
            if queue.things.is_empty() {
                let asker = asker.clone();
                self.queues.remove(&asker);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn askers_share_by_size_and_each_keeps_its_order() {
        let mut turns = Turns::new();
        for (asker, size, thing) in [("a", 100, 1), ("a", 100, 2), ("a", 100, 3), ("b", 40, 4), ("b", 40, 5)] {
            turns.push(asker, size, thing);
        }
        assert_eq!(turns.take(180), [1, 4, 5], "what is small waits for one thing");
        turns.push("b", 40, 6);
        assert_eq!(turns.take(30), [6], "what fits into no room goes alone");
        assert_eq!(turns.take(1_000), [2, 3]);
        assert!(turns.is_empty() && turns.take(1).is_empty());
    }
}
