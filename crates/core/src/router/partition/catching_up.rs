//! Catching up with routes: a user without a route may have put one just before its reminder was
//! published.
//!
//! Routes and reminders come by different ways, so a reminder can arrive before a route that was
//! put earlier. Before live reminders of a user without a route are parked or offered to
//! associates, the machine asks the shell to feed it every route that was put by then. One question
//! is under way at a time, for all users who wait, so a flood of reminders for absent users costs
//! some questions a second and nothing for each reminder. Users with mail do not wait: theirs goes
//! behind it at once.

use super::Router;
use crate::router::Action;
use crate::router::keys::UserKey;
use crate::router::user::State;

/// The users who wait for the routes.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// Users whose question is under way.
    pub asked: Vec<UserKey>,
    /// Users for whom the next question is asked.
    pub unasked: Vec<UserKey>,
}

impl Router {
    /// Lets the user wait for the routes of this moment, if that was not done for what waits.
    /// Returns whether it waits.
    pub(super) fn catch_up(&mut self, user: UserKey) -> bool {
        let known = &self.users[user];
        let work = known.work();
        let is_due = known.routes.is_empty()
            && work.has_live()
            && work.attempt.is_none()
            && !work.is_caught_up;
        if is_due {
            self.users[user].work_mut().state = State::CatchingUp;
            self.catch_up.unasked.push(user);
        }
        is_due
    }

    /// Asks for the routes of this moment, for all who wait for them.
    pub(super) fn dispatch_catch_up(&mut self, actions: &mut Vec<Action>) {
        if self.catch_up.asked.is_empty() && !self.catch_up.unasked.is_empty() {
            self.catch_up.asked = std::mem::take(&mut self.catch_up.unasked);
            actions.push(Action::CatchUpWithRoutes);
        }
    }

    /// Every route that was put before the last question is known.
    pub(super) fn caught_up(&mut self) {
        for user in std::mem::take(&mut self.catch_up.asked) {
            let work = self.users[user].work_mut();
            (work.state, work.is_caught_up) = (State::Idle, true);
            self.touched_users.push_back(user);
        }
    }
}
