//! Translates between the service and NATS: names, streams, consumers, buckets, requests. It
//! decides nothing.

pub mod access;
pub mod aging;
pub mod api;
pub mod batch;
pub mod behind;
pub mod bucket;
mod connect;
mod direct;
mod error;
mod feed;
pub mod headers;
pub mod instance;
pub mod keys;
pub mod link;
pub mod log;
pub mod mailbox;
pub mod neighbours;
pub mod notices;
pub mod pinned;
pub mod positions;
mod pull_limit;
pub mod raw;
pub mod refusals;
pub mod repartition;
pub mod replay;
pub mod schedule;
pub mod storage;
pub mod subscription;
pub mod topology;
pub mod upgrade;

use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use access::Access;
use notices::Notices;
use pull_limit::PullLimit;
use refusals::Refusals;

pub(crate) use headers::header;

pub use bellhop_protocol::names::{self, Names};
pub use connect::{connect, connect_to, shown_addresses, split_credentials};
pub use error::{Cause, During, NatsError, chain, is_outdated};

/// A connection to NATS with what everything in this layer needs.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The client.
    pub client: Client,
    /// JetStream.
    pub jetstream: Context,
    /// The beginning of the subjects of its API: `$JS.API`, or that of the domain `nats.domain`.
    pub api: String,
    /// The installation's names.
    pub names: Names,
    /// Maximum time for JetStream's answer.
    pub timeout: Duration,
    /// Actions that this connection was not permitted.
    pub refusals: Refusals,
    /// The identity of this connection for the server.
    pub access: Access,
    /// The server's notices before it stops.
    pub notices: Notices,
    /// Maximum number of messages for a pull.
    pub pull_limit: PullLimit,
    /// Cancelled when the client has ended for good: it never connects again.
    pub ended: CancellationToken,
}

impl Nats {
    /// The server's clock, by which it stores messages.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn server_time(&self) -> Result<Timestamp, NatsError> {
        #[derive(Deserialize)]
        struct ServerTime {
            ts: Timestamp,
        }
        let asked = self
            .jetstream
            .request(format!("STREAM.INFO.{}", self.names.log_stream()), &())
            .await;
        match asked.during("ask for the server's time")? {
            Response::Ok(ServerTime { ts }) => Ok(ts),
            Response::Err { error } => Err(NatsError::failed("ask for the server's time", error)),
        }
    }

    /// Waits for the answer to a request of JetStream's API, such as `STREAM.MSG.GET.BELLHOP_LOG`,
    /// unless the server says that this user may not ask. It drops such a request, so no answer
    /// would come.
    ///
    /// # Errors
    /// [`NatsError::NotPermitted`] alone.
    pub async fn if_permitted<T>(
        &self,
        request: &str,
        what: impl FnOnce() -> String,
        asking: impl Future<Output = T>,
    ) -> Result<T, NatsError> {
        let subject = format!("{}.{request}", self.api);
        let refused = self.refusals.of_publishing_to(&subject);
        tokio::select! {
            answer = asking => Ok(answer),
            () = refused => Err(NatsError::NotPermitted { what: what(), subject }),
        }
    }

    /// Publishes to a stream and waits until the message is stored.
    ///
    /// # Errors
    /// [`NatsError::Refused`] when the stream refused it. Any other error leaves open whether it is
    /// stored.
    pub async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<jetstream::publish::PublishAck, NatsError> {
        let what = format!("publish to {subject}");
        let acknowledged = match self
            .jetstream
            .publish_with_headers(subject, headers, payload)
            .await
        {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        acknowledged.map_err(|error| match answer(&error) {
            _ if is_unstorable(&error) => NatsError::Unstorable {
                what,
                source: error.into(),
            },
            Some(answer) => NatsError::Refused {
                what,
                source: answer.clone().into(),
                code: answer.error_code().0,
            },
            None => NatsError::failed(what, error),
        })
    }

    /// Publishes until it is stored, however long JetStream is away. An `id` makes the repeats one
    /// message. Messages published in this way are Bellhop's own, and small enough for every stream
    /// that `bellhop setup` has made.
    pub async fn store_surely(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        id: Option<&str>,
    ) {
        while let Err(error) = self
            .store_if_possible(subject, headers.clone(), payload.clone(), id)
            .await
        {
            tracing::error!(error = %chain(&error), "a limit of the stream or the server is too small: run `bellhop doctor`");
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }

    /// Does the same for a message that may be too large for JetStream: then it fails at once.
    ///
    /// # Errors
    /// [`NatsError::Unstorable`] alone.
    pub async fn store_if_possible(
        &self,
        subject: &str,
        mut headers: HeaderMap,
        payload: Bytes,
        id: Option<&str>,
    ) -> Result<(), NatsError> {
        if let Some(id) = id {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        }
        let mut pause = Duration::from_millis(50);
        loop {
            match self
                .store(subject.to_owned(), headers.clone(), payload.clone())
                .await
            {
                Ok(_) => return Ok(()),
                Err(error @ NatsError::Unstorable { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "failed to store a message, retrying")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The longest pause between two tries to store a message.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Returns true if JetStream refused a message for its form, and so will refuse it every time.
fn is_unstorable(error: &PublishError) -> bool {
    let of_form = [
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
        ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
    ];
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || answer(error).is_some_and(|answer| of_form.contains(&answer.error_code()))
}

/// JetStream's answer, if an error is one.
fn answer(error: &PublishError) -> Option<&jetstream::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}
