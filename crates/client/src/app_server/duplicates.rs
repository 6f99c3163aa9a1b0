//! Recently accepted reminders, to recognize redeliveries. Pure.

use std::collections::{HashSet, VecDeque};
use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip128::Hasher128;

use crate::Reminder;
use bellhop_protocol::reminder::hasher_of;

/// Identifies a reminder by 128 bits. It includes the time of publishing: after the idempotency
/// window an id may be used again, for another reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    fn of(reminder: &Reminder, request: Option<(u64, usize)>) -> Self {
        let mut hasher = hasher_of([
            reminder.source.as_str(),
            &reminder.id,
            reminder.user.as_str(),
        ]);
        hasher.write_i128(reminder.published_at.as_nanosecond());
        if let Some((request, place)) = request {
            hasher.write_u64(request);
            hasher.write_usize(place);
        }
        Self(hasher.finish128().as_u128())
    }
}

/// Accepted reminders, the oldest first. Bounded by age and by number.
#[derive(Debug)]
pub(super) struct Accepted {
    for_long: Duration,
    most: usize,
    keys: HashSet<Key>,
    order: VecDeque<(Instant, Key)>,
}

impl Accepted {
    pub(super) fn new(for_long: Duration, most: usize) -> Self {
        Self {
            for_long,
            most,
            keys: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Returns the key of a reminder at a position of a request. Without memory each request has
    /// its own keys.
    pub(super) fn key(&self, reminder: &Reminder, request: (u64, usize)) -> Key {
        Key::of(reminder, (self.most == 0).then_some(request))
    }

    /// Remembers a reminder.
    pub(super) fn insert(&mut self, now: Instant, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back((now, key));
        }
        let is_over = |(since, _): &(Instant, Key)| now.duration_since(*since) >= self.for_long;
        while self.order.len() > self.most || self.order.front().is_some_and(is_over) {
            let Some((_, key)) = self.order.pop_front() else {
                break;
            };
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
    fn a_reused_id_is_another_reminder() {
        let (early, late) = ("2026-11-22T08:00:00Z", "2026-11-22T09:00:00Z");
        assert_eq!(key("a", early), key("a", early));
        assert_ne!(key("a", early), key("a", late));
        assert_ne!(key("a", early), key("b", early));
    }

    #[test]
    fn old_and_surplus_reminders_are_forgotten() {
        let at = "2026-11-22T08:00:00Z";
        let (begin, minute) = (Instant::now(), Duration::from_secs(60));
        let mut accepted = Accepted::new(10 * minute, 2);
        accepted.insert(begin, key("a", at));
        accepted.insert(begin + minute, key("b", at));
        assert!(accepted.contains(key("a", at)) && !accepted.contains(key("c", at)));
        accepted.insert(begin + 2 * minute, key("c", at));
        assert!(!accepted.contains(key("a", at)), "two are remembered");
        accepted.insert(begin + 11 * minute, key("d", at));
        assert!(
            !accepted.contains(key("b", at)) && accepted.contains(key("d", at)),
            "ten minutes are remembered"
        );
        assert_eq!(accepted.keys.len(), accepted.order.len());
    }
}
