//! Stores messages of one stream together, behind a fence.
//!
//! A *fence* is a subject of the same stream, with the sequence of the last message there. A batch
//! names both (`Nats-Expected-Last-Subject-Sequence` with `-Subject`), so JetStream itself refuses
//! what an owner sends that has a successor, however late it comes. Messages go as an atomic batch
//! (nats-server 2.12): all of them are stored or none, they have successive sequences, and a server
//! that syncs every write does so once for the batch.

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;

use super::error::is_code_of_outdated;
use super::{During, Nats, NatsError};

const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// JetStream's error code for a batch with a `Nats-Msg-Id` that the stream has within its window.
const DUPLICATE_IN_BATCH: u64 = 10201;

/// The fence that a batch expects.
#[derive(Debug, Clone)]
pub struct Fence {
    /// A subject of the stream.
    pub subject: String,
    /// The sequence of the last message there; 0 if there is none.
    pub sequence: u64,
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The message's body.
    pub payload: Bytes,
}

/// JetStream's answer to a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Stored {
    /// All is stored, and the last message has this sequence.
    Through(u64),
    /// A batch with the same `Nats-Msg-Id` was stored before.
    Before,
}

#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    err_code: u64,
    description: String,
}

/// Stores up to 1,000 messages, as many as nats-server 2.15 takes in a batch, all or none. A
/// `Nats-Msg-Id` belongs to the last one.
///
/// # Errors
/// [`NatsError::Fenced`] when there is another message under the fence's subject.
/// [`NatsError::Refused`] when JetStream refused the batch. It stores none of it then, but for a
/// server that reaches its limit within the batch: that one can keep the beginning. Any other error
/// leaves open whether they are stored.
pub async fn store(
    nats: &Nats,
    fence: &Fence,
    messages: Vec<Message>,
    action: impl Fn() -> String,
) -> Result<Stored, NatsError> {
    let (client, count) = (&nats.client, messages.len());
    let inbox = client.new_inbox();
    let batch = inbox.rsplit('.').next().unwrap_or_default();
    let mut answer = None;
    for (place, message) in (1..).zip(messages) {
        let Message {
            subject,
            mut headers,
            payload,
        } = message;
        if place == 1 {
            let expected = fence.sequence.to_string();
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected);
            headers.insert(EXPECTED_SUBJECT, fence.subject.as_str());
        }
        if count > 1 {
            headers.insert(BATCH_ID, batch);
            headers.insert(BATCH_SEQUENCE, place.to_string());
        }
        if place < count {
            let sent = client.publish_with_headers(subject, headers, payload).await;
            sent.during_with(&action)?;
            continue;
        }
        if count > 1 {
            headers.insert(BATCH_COMMIT, "1");
        }
        let sent = client.request_with_headers(subject, headers, payload).await;
        answer = Some(sent.during_with(&action)?);
    }
    let Some(answer) = answer else {
        return Err(NatsError::failed(action(), "there is nothing to store"));
    };
    let ack: Ack = serde_json::from_slice(&answer.payload).during_with(&action)?;
    match (ack.error, ack.seq) {
        (Some(error), _) if is_code_of_outdated(error.err_code) => {
            Err(NatsError::Fenced(fence.subject.clone()))
        }
        (Some(error), _) if error.err_code == DUPLICATE_IN_BATCH => Ok(Stored::Before),
        (
            Some(AckError {
                err_code,
                description,
            }),
            _,
        ) => Err(NatsError::Refused {
            what: action(),
            source: description.into(),
            code: err_code,
        }),
        (None, Some(_)) if ack.duplicate => Ok(Stored::Before),
        (None, Some(last)) => Ok(Stored::Through(last)),
        (None, None) => Err(NatsError::failed(action(), "the answer has no sequence")),
    }
}
