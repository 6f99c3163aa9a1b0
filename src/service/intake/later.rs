//! Schedules what a set has for later, and cancels what it cancels.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::plan::Later;
use crate::event::OfSet;
use crate::nats::Nats;
use crate::nats::schedule::{Scheduled, Withdrawal, schedule, withdraw};

/// Schedules stored, or taken back, at a time. A source's sets go one after the other, so it has no more requests under way.
const AT_ONCE: usize = 256;
/// How long to wait until JetStream is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes back first: what a set cancels and has itself is replaced. Goes on until it is done, however long JetStream is away.
pub(super) async fn carry_out(later: Later, nats: &Nats) {
    let Later { set, set_ns, cancel, replaced, scheduled } = later;
    let OfSet { source, sequence, trace, .. } = &*set;
    let of = |ids: Vec<String>, why| ids.into_iter().map(move |id| (id, why));
    let withdrawals = of(cancel, Withdrawal::Cancelled).chain(of(replaced, Withdrawal::Replaced));
    let take_back = |(id, why): (String, Withdrawal)| async move {
        while let Err(error) = withdraw(nats, source, &id, set_ns, why).await {
            tracing::warn!(%error, "trying again");
            tokio::time::sleep(PAUSE).await;
        }
    };
    stream::iter(withdrawals).map(take_back).buffer_unordered(AT_ONCE).collect::<()>().await;
    let store = |scheduled: Scheduled| async move {
        let message_id = format!("{sequence} {}", scheduled.id);
        schedule(nats, source, scheduled, set_ns, trace.as_ref(), &message_id).await;
    };
    stream::iter(scheduled).map(store).buffer_unordered(AT_ONCE).collect::<()>().await;
}
