//! Recently accepted reminders: a later reminder with the same text is merged into one of them
//! instead of being delivered.
//!
//! Kept in memory only, and bounded. So a merge may be missed (after a take-over, or among very
//! many reminders), and none is wrong: what stands for another one was accepted by an app server
//! before, and is at least as urgent. A waiting reminder does not count, since it may yet expire or
//! be purged: of two that wait, the second is merged when the first is accepted. A merge does not
//! extend the window.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Entry, Text};

/// The latest reminder of each text.
#[derive(Debug)]
pub struct MergeWindow {
    window: Duration,
    limit: usize,
    accepted: HashMap<u128, (Arc<Text>, Instant)>,
    /// Times of acceptance, oldest first. A text that was accepted again stands in it more than
    /// once.
    order: VecDeque<(Instant, u128)>,
}

impl MergeWindow {
    /// Remembers up to `limit` reminders for as long as `window`.
    pub fn new(window: Duration, limit: usize) -> Self {
        Self {
            window,
            limit,
            accepted: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The reminder that stands for this one.
    pub fn duplicate_of(&self, now: Instant, entry: &Entry) -> Option<&Text> {
        let text = entry.text.as_ref()?;
        let (other, since) = self.accepted.get(&text.hash)?;
        let stands =
            now < *since + self.window && other.id != text.id && text.priority <= other.priority;
        stands.then_some(&**other)
    }

    /// An app server accepted a reminder.
    pub fn accepted(&mut self, now: Instant, entry: &Entry) {
        let Some(text) = entry.text.clone() else {
            return;
        };
        let is_over = |since: Instant| since + self.window <= now;
        while self
            .order
            .front()
            .is_some_and(|(since, _)| is_over(*since) || self.order.len() >= self.limit)
        {
            let Some((since, hash)) = self.order.pop_front() else {
                break;
            };
            if self
                .accepted
                .get(&hash)
                .is_some_and(|(_, latest)| *latest == since)
            {
                self.accepted.remove(&hash);
            }
        }
        self.order.push_back((now, text.hash));
        self.accepted.insert(text.hash, (text, now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Item;
    use super::super::tests::{later, start};
    use super::*;
    use bellhop_protocol::reminder::Priority;

    const WINDOW_MS: u64 = 20;
    const LIMIT: usize = 6;

    fn entry(id: usize, hash: u8, is_urgent: bool) -> Entry {
        let priority = if is_urgent {
            Priority::Urgent
        } else {
            Priority::Normal
        };
        let text = Text {
            id: id.to_string(),
            hash: hash.into(),
            priority,
        };
        let item = Item::Event {
            sequence: id as u64,
            index: 0,
        };
        let source = "s".parse().unwrap();
        Entry {
            item,
            expires_at: None,
            bytes: 1,
            may_reroute: false,
            source,
            priority,
            text: Some(text.into()),
        }
    }

    proptest! {
        /// Whatever stands for a reminder was accepted before, within the window, in its urgency.
        #[test]
        fn nothing_is_lost_by_a_merge(steps in prop::collection::vec(
            (any::<bool>(), 0..3u8, any::<bool>(), 0..5u64, 0..12usize), 1..80,
        )) {
            let (mut merge_window, mut now) = (MergeWindow::new(Duration::from_millis(WINDOW_MS), LIMIT), start());
            let mut all: Vec<(Entry, Option<Instant>)> = Vec::new();
            for (comes, hash, is_urgent, ms, pick) in steps {
                now = later(now, ms);
                if all.is_empty() || comes {
                    let new = entry(all.len(), hash, is_urgent);
                    if let Some(other) = merge_window.duplicate_of(now.instant, &new) {
                        let (stands, accepted) = &all[other.id.parse::<usize>().unwrap()];
                        let (own, others) = (new.text.as_ref().unwrap(), stands.text.as_ref().unwrap());
                        prop_assert!(own.hash == others.hash && own.priority <= others.priority);
                        prop_assert!(now.instant - accepted.expect("it was accepted") < Duration::from_millis(WINDOW_MS));
                    }
                    all.push((new, None));
                } else {
                    let id = pick % all.len();
                    let (entry, accepted) = &mut all[id];
                    prop_assert!(merge_window.duplicate_of(now.instant, entry).is_none_or(|other| other.id != id.to_string()));
                    merge_window.accepted(now.instant, entry);
                    *accepted = Some(now.instant);
                }
                prop_assert!(merge_window.accepted.len() <= LIMIT && merge_window.order.len() <= LIMIT);
            }
        }
    }
}
