//! The simulation of the router as every test run makes it: a fixed slice of seeds, and a random
//! one. `simulation/src` is the simulation; `cargo run -p bellhop-simulation -- --help` tells how
//! to run it longer, or one seed again.

use std::io::Write;

use bellhop_simulation::explore::{Exploration, Findings, all_cores, report};
use bellhop_simulation::run::run;
use bellhop_simulation::scenario::Scenario;

/// Enough for each kind of fault to meet each other kind many times.
const SEEDS: u64 = 10_000;

/// A simulation that hardly ever reaches one of these tests less than it says.
const MUST_HAPPEN: [&str; 53] = [
    "accepted again",
    "accepted by several",
    "accepted too late",
    "accepted",
    "answers lost",
    "appends lost",
    "appends refused by the fence",
    "blocked",
    "copies parked",
    "crashes",
    "deliveries alone",
    "deliveries",
    "doubts",
    "expired in a mailbox",
    "expired on the way",
    "fail-overs",
    "flapping routes",
    "fronts removed",
    "hand-overs",
    "held back",
    "ids used for something else",
    "look-ups at a replica that is behind",
    "look-ups that hang",
    "look-ups",
    "mailboxes found",
    "merged in a set",
    "merged",
    "outcomes refused by the fence",
    "owners beside each other",
    "owners that see that the log went back",
    "parked by the owner before",
    "parked",
    "partitions without a reader",
    "positions not confirmed",
    "positions of earlier owners refused",
    "positions stored",
    "positions that a log that went back does not count",
    "power losses",
    "recorded by an owner that is no more",
    "refused as busy",
    "refused as duplicates",
    "refused by a full mailbox",
    "reminders lost by the server",
    "removals finished for another owner",
    "removals lost",
    "repeats dropped",
    "repeats",
    "requests given back",
    "requests that cannot be read",
    "rerouted",
    "sets published again",
    "sets that came again",
    "take-overs by an owner that was refused",
];

fn explore(first: u64) -> Findings {
    let threads = all_cores().div_ceil(2); // The two slices run beside each other.
    let exploration = Exploration {
        first,
        seeds: SEEDS,
        time: None,
        threads,
        is_unaudited: false,
        tells_progress: false,
    };
    let findings = exploration.explore();
    if let Some((scenario, failure)) = &findings.failed {
        panic!("{}", report(scenario, failure));
    }
    findings
}

#[test]
fn whatever_happens_every_reminder_is_accounted_for() {
    let tally = explore(0).tally;
    for what in MUST_HAPPEN {
        let times = tally.get(what).copied().unwrap_or(0);
        assert!(
            times * 100 > SEEDS,
            "{times} times only: {what}\n{tally:#?}"
        );
    }
}

#[test]
fn random_seeds_hold_all_invariants() {
    let first = fastrand::u64(..);
    // Past the capture of output, since a run that went well is one to be repeated, too.
    let _ = writeln!(
        std::io::stderr(),
        "the first of {SEEDS} random seeds is {first}"
    );
    explore(first);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..50 {
        let first = run(&Scenario::new(seed), true).trace;
        assert!(first.len() > 20, "seed {seed} did nothing: {first:?}");
        assert!(
            first == run(&Scenario::new(seed), true).trace,
            "seed {seed} gave two runs"
        );
    }
}
