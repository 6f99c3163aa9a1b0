//! The others' latency, and the memory.

use std::collections::HashMap;
use std::fmt;

use crate::check::STEADY;
use crate::logs::{History, Micros, Published, Served};

/// The source that sends the others a reminder every 20 ms.
pub(crate) const TRICKLE: &str = "trickle";
/// Maximum factor by which the others' latency may exceed its quiet value.
const MOST: f64 = 2.0;
/// Or this part of the time that the abuse lasts, since on a machine that is busy with it everybody
/// waits longer. A user in the abuser's queue waits for half of it at the median, on any machine.
const PART: f64 = 1.0 / 3.0;

/// One of a hundred may wait this long where no queue is shared, on a machine that is busy with
/// other things: a fraction of every timeout of Bellhop's, so a wait for one is seen.
const BUSY_MS: f64 = 500.0;

/// The result of a scenario.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) scenario: String,
    /// Resident memory in bytes: before the abuse, the most during it, and how much it may be.
    pub(crate) memory: [usize; 3],
    /// Duration of the abuse, in milliseconds.
    pub(crate) lasted_ms: f64,
    /// The others have no queue in common with the abuser.
    pub(crate) is_apart: bool,
    pub(crate) quiet: Latencies,
    pub(crate) abuse: Latencies,
}

/// Milliseconds from publishing to acceptance, in ascending order.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    /// Of the others' reminders that were sent in these spans of time.
    pub(crate) fn of(history: &History, spans: &[(Micros, Micros)]) -> Self {
        let takes = history.served[STEADY]
            .iter()
            .filter_map(|line| match &line.event {
                Served::Accepted(reminder) => Some((reminder.id.as_str(), line.at)),
                _ => None,
            });
        let taken: HashMap<&str, Micros> = takes.collect();
        let mut latencies = Vec::new();
        for line in &history.published[TRICKLE] {
            let Published::Sent { reminders, .. } = &line.event else {
                continue;
            };
            if spans
                .iter()
                .any(|(from, to)| (*from..*to).contains(&line.at))
            {
                let took =
                    |(id, _): &(String, String)| taken.get(id.as_str()).map(|at| at - line.at);
                latencies.extend(reminders.iter().filter_map(took).map(millis));
            }
        }
        latencies.sort_unstable_by(f64::total_cmp);
        Self(latencies)
    }

    /// Returns the percentile.
    fn percentile(&self, share: usize) -> f64 {
        let last = self
            .0
            .len()
            .checked_sub(1)
            .expect("some user was sent something");
        self.0[last * share / 100]
    }
}

/// Microseconds as milliseconds.
#[allow(clippy::cast_precision_loss)] // They are far from 2^52.
pub(crate) fn millis(micros: Micros) -> f64 {
    micros as f64 / 1e3
}

impl Figures {
    /// Describes exceeded bounds.
    pub(crate) fn wrong(&self) -> Option<String> {
        let [_, peak, bound] = self.memory;
        let most_ms = (self.quiet.percentile(50) * MOST).max(self.lasted_ms * PART);
        let late_ms = (self.quiet.percentile(99) * MOST).max(BUSY_MS);
        let is_late = self.is_apart && self.abuse.percentile(99) > late_ms;
        (peak > bound || self.abuse.percentile(50) > most_ms || is_late)
            .then(|| format!("beyond its bounds: {self}"))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [quiet, peak, bound] = self.memory.map(|bytes| bytes >> 20);
        write!(
            f,
            "| {} | {:.1} | {quiet} | {peak} | {bound} |",
            self.scenario,
            self.lasted_ms / 1e3
        )?;
        for share in [50, 90, 99] {
            let (quiet, abuse) = (self.quiet.percentile(share), self.abuse.percentile(share));
            write!(f, " {quiet:.1} → {abuse:.1} ({:.1}) |", abuse / quiet)?;
        }
        Ok(())
    }
}
