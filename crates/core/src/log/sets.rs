//! The log's part that belongs to sets and not to users: refusals, schedules and cancellations. One
//! member works it.
//!
//! It has a position like a partition, and a window: of sets under a `Nats-Msg-Id`, so that one
//! that comes again is not refused again, and of cancellations, so that a reminder that came due
//! meanwhile is known as cancelled.

use std::hash::Hasher;

use bellhop_protocol::token::{Source, UserId};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::done::{AllDone, Done};
use super::position::Mark;
use super::progress::Progress;
use super::split::{OfSetItself, SetParts, SetWork};
use super::window::{Entries, Id, Verdict, Window};

/// The sets' part of the log.
#[derive(Debug)]
pub struct SetsLog {
    /// The work in progress, and so the position.
    pub progress: Progress,
    window: Window,
    done: AllDone,
}

/// The result of taking in a set's part.
#[derive(Debug)]
pub struct TakenIn {
    /// The work, as one part that is to be settled; none if an earlier set had the same.
    pub work: Option<SetWork>,
    /// Identities that the window forgot before their time, because there were too many.
    pub forgotten: usize,
}

impl SetsLog {
    /// Goes on from a position: with the window there, and with what is recorded above it.
    pub fn new(settled: Mark, outcomes: u64, window: Window, done: AllDone) -> Self {
        Self {
            progress: Progress::new(settled, outcomes, &done),
            window,
            done,
        }
    }

    /// The log was read up to here, and everything of it that belongs to sets was taken in.
    pub fn read(&mut self, upto: Mark) {
        self.progress.read(upto);
        if self.progress.is_past_recorded() {
            self.done = AllDone::new(); // A long outage can leave very many.
        }
    }

    /// Takes in what belongs to a set. `before` is the place in the log just before the set. Sets
    /// come in the order of the log.
    pub fn take_in(&mut self, of_set: OfSetItself, before: Mark) -> TakenIn {
        let OfSetItself {
            sequence,
            stored_ms,
            message_id,
            body_hash,
            work,
            source_token,
        } = of_set;
        self.read(before);
        let mut entries = Entries {
            sequence,
            stored_ms,
            reminders: Vec::new(),
        };
        if let Some(message_id) = message_id {
            let id = mark(&["message", &source_token, &message_id]);
            if self.window.judge(id, body_hash, stored_ms) == Verdict::Repeat {
                return TakenIn {
                    work: None,
                    forgotten: 0,
                };
            }
            entries.reminders.push((id, body_hash));
        }
        let mut work = work;
        if let SetWork::Parts(SetParts {
            refused,
            cancel,
            set,
            scheduled,
            ..
        }) = &mut work
        {
            let cancelled = cancel
                .iter()
                .map(|one| (cancellation(&set.source, &one.id, one.user.as_ref()), 0));
            entries.reminders.extend(cancelled);
            let mut is_recorded = |place| {
                self.done.remove(&Done::Published {
                    set: sequence,
                    stored_ms,
                    place,
                })
            };
            refused.retain(|refused| !is_recorded(refused.place));
            // Reminders without room are recorded as refused.
            scheduled.retain(|scheduled| !is_recorded(scheduled.place));
        }
        let mut forgotten = 0;
        if !entries.reminders.is_empty() {
            forgotten = self.window.note(&entries);
            self.progress.note(entries);
        }
        self.progress.begin(sequence, before, 1);
        TakenIn {
            work: Some(work),
            forgotten,
        }
    }

    /// Returns true if a reminder that was scheduled at `scheduled_ms`, and was due at `due_ms`,
    /// was cancelled between the two. To be asked when the log was read up to a set that was stored
    /// after `due_ms`, or to its end.
    pub fn is_cancelled(
        &self,
        source: &Source,
        id: &str,
        user: &UserId,
        scheduled_ms: i64,
        due_ms: i64,
    ) -> bool {
        let mut cancellations = [None, Some(user)]
            .into_iter()
            .filter_map(|user| self.window.last_ms(cancellation(source, id, user)));
        cancellations.any(|cancelled_ms| cancelled_ms > scheduled_ms && cancelled_ms < due_ms)
    }
}

/// Returns the identity of a reminder's cancellation: for one user, or for all.
fn cancellation(source: &Source, id: &str, user: Option<&UserId>) -> Id {
    let source = source.escaped();
    match user {
        None => mark(&["cancel", &source, id]),
        Some(user) => mark(&["cancel", &source, id, user.as_str()]),
    }
}

fn mark(texts: &[&str]) -> Id {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write_u8(0xff); // No text has this byte.
    }
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::split::{Message, split};
    use super::*;

    fn log(done: &[Done]) -> SetsLog {
        let window = Window::new(Duration::from_secs(10), 100);
        SetsLog::new(Mark::START, 0, window, done.iter().copied().collect())
    }

    fn take_in(
        log: &mut SetsLog,
        sequence: u64,
        body: &str,
        message_id: Option<&str>,
    ) -> Option<SetWork> {
        let (set, body, source_token) = (Ok(body.as_bytes()), body.as_bytes(), "billing");
        let stored_ms = 1_000 * sequence as i64;
        let (is_requeued, is_due, trace) = (false, false, None);
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
        let of_set = split(&message, 1)
            .of_set
            .expect("something belongs to the set");
        let before = Mark {
            sequence: sequence - 1,
            stored_ms: stored_ms - 1_000,
        };
        log.take_in(of_set, before).work
    }

    fn refused(work: Option<SetWork>) -> Vec<usize> {
        match work {
            Some(SetWork::Parts(parts)) => {
                parts.refused.iter().map(|refused| refused.place).collect()
            }
            Some(SetWork::Refuse { .. }) => vec![usize::MAX],
            None => Vec::new(),
        }
    }

    const WRONG: &str = r#"{"reminders":[{},{},{"user":"u","content":"c"}]}"#;

    #[test]
    fn set_that_comes_again_is_not_refused_again() {
        let mut log = log(&[]);
        assert_eq!(refused(take_in(&mut log, 1, WRONG, Some("m"))), [0, 1]);
        assert!(take_in(&mut log, 2, WRONG, Some("m")).is_none());
        assert_eq!(
            refused(take_in(&mut log, 3, "{}", Some("m"))),
            [usize::MAX],
            "another set under the same name"
        );
        assert_eq!(refused(take_in(&mut log, 4, WRONG, None)), [0, 1]);
        assert_eq!(
            refused(take_in(&mut log, 13, WRONG, Some("m"))),
            [0, 1],
            "the window is over"
        );
    }

    #[test]
    fn recorded_refusals_are_left_out() {
        let mut log = log(&[Done::Published {
            set: 1,
            stored_ms: 1_000,
            place: 1,
        }]);
        assert_eq!(refused(take_in(&mut log, 1, WRONG, None)), [0]);
        assert_eq!(
            log.progress.settled(),
            Mark {
                sequence: 0,
                stored_ms: 0
            }
        );
        log.progress.settle(1, 1);
        log.progress.read(Mark {
            sequence: 1,
            stored_ms: 1_000,
        });
        assert_eq!(log.progress.settled().sequence, 1);
    }

    #[test]
    fn cancellation_counts_between_schedule_and_due_time() {
        let mut log = log(&[]);
        take_in(&mut log, 5, r#"{"cancel":["x"]}"#, None);
        let is_cancelled = |source: &str, id, scheduled_ms, due_ms| {
            let (source, user) = (source.parse().unwrap(), "u".parse().unwrap());
            log.is_cancelled(&source, id, &user, scheduled_ms, due_ms)
        };
        assert!(is_cancelled("billing", "x", 4_000, 6_000));
        assert!(
            !is_cancelled("billing", "x", 5_000, 6_000),
            "it was scheduled again"
        );
        assert!(
            !is_cancelled("billing", "x", 4_000, 5_000),
            "it was due before"
        );
        assert!(!is_cancelled("billing", "y", 4_000, 6_000));
        assert!(!is_cancelled("claims", "x", 4_000, 6_000));
    }

    #[test]
    fn cancellation_of_one_user_leaves_others() {
        let mut log = log(&[]);
        take_in(&mut log, 5, r#"{"cancel":[{"id":"x","user":"u"}]}"#, None);
        let is_cancelled = |user: &str| {
            let (source, user) = ("billing".parse().unwrap(), user.parse().unwrap());
            log.is_cancelled(&source, "x", &user, 4_000, 6_000)
        };
        assert!(is_cancelled("u") && !is_cancelled("v"));
    }
}
