//! Notices another installation that hears the same subjects, and says so for as long as it does.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::nats::link::Link;
use crate::nats::{NatsError, chain, neighbours};

/// Interval between two checks. Each member answers once.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// Asks until the task is aborted.
pub(super) async fn run(queries: Link, installation: String, metrics: Metrics) {
    let mut known = BTreeSet::new();
    loop {
        let queries = queries.live().await;
        match neighbours::others(&queries, &installation).await {
            Ok(others) => {
                metrics.other_installations(others.len());
                for other in others.difference(&known) {
                    tracing::error!("{}", neighbours::problem(other));
                }
                known = others;
            }
            // Each time the log would say so.
            Err(error @ NatsError::NotPermitted { .. }) => {
                tracing::warn!(error = %chain(&error), "not permitted to look for other installations");
                return;
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "failed to look for other installations");
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
