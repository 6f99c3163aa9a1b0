//! Records outcomes. Whoever has some hands them in and waits until they are durable; while one batch is on its way to
//! JetStream the next one forms from what comes in.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::{Lease, recorded};
use crate::nats::Nats;
use crate::partition::Partition;
use crate::reminder::outcome::{Batch, Record};
use crate::router::Item;
use crate::token::Source;

/// Outcomes in one message, so that it stays far below any payload limit.
const MAX_RECORDS: usize = 250;
/// Submissions that wait for the next batch; more wait at their senders.
const MAX_WAITING: usize = 4_096;

/// An outcome, and the reminder that is done with, once it is recorded, in the place it came from. The intake's outcomes
/// have none: its sets are planned anew after a crash, to the same effect.
pub type Settling = (Record, Option<(Partition, Item)>);

struct Submission {
    term: u64,
    records: Vec<Settling>,
    done: oneshot::Sender<()>,
}

/// Hands outcomes in.
#[derive(Debug, Clone)]
pub struct Recorder {
    submissions: mpsc::Sender<Submission>,
    term: u64,
}

impl Recorder {
    /// Starts the task that writes. It ends when the last recorder is dropped and everything is written.
    pub fn start(nats: Nats, lease: Lease) -> (Self, tokio::task::JoinHandle<()>) {
        let (submissions, waiting) = mpsc::channel(MAX_WAITING);
        (Self { submissions, term: 0 }, tokio::spawn(write(nats, lease, waiting)))
    }

    /// The same, for what is decided in this term of the member's lease.
    pub fn of_term(&self, term: u64) -> Self {
        Self { submissions: self.submissions.clone(), term }
    }

    /// Waits until these outcomes are durable, however long JetStream is away; and, even if there are none, what was handed
    /// in before: a mailbox is emptied up to a message, and that must not take what is not recorded yet.
    pub async fn record(&self, records: Vec<Settling>) {
        self.submit(records).await;
    }

    /// Waits until everything that was handed in before is durable, also by tasks that are no more.
    pub async fn flush(&self) {
        self.submit(Vec::new()).await;
    }

    async fn submit(&self, records: Vec<Settling>) {
        let (done, written) = oneshot::channel();
        if self.submissions.send(Submission { term: self.term, records, done }).await.is_err() || written.await.is_err()
        {
            // Nobody may go on as if this were written. Its task is about to be ended.
            std::future::pending::<()>().await;
        }
    }
}

async fn write(nats: Nats, lease: Lease, mut waiting: mpsc::Receiver<Submission>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MAX_WAITING).await > 0 {
        let term = lease.term();
        batch.retain(|submission| submission.term == term);
        let mut by_source: BTreeMap<Source, Vec<Settling>> = BTreeMap::new();
        let mut written = Vec::with_capacity(batch.len());
        for Submission { records, done, .. } in batch.drain(..) {
            written.push(done);
            for record in records {
                by_source.entry(record.0.source.clone()).or_default().push(record);
            }
        }
        let messages = by_source.iter().flat_map(|(source, records)| {
            let subject = nats.names.outcomes(source);
            records.chunks(MAX_RECORDS).map(move |chunk| (subject.clone(), chunk))
        });
        let stored =
            join_all(messages.map(|(subject, chunk)| store(&nats, || !lease.is_current(term), subject, chunk))).await;
        // Whoever handed in what is not stored waits on, until its own end: its successor decides now.
        if stored.into_iter().all(|is_stored| is_stored) {
            written.into_iter().for_each(|done| {
                let _ = done.send(()); // Whoever waited may have gone.
            });
        }
    }
}

/// Stores one message of outcomes, unless others may hold by now what this member held: they record what they find.
async fn store(nats: &Nats, is_void: impl Fn() -> bool, subject: String, chunk: &[Settling]) -> bool {
    let outcomes: Vec<&Record> = chunk.iter().map(|(record, _)| record).collect();
    let body = serde_json::to_vec(&Batch { outcomes }).expect("outcomes are JSON");
    let settles = recorded::encode(chunk.iter().filter_map(|(_, settled)| settled.as_ref()));
    let mut headers = HeaderMap::new();
    if !settles.is_empty() {
        headers.insert(recorded::HEADER, settles);
    }
    let id = nats.client.new_inbox();
    nats.store_unless(is_void, &subject, headers, body.into(), &id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_no_outcome_waits_for_the_outcomes_before_it() {
        let (submissions, mut waiting) = mpsc::channel(1);
        let recorder = Recorder { submissions, term: 0 };
        let copy = tokio::spawn(async move { recorder.record(Vec::new()).await });
        // It stands in the same queue as they do.
        let submission = waiting.recv().await.expect("it was handed in");
        assert!(!copy.is_finished());
        submission.done.send(()).unwrap();
        copy.await.unwrap();
    }
}
