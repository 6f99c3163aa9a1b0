//! Planning of a partition's part of a set: it merges duplicates, applies rules, and writes the
//! finished JSON.
//!
//! After a crash a slice is planned again, perhaps under other rules. A recorded reminder stays
//! as it is: it takes no part, except that its id stays in the reminder into which it was merged.

use std::sync::Arc;

use bellhop_protocol::reminder::Reminder;
use bellhop_protocol::reminder::outcome::Outcome;
use bellhop_protocol::reminder::reject::{RejectCode, Rejection};
use bellhop_protocol::reminder::set::{self, Common, Origin};
use bellhop_protocol::token::UserId;
use bytes::Bytes;
use jiff::Timestamp;

use super::split::{Published, RefusedReminder};
use crate::event::{Event, Index, IndexEntry, OfSet};
use crate::merge::{Merged, merge};
use crate::rules::{Rules, RulesError, Verdict};

/// An earlier owner's record of a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing that lasts.
    Nothing,
    /// It stored the reminder in a mailbox, and did not come to record that.
    Parked,
    /// It recorded what became of the reminder.
    Recorded,
}

/// A reminder of a slice that is new.
#[derive(Debug)]
pub struct Judged {
    /// The reminder.
    pub published: Published,
    /// An earlier owner's record of it.
    pub before: Before,
}

/// A slice, judged by the window.
#[derive(Debug)]
pub struct JudgedSlice {
    /// The set.
    pub set: Arc<OfSet>,
    /// Properties of all its reminders.
    pub common: Arc<Common>,
    /// The fields added to each of its reminders that is forwarded as it was published.
    pub added: Arc<[u8]>,
    /// Its new reminders, in the order of the set.
    pub reminders: Vec<Judged>,
    /// Those whose id was another reminder's within the window.
    pub refused: Vec<RefusedReminder>,
    /// Bytes that it takes in memory, about.
    pub bytes: usize,
}

impl JudgedSlice {
    /// Returns true if nothing of it is to be worked.
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty()
            && self
                .reminders
                .iter()
                .all(|judged| judged.before == Before::Recorded)
    }
}

/// A reminder whose outcome is known without the router.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its place in the set.
    pub place: usize,
    /// Its outcome: merged, blocked, or parked by an earlier owner.
    pub outcome: Outcome,
    /// Its id.
    pub id: String,
    /// The reminder's user.
    pub user: UserId,
    /// Its finished JSON, for the history. None if its content must not be shown.
    pub reminder: Option<Bytes>,
}

/// The plan for a slice.
#[derive(Debug)]
pub struct Planned {
    /// The input of the router: an index and the finished JSON.
    pub event: Event,
    /// Outcomes to record at once.
    pub ended: Vec<Ended>,
    /// Reminders to store as refused; then their outcomes are recorded, if they have one.
    pub refused: Vec<RefusedReminder>,
}

impl Planned {
    /// Returns how many parts are to be settled.
    pub fn parts(&self) -> usize {
        self.event.bodies.len() + self.ended.len() + self.refused.len()
    }

    /// Returns how many bytes the event takes in memory, about.
    pub fn event_bytes(&self) -> usize {
        let entries = self.event.index.reminders.iter();
        entries
            .map(|entry| {
                entry.bytes + entry.id.len() + size_of::<IndexEntry>() + size_of::<Bytes>()
            })
            .sum()
    }
}

/// The inputs of a plan besides the slice.
#[derive(Debug, Clone, Copy)]
pub struct Planner<'a> {
    /// The rules of this moment.
    pub rules: &'a Rules,
    /// Reminders of other sets may be merged, so a hash of what each says is written down.
    pub merges: bool,
}

/// The most reminders of a slice that are compared with each other before they are merged.
const MAX_COMPARED: usize = 32;

/// The reason why the rules stop a reminder.
enum End {
    Blocked(Outcome),
    Refused(Rejection),
}

impl Planner<'_> {
    /// Plans a slice.
    pub fn plan(&self, slice: JudgedSlice) -> Planned {
        let JudgedSlice {
            set,
            common,
            added,
            reminders,
            refused,
            ..
        } = slice;
        let origin = Origin::new(set.source.clone(), set.sequence, set.published_ms);
        let mut originals = Vec::with_capacity(reminders.len());
        let mut rest = Vec::with_capacity(reminders.len());
        for (
            at,
            Judged {
                published:
                    Published {
                        place,
                        reminder,
                        raw,
                        ..
                    },
                before,
            },
        ) in reminders.into_iter().enumerate()
        {
            originals.push(Original { place, raw, before });
            rest.push((at, reminder));
        }
        let finished = Vec::with_capacity(originals.len());
        let mut plan = Plan {
            planner: self,
            origin,
            common,
            added,
            originals,
            finished,
            ended: Vec::new(),
            refused,
        };
        plan.end_the_parked();
        if plan.is_apart(&rest) {
            rest.drain(..)
                .for_each(|(at, reminder)| plan.finish(at, reminder));
        }
        while !rest.is_empty() {
            rest = plan.merge(rest);
        }
        let Plan {
            mut finished,
            ended,
            refused,
            ..
        } = plan;
        // Of several that were to be one, each goes back to its own place.
        finished.sort_by_key(|(entry, _)| entry.place);
        let (entries, bodies) = finished.into_iter().unzip();
        let event = Event {
            index: Index {
                sets: vec![OfSet::clone(&set)],
                reminders: entries,
            },
            bodies,
        };
        Planned {
            event,
            ended,
            refused,
        }
    }

    /// A reminder as its rules leave it: its line in the index, and its JSON.
    fn ruled(
        &self,
        mut reminder: Reminder,
        original: &Original,
        added: &[u8],
    ) -> Result<(IndexEntry, Bytes), End> {
        let merges = self.merges && !reminder.is_single;
        let text = merges.then(|| reminder.text_hash());
        match self.rules.apply(&mut reminder) {
            Ok(Verdict::Pass) => {}
            Ok(Verdict::Blocked { tag, rule }) => {
                return Err(End::Blocked(Outcome::Blocked { tag, rule }));
            }
            Err(error) => {
                let code = match error {
                    RulesError::Unusable(_) => RejectCode::RulesUnusable,
                    RulesError::TooManyMatches(_) => RejectCode::TooManyMatches,
                    RulesError::TooLong(_) => RejectCode::ReminderTooLarge,
                };
                return Err(End::Refused(Rejection::new(code, error)));
            }
        }
        let place = original.place;
        let body = Bytes::from(reminder.finish(&original.raw, added));
        let expires_at = reminder.expires_at.map(Timestamp::as_millisecond);
        let Reminder {
            id,
            user,
            priority,
            stays,
            is_single,
            ..
        } = reminder;
        let (set, rerouted_to, bytes) = (0, None, body.len());
        Ok((
            IndexEntry {
                set,
                place,
                id,
                user,
                expires_at,
                priority,
                text,
                rerouted_to,
                stays,
                is_single,
                bytes,
            },
            body,
        ))
    }
}

/// A reminder as published.
struct Original {
    place: usize,
    raw: Bytes,
    before: Before,
}

impl Original {
    /// Returns true if it is in a mailbox or has an outcome, so that it goes no other way.
    fn is_over(&self) -> bool {
        self.before != Before::Nothing
    }
}

/// A slice in planning.
struct Plan<'p> {
    planner: &'p Planner<'p>,
    origin: Origin,
    common: Arc<Common>,
    added: Arc<[u8]>,
    originals: Vec<Original>,
    finished: Vec<(IndexEntry, Bytes)>,
    ended: Vec<Ended>,
    refused: Vec<RefusedReminder>,
}

impl Plan<'_> {
    /// Returns true if nothing can be merged: all are new, and each is for another user.
    fn is_apart(&self, reminders: &[(usize, Reminder)]) -> bool {
        // Each is compared with each. Most slices are short.
        reminders.len() <= MAX_COMPARED
            && self.originals.iter().all(|original| !original.is_over())
            && reminders.iter().enumerate().all(|(at, (_, one))| {
                let others = &reminders[..at];
                others.iter().all(|(_, other)| other.user != one.user)
            })
    }

    /// A reminder as its rules leave it.
    fn ruled(&self, at: usize, reminder: Reminder) -> Result<(IndexEntry, Bytes), End> {
        self.planner
            .ruled(reminder, &self.originals[at], &self.added)
    }

    /// Finishes a reminder that is not merged.
    fn finish(&mut self, at: usize, reminder: Reminder) {
        match self.ruled(at, reminder) {
            Ok(ruled) => self.finished.push(ruled),
            Err(end) => self.end(at, end),
        }
    }

    /// Reminders in a mailbox stay there, whatever the rules say by now.
    fn end_the_parked(&mut self) {
        for at in 0..self.originals.len() {
            let Original {
                place,
                before: Before::Parked,
                ..
            } = self.originals[at]
            else {
                continue;
            };
            let Some(reminder) = self.original(at) else {
                continue;
            };
            let (id, user, outcome) = (
                reminder.id.clone(),
                reminder.user.clone(),
                Outcome::Parked { escalated: false },
            );
            let reminder = self.ruled(at, reminder).ok().map(|(_, body)| body);
            self.ended.push(Ended {
                place,
                outcome,
                id,
                user,
                reminder,
            });
        }
    }

    /// Merges these reminders' duplicates and finishes them. Returns those that were to be merged
    /// into a reminder that is recorded: it may have been blocked, so they must not end with it.
    fn merge(&mut self, those: Vec<(usize, Reminder)>) -> Vec<(usize, Reminder)> {
        let (places, reminders): (Vec<usize>, Vec<Reminder>) = those.into_iter().unzip();
        let mut left = Vec::new();
        for Merged {
            first,
            others,
            reminder,
        } in merge(reminders)
        {
            let (first, others) = (places[first], others.into_iter().map(|other| places[other]));
            if self.originals[first].is_over() {
                let others: Vec<_> = others
                    .filter(|other| !self.originals[*other].is_over())
                    .collect();
                left.extend(
                    others
                        .into_iter()
                        .filter_map(|other| Some((other, self.original(other)?))),
                );
                continue;
            }
            let (id, others) = (reminder.id.clone(), others.collect::<Vec<_>>());
            match self.ruled(first, reminder) {
                Ok(ruled) => {
                    self.finished.push(ruled);
                    others
                        .into_iter()
                        .for_each(|other| self.end_as_merged(other, &id));
                }
                // The rules of all their tags together. Those of one of them may let it pass, and
                // then it must not be lost.
                Err(_) if !others.is_empty() => {
                    [first]
                        .into_iter()
                        .chain(others)
                        .for_each(|one| self.finish_alone(one));
                }
                Err(end) => self.end(first, end),
            }
        }
        left
    }

    /// A reminder as published, read again. Its set was split only because it could be read.
    fn original(&self, at: usize) -> Option<Reminder> {
        let Original { place, raw, .. } = &self.originals[at];
        set::read(
            &self.origin,
            &self.common,
            *place,
            std::str::from_utf8(raw).ok()?,
        )
        .ok()
    }

    fn end_as_merged(&mut self, at: usize, into: &str) {
        if let Some(reminder) = self.original(at).filter(|_| !self.originals[at].is_over()) {
            let (id, user) = (reminder.id.clone(), reminder.user.clone());
            let place = self.originals[at].place;
            // Its own text; none, if its own rules hide it.
            let reminder = self.ruled(at, reminder).ok().map(|(_, body)| body);
            self.ended.push(Ended {
                place,
                outcome: Outcome::Merged {
                    into: into.to_owned(),
                },
                id,
                user,
                reminder,
            });
        }
    }

    fn finish_alone(&mut self, at: usize) {
        if let Some(reminder) = self.original(at).filter(|_| !self.originals[at].is_over()) {
            self.finish(at, reminder);
        }
    }

    fn end(&mut self, at: usize, end: End) {
        let Some(Reminder { id, user, .. }) = self.original(at) else {
            return;
        };
        let Original { place, raw, .. } = &self.originals[at];
        match end {
            End::Blocked(outcome) => self.ended.push(Ended {
                place: *place,
                outcome,
                id,
                user,
                reminder: None,
            }),
            End::Refused(rejection) => {
                let (place, raw, user) = (*place, raw.clone(), Some(user));
                self.refused.push(RefusedReminder {
                    place,
                    id,
                    user,
                    raw,
                    rejection,
                });
            }
        }
    }
}

impl Published {
    /// Returns the reminder as one that is refused.
    pub fn refused(&self, rejection: Rejection) -> RefusedReminder {
        let (id, user) = (self.reminder.id.clone(), Some(self.reminder.user.clone()));
        RefusedReminder {
            place: self.place,
            id,
            user,
            raw: self.raw.clone(),
            rejection,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::split::{Message, split};
    use super::*;
    use crate::rules::document::Document;
    use crate::rules::engine::Engine;

    fn rules(document: &str) -> Rules {
        let document = Document::parse(document.as_bytes()).unwrap();
        Rules::default().with(
            "t".parse().unwrap(),
            Some(Arc::new(Engine::new(&document).unwrap())),
        )
    }

    /// A rule that blocks a reminder with this keyword.
    fn blocking(keyword: &str) -> Rules {
        rules(&format!(
            r#"{{"rules":[{{"name":"b","keywords":["{keyword}"],"action":"block"}}]}}"#
        ))
    }

    fn judged(body: &str, before: &[(usize, Before)]) -> JudgedSlice {
        let set = Ok(body.as_bytes());
        let (body, message_id, trace) = (body.as_bytes(), None, None);
        let (source_token, sequence, stored_ms) = ("billing", 9, 1_000);
        let (is_requeued, is_due) = (false, false);
        let message = Message {
            source_token,
            sequence,
            stored_ms,
            body,
            set,
            message_id,
            is_requeued,
            is_due,
            trace,
        };
        let slice = split(&message, 1).slices.remove(0).1;
        let known = |place| {
            before
                .iter()
                .find(|(of, _)| *of == place)
                .map_or(Before::Nothing, |(_, before)| *before)
        };
        let judge = |published: Published| Judged {
            before: known(published.place),
            published,
        };
        let reminders = slice.reminders.into_iter().map(judge).collect();
        JudgedSlice {
            set: slice.set,
            common: slice.common,
            added: slice.added,
            reminders,
            refused: Vec::new(),
            bytes: slice.bytes,
        }
    }

    fn plan(rules: &Rules, body: &str, before: &[(usize, Before)]) -> Planned {
        Planner {
            rules,
            merges: true,
        }
        .plan(judged(body, before))
    }

    fn ids(planned: &Planned) -> Vec<&str> {
        planned
            .event
            .index
            .reminders
            .iter()
            .map(|entry| entry.id.as_str())
            .collect()
    }

    fn ended(planned: &Planned) -> Vec<(&str, &str)> {
        planned
            .ended
            .iter()
            .map(|ended| (ended.id.as_str(), ended.outcome.name()))
            .collect()
    }

    const PAIR: &str = r#"{"reminders":[{"id":"a","user":"u","content":"hide","tags":["t"]},
        {"id":"b","user":"u","content":"hide"},{"id":"c","user":"v","content":"hide"}]}"#;

    #[test]
    fn duplicates_are_merged() {
        let planned = plan(&Rules::default(), PAIR, &[]);
        assert_eq!(
            (ids(&planned), ended(&planned)),
            (vec!["a", "c"], vec![("b", "merged")])
        );
        assert_eq!(planned.parts(), 3);
        let merged: serde_json::Value = serde_json::from_slice(&planned.event.bodies[0]).unwrap();
        assert_eq!(
            (&merged["count"], &merged["merged"][0]),
            (&2.into(), &"b".into())
        );
        let alone: serde_json::Value =
            serde_json::from_slice(planned.ended[0].reminder.as_ref().unwrap()).unwrap();
        assert_eq!(
            (&alone["id"], &alone["count"]),
            (&"b".into(), &serde_json::Value::Null)
        );
    }

    #[test]
    fn one_id_of_two_users_is_not_confused() {
        let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"},{"id":"b","user":"u","content":"c"},
            {"id":"b","user":"v","content":"c"}]}"#;
        let planned = plan(&Rules::default(), body, &[]);
        assert_eq!(
            (ids(&planned), ended(&planned)),
            (vec!["a", "b"], vec![("b", "merged")])
        );
        assert_eq!(
            (
                planned.event.index.reminders[1].place,
                planned.ended[0].place
            ),
            (2, 1)
        );
    }

    #[test]
    fn merging_respects_rules_of_all_tags() {
        let planned = plan(&blocking("hide"), PAIR, &[]);
        assert_eq!(
            (ids(&planned), ended(&planned)),
            (vec!["b", "c"], vec![("a", "blocked")])
        );
    }

    #[test]
    fn recorded_reminders_take_no_part_again() {
        let planned = plan(
            &Rules::default(),
            PAIR,
            &[(1, Before::Recorded), (2, Before::Recorded)],
        );
        assert_eq!((ids(&planned), ended(&planned)), (vec!["a"], vec![]));
        let merged: serde_json::Value = serde_json::from_slice(&planned.event.bodies[0]).unwrap();
        assert_eq!(
            merged["merged"][0], "b",
            "it was recorded as merged into this one"
        );
    }

    #[test]
    fn nothing_is_merged_into_a_recorded_reminder() {
        // Under other rules, `a` was blocked and `b` had not got its end.
        let planned = plan(&Rules::default(), PAIR, &[(0, Before::Recorded)]);
        assert_eq!((ids(&planned), ended(&planned)), (vec!["b", "c"], vec![]));
    }

    #[test]
    fn parked_reminder_survives_changed_rules() {
        for rules in [blocking("hide"), Rules::default()] {
            let planned = plan(&rules, PAIR, &[(0, Before::Parked)]);
            assert_eq!(
                (ids(&planned), ended(&planned)),
                (vec!["b", "c"], vec![("a", "parked")])
            );
        }
    }

    #[test]
    fn text_beyond_the_limits_is_refused() {
        let replacing = rules(&format!(
            r#"{{"rules":[{{"name":"r","keywords":["x"],"action":"replace","with":"{}"}}]}}"#,
            "y".repeat(500)
        ));
        let body = |count: usize| {
            format!(
                r#"{{"reminders":[{{"id":"a","user":"u","content":"{}","tags":["t"]}}]}}"#,
                "x ".repeat(count)
            )
        };
        let planned = plan(&replacing, &body(2_000), &[]);
        assert_eq!(
            planned.refused[0].rejection.code,
            RejectCode::ReminderTooLarge
        );
        assert!(planned.refused[0].has_outcome() && planned.parts() == 1);
        assert_eq!(ids(&plan(&replacing, &body(2), &[])), ["a"]);
    }

    fn bodies(planned: &Planned) -> Vec<serde_json::Value> {
        let read = |body: &Bytes| serde_json::from_slice(body).unwrap();
        planned.event.bodies.iter().map(read).collect()
    }

    #[test]
    fn only_unchanged_reminder_is_forwarded_as_published() {
        let masks = rules(r#"{"rules":[{"name":"m","keywords":["hide"],"action":"mask"}]}"#);
        let planned = plan(
            &masks,
            r#"{"reminders":[{"tags":["t"], "id":"a","user":"u","content":"show"},
                {"tags":["t"], "id":"b","user":"v","content":"hide"}]}"#,
            &[],
        );
        let body = |at: usize| std::str::from_utf8(&planned.event.bodies[at]).unwrap();
        assert_eq!(
            body(0),
            r#"{"tags":["t"], "id":"a","user":"u","content":"show","source":"billing","set":"9","published_at":"1970-01-01T00:00:01Z","priority":"normal"}"#
        );
        assert!(body(1).starts_with(r#"{"id":"b","source""#), "{}", body(1));
    }

    /// Reminders that may be merged, masked or urgent, in two ways of writing.
    fn reminders() -> impl Strategy<Value = Vec<String>> {
        let field = |values: &'static [&'static str]| prop::sample::select(values);
        let reminder = (
            field(&["u", "v", "w"]),
            field(&["hide it", "urgent", "plain"]),
            field(&[
                "",
                r#","tags":["t"]"#,
                r#","tags":["o"]"#,
                r#","tags":null"#,
            ]),
            field(&[
                "",
                r#","title":"hide"#,
                r#","title":"urgent"#,
                r#","title":"T"#,
            ]),
            field(&[
                "",
                r#","data":{"a": 1.0}"#,
                r#","merge":false"#,
                r#","x":1"#,
            ]),
        );
        let written = reminder.prop_map(|(user, content, tags, title, more)| {
            let title = title.to_owned() + if title.is_empty() { "" } else { "\"" };
            format!(r#""user":"{user}","content":"{content}"{tags}{title}{more}"#)
        });
        prop::collection::vec(written, 1..6)
    }

    proptest! {
        /// App servers read the same of reminders that are all written again.
        #[test]
        fn forwarding_changes_no_reminder(reminders in reminders()) {
            let rules = rules(
                r#"{"rules":[{"name":"m","keywords":["hide"],"action":"mask"},
                    {"name":"p","keywords":["urgent"],"action":"priority","with":"urgent"}]}"#,
            );
            let with_id = |(at, fields): (usize, &String)| format!(r#"{{"id":"{at}",{fields}}}"#);
            let all: Vec<_> = reminders.iter().enumerate().map(with_id).collect();
            let body = format!(r#"{{"reminders":[{}]}}"#, all.join(","));
            let mut slice = judged(&body, &[]);
            for judged in &mut slice.reminders {
                judged.published.reminder.lacking = None;
            }
            let rewritten = Planner { rules: &rules, merges: true }.plan(slice);
            let forwarded = plan(&rules, &body, &[]);
            prop_assert_eq!(bodies(&forwarded), bodies(&rewritten));
            prop_assert_eq!(forwarded.event.bodies.len() + forwarded.ended.len(), all.len());
        }
    }
}
