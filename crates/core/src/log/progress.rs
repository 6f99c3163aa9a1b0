//! The sets in work, and so the position: the oldest set in work, less one.
//!
//! A position also says up to which outcome nothing above it was recorded. A set keeps that back
//! from when it is taken in until it is settled, and a reminder of a mailbox from when it is
//! recorded until it is removed: a new owner must find their names.
//!
//! The parts of a [`Checkpoint`] are stored in this order: first the window's entries, then the
//! position.

use std::collections::{BTreeMap, VecDeque};

use super::done::Done;
use super::position::Mark;
use super::window::Entries;

/// The state of a partition that is stored about once a second, and when it is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Entries of the idempotency window that are not stored yet, of sets that the position covers.
    pub entries: Vec<Entries>,
    /// The position.
    pub settled: Mark,
    /// The position's sequence of outcomes.
    pub outcomes: u64,
}

/// A set of which something is not settled.
#[derive(Debug)]
struct Open {
    /// The place in the log just before it.
    before: Mark,
    unsettled: usize,
    hold: Hold,
}

/// Keeps the reading of a new owner from beginning later than at this outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "it is to be released"]
pub struct Hold(u64);

/// A partition's progress in the log.
#[derive(Debug)]
pub struct Progress {
    /// The position at which its owner started, and its sequence of outcomes.
    base: (Mark, u64),
    /// Up to here earlier owners recorded something.
    recorded: Option<Mark>,
    /// The highest sequence and the latest time of all that they recorded: a clock may step.
    last_recorded: Mark,
    /// Everything up to here was taken in.
    read: Mark,
    open: BTreeMap<u64, Open>,
    /// The last outcome that is known to be stored: what is recorded from now on comes behind it.
    last_outcome: u64,
    /// Number of holds that begin at each outcome.
    holds: BTreeMap<Hold, usize>,
    /// Entries of the window that are not stored, in the order of the log.
    entries: VecDeque<Entries>,
}

impl Progress {
    /// Begins at a position. Nothing above it was recorded up to the outcome `outcomes`.
    ///
    /// `done` is what earlier owners recorded above it. Until the position has passed all of that,
    /// a new owner must find it, too.
    pub fn new<'d>(settled: Mark, outcomes: u64, done: impl IntoIterator<Item = &'d Done>) -> Self {
        let (open, holds, entries) = Default::default();
        let mark = |done: &Done| match *done {
            Done::Published {
                set: sequence,
                stored_ms,
                ..
            } => Some(Mark {
                sequence,
                stored_ms,
            }),
            Done::Parked { .. } => None,
        };
        let is_above = |mark: &Mark| !settled.covers(mark.sequence, mark.stored_ms);
        let above: Vec<Mark> = done.into_iter().filter_map(mark).filter(is_above).collect();
        let last = above.iter().fold(settled, |last, mark| Mark {
            sequence: last.sequence.max(mark.sequence),
            stored_ms: last.stored_ms.max(mark.stored_ms),
        });
        Self {
            base: (settled, outcomes),
            recorded: above.into_iter().max_by_key(order),
            last_recorded: last,
            read: settled,
            open,
            last_outcome: outcomes,
            holds,
            entries,
        }
    }

    /// The log was read up to here, and everything of it that is the partition's was taken in.
    /// Marks come in the order of reading; in a log that went back, a later one has a lower
    /// sequence.
    pub fn read(&mut self, upto: Mark) {
        self.read = self.read.after(upto.sequence, upto.stored_ms);
    }

    /// A set is taken in; `before` is the place in the log just before it. It is in work until so
    /// many of its parts are settled.
    pub fn begin(&mut self, sequence: u64, before: Mark, parts: usize) {
        self.read(before);
        let hold = self.hold();
        self.open.insert(
            sequence,
            Open {
                before: self.read,
                unsettled: parts,
                hold,
            },
        );
        self.settle(sequence, 0);
    }

    /// A set has so many parts more than were known.
    pub fn grow(&mut self, sequence: u64, parts: usize) {
        if let Some(open) = self.open.get_mut(&sequence) {
            open.unsettled += parts;
        }
    }

    /// So many parts of a set are settled, and that is recorded.
    pub fn settle(&mut self, sequence: u64, parts: usize) {
        let Some(open) = self.open.get_mut(&sequence) else {
            return;
        };
        open.unsettled = open.unsettled.saturating_sub(parts);
        if open.unsettled == 0 {
            let hold = open.hold;
            self.open.remove(&sequence);
            self.release(hold);
        }
    }

    /// Returns true if everything was read that earlier owners recorded: none of their names comes
    /// again.
    pub fn is_past_recorded(&self) -> bool {
        let Mark {
            sequence,
            stored_ms,
        } = self.last_recorded;
        self.read.covers(sequence, stored_ms)
    }

    /// The stream of outcomes has come so far.
    pub fn outcome_stored(&mut self, sequence: u64) {
        self.last_outcome = self.last_outcome.max(sequence);
    }

    /// Something is about to be recorded that is removed from a mailbox after that. To be released
    /// when it is removed.
    pub fn hold(&mut self) -> Hold {
        let hold = Hold(self.last_outcome);
        *self.holds.entry(hold).or_default() += 1;
        hold
    }

    /// The same, of what an earlier owner recorded.
    pub fn hold_from_before(&mut self) -> Hold {
        let hold = Hold(self.base.1);
        *self.holds.entry(hold).or_default() += 1;
        hold
    }

    /// Ends a hold.
    pub fn release(&mut self, hold: Hold) {
        if let Some(count) = self.holds.get_mut(&hold) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&hold);
            }
        }
    }

    /// Returns the place up to which everything is settled and recorded.
    pub fn settled(&self) -> Mark {
        self.open
            .first_key_value()
            .map_or(self.read, |(_, oldest)| oldest.before)
    }

    /// Returns the outcome up to which nothing above the position was recorded.
    pub fn outcomes(&self) -> u64 {
        let held = self
            .holds
            .first_key_value()
            .map_or(self.last_outcome, |(hold, _)| hold.0);
        let is_ahead = self
            .recorded
            .is_some_and(|recorded| order(&self.settled()) < order(&recorded));
        if is_ahead { self.base.1 } else { held }
    }

    /// A set brought these entries of the idempotency window.
    pub fn note(&mut self, entries: Entries) {
        self.entries.push_back(entries);
    }

    /// Returns what is to be stored now. One checkpoint is stored at a time.
    pub fn checkpoint(&self) -> Checkpoint {
        let (settled, outcomes) = (self.settled(), self.outcomes());
        let is_settled = |entries: &&Entries| settled.covers(entries.sequence, entries.stored_ms);
        let entries = self
            .entries
            .iter()
            .take_while(is_settled)
            .cloned()
            .collect();
        Checkpoint {
            entries,
            settled,
            outcomes,
        }
    }

    /// The checkpoint is stored.
    pub fn stored(&mut self, checkpoint: &Checkpoint) {
        self.entries.drain(..checkpoint.entries.len());
    }

    /// Returns true if nothing is in work and nothing is held.
    pub fn is_finished(&self) -> bool {
        self.open.is_empty() && self.holds.is_empty()
    }

    /// Returns how many sets are in work.
    pub fn sets_in_work(&self) -> usize {
        self.open.len()
    }
}

/// The order of reading. Sequences may come again, times do not.
fn order(mark: &Mark) -> (i64, u64) {
    (mark.stored_ms, mark.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64, stored_ms: i64) -> Mark {
        Mark {
            sequence,
            stored_ms,
        }
    }

    #[test]
    fn position_is_before_oldest_set_in_work() {
        let mut progress = Progress::new(mark(5, 50), 0, []);
        assert_eq!(progress.settled(), mark(5, 50));
        progress.begin(8, mark(7, 70), 2);
        progress.begin(9, mark(8, 80), 1);
        progress.settle(9, 1);
        assert_eq!(progress.settled(), mark(7, 70));
        progress.settle(8, 1);
        assert_eq!(progress.settled(), mark(7, 70));
        progress.settle(8, 1);
        assert_eq!(
            progress.settled(),
            mark(8, 80),
            "the reader has not said more"
        );
        progress.read(mark(12, 75));
        assert_eq!(progress.settled(), mark(12, 80), "times never decrease");
        progress.read(mark(3, 200));
        assert_eq!(
            progress.settled(),
            mark(3, 200),
            "the log went back, and a set came under an old sequence"
        );
        assert!(progress.is_finished());
    }

    #[test]
    fn planning_may_find_more_parts() {
        let mut progress = Progress::new(mark(5, 50), 0, []);
        progress.begin(6, mark(5, 50), 1);
        progress.grow(6, 2);
        progress.settle(6, 2);
        assert_eq!(
            (progress.settled(), progress.sets_in_work()),
            (mark(5, 50), 1)
        );
        progress.settle(6, 1);
        progress.settle(6, 1);
        assert_eq!(progress.sets_in_work(), 0);
    }

    #[test]
    fn checkpoint_has_entries_up_to_the_position() {
        let mut progress = Progress::new(mark(5, 50), 0, []);
        let entries = |sequence, stored_ms| Entries {
            sequence,
            stored_ms,
            reminders: vec![(1, 1)],
        };
        progress.begin(6, mark(5, 50), 1);
        [entries(6, 60), entries(7, 70), entries(8, 80)]
            .into_iter()
            .for_each(|entries| progress.note(entries));
        assert_eq!(
            progress.checkpoint(),
            Checkpoint {
                entries: vec![],
                settled: mark(5, 50),
                outcomes: 0
            }
        );
        progress.begin(8, mark(7, 70), 1);
        progress.settle(6, 1);
        let checkpoint = progress.checkpoint();
        assert_eq!(checkpoint.entries, [entries(6, 60), entries(7, 70)]);
        progress.stored(&checkpoint);
        progress.settle(8, 1);
        progress.read(mark(8, 80));
        assert_eq!(progress.checkpoint().entries, [entries(8, 80)]);
    }

    #[test]
    fn oldest_set_in_work_holds_outcomes_back() {
        let mut progress = Progress::new(mark(5, 50), 100, []);
        progress.begin(6, mark(5, 50), 1);
        progress.outcome_stored(130);
        progress.begin(7, mark(6, 60), 1);
        let removal = progress.hold();
        progress.outcome_stored(140);
        progress.outcome_stored(135);
        assert_eq!(progress.outcomes(), 100, "set 6 was taken in first");
        progress.settle(6, 1);
        assert_eq!(progress.outcomes(), 130);
        progress.settle(7, 1);
        assert_eq!(
            progress.outcomes(),
            130,
            "a reminder is recorded and still in its mailbox"
        );
        progress.release(removal);
        assert_eq!(progress.outcomes(), 140);
        let before = progress.hold_from_before();
        assert_eq!(progress.outcomes(), 100);
        progress.release(before);
        assert!(progress.is_finished());
    }
    #[test]
    fn unpassed_records_hold_outcomes_back() {
        let done = [(4, 40), (8, 80), (7, 70)].map(|(set, stored_ms)| Done::Published {
            set,
            stored_ms,
            place: 0,
        });
        let mut progress = Progress::new(mark(5, 50), 100, &done);
        progress.outcome_stored(130);
        progress.read(mark(7, 70));
        assert_eq!(progress.outcomes(), 100);
        progress.begin(8, mark(7, 70), 1);
        progress.begin(9, mark(8, 80), 1);
        progress.settle(9, 1);
        progress.read(mark(9, 90));
        assert_eq!(
            progress.outcomes(),
            100,
            "the position has not passed set 8"
        );
        progress.settle(8, 1);
        assert_eq!(progress.outcomes(), 130);
        let mut progress = Progress::new(mark(5, 50), 100, &done);
        progress.outcome_stored(130);
        progress.read(mark(6, 90));
        assert_eq!(
            progress.outcomes(),
            130,
            "the log went back, and set 8 will not come"
        );
    }
}
