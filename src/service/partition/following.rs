//! Passes routes and associates of its users to a partition.
//!
//! Both buckets are read at the same time, and at all times. One watch serves all partitions of a
//! member and waits while any of them does not read. A partition that read one bucket first could
//! wait for another partition that waits for it.

use std::pin::pin;

use tokio::sync::mpsc;

use super::Context;
use crate::nats::NatsError;
use crate::partition::Partition;
use crate::router::{self, Input};
use crate::service::bucket_watch::Update;

/// Follows both buckets.
pub(super) struct Following {
    routes: mpsc::Receiver<Update>,
    associates: mpsc::Receiver<Update>,
    /// True for each bucket of which all initial entries were sent.
    is_loaded: [bool; 2],
}

impl Following {
    pub(super) async fn begin(context: &Context, partition: Partition) -> Self {
        let (routes, associates) = tokio::join!(
            context.routes.follow(partition),
            context.associates.follow(partition)
        );
        Self {
            routes,
            associates,
            is_loaded: [false; 2],
        }
    }

    /// Returns the next change, or none where a bucket is loaded. May be cancelled.
    ///
    /// # Errors
    /// When a watch ended.
    pub(super) async fn next(&mut self) -> Result<Option<Input>, NatsError> {
        let (bucket, news) = tokio::select! {
            news = self.routes.recv() => (0, news),
            news = self.associates.recv() => (1, news),
        };
        match news {
            Some(Update::Changed(input)) => Ok(Some(input)),
            Some(Update::Loaded) => {
                self.is_loaded[bucket] = true;
                Ok(None)
            }
            Some(Update::CaughtUp) => Ok(Some(Input::CaughtUpWithRoutes)),
            None => Err(NatsError::failed(
                "follow routes and associates",
                "a watch ended",
            )),
        }
    }

    /// Feeds the machine while the other steps of a take-over are done, and until both buckets are
    /// loaded: without routes and associates, the first reminders would take the way through the
    /// mailbox for nothing. Returns what the steps return.
    ///
    /// # Errors
    /// When a step fails, or a watch ended.
    pub(super) async fn load_during<T>(
        &mut self,
        steps: impl Future<Output = Result<T, NatsError>>,
        machine: &mut router::Router,
    ) -> Result<T, NatsError> {
        let mut steps = pin!(steps);
        let mut done = None;
        loop {
            tokio::select! {
                result = &mut steps, if done.is_none() => done = Some(result?),
                input = self.next() => if let Some(input) = input? {
                    let mut actions = Vec::new();
                    machine.handle(super::now(), input, &mut actions);
                    debug_assert!(actions.is_empty(), "no user has mail yet: {actions:?}");
                },
            }
            if self.is_loaded == [true; 2]
                && let Some(done) = done.take()
            {
                return Ok(done);
            }
        }
    }
}
