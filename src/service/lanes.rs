//! Things that go to their destinations one after the other. Pure.
//!
//! To a destination one load is on its way at a time, so that one that fails and is repeated cannot be overtaken, and no lane
//! waits for another one. What queues meanwhile makes the next load: nothing waits for a load to fill, and loads grow with
//! what there is to carry. If more waits than fits, its askers share the load (`turns.rs`).

use std::collections::BTreeMap;

use super::turns::Turns;

/// All lanes in use. In one that is, something is under way.
#[derive(Debug)]
pub(super) struct Lanes<K, A, T>(BTreeMap<K, Turns<A, T>>);

impl<K: Ord + Clone, A: Ord + Clone, T> Lanes<K, A, T> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Queues something of this size. Answers it when it may go now.
    pub(super) fn push(&mut self, lane: &K, asker: A, size: usize, part: T) -> Option<T> {
        match self.0.get_mut(lane) {
            None => {
                self.0.insert(lane.clone(), Turns::new());
                Some(part)
            }
            Some(turns) => {
                turns.push(asker, size, part);
                None
            }
        }
    }

    /// What was under way has arrived. Answers what goes next: if anything waits, one part at least, and no more than `room`.
    pub(super) fn arrived(&mut self, lane: &K, room: usize) -> Vec<T> {
        let next = self.0.get_mut(lane).map_or_else(Vec::new, |turns| turns.take(room));
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
    fn a_lane_goes_load_by_load_and_waits_for_no_other() {
        let (busy, other) = ("busy", "other");
        let mut lanes = Lanes::new();
        let mut push = |lane, asker, part| lanes.push(&lane, asker, 1, part);
        assert_eq!(push(busy, "flood", 1), Some(1), "nothing waits for more to come");
        assert!((2..=5).all(|part| push(busy, "flood", part).is_none()));
        assert_eq!(push(other, "flood", 6), Some(6), "lanes do not wait for each other");
        assert_eq!(push(busy, "quiet", 7), None);
        assert!(lanes.arrived(&other, 2).is_empty());
        assert_eq!(lanes.arrived(&busy, 2), [2, 7], "who asks for little does not wait for all of another's");
        assert_eq!(lanes.arrived(&busy, 2), [3, 4], "what came meanwhile goes together, as far as it fits");
        assert_eq!(lanes.arrived(&busy, 0), [5], "what is too large goes alone");
        assert!(lanes.arrived(&busy, 2).is_empty());
        assert!(lanes.0.is_empty(), "what is over takes no memory");
    }
}
