//! Runs the simulation of the router for as long as one likes, or one run again.

use std::collections::BTreeSet;
use std::process::ExitCode;

use bellhop_simulation::explore::{Exploration, all_cores, report};
use bellhop_simulation::faults::Fault;
use bellhop_simulation::run::run;
use bellhop_simulation::scenario::Scenario;
use clap::Parser;

/// Simulates the router with everything that can go wrong, each time with another seed, until a run
/// fails.
///
/// A run that fails is shrunk to a short plan that fails in the same way, and printed with what
/// happened in it and with the options that run it again. The exit code is 1 then.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  simulate --for 10m\n  simulate --seed 4711\n  simulate --seed 4711 --luck 3 --only 2,17,30"
)]
struct Cli {
    /// Duration of the search, such as `30s`, `10m`, `2h`
    #[arg(long = "for", value_name = "TIME")]
    time: Option<jiff::SignedDuration>,
    /// Maximum number of seeds [default: 20000, or no limit with --for]
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them [default: a random one, which is printed]
    #[arg(long, value_name = "SEED")]
    first: Option<u64>,
    /// Number of runs at a time [default: one for each core]
    #[arg(long)]
    threads: Option<usize>,
    /// Without the machine's audit of itself: by what can be seen from outside alone
    #[arg(long)]
    unaudited: bool,
    /// Of a run that fails, tell the seed and the check alone
    #[arg(long)]
    brief: bool,
    /// Run this seed alone, and tell what happens in it
    #[arg(long, conflicts_with_all = ["time", "seeds", "first", "threads"])]
    seed: Option<u64>,
    /// Other luck than the seed's own, with the same plan
    #[arg(long, requires = "seed", default_value_t = 0)]
    luck: u64,
    /// Only these steps of the plan
    #[arg(long, requires = "seed", value_name = "NUMBERS", value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// Without these kinds of faults
    #[arg(long, requires = "seed", value_name = "FAULTS", value_delimiter = ',')]
    without: Vec<Fault>,
    /// Shrink that run, if it fails
    #[arg(long, requires = "seed")]
    shrink: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.seed {
        Some(seed) => replay(&cli, seed),
        None => explore(&cli),
    }
}

fn replay(cli: &Cli, seed: u64) -> ExitCode {
    let only = cli.only.clone().map(BTreeSet::from_iter);
    let without = cli.without.iter().copied().collect();
    let scenario = Scenario {
        seed,
        luck: cli.luck,
        without,
        only,
        is_unaudited: cli.unaudited,
    };
    let outcome = run(&scenario, true);
    match &outcome.failure {
        Some(failure) if cli.shrink => println!("{}", report(&scenario, failure)),
        failure => {
            outcome.trace.iter().for_each(|line| println!("{line}"));
            match failure {
                Some(failure) => println!("\nfails at {}: {}", failure.place, failure.message),
                None => println!("\nall well: {:#?}", outcome.tally),
            }
        }
    }
    if outcome.failure.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn explore(cli: &Cli) -> ExitCode {
    let first = cli.first.unwrap_or_else(|| fastrand::u64(..));
    let seeds = cli
        .seeds
        .unwrap_or(if cli.time.is_some() { u64::MAX } else { 20_000 });
    let threads = cli.threads.unwrap_or_else(all_cores);
    let time = cli.time.map(|time| time.unsigned_abs());
    println!("the first seed is {first}");
    let exploration = Exploration {
        first,
        seeds,
        time,
        threads,
        is_unaudited: cli.unaudited,
        tells_progress: true,
    };
    let findings = exploration.explore();
    if let Some((scenario, failure)) = &findings.failed {
        if cli.brief {
            let number = scenario.seed.wrapping_sub(first).saturating_add(1);
            let message = failure.message.lines().next().unwrap_or_default();
            println!("run {number} fails at {}: {message}", failure.place);
            return ExitCode::FAILURE;
        }
        println!("{}", report(scenario, failure));
        return ExitCode::FAILURE;
    }
    println!("{} runs, all well: {:#?}", findings.runs, findings.tally);
    ExitCode::SUCCESS
}
