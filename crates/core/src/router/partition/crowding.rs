//! Reminders that wait for a slow instance. Live reminders keep their events in memory, which the
//! instance shares with all others. So what waits for a slow instance is parked, and read back
//! ahead of it like any mail. Until it answers quickly again, what arrives for it is parked at
//! once.

use std::time::Duration;

use super::{Router, Timer};
use crate::router::instance_queue::Watch;
use crate::router::keys::{InstanceKey, UserKey};
use crate::router::user::State;
use crate::router::{Company, Now};

/// An instance is slow when a request has been under way for this part of the time in which it must
/// be answered. Most answer much earlier, and parking costs more than a short wait.
const SLOW_PART: u32 = 8;

impl Router {
    /// A shared delivery begins: arms the first look at what waits behind it.
    pub(super) fn watch_crowd(&mut self, now: Now, number: InstanceKey, is_slow: bool) {
        let at =
            now.instant + (self.settings.turn_timeout / SLOW_PART).max(Duration::from_millis(1));
        self.queues[number].watch = Some(Watch { at, is_slow });
        self.timers.insert((at, Timer::Crowded(number)));
    }

    /// The delivery is over.
    pub(super) fn unwatch_crowd(&mut self, number: InstanceKey) {
        let queue = &mut self.queues[number];
        if let Some(Watch { at, is_slow }) = queue.watch.take() {
            queue.is_crowded &= is_slow;
            self.timers.remove(&(at, Timer::Crowded(number)));
        }
    }

    /// The delivery takes long: parks the live reminders that wait behind it.
    pub(super) fn park_the_crowd(&mut self, now: Now, number: InstanceKey) {
        let tickets = self.queues[number].tracks[Company::Shared].ready.iter();
        let waits = |user: &UserKey| {
            self.users[*user].work().has_live() && !self.users[*user].work().is_sent()
        };
        let current = tickets
            .filter(|ticket| self.is_current(**ticket, number))
            .map(|ticket| ticket.user);
        let crowd: Vec<_> = current.filter(waits).collect();
        self.queues[number].is_crowded |= !crowd.is_empty();
        crowd
            .into_iter()
            .for_each(|user| self.leave_line(now, user));
        self.watch_crowd(now, number, true);
    }

    /// Returns true if live reminders of the user would wait behind others at every possible
    /// instance.
    pub(super) fn is_crowded_out(&self, user: UserKey, queues: &[&[InstanceKey]]) -> bool {
        self.users[user].work().has_live()
            && queues
                .iter()
                .copied()
                .flatten()
                .all(|queue| self.queues[*queue].is_crowded)
    }

    /// Moves the user's waiting reminders to the mailbox. On an attempt, the next associate may be
    /// quicker.
    pub(super) fn leave_line(&mut self, now: Now, user: UserKey) {
        let work = self.users[user].work_mut();
        work.state = State::Idle;
        let is_attempt = work.attempt.is_some();
        let waiting = if is_attempt {
            Default::default()
        } else {
            std::mem::take(&mut work.waiting)
        };
        for entry in waiting {
            self.park(now, user, entry);
        }
        self.touched_users.push_back(user);
    }
}
