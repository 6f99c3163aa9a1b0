//! One run: everything is started, reminders flow, the nemesis strikes, everything is well again,
//! and the logs are judged.

use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::SignedDuration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check::{self, Verdict};
use crate::client;
use crate::logs::{History, Log};
use crate::nemesis::Nemesis;
use crate::publisher::{Publisher, some_of};
use crate::world::{self, World};

/// Duration of the faults; `30m` is a long run.
const LENGTH_ENV: &str = "BELLHOP_CHAOS";
/// The seed of the faults, victims and times.
const SEED_ENV: &str = "BELLHOP_CHAOS_SEED";
const SHORT: SignedDuration = SignedDuration::from_secs(45);
/// The kinds of faults, separated by commas; all by default.
const FAULTS_ENV: &str = "BELLHOP_CHAOS_FAULTS";
/// With this variable set, a run that succeeds leaves its directory behind, too.
const KEEP_ENV: &str = "BELLHOP_CHAOS_KEEP";
/// Without faults, at the beginning and after each.
const QUIET: Duration = Duration::from_secs(4);

/// Duration, kinds and seed.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    pub(crate) faults: Option<String>,
    pub(crate) keeps_logs: bool,
}

impl Settings {
    /// Reads the environment.
    pub(crate) fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok();
        let length = variable(LENGTH_ENV)
            .map_or(SHORT, |text| text.parse().expect("a duration such as 30m"));
        let seed = variable(SEED_ENV).map_or_else(
            || fastrand::u64(0..1_000_000),
            |text| text.parse().expect("a number"),
        );
        let (faults, keeps_logs) = (variable(FAULTS_ENV), variable(KEEP_ENV).is_some());
        Self {
            length: length.unsigned_abs(),
            seed,
            faults,
            keeps_logs,
        }
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

    let mut nemesis = Nemesis::new(
        rng,
        Log::open(&world.logs(), "faults"),
        settings.faults.as_deref(),
        &world,
    );
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
    world.installation().write_down(&world.logs()).await;
    let history = History::read(&world.logs());
    let verdict = check::check(&history);
    (history, verdict, troubles)
}

/// A steady trickle for the users who are always there, two careful business systems, and a hasty
/// one.
async fn publishers_of(
    world: &World,
    rng: &mut Rng,
    stop: &CancellationToken,
) -> Vec<impl Future<Output = ()> + Send + 'static> {
    let habits = [
        ("trickle", true, 200, 0),
        ("billing", true, 200, 10),
        ("claims", true, 300, 20),
        ("hasty", false, 500, 3),
    ];
    let mut all = Vec::new();
    for (source, is_careful, every_ms, count) in habits {
        let jetstream = client::jetstream(client::connect(&world.url, source).await);
        let log = Log::open(&world.logs(), &format!("published.{source}"));
        let publisher = Publisher {
            source,
            is_careful,
            every: Duration::from_millis(every_ms),
            padding: 0,
            jetstream,
            log,
        };
        let mut crowd = some_of(rng.fork(), world::crowd(), world::away(), count);
        let addressees = move || if count == 0 { world::steady() } else { crowd() };
        all.push(publisher.run(addressees, stop.clone()));
    }
    all
}
