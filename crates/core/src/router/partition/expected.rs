//! Short absences: a user who held a connection a moment ago is expected back, and new reminders
//! wait for the user alone.
//!
//! The wait is the first stage of an attempt. It ends when the user has a usable connection, or
//! after [`Settings::reroute_after`]; then the attempt goes to the associates. What waits stays in
//! memory, so that it can go on to an associate. So there is a bound for all users of the partition
//! together. What exceeds it is parked, and is the user's alone.
//!
//! [`Settings::reroute_after`]: crate::router::Settings::reroute_after

use std::time::Instant;

use super::{Router, State, Timer};
use crate::router::keys::{InstanceKey, UserKey};
use crate::router::{Entry, Now};

/// The amount that waits in memory for users who are expected back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    reminders: usize,
    bytes: usize,
}

impl Held {
    /// Adds up reminders.
    pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        entries.into_iter().fold(Self::default(), |held, entry| {
            held.plus(Self {
                reminders: 1,
                bytes: entry.bytes,
            })
        })
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            reminders: self.reminders + other.reminders,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            reminders: self.reminders - other.reminders,
            bytes: self.bytes - other.bytes,
        }
    }
}

impl Router {
    /// Notes that the user holds a connection. It matters for users with associates alone.
    pub(super) fn note_held(&mut self, now: Now, user: UserKey) {
        if !self.users[user].work().associates.is_empty() {
            self.users[user].work_mut().held_at = Some(now.instant);
        }
    }

    /// Notes that a route was deleted. Its connection was held until then, or until its instance
    /// became silent.
    pub(super) fn note_left(&mut self, now: Now, user: UserKey, queue: InstanceKey) {
        let until = self.queues[queue].silent_since.unwrap_or(now.instant);
        if !self.users[user].work().associates.is_empty() {
            let work = self.users[user].work_mut();
            work.held_at = work.held_at.max(Some(until));
        }
    }

    /// Returns when associates may get the user's reminders: some time after a connection was held.
    /// None if no connection is known.
    pub(super) fn back_by(&self, user: UserKey) -> Option<Instant> {
        let user = &self.users[user];
        let silent = user
            .routes
            .iter()
            .map(|route| self.queues[route.queue].silent_since);
        let held_at = silent.fold(user.work().held_at, Option::max)?;
        Some(held_at + self.settings.reroute_after)
    }

    /// Waits for a user on whose attempt nothing was tried yet. Returns false if the user is not
    /// expected back, or the time is over.
    pub(super) fn expect(&mut self, now: Now, user: UserKey) -> bool {
        let work = self.users[user].work();
        let back_by = work.attempt.as_ref().and_then(|attempt| attempt.back_by);
        let Some(until) = back_by.filter(|until| *until > now.instant) else {
            return false;
        };
        self.expected = self.expected.plus(Held::of(&work.waiting));
        self.users[user].work_mut().state = State::Expected;
        self.timers.insert((until, Timer::Expected(user)));
        true
    }

    /// Notes that one more reminder waits for an expected user.
    pub(super) fn expect_with(&mut self, user: UserKey, bytes: usize) {
        if self.users[user].work().state == State::Expected {
            self.expected = self.expected.plus(Held {
                reminders: 1,
                bytes,
            });
        }
    }

    /// Returns whether more waits for expected users than may.
    pub(super) fn expects_too_much(&self) -> bool {
        let (reminders, bytes) = self.settings.expected_most;
        self.expected.reminders > reminders || self.expected.bytes > bytes
    }

    /// Stops waiting: the user has come, or the time is over.
    pub(super) fn expect_no_more(&mut self, user: UserKey) {
        let work = self.users[user].work();
        if work.state != State::Expected {
            return;
        }
        self.expected = self.expected.minus(Held::of(&work.waiting));
        if let Some(until) = work.attempt.as_ref().and_then(|attempt| attempt.back_by) {
            self.timers.remove(&(until, Timer::Expected(user)));
        }
        self.users[user].work_mut().state = State::Idle;
    }

    /// Gives up waiting for a user: what waits is parked, for the user alone.
    pub(super) fn park_expected(&mut self, now: Now, user: UserKey) {
        self.expect_no_more(user);
        self.end_attempt(user);
        for entry in std::mem::take(&mut self.users[user].work_mut().waiting) {
            self.park(now, user, entry);
        }
    }
}
