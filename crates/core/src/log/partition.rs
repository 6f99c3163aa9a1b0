//! A partition's part of the log: it judges each slice, queues it, plans it, and knows from what is
//! settled how far its position is.
//!
//! The shell gives it slices in the order of the log, takes plans from it while the router has
//! room, and says what is settled. About once a second, and when it gives the partition up, the
//! shell stores a [checkpoint](super::progress::Checkpoint).

use std::collections::HashSet;

use bellhop_protocol::reminder::reject::{RejectCode, Rejection};
use bellhop_protocol::token::Source;

use super::done::{AllDone, Done};
use super::planner::{Before, Judged, JudgedSlice, Planned, Planner};
use super::position::Mark;
use super::progress::Progress;
use super::split::{Published, Slice};
use super::window::{Entries, Name, Verdict, Window, content_hash, identity};
use crate::event::Event;
use crate::fair_queue::FairQueue;

/// The state that a new owner found.
#[derive(Debug)]
pub struct StartState {
    /// The position, as far as it counts for the log: see [`super::position::Start`].
    pub settled: Mark,
    /// The position's sequence of outcomes.
    pub outcomes: u64,
    /// The idempotency window at the position.
    pub window: Window,
    /// The reminders recorded above the position.
    pub done: AllDone,
    /// Reminders of sets that lie in a mailbox. Those that are not recorded are recorded as parked.
    pub parked: HashSet<Done>,
}

/// The result of taking in a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenIn {
    /// Bytes that it has in the queue; 0 if nothing of it was new.
    pub queued: usize,
    /// New reminders.
    pub new: usize,
    /// Reminders that were dropped, because an earlier set had them.
    pub repeats: usize,
    /// Identities that the window forgot before their time, because there were too many.
    pub forgotten: usize,
}

/// The next slice, planned.
#[derive(Debug)]
pub struct Next {
    /// The plan.
    pub planned: Planned,
    /// Bytes that left the queue.
    pub bytes: usize,
}

/// A partition's part of the log.
#[derive(Debug)]
pub struct PartitionLog {
    /// The work in progress, and so the position.
    pub progress: Progress,
    window: Window,
    /// Names that sets above the position may have.
    done: AllDone,
    parked: HashSet<Done>,
    queue: FairQueue<Source, JudgedSlice>,
    queued_bytes: usize,
}

impl PartitionLog {
    /// Goes on from what a new owner found.
    pub fn new(found: StartState) -> Self {
        let StartState {
            settled,
            outcomes,
            window,
            done,
            parked,
        } = found;
        let progress = Progress::new(settled, outcomes, &done);
        Self {
            progress,
            window,
            done,
            parked,
            queue: FairQueue::new(),
            queued_bytes: 0,
        }
    }

    /// The log was read up to here, and everything of it that is the partition's was taken in.
    pub fn read(&mut self, upto: Mark) {
        self.progress.read(upto);
        if self.progress.is_past_recorded() {
            self.done = AllDone::new(); // A long outage can leave very many.
        }
    }

    /// Takes in a slice. `before` is the place in the log just before its set. Slices come in the
    /// order of the log.
    pub fn take_in(&mut self, slice: Slice, before: Mark) -> TakenIn {
        let (sequence, stored_ms) = (slice.set.sequence, slice.set.published_ms);
        let mut entries = Entries {
            sequence,
            stored_ms,
            reminders: Vec::with_capacity(slice.reminders.len()),
        };
        let mut repeats = 0;
        let Slice {
            set,
            common,
            added,
            message_id,
            is_requeued,
            reminders,
            bytes,
        } = slice;
        let mut judged = JudgedSlice {
            set,
            common,
            added,
            reminders: Vec::with_capacity(reminders.len()),
            refused: Vec::new(),
            bytes,
        };
        for published in reminders {
            let name = published.name(&judged.common, message_id.as_deref());
            let verdict = name.map_or(Verdict::New, |name| {
                self.judge(&published, name, is_requeued, &mut entries)
            });
            let name = Done::Published {
                set: sequence,
                stored_ms,
                place: published.place,
            };
            // Most of the time both sets are empty, and checking that is cheaper than hashing a
            // name.
            let is_done = !self.done.is_empty() && self.done.remove(&name);
            let is_parked = !self.parked.is_empty() && self.parked.remove(&name);
            match verdict {
                Verdict::New => {
                    let before = match (is_done, is_parked) {
                        (true, _) => Before::Recorded,
                        (false, true) => Before::Parked,
                        (false, false) => Before::Nothing,
                    };
                    judged.reminders.push(Judged { published, before });
                }
                Verdict::Repeat => repeats += 1,
                Verdict::DuplicateId => {
                    let detail = format!(
                        "`{}` was published for this user with another text or time; give each reminder an id of its own",
                        published.reminder.id
                    );
                    judged
                        .refused
                        .push(published.refused(Rejection::new(RejectCode::DuplicateId, detail)));
                }
            }
        }
        let new = judged
            .reminders
            .iter()
            .filter(|judged| judged.before != Before::Recorded)
            .count();
        let mut forgotten = 0;
        if !entries.reminders.is_empty() {
            forgotten = self.window.note(&entries);
            self.progress.note(entries);
        }
        self.read(before);
        if judged.is_empty() {
            // The reader says in time that the set is passed.
            return TakenIn {
                queued: 0,
                new,
                repeats,
                forgotten,
            };
        }
        // Until it is planned it is one part.
        self.progress.begin(sequence, before, 1);
        let queued = judged.bytes;
        self.queued_bytes += queued;
        self.queue.push(judged.set.source.clone(), queued, judged);
        TakenIn {
            queued,
            new,
            repeats,
            forgotten,
        }
    }

    fn judge(
        &self,
        published: &Published,
        name: Name<'_>,
        is_requeued: bool,
        entries: &mut Entries,
    ) -> Verdict {
        let reminder = &published.reminder;
        let id = match (name, reminder.deliver_at) {
            (Name::Id(_), None) => published.identity,
            (name, at) => identity(&reminder.source, name, &reminder.user, at),
        };
        let content = content_hash(reminder);
        let verdict = match is_requeued {
            true => Verdict::New,
            false => self.window.judge(id, content, entries.stored_ms),
        };
        if verdict == Verdict::New {
            entries.reminders.push((id, content));
        }
        verdict
    }

    /// Plans the next slice. None if no slice waits. Everything of it is to be settled.
    pub fn next(&mut self, planner: &Planner<'_>) -> Option<Next> {
        let slice = self.queue.take_one()?;
        let (bytes, sequence) = (slice.bytes, slice.set.sequence);
        self.queued_bytes -= bytes;
        let planned = planner.plan(slice);
        self.progress.grow(sequence, planned.parts());
        self.progress.settle(sequence, 1);
        Some(Next { planned, bytes })
    }

    /// Returns how many bytes wait to be planned.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}

impl Done {
    /// Returns the name of one of an event's reminders.
    pub fn of_event(event: &Event, index: usize) -> Self {
        let set = event.set_of(index);
        let (set, stored_ms, place) = (
            set.sequence,
            set.published_ms,
            event.index.reminders[index].place,
        );
        Self::Published {
            set,
            stored_ms,
            place,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::split::{Message, split};
    use super::super::window::{decode, encode};
    use super::*;
    use crate::rules::Rules;

    const WINDOW: Duration = Duration::from_secs(10);

    fn found(settled: Mark, stored: &[Entries], done: &[Done]) -> StartState {
        let mut window = Window::new(WINDOW, 100);
        stored
            .iter()
            .for_each(|entries| window.load(entries, settled));
        StartState {
            settled,
            outcomes: 7,
            window,
            done: done.iter().copied().collect(),
            parked: HashSet::new(),
        }
    }

    fn slice(sequence: u64, stored_ms: i64, reminders: &str) -> Slice {
        let body = format!(r#"{{"reminders":[{reminders}]}}"#);
        let (set, body, source_token) = (Ok(body.as_bytes()), body.as_bytes(), "billing");
        let (message_id, is_requeued, is_due, trace) = (None, false, false, None);
        let message = Message {
            source_token,
            sequence,
            stored_ms,
            body,
            set,
            message_id,
            is_requeued,
            is_due,
            trace,
        };
        split(&message, 1).slices.remove(0).1
    }

    fn reminder(id: &str, content: &str) -> String {
        format!(r#"{{"id":"{id}","user":"u","content":"{content}"}}"#)
    }

    fn mark(sequence: u64) -> Mark {
        Mark {
            sequence,
            stored_ms: 1_000 * sequence as i64,
        }
    }

    /// Takes in the set of this sequence.
    fn take_in(log: &mut PartitionLog, sequence: u64, reminders: &str) -> TakenIn {
        let Mark { stored_ms, .. } = mark(sequence);
        log.take_in(slice(sequence, stored_ms, reminders), mark(sequence - 1))
    }

    fn next(log: &mut PartitionLog) -> Option<Next> {
        log.next(&Planner {
            rules: &Rules::default(),
            merges: false,
        })
    }

    fn ids(next: &Next) -> Vec<&str> {
        next.planned
            .event
            .index
            .reminders
            .iter()
            .map(|entry| entry.id.as_str())
            .collect()
    }

    fn published(set: u64, place: usize) -> Done {
        Done::Published {
            set,
            stored_ms: mark(set).stored_ms,
            place,
        }
    }

    #[test]
    fn position_follows_settled_sets() {
        let mut log = PartitionLog::new(found(mark(0), &[], &[]));
        let first = take_in(
            &mut log,
            1,
            &[reminder("a", "c"), reminder("b", "d")].join(","),
        );
        assert_eq!(
            (first.new, first.repeats, first.queued),
            (2, 0, log.queued_bytes())
        );
        assert_eq!(take_in(&mut log, 2, &reminder("c", "c")).new, 1);
        log.progress.read(mark(3));
        assert_eq!(log.progress.settled(), mark(0));
        let planned = next(&mut log).unwrap();
        assert_eq!(
            (ids(&planned), planned.bytes),
            (vec!["a", "b"], first.queued)
        );
        assert_eq!(ids(&next(&mut log).unwrap()), ["c"]);
        assert!(next(&mut log).is_none() && log.queued_bytes() == 0);
        log.progress.settle(2, 1);
        log.progress.settle(1, 1);
        assert_eq!(log.progress.settled(), mark(0));
        log.progress.settle(1, 1);
        assert_eq!(log.progress.settled(), mark(3));
    }

    #[test]
    fn repeats_are_dropped_and_other_content_is_refused() {
        let mut log = PartitionLog::new(found(mark(0), &[], &[]));
        take_in(&mut log, 1, &reminder("a", "c"));
        let again = take_in(&mut log, 2, &reminder("a", "c"));
        assert_eq!((again.queued, again.new, again.repeats), (0, 0, 1));
        let other = take_in(&mut log, 3, &reminder("a", "d"));
        assert_eq!((other.new, other.repeats), (0, 0));
        next(&mut log).unwrap();
        let refused = next(&mut log).unwrap().planned;
        assert_eq!(
            (refused.parts(), refused.refused[0].rejection.code),
            (1, RejectCode::DuplicateId)
        );
        assert_eq!(
            take_in(&mut log, 11, &reminder("a", "c")).new,
            1,
            "the window is over"
        );
    }

    #[test]
    fn unnamed_sets_cannot_repeat() {
        let mut log = PartitionLog::new(found(mark(0), &[], &[]));
        for sequence in 1..3 {
            assert_eq!(
                take_in(&mut log, sequence, r#"{"user":"u","content":"c"}"#).new,
                1
            );
        }
        assert!(log.window.is_empty());
    }

    #[test]
    fn recorded_reminders_are_not_worked_again() {
        let mut log = PartitionLog::new(found(mark(4), &[], &[published(5, 0), published(6, 0)]));
        let both = [reminder("a", "c"), reminder("b", "c")].join(",");
        assert_eq!(take_in(&mut log, 5, &both).new, 1);
        assert_eq!(take_in(&mut log, 6, &reminder("c", "c")).queued, 0);
        log.progress.outcome_stored(20);
        assert_eq!(ids(&next(&mut log).unwrap()), ["b"]);
        assert_eq!(
            log.progress.outcomes(),
            7,
            "a new owner must find the name of what is recorded of set 5"
        );
        log.progress.settle(5, 1);
        log.progress.read(mark(6));
        assert_eq!(
            (log.progress.settled(), log.progress.outcomes()),
            (mark(6), 20)
        );
        assert!(log.done.is_empty());
    }

    #[test]
    fn names_below_the_read_mark_are_forgotten() {
        let parked = Done::Parked {
            sequence: 1,
            stored_ms: 1,
        };
        let recorded = [published(3, 0), published(5, 0), published(5, 1), parked];
        let mut log = PartitionLog::new(found(mark(4), &[], &recorded));
        log.read(mark(4));
        assert_eq!(log.done.len(), 4);
        assert_eq!(take_in(&mut log, 5, &reminder("a", "c")).new, 0);
        log.read(mark(5));
        assert!(log.done.is_empty());
    }

    #[test]
    fn names_stay_where_the_servers_clock_stepped_back() {
        let early = Done::Published {
            set: 6,
            stored_ms: 4_500,
            place: 0,
        };
        let mut log = PartitionLog::new(found(mark(4), &[], &[published(5, 0), early]));
        log.read(mark(5));
        let again = log.take_in(slice(6, 4_500, &reminder("a", "c")), mark(5));
        assert_eq!(again.new, 0);
    }

    #[test]
    fn reused_sequence_ignores_earlier_names() {
        let old = Done::Published {
            set: 5,
            stored_ms: 1,
            place: 0,
        };
        let mut log = PartitionLog::new(found(mark(4), &[], &[old]));
        assert_eq!(take_in(&mut log, 5, &reminder("a", "c")).new, 1);
    }

    #[test]
    fn reminders_in_a_mailbox_are_recorded_as_parked() {
        let mut log = PartitionLog::new(StartState {
            parked: HashSet::from([published(5, 1)]),
            ..found(mark(4), &[], &[])
        });
        take_in(
            &mut log,
            5,
            &[reminder("a", "c"), reminder("b", "d")].join(","),
        );
        let planned = next(&mut log).unwrap().planned;
        assert_eq!(
            (planned.ended[0].place, planned.ended[0].outcome.name()),
            (1, "parked")
        );
    }

    #[test]
    fn new_owner_comes_to_the_same_verdicts() {
        let mut log = PartitionLog::new(found(mark(0), &[], &[]));
        for set in 1..=3 {
            take_in(&mut log, set, &reminder(&set.to_string(), "c"));
        }
        (0..3).for_each(|_| drop(next(&mut log)));
        log.progress.settle(1, 1);
        log.progress.settle(3, 1);
        let checkpoint = log.progress.checkpoint();
        assert_eq!(checkpoint.settled, mark(1));
        // An owner that died stored more than its position covers.
        let Entries { reminders, .. } = checkpoint.entries[0].clone();
        let ahead = Entries {
            sequence: 3,
            stored_ms: 3_000,
            reminders,
        };
        let stored = decode(&encode(&[checkpoint.entries.clone(), vec![ahead]].concat()));
        let mut log = PartitionLog::new(found(checkpoint.settled, &stored, &[published(3, 0)]));
        assert_eq!(take_in(&mut log, 2, &reminder("2", "c")).new, 1);
        assert_eq!(take_in(&mut log, 3, &reminder("3", "c")).repeats, 0);
        assert_eq!(take_in(&mut log, 4, &reminder("1", "c")).repeats, 1);
        assert_eq!(take_in(&mut log, 5, &reminder("3", "c")).repeats, 1);
    }
}
