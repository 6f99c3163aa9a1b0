//! Announces reminders that have been parked for long, so that a business system can reach their
//! users another way.
//!
//! Each is announced once, as an outcome `parked` with `escalated`. The message id is made of the
//! parked message's sequence, so a repeat after a crash, or by two members that both believe it to
//! be theirs, is dropped by JetStream.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::now_ms;
use super::outcomes::message::{OutcomeEntry, Outcomes, encode};
use crate::config::Config;
use crate::event::Event;
use crate::nats::aging::{Aged, Aging};
use crate::nats::{Nats, NatsError};
use crate::partition::Role;
use crate::reminder::Priority;
use crate::reminder::outcome::{Outcome, Record};

/// Announces until `stop`.
///
/// # Errors
/// If it must be taken over again.
pub async fn run(
    config: Arc<Config>,
    nats: Nats,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let _ = working.send(Role::Escalation).await;
    let limits = config.mailbox.escalate_after.limits();
    let announcing = limits.map(|(priority, after)| announce_all(&config, &nats, priority, after));
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        // Without any limit there is nothing to announce, and the role is held all the same.
        ended = async { try_join_all(announcing).await?; std::future::pending().await } => ended,
    }
}

async fn announce_all(
    config: &Config,
    nats: &Nats,
    priority: Priority,
    after: Duration,
) -> Result<(), NatsError> {
    let mut aging = Aging::take_over(nats, priority, after).await?;
    loop {
        let aged = aging.next().await?;
        announce(config, nats, &aged).await;
        aging.finish(aged).await?;
    }
}

async fn announce(
    config: &Config,
    nats: &Nats,
    Aged {
        sequence, message, ..
    }: &Aged,
) {
    let event = match Event::decode(message) {
        Ok(event) if event.index.reminders.len() == 1 => event,
        // Its partition sets it aside when it reads the mailbox.
        _ => return tracing::warn!(sequence, "not a parked reminder, skipped"),
    };
    let (set, reminder) = (event.set_of(0), &event.index.reminders[0]);
    let record = Record {
        id: reminder.id.clone(),
        source: set.source.clone(),
        set: set.id.clone(),
        user: Some(reminder.user.clone()),
        outcome: Outcome::Parked { escalated: true },
        at: now_ms(),
    };
    let entry = OutcomeEntry {
        record,
        published_ms: set.published_ms,
        reminder: None,
        settles: None,
    };
    let outcomes = Outcomes::of(&[entry], config.history.is_on());
    let (headers, body) = encode(&outcomes.into_parts());
    let id = format!("escalated {sequence}");
    nats.store_surely(&nats.names.outcomes(&set.source), headers, body, Some(&id))
        .await;
}
