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
use super::task::Conversation;

/// Where it publishes what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The nats-server.
    pub(super) url: String,
    /// The reminders.
    pub(super) load: Load,
}

/// Publishes the reminders `first` to `first + count`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Where.
    pub(super) subject: String,
    /// The first number.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// Reminders in a set.
    pub(super) set_size: usize,
    /// Reminders a second; none for as fast as it goes.
    pub(super) rate: Option<usize>,
}

/// All is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Published {
    /// When it began, in microseconds since 1970.
    pub(super) began_us: u64,
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
        let began_us = now_us();
        publish(&jetstream, &task.load, &order).await?;
        conversation.say(&Published { began_us }).await?;
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

async fn publish(jetstream: &jetstream::Context, load: &Load, order: &Order) -> Result<(), BenchError> {
    let Order { subject, first, count, set_size, rate } = order;
    let failed = |problem: String| BenchError::nats(format!("publish to {subject}"), problem);
    let (began, began_us, end) = (Instant::now(), now_us(), first + count);
    let mut window = Window::default();
    for at in (*first..end).step_by(*set_size) {
        let due = rate.map(|rate| Duration::from_secs_f64((at - first) as f64 / rate as f64));
        if let Some(ahead) = due.and_then(|due| due.checked_sub(began.elapsed())) {
            tokio::time::sleep(ahead).await;
        }
        // At a fixed rate, when a set was due counts, whatever held it up.
        let at_us = due.map_or_else(now_us, |due| began_us + due.as_micros() as u64);
        let body = load.set(at, (*set_size).min(end - at), at_us);
        let bytes = body.len();
        let ack = jetstream.publish(subject.clone(), body.into()).await.map_err(|error| failed(error.to_string()))?;
        window.add(ack, bytes);
        while !window.has_room() {
            window.acknowledged().await.map_err(failed)?;
        }
    }
    while window.acknowledged().await.map_err(failed)? {}
    Ok(())
}

/// Microseconds since 1970: the clock that all processes of one machine share.
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
