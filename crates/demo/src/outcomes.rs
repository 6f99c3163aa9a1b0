//! Follows `BELLHOP_OUTCOMES`, as a business system can, and enters everything into the ledger.

use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use bellhop_protocol::reminder::outcome::Batch;
use futures_util::StreamExt;

use crate::board::{Board, Line};
use crate::error::{DemoError, During};
use crate::ledger::Record;

const ACTION: &str = "follow the outcomes";

/// Follows the stream from its beginning, until the task is aborted.
pub(crate) async fn follow(
    jetstream: Context,
    stream: String,
    board: Arc<Board>,
) -> Result<(), DemoError> {
    let stream = jetstream.get_stream_no_info(stream).await.during(ACTION)?;
    let consumer = stream
        .create_consumer(OrderedConfig::default())
        .await
        .during(ACTION)?;
    let mut messages = consumer.messages().await.during(ACTION)?;
    while let Some(message) = messages.next().await {
        let message = message.during(ACTION)?;
        let batch: Batch<Record> = serde_json::from_slice(&message.payload).during(ACTION)?;
        let sequence = message.info().during(ACTION)?.stream_sequence;
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
    Err(DemoError::Ended("the outcomes ended"))
}
