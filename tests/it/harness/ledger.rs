//! Bellhop's public records: the streams of outcomes and of refused input.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::escape;

/// The outcomes of the contract, and whether each is final.
const OUTCOMES: [(&str, bool); 8] = [
    ("delivered", true),
    ("rerouted", true),
    ("merged", true),
    ("blocked", true),
    ("cancelled", true),
    ("expired", true),
    ("rejected", true),
    ("parked", false),
];

/// One outcome, as the contract writes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) set: String,
    pub(crate) user: Option<String>,
    pub(crate) outcome: String,
    pub(crate) at: String,
    pub(crate) instance: Option<String>,
    #[serde(default)]
    pub(crate) instances: Vec<String>,
    #[serde(default)]
    pub(crate) escalated: bool,
    pub(crate) into: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) rule: Option<String>,
}

impl Outcome {
    /// Returns true if no other outcome can follow.
    pub(crate) fn is_final(&self) -> bool {
        OUTCOMES.contains(&(&self.outcome, true))
    }
}

/// A message of the stream of refused input.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl Rejected {
    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        self.headers
            .get("Bellhop-Error")
            .map(|value| value.as_str())
            .unwrap_or_default()
    }

    /// Returns the detail of the refusal.
    pub(crate) fn detail(&self) -> &str {
        self.headers
            .get("Bellhop-Error-Detail")
            .map(|value| value.as_str())
            .unwrap_or_default()
    }
}

/// Follows a stream from its beginning, on demand.
pub(crate) struct Reader<T> {
    stream: Stream<()>,
    read: fn(StreamMessage) -> Vec<T>,
    /// The next sequence, and what was read before it.
    seen: Mutex<(u64, Vec<Arc<T>>)>,
}

impl<T> Reader<T> {
    pub(super) async fn new(
        jetstream: &Context,
        stream: &str,
        read: fn(StreamMessage) -> Vec<T>,
    ) -> Self {
        let stream = jetstream.get_stream_no_info(stream).await.unwrap();
        Self {
            stream,
            read,
            seen: Mutex::new((1, Vec::new())),
        }
    }

    /// Everything so far, oldest first. While the server is away, what was read before.
    pub(crate) async fn all(&self) -> Vec<Arc<T>> {
        let mut seen = self.seen.lock().await;
        let (next, all) = &mut *seen;
        while let Ok(message) = self.stream.direct_get(*next).await {
            all.extend((self.read)(message).into_iter().map(Arc::new));
            *next += 1;
        }
        all.clone()
    }
}

/// Reads a message of outcomes, and refuses what is none of the contract's.
pub(super) fn outcomes(message: StreamMessage) -> Vec<Outcome> {
    #[derive(Deserialize)]
    struct Batch {
        outcomes: Vec<Outcome>,
    }
    let text = String::from_utf8_lossy(&message.payload);
    let Batch { outcomes } =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    for outcome in &outcomes {
        assert!(
            OUTCOMES.iter().any(|(name, _)| *name == outcome.outcome),
            "{outcome:?} is none of the contract's"
        );
        assert_eq!(
            message.subject.as_str(),
            format!("bellhop.outcomes.{}", escape(&outcome.source))
        );
        instant(&outcome.at);
    }
    outcomes
}

/// Reads a message of refused input.
pub(super) fn rejected(message: StreamMessage) -> Vec<Rejected> {
    vec![Rejected {
        subject: message.subject.to_string(),
        headers: message.headers,
        payload: message.payload,
    }]
}

/// Reads a time, and refuses what is not RFC 3339 in UTC.
pub(crate) fn instant(text: &str) -> Timestamp {
    assert!(text.ends_with('Z'), "{text} is not in UTC");
    text.parse()
        .unwrap_or_else(|error| panic!("{text} is not RFC 3339: {error}"))
}
