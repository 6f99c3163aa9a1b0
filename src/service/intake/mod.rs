//! Takes published sets in: validates, drops repeats, merges duplicates, applies the rules, splits by partition, and hands the
//! reminders to their partitions. A set is acknowledged when everything in it is durable elsewhere. What a set means is
//! decided by `plan.rs`, which is pure. What is to be delivered later is scheduled (`later.rs`), and taken in when it is due
//! (`due.rs`). What cannot be read is set aside (`unreadable.rs`).
//!
//! Reminders go on in the order in which they were published, except that nobody waits for another source's flood
//! (`fair_queue`). To a partition one event is on its way to JetStream at a time (`lanes.rs`), and what queues meanwhile, of one
//! set or of many, makes the next.

mod due;
mod later;
pub mod plan;
pub mod unreadable;

use std::collections::{HashMap, HashSet};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lanes::Lanes;
use super::recorded::{Recorded, Settled};
use super::seen::{Taken, Window, encode};
use super::{Context, rejected, spans};
use crate::fair_queue::FairQueue;
use crate::metrics::SetAside;
use crate::nats::pinned::{Received, acknowledge_all};
use crate::nats::{NatsError, chain};
use crate::partition::{Partition, Role};
use crate::token::Source;
use crate::wire::cloud_event::Published;
use plan::{Later, Part, Planner};
use unreadable::Origin;

/// A set in work.
struct InWork {
    reply: async_nats::Subject,
    /// Bytes of what was made of it.
    bytes: usize,
    /// Events, refusals and outcomes that are not durable yet.
    pending: usize,
    taken: Taken,
    /// It ends when the set is acknowledged.
    _span: tracing::Span,
}

enum Done {
    /// The event of a partition is stored, with parts of these sets.
    Stored(Partition, Vec<u64>),
    /// What these sets of a source have for later is durable, and what they cancel is cancelled.
    Later(Source, Vec<u64>),
    /// Refused input of this subject is stored, a part of each of these sets.
    Refused(String, Vec<u64>),
    /// Another part of a set is durable.
    Part(u64),
    /// These sets' ids are in the idempotency stream.
    Noted(Vec<u64>),
    /// These sets are acknowledged.
    Acknowledged(Vec<u64>),
}

struct Intake {
    context: Context,
    window: Window,
    /// Ids were forgotten before their time, and the log says so.
    has_warned: bool,
    /// What the last intake had recorded of sets that come again.
    recorded: HashSet<Settled>,
    sets: HashMap<u64, InWork>,
    /// Sets to be planned, by subject, and
    waiting: FairQueue<String, Received>,
    /// their bytes.
    waiting_bytes: usize,
    /// Bytes of what was made of the sets in work.
    made_bytes: usize,
    lanes: Lanes<Partition, Source, Part>,
    /// What one set schedules another one may cancel: a source's go one after the other.
    later: Lanes<Source, (), Later>,
    /// Refused input by its subject, with the set that each is of: a flood of it leaves JetStream time for the rest.
    refused: Lanes<String, (), (u64, rejected::Message)>,
    /// Sets whose parts are all durable, to be noted in the idempotency stream.
    to_note: Vec<u64>,
    is_noting: bool,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Takes in what is published, and what was scheduled and is due, until `stop`; then finishes what is in work.
///
/// # Errors
/// When the intake must be taken over anew.
pub async fn run(
    context: Context,
    recorded: &Recorded,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    tokio::try_join!(
        take_in(context.clone(), recorded, stop.clone(), working),
        due::run(&context, stop)
    )
    .map(drop)
}

async fn take_in(
    context: Context,
    recorded: &Recorded,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let nats = context.nats.clone();
    let most = context.config.intake.max_bytes_in_flight;
    // A pull must have room for the largest message that the server lets through.
    let pull_bytes = PULL_BYTES.max(2 * nats.client.max_payload());
    let origin = Origin {
        stream: nats.names.sets_stream(),
        consumer: nats.names.intake_consumer().to_owned(),
        subjects: nats.names.all_sets(),
        kind: SetAside::Set,
    };
    let mut sets = origin.take_over(&context, pull_bytes).await?;
    let settings = &context.config.idempotency;
    let mut window = Window::new(settings.window, settings.max_ids);
    // Now that the last intake gets no more sets: what it notes and records of those that it has is read, too.
    let prepare = async {
        // It may have been this process's.
        context.recorder.flush().await;
        window.load(&nats).await?;
        context.rules.loaded().await;
        recorded.of_waiting_sets().await
    };
    let recorded = tokio::select! {
        recorded = prepare => recorded?,
        () = stop.cancelled() => return sets.release().await,
    };
    tracing::debug!("intake taken");
    let _ = working.send(Role::Intake).await;
    let mut intake = Intake {
        context: context.clone(),
        window,
        has_warned: false,
        recorded,
        sets: HashMap::new(),
        waiting: FairQueue::new(),
        waiting_bytes: 0,
        made_bytes: 0,
        lanes: Lanes::new(EVENTS_ON_THEIR_WAY),
        later: Lanes::new(usize::MAX),
        refused: Lanes::new(REFUSALS_ON_THEIR_WAY),
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
            set = sets.next(), if intake.waiting_bytes + intake.made_bytes < most && !is_stopping => match set {
                Ok(set) => {
                    origin.arrived(&context, set.sequence);
                    intake.receive(set);
                }
                Err(error) => {
                    origin.look_into(&context, &sets).await?;
                    return Err(error);
                }
            },
            () = std::future::ready(()), if !intake.waiting.is_empty() && intake.made_bytes < most && !is_stopping => {
                intake.plan_some();
                // It is work for the processor, and many sets may wait: the connection must get its turn between.
                tokio::task::yield_now().await;
            }
        }
    }
    if let Err(error) = sets.release().await {
        tracing::warn!(error = %chain(&error), "intake not released, the pin will run out");
    }
    tracing::debug!("intake released");
    Ok(())
}

impl Intake {
    fn receive(&mut self, received: Received) {
        let (source, bytes) = (received.subject.clone(), SET_BYTES + received.bytes());
        self.waiting_bytes += bytes;
        self.waiting.push(source, bytes, received);
    }

    /// Plans sets for one turn, in the order in which they were published.
    fn plan_some(&mut self) {
        let mut sets = self.waiting.take(TURN_BYTES);
        sets.sort_by_key(|received| received.sequence);
        let last_ms = sets.last().map(Received::stored_ms);
        for received in sets {
            self.waiting_bytes -= SET_BYTES + received.bytes();
            self.set(received);
        }
        // While sets wait, an older one of a source that takes turns may be judged after this.
        if let Some(last_ms) = last_ms.filter(|_| self.waiting.is_empty()) {
            self.window.forget(last_ms);
        }
        self.send();
    }

    fn set(&mut self, received: Received) {
        let sequence = received.sequence;
        if let Some(in_work) = self.sets.get_mut(&sequence) {
            in_work.reply = received.reply; // It came again while in work.
            return;
        }
        let stored_ms = received.stored_ms();
        if self.window.is_complete(sequence, stored_ms) {
            return self.acknowledge(vec![sequence], vec![received.reply]);
        }
        let mut published = Published::read(|name| received.header(name), &received.payload);
        let came = published.trace.take();
        let span = spans::take_in(&received.subject, came.as_ref());
        let config = &self.context.config;
        // One version of the rules for the whole set.
        let rules = self.context.rules.current();
        let planner = Planner {
            names: &self.context.nats.names,
            partitions: config.partitions,
            event_bytes: self.event_bytes(),
            merges: !config.merge.window.is_zero(),
            window: &self.window,
            recorded: &self.recorded,
            rules: &rules,
            now: super::now_ms(),
            trace: spans::passed_on(&span, came),
        };
        let plan = planner.plan(&received, &published, stored_ms);
        self.context
            .metrics
            .set_taken(plan.ids.len(), plan.repeats, plan.rejected.len());
        let bytes = SET_BYTES + plan.bytes();
        self.made_bytes += bytes;
        let taken = Taken {
            sequence,
            stored_ms,
            ids: [plan.ids, plan.marks].concat(),
        };
        self.note_taken(&taken);
        let alone = usize::from(!plan.outcomes.is_empty()) + usize::from(plan.later.is_some());
        let pending = plan.parts.len() + plan.rejected.len() + alone;
        self.sets.insert(
            sequence,
            InWork {
                reply: received.reply,
                bytes,
                pending,
                taken,
                _span: span,
            },
        );
        for (partition, part) in plan.parts {
            self.lanes
                .push(partition, part.set.source.clone(), part.bytes, part);
        }
        if let Some(later) = plan.later {
            self.later.push(later.set.source.clone(), (), 1, later);
        }
        for message in plan.rejected {
            self.refused.push(
                message.subject().to_owned(),
                (),
                message.bytes(),
                (sequence, message),
            );
        }
        if !plan.outcomes.is_empty() {
            let recorder = self.context.recorder.clone();
            self.start(async move {
                recorder.record(plan.outcomes).await;
                Done::Part(sequence)
            });
        }
        if pending == 0 {
            self.complete(sequence);
        }
    }

    fn note_taken(&mut self, taken: &Taken) {
        let early = self.window.note(taken);
        self.context.metrics.ids_forgotten(early);
        if early > 0 && !std::mem::replace(&mut self.has_warned, true) {
            let max_ids = self.context.config.idempotency.max_ids;
            tracing::warn!(
                max_ids,
                "ids are forgotten before `idempotency.window` is over: what is published again may be delivered again; \
                 raise `idempotency.max_ids`"
            );
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Stored(partition, sets) => {
                self.lanes.arrived(&partition);
                self.send();
                sets.into_iter()
                    .for_each(|sequence| self.part_done(sequence));
            }
            Done::Later(source, sets) => {
                self.later.arrived(&source);
                self.send();
                sets.into_iter()
                    .for_each(|sequence| self.part_done(sequence));
            }
            Done::Refused(subject, sets) => {
                self.refused.arrived(&subject);
                self.send();
                sets.into_iter()
                    .for_each(|sequence| self.part_done(sequence));
            }
            Done::Part(sequence) => self.part_done(sequence),
            Done::Noted(sets) => {
                self.is_noting = false;
                for (sequence, in_work) in sets
                    .iter()
                    .filter_map(|set| Some((*set, self.sets.get(set)?)))
                {
                    self.window.complete(sequence, in_work.taken.stored_ms);
                }
                let replies = sets
                    .iter()
                    .filter_map(|set| Some(self.sets.get(set)?.reply.clone()))
                    .collect();
                self.acknowledge(sets, replies);
                self.note();
            }
            Done::Acknowledged(sets) => {
                for sequence in sets {
                    self.made_bytes -= self
                        .sets
                        .remove(&sequence)
                        .map_or(0, |in_work| in_work.bytes);
                }
            }
        }
    }

    /// Bytes of one event: what is wanted, and never more than NATS takes.
    fn event_bytes(&self) -> usize {
        let most = self
            .context
            .nats
            .client
            .max_payload()
            .saturating_sub(8 << 10);
        self.context.config.intake.event_bytes.min(most)
    }

    /// Sends on what may go now.
    fn send(&mut self) {
        while let Some((partition, parts)) = self.lanes.next(self.event_bytes()) {
            let nats = self.context.nats.clone();
            let sets = parts.iter().map(|part| part.set.sequence).collect();
            let message = plan::event(parts);
            self.start(async move {
                // Partitions know a repeat by its reminders' places: should this be stored twice, that changes nothing.
                nats.store_surely(
                    &nats.names.events(partition),
                    HeaderMap::new(),
                    message,
                    None,
                )
                .await;
                Done::Stored(partition, sets)
            });
        }
        while let Some((source, sets_later)) = self.later.next(usize::MAX) {
            let context = self.context.clone();
            let sets = sets_later.iter().map(|later| later.set.sequence).collect();
            self.start(async move {
                for later in sets_later {
                    later::carry_out(later, &context).await;
                }
                Done::Later(source, sets)
            });
        }
        while let Some((subject, messages)) = self.refused.next(REFUSAL_BYTES) {
            let Context { nats, metrics, .. } = self.context.clone();
            self.start(async move {
                let (sets, messages): (_, Vec<_>) = messages.into_iter().unzip();
                join_all(
                    messages
                        .into_iter()
                        .map(|message| message.store(&nats, &metrics)),
                )
                .await;
                Done::Refused(subject, sets)
            });
        }
    }

    fn part_done(&mut self, sequence: u64) {
        let Some(in_work) = self.sets.get_mut(&sequence) else {
            return;
        };
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
            let bytes = 20
                + 16 * self
                    .sets
                    .get(&sequence)
                    .map_or(0, |in_work| in_work.taken.ids.len());
            if bytes > room && !sets.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            sets.extend(self.to_note.pop());
        }
        sets.sort_unstable();
        let taken: Vec<Taken> = sets
            .iter()
            .filter_map(|set| Some(self.sets.get(set)?.taken.clone()))
            .collect();
        let nats = self.context.nats.clone();
        self.start(async move {
            // To note a set twice changes nothing.
            nats.store_surely(
                &nats.names.seen(),
                HeaderMap::new(),
                encode(&taken).into(),
                None,
            )
            .await;
            Done::Noted(sets)
        });
    }

    /// A set that comes again is known to be complete, so their acknowledgements need not be waited for one by one.
    fn acknowledge(&mut self, sets: Vec<u64>, replies: Vec<async_nats::Subject>) {
        let nats = self.context.nats.clone();
        self.start(async move {
            if let Err(error) = acknowledge_all(&nats, replies).await {
                tracing::warn!(error = %chain(&error), "sets may come again");
            }
            Done::Acknowledged(sets)
        });
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(Box::pin(work));
    }
}

/// Events on their way to JetStream at a time. With more, each is smaller, and what JetStream does for each counts more than
/// what it waits for.
const EVENTS_ON_THEIR_WAY: usize = 8;

/// Sources of which refused input is on its way at a time, and
const REFUSALS_ON_THEIR_WAY: usize = 8;
/// bytes of it, of each: some hundred short ones together.
const REFUSAL_BYTES: usize = 64 << 10;

/// Bytes of sets pulled ahead: enough to be busy while the next ones come.
const PULL_BYTES: usize = 4 << 20;

/// What a set takes in memory beside its own bytes, however small it is: entries of tables, a span, what is under way.
const SET_BYTES: usize = 2 << 10;

/// Bytes of sets planned at a time: some milliseconds of work.
const TURN_BYTES: usize = 256 << 10;

/// Bytes of one message of the idempotency stream; a set with 10,000 reminders has 160 kB.
const NOTE_BYTES: usize = 256 << 10;
