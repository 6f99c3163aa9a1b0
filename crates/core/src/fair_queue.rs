//! A queue that is fair among those who add to it. Each may have so much in the line at a time;
//! what it asks for beyond that waits outside until there is room for it. So a flood delays no
//! other source for long, and while there is no flood, the order of all is kept. The items of one
//! owner always keep their order.

use std::collections::{BTreeMap, VecDeque};

/// Bytes that each may have in the line: some milliseconds of work.
const SHARE: usize = 256 << 10;

/// A queue that is fair among askers of type `A`.
#[derive(Debug)]
pub struct FairQueue<A, T> {
    line: VecDeque<(A, usize, T)>,
    /// Those who have something in the line.
    askers: BTreeMap<A, Asker<T>>,
}

/// The waiting items of one owner.
#[derive(Debug)]
struct Asker<T> {
    in_line: usize,
    outside: VecDeque<(usize, T)>,
}

/// Returns true if one who has so much in the line may have this there, too: one thing may be,
/// however large.
fn has_room(in_line: usize, size: usize) -> bool {
    in_line == 0 || in_line + size <= SHARE
}

impl<A, T> Default for FairQueue<A, T> {
    fn default() -> Self {
        Self {
            line: VecDeque::new(),
            askers: BTreeMap::new(),
        }
    }
}

impl<A: Ord + Clone, T> FairQueue<A, T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Queues a thing of this size, at least 1.
    pub fn push(&mut self, asker: A, size: usize, thing: T) {
        let new = || Asker {
            in_line: 0,
            outside: VecDeque::new(),
        };
        let its = self.askers.entry(asker.clone()).or_insert_with(new);
        if its.outside.is_empty() && has_room(its.in_line, size) {
            its.in_line += size;
            self.line.push_back((asker, size, thing));
        } else {
            its.outside.push_back((size, thing));
        }
    }

    /// Takes the next thing.
    pub fn take_one(&mut self) -> Option<T> {
        let (asker, size, thing) = self.line.pop_front()?;
        self.let_in(asker, size);
        Some(thing)
    }

    /// Takes what fits into `room`, and one thing at least if any waits.
    pub fn take(&mut self, mut room: usize) -> Vec<T> {
        let mut taken = Vec::new();
        while let Some((_, size, _)) = self.line.front() {
            if *size > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(*size);
            taken.extend(self.take_one());
        }
        taken
    }

    /// So much of what one had in the line has left it.
    fn let_in(&mut self, asker: A, left: usize) {
        let Some(its) = self.askers.get_mut(&asker) else {
            return;
        };
        its.in_line -= left;
        while its
            .outside
            .front()
            .is_some_and(|(size, _)| has_room(its.in_line, *size))
        {
            let Some((size, thing)) = its.outside.pop_front() else {
                break;
            };
            its.in_line += size;
            self.line.push_back((asker.clone(), size, thing));
        }
        if its.in_line == 0 {
            self.askers.remove(&asker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_among_all_without_a_flood() {
        let mut queue = FairQueue::new();
        let things = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)];
        things
            .iter()
            .for_each(|(asker, thing)| queue.push(asker, SHARE / 2, *thing));
        assert_eq!(queue.take(SHARE), [1, 2]);
        assert_eq!(queue.take(usize::MAX), [3, 4, 5]);
        assert!(
            queue.is_empty() && queue.askers.is_empty(),
            "what is over takes no memory"
        );
    }

    #[test]
    fn flood_waits_for_itself() {
        let mut queue = FairQueue::new();
        (0..10).for_each(|thing| queue.push("flood", SHARE / 2, thing));
        queue.push("quiet", 1, 100);
        assert_eq!(
            queue.take(usize::MAX),
            (0..2).chain([100]).chain(2..10).collect::<Vec<_>>()
        );
        queue.push("flood", 10 * SHARE, 1);
        queue.push("flood", 1, 2);
        queue.push("quiet", 1, 3);
        assert_eq!(queue.take(0), [1], "what is too large goes alone");
        assert_eq!(queue.take(1), [3]);
        assert_eq!(queue.take_one(), Some(2));
        assert!(queue.take(1).is_empty());
    }
}
