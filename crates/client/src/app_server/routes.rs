//! Writes routes by publishing to the bucket's stream, since an app server may not be allowed to
//! read the bucket.

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

/// Maximum time for JetStream to confirm a route.
const PATIENCE: Duration = Duration::from_secs(2);

/// The name of no user. Its deleted key is there for as long as the bucket is the same one.
const CHECKED: &str = "bellhop check of routes";

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

    /// Writes the deleted key of a name that no user has, on the condition that what was written
    /// last is still there. Returns its revision; `None` if the bucket was deleted and created
    /// again.
    pub(super) async fn check(self, last: Option<u64>) -> Result<Option<u64>, String> {
        let user = CHECKED.parse().expect("it is a name");
        self.publish(&user, deletion::headers(last), Bytes::new())
            .await
    }

    /// Makes a change. Returns the revision of the route, if there is one then.
    pub(super) async fn write(
        self,
        now: Timestamp,
        user: UserId,
        change: Change,
    ) -> (UserId, Result<Option<u64>, String>) {
        let result = match change {
            Change::Put => {
                let body = Bytes::from(value(&self.subject, now));
                self.publish(&user, Vec::new(), body).await
            }
            Change::Delete(revision) => {
                let headers = deletion::headers(revision);
                let written = self.publish(&user, headers, Bytes::new()).await;
                written.map(|_| None)
            }
        };
        (user, result)
    }

    /// Returns the revision of the user's key; `None` if it was not the one that the headers
    /// expect: Bellhop dropped it, or another process of this name has put it again.
    async fn publish(
        &self,
        user: &UserId,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<Option<u64>, String> {
        let key = format!("$KV.{}.{}", self.bucket, key(user, &self.instance));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value);
        }
        let written = async {
            let sent = self
                .jetstream
                .publish_with_headers(key.clone(), map, body)
                .await?;
            sent.await
        };
        match written.await {
            Ok(ack) => Ok(Some(ack.sequence)),
            Err(error) if is_outdated(&error) => Ok(None),
            Err(error) => Err(format!("write {key}: {error}")),
        }
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
