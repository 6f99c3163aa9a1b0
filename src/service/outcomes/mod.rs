//! Records outcomes. A task hands them in and waits until they are durable; while one batch is on its way to
//! JetStream the next one forms from what comes in.

pub mod message;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::Lease;
use crate::metrics::Metrics;
use crate::nats::Nats;
use crate::token::Source;
use message::OutcomeEntry;

/// Outcomes in one message, and
const MAX_RECORDS: usize = 250;
/// bytes of it, about: far below any payload limit, unless one reminder alone is more.
const MAX_BYTES: usize = 128 << 10;
/// Submissions that wait for the next batch; more wait at their senders.
const MAX_WAITING: usize = 4_096;

struct Submission {
    term: u64,
    entries: Vec<OutcomeEntry>,
    done: oneshot::Sender<()>,
}

/// Hands outcomes in.
#[derive(Debug, Clone)]
pub struct Recorder {
    submissions: mpsc::Sender<Submission>,
    last: Arc<AtomicU64>,
    term: u64,
}

impl Recorder {
    /// Starts the task that writes, with what the history needs or without. It ends when the last recorder is dropped and
    /// everything is written.
    pub fn start(
        nats: Nats,
        lease: Lease,
        metrics: Metrics,
        has_history: bool,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (submissions, waiting) = mpsc::channel(MAX_WAITING);
        let last = Arc::new(AtomicU64::new(0));
        let writing = write(nats, lease, metrics, has_history, waiting, last.clone());
        (
            Self {
                submissions,
                last,
                term: 0,
            },
            tokio::spawn(writing),
        )
    }

    /// The same, for what is decided in this term of the member's lease.
    pub fn of_term(&self, term: u64) -> Self {
        Self {
            term,
            ..self.clone()
        }
    }

    /// Returns the sequence of the last message of outcomes that this process stored; 0 if it has stored none. What is
    /// handed in from now on is stored behind it.
    pub fn last_stored(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Waits until these outcomes are durable, however long JetStream is away; and, even if there are none, what was handed
    /// in before: a mailbox is emptied up to a message, and that must not take what is not recorded yet.
    pub async fn record(&self, entries: Vec<OutcomeEntry>) {
        self.submit(entries).await;
    }

    /// Waits until everything that was handed in before is durable, also by tasks that are no more.
    pub async fn flush(&self) {
        self.submit(Vec::new()).await;
    }

    async fn submit(&self, entries: Vec<OutcomeEntry>) {
        let (done, written) = oneshot::channel();
        if self
            .submissions
            .send(Submission {
                term: self.term,
                entries,
                done,
            })
            .await
            .is_err()
            || written.await.is_err()
        {
            // The caller must not go on as if this were written. Its task is about to be ended.
            std::future::pending::<()>().await;
        }
    }
}

async fn write(
    nats: Nats,
    lease: Lease,
    metrics: Metrics,
    has_history: bool,
    mut waiting: mpsc::Receiver<Submission>,
    last: Arc<AtomicU64>,
) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MAX_WAITING).await > 0 {
        let term = lease.term();
        batch.retain(|submission| submission.term == term);
        let mut by_source: BTreeMap<Source, Vec<OutcomeEntry>> = BTreeMap::new();
        let mut written = Vec::with_capacity(batch.len());
        for Submission { entries, done, .. } in batch.drain(..) {
            written.push(done);
            for entry in entries {
                match by_source.get_mut(&entry.record.source) {
                    Some(its) => its.push(entry),
                    None => drop(by_source.insert(entry.record.source.clone(), vec![entry])),
                }
            }
        }
        let is_void = || !lease.is_current(term);
        // One source's messages go one after the other: one that is repeated must not be stored behind a later one.
        let store = async |(source, entries): (&Source, &Vec<OutcomeEntry>)| {
            let subject = nats.names.outcomes(source);
            for chunk in chunks(entries) {
                let (headers, body) = message::encode(chunk, has_history);
                let id = nats.client.new_inbox();
                match nats
                    .store_unless(is_void, &subject, headers, body, Some(&id))
                    .await
                {
                    Some(sequence) => last.fetch_max(sequence, Ordering::Relaxed),
                    None => return false,
                };
            }
            true
        };
        // Unless others may hold by now what this member held: they record what they find.
        let stored = join_all(by_source.iter().map(store)).await;
        // The caller of an unstored entry waits until its own end: its successor decides now.
        if stored.into_iter().all(|is_stored| is_stored) {
            by_source
                .values()
                .flatten()
                .for_each(|entry| metrics.outcome(&entry.record.outcome));
            written.into_iter().for_each(|done| {
                let _ = done.send(()); // The caller may have gone.
            });
        }
    }
}

/// Outcomes that go together, in their order.
fn chunks(mut entries: &[OutcomeEntry]) -> impl Iterator<Item = &[OutcomeEntry]> {
    std::iter::from_fn(move || {
        let mut room = MAX_BYTES;
        let fits = |entry: &&OutcomeEntry| {
            let fits = entry.bytes() <= room;
            room = room.saturating_sub(entry.bytes());
            fits
        };
        let fitting = entries
            .iter()
            .take(MAX_RECORDS)
            .take_while(fits)
            .count()
            .max(1);
        let (chunk, rest) = entries.split_at_checked(fitting)?;
        entries = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_no_outcome_waits_for_the_outcomes_before_it() {
        let (submissions, mut waiting) = mpsc::channel(1);
        let recorder = Recorder {
            submissions,
            last: Arc::default(),
            term: 0,
        };
        let copy = tokio::spawn(async move { recorder.record(Vec::new()).await });
        // It stands in the same queue as they do.
        let submission = waiting.recv().await.expect("it was handed in");
        assert!(!copy.is_finished());
        submission.done.send(()).unwrap();
        copy.await.unwrap();
    }
}
