//! Follows `BELLHOP_OUTCOMES`, as a business system can, and enters everything into the ledger.

use std::sync::Arc;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt;

use super::DemoError;
use super::board::{Board, Line};
use super::ledger::Record;
use crate::nats::Nats;
use crate::reminder::outcome::Batch;

/// Follows the stream from its beginning, until the task is aborted.
pub(super) async fn follow(nats: Nats, board: Arc<Board>) -> Result<(), DemoError> {
    let failed = |problem: &dyn std::fmt::Display| DemoError::nats("follow the outcomes", problem);
    let stream = nats
        .jetstream
        .get_stream_no_info(nats.names.outcomes_stream())
        .await
        .map_err(|e| failed(&e))?;
    let consumer = stream
        .create_consumer(OrderedConfig::default())
        .await
        .map_err(|e| failed(&e))?;
    let mut messages = consumer.messages().await.map_err(|e| failed(&e))?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|e| failed(&e))?;
        let batch: Batch<Record> =
            serde_json::from_slice(&message.payload).map_err(|e| failed(&e))?;
        let sequence = message.info().map_err(|e| failed(&e))?.stream_sequence;
        board.with(|board| {
            for record in &batch.outcomes {
                let rejected_before = board.ledger.counts().rejected;
                board.ledger.outcome(record);
                if board.ledger.counts().rejected > rejected_before {
                    let error = record.error.as_deref().unwrap_or_default();
                    board.say(Line::scene(format!(
                        "{} is rejected alone, its set goes on: {error}",
                        record.id
                    )));
                }
            }
            board.outcomes_seen = sequence;
        });
    }
    Err(failed(&"it ended"))
}
