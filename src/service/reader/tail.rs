//! One reader's way through the log: reads the sets in order, and splits each. What is lost on the way is read again, and what
//! cannot be read is set aside.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use tokio::sync::mpsc;

use super::super::spans;
use super::super::unreadable::{InputContext, Origin};
use crate::headers;
use crate::log::readers::ReaderId;
use crate::log::split::{Message, Split, split};
use crate::metrics::SetAside;
use crate::nats::log::{self, Tail};
use crate::nats::pinned::Received;
use crate::nats::schedule::SET_TIME;
use crate::nats::{NatsError, chain};
use crate::wire::cloud_event::Published;

/// How long to wait until the log is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// A set that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) sequence: u64,
    /// When it was stored, in milliseconds since 1970, and
    pub(super) stored_ms: i64,
    /// in nanoseconds.
    pub(super) stored_ns: i128,
    pub(super) headers: Option<HeaderMap>,
    pub(super) split: Split,
}

/// Reads behind a sequence, for an installation with so many partitions, until the receiver is gone.
///
/// It ends by itself only where the log is another one, or went back: nothing is known of any position then.
pub(super) async fn run(
    input: InputContext,
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
                    "the log of sets is another one than before, or went back: its partitions begin again"
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
    origin: Origin,
    created_ns: i64,
    partitions: u16,
    after: u64,
    /// When the set at `after` was stored, if this reader has read it.
    last: Option<i64>,
    out: mpsc::Sender<Read>,
}

enum End {
    Again,
    Closed,
    OtherLog,
}

impl Run {
    /// Reads until something is in the way.
    async fn read(&mut self) -> Result<End, NatsError> {
        let state = log::state(&self.input.nats, self.after).await?;
        let is_same_set = self
            .last
            .is_none_or(|last| state.stored_ms_at.is_none_or(|at| at == last));
        if state.created_ns != self.created_ns || state.last < self.after || !is_same_set {
            return Ok(End::OtherLog);
        }
        let alone = self.origin.alone(&self.input);
        let (sets, plain) = (self.input.sets.live().await, self.input.nats.clone());
        let mut tail = Tail::open(sets, plain, self.after, alone.is_some()).await?;
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
                    // If the server has forgotten the reader, it says no more of what it handed out.
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
