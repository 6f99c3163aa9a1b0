//! The log of published sets: its state, reading it in order, and removing its front.
//!
//! A reader is an ephemeral consumer without acknowledgements. JetStream counts what it hands out,
//! so a message that is missing shows, either by the next one's number or by the consumer's own
//! word. Then the reader ends with an error, and a new one begins behind the last message that
//! came.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, PullConsumer, pull};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Interval, MissedTickBehavior};

use super::pinned::{Received, received};
use super::{During, Nats, NatsError, chain, raw};
use crate::log::position::{LogState, Mark, OutcomesState, may_remove};

/// Time for which a pull request waits at the server.
const PULL_EXPIRES: Duration = Duration::from_secs(1);
/// Messages pulled at a time.
const AT_A_TIME: usize = 1_000;
/// Bytes pulled ahead: enough to be busy while the next ones come.
const PULL_BYTES: usize = 4 << 20;
/// After this nats-server forgets a consumer that is not read any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Interval at which a reader checks whether its connection was made again: then it asks for missed
/// messages.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// It also asks each time that it has looked so often, since a message can get lost while its
/// connection holds.
const LOOKS: u32 = 4;
/// Places below the front at which a message is looked for, where the one at the front was removed
/// alone.
const MOST_LOOKED_AT: u64 = 16;

/// Returns the state of the log, with the time of the set at this sequence.
///
/// # Errors
/// When JetStream does not answer.
pub async fn state(nats: &Nats, at: u64) -> Result<LogState, NatsError> {
    let stream = nats.jetstream.get_stream(nats.names.log_stream()).await;
    let stream = stream.map_err(|error| NatsError::failed("look at the log of sets", error))?;
    let (info, state) = (stream.cached_info(), &stream.cached_info().state);
    let created_ns = i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    let last = state.last_sequence;
    let first = if state.messages == 0 {
        last + 1
    } else {
        state.first_sequence
    };
    let is_there = (first..=last).contains(&at);
    let stored_ms_at = if is_there {
        stored_ms(nats, &nats.names.log_stream(), &nats.names.all_sets(), at).await?
    } else {
        None
    };
    Ok(LogState {
        created_ns,
        first,
        last,
        stored_ms_at,
    })
}

/// Returns the state of the stream of outcomes, with the time of the message at this sequence.
///
/// # Errors
/// When JetStream does not answer.
pub async fn outcomes_state(nats: &Nats, at: u64) -> Result<OutcomesState, NatsError> {
    let stream = nats
        .jetstream
        .get_stream(nats.names.outcomes_stream())
        .await;
    let stream = stream.map_err(|error| NatsError::failed("look at the outcomes", error))?;
    let state = &stream.cached_info().state;
    let is_there = state.messages > 0 && (state.first_sequence..=state.last_sequence).contains(&at);
    let (name, subjects) = (nats.names.outcomes_stream(), nats.names.all_outcomes());
    let stored_ms_at = if is_there {
        stored_ms(nats, &name, &subjects, at).await?
    } else {
        None
    };
    Ok(OutcomesState {
        last: state.last_sequence,
        stored_ms_at,
    })
}

/// Ends what an incarnation of a member may record: what of it is not stored yet is refused from
/// here on.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn fence_outcomes(nats: &Nats, incarnation: &str) -> Result<(), NatsError> {
    let subject = nats.names.outcomes_fence(incarnation);
    // A reader of the stream finds a message without outcomes.
    let nothing = Bytes::from_static(br#"{"outcomes":[]}"#);
    let stored = nats.store(subject, HeaderMap::new(), nothing);
    stored.await.map(drop)
}

/// Returns the time at which the message at exactly this sequence was stored, in milliseconds since
/// 1970; none if there is none.
async fn stored_ms(
    nats: &Nats,
    stream: &str,
    subjects: &str,
    at: u64,
) -> Result<Option<i64>, NatsError> {
    let found = raw::next(nats, stream, subjects, at).await?;
    Ok(found
        .filter(|found| found.sequence == at)
        .map(|found| found.stored_at.as_millisecond()))
}

/// Removes the front of the log up to a mark that every position covers, unless other sets have its
/// sequences by now.
///
/// # Errors
/// When JetStream does not answer. It may be repeated.
pub async fn remove_front(nats: &Nats, created_ns: i64, front: Mark) -> Result<(), NatsError> {
    let found = state(nats, front.sequence).await?;
    if found.created_ns != created_ns || found.first > front.sequence || found.last < front.sequence
    {
        return Ok(());
    }
    let Some(stored_ms) = newest_up_to(nats, front.sequence, &found).await? else {
        return Ok(());
    };
    if !may_remove(front, stored_ms) {
        return Ok(());
    }
    let stream = nats
        .jetstream
        .get_stream_no_info(nats.names.log_stream())
        .await
        .during("remove the front of the log")?;
    stream
        .purge()
        .sequence(front.sequence + 1)
        .await
        .map(drop)
        .during("remove the front of the log")
}

/// Returns the time at which the last set at or before the sequence was stored. Single sets may be
/// gone: those that could not be read.
async fn newest_up_to(
    nats: &Nats,
    sequence: u64,
    state: &LogState,
) -> Result<Option<i64>, NatsError> {
    if state.stored_ms_at.is_some() {
        return Ok(state.stored_ms_at);
    }
    let (stream, subjects) = (nats.names.log_stream(), nats.names.all_sets());
    for at in (state.first..sequence)
        .rev()
        .take(usize::try_from(MOST_LOOKED_AT).unwrap_or(1))
    {
        let found = stored_ms(nats, &stream, &subjects, at).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A reader of the log.
pub struct Tail {
    /// The connection over which sets come.
    nats: Nats,
    /// The connection to ask over: one that no stranger's message breaks.
    plain: Nats,
    consumer: PullConsumer,
    messages: pull::Stream,
    /// Number of received messages.
    received: u64,
    tick: Interval,
    /// Number of checks before it asks.
    looks: u32,
    /// Number of the client's connections at the last check.
    connects: u64,
    /// Number of messages that the consumer had delivered when it was last asked.
    handed_out: u64,
    /// The number delivered at the last check, if more waited without a pull.
    stalled_at: Option<u64>,
}

impl Tail {
    /// Begins behind a sequence. With `is_alone` messages come one at a time, so that one that ends
    /// the connection is known.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn open(
        nats: Nats,
        plain: Nats,
        after: u64,
        is_alone: bool,
    ) -> Result<Self, NatsError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after + 1,
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let stream = nats
            .jetstream
            .get_stream_no_info(nats.names.log_stream())
            .await;
        let stream = stream.during("read the log of sets")?;
        let consumer: PullConsumer = stream
            .create_consumer(config)
            .await
            .during("read the log of sets")?;
        let pull = consumer
            .stream()
            .expires(PULL_EXPIRES)
            .heartbeat(PULL_EXPIRES / 2);
        let bytes = PULL_BYTES.max(2 * nats.client.max_payload());
        let pull = pull
            .max_messages_per_batch(
                nats.pull_limit
                    .at_most(if is_alone { 1 } else { AT_A_TIME }),
            )
            .max_bytes_per_batch(bytes);
        let messages = pull.messages().await.during("read the log of sets")?;
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let connects = nats.client.statistics().connects.load(Ordering::Relaxed);
        Ok(Self {
            nats,
            plain,
            consumer,
            messages,
            received: 0,
            tick,
            looks: LOOKS,
            connects,
            handed_out: 0,
            stalled_at: None,
        })
    }

    /// Returns the next set. May be cancelled.
    ///
    /// # Errors
    /// When a set is missing, or the consumer is gone: begin again behind the last one that came.
    pub async fn next(&mut self) -> Result<Received, NatsError> {
        loop {
            let next = tokio::select! {
                biased;
                next = self.messages.next() => next,
                _ = self.tick.tick() => {
                    self.look().await?;
                    continue;
                }
            };
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) if error.kind() == pull::MessagesErrorKind::MissingHeartbeat => {
                    // The client mostly pulls again by itself. If it does not, or the consumer is
                    // gone, `look` finds that out.
                    tracing::debug!(error = %chain(&error), "no word from the server");
                    self.looks = 1;
                    continue;
                }
                Some(Err(error)) => {
                    self.nats.pull_limit.learn(&error);
                    return Err(NatsError::failed("read the log of sets", error));
                }
                None => {
                    return Err(NatsError::failed(
                        "read the log of sets",
                        "the messages ended",
                    ));
                }
            };
            let (set, number) = received(message).during("read the log of sets")?;
            if number != self.received + 1 {
                return Err(NatsError::failed(
                    "read the log of sets",
                    format!("after message {} came {number}", self.received),
                ));
            }
            self.received = number;
            return Ok(set);
        }
    }

    /// Asks from time to time whether something was handed out that did not come.
    async fn look(&mut self) -> Result<(), NatsError> {
        let connects = self
            .nats
            .client
            .statistics()
            .connects
            .load(Ordering::Relaxed);
        self.looks = self.looks.saturating_sub(1);
        if self.looks > 0 && self.connects == connects {
            return Ok(());
        }
        let info = self.info().await?;
        let handed_out = info.delivered.consumer_sequence;
        // Messages that had been delivered when it last asked have had the time since then to
        // arrive.
        if self.handed_out > self.received {
            let problem = format!("message {} did not come", self.received + 1);
            return Err(NatsError::failed("read the log of sets", problem));
        }
        // The client may have taken a pull for pending that the server had ended, as after a pause
        // of this process.
        let is_stalled = info.num_pending > 0 && info.num_waiting == 0;
        if is_stalled && self.stalled_at == Some(self.received) {
            return Err(NatsError::failed(
                "read the log of sets",
                "sets wait, and the client does not ask for them",
            ));
        }
        self.stalled_at = is_stalled.then_some(self.received);
        // After a new connection it asks again at the next look.
        self.looks = if self.connects == connects && !is_stalled {
            LOOKS
        } else {
            1
        };
        (self.connects, self.handed_out) = (connects, handed_out);
        Ok(())
    }

    /// Returns the sequence up to which sets were handed out.
    ///
    /// # Errors
    /// When JetStream does not answer, or has forgotten the consumer.
    pub async fn handed_out(&self) -> Result<u64, NatsError> {
        Ok(self.info().await?.delivered.stream_sequence)
    }

    async fn info(&self) -> Result<Info, NatsError> {
        let stream = self
            .plain
            .jetstream
            .get_stream_no_info(self.plain.names.log_stream())
            .await;
        let stream = stream.during("look at the reader of the log")?;
        stream
            .consumer_info(&self.consumer.cached_info().name)
            .await
            .during("look at the reader of the log")
    }

    /// Ends the reader at the server, too.
    pub async fn close(self) {
        let Self {
            plain,
            consumer,
            messages,
            ..
        } = self;
        drop(messages);
        // If that fails, the server forgets it soon.
        if let Ok(stream) = plain
            .jetstream
            .get_stream_no_info(plain.names.log_stream())
            .await
        {
            let _ = stream.delete_consumer(&consumer.cached_info().name).await;
        }
    }
}
