//! Reads what a stream or a bucket holds now, message by message.

use async_nats::Message;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::CliError;
use super::output::{Progress, plural};
use crate::nats::replay::replay;
use crate::nats::{During, Nats};

/// A message as a stream holds it.
pub(super) struct Stored<'a> {
    /// Its sequence; in a bucket, the revision.
    pub(super) sequence: u64,
    /// Time at which it was stored.
    pub(super) at: Timestamp,
    /// The message.
    pub(super) message: &'a Message,
}

impl Stored<'_> {
    pub(super) fn header(&self, name: &'static str) -> Option<&str> {
        self.message
            .headers
            .as_ref()?
            .get(name)
            .map(|value| value.as_str())
    }
}

/// Passes every message of the stream to `each`, oldest first. `config` says from where on, of
/// which subjects, and whether headers are enough. The first error ends it.
pub(super) async fn scan(
    nats: &Nats,
    stream: &str,
    config: pull::Config,
    mut each: impl FnMut(Stored<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let (mut result, mut progress, mut count) = (Ok(()), Progress::new(), 0);
    let end = CancellationToken::new();
    let reading = replay(nats, stream, config, 0, |message, sequence, _| {
        if result.is_ok() {
            count += 1;
            progress.tell(|| format!("{} read", plural(count, "message")));
            result = stored_at(nats, message).and_then(|at| {
                each(Stored {
                    sequence,
                    at,
                    message,
                })
            });
        }
        if result.is_err() {
            end.cancel();
        }
    });
    tokio::select! {
        read = reading => read?,
        () = end.cancelled() => {}
    }
    result
}

/// Passes every key of the bucket under a pattern such as `alice.*` to `each`.
pub(super) async fn scan_bucket(
    nats: &Nats,
    bucket: &str,
    keys: &str,
    mut each: impl FnMut(&str, Stored<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let prefix = format!("$KV.{bucket}.");
    let config = pull::Config {
        filter_subject: format!("{prefix}{keys}"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull::Config::default()
    };
    scan(nats, &format!("KV_{bucket}"), config, |stored| {
        // A marker of a deleted key.
        if stored.header("KV-Operation").is_some() || stored.header("Nats-Marker-Reason").is_some()
        {
            return Ok(());
        }
        let subject = stored.message.subject.clone();
        each(subject.strip_prefix(&prefix).unwrap_or(&subject), stored)
    })
    .await
}

fn stored_at(nats: &Nats, message: &Message) -> Result<Timestamp, CliError> {
    let message = jetstream::Message {
        message: message.clone(),
        context: nats.jetstream.clone(),
    };
    let info = message.info().during("read a message's time")?;
    Ok(timestamp(info.published.unix_timestamp_nanos()))
}

/// A time of JetStream's, in nanoseconds since 1970.
pub(super) fn timestamp(nanoseconds: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
