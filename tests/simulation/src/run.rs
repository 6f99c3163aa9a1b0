//! One run, and how it failed. Checks are assertions, so that a machine which panics by itself
//! fails in the same way; where one stands tells failures apart.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::scenario::Scenario;
use crate::world::World;

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The position of the check: `file:line`.
    pub place: String,
    /// The check's message.
    pub message: String,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// None if everything held.
    pub failure: Option<Failure>,
    /// Numbers of events, by kind.
    pub tally: BTreeMap<&'static str, u64>,
    /// The events in order, one per line; empty unless requested.
    pub trace: Vec<String>,
}

thread_local! {
    /// The failure of the run on this thread, while there is one.
    static RUNNING: RefCell<Option<Option<Failure>>> = const { RefCell::new(None) };
}

/// Runs a scenario to its end, or to its first failure.
pub fn run(scenario: &Scenario, is_traced: bool) -> Outcome {
    listen_for_failures();
    let mut world = World::new(scenario, is_traced);
    RUNNING.set(Some(None));
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        world.live();
        world.heal();
        world.desert();
    }));
    let failure = RUNNING.take().flatten().filter(|_| ended.is_err());
    let tally = std::mem::take(&mut world.tally);
    let trace = world.trace.take().unwrap_or_default();
    if failure.is_some() {
        std::mem::forget(world); // What a machine left half done need not be fit to be dropped.
    }
    Outcome {
        failure,
        tally,
        trace,
    }
}

/// Failures of runs are kept, and not printed; other panics are none of ours.
fn listen_for_failures() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_ours = RUNNING.with_borrow_mut(|running| {
                running
                    .as_mut()
                    .map(|failure| *failure = Some(failure_of(info)))
                    .is_some()
            });
            if !is_ours {
                others(info);
            }
        }));
    });
}

fn failure_of(info: &PanicHookInfo<'_>) -> Failure {
    let place = info
        .location()
        .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
    Failure {
        place,
        message: info
            .payload_as_str()
            .unwrap_or("a panic without words")
            .to_owned(),
    }
}
