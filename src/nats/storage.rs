//! The limit of each stream in bytes: a fixed share of `streams.storage`. nats-server reserves a
//! stream's limit when the stream is created. So a stream that others fill never takes the room
//! that Bellhop needs for its own.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::account::Account;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};

use super::names::bucket_stream;
use super::{Names, Nats, NatsError};

/// The storage of all streams together where `streams.storage` is 0: fits a volume of 10 GiB, and
/// most machines.
pub(super) const DEFAULT: usize = 4 << 30;
/// The least storage. With less, a stream could not hold a few of the largest messages.
pub(super) const LEAST: usize = 64 << 20;

/// The share of the storage for schedules, in percent. nats-server lets a stream with schedules
/// only drop its oldest, and those are promised; so it has no limit of nats-server's, and Bellhop
/// refuses schedules beyond this.
const SCHEDULES_PERCENT: usize = 10;

/// A stream's note of the limit that Bellhop gave it. An operator who changes the limit leaves the
/// note alone.
const LIMIT_KEY: &str = "bellhop.max_bytes";

/// Sets a stream's limit, and what happens at it.
pub(super) fn limit(stream: &mut StreamConfig, storage: usize, names: &Names) {
    let Some((percent, discard)) = share(&stream.name, names) else {
        return;
    };
    stream.max_bytes = i64::try_from(storage / 100 * percent).unwrap_or(i64::MAX);
    stream.discard = discard;
    stream
        .metadata
        .insert(LIMIT_KEY.to_owned(), stream.max_bytes.to_string());
}

/// Returns the storage of all streams together of which a stream has its share, if Bellhop has
/// given it its limit.
pub(super) fn in_use(stream: &StreamConfig, names: &Names) -> Option<usize> {
    let (percent, _) = share(&stream.name, names).filter(|_| has_limit_of_bellhop(stream))?;
    Some(usize::try_from(stream.max_bytes).ok()? / percent * 100)
}

/// Returns a stream's share of the storage, in percent, and what happens at its limit. Streams with
/// promised messages refuse new ones; what is kept to be looked at drops its oldest. The stream of
/// schedules has none.
fn share(stream: &str, names: &Names) -> Option<(usize, DiscardPolicy)> {
    use DiscardPolicy::{New, Old};
    let shares = [
        (names.log_stream(), 29, New),
        (names.parked_stream(), 25, New),
        (names.outcomes_stream(), 20, Old),
        (names.rejected_stream(), 5, Old),
        (names.seen_stream(), 4, Old),
        (bucket_stream(&names.routes_bucket()), 3, New),
        (bucket_stream(&names.associates_bucket()), 1, New),
        (bucket_stream(&names.rules_bucket()), 1, New),
        (bucket_stream(&names.members_bucket()), 1, New),
        (bucket_stream(&names.positions_bucket()), 1, New),
    ];
    debug_assert_eq!(
        shares.iter().map(|(_, percent, _)| percent).sum::<usize>(),
        100 - SCHEDULES_PERCENT
    );
    shares
        .into_iter()
        .find(|(name, ..)| name == stream)
        .map(|(_, percent, discard)| (percent, discard))
}

/// Returns the bytes that schedules may take: the part of the storage that no stream has as its
/// share. `storage` is the setting `streams.storage`; where it is 0, the limit of the stream of
/// sets says what was found to fit.
pub fn of_schedules(sets: Option<&StreamConfig>, storage: usize, names: &Names) -> u64 {
    let default = if storage == 0 { DEFAULT } else { storage };
    let storage = sets.and_then(|sets| in_use(sets, names)).unwrap_or(default);
    (storage / 100 * SCHEDULES_PERCENT) as u64
}

/// Returns a limit for the stream of schedules, where the account wants one of each stream: twice
/// of what Bellhop takes, so that it is not reached.
pub(super) fn beyond_schedules(storage: usize) -> i64 {
    i64::try_from(storage / 100 * SCHEDULES_PERCENT * 2).unwrap_or(i64::MAX)
}

/// Returns true if a stream's limit is the one that Bellhop gave it.
fn has_limit_of_bellhop(stream: &StreamConfig) -> bool {
    stream.metadata.get(LIMIT_KEY) == Some(&stream.max_bytes.to_string())
}

/// The wanted stream, with the limit that is there where it stays: one that an operator set, one
/// that Bellhop set unless it `resizes`, and one that is less than what the stream holds, since
/// that could drop messages.
pub(super) fn resized(
    there: &StreamConfig,
    held: u64,
    mut wanted: StreamConfig,
    resizes: bool,
) -> StreamConfig {
    let may_change = there.max_bytes < 0 || (has_limit_of_bellhop(there) && resizes);
    if !may_change || u64::try_from(wanted.max_bytes).is_ok_and(|limit| limit < held) {
        wanted.max_bytes = there.max_bytes;
        wanted.discard = there.discard;
        wanted.metadata.remove(LIMIT_KEY);
    }
    wanted
}

/// Returns true if JetStream refuses a stream with this code because there is no room for its
/// limit.
pub(super) fn is_lack(code: ErrorCode) -> bool {
    [
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED,
    ]
    .contains(&code)
}

/// Returns what the account uses and may use.
///
/// # Errors
/// When JetStream does not answer, or this user may not ask.
pub async fn account(nats: &Nats) -> Result<Account, NatsError> {
    let what = || "ask JetStream for the account".to_owned();
    let asked = nats
        .if_permitted("INFO", what, nats.jetstream.query_account())
        .await?;
    asked.map_err(|error| NatsError::failed(what(), error))
}

/// The error for a stream whose limit of `wanted` bytes has no room, with the limit that is too
/// small.
pub(super) async fn lack(nats: &Nats, what: String, wanted: i64, problem: &str) -> NatsError {
    let account = account(nats)
        .await
        .ok()
        .and_then(|account| account.limits.max_storage);
    let limit = match account.filter(|limit| *limit > 0) {
        Some(limit) => format!("the account may store {limit} bytes (its `max_file`)"),
        None => "the server has a `max_file_store`".to_owned(),
    };
    NatsError::NoRoom {
        what,
        wanted,
        limit,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(storage: usize) -> StreamConfig {
        let names = Names::new("bellhop");
        let mut stream = StreamConfig {
            name: names.parked_stream(),
            ..StreamConfig::default()
        };
        limit(&mut stream, storage, &names);
        stream
    }

    #[test]
    fn a_limit_of_bellhops_follows_the_setting() {
        let there = parked(1 << 30);
        assert_eq!(resized(&there, 0, parked(2 << 30), true), parked(2 << 30));
        assert_eq!(
            resized(&there, 0, parked(2 << 30), false).max_bytes,
            there.max_bytes
        );
        assert_eq!(
            resized(
                &StreamConfig {
                    max_bytes: -1,
                    ..there
                },
                0,
                parked(2 << 30),
                false
            ),
            parked(2 << 30)
        );
    }

    #[test]
    fn an_operators_limit_stays() {
        let there = StreamConfig {
            max_bytes: 7,
            discard: DiscardPolicy::Old,
            ..parked(1 << 30)
        };
        let merged = resized(&there, 0, parked(2 << 30), true);
        assert_eq!((merged.max_bytes, merged.discard), (7, DiscardPolicy::Old));
    }

    #[test]
    fn limit_is_never_below_usage() {
        let there = StreamConfig {
            max_bytes: -1,
            ..parked(1 << 30)
        };
        assert_eq!(
            resized(&there, 1 << 30, parked(1 << 30), true).max_bytes,
            -1
        );
    }
}
