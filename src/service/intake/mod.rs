//! Works what belongs to sets and not to users: stores what is refused, schedules what is to be
//! delivered later (`later.rs`), takes back what is cancelled, publishes what is due (`due.rs`),
//! and removes the front of the log.
//!
//! It has a position like a partition. A set's part is settled when all of it is durable.

mod due;
mod later;
mod order;

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::batch_queues::BatchQueues;
use super::outcomes::message::OutcomeEntry;
use super::ownership::{CHECKPOINT_EVERY, Owner, Ownership, Takeover, unless_stopped};
use super::reader::{Log, LogItem, OfSet, Subscription};
use super::unreadable::InputContext;
use super::{now_ms, rejected};
use crate::log::Subscriber;
use crate::log::done::Done as Name;
use crate::log::position::{Mark, front};
use crate::log::progress::Checkpoint;
use crate::log::sets::SetsLog;
use crate::log::split::{SetParts, SetWork};
use crate::metrics::Metrics;
use crate::nats::{Nats, NatsError, chain, log, positions};
use crate::partition::Role;
use crate::reminder::outcome::{Outcome, Record};
use crate::token::{Source, UserId};

/// Sources of which refused input is on its way at a time, and
const REFUSALS_ON_THEIR_WAY: usize = 8;
/// bytes of it, of each: some hundred short ones together.
const REFUSAL_BYTES: usize = 64 << 10;

/// The end of a piece of work in flight.
enum Done {
    /// Refused input of this subject is stored, a part of each of these sets.
    Refused(String, Vec<u64>),
    /// The outcomes of what a set has refused are durable.
    Recorded(u64),
    /// The schedules and cancellations of these sets of a source are durable.
    Later(Source, Vec<u64>),
    /// The log's last sequence was this, a moment ago.
    Last(Result<u64, NatsError>),
    Checkpoint(Result<Box<Ownership>, NatsError>, Checkpoint),
    /// It was tried to remove the front of the log.
    /// The front of the log is removed up to here, if that is known.
    Front(Option<Mark>),
}

/// A set in work.
struct InWork {
    /// Number of writes that are not durable yet: refusals, outcomes, schedules.
    pending: usize,
    bytes: usize,
    outcomes: Vec<OutcomeEntry>,
}

/// Asks whether a reminder that is due was cancelled before that.
struct Question {
    source: Source,
    id: String,
    user: UserId,
    /// Time at which the set that scheduled it was stored, in milliseconds since 1970, and
    scheduled_ms: i64,
    /// when it was due.
    due_ms: i64,
    answer: oneshot::Sender<bool>,
}

/// The resources that the role needs.
#[derive(Debug, Clone)]
pub struct Context {
    /// Owns the role's position.
    pub owner: Owner,
    /// Reads scheduled sets that are due.
    pub(super) input: InputContext,
    /// Reads the log of sets.
    pub log: Log,
    /// The metrics.
    pub metrics: Metrics,
}

struct Intake {
    context: Context,
    created_ns: i64,
    log: SetsLog,
    /// None while a checkpoint is being stored.
    ownership: Option<Ownership>,
    sets: HashMap<u64, InWork>,
    /// Schedules and cancellations of sets, one set of a source after the other, since one can
    /// cancel another one's.
    later: BatchQueues<Source, (), (SetParts, i128)>,
    /// Refused input by its subject, with the set that each is of: a flood of it leaves JetStream
    /// time for the rest.
    refused: BatchQueues<String, (), (u64, rejected::Message)>,
    /// The log was read up to here.
    read: u64,
    /// Questions for which the log's end was not looked up yet, and
    asked: Vec<Question>,
    /// those that wait until it is looked up, and
    looking: Vec<Question>,
    /// those that are answered when the log was read up to a sequence.
    waiting: Vec<(u64, Question)>,
    is_removing: bool,
    /// Up to where the front of the log was removed last.
    removed: Option<Mark>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Works until `stop`; then finishes what is in work.
///
/// # Errors
/// When it must be taken over again.
pub async fn run(
    context: Context,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let taking = Ownership::take_over(&context.owner, Subscriber::Sets);
    let Some((ownership, found)) = unless_stopped(&stop, taking).await? else {
        return Ok(());
    };
    let Takeover {
        start,
        created_ns,
        outcomes,
        window,
        done,
    } = found;
    let mut subscription = context.log.subscribe(Subscriber::Sets, start, created_ns);
    let mut intake = Intake {
        context: context.clone(),
        created_ns,
        log: SetsLog::new(start.settled, outcomes, window, done),
        ownership: Some(ownership),
        sets: HashMap::new(),
        later: BatchQueues::new(usize::MAX),
        refused: BatchQueues::new(REFUSALS_ON_THEIR_WAY),
        read: start.after,
        asked: Vec::new(),
        looking: Vec::new(),
        waiting: Vec::new(),
        is_removing: false,
        removed: None,
        work: FuturesUnordered::new(),
    };
    tracing::debug!("intake taken");
    let _ = working.send(Role::Intake).await;
    let (questions, asked) = mpsc::channel(due::AT_ONCE);
    let due = due::run(&context, stop.clone(), questions);
    tokio::try_join!(intake.run(&mut subscription, asked, stop), due)?;
    intake.release().await;
    tracing::debug!("intake released");
    Ok(())
}

impl Intake {
    async fn run(
        &mut self,
        subscription: &mut Subscription,
        mut asked: mpsc::Receiver<Question>,
        stop: CancellationToken,
    ) -> Result<(), NatsError> {
        let mut tick = tokio::time::interval(CHECKPOINT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_stopping, mut has_questions) = (false, true);
        // Due reminders may have questions until they are done.
        while !(is_stopping && !has_questions && self.sets.is_empty() && self.work.is_empty()) {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !is_stopping => is_stopping = true,
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done, subscription)?,
                question = asked.recv(), if has_questions => match question {
                    Some(question) => self.asked.push(question),
                    None => has_questions = false,
                },
                item = subscription.next(), if !is_stopping || has_questions => self.item(item, subscription)?,
                _ = tick.tick(), if !is_stopping => self.tick(),
            }
            self.answer();
        }
        Ok(())
    }

    /// Takes in what the reader has for the sets themselves.
    fn item(
        &mut self,
        item: Option<LogItem>,
        subscription: &Subscription,
    ) -> Result<(), NatsError> {
        match item {
            Some(LogItem::OfSet(of_set, before)) => {
                let bytes = of_set.bytes();
                let OfSet {
                    part,
                    headers,
                    stored_ns,
                } = *of_set;
                self.read = self.read.max(part.sequence);
                let (sequence, stored_ms, token) =
                    (part.sequence, part.stored_ms, part.source_token.clone());
                let after = part.after(before);
                let taken = self.log.take_in(part, before);
                self.log.read(after);
                self.context.metrics.ids_forgotten(taken.forgotten);
                let mut in_work = InWork {
                    pending: 0,
                    bytes,
                    outcomes: Vec::new(),
                };
                match taken.work {
                    None => {
                        subscription.drained(bytes);
                        return Ok(());
                    }
                    Some(SetWork::Refuse { body, rejection }) => {
                        tracing::debug!(source = token, sequence, %rejection, "set refused");
                        self.context.metrics.reminders_taken(0, 0, 1);
                        // The time, too: after a loss of power, a sequence is given again.
                        let (names, id) = (
                            &self.context.owner.nats.names,
                            format!("{sequence}@{stored_ms}"),
                        );
                        let message =
                            rejected::Message::new(names, &token, body, &rejection, None, id);
                        self.refuse(sequence, message.with_headers_of(headers.as_ref()));
                        in_work.pending = 1;
                    }
                    Some(SetWork::Parts(mut parts)) => {
                        in_work.outcomes = self.outcomes(&parts);
                        let refused = std::mem::take(&mut parts.refused);
                        self.context.metrics.reminders_taken(0, 0, refused.len());
                        in_work.pending = refused.len();
                        for one in &refused {
                            let names = &self.context.owner.nats.names;
                            self.refuse(
                                sequence,
                                rejected::Message::of_reminder(names, &parts.set, one),
                            );
                        }
                        if !(parts.cancel.is_empty()
                            && parts.replaced.is_empty()
                            && parts.scheduled.is_empty())
                        {
                            in_work.pending += 1;
                            self.later
                                .push(parts.set.source.clone(), (), 1, (parts, stored_ns));
                        }
                    }
                }
                let is_over = in_work.pending == 0;
                self.sets.insert(sequence, in_work);
                if is_over {
                    self.durable(sequence, 0, subscription);
                }
                self.send();
            }
            Some(LogItem::Read(upto)) => {
                self.read = self.read.max(upto.sequence);
                self.log.read(upto);
            }
            Some(LogItem::Slice(..)) => {} // It is for another subscriber.
            None => {
                return Err(NatsError::failed(
                    "read the log of sets",
                    "it is another one than before",
                ));
            }
        }
        Ok(())
    }

    fn refuse(&mut self, sequence: u64, message: rejected::Message) {
        self.refused.push(
            message.subject().to_owned(),
            (),
            message.bytes(),
            (sequence, message),
        );
    }

    /// The outcomes of what a set has refused.
    fn outcomes(&self, SetParts { set, refused, .. }: &SetParts) -> Vec<OutcomeEntry> {
        let at = now_ms();
        let refused = refused.iter().filter(|refused| refused.has_outcome());
        let entries = refused.map(|one| {
            let outcome = Outcome::Rejected {
                error: one.rejection.code,
            };
            let (id, source, user, of) = (
                one.id.clone(),
                set.source.clone(),
                one.user.clone(),
                set.id.clone(),
            );
            let record = Record {
                id,
                source,
                set: of,
                user,
                outcome,
                at,
            };
            let name = Name::Published {
                set: set.sequence,
                stored_ms: set.published_ms,
                place: one.place,
            };
            let settles = Some((Subscriber::Sets, name));
            OutcomeEntry {
                record,
                published_ms: set.published_ms,
                reminder: None,
                settles,
            }
        });
        entries.collect()
    }

    /// Sends on what may go now.
    fn send(&mut self) {
        while let Some((source, sets)) = self.later.next(usize::MAX) {
            let context = self.context.clone();
            let sequences = sets.iter().map(|(parts, _)| parts.set.sequence).collect();
            self.start(async move {
                for (parts, set_ns) in sets {
                    later::carry_out(parts, set_ns, &context).await;
                }
                Done::Later(source, sequences)
            });
        }
        while let Some((subject, messages)) = self.refused.next(REFUSAL_BYTES) {
            let (nats, metrics) = (
                self.context.owner.nats.clone(),
                self.context.metrics.clone(),
            );
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

    fn done(&mut self, done: Done, subscription: &Subscription) -> Result<(), NatsError> {
        match done {
            Done::Refused(subject, sets) => {
                self.refused.arrived(&subject);
                self.send();
                sets.into_iter()
                    .for_each(|sequence| self.durable(sequence, 1, subscription));
            }
            Done::Later(source, sets) => {
                self.later.arrived(&source);
                self.send();
                sets.into_iter()
                    .for_each(|sequence| self.durable(sequence, 1, subscription));
            }
            Done::Recorded(sequence) => self.durable(sequence, 1, subscription),
            Done::Last(last) => {
                let last = last?;
                self.waiting.extend(
                    std::mem::take(&mut self.looking)
                        .into_iter()
                        .map(|question| (last, question)),
                );
            }
            Done::Checkpoint(ownership, stored) => {
                self.ownership = Some(*ownership?);
                self.log.progress.stored(&stored);
            }
            Done::Front(removed) => (self.is_removing, self.removed) = (false, removed),
        }
        Ok(())
    }

    /// So much of a set is durable. Its refusals are recorded when they are stored.
    fn durable(&mut self, sequence: u64, parts: usize, subscription: &Subscription) {
        let Some(in_work) = self.sets.get_mut(&sequence) else {
            return;
        };
        in_work.pending -= parts;
        if in_work.pending > 0 {
            return;
        }
        let outcomes = std::mem::take(&mut in_work.outcomes);
        if !outcomes.is_empty() {
            in_work.pending = 1;
            let recorder = self.context.owner.recorder.clone();
            return self.start(async move {
                recorder.record_all(&outcomes).await;
                Done::Recorded(sequence)
            });
        }
        if let Some(over) = self.sets.remove(&sequence) {
            subscription.drained(over.bytes);
        }
        self.log.progress.settle(sequence, 1);
    }

    /// Replies to waiting questions when the log was read far enough.
    fn answer(&mut self) {
        if self.looking.is_empty() && !self.asked.is_empty() {
            self.looking = std::mem::take(&mut self.asked);
            let nats = self.context.owner.nats.clone();
            self.start(
                async move { Done::Last(log::state(&nats, 0).await.map(|state| state.last)) },
            );
        }
        let (read, log) = (self.read, &self.log);
        for (_, question) in self.waiting.extract_if(.., |(last, _)| *last <= read) {
            let Question {
                source,
                id,
                user,
                scheduled_ms,
                due_ms,
                answer,
            } = question;
            // The asker may have gone.
            let _ = answer.send(log.is_cancelled(&source, &id, &user, scheduled_ms, due_ms));
        }
    }

    /// Stores how far this has come, and removes the front of the log.
    fn tick(&mut self) {
        self.log
            .progress
            .outcome_stored(self.context.owner.recorder.last_stored());
        let checkpoint = self.log.progress.checkpoint();
        let settled = checkpoint.settled;
        if let Some(mut ownership) = self
            .ownership
            .take_if(|ownership| ownership.is_new(&checkpoint))
        {
            self.start(async move {
                let stored = ownership.store(&checkpoint).await;
                Done::Checkpoint(stored.map(|()| Box::new(ownership)), checkpoint)
            });
        }
        // No position is behind this one when all is removed that this one covers.
        if self.removed != Some(settled) && !std::mem::replace(&mut self.is_removing, true) {
            let (nats, partitions, created_ns) = (
                self.context.owner.nats.clone(),
                self.context.owner.config.partitions,
                self.created_ns,
            );
            self.start(async move {
                let removed = remove_front(&nats, partitions, created_ns).await;
                Done::Front(removed.unwrap_or_else(|error| {
                    tracing::warn!(error = %chain(&error), "failed to remove the front of the log, retrying");
                    None
                }))
            });
        }
    }

    async fn release(self) {
        let Self {
            log,
            ownership,
            context,
            ..
        } = self;
        let Some(ownership) = ownership else { return };
        let mut progress = log.progress;
        progress.outcome_stored(context.owner.recorder.last_stored());
        let checkpoint = progress.checkpoint();
        if let Err(error) = ownership.release(&checkpoint).await {
            tracing::warn!(error = %chain(&error), "failed to store the position: its next owner reads some outcomes again");
        }
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(Box::pin(work));
    }
}

/// Removes what every position has passed. Returns up to where that is.
async fn remove_front(
    nats: &Nats,
    partitions: u16,
    created_ns: i64,
) -> Result<Option<Mark>, NatsError> {
    let found: HashMap<_, _> = positions::all(nats)
        .await?
        .into_iter()
        .map(|(subscriber, position, _)| (subscriber, position))
        .collect();
    let positions = Subscriber::all(partitions).map(|subscriber| found.get(&subscriber));
    let front = front(positions, created_ns);
    if let Some(front) = front.filter(|front| front.sequence > 0) {
        log::remove_front(nats, created_ns, front).await?;
    }
    Ok(front)
}
