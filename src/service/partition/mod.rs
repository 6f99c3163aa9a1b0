//! Works one partition: feeds its state machine, performs its actions, acknowledges its events. One task owns all of it.
//!
//! Whatever leaves doubt about what JetStream has stored (an append that was not confirmed, a fence that broke) ends the
//! task with an error. The member then takes the partition over again, which reads the truth from the streams. There is
//! no other recovery. An append that JetStream refused leaves no doubt: it is tried again.

mod actions;
mod following;
mod repeats;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::gauges::Count;
use super::recorded::{self, Recorded};
use super::refusals::Refusals;
use super::{Context, rejected};
use crate::config::{self, Config, Devices};
use crate::event::{Event, IndexEntry, OfSet};
use crate::nats::mailbox::{Mailboxes, ParkedMessage};
use crate::nats::pinned::{Pinned, Received, ack_floor, acknowledge, still_working};
use crate::nats::{NatsError, chain};
use crate::partition::{Partition, Role};
use crate::reminder::finished::REROUTED_BYTES;
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::{DELIVERY_FRAME_BYTES, MAX_DELIVERY_BYTES};
use crate::router::{
    self, BySource, Company, Entry, Fate, Input, Item, Now, Page, Removal, Settled, Share, Text,
    Undelivered,
};
use crate::token::{Source, UserId};
use crate::wire::member::{HeldBack, MAX_HELD_BACK};
use following::Following;
use repeats::Repeats;

/// Bytes that `parked_at` and a comma add to a reminder in a request.
const PARKED_AT_BYTES: usize = 56;
/// Acknowledged events remembered, so that one that comes again because its acknowledgement was late is not routed again.
const REMEMBERED: usize = 10_000;
/// First and longest pause before reminders are parked that JetStream refused. The longest is how late is noticed that there is
/// room again, and that a user has returned; shorter ones would only keep a full server busy.
const PARK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The least time between two counts of what is held.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// An event in work.
struct InWork {
    event: Event,
    reply: async_nats::Subject,
    unsettled: usize,
    bytes: usize,
    since: Instant,
}

/// A parked reminder in memory.
struct InMemory {
    event: Event,
    parked_at: Timestamp,
}

/// What a piece of work in flight ends with.
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
    Settled(Vec<Settled>),
    Acknowledged(u64),
    Nothing,
}

struct Worker {
    context: Context,
    partition: Partition,
    mailboxes: Mailboxes,
    /// Associates' routes being looked up.
    lookups: Arc<Semaphore>,
    machine: router::Partition,
    in_work: BTreeMap<u64, InWork>,
    bytes_in_work: usize,
    in_memory: HashMap<u64, InMemory>,
    /// Reminders of events that the last owner had parked.
    parked_before: HashSet<(u64, usize)>,
    /// Reminders whose outcome the last owner had recorded.
    recorded_before: HashSet<recorded::Settled>,
    acknowledged: (HashSet<u64>, VecDeque<u64>),
    repeats: Repeats,
    /// What is held back, of whom, as last reported.
    held_back: BTreeMap<UserId, HeldBack>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Takes the partition over and works it until `stop`; then finishes what is in flight and releases it. Told to stop before
/// it works, it leaves the partition to the next one as it is.
///
/// # Errors
/// When it must be taken over anew.
pub async fn run(
    context: Context,
    partition: Partition,
    recorded: &Recorded,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let (mut worker, mut events, following) = tokio::select! {
        taken = Worker::take_over(&context, partition, recorded) => taken?,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::debug!(%partition, "partition taken");
    let _ = working.send(Role::Partition(partition)).await;
    worker.run(&mut events, following, stop).await?;
    if let Err(error) = events.release().await {
        tracing::warn!(error = %chain(&error), %partition, "not released, the pin will run out");
    }
    tracing::debug!(%partition, "partition released");
    Ok(())
}

/// The state machine's settings.
fn settings(config: &Config) -> router::Settings {
    router::Settings {
        lease: config.heartbeat.lease,
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

/// Whether a reminder may go to an associate, by its publisher's word and the settings, and fits into a request then.
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
    /// Makes the partition this member's, and learns all that there is to know of it. It can be given up at any point: the
    /// next owner takes over in the same way as from one that died.
    async fn take_over(
        context: &Context,
        partition: Partition,
        recorded: &Recorded,
    ) -> Result<(Self, Pinned, Following), NatsError> {
        let nats = &context.nats;
        let (stream, consumer) = (
            nats.names.events_stream(),
            nats.names.dispatch_consumer(partition),
        );
        let removals_in_flight = context.config.mailbox.removals_in_flight;
        let learn = async {
            let mailboxes =
                Mailboxes::take_over(nats, partition, &context.member, removals_in_flight).await?;
            let found = mailboxes
                .find(ack_floor(nats, &stream, &consumer).await?)
                .await?;
            // The last owner may have been this process.
            context.recorder.flush().await;
            Ok((mailboxes, found, recorded.of(partition).await?))
        };
        let mut machine = router::Partition::new(settings(&context.config));
        let mut following = Following::begin(context, partition).await;
        let (mailboxes, found, recorded_before) =
            following.load_during(learn, &mut machine).await?;
        let mut worker = Self {
            lookups: Arc::new(Semaphore::new(context.config.reroute.lookups_in_flight)),
            machine,
            mailboxes,
            partition,
            in_work: BTreeMap::new(),
            bytes_in_work: 0,
            in_memory: HashMap::new(),
            parked_before: found.came_from,
            recorded_before,
            acknowledged: Default::default(),
            repeats: Repeats::default(),
            held_back: BTreeMap::new(),
            work: FuturesUnordered::new(),
            context: context.clone(),
        };
        for (user, summary) in found.mailboxes {
            worker.feed(Input::MailboxFound(user, summary));
        }
        let events = Pinned::take_over(
            nats,
            stream,
            consumer,
            context.config.dispatch.max_bytes_in_flight,
        )
        .await?;
        Ok((worker, events, following))
    }

    async fn run(
        &mut self,
        events: &mut Pinned,
        mut following: Following,
        stop: CancellationToken,
    ) -> Result<(), NatsError> {
        let dispatch = self.context.config.dispatch.clone();
        let mut progress = tokio::time::interval(dispatch.ack_wait / 3);
        let mut is_stopping = false;
        let mut next_count = Instant::now();
        loop {
            // What JetStream refuses to park stays in its event, for the next owner.
            let is_finished = self.in_work.is_empty() || self.machine.is_park_refused();
            if is_stopping && is_finished && self.work.is_empty() {
                return Ok(());
            }
            let has_room = self.bytes_in_work < dispatch.max_bytes_in_flight
                && self.in_work.len() < dispatch.max_events_in_flight;
            let deadline = self.machine.next_deadline();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.feed(Input::Stop);
                }
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done)?,
                input = following.next() => input?.into_iter().for_each(|input| self.feed(input)),
                () = sleep_until(deadline), if deadline.is_some() => self.feed(Input::Tick),
                _ = progress.tick() => self.tell_progress(dispatch.ack_wait / 3),
                () = sleep_until(Some(next_count)) => next_count = self.count(),
                event = events.next(), if has_room && !is_stopping => self.event(event?),
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

    // What comes in.

    fn event(&mut self, received: Received) {
        let Received {
            sequence,
            reply,
            payload,
            ..
        } = received;
        if let Some(in_work) = self.in_work.get_mut(&sequence) {
            in_work.reply = reply; // It came again while in work: the newer hand-out is the one to acknowledge.
            return;
        }
        if self.acknowledged.0.contains(&sequence) {
            return self.acknowledge(sequence, reply);
        }
        let event = match Event::decode(&payload) {
            Ok(event) => event,
            Err(error) => return self.set_aside(sequence, reply, payload, &error.to_string()),
        };
        let (mut new, mut parked) = (Vec::with_capacity(event.index.reminders.len()), Vec::new());
        for (index, reminder) in event.index.reminders.iter().enumerate() {
            let item = Item::Event { sequence, index };
            let (user, set) = (reminder.user.clone(), event.set_of(index));
            let is_repeat = self.repeats.is_repeat(set, reminder.place);
            if is_repeat
                || self
                    .recorded_before
                    .contains(&recorded::Settled::published(&event, index))
            {
                continue; // It came before; or the last owner was done with it, whether in this event or in another.
            } else if self.parked_before.contains(&(sequence, index)) {
                parked.push(Settled {
                    user,
                    item,
                    fate: Fate::Parked,
                    removal: Removal::Event,
                });
            } else {
                let may_reroute = may_reroute(&self.context.config, &set.source, reminder);
                new.push((
                    user,
                    Entry {
                        may_reroute,
                        ..entry(item, set, reminder, 1)
                    },
                ));
            }
        }
        let unsettled = new.len() + parked.len();
        self.bytes_in_work += payload.len();
        self.in_work.insert(
            sequence,
            InWork {
                event,
                reply,
                unsettled,
                bytes: payload.len(),
                since: Instant::now(),
            },
        );
        if unsettled == 0 {
            return self.settled(&[], sequence);
        }
        if !parked.is_empty() {
            self.record(parked);
        }
        self.feed(Input::Event(new));
    }

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
            Done::Settled(items) => self.remove(items),
            Done::Acknowledged(sequence) => {
                if let Some(in_work) = self.in_work.remove(&sequence) {
                    self.bytes_in_work -= in_work.bytes;
                }
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
                    tracing::info!(%partition, "reminders are parked again");
                }
            }
            Err(error @ NatsError::Refused { .. }) => {
                self.feed(Input::ParkRefused);
                if !was_refused {
                    tracing::warn!(error = %chain(&error), %partition, "not parked; tried again until there is room");
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
            if self
                .recorded_before
                .contains(&recorded::Settled::Parked { sequence })
            {
                self.remove_only(sequence); // The last owner was done with it and did not come to remove it.
                continue;
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

    /// A mailbox was counted. What the last owner was done with does not count.
    fn counted(&mut self, user: UserId, mut found: Option<BySource>) {
        let is_over = |sequence: u64| {
            self.recorded_before
                .contains(&recorded::Settled::Parked { sequence })
        };
        found
            .iter_mut()
            .flatten()
            .for_each(|(_, sequences)| sequences.retain(|sequence| !is_over(*sequence)));
        self.feed(Input::MailboxCounted { user, found });
    }

    // Events.

    /// Some of an event's reminders are settled; with the last one the event is acknowledged.
    fn settled(&mut self, indexes: &[usize], sequence: u64) {
        let Some(in_work) = self.in_work.get_mut(&sequence) else {
            return;
        };
        in_work.unsettled = in_work.unsettled.saturating_sub(indexes.len());
        if in_work.unsettled == 0 {
            let reply = in_work.reply.clone();
            self.acknowledge(sequence, reply);
        }
    }

    fn acknowledge(&mut self, sequence: u64, reply: async_nats::Subject) {
        let (known, order) = &mut self.acknowledged;
        if known.insert(sequence) {
            order.push_back(sequence);
            if order.len() > REMEMBERED
                && let Some(oldest) = order.pop_front()
            {
                known.remove(&oldest);
            }
        }
        let nats = self.context.nats.clone();
        self.start(async move {
            if let Err(error) = acknowledge(&nats, reply).await {
                tracing::warn!(error = %chain(&error), sequence, "an event may come again");
            }
            Done::Acknowledged(sequence)
        });
    }

    /// A message that the intake did not write must not stop the partition.
    fn set_aside(
        &mut self,
        sequence: u64,
        reply: async_nats::Subject,
        payload: Bytes,
        problem: &str,
    ) {
        let message = self.corrupt(format!("event {sequence}: {problem}"), payload);
        let (nats, metrics) = (self.context.nats.clone(), self.context.metrics.clone());
        self.start(async move {
            message.store(&nats, &metrics).await;
            let _ = acknowledge(&nats, reply).await; // If it comes again it is set aside again.
            Done::Nothing
        });
    }

    fn set_parked_aside(&mut self, sequence: u64, payload: Bytes, problem: &str) {
        let message = self.corrupt(format!("parked message {sequence}: {problem}"), payload);
        let (nats, metrics, mailboxes) = (
            self.context.nats.clone(),
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
        tracing::error!(partition = %self.partition, detail, "not a message of ours, set aside");
        let rejection = Rejection::new(RejectCode::CorruptEvent, &detail);
        rejected::Message::new(
            &self.context.nats.names,
            "bellhop",
            payload,
            &rejection,
            None,
            detail,
        )
    }

    /// Tells what is held here. Answers when to do so again: it may take a hundredth of the time.
    fn count(&mut self) -> Instant {
        let began = Instant::now();
        let census = self.machine.census();
        self.held_back
            .retain(|user, _| census.held_back.contains(user));
        let held_back = self
            .held_back
            .values()
            .take(MAX_HELD_BACK)
            .cloned()
            .collect();
        let has_mail = census.mail_of_connected.users + census.mail_of_away.users > 0;
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
                    census,
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

    /// Tells JetStream of events that take long, so that it does not hand them out again.
    fn tell_progress(&mut self, age: Duration) {
        let replies: Vec<_> = self
            .in_work
            .values()
            .filter(|in_work| in_work.since.elapsed() >= age)
            .map(|w| w.reply.clone())
            .collect();
        if replies.is_empty() {
            return;
        }
        let nats = self.context.nats.clone();
        self.start(async move {
            for reply in replies {
                still_working(&nats, reply).await;
            }
            Done::Nothing
        });
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
