//! Works one partition: takes its part of the log, feeds its state machine, performs its actions,
//! and moves its position. One task owns all of it.
//!
//! Whatever leaves doubt about what JetStream has stored (an append that was not confirmed, a fence
//! that broke) ends the task with an error. The member then takes the partition over again, which
//! reads the truth from the streams. There is no other recovery. An append that JetStream refused
//! leaves no doubt: it is tried again.

mod actions;
mod following;
mod intake;

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::bucket_watch::Follow;
use super::gauges::{Count, Gauges};
use super::ownership::{CHECKPOINT_EVERY, Owner, Ownership};
use super::reader::{Log, LogItem, Subscription};
use super::refusals::Refusals;
use super::request_batcher::RequestBatcher;
use super::{ownership, rejected, rules};
use crate::config::{self, Config, Devices};
use crate::event::{Event, IndexEntry, OfSet};
use crate::log::Subscriber;
use crate::log::partition::{self, PartitionLog};
use crate::log::progress::{Checkpoint, Hold};
use crate::metrics::Metrics;
use crate::nats::link::Link;
use crate::nats::mailbox::{Mailboxes, ParkedMessage};
use crate::nats::{NatsError, chain};
use crate::partition::{Partition, Role};
use crate::reminder::finished::REROUTED_BYTES;
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::{DELIVERY_FRAME_BYTES, MAX_DELIVERY_BYTES};
use crate::router::{
    self, BySource, Company, Entry, Input, Item, Now, Page, Settled, Share, Text, Undelivered,
};
use crate::token::{Source, UserId};
use crate::wire::member::{HeldBack, MAX_HELD_BACK};
use following::Following;

/// Bytes that `parked_at` and a comma add to a reminder in a request.
const PARKED_AT_BYTES: usize = 56;
/// First and longest pause before reminders are parked that JetStream refused. The longest is how
/// late is noticed that there is room again, and that a user has returned; shorter ones would only
/// keep a full server busy.
const PARK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The least time between two counts of what is held.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The partition's part of a set, in work.
struct InWork {
    event: Event,
    unsettled: usize,
    bytes: usize,
}

/// A parked reminder in memory.
struct InMemory {
    event: Event,
    parked_at: Timestamp,
}

/// The end of a piece of work in flight.
enum Done {
    Input(Input),
    Delivered(
        Arc<router::Instance>,
        Company,
        Vec<Share>,
        Result<Arc<Refusals>, Undelivered>,
    ),
    Parked(Result<Vec<u64>, NatsError>),
    Page(UserId, u64, Vec<ParkedMessage>, bool),
    Counted(UserId, Option<BySource>),
    /// The outcomes of these are recorded; the mailbox's message must be removed before the hold is
    /// released.
    Settled(Vec<Settled>, Option<Hold>),
    /// So many parts of a set that went no further are recorded.
    Ended(u64, usize),
    /// The reminder of this hold is removed.
    Removed(Hold),
    Checkpoint(Result<Box<Ownership>, NatsError>, Checkpoint),
    Nothing,
}

/// The resources that a partition needs.
#[derive(Debug, Clone)]
pub struct Context {
    /// Owns the partition's position.
    pub owner: Owner,
    /// Reads the log of sets.
    pub log: Log,
    /// The connection for buckets.
    pub buckets: Link,
    /// Carries requests to instances.
    pub batcher: RequestBatcher,
    /// Asks for routes.
    pub routes: Follow,
    /// Asks for associates.
    pub associates: Follow,
    /// Has the rules ready.
    pub rules: rules::Watch,
    /// The metrics.
    pub metrics: Metrics,
    /// The gauges of state and backlog.
    pub gauges: Gauges,
}

struct Worker {
    context: Context,
    partition: Partition,
    mailboxes: Mailboxes,
    /// Associates' routes being looked up.
    lookups: Arc<Semaphore>,
    machine: router::Router,
    log: PartitionLog,
    /// None while a checkpoint is being stored.
    ownership: Option<Ownership>,
    /// By the set's sequence.
    in_work: HashMap<u64, InWork>,
    bytes_in_work: usize,
    in_memory: HashMap<u64, InMemory>,
    /// Messages of mailboxes that an earlier owner was done with.
    finished_before: HashSet<u64>,
    /// Identities were forgotten before their time, and the log says so.
    has_warned: bool,
    /// The reminders that are held back, by user, as last reported.
    held_back: BTreeMap<UserId, HeldBack>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Takes the partition over and works it until `stop`; then finishes what is in flight and releases
/// it. If it is stopped before it works, it leaves the partition to the next one as it is.
///
/// # Errors
/// If it must be taken over again.
pub async fn run(
    context: Context,
    partition: Partition,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let taking = Worker::take_over(&context, partition);
    let Some(taken) = ownership::unless_stopped(&stop, taking).await? else {
        return Ok(());
    };
    let (mut worker, mut subscription, following) = taken;
    tracing::debug!(%partition, "partition taken");
    let _ = working.send(Role::Partition(partition)).await;
    worker.run(&mut subscription, following, stop).await?;
    worker.release().await;
    tracing::debug!(%partition, "partition released");
    Ok(())
}

/// The state machine's settings.
fn settings(config: &Config) -> router::Settings {
    router::Settings {
        lease: config.heartbeat.lease,
        ask_ahead: config.heartbeat.lease / 4,
        instance_backoff: (config.heartbeat.backoff_min, config.heartbeat.backoff_max),
        busy_backoff: (config.delivery.busy_min, config.delivery.busy_max),
        all_devices: config.delivery.devices == Devices::All,
        turn_timeout: config.delivery.timeout,
        heartbeat_users: config.heartbeat.max_users,
        delivery_bytes: config.delivery.max_bytes - DELIVERY_FRAME_BYTES,
        room: room(config),
        park_batch: (config.mailbox.park_messages, config.mailbox.park_bytes),
        park_again: PARK_AGAIN,
        reads_in_flight: config.mailbox.reads_in_flight,
        expiry_interval: config.mailbox.expiry_interval,
        copy_rerouted: config.delivery.copy_rerouted,
        reroute_after: config.reroute.after,
        // The other half is for all others.
        expected_most: (
            config.dispatch.max_events_in_flight / 2,
            config.dispatch.max_bytes_in_flight / 2,
        ),
        reroute_timeout: config.reroute.timeout,
        merge_window: config.merge.window,
        merge_limit: config.merge.max_reminders,
    }
}

/// Room in one user's mailbox.
fn room(config: &Config) -> router::Room {
    let config::Mailbox {
        limit,
        reserve,
        source_share,
        ..
    } = config.mailbox;
    router::Room {
        limit,
        reserve,
        source_share,
    }
}

/// A reminder as the state machine sees it; `around` are the bytes that a request adds to it.
fn entry(item: Item, set: &OfSet, reminder: &IndexEntry, around: usize) -> Entry {
    let IndexEntry {
        id,
        expires_at,
        priority,
        text,
        bytes,
        ..
    } = reminder;
    let (expires_at, bytes, may_reroute) = (*expires_at, bytes + around, false);
    let (source, priority) = (set.source.clone(), *priority);
    let text = text.map(|hash| {
        Arc::new(Text {
            id: id.clone(),
            hash,
            priority,
        })
    });
    Entry {
        item,
        expires_at,
        bytes,
        may_reroute,
        source,
        priority,
        text,
    }
}

/// Returns true if a reminder may go to an associate, according to its publisher and the settings,
/// and then fits into a request.
fn may_reroute(config: &Config, source: &Source, reminder: &IndexEntry) -> bool {
    let config::Reroute {
        sources,
        min_priority,
        ..
    } = &config.reroute;
    let is_source = sources.is_empty() || sources.contains(source);
    let fits = reminder.bytes + REROUTED_BYTES + DELIVERY_FRAME_BYTES <= MAX_DELIVERY_BYTES;
    is_source && fits && reminder.priority >= *min_priority && !reminder.stays
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix_ms: Timestamp::now().as_millisecond(),
    }
}

impl Worker {
    /// Makes the partition this member's, and learns all that there is to know of it. It can be
    /// given up at any point: the next owner takes over in the same way as from one that died.
    async fn take_over(
        context: &Context,
        partition: Partition,
    ) -> Result<(Self, Subscription, Following), NatsError> {
        let (nats, subscriber) = (&context.owner.nats, Subscriber::Partition(partition));
        let removals_in_flight = context.owner.config.mailbox.removals_in_flight;
        let learn = async {
            let mailboxes =
                Mailboxes::take_over(nats, partition, &context.owner.member, removals_in_flight)
                    .await?;
            let (ownership, mut log) = Ownership::take_over(&context.owner, subscriber).await?;
            let found = mailboxes.find(log.start.settled, &log.done).await?;
            // Before anything is delivered from there.
            log.done.extend(
                intake::record_parked(context, partition, &mailboxes, &found.unrecorded).await?,
            );
            context.rules.loaded().await;
            Ok((mailboxes, ownership, log, found))
        };
        let mut machine = router::Router::new(settings(&context.owner.config));
        let mut following = Following::begin(context, partition).await;
        let (mailboxes, ownership, log, found) = following.load_during(learn, &mut machine).await?;
        let ownership::Takeover {
            start,
            created_ns,
            outcomes,
            window,
            done,
        } = log;
        let parked = HashSet::new(); // All of it is recorded by now.
        let mut worker = Self {
            log: PartitionLog::new(partition::StartState {
                settled: start.settled,
                outcomes,
                window,
                done,
                parked,
            }),
            ownership: Some(ownership),
            lookups: Arc::new(Semaphore::new(
                context.owner.config.reroute.lookups_in_flight,
            )),
            machine,
            mailboxes,
            partition,
            in_work: HashMap::new(),
            bytes_in_work: 0,
            in_memory: HashMap::new(),
            finished_before: found.finished.iter().copied().collect(),
            has_warned: false,
            held_back: BTreeMap::new(),
            work: FuturesUnordered::new(),
            context: context.clone(),
        };
        for (user, summary) in found.mailboxes {
            worker.feed(Input::MailboxFound(user, summary));
        }
        for sequence in found.finished {
            let hold = worker.log.progress.hold_from_before();
            worker.remove_only(sequence, Some(hold));
        }
        let subscription = context.log.subscribe(subscriber, start, created_ns);
        Ok((worker, subscription, following))
    }

    async fn run(
        &mut self,
        subscription: &mut Subscription,
        mut following: Following,
        stop: CancellationToken,
    ) -> Result<(), NatsError> {
        let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
        checkpoint.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_stopping = false;
        let mut next_count = Instant::now();
        // One timer for all deadlines, and one wait for the end: making them takes a lock each
        // time.
        let mut alarm = pin!(tokio::time::sleep_until(next_count.into()));
        let mut stopped = pin!(stop.cancelled());
        loop {
            // Reminders that JetStream refuses to park are above the position, for the next owner.
            let is_finished = self.in_work.is_empty() || self.machine.is_park_refused();
            if is_stopping && is_finished && self.work.is_empty() {
                return Ok(());
            }
            let has_room = self.has_room();
            let deadline = self.machine.next_deadline();
            let wake_at: tokio::time::Instant =
                deadline.map_or(next_count, |at| at.min(next_count)).into();
            if alarm.deadline() != wake_at {
                alarm.as_mut().reset(wake_at);
            }
            tokio::select! {
                biased;
                () = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    self.feed(Input::Stop);
                }
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done)?,
                input = following.next() => input?.into_iter().for_each(|input| self.feed(input)),
                _ = checkpoint.tick() => self.checkpoint(),
                () = &mut alarm => {
                    let now = Instant::now();
                    if deadline.is_some_and(|at| at <= now) {
                        self.feed(Input::Tick);
                    }
                    if next_count <= now {
                        next_count = self.count();
                    }
                }
                () = std::future::ready(()), if has_room && !is_stopping && self.log.queued_bytes() > 0 => {
                    // Arrived reminders queue with the waiting ones.
                    while let Some(item) = subscription.ready() {
                        self.item(Some(item), subscription)?;
                    }
                    self.plan(subscription);
                    // It is work for the processor, and much may wait: the connection must get its
                    // turn between.
                    tokio::task::yield_now().await;
                }
                item = subscription.next(), if !is_stopping => self.item(item, subscription)?,
            }
        }
    }

    fn feed(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.machine.handle(now(), input, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(Box::pin(work));
    }

    // Handle inputs.

    fn done(&mut self, done: Done) -> Result<(), NatsError> {
        match done {
            Done::Input(input) => self.feed(input),
            Done::Delivered(instance, company, shares, answer) => {
                let answer = answer.map(|answer| self.refused(&shares, &answer));
                answer
                    .iter()
                    .flatten()
                    .for_each(|(_, _, why)| self.context.metrics.refused(*why));
                self.feed(Input::Delivered {
                    instance,
                    company,
                    answer,
                });
            }
            Done::Parked(stored) => self.parked(stored)?,
            Done::Page(user, last, messages, is_last) => self.page(user, last, messages, is_last),
            Done::Counted(user, found) => self.counted(user, found),
            Done::Settled(items, hold) => self.remove(items, hold),
            Done::Ended(sequence, parts) => self.log.progress.settle(sequence, parts),
            Done::Removed(hold) => self.log.progress.release(hold),
            Done::Checkpoint(ownership, stored) => {
                self.ownership = Some(*ownership?);
                self.log.progress.stored(&stored);
            }
            Done::Nothing => {}
        }
        Ok(())
    }

    /// A batch for mailboxes is stored; or refused, and then it is known that it is not.
    fn parked(&mut self, stored: Result<Vec<u64>, NatsError>) -> Result<(), NatsError> {
        let (partition, was_refused) = (self.partition, self.machine.is_park_refused());
        match stored {
            Ok(sequences) => {
                self.feed(Input::Parked(sequences));
                if was_refused {
                    tracing::info!(%partition, "parking works again");
                }
            }
            Err(error @ NatsError::Refused { .. }) => {
                self.feed(Input::ParkRefused);
                if !was_refused {
                    tracing::warn!(error = %chain(&error), %partition, "failed to park, retrying until there is room");
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn page(&mut self, user: UserId, last: u64, messages: Vec<ParkedMessage>, is_last: bool) {
        let next = messages.last().map_or(last, |message| {
            message.sequence.max(if is_last { last } else { 0 })
        }) + 1;
        let mut entries = Vec::with_capacity(messages.len());
        for ParkedMessage {
            sequence,
            parked_at,
            message,
        } in messages
        {
            if self.finished_before.contains(&sequence) {
                continue; // It is being removed.
            }
            match Event::decode(&message) {
                Ok(event) if event.index.reminders.len() == 1 => {
                    let item = Item::Parked { sequence };
                    entries.push(entry(
                        item,
                        event.set_of(0),
                        &event.index.reminders[0],
                        PARKED_AT_BYTES,
                    ));
                    self.in_memory
                        .insert(sequence, InMemory { event, parked_at });
                }
                Ok(_) => {
                    self.set_parked_aside(sequence, message, "it has not exactly one reminder")
                }
                Err(error) => self.set_parked_aside(sequence, message, &error.to_string()),
            }
        }
        self.feed(Input::MailboxRead {
            user,
            page: Page {
                entries,
                next,
                is_last,
            },
        });
    }

    /// A mailbox was counted. Reminders that the last owner settled do not count.
    fn counted(&mut self, user: UserId, mut found: Option<BySource>) {
        let is_over = |sequence: &u64| self.finished_before.contains(sequence);
        found
            .iter_mut()
            .flatten()
            .for_each(|(_, sequences)| sequences.retain(|sequence| !is_over(sequence)));
        self.feed(Input::MailboxCounted { user, found });
    }

    /// Some of what came with a set is settled.
    fn settled(&mut self, sequence: u64, count: usize) {
        self.log.progress.settle(sequence, count);
        let Some(in_work) = self.in_work.get_mut(&sequence) else {
            return;
        };
        in_work.unsettled = in_work.unsettled.saturating_sub(count);
        if in_work.unsettled == 0
            && let Some(over) = self.in_work.remove(&sequence)
        {
            self.bytes_in_work -= over.bytes;
        }
    }

    fn set_parked_aside(&mut self, sequence: u64, payload: Bytes, problem: &str) {
        let message = self.corrupt(format!("parked message {sequence}: {problem}"), payload);
        let (nats, metrics, mailboxes) = (
            self.context.owner.nats.clone(),
            self.context.metrics.clone(),
            self.mailboxes.clone(),
        );
        self.start(async move {
            message.store(&nats, &metrics).await;
            let _ = mailboxes.remove_only(sequence).await; // If it is read again it is set aside again.
            Done::Nothing
        });
    }

    fn corrupt(&self, detail: String, payload: Bytes) -> rejected::Message {
        tracing::error!(partition = %self.partition, detail, "foreign message set aside");
        let rejection = Rejection::new(RejectCode::CorruptEvent, &detail);
        rejected::Message::new(
            &self.context.owner.nats.names,
            "bellhop",
            payload,
            &rejection,
            None,
            detail,
        )
    }

    /// Reports the counts of this partition. Answers when to do so again: it may take a hundredth
    /// of the time.
    fn count(&mut self) -> Instant {
        let began = Instant::now();
        let stats = self.machine.stats();
        self.held_back
            .retain(|user, _| stats.held_back.contains(user));
        let held_back = self
            .held_back
            .values()
            .take(MAX_HELD_BACK)
            .cloned()
            .collect();
        let has_mail = stats.mail_of_connected.users + stats.mail_of_away.users > 0;
        let (events, bytes) = (self.in_work.len(), self.bytes_in_work);
        let next = Instant::now() + COUNT_EVERY.max(began.elapsed() * 100);
        let (mailboxes, gauges, partition) = (
            self.mailboxes.clone(),
            self.context.gauges.clone(),
            self.partition,
        );
        self.start(async move {
            // Without an answer there is one at the next count.
            let oldest_parked = if has_mail {
                mailboxes.oldest().await.ok().flatten()
            } else {
                None
            };
            gauges.counted(
                partition,
                Count {
                    stats,
                    events,
                    bytes,
                    oldest_parked,
                    held_back,
                },
            );
            Done::Nothing
        });
        next
    }
}
