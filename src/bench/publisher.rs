//! A business system: publishes sets as fast as JetStream takes them, or at a fixed rate whatever becomes of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use async_nats::jetstream::context::PublishAckFuture;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::load::Load;
use super::task::{Conversation, PROGRESS};

/// Where it publishes what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The nats-server.
    pub(super) url: String,
    /// The reminders.
    pub(super) load: Load,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To publish.
    Publish(Batch),
    /// To end what it publishes at a rate.
    Stop,
}

/// The reminders `first` to `first + count`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Batch {
    /// Where to.
    pub(super) to: To,
    /// The first number.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// Reminders in a set.
    pub(super) set_size: usize,
    /// Reminders a second; none for as fast as it goes.
    pub(super) rate: Option<usize>,
}

/// Where sets go.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum To {
    /// All to this subject.
    Subject(String),
    /// Each below this subject, under the name of its first user.
    Users(String),
}

impl To {
    /// Of a set that begins with this reminder.
    fn subject(&self, load: &Load, first: usize) -> String {
        match self {
            Self::Subject(subject) => subject.clone(),
            Self::Users(subject) => format!("{subject}.{}", load.user_name(load.user_of(first))),
        }
    }
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// So many reminders are published.
    Progress(usize),
    /// All is stored.
    Done(Published),
}

/// What is stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Published {
    /// When it began, in microseconds since 1970.
    pub(super) began_us: u64,
    /// When the last one was acknowledged.
    pub(super) ended_us: u64,
    /// The number after the last one.
    pub(super) end: usize,
}

/// Bytes without acknowledgement, at the most: enough to keep nats-server busy, and no more than it lets in.
const WINDOW_BYTES: usize = 8 << 20;
/// The same in sets.
const WINDOW_SETS: usize = 4_000;

pub(super) async fn run(task: Task, mut conversation: Conversation) -> Result<(), BenchError> {
    let client = async_nats::ConnectOptions::new().name("bench publisher").connect(&task.url).await;
    let client = client.map_err(|error| BenchError::nats("connect the publisher", error))?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(30))
        .max_ack_inflight(10 * WINDOW_SETS)
        .build(client);
    while let Some(order) = conversation.next::<Order>().await? {
        if let Order::Publish(batch) = order {
            let began_us = now_us();
            let end = publish(&jetstream, &task.load, &batch, &mut conversation).await?;
            conversation.say(&Report::Done(Published { began_us, ended_us: now_us(), end })).await?;
        }
    }
    Ok(())
}

/// Sets without acknowledgement so far.
#[derive(Default)]
struct Window {
    acks: FuturesUnordered<BoxFuture<'static, Result<usize, String>>>,
    bytes: usize,
}

impl Window {
    fn has_room(&self) -> bool {
        self.acks.is_empty() || (self.bytes < WINDOW_BYTES && self.acks.len() < WINDOW_SETS)
    }

    fn add(&mut self, ack: PublishAckFuture, bytes: usize) {
        self.bytes += bytes;
        self.acks.push(Box::pin(async move { ack.await.map(|_| bytes).map_err(|error| error.to_string()) }));
    }

    /// Waits for an acknowledgement. Answers whether there was one to wait for.
    async fn acknowledged(&mut self) -> Result<bool, String> {
        let Some(ack) = self.acks.next().await else { return Ok(false) };
        self.bytes -= ack?;
        Ok(true)
    }
}

/// Publishes until all is stored, or it is told to stop. Answers the number after the last one.
async fn publish(
    jetstream: &jetstream::Context,
    load: &Load,
    batch: &Batch,
    conversation: &mut Conversation,
) -> Result<usize, BenchError> {
    let Batch { to, first, count, set_size, rate } = batch;
    let failed = |problem: String| BenchError::nats("publish", problem);
    let (began, began_us, mut told) = (Instant::now(), now_us(), Instant::now());
    let (mut at, mut window) = (*first, Window::default());
    while at < first + count {
        let due = rate.map(|rate| Duration::from_secs_f64((at - first) as f64 / rate as f64));
        if let Some(due) = due
            && is_stopped(due.saturating_sub(began.elapsed()), conversation).await?
        {
            break;
        }
        // At a fixed rate, when a set was due counts, whatever held it up.
        let at_us = due.map_or_else(now_us, |due| began_us + due.as_micros() as u64);
        let next = (at + set_size).min(first + count);
        let body = load.set(at, next - at, at_us);
        let bytes = body.len();
        let ack =
            jetstream.publish(to.subject(load, at), body.into()).await.map_err(|error| failed(error.to_string()))?;
        window.add(ack, bytes);
        while !window.has_room() {
            window.acknowledged().await.map_err(failed)?;
        }
        at = next;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            conversation.say(&Report::Progress(at - first)).await?;
        }
    }
    while window.acknowledged().await.map_err(failed)? {}
    Ok(at)
}

/// Waits for so long, and answers whether it was told to stop meanwhile.
async fn is_stopped(wait: Duration, conversation: &mut Conversation) -> Result<bool, BenchError> {
    let pause = async {
        // Even the shortest sleep takes a millisecond.
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

/// Microseconds since 1970: the clock that all processes of one machine share.
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
