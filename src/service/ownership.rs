//! Owning a subscriber's position in the log: takes it over, stores checkpoints, and gives it up.
//!
//! An owner makes itself known in the position. Each checkpoint names the revision of the one
//! before, so JetStream refuses those of an owner that has a successor.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::outcomes::Recorder;
use super::recorded;
use super::seen::Seen;
use crate::config::Config;
use crate::log::Subscriber;
use crate::log::done::AllDone;
use crate::log::position::{OutcomesStart, Position, Start};
use crate::log::progress::Checkpoint;
use crate::log::window::Window;
use crate::nats::{Nats, NatsError, chain, log, positions};

/// Interval at which a changed position is stored.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Pause before a checkpoint is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A take-over that is to be stopped gets so long to end, so that it is given up in order.
const TAKE_OVER_GRACE: Duration = Duration::from_secs(2);

/// Waits for a take-over. One that is stopped is finished, if that does not take long: given up
/// halfway, the next owner would take it for one that died. Returns none when it was given up
/// halfway.
///
/// # Errors
/// Those of the take-over.
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    taking: impl Future<Output = Result<T, NatsError>>,
) -> Result<Option<T>, NatsError> {
    tokio::pin!(taking);
    tokio::select! {
        taken = &mut taking => taken.map(Some),
        () = stop.cancelled() => {
            let ended = tokio::time::timeout(TAKE_OVER_GRACE, taking).await;
            ended.ok().transpose()
        }
    }
}

/// The resources that the owner of a position needs.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The settings.
    pub config: Arc<Config>,
    /// The connection.
    pub nats: Nats,
    /// This member's name.
    pub member: String,
    /// Hands outcomes in.
    pub recorder: Recorder,
    /// Reads what earlier owners recorded.
    pub recorded: recorded::Reader,
}

/// A subscriber's position, while it is owned here.
#[derive(Debug, Clone)]
pub struct Ownership {
    nats: Nats,
    subscriber: Subscriber,
    /// The storage of its window.
    seen: Seen,
    /// The position as it is stored, and its revision.
    stored: (Position, u64),
}

/// The state that a new owner found.
#[derive(Debug)]
pub struct Takeover {
    /// The point from which reading starts.
    pub start: Start,
    /// Creation time of the log, in nanoseconds since 1970.
    pub created_ns: i64,
    /// The outcome up to which nothing above the position was recorded.
    pub outcomes: u64,
    /// The idempotency window at the position.
    pub window: Window,
    /// The reminders recorded above the position.
    pub done: AllDone,
}

impl Ownership {
    /// Takes a subscriber's position over: from here on no earlier owner can move it. To be called
    /// when nothing of an earlier owner can be recorded any more.
    ///
    /// # Errors
    /// When JetStream does not answer, or another owner was faster.
    pub async fn take_over(
        owner: &Owner,
        subscriber: Subscriber,
    ) -> Result<(Self, Takeover), NatsError> {
        let nats = &owner.nats;
        // The last owner may have been this process.
        owner.recorder.flush().await;
        let found = positions::read(nats, subscriber).await?;
        let name = format!("{}/{}", owner.member, owner.recorder.incarnation());
        let before = found
            .as_ref()
            .and_then(|found| found.position.owner.as_ref());
        let before = before.filter(|before| **before != name);
        if let Some((before, incarnation)) = before.and_then(|before| before.rsplit_once('/')) {
            tracing::info!(%subscriber, before, "the last owner did not give it up: its further records are refused");
            log::fence_outcomes(nats, incarnation).await?;
        }
        let at = found
            .as_ref()
            .map_or(0, |found| found.position.settled.sequence);
        let log = log::state(nats, at).await?;
        let last = match &found {
            Some(found) => found.position.clone(),
            None if log.last == 0 => {
                // Nothing was ever published, so nothing is recorded of it.
                let outcomes = log::outcomes_state(nats, 0).await?.last;
                Position {
                    outcomes,
                    ..Position::first(log.created_ns)
                }
            }
            None => Position::first(log.created_ns),
        };
        let start = last.start(&log);
        let outcomes = log::outcomes_state(nats, last.outcomes).await?;
        let outcomes_start = last.outcomes_start(
            &outcomes,
            found.as_ref().map_or(i64::MAX, |found| found.written_ms),
        );
        let base = match outcomes_start {
            OutcomesStart::After(sequence) => sequence,
            OutcomesStart::At(_) => 0, // The sequences of before say nothing.
        };
        let position = Position {
            stream_ns: log.created_ns,
            settled: start.settled,
            outcomes: base,
            owner: Some(name),
        };
        let revision = positions::write(
            nats,
            subscriber,
            &position,
            found.as_ref().map(|found| found.revision),
        )
        .await?;
        let mut window = Window::new(owner.config.idempotency.window, max_ids(&owner.config));
        let seen = Seen::of(&nats.names, subscriber, owner.config.partitions);
        seen.load(nats, |entries| window.load(entries, start.settled))
            .await?;
        let done = owner.recorded.of(subscriber, outcomes_start).await?;
        let ownership = Self {
            nats: nats.clone(),
            subscriber,
            seen,
            stored: (position, revision),
        };
        Ok((
            ownership,
            Takeover {
                start,
                created_ns: log.created_ns,
                outcomes: base,
                window,
                done,
            },
        ))
    }

    /// Returns true if a checkpoint has something new.
    pub fn is_new(&self, checkpoint: &Checkpoint) -> bool {
        let Position {
            settled, outcomes, ..
        } = &self.stored.0;
        !checkpoint.entries.is_empty()
            || (checkpoint.settled, checkpoint.outcomes) != (*settled, *outcomes)
    }

    /// Stores a checkpoint, however long JetStream is away: first the window's entries, then the
    /// position.
    ///
    /// # Errors
    /// [`NatsError::Fenced`] when the position has another owner.
    pub async fn store(&mut self, checkpoint: &Checkpoint) -> Result<(), NatsError> {
        self.seen.store(&self.nats, &checkpoint.entries).await;
        let Checkpoint {
            settled, outcomes, ..
        } = checkpoint;
        let position = Position {
            settled: *settled,
            outcomes: *outcomes,
            ..self.stored.0.clone()
        };
        self.write(position).await
    }

    /// Gives the position up, with a last checkpoint. Everything in work is recorded: what waits
    /// above the position is the next owner's.
    ///
    /// # Errors
    /// [`NatsError::Fenced`] when the position has another owner.
    pub async fn release(mut self, checkpoint: &Checkpoint) -> Result<(), NatsError> {
        self.store(checkpoint).await?;
        let position = Position {
            owner: None,
            ..self.stored.0.clone()
        };
        self.write(position).await
    }

    async fn write(&mut self, position: Position) -> Result<(), NatsError> {
        let subscriber = self.subscriber;
        if position == self.stored.0 {
            return Ok(());
        }
        loop {
            match positions::write(&self.nats, subscriber, &position, Some(self.stored.1)).await {
                Ok(revision) => {
                    self.stored = (position, revision);
                    return Ok(());
                }
                // It may have been stored by a try whose answer was lost.
                Err(NatsError::Fenced(what)) => {
                    match positions::read(&self.nats, subscriber).await? {
                        Some(found) if found.position == position => {
                            self.stored = (position, found.revision);
                            return Ok(());
                        }
                        _ => return Err(NatsError::Fenced(what)),
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), %subscriber, "failed to store the position, retrying")
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Identities in the window of one subscriber: its part of all.
fn max_ids(config: &Config) -> usize {
    let max_ids = config.idempotency.max_ids;
    max_ids.div_ceil(usize::from(config.partitions))
}
