//! Reads what is recorded above a position.
//!
//! A reminder is recorded first and removed after. A process that dies in between leaves it to be
//! found again, and a new owner would deliver it a second time and record a second outcome. So each
//! message of outcomes names, in a header, what is done with (`log/done.rs`). A new owner reads
//! these headers from the place on that its position names.

use std::collections::HashMap;

use async_nats::datetime;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use tokio::sync::{mpsc, oneshot};

use crate::log::Subscriber;
use crate::log::done::{AllDone, decode};
use crate::log::position::OutcomesStart;
use crate::nats::replay::{last_sequence, replay};
use crate::nats::{Nats, NatsError, chain};

/// The header that names what a message of outcomes is of.
pub const HEADER: &str = "Bellhop-Settles";

/// The action in errors.
const WHAT: &str = "read what is recorded";
/// Subscribers that wait for the next reading.
const MAX_WAITING: usize = 1_024;

/// A subscriber that is taken over.
struct Request {
    subscriber: Subscriber,
    start: OutcomesStart,
    answer: oneshot::Sender<Result<AllDone, NatsError>>,
}

/// Reads what is recorded, once for all who ask while the reading before is under way: the
/// partitions of a member that died are taken over together, and mostly need the same messages.
#[derive(Debug, Clone)]
pub struct Reader {
    requests: mpsc::Sender<Request>,
}

impl Reader {
    /// Starts the task that reads. It ends with the last reader.
    pub fn start(nats: Nats) -> Self {
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(answer(nats, waiting));
        Self { requests }
    }

    /// Returns what is recorded of a subscriber from a place on. To be asked when nothing of an
    /// earlier owner can be recorded any more.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn of(
        &self,
        subscriber: Subscriber,
        start: OutcomesStart,
    ) -> Result<AllDone, NatsError> {
        let (answer, answered) = oneshot::channel();
        let _ = self
            .requests
            .send(Request {
                subscriber,
                start,
                answer,
            })
            .await;
        answered
            .await
            .unwrap_or_else(|_| Err(NatsError::failed(WHAT, "its reader ended")))
    }
}

async fn answer(nats: Nats, mut waiting: mpsc::Receiver<Request>) {
    let mut requests = Vec::new();
    while waiting.recv_many(&mut requests, MAX_WAITING).await > 0 {
        let mut done = read(&nats, &requests).await;
        for Request {
            subscriber, answer, ..
        } in requests.drain(..)
        {
            let its = match &mut done {
                Ok(done) => Ok(done.remove(&subscriber).unwrap_or_default()),
                // Several wait for this answer, and an error cannot be copied.
                Err(error) => Err(NatsError::failed(WHAT, chain(error).to_string())),
            };
            let _ = answer.send(its); // A take-over may have been given up.
        }
    }
}

async fn read(
    nats: &Nats,
    requests: &[Request],
) -> Result<HashMap<Subscriber, AllDone>, NatsError> {
    let mut all: HashMap<Subscriber, AllDone> = requests
        .iter()
        .map(|request| (request.subscriber, AllDone::new()))
        .collect();
    let outcomes = nats.names.outcomes_stream();
    let through = last_sequence(nats, &outcomes).await?;
    // Those that begin at a time are rare: the stream of outcomes went back. Both ways find the
    // same.
    let mut sequence = None;
    let mut time_ms = None;
    for request in requests {
        match request.start {
            OutcomesStart::After(after) => {
                sequence = Some(sequence.unwrap_or(u64::MAX).min(after + 1))
            }
            OutcomesStart::At(at_ms) => time_ms = Some(time_ms.unwrap_or(i64::MAX).min(at_ms)),
        }
    }
    let after = sequence.filter(|start_sequence| *start_sequence <= through);
    let after = after.map(|start_sequence| DeliverPolicy::ByStartSequence { start_sequence });
    let at = time_ms.map(|time_ms| {
        let time = datetime::from_nanos(i128::from(time_ms.max(0)) * 1_000_000);
        time.map_or(DeliverPolicy::All, |start_time| {
            DeliverPolicy::ByStartTime { start_time }
        })
    });
    for deliver_policy in [after, at].into_iter().flatten() {
        let config = pull::Config {
            deliver_policy,
            headers_only: true,
            ..pull::Config::default()
        };
        replay(nats, &outcomes, config, through, |message, _, _| {
            let header = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(HEADER));
            for (subscriber, done) in header.into_iter().flat_map(|text| decode(text.as_str())) {
                if let Some(its) = all.get_mut(&subscriber) {
                    its.insert(done);
                }
            }
        })
        .await?;
    }
    Ok(all)
}
