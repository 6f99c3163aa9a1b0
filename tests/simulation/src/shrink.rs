//! The shortest plan that fails in the same way: steps and kinds of faults are left out for as long
//! as it still does.
//!
//! A shorter plan draws its luck in another order, so it may fail only with other luck: each is
//! tried with several.

use std::collections::BTreeSet;

use crate::run::{Failure, run};
use crate::scenario::Scenario;

/// The most runs that are spent on it: half a minute's worth.
const MAX_RUNS: u32 = 40_000;
/// Number of random seeds for which a shorter plan may fail, at first, and the factor by which it
/// grows if that was too few.
const LUCKS: u64 = 12;
const MORE: u64 = 8;
/// So few steps are short enough, once nothing more can be left out.
const SHORT: usize = 8;

/// Shrinks a scenario that fails. Answers the shortest one found, which fails at the same place.
pub fn shrink(scenario: &Scenario, failure: &Failure) -> Scenario {
    let mut shrinker = Shrinker {
        place: &failure.place,
        best: scenario.clone(),
        lucks: LUCKS,
        runs: 0,
    };
    loop {
        let before = shrinker.best.clone();
        shrinker.leave_out_steps();
        shrinker.leave_out_faults();
        let is_stuck = shrinker.best == before;
        if shrinker.runs >= MAX_RUNS || (is_stuck && shrinker.steps().len() <= SHORT) {
            return shrinker.best;
        }
        if is_stuck {
            shrinker.lucks *= MORE;
        }
    }
}

struct Shrinker<'f> {
    place: &'f str,
    best: Scenario,
    lucks: u64,
    runs: u32,
}

impl Shrinker<'_> {
    /// In ever smaller pieces.
    fn leave_out_steps(&mut self) {
        let mut size = self.steps().len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.steps().len() {
                let kept: BTreeSet<usize> = {
                    let steps = self.steps();
                    let left_out = from..from + size;
                    steps
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| !left_out.contains(at))
                        .map(|(_, number)| *number)
                        .collect()
                };
                if !self.still_fails(&Scenario {
                    only: Some(kept),
                    ..self.best.clone()
                }) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    fn leave_out_faults(&mut self) {
        for fault in self.best.plan().faults.kinds().collect::<Vec<_>>() {
            let mut shorter = self.best.clone();
            shorter.without.insert(fault);
            self.still_fails(&shorter);
        }
    }

    fn steps(&self) -> Vec<usize> {
        self.best
            .plan()
            .steps
            .iter()
            .map(|planned| planned.number)
            .collect()
    }

    /// Takes a shorter scenario if it fails, with some luck, at the same place.
    fn still_fails(&mut self, shorter: &Scenario) -> bool {
        let lucks = [self.best.luck].into_iter().chain(0..self.lucks);
        for luck in lucks {
            if self.runs >= MAX_RUNS {
                return false;
            }
            self.runs += 1;
            let scenario = Scenario {
                luck,
                ..shorter.clone()
            };
            if run(&scenario, false)
                .failure
                .is_some_and(|failure| failure.place == self.place)
            {
                self.best = scenario;
                return true;
            }
        }
        false
    }
}
