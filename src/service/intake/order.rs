//! Puts what came due into the order in which it is published: by moments, then as it was
//! scheduled. Pure.
//!
//! nats-server looks for what is due at most four times a second. It publishes what it finds in the
//! order in which it was scheduled, whatever the moments are, and after an outage that is
//! everything that came due meanwhile. So what came due is held until the look that found it is
//! over. A reminder that was due after another one had come was found by a later look, and
//! nats-server begins a look when all that the one before found is published.

use std::collections::BTreeMap;
use std::time::Duration;

/// A look is over when nothing came due for so long: nats-server publishes what it found at once.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// Orders what came due.
#[derive(Debug)]
pub(super) struct Order<T> {
    held: BTreeMap<(Moment, u64), (i64, T)>,
    /// Number of reminders held so far: equal ones keep the order in which they came.
    count: u64,
    /// The latest moment of all, in milliseconds since 1970.
    latest_ms: i64,
}

/// The time at which a reminder counts as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// Its due time, in nanoseconds since 1970.
    pub due_ns: i128,
    /// Time at which the set that scheduled it was stored, in nanoseconds since 1970.
    pub set_ns: i128,
    /// Its place in that set.
    pub place: usize,
}

impl<T> Order<T> {
    pub(super) fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            count: 0,
            latest_ms: i64::MIN,
        }
    }

    /// Holds what came due: nats-server published it at `came_ms`, in milliseconds since 1970.
    pub(super) fn hold(&mut self, moment: Moment, came_ms: i64, thing: T) {
        let due_ms = i64::try_from(moment.due_ns / 1_000_000).unwrap_or(i64::MAX);
        self.latest_ms = self.latest_ms.max(due_ms);
        self.held.insert((moment, self.count), (came_ms, thing));
        self.count += 1;
    }

    /// Returns true if nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns what earlier looks found, in order. All of it, if `is_quiet`.
    pub(super) fn take(&mut self, is_quiet: bool) -> Vec<T> {
        let latest_ms = self.latest_ms;
        let is_over = |came_ms: i64| is_quiet || came_ms < latest_ms;
        // Those of one look are either all over or none of them is. The first moment that is not
        // over ends the order.
        let ready = self
            .held
            .values()
            .take_while(|(came_ms, _)| is_over(*came_ms))
            .count();
        std::iter::from_fn(|| self.held.pop_first())
            .take(ready)
            .map(|(_, (_, thing))| thing)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(due_ms: i64, set_ms: i64, place: usize) -> Moment {
        Moment {
            due_ns: i128::from(due_ms) * 1_000_000,
            set_ns: i128::from(set_ms) * 1_000_000,
            place,
        }
    }

    #[test]
    fn one_look_goes_by_moment_set_and_place() {
        let mut order = Order::new();
        let came = [
            (moment(20, 1, 0), "final"),
            (moment(10, 2, 1), "second of its set"),
            (moment(10, 2, 0), "first of its set"),
            (moment(10, 1, 5), "of an earlier set"),
        ];
        for (moment, name) in came {
            order.hold(moment, 30, name);
        }
        assert!(order.take(false).is_empty(), "the look is not over");
        let expected = [
            "of an earlier set",
            "first of its set",
            "second of its set",
            "final",
        ];
        assert_eq!(order.take(true), expected);
        assert!(order.is_empty());
    }

    #[test]
    fn later_look_ends_the_one_before() {
        let mut order = Order::new();
        order.hold(moment(20, 1, 0), 250, "b");
        order.hold(moment(10, 2, 0), 251, "a");
        order.hold(moment(251, 1, 0), 500, "on the edge");
        assert_eq!(order.take(false), Vec::<&str>::new());
        order.hold(moment(300, 1, 0), 501, "c");
        assert_eq!(order.take(false), ["a", "b"]);
        assert_eq!(order.take(true), ["on the edge", "c"]);
    }
}
