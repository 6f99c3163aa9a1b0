//! Schedules what a set has for later, and cancels what it cancels.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::plan::Later;
use crate::event::OfSet;
use crate::nats::Nats;
use crate::nats::schedule::{Scheduled, cancel, schedule};

/// Schedules stored at a time.
const AT_ONCE: usize = 256;
/// How long to wait until JetStream is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Cancels first: what a set cancels and has itself is replaced. Goes on until it is done, however long JetStream is away.
pub(super) async fn carry_out(later: Later, nats: &Nats) {
    let Later { set, set_ns, cancel: ids, scheduled } = later;
    let OfSet { source, sequence, trace, .. } = &*set;
    for id in &ids {
        while let Err(error) = cancel(nats, source, id, set_ns).await {
            tracing::warn!(%error, "not cancelled, trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
    let store = |scheduled: Scheduled| async move {
        let message_id = format!("{sequence} {}", scheduled.id);
        schedule(nats, source, scheduled, set_ns, trace.as_ref(), &message_id).await;
    };
    stream::iter(scheduled).map(store).buffer_unordered(AT_ONCE).collect::<()>().await;
}
