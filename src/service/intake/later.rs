//! Schedules what a set has for later, as far as there is room, and cancels what it cancels.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::outcomes::message::Told;
use super::super::recorded::Settled;
use super::super::{Context, now_ms, rejected};
use super::plan::Later;
use crate::event::OfSet;
use crate::nats::chain;
use crate::nats::schedule::{self, Room, Scheduled, Withdrawal, schedule, withdraw};
use crate::partition::of_user;
use crate::reminder::outcome::{Outcome, Record};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::token::{Source, UserId};

/// Schedules stored, or taken back, at a time. A source's sets go one after the other, so it has no more requests under way.
const AT_ONCE: usize = 256;
/// How long to wait until JetStream is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes back first: what a set cancels and has itself is replaced. Goes on until it is done, however long JetStream is away.
pub(super) async fn carry_out(later: Later, context: &Context) {
    let Later {
        set,
        set_ns,
        cancel,
        replaced,
        scheduled,
    } = later;
    let OfSet {
        source,
        sequence,
        trace,
        ..
    } = &*set;
    let nats = &context.nats;
    let of = |ids: Vec<String>, why| ids.into_iter().map(move |id| (id, why));
    let withdrawals = of(cancel, Withdrawal::Cancelled).chain(of(replaced, Withdrawal::Replaced));
    let take_back = |(id, why): (String, Withdrawal)| async move {
        while let Err(error) = withdraw(nats, source, &id, set_ns, why).await {
            tracing::warn!(error = %chain(&error), "trying again");
            tokio::time::sleep(PAUSE).await;
        }
    };
    stream::iter(withdrawals)
        .map(take_back)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    if scheduled.is_empty() {
        return;
    }
    let room = room(context, source).await;
    let (scheduled, refused) = split(scheduled, room.left());
    let store = |scheduled: Scheduled| async move {
        let message_id = format!("{sequence} {}", scheduled.id);
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

/// Returns the room that there is for a source. Goes on asking, however long JetStream is away.
async fn room(context: &Context, source: &Source) -> Room {
    loop {
        match schedule::room(&context.nats, context.config.streams.storage, source).await {
            Ok(room) => return room,
            Err(error) => tracing::warn!(error = %chain(&error), "asking again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns those that have room in so many bytes, and the others.
fn split(scheduled: Vec<Scheduled>, mut left: u64) -> (Vec<Scheduled>, Vec<Scheduled>) {
    scheduled.into_iter().partition(|one| {
        let rest = left.checked_sub(one.bytes());
        left = rest.unwrap_or(left);
        rest.is_some()
    })
}

/// Records that there was no room for these. Their place in the set says what is settled, so a set that is planned again after
/// a crash does not schedule them.
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
    tracing::warn!(%source, reminders = refused.len(), %rejection, "not scheduled");
    let mut outcomes = Vec::with_capacity(refused.len());
    for Scheduled {
        id,
        set: json,
        place,
        ..
    } in refused
    {
        let (raw, user) = reminder(&json);
        let message_id = format!("{sequence}#{place}");
        let message = rejected::Message::new(
            &context.nats.names,
            &source.escaped(),
            raw,
            &rejection,
            Some(name),
            message_id,
        );
        message.store(&context.nats, &context.metrics).await;
        let partition = of_user(&user, context.config.partitions);
        let (source, set) = (source.clone(), name.clone());
        let outcome = Outcome::Rejected {
            error: rejection.code,
        };
        let record = Record {
            id,
            source,
            set,
            user: Some(user),
            outcome,
            at: now_ms(),
        };
        let settles = Some((
            partition,
            Settled::Published {
                set: *sequence,
                place,
            },
        ));
        outcomes.push(Told {
            record,
            published_ms: *published_ms,
            reminder: None,
            settles,
        });
    }
    context.recorder.record(outcomes).await;
}

/// Returns the JSON and the user of the reminder of a set of one, which Bellhop has written.
fn reminder(set: &[u8]) -> (Bytes, UserId) {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        reminders: [&'a RawValue; 1],
    }
    #[derive(Deserialize)]
    struct Reminder {
        user: UserId,
    }
    let Set { reminders: [raw] } = serde_json::from_slice(set).expect("Bellhop has written it");
    let Reminder { user } = serde_json::from_str(raw.get()).expect("it was validated");
    (Bytes::copy_from_slice(raw.get().as_bytes()), user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduled(id: &str, bytes: usize) -> Scheduled {
        let at = "2030-01-01T00:00:00Z".parse().unwrap();
        Scheduled {
            id: id.to_owned(),
            at,
            set: vec![b' '; bytes].into(),
            place: 0,
        }
    }

    #[test]
    fn what_has_room_is_scheduled() {
        let left = scheduled("a", 1_000).bytes() + scheduled("c", 10).bytes();
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
    fn the_reminder_of_a_set_of_one_is_read() {
        let (raw, user) =
            reminder(br#"{"id":"s","reminders":[{"id":"a","user":"al\"ice","content":"c"}]}"#);
        assert_eq!(
            (&raw[..], user.as_str()),
            (
                &br#"{"id":"a","user":"al\"ice","content":"c"}"#[..],
                "al\"ice"
            )
        );
    }
}
