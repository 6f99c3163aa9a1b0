//! JetStream's part of changing the number of partitions: the installation's note of their number,
//! a hold of the log, and the move of mailboxes to another partition.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;

use super::mailbox::{Mailboxes, Parking, purge};
use super::topology::{PARTITIONS_KEY, SPREAD_KEY};
use super::{During, Nats, NatsError, bucket, positions};
use crate::event::Event;
use crate::log::Subscriber;
use crate::log::done::{AllDone, Done};
use crate::log::position::{Mark, Position};
use crate::partition::Partition;
use crate::reminder::Priority;
use crate::router::MailboxSummary;
use crate::token::UserId;

/// Reminders and
const PAGE_REMINDERS: usize = 500;
/// bytes carried at a time.
const PAGE_BYTES: usize = 1 << 20;
/// Removals under way at a time.
const REMOVALS_IN_FLIGHT: usize = 32;

/// The installation's note of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Under the numbers of how many its mailboxes lie.
    pub partitions: u16,
    /// While that is being changed: mailboxes may lie under the numbers of so many. No member
    /// starts meanwhile.
    pub spread: Option<u16>,
}

async fn log(nats: &Nats) -> Result<Stream, NatsError> {
    let stream = nats.jetstream.get_stream(nats.names.log_stream()).await;
    stream.during("look at the log of sets")
}

/// Reads the note.
///
/// # Errors
/// When there is no installation, or JetStream does not answer.
pub async fn noted(nats: &Nats) -> Result<Noted, NatsError> {
    let metadata = log(nats).await?.cached_info().config.metadata.clone();
    let number = |key| {
        metadata
            .get(key)
            .and_then(|text: &String| text.parse().ok())
    };
    let partitions = number(PARTITIONS_KEY);
    let partitions = partitions
        .ok_or("no number of partitions is noted")
        .during("look at the log of sets")?;
    Ok(Noted {
        partitions,
        spread: number(SPREAD_KEY),
    })
}

/// Writes the note.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn note(nats: &Nats, noted: Noted) -> Result<(), NatsError> {
    let mut config = log(nats).await?.cached_info().config.clone();
    config
        .metadata
        .insert(PARTITIONS_KEY.to_owned(), noted.partitions.to_string());
    match noted.spread {
        Some(spread) => config
            .metadata
            .insert(SPREAD_KEY.to_owned(), spread.to_string()),
        None => config.metadata.remove(SPREAD_KEY),
    };
    nats.jetstream
        .update_stream(config)
        .await
        .map(drop)
        .during("note the partitions")
}

/// Has members read no further than this sequence of the log, for a while; none lets them go on.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn hold(nats: &Nats, at: Option<u64>) -> Result<(), NatsError> {
    positions::hold(nats, at).await
}

/// Returns the sequence of the last set.
///
/// # Errors
/// When JetStream does not answer.
pub async fn last_set(nats: &Nats) -> Result<u64, NatsError> {
    Ok(super::log::state(nats, 0).await?.last)
}

/// Returns the sequences up to which every partition, and up to which any partition, has settled
/// the log.
///
/// # Errors
/// When JetStream does not answer.
pub async fn settled(nats: &Nats, partitions: u16) -> Result<(u64, u64), NatsError> {
    let found: BTreeMap<_, _> = positions::all(nats)
        .await?
        .into_iter()
        .map(|(subscriber, position, _)| (subscriber, position))
        .collect();
    let settled = |subscriber| {
        found
            .get(&subscriber)
            .map_or(0, |position| position.settled.sequence)
    };
    let (mut lowest, mut highest) = (u64::MAX, 0);
    for sequence in Subscriber::all(partitions).map(settled) {
        (lowest, highest) = (lowest.min(sequence), highest.max(sequence));
    }
    Ok((lowest, highest))
}

/// Gives each of so many partitions, and the sets' role, the position that all partitions of before
/// have.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn move_positions(nats: &Nats, to: u16) -> Result<(), NatsError> {
    let found = positions::all(nats).await?;
    let Some(highest) = found
        .iter()
        .map(|(_, position, _)| position)
        .max_by_key(|position| position.settled)
    else {
        return Ok(()); // Nothing was ever worked.
    };
    let outcomes = super::log::outcomes_state(nats, 0).await?.last;
    let position = Position {
        outcomes,
        owner: None,
        ..highest.clone()
    };
    for subscriber in Subscriber::all(to) {
        let revision = positions::read(nats, subscriber)
            .await?
            .map(|found| found.revision);
        positions::write(nats, subscriber, &position, revision).await?;
    }
    Ok(())
}

/// Members that have not taken their leave, and have not been silent for so long that the bucket
/// forgot them.
///
/// # Errors
/// When JetStream does not answer.
pub async fn members(nats: &Nats) -> Result<Vec<String>, NatsError> {
    let found = bucket::last(nats, &nats.names.members_bucket(), "*", 1_024).await?;
    Ok(found.into_iter().map(|member| member.key).collect())
}

/// The mailboxes of one partition, as the repartitioning finds them.
pub struct MailboxStore {
    nats: Nats,
    partition: Partition,
    mailboxes: Mailboxes,
    /// The mailboxes there.
    pub found: BTreeMap<UserId, MailboxSummary>,
}

impl MailboxStore {
    /// Opens the partition's mailboxes. From here on no earlier owner can append to them.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn open(nats: &Nats, partition: Partition) -> Result<Self, NatsError> {
        let mailboxes =
            Mailboxes::take_over(nats, partition, "repartition", REMOVALS_IN_FLIGHT).await?;
        let found = mailboxes
            .find(
                Mark {
                    sequence: u64::MAX,
                    stored_ms: i64::MAX,
                },
                &AllDone::default(),
            )
            .await?
            .mailboxes
            .into_iter()
            .collect();
        Ok(Self {
            nats: nats.clone(),
            partition,
            mailboxes,
            found,
        })
    }

    /// Copies a user's mailbox behind what the other partition has, in order.
    ///
    /// # Errors
    /// When JetStream does not confirm it; some of it may be copied then.
    pub async fn copy(&self, user: &UserId, to: &Self) -> Result<(), NatsError> {
        let Some(MailboxSummary { first, last, .. }) = self.found.get(user).copied() else {
            return Ok(());
        };
        let (mut from, mut is_over) = (first, false);
        while !is_over {
            let page;
            (page, is_over) = self
                .mailboxes
                .read(user, from, last, PAGE_REMINDERS, PAGE_BYTES)
                .await?;
            from = page.last().map_or(last, |message| message.sequence) + 1;
            to.mailboxes
                .park(
                    page.into_iter()
                        .map(|parked| parking(user, parked.message))
                        .collect(),
                )
                .await?;
        }
        Ok(())
    }

    /// Removes a user's mailbox.
    ///
    /// # Errors
    /// When JetStream does not confirm it.
    pub async fn clear(&self, user: &UserId) -> Result<(), NatsError> {
        let subject = self.nats.names.mailbox(self.partition, user);
        purge(&self.nats, &self.nats.names.parked_stream(), &subject, None)
            .await
            .map(drop)
    }
}

/// Returns the message to park in its new place. An unreadable one is moved as it is, and set aside
/// when it is delivered.
fn parking(user: &UserId, message: Bytes) -> Parking {
    let event = Event::decode(&message).ok();
    let entry = event
        .as_ref()
        .and_then(|event| event.index.reminders.first());
    Parking {
        user: user.clone(),
        source: event
            .as_ref()
            .and_then(|event| event.index.sets.first())
            .map(|set| set.source.clone()),
        // A copy of what an associate got has no name. The others get one that is long done with,
        // and no set is the 0th.
        name: entry
            .is_some_and(|entry| entry.rerouted_to.is_none())
            .then_some(Done::Published {
                set: 0,
                stored_ms: 0,
                place: 0,
            }),
        expires_at: entry.and_then(|entry| entry.expires_at),
        priority: entry.map_or(Priority::default(), |entry| entry.priority),
        message,
    }
}
