//! Everything that runs during a measurement, and one measurement.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use serde::Serialize;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::acceptor;
use super::arrivals::{self, Check, Report, Tally};
use super::forwarder::{self, Forwarding, Way};
use super::load::{self, Load};
use super::mqtt::{self, Mosquitto};
use super::part::Part;
use super::publisher::{self, Published};
use super::servers::Running;
use super::task::Task;
use super::{BenchError, Options, usage};
use crate::local::{Scratch, free_address, is_ready};
use crate::nats_server::tied_to_its_spawner;

const READY_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const BELLHOP_PREFIX: &str = "bellhop.app";
const RAW_PREFIX: &str = "raw.app";
const EACH_PREFIX: &str = "each.app";
/// Where users are, in the straightforward design.
const INSTANCES_BUCKET: &str = "bench_instances";
/// Both forwarders' streams, and what each is published on.
const STREAMS: [(&str, &str); 2] = [("BENCH_RAW", "bench.raw"), ("BENCH_EACH", "bench.each")];

/// Who brings the reminders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Bellhop, with all that it does.
    Bellhop,
    /// A bare forwarder of messages of one reminder.
    Raw,
    /// A bare forwarder of messages as large as Bellhop's.
    RawBatch,
    /// A request and a look-up for each reminder.
    PerEvent,
    /// Mosquitto, where a message of one reminder is published to its user's instance.
    Mosquitto,
}

impl System {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bellhop => "bellhop",
            Self::Raw => "raw",
            Self::RawBatch => "raw-batch",
            Self::PerEvent => "per-event",
            Self::Mosquitto => "mosquitto",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Bellhop => "bellhop.sets.bench",
            Self::Raw | Self::RawBatch => STREAMS[0].1,
            Self::PerEvent => STREAMS[1].1,
            Self::Mosquitto => mqtt::TOPICS,
        }
    }

    fn check(self) -> Check {
        match self {
            Self::Bellhop => Check::UserOrder,
            Self::Raw | Self::RawBatch | Self::Mosquitto => Check::InstanceOrder,
            Self::PerEvent => Check::Once,
        }
    }

    /// Reminders in a message, where sets have so many.
    pub(super) fn set_size(self, set_size: usize) -> usize {
        match self {
            Self::Bellhop | Self::RawBatch => set_size,
            Self::Raw | Self::PerEvent | Self::Mosquitto => 1,
        }
    }
}

/// What one measurement moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) system: System,
    pub(super) set_size: usize,
    pub(super) count: usize,
    pub(super) rate: Option<usize>,
    pub(super) warm_up: usize,
}

impl Trial {
    /// As fast as it goes; one reminder at the least.
    pub(super) fn saturating(system: System, set_size: usize, count: usize) -> Self {
        Self { system, set_size, count: count.max(1), rate: None, warm_up: 0 }
    }
}

/// What one measurement found.
#[derive(Debug)]
pub(super) struct Found {
    /// From the first set published to the last reminder accepted.
    pub(super) took: Duration,
    pub(super) tally: Tally,
    /// CPU time of each process.
    pub(super) cpu: BTreeMap<&'static str, Duration>,
    /// Growth of the server's store.
    pub(super) disk_bytes: u64,
}

/// Dropped, it leaves no process and no file behind.
pub(super) struct Stage {
    jetstream: jetstream::Context,
    publisher: Part,
    acceptor: Part,
    forwarders: [Part; 2],
    mosquitto: Option<Mosquitto>,
    members: Vec<Child>,
    /// The number of the next reminder: none has two lives within the idempotency window.
    next: usize,
    // Fields are dropped in this order: the servers must be gone before their directory can be.
    servers: Running,
    scratch: Scratch,
}

impl Stage {
    /// Starts everything, and waits until it is ready.
    pub(super) async fn set(options: &Options) -> Result<Self, BenchError> {
        let scratch = Scratch::new("bench").map_err(|error| BenchError::Io("no temporary directory".into(), error))?;
        let servers = Running::start(&options.servers, &scratch).await?;
        let url = servers.url().to_owned();
        let client = async_nats::connect(&url).await.map_err(|error| BenchError::nats("connect", error))?;
        let jetstream = jetstream::new(client);
        set_baselines_up(&jetstream, options.servers.replicas()).await?;
        let mut members = Vec::new();
        for _ in 0..options.members {
            members.push(serve(&url, options, &scratch).await?);
        }
        put_rules(&jetstream).await?;
        let load = options.load();
        let task = Task::Publish(publisher::Task { url: url.clone(), load });
        let publisher = Part::start("publisher", &task).await?;
        let task = Task::Accept(acceptor::Task {
            url: url.clone(),
            load,
            prefixes: [BELLHOP_PREFIX, RAW_PREFIX, EACH_PREFIX].map(str::to_owned).into(),
            routes: "bellhop_routes".to_owned(),
            instances: INSTANCES_BUCKET.to_owned(),
        });
        let mut acceptor = Part::start("app servers", &task).await?;
        let _ready: Report = acceptor.hear().await?;
        let forwarders = [
            forwarder(&url, STREAMS[0].0, RAW_PREFIX, options.instances, Way::Bare).await?,
            forwarder(&url, STREAMS[1].0, EACH_PREFIX, options.instances, Way::PerEvent(INSTANCES_BUCKET.into()))
                .await?,
        ];
        let mosquitto = None;
        Ok(Self { jetstream, publisher, acceptor, forwarders, mosquitto, members, next: 0, servers, scratch })
    }

    /// Starts a Mosquitto, too. Answers whether one is installed.
    pub(super) async fn add_mosquitto(&mut self, load: Load) -> Result<bool, BenchError> {
        self.mosquitto = Mosquitto::start(self.scratch.path(), load).await?;
        Ok(self.mosquitto.is_some())
    }

    /// Measures once.
    ///
    /// # Errors
    /// [`BenchError::Wrong`] when not everything arrived once and in order.
    pub(super) async fn measure(
        &mut self,
        trial: Trial,
        progress: &mut dyn FnMut(String),
    ) -> Result<Found, BenchError> {
        let Trial { system, set_size, count, rate, warm_up } = trial;
        let (set_size, first) = (system.set_size(set_size), self.next);
        self.next += count;
        let (cpu, disk) = (self.cpu(), usage::disk_bytes(self.scratch.path()));
        let (publisher, acceptor) = match &mut self.mosquitto {
            Some(peer) if system == System::Mosquitto => (&mut peer.publisher, &mut peer.subscribers),
            _ => (&mut self.publisher, &mut self.acceptor),
        };
        acceptor.tell(&arrivals::Order { first, count, warm_up, check: system.check() }).await?;
        let order = publisher::Order { subject: system.subject().to_owned(), first, count, set_size, rate };
        publisher.tell(&order).await?;
        let Published { began_us } = publisher.hear().await?;
        let tally = loop {
            match acceptor.hear().await? {
                Report::Done(tally) => break tally,
                Report::Progress(accepted) => progress(format!("{}: {accepted} of {count}", system.name())),
                Report::Ready => {}
            }
        };
        if let Some(problem) = tally.problem(count) {
            let what = format!("{} with sets of {set_size}", system.name());
            return Err(BenchError::Wrong { what, problem });
        }
        self.settled().await?;
        let used = self.cpu().into_iter().map(|(part, after)| (part, after.saturating_sub(cpu[part])));
        Ok(Found {
            took: Duration::from_micros(tally.last_us.saturating_sub(began_us)),
            tally,
            cpu: used.collect(),
            disk_bytes: usage::disk_bytes(self.scratch.path()).saturating_sub(disk),
        })
    }

    /// Waits until nothing is in work any more: what was accepted is recorded, and acknowledged.
    async fn settled(&self) -> Result<(), BenchError> {
        let deadline = Instant::now() + READY_DEADLINE;
        for stream in ["BELLHOP_SETS", "BELLHOP_EVENTS"].into_iter().chain(STREAMS.map(|(stream, _)| stream)) {
            let failed = |error: &dyn std::fmt::Display| BenchError::nats(format!("look at {stream}"), error);
            while self.jetstream.get_stream(stream).await.map_err(|e| failed(&e))?.cached_info().state.messages > 0 {
                if Instant::now() > deadline {
                    return Err(failed(&"it does not run empty"));
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    fn cpu(&self) -> BTreeMap<&'static str, Duration> {
        let members = self.members.iter().filter_map(Child::id).map(usage::cpu_time).sum();
        let forwarders = self.forwarders.iter().map(Part::cpu_time).sum();
        let peer = self.mosquitto.as_ref();
        let of_peer = |part: fn(&Mosquitto) -> Duration| peer.map_or(Duration::ZERO, part);
        [
            ("bellhop", members),
            ("nats-server", self.servers.cpu_time()),
            ("forwarder", forwarders),
            ("mosquitto", of_peer(Mosquitto::cpu_time)),
            ("app servers", self.acceptor.cpu_time() + of_peer(|peer| peer.subscribers.cpu_time())),
            ("publisher", self.publisher.cpu_time() + of_peer(|peer| peer.publisher.cpu_time())),
        ]
        .into()
    }

    /// Ends everything.
    pub(super) async fn clear(mut self) -> Result<(), BenchError> {
        for member in &mut self.members {
            let _ = member.kill().await;
        }
        Ok(())
    }
}

/// A `bellhop serve`, ready.
async fn serve(url: &str, options: &Options, scratch: &Scratch) -> Result<Child, BenchError> {
    let failed = |error| BenchError::Io("cannot start bellhop serve".to_owned(), error);
    let probes: SocketAddr = free_address().map_err(failed)?;
    let partitions = format!("partitions={}", options.partitions);
    let replicas = format!("streams.replicas={}", options.servers.replicas());
    let mut command = tied_to_its_spawner(&std::env::current_exe().map_err(failed)?).await;
    command.args(["serve", "--nats", url, "--http", &probes.to_string(), "--history", "none"]);
    command.args(["--set", &partitions, "--set", &replicas]);
    command.current_dir(scratch.path()).stderr(Stdio::inherit());
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

async fn put_rules(jetstream: &jetstream::Context) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("put the rules", error);
    let rules = jetstream.get_key_value("bellhop_rules").await.map_err(|error| failed(&error))?;
    rules.put(load::TAG, load::rules().into()).await.map_err(|error| failed(&error))?;
    Ok(())
}

/// What the baselines need. A cluster gets the time to find itself.
async fn set_baselines_up(jetstream: &jetstream::Context, replicas: usize) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("set the baselines up", error);
    let patience = if replicas > 1 { READY_DEADLINE } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    for (name, subject) in STREAMS {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            retention: stream::RetentionPolicy::WorkQueue,
            num_replicas: replicas,
            ..stream::Config::default()
        };
        while let Err(error) = jetstream.create_stream(config.clone()).await {
            if Instant::now() > deadline {
                return Err(failed(&error));
            }
            sleep(POLL).await;
        }
    }
    let config = kv::Config { bucket: INSTANCES_BUCKET.to_owned(), num_replicas: replicas, ..kv::Config::default() };
    jetstream.create_key_value(config).await.map_err(|error| failed(&error))?;
    Ok(())
}

async fn forwarder(url: &str, stream: &str, prefix: &str, instances: usize, way: Way) -> Result<Part, BenchError> {
    let (url, stream, prefix) = (url.to_owned(), stream.to_owned(), prefix.to_owned());
    let task = Task::Forward(forwarder::Task { url, stream, prefix, instances, way });
    let mut part = Part::start("forwarder", &task).await?;
    let _ready: Forwarding = part.hear().await?;
    Ok(part)
}
