//! What throughput and latency are measured on, for Bellhop and the baselines alike, and one measurement.

use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use serde::Serialize;

use super::BenchError;
use super::Options;
use super::acceptor;
use super::arrivals::{Check, Expected, Tally};
use super::crew::{AppServers, Progress, Publisher};
use super::forwarder::{self, Forwarding, Way};
use super::load::Load;
use super::mqtt::{self, Mosquitto};
use super::part::Part;
use super::publisher::{Batch, Published, To};
use super::site::{BELLHOP_PREFIX, ROUTES_BUCKET, Site};
use super::task::Task;
use super::usage::{CpuTimes, used_since};

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

    /// Where sets go that it brings.
    pub(super) fn subject(self) -> &'static str {
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
    pub(super) cpu: CpuTimes,
    /// Growth of the server's store.
    pub(super) disk_bytes: u64,
}

/// Dropped, it leaves no process and no file behind.
pub(super) struct Stage {
    publisher: Publisher,
    app_servers: AppServers,
    forwarders: [Part; 2],
    mosquitto: Option<Mosquitto>,
    load: Load,
    /// The number of the next reminder: none has two lives within the idempotency window.
    next: usize,
    site: Site,
}

impl Stage {
    /// Starts everything, and waits until it is ready.
    pub(super) async fn set(options: &Options, progress: Progress<'_>) -> Result<Self, BenchError> {
        let site = Site::open(options, &[]).await?;
        set_up(&site.jetstream, options.servers.replicas()).await?;
        let load = options.load();
        let mut app_servers = AppServers::start(acceptor::Task {
            url: site.url.clone(),
            load,
            prefixes: [BELLHOP_PREFIX, RAW_PREFIX, EACH_PREFIX].map(str::to_owned).into(),
            routes: ROUTES_BUCKET.to_owned(),
            instances: Some(INSTANCES_BUCKET.to_owned()),
        })
        .await?;
        app_servers.connect(0..load.users, progress).await?;
        let forwarders = [
            forwarder(&site.url, STREAMS[0].0, RAW_PREFIX, load, Way::Bare).await?,
            forwarder(&site.url, STREAMS[1].0, EACH_PREFIX, load, Way::PerEvent(INSTANCES_BUCKET.into())).await?,
        ];
        let publisher = Publisher::start(&site.url, load).await?;
        Ok(Self { publisher, app_servers, forwarders, mosquitto: None, load, next: 0, site })
    }

    /// Starts a Mosquitto, too. Answers whether one is installed.
    pub(super) async fn add_mosquitto(&mut self) -> Result<bool, BenchError> {
        self.mosquitto = Mosquitto::start(self.site.dir(), self.load).await?;
        Ok(self.mosquitto.is_some())
    }

    /// Measures once.
    ///
    /// # Errors
    /// [`BenchError::Wrong`] when not everything arrived once and in order.
    pub(super) async fn measure(&mut self, trial: Trial, progress: Progress<'_>) -> Result<Found, BenchError> {
        let Trial { system, set_size, count, rate, warm_up } = trial;
        let (set_size, first) = (system.set_size(set_size), self.next);
        self.next += count;
        let (cpu, disk) = (self.cpu(), self.site.disk_bytes());
        let (publisher, app_servers) = match &mut self.mosquitto {
            Some(peer) if system == System::Mosquitto => (&mut peer.publisher, &mut peer.subscribers),
            _ => (&mut self.publisher, &mut self.app_servers),
        };
        app_servers.expect(Expected { first, count, warm_up, check: system.check() }).await?;
        let to = To::Subject(system.subject().to_owned());
        publisher.begin(Batch { to, first, count, set_size, rate }).await?;
        let Published { began_us, .. } = publisher.published(progress).await?;
        let tally = app_servers.arrived(system.name(), progress).await?;
        let tally = tally.verified(format!("{} with sets of {set_size}", system.name()), count)?;
        self.site.settled().await?;
        for (stream, _) in STREAMS {
            self.site.wait_for(stream, |messages| messages == 0, |_| ()).await?;
        }
        Ok(Found {
            took: Duration::from_micros(tally.last_us.saturating_sub(began_us)),
            tally,
            cpu: used_since(&cpu, self.cpu()),
            disk_bytes: self.site.disk_bytes().saturating_sub(disk),
        })
    }

    fn cpu(&self) -> CpuTimes {
        let of_peer = |part: fn(&Mosquitto) -> Duration| self.mosquitto.as_ref().map_or(Duration::ZERO, part);
        let parts = [
            ("forwarder", self.forwarders.iter().map(Part::cpu_time).sum()),
            ("mosquitto", of_peer(Mosquitto::cpu_time)),
            ("app servers", self.app_servers.cpu_time() + of_peer(|peer| peer.subscribers.cpu_time())),
            ("publisher", self.publisher.cpu_time() + of_peer(|peer| peer.publisher.cpu_time())),
        ];
        self.site.cpu_times().into_iter().chain(parts).collect()
    }

    /// Ends everything.
    pub(super) async fn clear(self) {
        self.site.close().await;
    }
}

/// What the baselines need.
async fn set_up(jetstream: &jetstream::Context, replicas: usize) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("set the baselines up", error);
    for (name, subject) in STREAMS {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            retention: stream::RetentionPolicy::WorkQueue,
            num_replicas: replicas,
            ..stream::Config::default()
        };
        jetstream.create_stream(config).await.map_err(|error| failed(&error))?;
    }
    let config = kv::Config { bucket: INSTANCES_BUCKET.to_owned(), num_replicas: replicas, ..kv::Config::default() };
    jetstream.create_key_value(config).await.map_err(|error| failed(&error))?;
    Ok(())
}

async fn forwarder(url: &str, stream: &str, prefix: &str, load: Load, way: Way) -> Result<Part, BenchError> {
    let (url, stream, prefix) = (url.to_owned(), stream.to_owned(), prefix.to_owned());
    let task = Task::Forward(forwarder::Task { url, stream, prefix, load, way });
    let mut part = Part::start("forwarder", &task).await?;
    let _ready: Forwarding = part.hear().await?;
    Ok(part)
}
