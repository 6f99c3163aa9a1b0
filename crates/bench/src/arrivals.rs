//! Checks what arrived against what was expected: each reminder once, in order, at its user's
//! instance. Pure.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::error::BenchError;

/// The checks beyond that each reminder arrives once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Check {
    /// A user's reminders arrive at the user's instance, in order.
    UserOrder,
    /// Reminders arrive in order at each instance; users do not count.
    InstanceOrder,
    /// Nothing else.
    Once,
}

/// The expected reminders: `first` to `first + count`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Expected {
    pub(super) first: usize,
    pub(super) count: usize,
    /// The number of reminders at the beginning that are left out of the latencies.
    pub(super) warm_up: usize,
    pub(super) check: Check,
}

/// The result: what arrived.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// The number of reminders, each counted once.
    pub(super) accepted: usize,
    /// The number of duplicates.
    pub(super) repeated: usize,
    /// The number of reminders out of order, or at an instance without their user.
    pub(super) misplaced: usize,
    /// The arrival of the last one, in microseconds since 1970.
    pub(super) last_us: u64,
    /// The time from when a reminder was due to be published to its acceptance, in microseconds:
    /// p50, p99, p99.9 and the longest.
    pub(super) latency_us: [u64; 4],
}

/// The longest latency that is recorded, in microseconds: longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Records arrivals.
pub(super) struct Arrivals {
    expected: Range<usize>,
    warm_up: usize,
    pub(super) check: Check,
    seen: Vec<bool>,
    /// For each user, or instance, the number after the last reminder.
    next: Vec<usize>,
    accepted: usize,
    repeated: usize,
    misplaced: usize,
    last_us: u64,
    latencies: Histogram<u64>,
}

impl Arrivals {
    /// Makes a recorder for this many users, or instances, that expects nothing yet.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            expected: 0..0,
            warm_up: 0,
            check: Check::Once,
            seen: Vec::new(),
            next: vec![0; slots],
            accepted: 0,
            repeated: 0,
            misplaced: 0,
            last_us: 0,
            latencies: Histogram::new_with_max(LONGEST_US, 3).expect("the bounds are right"),
        }
    }

    /// Starts over, and expects these reminders.
    pub(super) fn expect(
        &mut self,
        Expected {
            first,
            count,
            warm_up,
            check,
        }: Expected,
    ) {
        self.seen = vec![false; count];
        self.next.fill(0);
        (self.expected, self.warm_up, self.check) = (first..first + count, warm_up, check);
        (self.accepted, self.repeated, self.misplaced, self.last_us) = (0, 0, 0, 0);
        self.latencies.reset();
    }

    /// Expects no reminder from this number on: fewer were published than planned.
    pub(super) fn end_at(&mut self, end: usize) {
        self.expected.end = end;
    }

    /// Returns whether all expected reminders have arrived.
    pub(super) fn are_complete(&self) -> bool {
        self.accepted >= self.expected.len()
    }

    /// Returns the number of reminders that have arrived, each counted once.
    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }

    /// Records something that is not one of these reminders.
    pub(super) fn misplace(&mut self) {
        self.misplaced += 1;
    }

    /// Records a reminder that was due to be published at `due_us`. `slot` is the user, or
    /// instance, whose order it belongs to; none means that it arrived at the wrong place.
    pub(super) fn accept(&mut self, number: usize, slot: Option<usize>, now_us: u64, due_us: u64) {
        let place = number.wrapping_sub(self.expected.start);
        let Some(seen) = self.seen.get_mut(place) else {
            self.repeated += 1; // Of an earlier measurement.
            return;
        };
        if std::mem::replace(seen, true) {
            self.repeated += 1;
            return;
        }
        self.accepted += 1;
        self.last_us = now_us;
        match slot.and_then(|slot| self.next.get_mut(slot)) {
            Some(next) => {
                self.misplaced += usize::from(self.check != Check::Once && number < *next);
                *next = number + 1;
            }
            None => self.misplaced += 1,
        }
        if place >= self.warm_up {
            self.latencies
                .saturating_record(now_us.saturating_sub(due_us).max(1));
        }
    }

    /// Returns the result so far.
    pub(super) fn tally(&self) -> Tally {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        Tally {
            accepted: self.accepted,
            repeated: self.repeated,
            misplaced: self.misplaced,
            last_us: self.last_us,
            latency_us: [at(0.5), at(0.99), at(0.999), self.latencies.max()],
        }
    }
}

impl Tally {
    /// Returns the result if all `expected` reminders arrived once, each in its place.
    ///
    /// # Errors
    /// [`BenchError::Void`], which names `what`.
    pub(super) fn verified(
        self,
        what: impl Into<String>,
        expected: usize,
    ) -> Result<Self, BenchError> {
        let Self {
            accepted,
            repeated,
            misplaced,
            ..
        } = self;
        if accepted == expected && repeated == 0 && misplaced == 0 {
            return Ok(self);
        }
        let problem = format!(
            "of {expected} reminders {accepted} arrived, {repeated} twice, and {misplaced} out of place"
        );
        Err(BenchError::Void {
            what: what.into(),
            problem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(numbers: &[(usize, Option<usize>)]) -> Tally {
        let mut arrivals = Arrivals::new(2);
        arrivals.expect(Expected {
            first: 10,
            count: 3,
            warm_up: 1,
            check: Check::UserOrder,
        });
        for (number, slot) in numbers {
            arrivals.accept(*number, *slot, 2_000, 1_000);
        }
        arrivals.tally()
    }

    #[test]
    fn each_reminder_once_and_in_order_verifies() {
        let tally = arrived(&[(10, Some(0)), (12, Some(1)), (11, Some(0))]);
        let tally = tally
            .verified("two users, each with an order of its own,", 3)
            .unwrap();
        assert!((990..1_010).contains(&tally.latency_us[0]));
    }

    #[test]
    fn unpublished_reminders_are_not_missed() {
        let mut arrivals = Arrivals::new(2);
        arrivals.expect(Expected {
            first: 10,
            count: 1_000,
            warm_up: 0,
            check: Check::Once,
        });
        arrivals.accept(10, Some(0), 2_000, 1_000);
        assert!(!arrivals.are_complete());
        arrivals.end_at(11);
        assert!(arrivals.are_complete());
    }

    #[test]
    fn missing_repeated_or_misplaced_reminders_fail_verification() {
        for wrong in [
            &[(10, Some(0)), (11, Some(0))][..],
            &[(10, Some(0)), (11, Some(0)), (12, Some(0)), (12, Some(0))],
            &[(10, Some(0)), (12, Some(0)), (11, Some(0))],
            &[(10, Some(0)), (11, None), (12, Some(0))],
            &[(10, Some(0)), (11, Some(0)), (12, Some(0)), (9, Some(0))],
        ] {
            assert!(arrived(wrong).verified("it", 3).is_err(), "{wrong:?}");
        }
    }
}
