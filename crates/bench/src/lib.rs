//! Benchmarks for Bellhop: how fast it is, measured beside hand-written baselines in the same run.
//!
//! Everything is real: a nats-server, `bellhop serve` processes, and worker processes that publish,
//! forward and accept. App servers verify what arrives. A figure is printed only for a run in which
//! every reminder arrived once and in order.
//!
//! | module | |
//! | --- | --- |
//! | [`load`] | the sets to publish: the same bytes for Bellhop and for the baselines |
//! | `worker` | worker processes, and the messages between them and the measuring process |
//! | `publisher`, `app_servers` | the workers of every measurement |
//! | `arrivals` | checks what arrived against what was expected |
//! | `baselines`, `mosquitto`, `mqtt` | what Bellhop is compared with |
//! | `environment` | the nats-servers, `bellhop serve`, and a temporary directory |
//! | `usage` | CPU time, memory and disk space |
//! | `population` | users, their app servers, and a publisher for them |
//! | `trial` | one measurement of one system; `throughput` and `latency` are made of these |
//! | `throughput`, `latency`, `offline`, `routes` | the scenarios |
//! | [`table`] | a report as a table |

#![allow(clippy::disallowed_methods)] // Benchmarks read clocks.

mod app_servers;
mod arrivals;
mod baselines;
mod environment;
mod error;
mod latency;
pub mod load;
mod mosquitto;
#[cfg(feature = "mqtt")]
mod mqtt;
mod offline;
mod population;
mod publisher;
mod routes;
pub mod table;
mod throughput;
mod trial;
mod usage;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use environment::{Servers, find_program};
pub use error::{BenchError, Cause};
pub use latency::Latency;
pub use offline::{LiveLatency, Offline};
pub use routes::{Heartbeats, Routes};
pub use throughput::{Durable, Scale, Throughput, Varied};
pub use trial::System;
pub use worker::Role;

/// The scenario, and its size.
#[derive(Debug, Clone)]
pub struct Options {
    /// The scenario.
    pub scenario: Scenario,
    /// The `bellhop` program to measure.
    pub program: PathBuf,
    /// The nats-servers. [`Scenario::Scale`] starts its own, and [`Scenario::Durable`] chooses
    /// them.
    pub servers: Servers,
    /// Number of users, spread over the instances.
    pub users: usize,
    /// Number of routes; for [`Scenario::Routes`].
    pub routes: usize,
    /// Number of app-server instances.
    pub instances: usize,
    /// Number of `bellhop serve` processes.
    pub members: usize,
    /// Number of partitions.
    pub partitions: u16,
    /// Approximate number of reminders in one measurement.
    pub reminders: usize,
    /// Reminders in a set; one measurement for each.
    pub set_sizes: Vec<usize>,
    /// Reminders a second; one measurement for each.
    pub rates: Vec<usize>,
    /// Duration of each rate.
    pub duration: Duration,
    /// Reminders a second to users who stay connected while others come back.
    pub live_rate: usize,
    /// Number of rounds; the median counts.
    pub rounds: usize,
    /// Numbers of members that [`Scenario::Scale`] tries.
    pub scale_members: Vec<usize>,
    /// Numbers of partitions that [`Scenario::Scale`] tries.
    pub scale_partitions: Vec<u16>,
}

impl Options {
    fn load(&self) -> load::Load {
        load::Load {
            crowd: load::Crowd::Bench,
            users: self.users,
            instances: self.instances,
        }
    }

    /// Reminders in a set, for scenarios that measure one size only.
    fn set_size(&self) -> usize {
        self.set_sizes.first().copied().unwrap_or(1)
    }
}

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Reminders a second under saturating load
    Throughput,
    /// Time from publishing to acceptance at fixed rates
    Latency,
    /// Reminders a second with more members, and with more partitions
    Scale,
    /// Reminders a second where acknowledgements wait for the disk, on one nats-server and on three
    Durable,
    /// Reminders for users who are all away, and who all come back at once
    Offline,
    /// Many routes: putting them, memory, starting with them, asking about them
    Routes,
}

/// The result of a scenario.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Of [`Scenario::Throughput`].
    Throughput(Vec<Throughput>),
    /// Of [`Scenario::Latency`].
    Latency(Vec<Latency>),
    /// Of [`Scenario::Scale`].
    Scale(Vec<Scale>),
    /// Of [`Scenario::Durable`].
    Durable(Vec<Durable>),
    /// Of [`Scenario::Offline`].
    Offline(Vec<Offline>),
    /// Of [`Scenario::Routes`].
    Routes(Routes),
}

/// Receives a line about the current step.
type Progress<'p> = &'p mut dyn FnMut(String);

/// Runs a scenario, and passes a line about each step to `progress`.
///
/// # Errors
/// Fails if a program or server is not available, or if a measurement does not verify.
pub async fn run(
    options: &Options,
    progress: &mut dyn FnMut(String),
) -> Result<Report, BenchError> {
    Ok(match options.scenario {
        Scenario::Throughput => Report::Throughput(throughput::run(options, progress).await?),
        Scenario::Latency => Report::Latency(latency::run(options, progress).await?),
        Scenario::Scale => Report::Scale(throughput::run_scale(options, progress).await?),
        Scenario::Durable => Report::Durable(throughput::run_durable(options, progress).await?),
        Scenario::Offline => Report::Offline(offline::run(options, progress).await?),
        Scenario::Routes => Report::Routes(routes::run(options, progress).await?),
    })
}

/// Runs a worker process, until its standard input ends.
///
/// # Errors
/// Fails if the worker cannot do what it is ordered to.
pub async fn run_worker(role: Role) -> Result<(), BenchError> {
    let conversation = worker::Conversation::on_standard_streams();
    match role {
        Role::AppServers => app_servers::run(conversation).await,
        Role::Publisher => publisher::run(conversation).await,
        Role::Forwarder => baselines::forward(conversation).await,
        Role::PerUser => baselines::serve_returns(conversation).await,
        #[cfg(feature = "mqtt")]
        Role::MqttSubscribers => mqtt::subscribe(conversation).await,
        #[cfg(feature = "mqtt")]
        Role::MqttPublisher => mqtt::publish(conversation).await,
        #[cfg(not(feature = "mqtt"))]
        Role::MqttSubscribers | Role::MqttPublisher => Err(BenchError::process(
            "worker",
            "this program was built without its feature `mqtt`",
        )),
    }
}

/// Returns the middle one of these figures by size, or NaN if there is none.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
