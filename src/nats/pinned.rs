//! Reading a pinned consumer: one client at a time gets its messages, and a new one starts where
//! the last stopped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{Info, PullConsumer, pull};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Interval, MissedTickBehavior};

use super::topology::GROUP;
use super::{Cause, During, Nats, NatsError, chain};

/// Time for which a pull request waits at the server. Well below `dispatch.pin_timeout`, since each
/// one renews the pin.
const PULL_EXPIRES: Duration = Duration::from_secs(1);

/// Interval at which a watchful reader checks whether its connection was made again: then it asks
/// for missed messages.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// It also asks each time that it has looked so often, since a message can get lost while its
/// connection holds.
const LOOKS: u32 = 4;

/// A consumer that this client is, or wants to be, pinned to.
pub struct Pinned {
    nats: Nats,
    stream: String,
    consumer: String,
    max_bytes: usize,
    messages: pull::Stream,
    /// Number of deliveries by the consumer, according to the last message of this client.
    handed_out: u64,
    /// The sequence of the last message that arrived, or that before the first one.
    position: u64,
    watch: Option<Watch>,
}

/// Looks for messages that were handed out and did not arrive: without another one behind them, no
/// number is missing.
struct Watch {
    /// The connection to ask over: one that such a message does not break.
    plain: Nats,
    tick: Interval,
    /// Number of checks before it asks.
    looks: u32,
    /// Number of the client's connections at the last check.
    connects: u64,
    /// Number of deliveries by the consumer when it was last asked.
    handed_out: u64,
    /// Messages are pulled one at a time up to the one with this sequence.
    alone: Option<u64>,
}

/// A message with what its acknowledgement needs.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Time at which JetStream stored it, in nanoseconds since 1970.
    pub stored_ns: i128,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Option<async_nats::HeaderMap>,
    /// Its body.
    pub payload: Bytes,
    /// The subject for its acknowledgement.
    pub reply: async_nats::Subject,
}

impl Received {
    /// Returns the time at which JetStream stored it, in milliseconds since 1970.
    pub fn stored_ms(&self) -> i64 {
        i64::try_from(self.stored_ns / 1_000_000).unwrap_or(i64::MAX)
    }

    /// A header of it, however its name is written.
    pub fn header(&self, name: &str) -> Option<&str> {
        super::header(self.headers.as_ref(), name)
    }
}

/// Returns the sequence up to which messages were handed out.
///
/// # Errors
/// When the consumer does not exist or JetStream does not answer.
pub async fn handed_out_through(
    nats: &Nats,
    stream: &str,
    consumer: &str,
) -> Result<u64, NatsError> {
    Ok(info(nats, stream, consumer)
        .await?
        .delivered
        .stream_sequence)
}

/// The backlog of a consumer.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Messages not handed out yet.
    pub pending: u64,
    /// Messages handed out and not acknowledged.
    pub ack_pending: usize,
    /// The most of these; then no more are handed out.
    pub ack_pending_limit: i64,
}

/// Returns the backlog of a consumer, according to the leader.
///
/// # Errors
/// When the consumer does not exist or JetStream does not answer.
pub async fn waiting(nats: &Nats, stream: &str, consumer: &str) -> Result<Waiting, NatsError> {
    let info = info(nats, stream, consumer).await?;
    let limit = info.config.max_ack_pending;
    Ok(Waiting {
        pending: info.num_pending,
        ack_pending: info.num_ack_pending,
        ack_pending_limit: limit,
    })
}

async fn info(nats: &Nats, stream: &str, consumer: &str) -> Result<Info, NatsError> {
    let action = || format!("look at consumer {consumer}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    handle.consumer_info(consumer).await.during_with(action)
}

impl Pinned {
    /// Takes the consumer over: whatever its last client left unacknowledged comes first, in order.
    ///
    /// Without the reset, messages that the last client had received would come only after
    /// `ack_wait`, behind newer ones. Without the unpin, a client that died would keep the consumer
    /// until its pin runs out.
    ///
    /// # Errors
    /// When the consumer does not exist or JetStream does not answer.
    pub async fn take_over(
        nats: &Nats,
        stream: String,
        consumer: String,
        max_bytes: usize,
    ) -> Result<Self, NatsError> {
        Self::reset(nats, stream, consumer, max_bytes, None).await
    }

    /// Takes a consumer over whose messages strangers wrote, so that one may be handed out and
    /// never arrive: that is noticed within a few seconds. The message with the sequence `alone` is
    /// handed out without any behind it. Messages come over `nats`; everything else is asked over
    /// `plain`.
    ///
    /// # Errors
    /// When the consumer does not exist or JetStream does not answer.
    pub async fn take_over_watchfully(
        nats: &Nats,
        plain: &Nats,
        stream: String,
        consumer: String,
        max_bytes: usize,
        alone: Option<u64>,
    ) -> Result<Self, NatsError> {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let connects = nats.client.statistics().connects.load(Ordering::Relaxed);
        let watch = Watch {
            plain: plain.clone(),
            tick,
            looks: LOOKS,
            connects,
            handed_out: 0,
            alone,
        };
        Self::reset(nats, stream, consumer, max_bytes, Some(watch)).await
    }

    async fn reset(
        nats: &Nats,
        stream: String,
        consumer: String,
        max_bytes: usize,
        watch: Option<Watch>,
    ) -> Result<Self, NatsError> {
        let during = |what: &str| format!("{what} consumer {consumer} of {stream}");
        let handle = nats
            .jetstream
            .get_stream_no_info(&stream)
            .await
            .during_with(|| during("open"))?;
        handle
            .unpin_consumer(&consumer, GROUP)
            .await
            .during_with(|| during("unpin"))?;
        let reset = handle
            .reset_consumer(&consumer, None)
            .await
            .during_with(|| during("reset"))?;
        // Another client may have been handed the first messages already: that does not move the
        // floor.
        let floor = reset.info.ack_floor;
        let most = if watch.as_ref().is_some_and(|watch| watch.alone.is_some()) {
            1
        } else {
            AT_A_TIME
        };
        let messages = pull(nats, &stream, &consumer, most, max_bytes).await?;
        let (nats, handed_out, position) =
            (nats.clone(), floor.consumer_sequence, floor.stream_sequence);
        Ok(Self {
            nats,
            stream,
            consumer,
            max_bytes,
            messages,
            handed_out,
            position,
            watch,
        })
    }

    /// The next message.
    ///
    /// JetStream counts what it hands out. A message that was counted and did not arrive, as when
    /// the consumer's leader changes, would come again only after `ack_wait`, behind newer ones.
    ///
    /// # Errors
    /// When the consumer is gone, the connection broke for long, or a message did not arrive; take
    /// it over again.
    pub async fn next(&mut self) -> Result<Received, NatsError> {
        self.widen().await?;
        let action = || format!("pull from consumer {} of {}", self.consumer, self.stream);
        loop {
            let next = tokio::select! {
                biased;
                next = self.messages.next() => next,
                watch = tick(&mut self.watch) => {
                    let connects = self.nats.client.statistics().connects.load(Ordering::Relaxed);
                    watch.looks = watch.looks.saturating_sub(1);
                    if watch.looks > 0 && watch.connects == connects {
                        continue;
                    }
                    let info = info(&watch.plain, &self.stream, &self.consumer).await?;
                    // Messages that had been delivered when it last asked have had the time since
                    // then to arrive.
                    if watch.handed_out > self.handed_out {
                        let problem = format!("hand-out {} did not arrive", self.handed_out + 1);
                        return Err(NatsError::failed(action(), problem));
                    }
                    // After a new connection it asks again at the next look.
                    watch.looks = if watch.connects == connects { LOOKS } else { 1 };
                    (watch.connects, watch.handed_out) = (connects, info.delivered.consumer_sequence);
                    continue;
                }
            };
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) if error.kind() == pull::MessagesErrorKind::MissingHeartbeat => {
                    // The client pulls again by itself after a reconnect.
                    tracing::debug!(error = %chain(&error), consumer = self.consumer, "no word from the server");
                    continue;
                }
                Some(Err(error)) => {
                    self.nats.pull_limit.learn(&error);
                    return Err(NatsError::failed(action(), error));
                }
                None => return Err(NatsError::failed(action(), "the messages ended")),
            };
            let (received, handed_out) = received(message).during_with(action)?;
            if handed_out != self.handed_out + 1 {
                let problem = format!("after hand-out {} came {handed_out}", self.handed_out);
                return Err(NatsError::failed(action(), problem));
            }
            (self.handed_out, self.position) = (handed_out, received.sequence);
            return Ok(received);
        }
    }

    /// Pulls many at a time again, once the message has arrived that was to be handed out alone.
    /// The pull for that one is fulfilled then, and the next one is not sent before it is asked
    /// for, so no message can be on its way.
    async fn widen(&mut self) -> Result<(), NatsError> {
        let alone = self.watch.as_ref().and_then(|watch| watch.alone);
        if alone.is_none_or(|alone| self.position < alone) {
            return Ok(());
        }
        let action = || format!("unpin {}", self.consumer);
        let handle = self
            .nats
            .jetstream
            .get_stream_no_info(&self.stream)
            .await
            .during_with(action)?;
        handle
            .unpin_consumer(&self.consumer, GROUP)
            .await
            .during_with(action)?;
        self.messages = pull(
            &self.nats,
            &self.stream,
            &self.consumer,
            AT_A_TIME,
            self.max_bytes,
        )
        .await?;
        self.watch.iter_mut().for_each(|watch| watch.alone = None);
        Ok(())
    }

    /// Returns the sequence of the last message that arrived, or that before the first one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Stops reading and lets another client be pinned at once. Received and unacknowledged
    /// messages are then the other client's.
    ///
    /// # Errors
    /// When JetStream does not answer; the pin runs out by itself then.
    pub async fn release(self) -> Result<(), NatsError> {
        let Self {
            nats,
            stream,
            consumer,
            messages,
            ..
        } = self;
        drop(messages);
        let action = || format!("unpin {consumer}");
        let handle = nats
            .jetstream
            .get_stream_no_info(&stream)
            .await
            .during_with(action)?;
        handle
            .unpin_consumer(&consumer, GROUP)
            .await
            .during_with(action)
    }
}

/// Messages pulled at a time.
const AT_A_TIME: usize = 1_000;

async fn pull(
    nats: &Nats,
    stream: &str,
    consumer: &str,
    messages: usize,
    bytes: usize,
) -> Result<pull::Stream, NatsError> {
    let action = || format!("pull from consumer {consumer} of {stream}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    let pull: PullConsumer = handle.get_consumer(consumer).await.during_with(action)?;
    let stream = pull
        .stream()
        .group(GROUP)
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_EXPIRES / 2);
    let stream = stream
        .max_messages_per_batch(nats.pull_limit.at_most(messages))
        .max_bytes_per_batch(bytes)
        .messages()
        .await;
    stream.during_with(action)
}

async fn tick(watch: &mut Option<Watch>) -> &mut Watch {
    match watch {
        Some(watch) => {
            watch.tick.tick().await;
            watch
        }
        None => std::future::pending().await,
    }
}

/// The message, and how often its consumer had handed out one, with this one.
pub(super) fn received(message: Message) -> Result<(Received, u64), Cause> {
    let info = message.info()?;
    let (sequence, stored_ns) = (info.stream_sequence, info.published.unix_timestamp_nanos());
    let handed_out = info.consumer_sequence;
    let message = message.message;
    let received = Received {
        sequence,
        stored_ns,
        subject: message.subject.to_string(),
        headers: message.headers,
        payload: message.payload,
        reply: message.reply.ok_or("it has no reply subject")?,
    };
    Ok((received, handed_out))
}

/// Acknowledges a message, and waits until the server knows it.
///
/// # Errors
/// When it may not know: the message may come again then.
pub async fn acknowledge(nats: &Nats, reply: async_nats::Subject) -> Result<(), NatsError> {
    let answer = nats
        .client
        .request(reply, Bytes::from_static(b"+ACK"))
        .await;
    answer.map(drop).during("acknowledge")
}
