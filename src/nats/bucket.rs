//! Watches a bucket from its present content on, and tells when the present content has been seen.

use async_nats::jetstream::kv::{Entry, Store, Watch};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::json;

use super::direct::{self, text};
use super::{Nats, NatsError};

/// A bucket's changes, after its present content.
pub struct Watched {
    watch: Watch,
    bucket: String,
    is_loaded: bool,
}

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
    /// Begins to watch.
    ///
    /// # Errors
    /// When the bucket does not exist or cannot be reached.
    pub async fn begin(nats: &Nats, bucket: String) -> Result<Self, NatsError> {
        let failed = |error: &dyn std::fmt::Display| NatsError::failed(format!("watch bucket {bucket}"), error);
        let store = open(nats, bucket.clone()).await?;
        let stream = nats.jetstream.get_stream(format!("KV_{bucket}")).await.map_err(|e| failed(&e))?;
        let is_empty = stream.cached_info().state.messages == 0;
        let watch = store.watch_with_history(">").await.map_err(|e| failed(&e))?;
        // Of an empty bucket a watch tells nothing, so that is said first.
        Ok(Self { watch, bucket, is_loaded: is_empty })
    }

    /// Whether everything that the bucket held in the beginning has been told.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// The next change.
    ///
    /// # Errors
    /// When the watch broke; begin a new one.
    pub async fn next(&mut self) -> Result<Entry, NatsError> {
        let what = || format!("watch bucket {}", self.bucket);
        match self.watch.next().await {
            Some(Ok(entry)) => {
                self.is_loaded |= entry.delta == 0;
                Ok(entry)
            }
            Some(Err(error)) => Err(NatsError::failed(what(), error)),
            None => Err(NatsError::failed(what(), "it ended")),
        }
    }
}
