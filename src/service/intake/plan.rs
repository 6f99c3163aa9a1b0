//! Decides what a published set means: what is refused, what is merged, what the rules leave of it, and which events carry the
//! rest. Pure.
//!
//! After a crash a set is planned again, and JetStream drops the events that were stored before by their ids. So an id must
//! stand for the same reminders however often the set is planned, whatever the idempotency window and the rules say by then:
//! a reminder's event is chosen by where it stands in the set as published, before anything is dropped or changed.

use std::collections::{BTreeMap, HashMap};
use std::iter;

use bytes::Bytes;
use jiff::Timestamp;

use super::super::outcomes::message::Told;
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
use crate::token::{Source, Tag};
use crate::trace::TraceParent;

/// What has to be done for one set before it is acknowledged.
#[derive(Default)]
pub(super) struct Plan {
    /// Events, in order, with the partition each goes to and its idempotency id.
    pub(super) events: Vec<(Partition, String, Bytes)>,
    /// Refused input.
    pub(super) rejected: Vec<rejected::Message>,
    /// Outcomes that are known already.
    pub(super) outcomes: Vec<Told>,
    /// Reminders for the idempotency window: those that are valid and new.
    pub(super) ids: Vec<Id>,
    /// How many were dropped, since they were taken in before.
    pub(super) repeats: usize,
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
    /// The trace that the set belongs to.
    pub(super) trace: Option<TraceParent>,
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

    /// A reminder as its rules leave it: its line in an event's index, and its JSON.
    fn ruled(&self, mut reminder: Reminder) -> Result<(IndexEntry, Bytes), End> {
        let text = self.merges.then(|| reminder.text_hash());
        match self.rules.apply(&mut reminder) {
            Ok(Verdict::Pass) => {}
            Ok(Verdict::Blocked { tag, rule }) => return Err(End::Blocked { tag, rule }),
            Err(error) => {
                let code = match error {
                    RulesError::TooManyMatches(_) => RejectCode::TooManyMatches,
                    RulesError::TooLong(_) => RejectCode::ReminderTooLarge,
                };
                return Err(End::Refused(Rejection::new(code, error)));
            }
        }
        let body = Bytes::from(reminder.to_json());
        let expires_at = reminder.expires_at.map(Timestamp::as_millisecond);
        let Reminder { id, user, priority, stays, .. } = reminder;
        let bytes = body.len();
        Ok((IndexEntry { id, user, expires_at, priority, text, rerouted_to: None, stays, bytes }, body))
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

/// Why the rules let a reminder go no further.
enum End {
    Blocked { tag: Tag, rule: String },
    Refused(Rejection),
}

/// What a reminder as delivered has beyond what was published of it, about.
const ADDED_BYTES: usize = 256;

/// What a line of an event's index has beside the reminder's id and user, at most: all fields, with the longest numbers.
const INDEX_LINE_BYTES: usize = 192;

impl SetPlan<'_> {
    fn finish(mut self, is_requeued: bool) -> Plan {
        let (valid, places) = self.validated(is_requeued);
        let place = |id: &str| places[&identity(&self.origin.source, id)];
        let mut events: BTreeMap<(Partition, usize), Members> = BTreeMap::new();
        let mut add = |Place { index, partition, event }, (entry, body)| {
            events.entry((partition, event)).or_default().push((index, entry, body));
        };
        for reminder in merge(valid) {
            let (id, user, merged) = (reminder.id.clone(), reminder.user.to_string(), reminder.merged.clone());
            match self.planner.ruled(reminder) {
                Ok(finished) => {
                    add(place(&id), finished);
                    for other in merged {
                        let alone = self.alone(place(&other));
                        self.tell(other, Some(user.clone()), Outcome::Merged { into: id.clone() }, alone);
                    }
                }
                // The rules of all their tags together; those of one of them may let it pass, and then it must not be lost.
                Err(_) if !merged.is_empty() => {
                    for id in iter::once(id).chain(merged) {
                        let place = place(&id);
                        match self.planner.ruled(self.original(place)) {
                            Ok(finished) => add(place, finished),
                            Err(end) => self.end(place.index, id, user.clone(), end),
                        }
                    }
                }
                Err(end) => self.end(place(&id).index, id, user, end),
            }
        }
        for ((partition, event), mut members) in events {
            members.sort_unstable_by_key(|(index, ..)| *index);
            self.add_events(partition, event, members);
        }
        self.plan
    }

    /// A reminder as published. Only what is valid is merged, or comes so far.
    fn original(&self, place: Place) -> Reminder {
        self.set.reminders[place.index].parsed.clone().unwrap_or_else(|_| unreachable!("what has a place is valid"))
    }

    /// What a merged reminder would have said alone; nothing, if its own rules let nobody see it.
    fn alone(&self, place: Place) -> Option<Bytes> {
        Some(self.planner.ruled(self.original(place)).ok()?.1)
    }

    /// A reminder that goes no further than this.
    fn end(&mut self, index: usize, id: String, user: String, end: End) {
        let outcome = match end {
            End::Blocked { tag, rule } => Outcome::Blocked { tag, rule },
            End::Refused(rejection) => {
                self.refuse(index, &rejection);
                Outcome::Rejected { error: rejection.code }
            }
        };
        self.tell(id, Some(user), outcome, None);
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
                    let user = user.as_ref().map(ToString::to_string);
                    self.tell(id.clone(), user, Outcome::Rejected { error: rejection.code }, None);
                }
                (Ok(_), _) if window.is_repeat(identity, origin.sequence) && !is_requeued => {
                    tracing::trace!(source = %origin.source, id, "repeat dropped");
                    self.plan.repeats += 1;
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
            let (source, set) = (self.origin.source.clone(), self.set.id.clone());
            let (published_ms, trace) = (self.origin.published_at.as_millisecond(), self.planner.trace.clone());
            let index = Index { source, set, published_ms, trace, reminders };
            self.plan.events.push((partition, id, Event { index, bodies }.encode()));
            members = rest;
        }
    }

    /// How many reminders from the front fit into one message; at least one.
    fn fitting(&self, members: &Members) -> usize {
        let mut room = self.planner.most_bytes.saturating_sub(8 << 10);
        let fits = |(_, entry, body): &&(usize, IndexEntry, Bytes)| {
            // JSON writes a character in at most six bytes.
            let needed = body.len() + 6 * (entry.id.len() + entry.user.as_str().len()) + INDEX_LINE_BYTES;
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

    fn tell(&mut self, id: String, user: Option<String>, outcome: Outcome, reminder: Option<Bytes>) {
        let (source, set, at) = (self.origin.source.clone(), self.set.id.clone(), self.planner.now);
        let record = Record { id, source, set, user, outcome, at };
        let published_ms = self.origin.published_at.as_millisecond();
        self.plan.outcomes.push(Told { record, published_ms, reminder, settles: None });
    }
}

#[cfg(test)]
mod tests;
