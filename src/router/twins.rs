//! What was accepted or parked lately: a later reminder of the same text is merged into it instead of being told twice.
//!
//! Kept in memory only, and bounded. So a merge may be missed (after a take-over, or among very many reminders), and none
//! is wrong: what stands for another one was accepted, or lies durably in the mailbox, before the other one and for as
//! long as that would; and it is at least as urgent. A merge does not extend the window.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Entry, Item, Text};

/// Where a reminder of a known text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An app server has it.
    Accepted,
    /// It is a message of the mailbox, until it expires.
    Parked {
        /// The message.
        sequence: u64,
        /// In milliseconds since 1970.
        expires_at: Option<i64>,
    },
}

#[derive(Debug)]
struct Known {
    text: Arc<Text>,
    place: Place,
    since: Instant,
}

/// The latest reminder of each text.
#[derive(Debug)]
pub struct Twins {
    window: Duration,
    limit: usize,
    known: HashMap<u128, Known>,
    /// When each became known, oldest first. A text that became known again stands in it more than once.
    order: VecDeque<(Instant, u128)>,
}

impl Twins {
    /// Remembers up to `limit` reminders for as long as `window`.
    pub fn new(window: Duration, limit: usize) -> Self {
        Self { window, limit, known: HashMap::new(), order: VecDeque::new() }
    }

    /// The reminder that stands for this one.
    pub fn standing_for(&self, now: Instant, entry: &Entry) -> Option<&Text> {
        let text = entry.text.as_ref()?;
        let known = self.known.get(&text.hash).filter(|known| now < known.since + self.window)?;
        let is_before = match (known.place, entry.item) {
            (Place::Accepted, _) => true,
            (Place::Parked { sequence, .. }, Item::Parked { sequence: own }) => sequence < own,
            (Place::Parked { .. }, Item::Event { .. }) => true,
        };
        let lasts = match known.place {
            Place::Accepted | Place::Parked { expires_at: None, .. } => true,
            Place::Parked { expires_at: Some(at), .. } => entry.expires_at.is_some_and(|own| own <= at),
        };
        let is_itself = known.text.id == text.id;
        let is_right = !is_itself && is_before && lasts && text.priority <= known.text.priority;
        is_right.then_some(&*known.text)
    }

    /// A reminder has got to this place.
    pub fn remember(&mut self, now: Instant, entry: &Entry, place: Place) {
        let Some(text) = entry.text.clone() else { return };
        let is_over = |since: Instant| since + self.window <= now;
        while self.order.front().is_some_and(|(since, _)| is_over(*since) || self.order.len() >= self.limit) {
            let Some((since, hash)) = self.order.pop_front() else { break };
            if self.known.get(&hash).is_some_and(|known| known.since == since) {
                self.known.remove(&hash);
            }
        }
        self.order.push_back((now, text.hash));
        self.known.insert(text.hash, Known { text, place, since: now });
    }

    /// A reminder came to an end without being accepted: nobody may rely on it any more.
    pub fn forget(&mut self, entry: &Entry) {
        let Some(text) = &entry.text else { return };
        if self.known.get(&text.hash).is_some_and(|known| known.text.id == text.id) {
            self.known.remove(&text.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{later, start};
    use super::*;
    use crate::reminder::Priority;

    const WINDOW_MS: u64 = 20;
    const LIMIT: usize = 6;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Comes,
        Accepted,
        Parked,
        Ends,
    }

    fn entry(id: usize, hash: u8, is_urgent: bool, expires_at: Option<i64>, item: Item) -> Entry {
        let priority = if is_urgent { Priority::Urgent } else { Priority::Normal };
        let text = Text { id: id.to_string(), hash: hash.into(), priority };
        Entry { item, expires_at, bytes: 1, may_reroute: false, text: Some(text.into()) }
    }

    proptest! {
        /// Whatever stands for a reminder was told or will be, before it, in its urgency and for as long.
        #[test]
        fn nothing_is_lost_by_a_merge(steps in prop::collection::vec(
            (0..4u8, 0..3u8, any::<bool>(), prop::option::of(0..3i64), 0..5u64, 0..12usize), 1..80,
        )) {
            let (mut twins, mut now) = (Twins::new(Duration::from_millis(WINDOW_MS), LIMIT), start());
            // By id: when and where each got to its place.
            let mut placed: Vec<Option<(Instant, Place)>> = Vec::new();
            let mut all: Vec<Entry> = Vec::new();
            for (sequence, (kind, hash, is_urgent, expires_at, ms, pick)) in steps.into_iter().enumerate() {
                now = later(now, ms);
                let kind = [Step::Comes, Step::Accepted, Step::Parked, Step::Ends][usize::from(kind)];
                let sequence = sequence as u64;
                if all.is_empty() || matches!(kind, Step::Comes) {
                    let new = entry(all.len(), hash, is_urgent, expires_at, Item::Event { sequence, index: 0 });
                    if let Some(other) = twins.standing_for(now.instant, &new) {
                        let id: usize = other.id.parse().unwrap();
                        let (since, place) = placed[id].expect("it was told, or lies in the mailbox");
                        let stands: &Entry = &all[id];
                        let (own, others) = (new.text.as_ref().unwrap(), stands.text.as_ref().unwrap());
                        prop_assert!(own.hash == others.hash && own.priority <= others.priority);
                        prop_assert!(now.instant - since < Duration::from_millis(WINDOW_MS));
                        let lasts = stands.expires_at.is_none_or(|at| new.expires_at.is_some_and(|own| own <= at));
                        prop_assert!(place == Place::Accepted || lasts);
                    }
                    all.push(new);
                    placed.push(None);
                    continue;
                }
                let id = pick % all.len();
                let place = match kind {
                    Step::Accepted => Some(Place::Accepted),
                    Step::Parked => Some(Place::Parked { sequence, expires_at: all[id].expires_at }),
                    Step::Comes | Step::Ends => None,
                };
                prop_assert!(twins.standing_for(now.instant, &all[id]).is_none_or(|other| other.id != id.to_string()));
                match place {
                    Some(place) => twins.remember(now.instant, &all[id], place),
                    None => twins.forget(&all[id]),
                }
                placed[id] = place.map(|place| (now.instant, place));
                prop_assert!(twins.known.len() <= LIMIT && twins.order.len() <= LIMIT);
            }
        }
    }

    #[test]
    fn a_parked_reminder_stands_for_those_behind_it_only() {
        let (mut twins, now) = (Twins::new(Duration::from_secs(1), 10), start());
        let parked = |id, sequence| entry(id, 0, false, None, Item::Parked { sequence });
        twins.remember(now.instant, &parked(1, 7), Place::Parked { sequence: 7, expires_at: None });
        assert_eq!(twins.standing_for(now.instant, &parked(0, 5)), None);
        assert_eq!(twins.standing_for(now.instant, &parked(2, 9)).unwrap().id, "1");
    }
}
