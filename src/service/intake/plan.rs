//! Decides what a published set means: what is refused, what is merged, what the rules leave of it, and which events carry the
//! rest. Pure.
//!
//! After a crash a set is planned again, and JetStream drops the events that were stored before by their ids. So an id must
//! stand for the same reminders however often the set is planned, whatever the idempotency window and the rules say by then:
//! a reminder's event is chosen by where it stands in the set as published, before anything is dropped or changed.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;

use super::super::rejected;
use super::super::seen::{Id, Window, identity};
use crate::event::{Event, Index, IndexEntry};
use crate::nats::Names;
use crate::nats::pinned::Received;
use crate::partition::{Partition, of_user};
use crate::reminder::Reminder;
use crate::reminder::merge::merge;
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::set::{self, Candidate, Origin, ReminderSet};
use crate::rules::{Rules, RulesError, Verdict};
use crate::token::Source;

/// What has to be done for one set before it is acknowledged.
#[derive(Default)]
pub(super) struct Plan {
    /// Events, in order, with the partition each goes to and its idempotency id.
    pub(super) events: Vec<(Partition, String, Bytes)>,
    /// Refused input.
    pub(super) rejected: Vec<rejected::Message>,
    /// Outcomes that are known already.
    pub(super) outcomes: Vec<Record>,
    /// Reminders for the idempotency window.
    pub(super) ids: Vec<Id>,
}

/// What a plan depends on.
pub(super) struct Planner<'a> {
    pub(super) names: &'a Names,
    pub(super) partitions: u16,
    /// Bytes of one event, about.
    pub(super) event_bytes: usize,
    /// Bytes of the largest message that NATS takes.
    pub(super) most_bytes: usize,
    /// Reminders of other sets may be merged, so what each one says is written down.
    pub(super) merges: bool,
    pub(super) window: &'a Window,
    pub(super) rules: &'a Rules,
    pub(super) now: Timestamp,
}

/// Where a reminder stands: in its set, and in which event of its partition.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    partition: Partition,
    event: usize,
}

/// The reminders of one event: each one's index in the set, its line in the event's index, and its JSON.
type Members = Vec<(usize, IndexEntry, Bytes)>;

/// One set in planning.
struct SetPlan<'p> {
    planner: &'p Planner<'p>,
    origin: &'p Origin,
    token: &'p str,
    set: &'p ReminderSet<'p>,
    plan: Plan,
}

impl Planner<'_> {
    pub(super) fn plan(&self, received: &Received, stored_ms: i64) -> Plan {
        let sequence = received.sequence;
        let token = received.subject.rsplit('.').next().unwrap_or_default();
        let refused = |rejection: &Rejection| {
            tracing::debug!(subject = received.subject, %rejection, "set refused");
            let (payload, id) = (received.payload.clone(), sequence.to_string());
            Plan {
                rejected: vec![rejected::Message::new(self.names, token, payload, rejection, None, id)],
                ..Plan::default()
            }
        };
        let source = match Source::from_token(token) {
            Ok(source) => source,
            Err(error) => return refused(&Rejection::new(RejectCode::InvalidSource, error)),
        };
        let published_at = Timestamp::from_millisecond(stored_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let origin = Origin { source, sequence, published_at };
        match set::parse(&origin, &received.payload) {
            Err(rejection) => refused(&rejection),
            Ok(set) => {
                let is_requeued = received.headers.as_ref().is_some_and(|h| h.get(rejected::REQUEUE_HEADER).is_some());
                SetPlan { planner: self, origin: &origin, token, set: &set, plan: Plan::default() }.finish(is_requeued)
            }
        }
    }

    /// Chooses each reminder's event by the bytes of the set as published.
    fn places(&self, set: &ReminderSet<'_>) -> Vec<Option<Place>> {
        let mut filled: BTreeMap<Partition, (usize, usize)> = BTreeMap::new();
        let place = |(index, Candidate { raw, parsed, .. }): (usize, &Candidate<'_>)| {
            let partition = of_user(&parsed.as_ref().ok()?.user, self.partitions);
            let (event, bytes) = filled.entry(partition).or_default();
            let needed = raw.len() + ADDED_BYTES + set.id.len();
            if *bytes > 0 && *bytes + needed > self.event_bytes {
                (*event, *bytes) = (*event + 1, 0);
            }
            *bytes += needed;
            Some(Place { index, partition, event: *event })
        };
        set.reminders.iter().enumerate().map(place).collect()
    }
}

/// What a reminder as delivered has beyond what was published of it, about.
const ADDED_BYTES: usize = 256;

impl SetPlan<'_> {
    fn finish(mut self, is_requeued: bool) -> Plan {
        let (valid, places) = self.validated(is_requeued);
        let (kept, merged) = merge(valid);
        for merged in merged {
            self.record(merged.id, Some(merged.user.to_string()), Outcome::Merged { into: merged.into });
        }
        let mut events: BTreeMap<(Partition, usize), Members> = BTreeMap::new();
        for mut reminder in kept {
            let Place { index, partition, event } = places[&identity(&self.origin.source, &reminder.id)];
            let text = self.planner.merges.then(|| reminder.text_hash());
            match self.planner.rules.apply(&mut reminder) {
                Ok(Verdict::Pass) => {
                    let body = Bytes::from(reminder.to_json());
                    let expires_at = reminder.expires_at.map(Timestamp::as_millisecond);
                    let Reminder { id, user, priority, stays, .. } = reminder;
                    let bytes = body.len();
                    let entry = IndexEntry { id, user, expires_at, priority, text, rerouted_to: None, stays, bytes };
                    events.entry((partition, event)).or_default().push((index, entry, body));
                }
                Ok(Verdict::Blocked { tag, rule }) => {
                    self.record(reminder.id, Some(reminder.user.to_string()), Outcome::Blocked { tag, rule });
                }
                Err(error) => {
                    let code = match error {
                        RulesError::TooManyMatches(_) => RejectCode::TooManyMatches,
                        RulesError::TooLong(_) => RejectCode::ReminderTooLarge,
                    };
                    self.refuse(index, &Rejection::new(code, error));
                    self.record(reminder.id, Some(reminder.user.to_string()), Outcome::Rejected { error: code });
                }
            }
        }
        for ((partition, event), members) in events {
            self.add_events(partition, event, members);
        }
        self.plan
    }

    /// The reminders that are valid and new, and where they stand.
    fn validated(&mut self, is_requeued: bool) -> (Vec<Reminder>, HashMap<Id, Place>) {
        let Planner { window, .. } = self.planner;
        let (set, origin) = (self.set, self.origin);
        let places = self.planner.places(set);
        let mut valid: Vec<Reminder> = Vec::with_capacity(set.reminders.len());
        let mut taken: HashMap<Id, Place> = HashMap::with_capacity(set.reminders.len());
        for (index, (Candidate { id, raw, parsed }, place)) in set.reminders.iter().zip(places).enumerate() {
            let identity = identity(&origin.source, id);
            match (parsed, place) {
                (Err((rejection, user)), _) => {
                    self.refuse(index, rejection);
                    self.record(id.clone(), user.clone(), Outcome::Rejected { error: rejection.code });
                }
                (Ok(_), _) if window.is_repeat(identity, origin.sequence) && !is_requeued => {
                    tracing::trace!(source = %origin.source, id, "repeat dropped");
                }
                (Ok(reminder), Some(place)) => match taken.get(&identity) {
                    Some(first) if set.reminders[first.index].raw == *raw => {}
                    Some(_) => {
                        let detail = format!("`{id}` is the id of another reminder of the set");
                        self.refuse(index, &Rejection::new(RejectCode::DuplicateId, detail));
                    }
                    None => {
                        taken.insert(identity, place);
                        self.plan.ids.push(identity);
                        valid.push(reminder.clone());
                    }
                },
                (Ok(_), None) => unreachable!("what is valid has a place"),
            }
        }
        (valid, taken)
    }

    /// Writes an event; or several, where rules made its reminders too large for one message. Those have other ids, each
    /// with the reminders it carries, so that what is dropped as a repeat is never more than what was stored.
    fn add_events(&mut self, partition: Partition, event: usize, mut members: Members) {
        let id = format!("{}.{partition}.{event}", self.origin.sequence);
        let is_whole = self.fitting(&members) == members.len();
        while !members.is_empty() {
            let rest = members.split_off(self.fitting(&members));
            let id = match (members.first(), members.last()) {
                (Some((first, ..)), Some((last, ..))) if !is_whole => format!("{id}.{first}-{last}"),
                _ => id.clone(),
            };
            let (reminders, bodies) = members.into_iter().map(|(_, entry, body)| (entry, body)).unzip();
            let index = Index { source: self.origin.source.clone(), set: self.set.id.clone(), reminders };
            self.plan.events.push((partition, id, Event { index, bodies }.encode()));
            members = rest;
        }
    }

    /// How many reminders from the front fit into one message; at least one.
    fn fitting(&self, members: &Members) -> usize {
        let mut room = self.planner.most_bytes.saturating_sub(8 << 10);
        let fits = |(_, entry, body): &&(usize, IndexEntry, Bytes)| {
            // JSON writes a character in at most six bytes; the rest of an index line is shorter than a hundred.
            let needed = body.len() + 6 * (entry.id.len() + entry.user.as_str().len()) + 100;
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        };
        members.iter().take_while(fits).count().max(1)
    }

    fn refuse(&mut self, index: usize, rejection: &Rejection) {
        let raw = Bytes::copy_from_slice(self.set.reminders[index].raw.as_bytes());
        let id = format!("{}#{index}", self.origin.sequence);
        let message = rejected::Message::new(self.planner.names, self.token, raw, rejection, Some(&self.set.id), id);
        self.plan.rejected.push(message);
    }

    fn record(&mut self, id: String, user: Option<String>, outcome: Outcome) {
        let (source, set, at) = (self.origin.source.clone(), self.set.id.clone(), self.planner.now);
        self.plan.outcomes.push(Record { id, source, set, user, outcome, at });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::Duration;

    use async_nats::HeaderMap;

    use super::*;
    use crate::rules::document::Document;
    use crate::rules::engine::Engine;
    use crate::service::seen::Taken;

    struct Given<'g> {
        window: &'g Window,
        rules: &'g Rules,
        headers: Option<HeaderMap>,
        event_bytes: usize,
        most_bytes: usize,
    }

    fn given<'g>(window: &'g Window, rules: &'g Rules) -> Given<'g> {
        Given { window, rules, headers: None, event_bytes: 1_200, most_bytes: 512 << 10 }
    }

    fn plan_given(given: Given<'_>, sequence: u64, body: &str) -> Plan {
        let names = Names::new("bellhop");
        let planner = Planner {
            names: &names,
            partitions: 4,
            event_bytes: given.event_bytes,
            most_bytes: given.most_bytes,
            merges: true,
            window: given.window,
            rules: given.rules,
            now: Timestamp::UNIX_EPOCH,
        };
        let received = Received {
            sequence,
            stored_ns: 0,
            subject: "bellhop.sets.billing".into(),
            headers: given.headers,
            payload: Bytes::copy_from_slice(body.as_bytes()),
            reply: "reply".into(),
        };
        planner.plan(&received, 1_000)
    }

    fn plan_with(window: &Window, sequence: u64, body: &str, headers: Option<HeaderMap>) -> Plan {
        plan_given(Given { headers, ..given(window, &Rules::default()) }, sequence, body)
    }

    fn rules(document: &str) -> Rules {
        let document = Document::parse(document.as_bytes()).unwrap();
        Rules::default().with("t".parse().unwrap(), Some(Arc::new(Engine::new(&document).unwrap())))
    }

    /// Which reminder is in which event.
    fn by_event(plan: &Plan) -> BTreeMap<String, Vec<String>> {
        let event = |(_, id, message): &(Partition, String, Bytes)| {
            let ids = Event::decode(message).unwrap().index.reminders.into_iter().map(|entry| entry.id);
            (id.clone(), ids.collect())
        };
        plan.events.iter().map(event).collect()
    }

    fn window() -> Window {
        Window::new(Duration::from_secs(600), 100)
    }

    fn ids(plan: &Plan) -> Vec<String> {
        let events = plan.events.iter().map(|(_, _, message)| Event::decode(message).unwrap());
        events.flat_map(|event| event.index.reminders.into_iter().map(|entry| entry.id)).collect()
    }

    #[test]
    fn the_same_set_makes_the_same_events_and_each_users_reminders_stay_in_order() {
        let reminders: Vec<_> =
            (0..40).map(|i| format!(r#"{{"id":"{i}","user":"u{}","content":"text {i}"}}"#, i % 5)).collect();
        let body = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
        let plan = plan_with(&window(), 9, &body, None);
        assert_eq!(plan.events, plan_with(&window(), 9, &body, None).events);
        assert!(plan.events.len() > 4, "events are bounded in size");
        let keys: HashSet<_> = plan.events.iter().map(|(_, key, _)| key).collect();
        assert_eq!(keys.len(), plan.events.len());
        for user in 0..5 {
            let order: Vec<usize> =
                ids(&plan).iter().map(|id| id.parse().unwrap()).filter(|id: &usize| id % 5 == user).collect();
            assert!(order.is_sorted() && order.len() == 8);
        }
    }

    #[test]
    fn an_events_id_stands_for_the_same_reminders_whatever_the_window_and_the_rules_say() {
        let text = |i| if i % 7 == 0 { "hide" } else { "grow" };
        let reminders: Vec<_> = (0..60)
            .map(|i| format!(r#"{{"id":"{i}","user":"u{}","content":"{} {i}","tags":["t"]}}"#, i % 5, text(i)))
            .collect();
        let body = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
        let (all, none) = (window(), Rules::default());
        let first = plan_given(given(&all, &none), 9, &body);
        let mut fewer = window();
        fewer.note(&Taken { sequence: 1, stored_ms: 1_000, ids: first.ids.iter().copied().step_by(3).collect() });
        let changed = rules(
            r#"{"rules":[{"name":"b","keywords":["hide"],"action":"block"},
                {"name":"r","keywords":["grow"],"action":"replace","with":"a much longer text than it was before"}]}"#,
        );
        let again = plan_given(given(&fewer, &changed), 9, &body);
        let (first, again) = (by_event(&first), by_event(&again));
        assert!(first.len() > 8 && again.values().map(Vec::len).sum::<usize>() < 40);
        for (id, reminders) in again {
            assert!(reminders.iter().all(|reminder| first[&id].contains(reminder)), "{id} has {reminders:?}");
        }
    }

    #[test]
    fn what_rules_make_too_large_for_one_message_goes_in_several_and_under_other_ids() {
        let reminder =
            |i: usize| format!(r#"{{"id":"{i}","user":"u","content":"{}","tags":["t"]}}"#, "x".repeat(i + 1));
        let body = format!(r#"{{"reminders":[{}]}}"#, (0..12).map(reminder).collect::<Vec<_>>().join(","));
        let document = format!(
            r#"{{"rules":[{{"name":"r","keywords":["x"],"action":"replace","with":"{}"}}],"match":{{"words":"off"}}}}"#,
            "y".repeat(1_000)
        );
        let (window, rules) = (window(), rules(&document));
        let plan =
            |most_bytes| plan_given(Given { event_bytes: 100_000, most_bytes, ..given(&window, &rules) }, 9, &body);
        let (whole, split) = (plan(512 << 10), plan(40_000));
        assert_eq!((whole.events.len(), ids(&whole)), (1, ids(&split)));
        assert!(split.events.len() > 2 && split.events.iter().all(|(_, _, message)| message.len() < 40_000));
        let whole = by_event(&whole);
        assert!(by_event(&split).keys().all(|id| !whole.contains_key(id)));
    }

    #[test]
    fn what_rules_block_or_cannot_process_has_its_outcome_and_its_neighbours_go_on() {
        let long = "y".repeat(1_000);
        let rules = rules(&format!(
            r#"{{"rules":[{{"name":"b","keywords":["hide"],"action":"block"}},
                {{"name":"r","keywords":["x"],"action":"replace","with":"{long}"}}],"match":{{"words":"off"}}}}"#
        ));
        let body = format!(
            r#"{{"reminders":[{{"id":"a","user":"u","content":"hide","tags":["t"]}},{{"id":"b","user":"u","content":"c"}},
                {{"id":"c","user":"u","content":"{}","tags":["t"]}}]}}"#,
            "x".repeat(400)
        );
        let plan = plan_given(given(&window(), &rules), 1, &body);
        assert_eq!((ids(&plan), plan.rejected.len(), plan.ids.len()), (vec!["b".to_owned()], 1, 3));
        let outcomes: Vec<_> = plan.outcomes.into_iter().map(|record| (record.id, record.outcome)).collect();
        let blocked = Outcome::Blocked { tag: "t".parse().unwrap(), rule: "b".into() };
        let rejected = Outcome::Rejected { error: RejectCode::ReminderTooLarge };
        assert_eq!(outcomes, [("a".to_owned(), blocked), ("c".to_owned(), rejected)]);
    }

    #[test]
    fn repeats_are_dropped_unless_they_are_the_set_itself_or_were_requeued() {
        let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"}]}"#;
        let mut window = window();
        let first = plan_with(&window, 1, body, None);
        window.note(&Taken { sequence: 1, stored_ms: 1_000, ids: first.ids });
        assert_eq!(ids(&plan_with(&window, 1, body, None)), ["a"]);
        assert_eq!(ids(&plan_with(&window, 2, body, None)), [""; 0]);
        let mut headers = HeaderMap::new();
        headers.insert(rejected::REQUEUE_HEADER, "7");
        assert_eq!(ids(&plan_with(&window, 2, body, Some(headers))), ["a"]);
    }

    #[test]
    fn an_id_twice_in_one_set_is_one_reminder_or_a_mistake() {
        let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"},{"id":"a","user":"u","content":"c"},
            {"id":"a","user":"v","content":"c"}]}"#;
        let plan = plan_with(&window(), 1, body, None);
        assert_eq!((ids(&plan).len(), plan.rejected.len(), plan.outcomes.len()), (1, 1, 0));
    }

    #[test]
    fn bad_reminders_and_duplicates_have_their_outcomes() {
        let body = r#"{"id":"s","reminders":[{"id":"a","user":"u","content":"c"},{"id":"b","user":"u","content":"c"},
            {"id":"x","user":"","content":"c"}]}"#;
        let plan = plan_with(&window(), 1, body, None);
        assert_eq!((ids(&plan), plan.rejected.len()), (vec!["a".to_owned()], 1));
        let outcomes: Vec<_> =
            plan.outcomes.iter().map(|record| (record.id.as_str(), record.outcome.clone())).collect();
        let rejected = Outcome::Rejected { error: RejectCode::InvalidUser };
        assert_eq!(outcomes, [("x", rejected), ("b", Outcome::Merged { into: "a".into() })]);
    }
}
