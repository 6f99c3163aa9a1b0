//! Reminders a second under saturating load: beside the baselines, with acknowledgements that wait
//! for the disk, and with more members and partitions.

use std::collections::BTreeMap;

use serde::Serialize;

use super::environment::Servers;
use super::error::BenchError;
use super::trial::{Contestants, Reading, System, Trial};
use super::{Options, Progress, median};

/// The throughput of one system with sets of one size.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// The system.
    pub system: System,
    /// Reminders in a set.
    pub set_size: usize,
    /// Reminders in a round.
    pub reminders: usize,
    /// Reminders a second, from the first set published to the last reminder accepted; the median
    /// of all rounds.
    pub per_second: f64,
    /// Reminders a second in each round.
    pub rounds: Vec<f64>,
    /// CPU seconds for a million reminders, by process; the median of all rounds.
    pub cpu_per_million: BTreeMap<&'static str, f64>,
    /// Bytes that a reminder leaves in the server's store.
    pub disk_bytes: f64,
}

/// The straightforward design gets one in this many reminders, because it is slow.
const PER_EVENT_SHARE: usize = 20;

pub(super) async fn run(
    options: &Options,
    progress: Progress<'_>,
) -> Result<Vec<Throughput>, BenchError> {
    let mut contestants = Contestants::start(options, progress).await?;
    let mosquitto = contestants
        .add_mosquitto()
        .await?
        .then_some((System::Mosquitto, 1));
    let sized = options
        .set_sizes
        .iter()
        .flat_map(|size| [(System::Bellhop, *size), (System::RawBatch, *size)]);
    // Without batches the bare forwarder has sets of one.
    let batches = sized.filter(|(system, size)| *system != System::RawBatch || *size > 1);
    let systems = [(System::Raw, 1), (System::PerEvent, 1)]
        .into_iter()
        .chain(mosquitto)
        .chain(batches);
    let trials: Vec<_> = systems
        .map(|(system, size)| trial(options, system, size))
        .collect();
    let measured = interleaved(&mut contestants, options, &trials, progress).await?;
    contestants.close().await;
    Ok(measured)
}

/// Returns a trial that takes about as long as the others: sets of one are slow.
fn trial(options: &Options, system: System, set_size: usize) -> Trial {
    let share = match system {
        System::PerEvent => PER_EVENT_SHARE,
        _ if set_size == 1 => 5,
        _ => 1,
    };
    Trial::saturating(system, set_size, options.reminders / share)
}

/// Runs all trials in each round, so that other load on the machine affects all of them.
async fn interleaved(
    contestants: &mut Contestants,
    options: &Options,
    trials: &[Trial],
    progress: Progress<'_>,
) -> Result<Vec<Throughput>, BenchError> {
    let mut found: Vec<Vec<Reading>> = trials.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (trial, found) in trials.iter().zip(&mut found) {
            let (system, set_size) = (trial.system.name(), trial.set_size);
            progress(format!(
                "round {round} of {}: {system}, sets of {set_size}",
                options.rounds
            ));
            found.push(contestants.measure(*trial, progress).await?);
        }
    }
    Ok(trials
        .iter()
        .zip(&found)
        .map(|(trial, found)| Throughput::of(trial, found))
        .collect())
}

impl Throughput {
    /// Sums up all rounds of a trial.
    fn of(trial: &Trial, found: &[Reading]) -> Self {
        let Trial {
            system,
            set_size,
            count: reminders,
            ..
        } = *trial;
        let rounds: Vec<f64> = found
            .iter()
            .map(|one| reminders as f64 / one.took.as_secs_f64())
            .collect();
        let millions = reminders as f64 / 1e6;
        let cpu_of = |process| {
            median(
                found
                    .iter()
                    .map(|one| one.cpu[process].as_secs_f64() / millions)
                    .collect(),
            )
        };
        let processes = found.iter().flat_map(|one| one.cpu.keys().copied());
        let cpu_per_million = processes
            .map(|process| (process, cpu_of(process)))
            .collect();
        let disk_bytes = median(
            found
                .iter()
                .map(|one| one.disk_bytes as f64 / reminders as f64)
                .collect(),
        );
        let per_second = median(rounds.clone());
        Self {
            system,
            set_size,
            reminders,
            per_second,
            rounds,
            cpu_per_million,
            disk_bytes,
        }
    }
}

/// The throughput of one system, where acknowledgements wait for the disk.
#[derive(Debug, Serialize)]
pub struct Durable {
    /// The nats-servers: [`Servers::name`].
    pub servers: &'static str,
    /// The result.
    #[serde(flatten)]
    pub found: Throughput,
}

/// Durable trials get one in this many reminders. Three servers on one machine that are flooded for
/// longer leave no time for a member's heartbeat.
const DURABLE_SHARE: usize = 4;
/// The share for one reminder in a message, which is slower still.
const DURABLE_RAW_SHARE: usize = 20;
/// Most users of durable trials: routes wait for the disk, too, so that connecting takes long.
const DURABLE_USERS: usize = 10_000;

pub(super) async fn run_durable(
    options: &Options,
    progress: Progress<'_>,
) -> Result<Vec<Durable>, BenchError> {
    let size = options.set_size();
    let trials = [
        Trial::saturating(System::Raw, 1, options.reminders / DURABLE_RAW_SHARE),
        Trial::saturating(System::RawBatch, size, options.reminders / DURABLE_SHARE),
        Trial::saturating(System::Bellhop, size, options.reminders / DURABLE_SHARE),
    ];
    let mut all = Vec::new();
    for servers in [Servers::OneSynced, Servers::ClusterSynced] {
        let name = servers.name();
        let options = Options {
            servers,
            users: options.users.min(DURABLE_USERS),
            ..options.clone()
        };
        let mut contestants = Contestants::start(&options, progress).await?;
        let found = interleaved(&mut contestants, &options, &trials, progress).await?;
        all.extend(found.into_iter().map(|found| Durable {
            servers: name,
            found,
        }));
        contestants.close().await;
    }
    Ok(all)
}

/// The throughput of one installation.
#[derive(Debug, Serialize)]
pub struct Scale {
    /// The number that differs between rows.
    pub varied: Varied,
    /// Number of `bellhop serve` processes.
    pub members: usize,
    /// Number of partitions.
    pub partitions: u16,
    /// The result.
    #[serde(flatten)]
    pub found: Throughput,
}

/// A number that is varied, while the other one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Varied {
    /// The number of members.
    Members,
    /// The number of partitions.
    Partitions,
}

pub(super) async fn run_scale(
    options: &Options,
    progress: Progress<'_>,
) -> Result<Vec<Scale>, BenchError> {
    let members = options
        .scale_members
        .iter()
        .map(|members| (Varied::Members, *members, options.partitions));
    let partitions = options
        .scale_partitions
        .iter()
        .map(|partitions| (Varied::Partitions, options.members, *partitions));
    let installations: Vec<_> = members.chain(partitions).collect();
    let trial = Trial::saturating(System::Bellhop, options.set_size(), options.reminders);
    let mut found: Vec<_> = installations.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for ((_, members, partitions), found) in installations.iter().zip(&mut found) {
            progress(format!(
                "round {round} of {}: members {members}, partitions {partitions}",
                options.rounds
            ));
            let options = Options {
                members: *members,
                partitions: *partitions,
                ..options.clone()
            };
            let mut contestants = Contestants::start(&options, progress).await?;
            found.push(contestants.measure(trial, progress).await?);
            contestants.close().await;
        }
    }
    let rows =
        installations
            .into_iter()
            .zip(&found)
            .map(|((varied, members, partitions), found)| {
                let found = Throughput::of(&trial, found);
                Scale {
                    varied,
                    members,
                    partitions,
                    found,
                }
            });
    Ok(rows.collect())
}
