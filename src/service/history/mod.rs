//! Writes outcomes into the database: the consumer `history` of `BELLHOP_OUTCOMES`.
//!
//! One transaction is under way at a time, and what comes in meanwhile makes the next one: nothing
//! lingers for a batch to fill, and batches grow with load. Messages are acknowledged when they are
//! committed, so a crash repeats some, and the database takes a repeat for what it is. If the
//! database is away, JetStream holds the backlog; no reminder waits for it.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::{api, erasure, now_ms, sweep};
use crate::history::{Entry, HistoryError, HistoryErrorKind, Written};
use crate::nats::pinned::{Pinned, Received, acknowledge};
use crate::nats::{NatsError, chain};
use crate::partition::Role;
use crate::reminder::history::entries;

/// Bytes of messages asked for ahead.
const PULL_BYTES: usize = 4 << 20;
/// Bytes of messages that are written together, where they are fewer than `history.batch`.
const BATCH_BYTES: usize = 8 << 20;
/// Interval at which the lag of the history is reported.
const TICK: Duration = Duration::from_secs(1);
/// Interval at which expired reminders are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Reminders forgotten in one transaction.
const FORGET_AT_ONCE: usize = 1_000;
/// The pause between two such transactions.
const FORGET_PAUSE: Duration = Duration::from_millis(20);
/// A history that is this far behind is said to be.
const BEHIND: Duration = Duration::from_secs(30);
/// The longest pause before the database is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Writes until `stop`; forgets what is too old; and answers queries, where no other member can.
///
/// # Errors
/// If it must be taken over again.
pub async fn run(
    context: Archive,
    stop: CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let answering = async {
        match context.history.is_shared() {
            true => std::future::pending().await,
            false => api::run(&context).await,
        }
    };
    let writing = async {
        if context.config.history.is_on() {
            return write(&context, &stop, working).await;
        }
        let _ = working.send(Role::History).await;
        stop.cancelled().await;
        Ok(())
    };
    tokio::select! {
        ended = writing => ended,
        ended = answering => ended,
        ended = forget(&context) => ended,
        never = sweep::run(&context.buckets) => match never {},
    }
}

/// Outcomes of some messages, in order.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// Of the messages.
    bytes: usize,
    /// The subject that acknowledges the last message, and with it all before it.
    last: Option<async_nats::Subject>,
    /// Time at which the first message was stored.
    since: Option<Timestamp>,
}

impl Batch {
    fn has_room(&self, most: usize) -> bool {
        self.entries.len() < most && self.bytes < BATCH_BYTES
    }

    fn add(&mut self, received: Received) {
        match entries(&received.payload) {
            Ok(entries) => self.entries.extend(entries),
            // Everything else of Bellhop's passes it by, too.
            Err(error) => {
                tracing::error!(sequence = received.sequence, error = %chain(&error), "not a message of outcomes, skipped")
            }
        }
        self.bytes += received.payload.len();
        self.since = self
            .since
            .or_else(|| Timestamp::from_nanosecond(received.stored_ns).ok());
        self.last = Some(received.reply);
    }
}

async fn write(
    context: &Archive,
    stop: &CancellationToken,
    working: mpsc::Sender<Role>,
) -> Result<(), NatsError> {
    let (nats, most) = (&context.nats, context.config.history.batch);
    let (stream, consumer) = (
        nats.names.outcomes_stream(),
        nats.names.history_consumer().to_owned(),
    );
    let progress = Progress(context);
    let mut outcomes = Pinned::take_over(
        nats,
        stream,
        consumer,
        PULL_BYTES.max(2 * nats.client.max_payload()),
    )
    .await?;
    let _ = working.send(Role::History).await;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut next, mut storing_since) = (Batch::default(), None);
    let mut storing: OptionFuture<BoxFuture<'_, ()>> = None.into();
    loop {
        tokio::select! {
            Some(()) = &mut storing => (storing, storing_since) = (None.into(), None),
            () = stop.cancelled(), if storing_since.is_none() => break,
            received = outcomes.next(), if next.has_room(most) && !stop.is_cancelled() => next.add(received?),
            _ = tick.tick() => progress.tell(storing_since.or(next.since)),
        }
        if storing_since.is_none() && next.since.is_some() && !stop.is_cancelled() {
            let batch = std::mem::take(&mut next);
            storing_since = batch.since;
            storing = Some(store(context, batch, &progress, stop).boxed()).into();
        }
    }
    if let Err(error) = outcomes.release().await {
        tracing::warn!(error = %chain(&error), "failed to release the history; its pin will time out");
    }
    Ok(())
}

/// Commits a batch and acknowledges it, however long the database is away; or leaves it to the next
/// writer.
async fn store(context: &Archive, batch: Batch, progress: &Progress<'_>, stop: &CancellationToken) {
    let Batch {
        entries,
        last: Some(last),
        since: Some(since),
        ..
    } = batch
    else {
        return;
    };
    let mut pause = Duration::from_millis(50);
    let written = loop {
        let began = Instant::now();
        match store_once(context, &entries).await {
            Ok(written) => {
                context
                    .metrics
                    .history_written(written.new, written.changed, began.elapsed());
                break written;
            }
            Err(error) if error.kind() == HistoryErrorKind::Broken => {
                tracing::error!(error = %chain(&error), "failed to write the history, an operator must fix this; retrying");
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to write the history, retrying")
            }
        }
        context.metrics.history_failed();
        progress.tell_whether_behind(true);
        if !rest(&mut pause, stop).await {
            return;
        }
    };
    progress.tell_whether_behind(age(since) >= BEHIND);
    while let Err(error) = erasure::finish(context, &written.erased).await {
        tracing::warn!(error = %chain(&error), "failed to remove an erased user's reminders from a mailbox, retrying");
        if !rest(&mut pause, stop).await {
            return;
        }
    }
    if let Err(error) = acknowledge(&context.nats, last).await {
        tracing::debug!(error = %chain(&error), "outcomes arrived again and are already written");
    }
}

/// Waits before another attempt, longer each time. Answers whether there is to be one.
async fn rest(pause: &mut Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(*pause) => *pause = (*pause * 2).min(LONGEST_PAUSE),
        () = stop.cancelled() => return false,
    }
    true
}

async fn store_once(context: &Archive, entries: &[Entry]) -> Result<Written, HistoryError> {
    match context.history.open().await? {
        Some(history) => history.write(entries.to_vec()).await,
        None => Ok(Written::default()),
    }
}

/// Reports the progress of this writer to probes and metrics; when it ends, the next writer
/// reports.
struct Progress<'c>(&'c Archive);

impl Progress<'_> {
    /// Sets the age of the oldest outcome that waits to be written.
    fn tell(&self, since: Option<Timestamp>) {
        let lag = since.map_or(Duration::ZERO, age);
        self.0.metrics.history_lags(lag);
        // A database that hangs refuses nothing.
        if lag >= BEHIND {
            self.tell_whether_behind(true);
        }
    }

    fn tell_whether_behind(&self, is_behind: bool) {
        self.0.readiness.send_if_modified(|readiness| {
            std::mem::replace(&mut readiness.is_history_behind, is_behind) != is_behind
        });
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.tell(None);
        self.tell_whether_behind(false);
    }
}

fn age(since: Timestamp) -> Duration {
    Duration::try_from(now_ms().duration_since(since)).unwrap_or_default()
}

/// Removes, again and again, what was published too long ago. It never ends.
async fn forget(context: &Archive) -> Result<(), NatsError> {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        let before = now_ms()
            - SignedDuration::try_from(context.config.history.keep).unwrap_or(SignedDuration::MAX);
        loop {
            match forget_some(context, before).await {
                Ok(0) => break,
                // Between two transactions the writer has its turn.
                Ok(_) => tokio::time::sleep(FORGET_PAUSE).await,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "failed to remove expired history, retrying in a minute");
                    break;
                }
            }
        }
    }
}

async fn forget_some(context: &Archive, before: Timestamp) -> Result<u64, HistoryError> {
    match context.history.open().await? {
        Some(history) => {
            history
                .forget_before(before.as_millisecond(), FORGET_AT_ONCE)
                .await
        }
        None => Ok(0),
    }
}
