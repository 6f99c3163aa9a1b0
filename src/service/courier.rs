//! Requests to app-server instances. Partitions have one of each kind under way for an instance, and there are many
//! partitions: what they have for the same instance goes together, so that an instance is spoken to in a few large requests
//! and not in many small ones. One is under way at a time; nothing waits for a request to fill.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Client;
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::lanes::Lanes;
use super::spans;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::nats::instance::{self, DeliveryAnswer};
use crate::reminder::DELIVERY_FRAME_BYTES;
use crate::router::{Instance, NoAnswer};
use crate::token::UserId;
use crate::trace::TraceParent;

/// Carries requests of all partitions of a member. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Courier {
    client: Client,
    metrics: Metrics,
    delivery_timeout: Duration,
    heartbeat_timeout: Duration,
    deliveries: Arc<Desk<Parcel, Arc<DeliveryAnswer>>>,
    heartbeats: Arc<Desk<Vec<UserId>, Arc<HashSet<UserId>>>>,
}

/// What one partition has for an instance.
#[derive(Debug)]
pub struct Parcel {
    /// The reminders as they go into the request.
    pub reminders: Vec<Bytes>,
    /// The traces that they belong to.
    pub traces: Vec<TraceParent>,
}

impl Courier {
    /// A courier with nothing under way.
    pub fn new(client: Client, metrics: Metrics, config: &Config) -> Self {
        Self {
            client,
            metrics,
            delivery_timeout: config.delivery.timeout,
            heartbeat_timeout: config.heartbeat.timeout,
            deliveries: Desk::new(config.delivery.max_bytes - DELIVERY_FRAME_BYTES),
            heartbeats: Desk::new(config.heartbeat.max_users),
        }
    }

    /// Delivers, and answers what the instance said to the whole request: it may refuse what others had in it.
    ///
    /// # Errors
    /// When nothing in the request counts as delivered.
    pub async fn deliver(&self, instance: Arc<Instance>, parcel: Parcel) -> Result<Arc<DeliveryAnswer>, NoAnswer> {
        let bytes = parcel.reminders.iter().map(|reminder| reminder.len() + 1).sum();
        let (courier, to) = (self.clone(), instance.clone());
        let send = move |parcels: Vec<Parcel>| courier.clone().send_delivery(to.clone(), parcels);
        self.deliveries.ask(instance, parcel, bytes, send).await
    }

    /// Asks who of these users is connected.
    ///
    /// # Errors
    /// When the instance did not answer as the contract says.
    pub async fn heartbeat(&self, instance: Arc<Instance>, users: Vec<UserId>) -> Result<Vec<UserId>, NoAnswer> {
        let (courier, to) = (self.clone(), instance.clone());
        let send = move |users: Vec<Vec<UserId>>| courier.clone().send_heartbeat(to.clone(), users.concat());
        let connected = self.heartbeats.ask(instance, users.clone(), users.len(), send).await?;
        Ok(users.into_iter().filter(|user| connected.contains(user)).collect())
    }

    async fn send_delivery(
        self,
        instance: Arc<Instance>,
        parcels: Vec<Parcel>,
    ) -> Result<Arc<DeliveryAnswer>, NoAnswer> {
        let reminders = || parcels.iter().flat_map(|parcel| &parcel.reminders);
        let (count, body) = (reminders().count(), instance::delivery_body(reminders().map(AsRef::as_ref)));
        let traces = spans::distinct(parcels.iter().flat_map(|parcel| &parcel.traces));
        let span = spans::deliver(&instance.name, count, &traces);
        let trace = spans::passed_on(&span, traces.first().cloned());
        let deliver = async {
            let began = Instant::now();
            let _in_flight = self.metrics.delivery_begins();
            let trace = (trace.as_ref(), &*traces);
            let answer = instance::deliver(&self.client, &instance, body, trace, self.delivery_timeout).await;
            self.metrics.delivery_ended(&answer, count, began.elapsed());
            if let Err(why @ (NoAnswer::TimedOut | NoAnswer::Garbage)) = answer {
                tracing::info!(instance = %instance.name, ?why, "instance is silent, backing off");
            }
            answer.map(Arc::new)
        };
        deliver.instrument(span).await
    }

    async fn send_heartbeat(
        self,
        instance: Arc<Instance>,
        users: Vec<UserId>,
    ) -> Result<Arc<HashSet<UserId>>, NoAnswer> {
        let began = Instant::now();
        let answer = instance::heartbeat(&self.client, &instance, &users, self.heartbeat_timeout).await;
        self.metrics.heartbeat_ended(&answer, began.elapsed());
        Ok(Arc::new(answer?.into_iter().collect()))
    }
}

/// Requests of one kind: what waits for which instance.
#[derive(Debug)]
struct Desk<P, A> {
    lanes: Mutex<Lanes<Arc<Instance>, Waiting<P, A>>>,
    /// The size of one request, at most.
    room: usize,
}

#[derive(Debug)]
struct Waiting<P, A> {
    part: P,
    size: usize,
    answer: oneshot::Sender<Result<A, NoAnswer>>,
}

impl<P: Send + 'static, A: Clone + Send + 'static> Desk<P, A> {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { lanes: Mutex::new(Lanes::new()), room })
    }

    /// Hands a part in, which is sent together with others, and waits for the answer.
    async fn ask<F>(
        self: &Arc<Self>,
        instance: Arc<Instance>,
        part: P,
        size: usize,
        send: impl Fn(Vec<P>) -> F + Send + 'static,
    ) -> Result<A, NoAnswer>
    where
        F: Future<Output = Result<A, NoAnswer>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let first = self.lanes().push(&instance, Waiting { part, size, answer });
        if let Some(first) = first {
            // A task of its own: whoever handed it in may be given up while others' parts are in the request.
            tokio::spawn(self.clone().carry(instance, first, send));
        }
        answered.await.unwrap_or(Err(NoAnswer::TimedOut)) // Nobody answers when the process ends.
    }

    /// Sends one request after the other until nothing waits.
    async fn carry<F>(self: Arc<Self>, instance: Arc<Instance>, first: Waiting<P, A>, send: impl Fn(Vec<P>) -> F)
    where
        F: Future<Output = Result<A, NoAnswer>> + Send,
    {
        let mut batch = vec![first];
        while !batch.is_empty() {
            // Whoever waits no more has been given up: it is another's to decide now.
            batch.retain(|waiting| !waiting.answer.is_closed());
            let (parts, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.part, one.answer)).unzip();
            let answer = if parts.is_empty() { None } else { Some(send(parts).await) };
            batch = self.next(&instance);
            let Some(answer) = answer else { continue };
            answers.into_iter().for_each(|one| tell(one, answer.clone()));
            // An instance that is silent is so for those who wait, too.
            while let Err(why) = answer
                && !batch.is_empty()
            {
                batch.into_iter().for_each(|one| tell(one.answer, Err(why)));
                batch = self.next(&instance);
            }
        }
    }

    fn next(&self, instance: &Arc<Instance>) -> Vec<Waiting<P, A>> {
        let mut room = self.room;
        self.lanes().arrived(instance, |waiting| {
            let fits = waiting.size <= room;
            room = room.saturating_sub(waiting.size);
            fits
        })
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<Arc<Instance>, Waiting<P, A>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell<A>(waiting: oneshot::Sender<Result<A, NoAnswer>>, answer: Result<A, NoAnswer>) {
    let _ = waiting.send(answer); // Whoever waited may have been given up.
}

#[cfg(test)]
mod tests {
    use futures_util::future::join;
    use tokio::sync::mpsc;

    use super::*;

    type Sent = (Vec<u32>, oneshot::Sender<Result<u32, NoAnswer>>);

    /// A desk with room for three, and what it sends, to be answered by the test.
    struct Counter {
        desk: Arc<Desk<u32, u32>>,
        sent: mpsc::UnboundedSender<Sent>,
    }

    impl Counter {
        fn new() -> (Self, mpsc::UnboundedReceiver<Sent>) {
            let (sent, sending) = mpsc::unbounded_channel();
            (Self { desk: Desk::new(3), sent }, sending)
        }

        fn ask(&self, part: u32) -> tokio::task::JoinHandle<Result<u32, NoAnswer>> {
            let (desk, sent) = (self.desk.clone(), self.sent.clone());
            let instance = Instance { name: "app".parse().unwrap(), subject: "app".to_owned() };
            tokio::spawn(async move {
                let send = move |parts| {
                    let (answer, answered) = oneshot::channel();
                    sent.send((parts, answer)).unwrap();
                    async { answered.await.unwrap() }
                };
                desk.ask(Arc::new(instance), part, 1, send).await
            })
        }
    }

    #[tokio::test]
    async fn what_comes_while_a_request_is_under_way_makes_the_next() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1);
        let (parts, answer) = sending.recv().await.unwrap();
        assert_eq!(parts, [1], "nothing waits for more to come");
        let others = [2, 3, 4, 5].map(|part| counter.ask(part));
        tokio::task::yield_now().await;
        answer.send(Ok(10)).unwrap();
        assert_eq!(first.await.unwrap(), Ok(10));
        for (wanted, answered) in [(vec![2, 3, 4], 20), (vec![5], 30)] {
            let (parts, answer) = sending.recv().await.unwrap();
            assert_eq!(parts, wanted);
            answer.send(Ok(answered)).unwrap();
        }
        let [two, three, four, five] = others;
        let (two, three) = join(two, three).await;
        let (four, five) = join(four, five).await;
        assert_eq!([two, three, four, five].map(Result::unwrap), [Ok(20), Ok(20), Ok(20), Ok(30)]);
    }

    #[tokio::test]
    async fn an_instance_that_is_silent_is_so_for_all_who_wait() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1);
        let (_, answer) = sending.recv().await.unwrap();
        let others = [2, 3, 4, 5, 6].map(|part| counter.ask(part));
        tokio::task::yield_now().await;
        answer.send(Err(NoAnswer::NoResponders)).unwrap();
        for asked in [first].into_iter().chain(others) {
            assert_eq!(asked.await.unwrap(), Err(NoAnswer::NoResponders));
        }
        assert!(sending.try_recv().is_err(), "nobody asked it again");
        let later = counter.ask(7);
        sending.recv().await.unwrap().1.send(Ok(1)).unwrap();
        assert_eq!(later.await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_sent() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1);
        let (_, answer) = sending.recv().await.unwrap();
        let (given_up, other) = (counter.ask(2), counter.ask(3));
        tokio::task::yield_now().await;
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        answer.send(Ok(1)).unwrap();
        let (parts, answer) = sending.recv().await.unwrap();
        assert_eq!(parts, [3]);
        answer.send(Ok(2)).unwrap();
        assert_eq!((first.await.unwrap(), other.await.unwrap()), (Ok(1), Ok(2)));
    }
}
