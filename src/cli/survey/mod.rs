//! A snapshot of an installation, over one connection to NATS. `bellhop doctor` judges two of them,
//! a second apart, and `bellhop top` draws one after the other.
//!
//! It reads, and changes nothing. No consumer is made for it, so that it may be taken every second
//! of a busy installation.

mod identity;
mod routes;

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::ServerInfo;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::account::Account;
use async_nats::jetstream::consumer;
use async_nats::jetstream::context::{AccountErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::Info;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::scan::timestamp;
use crate::nats::bucket::last;
use crate::nats::{During, Nats, NatsError};
use crate::wire::member::MemberRecord;

pub(super) use identity::{Allowed, Identity, Permissions};
pub(super) use routes::Routes;

/// An installation at one moment.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    /// Time of the snapshot, by this machine's clock.
    pub(super) at: Timestamp,
    /// Time of the snapshot, by the server's clock.
    pub(super) server_time: Timestamp,
    /// Duration of the request for the server's time.
    pub(super) round_trip: Duration,
    /// The server of this connection.
    pub(super) server: ServerInfo,
    /// The identity of this connection for the server. A user may be kept from asking.
    pub(super) identity: Option<Identity>,
    /// The account's usage and limits. A user may be kept from asking.
    pub(super) account: Option<Account>,
    /// The installation's streams that there are, by name.
    pub(super) streams: BTreeMap<String, Info>,
    /// Those that nothing can be learnt of, and why.
    pub(super) silent: BTreeMap<String, String>,
    /// The consumers of the streams that Bellhop reads by consumers, with other programs'
    /// consumers.
    pub(super) consumers: Vec<consumer::Info>,
    /// The reminders in mailboxes.
    pub(super) parked: Parked,
    /// The members that the bucket knows, by name; those that are gone stay in it for a while.
    pub(super) members: BTreeMap<String, Member>,
}

/// The reminders in mailboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Parked {
    /// Reminders.
    pub(super) reminders: u64,
    /// Users whose mailboxes are not empty.
    pub(super) users: u64,
}

/// A member, by its own words.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// The member's record.
    pub(super) card: MemberRecord,
    /// Time of the record, by the server's clock.
    pub(super) last_word: Timestamp,
}

/// Members whose words are read: as many keys as JetStream answers for at once.
const MOST_MEMBERS: usize = 1_024;

impl Survey {
    /// Takes one.
    ///
    /// # Errors When JetStream does not answer. A missing object is not an error.
    pub(super) async fn take(nats: &Nats) -> Result<Self, NatsError> {
        let clock = identity::ask(nats).await?;
        let account = account(nats).await?;
        let (mut streams, mut silent) = (BTreeMap::new(), BTreeMap::new());
        let names = nats.names.streams();
        for (name, looked) in names
            .iter()
            .zip(join_all(names.iter().map(|name| look(nats, name))).await)
        {
            match looked {
                Ok(info) => streams.extend(info.map(|info| (name.clone(), info))),
                Err(problem) => silent.extend([(name.clone(), problem)]),
            }
        }
        let read = [
            nats.names.scheduled_stream(),
            nats.names.parked_stream(),
            nats.names.outcomes_stream(),
        ];
        let read = read.iter().filter(|name| streams.contains_key(*name));
        let consumers = join_all(read.map(|name| consumers(nats, name)))
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let parked = match streams.get(&nats.names.parked_stream()) {
            Some(info) => parked(nats, info).await?,
            None => Parked::default(),
        };
        let has_members = streams.contains_key(&crate::nats::names::bucket_stream(
            &nats.names.members_bucket(),
        ));
        Ok(Self {
            at: clock.at,
            server_time: clock.server_time,
            round_trip: clock.round_trip,
            server: nats.client.server_info(),
            identity: clock.identity,
            account,
            streams,
            silent,
            consumers: consumers.into_iter().flatten().collect(),
            parked,
            members: if has_members {
                members(nats).await?
            } else {
                BTreeMap::new()
            },
        })
    }

    /// Returns the server's name; without a configured one it is the server's id.
    pub(super) fn server_name(&self) -> String {
        let ServerInfo {
            server_name,
            server_id,
            host,
            port,
            ..
        } = &self.server;
        if server_name == server_id {
            format!("{host}:{port}")
        } else {
            server_name.clone()
        }
    }

    /// Returns the difference between the server's clock and this machine's; positive if the
    /// server's is ahead.
    pub(super) fn skew(&self) -> SignedDuration {
        self.server_time.duration_since(self.at)
    }

    /// The members that spoke within `ttl`.
    pub(super) fn alive(&self, ttl: Duration) -> impl Iterator<Item = (&String, &Member)> {
        self.members
            .iter()
            .filter(move |(_, member)| self.silence(member) <= ttl)
    }

    /// Returns the time since a member's last record.
    pub(super) fn silence(&self, member: &Member) -> Duration {
        Duration::try_from(self.server_time.duration_since(member.last_word)).unwrap_or_default()
    }

    /// Returns the age of the oldest message of a stream, if there is any.
    pub(super) fn oldest(&self, stream: &str) -> Option<Duration> {
        let state = &self.streams.get(stream)?.state;
        let stored = timestamp(state.first_timestamp.unix_timestamp_nanos());
        (state.messages > 0).then(|| {
            Duration::try_from(self.server_time.duration_since(stored)).unwrap_or_default()
        })
    }

    /// The messages of a stream; none where there is no stream.
    pub(super) fn messages(&self, stream: &str) -> u64 {
        self.streams
            .get(stream)
            .map_or(0, |info| info.state.messages)
    }

    /// The consumer of this stream and name.
    pub(super) fn consumer(&self, stream: &str, name: &str) -> Option<&consumer::Info> {
        self.consumers
            .iter()
            .find(|info| info.stream_name == stream && info.name == name)
    }
}

/// The account, unless this user may not ask: then there is no answer.
async fn account(nats: &Nats) -> Result<Option<Account>, NatsError> {
    match nats.jetstream.query_account().await {
        Ok(account) => Ok(Some(account)),
        Err(error) if error.kind() == AccountErrorKind::TimedOut => Ok(None),
        Err(error) => Err(NatsError::failed("ask JetStream for the account", error)),
    }
}

/// A stream, if there is one; else why it cannot be looked at.
async fn look(nats: &Nats, name: &str) -> Result<Option<Info>, String> {
    match nats.jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(error.to_string()),
        },
    }
}

async fn consumers(nats: &Nats, stream: &str) -> Result<Vec<consumer::Info>, NatsError> {
    let action = || format!("list the consumers of {stream}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    let mut infos: Vec<_> = handle.consumers().try_collect().await.during_with(action)?;
    infos.sort_by_cached_key(|info| (info.name.len(), info.name.clone())); // escalate-low before escalate-normal
    Ok(infos)
}

/// The stream of mailboxes has its owners' marks, too.
async fn parked(nats: &Nats, info: &Info) -> Result<Parked, NatsError> {
    let stream = nats
        .jetstream
        .get_stream_no_info(&info.config.name)
        .await
        .during("count the mailboxes")?;
    let marks = stream
        .info_builder()
        .subjects(nats.names.all_fences())
        .fetch()
        .await
        .during("count the mailboxes")?;
    let marks: Vec<_> = marks
        .map(|mark| mark.map(|(_, messages)| messages as u64))
        .try_collect()
        .await
        .during("count the mailboxes")?;
    Ok(Parked {
        reminders: info.state.messages.saturating_sub(marks.iter().sum()),
        users: info.state.subjects_count.saturating_sub(marks.len() as u64),
    })
}

/// The members that the bucket knows.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn members(nats: &Nats) -> Result<BTreeMap<String, Member>, NatsError> {
    let found = last(nats, &nats.names.members_bucket(), "*", MOST_MEMBERS).await?;
    let read = |found: crate::nats::bucket::StoredValue| {
        let card = serde_json::from_slice(&found.value).ok()?;
        Some((
            found.key,
            Member {
                card,
                last_word: found.at,
            },
        ))
    };
    Ok(found.into_iter().filter_map(read).collect())
}
