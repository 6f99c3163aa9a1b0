//! What another number of partitions needs of JetStream: the installation's note of how many it has, a pause of the intake,
//! and mailboxes carried to another partition.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::datetime;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;

use super::mailbox::{Mailboxes, Parking, purge};
use super::pinned::waiting;
use super::topology::{PARTITIONS_KEY, SPREAD_KEY};
use super::{During, Nats, NatsError, bucket};
use crate::event::Event;
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

/// What the installation notes of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Under the numbers of how many its mailboxes lie.
    pub partitions: u16,
    /// While that is being changed: mailboxes may lie under the numbers of so many. No member starts meanwhile.
    pub spread: Option<u16>,
}

async fn events(nats: &Nats) -> Result<Stream, NatsError> {
    let stream = nats.jetstream.get_stream(nats.names.events_stream()).await;
    stream.during("look at the events")
}

/// Reads the note.
///
/// # Errors
/// When there is no installation, or JetStream does not answer.
pub async fn noted(nats: &Nats) -> Result<Noted, NatsError> {
    let metadata = events(nats).await?.cached_info().config.metadata.clone();
    let number = |key| {
        metadata
            .get(key)
            .and_then(|text: &String| text.parse().ok())
    };
    let partitions = number(PARTITIONS_KEY);
    let partitions = partitions
        .ok_or("no number of partitions is noted")
        .during("look at the events")?;
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
    let mut config = events(nats).await?.cached_info().config.clone();
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

/// Has the intake get no sets for this long; none lets it go on.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn pause_intake(nats: &Nats, time: Option<Duration>) -> Result<(), NatsError> {
    let sets = nats
        .jetstream
        .get_stream_no_info(nats.names.sets_stream())
        .await
        .during("pause the intake")?;
    let done = match time {
        Some(time) => {
            let until_ns = nats.server_time().await?.as_nanosecond() + time.as_nanos() as i128;
            let until = datetime::from_nanos(until_ns).during("pause the intake")?;
            sets.pause_consumer(nats.names.intake_consumer(), until)
                .await
        }
        None => sets.resume_consumer(nats.names.intake_consumer()).await,
    };
    done.map(drop).during("pause the intake")
}

/// How many sets the intake is at work on, and events no partition is done with.
///
/// # Errors
/// When JetStream does not answer.
pub async fn in_work(nats: &Nats) -> Result<u64, NatsError> {
    let intake = waiting(
        nats,
        &nats.names.sets_stream(),
        nats.names.intake_consumer(),
    )
    .await?;
    Ok(intake.ack_pending as u64 + events(nats).await?.cached_info().state.messages)
}

/// Members that have not taken their leave, and have not been silent for so long that the bucket forgot them.
///
/// # Errors
/// When JetStream does not answer.
pub async fn members(nats: &Nats) -> Result<Vec<String>, NatsError> {
    let found = bucket::last(nats, &nats.names.members_bucket(), "*", 1_024).await?;
    Ok(found.into_iter().map(|member| member.key).collect())
}

/// Removes the consumers of partitions from this number on.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn remove_consumers(
    nats: &Nats,
    partitions: std::ops::Range<u16>,
) -> Result<(), NatsError> {
    let events = events(nats).await?;
    for partition in partitions.map(Partition) {
        let name = nats.names.dispatch_consumer(partition);
        if events.consumer_info(&name).await.is_ok() {
            events
                .delete_consumer(&name)
                .await
                .during("remove a consumer")?;
        }
    }
    Ok(())
}

/// The mailboxes of one partition, as somebody finds them who carries them elsewhere.
pub struct Shelf {
    nats: Nats,
    partition: Partition,
    mailboxes: Mailboxes,
    /// What lies there.
    pub found: BTreeMap<UserId, MailboxSummary>,
}

impl Shelf {
    /// Opens the partition's mailboxes. From here on no earlier owner can append to them.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn open(nats: &Nats, partition: Partition) -> Result<Self, NatsError> {
        let mailboxes =
            Mailboxes::take_over(nats, partition, "repartition", REMOVALS_IN_FLIGHT).await?;
        let found = mailboxes
            .find(u64::MAX)
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

/// The message as it is parked anew. What nobody can read is carried as it is, and set aside when it is delivered.
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
        // A copy of what an associate got names no event. The others name one that is long done with, and none is the 0th.
        from: entry
            .is_some_and(|entry| entry.rerouted_to.is_none())
            .then_some((0, 0)),
        expires_at: entry.and_then(|entry| entry.expires_at),
        priority: entry.map_or(Priority::default(), |entry| entry.priority),
        message,
    }
}
