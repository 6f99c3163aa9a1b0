//! `bellhop bench`: how fast Bellhop is, measured beside what one would write without it, in the same run.
//!
//! Real processes against a real nats-server: publishers, app servers, `bellhop serve`, and, for the baselines, a bare
//! forwarder in its place. Every app server verifies what arrives; a figure is printed only for a run in which everything
//! arrived once and in order.
//!
//! | module | |
//! | --- | --- |
//! | `site`, `servers` | nats-servers, `bellhop serve`, a directory |
//! | `part`, `task` | processes of this program that publish, forward and accept, and what they are told |
//! | `crew`, `people` | the parts of every measurement, as whoever measures sees them |
//! | `load` | the sets that are published: the same ones for Bellhop and for the baselines |
//! | `publisher`, `acceptor`, `forwarder`, `per_user` | the parts |
//! | `arrivals`, `verifier` | what arrived, against what was to arrive |
//! | `mqtt` | Mosquitto, and the parts that speak with it; a build without the feature `bench-mqtt` has `no_mqtt` in its place |
//! | `usage` | CPU time, memory and disk space |
//! | `throughput`, `latency`, `scale`, `durable` | scenarios that have a `stage` in common |
//! | `offline`, with `live` traffic beside it | a mass return |
//! | `routes`, with `heartbeats` and `laps` | very many routes |
//! | `table` | what people see |

#![allow(clippy::disallowed_methods)] // It measures time.

mod acceptor;
mod arrivals;
mod crew;
mod durable;
mod forwarder;
mod heartbeats;
mod laps;
mod latency;
mod live;
pub mod load;
#[cfg_attr(not(feature = "bench-mqtt"), path = "no_mqtt.rs")]
mod mqtt;
mod offline;
mod part;
mod people;
mod per_user;
mod publisher;
mod routes;
mod scale;
mod servers;
mod site;
mod stage;
pub mod table;
mod task;
mod throughput;
mod usage;
mod verifier;

use std::time::Duration;

use serde::Serialize;

use crate::nats::NatsError;
use crate::nats_server::{FindError, StartError};
pub use durable::Durable;
pub use heartbeats::Heartbeats;
pub use latency::Latency;
pub use offline::{Felt, Offline};
pub use routes::Routes;
pub use scale::Scale;
pub use servers::Servers;
pub use task::run as run_part;
pub use throughput::Throughput;

/// What is measured, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which scenario.
    pub scenario: Scenario,
    /// The nats-servers; `scale` needs some of its own, and `durable` chooses them itself.
    pub servers: Servers,
    /// Users, spread over the instances.
    pub users: usize,
    /// Routes, where these are measured.
    pub routes: usize,
    /// App-server instances.
    pub instances: usize,
    /// `bellhop serve` processes.
    pub members: usize,
    /// Partitions.
    pub partitions: u16,
    /// Reminders of one measurement, about.
    pub reminders: usize,
    /// Reminders in a set, one measurement each.
    pub set_sizes: Vec<usize>,
    /// Reminders a second, one measurement each.
    pub rates: Vec<usize>,
    /// How long a rate is held.
    pub duration: Duration,
    /// Reminders a second to users who stay connected while others come back.
    pub live_rate: usize,
    /// How often everything is measured; the median counts.
    pub rounds: usize,
    /// Numbers of members that [`Scenario::Scale`] tries.
    pub scale_members: Vec<usize>,
    /// Numbers of partitions that it tries.
    pub scale_partitions: Vec<u16>,
}

impl Options {
    fn load(&self) -> load::Load {
        load::Load { crowd: load::Crowd::Bench, users: self.users, instances: self.instances }
    }

    /// Reminders in a set, where only one size is measured.
    fn set_size(&self) -> usize {
        self.set_sizes.first().copied().unwrap_or(1)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Reminders a second under saturating load.
    Throughput,
    /// Time from publishing to acceptance at fixed rates.
    Latency,
    /// Reminders a second with more members, and with more partitions.
    Scale,
    /// Reminders a second where acknowledgements wait for the disk.
    Durable,
    /// All users away, and back at once.
    Offline,
    /// Very many routes.
    Routes,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no nats-server.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The nats-server does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// NATS did not do what it was asked.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A file or a process cannot be had.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// A process of the measurement failed.
    #[error("{part}: {problem}")]
    Part {
        /// Which one.
        part: String,
        /// What it said.
        problem: String,
    },
    /// What arrived is not what was published: the measurement counts for nothing.
    #[error("{what} counts for nothing: {problem}")]
    Wrong {
        /// What was measured.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl BenchError {
    fn nats(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        NatsError::failed(what, problem).into()
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Reminders a second.
    Throughput(Vec<Throughput>),
    /// Time from publishing to acceptance.
    Latency(Vec<Latency>),
    /// By members and partitions.
    Scale(Vec<Scale>),
    /// Where acknowledgements wait for the disk.
    Durable(Vec<Durable>),
    /// All users away, and back at once.
    Offline(Vec<Offline>),
    /// Very many routes.
    Routes(Routes),
}

/// Measures, and tells `progress` what is being done.
///
/// # Errors
/// When something cannot be had, or a measurement does not verify.
pub async fn run(options: &Options, progress: &mut dyn FnMut(String)) -> Result<Report, BenchError> {
    Ok(match options.scenario {
        Scenario::Throughput => Report::Throughput(throughput::run(options, progress).await?),
        Scenario::Latency => Report::Latency(latency::run(options, progress).await?),
        Scenario::Scale => Report::Scale(scale::run(options, progress).await?),
        Scenario::Durable => Report::Durable(durable::run(options, progress).await?),
        Scenario::Offline => Report::Offline(offline::run(options, progress).await?),
        Scenario::Routes => Report::Routes(routes::run(options, progress).await?),
    })
}

/// The middle one of some figures, by size.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
