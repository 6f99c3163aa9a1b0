//! The publisher: reminders go out in sets until JetStream has stored them.
//!
//! Several sets are under way. Each user belongs to a lane, and a lane has one set under way at a
//! time. So no other set with the same user overtakes a set that is retried, and each user's
//! reminders keep their order. Reminders that queue meanwhile make the next set: the publisher does
//! not wait for a set to fill, and sets grow with load. A cancellation does not say whose reminder
//! it is about, so it waits until no set is under way, and what comes after it waits for it.

#![allow(clippy::disallowed_methods)] // It runs, so it reads the clock.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::hash::Hasher;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use siphasher::sip128::Hasher128;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::Draft;
use bellhop_protocol::names::Names;
use bellhop_protocol::reminder::hasher_of;
use bellhop_protocol::reminder::id::id_error;
use bellhop_protocol::reminder::reject::{RejectCode, Rejection};
use bellhop_protocol::reminder::set::{self, Common, MAX_REMINDERS, Origin, max_bytes};
use bellhop_protocol::token::{Source, UserId};

/// Time after which a set without an acknowledgement of JetStream is published again.
const ACK_PATIENCE: Duration = Duration::from_secs(2);
/// The first and the longest pause before that.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Bytes of a set's message besides its entries, headers included.
const FRAME_BYTES: usize = 256;

/// Settings of a publisher, each with its default.
#[derive(Debug, Clone)]
pub struct Options {
    /// The prefix of the installation's names: `bellhop`.
    pub prefix: String,
    /// The most sets without an acknowledgement: 4. All sets share `max_waiting_bytes`. The
    /// reminders of one user are in one of them at a time, so one user's reminders gain nothing by
    /// it.
    pub sets_in_flight: usize,
    /// The most entries of one set: 10,000, which is also the protocol's limit.
    pub max_reminders: usize,
    /// The most bytes of one set: 512 KiB. A single larger reminder makes a set of its own. The
    /// server's `max_payload` is a limit, too.
    pub max_bytes: usize,
    /// The most bytes of reminders without an acknowledgement: 8 MiB. [`Publisher::publish`] waits
    /// for room.
    pub max_waiting_bytes: usize,
    /// True if invalid reminders are refused here, before they are sent: `true`. Otherwise Bellhop
    /// rejects it, and its set goes on: for a publisher that is older than the installation, and
    /// may know tighter bounds.
    pub validate: bool,
    /// Time for which a set is retried: 1 minute. It must be well below `idempotency.window` (10
    /// minutes).
    pub give_up_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "bellhop".to_owned(),
            sets_in_flight: 4,
            max_reminders: MAX_REMINDERS,
            max_bytes: 512 << 10,
            max_waiting_bytes: 8 << 20,
            validate: true,
            give_up_after: Duration::from_secs(60),
        }
    }
}

/// The reason why a reminder is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Bellhop would refuse the reminder. Nothing was sent.
    #[error("the reminder would be refused: {0}")]
    Invalid(#[from] Rejection),
    /// JetStream did not acknowledge the set. It may be stored nevertheless.
    #[error(
        "not acknowledged within {after:?}: {problem}; it may be stored, so publish it again under its id"
    )]
    Unconfirmed {
        /// Time for which it was retried.
        after: Duration,
        /// The latest problem.
        problem: String,
    },
    /// The runtime that the publisher was started in has ended.
    #[error(
        "the publisher has ended with its runtime; it may be stored, so publish it again under its id"
    )]
    Ended,
}

/// Confirms that JetStream has stored the reminder. From then on Bellhop is responsible for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The reminder's id: the given one, or the generated one.
    pub id: String,
    /// The sequence of its set in the stream of sets. Outcomes and deliveries name the set by it.
    pub set: u64,
}

/// Publishes reminders of one source. Clones share one queue. After it is dropped, what it has
/// taken is still published, as long as its runtime runs.
#[derive(Debug, Clone)]
pub struct Publisher {
    queue: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
    origin: Arc<Origin>,
    max_waiting_bytes: u32,
    lanes: usize,
    validate: bool,
}

/// A reminder or a cancellation on its way. Await it to know when JetStream has stored it. Dropped,
/// it still goes out, and a failure is logged as an error.
#[derive(Debug)]
pub struct Publishing {
    id: String,
    stored: oneshot::Receiver<Result<u64, PublishError>>,
}

/// An entry of a set that is not acknowledged. The queue needs no bound of its own: each has bytes,
/// and those are bounded.
#[derive(Debug)]
struct Waiting {
    list: List,
    lane: usize,
    json: String,
    stored: oneshot::Sender<Result<u64, PublishError>>,
    _room: OwnedSemaphorePermit,
}

/// The lists of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Cancel,
    Reminders,
}

impl Publisher {
    /// Starts a publisher over this connection, inside a Tokio runtime.
    pub fn start(client: Client, source: Source, options: Options) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let max_waiting_bytes =
            u32::try_from(options.max_waiting_bytes.clamp(1, Semaphore::MAX_PERMITS))
                .unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(max_waiting_bytes as usize));
        let origin = Arc::new(Origin::unpublished(&source));
        let lanes = options.sets_in_flight.max(1);
        let (subject, validate) = (Names::new(&options.prefix).sets(&source), options.validate);
        let jetstream = ContextBuilder::new()
            .timeout(ACK_PATIENCE)
            .build(client.clone());
        tokio::spawn(
            Sender {
                client,
                jetstream,
                subject,
                options,
            }
            .run(queued, lanes),
        );
        Self {
            queue,
            room,
            origin,
            max_waiting_bytes,
            lanes,
            validate,
        }
    }

    /// Takes a reminder when there is room. A user's reminders go out in the order in which this
    /// call returns.
    ///
    /// # Errors
    /// When Bellhop would refuse it.
    pub async fn publish(&self, draft: Draft) -> Result<Publishing, PublishError> {
        let id = draft.id.unwrap_or_else(|| nuid::next().to_string());
        let draft = Draft {
            id: Some(id.clone()),
            ..draft
        };
        let lane = self.lane(&draft.user);
        let json = serde_json::to_string(&draft)
            .expect("a draft has only string keys and valid JSON inside");
        if self.validate {
            let set = Common {
                id: self.origin.sequence.to_string().into(),
                is_named: false,
                deliver_at: None,
            };
            set::read(&self.origin, &set, 0, &json).map_err(|refused| refused.rejection)?;
        }
        self.enqueue(List::Reminders, lane, id, json).await
    }

    /// Cancels the scheduled reminders of an id, of all users: those with a
    /// [`deliver_at`](Draft::deliver_at) that has not come yet, and those with a
    /// [`repeat`](Draft::repeat). Their outcome is `cancelled`. One that is due already, or was
    /// never scheduled, is left alone, and there is no outcome.
    ///
    /// It goes out in order with what is published: a reminder that is published later under the
    /// same id is not cancelled.
    ///
    /// # Errors
    /// When no reminder can have this id.
    pub async fn cancel(&self, id: impl Into<String>) -> Result<Publishing, PublishError> {
        let id = checked(id.into())?;
        let entry = json!(id);
        self.enqueue(List::Cancel, 0, id, entry.to_string()).await
    }

    /// Cancels the scheduled reminder of one user, as [`Publisher::cancel`] does those of all.
    ///
    /// # Errors
    /// When no reminder can have this id.
    pub async fn cancel_for(
        &self,
        id: impl Into<String>,
        user: &UserId,
    ) -> Result<Publishing, PublishError> {
        let id = checked(id.into())?;
        let entry = json!({ "id": id, "user": user });
        self.enqueue(List::Cancel, 0, id, entry.to_string()).await
    }

    async fn enqueue(
        &self,
        list: List,
        lane: usize,
        id: String,
        json: String,
    ) -> Result<Publishing, PublishError> {
        let room = self
            .room_for(u32::try_from(json.len()).unwrap_or(u32::MAX))
            .await?;
        let (sender, stored) = oneshot::channel();
        let waiting = Waiting {
            list,
            lane,
            json,
            stored: sender,
            _room: room,
        };
        self.queue.send(waiting).map_err(|_| PublishError::Ended)?;
        Ok(Publishing { id, stored })
    }

    /// Waits until JetStream has answered for everything taken before. Each [`Publishing`] has its
    /// own result.
    ///
    /// # Errors
    /// When the runtime of the publisher has ended.
    pub async fn flush(&self) -> Result<(), PublishError> {
        // An unanswered set keeps its room, so all room is free when every set is answered.
        drop(self.room_for(u32::MAX).await?);
        if self.queue.is_closed() {
            Err(PublishError::Ended)
        } else {
            Ok(())
        }
    }

    /// Returns the lane of a user.
    fn lane(&self, user: &UserId) -> usize {
        let hash = hasher_of([user.as_str()]).finish128().as_u128();
        usize::try_from(hash % self.lanes as u128).expect("it is less than the number of lanes")
    }

    async fn room_for(&self, bytes: u32) -> Result<OwnedSemaphorePermit, PublishError> {
        let room = self
            .room
            .clone()
            .acquire_many_owned(bytes.min(self.max_waiting_bytes));
        room.await.map_err(|_| PublishError::Ended)
    }
}

impl Publishing {
    /// Returns the reminder's id: the given one, or the generated one.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl IntoFuture for Publishing {
    type Output = Result<Receipt, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let set = self.stored.await.unwrap_or(Err(PublishError::Ended))?;
            Ok(Receipt { id: self.id, set })
        })
    }
}

/// Users whose reminders go out one set after the other.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    is_under_way: bool,
}

/// The task that publishes.
struct Sender {
    client: Client,
    jetstream: Context,
    subject: String,
    options: Options,
}

impl Sender {
    async fn run(self, mut queued: mpsc::UnboundedReceiver<Waiting>, lanes: usize) {
        let sender = &self;
        let mut lanes: Vec<Lane> = (0..lanes).map(|_| Lane::default()).collect();
        // Entries that are in no lane yet, because they wait for a cancellation.
        let mut queue = VecDeque::new();
        let (mut under_way, mut is_open) = (FuturesUnordered::new(), true);
        loop {
            while let Ok(waiting) = queued.try_recv() {
                queue.push_back(waiting);
            }
            let is_cancel = |waiting: &Waiting| waiting.list == List::Cancel;
            let to_lanes = queue.iter().position(is_cancel).unwrap_or(queue.len());
            for waiting in queue.drain(..to_lanes) {
                lanes[waiting.lane].waiting.push_back(waiting);
            }
            for (number, lane) in lanes.iter_mut().enumerate() {
                if !lane.is_under_way && !lane.waiting.is_empty() {
                    lane.is_under_way = true;
                    let set = self.cut(&mut lane.waiting);
                    under_way.push(async move {
                        sender.publish(set).await;
                        number
                    });
                }
            }
            if under_way.is_empty() && !queue.is_empty() {
                self.publish(self.cut(&mut queue)).await;
                continue;
            }
            tokio::select! {
                waiting = queued.recv(), if is_open => match waiting {
                    Some(waiting) => queue.push_back(waiting),
                    None => is_open = false,
                },
                Some(number) = under_way.next() => lanes[number].is_under_way = false,
                else => return,
            }
        }
    }

    /// Takes the next set from the front of a queue: entries of one list, as far as they fit.
    fn cut(&self, queue: &mut VecDeque<Waiting>) -> Vec<Waiting> {
        let max_bytes = max_bytes(self.client.max_payload()).min(self.options.max_bytes);
        let mut room = max_bytes.saturating_sub(FRAME_BYTES);
        let most = self.options.max_reminders.clamp(1, MAX_REMINDERS);
        let fits = |next: &&Waiting| {
            let is_last = next.json.len() >= room || next.list != queue[0].list;
            room = room.saturating_sub(next.json.len() + 1);
            !is_last
        };
        // One that is too large for any set makes a set of its own.
        let count = queue.iter().take(most).take_while(fits).count().max(1);
        queue.drain(..count).collect()
    }

    async fn publish(&self, set: Vec<Waiting>) {
        let body = Bytes::from(body(&set));
        let id = match set[0].list {
            // Cancelling the same reminder again is another set, though its text is the same.
            List::Cancel => nuid::next().to_string(),
            List::Reminders => self.message_id(&body),
        };
        let stored = self.store(id, body).await;
        if let Err(error) = &stored {
            tracing::error!(subject = self.subject, entries = set.len(), %error, "failed to publish a set");
        }
        for waiting in set {
            let _ = waiting.stored.send(stored.clone()); // The other end is dropped if the caller does not wait.
        }
    }

    /// Publishes a set until it is stored. Its message id makes all attempts one set.
    async fn store(&self, message_id: String, body: Bytes) -> Result<u64, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message_id);
        let after = self.options.give_up_after;
        let (give_up, (mut pause, longest)) = (Instant::now() + after, PAUSES);
        loop {
            let stored = async {
                let sent = self
                    .jetstream
                    .publish_with_headers(self.subject.clone(), headers.clone(), body.clone())
                    .await?;
                sent.await
            };
            let problem = match stored.await {
                Ok(ack) => return Ok(ack.sequence),
                Err(error) => error.to_string(),
            };
            if Instant::now() + pause >= give_up {
                return Err(PublishError::Unconfirmed { after, problem });
            }
            tracing::warn!(
                subject = self.subject,
                problem,
                "set not acknowledged, publishing it again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Returns an id that is made of the set's text, so that one that is published again after a
    /// restart is the same set.
    fn message_id(&self, body: &[u8]) -> String {
        let mut hasher = hasher_of([&self.subject]);
        hasher.write(body);
        format!("{:032x}", hasher.finish128().as_u128())
    }
}

/// Returns the id, if a reminder can have it.
fn checked(id: String) -> Result<String, Rejection> {
    let problem = id_error(&id).map(|problem| Rejection::new(RejectCode::InvalidCancel, problem));
    problem.map_or(Ok(id), Err)
}

/// Returns the set's text. All its entries are of one list.
fn body(set: &[Waiting]) -> String {
    let name = match set[0].list {
        List::Cancel => "cancel",
        List::Reminders => "reminders",
    };
    let entries: Vec<_> = set.iter().map(|waiting| waiting.json.as_str()).collect();
    format!(r#"{{"{name}":[{}]}}"#, entries.join(","))
}
