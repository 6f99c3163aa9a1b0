//! Decides what a published set means: what is refused, what is merged, what the rules leave of it, and which events carry the
//! rest. Pure.
//!
//! After a crash a set is planned again. Each reminder of an event tells where it stands in which set as published, which
//! never changes; so partitions know a repeat, whatever the idempotency window and the rules say by then (`repeats.rs`).

use std::collections::{BTreeMap, HashSet};
use std::iter;
use std::sync::Arc;

use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use hashbrown::HashMap;
use jiff::Timestamp;

use super::super::outcomes::message::Told;
use super::super::recorded::Settled;
use super::super::rejected;
use super::super::seen::{
    Id, Window, cancellation_identity, identity, made_up_identity, message_identity,
};
use crate::event::{Event, Index, IndexEntry, OfSet};
use crate::headers;
use crate::merge::{Merged, merge};
use crate::nats::Names;
use crate::nats::pinned::Received;
use crate::nats::schedule::{self, Scheduled};
use crate::partition::{Partition, of_user};
use crate::reminder::Reminder;
use crate::reminder::finished::with_reroute_false;
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::set::{self, Candidate, Common, Origin, Refused, ReminderSet};
use crate::rules::{Rules, RulesError, Verdict};
use crate::token::{Source, Tag, UserId};
use crate::trace::TraceParent;
use crate::wire::cloud_event::Published;

/// Bytes that refusing the wrong reminders of one set may take in the streams of refused input and of outcomes, for each
/// byte of the set, and
const REFUSALS_FACTOR: usize = 8;
/// beside that, so that a few mistakes in a small set are refused alone. A refusal takes some 500 bytes however short the
/// reminder is, and they are kept for weeks: without a bound a few sets would fill the store.
const REFUSALS_BYTES: usize = 4 << 10;

/// What has to be done for one set before it is acknowledged.
#[derive(Default)]
pub struct Plan {
    /// What goes to partitions, in order.
    pub parts: Vec<(Partition, Part)>,
    /// What it has for later, if it has anything.
    pub later: Option<Later>,
    /// Refused input.
    pub rejected: Vec<rejected::Message>,
    /// Outcomes that are known already.
    pub outcomes: Vec<Told>,
    /// Reminders for the idempotency window: those that are valid and new.
    pub ids: Vec<Id>,
    /// What else it is to remember: the set's message id, and what the set cancels.
    pub marks: Vec<Id>,
    /// How many were dropped, since they were taken in before.
    pub repeats: usize,
}

impl Plan {
    /// Bytes of all that it has made: events, refusals, outcomes, schedules and ids. About what they take in memory, too.
    pub fn bytes(&self) -> usize {
        let parts: usize = self.parts.iter().map(|(_, part)| part.bytes).sum();
        let later = self.later.as_ref().map_or(0, Later::bytes);
        let rejected: usize = self.rejected.iter().map(rejected::Message::bytes).sum();
        let outcomes: usize = self.outcomes.iter().map(Told::bytes).sum();
        parts + later + rejected + outcomes + size_of::<Id>() * (self.ids.len() + self.marks.len())
    }
}

/// What a plan depends on.
pub struct Planner<'a> {
    /// What streams and subjects are called.
    pub names: &'a Names,
    /// How many partitions there are.
    pub partitions: u16,
    /// Bytes of one event, unless one reminder alone has more.
    pub event_bytes: usize,
    /// Reminders of other sets may be merged, so what each one says is written down.
    pub merges: bool,
    /// What was taken in lately.
    pub window: &'a Window,
    /// What is recorded of sets that are planned again.
    pub recorded: &'a HashSet<Settled>,
    /// The rules of this moment.
    pub rules: &'a Rules,
    /// When the outcomes are.
    pub now: Timestamp,
    /// The trace that the set belongs to.
    pub trace: Option<TraceParent>,
}

/// Some reminders of one set for one partition.
#[derive(Debug)]
pub struct Part {
    /// The set.
    pub set: Arc<OfSet>,
    /// Bytes of the event that it makes alone, at most; of several in one, less than their sum.
    pub bytes: usize,
    reminders: Vec<(IndexEntry, Bytes)>,
}

impl Part {
    fn new(set: &Arc<OfSet>) -> Self {
        let bytes = INDEX_BYTES + escaped(set.source.as_str()) + escaped(&set.id);
        Self {
            set: set.clone(),
            bytes,
            reminders: Vec::new(),
        }
    }

    fn push(&mut self, entry: IndexEntry, body: Bytes) {
        self.bytes += needed(&entry);
        self.reminders.push((entry, body));
    }
}

/// What a set has for later: reminders to be scheduled, and earlier ones that it cancels.
#[derive(Debug)]
pub struct Later {
    /// The set.
    pub set: Arc<OfSet>,
    /// When JetStream stored the set, in nanoseconds since 1970.
    pub set_ns: i128,
    /// Ids of reminders that are not to be delivered, if earlier sets scheduled them.
    pub cancel: Vec<String>,
    /// Ids of reminders that the set has itself: what earlier sets scheduled under them gives way without an outcome.
    pub replaced: Vec<String>,
    /// What is to be delivered later.
    pub scheduled: Vec<Scheduled>,
}

impl Later {
    /// Bytes of it, about.
    fn bytes(&self) -> usize {
        let withdrawn = self
            .cancel
            .iter()
            .chain(&self.replaced)
            .map(|id| size_of::<String>() + id.len());
        let scheduled = self
            .scheduled
            .iter()
            .map(|one| size_of::<Scheduled>() + one.id.len() + one.set.len());
        withdrawn.sum::<usize>() + scheduled.sum::<usize>()
    }
}

/// The message that carries these parts to their partition, in the order in which their sets were published.
pub fn event(mut parts: Vec<Part>) -> Bytes {
    parts.sort_by_key(|part| part.set.sequence);
    let (mut sets, mut reminders, mut bodies): (Vec<OfSet>, Vec<_>, Vec<_>) = Default::default();
    for part in parts {
        if sets
            .last()
            .is_none_or(|last| last.sequence != part.set.sequence)
        {
            sets.push(OfSet::clone(&part.set));
        }
        for (entry, body) in part.reminders {
            reminders.push(IndexEntry {
                set: sets.len() - 1,
                ..entry
            });
            bodies.push(body);
        }
    }
    Event {
        index: Index { sets, reminders },
        bodies,
    }
    .encode()
}

/// A reminder for later, as a set of its own that may be published then.
fn scheduled(at: Timestamp, reminder: Reminder, place: usize) -> Scheduled {
    let (json, set) = (
        reminder.to_json(),
        serde_json::to_string(&reminder.set).expect("a name is text"),
    );
    let json = if reminder.stays {
        with_reroute_false(&json)
    } else {
        json
    };
    let set = [
        br#"{"id":"#,
        set.as_bytes(),
        br#","reminders":["#,
        &json,
        b"]}",
    ]
    .concat()
    .into();
    Scheduled {
        id: reminder.id,
        at,
        set,
        place,
    }
}

/// What an index has beside its lines and the set's id, at most.
const INDEX_BYTES: usize = 512;
/// What a line of an index has beside the reminder's id and user, at most: all fields, with the longest numbers.
const LINE_BYTES: usize = 224;

/// Bytes that a reminder takes in an event, at most.
fn needed(entry: &IndexEntry) -> usize {
    entry.bytes + escaped(&entry.id) + escaped(entry.user.as_str()) + LINE_BYTES
}

/// Bytes of a text in JSON, which writes a character in at most six.
fn escaped(text: &str) -> usize {
    6 * text.len()
}

/// One set in planning.
struct SetPlan<'p> {
    planner: &'p Planner<'p>,
    origin: &'p Origin,
    token: &'p str,
    common: Common,
    /// The reminders as published.
    raws: Vec<&'p str>,
    of: Arc<OfSet>,
    /// When the set was published that scheduled its reminders, in nanoseconds since 1970, where they were scheduled.
    scheduled_ns: Option<i128>,
    later: Later,
    plan: Plan,
    /// Bytes that refusing its wrong reminders one by one takes so far, and
    refused_bytes: usize,
    /// may take.
    bound: usize,
}

impl Planner<'_> {
    /// Plans a set that JetStream stored at `stored_ms`, in milliseconds since 1970.
    pub fn plan(&self, received: &Received, published: &Published<'_>, stored_ms: i64) -> Plan {
        let sequence = received.sequence;
        let token = received.subject.rsplit('.').next().unwrap_or_default();
        let refused = |rejection: &Rejection| {
            tracing::debug!(subject = received.subject, %rejection, "set refused");
            let (payload, id) = (received.payload.clone(), sequence.to_string());
            let message = rejected::Message::new(self.names, token, payload, rejection, None, id);
            Plan {
                rejected: vec![message.with_headers_of(received.headers.as_ref())],
                ..Plan::default()
            }
        };
        let source = match Source::from_token(token) {
            Ok(source) => source,
            Err(error) => return refused(&Rejection::new(RejectCode::InvalidSource, error)),
        };
        let origin = Origin::new(source, sequence, stored_ms);
        let message = received
            .header(NATS_MESSAGE_ID.as_ref())
            .map(|id| message_identity(&origin.source, id));
        let is_repeat =
            message.is_some_and(|id| self.window.taken_before(id, sequence, stored_ms).is_some());
        let set = published
            .set
            .as_ref()
            .map_err(Rejection::clone)
            .and_then(|set| set::parse(&origin, set));
        let mut plan = match set {
            Err(_) if is_repeat => Plan::default(),
            Ok(set) if is_repeat => Plan {
                repeats: set.reminders.len(),
                ..Plan::default()
            },
            Err(rejection) => refused(&rejection),
            Ok(ReminderSet {
                common,
                cancel,
                reminders,
            }) => {
                let is_requeued = received.header(headers::REQUEUE).is_some();
                let (source, id, trace) =
                    (origin.source.clone(), common.id.clone(), self.trace.clone());
                let of = Arc::new(OfSet {
                    source,
                    id,
                    sequence,
                    published_ms: stored_ms,
                    trace,
                });
                let (set_ns, scheduled_ns) = (
                    received.stored_ns,
                    schedule::set_time(received.headers.as_ref()),
                );
                let later = Later {
                    set: of.clone(),
                    set_ns,
                    cancel,
                    replaced: Vec::new(),
                    scheduled: Vec::new(),
                };
                let (raws, plan) = (
                    reminders.iter().map(|candidate| candidate.raw).collect(),
                    Plan::default(),
                );
                let bound = REFUSALS_BYTES + REFUSALS_FACTOR * received.payload.len();
                let (planner, origin, refused_bytes) = (self, &origin, 0);
                SetPlan {
                    planner,
                    origin,
                    token,
                    common,
                    raws,
                    of,
                    scheduled_ns,
                    later,
                    plan,
                    refused_bytes,
                    bound,
                }
                .finish(reminders, is_requeued)
                .unwrap_or_else(|rejection| refused(&rejection))
            }
        };
        plan.marks.extend(message.filter(|_| !is_repeat));
        plan
    }

    /// A reminder as its rules leave it: its line in an event's index, and its JSON. It stands at `place` in its set.
    fn ruled(&self, mut reminder: Reminder, place: usize) -> Result<(IndexEntry, Bytes), End> {
        let text = self.merges.then(|| reminder.text_hash());
        match self.rules.apply(&mut reminder) {
            Ok(Verdict::Pass) => {}
            Ok(Verdict::Blocked { tag, rule }) => return Err(End::Blocked { tag, rule }),
            Err(error) => {
                let code = match error {
                    RulesError::Unusable(_) => RejectCode::RulesUnusable,
                    RulesError::TooManyMatches(_) => RejectCode::TooManyMatches,
                    RulesError::TooLong(_) => RejectCode::ReminderTooLarge,
                };
                return Err(End::Refused(Rejection::new(code, error)));
            }
        }
        let body = Bytes::from(reminder.to_json());
        let expires_at = reminder.expires_at.map(Timestamp::as_millisecond);
        let Reminder {
            id,
            user,
            priority,
            stays,
            ..
        } = reminder;
        let bytes = body.len();
        let set = 0; // Told when the event is written.
        Ok((
            IndexEntry {
                set,
                place,
                id,
                user,
                expires_at,
                priority,
                text,
                rerouted_to: None,
                stays,
                bytes,
            },
            body,
        ))
    }
}

/// Why the rules let a reminder go no further.
enum End {
    Blocked { tag: Tag, rule: String },
    Refused(Rejection),
}

impl SetPlan<'_> {
    /// # Errors
    /// When refusing its wrong reminders one by one would take too much: then the whole set is to be refused.
    fn finish(
        mut self,
        reminders: Vec<Candidate<'_>>,
        is_requeued: bool,
    ) -> Result<Plan, Rejection> {
        let (valid, places) = self.validated(reminders, is_requeued)?;
        self.sort_cancellations(&places);
        let place = |id: &str| places[&identity(&self.origin.source, id)];
        let mut finished = Vec::with_capacity(valid.len());
        for Merged { reminder, .. } in merge(valid) {
            let (id, user, merged) = (
                reminder.id.clone(),
                reminder.user.clone(),
                reminder.merged.clone(),
            );
            match self.planner.ruled(reminder, place(&id)) {
                Ok(ruled) => {
                    finished.push(ruled);
                    for other in merged {
                        let alone = self.alone(place(&other));
                        self.tell(
                            place(&other),
                            other,
                            Some(user.clone()),
                            Outcome::Merged { into: id.clone() },
                            alone,
                        );
                    }
                }
                // The rules of all their tags together; those of one of them may let it pass, and then it must not be lost.
                Err(_) if !merged.is_empty() => {
                    for id in iter::once(id).chain(merged) {
                        let place = place(&id);
                        match self.planner.ruled(self.original(place), place) {
                            Ok(ruled) => finished.push(ruled),
                            Err(end) => self.end(place, id, user.clone(), end),
                        }
                    }
                }
                Err(end) => self.end(place(&id), id, user, end),
            }
        }
        finished.retain(|(entry, _)| !self.is_recorded(entry.place));
        // Of several that were to be one, each goes back to its own place.
        finished.sort_by_key(|(entry, _)| entry.place);
        self.add_parts(finished);
        let Later {
            cancel,
            replaced,
            scheduled,
            ..
        } = &self.later;
        let has_later = !(cancel.is_empty() && replaced.is_empty() && scheduled.is_empty());
        Ok(Plan {
            later: has_later.then_some(self.later),
            ..self.plan
        })
    }

    /// Splits by partition, and what is too much for one event.
    fn add_parts(&mut self, finished: Vec<(IndexEntry, Bytes)>) {
        let mut parts: BTreeMap<Partition, Part> = BTreeMap::new();
        for (entry, body) in finished {
            let partition = of_user(&entry.user, self.planner.partitions);
            let part = parts
                .entry(partition)
                .or_insert_with(|| Part::new(&self.of));
            if !part.reminders.is_empty() && part.bytes + needed(&entry) > self.planner.event_bytes
            {
                let full = std::mem::replace(part, Part::new(&self.of));
                self.plan.parts.push((partition, full));
            }
            part.push(entry, body);
        }
        self.plan.parts.extend(parts);
    }

    /// A reminder as published. Only what is valid is merged, or comes so far.
    fn original(&self, place: usize) -> Reminder {
        let read = set::read(self.origin, &self.common, place, self.raws[place]);
        read.unwrap_or_else(|_| unreachable!("what is merged is valid"))
    }

    /// What a merged reminder would have said alone; nothing, if its own rules let nobody see it.
    fn alone(&self, place: usize) -> Option<Bytes> {
        Some(self.planner.ruled(self.original(place), place).ok()?.1)
    }

    /// A reminder that goes no further than this.
    fn end(&mut self, place: usize, id: String, user: UserId, end: End) {
        let outcome = match end {
            End::Blocked { tag, rule } => Outcome::Blocked { tag, rule },
            End::Refused(rejection) => {
                self.refuse(place, &rejection);
                Outcome::Rejected {
                    error: rejection.code,
                }
            }
        };
        self.tell(place, id, Some(user), outcome, None);
    }

    /// Notes what the set cancels. What it has itself, too, is replaced: its outcome is the later one's.
    fn sort_cancellations(&mut self, places: &HashMap<Id, usize>) {
        let Origin { source, .. } = self.origin;
        let has = |id: &String| places.contains_key(&identity(source, id));
        let (replaced, cancel): (Vec<_>, Vec<_>) = std::mem::take(&mut self.later.cancel)
            .into_iter()
            .partition(has);
        self.plan
            .marks
            .extend(cancel.iter().map(|id| cancellation_identity(source, id)));
        self.later.cancel = cancel;
        self.later.replaced.extend(replaced);
    }

    /// Whether a reminder that came due was cancelled before that, by a set after the one that scheduled it.
    fn is_cancelled(&self, reminder: &Reminder) -> bool {
        let (Some(scheduled_ns), Some(due)) = (self.scheduled_ns, reminder.deliver_at) else {
            return false;
        };
        let id = cancellation_identity(&self.origin.source, &reminder.id);
        let cancelled_ms =
            self.planner
                .window
                .taken_before(id, self.origin.sequence, self.of.published_ms);
        cancelled_ms.is_some_and(|ms| {
            i128::from(ms) > scheduled_ns / 1_000_000 && ms < due.as_millisecond()
        })
    }

    /// Whether the outcome of what stands at this place was recorded when the set was planned before.
    fn is_recorded(&self, place: usize) -> bool {
        self.planner.recorded.contains(&Settled::Published {
            set: self.origin.sequence,
            place,
        })
    }

    /// The reminders that are valid and new, and where they stand.
    fn validated(
        &mut self,
        reminders: Vec<Candidate<'_>>,
        is_requeued: bool,
    ) -> Result<(Vec<Reminder>, HashMap<Id, usize>), Rejection> {
        let origin = self.origin;
        let mut valid: Vec<Reminder> = Vec::with_capacity(reminders.len());
        let mut taken: HashMap<Id, usize> = HashMap::with_capacity(reminders.len());
        for (place, Candidate { raw, parsed }) in reminders.into_iter().enumerate() {
            let reminder = match parsed {
                Ok(reminder) => reminder,
                Err(Refused {
                    id,
                    user,
                    rejection,
                }) => {
                    self.refuse(place, &rejection);
                    self.tell(
                        place,
                        id,
                        user,
                        Outcome::Rejected {
                            error: rejection.code,
                        },
                        None,
                    );
                    self.may_refuse_alone(&rejection)?;
                    continue;
                }
            };
            let identity = identity(&origin.source, &reminder.id);
            let is_made_up =
                !self.common.is_named && reminder.id == set::default_id(&self.common.id, place);
            let known_as = if is_made_up {
                made_up_identity(&origin.source, &reminder.id)
            } else {
                identity
            };
            if self.is_cancelled(&reminder) {
                self.tell(
                    place,
                    reminder.id,
                    Some(reminder.user),
                    Outcome::Cancelled,
                    None,
                );
                continue;
            }
            let seen_ms =
                self.planner
                    .window
                    .taken_before(known_as, origin.sequence, self.of.published_ms);
            if seen_ms.is_some() && !is_requeued {
                tracing::trace!(source = %origin.source, reminder.id, "repeat dropped");
                self.plan.repeats += 1;
                continue;
            }
            match taken.get(&identity) {
                Some(first) if self.raws[*first] == raw => {}
                Some(_) => {
                    let detail =
                        format!("`{}` is the id of another reminder of the set", reminder.id);
                    let rejection = Rejection::new(RejectCode::DuplicateId, detail);
                    self.refuse(place, &rejection);
                    self.may_refuse_alone(&rejection)?;
                }
                None => {
                    taken.insert(identity, place);
                    // By the server's clock: planned again, a set means the same.
                    match reminder.deliver_at.filter(|at| *at > origin.published_at) {
                        // It was refused for lack of room before a crash.
                        Some(_) if self.is_recorded(place) => {}
                        Some(at) => self.later.scheduled.push(scheduled(at, reminder, place)),
                        // What is scheduled is taken in when it is due.
                        None => {
                            if reminder.deliver_at.is_some() && self.scheduled_ns.is_none() {
                                // It was moved to now.
                                self.later.replaced.push(reminder.id.clone());
                            }
                            self.plan.ids.push(known_as);
                            valid.push(reminder);
                        }
                    }
                }
            }
        }
        Ok((valid, taken))
    }

    /// Checks that the refusals so far, of which this is the latest, take no more than they may. Only what a set says
    /// counts, and not what the rules make of it: planned again after a crash, it is refused whole again.
    fn may_refuse_alone(&self, latest: &Rejection) -> Result<(), Rejection> {
        if self.refused_bytes <= self.bound {
            return Ok(());
        }
        let (wrong, all, bound) = (self.plan.rejected.len(), self.raws.len(), self.bound);
        let detail = format!(
            "refusing the first {wrong} wrong ones of {all} reminders alone takes more than {bound} bytes, so the whole \
             set is refused; correct it and publish it again. The latest: {latest}"
        );
        Err(Rejection::new(RejectCode::TooManyRefused, detail))
    }

    fn refuse(&mut self, place: usize, rejection: &Rejection) {
        let raw = Bytes::copy_from_slice(self.raws[place].as_bytes());
        let id = format!("{}#{place}", self.origin.sequence);
        let message = rejected::Message::new(
            self.planner.names,
            self.token,
            raw,
            rejection,
            Some(&self.of.id),
            id,
        );
        self.refused_bytes += message.bytes();
        self.plan.rejected.push(message);
    }

    fn tell(
        &mut self,
        place: usize,
        id: String,
        user: Option<UserId>,
        outcome: Outcome,
        reminder: Option<Bytes>,
    ) {
        if self.is_recorded(place) {
            return;
        }
        // Where there is no user there is no partition, and no event that any could know by this.
        let partition = user
            .as_ref()
            .map_or(Partition(0), |user| of_user(user, self.planner.partitions));
        let settles = Some((
            partition,
            Settled::Published {
                set: self.origin.sequence,
                place,
            },
        ));
        let (source, set, at) = (
            self.origin.source.clone(),
            self.of.id.clone(),
            self.planner.now,
        );
        let record = Record {
            id,
            source,
            set,
            user,
            outcome,
            at,
        };
        let published_ms = self.of.published_ms;
        let told = Told {
            record,
            published_ms,
            reminder,
            settles,
        };
        if matches!(told.record.outcome, Outcome::Rejected { .. }) {
            self.refused_bytes += told.bytes();
        }
        self.plan.outcomes.push(told);
    }
}

#[cfg(test)]
mod tests;
