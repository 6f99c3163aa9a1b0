//! Takes published sets in: validates, merges duplicates, drops repeats, splits by partition, and hands the reminders
//! to their partitions. A set is acknowledged when everything in it is durable elsewhere.
//!
//! Each partition has a lane: one event is on its way to JetStream at a time and the next ones queue behind it, so that a
//! publish that fails and is repeated cannot be overtaken. That keeps the order of a user's reminders, and nothing waits
//! for a batch to fill.

use std::collections::{BTreeMap, HashMap, VecDeque};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::seen::{Id, Taken, Window, encode, identity};
use super::{Context, rejected};
use crate::event::{Event, Index, IndexEntry};
use crate::nats::pinned::{Pinned, Received, acknowledge};
use crate::nats::{Names, NatsError};
use crate::partition::{Partition, Role, of_user};
use crate::reminder::Reminder;
use crate::reminder::merge::merge;
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::set::{self, Candidate, Origin, ReminderSet};
use crate::token::Source;

/// What has to be done for one set before it is acknowledged.
#[derive(Default)]
struct Plan {
    /// Events, in order, with the partition each goes to and its idempotency id.
    events: Vec<(Partition, String, Bytes)>,
    /// Refused input.
    rejected: Vec<rejected::Message>,
    /// Outcomes that are known already.
    outcomes: Vec<Record>,
    /// Reminders for the idempotency window.
    ids: Vec<Id>,
}

/// A set in work.
struct InWork {
    reply: async_nats::Subject,
    bytes: usize,
    /// Events, refusals and outcomes that are not durable yet.
    pending: usize,
    taken: Taken,
}

enum Done {
    /// The event at the head of a lane is stored.
    Stored(Partition, u64),
    /// Another part of a set is durable.
    Part(u64),
    /// These sets' ids are in the idempotency stream.
    Noted(Vec<u64>),
    /// A set is acknowledged.
    Acknowledged(u64),
}

struct Intake {
    context: Context,
    window: Window,
    sets: HashMap<u64, InWork>,
    bytes: usize,
    /// Events that wait for their turn: (set, id, message). The head is on its way.
    lanes: BTreeMap<Partition, VecDeque<(u64, String, Bytes)>>,
    /// Sets whose parts are all durable, to be noted in the idempotency stream.
    to_note: Vec<u64>,
    is_noting: bool,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Takes sets in until `stop`; then finishes those in work.
///
/// # Errors
/// When the intake must be taken over anew.
pub async fn run(context: Context, stop: CancellationToken, working: mpsc::Sender<Role>) -> Result<(), NatsError> {
    let nats = context.nats.clone();
    let settings = &context.config.idempotency;
    let mut window = Window::new(settings.window, settings.max_ids);
    // The last intake may have been this process's.
    context.recorder.flush().await;
    window.load(&nats).await?;
    let most = context.config.intake.max_bytes_in_flight;
    // A pull must have room for the largest message that the server lets through.
    let pull_bytes = most.max(2 * nats.client.max_payload());
    let (stream, consumer) = (nats.names.sets_stream(), nats.names.intake_consumer().to_owned());
    let mut sets = Pinned::take_over(&nats, stream, consumer, pull_bytes).await?;
    tracing::debug!("intake taken");
    let _ = working.send(Role::Intake).await;
    let mut intake = Intake {
        context,
        window,
        sets: HashMap::new(),
        bytes: 0,
        lanes: BTreeMap::new(),
        to_note: Vec::new(),
        is_noting: false,
        work: FuturesUnordered::new(),
    };
    let mut is_stopping = false;
    while !(is_stopping && intake.sets.is_empty()) {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !is_stopping => is_stopping = true,
            Some(done) = intake.work.next(), if !intake.work.is_empty() => intake.done(done),
            set = sets.next(), if intake.bytes < most && !is_stopping => intake.set(set?),
        }
    }
    if let Err(error) = sets.release().await {
        tracing::warn!(%error, "intake not released, the pin will run out");
    }
    tracing::debug!("intake released");
    Ok(())
}

impl Intake {
    fn set(&mut self, received: Received) {
        let sequence = received.sequence;
        if let Some(in_work) = self.sets.get_mut(&sequence) {
            in_work.reply = received.reply; // It came again while in work.
            return;
        }
        if self.window.is_complete(sequence) {
            return self.acknowledge_again(sequence, received.reply);
        }
        let config = &self.context.config;
        let planner = Planner {
            names: &self.context.nats.names,
            partitions: config.partitions,
            event_bytes: config.intake.event_bytes,
            merges: !config.merge.window.is_zero(),
            window: &self.window,
            now: super::now_ms(),
        };
        let stored_ms = i64::try_from(received.stored_ns / 1_000_000).unwrap_or(i64::MAX);
        let plan = planner.plan(&received, stored_ms);
        let taken = Taken { sequence, stored_ms, ids: plan.ids };
        self.window.note(&taken);
        let bytes = received.payload.len();
        self.bytes += bytes;
        let pending = plan.events.len() + plan.rejected.len() + usize::from(!plan.outcomes.is_empty());
        self.sets.insert(sequence, InWork { reply: received.reply, bytes, pending, taken });
        for (partition, id, message) in plan.events {
            let lane = self.lanes.entry(partition).or_default();
            lane.push_back((sequence, id, message));
            if lane.len() == 1 {
                self.send_next(partition);
            }
        }
        for message in plan.rejected {
            let nats = self.context.nats.clone();
            self.start(async move {
                message.store(&nats).await;
                Done::Part(sequence)
            });
        }
        if !plan.outcomes.is_empty() {
            let recorder = self.context.recorder.clone();
            self.start(async move {
                recorder.record(plan.outcomes.into_iter().map(|record| (record, None)).collect()).await;
                Done::Part(sequence)
            });
        }
        if pending == 0 {
            self.complete(sequence);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Stored(partition, sequence) => {
                if let Some(lane) = self.lanes.get_mut(&partition) {
                    lane.pop_front();
                }
                self.send_next(partition);
                self.part_done(sequence);
            }
            Done::Part(sequence) => self.part_done(sequence),
            Done::Noted(sets) => {
                self.is_noting = false;
                for sequence in sets {
                    if let Some(in_work) = self.sets.get(&sequence) {
                        self.window.complete(sequence, in_work.taken.stored_ms);
                    }
                    self.acknowledge(sequence);
                }
                self.note();
            }
            Done::Acknowledged(sequence) => {
                if let Some(in_work) = self.sets.remove(&sequence) {
                    self.bytes -= in_work.bytes;
                }
            }
        }
    }

    /// Sends the head of a lane.
    fn send_next(&mut self, partition: Partition) {
        let Some((sequence, id, message)) = self.lanes.get(&partition).and_then(VecDeque::front).cloned() else {
            return;
        };
        let nats = self.context.nats.clone();
        self.start(async move {
            nats.store_surely(&nats.names.events(partition), HeaderMap::new(), message, &id).await;
            Done::Stored(partition, sequence)
        });
    }

    fn part_done(&mut self, sequence: u64) {
        let Some(in_work) = self.sets.get_mut(&sequence) else { return };
        in_work.pending -= 1;
        if in_work.pending == 0 {
            self.complete(sequence);
        }
    }

    /// Everything of a set is durable but its ids.
    fn complete(&mut self, sequence: u64) {
        self.to_note.push(sequence);
        self.note();
    }

    /// Writes the ids of all sets that wait for it; one write at a time.
    fn note(&mut self) {
        if self.is_noting || self.to_note.is_empty() {
            return;
        }
        self.is_noting = true;
        let (mut sets, mut room) = (Vec::new(), NOTE_BYTES);
        while let Some(sequence) = self.to_note.last().copied() {
            let bytes = 20 + 16 * self.sets.get(&sequence).map_or(0, |in_work| in_work.taken.ids.len());
            if bytes > room && !sets.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            sets.extend(self.to_note.pop());
        }
        sets.sort_unstable();
        let taken: Vec<Taken> = sets.iter().filter_map(|set| Some(self.sets.get(set)?.taken.clone())).collect();
        let nats = self.context.nats.clone();
        self.start(async move {
            let id = nats.client.new_inbox();
            nats.store_surely(&nats.names.seen(), HeaderMap::new(), encode(&taken).into(), &id).await;
            Done::Noted(sets)
        });
    }

    fn acknowledge(&mut self, sequence: u64) {
        if let Some(in_work) = self.sets.get(&sequence) {
            let reply = in_work.reply.clone();
            self.acknowledge_again(sequence, reply);
        }
    }

    fn acknowledge_again(&mut self, sequence: u64, reply: async_nats::Subject) {
        let nats = self.context.nats.clone();
        self.start(async move {
            if let Err(error) = acknowledge(&nats, reply).await {
                tracing::warn!(%error, sequence, "a set may come again");
            }
            Done::Acknowledged(sequence)
        });
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(Box::pin(work));
    }
}

/// Bytes of one message of the idempotency stream; a set with 10,000 reminders has 160 kB.
const NOTE_BYTES: usize = 256 << 10;

/// Decides what a set means. Pure.
struct Planner<'a> {
    names: &'a Names,
    partitions: u16,
    event_bytes: usize,
    /// Reminders of other sets may be merged, so what each says is written down.
    merges: bool,
    window: &'a Window,
    now: Timestamp,
}

impl Planner<'_> {
    fn plan(&self, received: &Received, stored_ms: i64) -> Plan {
        let sequence = received.sequence;
        let token = received.subject.rsplit('.').next().unwrap_or_default();
        let refuse = |rejection: &Rejection| {
            tracing::debug!(subject = received.subject, %rejection, "set refused");
            let id = format!("{sequence}");
            rejected::Message::new(self.names, token, received.payload.clone(), rejection, None, id)
        };
        let source = match Source::from_token(token) {
            Ok(source) => source,
            Err(error) => {
                let rejection = Rejection::new(RejectCode::InvalidSource, error);
                return Plan { rejected: vec![refuse(&rejection)], ..Plan::default() };
            }
        };
        let published_at = Timestamp::from_millisecond(stored_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let origin = Origin { source, sequence, published_at };
        match set::parse(&origin, &received.payload) {
            Err(rejection) => Plan { rejected: vec![refuse(&rejection)], ..Plan::default() },
            Ok(set) => {
                let is_requeued = received.headers.as_ref().is_some_and(|h| h.get(rejected::REQUEUE_HEADER).is_some());
                self.plan_set(&origin, token, set, is_requeued)
            }
        }
    }

    fn plan_set(&self, origin: &Origin, token: &str, set: ReminderSet<'_>, is_requeued: bool) -> Plan {
        let mut plan = Plan::default();
        let mut in_set: HashMap<Id, &str> = HashMap::new();
        let mut valid: Vec<Reminder> = Vec::with_capacity(set.reminders.len());
        let record = |id: String, user: Option<String>, outcome: Outcome| {
            let (source, set, at) = (origin.source.clone(), set.id.clone(), self.now);
            Record { id, source, set, user, outcome, at }
        };
        for (index, Candidate { id, raw, parsed }) in set.reminders.iter().enumerate() {
            let refuse = |rejection: &Rejection| {
                let (raw, key) = (Bytes::copy_from_slice(raw.as_bytes()), format!("{}#{index}", origin.sequence));
                rejected::Message::new(self.names, token, raw, rejection, Some(&set.id), key)
            };
            let identity = identity(&origin.source, id);
            match parsed {
                Err((rejection, user)) => {
                    plan.rejected.push(refuse(rejection));
                    let outcome = Outcome::Rejected { error: rejection.code };
                    plan.outcomes.push(record(id.clone(), user.clone(), outcome));
                }
                Ok(_) if self.window.is_repeat(identity, origin.sequence) && !is_requeued => {
                    tracing::trace!(source = %origin.source, id, "repeat dropped");
                }
                Ok(_) if in_set.get(&identity) == Some(raw) => {}
                Ok(_) if in_set.contains_key(&identity) => {
                    let detail = format!("`{id}` is the id of another reminder of the set");
                    plan.rejected.push(refuse(&Rejection::new(RejectCode::DuplicateId, detail)));
                }
                Ok(reminder) => {
                    in_set.insert(identity, raw);
                    plan.ids.push(identity);
                    valid.push(reminder.clone());
                }
            }
        }
        let (mut kept, merged) = merge(valid);
        if self.merges {
            kept.iter_mut().for_each(|reminder| reminder.text = Some(reminder.text_hash()));
        }
        plan.outcomes.extend(merged.into_iter().map(|merged| {
            let outcome = Outcome::Merged { into: merged.into };
            record(merged.id, Some(merged.user.to_string()), outcome)
        }));
        plan.events = self.split(origin, &set.id, kept);
        plan
    }

    /// Groups reminders into events: by partition, in order, each of bounded size.
    fn split(&self, origin: &Origin, set: &str, reminders: Vec<Reminder>) -> Vec<(Partition, String, Bytes)> {
        let empty = || Event {
            index: Index { source: origin.source.clone(), set: set.to_owned(), reminders: Vec::new() },
            bodies: Vec::new(),
        };
        let mut open: BTreeMap<Partition, (Event, usize, usize)> = BTreeMap::new();
        let mut events = Vec::new();
        let mut close = |partition: Partition, event: Event, number: usize| {
            events.push((partition, format!("{}.{partition}.{number}", origin.sequence), event.encode()));
        };
        for reminder in reminders {
            let body = Bytes::from(reminder.to_json());
            let partition = of_user(&reminder.user, self.partitions);
            let (event, bytes, number) = open.entry(partition).or_insert_with(|| (empty(), 0, 0));
            if *bytes > 0 && *bytes + body.len() > self.event_bytes {
                close(partition, std::mem::replace(event, empty()), *number);
                (*bytes, *number) = (0, *number + 1);
            }
            *bytes += body.len();
            let expires_at = reminder.expires_at.map(Timestamp::as_millisecond);
            let Reminder { id, user, priority, text, stays, .. } = reminder;
            event.index.reminders.push(IndexEntry {
                id,
                user,
                expires_at,
                priority,
                text,
                rerouted_to: None,
                stays,
                bytes: body.len(),
            });
            event.bodies.push(body);
        }
        for (partition, (event, _, number)) in open {
            close(partition, event, number);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn plan_with(window: &Window, sequence: u64, body: &str, headers: Option<HeaderMap>) -> Plan {
        let names = Names::new("bellhop");
        let now = Timestamp::UNIX_EPOCH;
        let planner = Planner { names: &names, partitions: 4, event_bytes: 400, merges: true, window, now };
        let received = Received {
            sequence,
            stored_ns: 0,
            subject: "bellhop.sets.billing".into(),
            headers,
            payload: Bytes::copy_from_slice(body.as_bytes()),
            reply: "reply".into(),
        };
        planner.plan(&received, 1_000)
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
