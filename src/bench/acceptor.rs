//! App servers: they hold their users' connections, accept what comes, and verify all of it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message, jetstream};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::BenchError;
use super::arrivals::{Arrivals, Check, Expected, Tally};
use super::load::Load;
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
    /// The bucket of a simpler design, where there is one: a user's instance by the user's name.
    pub(super) instances: Option<String>,
}

/// What app servers are told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The users of the reminders of these numbers connect.
    Connect(Range<usize>),
    /// These are to arrive.
    Expect(Expected),
    /// None from this number on is to arrive any more.
    Until(usize),
}

/// What app servers say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// They are connected; their users are not yet.
    Ready,
    /// So many users are connected, or so many reminders have arrived.
    Progress(usize),
    /// The users are connected who were to be.
    Connected,
    /// Everything has arrived, or nothing has for a while.
    Done(Tally),
}

/// When nothing comes for so long, nothing will: an instance that was silent when the machine was overloaded is asked again
/// within half a minute (`heartbeat.backoff_max`), and may then be silent once more.
const STALL: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
/// How often progress is told.
pub(super) const PROGRESS: Duration = Duration::from_millis(500);
/// How long JetStream may take over a route.
const PATIENCE: Duration = Duration::from_secs(30);
/// Routes put at a time.
const PUTS: usize = 1_000;

#[derive(Clone)]
struct Instance {
    number: usize,
    load: Load,
    client: Client,
    has_users: Arc<AtomicBool>,
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
    let has_users = Arc::new(AtomicBool::new(false));
    let _instances = start_instances(&task, &arrivals, &has_users).await?;
    conversation.say(&Report::Ready).await?;
    let mut wait: Option<Wait> = None;
    let mut look = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            order = conversation.next::<Order>() => match order? {
                Some(Order::Connect(numbers)) => {
                    has_users.store(true, Ordering::Relaxed);
                    put_routes(&task, numbers, &mut conversation).await?;
                    conversation.say(&Report::Connected).await?;
                }
                Some(Order::Expect(expected)) => {
                    lock(&arrivals).expect(expected);
                    wait = Some(Wait::begun());
                }
                Some(Order::Until(end)) => {
                    lock(&arrivals).end_at(end);
                    wait = Some(Wait::begun());
                }
                None => return Ok(()),
            },
            _ = look.tick() => {
                let report = wait.as_mut().and_then(|wait| wait.look(&lock(&arrivals)));
                wait = wait.filter(|_| !matches!(report, Some(Report::Done(_))));
                if let Some(report) = report {
                    conversation.say(&report).await?;
                }
            }
        }
    }
}

/// Every instance, for each who delivers. Dropped, they are gone.
async fn start_instances(
    task: &Task,
    arrivals: &Arc<Mutex<Arrivals>>,
    has_users: &Arc<AtomicBool>,
) -> Result<JoinSet<()>, BenchError> {
    let mut instances = JoinSet::new();
    let all = task.prefixes.iter().flat_map(|prefix| (0..task.load.instances).map(move |number| (prefix, number)));
    for (prefix, number) in all {
        let name = task.load.instance_name(number);
        let client = ConnectOptions::new().name(&name).connect(&task.url).await;
        let client = client.map_err(|error| BenchError::nats(format!("connect {name}"), error))?;
        let subject = format!("{prefix}.{name}.>");
        let requests = client.subscribe(subject.clone()).await;
        let requests = requests.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        client.flush().await.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        let (arrivals, has_users) = (arrivals.clone(), has_users.clone());
        let instance = Instance { number, load: task.load, client, has_users, arrivals };
        instances.spawn(requests.for_each(move |request| {
            let instance = instance.clone();
            async move { instance.serve(request).await }
        }));
    }
    Ok(instances)
}

async fn put_routes(task: &Task, numbers: Range<usize>, conversation: &mut Conversation) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("put routes", error);
    let client = async_nats::connect(&task.url).await.map_err(|error| failed(&error))?;
    let jetstream = jetstream::context::ContextBuilder::new().timeout(PATIENCE).build(client);
    let routes = jetstream.get_key_value(&task.routes).await.map_err(|error| failed(&error))?;
    let instances = match &task.instances {
        Some(bucket) => Some(jetstream.get_key_value(bucket).await.map_err(|error| failed(&error))?),
        None => None,
    };
    let puts = numbers.map(|number| {
        let user = task.load.user_of(number);
        let (user, instance) = (task.load.user_name(user), task.load.instance_name(task.load.instance_of(user)));
        let (routes, instances) = (&routes, &instances);
        async move {
            routes.put(format!("{user}.{instance}"), "".into()).await?;
            match instances {
                Some(instances) => instances.put(user, instance.into()).await.map(drop),
                None => Ok(()),
            }
        }
    });
    let mut puts = stream::iter(puts).buffer_unordered(PUTS);
    let (mut put, mut told) = (0, Instant::now());
    while puts.try_next().await.map_err(|error| failed(&error))?.is_some() {
        put += 1;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            conversation.say(&Report::Progress(put)).await?;
        }
    }
    Ok(())
}

/// A wait until everything is there, or nothing comes any more.
struct Wait {
    accepted: usize,
    since: Instant,
    told: Instant,
}

impl Wait {
    fn begun() -> Self {
        Self { accepted: 0, since: Instant::now(), told: Instant::now() }
    }

    /// What is to be told of it now, if anything is.
    fn look(&mut self, arrivals: &Arrivals) -> Option<Report> {
        let accepted = arrivals.accepted();
        if accepted > self.accepted {
            (self.accepted, self.since) = (accepted, Instant::now());
        }
        if arrivals.are_complete() || self.since.elapsed() > STALL {
            return Some(Report::Done(arrivals.tally()));
        }
        (self.told.elapsed() > PROGRESS).then(|| {
            self.told = Instant::now();
            Report::Progress(accepted)
        })
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
        let has_users = self.has_users.load(Ordering::Relaxed);
        let is_here =
            |user: &&str| self.load.user_number(user).is_some_and(|user| self.load.instance_of(user) == self.number);
        let connected = users.into_iter().filter(|user| has_users && is_here(user)).collect();
        serde_json::to_vec(&Connected { connected }).expect("names are text")
    }

    fn accept(&self, body: &[u8]) {
        let now_us = now_us();
        let delivery: Result<Delivery<'_>, _> = serde_json::from_slice(body);
        let mut arrivals = lock(&self.arrivals);
        let Ok(Delivery { reminders }) = delivery else { return arrivals.misplace() };
        for Arrived { id, user, data } in &reminders {
            let (Ok(number), Some(user)) = (id.parse(), self.load.user_number(user)) else {
                arrivals.misplace();
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
