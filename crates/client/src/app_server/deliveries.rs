//! The application's side: reminders as a stream, each of which the application accepts or refuses.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::duplicates::Key;
use crate::Reminder;
use bellhop_protocol::wire::answer::Reason;

/// A stream of reminders for the users who are connected here. It ends when the app server has
/// [drained](super::AppServer::drain).
///
/// A user's reminders of one source arrive in the order of publishing. When this is dropped, every
/// delivery is refused as busy.
#[derive(Debug)]
pub struct Deliveries {
    queue: mpsc::UnboundedReceiver<Vec<Queued>>,
    /// The reminders of the latest request that the application has not taken yet.
    rest: VecDeque<Queued>,
}

/// A reminder that the application has to accept or refuse. Dropped without either, it is refused
/// as busy and comes again, so a task that panics loses nothing.
///
/// A reminder without a decision when [`Options::answer_within`](super::Options::answer_within)
/// ends is refused for now. Bellhop delivers it again after a moment. The application, which still
/// has it, does not get it a second time: its decision in the meantime answers the new delivery.
#[derive(Debug)]
pub struct Delivery {
    /// The reminder.
    pub reminder: Reminder,
    json: Box<RawValue>,
    reply: Reply,
}

/// The application's decision about a reminder.
pub(super) type Verdict = (Key, Result<(), Reason>);

/// Sends one decision, also when it is dropped. The channel needs no bound: there is at most one
/// decision for each undecided reminder, and those are bounded.
#[derive(Debug)]
struct Reply {
    key: Key,
    line: Line,
    verdicts: mpsc::UnboundedSender<Verdict>,
    verdict: Result<(), Reason>,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.verdict.is_err() {
            self.line.cut();
        }
        let _ = self.verdicts.send((self.key, self.verdict)); // Without the other end the verdict is not needed.
    }
}

impl Delivery {
    /// Accepts the reminder: it is safe with the application, and Bellhop forgets it. Returns the
    /// reminder.
    pub fn accept(mut self) -> Reminder {
        self.reply.verdict = Ok(());
        self.reminder
    }

    /// Refuses the reminder, and with it the user's later reminders of the same request, so that
    /// they stay in order.
    ///
    /// With [`Reason::Busy`] it comes again after a moment. With [`Reason::NotConnected`] Bellhop
    /// drops the user's route; when the user has left, call
    /// [`disconnect`](super::AppServer::disconnect) instead, which refuses all that waits.
    pub fn refuse(mut self, reason: Reason) {
        self.reply.verdict = Err(reason);
    }

    /// Returns the reminder as it came, with the fields that this client does not know.
    pub fn json(&self) -> &RawValue {
        &self.json
    }
}

impl Deliveries {
    /// Waits for the next reminder. Returns `None` when the app server has drained. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Delivery> {
        StreamExt::next(self).await
    }

    /// Waits for the next request, and returns its reminders in order, so that they can be stored
    /// together. Returns `None` when the app server has drained. Dropping the future loses nothing.
    ///
    /// The list is never empty. After [`next`](Self::next) it has the other reminders of the same
    /// request.
    pub async fn next_batch(&mut self) -> Option<Vec<Delivery>> {
        loop {
            let batch: Vec<Delivery> = self.rest.drain(..).filter_map(Queued::open).collect();
            if !batch.is_empty() {
                return Some(batch);
            }
            self.rest = self.queue.recv().await?.into();
        }
    }
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            while let Some(queued) = self.rest.pop_front() {
                if let Some(delivery) = queued.open() {
                    return Poll::Ready(Some(delivery));
                }
            }
            match ready!(self.queue.poll_recv(context)) {
                Some(request) => self.rest = request.into(),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// A reminder that waits to be taken.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) key: Key,
    pub(super) content: Content,
    pub(super) line: Line,
    pub(super) verdicts: mpsc::UnboundedSender<Verdict>,
    pub(super) _room: OwnedSemaphorePermit,
}

impl Queued {
    /// Returns the delivery, unless it was taken back or follows a refused one.
    fn open(self) -> Option<Delivery> {
        let Self {
            key,
            content,
            line,
            verdicts,
            _room,
        } = self;
        let (reminder, json) = content.take()?;
        let reply = Reply {
            key,
            line,
            verdicts,
            verdict: Err(Reason::Busy),
        };
        (!reply.line.is_cut()).then_some(Delivery {
            reminder,
            json,
            reply,
        })
    }
}

/// A reminder that two tasks share: either the application takes it, or the task of the app server
/// takes it back. One that was taken back needs no memory while it is still in the queue.
#[derive(Debug, Clone)]
pub(super) struct Content(Arc<Mutex<Option<Text>>>);

/// A reminder, parsed and as it came.
type Text = (Reminder, Box<RawValue>);

impl Content {
    pub(super) fn new(reminder: Reminder, json: Box<RawValue>) -> Self {
        Self(Arc::new(Mutex::new(Some((reminder, json)))))
    }

    pub(super) fn take(&self) -> Option<Text> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One user's reminders of one request. Once the application refuses one, it does not get the later
/// ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Arc<AtomicBool>);

impl Line {
    fn cut(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the two ends of a queue of requests. It needs no bound of its own: each reminder in it
/// has a permit.
pub(super) fn queue() -> (mpsc::UnboundedSender<Vec<Queued>>, Deliveries) {
    let (sender, queue) = mpsc::unbounded_channel();
    (
        sender,
        Deliveries {
            queue,
            rest: VecDeque::new(),
        },
    )
}
