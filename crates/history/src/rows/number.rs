//! The one number that orders a history.
//!
//! A row's number is the millisecond in which its reminder was published, and behind it a counter
//! within that millisecond. It is the row's key, its place in "newest first", the cursor, what
//! `from` and `to` compare, and what `history.keep` cuts off, so every index is (column, number),
//! and every question is one range of one index read backwards.

use std::collections::HashMap;
use std::ops::Range;

/// Bits of the counter: 2,097,152 reminders in one millisecond.
const COUNTER_BITS: u32 = 21;
/// The last millisecond there is: in the year 2109.
const MAX_MS: i64 = i64::MAX >> COUNTER_BITS;

/// The first number of a millisecond. Times outside 1970 to 2109 count as the nearest one inside.
pub(crate) fn first_of(ms: i64) -> i64 {
    ms.clamp(0, MAX_MS) << COUNTER_BITS
}

/// All numbers of a millisecond.
pub(crate) fn all_of(ms: i64) -> Range<i64> {
    let first = first_of(ms);
    first..first.saturating_add(1 << COUNTER_BITS)
}

/// Returns the time at which the reminder of this number was published, in milliseconds.
pub(crate) fn published_ms(number: i64) -> i64 {
    number >> COUNTER_BITS
}

/// Gives out numbers that are free.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    next: HashMap<i64, i64>,
}

impl Numbers {
    /// The last number that is taken in its millisecond.
    pub(crate) fn taken(&mut self, number: i64) {
        self.next.insert(published_ms(number), number + 1);
    }

    /// The next number of a millisecond; none if all are taken.
    pub(crate) fn next(&mut self, ms: i64) -> Option<i64> {
        let all = all_of(ms);
        let next = self
            .next
            .entry(published_ms(all.start))
            .or_insert(all.start);
        let number = *next;
        *next += 1;
        all.contains(&number).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_publishing_time_and_are_unique() {
        let now = 1_795_000_000_000;
        let mut numbers = Numbers::default();
        numbers.taken(first_of(now) + 6);
        assert_eq!(
            [numbers.next(now), numbers.next(now)].map(|n| n.map(|n| n - first_of(now))),
            [Some(7), Some(8)]
        );
        assert_eq!(numbers.next(now + 1), Some(first_of(now + 1)));
        assert!(first_of(now) < all_of(now).end && all_of(now).end == first_of(now + 1));
        assert_eq!(published_ms(first_of(now) + 6), now);
        numbers.taken(all_of(now).end - 1);
        assert_eq!(numbers.next(now), None);
        assert_eq!(
            [first_of(-1), published_ms(first_of(i64::MAX))],
            [0, MAX_MS]
        );
    }
}
