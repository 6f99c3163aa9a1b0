//! Takes in what was scheduled and is due: it is published as a set, as if its business system did so now. What was cancelled
//! in time comes this way, too, and is recorded.

use async_nats::HeaderMap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::super::outcomes::message::Told;
use super::super::{Context, now_ms};
use super::unreadable;
use crate::metrics::SetAside;
use crate::nats::NatsError;
use crate::nats::pinned::{Received, acknowledge};
use crate::nats::schedule::is_cancelled;
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::set::{self, Origin};
use crate::token::Source;
use crate::trace;

/// Bytes pulled at a time, and messages worked on at the same time.
const PULL_BYTES: usize = 2 << 20;
const AT_ONCE: usize = 256;

/// Takes in until `stop`.
///
/// # Errors
/// When it must be taken over anew.
pub(super) async fn run(context: &Context, stop: CancellationToken) -> Result<(), NatsError> {
    let (nats, names) = (&context.nats, &context.nats.names);
    let pull_bytes = PULL_BYTES.max(2 * nats.client.max_payload());
    let origin = unreadable::Origin {
        stream: names.scheduled_stream(),
        consumer: names.due_consumer().to_owned(),
        subjects: names.all_due(),
        kind: SetAside::Due,
    };
    let mut due = origin.take_over(context, pull_bytes).await?;
    let mut work = FuturesUnordered::new();
    let mut is_stopping = false;
    while !(is_stopping && work.is_empty()) {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !is_stopping => is_stopping = true,
            Some(()) = work.next(), if !work.is_empty() => {}
            received = due.next(), if work.len() < AT_ONCE && !is_stopping => match received {
                Ok(received) => {
                    origin.arrived(context, received.sequence);
                    work.push(take_in(context, received));
                }
                Err(error) => {
                    origin.look_into(context, &due).await?;
                    return Err(error);
                }
            },
        }
    }
    if let Err(error) = due.release().await {
        tracing::warn!(%error, "what is due is not released, the pin will run out");
    }
    Ok(())
}

async fn take_in(context: &Context, received: Received) {
    let token = received.subject.rsplit('.').next().unwrap_or_default();
    match Source::from_token(token) {
        Ok(source) if is_cancelled(received.headers.as_ref()) => record(context, source, &received).await,
        Ok(source) => publish(context, &source, &received).await,
        Err(error) => tracing::warn!(received.subject, %error, "due for no source, passed by"),
    }
    if let Err(error) = acknowledge(&context.nats, received.reply).await {
        tracing::warn!(%error, "what was due may come again");
    }
}

/// A repeat after a crash is the same set, by its message id.
async fn publish(context: &Context, source: &Source, received: &Received) {
    let nats = &context.nats;
    let mut headers = HeaderMap::new();
    if let Some(trace) = received.header(trace::HEADER) {
        headers.insert(trace::HEADER, trace);
    }
    let id = format!("due {}", received.sequence);
    nats.store_surely(&nats.names.sets(source), headers, received.payload.clone(), Some(&id)).await;
}

async fn record(context: &Context, source: Source, received: &Received) {
    let published_ms = received.stored_ms();
    let origin = Origin::new(source.clone(), received.sequence, published_ms);
    let Ok(set) = set::parse(&origin, &received.payload) else {
        return tracing::warn!(received.sequence, "cancelled, and no set, passed by");
    };
    let told = set.reminders.into_iter().map(|candidate| {
        let id = candidate.id().to_owned();
        let user = candidate.parsed.ok().map(|reminder| reminder.user);
        let (source, set, outcome) = (source.clone(), set.common.id.clone(), Outcome::Cancelled);
        let record = Record { id, source, set, user, outcome, at: now_ms() };
        Told { record, published_ms, reminder: None, settles: None }
    });
    context.recorder.record(told.collect()).await;
}
