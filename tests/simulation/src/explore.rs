//! Very many runs, on all cores, for so many seeds or for so long.

#![allow(clippy::disallowed_methods)] // How long to go on is real time; no run sees it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::run::{Failure, run};
use crate::scenario::Scenario;
use crate::shrink::shrink;

/// Interval at which a long exploration reports its progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// The last lines of a trace that are shown.
const SHOWN: usize = 400;

/// The seeds to run, and the limits.
#[derive(Debug, Clone, Copy)]
pub struct Exploration {
    /// The first seed; the others follow.
    pub first: u64,
    /// Maximum number of seeds.
    pub seeds: u64,
    /// Maximum duration.
    pub time: Option<Duration>,
    /// Number of runs at a time.
    pub threads: usize,
    /// True if the machines do not audit themselves.
    pub is_unaudited: bool,
    /// True if progress is reported on stderr.
    pub tells_progress: bool,
}

/// The findings of an exploration.
#[derive(Debug)]
pub struct Findings {
    /// Number of seeds that were run.
    pub runs: u64,
    /// Numbers of events, by kind.
    pub tally: BTreeMap<&'static str, u64>,
    /// The first failure met.
    pub failed: Option<(Scenario, Failure)>,
}

/// As many as there are cores.
pub fn all_cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

impl Exploration {
    /// Runs the seeds until one fails.
    pub fn explore(&self) -> Findings {
        let began = Instant::now();
        let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let (tally, failed) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
        let is_time_up = || self.time.is_some_and(|time| began.elapsed() >= time);
        let work = || {
            let mut own: BTreeMap<&'static str, u64> = BTreeMap::new();
            while !is_over.load(Ordering::Relaxed) && !is_time_up() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.seeds {
                    break;
                }
                let scenario = Scenario {
                    seed: self.first.wrapping_add(number),
                    is_unaudited: self.is_unaudited,
                    ..Scenario::default()
                };
                let outcome = run(&scenario, false);
                outcome
                    .tally
                    .into_iter()
                    .for_each(|(what, times)| *own.entry(what).or_default() += times);
                if let Some(failure) = outcome.failure {
                    is_over.store(true, Ordering::Relaxed);
                    failed
                        .lock()
                        .expect("no thread panics here")
                        .get_or_insert((scenario, failure));
                }
            }
            let mut tally = tally.lock().expect("no thread panics here");
            own.into_iter()
                .for_each(|(what, times)| *tally.entry(what).or_default() += times);
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.max(1))
                .map(|_| scope.spawn(work))
                .collect();
            let mut reported = began;
            while self.tells_progress && !workers.iter().all(|worker| worker.is_finished()) {
                thread::sleep(Duration::from_millis(50));
                if reported.elapsed() >= PROGRESS {
                    reported = Instant::now();
                    let runs = next.load(Ordering::Relaxed);
                    eprintln!("{:>6} s  {runs} runs, all well", began.elapsed().as_secs());
                }
            }
        });
        Findings {
            runs: next.into_inner().min(self.seeds),
            tally: tally.into_inner().expect("no thread panics here"),
            failed: failed.into_inner().expect("no thread panics here"),
        }
    }
}

/// A failure as people want to see it: which seed, the shortest plan that fails in the same way,
/// what happened in it, and how to run both again.
pub fn report(scenario: &Scenario, failure: &Failure) -> String {
    let short = shrink(scenario, failure);
    let outcome = run(&short, true);
    let seed = scenario.seed;
    let mut text = format!(
        "seed {seed} fails at {}: {}\n\n",
        failure.place,
        Shortened(&failure.message)
    );
    let skipped = outcome.trace.len().saturating_sub(SHOWN);
    let _ = writeln!(
        text,
        "The shortest plan found that fails there has {} steps:\n",
        short.plan().steps.len()
    );
    for line in &outcome.trace[skipped..] {
        let _ = writeln!(text, "{line}");
    }
    if let Some(failure) = outcome.failure {
        let _ = writeln!(text, "\n{}: {}", failure.place, Shortened(&failure.message));
    }
    let _ = write!(
        text,
        "\nrun it again:      {COMMAND} {short}\nthe whole of it:   {COMMAND} {scenario}"
    );
    text
}

/// The command that repeats a scenario.
pub const COMMAND: &str = "cargo run -p bellhop-simulation --";

/// The first lines of a long text.
struct Shortened<'t>(&'t str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.lines();
        f.write_str(&lines.by_ref().take(12).collect::<Vec<_>>().join("\n"))?;
        if lines.next().is_some() {
            f.write_str("\n…")
        } else {
            Ok(())
        }
    }
}
