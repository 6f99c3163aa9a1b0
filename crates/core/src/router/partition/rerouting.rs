//! Errands: live reminders of a user who has no way of its own go to an associate, before the
//! mailbox.
//!
//! The associates are tried in order: the routes are looked up (they may be another partition's),
//! the connection is confirmed at the instance, and what waits is delivered with the associate as
//! the recipient. An instance that is silent or refuses is passed by; what is left when all were
//! tried, or the time is over, goes to the mailbox. The user comes first: where a route of its own
//! becomes usable before the delivery was sent, the attempt ends.
//!
//! Reminders that arrive meanwhile wait behind, so an associate gets them in order. Only the user's
//! own associates are looked at, so there are no chains; and a route that turns out wrong is its
//! own partition's to drop.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use smallvec::smallvec;

use super::deliveries::Answered;
use super::{Router, State, Timer};
use crate::router::keys::UserKey;
use crate::router::user::{Reception, RerouteAttempt};
use crate::router::{Action, Instance, MAX_ASSOCIATES, Now, Resolution};
use bellhop_protocol::token::UserId;

impl Router {
    pub(super) fn associates_changed(&mut self, user: UserId, associates: Vec<UserId>) {
        let mut seen = BTreeSet::from([user.clone()]);
        let others = associates
            .into_iter()
            .filter(|associate| seen.insert(associate.clone()));
        let user = self.users.admit(user);
        let work = self.users[user].work_mut();
        work.associates = others.take(MAX_ASSOCIATES).collect();
        let is_sent = work.is_sent();
        if let Some(attempt) = &mut work.attempt {
            let may_get_it = |associate: &UserId| work.associates.contains(associate);
            attempt.untried.retain(may_get_it);
            if !is_sent && !attempt.associate.as_ref().is_some_and(may_get_it) {
                attempt.instances.clear();
                self.expect_no_more(user);
                self.users[user].work_mut().state = State::Idle;
            }
        }
        self.touched_users.push_back(user);
    }

    /// Takes the next step to an associate. Answers whether there was one to take.
    pub(super) fn run_attempt(
        &mut self,
        now: Now,
        user: UserKey,
        actions: &mut Vec<Action>,
    ) -> bool {
        let work = self.users[user].work_mut();
        let may_go = !work.associates.is_empty() && work.paused_until.is_none();
        if !may_go || !work.waiting.iter().any(|entry| entry.may_reroute) {
            return false;
        }
        self.want_routes(user);
        self.begin_attempt(now, user);
        self.park_what_stays(now, user);
        if self.expect(now, user) {
            if self.expects_too_much() {
                self.park_expected(now, user);
            }
            return true;
        }
        let Some(attempt) = &mut self.users[user].work_mut().attempt else {
            return false;
        };
        if attempt.until <= now.instant {
            return false;
        }
        while let Some(instance) = attempt.instances.pop_front() {
            let queue = self.queues.admit(instance);
            if self.queues[queue].is_up() {
                self.check(user, smallvec![queue]);
                return true;
            }
        }
        let Some(associate) = attempt.untried.pop_front() else {
            return false;
        };
        attempt.associate = Some(associate.clone());
        let user = &mut self.users[user];
        user.work_mut().state = State::LookingUp;
        actions.push(Action::LookUpRoutes {
            user: user.name.clone(),
            associate,
        });
        true
    }

    fn begin_attempt(&mut self, now: Now, user: UserKey) {
        let back_by = self.back_by(user);
        let begins = back_by.map_or(now.instant, |at| at.max(now.instant));
        let until = begins + self.settings.reroute_timeout;
        let work = self.users[user].work_mut();
        if work.attempt.is_none() {
            let untried = work.associates.iter().cloned().collect();
            work.attempt = Some(RerouteAttempt {
                back_by,
                until,
                untried,
                associate: None,
                instances: VecDeque::new(),
            });
            self.timers.insert((until, Timer::GiveUp(user)));
        }
    }

    /// Parks the reminders that only the user may get, as soon as none is before them.
    fn park_what_stays(&mut self, now: Now, user: UserKey) {
        while self.users[user]
            .work()
            .waiting
            .front()
            .is_some_and(|entry| !entry.may_reroute)
        {
            let Some(entry) = self.users[user].work_mut().waiting.pop_front() else {
                return;
            };
            self.park(now, user, entry);
        }
    }

    pub(super) fn end_attempt(&mut self, user: UserKey) {
        if let Some(RerouteAttempt { until, .. }) = self.users[user].work().attempt {
            self.users[user].work_mut().attempt = None;
            self.timers.remove(&(until, Timer::GiveUp(user)));
        }
    }

    /// The user comes first, unless the reminders are with the associate's instance already.
    pub(super) fn prefer_own_route(&mut self, user: UserKey) {
        let work = self.users[user].work();
        if work.attempt.is_none() || work.state == State::Idle || work.is_sent() {
            return;
        }
        if self.has_own_way(user) {
            self.expect_no_more(user);
            self.end_attempt(user);
            self.users[user].work_mut().state = State::Idle;
        } else {
            self.want_routes(user);
        }
    }

    /// No associate took these, so they go behind the mail.
    pub(super) fn queue_behind_mail(&mut self, now: Now, user: UserKey) {
        if self.users[user].work().has_live() && self.users[user].mailbox().is_in_use() {
            for entry in std::mem::take(&mut self.users[user].work_mut().waiting) {
                self.park(now, user, entry);
            }
        }
    }

    /// The time is over. A reminder that is already with an instance waits for its answer.
    pub(super) fn give_up(&mut self, user: UserKey) {
        let work = self.users[user].work_mut();
        if !work.is_sent() {
            work.state = State::Idle;
        }
        self.touched_users.push_back(user);
    }

    pub(super) fn routes_found(
        &mut self,
        user: &UserId,
        associate: &UserId,
        instances: Vec<Arc<Instance>>,
    ) {
        let Some(user) = self
            .users
            .find(user)
            .filter(|user| self.users[*user].work().state == State::LookingUp)
        else {
            return;
        };
        let work = self.users[user].work_mut();
        let Some(attempt) = &mut work.attempt else {
            return;
        };
        // It may be the late answer for an attempt before this one.
        if attempt.associate.as_ref() == Some(associate) {
            attempt.instances = instances.into();
            work.state = State::Idle;
            self.touched_users.push_back(user);
        }
    }

    /// The associate to whom the user's reminders are being brought.
    pub(super) fn associate(&self, user: UserKey) -> Option<UserId> {
        self.users[user].work().attempt.as_ref()?.associate.clone()
    }

    /// Returns the current recipient of the user's reminders.
    pub(super) fn recipient(&self, user: UserKey) -> UserId {
        self.associate(user)
            .unwrap_or_else(|| self.users[user].name.clone())
    }

    /// Offers refused reminders to the next associate. Otherwise what has come meanwhile is an
    /// attempt of its own.
    pub(super) fn attempt_is_due(
        &mut self,
        now: Now,
        user: UserKey,
        to: &UserId,
        accepted: Answered,
        is_any_refused: bool,
    ) {
        for (entry, Reception { by, .. }) in accepted {
            // An attempt goes to one instance at a time.
            if let Some(instance) = by.into_iter().next() {
                self.rerouted(
                    now,
                    user,
                    entry,
                    Resolution::Rerouted {
                        instance,
                        to: to.clone(),
                    },
                );
            }
        }
        if !is_any_refused {
            self.end_attempt(user);
        }
    }
}
