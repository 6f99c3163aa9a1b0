//! Makes one reminder of a set's duplicates: same user, same title, same content.
//!
//! The first of them stands for all and carries their number and ids. Differences are resolved so
//! that no user is notified less than a publisher asked for: the highest priority, the latest
//! expiry (none beats any), every tag up to the limit. Only that one of them is for the user alone
//! keeps all from others. `data` stays the first one's, and other data goes with the id of its
//! reminder. A reminder takes in only as many as it can name and still be delivered in one request;
//! the next duplicate then starts a group of its own. One that is single stays so.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use serde_json::value::RawValue;

use bellhop_protocol::reminder::duplicate::{Duplicate, OBJECT_BYTES};
use bellhop_protocol::reminder::set::MAX_TAGS;
use bellhop_protocol::reminder::{MAX_REMINDER_BYTES, Reminder};

/// A reminder, and which of those that were given it stands for.
#[derive(Debug)]
pub struct Merged {
    /// The place of the first of them.
    pub first: usize,
    /// The places of the others.
    pub others: Vec<usize>,
    /// The reminder.
    pub reminder: Reminder,
}

/// Merges the duplicates of one set. Order stays: each group is at its first one's place.
pub fn merge(reminders: Vec<Reminder>) -> Vec<Merged> {
    let mut kept: Vec<Merged> = Vec::with_capacity(reminders.len());
    let hasher = RandomState::default();
    let mut groups: HashMap<u64, Group, RandomState> =
        HashMap::with_capacity_and_hasher(reminders.len(), hasher.clone());
    for (place, reminder) in reminders.into_iter().enumerate() {
        let hash = hasher.hash_one((&reminder.user, &reminder.title, &reminder.content));
        let group = groups.get_mut(&hash).filter(|_| !reminder.is_single);
        match group.and_then(|group| group.takes(&kept, &reminder)) {
            Some(at) => {
                kept[at].others.push(place);
                absorb(&mut kept[at].reminder, reminder);
            }
            None => {
                if !reminder.is_single {
                    let (at, room) = (kept.len(), None);
                    groups.insert(hash, Group { at, room });
                }
                kept.push(Merged {
                    first: place,
                    others: Vec::new(),
                    reminder,
                });
            }
        }
    }
    kept
}

/// The duplicates of one text: where their first one stands, and how many bytes it can still grow
/// by.
struct Group {
    at: usize,
    room: Option<usize>,
}

impl Group {
    /// Returns the index of the group's first reminder, if it can still absorb `other`.
    fn takes(&mut self, kept: &[Merged], other: &Reminder) -> Option<usize> {
        let first = &kept[self.at].reminder;
        if (&first.user, &first.title, &first.content)
            != (&other.user, &other.title, &other.content)
        {
            return None; // Only the hash is the same.
        }
        // JSON writes a character in at most six bytes; 64 covers `count` and the list's own
        // punctuation.
        let data = other.data.as_ref().filter(|data| is_other(first, data));
        let cost = data.map_or(0, |data| data.get().len() + OBJECT_BYTES)
            + 6 * other.id.len()
            + other
                .tags
                .iter()
                .map(|tag| 6 * tag.as_str().len() + 3)
                .sum::<usize>()
            + 3;
        let first_bytes = || first.to_json().len() + 64;
        let room = self
            .room
            .unwrap_or_else(|| MAX_REMINDER_BYTES.saturating_sub(first_bytes()));
        self.room = Some(room.saturating_sub(cost));
        (cost <= room).then_some(self.at)
    }
}

/// Returns true if data is not that of the reminder.
fn is_other(reminder: &Reminder, data: &RawValue) -> bool {
    reminder.data.as_ref().map(|own| own.get()) != Some(data.get())
}

fn absorb(into: &mut Reminder, other: Reminder) {
    into.lacking = None;
    into.count = Some(into.count.unwrap_or(1) + 1);
    into.priority = into.priority.max(other.priority);
    into.stays |= other.stays;
    into.expires_at = match (into.expires_at, other.expires_at) {
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    };
    for tag in other.tags {
        if into.tags.len() < MAX_TAGS && !into.tags.contains(&tag) {
            into.tags.push(tag);
        }
    }
    let (id, data) = (other.id, other.data.filter(|data| is_other(into, data)));
    into.merged.push(Duplicate { id, data });
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellhop_protocol::reminder::{Priority, set};
    use proptest::prelude::*;

    fn merge(reminders: Vec<Reminder>) -> Vec<Reminder> {
        super::merge(reminders)
            .into_iter()
            .map(|merged| merged.reminder)
            .collect()
    }

    fn reminders(json: &str) -> Vec<Reminder> {
        let origin = set::Origin {
            source: "billing".parse().unwrap(),
            sequence: 1,
            published_at: "2026-11-22T08:00:00Z".parse().unwrap(),
        };
        let set = set::parse(&origin, json.as_bytes()).unwrap();
        set.reminders
            .into_iter()
            .map(|candidate| candidate.parsed.unwrap())
            .collect()
    }

    #[test]
    fn first_duplicate_carries_all() {
        let kept = merge(reminders(
            r#"{"reminders":[
                {"id":"a","user":"u","content":"c","tags":["x"],"priority":"low","expires_at":"2026-12-01T00:00:00Z"},
                {"id":"b","user":"u","content":"c","tags":["y","x"],"priority":"high","expires_at":"2026-12-02T00:00:00Z"},
                {"id":"c","user":"v","content":"c"},
                {"id":"d","user":"u","title":"t","content":"c"},
                {"id":"e","user":"u","content":"c"}]}"#,
        ));
        let ids: Vec<_> = kept.iter().map(|reminder| reminder.id.as_str()).collect();
        assert_eq!(ids, ["a", "c", "d"]);
        assert_eq!(
            (kept[0].count, merged_ids(&kept[0])),
            (Some(3), vec!["b", "e"])
        );
        assert_eq!(
            (kept[0].priority, kept[0].expires_at, kept[0].tags.len()),
            (Priority::High, None, 2)
        );
        assert_eq!(kept[1].count, None);
    }

    fn merged_ids(reminder: &Reminder) -> Vec<&str> {
        reminder.merged.iter().map(|one| one.id.as_str()).collect()
    }

    #[test]
    fn other_data_goes_with_its_id() {
        let kept = merge(reminders(
            r#"{"reminders":[
                {"id":"a","user":"u","content":"c","data":{"url": "/c/1"}},
                {"id":"b","user":"u","content":"c","data":{"url": "/c/2"}},
                {"id":"c","user":"u","content":"c","data":{"url": "/c/1"}},
                {"id":"d","user":"u","content":"c"}]}"#,
        ));
        assert_eq!(
            serde_json::to_string(&kept[0].merged).unwrap(),
            r#"[{"id":"b","data":{"url": "/c/2"}},"c","d"]"#
        );
        let data = "x".repeat(100_000);
        let large =
            |id: &str| format!(r#"{{"id":"{id}","user":"u","content":"c","data":"{data}{id}"}}"#);
        let list = ["a", "b", "c", "d"].map(large).join(",");
        let kept = merge(reminders(&format!(r#"{{"reminders":[{list}]}}"#)));
        let ids: Vec<_> = kept
            .iter()
            .map(|one| (one.id.as_str(), merged_ids(one)))
            .collect();
        assert_eq!(ids, [("a", vec!["b"]), ("c", vec!["d"])]);
        for one in &kept {
            assert!(one.to_json().len() <= MAX_REMINDER_BYTES);
        }
    }

    #[test]
    fn a_single_one_is_not_merged() {
        let kept = merge(reminders(
            r#"{"reminders":[
                {"id":"a","user":"u","content":"c","merge":false},
                {"id":"b","user":"u","content":"c"},
                {"id":"c","user":"u","content":"c","merge":false},
                {"id":"d","user":"u","content":"c","merge":true}]}"#,
        ));
        let ids: Vec<_> = kept
            .iter()
            .map(|one| (one.id.as_str(), merged_ids(one)))
            .collect();
        assert_eq!(ids, [("a", vec![]), ("b", vec!["d"]), ("c", vec![])]);
    }

    #[test]
    fn merged_tags_are_bounded() {
        let list: Vec<_> = (0..9_000)
            .map(|i| {
                format!(
                    r#"{{"id":"{i}{}","user":"u","content":"c"}}"#,
                    "\u{4e00}".repeat(40)
                )
            })
            .collect();
        let kept = merge(reminders(&format!(
            r#"{{"reminders":[{}]}}"#,
            list.join(",")
        )));
        let merged: usize = kept.iter().map(|reminder| reminder.merged.len()).sum();
        assert!(kept.len() > 1 && kept.len() + merged == 9_000);
        assert!(
            kept.iter()
                .all(|reminder| reminder.to_json().len() <= MAX_REMINDER_BYTES)
        );
    }

    proptest! {
        #[test]
        fn merging_keeps_all_ids_and_is_idempotent(picks in prop::collection::vec((0..4u8, 0..3u8, 0..3u8), 1..60)) {
            let list: Vec<_> = picks.iter().enumerate().map(|(i, (user, title, content))| {
                let title = if *title == 0 { "null".to_owned() } else { format!("\"t{title}\"") };
                format!(r#"{{"id":"{i}","user":"u{user}","title":{title},"content":"c{content}"}}"#)
            }).collect();
            let before = reminders(&format!(r#"{{"reminders":[{}]}}"#, list.join(",")));
            let all = super::merge(before.clone());
            for Merged { first, others, reminder } in &all {
                prop_assert_eq!(&before[*first].id, &reminder.id);
                let ids: Vec<_> = others.iter().map(|other| before[*other].id.clone()).collect();
                prop_assert_eq!(&ids, &merged_ids(reminder));
            }
            let kept = merge(before.clone());
            let merged: usize = kept.iter().map(|reminder| reminder.merged.len()).sum();

            // Every reminder is kept or merged into a kept one with the same user and text, once.
            prop_assert_eq!(kept.len() + merged, before.len());
            for reminder in &before {
                let home: Vec<_> = kept.iter().filter(|k| k.id == reminder.id || merged_ids(k).contains(&&*reminder.id)).collect();
                prop_assert_eq!(home.len(), 1);
                prop_assert_eq!(
                    (&home[0].user, &home[0].title, &home[0].content),
                    (&reminder.user, &reminder.title, &reminder.content)
                );
            }
            prop_assert!(kept.iter().all(|k| k.count.unwrap_or(1) == k.merged.len() + 1));
            // Order is that of the first ones, and nothing is left to merge.
            let order: Vec<usize> = kept.iter().map(|k| k.id.parse().unwrap()).collect();
            prop_assert!(order.is_sorted());
            prop_assert!(merge(kept.clone()).len() == kept.len());
        }
    }
}
