//! Reads what lies in mailboxes in the order in which it was parked, each message of one priority
//! when it is old enough.
//!
//! A durable consumer for each priority remembers how far that has come. It passes by the messages
//! of other priorities: within one, the first parked is old enough first, so waiting for it delays
//! no other. A received message that is too young is not held: after the wait the consumer is reset
//! to what was acknowledged, and gives it again if it is still there.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Batch;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::mailbox::priority_of;
use super::{During, Nats, NatsError};
use crate::reminder::Priority;

/// Maximum time for which a pull waits, and maximum number of its messages.
const PULL: (Duration, usize) = (Duration::from_secs(30), 500);

/// The mailboxes' messages of one priority.
pub struct Aging {
    nats: Nats,
    priority: Priority,
    after: Duration,
    consumer: PullConsumer,
    pull: Option<Batch>,
    /// Number of messages that the consumer has delivered, according to the last one.
    given: u64,
    /// The last message that nothing is to be done for any more.
    done: Option<async_nats::jetstream::Message>,
}

/// A message that is old enough and was still in its mailbox a moment ago.
pub struct Aged {
    /// Its sequence in the stream of mailboxes.
    pub sequence: u64,
    /// An event with one reminder.
    pub message: Bytes,
    received: async_nats::jetstream::Message,
}

impl Aging {
    /// Reads on where the last reader stopped.
    ///
    /// # Errors
    /// When the consumer does not exist or JetStream does not answer.
    pub async fn take_over(
        nats: &Nats,
        priority: Priority,
        after: Duration,
    ) -> Result<Self, NatsError> {
        let stream = nats
            .jetstream
            .get_stream_no_info(nats.names.parked_stream())
            .await;
        let stream = stream.during("open what waits for its escalation")?;
        let consumer = stream
            .get_consumer(&nats.names.escalate_consumer(priority))
            .await;
        let consumer = consumer.during("open what waits for its escalation")?;
        let mut aging = Self {
            nats: nats.clone(),
            priority,
            after,
            consumer,
            pull: None,
            given: 0,
            done: None,
        };
        aging.begin_again().await?;
        Ok(aging)
    }

    /// The next message that has been in its mailbox for long enough.
    ///
    /// # Errors
    /// When JetStream does not answer; take it over again.
    pub async fn next(&mut self) -> Result<Aged, NatsError> {
        loop {
            let Some(message) = self.receive().await? else {
                continue;
            };
            let info = message
                .info()
                .during("read what waits for its escalation")?;
            let (sequence, stored_ns) =
                (info.stream_sequence, info.published.unix_timestamp_nanos());
            if info.consumer_sequence > self.given + 1 {
                // One was lost with a connection, and to acknowledge this one would pass it by.
                self.acknowledge().await?;
                self.begin_again().await?;
                continue;
            }
            self.given = info.consumer_sequence;
            if priority_of(&message.message) != Some(self.priority) {
                self.done = Some(message);
                continue;
            }
            let wait = self.too_young(stored_ns);
            if !wait.is_zero() {
                self.acknowledge().await?;
                tokio::time::sleep(wait).await;
                self.begin_again().await?;
                continue;
            }
            match self.read(sequence).await? {
                Some(body) => {
                    return Ok(Aged {
                        sequence,
                        message: body,
                        received: message,
                    });
                }
                None => self.done = Some(message),
            }
        }
    }

    /// Acknowledges a message whose work is durable.
    ///
    /// # Errors
    /// When JetStream does not confirm it: the message may come again.
    pub async fn finish(&mut self, aged: Aged) -> Result<(), NatsError> {
        self.done = Some(aged.received);
        self.acknowledge().await
    }

    /// The next message of any priority; none when it is time to ask again.
    async fn receive(&mut self) -> Result<Option<async_nats::jetstream::Message>, NatsError> {
        let pull = match &mut self.pull {
            Some(pull) => pull,
            None => {
                let (expires, most) = PULL;
                let pull = self
                    .consumer
                    .fetch()
                    .max_messages(most)
                    .expires(expires)
                    .messages()
                    .await;
                self.pull
                    .insert(pull.during("pull what waits for its escalation")?)
            }
        };
        match pull.next().await {
            Some(message) => message
                .map(Some)
                .during("pull what waits for its escalation"),
            None => {
                self.pull = None;
                self.acknowledge().await?;
                Ok(None)
            }
        }
    }

    fn too_young(&self, stored_ns: i128) -> Duration {
        #[allow(clippy::disallowed_methods)]
        // JetStream says when it stored a message, by the wall clock.
        let age = u64::try_from(Timestamp::now().as_nanosecond() - stored_ns).unwrap_or(0);
        self.after.saturating_sub(Duration::from_nanos(age))
    }

    /// The message by the leader's word, if it is still there.
    async fn read(&self, sequence: u64) -> Result<Option<Bytes>, NatsError> {
        let stream = self
            .nats
            .jetstream
            .get_stream_no_info(self.nats.names.parked_stream())
            .await;
        let stream = stream.during("read what waits for its escalation")?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(NatsError::failed(
                "read what waits for its escalation",
                error,
            )),
        }
    }

    /// Everything up to the last message that is done with is acknowledged.
    async fn acknowledge(&mut self) -> Result<(), NatsError> {
        match self.done.take() {
            Some(message) => message
                .double_ack()
                .await
                .during("acknowledge what waits for its escalation"),
            None => Ok(()),
        }
    }

    async fn begin_again(&mut self) -> Result<(), NatsError> {
        self.pull = None;
        let stream = self
            .nats
            .jetstream
            .get_stream_no_info(self.nats.names.parked_stream())
            .await;
        let stream = stream.during("reset what waits for its escalation")?;
        let reset = stream
            .reset_consumer(&self.nats.names.escalate_consumer(self.priority), None)
            .await;
        self.given = reset
            .during("reset what waits for its escalation")?
            .info
            .delivered
            .consumer_sequence;
        Ok(())
    }
}
