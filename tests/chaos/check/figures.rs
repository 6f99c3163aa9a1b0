//! Numbers and durations of a run.

use std::collections::BTreeMap;
use std::fmt;

use super::Trails;
use super::windows::Windows;
use crate::logs::Micros;

/// The app server whose users are connected all the time, and get a steady trickle.
pub(crate) const STEADY: &str = "steady";
/// The label for events outside of any fault's window.
const QUIET: &str = "(no fault)";

/// The numbers of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    sent: usize,
    acknowledged: usize,
    /// First acceptances.
    accepted: usize,
    waiting: usize,
    by_kind: BTreeMap<String, Kind>,
}

/// The events during the faults of one kind.
#[derive(Debug, Default)]
struct Kind {
    faults: usize,
    repeats: usize,
    /// The longest time without a reminder for one of the users who get a steady trickle.
    longest_gap: Micros,
}

impl Figures {
    pub(super) fn new(trails: &Trails<'_>, windows: &Windows) -> Self {
        let mut figures = Self {
            sent: trails.len(),
            ..Self::default()
        };
        for window in &windows.0 {
            figures.kind(&window.kind).faults += 1;
        }
        for trail in trails.values() {
            figures.acknowledged += usize::from(trail.is_acknowledged);
            figures.accepted += usize::from(!trail.accepted.is_empty());
            figures.waiting += trail.waiting;
            for again in trail.accepted.windows(2) {
                let kind = windows
                    .explaining(again[0].0, again[1].0)
                    .map_or(QUIET, |window| &window.kind);
                figures.kind(kind).repeats += 1;
            }
        }
        figures.note_gaps(trails, windows);
        figures
    }

    fn note_gaps(&mut self, trails: &Trails<'_>, windows: &Windows) {
        let mut arrivals: BTreeMap<&str, Vec<Micros>> = BTreeMap::new();
        for trail in trails.values() {
            arrivals.entry(trail.user).or_default().extend(
                trail
                    .accepted
                    .first()
                    .filter(|a| a.1 == STEADY)
                    .map(|a| a.0),
            );
        }
        for times in arrivals.values_mut() {
            times.sort_unstable();
            for pair in times.windows(2) {
                let kind = windows
                    .around(pair[0], pair[1])
                    .map_or(QUIET, |window| &window.kind);
                let longest = &mut self.kind(kind).longest_gap;
                *longest = (*longest).max(pair[1] - pair[0]);
            }
        }
    }

    fn kind(&mut self, name: &str) -> &mut Kind {
        self.by_kind.entry(name.to_owned()).or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeats: usize = self.by_kind.values().map(|kind| kind.repeats).sum();
        writeln!(
            f,
            "{} reminders sent, {} acknowledged, {} accepted, {repeats} of them repeated, {} left waiting for users who are \
             away",
            self.sent, self.acknowledged, self.accepted, self.waiting
        )?;
        writeln!(
            f,
            "| fault | times | repeats | longest gap in delivery |\n| --- | --- | --- | --- |"
        )?;
        for (
            name,
            Kind {
                faults,
                repeats,
                longest_gap,
            },
        ) in &self.by_kind
        {
            #[allow(clippy::cast_precision_loss)] // Tenths of seconds.
            let seconds = *longest_gap as f64 / 1e6;
            writeln!(f, "| {name} | {faults} | {repeats} | {seconds:.1} s |")?;
        }
        Ok(())
    }
}
