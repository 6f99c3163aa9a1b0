//! Refused input on its way to `BELLHOP_REJECTED`: untouched, with the reason in its headers.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use crate::event::OfSet;
use crate::headers;
use crate::log::split::RefusedReminder;
use crate::metrics::Metrics;
use crate::nats::headers::of_publisher;
use crate::nats::{Names, Nats, NatsError, chain};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::trace;
use crate::wire::cloud_event::is_about_events;

/// Bytes of its publisher's headers that a refused message keeps. JetStream takes 64 KiB of headers
/// with a message; the rest is for what Bellhop and `bellhop rejected requeue` add.
const PUBLISHER_BYTES: usize = 60 << 10;
/// Room that a refused message's own headers and subject need beside its body, at most.
const OWN_BYTES: usize = 4 << 10;
/// Pause before a truncated message is stored.
const CUT_PAUSE: Duration = Duration::from_millis(50);
/// Approximate bytes that JetStream adds to a stored message.
const RECORD_BYTES: usize = 64;

/// Keeps the headers that fit, those first that say what the message is, and returns them with the
/// number of the others.
fn fitting(headers: HeaderMap) -> (HeaderMap, usize) {
    let is_extra = |name: &str| !is_about_events(name) && !name.eq_ignore_ascii_case(trace::HEADER);
    let mut all: Vec<_> = headers
        .iter()
        .flat_map(|(name, values)| Some((name, values.first()?)))
        .collect();
    all.sort_by_key(|(name, _)| {
        (
            is_extra(name.as_ref()),
            AsRef::<str>::as_ref(*name).to_owned(),
        )
    });
    let mut room = PUBLISHER_BYTES;
    let fits = |(name, value): &(&HeaderName, &HeaderValue)| {
        let left = room.checked_sub(line_bytes(name.as_ref(), value.as_str()));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let kept: HeaderMap = all
        .iter()
        .copied()
        .filter(fits)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let cut = all.len() - kept.len();
    (kept, cut)
}

/// Bytes of a header on the wire.
fn line_bytes(name: &str, value: &str) -> usize {
    name.len() + value.len() + ": \r\n".len()
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
    /// Refused input of the source with this subject token. `id` makes repeats after a crash one
    /// message.
    pub fn new(
        names: &Names,
        source_token: &str,
        payload: Bytes,
        rejection: &Rejection,
        set: Option<&str>,
        id: String,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(headers::ERROR, rejection.code.as_str());
        headers.insert(headers::ERROR_DETAIL, rejection.detail.as_str());
        if let Some(set) = set {
            headers.insert(headers::SET, set);
        }
        Self {
            subject: names.rejected(source_token),
            headers,
            payload,
            id,
            code: rejection.code,
        }
    }

    /// Adds the id of the refused reminder.
    pub fn with_id(mut self, id: &str) -> Self {
        self.headers.insert(headers::ID, id);
        self
    }

    /// A reminder of a set that is refused.
    pub fn of_reminder(names: &Names, set: &OfSet, refused: &RefusedReminder) -> Self {
        let OfSet {
            source,
            id,
            sequence,
            published_ms,
            ..
        } = set;
        let RefusedReminder {
            place,
            id: own_id,
            raw,
            rejection,
            ..
        } = refused;
        // The time, too: after a loss of power, a sequence is given again.
        let message = format!("{sequence}@{published_ms}#{place}");
        Self::new(
            names,
            &source.escaped(),
            raw.clone(),
            rejection,
            Some(id),
            message,
        )
        .with_id(own_id)
    }

    /// With the headers that it was published with, as far as they are its publisher's and there is
    /// room for them: what it is may be shown there.
    pub fn with_headers_of(self, published: Option<&HeaderMap>) -> Self {
        let (mut headers, cut) = fitting(published.map(of_publisher).unwrap_or_default());
        if cut > 0 {
            headers.insert(headers::HEADERS_CUT, cut.to_string());
        }
        self.headers
            .iter()
            .for_each(|(name, values)| headers.insert(name.clone(), values[0].clone()));
        Self { headers, ..self }
    }

    /// Returns the subject to which it goes.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Bytes that it takes when it is stored, about.
    pub fn bytes(&self) -> usize {
        let lines = self
            .headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let headers: usize = lines
            .map(|(name, value)| line_bytes(name.as_ref(), value.as_str()))
            .sum();
        RECORD_BYTES + self.subject.len() + self.id.len() + headers + self.payload.len()
    }

    /// Stores it, however long JetStream is away. If JetStream does not accept it whole, since the
    /// server's `max_payload` was lowered meanwhile, it is truncated, and states its original size.
    pub async fn store(mut self, nats: &Nats, metrics: &Metrics) {
        let whole = self.payload.len();
        let mut room = whole.min(nats.client.max_payload().saturating_sub(OWN_BYTES));
        while let Err(error) = self.try_store(nats).await {
            tracing::error!(error = %chain(&error), subject = self.subject, whole, "refused input is too large to store, truncating it");
            self.headers.insert(headers::CUT, whole.to_string());
            self.payload.truncate(room);
            room /= 2;
            tokio::time::sleep(CUT_PAUSE).await;
        }
        metrics.rejected(self.code);
    }

    async fn try_store(&self, nats: &Nats) -> Result<(), NatsError> {
        let (headers, payload) = (self.headers.clone(), self.payload.clone());
        nats.store_if_possible(&self.subject, headers, payload, Some(&self.id))
            .await
    }
}
