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
    let sized = options.set_sizes.iter().flat_map(|size| [(System::Bellhop, *size), (System::RawBatch, *size)]);
    // Sets of one are what the bare forwarder has anyway.
    let batches = sized.filter(|(system, size)| *system != System::RawBatch || *size > 1);
    let systems: Vec<_> = [(System::Raw, 1), (System::PerEvent, 1)].into_iter().chain(batches).collect();
    let mut found: BTreeMap<(System, usize), Vec<Found>> = BTreeMap::new();
    // Interleaved: what else the machine does meets all of them.
    for round in 1..=options.rounds {
        for (system, set_size) in &systems {
            let count = reminders(options, *system, *set_size);
            progress(format!("round {round} of {}: {}, sets of {set_size}", options.rounds, system.name()));
            let trial = Trial { system: *system, set_size: *set_size, count, rate: None, warm_up: 0 };
            found.entry((*system, *set_size)).or_default().push(stage.measure(trial, progress).await?);
        }
    }
    stage.clear().await;
    let told = |(system, set_size): (System, usize)| {
        let count = reminders(options, system, set_size);
        of(system, set_size, count, &found[&(system, set_size)])
    };
    Ok(systems.into_iter().map(told).collect())
}

/// Sets of one cost most; a tenth of the reminders takes about as long.
fn reminders(options: &Options, system: System, set_size: usize) -> usize {
    let share = match system {
        System::PerEvent => PER_EVENT_SHARE,
        _ if set_size == 1 => 5,
        _ => 1,
    };
    (options.reminders / share).max(1)
}

fn of(system: System, set_size: usize, reminders: usize, found: &[Found]) -> Throughput {
    let rounds: Vec<f64> = found.iter().map(|one| reminders as f64 / one.took.as_secs_f64()).collect();
    let millions = reminders as f64 / 1e6;
    let parts = found.iter().flat_map(|one| one.cpu.keys().copied());
    let cpu =
        parts.map(|part| (part, median(found.iter().map(|one| one.cpu[part].as_secs_f64() / millions).collect())));
    let cpu_per_million = cpu.collect();
    let disk_bytes = median(found.iter().map(|one| one.disk_bytes as f64 / reminders as f64).collect());
    Throughput { system, set_size, reminders, per_second: median(rounds.clone()), rounds, cpu_per_million, disk_bytes }
}
