//! App servers, as a worker: they hold their users' connections, accept what arrives, and verify
//! it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message, jetstream};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Progress;
use super::arrivals::{Arrivals, Check, Expected, Tally};
use super::error::{BenchError, Cause, During};
use super::load::Load;
use super::publisher::now_us;
use super::worker::{Conversation, PROGRESS, Role, Worker};

/// App servers of one crowd, as the measuring process sees them.
pub(super) struct AppServers(Worker);

impl AppServers {
    /// Starts them. Their users are not connected yet.
    pub(super) async fn start(task: &Task) -> Result<Self, BenchError> {
        Self::with(Role::AppServers, task).await
    }

    /// Starts app servers in another role that obey the same orders.
    pub(super) async fn with(role: Role, task: &impl Serialize) -> Result<Self, BenchError> {
        let mut worker = Worker::start(role, task).await?;
        let _ready: Report = worker.report().await?;
        Ok(Self(worker))
    }

    /// Connects the users of the reminders with these numbers.
    pub(super) async fn connect(
        &mut self,
        numbers: Range<usize>,
        progress: Progress<'_>,
    ) -> Result<(), BenchError> {
        let count = numbers.len();
        self.0.order(&Order::Connect(numbers)).await?;
        loop {
            match self.0.report().await? {
                Report::Connected => return Ok(()),
                Report::Progress(put) => progress(format!("{put} of {count} users are connected")),
                Report::Ready | Report::Done(_) => {}
            }
        }
    }

    /// Sets what is expected to arrive.
    pub(super) async fn expect(&mut self, expected: Expected) -> Result<(), BenchError> {
        self.0.order(&Order::Expect(expected)).await
    }

    /// Waits until all expected reminders have arrived, or none arrive any more.
    pub(super) async fn arrived(
        &mut self,
        what: &str,
        progress: Progress<'_>,
    ) -> Result<Tally, BenchError> {
        loop {
            match self.0.report().await? {
                Report::Done(tally) => return Ok(tally),
                Report::Progress(accepted) => progress(format!("{what}: {accepted} accepted")),
                Report::Ready | Report::Connected => {}
            }
        }
    }

    /// Does the same, where no reminder from number `end` on was published.
    pub(super) async fn arrived_until(
        &mut self,
        end: usize,
        what: &str,
        progress: Progress<'_>,
    ) -> Result<Tally, BenchError> {
        self.0.order(&Order::Until(end)).await?;
        self.arrived(what, progress).await
    }

    /// Returns the CPU time used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.0.cpu_time()
    }
}

/// The task of app servers on NATS.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) url: String,
    pub(super) load: Load,
    /// The prefixes of instances' subjects, one for each system that delivers.
    pub(super) prefixes: Vec<String>,
    /// The bucket of Bellhop's routes.
    pub(super) routes: String,
    /// The bucket of a baseline, with each user's instance, if there is one.
    pub(super) instances: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Connects the users of the reminders with these numbers.
    Connect(Range<usize>),
    Expect(Expected),
    /// Expects no reminder from this number on.
    Until(usize),
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// The app servers are connected; their users are not yet.
    Ready,
    /// The number of users connected, or of reminders accepted, so far.
    Progress(usize),
    /// All users are connected.
    Connected,
    /// Everything has arrived, or nothing has for a while.
    Done(Tally),
}

/// The time within which JetStream must store a route.
const PUT_DEADLINE: Duration = Duration::from_secs(30);
/// Routes put concurrently.
const PUTS: usize = 1_000;
/// Messages that may be queued for an instance. The client drops what exceeds this, and a system
/// that delivers without waiting for answers can be this far ahead.
const QUEUED: usize = 1 << 20;

/// Runs the worker.
pub(super) async fn run(mut conversation: Conversation) -> Result<(), BenchError> {
    let task: Task = conversation.task().await?;
    let verifier = Verifier::new(task.load);
    let has_users = Arc::new(AtomicBool::new(false));
    let _instances = start_instances(&task, &verifier, &has_users).await?;
    let connect = async |numbers, conversation: &mut Conversation| {
        has_users.store(true, Ordering::Relaxed);
        put_routes(&task, numbers, conversation).await
    };
    verifier.run(conversation, connect).await
}

/// Starts every instance, for each system that delivers. Dropping the result stops them.
async fn start_instances(
    task: &Task,
    verifier: &Verifier,
    has_users: &Arc<AtomicBool>,
) -> Result<JoinSet<()>, BenchError> {
    let mut instances = JoinSet::new();
    let all = task
        .prefixes
        .iter()
        .flat_map(|prefix| (0..task.load.instances).map(move |number| (prefix, number)));
    for (prefix, number) in all {
        let name = task.load.instance_name(number);
        let client = ConnectOptions::new()
            .name(&name)
            .subscription_capacity(QUEUED)
            .connect(&task.url)
            .await;
        let client = client.during(format!("connect {name}"))?;
        let subject = format!("{prefix}.{name}.>");
        let requests = client.subscribe(subject.clone()).await;
        let requests = requests.during(format!("subscribe to {subject}"))?;
        client
            .flush()
            .await
            .during(format!("subscribe to {subject}"))?;
        let (verifier, has_users) = (verifier.clone(), has_users.clone());
        let instance = Instance {
            number,
            load: task.load,
            client,
            has_users,
            verifier,
        };
        instances.spawn(requests.for_each(move |request| {
            let instance = instance.clone();
            async move { instance.serve(request).await }
        }));
    }
    Ok(instances)
}

async fn put_routes(
    task: &Task,
    numbers: Range<usize>,
    conversation: &mut Conversation,
) -> Result<(), BenchError> {
    let action = "put routes";
    let client = async_nats::connect(&task.url).await.during(action)?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(PUT_DEADLINE)
        .build(client);
    let routes = jetstream.get_key_value(&task.routes).await.during(action)?;
    let instances = match &task.instances {
        Some(bucket) => Some(jetstream.get_key_value(bucket).await.during(action)?),
        None => None,
    };
    let puts = numbers.map(|number| {
        let user = task.load.user_of(number);
        let (user, instance) = (
            task.load.user_name(user),
            task.load.instance_name(task.load.instance_of(user)),
        );
        let (routes, instances) = (&routes, &instances);
        async move {
            routes.put(format!("{user}.{instance}"), "".into()).await?;
            if let Some(instances) = instances {
                instances.put(user, instance.into()).await?;
            }
            Ok::<_, Cause>(())
        }
    });
    let puts = stream::iter(puts).buffer_unordered(PUTS);
    conversation.count(puts, action, Report::Progress).await
}

#[derive(Clone)]
struct Instance {
    number: usize,
    load: Load,
    client: Client,
    has_users: Arc<AtomicBool>,
    verifier: Verifier,
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

impl Instance {
    async fn serve(&self, request: Message) {
        let answer = if request.subject.ends_with(".heartbeat") {
            self.heartbeat(&request.payload)
        } else {
            self.verifier.take(self.number, &request.payload);
            b"{}".to_vec()
        };
        if let Some(reply) = request.reply {
            // A lost answer shows in the verification.
            let _ = self.client.publish(reply, answer.into()).await;
        }
    }

    fn heartbeat(&self, body: &[u8]) -> Vec<u8> {
        let Ok(Heartbeat { users }) = serde_json::from_slice(body) else {
            return Vec::new();
        };
        let has_users = self.has_users.load(Ordering::Relaxed);
        let is_here = |user: &&str| {
            self.load
                .user_number(user)
                .is_some_and(|user| self.load.instance_of(user) == self.number)
        };
        let connected = users
            .into_iter()
            .filter(|user| has_users && is_here(user))
            .collect();
        serde_json::to_vec(&Connected { connected }).expect("names serialize")
    }
}

/// If nothing arrives for this long, nothing will: Bellhop asks an instance that did not answer on
/// an overloaded machine again within half a minute (`heartbeat.backoff_max`), and that may fail
/// once more.
const STALL: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

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

/// Verifies what arrives at all instances of a process, over any protocol.
#[derive(Clone)]
pub(super) struct Verifier {
    load: Load,
    arrivals: Arc<Mutex<Arrivals>>,
}

impl Verifier {
    /// Makes one that expects nothing yet.
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            arrivals: Arc::new(Mutex::new(Arrivals::new(load.users.max(load.instances)))),
        }
    }

    /// Takes the body of a delivery to an instance.
    pub(super) fn take(&self, instance: usize, body: &[u8]) {
        let now_us = now_us();
        let delivery: Result<Delivery<'_>, _> = serde_json::from_slice(body);
        let mut arrivals = self.lock();
        let Ok(Delivery { reminders }) = delivery else {
            return arrivals.misplace();
        };
        for Arrived { id, user, data } in &reminders {
            let (Ok(number), Some(user)) = (id.parse(), self.load.user_number(user)) else {
                arrivals.misplace();
                continue;
            };
            let slot = match arrivals.check {
                Check::UserOrder if self.load.instance_of(user) == instance => Some(user),
                Check::UserOrder => None,
                Check::InstanceOrder | Check::Once => Some(instance),
            };
            let is_expected = self.load.user_of(number) == user;
            let slot = slot.filter(|_| is_expected);
            arrivals.accept(number, slot, now_us, data.at);
        }
    }

    /// Reports that the instances are ready, and obeys orders until the measuring process is done
    /// or gone. `connect` connects the users of the reminders with these numbers.
    pub(super) async fn run(
        &self,
        mut conversation: Conversation,
        connect: impl AsyncFn(Range<usize>, &mut Conversation) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        conversation.report(&Report::Ready).await?;
        let mut wait: Option<Wait> = None;
        let mut look = tokio::time::interval(POLL);
        loop {
            tokio::select! {
                order = conversation.next::<Order>() => match order? {
                    Some(Order::Connect(numbers)) => {
                        connect(numbers, &mut conversation).await?;
                        conversation.report(&Report::Connected).await?;
                    }
                    Some(Order::Expect(expected)) => {
                        self.lock().expect(expected);
                        wait = Some(Wait::begun());
                    }
                    Some(Order::Until(end)) => {
                        self.lock().end_at(end);
                        wait = Some(Wait::begun());
                    }
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    let report = wait.as_mut().and_then(|wait| wait.look(&self.lock()));
                    wait = wait.filter(|_| !matches!(report, Some(Report::Done(_))));
                    if let Some(report) = report {
                        conversation.report(&report).await?;
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait until all expected reminders have arrived, or none arrive any more.
struct Wait {
    accepted: usize,
    since: Instant,
    reported: Instant,
}

impl Wait {
    fn begun() -> Self {
        Self {
            accepted: 0,
            since: Instant::now(),
            reported: Instant::now(),
        }
    }

    /// Returns the report that is due, if any.
    fn look(&mut self, arrivals: &Arrivals) -> Option<Report> {
        let accepted = arrivals.accepted();
        if accepted > self.accepted {
            self.accepted = accepted;
            self.since = Instant::now();
        }
        if arrivals.are_complete() || self.since.elapsed() > STALL {
            return Some(Report::Done(arrivals.tally()));
        }
        (self.reported.elapsed() > PROGRESS).then(|| {
            self.reported = Instant::now();
            Report::Progress(accepted)
        })
    }
}
