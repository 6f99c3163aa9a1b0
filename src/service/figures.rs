//! Answers whoever asks all members what they count, over NATS: what each one shows Prometheus over HTTP.

use std::pin::pin;
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;

use super::Context;
use crate::headers;
use crate::nats::NatsError;
use crate::nats::subscription::lasting;

/// Answers until it is dropped.
pub async fn run(context: Context) {
    while let Err(error) = answer(&context).await {
        tracing::warn!(%error, "telling figures again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn answer(context: &Context) -> Result<(), NatsError> {
    let subject = context.nats.names.metrics();
    let queries = context.links.queries.live().await;
    let client = &queries.client;
    let failed = |error: &dyn std::fmt::Display| NatsError::failed(format!("answer {subject}"), error);
    let mut questions = pin!(lasting(&queries, subject.clone(), || client.subscribe(subject.clone())));
    while let Some(question) = questions.next().await {
        // Whoever may ask must not choose what Bellhop publishes to.
        let Some(reply) = question.reply.filter(|reply| !context.nats.names.is_reserved(reply)) else { continue };
        let mut headers = HeaderMap::new();
        headers.insert(headers::MEMBER, context.member.as_str());
        let sent = client.publish_with_headers(reply, headers, context.metrics.text().into()).await;
        sent.map_err(|error| failed(&error))?;
    }
    Err(failed(&"the subscription ended"))
}
