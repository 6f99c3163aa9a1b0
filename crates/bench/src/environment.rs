//! The environment of a measurement: nats-servers, `bellhop serve` processes, and a directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use bellhop_testkit::local::{free_address, is_ready};
use bellhop_testkit::nats_server::{self, NatsServer, start_cluster, tied_to_its_spawner};
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::error::{BenchError, During};
use super::{Options, load, usage};

/// The prefix of the subjects of Bellhop's instances.
pub(super) const BELLHOP_PREFIX: &str = "bellhop.app";
/// The bucket of Bellhop's routes.
pub(super) const ROUTES_BUCKET: &str = "bellhop_routes";
/// The stream of Bellhop's mailboxes.
pub(super) const MAILBOXES: &str = "BELLHOP_PARKED";
/// A stream that is created to find out whether a cluster is ready.
const TRIAL: &str = "BENCH_TRIAL";

/// The time within which `bellhop serve` must start. Reading ten million routes takes minutes.
const READY_DEADLINE: Duration = Duration::from_secs(600);
/// The time within which the servers of a cluster must find each other.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(60);
/// Maximum time for which a stream may stay unchanged while the benchmark waits for it.
const STALL: Duration = Duration::from_secs(60);
/// Memory counts as stable once it has changed by less than a thousandth for this long.
const STABLE: Duration = Duration::from_secs(2);
/// The longest wait for stable memory.
const STABLE_DEADLINE: Duration = Duration::from_secs(30);
/// Maximum time for a member to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// The time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Returns the `bellhop` program to measure: the given one, or the one beside this program.
///
/// # Errors
/// [`BenchError::NoProgram`] if there is no such file.
pub fn find_program(given: Option<PathBuf>) -> Result<PathBuf, BenchError> {
    let beside = || {
        std::env::current_exe()
            .unwrap_or_default()
            .with_file_name("bellhop")
    };
    let program = given.unwrap_or_else(beside);
    // Members run in a directory of their own.
    match program.canonicalize() {
        Ok(found) if found.is_file() => Ok(found),
        _ => Err(BenchError::NoProgram(program)),
    }
}

/// The nats-servers to measure with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// Running servers at this address.
    At(String),
    /// A server of the benchmark that lets the operating system decide when acknowledged messages
    /// reach the disk.
    One,
    /// A server of the benchmark with `sync_interval: always`: acknowledged messages are on the
    /// disk.
    OneSynced,
    /// Three clustered servers of the benchmark with `sync_interval: always`, and three replicas.
    ClusterSynced,
}

/// The setting of servers that write to the disk before they acknowledge.
const SYNCED: &str = "sync_interval: always";

impl Servers {
    /// Returns the name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::At(_) => "given",
            Self::One => "one",
            Self::OneSynced => "one, synced",
            Self::ClusterSynced => "three, synced",
        }
    }

    /// Returns the number of replicas of every stream.
    pub(super) fn replicas(&self) -> usize {
        if *self == Self::ClusterSynced { 3 } else { 1 }
    }

    /// Starts servers that keep their state in `dir`. A cluster may still be forming. Returns
    /// nothing for servers that run already.
    async fn start(&self, dir: &Path) -> Result<Vec<NatsServer>, BenchError> {
        let config = |sync| {
            format!("jetstream {{ max_memory_store: 256MB, max_file_store: 100GB\n{sync} }}")
        };
        let sync = match self {
            Self::At(_) => return Ok(Vec::new()),
            Self::ClusterSynced => return Ok(start_cluster(dir, &config(SYNCED)).await?),
            Self::One => "",
            Self::OneSynced => SYNCED,
        };
        let options = nats_server::Options {
            extra_config: &config(sync),
            ..nats_server::Options::default()
        };
        Ok(vec![NatsServer::start(&dir.join("nats"), options).await?])
    }
}

/// Nats-servers and members. Dropping it leaves no process and no file behind.
pub(super) struct Environment {
    /// The address of the nats-server.
    pub(super) url: String,
    /// The measuring process's connection.
    pub(super) jetstream: jetstream::Context,
    members: Vec<Child>,
    program: PathBuf,
    /// The settings of each member.
    settings: Vec<String>,
    // Fields are dropped in this order: the servers must end before their directory is removed.
    servers: Vec<NatsServer>,
    dir: TempDir,
}

impl Environment {
    /// Starts nats-servers, unless running ones are given, and members with these settings, and
    /// waits until they are ready.
    pub(super) async fn start(options: &Options, settings: &[&str]) -> Result<Self, BenchError> {
        let dir = TempDir::with_prefix("bellhop-bench-");
        let dir = dir.during("make a temporary directory")?;
        let servers = options.servers.start(dir.path()).await?;
        let url = match &options.servers {
            Servers::At(url) => url.clone(),
            _ => servers[0].url().to_owned(),
        };
        let client = async_nats::connect(&url).await;
        let client = client.during(format!("connect to {url}"))?;
        let jetstream = jetstream::new(client);
        let replicas = options.servers.replicas();
        let common = [
            format!("partitions={}", options.partitions),
            format!("streams.replicas={replicas}"),
        ];
        let settings = settings
            .iter()
            .map(ToString::to_string)
            .chain(common)
            .collect();
        let program = options.program.clone();
        let mut environment = Self {
            url,
            jetstream,
            members: Vec::new(),
            program,
            settings,
            servers,
            dir,
        };
        environment.can_replicate(replicas).await?;
        for _ in 0..options.members {
            environment.members.push(environment.serve().await?);
        }
        environment.put_rules().await.during("put the rules")?;
        Ok(environment)
    }

    async fn put_rules(&self) -> Result<(), async_nats::Error> {
        let rules = self.jetstream.get_key_value("bellhop_rules").await?;
        rules.put(load::TAG, load::rules().into()).await?;
        Ok(())
    }

    /// Waits until a stream can have this many replicas: a cluster needs time to form.
    async fn can_replicate(&self, replicas: usize) -> Result<(), BenchError> {
        if replicas == 1 {
            return Ok(());
        }
        let action = "make a stream with replicas";
        let deadline = Instant::now() + CLUSTER_DEADLINE;
        let config = stream::Config {
            name: TRIAL.to_owned(),
            num_replicas: replicas,
            ..stream::Config::default()
        };
        while let Err(error) = self.jetstream.create_stream(config.clone()).await {
            if Instant::now() > deadline {
                return Err(BenchError::failed(action, error));
            }
            sleep(POLL).await;
        }
        self.jetstream
            .delete_stream(TRIAL)
            .await
            .map(drop)
            .during(action)
    }

    /// Returns the number of messages in a stream.
    pub(super) async fn messages(&self, stream: &str) -> Result<u64, BenchError> {
        let found = self.jetstream.get_stream(stream).await;
        let found = found.during(format!("look at {stream}"))?;
        Ok(found.cached_info().state.messages)
    }

    /// Waits until the number of messages in a stream satisfies `is_done`. Calls `progress` with
    /// each number seen before that.
    pub(super) async fn wait_for(
        &self,
        stream: &str,
        is_done: impl Fn(u64) -> bool,
        mut progress: impl FnMut(u64),
    ) -> Result<(), BenchError> {
        let (mut before, mut since) = (u64::MAX, Instant::now());
        loop {
            let messages = self.messages(stream).await?;
            if is_done(messages) {
                return Ok(());
            }
            if messages != before {
                (before, since) = (messages, Instant::now());
                progress(messages);
            }
            if since.elapsed() > STALL {
                let problem = format!("it still has {messages} messages after {STALL:?}");
                return Err(BenchError::failed(format!("wait for {stream}"), problem));
            }
            sleep(POLL).await;
        }
    }

    /// Waits until Bellhop has recorded and acknowledged everything.
    pub(super) async fn settled(&self) -> Result<(), BenchError> {
        self.wait_for("BELLHOP_LOG", |messages| messages == 0, |_| ())
            .await
    }

    /// Returns the CPU time of all members so far, and of the benchmark's nats-servers.
    pub(super) fn cpu_times(&self) -> [(&'static str, Duration); 2] {
        let members = self
            .members
            .iter()
            .filter_map(Child::id)
            .map(usage::cpu_time)
            .sum();
        let servers = self
            .servers
            .iter()
            .filter_map(NatsServer::pid)
            .map(usage::cpu_time)
            .sum();
        [("bellhop", members), ("nats-server", servers)]
    }

    /// Returns the resident memory of all members in bytes, once it is stable.
    pub(super) async fn stable_memory(&self) -> f64 {
        let bytes = || {
            self.members
                .iter()
                .filter_map(Child::id)
                .map(usage::resident_bytes)
                .sum::<u64>() as f64
        };
        let (began, mut since, mut before) = (Instant::now(), Instant::now(), bytes());
        while since.elapsed() < STABLE && began.elapsed() < STABLE_DEADLINE {
            sleep(POLL).await;
            let now = bytes();
            if (now - before).abs() > before / 1_000.0 {
                (before, since) = (now, Instant::now());
            }
        }
        bytes()
    }

    /// Returns the sum over all members of a Prometheus series, named with its labels.
    pub(super) async fn metric(&self, series: &str) -> Result<f64, BenchError> {
        let action = || format!("read {series}");
        let client = self.jetstream.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.during(action())?;
        let asked = client
            .publish_with_reply("bellhop.metrics", inbox, "".into())
            .await;
        asked.during(action())?;
        let mut sum = 0.0;
        for _ in &self.members {
            let answer = timeout(STALL, answers.next()).await.ok().flatten();
            let answer = answer.ok_or("a member did not answer").during(action())?;
            let text = String::from_utf8_lossy(&answer.payload);
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
            sum += value.ok_or("there is no such series").during(action())?;
        }
        Ok(sum)
    }

    /// Stops all members cleanly, and starts them again one by one. Returns the longest time until
    /// a member was ready.
    pub(super) async fn restart(&mut self) -> Result<Duration, BenchError> {
        for member in &mut self.members {
            stop(member).await?;
        }
        let mut slowest = Duration::ZERO;
        for index in 0..self.members.len() {
            let began = Instant::now();
            self.members[index] = self.serve().await?;
            slowest = slowest.max(began.elapsed());
        }
        Ok(slowest)
    }

    /// Returns the directory for files of the measurement.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the disk space of the benchmark's nats-servers in bytes.
    pub(super) fn disk_bytes(&self) -> u64 {
        usage::disk_bytes(self.dir.path())
    }

    /// Starts a `bellhop serve`, and waits until it is ready.
    async fn serve(&self) -> Result<Child, BenchError> {
        let action = "start `bellhop serve`";
        let probes: SocketAddr = free_address().during(action)?;
        let mut command = tied_to_its_spawner(&self.program).await;
        command.args([
            "serve",
            "--nats",
            &self.url,
            "--http",
            &probes.to_string(),
            "--history",
            "none",
        ]);
        command.args(self.settings.iter().flat_map(|setting| ["--set", setting]));
        command
            .current_dir(self.dir.path())
            .stderr(Stdio::inherit());
        command
            .env("BELLHOP_LOG", "warn")
            .kill_on_drop(true)
            .process_group(0);
        let mut child = command.spawn().during(action)?;
        let deadline = Instant::now() + READY_DEADLINE;
        while !is_ready(probes).await.unwrap_or(false) {
            let ended = child.try_wait().during(action)?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(BenchError::process(
                    "bellhop serve",
                    "it did not become ready; its standard error is above",
                ));
            }
            sleep(POLL).await;
        }
        Ok(child)
    }

    /// Ends all members. Dropping the rest ends the nats-servers.
    pub(super) async fn close(mut self) {
        for member in &mut self.members {
            let _ = member.kill().await;
        }
    }
}

/// Sends SIGTERM to a member, and waits for its end.
async fn stop(member: &mut Child) -> Result<(), BenchError> {
    let action = "stop `bellhop serve`";
    let Some(pid) = member.id().and_then(|pid| Pid::from_raw(pid as i32)) else {
        return Ok(());
    };
    kill_process(pid, Signal::TERM).during(action)?;
    match timeout(STOP_DEADLINE, member.wait()).await {
        Ok(ended) => ended.map(drop).during(action),
        Err(_) => Err(BenchError::failed(
            action,
            format!("it goes on after {STOP_DEADLINE:?}"),
        )),
    }
}
