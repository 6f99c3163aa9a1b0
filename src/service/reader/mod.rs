//! Reads the log of sets for all that this process works, and hands each its part. `log/readers.rs`
//! decides who reads for which subscriber, and from where; what of a set is whose, by
//! `log/split.rs`.

mod tail;

use std::collections::{BTreeMap, HashMap};
use std::task::Poll;
use std::time::Duration;

use async_nats::HeaderMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::unreadable::InputContext;
use crate::config::Config;
use crate::log::Subscriber;
use crate::log::position::{Mark, Start};
use crate::log::readers::{Action, Limits, ReaderId, Readers, Taker};
use crate::log::split::{OfSetItself, Slice};
use crate::nats::Nats;
use crate::nats::positions::Hold;
use tail::Read;

/// Readers at a time. Each takes every set from nats-server, so more cost more than what waits for
/// one gains.
const READERS: usize = 3;
/// A reader that is so many sets ahead of another one waits for it: some milliseconds.
const NEAR: u64 = 100;
/// Sets that wait, split, behind a reader: enough to go on while others are handed out.
const READ_AHEAD: usize = 8;
/// The least room in a subscriber's queue, with however many partitions: some hundred reminders.
const LEAST_QUEUE_BYTES: usize = 256 << 10;
/// Interval at which each subscriber learns the progress of reading, even if no set had a part for
/// it.
const SAY_EVERY: Duration = Duration::from_millis(250);

/// An item for a subscriber. Items arrive in the order of the log.
#[derive(Debug)]
pub enum LogItem {
    /// A partition's slice of a set, and the place just before the set.
    Slice(Slice, Mark),
    /// The part that belongs to a set itself, and the position just before the set.
    OfSet(Box<OfSet>, Mark),
    /// The log was read up to here.
    Read(Mark),
}

/// The part that belongs to a set itself, with the set's headers.
#[derive(Debug)]
pub struct OfSet {
    /// The part.
    pub part: OfSetItself,
    /// Its headers.
    pub headers: Option<HeaderMap>,
    /// Time at which it was stored, in nanoseconds since 1970.
    pub stored_ns: i128,
}

/// Bytes of a set's headers in memory, about, for each of them beside its text.
const HEADER_BYTES: usize = 128;

impl OfSet {
    /// Returns how many bytes it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().flat_map(HeaderMap::iter);
        let header = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
            let values: usize = values
                .iter()
                .map(|value| HEADER_BYTES + value.as_str().len())
                .sum();
            AsRef::<str>::as_ref(name).len() + values
        };
        self.part.bytes() + headers.map(header).sum::<usize>()
    }
}

enum Command {
    Subscribe {
        subscriber: Subscriber,
        start: Start,
        created_ns: i64,
        item: mpsc::UnboundedSender<LogItem>,
    },
    Unsubscribe(Subscriber),
    Drained(Subscriber, usize),
    /// Asks how far the subscriber has come that has come furthest.
    Furthest(oneshot::Sender<Mark>),
}

/// Subscribes to the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    // A subscriber's report is small, and there is one for each set that it got.
    commands: mpsc::UnboundedSender<Command>,
}

/// A subscriber's part of the log. It ends when this is dropped.
#[derive(Debug)]
pub struct Subscription {
    log: Log,
    subscriber: Subscriber,
    // It holds no more than the subscriber's queue may: see `Limits::queue_bytes`.
    item: mpsc::UnboundedReceiver<LogItem>,
}

impl Subscription {
    /// Returns what comes next; none if the log is another one than before. May be cancelled.
    pub async fn next(&mut self) -> Option<LogItem> {
        self.item.recv().await
    }

    /// Returns what has come already, if anything has.
    pub fn ready(&mut self) -> Option<LogItem> {
        self.item.try_recv().ok()
    }

    /// Reports that so many bytes no longer wait.
    pub fn drained(&self, bytes: usize) {
        if bytes > 0 {
            let _ = self
                .log
                .commands
                .send(Command::Drained(self.subscriber, bytes));
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self
            .log
            .commands
            .send(Command::Unsubscribe(self.subscriber));
    }
}

impl Log {
    /// Starts the task that reads.
    pub(super) fn start(
        input: InputContext,
        config: &Config,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let questions = commands.downgrade();
        let partitions = config.partitions;
        let queue_bytes =
            (config.intake.max_bytes_in_flight / usize::from(partitions)).max(LEAST_QUEUE_BYTES);
        let limits = Limits {
            queue_bytes,
            readers: READERS,
            near: NEAR,
        };
        let reading = Reading {
            input,
            questions,
            partitions,
            created_ns: 0,
            readers: Readers::new(limits),
            tails: BTreeMap::new(),
            subscribers: HashMap::new(),
            held: None,
            is_unsaid: false,
        };
        (Self { commands }, tokio::spawn(reading.run(commanded)))
    }

    /// Subscribes from a place on, in the log that was created at this time.
    pub fn subscribe(&self, subscriber: Subscriber, start: Start, created_ns: i64) -> Subscription {
        let (sender, item) = mpsc::unbounded_channel();
        // If the task has ended, so has the subscription.
        let _ = self.commands.send(Command::Subscribe {
            subscriber,
            start,
            created_ns,
            item: sender,
        });
        Subscription {
            log: self.clone(),
            subscriber,
            item,
        }
    }
}

/// A subscriber's queue, and the last progress reported to it.
struct Recipient {
    item: mpsc::UnboundedSender<LogItem>,
    heard: Mark,
}

struct Reading {
    input: InputContext,
    /// The place where readers ask.
    questions: mpsc::WeakUnboundedSender<Command>,
    partitions: u16,
    /// Creation time of the log.
    created_ns: i64,
    readers: Readers,
    tails: BTreeMap<ReaderId, mpsc::Receiver<Read>>,
    subscribers: HashMap<Subscriber, Recipient>,
    /// Nothing is read behind this sequence, while there is one.
    held: Option<u64>,
    /// The role for sets has not heard of the last sets, which had nothing for it.
    is_unsaid: bool,
}

impl Reading {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut tick = tokio::time::interval(SAY_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (sender, mut holds) = mpsc::channel(1);
        tokio::spawn(follow_hold(self.input.nats.clone(), sender));
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = tick.tick() => {
                    let mut actions = Vec::new();
                    self.readers.tick(&mut actions);
                    self.perform(actions);
                    self.say();
                }
                held = holds.recv() => match held {
                    Some(held) => self.held = held,
                    None => return,
                },
                (reader, read) = next(&mut self.tails, &self.readers, self.held) => match read {
                    Some(read) => self.hand_out(reader, read),
                    None => self.begin_again(),
                },
                // No set waits: what has come due waits for this.
                () = std::future::ready(()), if self.is_unsaid => {
                    self.is_unsaid = false;
                    self.say_to(Subscriber::Sets);
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let mut actions = Vec::new();
        match command {
            Command::Subscribe {
                subscriber,
                start,
                created_ns,
                item,
            } => {
                if self.created_ns != created_ns {
                    self.begin_again();
                    self.created_ns = created_ns;
                }
                self.subscribers.insert(
                    subscriber,
                    Recipient {
                        item,
                        heard: start.settled,
                    },
                );
                self.readers.subscribe(subscriber, start, &mut actions);
            }
            Command::Unsubscribe(subscriber) => {
                self.subscribers.remove(&subscriber);
                self.readers.unsubscribe(subscriber, &mut actions);
            }
            Command::Drained(subscriber, bytes) => {
                self.readers.drained(subscriber, bytes, &mut actions)
            }
            Command::Furthest(answer) => {
                // A reader that is closed meanwhile needs no answer.
                let _ = answer.send(self.readers.furthest());
            }
        }
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open { reader, after } => {
                    tracing::debug!(reader, after, "a reader of the log begins");
                    let (sender, read) = mpsc::channel(READ_AHEAD);
                    tokio::spawn(tail::run(
                        self.input.clone(),
                        self.questions.clone(),
                        reader,
                        self.created_ns,
                        after,
                        self.partitions,
                        sender,
                    ));
                    self.tails.insert(reader, read);
                }
                Action::Close(reader) => {
                    tracing::debug!(reader, "a reader of the log ends");
                    self.tails.remove(&reader);
                }
            }
        }
    }

    fn hand_out(&mut self, reader: ReaderId, read: Read) {
        let Read {
            sequence,
            stored_ms,
            stored_ns,
            headers,
            split,
        } = read;
        let mut actions = Vec::new();
        let takers = self.readers.read(reader, sequence, stored_ms, &mut actions);
        let mut slices: HashMap<_, _> = split.slices.into_iter().collect();
        let mut of_set = split.of_set;
        for Taker { subscriber, before } in takers {
            let (item, bytes) = match subscriber {
                Subscriber::Sets => {
                    self.input.metrics.set_taken();
                    let Some(part) = of_set.take() else {
                        self.is_unsaid = true;
                        continue;
                    };
                    let of_set = OfSet {
                        part,
                        headers: headers.clone(),
                        stored_ns,
                    };
                    let bytes = of_set.bytes();
                    (LogItem::OfSet(Box::new(of_set), before), bytes)
                }
                Subscriber::Partition(partition) => {
                    let Some(slice) = slices.remove(&partition) else {
                        continue;
                    };
                    let bytes = slice.bytes;
                    (LogItem::Slice(slice, before), bytes)
                }
            };
            if let Some(recipient) = self.subscribers.get(&subscriber) {
                let _ = recipient.item.send(item); // If it is gone, it says so next.
                self.readers.queued(subscriber, bytes, &mut actions);
            }
        }
        self.perform(actions);
    }

    fn say(&mut self) {
        let subscribers: Vec<_> = self.subscribers.keys().copied().collect();
        subscribers
            .into_iter()
            .for_each(|subscriber| self.say_to(subscriber));
    }

    fn say_to(&mut self, subscriber: Subscriber) {
        if let Some(recipient) = self.subscribers.get_mut(&subscriber)
            && let Some(taken) = self
                .readers
                .taken(subscriber)
                .filter(|taken| *taken != recipient.heard)
        {
            let _ = recipient.item.send(LogItem::Read(taken)); // If it is gone, it says so next.
            recipient.heard = taken;
        }
    }

    /// The log is another one, or went back. All begin again at their positions.
    fn begin_again(&mut self) {
        let mut actions = Vec::new();
        for (subscriber, _) in self.subscribers.drain() {
            self.readers.unsubscribe(subscriber, &mut actions);
        }
        self.perform(actions);
    }
}

/// Returns the next item of a reader that may go on; none if it has ended.
async fn next(
    tails: &mut BTreeMap<ReaderId, mpsc::Receiver<Read>>,
    readers: &Readers,
    held: Option<u64>,
) -> (ReaderId, Option<Read>) {
    std::future::poll_fn(|context| {
        let is_held = |reader| {
            held.is_some_and(|held| {
                readers
                    .readers()
                    .any(|(other, at)| other == reader && at >= held)
            })
        };
        for (reader, read) in tails.iter_mut() {
            if !readers.may_read(*reader) || is_held(*reader) {
                continue;
            }
            if let Poll::Ready(read) = read.poll_recv(context) {
                return Poll::Ready((*reader, read));
            }
        }
        Poll::Pending
    })
    .await
}

/// Passes on each hold of the log.
async fn follow_hold(nats: Nats, holds: mpsc::Sender<Option<u64>>) {
    let mut hold = Hold::new(nats);
    loop {
        tokio::select! {
            () = holds.closed() => return,
            held = hold.next() => if holds.send(held).await.is_err() {
                return;
            },
        }
    }
}
