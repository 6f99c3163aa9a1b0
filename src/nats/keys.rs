//! Looks single keys of buckets up, deletes them, and sees to what that leaves behind.
//!
//! Buckets permit no roll-ups: by one, a program that may write a single key could remove the keys
//! of all others. So a key is deleted by a mark with a time to live. Other programs may leave marks
//! without one, and [`sweep`] replaces those.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_TTL;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use bytes::Bytes;

use super::names::bucket_stream;
use super::raw::{self, RawMessage};
use super::replay::replay;
use super::{Nats, NatsError, header, is_outdated};
use crate::wire::deletion;

/// Returns the headers of a message that deletes a key, if `revision` is its latest one.
fn deleting(revision: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    deletion::headers(revision)
        .into_iter()
        .for_each(|(name, value)| headers.insert(name, value));
    headers
}

/// Deletes a key of a bucket that keeps one version of each; in others, an older one would come
/// back with the end of the mark. Returns whether it did: with a `revision`, it does not where the
/// key was written since.
///
/// # Errors
/// When JetStream does not answer, or refuses it.
pub async fn delete(
    nats: &Nats,
    bucket: &str,
    key: &str,
    revision: Option<u64>,
) -> Result<bool, NatsError> {
    let subject = format!("$KV.{bucket}.{key}");
    let deleted = async {
        let sent = nats
            .jetstream
            .publish_with_headers(subject, deleting(revision), Bytes::new())
            .await?;
        sent.await
    };
    match deleted.await {
        Ok(_) => Ok(true),
        Err(error) if is_outdated(&error) => Ok(false),
        Err(error) => Err(NatsError::failed(
            format!("delete {key} from {bucket}"),
            error,
        )),
    }
}

/// Returns the value of a key that is not deleted, by the word of the stream's leader. The bucket
/// keeps one version of each.
///
/// # Errors
/// When JetStream does not answer.
pub async fn value(nats: &Nats, bucket: &str, key: &str) -> Result<Option<Bytes>, NatsError> {
    // Read as JSON: the writer of the key chooses its headers.
    let found = raw::next(
        nats,
        &bucket_stream(bucket),
        &format!("$KV.{bucket}.{key}"),
        1,
    )
    .await?;
    let headers_of = |message: &RawMessage| message.read_headers().ok();
    let put = found.filter(|found| {
        headers_of(found)
            .is_some_and(|headers| header(Some(&headers), deletion::OPERATION).is_none())
    });
    Ok(put.map(|message| message.payload))
}

/// Returns the keys of a pattern such as `alice.*` that are not deleted, however many there are.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn list(nats: &Nats, bucket: &str, pattern: &str) -> Result<Vec<String>, NatsError> {
    let mut keys = Vec::new();
    each(nats, bucket, pattern, |key, headers, _| {
        if header(headers, deletion::OPERATION).is_none() {
            keys.push(key.to_owned());
        }
    })
    .await?;
    Ok(keys)
}

/// Gives a time to live to each mark of a bucket that has none. Returns how many there were.
///
/// # Errors
/// When the bucket cannot be read, or JetStream refuses a mark. It may be repeated.
pub async fn sweep(nats: &Nats, bucket: &str) -> Result<usize, NatsError> {
    let mut marks = Vec::new();
    each(nats, bucket, ">", |key, headers, revision| {
        if header(headers, deletion::OPERATION).is_some()
            && header(headers, NATS_MESSAGE_TTL.as_ref()).is_none()
        {
            marks.push((key.to_owned(), revision));
        }
    })
    .await?;
    for (key, revision) in &marks {
        delete(nats, bucket, key, Some(*revision)).await?;
    }
    Ok(marks.len())
}

/// Reads each key's latest headers and revision. A replica that lags behind may do the reading.
async fn each(
    nats: &Nats,
    bucket: &str,
    pattern: &str,
    mut see: impl FnMut(&str, Option<&HeaderMap>, u64),
) -> Result<(), NatsError> {
    let prefix = format!("$KV.{bucket}.");
    let config = pull::Config {
        filter_subject: format!("{prefix}{pattern}"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        headers_only: true,
        ..pull::Config::default()
    };
    replay(
        nats,
        &bucket_stream(bucket),
        config,
        0,
        |message, revision, _| {
            if let Some(key) = message.subject.strip_prefix(&prefix) {
                see(key, message.headers.as_ref(), revision);
            }
        },
    )
    .await
}
