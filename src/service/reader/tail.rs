//! One reader's way through the log: reads the sets in order, and splits each. Lost sets are read
//! again, and unreadable ones are set aside.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use tokio::sync::{mpsc, oneshot};

use super::super::spans;
use super::super::unreadable::{InputContext, Origin};
use super::Command;
use crate::headers;
use crate::log::position::{LogState, Mark};
use crate::log::readers::ReaderId;
use crate::log::split::{Message, Split, split};
use crate::metrics::SetAside;
use crate::nats::log::{self, Tail};
use crate::nats::pinned::Received;
use crate::nats::schedule::SET_TIME;
use crate::nats::{NatsError, chain};
use crate::wire::cloud_event::Published;

/// Pause before the log is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// A set that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) sequence: u64,
    /// Time at which it was stored, in milliseconds since 1970, and
    pub(super) stored_ms: i64,
    /// in nanoseconds.
    pub(super) stored_ns: i128,
    pub(super) headers: Option<HeaderMap>,
    pub(super) split: Split,
}

/// Reads behind a sequence, for an installation with so many partitions, until the receiver is
/// gone.
///
/// It ends by itself only where the log is another one, or went back: nothing is known of any
/// position then. It also ends where the front of the log passed it by, because a partition's owner
/// removes only sets that its own position covers.
pub(super) async fn run(
    input: InputContext,
    questions: mpsc::WeakUnboundedSender<Command>,
    reader: ReaderId,
    created_ns: i64,
    after: u64,
    partitions: u16,
    out: mpsc::Sender<Read>,
) {
    let names = &input.nats.names;
    let origin = Origin {
        stream: names.log_stream(),
        consumer: format!("log {reader}"),
        subjects: names.all_sets(),
        kind: SetAside::Set,
    };
    let mut run = Run {
        input,
        questions,
        origin,
        created_ns,
        partitions,
        after,
        last: None,
        out,
    };
    while !run.out.is_closed() {
        match run.read().await {
            Ok(End::Again) => {}
            Ok(End::Closed) => return,
            Ok(End::OtherLog) => {
                tracing::error!(
                    "the log of sets was replaced or went back: restarting its partitions"
                );
                return;
            }
            Ok(End::Overtaken) => {
                tracing::error!(
                    "sets were removed before this member read them: another one works its partitions"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "reading the log again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Run {
    input: InputContext,
    questions: mpsc::WeakUnboundedSender<Command>,
    origin: Origin,
    created_ns: i64,
    partitions: u16,
    after: u64,
    /// Time at which the set at `after` was stored, if this reader has read it.
    last: Option<i64>,
    out: mpsc::Sender<Read>,
}

enum End {
    Again,
    Closed,
    OtherLog,
    /// The front of the log passed sets that were not read here.
    Overtaken,
}

/// Returns true if the log does not have what this reader has read up to `after`, the last of it
/// stored at `last`, or what the furthest subscriber has taken. What lies before that is there if
/// that is. `state` is the log's, with the time of the set at the higher one of both places.
fn went_back(state: &LogState, (after, last): (u64, Option<i64>), furthest: Mark) -> bool {
    let at = furthest.sequence.max(after);
    let is_other = |stored_ms| {
        let is_as_read = at > after || last.is_none_or(|last| stored_ms == last);
        let is_as_taken = at > furthest.sequence || stored_ms <= furthest.stored_ms;
        !(is_as_read && is_as_taken)
    };
    // The set itself may have been removed alone.
    state.last < at || state.stored_ms_at.is_some_and(is_other)
}

impl Run {
    /// Returns how far the subscriber has come that has come furthest. It may wait for room behind
    /// another reader, or none.
    async fn furthest(&self) -> Mark {
        let (answer, answered) = oneshot::channel();
        let asked = self
            .questions
            .upgrade()
            .map(|questions| questions.send(Command::Furthest(answer)));
        if asked.is_none() {
            return Mark::START; // The process ends.
        }
        answered.await.unwrap_or(Mark::START)
    }

    /// Reads until something is in the way.
    async fn read(&mut self) -> Result<End, NatsError> {
        let furthest = self.furthest().await;
        let at = furthest.sequence.max(self.after);
        let state = log::state(&self.input.nats, at).await?;
        if state.created_ns != self.created_ns
            || went_back(&state, (self.after, self.last), furthest)
        {
            return Ok(End::OtherLog);
        }
        let alone = self.origin.alone(&self.input);
        let (sets, plain) = (self.input.sets.live().await, self.input.nats.clone());
        let mut tail = Tail::open(sets, plain, self.after, alone.is_some()).await?;
        // A first set that is unreadable is removed alone.
        let mut next = state.first.max(self.after + 1);
        loop {
            let set = tokio::select! {
                set = tail.next() => set,
                () = self.out.closed() => {
                    tail.close().await;
                    return Ok(End::Closed);
                }
            };
            match set {
                Ok(set) => {
                    let sequence = set.sequence;
                    if sequence > next && log::state(&self.input.nats, 0).await?.first > next {
                        tail.close().await;
                        return Ok(End::Overtaken);
                    }
                    next = sequence + 1;
                    self.origin.arrived(&self.input, sequence);
                    (self.after, self.last) = (sequence, Some(set.stored_ms()));
                    if self.out.send(read(set, self.partitions)).await.is_err() {
                        tail.close().await;
                        return Ok(End::Closed);
                    }
                    if alone.is_some_and(|alone| sequence >= alone) {
                        tail.close().await;
                        return Ok(End::Again);
                    }
                }
                Err(error) => {
                    // If the server has forgotten the reader, it says no more of what it handed
                    // out.
                    if let Ok(handed_out) = tail.handed_out().await {
                        self.origin
                            .look_from(&self.input, self.after + 1, handed_out)
                            .await?;
                    }
                    tail.close().await;
                    return Err(error);
                }
            }
        }
    }
}

fn read(set: Received, partitions: u16) -> Read {
    let stored_ms = set.stored_ms();
    let split = {
        let published = Published::read(|name| set.header(name), &set.payload);
        let span = spans::take_in(&set.subject, published.trace.as_ref());
        let message = Message {
            source_token: set.subject.rsplit('.').next().unwrap_or_default(),
            sequence: set.sequence,
            stored_ms,
            body: &set.payload,
            set: published.set.as_deref().map_err(Clone::clone),
            message_id: set.header(NATS_MESSAGE_ID.as_ref()),
            is_requeued: set.header(headers::REQUEUE).is_some(),
            is_due: set.header(SET_TIME).is_some(),
            trace: spans::passed_on(&span, published.trace),
        };
        split(&message, partitions)
    };
    Read {
        sequence: set.sequence,
        stored_ms,
        stored_ns: set.stored_ns,
        headers: set.headers,
        split,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(last: u64, stored_ms_at: Option<i64>) -> LogState {
        LogState {
            created_ns: 1,
            first: 1,
            last,
            stored_ms_at,
        }
    }

    const TAKEN: Mark = Mark {
        sequence: 100,
        stored_ms: 1_000,
    };

    #[test]
    fn a_shorter_log_went_back() {
        assert!(went_back(&log(49, None), (50, Some(500)), Mark::START));
        assert!(!went_back(
            &log(50, Some(500)),
            (50, Some(500)),
            Mark::START
        ));
        assert!(went_back(&log(50, Some(501)), (50, Some(500)), Mark::START));
    }

    #[test]
    fn a_subscriber_ahead_of_its_reader_counts() {
        assert!(went_back(&log(60, None), (50, Some(500)), TAKEN));
        assert!(went_back(&log(120, Some(2_000)), (50, Some(500)), TAKEN));
        assert!(!went_back(&log(120, Some(1_000)), (50, Some(500)), TAKEN));
    }

    #[test]
    fn a_reader_that_begins_knows_by_its_subscriber() {
        assert!(went_back(&log(120, Some(2_000)), (100, None), TAKEN));
        assert!(!went_back(&log(120, Some(900)), (100, None), TAKEN));
    }

    #[test]
    fn a_set_removed_alone_is_no_other_log() {
        assert!(!went_back(&log(120, None), (50, Some(500)), TAKEN));
    }
}
