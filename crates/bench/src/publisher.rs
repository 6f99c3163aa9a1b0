//! A business system, as a worker: publishes sets as fast as JetStream takes them, or at a fixed
//! rate.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use super::Progress;
use super::error::{BenchError, During};
use super::load::Load;
use super::worker::{Conversation, PROGRESS, Role, Worker};

/// A publisher, as the measuring process sees it.
pub(super) struct Publisher(Worker);

impl Publisher {
    /// Starts one that publishes to JetStream.
    pub(super) async fn start(url: &str, load: Load) -> Result<Self, BenchError> {
        Self::with(
            Role::Publisher,
            &Task {
                url: url.to_owned(),
                load,
            },
        )
        .await
    }

    /// Starts one in another role that obeys the same orders.
    pub(super) async fn with(role: Role, task: &impl Serialize) -> Result<Self, BenchError> {
        Ok(Self(Worker::start(role, task).await?))
    }

    /// Begins to publish.
    pub(super) async fn begin(&mut self, batch: Batch) -> Result<(), BenchError> {
        self.0.order(&Order::Publish(batch)).await
    }

    /// Waits until the whole batch is stored.
    pub(super) async fn published(
        &mut self,
        progress: Progress<'_>,
    ) -> Result<Published, BenchError> {
        loop {
            match self.0.report().await? {
                Report::Done(published) => return Ok(published),
                Report::Progress(count) => progress(format!("{count} published")),
            }
        }
    }

    /// Stops a batch that is published at a rate.
    pub(super) async fn stop(&mut self, progress: Progress<'_>) -> Result<Published, BenchError> {
        self.0.order(&Order::Stop).await?;
        self.published(progress).await
    }

    /// Returns the CPU time used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.0.cpu_time()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Task {
    url: String,
    load: Load,
}

/// An order to a publisher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Publish(Batch),
    /// Stops a batch that is published at a rate.
    Stop,
}

/// The reminders `first` to `first + count`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) to: To,
    pub(super) first: usize,
    pub(super) count: usize,
    /// Reminders in a set.
    pub(super) set_size: usize,
    /// Reminders a second; none publishes as fast as possible.
    pub(super) rate: Option<usize>,
}

/// The subjects that sets are published to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum To {
    /// The same subject for all.
    Subject(String),
    /// For each set this subject and the name of the set's first user.
    Users(String),
}

impl To {
    /// Returns the subject of a set that begins with this reminder.
    fn subject(&self, load: &Load, first: usize) -> String {
        match self {
            Self::Subject(subject) => subject.clone(),
            Self::Users(subject) => format!("{subject}.{}", load.user_name(load.user_of(first))),
        }
    }
}

/// A report of a publisher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The number of reminders published so far.
    Progress(usize),
    /// The whole batch is stored.
    Done(Published),
}

/// A published batch: its time and size.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Published {
    /// The begin, in microseconds since 1970.
    pub(super) began_us: u64,
    /// The last acknowledgement, in microseconds since 1970.
    pub(super) ended_us: u64,
    /// The number after the last reminder.
    pub(super) end: usize,
}

/// Most bytes without acknowledgement: enough to keep nats-server busy, and no more than it
/// accepts.
const WINDOW_BYTES: usize = 8 << 20;
/// Most sets without acknowledgement, for the same reason.
const WINDOW_SETS: usize = 4_000;

/// Runs the worker.
pub(super) async fn run(mut conversation: Conversation) -> Result<(), BenchError> {
    let task: Task = conversation.task().await?;
    let client = async_nats::ConnectOptions::new()
        .name("bench publisher")
        .connect(&task.url)
        .await;
    let client = client.during("connect the publisher")?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(30))
        .max_ack_inflight(10 * WINDOW_SETS)
        .build(client);
    while let Some(order) = conversation.next::<Order>().await? {
        if let Order::Publish(batch) = order {
            let began_us = now_us();
            let end = publish(&jetstream, &task.load, &batch, &mut conversation).await?;
            conversation
                .report(&Report::Done(Published {
                    began_us,
                    ended_us: now_us(),
                    end,
                }))
                .await?;
        }
    }
    Ok(())
}

/// Sets without acknowledgement.
#[derive(Default)]
struct Window {
    acks: FuturesUnordered<BoxFuture<'static, Result<usize, PublishError>>>,
    bytes: usize,
}

impl Window {
    fn has_room(&self) -> bool {
        self.acks.is_empty() || (self.bytes < WINDOW_BYTES && self.acks.len() < WINDOW_SETS)
    }

    fn add(&mut self, ack: PublishAckFuture, bytes: usize) {
        self.bytes += bytes;
        self.acks
            .push(Box::pin(async move { ack.await.map(|_| bytes) }));
    }

    /// Waits for an acknowledgement. Returns whether one was missing.
    async fn acknowledged(&mut self) -> Result<bool, PublishError> {
        let Some(ack) = self.acks.next().await else {
            return Ok(false);
        };
        self.bytes -= ack?;
        Ok(true)
    }
}

/// Publishes until all is stored, or a stop is ordered. Returns the number after the last reminder.
async fn publish(
    jetstream: &jetstream::Context,
    load: &Load,
    batch: &Batch,
    conversation: &mut Conversation,
) -> Result<usize, BenchError> {
    let Batch {
        to,
        first,
        count,
        set_size,
        rate,
    } = batch;
    let action = "publish";
    let (began, began_us) = (Instant::now(), now_us());
    let mut reported = Instant::now();
    let mut window = Window::default();
    let mut at = *first;
    while at < first + count {
        let due = rate.map(|rate| Duration::from_secs_f64((at - first) as f64 / rate as f64));
        if let Some(due) = due
            && is_stopped(due.saturating_sub(began.elapsed()), conversation).await?
        {
            break;
        }
        // At a fixed rate, latency counts from when a set was due, even if the publisher was late.
        let at_us = due.map_or_else(now_us, |due| began_us + due.as_micros() as u64);
        let next = (at + set_size).min(first + count);
        let body = load.set(at, next - at, at_us);
        let bytes = body.len();
        let ack = jetstream
            .publish(to.subject(load, at), body.into())
            .await
            .during(action)?;
        window.add(ack, bytes);
        while !window.has_room() {
            window.acknowledged().await.during(action)?;
        }
        at = next;
        if reported.elapsed() > PROGRESS {
            reported = Instant::now();
            conversation.report(&Report::Progress(at - first)).await?;
        }
    }
    while window.acknowledged().await.during(action)? {}
    Ok(at)
}

/// Waits for this long. Returns early, with `true`, if a stop is ordered.
async fn is_stopped(wait: Duration, conversation: &mut Conversation) -> Result<bool, BenchError> {
    let pause = async {
        // The shortest sleep takes a millisecond.
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    };
    tokio::select! {
        biased;
        order = conversation.next::<Order>() => order.map(|_| true),
        () = pause => Ok(false),
    }
}

/// Returns the time in microseconds since 1970, by the clock that all processes of a machine share.
pub(super) fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}
