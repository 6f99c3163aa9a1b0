//! One run: everything is started, reminders flow, the nemesis strikes, everything is well again, and the logs are judged.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use fastrand::Rng;
use futures_util::StreamExt;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check::{self, Verdict};
use crate::client;
use crate::logs::{History, Log, Outcome, Reminder};
use crate::nemesis::Nemesis;
use crate::program::bellhop;
use crate::publisher::{Publisher, some_of};
use crate::world::{self, World};

/// How long faults go on; `30m` is a long run.
const LENGTH_ENV: &str = "BELLHOP_CHAOS";
/// What faults, victims and times are drawn from.
const SEED_ENV: &str = "BELLHOP_CHAOS_SEED";
const SHORT: SignedDuration = SignedDuration::from_secs(45);
/// Which kinds of faults, separated by commas; all by default.
const FAULTS_ENV: &str = "BELLHOP_CHAOS_FAULTS";
/// With this variable set, a run that succeeds leaves its directory behind, too.
const KEEP_ENV: &str = "BELLHOP_CHAOS_KEEP";
/// Without faults, at the beginning and after each.
const QUIET: Duration = Duration::from_secs(4);

/// How long, what, and by which chance.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    pub(crate) faults: Option<String>,
    pub(crate) keeps_logs: bool,
}

impl Settings {
    /// What the environment says.
    pub(crate) fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok();
        let length = variable(LENGTH_ENV).map_or(SHORT, |text| text.parse().expect("a duration such as 30m"));
        let seed =
            variable(SEED_ENV).map_or_else(|| fastrand::u64(0..1_000_000), |text| text.parse().expect("a number"));
        let (faults, keeps_logs) = (variable(FAULTS_ENV), variable(KEEP_ENV).is_some());
        Self { length: length.unsigned_abs(), seed, faults, keeps_logs }
    }
}

/// Runs, writes logs, and judges them. Answers what came out, and what was not well during the run.
pub(crate) async fn run(dir: &Path, settings: &Settings) -> (History, Verdict, Vec<String>) {
    let mut world = World::start(dir).await;
    let mut troubles = Vec::new();
    let (stop, mut publishers) = (CancellationToken::new(), JoinSet::new());
    let mut rng = Rng::with_seed(settings.seed);
    for publisher in publishers_of(&world, &mut rng, &stop).await {
        publishers.spawn(publisher);
    }
    troubles.extend(world.heal().await.err());
    tokio::time::sleep(QUIET).await;

    let mut nemesis = Nemesis::new(rng, Log::open(&world.logs(), "faults"), settings.faults.as_deref(), &world);
    let began = Instant::now();
    while began.elapsed() < settings.length && troubles.is_empty() {
        troubles.extend(nemesis.strike(&mut world).await.err());
        tokio::time::sleep(QUIET).await;
    }

    stop.cancel();
    publishers.join_all().await;
    troubles.extend(world.settle().await.err());
    troubles.extend(
        world
            .members
            .iter()
            .filter(|member| member.log().contains("panicked at"))
            .map(|member| format!("{} panicked", member.name())),
    );
    world.write_what_bellhop_says().await;
    let history = History::read(&world.logs());
    let verdict = check::check(&history);
    (history, verdict, troubles)
}

/// A steady trickle for the users who are always there, two careful business systems, and a hasty one.
async fn publishers_of(
    world: &World,
    rng: &mut Rng,
    stop: &CancellationToken,
) -> Vec<impl Future<Output = ()> + Send + 'static> {
    let habits =
        [("trickle", true, 200, 0), ("billing", true, 200, 10), ("claims", true, 300, 20), ("hasty", false, 500, 3)];
    let mut all = Vec::new();
    for (source, is_careful, every_ms, count) in habits {
        let jetstream = client::jetstream(client::connect(&world.url, source).await);
        let log = Log::open(&world.logs(), &format!("published.{source}"));
        let publisher = Publisher { source, is_careful, every: Duration::from_millis(every_ms), jetstream, log };
        let mut crowd = some_of(rng.fork(), world::crowd(), world::away(), count);
        let addressees = move || if count == 0 { world::steady() } else { crowd() };
        all.push(publisher.run(addressees, stop.clone()));
    }
    all
}

impl World {
    /// Waits until nothing is under way, and nothing waits for anybody who is connected.
    async fn settle(&self) -> Result<(), String> {
        self.try_within(async |world| {
            for name in ["BELLHOP_SETS", "BELLHOP_EVENTS"] {
                let stream = world.jetstream.get_stream(name).await.map_err(|error| error.to_string())?;
                match stream.cached_info().state.messages {
                    0 => {}
                    left => return Err(format!("{left} messages in {name}")),
                }
            }
            let waiting: Vec<String> = world.mailboxes().await;
            match waiting.iter().find(|user| !world::away().contains(user)) {
                Some(user) => Err(format!("reminders wait for {user}")),
                None => Ok(()),
            }
        })
        .await
        .map_err(|state| format!("not settled in a minute: {state}"))
    }

    /// Whose mailboxes are not empty.
    async fn mailboxes(&self) -> Vec<String> {
        let listed = self.ask_bellhop(&["mailbox", "ls", "--json", "--limit", "1000"]).await;
        listed.into_iter().map(|mailbox| mailbox["user"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs a command that prints JSON: a list, or one object.
    async fn ask_bellhop(&self, arguments: &[&str]) -> Vec<Value> {
        let text = bellhop(arguments, &[("NATS_URL", &self.url)], b"").await.succeeded();
        match serde_json::from_str(&text).unwrap() {
            Value::Array(list) => list,
            one => vec![one],
        }
    }

    /// Writes down the outcomes, and what lies in mailboxes.
    async fn write_what_bellhop_says(&self) {
        let waiting = Log::open(&self.logs(), "waiting");
        for user in self.mailboxes().await {
            for info in self.ask_bellhop(&["mailbox", "info", &user, "--json", "--limit", "1000000"]).await {
                let reminders = info["reminders"].as_array().unwrap().iter();
                waiting.write(reminders.map(|one| Reminder::deserialize(&one["reminder"]).unwrap()));
            }
        }
        let log = Log::open(&self.logs(), "outcomes");
        let stream = self.jetstream.get_stream("BELLHOP_OUTCOMES").await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let mut read = 0;
        while read < last {
            #[derive(Deserialize)]
            struct Batch {
                outcomes: Vec<Outcome>,
            }
            let message = messages.next().await.unwrap().unwrap();
            read = message.info().unwrap().stream_sequence;
            let Batch { outcomes } = serde_json::from_slice(&message.payload).unwrap();
            log.write(outcomes);
        }
    }
}
