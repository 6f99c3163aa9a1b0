//! A message that was handed out and did not arrive. The client library loses its connection over
//! some messages that nats-server passes on, and takes others for the server's own. Such a message
//! comes again each time, to every member, and nothing behind it arrives. So it is stored among the
//! refused input, and removed from where it was.
//!
//! Every outage loses messages that are under way. So a message whose form says nothing against it
//! is set aside only when it alone was lost, several times in a row.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::rejected;
use crate::metrics::{Metrics, SetAside};
use crate::nats::link::Link;
use crate::nats::mailbox::remove;
use crate::nats::pinned::{Pinned, handed_out_through};
use crate::nats::raw::{self, RawMessage};
use crate::nats::{During, Nats, NatsError};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::token::Source;

/// A message that looks well formed is set aside when it was lost so often, and nothing arrived in
/// between.
const LOSSES: u32 = 3;
/// After so many losses it is pulled alone: then nothing else can have ended the connection.
const LOSSES_TOGETHER: u32 = 2;
/// Messages looked at after a loss. More that cannot be read are found after the next one.
const MOST_LOOKED_AT: usize = 1_000;
/// Bytes of headers that are shown.
const HEADERS_SHOWN: usize = 200;
/// The token that stands for a source where the subject names none. As a name it is empty.
const NO_SOURCE: &str = "=";

/// The origin of foreign messages.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) stream: String,
    /// The consumer, or another name of the reader.
    pub(super) consumer: String,
    /// The consumer's subjects.
    pub(super) subjects: String,
    pub(super) kind: SetAside,
}

/// Connections and counters for reading foreign messages.
#[derive(Debug, Clone)]
pub(super) struct InputContext {
    /// The connection to ask over.
    pub(super) nats: Nats,
    /// The connection over which the messages come.
    pub(super) sets: Link,
    pub(super) losses: Losses,
    pub(super) metrics: Metrics,
}

/// For each consumer the message that was lost last, and how often in a row. It outlives a
/// take-over.
#[derive(Debug, Clone, Default)]
pub struct Losses(watch::Sender<BTreeMap<String, (u64, u32)>>);

impl Losses {
    /// Counts a loss. Returns how often the message was lost in a row.
    fn lost(&self, consumer: &str, sequence: u64) -> u32 {
        let mut times = 1;
        self.0.send_modify(|losses| {
            if let Some((_, before)) = losses
                .remove(consumer)
                .filter(|(before, _)| *before == sequence)
            {
                times += before;
            }
            losses.insert(consumer.to_owned(), (sequence, times));
        });
        times
    }

    /// Forgets the message that was lost, since it arrived.
    fn arrived(&self, consumer: &str, sequence: u64) {
        if self
            .0
            .borrow()
            .get(consumer)
            .is_some_and(|(lost, _)| *lost <= sequence)
        {
            self.forget(consumer);
        }
    }

    fn forget(&self, consumer: &str) {
        self.0
            .send_if_modified(|losses| losses.remove(consumer).is_some());
    }

    /// Returns the message that is to be pulled alone, if there is one.
    fn alone(&self, consumer: &str) -> Option<u64> {
        self.0
            .borrow()
            .get(consumer)
            .filter(|(_, times)| *times >= LOSSES_TOGETHER)
            .map(|(sequence, _)| *sequence)
    }
}

impl Origin {
    /// Takes the consumer over.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(super) async fn take_over(
        &self,
        input: &InputContext,
        max_bytes: usize,
    ) -> Result<Pinned, NatsError> {
        let (stream, consumer) = (self.stream.clone(), self.consumer.clone());
        let (sets, alone) = (input.sets.live().await, input.losses.alone(&consumer));
        Pinned::take_over_watchfully(&sets, &input.nats, stream, consumer, max_bytes, alone).await
    }

    /// Returns the message that is to come alone, if there is one.
    pub(super) fn alone(&self, input: &InputContext) -> Option<u64> {
        input.losses.alone(&self.consumer)
    }

    /// Notes that a message arrived.
    pub(super) fn arrived(&self, input: &InputContext, sequence: u64) {
        input.losses.arrived(&self.consumer, sequence);
    }

    /// Looks why reading failed, and sets aside what cannot be read. The consumer is to be taken
    /// over again.
    ///
    /// # Errors
    /// When JetStream does not answer; nothing is removed then that is not stored elsewhere.
    pub(super) async fn look_into(
        &self,
        input: &InputContext,
        pinned: &Pinned,
    ) -> Result<(), NatsError> {
        let (origin, input, from) = (self.clone(), input.clone(), pinned.position() + 1);
        // Other input ends over the same connection, and must not end this.
        let looking = tokio::spawn(async move {
            let handed_out =
                handed_out_through(&input.nats, &origin.stream, &origin.consumer).await?;
            origin.look_from(&input, from, handed_out).await
        });
        looking.await.during("look at what did not arrive")?
    }

    /// Looks at what was handed out from one sequence to another, of which the first did not
    /// arrive, and sets aside what cannot be read.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(super) async fn look_from(
        &self,
        input: &InputContext,
        mut from: u64,
        handed_out: u64,
    ) -> Result<(), NatsError> {
        let nats = &input.nats;
        for count in 0..MOST_LOOKED_AT {
            let Some(message) = raw::next(nats, &self.stream, &self.subjects, from).await? else {
                return Ok(());
            };
            if message.sequence > handed_out {
                return Ok(());
            }
            from = message.sequence + 1;
            let problem = match message.read_headers() {
                Err(problem) => Some(problem),
                // The first one that did not arrive.
                Ok(_)
                    if count == 0
                        && input.losses.lost(&self.consumer, message.sequence) >= LOSSES =>
                {
                    Some("the connection broke each time that it was handed out")
                }
                Ok(_) => None,
            };
            if let Some(problem) = problem {
                self.set_aside(input, message, problem).await?;
                if count == 0 {
                    input.losses.forget(&self.consumer);
                }
            }
        }
        Ok(())
    }

    async fn set_aside(
        &self,
        input: &InputContext,
        message: RawMessage,
        problem: &str,
    ) -> Result<(), NatsError> {
        let nats: &Nats = &input.nats;
        let RawMessage {
            sequence,
            subject,
            headers,
            payload,
            ..
        } = message;
        let excerpt = headers[..headers.len().min(HEADERS_SHOWN)].escape_ascii();
        tracing::warn!(
            stream = self.stream,
            sequence,
            subject,
            problem,
            "a message cannot be read, set aside"
        );
        let detail = format!(
            "{problem}; its subject is {}, its headers begin with {excerpt}",
            subject.escape_debug()
        );
        let rejection = Rejection::new(RejectCode::UnreadableMessage, detail);
        let token = subject.rsplit('.').next().unwrap_or_default();
        // A string that is not a source's token may not be a token at all.
        let token = if Source::from_token(token).is_ok() {
            token.to_owned()
        } else {
            NO_SOURCE.to_owned()
        };
        let id = format!("unreadable {} {sequence}", self.stream);
        let message = rejected::Message::new(&nats.names, &token, payload, &rejection, None, id);
        message.store(nats, &input.metrics).await;
        input.metrics.set_aside(self.kind);
        remove(nats, &self.stream, sequence).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_count_only_in_a_row() {
        let losses = Losses::default();
        assert_eq!(
            [
                losses.lost("intake", 7),
                losses.lost("due", 7),
                losses.lost("intake", 8)
            ],
            [1, 1, 1]
        );
        assert_eq!(losses.alone("intake"), None);
        assert_eq!(losses.lost("intake", 8), 2);
        assert_eq!(losses.alone("intake"), Some(8));
        losses.arrived("intake", 7);
        assert_eq!(losses.lost("intake", 8), 3);
        losses.arrived("intake", 8);
        assert_eq!(
            (losses.alone("intake"), losses.lost("intake", 8)),
            (None, 1)
        );
    }
}
