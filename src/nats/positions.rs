//! The bucket of positions: how far each partition, and the sets' role, has come in the log.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::consumer::DeliverPolicy;
use jiff::Timestamp;
use tokio::time::Instant;

use super::error::is_code_of_outdated;
use super::feed::{Feed, Received};
use super::names::bucket_stream;
use super::{Nats, NatsError, bucket, chain, keys, raw};
use crate::log::Subscriber;
use crate::log::position::Position;

/// A position as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The position.
    pub position: Position,
    /// Its revision.
    pub revision: u64,
    /// Time at which it was stored, in milliseconds since 1970.
    pub written_ms: i64,
}

/// Keys that JetStream answers for at once: more than an installation has.
const MOST: usize = 1_024;

/// Returns the subscriber's position, by the word of the bucket's leader; none if it has none yet.
///
/// # Errors
/// When JetStream does not answer, or the value is not a position.
pub async fn read(nats: &Nats, subscriber: Subscriber) -> Result<Option<Stored>, NatsError> {
    let bucket = nats.names.positions_bucket();
    let found = raw::next(
        nats,
        &bucket_stream(&bucket),
        &format!("$KV.{bucket}.{subscriber}"),
        1,
    )
    .await?;
    let Some(found) = found.filter(|found| !found.payload.is_empty()) else {
        return Ok(None);
    };
    let position =
        Position::from_json(&found.payload).map_err(|error| unreadable(subscriber, error))?;
    Ok(Some(Stored {
        position,
        revision: found.sequence,
        written_ms: found.stored_at.as_millisecond(),
    }))
}

/// Returns all positions that there are, and when each was stored. A replica that lags behind may
/// answer, with older ones.
///
/// # Errors
/// When JetStream does not answer, or a value is not a position.
pub async fn all(nats: &Nats) -> Result<Vec<(Subscriber, Position, Timestamp)>, NatsError> {
    let found = bucket::last(nats, &nats.names.positions_bucket(), "*", MOST).await?;
    let read = |found: bucket::StoredValue| {
        let subscriber: Subscriber = found.key.parse().ok()?;
        let position =
            Position::from_json(&found.value).map_err(|error| unreadable(subscriber, error));
        Some(position.map(|position| (subscriber, position, found.at)))
    };
    found.into_iter().filter_map(read).collect()
}

/// Stores a position, if `revision` is that of the last one. Returns its revision.
///
/// # Errors
/// [`NatsError::Fenced`] when another owner stored one since. Any other error leaves open whether
/// it is stored.
pub async fn write(
    nats: &Nats,
    subscriber: Subscriber,
    position: &Position,
    revision: Option<u64>,
) -> Result<u64, NatsError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
        revision.unwrap_or(0).to_string(),
    );
    let subject = format!("$KV.{}.{subscriber}", nats.names.positions_bucket());
    match nats
        .store(subject, headers, position.to_json().into())
        .await
    {
        Ok(stored) => Ok(stored.sequence),
        Err(NatsError::Refused { code, .. }) if is_code_of_outdated(code) => {
            Err(NatsError::Fenced(format!("the position of {subscriber}")))
        }
        Err(error) => Err(error),
    }
}

/// The key that holds the log: members read no further than its value says.
const HOLD: &str = "hold";
/// A hold ends by itself after this time, in case its owner has died.
pub const HOLD_FOR: Duration = Duration::from_secs(60);
/// Pause before listening for a hold is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Has members read no further than this sequence of the log, for [`HOLD_FOR`]; none lets them go
/// on.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn hold(nats: &Nats, at: Option<u64>) -> Result<(), NatsError> {
    let bucket = nats.names.positions_bucket();
    let Some(at) = at else {
        return keys::delete(nats, &bucket, HOLD, None).await.map(drop);
    };
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_TTL, format!("{}s", HOLD_FOR.as_secs()));
    nats.store(
        format!("$KV.{bucket}.{HOLD}"),
        headers,
        at.to_string().into(),
    )
    .await
    .map(drop)
}

/// The hold of the log, as members hear of it.
pub struct Hold {
    nats: Nats,
    feed: Option<Feed>,
    /// The sequence that members read no further than, and when that ends by itself.
    at: Option<(u64, Instant)>,
}

impl Hold {
    /// Begins to listen at the first call of [`next`](Self::next).
    pub fn new(nats: Nats) -> Self {
        let (feed, at) = (None, None);
        Self { nats, feed, at }
    }

    /// Returns the sequence that members read no further than from now on, or none when they may go
    /// on. It waits until that changes, or until something failed: then it tries again. May be
    /// cancelled.
    pub async fn next(&mut self) -> Option<u64> {
        loop {
            let ends = self.at.map(|(_, ends)| ends);
            let heard = tokio::select! {
                () = sleep_until(ends) => {
                    self.at = None;
                    return None;
                }
                heard = listen(&self.nats, &mut self.feed) => heard,
            };
            match heard {
                Ok(Some(message)) => {
                    let text = std::str::from_utf8(&message.message.payload).ok();
                    let at = text.and_then(|text| text.parse().ok());
                    self.at = at.map(|at| (at, Instant::now() + HOLD_FOR));
                    return at;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "listening again for a hold of the log");
                    self.feed = None;
                    tokio::time::sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }
}

async fn listen(nats: &Nats, feed: &mut Option<Feed>) -> Result<Option<Received>, NatsError> {
    if feed.is_none() {
        let bucket = nats.names.positions_bucket();
        let (stream, subject) = (bucket_stream(&bucket), format!("$KV.{bucket}.{HOLD}"));
        let policy = DeliverPolicy::LastPerSubject;
        *feed = Some(Feed::begin(nats.clone(), nats, &stream, subject, policy).await?);
    }
    match feed {
        Some(feed) => feed.next().await,
        None => Ok(None),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn unreadable(subscriber: Subscriber, error: impl std::fmt::Display) -> NatsError {
    let problem = format!(
        "not a valid position: {error}; delete the key, and its partition reads the log from the start"
    );
    NatsError::failed(format!("read the position of {subscriber}"), problem)
}
