//! One measurement of one system, Bellhop or a baseline, and the processes that it needs.

use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use serde::Serialize;

use super::app_servers::{self, AppServers};
use super::arrivals::{Check, Expected, Tally};
use super::baselines::{Forward, Way};
use super::environment::{BELLHOP_PREFIX, Environment, ROUTES_BUCKET};
use super::error::{BenchError, During};
use super::load::Load;
use super::mosquitto::{self, Mosquitto};
use super::publisher::{Batch, Published, Publisher, To};
use super::usage::{CpuTimes, used_since};
use super::worker::Worker;
use super::{Options, Progress};

const RAW_PREFIX: &str = "raw.app";
const EACH_PREFIX: &str = "each.app";
/// The bucket with users' instances, in the straightforward design.
const INSTANCES_BUCKET: &str = "bench_instances";
/// The streams of both forwarders, and their subjects.
const STREAMS: [(&str, &str); 2] = [("BENCH_RAW", "bench.raw"), ("BENCH_EACH", "bench.each")];

/// A system that delivers reminders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum System {
    /// Bellhop, with all its work.
    Bellhop,
    /// A bare forwarder of messages with one reminder.
    Raw,
    /// A bare forwarder of messages as large as Bellhop's.
    RawBatch,
    /// A lookup and a request for each reminder.
    PerEvent,
    /// Mosquitto; each reminder is published to its user's instance.
    Mosquitto,
}

impl System {
    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the subject of its sets.
    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::Bellhop => "bellhop.sets.bench",
            Self::Raw | Self::RawBatch => STREAMS[0].1,
            Self::PerEvent => STREAMS[1].1,
            Self::Mosquitto => mosquitto::TOPICS,
        }
    }

    fn check(self) -> Check {
        match self {
            Self::Bellhop => Check::UserOrder,
            Self::Raw | Self::RawBatch | Self::Mosquitto => Check::InstanceOrder,
            Self::PerEvent => Check::Once,
        }
    }

    /// Returns the number of reminders in a message, for sets of this size.
    pub(super) fn set_size(self, set_size: usize) -> usize {
        match self {
            Self::Bellhop | Self::RawBatch => set_size,
            Self::Raw | Self::PerEvent | Self::Mosquitto => 1,
        }
    }
}

/// The parameters of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) system: System,
    pub(super) set_size: usize,
    pub(super) count: usize,
    pub(super) rate: Option<usize>,
    pub(super) warm_up: usize,
}

impl Trial {
    /// Publishes as fast as possible; at least one reminder.
    pub(super) fn saturating(system: System, set_size: usize, count: usize) -> Self {
        Self {
            system,
            set_size,
            count: count.max(1),
            rate: None,
            warm_up: 0,
        }
    }
}

/// The result of one measurement.
#[derive(Debug)]
pub(super) struct Reading {
    /// The time from the first set published to the last reminder accepted.
    pub(super) took: Duration,
    pub(super) tally: Tally,
    /// The CPU time of each process.
    pub(super) cpu: CpuTimes,
    /// The growth of the server's store.
    pub(super) disk_bytes: u64,
}

/// The processes of Bellhop and all baselines. Dropping it leaves no process and no file behind.
pub(super) struct Contestants {
    publisher: Publisher,
    app_servers: AppServers,
    forwarders: [Worker; 2],
    mosquitto: Option<Mosquitto>,
    load: Load,
    /// The number of the next reminder. None is used twice, because Bellhop recognizes duplicates.
    next: usize,
    environment: Environment,
}

impl Contestants {
    /// Starts everything, and waits until it is ready.
    pub(super) async fn start(
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Self, BenchError> {
        let environment = Environment::start(options, &[]).await?;
        let made = make_streams(&environment.jetstream, options.servers.replicas()).await;
        made.during("make the baselines' streams")?;
        let load = options.load();
        let mut app_servers = AppServers::start(&app_servers::Task {
            url: environment.url.clone(),
            load,
            prefixes: [BELLHOP_PREFIX, RAW_PREFIX, EACH_PREFIX]
                .map(str::to_owned)
                .into(),
            routes: ROUTES_BUCKET.to_owned(),
            instances: Some(INSTANCES_BUCKET.to_owned()),
        })
        .await?;
        app_servers.connect(0..load.users, progress).await?;
        let forwarder = |stream: &str, prefix: &str, way| {
            let (stream, prefix) = (stream.to_owned(), prefix.to_owned());
            Forward {
                url: environment.url.clone(),
                stream,
                prefix,
                load,
                way,
            }
        };
        let forwarders = [
            forwarder(STREAMS[0].0, RAW_PREFIX, Way::Bare)
                .start()
                .await?,
            forwarder(
                STREAMS[1].0,
                EACH_PREFIX,
                Way::PerEvent(INSTANCES_BUCKET.to_owned()),
            )
            .start()
            .await?,
        ];
        let publisher = Publisher::start(&environment.url, load).await?;
        Ok(Self {
            publisher,
            app_servers,
            forwarders,
            mosquitto: None,
            load,
            next: 0,
            environment,
        })
    }

    /// Starts Mosquitto as well. Returns whether it can be measured.
    pub(super) async fn add_mosquitto(&mut self) -> Result<bool, BenchError> {
        self.mosquitto = Mosquitto::start(self.environment.dir(), self.load).await?;
        Ok(self.mosquitto.is_some())
    }

    /// Measures once.
    ///
    /// # Errors
    /// [`BenchError::Void`] if not everything arrived once and in order.
    pub(super) async fn measure(
        &mut self,
        trial: Trial,
        progress: Progress<'_>,
    ) -> Result<Reading, BenchError> {
        let Trial {
            system,
            set_size,
            count,
            rate,
            warm_up,
        } = trial;
        let (set_size, first) = (system.set_size(set_size), self.next);
        self.next += count;
        let (cpu, disk) = (self.cpu(), self.environment.disk_bytes());
        let (publisher, app_servers) = match &mut self.mosquitto {
            Some(peer) if system == System::Mosquitto => {
                (&mut peer.publisher, &mut peer.subscribers)
            }
            _ => (&mut self.publisher, &mut self.app_servers),
        };
        app_servers
            .expect(Expected {
                first,
                count,
                warm_up,
                check: system.check(),
            })
            .await?;
        let to = To::Subject(system.subject().to_owned());
        publisher
            .begin(Batch {
                to,
                first,
                count,
                set_size,
                rate,
            })
            .await?;
        let Published { began_us, .. } = publisher.published(progress).await?;
        let tally = app_servers.arrived(system.name(), progress).await?;
        let tally = tally.verified(format!("{} with sets of {set_size}", system.name()), count)?;
        self.environment.settled().await?;
        for (stream, _) in STREAMS {
            self.environment
                .wait_for(stream, |messages| messages == 0, |_| ())
                .await?;
        }
        Ok(Reading {
            took: Duration::from_micros(tally.last_us.saturating_sub(began_us)),
            tally,
            cpu: used_since(&cpu, self.cpu()),
            disk_bytes: self.environment.disk_bytes().saturating_sub(disk),
        })
    }

    fn cpu(&self) -> CpuTimes {
        let of_peer =
            |of: fn(&Mosquitto) -> Duration| self.mosquitto.as_ref().map_or(Duration::ZERO, of);
        let workers = [
            (
                "forwarder",
                self.forwarders.iter().map(Worker::cpu_time).sum(),
            ),
            ("mosquitto", of_peer(Mosquitto::cpu_time)),
            (
                "app servers",
                self.app_servers.cpu_time() + of_peer(|peer| peer.subscribers.cpu_time()),
            ),
            (
                "publisher",
                self.publisher.cpu_time() + of_peer(|peer| peer.publisher.cpu_time()),
            ),
        ];
        self.environment
            .cpu_times()
            .into_iter()
            .chain(workers)
            .collect()
    }

    /// Ends everything.
    pub(super) async fn close(self) {
        self.environment.close().await;
    }
}

/// Makes the baselines' streams and bucket.
async fn make_streams(
    jetstream: &jetstream::Context,
    replicas: usize,
) -> Result<(), async_nats::Error> {
    for (name, subject) in STREAMS {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            retention: stream::RetentionPolicy::WorkQueue,
            num_replicas: replicas,
            ..stream::Config::default()
        };
        jetstream.create_stream(config).await?;
    }
    let config = kv::Config {
        bucket: INSTANCES_BUCKET.to_owned(),
        num_replicas: replicas,
        ..kv::Config::default()
    };
    jetstream.create_key_value(config).await?;
    Ok(())
}
