//! Waits for the history to know what the stream of outcomes has: who saw a reminder arrive, and
//! asks for it, finds it.

use std::time::Duration;

use crate::nats::{During, Nats, NatsError};

/// Maximum time for which a query waits for the history; then it is answered from the present
/// state.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);
/// With more messages before it than this, the history is behind, and waiting is no use.
const BEHIND: u64 = 1_000;

/// Waits until everything is written that the stream has now, if that is a matter of a moment.
///
/// # Errors
/// When JetStream does not answer.
pub async fn catch_up(nats: &Nats) -> Result<(), NatsError> {
    // Longer waits are not worth it.
    tokio::time::timeout(PATIENCE, written(nats))
        .await
        .unwrap_or(Ok(()))
}

async fn written(nats: &Nats) -> Result<(), NatsError> {
    let outcomes = nats
        .jetstream
        .get_stream_no_info(nats.names.outcomes_stream())
        .await
        .during("ask how far the history is")?;
    let mut wanted = None;
    loop {
        let info = outcomes
            .consumer_info(nats.names.history_consumer())
            .await
            .during("ask how far the history is")?;
        let unwritten = info.num_pending + info.num_ack_pending as u64;
        let wanted = *wanted.get_or_insert(info.delivered.stream_sequence + info.num_pending);
        if unwritten == 0 || unwritten > BEHIND || info.ack_floor.stream_sequence >= wanted {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}
