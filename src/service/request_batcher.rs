//! Requests to app-server instances. Partitions have one of each kind under way for an instance,
//! and there are many partitions: what they have for the same instance goes together, so that an
//! instance is spoken to in a few large requests and not in many small ones. One is under way at a
//! time; nothing waits for a request to fill. A delivery that does not get its turn in time is
//! given back. One that goes alone takes no turn: it may have no answer, and no other request waits
//! for that.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::batch_queues::BatchQueues;
use super::refusals::Refusals;
use super::shared_names::{SharedNames, Turns};
use super::spans;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::nats::instance;
use crate::nats::link::Link;
use crate::reminder::DELIVERY_FRAME_BYTES;
use crate::router::{Company, Instance, NoAnswer, Undelivered};
use crate::token::UserId;
use crate::trace::TraceParent;

/// Carries requests of all partitions of a member. Cloning shares it, and costs little: partitions
/// do it for each request.
#[derive(Debug, Clone)]
pub struct RequestBatcher(Arc<Queues>);

#[derive(Debug)]
struct Queues {
    deliveries: RequestQueue<DeliveryPart, Arc<Refusals>>,
    alone: Sender,
    heartbeats: RequestQueue<Vec<UserId>, Arc<HashSet<UserId>>>,
    shared_names: SharedNames,
}

/// The part of one partition in a delivery to an instance.
#[derive(Debug)]
pub struct DeliveryPart {
    /// The reminders as they go into the request.
    pub reminders: Vec<Bytes>,
    /// The traces that they belong to.
    pub traces: Vec<TraceParent>,
}

impl RequestBatcher {
    /// Starts it. It ends with the last one who can hand something in.
    pub fn start(apps: &Link, metrics: &Metrics, config: &Config) -> Self {
        let shared_names = SharedNames::start(metrics.clone());
        let to_deliver = Sender {
            shared_names: shared_names.clone(),
            apps: apps.clone(),
            metrics: metrics.clone(),
            timeout: config.delivery.timeout,
        };
        let to_ask = Sender {
            timeout: config.heartbeat.timeout,
            ..to_deliver.clone()
        };
        let mut turns = Turns::new(Instant::now());
        let most_bytes = config.delivery.max_bytes - DELIVERY_FRAME_BYTES;
        Self(Arc::new(Queues {
            alone: to_deliver.clone(),
            deliveries: RequestQueue::start(most_bytes, move |to, parts| {
                to_deliver.clone().deliver(to, Company::Shared, parts)
            }),
            heartbeats: RequestQueue::start(config.heartbeat.max_users, move |to, users| {
                let is_listened_to = turns.take(&to, Instant::now());
                to_ask.clone().heartbeat(to, users, is_listened_to)
            }),
            shared_names,
        }))
    }

    /// Returns the names under which several app servers answer.
    pub fn shared_names(&self) -> SharedNames {
        self.0.shared_names.clone()
    }

    /// Delivers, and returns what the instance refused of the whole request, which may have what
    /// others have for it, too.
    ///
    /// # Errors
    /// When nothing in the request counts as delivered, or it was not sent by `until`.
    pub async fn deliver(
        &self,
        instance: Arc<Instance>,
        company: Company,
        part: DeliveryPart,
        until: Instant,
    ) -> Result<Arc<Refusals>, Undelivered> {
        match company {
            Company::Shared => {
                let bytes = part
                    .reminders
                    .iter()
                    .map(|reminder| reminder.len() + 1)
                    .sum();
                self.0
                    .deliveries
                    .ask(instance, part, bytes, Some(until))
                    .await
            }
            Company::Alone => Ok(self
                .0
                .alone
                .clone()
                .deliver(instance, company, vec![part])
                .await?),
        }
    }

    /// Asks who of these users is connected.
    ///
    /// # Errors
    /// When the instance did not answer as the contract says.
    pub async fn heartbeat(
        &self,
        instance: Arc<Instance>,
        users: Vec<UserId>,
    ) -> Result<Vec<UserId>, NoAnswer> {
        let connected = self
            .0
            .heartbeats
            .ask(instance, users.clone(), users.len(), None)
            .await;
        let connected = connected.map_err(|why| match why {
            Undelivered::Unanswered(why) => why,
            // Its instance left another heartbeat unanswered.
            Undelivered::Withheld | Undelivered::NotSent => NoAnswer::TimedOut,
        })?;
        Ok(users
            .into_iter()
            .filter(|user| connected.contains(user))
            .collect())
    }
}

/// Sends requests of one kind.
#[derive(Debug, Clone)]
struct Sender {
    shared_names: SharedNames,
    apps: Link,
    metrics: Metrics,
    timeout: Duration,
}

impl Sender {
    async fn deliver(
        self,
        to: Arc<Instance>,
        company: Company,
        parts: Vec<DeliveryPart>,
    ) -> Result<Arc<Refusals>, NoAnswer> {
        let reminders = || parts.iter().flat_map(|part| &part.reminders);
        let (count, body) = (
            reminders().count(),
            instance::delivery_body(reminders().map(AsRef::as_ref)),
        );
        let traces = spans::distinct(parts.iter().flat_map(|part| &part.traces));
        let span = spans::deliver(&to.name, count, &traces);
        let trace = spans::passed_on(&span, traces.first().cloned());
        let deliver = async {
            let began = Instant::now();
            let _in_flight = self.metrics.delivery_begins();
            let trace = (trace.as_ref(), &*traces);
            let answer =
                instance::deliver(&self.apps.client(), &to, body, trace, self.timeout).await;
            self.metrics.delivery_ended(&answer, count, began.elapsed());
            if let Err(why @ (NoAnswer::TimedOut | NoAnswer::Garbage)) = answer {
                match company {
                    Company::Shared => {
                        tracing::info!(instance = %to.name, ?why, "instance did not respond, backing off")
                    }
                    Company::Alone => {
                        tracing::info!(instance = %to.name, ?why, "an app server left one user's reminders unanswered")
                    }
                }
            }
            answer.map(|answer| Arc::new(answer.into()))
        };
        deliver.instrument(span).await
    }

    async fn heartbeat(
        self,
        to: Arc<Instance>,
        users: Vec<Vec<UserId>>,
        is_listened_to: bool,
    ) -> Result<Arc<HashSet<UserId>>, NoAnswer> {
        let (users, client) = (users.concat(), self.apps.client());
        let connects = || client.statistics().connects.load(Ordering::Relaxed);
        let (began, connected) = (Instant::now(), connects());
        let mut answer = if is_listened_to {
            self.heartbeat_of_all(&to, &users).await
        } else {
            instance::heartbeat(&client, &to, &users, self.timeout).await
        };
        if matches!(answer, Err(NoAnswer::TimedOut)) && connects() != connected {
            // The answer was lost with the connection, which another instance's answer may have
            // broken. Both back off for the same time; so asked at the same moment as that one, it
            // would lose its answer each time.
            tokio::time::sleep(self.timeout.mul_f64(fastrand::f64() / 2.0)).await;
            answer = instance::heartbeat(&self.apps.client(), &to, &users, self.timeout).await;
        }
        self.metrics.heartbeat_ended(&answer, began.elapsed());
        Ok(Arc::new(answer?.into_iter().collect()))
    }

    /// Sends a heartbeat and reports how many answered, without waiting for the later answers.
    async fn heartbeat_of_all(
        &self,
        to: &Arc<Instance>,
        users: &[UserId],
    ) -> Result<Vec<UserId>, NoAnswer> {
        let client = self.apps.client();
        let (connected, others) =
            instance::heartbeat_of_all(&client, to, users, self.timeout).await?;
        let (shared_names, to) = (self.shared_names.clone(), to.clone());
        tokio::spawn(async move { shared_names.report(&to, 1 + others.count().await) });
        Ok(connected)
    }
}

/// The queue for requests of one kind.
#[derive(Debug)]
struct RequestQueue<P, A>(mpsc::Sender<(Arc<Instance>, Waiting<P, A>)>);

#[derive(Debug)]
struct Waiting<P, A> {
    part: P,
    size: usize,
    /// It is not sent after this.
    until: Option<Instant>,
    /// The waiting caller learns when it is sent. If it cannot, the caller has gone.
    departs: oneshot::Sender<()>,
    answer: oneshot::Sender<Result<A, Undelivered>>,
}

/// Parts that stand in line before the queue; more wait at their partitions.
const MAX_IN_LINE: usize = 1_024;

impl<P, A> Clone for RequestQueue<P, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Send + 'static, A: Clone + Send + 'static> RequestQueue<P, A> {
    /// Opens it. What is handed in goes out by `send` in requests of the size `room` at most.
    fn start<F>(room: usize, send: impl FnMut(Arc<Instance>, Vec<P>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<A, NoAnswer>> + Send + 'static,
    {
        let (hand_in, handed_in) = mpsc::channel(MAX_IN_LINE);
        tokio::spawn(carry(handed_in, room, send));
        Self(hand_in)
    }

    /// Hands a part in, which is sent together with others, and waits for the answer.
    async fn ask(
        &self,
        instance: Arc<Instance>,
        part: P,
        size: usize,
        until: Option<Instant>,
    ) -> Result<A, Undelivered> {
        let (answer, answered) = oneshot::channel();
        let (departs, mut departed) = oneshot::channel();
        let hand_in = self.0.send((
            instance,
            Waiting {
                part,
                size,
                until,
                departs,
                answer,
            },
        ));
        if let Some(until) = until {
            let leaves = async {
                let _ = hand_in.await;
                let _ = (&mut departed).await;
            };
            if tokio::time::timeout_at(until.into(), leaves).await.is_err() {
                departed.close();
                if departed.try_recv().is_err() {
                    return Err(Undelivered::NotSent);
                }
            }
        } else {
            let _ = hand_in.await;
        }
        answered.await.unwrap_or(Err(NoAnswer::TimedOut.into())) // No answer comes when the process ends.
    }
}

impl<P, A> Waiting<P, A> {
    /// It is being sent, unless it is too late for that, or no caller waits for it any more.
    fn depart(self) -> Option<(P, oneshot::Sender<Result<A, Undelivered>>)> {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            let _ = self.answer.send(Err(Undelivered::NotSent));
            return None;
        }
        self.departs.send(()).ok()?;
        Some((self.part, self.answer))
    }
}

/// Sends to each instance one request after the other.
async fn carry<P, A: Clone, F: Future<Output = Result<A, NoAnswer>>>(
    mut handed_in: mpsc::Receiver<(Arc<Instance>, Waiting<P, A>)>,
    room: usize,
    mut send: impl FnMut(Arc<Instance>, Vec<P>) -> F,
) {
    // In one line, whichever partition they are of.
    let mut batch_queues: BatchQueues<Arc<Instance>, (), Waiting<P, A>> =
        BatchQueues::new(usize::MAX);
    let mut under_way = FuturesUnordered::new();
    loop {
        // An answer, or a set, wakes many partitions. Those that can run go first, so that what
        // they have for an instance goes in one request.
        tokio::task::yield_now().await;
        while let Ok((instance, waiting)) = handed_in.try_recv() {
            batch_queues.push(instance, (), waiting.size, waiting);
        }
        while let Some((instance, batch)) = batch_queues.next(room) {
            let (parts, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().filter_map(Waiting::depart).unzip();
            if parts.is_empty() {
                batch_queues.arrived(&instance);
            } else {
                let answer = send(instance.clone(), parts);
                under_way.push(async move { (instance, answers, answer.await) });
            }
        }
        tokio::select! {
            biased;
            Some((instance, answers, answer)) = under_way.next(), if !under_way.is_empty() => {
                // The caller may have been given up.
                let tell = |to: oneshot::Sender<_>, what| drop(to.send(what));
                answers.into_iter().for_each(|to| tell(to, answer.clone().map_err(Undelivered::from)));
                let for_the_others = match answer {
                    Ok(_) => {
                        batch_queues.arrived(&instance);
                        continue;
                    }
                    Err(why @ NoAnswer::NoResponders) => why.into(),
                    // An instance that is silent is so for those who wait, too. It has not seen
                    // what they have for it.
                    Err(NoAnswer::TimedOut | NoAnswer::Garbage) => Undelivered::Withheld,
                };
                batch_queues.closed(&instance).into_iter().for_each(|waiting| tell(waiting.answer, Err(for_the_others)));
            }
            part = handed_in.recv() => match part {
                Some((instance, waiting)) => batch_queues.push(instance, (), waiting.size, waiting),
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    type Sent = (Vec<u32>, oneshot::Sender<Result<u32, NoAnswer>>);

    /// A queue with room for three, and what it sends, to be answered by the test.
    struct Counter(RequestQueue<u32, u32>);

    impl Counter {
        fn new() -> (Self, mpsc::UnboundedReceiver<Sent>) {
            let (sent, sending) = mpsc::unbounded_channel();
            let send = move |_, parts| {
                let (answer, answered) = oneshot::channel();
                sent.send((parts, answer)).unwrap();
                async { answered.await.unwrap() }
            };
            (Self(RequestQueue::start(3, send)), sending)
        }

        async fn ask(&self, part: u32) -> tokio::task::JoinHandle<Result<u32, Undelivered>> {
            self.ask_until(part, None).await
        }

        async fn ask_until(
            &self,
            part: u32,
            until: Option<Instant>,
        ) -> tokio::task::JoinHandle<Result<u32, Undelivered>> {
            let queue = self.0.clone();
            let instance = Instance {
                name: "app".parse().unwrap(),
                subject: "app".to_owned(),
            };
            let asked =
                tokio::spawn(async move { queue.ask(Arc::new(instance), part, 1, until).await });
            tokio::task::yield_now().await; // It stands in line now.
            asked
        }
    }

    #[tokio::test]
    async fn arrivals_during_a_request_form_the_next() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1).await;
        let (parts, answer) = sending.recv().await.unwrap();
        assert_eq!(parts, [1], "nothing waits for more to come");
        let others = join_all((2..=5).map(|part| counter.ask(part))).await;
        answer.send(Ok(10)).unwrap();
        assert_eq!(first.await.unwrap(), Ok(10));
        for (wanted, answered) in [(vec![2, 3, 4], 20), (vec![5], 30)] {
            let (parts, answer) = sending.recv().await.unwrap();
            assert_eq!(parts, wanted);
            answer.send(Ok(answered)).unwrap();
        }
        let others: Vec<_> = join_all(others)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(others, [Ok(20), Ok(20), Ok(20), Ok(30)]);
    }

    #[tokio::test]
    async fn silent_instance_fails_all_waiting_parts() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1).await;
        let (_, answer) = sending.recv().await.unwrap();
        let others = join_all((2..=6).map(|part| counter.ask(part))).await;
        answer.send(Err(NoAnswer::NoResponders)).unwrap();
        for asked in [first].into_iter().chain(others) {
            assert_eq!(asked.await.unwrap(), Err(NoAnswer::NoResponders.into()));
        }
        assert!(sending.try_recv().is_err(), "no further request was sent");
        let later = counter.ask(7).await;
        sending.recv().await.unwrap().1.send(Ok(1)).unwrap();
        assert_eq!(later.await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn parts_behind_an_unanswered_request_are_withheld() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1).await;
        let (_, answer) = sending.recv().await.unwrap();
        let other = counter.ask(2).await;
        answer.send(Err(NoAnswer::TimedOut)).unwrap();
        assert_eq!(first.await.unwrap(), Err(NoAnswer::TimedOut.into()));
        assert_eq!(
            other.await.unwrap(),
            Err(Undelivered::Withheld),
            "the instance has not seen it"
        );
    }

    #[tokio::test]
    async fn parts_not_sent_in_time_are_returned() {
        let (counter, mut sending) = Counter::new();
        let until = Some(Instant::now() + Duration::from_millis(50));
        let first = counter.ask_until(1, until).await;
        let (_, answer) = sending.recv().await.unwrap();
        let late = counter.ask_until(2, until).await;
        assert_eq!(
            late.await.unwrap(),
            Err(Undelivered::NotSent),
            "while the first one is under way"
        );
        answer.send(Ok(10)).unwrap();
        assert_eq!(
            first.await.unwrap(),
            Ok(10),
            "what was sent in time may be answered later"
        );
        let too_late = counter.ask_until(3, until).await;
        assert_eq!(too_late.await.unwrap(), Err(Undelivered::NotSent));
        assert!(sending.try_recv().is_err(), "nothing of it was sent");
    }

    #[tokio::test]
    async fn abandoned_parts_are_not_sent() {
        let (counter, mut sending) = Counter::new();
        let first = counter.ask(1).await;
        let (_, answer) = sending.recv().await.unwrap();
        let (given_up, other) = (counter.ask(2).await, counter.ask(3).await);
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        answer.send(Ok(1)).unwrap();
        let (parts, answer) = sending.recv().await.unwrap();
        assert_eq!(parts, [3]);
        answer.send(Ok(2)).unwrap();
        assert_eq!((first.await.unwrap(), other.await.unwrap()), (Ok(1), Ok(2)));
    }
}
