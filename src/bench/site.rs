//! What every measurement needs around it: nats-servers, `bellhop serve`, a directory.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::servers::Running;
use super::{BenchError, Options, load, usage};
use crate::local::{Scratch, free_address, is_ready};
use crate::nats_server::tied_to_its_spawner;

/// What the subjects of Bellhop's instances begin with.
pub(super) const BELLHOP_PREFIX: &str = "bellhop.app";
/// The bucket of Bellhop's routes.
pub(super) const ROUTES_BUCKET: &str = "bellhop_routes";
/// The stream of Bellhop's mailboxes.
pub(super) const MAILBOXES: &str = "BELLHOP_PARKED";
/// A stream that shows whether there can be any.
const TRIAL: &str = "BENCH_TRIAL";

/// Ten million routes take minutes to be read.
const READY_DEADLINE: Duration = Duration::from_secs(600);
/// How long the servers of a cluster may take to find each other.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(60);
/// How long a stream may stay as it is while it is waited for.
const STALL: Duration = Duration::from_secs(60);
/// Of a size that does not change by more than a thousandth for so long,
const RESTING: Duration = Duration::from_secs(2);
/// or for so long whether it does or not, it is said that it rests.
const RESTLESS: Duration = Duration::from_secs(30);
/// How long a member that is told to stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Dropped, it leaves no process and no file behind.
pub(super) struct Site {
    /// The nats-server.
    pub(super) url: String,
    /// Whoever measures, at that server.
    pub(super) jetstream: jetstream::Context,
    members: Vec<Child>,
    /// What each member is started with.
    settings: Vec<String>,
    // Fields are dropped in this order: the servers must be gone before their directory can be.
    servers: Running,
    scratch: Scratch,
}

impl Site {
    /// Starts nats-servers, unless one is named, and members with these settings; and waits until they are ready.
    pub(super) async fn open(options: &Options, settings: &[&str]) -> Result<Self, BenchError> {
        let scratch = Scratch::new("bench").map_err(|error| BenchError::Io("no temporary directory".into(), error))?;
        let servers = Running::start(&options.servers, &scratch).await?;
        let url = servers.url().to_owned();
        let client = async_nats::connect(&url).await.map_err(|error| BenchError::nats("connect", error))?;
        let jetstream = jetstream::new(client);
        let replicas = options.servers.replicas();
        let every = [format!("partitions={}", options.partitions), format!("streams.replicas={replicas}")];
        let settings = settings.iter().map(ToString::to_string).chain(every).collect();
        let mut site = Self { url, jetstream, members: Vec::new(), settings, servers, scratch };
        site.can_replicate(replicas).await?;
        for _ in 0..options.members {
            site.members.push(site.serve().await?);
        }
        let failed = |error: &dyn std::fmt::Display| BenchError::nats("put the rules", error);
        let rules = site.jetstream.get_key_value("bellhop_rules").await.map_err(|error| failed(&error))?;
        rules.put(load::TAG, load::rules().into()).await.map_err(|error| failed(&error))?;
        Ok(site)
    }

    /// Waits until a stream can have so many replicas: a cluster needs time to find itself.
    async fn can_replicate(&self, replicas: usize) -> Result<(), BenchError> {
        if replicas == 1 {
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| BenchError::nats("wait for the cluster", error);
        let deadline = Instant::now() + CLUSTER_DEADLINE;
        let config = stream::Config { name: TRIAL.to_owned(), num_replicas: replicas, ..stream::Config::default() };
        while let Err(error) = self.jetstream.create_stream(config.clone()).await {
            if Instant::now() > deadline {
                return Err(failed(&error));
            }
            sleep(POLL).await;
        }
        self.jetstream.delete_stream(TRIAL).await.map(drop).map_err(|error| failed(&error))
    }

    /// How many messages a stream has.
    pub(super) async fn messages(&self, stream: &str) -> Result<u64, BenchError> {
        let found = self.jetstream.get_stream(stream).await;
        let found = found.map_err(|error| BenchError::nats(format!("look at {stream}"), error))?;
        Ok(found.cached_info().state.messages)
    }

    /// Waits until a stream has so many messages as `is_done` wants, and tells how many there are.
    pub(super) async fn wait_for(
        &self,
        stream: &str,
        is_done: impl Fn(u64) -> bool,
        mut tell: impl FnMut(u64),
    ) -> Result<(), BenchError> {
        let (mut before, mut since) = (u64::MAX, Instant::now());
        loop {
            let messages = self.messages(stream).await?;
            if is_done(messages) {
                return Ok(());
            }
            if messages != before {
                (before, since) = (messages, Instant::now());
                tell(messages);
            }
            if since.elapsed() > STALL {
                return Err(BenchError::nats(format!("wait for {stream}"), format!("it stays at {messages} messages")));
            }
            sleep(POLL).await;
        }
    }

    /// Waits until nothing is in work any more: what was accepted is recorded, and acknowledged.
    pub(super) async fn settled(&self) -> Result<(), BenchError> {
        self.wait_for("BELLHOP_SETS", |messages| messages == 0, |_| ()).await?;
        self.wait_for("BELLHOP_EVENTS", |messages| messages == 0, |_| ()).await
    }

    /// CPU time of `bellhop serve` so far, and of nats-server.
    pub(super) fn cpu_times(&self) -> [(&'static str, Duration); 2] {
        let members = self.members.iter().filter_map(Child::id).map(usage::cpu_time).sum();
        [("bellhop", members), ("nats-server", self.servers.cpu_time())]
    }

    /// Resident memory of `bellhop serve`, once it does not change any more.
    pub(super) async fn resting_bytes(&self) -> f64 {
        let bytes = || self.members.iter().filter_map(Child::id).map(usage::resident_bytes).sum::<u64>() as f64;
        let (began, mut since, mut before) = (Instant::now(), Instant::now(), bytes());
        while since.elapsed() < RESTING && began.elapsed() < RESTLESS {
            sleep(POLL).await;
            let now = bytes();
            if (now - before).abs() > before / 1_000.0 {
                (before, since) = (now, Instant::now());
            }
        }
        bytes()
    }

    /// What all members together show Prometheus as this series, by its name and labels.
    pub(super) async fn figure(&self, series: &str) -> Result<f64, BenchError> {
        let failed = |error: &dyn std::fmt::Display| BenchError::nats(format!("ask for {series}"), error);
        let client = self.jetstream.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        let asked = client.publish_with_reply("bellhop.metrics", inbox, "".into()).await;
        asked.map_err(|error| failed(&error))?;
        let mut sum = 0.0;
        for _ in &self.members {
            let answer = timeout(STALL, answers.next()).await.ok().flatten();
            let answer = answer.ok_or_else(|| failed(&"not every member answers"))?;
            let text = String::from_utf8_lossy(&answer.payload);
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
            sum += value.ok_or_else(|| failed(&"there is no such series"))?;
        }
        Ok(sum)
    }

    /// Stops the members in good order, starts them again one after the other, and answers how long it took the slowest until it
    /// was ready.
    pub(super) async fn restart(&mut self) -> Result<Duration, BenchError> {
        for member in &mut self.members {
            stop(member).await?;
        }
        let mut slowest = Duration::ZERO;
        for place in 0..self.members.len() {
            let began = Instant::now();
            self.members[place] = self.serve().await?;
            slowest = slowest.max(began.elapsed());
        }
        Ok(slowest)
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Size of the servers' store, where it is this measurement's own.
    pub(super) fn disk_bytes(&self) -> u64 {
        usage::disk_bytes(self.scratch.path())
    }

    /// A `bellhop serve`, ready.
    async fn serve(&self) -> Result<Child, BenchError> {
        let failed = |error| BenchError::Io("cannot start bellhop serve".to_owned(), error);
        let probes: SocketAddr = free_address().map_err(failed)?;
        let mut command = tied_to_its_spawner(&std::env::current_exe().map_err(failed)?).await;
        command.args(["serve", "--nats", &self.url, "--http", &probes.to_string(), "--history", "none"]);
        command.args(self.settings.iter().flat_map(|setting| ["--set", setting]));
        command.current_dir(self.scratch.path()).stderr(Stdio::inherit());
        command.env("BELLHOP_LOG", "warn").kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let deadline = Instant::now() + READY_DEADLINE;
        while !is_ready(probes).await.unwrap_or(false) {
            let ended = child.try_wait().map_err(failed)?;
            if ended.is_some() || Instant::now() > deadline {
                let problem = "it does not become ready; what it wrote to stderr stands above".to_owned();
                return Err(BenchError::Part { part: "bellhop serve".to_owned(), problem });
            }
            sleep(POLL).await;
        }
        Ok(child)
    }

    /// Ends everything.
    pub(super) async fn close(mut self) {
        for member in &mut self.members {
            let _ = member.kill().await;
        }
    }
}

/// Tells a member to stop, and waits for its end.
async fn stop(member: &mut Child) -> Result<(), BenchError> {
    let failed = |error| BenchError::Io("cannot stop bellhop serve".to_owned(), error);
    let Some(pid) = member.id() else { return Ok(()) };
    // Sending a signal needs `unsafe` here; the shell has a `kill` of its own on every system.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -TERM $0", &pid.to_string()]).stdin(Stdio::null());
    kill.status().await.map_err(failed)?;
    match timeout(STOP_DEADLINE, member.wait()).await {
        Ok(ended) => ended.map(drop).map_err(failed),
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}
