//! Records outcomes. A task that hands some in waits until they are durable. While one batch is on
//! its way to JetStream the next one forms from what comes in.
//!
//! Each batch is behind a fence of this process and term. A member that takes over what this one
//! holds stores a message there first, so nothing that this one decided is stored behind what its
//! successor decides.

pub mod message;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::header;
use tokio::sync::{mpsc, oneshot};

use super::lease::Lease;
use crate::metrics::Metrics;
use crate::nats::batch::{self, Fence, Stored};
use crate::nats::{Nats, NatsError, chain, log};
use crate::token::Source;
use message::{OutcomeEntry, Outcomes, Part};

/// Messages in one batch, and
const BATCH_MESSAGES: usize = 200;
/// bytes of it, about: nats-server keeps it in memory until it is complete.
const BATCH_BYTES: usize = 2 << 20;
/// Pauses before a batch is tried again: from this one,
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// twice as long each time, up to this one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Submissions that wait for the next batch; more wait at their senders.
const MAX_WAITING: usize = 4_096;

struct Submission {
    term: u64,
    parts: Vec<Part>,
    done: oneshot::Sender<()>,
}

/// Hands outcomes in.
#[derive(Debug, Clone)]
pub struct Recorder {
    submissions: mpsc::Sender<Submission>,
    last: Arc<AtomicU64>,
    process: Arc<str>,
    term: u64,
    has_history: bool,
}

impl Recorder {
    /// Starts the task that writes, with what the history needs or without. It ends when the last
    /// recorder is dropped and everything is written.
    pub fn start(
        nats: Nats,
        lease: Lease,
        metrics: Metrics,
        has_history: bool,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (submissions, waiting) = mpsc::channel(MAX_WAITING);
        let last = Arc::new(AtomicU64::new(0));
        let inbox = nats.client.new_inbox();
        let process: Arc<str> = inbox.rsplit('.').next().unwrap_or_default().into();
        let writer = Writer {
            nats,
            lease,
            metrics,
            process: process.clone(),
            last: last.clone(),
        };
        let recorder = Self {
            submissions,
            last,
            process,
            term: 0,
            has_history,
        };
        (recorder, tokio::spawn(writer.run(waiting)))
    }

    /// The same, for what is decided in this term of the member's lease.
    pub fn of_term(&self, term: u64) -> Self {
        Self {
            term,
            ..self.clone()
        }
    }

    /// Returns the name under which outcomes are recorded here: another one in each process, and in
    /// each term. A message under its fence ends that ([`log::fence_outcomes`]).
    pub fn incarnation(&self) -> String {
        incarnation(&self.process, self.term)
    }

    /// Returns the sequence of the last message of outcomes that this process stored; 0 if it has
    /// stored none. Outcomes that are handed in from now on are stored behind it.
    pub fn last_stored(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Returns where outcomes are written that are to be recorded.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes::new(self.has_history)
    }

    /// Writes these outcomes, and waits until they are durable: see [`record`](Self::record).
    pub async fn record_all(&self, entries: &[OutcomeEntry]) {
        self.record(Outcomes::of(entries, self.has_history)).await;
    }

    /// Waits until these outcomes are durable, however long JetStream is away; and, even if there
    /// are none, what was handed in before: a mailbox is emptied up to a message, and that must not
    /// take what is not recorded yet.
    pub async fn record(&self, outcomes: Outcomes) {
        self.submit(outcomes.into_parts()).await;
    }

    /// Waits until everything that was handed in before is durable, also by tasks that are no more.
    pub async fn flush(&self) {
        self.submit(Vec::new()).await;
    }

    async fn submit(&self, parts: Vec<Part>) {
        let (done, written) = oneshot::channel();
        if self
            .submissions
            .send(Submission {
                term: self.term,
                parts,
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

struct Writer {
    nats: Nats,
    lease: Lease,
    metrics: Metrics,
    process: Arc<str>,
    last: Arc<AtomicU64>,
}

impl Writer {
    async fn run(self, mut waiting: mpsc::Receiver<Submission>) {
        let mut submissions = Vec::new();
        while waiting.recv_many(&mut submissions, MAX_WAITING).await > 0 {
            // Partitions that can run go first, so that what they settle goes in one batch.
            tokio::task::yield_now().await;
            while let Ok(submission) = waiting.try_recv() {
                submissions.push(submission);
            }
            let term = self.lease.term();
            submissions.retain(|submission| submission.term == term);
            let mut by_source: BTreeMap<Source, Vec<Part>> = BTreeMap::new();
            let mut written = Vec::with_capacity(submissions.len());
            for Submission { parts, done, .. } in submissions.drain(..) {
                written.push(done);
                for part in parts {
                    by_source
                        .entry(part.source().clone())
                        .or_default()
                        .push(part);
                }
            }
            // Outcomes that are not stored wait on, until their own end: a successor decides now.
            if self.store_all(term, &by_source).await {
                for (kind, count) in by_source.values().flatten().flat_map(Part::kinds) {
                    self.metrics.outcomes(kind, count);
                }
                written.into_iter().for_each(|done| {
                    let _ = done.send(()); // Its sender may have gone.
                });
            }
        }
    }

    async fn store_all(&self, term: u64, by_source: &BTreeMap<Source, Vec<Part>>) -> bool {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (source, parts) in by_source {
            let subject = self.nats.names.outcomes(source);
            let mut rest = parts.as_slice();
            while !rest.is_empty() {
                let (first, others) = rest.split_at(message::fitting(rest));
                rest = others;
                let (headers, payload) = message::encode(first);
                let is_full = batch.len() == BATCH_MESSAGES || bytes + payload.len() > BATCH_BYTES;
                if is_full && !batch.is_empty() {
                    if !self.store(term, std::mem::take(&mut batch)).await {
                        return false;
                    }
                    bytes = 0;
                }
                bytes += payload.len();
                let subject = subject.clone();
                batch.push(batch::Message {
                    subject,
                    headers,
                    payload,
                });
            }
        }
        batch.is_empty() || self.store(term, batch).await
    }

    /// Stores a batch, however long JetStream is away. Returns false when another member may have
    /// taken over meanwhile.
    async fn store(&self, term: u64, mut batch: Vec<batch::Message>) -> bool {
        let fence = Fence {
            subject: self
                .nats
                .names
                .outcomes_fence(&incarnation(&self.process, term)),
            sequence: 0,
        };
        if let Some(last) = batch.last_mut() {
            // One that is tried again, since the answer did not arrive, is not to be stored twice.
            let id = self.nats.client.new_inbox();
            last.headers.insert(header::NATS_MESSAGE_ID, id);
        }
        let mut pause = FIRST_PAUSE;
        while self.lease.is_current(term) {
            let action = || "record outcomes".to_owned();
            let stored = batch::store(&self.nats, &fence, batch.clone(), action).await;
            let last = match stored {
                Ok(Stored::Through(last)) => Ok(last),
                // The end of the stream is not before it.
                Ok(Stored::Before) => {
                    let state = log::outcomes_state(&self.nats, 0).await;
                    state.map(|state| state.last)
                }
                Err(error) => Err(error),
            };
            match last {
                Ok(last) => {
                    self.last.fetch_max(last, Ordering::Relaxed);
                    return true;
                }
                Err(NatsError::Fenced(_)) => {
                    tracing::error!("another member has taken over: dropping all roles held here");
                    self.lease.end(term);
                    return false;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "failed to store outcomes, retrying");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        false
    }
}

/// The name of a member's process in one term of its lease.
fn incarnation(process: &str, term: u64) -> String {
    format!("{process}{term}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusal_without_outcome_waits_for_earlier_outcomes() {
        let (submissions, mut waiting) = mpsc::channel(1);
        let recorder = Recorder {
            submissions,
            last: Arc::default(),
            process: "".into(),
            term: 0,
            has_history: false,
        };
        let copy = tokio::spawn(async move { recorder.record(recorder.outcomes()).await });
        // It stands in the same queue as they do.
        let submission = waiting.recv().await.expect("it was handed in");
        assert!(!copy.is_finished());
        submission.done.send(()).unwrap();
        copy.await.unwrap();
    }
}
