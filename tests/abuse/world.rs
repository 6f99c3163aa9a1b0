//! Everything that runs: a nats-server, a member, one app server for whom the abuse concerns, and
//! one for the others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::Client;
use bellhop_testkit::nats_server::{NatsServer, Options};
use futures_util::{StreamExt, stream};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::Mood;
use crate::apps::App;
use crate::arrivals::Arrivals;
use crate::check::{STEADY, Verdict, Wrong, check};
use crate::client;
use crate::figures::{Figures, Latencies, TRICKLE, millis};
use crate::installation::{Installation, try_within};
use crate::logs::{History, Log, Micros, now};
use crate::memory;
use crate::program::Member;
use crate::publisher::Publisher;

/// The others: some for each partition.
const OTHERS: usize = 64;
/// From one of their reminders to the next.
const TRICKLE_EVERY: Duration = Duration::from_millis(20);
/// Maximum time for everything, at the full size on a loaded machine.
const LIMIT: Duration = Duration::from_secs(600);
/// Messages that are being stored at a time.
const STORES_IN_FLIGHT: usize = 256;
/// A quiet time.
const QUIET: Duration = Duration::from_millis(1_500);

/// The member's log lines about faults: an answer did not arrive in time. A busy machine has some,
/// and a repeat may follow.
const FAULTS: [&str; 3] = [
    "taking over again",
    "instance did not respond",
    "reminders unanswered",
];

/// Tests measure, so they run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Everything, in the order of dropping.
pub(crate) struct World {
    pub(crate) member: Member,
    /// The app server of those whom the abuse concerns.
    pub(crate) app: App,
    others: App,
    publishers: JoinSet<()>,
    pub(crate) installation: Installation,
    client: Client,
    stop: CancellationToken,
    quiet: Vec<(Micros, Micros)>,
    partitions: usize,
    /// Number of bytes that are added to published reminders from now on.
    pub(crate) padding: usize,
    /// Resident memory when all was quiet for the first time.
    quiet_bytes: usize,
    _nats: NatsServer,
    dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A time of abuse.
pub(crate) struct Abuse {
    span: (Micros, Micros),
    peak_bytes: usize,
    is_apart: bool,
}

impl Abuse {
    /// The others have no queue in common with the abuser, so none of them may wait.
    pub(crate) fn apart(self) -> Self {
        Self {
            is_apart: true,
            ..self
        }
    }
}

/// These names with a number each.
pub(crate) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

impl World {
    /// Starts all of it, with the default settings but for these; the member behind the words of a
    /// program that starts others.
    pub(crate) async fn start(settings: &[(&str, &str)], behind: &[String]) -> Self {
        let alone = ALONE.lock().await;
        let dir = TempDir::with_prefix("bellhop-abuse-").unwrap();
        std::fs::create_dir_all(dir.path().join("logs")).unwrap();
        let nats = NatsServer::start(&dir.path().join("nats"), Options::default())
            .await
            .unwrap();
        let url = nats.url().to_owned();
        let own = [("http", "127.0.0.1:0"), ("name", "member")];
        let set = own
            .iter()
            .chain(settings)
            .flat_map(|(name, value)| ["--set".into(), format!("{name}={value}")]);
        let arguments: Vec<String> = ["serve", "--nats", &url]
            .map(Into::into)
            .into_iter()
            .chain(set)
            .collect();
        let client = client::connect(&url, "test").await;
        let mut world = Self {
            member: Member::spawn("member", behind, &arguments, dir.path()),
            app: App::spawn("app", &url, dir.path()),
            others: App::spawn(STEADY, &url, dir.path()),
            publishers: JoinSet::new(),
            installation: Installation {
                jetstream: client::jetstream(client.clone()),
                url,
            },
            client,
            stop: CancellationToken::new(),
            partitions: settings
                .iter()
                .find(|(name, _)| *name == "partitions")
                .map_or_else(
                    || usize::from(bellhop::config::Config::default().partitions),
                    |(_, count)| count.parse().unwrap(),
                ),
            padding: 0,
            quiet: Vec::new(),
            quiet_bytes: 0,
            _nats: nats,
            dir,
            _alone: alone,
        };
        world
            .within("all is ready", async |world| world.is_ready().await)
            .await;
        world.app.be(Mood::Well);
        world.others.be(Mood::Well);
        world.others.connect(names("other", OTHERS));
        world.trickle().await;
        world.quiet().await;
        world.quiet_bytes = memory::resident(world.member.pid());
        world
    }

    async fn is_ready(&self) -> Result<(), String> {
        self.member.is_ready().await?;
        self.app.is_there(&self.client).await?;
        self.others.is_there(&self.client).await
    }

    /// Begins to send the others a reminder every 20 ms, and waits until each had one.
    async fn trickle(&mut self) {
        let mut arrivals = Arrivals::from_now(&self.logs());
        let mut turn = names("other", OTHERS).into_iter().cycle();
        let stop = self.stop.clone();
        self.publish(TRICKLE, TRICKLE_EVERY, stop, move || {
            turn.next().into_iter().collect()
        })
        .await;
        self.within("the others get reminders", async |_| {
            arrivals.are_everybodys(&names("other", OTHERS))
        })
        .await;
    }

    /// This test's own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Stores these bodies under their subjects, as fast as JetStream takes them.
    pub(crate) async fn store_all(&self, messages: impl IntoIterator<Item = (String, String)>) {
        let jetstream = &self.installation.jetstream;
        let store = |(subject, body): (String, String)| async move {
            let sent = jetstream.publish(subject, body.into()).await;
            sent.expect("NATS is there").await.expect("it is stored");
        };
        stream::iter(messages)
            .for_each_concurrent(STORES_IN_FLIGHT, store)
            .await;
    }

    /// Returns the directory of all logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// Begins to publish to users whom `addressees` chooses for each set, until it is stopped.
    pub(crate) async fn publish(
        &mut self,
        source: &'static str,
        every: Duration,
        stop: CancellationToken,
        addressees: impl FnMut() -> Vec<String> + Send + 'static,
    ) {
        let jetstream = client::jetstream(client::connect(&self.installation.url, source).await);
        let log = Log::open(&self.logs(), &format!("published.{source}"));
        let publisher = Publisher {
            source,
            is_careful: true,
            every,
            padding: self.padding,
            jetstream,
            log,
        };
        self.publishers.spawn(publisher.run(addressees, stop));
    }

    /// Publishes these sets as fast as JetStream takes them. The token says when the last one is on
    /// its way.
    pub(crate) async fn publish_all(
        &mut self,
        source: &'static str,
        sets: Vec<Vec<String>>,
    ) -> CancellationToken {
        let stop = CancellationToken::new();
        let (all_sent, mut sets) = (stop.clone(), sets.into_iter().peekable());
        let addressees = move || {
            let set = sets.next().unwrap();
            if sets.peek().is_none() {
                all_sent.cancel();
            }
            set
        };
        self.publish(source, Duration::from_nanos(1), stop.clone(), addressees)
            .await;
        stop
    }

    /// Nothing happens for a while but what happens all the time.
    pub(crate) async fn quiet(&mut self) {
        let began = now();
        tokio::time::sleep(QUIET).await;
        self.quiet.push((began, now()));
    }

    /// Abuse for as long as it takes.
    pub(crate) async fn abuse(&mut self, abuse: impl AsyncFnOnce(&mut Self)) -> Abuse {
        memory::forget_peak(self.member.pid());
        let began = now();
        abuse(self).await;
        Abuse {
            span: (began, now()),
            peak_bytes: memory::peak(self.member.pid()),
            is_apart: false,
        }
    }

    /// Returns the number of reminders in mailboxes.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(crate) async fn parked(&self) -> Result<usize, String> {
        let stream = self
            .installation
            .jetstream
            .get_stream_no_info("BELLHOP_PARKED")
            .await;
        let info = stream
            .map_err(|error| error.to_string())?
            .get_info()
            .await
            .map_err(|error| error.to_string())?;
        // A partition's fence is one message.
        let fences = self.partitions;
        Ok(usize::try_from(info.state.messages).unwrap() - fences)
    }

    /// Waits until so many reminders lie in mailboxes, and nothing is on its way.
    pub(crate) async fn has_parked(&self, count: usize) {
        self.within(&format!("{count} are parked"), async |world| {
            match world.parked().await? {
                parked if parked == count => Ok(()),
                parked => Err(format!("{parked} are")),
            }
        })
        .await;
    }

    /// Waits for a condition that must come about.
    pub(crate) async fn within(
        &self,
        what: &str,
        mut ready: impl AsyncFnMut(&Self) -> Result<(), String>,
    ) {
        if let Err(state) = try_within(LIMIT, async || ready(self).await).await {
            panic!(
                "{what}: not within {LIMIT:?}: {state}\n{}",
                self.member.log_tail()
            );
        }
    }

    /// Returns how many bytes of resident memory the abuse added at most.
    pub(crate) fn growth(&self, abuse: &Abuse) -> usize {
        abuse.peak_bytes.saturating_sub(self.quiet_bytes)
    }

    /// Waits until nothing is under way, and judges: each abuse stayed within its bounds. Answers
    /// all that was written down, and which promises were broken.
    pub(crate) async fn judge(
        mut self,
        abuses: Vec<(String, Abuse)>,
        bound: usize,
    ) -> (History, Verdict) {
        self.stop.cancel();
        std::mem::take(&mut self.publishers).join_all().await;
        self.within("nothing is under way", async |world| {
            world.installation.is_quiet().await
        })
        .await;
        self.installation.write_down(&self.logs()).await;
        assert!(
            !self.member.log().contains("panicked at"),
            "{}",
            self.member.log_tail()
        );
        let history = History::read(&self.logs());
        let mut verdict = check(&history);
        if let Some(fault) = FAULTS
            .into_iter()
            .find(|fault| self.member.log().contains(fault))
            && let Some(repeats) = verdict.wrong.remove(&Wrong::RepeatedWithoutFault)
        {
            eprintln!(
                "{} repeats are explained by `{fault}` in the member's log",
                repeats.len()
            );
        }
        let quiet_bytes = self.quiet_bytes;
        let figures = abuses.into_iter().map(|(scenario, abuse)| Figures {
            scenario,
            lasted_ms: millis(abuse.span.1 - abuse.span.0),
            memory: [quiet_bytes, abuse.peak_bytes, quiet_bytes + bound],
            is_apart: abuse.is_apart,
            quiet: Latencies::of(&history, &self.quiet),
            abuse: Latencies::of(&history, &[abuse.span]),
        });
        let figures: Vec<Figures> = figures.collect();
        figures.iter().for_each(|figures| eprintln!("{figures}"));
        let wrong: Vec<String> = figures.iter().filter_map(Figures::wrong).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        (history, verdict)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the logs are in {}", self.dir.path().display());
            self.dir.disable_cleanup(true);
        }
    }
}
