//! Finds out when a watch has passed on all that its bucket held at the moment of a question.
//!
//! The stream's leader is asked for the bucket's last revision, once for all partitions that wait.
//! When the watch has come so far, they hear of it behind the changes themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::nats::{Nats, bucket, chain};
use crate::partition::Partition;

/// The least time between two questions. A reminder of an absent user waits half of that longer
/// under load. More questions would cost nats-server more than parking itself.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// The time that a watch may take to come so far. The last entry may be gone, so that it never
/// comes; and a watch that has ended takes longer to begin again than a reminder should wait.
const WITHIN: Duration = Duration::from_millis(250);

/// Partitions that wait for a watch.
pub(super) struct CatchUp {
    nats: Nats,
    bucket: String,
    unasked: BTreeSet<Partition>,
    asked: BTreeSet<Partition>,
    /// Returns the bucket's last revision, or none where it cannot be known.
    question: Option<BoxFuture<'static, Option<u64>>>,
    /// The point that the watch must reach for those who asked, and the deadline for that.
    upto: Option<(u64, Instant)>,
    not_before: Instant,
}

impl CatchUp {
    pub(super) fn new(nats: Nats, bucket: String) -> Self {
        Self {
            nats,
            bucket,
            unasked: BTreeSet::new(),
            asked: BTreeSet::new(),
            question: None,
            upto: None,
            not_before: Instant::now(),
        }
    }

    /// Lets a partition wait.
    pub(super) fn want(&mut self, partition: Partition) {
        self.unasked.insert(partition);
    }

    /// A partition is worked by a new task, which has asked nothing.
    pub(super) fn forget(&mut self, partition: Partition) {
        self.unasked.remove(&partition);
        self.asked.remove(&partition);
    }

    /// Takes the next step. May be cancelled.
    pub(super) async fn step(&mut self) {
        if let Some(question) = &mut self.question {
            let last = question.await;
            self.question = None;
            self.upto = Some((last.unwrap_or(0), Instant::now() + WITHIN));
        } else if let Some((_, until)) = self.upto {
            sleep_until(until).await;
            self.upto = Some((0, until));
        } else if self.unasked.is_empty() {
            std::future::pending().await
        } else {
            sleep_until(self.not_before).await;
            self.not_before = Instant::now() + ASK_EVERY;
            self.asked = std::mem::take(&mut self.unasked);
            let (nats, bucket) = (self.nats.clone(), self.bucket.clone());
            let question = async move {
                let last = bucket::last_revision(&nats, &bucket).await;
                last.inspect_err(
                    |error| tracing::debug!(error = %chain(error), bucket, "last revision unknown"),
                )
                .ok()
            };
            self.question = Some(question.boxed());
        }
    }

    /// Returns the partitions for which a watch that has come so far has come far enough.
    pub(super) fn reached(&mut self, revision: u64) -> BTreeSet<Partition> {
        if self.upto.take_if(|(last, _)| *last <= revision).is_none() {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.asked)
    }
}
