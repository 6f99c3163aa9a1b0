//! The metrics of this member over NATS: the same text that Prometheus gets over HTTP.

use std::pin::pin;
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;

use crate::headers;
use crate::metrics::Metrics;
use crate::nats::link::Link;
use crate::nats::subscription::lasting;
use crate::nats::{During, NatsError, chain};

/// Answers until it is dropped.
pub async fn run(queries: Link, member: String, metrics: Metrics) {
    while let Err(error) = answer(&queries, &member, &metrics).await {
        tracing::warn!(error = %chain(&error), "failed to publish metrics, retrying");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn answer(queries: &Link, member: &str, metrics: &Metrics) -> Result<(), NatsError> {
    let queries = queries.live().await;
    let subject = queries.names.metrics();
    let client = &queries.client;
    let action = || format!("answer {subject}");
    let mut questions = pin!(lasting(&queries, subject.clone(), || client
        .subscribe(subject.clone())));
    while let Some(question) = questions.next().await {
        // A user who may ask must not choose what Bellhop publishes to.
        let Some(reply) = question
            .reply
            .filter(|reply| !queries.names.is_reserved(reply))
        else {
            continue;
        };
        let mut headers = HeaderMap::new();
        headers.insert(headers::MEMBER, member);
        let sent = client
            .publish_with_headers(reply, headers, metrics.text().into())
            .await;
        sent.during_with(action)?;
    }
    Err(NatsError::failed(action(), "the subscription ended"))
}
