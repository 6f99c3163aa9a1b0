//! Schedules what a set has for later, as far as there is room, and cancels what it cancels.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::outcomes::message::OutcomeEntry;
use super::super::{now_ms, rejected};
use super::Context;
use crate::event::OfSet;
use crate::log::Subscriber;
use crate::log::done::Done as Name;
use crate::log::split::{RefusedReminder, Scheduled, SetParts};
use crate::nats::schedule::{
    self, Room, Withdrawal, schedule, stored_bytes, under, withdraw, withdraw_surely,
};
use crate::nats::{Nats, NatsError, chain};
use crate::reminder::cancellation::Cancellation;
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::token::{Source, UserId};

/// Schedules stored, or taken back, at a time. A source's sets go one after the other, so it has no
/// more requests under way.
const AT_ONCE: usize = 256;
/// Pause before JetStream is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes back first: what a set cancels and has itself is replaced. Goes on until it is done,
/// however long JetStream is away. `set_ns` is when the set was stored, in nanoseconds since 1970.
pub(super) async fn carry_out(parts: SetParts, set_ns: i128, context: &Context) {
    let SetParts {
        set,
        cancel,
        replaced,
        scheduled,
        ..
    } = parts;
    let OfSet {
        source,
        sequence,
        trace,
        ..
    } = &*set;
    let nats = &context.owner.nats;
    let replace_one = |(id, user): (String, UserId)| async move {
        withdraw_surely(nats, source, &id, &user, set_ns, Withdrawal::Replaced).await;
    };
    stream::iter(replaced)
        .map(replace_one)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    let cancel_one = |one: Cancellation| async move {
        while let Err(error) = take_back(nats, source, &one, set_ns).await {
            tracing::warn!(error = %chain(&error), "failed to cancel a scheduled reminder, retrying");
            tokio::time::sleep(PAUSE).await;
        }
    };
    stream::iter(cancel)
        .map(cancel_one)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    if scheduled.is_empty() {
        return;
    }
    let room = room(context, source).await;
    let (scheduled, refused) = split(scheduled, room.left());
    let store = |scheduled: Scheduled| async move {
        let message_id = format!("{sequence} {} {}", scheduled.id, scheduled.user);
        schedule(nats, source, scheduled, set_ns, trace.as_ref(), &message_id).await;
    };
    stream::iter(scheduled)
        .map(store)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    if !refused.is_empty() {
        refuse(context, &set, &room, refused).await;
    }
}

/// Cancels the reminder of one user, or those of all users of an id.
async fn take_back(
    nats: &Nats,
    source: &Source,
    Cancellation { id, user }: &Cancellation,
    set_ns: i128,
) -> Result<(), NatsError> {
    let users = match user {
        Some(user) => vec![user.clone()],
        None => {
            let found = under(nats, source, id).await?;
            found.into_iter().map(|(user, _)| user).collect()
        }
    };
    for user in users {
        withdraw(nats, source, id, &user, set_ns, Withdrawal::Cancelled).await?;
    }
    Ok(())
}

/// Returns the room that there is for a source. Goes on asking, however long JetStream is away.
async fn room(context: &Context, source: &Source) -> Room {
    loop {
        match schedule::room(
            &context.owner.nats,
            context.owner.config.streams.storage,
            source,
        )
        .await
        {
            Ok(room) => return room,
            Err(error) => tracing::warn!(error = %chain(&error), "lookup failed, retrying"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns those that have room in so many bytes, and the others.
fn split(scheduled: Vec<Scheduled>, mut left: u64) -> (Vec<Scheduled>, Vec<Scheduled>) {
    scheduled.into_iter().partition(|one| {
        let rest = left.checked_sub(stored_bytes(one));
        left = rest.unwrap_or(left);
        rest.is_some()
    })
}

/// Records that there was no room for these. Their names in the outcomes say what is settled, so a
/// set that is read again after a crash does not schedule them.
async fn refuse(context: &Context, set: &OfSet, room: &Room, refused: Vec<Scheduled>) {
    let OfSet {
        source,
        id: name,
        sequence,
        published_ms,
        ..
    } = set;
    let Room {
        used,
        limit,
        is_crowding,
    } = room;
    let why = if *is_crowding {
        ", more than half of it this source's"
    } else {
        ""
    };
    let detail = format!(
        "{used} of {limit} bytes for scheduled reminders are used{why}; `bellhop scheduled ls` shows them"
    );
    let rejection = Rejection::new(RejectCode::ScheduledFull, detail);
    tracing::warn!(%source, reminders = refused.len(), %rejection, "reminders refused");
    let mut outcomes = Vec::with_capacity(refused.len());
    for Scheduled {
        id,
        user,
        set: json,
        place,
        ..
    } in refused
    {
        let (raw, user, rejection) = (reminder(&json), Some(user), rejection.clone());
        let refused = RefusedReminder {
            place,
            id,
            user,
            raw,
            rejection,
        };
        let message = rejected::Message::of_reminder(&context.owner.nats.names, set, &refused);
        message.store(&context.owner.nats, &context.metrics).await;
        let RefusedReminder { id, user, .. } = refused;
        let (source, set) = (source.clone(), name.clone());
        let outcome = Outcome::Rejected {
            error: RejectCode::ScheduledFull,
        };
        let record = Record {
            id,
            source,
            set,
            user,
            outcome,
            at: now_ms(),
        };
        let settles = Some((
            Subscriber::Sets,
            Name::Published {
                set: *sequence,
                stored_ms: *published_ms,
                place,
            },
        ));
        outcomes.push(OutcomeEntry {
            record,
            published_ms: *published_ms,
            reminder: None,
            settles,
        });
    }
    context.owner.recorder.record_all(&outcomes).await;
}

/// Returns the JSON of the reminder of a set of one, which Bellhop has written.
fn reminder(set: &[u8]) -> Bytes {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        reminders: [&'a RawValue; 1],
    }
    let Set { reminders: [raw] } = serde_json::from_slice(set).expect("Bellhop has written it");
    Bytes::copy_from_slice(raw.get().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduled(id: &str, bytes: usize) -> Scheduled {
        let at = "2030-01-01T00:00:00Z".parse().unwrap();
        Scheduled {
            id: id.to_owned(),
            user: "u".parse().unwrap(),
            at,
            set: vec![b' '; bytes].into(),
            place: 0,
        }
    }

    #[test]
    fn reminder_with_room_is_scheduled() {
        let left = stored_bytes(&scheduled("a", 1_000)) + stored_bytes(&scheduled("c", 10));
        let (fitting, refused) = split(
            vec![
                scheduled("a", 1_000),
                scheduled("b", 1_000),
                scheduled("c", 10),
            ],
            left,
        );
        let ids = |all: Vec<Scheduled>| all.into_iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(
            (ids(fitting), ids(refused)),
            (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()])
        );
    }

    #[test]
    fn single_reminder_is_read() {
        let raw =
            reminder(br#"{"id":"s","reminders":[{"id":"a","user":"al\"ice","content":"c"}]}"#);
        assert_eq!(&raw[..], br#"{"id":"a","user":"al\"ice","content":"c"}"#);
    }
}
