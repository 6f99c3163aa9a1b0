//! Room in a mailbox: how much of it a priority and a source may have, and what each source has.
//!
//! A reminder that a mailbox has no room for is refused for good, so no source may fill a mailbox
//! for all others: its last part is kept for higher priorities, and no source may have more than
//! its share. While a mailbox is so empty that neither can matter, its reminders are counted
//! together. Beyond that it has a [`Tally`], which begins with a count by the shell; and before a
//! reminder is refused, the shell counts again, since others may have taken reminders out.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Entry, Resolution};
use bellhop_protocol::reminder::Priority;
use bellhop_protocol::token::Source;

/// A smaller limit is not shared: a tenth of it would be no place at all.
const LEAST_SHARED: usize = 10;

/// The room of a mailbox, by priority and source.
#[derive(Debug, Clone)]
pub struct Room {
    /// The most reminders in one user's mailbox.
    pub limit: usize,
    /// Share of the limit reserved for each higher priority, in percent.
    pub reserve: usize,
    /// Maximum share of the limit for one source, in percent.
    pub source_share: usize,
}

impl Room {
    /// Returns how many reminders a mailbox has, at most, when one of this priority may still come
    /// in and fill its last place.
    pub fn of_priority(&self, priority: Priority) -> usize {
        let higher = Priority::Urgent as usize - priority as usize;
        self.part(100_usize.saturating_sub(higher * self.reserve))
    }

    /// Returns how many reminders one source may have in a mailbox.
    pub fn of_source(&self) -> usize {
        self.part(self.source_share)
    }

    /// Returns how many reminders a mailbox may have before it matters whose they are.
    pub fn of_anybody(&self) -> usize {
        self.of_source().min(self.of_priority(Priority::Low))
    }

    fn part(&self, percent: usize) -> usize {
        if self.limit < LEAST_SHARED {
            self.limit
        } else {
            self.limit * percent / 100
        }
    }
}

/// A mailbox's reminders as counted by the shell: the sequences of each source's, in order. Those
/// of an earlier version name no source.
pub type BySource = Vec<(Option<Source>, Vec<u64>)>;

/// Each source's reminders in a mailbox, including those on their way into it.
#[derive(Debug, Default)]
pub struct Tally {
    /// None until it was counted.
    counts: Option<HashMap<Source, usize>>,
    /// The shell counts, or is to.
    pub is_asked: bool,
    /// Reminders for which the last count leaves no room, and those that arrived after them; each
    /// with its resolution once it is parked.
    pub undecided: VecDeque<(Entry, Resolution)>,
}

impl Tally {
    /// Returns true if it was counted.
    pub fn is_known(&self) -> bool {
        self.counts.is_some()
    }

    /// Takes in a count, as far as the reminders still wait: they lie between the first and the
    /// last sequence, and were not settled ahead. Returns how many they are.
    pub fn recount(
        &mut self,
        found: BySource,
        (first, last): (u64, u64),
        settled_ahead: &BTreeSet<u64>,
    ) -> usize {
        let (mut counts, mut total) = (HashMap::new(), 0);
        for (source, sequences) in found {
            let waits = |at: &u64| (first..=last).contains(at) && !settled_ahead.contains(at);
            let count = sequences.iter().filter(|at| waits(at)).count();
            total += count;
            if let Some(source) = source {
                *counts.entry(source).or_default() += count;
            }
        }
        self.counts = Some(counts);
        total
    }

    /// Counts a reminder of this source in, if the source has room for it.
    pub fn take_in(&mut self, source: &Source, room: usize) -> bool {
        let Some(counts) = &mut self.counts else {
            return false;
        };
        let count = counts.entry(source.clone()).or_default();
        let has_room = *count < room;
        *count += usize::from(has_room);
        has_room
    }

    /// A reminder of this source has left, or did not come in.
    pub fn take_out(&mut self, source: &Source) {
        if let Some(count) = self
            .counts
            .as_mut()
            .and_then(|counts| counts.get_mut(source))
        {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_higher_priority_has_room_beyond_the_lower() {
        let room = Room {
            limit: 10_000,
            reserve: 10,
            source_share: 50,
        };
        assert_eq!(
            Priority::ALL.map(|priority| room.of_priority(priority)),
            [7_000, 8_000, 9_000, 10_000]
        );
        assert_eq!((room.of_source(), room.of_anybody()), (5_000, 5_000));
        let small = Room { limit: 9, ..room };
        assert_eq!(
            (
                small.of_priority(Priority::Low),
                small.of_source(),
                small.of_anybody()
            ),
            (9, 9, 9)
        );
    }
}
