//! The application's end: reminders as a stream, each with the right to say what becomes of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::repeats::Key;
use crate::Reminder;
use bellhop_protocol::wire::answer::Reason;

/// Reminders for the users who are connected here: a stream that ends when the app server has [drained](super::AppServer::drain).
///
/// A user's reminders of one source come in the order in which they were published. Dropped, it refuses everything as `busy`.
#[derive(Debug)]
pub struct Deliveries {
    queue: mpsc::UnboundedReceiver<Vec<Queued>>,
    /// The rest of the request that is being taken.
    rest: VecDeque<Queued>,
}

/// A reminder that waits for the application's word. Bellhop has an answer when [`accept`](Self::accept) or
/// [`refuse`](Self::refuse) was called. Dropped without either it is refused as `busy`, so that it comes again: a task that panics
/// loses nothing.
///
/// What has no word when [`Options::answer_within`](super::Options::answer_within) ends is refused for now and comes again after a
/// moment, but not to the application, which has it: the word that it gives meanwhile is the answer then.
#[derive(Debug)]
pub struct Delivery {
    /// The reminder.
    pub reminder: Reminder,
    json: Box<RawValue>,
    word: Word,
}

/// What the application says of a reminder.
pub(super) type Verdict = (Key, Result<(), Reason>);

/// Sends one verdict, whatever happens. There are never more on their way than reminders without a verdict, and those are bounded.
#[derive(Debug)]
struct Word {
    key: Key,
    line: Line,
    verdicts: mpsc::UnboundedSender<Verdict>,
    verdict: Result<(), Reason>,
}

impl Drop for Word {
    fn drop(&mut self) {
        if self.verdict.is_err() {
            self.line.cut();
        }
        let _ = self.verdicts.send((self.key, self.verdict)); // Without the other end there is nobody to tell.
    }
}

impl Delivery {
    /// The reminder is safe with the application: it is delivered, and does not come again.
    pub fn accept(mut self) -> Reminder {
        self.word.verdict = Ok(());
        self.reminder
    }

    /// Not now, or not here. What the user has behind it in the same request is refused, too, so that order holds.
    ///
    /// With [`Reason::Busy`] it comes again after a moment. With [`Reason::NotConnected`] Bellhop drops the user's route:
    /// [`disconnect`](super::AppServer::disconnect) is the way to say so of all the user's reminders.
    pub fn refuse(mut self, reason: Reason) {
        self.word.verdict = Err(reason);
    }

    /// The reminder as it came, with fields that this client does not know.
    pub fn json(&self) -> &RawValue {
        &self.json
    }
}

impl Deliveries {
    /// The next reminder; none when the app server has drained. Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Option<Delivery> {
        StreamExt::next(self).await
    }

    /// Waits for the next request and returns all its reminders, in order, so that they can be stored together. Returns `None`
    /// when the app server has drained. Nothing is lost where the future is dropped.
    ///
    /// The list is never empty. Where [`next`](Self::next) has taken some of a request, it is the others.
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
    /// Returns the delivery, unless it was taken back or stands behind a refused one.
    fn open(self) -> Option<Delivery> {
        let Self { key, content, line, verdicts, _room } = self;
        let (reminder, json) = content.take()?;
        let word = Word { key, line, verdicts, verdict: Err(Reason::Busy) };
        (!word.line.is_cut()).then_some(Delivery { reminder, json, word })
    }
}

/// What a reminder says, between two tasks: the application takes it, or it is taken back. Whoever is first has it, and what was taken
/// back takes no memory while it stands in the queue.
#[derive(Debug, Clone)]
pub(super) struct Content(Arc<Mutex<Option<Text>>>);

/// A reminder as it is read, and as it came.
type Text = (Reminder, Box<RawValue>);

impl Content {
    pub(super) fn new(reminder: Reminder, json: Box<RawValue>) -> Self {
        Self(Arc::new(Mutex::new(Some((reminder, json)))))
    }

    pub(super) fn take(&self) -> Option<Text> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One user's reminders of one request. When the application refuses one, those behind it are not for it to see, from that moment
/// on.
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

/// Returns the two ends of a queue of requests. It needs no bound of its own: each reminder in it has a permit.
pub(super) fn queue() -> (mpsc::UnboundedSender<Vec<Queued>>, Deliveries) {
    let (sender, queue) = mpsc::unbounded_channel();
    (sender, Deliveries { queue, rest: VecDeque::new() })
}
