//! Reads a stream from some point to its present end.

use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use futures_util::StreamExt;

use super::{During, Nats, NatsError};

/// Messages and bytes pulled at a time.
const AT_A_TIME: usize = 5_000;
const BYTES_AT_A_TIME: usize = 16 << 20;

/// The sequence of a stream's last message, by its leader's word; 0 if it is empty.
///
/// # Errors
/// When JetStream does not answer.
pub async fn last_sequence(nats: &Nats, stream: &str) -> Result<u64, NatsError> {
    let info = nats.jetstream.get_stream(stream).await;
    let info = info.during_with(|| format!("look at {stream}"))?;
    let state = &info.cached_info().state;
    Ok(if state.messages > 0 {
        state.last_sequence
    } else {
        0
    })
}

/// Passes every message that the stream has to `each`, in order, with its sequence and when it was
/// stored, in milliseconds since 1970. `config` says from where on, of which subjects, and whether
/// headers are enough; the rest is set here.
///
/// In a cluster any server may do the reading, also one that lags behind. So it goes on at least
/// until it has passed `through`, the sequence of a message of these subjects that is known to be
/// stored; 0 for as far as that server knows.
///
/// # Errors
/// When the stream could not be read to its end.
pub async fn replay(
    nats: &Nats,
    stream: &str,
    config: pull::Config,
    through: u64,
    mut each: impl FnMut(&Message, u64, i64),
) -> Result<(), NatsError> {
    let action = || format!("read {stream}");
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(30),
        memory_storage: true,
        num_replicas: 1,
        ..config
    };
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    let consumer: PullConsumer = handle.create_consumer(config).await.during_with(action)?;
    let (mut seen, mut reached) = (0, 0);
    let mut left = consumer.cached_info().num_pending;
    let pull = consumer
        .stream()
        .max_messages_per_batch(nats.pull_limit.at_most(AT_A_TIME))
        .max_bytes_per_batch(BYTES_AT_A_TIME);
    let mut messages = pull.messages().await.during_with(action)?;
    while left > 0 || reached < through {
        let Ok(message) = tokio::time::timeout(nats.timeout, messages.next()).await else {
            // The end that was there may have been removed meanwhile. But what the server has sent
            // must have arrived.
            let info = consumer.get_info().await.during_with(action)?;
            if info.num_pending > 0 || info.delivered.consumer_sequence != seen || reached < through
            {
                return Err(NatsError::failed(action(), "no messages come"));
            }
            break;
        };
        let message = match message.ok_or("it ended").during_with(action)? {
            // The first pull was refused, so nothing has been read.
            Err(error) if nats.pull_limit.learn(&error) && seen == 0 => {
                let pull = consumer
                    .stream()
                    .max_messages_per_batch(nats.pull_limit.at_most(AT_A_TIME))
                    .max_bytes_per_batch(BYTES_AT_A_TIME);
                messages = pull.messages().await.during_with(action)?;
                continue;
            }
            message => message.during_with(action)?,
        };
        let info = message.info().during_with(action)?;
        left = info.pending;
        reached = info.stream_sequence;
        seen += 1;
        let stored_ms =
            i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        each(&message.message, info.stream_sequence, stored_ms);
    }
    drop(messages);
    let _ = handle.delete_consumer(&consumer.cached_info().name).await; // It ends by itself soon, too.
    Ok(())
}
