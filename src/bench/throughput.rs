//! How many reminders a second are accepted when more are published than can be.

use std::collections::BTreeMap;

use serde::Serialize;

use super::crew::Progress;
use super::stage::{Found, Stage, System, Trial};
use super::{BenchError, Options, median};

/// One system with sets of one size.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// Who brought them.
    pub system: System,
    /// Reminders in a set.
    pub set_size: usize,
    /// Reminders in a round.
    pub reminders: usize,
    /// Reminders a second, from the first set published to the last reminder accepted: the median of all rounds.
    pub per_second: f64,
    /// Each round's.
    pub rounds: Vec<f64>,
    /// CPU seconds for a million reminders, by process: the median of all rounds.
    pub cpu_per_million: BTreeMap<&'static str, f64>,
    /// What a reminder leaves in the server's store.
    pub disk_bytes: f64,
}

/// The straightforward design is so slow that fewer show it.
const PER_EVENT_SHARE: usize = 20;

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Vec<Throughput>, BenchError> {
    let mut stage = Stage::set(options, progress).await?;
    let mosquitto = stage.add_mosquitto().await?.then_some((System::Mosquitto, 1));
    let sized = options.set_sizes.iter().flat_map(|size| [(System::Bellhop, *size), (System::RawBatch, *size)]);
    // Sets of one are what the bare forwarder has anyway.
    let batches = sized.filter(|(system, size)| *system != System::RawBatch || *size > 1);
    let systems = [(System::Raw, 1), (System::PerEvent, 1)].into_iter().chain(mosquitto).chain(batches);
    let trials: Vec<_> = systems.map(|(system, size)| trial(options, system, size)).collect();
    let measured = interleaved(&mut stage, options, &trials, progress).await?;
    stage.clear().await;
    Ok(measured)
}

/// Sets of one cost most; a tenth of the reminders takes about as long.
fn trial(options: &Options, system: System, set_size: usize) -> Trial {
    let share = match system {
        System::PerEvent => PER_EVENT_SHARE,
        _ if set_size == 1 => 5,
        _ => 1,
    };
    Trial::saturating(system, set_size, options.reminders / share)
}

/// Measures all of it in each round: what else the machine does meets all of them.
pub(super) async fn interleaved(
    stage: &mut Stage,
    options: &Options,
    trials: &[Trial],
    progress: Progress<'_>,
) -> Result<Vec<Throughput>, BenchError> {
    let mut found: Vec<Vec<Found>> = trials.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (trial, found) in trials.iter().zip(&mut found) {
            let (system, set_size) = (trial.system.name(), trial.set_size);
            progress(format!("round {round} of {}: {system}, sets of {set_size}", options.rounds));
            found.push(stage.measure(*trial, progress).await?);
        }
    }
    Ok(trials.iter().zip(&found).map(|(trial, found)| Throughput::of(trial, found)).collect())
}

impl Throughput {
    /// What all rounds of a trial found.
    pub(super) fn of(trial: &Trial, found: &[Found]) -> Self {
        let Trial { system, set_size, count: reminders, .. } = *trial;
        let rounds: Vec<f64> = found.iter().map(|one| reminders as f64 / one.took.as_secs_f64()).collect();
        let millions = reminders as f64 / 1e6;
        let cpu_of = |part| median(found.iter().map(|one| one.cpu[part].as_secs_f64() / millions).collect());
        let parts = found.iter().flat_map(|one| one.cpu.keys().copied());
        let cpu_per_million = parts.map(|part| (part, cpu_of(part))).collect();
        let disk_bytes = median(found.iter().map(|one| one.disk_bytes as f64 / reminders as f64).collect());
        let per_second = median(rounds.clone());
        Self { system, set_size, reminders, per_second, rounds, cpu_per_million, disk_bytes }
    }
}
