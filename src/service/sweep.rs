//! Sees to it that the marks of deleted keys go away: each program that deletes a route or a list
//! of associates by a plain client leaves one that would stay for good.

use std::convert::Infallible;
use std::time::Duration;

use crate::nats::chain;
use crate::nats::keys::sweep;
use crate::nats::link::Link;

/// Interval at which the buckets are searched for markers without a time to live. It takes a second
/// for each 200,000 keys.
const EVERY: Duration = Duration::from_secs(3_600);

/// Sweeps until it is dropped. One member does it for all.
pub(super) async fn run(buckets: &Link) -> Infallible {
    loop {
        let nats = &buckets.live().await;
        for bucket in [nats.names.routes_bucket(), nats.names.associates_bucket()] {
            match sweep(nats, &bucket).await {
                Ok(marks) => tracing::debug!(bucket, marks, "marks of deleted keys swept"),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), bucket, "failed to remove marks of deleted keys, retrying in an hour")
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
