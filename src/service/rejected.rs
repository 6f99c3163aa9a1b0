//! Refused input on its way to `BELLHOP_REJECTED`: untouched, with the reason in its headers.

use async_nats::HeaderMap;
use bytes::Bytes;

use crate::metrics::Metrics;
use crate::nats::{Names, Nats};
use crate::reminder::reject::{RejectCode, Rejection};

/// The header with the refusal's stable code.
pub const ERROR_HEADER: &str = "Bellhop-Error";
/// The header with what was wrong, for people.
pub const DETAIL_HEADER: &str = "Bellhop-Error-Detail";
/// The header with the set that a refused reminder came in.
pub const SET_HEADER: &str = "Bellhop-Set";
/// A set with this header was refused before: its reminders are no repeats. The value is the refused message's sequence.
pub const REQUEUE_HEADER: &str = "Bellhop-Requeue";

/// What a message's publisher says in its headers: all but what NATS and Bellhop act upon. Of several of one name, the first.
pub fn of_publisher(headers: &HeaderMap) -> HeaderMap {
    let is_ours = |name: &str| ["nats-", "bellhop-"].iter().any(|prefix| begins_with(name, prefix));
    let kept = headers.iter().filter(|(name, _)| !is_ours(name.as_ref()));
    kept.flat_map(|(name, values)| Some((name.clone(), values.first()?.clone()))).collect()
}

fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A message for the stream of refused input.
#[derive(Debug)]
pub struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    id: String,
    code: RejectCode,
}

impl Message {
    /// Refused input of the source with this subject token. `id` makes repeats after a crash one message.
    pub fn new(
        names: &Names,
        source_token: &str,
        payload: Bytes,
        rejection: &Rejection,
        set: Option<&str>,
        id: String,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ERROR_HEADER, rejection.code.as_str());
        headers.insert(DETAIL_HEADER, rejection.detail.as_str());
        if let Some(set) = set {
            headers.insert(SET_HEADER, set);
        }
        Self { subject: names.rejected(source_token), headers, payload, id, code: rejection.code }
    }

    /// With the headers that it was published with, as far as they are its publisher's: what it is may be told there.
    pub fn with_headers_of(self, published: Option<&HeaderMap>) -> Self {
        let mut headers = published.map(of_publisher).unwrap_or_default();
        self.headers.iter().for_each(|(name, values)| headers.insert(name.clone(), values[0].clone()));
        Self { headers, ..self }
    }

    /// Stores it, however long JetStream is away.
    pub async fn store(self, nats: &Nats, metrics: &Metrics) {
        nats.store_surely(&self.subject, self.headers, self.payload, Some(&self.id)).await;
        metrics.rejected(self.code);
    }
}
