//! How long reminders take from when they were due to be published to acceptance, at a rate that waits for nobody.

use serde::Serialize;

use super::crew::Progress;
use super::stage::{Stage, System, Trial};
use super::{BenchError, Options};

/// One system at one rate.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Who brought them.
    pub system: System,
    /// Reminders a second.
    pub rate: usize,
    /// Reminders in a set.
    pub set_size: usize,
    /// The median, in milliseconds, of the round that is the middle one by its p99.
    pub p50_ms: f64,
    /// What one in a hundred exceeds.
    pub p99_ms: f64,
    /// What one in a thousand exceeds.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What is left out at the beginning, as a share of all.
const WARM_UP: usize = 10;

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Vec<Latency>, BenchError> {
    let mut stage = Stage::set(options, progress).await?;
    let mut found = Vec::new();
    for rate in &options.rates {
        let set_size = options.set_size();
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 1..=options.rounds {
            for (system, found) in [System::Bellhop, System::Raw].into_iter().zip(&mut rounds) {
                progress(format!("round {round} of {}: {} at {rate} a second", options.rounds, system.name()));
                let count = (*rate as f64 * options.duration.as_secs_f64()).ceil() as usize;
                let trial = Trial { system, set_size, count, rate: Some(*rate), warm_up: count / WARM_UP };
                found.push(stage.measure(trial, progress).await?.tally.latency_us);
            }
        }
        for (system, mut found_of) in [System::Bellhop, System::Raw].into_iter().zip(rounds) {
            found_of.sort_by_key(|[_, p99, ..]| *p99);
            let [p50_ms, p99_ms, p999_ms, max_ms] = found_of[found_of.len() / 2].map(|us| us as f64 / 1e3);
            let set_size = system.set_size(set_size);
            found.push(Latency { system, rate: *rate, set_size, p50_ms, p99_ms, p999_ms, max_ms });
        }
    }
    stage.clear().await;
    Ok(found)
}
