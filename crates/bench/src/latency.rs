//! The time from when reminders were due to be published to their acceptance, at fixed rates.

use serde::Serialize;

use super::error::BenchError;
use super::trial::{Contestants, System, Trial};
use super::{Options, Progress};

/// The latency of one system at one rate, in the round with the median p99.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// The system.
    pub system: System,
    /// Reminders a second.
    pub rate: usize,
    /// Reminders in a set.
    pub set_size: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// The 99.9th percentile, in milliseconds.
    pub p999_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

/// One in this many reminders is left out, at the beginning.
const WARM_UP: usize = 10;

pub(super) async fn run(
    options: &Options,
    progress: Progress<'_>,
) -> Result<Vec<Latency>, BenchError> {
    let mut contestants = Contestants::start(options, progress).await?;
    let mut found = Vec::new();
    for rate in &options.rates {
        let set_size = options.set_size();
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 1..=options.rounds {
            for (system, found) in [System::Bellhop, System::Raw].into_iter().zip(&mut rounds) {
                progress(format!(
                    "round {round} of {}: {} at {rate} a second",
                    options.rounds,
                    system.name()
                ));
                let count = (*rate as f64 * options.duration.as_secs_f64()).ceil() as usize;
                let trial = Trial {
                    system,
                    set_size,
                    count,
                    rate: Some(*rate),
                    warm_up: count / WARM_UP,
                };
                found.push(contestants.measure(trial, progress).await?.tally.latency_us);
            }
        }
        for (system, mut found_of) in [System::Bellhop, System::Raw].into_iter().zip(rounds) {
            found_of.sort_by_key(|[_, p99, ..]| *p99);
            let [p50_ms, p99_ms, p999_ms, max_ms] =
                found_of[found_of.len() / 2].map(|us| us as f64 / 1e3);
            let set_size = system.set_size(set_size);
            found.push(Latency {
                system,
                rate: *rate,
                set_size,
                p50_ms,
                p99_ms,
                p999_ms,
                max_ms,
            });
        }
    }
    contestants.close().await;
    Ok(found)
}
