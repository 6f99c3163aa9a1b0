//! Writes routes by publishing to the bucket's stream, since an app server may not be allowed to read the bucket.

use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use jiff::Timestamp;

use super::connections::Change;
use bellhop_protocol::names::Names;
use bellhop_protocol::token::{InstanceName, UserId};
use bellhop_protocol::wire::deletion;
use bellhop_protocol::wire::route::{RouteError, key, value};
use bellhop_protocol::wire::subject::read_value;

/// How long JetStream may take to confirm a route.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct Writer {
    jetstream: Context,
    bucket: String,
    instance: InstanceName,
    subject: String,
}

impl Writer {
    /// # Errors
    /// When an app server cannot have this subject.
    pub(super) fn new(
        client: &Client,
        names: &Names,
        instance: InstanceName,
        subject: String,
    ) -> Result<Self, RouteError> {
        read_value(
            names,
            &instance,
            value(&subject, Timestamp::UNIX_EPOCH).as_bytes(),
        )?;
        let jetstream = ContextBuilder::new()
            .timeout(PATIENCE)
            .build(client.clone());
        Ok(Self {
            jetstream,
            bucket: names.routes_bucket(),
            instance,
            subject,
        })
    }

    /// Makes a change. Returns the revision of the route, if there is one then.
    pub(super) async fn write(
        self,
        now: Timestamp,
        user: UserId,
        change: Change,
    ) -> (UserId, Result<Option<u64>, String>) {
        let key = format!("$KV.{}.{}", self.bucket, key(&user, &self.instance));
        let mut headers = HeaderMap::new();
        let body = match change {
            Change::Put => Bytes::from(value(&self.subject, now)),
            Change::Delete(revision) => {
                deletion::headers(Some(revision))
                    .into_iter()
                    .for_each(|(name, value)| headers.insert(name, value));
                Bytes::new()
            }
        };
        let written = async {
            let sent = self
                .jetstream
                .publish_with_headers(key.clone(), headers, body)
                .await?;
            sent.await
        };
        let result = match written.await {
            Ok(ack) => Ok((change == Change::Put).then_some(ack.sequence)),
            // Bellhop dropped it, or another process of this name has put it again.
            Err(error) if is_outdated(&error) => Ok(None),
            Err(error) => Err(format!("write {key}: {error}")),
        };
        (user, result)
    }
}

/// Returns whether JetStream refused a write because the key was written since.
fn is_outdated(error: &PublishError) -> bool {
    // async-nats 0.51 has no kind for the second code. A server of a cluster may answer either.
    let answer = error
        .source()
        .and_then(|cause| cause.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::WrongLastSequence
        || answer.is_some_and(|answer| {
            answer.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
        })
}
