//! What arrived, against what was to arrive: each reminder once, in order, in its place. Pure.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::BenchError;

/// What must hold of what arrives, beside that everything does, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Check {
    /// A user's reminders come to the user's instance, in order.
    UserOrder,
    /// An instance gets what it gets in order: nobody looks for users.
    InstanceOrder,
    /// Nothing.
    Once,
}

/// What is to arrive: the reminders `first` to `first + count`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Expected {
    /// The first number.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// How many of the first ones are left out of the latencies.
    pub(super) warm_up: usize,
    /// What must hold.
    pub(super) check: Check,
}

/// What arrived.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Reminders, each counted once.
    pub(super) accepted: usize,
    /// Reminders that came again.
    pub(super) repeated: usize,
    /// Reminders that came out of order, or where their user is not.
    pub(super) misplaced: usize,
    /// When the last one came, in microseconds since 1970.
    pub(super) last_us: u64,
    /// From when it was due to be published to acceptance, in microseconds: p50, p99, p99.9 and the longest.
    pub(super) latency_us: [u64; 4],
}

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// What has arrived.
pub(super) struct Arrivals {
    expected: Range<usize>,
    warm_up: usize,
    /// What must hold.
    pub(super) check: Check,
    seen: Vec<bool>,
    /// Of each user, or instance, the number after the last one.
    next: Vec<usize>,
    accepted: usize,
    repeated: usize,
    misplaced: usize,
    last_us: u64,
    latencies: Histogram<u64>,
}

impl Arrivals {
    /// Nothing is to arrive yet, for so many users, or instances.
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

    /// From here on these are to arrive, and nothing has so far.
    pub(super) fn expect(&mut self, Expected { first, count, warm_up, check }: Expected) {
        self.seen = vec![false; count];
        self.next.fill(0);
        (self.expected, self.warm_up, self.check) = (first..first + count, warm_up, check);
        (self.accepted, self.repeated, self.misplaced, self.last_us) = (0, 0, 0, 0);
        self.latencies.reset();
    }

    /// None is to arrive from this number on: fewer were published than could have been.
    pub(super) fn end_at(&mut self, end: usize) {
        self.expected.end = end;
    }

    /// Whether all that is to arrive has arrived.
    pub(super) fn are_complete(&self) -> bool {
        self.accepted >= self.expected.len()
    }

    /// How many have arrived, each counted once.
    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }

    /// Something arrived that is no reminder of these.
    pub(super) fn misplace(&mut self) {
        self.misplaced += 1;
    }

    /// A reminder arrived that was due to be published at `due_us`, in the order of a user, or instance; without one it is
    /// where it should not be.
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
            self.latencies.saturating_record(now_us.saturating_sub(due_us).max(1));
        }
    }

    /// What there is to tell.
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
    /// Refuses it unless all `expected` reminders arrived once, each in its place.
    ///
    /// # Errors
    /// [`BenchError::Wrong`], which says that of `what`.
    pub(super) fn verified(self, what: impl Into<String>, expected: usize) -> Result<Self, BenchError> {
        let Self { accepted, repeated, misplaced, .. } = self;
        if accepted == expected && repeated == 0 && misplaced == 0 {
            return Ok(self);
        }
        let problem =
            format!("of {expected} reminders {accepted} arrived, {repeated} came again, {misplaced} were out of place");
        Err(BenchError::Wrong { what: what.into(), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(numbers: &[(usize, Option<usize>)]) -> Tally {
        let mut arrivals = Arrivals::new(2);
        arrivals.expect(Expected { first: 10, count: 3, warm_up: 1, check: Check::UserOrder });
        for (number, slot) in numbers {
            arrivals.accept(*number, *slot, 2_000, 1_000);
        }
        arrivals.tally()
    }

    #[test]
    fn what_is_right_has_no_problem() {
        let tally = arrived(&[(10, Some(0)), (12, Some(1)), (11, Some(0))]);
        let tally = tally.verified("two users, each with an order of its own,", 3).unwrap();
        assert!((990..1_010).contains(&tally.latency_us[0]));
    }

    #[test]
    fn what_was_not_published_is_not_missed() {
        let mut arrivals = Arrivals::new(2);
        arrivals.expect(Expected { first: 10, count: 1_000, warm_up: 0, check: Check::Once });
        arrivals.accept(10, Some(0), 2_000, 1_000);
        assert!(!arrivals.are_complete());
        arrivals.end_at(11);
        assert!(arrivals.are_complete());
    }

    #[test]
    fn whatever_is_wrong_is_a_problem() {
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
