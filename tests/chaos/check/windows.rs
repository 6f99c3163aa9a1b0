//! The times of faults, and the effects that they explain.

use crate::logs::{Fault, Line, Micros};

/// A reminder taken this long before a fault may still be in flight when it begins: its request's
/// time-out, and the storing of its outcome.
const IN_FLIGHT: Micros = 2_500_000;
/// Time for which delayed reminders may still be on their way after everything is healthy.
const AFTERMATH: Micros = 2_000_000;

/// A fault.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) kind: String,
    pub(super) begins: Micros,
    /// Time at which everything was healthy again; the end of time if it was not seen.
    pub(super) healed: Micros,
}

/// All faults of a run, in order.
#[derive(Debug)]
pub(super) struct Windows(pub(super) Vec<Window>);

impl Windows {
    pub(super) fn new(faults: &[Line<Fault>]) -> Self {
        let mut windows: Vec<Window> = Vec::new();
        for line in faults {
            match (&line.event, windows.last_mut()) {
                (Fault::Begins { kind, .. }, _) => {
                    windows.push(Window {
                        kind: kind.clone(),
                        begins: line.at,
                        healed: Micros::MAX - AFTERMATH,
                    });
                }
                (Fault::Healed, Some(window)) => window.healed = line.at,
                _ => {}
            }
        }
        Self(windows)
    }

    /// The fault that explains why a reminder that was taken then was taken once more.
    pub(super) fn explaining(&self, first: Micros, again: Micros) -> Option<&Window> {
        let explains = |window: &&Window| {
            let (begins, ends) = (window.begins, window.healed + AFTERMATH);
            (begins - IN_FLIGHT..=ends).contains(&first) && (begins..=ends).contains(&again)
        };
        self.0.iter().find(explains)
    }

    /// The last fault that had begun by then, and was not over long before `since`.
    pub(super) fn around(&self, since: Micros, then: Micros) -> Option<&Window> {
        self.0
            .iter()
            .rev()
            .find(|window| window.begins <= then && window.healed + AFTERMATH >= since)
    }
}
