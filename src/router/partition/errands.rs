//! Errands: live reminders of a user who has no way of its own go to an associate, before the mailbox.
//!
//! The associates are tried in order: the routes are looked up (they may be another partition's), the connection is
//! confirmed at the instance, and what waits is delivered with the associate as the recipient. Whoever is silent or refuses
//! is passed by; what is left when all were tried, or the time is over, goes to the mailbox. The user comes first: where a
//! route of its own becomes usable before the delivery was sent, the errand ends.
//!
//! What arrives meanwhile waits behind, so an associate gets what it gets in order. Nobody's associates but the user's own
//! are looked at, so there are no chains; and a route that turns out wrong is its own partition's to drop.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Lane, Partition, Seat, State, Timer};
use crate::router::user::Errand;
use crate::router::{Action, Entry, Fate, Instance, MAX_ASSOCIATES, Now};
use crate::token::UserId;

impl Partition {
    pub(super) fn associates_changed(&mut self, user: UserId, associates: Vec<UserId>) {
        let mut seen = BTreeSet::from([user.clone()]);
        let others = associates.into_iter().filter(|associate| seen.insert(associate.clone()));
        self.user(&user).associates = others.take(MAX_ASSOCIATES).collect();
        self.touched_users.insert(user);
    }

    /// Takes the next step to an associate. Answers whether there was one to take.
    pub(super) fn run_errand(&mut self, now: Now, user: &UserId, actions: &mut Vec<Action>) -> bool {
        let state = self.user(user);
        let may_go = !state.associates.is_empty() && state.paused_until.is_none();
        if !may_go || !state.waiting.iter().any(|entry| entry.may_reroute) {
            return false;
        }
        self.want_routes(user);
        self.begin_errand(now, user);
        self.park_what_stays(now, user);
        let Some(errand) = self.users.get_mut(user).and_then(|state| state.errand.as_mut()) else { return false };
        if errand.until <= now.instant {
            return false;
        }
        while let Some(instance) = errand.instances.pop_front() {
            if self.lanes.get(&instance).is_none_or(Lane::is_up) {
                let seat = Seat { user: user.clone(), errand: Some(errand.number) };
                self.user(user).state = State::Checking(instance.clone());
                self.lane(&instance).unconfirmed.push_back(seat);
                return true;
            }
        }
        let Some(associate) = errand.untried.pop_front() else { return false };
        errand.associate = Some(associate.clone());
        self.user(user).state = State::LookingUp;
        actions.push(Action::LookUpRoutes { user: user.clone(), associate });
        true
    }

    fn begin_errand(&mut self, now: Now, user: &UserId) {
        let until = now.instant + self.settings.reroute_timeout;
        let number = self.errands + 1;
        let state = self.user(user);
        if state.errand.is_none() {
            let untried = state.associates.iter().cloned().collect();
            state.errand = Some(Errand { number, until, untried, associate: None, instances: VecDeque::new() });
            self.errands = number;
            self.timers.insert((until, Timer::GiveUp(user.clone())));
        }
    }

    /// What is the user's alone goes to the mailbox as soon as nothing is before it.
    fn park_what_stays(&mut self, now: Now, user: &UserId) {
        while self.user(user).waiting.front().is_some_and(|entry| !entry.may_reroute) {
            let Some(entry) = self.user(user).waiting.pop_front() else { return };
            self.park(now, user.clone(), entry);
        }
    }

    pub(super) fn end_errand(&mut self, user: &UserId) {
        if let Some(errand) = self.users.get_mut(user).and_then(|state| state.errand.take()) {
            self.timers.remove(&(errand.until, Timer::GiveUp(user.clone())));
        }
    }

    /// The user comes first, unless the reminders are with the associate's instance already.
    pub(super) fn prefer_own_route(&mut self, now: Now, user: &UserId) {
        let is_under_way = |state: &State| !matches!(state, State::Idle | State::Delivering(_));
        let has_left = self.users.get(user).is_some_and(|user| user.errand.is_some() && is_under_way(&user.state));
        if !has_left {
            return;
        }
        if self.best_route(now, user).is_some() {
            self.end_errand(user);
            self.user(user).state = State::Idle;
        } else {
            self.want_routes(user);
        }
    }

    /// No associate took these, so they go behind the mail.
    pub(super) fn queue_behind_mail(&mut self, now: Now, user: &UserId) {
        let state = self.user(user);
        if state.has_live() && state.mailbox.is_in_use() {
            for entry in std::mem::take(&mut state.waiting) {
                self.park(now, user.clone(), entry);
            }
        }
    }

    /// The time is over. What is with an instance already has its answer to wait for.
    pub(super) fn give_up(&mut self, user: &UserId) {
        if let Some(state) = self.users.get_mut(user)
            && !matches!(state.state, State::Delivering(_))
        {
            state.state = State::Idle;
        }
        self.touched_users.insert(user.clone());
    }

    pub(super) fn routes_found(&mut self, user: UserId, associate: &UserId, instances: Vec<Arc<Instance>>) {
        let Some(state) = self.users.get_mut(&user).filter(|state| state.state == State::LookingUp) else { return };
        let Some(errand) = &mut state.errand else { return };
        // It may be the late answer for an errand before this one.
        if errand.associate.as_ref() == Some(associate) {
            errand.instances = instances.into();
            state.state = State::Idle;
            self.touched_users.insert(user);
        }
    }

    /// The associate that a seat's errand goes to now.
    pub(super) fn associate(&self, seat: &Seat) -> Option<UserId> {
        seat.errand.and_then(|_| self.users.get(&seat.user)?.errand.as_ref()?.associate.clone())
    }

    /// A heartbeat has told whether the associate is there. One that is not is passed by when the seat is released; and so
    /// is one whose instance went down meanwhile.
    pub(super) fn errand_checked(&mut self, instance: &Arc<Instance>, seat: &Seat, connected: &BTreeSet<UserId>) {
        let is_there = self.associate(seat).is_some_and(|associate| connected.contains(&associate));
        if is_there && self.is_current(seat) && self.lane(instance).is_up() {
            self.user(&seat.user).state = State::Ready(instance.clone());
            self.lane(instance).ready.push_back(seat.clone());
        }
    }

    /// What was refused is brought to the next one. Otherwise what has come meanwhile is an errand of its own.
    pub(super) fn answered_to_associate(
        &mut self,
        instance: &Arc<Instance>,
        seat: &Seat,
        accepted: Vec<Entry>,
        is_any_refused: bool,
    ) {
        let Some(to) = self.associate(seat) else { return };
        for entry in accepted {
            let fate = Fate::Rerouted { instance: instance.name.clone(), to: to.clone() };
            self.settle(&seat.user, entry, fate);
        }
        if !is_any_refused {
            self.end_errand(&seat.user);
        }
    }
}
