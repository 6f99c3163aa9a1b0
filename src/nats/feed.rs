//! A stream's messages as the server pushes them, with the server's word on how far it has come.
//!
//! The server numbers what it pushes. While it has nothing to push, it says each second which
//! number came last. So a message that was pushed and did not arrive is noticed within about a
//! second, and so is a server that has fallen silent. No request is needed for that, which would
//! cost something all the time.

use std::time::Duration;

use async_nats::header::{NATS_LAST_CONSUMER, NATS_LAST_STREAM};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::{Cause, Nats, NatsError, chain, header};

/// Interval at which the server reports its progress.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// After so long without a word from the server, it is expected to say nothing more.
const SILENCE: Duration = Duration::from_secs(4);
/// Beginning of the subjects of the server's flow control, by which it does not push faster than
/// messages are read.
const FLOW_CONTROL: &str = "$JS.FC.";
const STALLED: &str = "Nats-Consumer-Stalled";

/// A message of the stream.
pub(super) struct Received {
    pub(super) message: Message,
    /// Its sequence.
    pub(super) sequence: u64,
    /// Time at which it was stored, in nanoseconds since 1970.
    pub(super) stored_ns: i128,
    /// Number of messages behind it.
    pub(super) pending: u64,
}

/// A stream's messages.
pub(super) struct Feed {
    nats: Nats,
    plain: Nats,
    stream: String,
    /// The consumer that pushes.
    consumer: String,
    inbox: Subject,
    messages: Subscriber,
    /// The number of the last message that arrived.
    arrived: u64,
    /// Time of the server's last message.
    heard: Instant,
}

impl Feed {
    /// Has the messages of `subjects` pushed to `nats`. That is asked over `plain`: what comes
    /// first can end the connection on which it comes, and the answer with it.
    ///
    /// # Errors
    /// When JetStream does not answer, or refuses it.
    pub(super) async fn begin(
        nats: Nats,
        plain: &Nats,
        stream: &str,
        subjects: String,
        deliver_policy: DeliverPolicy,
    ) -> Result<Self, NatsError> {
        let what = || format!("watch {stream}");
        let inbox = Subject::from(nats.client.new_inbox());
        let subscribed = nats.client.subscribe(inbox.clone()).await;
        let messages = subscribed.map_err(|error| NatsError::failed(what(), error))?;
        // Else the server may begin before it knows of the subscription, and ends a feed without a
        // receiver.
        nats.client
            .flush()
            .await
            .map_err(|error| NatsError::failed(what(), error))?;
        let config = push::Config {
            deliver_subject: inbox.to_string(),
            filter_subject: subjects,
            deliver_policy,
            ack_policy: AckPolicy::None,
            max_deliver: 1,
            flow_control: true,
            idle_heartbeat: HEARTBEAT,
            memory_storage: true,
            num_replicas: 1,
            ..push::Config::default()
        };
        let creating = plain.jetstream.create_consumer_on_stream(config, stream);
        let created = plain
            .if_permitted(&format!("CONSUMER.CREATE.{stream}"), what, creating)
            .await?;
        let created = created.map_err(|error| NatsError::failed(what(), error))?;
        Ok(Self {
            nats,
            plain: plain.clone(),
            stream: stream.to_owned(),
            consumer: created.cached_info().name.clone(),
            inbox,
            messages,
            arrived: 0,
            heard: Instant::now(),
        })
    }

    /// Returns the next message, or none when the server says that all it has to push has arrived.
    /// May be cancelled.
    ///
    /// # Errors
    /// When a message did not arrive, or the server is silent. Nothing more comes then.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, NatsError> {
        loop {
            let Ok(message) =
                tokio::time::timeout_at(self.heard + SILENCE, self.messages.next()).await
            else {
                return Err(self.broken(format!("no word from the server for {SILENCE:?}")));
            };
            let message = message.ok_or_else(|| self.broken("the subscription ended"))?;
            self.heard = Instant::now();
            // A message has the subject under which it was stored, whatever its writer put into its
            // headers.
            if message.subject != self.inbox {
                return self.received(message).map(Some);
            }
            let said = |name: &str| header(message.headers.as_ref(), name);
            for asked in [message.reply.as_deref(), said(STALLED)]
                .into_iter()
                .flatten()
            {
                if asked.starts_with(FLOW_CONTROL) {
                    let answered = self
                        .nats
                        .client
                        .publish(asked.to_owned(), Bytes::new())
                        .await;
                    answered.map_err(|error| self.broken(error))?;
                }
            }
            match said(NATS_LAST_CONSUMER.as_ref()).and_then(|number| number.parse::<u64>().ok()) {
                Some(number) if number != self.arrived => {
                    let (arrived, through) =
                        (self.arrived, said(NATS_LAST_STREAM.as_ref()).unwrap_or("?"));
                    return Err(self.broken(format!(
                        "{number} messages were pushed, through sequence {through}, and {arrived} arrived"
                    )));
                }
                Some(_) if said(STALLED).is_none() => return Ok(None),
                _ => {}
            }
        }
    }

    fn received(&mut self, message: Message) -> Result<Received, NatsError> {
        let message = jetstream::Message {
            message,
            context: self.nats.jetstream.clone(),
        };
        let info = message.info().map_err(|error| self.broken(error))?;
        let (number, sequence, pending) =
            (info.consumer_sequence, info.stream_sequence, info.pending);
        let stored_ns = info.published.unix_timestamp_nanos();
        if number != self.arrived + 1 {
            return Err(self.broken(format!("behind message {} came {number}", self.arrived)));
        }
        self.arrived = number;
        Ok(Received {
            message: message.message,
            sequence,
            stored_ns,
            pending,
        })
    }

    fn broken(&self, cause: impl Into<Cause>) -> NatsError {
        NatsError::failed(format!("watch {}", self.stream), cause)
    }
}

impl Drop for Feed {
    /// Removes the consumer. The server would do so after some seconds, and counts it against the
    /// stream's limit until then, which adds up while a watch begins again and again.
    fn drop(&mut self) {
        let (plain, stream) = (self.plain.clone(), std::mem::take(&mut self.stream));
        let consumer = std::mem::take(&mut self.consumer);
        // Without a runtime the process is about to end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let removed = plain.jetstream.delete_consumer_from_stream(&consumer, &stream);
                if let Err(error) = removed.await {
                    tracing::debug!(error = %chain(&error), stream, "a watch's consumer is left to the server");
                }
            });
        }
    }
}
