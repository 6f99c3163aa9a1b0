//! What was accepted lately, to know repeats by. Pure.

use std::collections::{HashSet, VecDeque};
use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip128::Hasher128;

use crate::Reminder;
use bellhop_protocol::reminder::hasher_of;

/// Which reminder it is, by 128 bits: an id may be used again after the idempotency window, and is another reminder then, so the
/// time of publishing belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    fn of(reminder: &Reminder, request: Option<(u64, usize)>) -> Self {
        let mut hasher = hasher_of([reminder.source.as_str(), &reminder.id, reminder.user.as_str()]);
        hasher.write_i128(reminder.published_at.as_nanosecond());
        if let Some((request, place)) = request {
            hasher.write_u64(request);
            hasher.write_usize(place);
        }
        Self(hasher.finish128().as_u128())
    }
}

/// Reminders that were accepted, the oldest first. Bounded by time and by number.
#[derive(Debug)]
pub(super) struct Repeats {
    for_long: Duration,
    most: usize,
    keys: HashSet<Key>,
    order: VecDeque<(Instant, Key)>,
}

impl Repeats {
    pub(super) fn new(for_long: Duration, most: usize) -> Self {
        Self { for_long, most, keys: HashSet::new(), order: VecDeque::new() }
    }

    /// Returns the key of a reminder at a place of a request. With no memory each request has keys of its own.
    pub(super) fn key(&self, reminder: &Reminder, request: (u64, usize)) -> Key {
        Key::of(reminder, (self.most == 0).then_some(request))
    }

    /// Remembers one that is not remembered yet.
    pub(super) fn insert(&mut self, now: Instant, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back((now, key));
        }
        let is_over = |(since, _): &(Instant, Key)| now.duration_since(*since) >= self.for_long;
        while self.order.len() > self.most || self.order.front().is_some_and(is_over) {
            let Some((_, key)) = self.order.pop_front() else { break };
            self.keys.remove(&key);
        }
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Some instant is needed to count from; which one makes no difference.
mod tests {
    use super::*;

    fn key(id: &str, published_at: &str) -> Key {
        let reminder = serde_json::json!({ "id": id, "source": "s", "set": "7", "user": "alice", "content": "c",
            "published_at": published_at });
        Key::of(&serde_json::from_value(reminder).unwrap(), None)
    }

    #[test]
    fn an_id_that_is_used_again_is_another_reminder() {
        let (early, late) = ("2026-11-22T08:00:00Z", "2026-11-22T09:00:00Z");
        assert_eq!(key("a", early), key("a", early));
        assert_ne!(key("a", early), key("a", late));
        assert_ne!(key("a", early), key("b", early));
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let at = "2026-11-22T08:00:00Z";
        let (begin, minute) = (Instant::now(), Duration::from_secs(60));
        let mut repeats = Repeats::new(10 * minute, 2);
        repeats.insert(begin, key("a", at));
        repeats.insert(begin + minute, key("b", at));
        assert!(repeats.contains(key("a", at)) && !repeats.contains(key("c", at)));
        repeats.insert(begin + 2 * minute, key("c", at));
        assert!(!repeats.contains(key("a", at)), "two are remembered");
        repeats.insert(begin + 11 * minute, key("d", at));
        assert!(!repeats.contains(key("b", at)) && repeats.contains(key("d", at)), "ten minutes are remembered");
        assert_eq!(repeats.keys.len(), repeats.order.len());
    }
}
