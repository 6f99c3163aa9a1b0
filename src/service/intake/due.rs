//! Takes in what was scheduled and is due: it is published as a set, as if its business system did
//! so now. Reminders that were cancelled in time arrive in this way, too, and their outcomes are
//! recorded.
//!
//! It goes in the order of moments (`order.rs`). One user's reminders go one after the other, so
//! that one whose publish is repeated is not overtaken.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::batch_queues::BatchQueues;
use super::super::now_ms;
use super::super::outcomes::message::OutcomeEntry;
use super::super::unreadable::Origin as Strangers;
use super::order::{Moment, Order, QUIET};
use super::{Context, Question};
use crate::log::recurring;
use crate::metrics::SetAside;
use crate::nats::pinned::{Received, acknowledge};
use crate::nats::schedule::{self, PLACE, SET_TIME, Withdrawal};
use crate::nats::{NatsError, chain};
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::set::{self, Origin};
use crate::token::{Source, UserId};
use crate::trace;

/// Bytes pulled at a time.
const PULL_BYTES: usize = 2 << 20;
/// Users whose reminders are worked on at the same time.
pub(super) const AT_ONCE: usize = 256;
/// Bytes of what waits or is worked on: some fifty thousand small reminders. Reminders that came
/// due in an outage are sorted as far as they fit.
const HELD_BYTES: usize = 64 << 20;
/// Approximate bytes of a message besides its payload.
const MESSAGE_BYTES: usize = 1 << 10;

/// Takes in until `stop`.
///
/// # Errors
/// If it must be taken over again.
pub(super) async fn run(
    context: &Context,
    stop: CancellationToken,
    questions: mpsc::Sender<Question>,
) -> Result<(), NatsError> {
    let questions = &questions;
    let (nats, names) = (&context.owner.nats, &context.owner.nats.names);
    let pull_bytes = PULL_BYTES.max(2 * nats.client.max_payload());
    let input = context.input.clone();
    let origin = Strangers {
        stream: names.scheduled_stream(),
        consumer: names.due_consumer().to_owned(),
        subjects: names.all_due(),
        kind: SetAside::Due,
    };
    let mut due = origin.take_over(&input, pull_bytes).await?;
    let (mut batch_queues, mut held) = (BatchQueues::new(AT_ONCE), 0);
    let mut work = FuturesUnordered::new();
    let (mut order, mut is_stopping) = (Order::new(), false);
    let mut quiet_at = tokio::time::Instant::now();
    while !(is_stopping && work.is_empty()) {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !is_stopping => is_stopping = true,
            Some((destination, bytes)) = work.next(), if !work.is_empty() => {
                batch_queues.arrived(&destination);
                held -= bytes;
            }
            received = due.next(), if held < HELD_BYTES && !is_stopping => match received {
                Ok(received) => {
                    origin.arrived(&input, received.sequence);
                    held += bytes(&received);
                    quiet_at = tokio::time::Instant::now() + QUIET;
                    match Withdrawal::of(received.headers.as_ref()) {
                        None => order.hold(moment(&received), received.stored_ms(), received),
                        Some(_) => batch_queues.push(destination(&received), (), 1, received),
                    }
                    for received in order.take(false) {
                        batch_queues.push(destination(&received), (), 1, received);
                    }
                }
                Err(error) => {
                    origin.look_into(&input, &due).await?;
                    return Err(error);
                }
            },
            () = tokio::time::sleep_until(quiet_at), if !order.is_empty() && !is_stopping => {
                for received in order.take(true) {
                    batch_queues.push(destination(&received), (), 1, received);
                }
            }
        }
        while let Some((destination, load)) = if is_stopping {
            None
        } else {
            batch_queues.next(1)
        } {
            work.push(async move {
                let bytes = load.iter().map(bytes).sum::<usize>();
                for received in load {
                    take_in(context, received, questions).await;
                }
                (destination, bytes)
            });
        }
    }
    if let Err(error) = due.release().await {
        tracing::warn!(error = %chain(&error), "failed to release due reminders; the pin will time out");
    }
    Ok(())
}

fn bytes(received: &Received) -> usize {
    MESSAGE_BYTES + received.payload.len()
}

/// Returns where it goes one after the other: its source's subject, and its user.
fn destination(received: &Received) -> (String, String) {
    (received.subject.clone(), user(&received.payload))
}

/// Returns the moment at which it counts as published. Where that cannot be read, it is when it
/// came.
fn moment(received: &Received) -> Moment {
    let due_ns = only(&received.payload).and_then(|only| only.deliver_at);
    Moment {
        due_ns: due_ns.map_or(received.stored_ns, Timestamp::as_nanosecond),
        set_ns: schedule::set_time(received.headers.as_ref()).unwrap_or_default(),
        place: received
            .header(PLACE)
            .and_then(|place| place.parse().ok())
            .unwrap_or_default(),
    }
}

/// The one reminder of a set.
#[derive(Deserialize)]
struct Only {
    id: String,
    user: UserId,
    deliver_at: Option<Timestamp>,
}

fn only(set: &[u8]) -> Option<Only> {
    #[derive(Deserialize)]
    struct Set {
        reminders: [Only; 1],
    }
    let Set { reminders: [only] } = serde_json::from_slice(set).ok()?;
    Some(only)
}

/// Returns the user of the reminder of a set of one; an empty name where it cannot be read.
fn user(set: &[u8]) -> String {
    only(set).map_or_else(String::new, |only| only.user.to_string())
}

async fn take_in(context: &Context, received: Received, questions: &mpsc::Sender<Question>) {
    let token = received.subject.rsplit('.').next().unwrap_or_default();
    match (
        Source::from_token(token),
        Withdrawal::of(received.headers.as_ref()),
    ) {
        (Ok(source), None) => {
            let due_ms = received.stored_ms();
            if is_cancelled(&source, &received, due_ms, questions).await {
                record(context, source, &received).await;
            } else {
                go_out(context, &source, &received, questions).await;
            }
        }
        (Ok(source), Some(Withdrawal::Cancelled)) => record(context, source, &received).await,
        (Ok(_), Some(Withdrawal::Replaced)) => {}
        (Err(error), _) => {
            tracing::warn!(received.subject, error = %chain(&error), "due reminder without a source, skipped")
        }
    }
    if let Err(error) = acknowledge(&context.owner.nats, received.reply).await {
        tracing::warn!(error = %chain(&error), "failed to acknowledge a due reminder; it may be redelivered");
    }
}

/// Publishes a reminder, or an occurrence of a recurring one. Of that the next schedule is stored
/// first: after a crash between the two this comes due again, and the occurrence is known by its
/// id.
async fn go_out(
    context: &Context,
    source: &Source,
    received: &Received,
    questions: &mpsc::Sender<Question>,
) {
    let came = Timestamp::from_nanosecond(received.stored_ns).unwrap_or_default();
    let Some(due) = recurring::due(source, &received.payload, came) else {
        return publish(context, source, received, received.payload.clone()).await;
    };
    if let Some(next) = due.next {
        let (id, user) = (next.id.clone(), next.user.clone());
        schedule::schedule_next(&context.owner.nats, source, next, received.headers.as_ref()).await;
        // A cancellation that was taken in before has found no schedule. One that is taken in later
        // finds this one.
        if is_cancelled(source, received, i64::MAX, questions).await {
            let why = Withdrawal::Cancelled;
            schedule::withdraw_surely(&context.owner.nats, source, &id, &user, i128::MAX, why)
                .await;
        }
    }
    publish(context, source, received, due.occurrence).await;
}

/// Returns true if the reminder was cancelled after it was scheduled and before `due_ms`, by a set
/// that had not been taken in by then.
async fn is_cancelled(
    source: &Source,
    received: &Received,
    due_ms: i64,
    questions: &mpsc::Sender<Question>,
) -> bool {
    let Some(set_ns) = schedule::set_time(received.headers.as_ref()) else {
        return false;
    };
    let Some(Only { id, user, .. }) = only(&received.payload) else {
        return false;
    };
    let (answer, answered) = oneshot::channel();
    let source = source.clone();
    let scheduled_ms = i64::try_from(set_ns / 1_000_000).unwrap_or(i64::MAX);
    let _ = questions
        .send(Question {
            source,
            id,
            user,
            scheduled_ms,
            due_ms,
            answer,
        })
        .await;
    match answered.await {
        Ok(is_cancelled) => is_cancelled,
        // The role ends, and its next owner gets this again.
        Err(_) => std::future::pending().await,
    }
}

/// A repeat after a crash is known by the reminder's id. It has no message id: publishers write to
/// the same stream, and could have used it before.
async fn publish(context: &Context, source: &Source, received: &Received, set: Bytes) {
    let nats = &context.owner.nats;
    let mut headers = HeaderMap::new();
    for name in [trace::HEADER, SET_TIME] {
        received
            .header(name)
            .into_iter()
            .for_each(|value| headers.insert(name, value));
    }
    nats.store_surely(&nats.names.sets(source), headers, set, None)
        .await;
}

async fn record(context: &Context, source: Source, received: &Received) {
    let published_ms = received.stored_ms();
    let origin = Origin::new(source.clone(), received.sequence, published_ms);
    let Ok(set) = set::parse(&origin, &received.payload) else {
        return tracing::warn!(received.sequence, "cancelled message is not a set, skipped");
    };
    let entries = set.reminders.into_iter().map(|candidate| {
        let id = candidate.id().to_owned();
        let user = candidate.parsed.ok().map(|reminder| reminder.user);
        let (source, set, outcome) = (
            source.clone(),
            set.common.id.to_string(),
            Outcome::Cancelled,
        );
        let record = Record {
            id,
            source,
            set,
            user,
            outcome,
            at: now_ms(),
        };
        OutcomeEntry {
            record,
            published_ms,
            reminder: None,
            settles: None,
        }
    });
    let entries: Vec<_> = entries.collect();
    context.owner.recorder.record_all(&entries).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_of_a_single_reminder_is_read() {
        assert_eq!(
            user(br#"{"id":"s","reminders":[{"id":"a","user":"al\"ice","content":"c"}]}"#),
            "al\"ice"
        );
        assert_eq!(
            [&b"{}"[..], b"?", br#"{"reminders":[]}"#].map(user),
            ["", "", ""]
        );
    }
}
