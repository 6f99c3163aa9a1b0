//! The streams of the versions before the log, and how what lies in them comes to where this
//! version looks.
//!
//! Those versions took published sets from a work queue, and put what they planned into a second
//! one. What lies there is theirs to finish. Mailboxes, outcomes, refused input and buckets stay
//! where they are. Scheduled reminders get other subjects.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{DeleteStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config as StreamConfig, Info};
use serde::Deserialize;

use super::error::is_code_of_outdated;
use super::topology::PARTITIONS_KEY;
use super::{During, Names, Nats, NatsError, header, log, positions, schedule};
use crate::log::Subscriber;
use crate::log::position::Position;
use crate::token::{Source, UserId};

/// The streams of the earlier version that this one does not use.
struct Former {
    /// Published sets.
    sets: String,
    /// The events that were planned for the partitions. It has the note of their number.
    events: String,
    /// Scheduled reminders: each had its source and id in its subject, and not its user.
    scheduled: String,
    /// A subject to which no system publishes.
    closed: String,
}

impl Former {
    fn of(names: &Names) -> Self {
        let (prefix, upper) = (names.prefix(), names.prefix().to_uppercase());
        Self {
            sets: format!("{upper}_SETS"),
            events: format!("{upper}_EVENTS"),
            scheduled: format!("{prefix}.scheduled.*.*"),
            closed: format!("{prefix}.upgrade"),
        }
    }
}

/// Returns the streams of an earlier version that are there.
///
/// # Errors
/// When JetStream does not answer.
pub async fn former_streams(nats: &Nats) -> Result<Vec<String>, NatsError> {
    let Former { sets, events, .. } = Former::of(&nats.names);
    let mut found = Vec::new();
    for name in [sets, events] {
        if info(nats, &name).await?.is_some() {
            found.push(name);
        }
    }
    Ok(found)
}

/// Returns how many partitions the installation has by the note of the earlier version, if that is
/// still there.
///
/// # Errors
/// When JetStream does not answer.
pub async fn noted_partitions(nats: &Nats) -> Result<Option<u16>, NatsError> {
    let found = info(nats, &Former::of(&nats.names).events).await?;
    let note = found.and_then(|found| found.config.metadata.get(PARTITIONS_KEY).cloned());
    Ok(note.and_then(|note| note.parse().ok()))
}

/// Stores no more sets in the stream of the earlier version: publishers get errors until the log is
/// there.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn close(nats: &Nats) -> Result<(), NatsError> {
    let Former { sets, closed, .. } = Former::of(&nats.names);
    let Some(found) = info(nats, &sets).await? else {
        return Ok(());
    };
    if found.config.subjects == [closed.clone()] {
        return Ok(());
    }
    let config = StreamConfig {
        subjects: vec![closed],
        ..found.config
    };
    nats.jetstream
        .update_stream(config)
        .await
        .map(drop)
        .during_with(|| format!("close {sets}"))
}

/// Returns how many messages the earlier version has not finished.
///
/// # Errors
/// When JetStream does not answer.
pub async fn unfinished(nats: &Nats) -> Result<u64, NatsError> {
    let Former { sets, events, .. } = Former::of(&nats.names);
    let mut left = 0;
    for name in [sets, events] {
        left += info(nats, &name)
            .await?
            .map_or(0, |found| found.state.messages);
    }
    Ok(left)
}

/// Gives each scheduled reminder the subject that this version looks for. Returns how many got it.
/// It may be repeated.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn move_schedules(nats: &Nats) -> Result<usize, NatsError> {
    let former = Former::of(&nats.names);
    let name = nats.names.scheduled_stream();
    let Some(found) = info(nats, &name).await? else {
        return Ok(0);
    };
    let subjects = vec![
        nats.names.all_scheduled(),
        former.scheduled.clone(),
        nats.names.all_due(),
    ];
    let action = || format!("move what is scheduled in {name}");
    let both = StreamConfig {
        subjects,
        ..found.config
    };
    nats.jetstream
        .update_stream(both)
        .await
        .during_with(action)?;
    let mut schedules = Vec::new();
    schedule::each(nats, &former.scheduled, |message, sequence| {
        schedules.push((message.clone(), sequence));
    })
    .await?;
    let stream = nats.jetstream.get_stream_no_info(&name).await;
    let stream = stream.during_with(action)?;
    let mut moved = 0;
    for (message, sequence) in schedules {
        let stored_at = header(message.headers.as_ref(), "Nats-Subject").unwrap_or_default();
        let Some(subject) = subject_of(&nats.names, stored_at, &message.payload) else {
            tracing::warn!(sequence, "not a scheduled reminder, left unchanged");
            continue;
        };
        let mut headers = HeaderMap::new();
        for name in schedule::HEADERS {
            header(message.headers.as_ref(), name)
                .into_iter()
                .for_each(|value| headers.insert(name, value));
        }
        // One that is there was moved by an earlier run.
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        match nats.store(subject, headers, message.payload).await {
            Ok(_) => moved += 1,
            Err(NatsError::Refused { code, .. }) if is_code_of_outdated(code) => {}
            Err(error) => return Err(error),
        }
        stream.delete_message(sequence).await.during_with(action)?;
    }
    Ok(moved)
}

/// Returns the subject for a scheduled reminder of the earlier version.
fn subject_of(names: &Names, subject: &str, set: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Only {
        id: String,
        user: UserId,
    }
    #[derive(Deserialize)]
    struct Set {
        reminders: [Only; 1],
    }
    let source = Source::from_token(subject.rsplit('.').nth(1)?).ok()?;
    let Set {
        reminders: [Only { id, user }],
    } = serde_json::from_slice(set).ok()?;
    Some(names.scheduled(&source, &id, &user))
}

/// Removes the streams of the earlier version, which are empty.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn remove(nats: &Nats) -> Result<(), NatsError> {
    let Former { sets, events, .. } = Former::of(&nats.names);
    for name in [sets, events] {
        match nats.jetstream.delete_stream(&name).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), DeleteStreamErrorKind::JetStream(problem) if problem.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
                {}
            Err(error) => return Err(NatsError::failed(format!("remove {name}"), error)),
        }
    }
    Ok(())
}

/// Has each of so many partitions, and the sets' role, begin at the front of the log and behind the
/// outcomes that there are: those name nothing of the log.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn begin_positions(nats: &Nats, partitions: u16) -> Result<(), NatsError> {
    let first = Position {
        outcomes: log::outcomes_state(nats, 0).await?.last,
        ..Position::first(log::state(nats, 0).await?.created_ns)
    };
    for subscriber in Subscriber::all(partitions) {
        match positions::write(nats, subscriber, &first, None).await {
            Ok(_) | Err(NatsError::Fenced(_)) => {} // A member that has begun knows better.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn info(nats: &Nats, name: &str) -> Result<Option<Info>, NatsError> {
    match nats.jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(problem)
                if problem.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(NatsError::failed(format!("look at stream {name}"), error)),
        },
    }
}
