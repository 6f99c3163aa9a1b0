//! App servers: they hold their users' connections, accept what comes, and verify all of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message, jetstream};
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::BenchError;
use super::load::{Load, instance_name, user_name, user_number};
use super::publisher::now_us;
use super::task::Conversation;

/// Which app servers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The nats-server.
    pub(super) url: String,
    /// Whose users are connected where.
    pub(super) load: Load,
    /// What instances' subjects begin with, for each who delivers.
    pub(super) prefixes: Vec<String>,
    /// The bucket of Bellhop's routes.
    pub(super) routes: String,
    /// The bucket of a simpler design: a user's instance by the user's name.
    pub(super) instances: String,
}

/// What must hold of what arrives, beside that everything does, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Check {
    /// A user's reminders come to the user's instance, in order.
    UserOrder,
    /// An instance gets what it gets in order: nobody looks for users.
    InstanceOrder,
    /// Nothing.
    Once,
}

/// Expects the reminders `first` to `first + count`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Order {
    /// The first number.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// How many of the first ones are left out of the latencies.
    pub(super) warm_up: usize,
    /// What must hold.
    pub(super) check: Check,
}

/// What app servers say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// They are connected, and so are their users.
    Ready,
    /// So many have arrived.
    Progress(usize),
    /// Everything has arrived, or nothing has for a while.
    Done(Tally),
}

/// What arrived.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Reminders, each counted once.
    pub(super) accepted: usize,
    /// Reminders that came again.
    pub(super) repeated: usize,
    /// Reminders that came out of order, or where their user is not.
    pub(super) misplaced: usize,
    /// When the last one came, in microseconds since 1970.
    pub(super) last_us: u64,
    /// From when it was due to be published to acceptance, in microseconds: p50, p99, p99.9 and the longest.
    pub(super) latency_us: [u64; 4],
}

/// When nothing comes for so long, nothing will.
const STALL: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);
/// Routes put at a time.
const PUTS: usize = 1_000;
/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// What has arrived.
struct Arrivals {
    expected: Range<usize>,
    warm_up: usize,
    check: Check,
    seen: Vec<bool>,
    /// Of each user, or instance, the number after the last one.
    next: Vec<usize>,
    accepted: usize,
    repeated: usize,
    misplaced: usize,
    last_us: u64,
    latencies: Histogram<u64>,
}

#[derive(Clone)]
struct Instance {
    number: usize,
    load: Load,
    client: Client,
    arrivals: Arc<Mutex<Arrivals>>,
}

#[derive(Deserialize)]
struct Delivery<'d> {
    #[serde(borrow)]
    reminders: Vec<Arrived<'d>>,
}

#[derive(Deserialize)]
struct Arrived<'d> {
    id: &'d str,
    user: &'d str,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    at: u64,
}

#[derive(Deserialize)]
struct Heartbeat<'d> {
    #[serde(borrow)]
    users: Vec<&'d str>,
}

#[derive(Serialize)]
struct Connected<'d> {
    connected: Vec<&'d str>,
}

pub(super) async fn run(task: Task, mut conversation: Conversation) -> Result<(), BenchError> {
    let arrivals = Arc::new(Mutex::new(Arrivals::new(task.load.users.max(task.load.instances))));
    let mut instances = JoinSet::new();
    let all = task.prefixes.iter().flat_map(|prefix| (0..task.load.instances).map(move |number| (prefix, number)));
    for (prefix, number) in all {
        let name = instance_name(number);
        let client = ConnectOptions::new().name(&name).connect(&task.url).await;
        let client = client.map_err(|error| BenchError::nats(format!("connect {name}"), error))?;
        let subject = format!("{prefix}.{name}.>");
        let requests = client.subscribe(subject.clone()).await;
        let requests = requests.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        client.flush().await.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        let instance = Instance { number, load: task.load, client, arrivals: arrivals.clone() };
        instances.spawn(requests.for_each(move |request| {
            let instance = instance.clone();
            async move { instance.serve(request).await }
        }));
    }
    put_routes(&task).await?;
    conversation.say(&Report::Ready).await?;
    while let Some(order) = conversation.next::<Order>().await? {
        lock(&arrivals).expect(order);
        await_all(&arrivals, &mut conversation).await?;
        let tally = lock(&arrivals).tally();
        conversation.say(&Report::Done(tally)).await?;
    }
    Ok(())
}

async fn put_routes(task: &Task) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("put routes", error);
    let client = async_nats::connect(&task.url).await.map_err(|error| failed(&error))?;
    let jetstream = jetstream::new(client);
    let routes = jetstream.get_key_value(&task.routes).await.map_err(|error| failed(&error))?;
    let instances = jetstream.get_key_value(&task.instances).await.map_err(|error| failed(&error))?;
    let puts = (0..task.load.users).map(|user| {
        let (user, instance) = (user_name(user), instance_name(task.load.instance_of(user)));
        let (routes, instances) = (&routes, &instances);
        async move {
            routes.put(format!("{user}.{instance}"), "".into()).await?;
            instances.put(user, instance.into()).await
        }
    });
    stream::iter(puts).buffer_unordered(PUTS).try_for_each(|_| async { Ok(()) }).await.map_err(|error| failed(&error))
}

/// Waits until everything is there, or nothing comes any more.
async fn await_all(arrivals: &Mutex<Arrivals>, conversation: &mut Conversation) -> Result<(), BenchError> {
    let (mut before, mut since, mut told) = (0, Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(POLL).await;
        let (accepted, expected) = {
            let arrivals = lock(arrivals);
            (arrivals.accepted, arrivals.expected.len())
        };
        if accepted > before {
            (before, since) = (accepted, Instant::now());
        }
        if accepted >= expected || since.elapsed() > STALL {
            return Ok(());
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            conversation.say(&Report::Progress(accepted)).await?;
        }
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Instance {
    async fn serve(&self, request: Message) {
        let answer = if request.subject.ends_with(".heartbeat") {
            self.heartbeat(&request.payload)
        } else {
            self.accept(&request.payload);
            b"{}".to_vec()
        };
        if let Some(reply) = request.reply {
            let _ = self.client.publish(reply, answer.into()).await; // Without an answer the count is wrong, and told.
        }
    }

    fn heartbeat(&self, body: &[u8]) -> Vec<u8> {
        let Ok(Heartbeat { users }) = serde_json::from_slice(body) else { return Vec::new() };
        let is_here = |user: &&str| user_number(user).is_some_and(|user| self.load.instance_of(user) == self.number);
        let connected = users.into_iter().filter(is_here).collect();
        serde_json::to_vec(&Connected { connected }).expect("names are text")
    }

    fn accept(&self, body: &[u8]) {
        let now_us = now_us();
        let delivery: Result<Delivery<'_>, _> = serde_json::from_slice(body);
        let mut arrivals = lock(&self.arrivals);
        let Ok(Delivery { reminders }) = delivery else { return arrivals.misplaced += 1 };
        for Arrived { id, user, data } in &reminders {
            let (Ok(number), Some(user)) = (id.parse(), user_number(user)) else {
                arrivals.misplaced += 1;
                continue;
            };
            let slot = match arrivals.check {
                Check::UserOrder if self.load.instance_of(user) == self.number => Some(user),
                Check::UserOrder => None,
                Check::InstanceOrder | Check::Once => Some(self.number),
            };
            let is_meant = self.load.user_of(number) == user;
            let slot = slot.filter(|_| is_meant);
            arrivals.accept(number, slot, now_us, data.at);
        }
    }
}

impl Arrivals {
    fn new(slots: usize) -> Self {
        Self {
            expected: 0..0,
            warm_up: 0,
            check: Check::Once,
            seen: Vec::new(),
            next: vec![0; slots],
            accepted: 0,
            repeated: 0,
            misplaced: 0,
            last_us: 0,
            latencies: Histogram::new_with_max(LONGEST_US, 3).expect("the bounds are right"),
        }
    }

    fn expect(&mut self, Order { first, count, warm_up, check }: Order) {
        self.seen = vec![false; count];
        self.next.fill(0);
        (self.expected, self.warm_up, self.check) = (first..first + count, warm_up, check);
        (self.accepted, self.repeated, self.misplaced, self.last_us) = (0, 0, 0, 0);
        self.latencies.reset();
    }

    fn accept(&mut self, number: usize, slot: Option<usize>, now_us: u64, due_us: u64) {
        let place = number.wrapping_sub(self.expected.start);
        let Some(seen) = self.seen.get_mut(place) else {
            self.repeated += 1; // Of an earlier measurement.
            return;
        };
        if std::mem::replace(seen, true) {
            self.repeated += 1;
            return;
        }
        self.accepted += 1;
        self.last_us = now_us;
        match slot.and_then(|slot| self.next.get_mut(slot)) {
            Some(next) => {
                self.misplaced += usize::from(self.check != Check::Once && number < *next);
                *next = number + 1;
            }
            None => self.misplaced += 1,
        }
        if place >= self.warm_up {
            self.latencies.saturating_record(now_us.saturating_sub(due_us).max(1));
        }
    }

    fn tally(&self) -> Tally {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        Tally {
            accepted: self.accepted,
            repeated: self.repeated,
            misplaced: self.misplaced,
            last_us: self.last_us,
            latency_us: [at(0.5), at(0.99), at(0.999), self.latencies.max()],
        }
    }
}

impl Tally {
    /// What is wrong with it, if anything is.
    pub(super) fn problem(&self, expected: usize) -> Option<String> {
        let Self { accepted, repeated, misplaced, .. } = self;
        let is_right = *accepted == expected && *repeated == 0 && *misplaced == 0;
        (!is_right).then(|| {
            format!("of {expected} reminders {accepted} arrived, {repeated} came again, {misplaced} were out of place")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(numbers: &[(usize, Option<usize>)]) -> Tally {
        let mut arrivals = Arrivals::new(2);
        arrivals.expect(Order { first: 10, count: 3, warm_up: 1, check: Check::UserOrder });
        for (number, slot) in numbers {
            arrivals.accept(*number, *slot, 2_000, 1_000);
        }
        arrivals.tally()
    }

    #[test]
    fn what_is_right_has_no_problem() {
        let tally = arrived(&[(10, Some(0)), (12, Some(1)), (11, Some(0))]);
        assert_eq!(tally.problem(3), None, "two users have an order each");
        assert!((990..1_010).contains(&tally.latency_us[0]));
    }

    #[test]
    fn whatever_is_wrong_is_a_problem() {
        for wrong in [
            &[(10, Some(0)), (11, Some(0))][..],
            &[(10, Some(0)), (11, Some(0)), (12, Some(0)), (12, Some(0))],
            &[(10, Some(0)), (12, Some(0)), (11, Some(0))],
            &[(10, Some(0)), (11, None), (12, Some(0))],
            &[(10, Some(0)), (11, Some(0)), (12, Some(0)), (9, Some(0))],
        ] {
            assert!(arrived(wrong).problem(3).is_some(), "{wrong:?}");
        }
    }
}
