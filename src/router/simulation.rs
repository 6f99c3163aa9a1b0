//! A seeded simulator: the machine in a world of small models, with everything that can go wrong.
//!
//! A run is a plan of random happenings, then a healing: every instance is well, every user is connected, and time
//! passes until nothing is left to happen. Every step is checked. A run that fails prints its seed, and
//! `BELLHOP_SEED=<seed> cargo test --lib router::simulation -- --nocapture` replays it with its story. `BELLHOP_SEEDS=<n>`
//! makes as many runs instead of the few seconds' worth that every test run makes.
//!
//! | file | |
//! | --- | --- |
//! | [`model`] | reminders, streams, mailboxes, app servers |
//! | [`world`] | what happens when |
//! | [`shell`] | performs the machine's actions and checks them; crashes |

mod model;
mod shell;
mod world;

use std::collections::BTreeMap;

use world::World;

/// Enough for each kind of fault to meet each other kind many times.
const SEEDS: u64 = 1_000;

/// A simulator that no longer reaches one of these tests less than it says.
const MUST_HAPPEN: [&str; 22] = [
    "accepted",
    "accepted again after a fault",
    "accepted by several",
    "accepted too late",
    "answers lost",
    "copies parked",
    "crashes",
    "deliveries",
    "expired in a mailbox",
    "expired on the way",
    "hand-overs",
    "look-ups",
    "look-ups that hang",
    "mailboxes found",
    "merged",
    "parked",
    "parked again after a crash",
    "refused as busy",
    "refused as not connected",
    "refused by a full mailbox",
    "rerouted",
    "routes dropped",
];

#[test]
fn whatever_happens_every_reminder_is_accounted_for() {
    if let Ok(seed) = std::env::var("BELLHOP_SEED") {
        let world = run(seed.parse().expect("BELLHOP_SEED is a number"), Story::Printed);
        println!("{:#?}", world.tally);
        return;
    }
    let seeds = std::env::var("BELLHOP_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("BELLHOP_SEEDS is a number"));
    let mut total = BTreeMap::<_, u64>::new();
    for seed in 0..seeds {
        for (what, times) in run(seed, Story::Untold).tally {
            *total.entry(what).or_default() += times;
        }
    }
    println!("{seeds} seeds: {total:#?}");
    for what in MUST_HAPPEN {
        assert!(total.get(what).is_some_and(|times| times * 20 > seeds), "hardly ever: {what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let first = run(seed, Story::Kept).story;
        assert!(first.len() > 20, "seed {seed} did nothing: {first:?}");
        assert!(first == run(seed, Story::Kept).story, "seed {seed} gave two runs");
    }
}

/// What becomes of what can be told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Untold,
    Kept,
    Printed,
}

fn run(seed: u64, told: Story) -> World {
    let _named = NamedOnPanic(seed);
    let mut world = World::new(seed, told);
    world.live();
    world.heal();
    world.desert();
    world
}

/// Says which seed failed.
struct NamedOnPanic(u64);

impl Drop for NamedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed}: BELLHOP_SEED={seed} cargo test --lib router::simulation -- --nocapture");
        }
    }
}
