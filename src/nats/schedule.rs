//! Reminders that are to be delivered later. nats-server holds each as a schedule, one for each
//! source and id, and when it is time puts it onto its source's subject of what is due, in the same
//! stream (nats-server 2.12, ADR-51).

use std::time::Duration;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{HeaderMap, Message};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{During, Nats, NatsError, chain, direct, header, is_outdated, raw, storage};
use crate::log::split::Scheduled;
use crate::token::{Source, UserId};
use crate::trace::{self, TraceParent};

/// Maximum number of schedules, and of bytes, that one request reads.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;
/// Pause before JetStream is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// The time at which a message is to be published.
const SCHEDULE: &str = "Nats-Schedule";
/// The subject to which it is to be published.
const TARGET: &str = "Nats-Schedule-Target";
/// The time at which the schedule's set was published, in nanoseconds since 1970. Due reminders
/// have it, too.
pub const SET_TIME: &str = "Bellhop-Set-Time";
/// The place that a scheduled or due reminder has in its set.
pub const PLACE: &str = "Bellhop-Place";
/// It is not to be delivered when it is due: it was taken back.
const CANCELLED: &str = "Bellhop-Cancelled";

/// All of these, and the trace: what a schedule consists of beside its set.
pub(super) const HEADERS: [&str; 6] = [SCHEDULE, TARGET, SET_TIME, PLACE, CANCELLED, trace::HEADER];

/// The reason why a scheduled reminder is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// Its business system cancelled it: that is its outcome.
    Cancelled,
    /// Its business system published it again: its outcome is the later one's.
    Replaced,
}

impl Withdrawal {
    /// The values of the header.
    const VALUES: [(Self, &str); 2] = [(Self::Cancelled, "true"), (Self::Replaced, "replaced")];

    /// Returns why a message that is scheduled or due was taken back, by its headers; none if it
    /// was not.
    pub fn of(headers: Option<&HeaderMap>) -> Option<Self> {
        let found = header(headers, CANCELLED)?;
        Some(
            Self::VALUES
                .iter()
                .find(|(_, value)| *value == found)
                .map_or(Self::Cancelled, |(why, _)| *why),
        )
    }

    fn value(self) -> &'static str {
        Self::VALUES[self as usize].1
    }
}

/// Returns the bytes that a scheduled reminder takes in its stream, about.
pub fn stored_bytes(scheduled: &Scheduled) -> u64 {
    (scheduled.set.len() + scheduled.id.len() + RECORD_BYTES) as u64
}

/// Approximate bytes of a stored schedule besides the reminder and its id: its subject, its
/// headers, and JetStream's own.
const RECORD_BYTES: usize = 300;

/// The room for more that a source may schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that all schedules take.
    pub used: u64,
    /// Bytes that they may take.
    pub limit: u64,
    /// More than half of it is used, and more than half of all scheduled reminders are this
    /// source's. So it may add none: room is left for the others.
    pub is_crowding: bool,
}

impl Room {
    /// Returns the bytes that the source may add.
    pub fn left(&self) -> u64 {
        if self.is_crowding {
            0
        } else {
            self.limit.saturating_sub(self.used)
        }
    }
}

/// Returns the room for more that a source may schedule, now.
///
/// # Errors
/// When JetStream does not answer.
pub async fn room(nats: &Nats, storage: usize, source: &Source) -> Result<Room, NatsError> {
    let info = async |stream| {
        nats.jetstream
            .get_stream(stream)
            .await
            .during("look at what is scheduled")
    };
    let (log, scheduled) = tokio::try_join!(
        info(nats.names.log_stream()),
        info(nats.names.scheduled_stream())
    )?;
    let limit = storage::of_schedules(Some(&log.cached_info().config), storage, &nats.names);
    let state = &scheduled.cached_info().state;
    let mut room = Room {
        used: state.bytes,
        limit,
        is_crowding: false,
    };
    // While less is used, no source can have taken more than half.
    if room.used > limit / 2 {
        let subjects = nats.names.scheduled_of(source);
        room.is_crowding = 2 * count(nats, &subjects).await? > state.messages;
    }
    Ok(room)
}

/// Returns the number of schedules under these subjects. Each subject has one.
async fn count(nats: &Nats, subjects: &str) -> Result<u64, NatsError> {
    #[derive(Deserialize)]
    struct Counted {
        #[serde(default)]
        total: u64,
    }
    // A page far behind the last one has no names, and says how many there are.
    let request = json!({ "subjects_filter": subjects, "offset": u32::MAX });
    let asked = nats
        .jetstream
        .request(
            format!("STREAM.INFO.{}", nats.names.scheduled_stream()),
            &request,
        )
        .await;
    match asked.during("count what is scheduled")? {
        Response::Ok(Counted { total }) => Ok(total),
        Response::Err { error } => Err(NatsError::failed("count what is scheduled", error)),
    }
}

/// Schedules a reminder, in place of an earlier one of this source, id and user. `set_ns` is when
/// its set was published, and `message_id` makes repeats one.
pub async fn schedule(
    nats: &Nats,
    source: &Source,
    scheduled: Scheduled,
    set_ns: i128,
    trace: Option<&TraceParent>,
    message_id: &str,
) {
    let mut headers = HeaderMap::new();
    headers.insert(SCHEDULE, format!("@at {}", scheduled.at));
    headers.insert(TARGET, nats.names.due(source));
    headers.insert(SET_TIME, set_ns.to_string());
    headers.insert(PLACE, scheduled.place.to_string());
    if let Some(trace) = trace {
        headers.insert(trace::HEADER, trace.to_string());
    }
    nats.store_surely(
        &nats.names.scheduled(source, &scheduled.id, &scheduled.user),
        headers,
        scheduled.set,
        Some(message_id),
    )
    .await;
}

/// Schedules the next occurrence of a recurring reminder that came due with these headers, however
/// long JetStream is away. A schedule that a later set stored stays as it is, and so does one that
/// was taken back.
pub async fn schedule_next(nats: &Nats, source: &Source, next: Scheduled, due: Option<&HeaderMap>) {
    let set_ns = set_time(due).unwrap_or_default();
    let mut headers = HeaderMap::new();
    headers.insert(SCHEDULE, format!("@at {}", next.at));
    headers.insert(TARGET, nats.names.due(source));
    for name in [SET_TIME, PLACE, trace::HEADER] {
        header(due, name)
            .into_iter()
            .for_each(|value| headers.insert(name, value));
    }
    let subject = nats.names.scheduled(source, &next.id, &next.user);
    let store_once = async || -> Result<bool, NatsError> {
        let found = find(nats, source, &next.id, &next.user).await?;
        let last = match &found {
            None => 0,
            Some(found) => {
                let headers = Some(&found.headers);
                // After a kill nats-server may still have the one that came due.
                let is_earlier = set_time(headers).is_none_or(|at| at <= set_ns)
                    && Withdrawal::of(headers).is_none()
                    && due_at(headers).is_some_and(|at| at < next.at);
                if !is_earlier {
                    return Ok(true);
                }
                found.sequence
            }
        };
        let mut headers = headers.clone();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
        let set = next.set.clone();
        let sent = nats
            .jetstream
            .publish_with_headers(subject.clone(), headers, set);
        let action = "schedule the next occurrence";
        match sent.await.during(action)?.await {
            Ok(_) => Ok(true),
            Err(error) if is_outdated(&error) => Ok(false),
            Err(error) => Err(NatsError::failed(action, error)),
        }
    };
    loop {
        match store_once().await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to schedule the next occurrence, retrying");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes a scheduled reminder back as [`withdraw`] does, however long JetStream is away.
pub async fn withdraw_surely(
    nats: &Nats,
    source: &Source,
    id: &str,
    user: &UserId,
    before_ns: i128,
    why: Withdrawal,
) {
    while let Err(error) = withdraw(nats, source, id, user, before_ns, why).await {
        tracing::warn!(error = %chain(&error), "failed to withdraw a scheduled reminder, retrying");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes a scheduled reminder back, if a set published before `before_ns` scheduled it and it is
/// not due yet. It comes due at once, marked as taken back: so the recorder cannot miss it.
///
/// # Errors
/// When JetStream does not answer. It may be repeated.
pub async fn withdraw(
    nats: &Nats,
    source: &Source,
    id: &str,
    user: &UserId,
    before_ns: i128,
    why: Withdrawal,
) -> Result<(), NatsError> {
    let action = || format!("take back the scheduled reminder {id} of {source}");
    let subject = nats.names.scheduled(source, id, user);
    while let Some(found) = find(nats, source, id, user).await? {
        let is_before = set_time(Some(&found.headers)) < Some(before_ns);
        if !is_before || Withdrawal::of(Some(&found.headers)).is_some() {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        for name in [TARGET, SET_TIME, trace::HEADER] {
            header(Some(&found.headers), name)
                .into_iter()
                .for_each(|value| headers.insert(name, value));
        }
        headers.insert(SCHEDULE, format!("@at {}", Timestamp::UNIX_EPOCH));
        headers.insert(CANCELLED, why.value());
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            found.sequence.to_string(),
        );
        let sent = nats
            .jetstream
            .publish_with_headers(subject.clone(), headers, found.payload)
            .await;
        match sent.during_with(action)?.await {
            Ok(_) => return Ok(()),
            Err(error) if is_outdated(&error) => {} // It came due, or there is a newer one.
            Err(error) => return Err(NatsError::failed(action(), error)),
        }
    }
    Ok(())
}

/// Returns for whom a reminder of this id is scheduled, with the headers of each, by the word of
/// the stream's leader.
///
/// # Errors
/// When JetStream does not answer.
pub async fn under(
    nats: &Nats,
    source: &Source,
    id: &str,
) -> Result<Vec<(UserId, HeaderMap)>, NatsError> {
    let (stream, subjects) = (
        nats.names.scheduled_stream(),
        nats.names.scheduled_under(source, id),
    );
    let (mut found, mut from) = (Vec::new(), 1);
    while let Some(message) = raw::next(nats, &stream, &subjects, from).await? {
        from = message.sequence + 1;
        let user = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| UserId::from_token(token).ok());
        found.extend(user.zip(message.read_headers().ok()));
    }
    Ok(found)
}

/// A scheduled reminder that is not due yet, as it is stored.
///
/// # Errors
/// When JetStream does not answer.
pub async fn find(
    nats: &Nats,
    source: &Source,
    id: &str,
    user: &UserId,
) -> Result<Option<StreamMessage>, NatsError> {
    let stream = nats
        .jetstream
        .get_stream_no_info(nats.names.scheduled_stream())
        .await;
    let stream = stream.during("look for a scheduled reminder")?;
    match stream
        .get_last_raw_message_by_subject(&nats.names.scheduled(source, id, user))
        .await
    {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(NatsError::failed("look for a scheduled reminder", error)),
    }
}

/// Passes everything that is scheduled under these subjects to `each`, with its sequence, in the
/// order in which it was stored.
///
/// Consumers of a work queue share its messages; so it is read without one.
///
/// # Errors
/// When JetStream does not answer.
pub async fn each(
    nats: &Nats,
    subjects: &str,
    mut each: impl FnMut(&Message, u64),
) -> Result<(), NatsError> {
    let stream = nats.names.scheduled_stream();
    let mut from = 1;
    loop {
        let (page, is_last) = direct::page(nats, &stream, subjects, from, PAGE, PAGE_BYTES).await?;
        for message in &page {
            let malformed = || NatsError::failed(format!("read {stream}"), "it is malformed");
            let sequence = direct::sequence(message).ok_or_else(malformed)?;
            each(message, sequence);
            from = sequence + 1;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Returns the due time of a scheduled message, from its headers; none if it is not scheduled.
pub fn due_at(headers: Option<&HeaderMap>) -> Option<Timestamp> {
    header(headers, SCHEDULE)?
        .strip_prefix("@at ")?
        .parse()
        .ok()
}

/// Returns when the set was published that a scheduled or due message comes from, in nanoseconds
/// since 1970, by its headers.
pub fn set_time(headers: Option<&HeaderMap>) -> Option<i128> {
    header(headers, SET_TIME)?.parse().ok()
}
