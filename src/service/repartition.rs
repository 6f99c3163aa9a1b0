//! Gives an installation another number of partitions, while its members are stopped.
//!
//! Positions and mailboxes lie under the partitions' numbers. So members read the log up to one set
//! and no further, settle all of that, and stop. Then all partitions have the same position, and
//! the new ones get it. Every mailbox whose partition is another one now is copied there; then the
//! new number counts, and what lies under a number that is not its user's is removed. Whichever
//! number counts tells what to remove, so it can be run again after it was interrupted at any
//! point, and nothing is lost or doubled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::nats::positions::HOLD_FOR;
use crate::nats::repartition::{self, MailboxStore, Noted};
use crate::nats::{Nats, NatsError};
use crate::partition::{Partition, of_user};
use crate::token::UserId;

/// A member that looked just before the note was written has said by then that it lives.
const ARRIVAL: Duration = Duration::from_secs(2);
/// Members have heard by then that the log is held.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// Interval at which JetStream is asked for the members' progress.
const POLL: Duration = Duration::from_millis(200);
/// Partitions opened or filled, and mailboxes removed, at a time.
const IN_FLIGHT: usize = 32;

/// The progress of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The members settle so many sets.
    Finishing(u64),
    /// So many members are to be stopped.
    Stopping(usize),
    /// So many mailboxes were copied.
    Copied(usize),
}

/// Changes the number of partitions, and tells what it does. Sets that are published meanwhile wait
/// in their stream.
///
/// # Errors
/// When JetStream does not do as it is asked; run it again then.
pub async fn run(nats: &Nats, to: u16, mut tell: impl FnMut(Progress)) -> Result<(), NatsError> {
    let before = repartition::noted(nats).await?;
    let Noted {
        partitions: from,
        spread,
    } = before;
    if spread.is_none() {
        if from == to {
            return Ok(());
        }
        finish(nats, from, &mut tell).await?;
    }
    // No member starts from here on.
    let spread = from.max(to).max(spread.unwrap_or(to));
    repartition::note(
        nats,
        Noted {
            partitions: from,
            spread: Some(spread),
        },
    )
    .await?;
    tokio::time::sleep(ARRIVAL).await;
    if !repartition::members(nats).await?.is_empty() {
        repartition::note(nats, before).await?;
        let problem = "a member runs, or has run meanwhile; stop it and run this again";
        return Err(NatsError::failed("repartition", problem));
    }
    let stores = stores(nats, spread).await?;
    // The remains of an interrupted run.
    tidy(&stores, from).await?;
    if from != to {
        tell(Progress::Copied(copy(&stores, from, to).await?));
        repartition::move_positions(nats, to).await?;
        repartition::note(
            nats,
            Noted {
                partitions: to,
                spread: Some(spread),
            },
        )
        .await?;
        tidy(&stores, to).await?;
    }
    repartition::note(
        nats,
        Noted {
            partitions: to,
            spread: None,
        },
    )
    .await?;
    repartition::hold(nats, None).await
}

/// Waits until the members have settled everything up to one set, and no member is left.
async fn finish(
    nats: &Nats,
    partitions: u16,
    tell: &mut impl FnMut(Progress),
) -> Result<(), NatsError> {
    // First no member reads on. Then none is ahead of the last set.
    repartition::hold(nats, Some(0)).await?;
    tokio::time::sleep(HEARD_WITHIN).await;
    let mut upto = repartition::last_set(nats).await?;
    let mut held_at: Option<Instant> = None;
    loop {
        if held_at.is_none_or(|at| at.elapsed() > HOLD_FOR / 3) {
            repartition::hold(nats, Some(upto)).await?;
            held_at = Some(Instant::now());
        }
        // A member stores its positions before it leaves.
        let members = repartition::members(nats).await?.len();
        let (lowest, highest) = repartition::settled(nats, partitions).await?;
        if highest > upto {
            // A member that did not hear of the hold has read on. The others are to come as far.
            (upto, held_at) = (highest, None);
        }
        let left = upto - lowest.min(upto);
        if left == 0 && members == 0 {
            return Ok(());
        }
        tell(if left > 0 {
            Progress::Finishing(left)
        } else {
            Progress::Stopping(members)
        });
        tokio::time::sleep(POLL).await;
    }
}

async fn stores(nats: &Nats, partitions: u16) -> Result<Vec<MailboxStore>, NatsError> {
    let opening = (0..partitions).map(|partition| MailboxStore::open(nats, Partition(partition)));
    stream::iter(opening)
        .buffered(IN_FLIGHT)
        .try_collect()
        .await
}

/// Removes every mailbox that does not lie where it belongs among this many partitions.
async fn tidy(stores: &[MailboxStore], partitions: u16) -> Result<(), NatsError> {
    let stray =
        every_mailbox(stores).filter(|(number, _, user)| of_user(user, partitions) != *number);
    let clearing = stray.map(|(_, store, user)| store.clear(user));
    stream::iter(clearing)
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

/// Copies every mailbox that belongs elsewhere among `to` partitions. Answers how many.
async fn copy(stores: &[MailboxStore], from: u16, to: u16) -> Result<usize, NatsError> {
    // A partition takes one append at a time.
    let mut by_target: BTreeMap<Partition, Vec<(&MailboxStore, &UserId)>> = BTreeMap::new();
    for (number, store, user) in every_mailbox(stores) {
        let target = of_user(user, to);
        if of_user(user, from) == number && target != number {
            by_target.entry(target).or_default().push((store, user));
        }
    }
    let copied = by_target.values().map(Vec::len).sum();
    let fill = by_target
        .into_iter()
        .map(|(target, mailboxes)| fill(&stores[usize::from(target.0)], mailboxes));
    stream::iter(fill)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(copied)
}

async fn fill(
    target: &MailboxStore,
    mailboxes: Vec<(&MailboxStore, &UserId)>,
) -> Result<(), NatsError> {
    for (store, user) in mailboxes {
        store.copy(user, target).await?;
    }
    Ok(())
}

fn every_mailbox(
    stores: &[MailboxStore],
) -> impl Iterator<Item = (Partition, &MailboxStore, &UserId)> {
    let numbered = (0..).map(Partition).zip(stores);
    numbered.flat_map(|(number, store)| store.found.keys().map(move |user| (number, store, user)))
}
