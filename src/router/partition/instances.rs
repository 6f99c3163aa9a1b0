//! Instances: routes to them, what they are asked, and what their answers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{Partition, Timer};
use crate::reminder::finished::REROUTED_BYTES;
use crate::router::lane::{Check, Health, Lane, Part, Seat, grown};
use crate::router::twins::Place;
use crate::router::user::{Route, State};
use crate::router::{Action, Entry, Fate, Instance, Item, NoAnswer, Now, Refusal, Share};
use crate::token::{InstanceName, UserId};

impl Partition {
    pub(super) fn route_up(&mut self, now: Now, user: UserId, instance: Arc<Instance>, revision: u64) {
        let routes = &mut self.user(&user).routes;
        if routes.iter().any(|route| route.instance.name == instance.name && route.revision >= revision) {
            return;
        }
        self.remove_route(&user, &instance.name, revision);
        let state = self.user(&user);
        state.routes.insert(0, Route { instance: instance.clone(), revision, held_until: None });
        state.routes.sort_by_key(|route| std::cmp::Reverse(route.revision));
        if let Some(at) = state.paused_until.take() {
            self.timers.remove(&(at, Timer::Resume(user.clone())));
        }
        let lane = self.lanes.entry(instance.clone()).or_default();
        lane.routes += 1;
        // A put is a sign of life: a down instance is probed at once instead of at the end of its back-off.
        if let Health::Down(at) = lane.health {
            lane.health = Health::Down(now.instant);
            self.timers.remove(&(at, Timer::Probe(instance.clone())));
            self.timers.insert((now.instant, Timer::Probe(instance)));
        }
        self.touched_users.insert(user);
    }

    pub(super) fn route_down(&mut self, user: &UserId, instance: &InstanceName, revision: u64) {
        if self.users.contains_key(user) {
            self.remove_route(user, instance, revision);
            self.touched_users.insert(user.clone());
        }
    }

    /// Removes the user's route at an instance unless it is newer than `revision`.
    pub(super) fn remove_route(&mut self, user: &UserId, instance: &InstanceName, revision: u64) {
        let routes = &mut self.user(user).routes;
        let place = routes.iter().position(|route| route.instance.name == *instance && route.revision <= revision);
        if let Some(place) = place {
            let route = routes.remove(place);
            let lane = self.lane(&route.instance);
            lane.routes -= 1;
            lane.wanted.remove(user);
            self.touched_lanes.insert(route.instance);
        }
    }

    /// The instance says that the user is not connected there.
    ///
    /// That was true of the route it was asked about; one put since stays, and is asked about in its turn.
    pub(super) fn drop_route(
        &mut self,
        user: &UserId,
        instance: &Arc<Instance>,
        revision: u64,
        actions: &mut Vec<Action>,
    ) {
        if self.user(user).route_mut(instance).is_none_or(|route| route.revision != revision) {
            return;
        }
        self.remove_route(user, &instance.name, revision);
        let (user, instance) = (user.clone(), instance.name.clone());
        actions.push(Action::DropRoute { user, instance, revision });
    }

    pub(super) fn delivered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        answer: Result<Vec<(usize, usize, Refusal)>, NoAnswer>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.lanes.get_mut(instance).and_then(|lane| lane.delivering.take()) else { return };
        self.touched_lanes.insert(instance.clone());
        for part in &request {
            self.user(&part.seat.user).state = State::Idle;
            self.touched_users.insert(part.seat.user.clone());
        }
        match answer {
            Err(_) => self.instance_down(now, instance),
            Ok(refused) => {
                let mut refusals: BTreeMap<usize, BTreeMap<usize, Refusal>> = BTreeMap::new();
                for (place, at, why) in refused {
                    refusals.entry(place).or_default().insert(at, why);
                }
                for (place, part) in request.into_iter().enumerate() {
                    let refusals = refusals.remove(&place).unwrap_or_default();
                    self.answered(now, instance, &part, &refusals, actions);
                }
            }
        }
    }

    /// One user's part of an answered delivery.
    fn answered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        part: &Part,
        refusals: &BTreeMap<usize, Refusal>,
        actions: &mut Vec<Action>,
    ) {
        let accepted = self.take_accepted(part, refusals);
        if !accepted.is_empty()
            && let Some(lane) = self.lanes.get_mut(instance)
        {
            lane.accepted();
        }
        match part.seat.errand {
            None => self.answered_to_user(now, instance, part, refusals, accepted, actions),
            Some(_) => self.answered_to_associate(instance, &part.seat, accepted, !refusals.is_empty()),
        }
    }

    /// Takes what was accepted out of what waits; what was refused stays, in order.
    fn take_accepted(&mut self, Part { seat, count, .. }: &Part, refusals: &BTreeMap<usize, Refusal>) -> Vec<Entry> {
        let state = self.user(&seat.user);
        let sent: Vec<Entry> = state.waiting.drain(..*count).collect();
        let (refused, accepted): (Vec<_>, Vec<_>) =
            sent.into_iter().enumerate().partition(|(at, _)| refusals.contains_key(at));
        for (_, entry) in refused.into_iter().rev() {
            state.waiting.push_front(entry);
        }
        accepted.into_iter().map(|(_, entry)| entry).collect()
    }

    fn answered_to_user(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        Part { seat: Seat { user, .. }, revision, .. }: &Part,
        refusals: &BTreeMap<usize, Refusal>,
        accepted: Vec<Entry>,
        actions: &mut Vec<Action>,
    ) {
        let lease = self.settings.lease;
        let backoff = self.settings.busy_backoff;
        let state = self.user(user);
        if !accepted.is_empty() {
            state.busy = 0;
            if let Some(route) = state.route_mut(instance) {
                // Without lease this very answer would do for the next delivery, and every one is to be asked for.
                route.held_until = (!lease.is_zero()).then(|| now.instant + lease);
            }
        }
        if refusals.values().any(|why| *why == Refusal::Busy) {
            let until = now.instant + grown(backoff, state.busy);
            state.busy = state.busy.saturating_add(1);
            if let Some(before) = state.paused_until.replace(until) {
                self.timers.remove(&(before, Timer::Resume(user.clone())));
            }
            self.timers.insert((until, Timer::Resume(user.clone())));
        }
        if refusals.values().any(|why| *why == Refusal::NotConnected) {
            self.drop_route(user, instance, *revision, actions);
        }
        for entry in accepted {
            self.twins.remember(now.instant, &entry, Place::Accepted);
            self.settle(user, entry, Fate::Delivered(instance.name.clone()));
        }
    }

    pub(super) fn heartbeat_answered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        answer: Result<Vec<UserId>, NoAnswer>,
        actions: &mut Vec<Action>,
    ) {
        let Some(lane) = self.lanes.get_mut(instance) else { return };
        let Some(Check { seats, is_probe }) = lane.checking.take() else { return };
        self.touched_lanes.insert(instance.clone());
        let connected: BTreeSet<UserId> = match answer {
            Ok(connected) => connected.into_iter().collect(),
            Err(_) => {
                self.release(instance, &seats);
                return self.instance_down(now, instance);
            }
        };
        if is_probe {
            self.disarm_probe(instance);
            let wanted = self.lane(instance).comes_up();
            self.touched_users.extend(wanted);
        }
        let held_until = Some(now.instant + self.settings.lease);
        for (seat, revision) in &seats {
            match seat {
                Seat { errand: Some(_), .. } => self.errand_checked(instance, seat, &connected),
                Seat { user, .. } if connected.contains(user) => {
                    if let Some(route) = self.user(user).route_mut(instance) {
                        route.held_until = held_until;
                    }
                }
                Seat { user, .. } => self.drop_route(user, instance, *revision, actions),
            }
        }
        self.release(instance, &seats);
    }

    /// Those whose check is over may go on.
    fn release(&mut self, instance: &Arc<Instance>, seats: &[(Seat, u64)]) {
        for (seat, _) in seats.iter().filter(|(seat, _)| self.is_current(seat)).cloned().collect::<Vec<_>>() {
            let state = self.user(&seat.user);
            if state.state == State::Checking(instance.clone()) {
                state.state = State::Idle;
            }
            self.touched_users.insert(seat.user);
        }
    }

    /// Whether what a seat was taken for still stands.
    pub(super) fn is_current(&self, seat: &Seat) -> bool {
        let errand = self.users.get(&seat.user).and_then(|user| user.errand.as_ref());
        errand.map(|errand| errand.number) == seat.errand
    }

    /// The user has no other way than instances that are down.
    pub(super) fn want_routes(&mut self, user: &UserId) {
        let routes = self.user(user).routes.iter().map(|route| route.instance.clone());
        for instance in routes.collect::<Vec<_>>() {
            self.lane(&instance).wanted.insert(user.clone());
        }
    }

    pub(super) fn instance_down(&mut self, now: Now, instance: &Arc<Instance>) {
        let backoff = self.settings.instance_backoff;
        self.disarm_probe(instance);
        let stranded = self.lane(instance).goes_down(now.instant, backoff);
        if let Health::Down(at) = self.lane(instance).health {
            self.timers.insert((at, Timer::Probe(instance.clone())));
        }
        for seat in stranded {
            if self.is_current(&seat) {
                self.user(&seat.user).state = State::Idle;
                self.touched_users.insert(seat.user);
            }
        }
    }

    /// The back-off of a down instance is over: ask it about users who want it, if there are any.
    pub(super) fn probe(&mut self, now: Now, at: Instant, instance: &Arc<Instance>, actions: &mut Vec<Action>) {
        let most = self.settings.heartbeat_users;
        let Some(lane) = self.lanes.get_mut(instance).filter(|lane| lane.health == Health::Down(at)) else { return };
        lane.health = Health::Down(now.instant);
        if let Some(check) = &mut lane.checking {
            check.is_probe = true; // Its answer decides.
            return;
        }
        let revision_if_wanted = |user: &UserId| {
            let state = self.users.get(user).filter(|state| state.mailbox.is_in_use() || state.errand.is_some())?;
            let route = state.routes.iter().find(|route| route.instance == *instance)?;
            Some((Seat::own(user.clone()), route.revision))
        };
        let seats: Vec<_> = lane.wanted.iter().filter_map(revision_if_wanted).take(most).collect();
        if seats.is_empty() {
            // Nobody waits for it: the next reminder finds out whether it is back.
            let wanted = lane.comes_up();
            self.touched_users.extend(wanted);
            self.touched_lanes.insert(instance.clone());
        } else {
            self.ask(instance, seats, true, actions);
        }
    }

    pub(super) fn disarm_probe(&mut self, instance: &Arc<Instance>) {
        if let Some(Lane { health: Health::Down(at), .. }) = self.lanes.get(instance) {
            self.timers.remove(&(*at, Timer::Probe(instance.clone())));
        }
    }

    pub(super) fn dispatch_heartbeat(&mut self, instance: &Arc<Instance>, actions: &mut Vec<Action>) {
        let most = self.settings.heartbeat_users;
        let (mut seats, mut routeless) = (Vec::new(), Vec::new());
        while let Some(lane) = self.lanes.get_mut(instance) {
            if lane.checking.is_some() || !lane.is_up() || seats.len() >= most {
                break;
            }
            let Some(seat) = lane.unconfirmed.pop_front() else { break };
            match self.revision_for(&seat, instance) {
                Some(revision) => seats.push((seat, revision)),
                None => routeless.push((seat, 0)),
            }
        }
        self.release(instance, &routeless);
        if !seats.is_empty() {
            self.ask(instance, seats, false, actions);
        }
    }

    /// Sends a heartbeat.
    fn ask(&mut self, instance: &Arc<Instance>, seats: Vec<(Seat, u64)>, is_probe: bool, actions: &mut Vec<Action>) {
        let mut users: Vec<UserId> = Vec::with_capacity(seats.len());
        let mut named = BTreeSet::new();
        for (seat, _) in &seats {
            let name = self.associate(seat).unwrap_or_else(|| seat.user.clone());
            if named.insert(name.clone()) {
                users.push(name);
            }
        }
        self.lane(instance).checking = Some(Check { seats, is_probe });
        actions.push(Action::Heartbeat { instance: instance.clone(), users });
    }

    /// The revision of the route by which a seat leads to the instance. An errand's route is not this partition's to judge.
    fn revision_for(&mut self, seat: &Seat, instance: &Arc<Instance>) -> Option<u64> {
        match seat.errand {
            None => self.user(&seat.user).route_mut(instance).map(|route| route.revision),
            Some(_) => self.is_current(seat).then_some(0),
        }
    }

    pub(super) fn dispatch_delivery(&mut self, now: Now, instance: &Arc<Instance>, actions: &mut Vec<Action>) {
        let mut room = self.settings.delivery_bytes;
        let (mut request, mut shares) = (Vec::new(), Vec::new());
        while let Some(lane) = self.lanes.get_mut(instance) {
            if lane.delivering.is_some() || !lane.is_up() {
                break;
            }
            let Some(seat) = lane.ready.pop_front() else { break };
            if seat.errand.is_some() && !self.is_current(&seat) {
                continue;
            }
            self.settle_what_is_over(now, &seat.user);
            let revision = self.revision_for(&seat, instance);
            let may_go = |entry: &&Entry| seat.errand.is_none() || entry.may_reroute;
            let state = self.user(&seat.user);
            let Some(revision) = revision.filter(|_| state.waiting.front().is_some_and(|entry| may_go(&entry))) else {
                state.state = State::Idle;
                self.touched_users.insert(seat.user);
                continue;
            };
            let around = if seat.errand.is_some() { REROUTED_BYTES } else { 0 };
            let items = fitting(state.waiting.iter().take_while(may_go), around, &mut room, shares.is_empty());
            if items.is_empty() {
                self.lane(instance).ready.push_front(seat);
                break;
            }
            state.state = State::Delivering(instance.clone());
            shares.push(Share { user: seat.user.clone(), to: self.associate(&seat), items });
            request.push(Part { seat, count: shares.last().map_or(0, |share| share.items.len()), revision });
        }
        if !shares.is_empty() {
            self.lane(instance).delivering = Some(request);
            actions.push(Action::Deliver { instance: instance.clone(), shares });
        }
    }

    pub(super) fn remove_lane(&mut self, instance: &Arc<Instance>) {
        self.disarm_probe(instance);
        self.lanes.remove(instance);
    }
}

/// The reminders from the front that fit into the room of a request. The first of a request always does. What says the
/// same as one of them waits for the answer: it is merged if that one is accepted.
fn fitting<'a>(waiting: impl Iterator<Item = &'a Entry>, around: usize, room: &mut usize, is_first: bool) -> Vec<Item> {
    let (mut items, mut texts) = (Vec::new(), BTreeSet::new());
    for entry in waiting {
        let must_go = is_first && items.is_empty();
        let is_twin = entry.text.as_ref().is_some_and(|text| !texts.insert(text.hash));
        let bytes = entry.bytes + around;
        if is_twin || (bytes > *room && !must_go) {
            break;
        }
        *room = room.saturating_sub(bytes);
        items.push(entry.item);
    }
    items
}
