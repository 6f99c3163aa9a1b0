//! Pins the number of allocations that a reminder takes from the published set to its finished
//! JSON.
//!
//! The counts are those of today, rounded up. Lower them when an allocation goes. A change that
//! needs more has to say why.

use std::time::Duration;

use allocation_counter::measure;
use bellhop_core::log::done::AllDone;
use bellhop_core::log::partition::{PartitionLog, StartState};
use bellhop_core::log::planner::Planner;
use bellhop_core::log::position::Mark;
use bellhop_core::log::split::{Message, Slice, split};
use bellhop_core::log::window::Window;
use bellhop_core::rules::Rules;

const PARTITIONS: u16 = 4;

/// A set of reminders for different users.
fn set(reminders: usize) -> String {
    let one = |number| {
        format!(
            r#"{{"id":"{number}","user":"user-{number}","content":"Invoice {number} is due","tags":["a"],"data":{{"at":1}}}}"#
        )
    };
    let all: Vec<_> = (0..reminders).map(one).collect();
    format!(r#"{{"reminders":[{}]}}"#, all.join(","))
}

fn slices(body: &str) -> Vec<Slice> {
    let message = Message {
        source_token: "billing",
        sequence: 1,
        stored_ms: 1_795_910_400_000,
        body: body.as_bytes(),
        set: Ok(body.as_bytes()),
        message_id: None,
        is_requeued: false,
        is_due: false,
        trace: None,
    };
    let slices = split(&message, PARTITIONS).slices;
    slices.into_iter().map(|(_, slice)| slice).collect()
}

fn log() -> PartitionLog {
    PartitionLog::new(StartState {
        settled: Mark::START,
        outcomes: 0,
        window: Window::new(Duration::from_secs(600), 1_000),
        done: AllDone::new(),
        parked: Default::default(),
    })
}

/// Returns the allocations for each reminder of reading and splitting a set, of judging it, and of
/// planning it.
fn allocations(reminders: usize) -> [f64; 3] {
    let body = set(reminders);
    let mut split_set = Vec::new();
    let reading = measure(|| split_set = slices(&body));
    let mut logs: Vec<_> = split_set.iter().map(|_| log()).collect();
    let judging = measure(|| {
        for (log, slice) in logs.iter_mut().zip(split_set.drain(..)) {
            log.take_in(slice, Mark::START);
        }
    });
    let rules = Rules::default();
    let planner = Planner {
        rules: &rules,
        merges: false,
    };
    let mut planned = Vec::with_capacity(logs.len());
    let planning = measure(|| planned.extend(logs.iter_mut().filter_map(|log| log.next(&planner))));
    let all: usize = planned.iter().map(|next| next.planned.parts()).sum();
    assert_eq!(all, reminders);
    [reading, judging, planning].map(|counted| counted.count_total as f64 / reminders as f64)
}

#[test]
fn reminder_of_a_set_takes_few_allocations() {
    let [reading, judging, planning] = allocations(100);
    assert!(
        reading <= 7.5 && judging <= 0.7 && planning <= 2.5,
        "reading {reading}, judging {judging}, planning {planning}"
    );
}

#[test]
fn reminder_alone_in_its_set_takes_few_allocations() {
    let [reading, judging, planning] = allocations(1);
    assert!(
        reading <= 29.0 && judging <= 9.0 && planning <= 9.0,
        "reading {reading}, judging {judging}, planning {planning}"
    );
}
