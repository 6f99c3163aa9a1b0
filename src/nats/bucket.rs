//! Watches a bucket from its present content on, and tells when the present content has been seen.

use std::collections::VecDeque;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
pub use async_nats::jetstream::kv::Operation;
use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::direct::{self, text};
use super::feed::{Feed, Received};
use super::link::Link;
use super::names::bucket_stream;
use super::raw::{self, RawMessage};
use super::{During, Nats, NatsError, chain, keys};
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
    /// The operation: the key was put or removed.
    pub operation: Operation,
    /// Time at which it was stored, in nanoseconds since 1970.
    pub stored_ns: i128,
    /// The client library cannot read the message.
    pub is_unreadable: bool,
}

/// The treatment of a message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is removed where it has a key, and counts as the key's removal.
    Removed,
    /// It counts by its body, and stays: what was there before it may be less than what its writer
    /// wants.
    Put,
}

/// A bucket's changes, after its present content.
pub struct Watched {
    link: Link,
    /// Reads as JSON what does not arrive otherwise. No stranger's message comes over this
    /// connection.
    plain: Nats,
    bucket: String,
    unreadable: Unreadable,
    /// None when it is to begin again behind `seen`.
    feed: Option<Feed>,
    is_loaded: bool,
    /// The last revision that was reported, or is in `read`.
    seen: u64,
    /// The bucket's last revision when the feed began.
    last: u64,
    /// Nothing that is not reported, nor in `read`, lies at or before this revision, though its
    /// entry may be gone.
    complete: u64,
    /// Entries read as JSON that were not reported yet.
    read: VecDeque<Entry>,
    /// An unreadable entry was met, and there may be more: everything up to the end of the bucket
    /// is read as JSON. Each of them would cost the feed its connection, and every start about a
    /// second.
    reads_json: bool,
}

/// Entries read as JSON before the feed is tried again.
const MOST_READ: usize = 256;

/// Opens a bucket.
///
/// # Errors
/// When it does not exist or cannot be reached.
pub async fn open(nats: &Nats, bucket: String) -> Result<Store, NatsError> {
    let store = nats.jetstream.get_key_value(bucket.clone()).await;
    let opened = store.during_with(|| format!("open bucket {bucket}"));
    opened.map_err(|error| error.or_missing(format!("bucket {bucket}")))
}

/// A key of a bucket with its latest value.
#[derive(Debug)]
pub struct StoredValue {
    /// The key.
    pub key: String,
    /// Its revision.
    pub revision: u64,
    /// Its value.
    pub value: Bytes,
    /// Time at which it was put, by the server's clock.
    pub at: Timestamp,
}

/// Reads the keys of a pattern such as `alice.*` by one request, at most `most` of them.
///
/// # Errors
/// When JetStream does not answer.
pub async fn last(
    nats: &Nats,
    bucket: &str,
    keys: &str,
    most: usize,
) -> Result<Vec<StoredValue>, NatsError> {
    let prefix = format!("$KV.{bucket}.");
    let request = json!({ "multi_last": [format!("{prefix}{keys}")], "batch": most });
    let (messages, _) = direct::get(nats, &format!("KV_{bucket}"), &request).await?;
    let found = messages.into_iter().filter_map(|message| {
        let is_gone = ["KV-Operation", "Nats-Marker-Reason"]
            .iter()
            .any(|mark| text(&message, mark).is_some());
        let key = text(&message, "Nats-Subject")?
            .strip_prefix(&prefix)?
            .to_owned();
        let revision = text(&message, "Nats-Sequence")?.parse().ok()?;
        let at = text(&message, "Nats-Time-Stamp")?.parse().ok()?;
        (!is_gone).then_some(StoredValue {
            key,
            revision,
            value: message.payload,
            at,
        })
    });
    Ok(found.collect())
}

/// Returns the bucket's last revision, also where its entry is gone, by the word of the stream's
/// leader.
///
/// # Errors
/// When the bucket does not exist or JetStream does not answer.
pub async fn last_revision(nats: &Nats, bucket: &str) -> Result<u64, NatsError> {
    let action = || format!("open bucket {bucket}");
    let stream = bucket_stream(bucket);
    let asking = nats.jetstream.get_stream(&stream);
    let info = nats
        .if_permitted(&format!("STREAM.INFO.{stream}"), action, asking)
        .await?
        .during_with(action)?;
    Ok(info.cached_info().state.last_sequence)
}

impl Watched {
    /// Watches over `link` from the first call of [`next`](Self::next) on. Messages that do not
    /// arrive there are read over `plain`, one at a time.
    pub fn new(link: &Link, plain: &Nats, bucket: String, unreadable: Unreadable) -> Self {
        Self {
            link: link.clone(),
            plain: plain.clone(),
            bucket,
            unreadable,
            feed: None,
            is_loaded: false,
            seen: 0,
            last: 0,
            complete: 0,
            read: VecDeque::new(),
            reads_json: false,
        }
    }

    /// Returns true if everything that the bucket held at the start has been reported.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded && self.read.is_empty()
    }

    /// Returns the revision up to which every change was returned that was not replaced by a later
    /// one.
    pub fn complete_to(&self) -> u64 {
        let unread = self
            .read
            .front()
            .map(|entry| entry.revision.saturating_sub(1));
        unread.unwrap_or(self.seen.max(self.complete))
    }

    /// Returns the next change, or none where only [`is_loaded`](Self::is_loaded) may have changed.
    ///
    /// A message that does not arrive, since it ends the connection or the client takes it for
    /// something else, would hold up all behind it. So when one is missing, the next entries are
    /// read as JSON, and the feed goes on behind them. They are also read when everything has
    /// arrived and none said that it was the last: the last one may have expired meanwhile, or the
    /// server that pushes may lag behind. May be cancelled.
    ///
    /// # Errors
    /// When the bucket does not exist or JetStream does not answer. Call it again after a pause: it
    /// goes on behind what it has returned, and returns everything again where the bucket was made
    /// again or restored.
    pub async fn next(&mut self) -> Result<Option<Entry>, NatsError> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                return Ok(Some(entry));
            }
            if self.reads_json {
                self.read_on().await?;
                return Ok(self.read.pop_front());
            }
            let feed = match &mut self.feed {
                Some(feed) => feed,
                None => match self.resume().await? {
                    Some(feed) => self.feed.insert(feed),
                    None => return Ok(None),
                },
            };
            match feed.next().await {
                Ok(Some(Received {
                    message,
                    sequence,
                    stored_ns,
                    pending,
                })) => {
                    self.seen = sequence;
                    if pending == 0 {
                        self.everything_arrived();
                    }
                    let prefix = prefix(&self.bucket);
                    return Ok(Some(Entry {
                        key: message
                            .subject
                            .strip_prefix(&prefix)
                            .unwrap_or(&message.subject)
                            .to_owned(),
                        operation: message.headers.as_ref().map_or(Operation::Put, operation),
                        value: message.payload,
                        revision: sequence,
                        stored_ns,
                        is_unreadable: false,
                    }));
                }
                Ok(None) if self.is_loaded => self.everything_arrived(),
                Ok(None) => match self.read_on().await {
                    Ok(()) => return Ok(self.read.pop_front()),
                    // The word of the server that pushes must do.
                    Err(NatsError::NotPermitted { .. }) => {
                        self.is_loaded = true;
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                },
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "a watch goes on behind what arrived");
                    self.feed = None;
                    self.read_on().await?;
                    return Ok(self.read.pop_front());
                }
            }
        }
    }

    /// Begins the feed behind what was seen. Returns none if the bucket is empty, and that was not
    /// known.
    async fn resume(&mut self) -> Result<Option<Feed>, NatsError> {
        let action = || format!("open bucket {}", self.bucket);
        let stream = bucket_stream(&self.bucket);
        let asking = self.plain.jetstream.get_stream(&stream);
        let info = self
            .plain
            .if_permitted(&format!("STREAM.INFO.{stream}"), action, asking)
            .await?
            .during_with(action);
        let info = info.map_err(|error| error.or_missing(format!("bucket {}", self.bucket)))?;
        let state = &info.cached_info().state;
        if state.last_sequence < self.seen {
            tracing::warn!(
                bucket = self.bucket,
                "this bucket was recreated or restored, reading it again"
            );
            (self.seen, self.complete) = (0, 0);
        }
        let was_loaded = self.is_loaded;
        self.last = state.last_sequence;
        // Of an empty bucket the feed tells nothing.
        if state.messages == 0 {
            self.everything_arrived();
        }
        let deliver_policy = match self.seen {
            0 => DeliverPolicy::LastPerSubject,
            seen => DeliverPolicy::ByStartSequence {
                start_sequence: seen + 1,
            },
        };
        let (nats, subjects) = (self.link.live().await, format!("{}>", prefix(&self.bucket)));
        let feed = Feed::begin(nats, &self.plain, &stream, subjects, deliver_policy).await?;
        if self.is_loaded == was_loaded {
            return Ok(Some(feed));
        }
        self.feed = Some(feed);
        Ok(None)
    }

    /// Everything that the bucket held when the feed began has arrived.
    fn everything_arrived(&mut self) {
        self.is_loaded = true;
        self.complete = self.complete.max(self.last);
    }

    /// Reads what is there behind what was seen.
    async fn read_on(&mut self) -> Result<(), NatsError> {
        let (stream, prefix) = (bucket_stream(&self.bucket), prefix(&self.bucket));
        for _ in 0..MOST_READ {
            let Some(message) =
                raw::next(&self.plain, &stream, &format!("{prefix}>"), self.seen + 1).await?
            else {
                self.everything_arrived();
                self.reads_json = false;
                return Ok(());
            };
            let entry = self.entry(message, &prefix);
            (self.seen, self.feed) = (entry.revision, None);
            self.reads_json |= entry.is_unreadable;
            self.read.push_back(entry);
        }
        Ok(())
    }

    /// Returns the entry of a message that was read as JSON. Here it is decided whether it is
    /// unreadable.
    fn entry(&self, message: RawMessage, prefix: &str) -> Entry {
        let headers = message.read_headers();
        let RawMessage {
            sequence: revision,
            subject,
            payload: value,
            stored_at,
            ..
        } = message;
        let (key, stored_ns) = (
            subject.strip_prefix(prefix).unwrap_or(&subject).to_owned(),
            stored_at.as_nanosecond(),
        );
        let (operation, is_unreadable) = match headers {
            Ok(headers) => (operation(&headers), false),
            Err(problem) => {
                tracing::warn!(
                    bucket = self.bucket,
                    key,
                    revision,
                    problem,
                    "unreadable message in a bucket"
                );
                (self.left_aside(&key, revision), true)
            }
        };
        Entry {
            key,
            value,
            revision,
            operation,
            stored_ns,
            is_unreadable,
        }
    }

    /// Returns what an unreadable message counts as, and removes it where it is to be removed.
    fn left_aside(&self, key: &str, revision: u64) -> Operation {
        if self.unreadable == Unreadable::Put {
            return Operation::Put;
        }
        if is_key(key) {
            tokio::spawn(remove(
                self.plain.clone(),
                self.bucket.clone(),
                key.to_owned(),
                revision,
            ));
        }
        Operation::Purge
    }
}

/// Returns what the subjects of a bucket's keys begin with.
fn prefix(bucket: &str) -> String {
    format!("$KV.{bucket}.")
}

/// Returns what a message did to its key, by its headers.
pub fn operation(headers: &HeaderMap) -> Operation {
    match headers
        .get(deletion::OPERATION)
        .map(|operation| operation.as_str())
    {
        _ if headers.get("Nats-Marker-Reason").is_some() => Operation::Purge,
        Some("DEL") => Operation::Delete,
        Some("PURGE") => Operation::Purge,
        _ => Operation::Put,
    }
}

/// Returns true if the key can be written to: a key that is not text cannot even be named.
fn is_key(key: &str) -> bool {
    key.bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte))
}

/// Deletes an entry, unless it has another value by now. Members that see the mark know no more of
/// it than this one.
async fn remove(nats: Nats, bucket: String, key: String, revision: u64) {
    if let Err(error) = keys::delete(&nats, &bucket, &key, Some(revision)).await {
        tracing::debug!(error = %chain(&error), revision, "an unreadable message stays in its bucket");
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
