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

    /// Stores it, however long JetStream is away.
    pub async fn store(self, nats: &Nats, metrics: &Metrics) {
        nats.store_surely(&self.subject, self.headers, self.payload, Some(&self.id)).await;
        metrics.rejected(self.code);
    }
}
