//! Instances: routes to them, what they are asked, and what their answers mean.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use smallvec::smallvec;

use super::{Router, Timer};
use crate::router::instance_queue::{Asked, Check, Health, Ticket};
use crate::router::keys::{InstanceKey, InstanceKeys, UserKey};
use crate::router::user::{Route, State};
use crate::router::{Action, Instance, MAX_ROUTES, NoAnswer, Now};
use bellhop_protocol::token::{InstanceName, UserId};

/// The turn of users who are named in a probe or asked about ahead: none of theirs.
pub(super) const NO_TURN: u64 = 0;

impl Router {
    pub(super) fn route_up(
        &mut self,
        now: Now,
        user: UserId,
        instance: Arc<Instance>,
        revision: u64,
    ) {
        let user = self.users.admit(user);
        let routes = &self.users[user].routes;
        let is_there = |route: &Route| self.queues[route.queue].instance.name == instance.name;
        if routes
            .iter()
            .any(|route| is_there(route) && route.revision >= revision)
        {
            return;
        }
        let replaced = self.remove_route(user, &instance.name, revision);
        replaced
            .into_iter()
            .for_each(|route| self.release_route(user, &route));
        let routes = &self.users[user].routes;
        let place = routes.partition_point(|route| route.revision > revision);
        if place >= MAX_ROUTES {
            return;
        }
        let number = self.queues.admit(instance);
        let routes = &mut self.users[user].routes;
        routes.insert(
            place,
            Route {
                queue: number,
                revision,
                held_until: None,
                is_fresh: false,
                is_renewed: false,
            },
        );
        let forgotten = if routes.len() > MAX_ROUTES {
            routes.pop()
        } else {
            None
        };
        if let Some(at) = self.users[user].work().paused_until {
            self.users[user].work_mut().paused_until = None;
            self.timers.remove(&(at, Timer::Resume(user)));
        }
        forgotten
            .into_iter()
            .for_each(|route| self.release_route(user, &route));
        let queue = &mut self.queues[number];
        queue.routes += 1;
        // A put is a sign of life: a down instance is probed at once instead of at the end of its
        // back-off.
        if let Health::Down(at) = queue.health {
            queue.health = Health::Down(now.instant);
            self.timers.remove(&(at, Timer::Probe(number)));
            self.timers.insert((now.instant, Timer::Probe(number)));
        }
        self.touched_users.push_back(user);
    }

    pub(super) fn route_down(
        &mut self,
        now: Now,
        user: &UserId,
        instance: &InstanceName,
        revision: u64,
    ) {
        if let Some(user) = self.users.find(user) {
            if let Some(route) = self.remove_route(user, instance, revision) {
                self.note_left(now, user, route.queue);
                self.release_route(user, &route);
            }
            self.touched_users.push_back(user);
        }
    }

    /// Removes the user's route at an instance unless it is newer than `revision`.
    pub(super) fn remove_route(
        &mut self,
        user: UserKey,
        instance: &InstanceName,
        revision: u64,
    ) -> Option<Route> {
        let routes = &mut self.users[user].routes;
        let is_there = |route: &Route| self.queues[route.queue].instance.name == *instance;
        let place = routes
            .iter()
            .position(|route| is_there(route) && route.revision <= revision)?;
        Some(routes.remove(place))
    }

    /// A route is remembered no more.
    fn release_route(&mut self, user: UserKey, route: &Route) {
        let queue = self.touch(route.queue);
        queue.routes -= 1;
        queue.wanted.remove(&user);
    }

    /// The instance says that the user is not connected there.
    ///
    /// That was true of the route it was asked about; one put since stays, and is asked about in
    /// its turn.
    pub(super) fn drop_route(
        &mut self,
        user: UserKey,
        queue: InstanceKey,
        revision: u64,
        actions: &mut Vec<Action>,
    ) {
        if self.users[user]
            .route_mut(queue)
            .is_none_or(|route| route.revision != revision)
        {
            return;
        }
        let instance = self.queues[queue].instance.name.clone();
        let removed = self.remove_route(user, &instance, revision);
        removed
            .into_iter()
            .for_each(|route| self.release_route(user, &route));
        let user = self.users[user].name.clone();
        actions.push(Action::DropRoute {
            user,
            instance,
            revision,
        });
    }

    pub(super) fn heartbeat_answered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        answer: Result<Vec<UserId>, NoAnswer>,
        actions: &mut Vec<Action>,
    ) {
        let Some(queue) = self.queues.find(instance) else {
            return;
        };
        let Some(Check { asked, is_probe }) = self.touch(queue).checking.take() else {
            return;
        };
        let Ok(connected) = answer else {
            self.instance_down(now, queue);
            return asked
                .iter()
                .for_each(|asked| self.checked(queue, asked.ticket, false));
        };
        self.queues[queue].silent_since = None;
        let connected: HashSet<UserId> = connected.into_iter().collect();
        if is_probe {
            self.disarm_probe(queue);
            let wanted = self.queues[queue].comes_up();
            self.touched_users.extend(wanted);
        }
        for Asked {
            ticket,
            who,
            revision,
        } in &asked
        {
            let is_there = connected.contains(who);
            let is_about_user = self
                .users
                .get(ticket.user)
                .is_some_and(|user| user.name == *who);
            let is_awaited = is_probe || ticket.turn != NO_TURN;
            match (is_about_user, is_there) {
                (true, true) => self.confirmed(now, ticket.user, queue, is_awaited),
                (true, false) => self.drop_route(ticket.user, queue, *revision, actions),
                // An associate's route is its own partition's; and the user who has this number now
                // was not asked about.
                (false, _) => {}
            }
            if is_awaited || !is_there {
                self.checked(queue, *ticket, is_there);
            }
        }
    }

    /// The connection is held from now on. If something awaits that, it is for what comes next,
    /// too.
    fn confirmed(&mut self, now: Now, user: UserKey, queue: InstanceKey, is_awaited: bool) {
        let held_until = self.held_from(now);
        if let Some(route) = self.users[user].route_mut(queue) {
            route.is_fresh |= is_awaited;
            route.held_until = held_until;
            self.note_held(now, user);
        }
    }

    /// Until when a connection that is confirmed now counts as held. Without lease every delivery
    /// is to be asked for.
    pub(super) fn held_from(&self, now: Now) -> Option<Instant> {
        let lease = self.settings.lease;
        (!lease.is_zero()).then(|| now.instant + lease)
    }

    /// The check of one connection is over.
    fn checked(&mut self, queue: InstanceKey, ticket: Ticket, is_there: bool) {
        self.touched_users.push_back(ticket.user);
        if !self.is_current(ticket, queue) {
            return;
        }
        let is_up = self.queues[queue].is_up();
        let work = self.users[ticket.user].work_mut();
        let may_board = is_there && is_up && work.attempt.is_some();
        if let State::Checking(queues) = &mut work.state {
            queues.retain(|open| *open != queue);
            if queues.is_empty() {
                work.state = State::Idle;
            }
        }
        if may_board {
            self.board(ticket.user, smallvec![queue]);
        }
    }

    /// Queues for a heartbeat at each of these instances.
    pub(super) fn check(&mut self, user: UserKey, queues: InstanceKeys) {
        let ticket = self.begin_turn(user, State::Checking(queues.clone()));
        for queue in queues {
            self.touch(queue).unconfirmed.push_back(ticket);
        }
    }

    /// The user has no other way than instances that are down.
    pub(super) fn want_routes(&mut self, user: UserKey) {
        for route in &self.users[user].routes {
            self.touched_queues.insert(route.queue);
            self.queues[route.queue].wanted.insert(user);
        }
    }

    pub(super) fn instance_down(&mut self, now: Now, number: InstanceKey) {
        let backoff = self.settings.instance_backoff;
        self.disarm_probe(number);
        let queue = self.touch(number);
        let unread = std::mem::take(&mut queue.unread);
        let stranded = queue.goes_down(now.instant, backoff);
        if let Health::Down(at) = queue.health {
            self.timers.insert((at, Timer::Probe(number)));
        }
        for user in unread {
            self.users[user].work_mut().state = State::Idle;
            self.touched_users.push_back(user);
        }
        for ticket in stranded
            .into_iter()
            .filter(|ticket| self.is_current(*ticket, number))
            .collect::<Vec<_>>()
        {
            match self.users[ticket.user].work().state {
                State::Delivering(_) => self.leave_batch(now, ticket.user, number),
                _ => self.checked(number, ticket, false),
            }
        }
    }

    /// The back-off of a down instance is over: ask it about users who want it, if there are any.
    pub(super) fn probe(
        &mut self,
        now: Now,
        at: Instant,
        number: InstanceKey,
        actions: &mut Vec<Action>,
    ) {
        let most = self.settings.heartbeat_users;
        let queue = &mut self.queues[number];
        if queue.health != Health::Down(at) {
            return;
        }
        queue.health = Health::Down(now.instant);
        if let Some(check) = &mut queue.checking {
            check.is_probe = true; // Its answer decides.
            return;
        }
        let revision_if_wanted = |user_number: &UserKey| {
            let user = &self.users[*user_number];
            let has_something = user.mailbox().is_in_use() || user.work().attempt.is_some();
            let route = user
                .routes
                .iter()
                .find(|route| has_something && route.queue == number)?;
            let ticket = Ticket {
                user: *user_number,
                turn: NO_TURN,
            };
            Some(Asked {
                ticket,
                who: user.name.clone(),
                revision: route.revision,
            })
        };
        let asked: Vec<_> = queue
            .wanted
            .iter()
            .filter_map(revision_if_wanted)
            .take(most)
            .collect();
        if asked.is_empty() {
            // No user waits for it: the next reminder finds out whether it is back.
            let wanted = queue.comes_up();
            self.touched_users.extend(wanted);
            self.touched_queues.insert(number);
        } else {
            self.ask(number, asked, true, actions);
        }
    }

    pub(super) fn disarm_probe(&mut self, queue: InstanceKey) {
        if let Health::Down(at) = self.queues[queue].health {
            self.timers.remove(&(at, Timer::Probe(queue)));
        }
    }

    pub(super) fn dispatch_heartbeat(&mut self, number: InstanceKey, actions: &mut Vec<Action>) {
        let most = self.settings.heartbeat_users;
        let mut asked = Vec::new();
        loop {
            let queue = &mut self.queues[number];
            if queue.checking.is_some() || !queue.is_up() || asked.len() >= most {
                break;
            }
            let Some(ticket) = queue.unconfirmed.pop_front() else {
                break;
            };
            if !self.is_current(ticket, number) {
                continue;
            }
            match self.revision_for(ticket.user, number) {
                Some(revision) => asked.push(Asked {
                    who: self.recipient(ticket.user),
                    ticket,
                    revision,
                }),
                None => self.checked(number, ticket, false),
            }
        }
        self.ask_ahead(number, &mut asked);
        if !asked.is_empty() {
            self.ask(number, asked, false, actions);
        }
    }

    /// Sends a heartbeat.
    fn ask(
        &mut self,
        queue: InstanceKey,
        asked: Vec<Asked>,
        is_probe: bool,
        actions: &mut Vec<Action>,
    ) {
        let users = named(&asked);
        let queue = self.touch(queue);
        queue.checking = Some(Check { asked, is_probe });
        actions.push(Action::Heartbeat {
            instance: queue.instance.clone(),
            users,
        });
    }

    /// The revision of the route by which the user comes to the instance. An attempt's route is not
    /// this partition's to judge.
    pub(super) fn revision_for(&mut self, user: UserKey, queue: InstanceKey) -> Option<u64> {
        let user = &mut self.users[user];
        match user.work().attempt {
            None => user.route_mut(queue).map(|route| route.revision),
            Some(_) => Some(0),
        }
    }

    /// Nothing refers to it any more.
    pub(super) fn remove_queue(&mut self, queue: InstanceKey) {
        self.touched_queues.remove(&queue);
        self.queues.remove(queue);
    }
}

/// About whom these ask. Several users may have the same associate.
fn named(asked: &[Asked]) -> Vec<UserId> {
    let mut named = HashSet::new();
    asked
        .iter()
        .map(|asked| &asked.who)
        .filter(|who| named.insert(*who))
        .cloned()
        .collect()
}
