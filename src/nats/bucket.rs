//! Watches a bucket from its present content on, and tells when the present content has been seen.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::HeaderMap;
pub use async_nats::jetstream::kv::Operation;
use async_nats::jetstream::kv::{Store, Watch};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use super::direct::{self, text};
use super::link::Link;
use super::raw::{self, RawMessage};
use super::{Nats, NatsError, keys};
use crate::wire::deletion;

/// A change of a bucket.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision.
    pub revision: u64,
    /// Whether the key was put or removed.
    pub operation: Operation,
    /// When it was stored, in nanoseconds since 1970.
    pub stored_ns: i128,
    /// The client library cannot read the message.
    pub is_unreadable: bool,
}

/// What becomes of a message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is removed where it has a key, and counts as the key's removal.
    Removed,
    /// It counts by its body, and stays: what was there before it may be less than what its writer wants.
    Put,
}

/// A bucket's changes, after its present content.
pub struct Watched {
    link: Link,
    /// Reads as JSON what does not arrive otherwise. No stranger's message comes over this connection.
    plain: Nats,
    bucket: String,
    unreadable: Unreadable,
    /// None when it is to begin again behind `seen`.
    watch: Option<Watch>,
    is_loaded: bool,
    /// The last revision that was told, or is in `read`.
    seen: u64,
    /// Entries read as JSON that were not told yet.
    read: VecDeque<Entry>,
    /// An unreadable entry was met, and there may be more: everything up to the end of the bucket is read as JSON. Each of
    /// them would cost a watch its connection, and every start some seconds.
    reads_json: bool,
    tick: Interval,
    /// The last revision at the last tick, while nothing has come since.
    quiet_at: Option<u64>,
}

/// How often it is looked whether anything came.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When looking failed, it is not tried for so long: news must not wait for it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Entries read as JSON before the watch is tried again.
const MOST_READ: usize = 256;

/// Opens a bucket.
///
/// # Errors
/// When it does not exist or cannot be reached.
pub async fn open(nats: &Nats, bucket: String) -> Result<Store, NatsError> {
    let store = nats.jetstream.get_key_value(bucket.clone()).await;
    store.map_err(|error| NatsError::failed(format!("open bucket {bucket}; `bellhop setup` makes it"), error))
}

/// A key of a bucket with its latest value.
#[derive(Debug)]
pub struct Found {
    /// The key.
    pub key: String,
    /// Its revision.
    pub revision: u64,
    /// Its value.
    pub value: Bytes,
    /// When it was put, by the server's clock.
    pub at: Timestamp,
}

/// Reads the keys of a pattern such as `alice.*` by one request, `most` of them at the most.
///
/// # Errors
/// When JetStream does not answer.
pub async fn last(nats: &Nats, bucket: &str, keys: &str, most: usize) -> Result<Vec<Found>, NatsError> {
    let prefix = format!("$KV.{bucket}.");
    let request = json!({ "multi_last": [format!("{prefix}{keys}")], "batch": most });
    let (messages, _) = direct::get(nats, &format!("KV_{bucket}"), &request).await?;
    let found = messages.into_iter().filter_map(|message| {
        let is_gone = ["KV-Operation", "Nats-Marker-Reason"].iter().any(|mark| text(&message, mark).is_some());
        let key = text(&message, "Nats-Subject")?.strip_prefix(&prefix)?.to_owned();
        let revision = text(&message, "Nats-Sequence")?.parse().ok()?;
        let at = text(&message, "Nats-Time-Stamp")?.parse().ok()?;
        (!is_gone).then_some(Found { key, revision, value: message.payload, at })
    });
    Ok(found.collect())
}

impl Watched {
    /// Begins to watch over `link`. What does not arrive there is read over `plain`, one message at a time.
    ///
    /// # Errors
    /// When the bucket does not exist or cannot be reached.
    pub async fn begin(link: &Link, plain: &Nats, bucket: String, unreadable: Unreadable) -> Result<Self, NatsError> {
        let failed = |error: &dyn std::fmt::Display| NatsError::failed(format!("watch bucket {bucket}"), error);
        open(plain, bucket.clone()).await?;
        let stream = plain.jetstream.get_stream(format!("KV_{bucket}")).await.map_err(|e| failed(&e))?;
        let is_empty = stream.cached_info().state.messages == 0;
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            link: link.clone(),
            plain: plain.clone(),
            bucket,
            unreadable,
            // It begins with the first call of `next`, which also sees to it where the first messages break it.
            watch: None,
            // Of an empty bucket a watch tells nothing, so that is said first.
            is_loaded: is_empty,
            seen: 0,
            read: VecDeque::new(),
            reads_json: false,
            tick,
            quiet_at: None,
        })
    }

    /// Whether everything that the bucket held in the beginning has been told.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded && self.read.is_empty()
    }

    /// Returns the next change, or none where only [`is_loaded`](Self::is_loaded) may have changed.
    ///
    /// A message that does not arrive, since it ends the connection or the client takes it for something else, holds up all
    /// behind it. So when nothing comes, it is looked whether there is more. If so, the next entries are read as JSON, and the
    /// watch goes on behind them. May be cancelled.
    ///
    /// # Errors
    /// When the watch broke; begin a new one.
    pub async fn next(&mut self) -> Result<Option<Entry>, NatsError> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                return Ok(Some(entry));
            }
            if self.reads_json {
                self.read_on().await?;
                return Ok(self.read.pop_front());
            }
            let watch = match &mut self.watch {
                Some(watch) => watch,
                None => match self.resume().await {
                    Ok(watch) => self.watch.insert(watch),
                    Err(error) => return self.read_past(error).await,
                },
            };
            tokio::select! {
                biased;
                entry = watch.next() => {
                    let entry = match entry {
                        Some(Ok(entry)) => entry,
                        Some(Err(error)) => return self.read_past(self.broken(error)).await,
                        None => return self.read_past(self.broken("it ended")).await,
                    };
                    self.is_loaded |= entry.delta == 0;
                    if entry.revision > self.seen {
                        (self.seen, self.quiet_at) = (entry.revision, None);
                        return Ok(Some(Entry {
                            key: entry.key,
                            value: entry.value,
                            revision: entry.revision,
                            operation: entry.operation,
                            stored_ns: entry.created.unix_timestamp_nanos(),
                            is_unreadable: false,
                        }));
                    }
                }
                _ = self.tick.tick() => {
                    if self.quiet_at.replace(self.seen) == Some(self.seen) {
                        match self.read_on().await {
                            Ok(()) => {
                                self.quiet_at = None;
                                return Ok(self.read.pop_front());
                            }
                            Err(error) => {
                                tracing::debug!(%error, bucket = self.bucket, "not looked whether a message is missing");
                                self.tick.reset_after(LOOK_AGAIN_AFTER);
                            }
                        }
                    }
                }
            }
        }
    }

    fn broken(&self, problem: impl std::fmt::Display) -> NatsError {
        NatsError::failed(format!("watch bucket {}", self.bucket), problem)
    }

    /// Begins the watch behind what was seen.
    async fn resume(&mut self) -> Result<Watch, NatsError> {
        self.quiet_at = None;
        let store = open(&self.link.live().await, self.bucket.clone()).await?;
        let watch = match self.seen {
            0 => store.watch_with_history(">").await,
            seen => store.watch_from_revision(">", seen + 1).await,
        };
        watch.map_err(|error| self.broken(error))
    }

    /// Reads what is there behind what was seen, after the watch broke. Where there is nothing, no message broke it.
    async fn read_past(&mut self, error: NatsError) -> Result<Option<Entry>, NatsError> {
        self.watch = None;
        self.read_on().await?;
        match self.read.pop_front() {
            Some(entry) => Ok(Some(entry)),
            None => Err(error),
        }
    }

    /// Reads what is there behind what was seen.
    async fn read_on(&mut self) -> Result<(), NatsError> {
        let (stream, prefix) = (format!("KV_{}", self.bucket), format!("$KV.{}.", self.bucket));
        for _ in 0..MOST_READ {
            let Some(message) = raw::next(&self.plain, &stream, &format!("{prefix}>"), self.seen + 1).await? else {
                (self.is_loaded, self.reads_json) = (true, false);
                return Ok(());
            };
            let entry = self.entry(message, &prefix);
            (self.seen, self.watch) = (entry.revision, None);
            self.reads_json |= entry.is_unreadable || !is_key(&entry.key);
            self.read.push_back(entry);
        }
        Ok(())
    }

    fn entry(&self, message: RawMessage, prefix: &str) -> Entry {
        let headers = message.read_headers();
        let RawMessage { sequence: revision, subject, payload: value, stored_at, .. } = message;
        let key = subject.strip_prefix(prefix).unwrap_or(&subject).to_owned();
        let operation = match &headers {
            Ok(headers) => operation(headers),
            Err(problem) => {
                tracing::warn!(bucket = self.bucket, key, revision, problem, "unreadable message in a bucket");
                if self.unreadable == Unreadable::Removed && is_key(&key) {
                    tokio::spawn(remove(self.plain.clone(), self.bucket.clone(), key.clone(), revision));
                }
                if self.unreadable == Unreadable::Put { Operation::Put } else { Operation::Purge }
            }
        };
        let stored_ns = stored_at.as_nanosecond();
        Entry { key, value, revision, operation, stored_ns, is_unreadable: headers.is_err() }
    }
}

/// Returns what a message did to its key, by its headers.
pub fn operation(headers: &HeaderMap) -> Operation {
    match headers.get(deletion::OPERATION).map(|operation| operation.as_str()) {
        _ if headers.get("Nats-Marker-Reason").is_some() => Operation::Purge,
        Some("DEL") => Operation::Delete,
        Some("PURGE") => Operation::Purge,
        _ => Operation::Put,
    }
}

/// Whether it can be written to: a key that is not text cannot even be named.
fn is_key(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte))
}

/// Deletes an entry, unless it has another value by now. Members that see the mark know no more of it than this one.
async fn remove(nats: Nats, bucket: String, key: String, revision: u64) {
    if let Err(error) = keys::delete(&nats, &bucket, &key, Some(revision)).await {
        tracing::debug!(%error, revision, "an unreadable message stays in its bucket");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_not_written_to() {
        assert!(is_key("alice.app-1") && is_key("a=2Eb"));
        assert!(!is_key("alice.*") && !is_key(">") && !is_key("été"));
    }
}
