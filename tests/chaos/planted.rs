//! Faults planted in a run's own logs: a checker that finds nothing must find these.

use crate::check::{Wrong, check};
use crate::logs::{Fault, History, Line, Micros, Reminder, Served};

/// Of a repeat, the time from one to the other.
const LATER: Micros = 100_000;

/// Checks that each of three planted faults is found in logs that are good.
pub(crate) fn are_found(history: &History) {
    for (plant, expected) in [
        (lose as fn(&mut History), Wrong::Lost),
        (swap, Wrong::OutOfOrder),
        (repeat, Wrong::RepeatedWithoutFault),
    ] {
        let mut history = history.clone();
        plant(&mut history);
        let wrong = check(&history).wrong;
        assert!(
            wrong.keys().eq([&expected]),
            "{expected:?} was planted, and found was {wrong:?}"
        );
    }
}

/// The quiet time before the first fault: an app server, and what it took.
fn quiet_takes(history: &mut History) -> Vec<(&String, &mut Line<Served>, Reminder)> {
    let begins = |line: &&Line<Fault>| matches!(line.event, Fault::Begins { .. });
    let first_fault = history
        .faults
        .iter()
        .find(begins)
        .expect("there was a fault")
        .at;
    let mut takes = Vec::new();
    for (app, lines) in &mut history.served {
        // A reminder accepted just before a fault may be redelivered.
        for line in lines
            .iter_mut()
            .filter(|line| line.at < first_fault - 3_000_000)
        {
            if let Served::Accepted(reminder) = &line.event {
                let reminder = reminder.clone();
                takes.push((app, line, reminder));
            }
        }
    }
    takes
}

/// One reminder, and all that was said of it.
fn lose(history: &mut History) {
    let (_, _, lost) = quiet_takes(history).pop().unwrap();
    for lines in history.served.values_mut() {
        lines
            .retain(|line| !matches!(&line.event, Served::Accepted(reminder) if *reminder == lost));
    }
    history.outcomes.retain(|outcome| outcome.reminder != lost);
}

/// Two that a user got from one source.
fn swap(history: &mut History) {
    let mut takes = quiet_takes(history);
    let (later, earlier) = (takes.pop().unwrap(), takes.into_iter());
    let same = |(_, line, other): &(&String, &mut Line<Served>, Reminder)| {
        (&other.user, &other.source) == (&later.2.user, &later.2.source) && line.at < later.1.at
    };
    let earlier = earlier
        .rev()
        .find(same)
        .expect("the user got an earlier one");
    std::mem::swap(&mut earlier.1.at, &mut later.1.at);
}

/// One that comes again without a fault.
fn repeat(history: &mut History) {
    let (app, line, _) = quiet_takes(history).pop().unwrap();
    let (app, again) = (
        app.clone(),
        Line {
            at: line.at + LATER,
            ..line.clone()
        },
    );
    history.served.get_mut(&app).unwrap().push(again);
}
