//! What a set has for later: reminders to be scheduled, and earlier ones that it cancels.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::plan::Plan;
use crate::nats::Nats;
use crate::nats::pinned::Received;
use crate::nats::schedule::{Scheduled, cancel, schedule};
use crate::token::Source;
use crate::trace::TraceParent;

/// Schedules stored at a time.
const AT_ONCE: usize = 256;
/// How long to wait until JetStream is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What one set has for later.
#[derive(Debug)]
pub(super) struct Later {
    /// The business system.
    pub(super) source: Source,
    /// The set's sequence.
    pub(super) sequence: u64,
    set_ns: i128,
    cancel: Vec<String>,
    scheduled: Vec<Scheduled>,
    trace: Option<TraceParent>,
}

impl Later {
    /// Takes it out of a set's plan, if there is anything.
    pub(super) fn of(received: &Received, plan: &mut Plan, trace: Option<TraceParent>) -> Option<Self> {
        let (cancel, scheduled) = (std::mem::take(&mut plan.cancel), std::mem::take(&mut plan.scheduled));
        if cancel.is_empty() && scheduled.is_empty() {
            return None;
        }
        let source = Source::from_token(received.subject.rsplit('.').next().unwrap_or_default()).ok()?;
        Some(Self { source, sequence: received.sequence, set_ns: received.stored_ns, cancel, scheduled, trace })
    }

    /// Cancels first: what a set cancels and has itself is replaced. Goes on until it is done, however long JetStream is away.
    pub(super) async fn carry_out(self, nats: &Nats) {
        let Self { source, sequence, set_ns, cancel: ids, scheduled, trace } = self;
        for id in &ids {
            while let Err(error) = cancel(nats, &source, id, set_ns).await {
                tracing::warn!(%error, "not cancelled, trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        let (source, trace) = (&source, trace.as_ref());
        let store = |scheduled: Scheduled| async move {
            let message_id = format!("{sequence} {}", scheduled.id);
            schedule(nats, source, scheduled, set_ns, trace, &message_id).await;
        };
        stream::iter(scheduled).map(store).buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}
