//! The machine itself. `Partition::advance` is its heart: the one place that decides what comes next for a user.

#[cfg(test)]
mod audit;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::lane::{Check, Health, Lane, Part, grown};
use super::user::{Route, State, Sweep, User};
use super::{
    Action, Entry, Fate, Input, Instance, Item, MailboxSummary, NoAnswer, Now, Page, Refusal, Removal, Settings,
    Settled,
};
use crate::token::{InstanceName, UserId};

/// What a deadline is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A down instance may be probed.
    Probe(Arc<Instance>),
    /// A busy user may be tried again.
    Resume(UserId),
    /// A mailbox has a reminder that expires.
    Sweep(UserId),
}

/// The state of one partition's users. See the [module](super).
#[derive(Debug)]
pub struct Partition {
    settings: Settings,
    users: HashMap<UserId, User>,
    lanes: BTreeMap<Arc<Instance>, Lane>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Reminders to be appended to mailboxes, in order.
    parks: VecDeque<(UserId, Entry)>,
    /// The batch of them under way.
    parking: Vec<(UserId, Entry)>,
    /// Users whose mailbox is to be read.
    reads: VecDeque<UserId>,
    reads_in_flight: usize,
    /// Users and instances that this step touched.
    touched_users: BTreeSet<UserId>,
    touched_lanes: BTreeSet<Arc<Instance>>,
    settled: Vec<Settled>,
    is_stopping: bool,
}

impl Partition {
    /// An empty partition.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            users: HashMap::new(),
            lanes: BTreeMap::new(),
            timers: BTreeSet::new(),
            parks: VecDeque::new(),
            parking: Vec::new(),
            reads: VecDeque::new(),
            reads_in_flight: 0,
            touched_users: BTreeSet::new(),
            touched_lanes: BTreeSet::new(),
            settled: Vec::new(),
            is_stopping: false,
        }
    }

    /// Takes in what happened and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Event(reminders) => self.event(now, reminders),
            Input::MailboxFound(user, summary) => self.mailbox_found(now, user, summary),
            Input::RouteUp { user, instance, revision } => self.route_up(now, user, instance, revision),
            Input::RouteDown { user, instance, revision } => self.route_down(&user, &instance, revision),
            Input::Delivered { instance, answer } => self.delivered(now, &instance, answer, actions),
            Input::HeartbeatAnswered { instance, answer } => self.heartbeat_answered(now, &instance, answer, actions),
            Input::Parked(sequences) => self.parked(now, &sequences),
            Input::MailboxRead { user, page } => self.mailbox_read(now, user, page, actions),
            Input::Tick => self.fire_timers(now, actions),
            Input::Stop => self.stop(),
        }
        while let Some(user) = self.touched_users.pop_first() {
            self.advance(now, &user, actions);
        }
        self.dispatch(now, actions);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether no request, park or read is under way.
    pub fn is_quiet(&self) -> bool {
        self.parks.is_empty()
            && self.parking.is_empty()
            && self.reads_in_flight == 0
            && self.lanes.values().all(|lane| lane.delivering.is_none() && lane.checking.is_none())
    }

    // What happened.

    fn event(&mut self, now: Now, reminders: Vec<(UserId, Entry)>) {
        for (user, entry) in reminders {
            if self.user(&user).mailbox.is_in_use() {
                self.park(now, user, entry);
            } else {
                self.user(&user).waiting.push_back(entry);
                self.touched_users.insert(user);
            }
        }
    }

    fn mailbox_found(&mut self, now: Now, user: UserId, summary: MailboxSummary) {
        let mailbox = &mut self.user(&user).mailbox;
        mailbox.first = summary.first;
        mailbox.last = summary.last;
        mailbox.count = summary.count;
        mailbox.next_expiry = summary.next_expiry;
        self.schedule_sweep(now, &user);
        self.touched_users.insert(user);
    }

    fn route_up(&mut self, now: Now, user: UserId, instance: Arc<Instance>, revision: u64) {
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

    fn route_down(&mut self, user: &UserId, instance: &InstanceName, revision: u64) {
        if self.users.contains_key(user) {
            self.remove_route(user, instance, revision);
            self.touched_users.insert(user.clone());
        }
    }

    fn delivered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        answer: Result<Vec<(usize, usize, Refusal)>, NoAnswer>,
        actions: &mut Vec<Action>,
    ) {
        let Some(request) = self.lanes.get_mut(instance).and_then(|lane| lane.delivering.take()) else { return };
        self.touched_lanes.insert(instance.clone());
        for part in &request {
            self.user(&part.user).state = State::Idle;
            self.touched_users.insert(part.user.clone());
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
        Part { user, count, revision }: &Part,
        refusals: &BTreeMap<usize, Refusal>,
        actions: &mut Vec<Action>,
    ) {
        let lease = self.settings.lease;
        let backoff = self.settings.busy_backoff;
        let state = self.user(user);
        let sent: Vec<Entry> = state.waiting.drain(..*count).collect();
        let (refused, accepted): (Vec<_>, Vec<_>) =
            sent.into_iter().enumerate().partition(|(at, _)| refusals.contains_key(at));
        for (_, entry) in refused.into_iter().rev() {
            state.waiting.push_front(entry);
        }
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
        if !accepted.is_empty()
            && let Some(lane) = self.lanes.get_mut(instance)
        {
            lane.accepted();
        }
        for (_, entry) in accepted {
            self.settle(user, entry, Fate::Delivered(instance.name.clone()));
        }
    }

    fn heartbeat_answered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        answer: Result<Vec<UserId>, NoAnswer>,
        actions: &mut Vec<Action>,
    ) {
        let Some(lane) = self.lanes.get_mut(instance) else { return };
        let Some(Check { users, is_probe }) = lane.checking.take() else { return };
        self.touched_lanes.insert(instance.clone());
        let connected: BTreeSet<UserId> = match answer {
            Ok(connected) => connected.into_iter().collect(),
            Err(_) => {
                self.release(instance, &users);
                return self.instance_down(now, instance);
            }
        };
        if is_probe {
            self.disarm_probe(instance);
            let wanted = self.lane(instance).comes_up();
            self.touched_users.extend(wanted);
        }
        let held_until = Some(now.instant + self.settings.lease);
        for (user, revision) in &users {
            if connected.contains(user) {
                if let Some(route) = self.user(user).route_mut(instance) {
                    route.held_until = held_until;
                }
            } else {
                self.drop_route(user, instance, *revision, actions);
            }
        }
        self.release(instance, &users);
    }

    /// Users whose check is over may go on.
    fn release(&mut self, instance: &Arc<Instance>, users: &[(UserId, u64)]) {
        for (user, _) in users {
            let state = self.user(user);
            if state.state == State::Checking(instance.clone()) {
                state.state = State::Idle;
            }
            self.touched_users.insert(user.clone());
        }
    }

    fn parked(&mut self, now: Now, sequences: &[u64]) {
        let batch = std::mem::take(&mut self.parking);
        debug_assert_eq!(batch.len(), sequences.len());
        for ((user, entry), &sequence) in batch.into_iter().zip(sequences) {
            let mailbox = &mut self.user(&user).mailbox;
            mailbox.parking -= 1;
            // What was parked before a crash already is answered with the sequence that it got then.
            if sequence > mailbox.last {
                mailbox.append(sequence, entry.expires_at);
                self.schedule_sweep(now, &user);
            }
            self.settle(&user, entry, Fate::Parked);
            self.touched_users.insert(user);
        }
    }

    fn mailbox_read(&mut self, now: Now, user: UserId, mut page: Page, actions: &mut Vec<Action>) {
        self.reads_in_flight = self.reads_in_flight.saturating_sub(1);
        let state = self.user(&user);
        let mailbox = &mut state.mailbox;
        if mailbox.parking == 0 {
            mailbox.last = mailbox.last.max(page.entries.iter().filter_map(parked_sequence).max().unwrap_or(0));
        } else if page.next > mailbox.last {
            // What lies behind is being parked: its turn comes when it is settled as such.
            page.next = mailbox.last + 1;
            page.is_last = true;
        }
        let is_left_out = |at: u64| at > mailbox.last || mailbox.settled_ahead.contains(&at);
        let left_out = page.entries.extract_if(.., |entry| parked_sequence(entry).is_some_and(is_left_out));
        forget(left_out.map(|entry| entry.item).collect(), actions);
        if let State::Sweeping(sweep) = state.state.clone() {
            return self.swept(now, &user, sweep, page, actions);
        }
        state.state = State::Idle;
        if page.entries.is_empty() {
            state.mailbox.settle_before(page.next);
        }
        state.waiting.extend(page.entries);
        let bytes = state.waiting.iter().map(|entry| entry.bytes).sum();
        self.charge_page(&user, bytes);
        self.touched_users.insert(user);
    }

    /// One page of a search for expired reminders.
    fn swept(&mut self, now: Now, user: &UserId, mut sweep: Sweep, page: Page, actions: &mut Vec<Action>) {
        let mut kept = Vec::new();
        for entry in page.entries {
            if entry.is_expired(now) {
                sweep.oldest_kept = sweep.oldest_kept.or(kept.first().and_then(parked_sequence));
                self.settle_before_front(user, entry, Fate::Expired, sweep.oldest_kept);
            } else {
                sweep.next_expiry = [sweep.next_expiry, entry.expires_at].into_iter().flatten().min();
                kept.push(entry);
            }
        }
        sweep.oldest_kept = sweep.oldest_kept.or(kept.first().and_then(parked_sequence));
        forget(kept.iter().map(|entry| entry.item).collect(), actions);
        let is_over = page.is_last || self.is_stopping;
        let state = self.user(user);
        if is_over {
            let mailbox = &mut state.mailbox;
            if sweep.oldest_kept.is_none() {
                mailbox.settle_before(page.next);
            }
            mailbox.next_expiry = [mailbox.next_expiry, sweep.next_expiry].into_iter().flatten().min();
            state.state = State::Idle;
            self.rest_between_sweeps(now, user);
            self.touched_users.insert(user.clone());
        } else {
            state.state = State::Sweeping(Sweep { from: page.next, ..sweep });
            self.reads.push_back(user.clone());
        }
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        let unread = self.lanes.values_mut().flat_map(|lane| lane.unread.drain(..));
        for user in self.reads.drain(..).chain(unread).collect::<Vec<_>>() {
            self.user(&user).state = State::Idle;
            self.touched_users.insert(user);
        }
    }

    fn fire_timers(&mut self, now: Now, actions: &mut Vec<Action>) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now.instant) {
            let Some((at, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Probe(instance) => self.probe(now, at, &instance, actions),
                Timer::Resume(user) => {
                    self.user(&user).paused_until = None;
                    self.touched_users.insert(user);
                }
                Timer::Sweep(user) => self.sweep(now, &user),
            }
        }
    }

    // What comes next.

    /// Decides what comes next for a user for whom nothing is under way.
    fn advance(&mut self, now: Now, user: &UserId, actions: &mut Vec<Action>) {
        if self.users.get(user).is_none_or(|state| state.state != State::Idle) {
            return;
        }
        self.expire_waiting(now, user);
        self.release_page(user);
        let state = self.user(user);
        let is_live = state.waiting.front().is_some_and(|entry| matches!(entry.item, Item::Event { .. }));
        let has_nothing = state.waiting.is_empty() && !state.mailbox.has_mail();
        if has_nothing || (self.is_stopping && !is_live) {
            self.schedule_sweep(now, user);
            return self.forget_if_empty(user);
        }
        match self.choose_route(now, user) {
            Some((instance, true)) if self.user(user).waiting.is_empty() => {
                self.user(user).state = State::Reading;
                self.lane(&instance).unread.push_back(user.clone());
            }
            Some((instance, true)) => {
                self.user(user).state = State::Ready(instance.clone());
                self.lane(&instance).ready.push_back(user.clone());
            }
            Some((instance, false)) => {
                self.user(user).state = State::Checking(instance.clone());
                self.lane(&instance).unconfirmed.push_back(user.clone());
            }
            None => self.wait_in_mailbox(now, user, actions),
        }
    }

    /// The user's best route now, and whether the connection counts as held.
    fn choose_route(&mut self, now: Now, user: &UserId) -> Option<(Arc<Instance>, bool)> {
        let state = self.users.get(user)?;
        if state.paused_until.is_some() {
            return None;
        }
        let usable = |route: &&Route| self.lanes.get(&route.instance).is_none_or(Lane::is_up);
        let route = state.routes.iter().find(usable)?;
        let choice = (route.instance.clone(), route.is_held(now.instant));
        self.touched_lanes.insert(choice.0.clone());
        Some(choice)
    }

    /// There is no way to the user now: what is in memory goes to, or stays in, the mailbox.
    fn wait_in_mailbox(&mut self, now: Now, user: &UserId, actions: &mut Vec<Action>) {
        let state = self.user(user);
        let waiting = std::mem::take(&mut state.waiting);
        let instances: Vec<_> = match state.paused_until {
            Some(_) => Vec::new(),
            None => state.routes.iter().map(|route| route.instance.clone()).collect(),
        };
        for instance in instances {
            self.lane(&instance).wanted.insert(user.clone());
        }
        let mut forgotten = Vec::new();
        for entry in waiting {
            match entry.item {
                Item::Event { .. } => self.park(now, user.clone(), entry),
                Item::Parked { .. } => forgotten.push(entry.item),
            }
        }
        forget(forgotten, actions);
        self.release_page(user);
    }

    /// What the user's page takes of its instance's room.
    fn charge_page(&mut self, user: &UserId, bytes: usize) {
        if let Some((instance, charged)) = &mut self.user(user).page {
            let before = std::mem::replace(charged, bytes);
            let instance = instance.clone();
            let lane = self.lane(&instance);
            lane.page_bytes = lane.page_bytes + bytes - before;
        }
    }

    /// Once nothing of it is left in memory, the user's page makes room for another one.
    fn release_page(&mut self, user: &UserId) {
        if self.user(user).waiting.is_empty() {
            self.charge_page(user, 0);
            self.user(user).page = None;
        }
    }

    fn park(&mut self, now: Now, user: UserId, entry: Entry) {
        let limit = self.settings.mailbox_limit;
        let mailbox = &mut self.user(&user).mailbox;
        if entry.is_expired(now) {
            self.settle(&user, entry, Fate::Expired);
        } else if mailbox.count + mailbox.parking >= limit {
            self.settle(&user, entry, Fate::MailboxFull);
        } else {
            mailbox.parking += 1;
            self.parks.push_back((user, entry));
        }
    }

    fn expire_waiting(&mut self, now: Now, user: &UserId) {
        if !self.user(user).waiting.iter().any(|entry| entry.is_expired(now)) {
            return;
        }
        let waiting = &mut self.user(user).waiting;
        let (expired, alive) =
            std::mem::take(waiting).into_iter().partition::<Vec<_>, _>(|entry| entry.is_expired(now));
        *waiting = alive.into();
        for entry in expired {
            self.settle(user, entry, Fate::Expired);
        }
    }

    /// A reminder that has left `waiting` is done with.
    fn settle(&mut self, user: &UserId, entry: Entry, fate: Fate) {
        let front = self.user(user).front_parked();
        self.settle_before_front(user, entry, fate, front);
    }

    /// A reminder is done with; `front` is the oldest one known to stay in the mailbox.
    fn settle_before_front(&mut self, user: &UserId, entry: Entry, fate: Fate, front: Option<u64>) {
        let removal = match entry.item {
            Item::Event { .. } => Removal::Event,
            Item::Parked { sequence } => self.user(user).mailbox.settle(sequence, front),
        };
        self.settled.push(Settled { user: user.clone(), item: entry.item, fate, removal });
    }

    // Instances.

    fn instance_down(&mut self, now: Now, instance: &Arc<Instance>) {
        let backoff = self.settings.instance_backoff;
        self.disarm_probe(instance);
        let stranded = self.lane(instance).goes_down(now.instant, backoff);
        if let Health::Down(at) = self.lane(instance).health {
            self.timers.insert((at, Timer::Probe(instance.clone())));
        }
        for user in stranded {
            self.user(&user).state = State::Idle;
            self.touched_users.insert(user);
        }
    }

    /// The back-off of a down instance is over: ask it about users who want it, if there are any.
    fn probe(&mut self, now: Now, at: Instant, instance: &Arc<Instance>, actions: &mut Vec<Action>) {
        let most = self.settings.heartbeat_users;
        let Some(lane) = self.lanes.get_mut(instance).filter(|lane| lane.health == Health::Down(at)) else { return };
        lane.health = Health::Down(now.instant);
        if let Some(check) = &mut lane.checking {
            check.is_probe = true; // Its answer decides.
            return;
        }
        let revision_if_wanted = |user: &UserId| {
            let state = self.users.get(user).filter(|state| state.mailbox.is_in_use())?;
            let route = state.routes.iter().find(|route| route.instance == *instance)?;
            Some((user.clone(), route.revision))
        };
        let users: Vec<_> = lane.wanted.iter().filter_map(revision_if_wanted).take(most).collect();
        if users.is_empty() {
            // Nobody waits for it: the next reminder finds out whether it is back.
            let wanted = lane.comes_up();
            self.touched_users.extend(wanted);
            self.touched_lanes.insert(instance.clone());
        } else {
            ask(lane, instance, users, true, actions);
        }
    }

    fn disarm_probe(&mut self, instance: &Arc<Instance>) {
        if let Some(Lane { health: Health::Down(at), .. }) = self.lanes.get(instance) {
            self.timers.remove(&(*at, Timer::Probe(instance.clone())));
        }
    }

    /// The instance says that the user is not connected there.
    ///
    /// That was true of the route it was asked about; one put since stays, and is asked about in its turn.
    fn drop_route(&mut self, user: &UserId, instance: &Arc<Instance>, revision: u64, actions: &mut Vec<Action>) {
        if self.user(user).route_mut(instance).is_none_or(|route| route.revision != revision) {
            return;
        }
        self.remove_route(user, &instance.name, revision);
        let (user, instance) = (user.clone(), instance.name.clone());
        actions.push(Action::DropRoute { user, instance, revision });
    }

    /// Removes the user's route at an instance unless it is newer than `revision`.
    fn remove_route(&mut self, user: &UserId, instance: &InstanceName, revision: u64) {
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

    // Expiry in mailboxes.

    /// Arms the search of a mailbox for the moment its earliest reminder expires.
    fn schedule_sweep(&mut self, now: Now, user: &UserId) {
        let mailbox = &mut self.user(user).mailbox;
        let due = mailbox.next_expiry.map(|at| now.instant_of(at));
        let wanted = due.map(|due| mailbox.no_sweep_before.map_or(due, |earliest| due.max(earliest)));
        let before = std::mem::replace(&mut mailbox.sweep_at, wanted);
        if before != wanted {
            if let Some(at) = before {
                self.timers.remove(&(at, Timer::Sweep(user.clone())));
            }
            if let Some(at) = wanted {
                self.timers.insert((at, Timer::Sweep(user.clone())));
            }
        }
    }

    fn rest_between_sweeps(&mut self, now: Now, user: &UserId) {
        self.user(user).mailbox.no_sweep_before = Some(now.instant + self.settings.expiry_interval);
        self.schedule_sweep(now, user);
    }

    fn sweep(&mut self, now: Now, user: &UserId) {
        let Some(state) = self.users.get_mut(user) else { return };
        state.mailbox.sweep_at = None;
        if !state.mailbox.has_mail() || self.is_stopping {
            return;
        }
        if state.state == State::Idle && state.waiting.is_empty() {
            state.mailbox.next_expiry = None;
            state.state = State::Sweeping(Sweep { from: state.mailbox.first, next_expiry: None, oldest_kept: None });
            self.reads.push_back(user.clone());
        } else {
            // It is being delivered, and what has expired is noticed there. Look again for what may stay behind.
            self.rest_between_sweeps(now, user);
        }
    }

    // Actions.

    fn dispatch(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(instance) = self.touched_lanes.pop_first() {
            self.dispatch_heartbeat(&instance, actions);
            self.dispatch_delivery(now, &instance, actions);
            self.dispatch_pages(&instance);
            // A user that could not go this way may need another one.
            while let Some(user) = self.touched_users.pop_first() {
                self.advance(now, &user, actions);
            }
            if self.lanes.get(&instance).is_some_and(Lane::is_unused) {
                self.remove_lane(&instance);
            }
        }
        self.dispatch_reads(actions);
        self.dispatch_park(actions);
        if !self.settled.is_empty() {
            actions.push(Action::Settle(std::mem::take(&mut self.settled)));
        }
    }

    fn dispatch_heartbeat(&mut self, instance: &Arc<Instance>, actions: &mut Vec<Action>) {
        let most = self.settings.heartbeat_users;
        let (mut users, mut routeless) = (Vec::new(), Vec::new());
        while let Some(lane) = self.lanes.get_mut(instance) {
            if lane.checking.is_some() || !lane.is_up() || users.len() >= most {
                break;
            }
            let Some(user) = lane.unconfirmed.pop_front() else { break };
            let route = self.user(&user).route_mut(instance).map(|route| route.revision);
            match route {
                Some(revision) => users.push((user, revision)),
                None => routeless.push((user, 0)),
            }
        }
        self.release(instance, &routeless);
        if !users.is_empty() {
            ask(self.lane(instance), instance, users, false, actions);
        }
    }

    fn dispatch_delivery(&mut self, now: Now, instance: &Arc<Instance>, actions: &mut Vec<Action>) {
        let mut room = self.settings.delivery_bytes;
        let mut request = Vec::new();
        let mut reminders = Vec::new();
        while let Some(lane) = self.lanes.get_mut(instance) {
            if lane.delivering.is_some() || !lane.is_up() {
                break;
            }
            let Some(user) = lane.ready.pop_front() else { break };
            self.expire_waiting(now, &user);
            let state = self.user(&user);
            let Some(revision) =
                state.route_mut(instance).map(|route| route.revision).filter(|_| !state.waiting.is_empty())
            else {
                state.state = State::Idle;
                self.touched_users.insert(user);
                continue;
            };
            let items = fitting(&state.waiting, &mut room, reminders.is_empty());
            if items.is_empty() {
                self.lane(instance).ready.push_front(user);
                break;
            }
            state.state = State::Delivering(instance.clone());
            request.push(Part { user: user.clone(), count: items.len(), revision });
            reminders.push((user, items));
        }
        if !reminders.is_empty() {
            self.lane(instance).delivering = Some(request);
            actions.push(Action::Deliver { instance: instance.clone(), reminders });
        }
    }

    /// Mailboxes are read ahead of an instance by one delivery and not further: a slow one must not fill the memory, nor
    /// hold up the reads for others.
    fn dispatch_pages(&mut self, instance: &Arc<Instance>) {
        let room = self.settings.delivery_bytes * 2;
        while let Some(lane) = self.lanes.get_mut(instance) {
            if lane.page_bytes >= room {
                break;
            }
            let Some(user) = lane.unread.pop_front() else { break };
            let state = self.user(&user);
            if state.route_mut(instance).is_some() {
                // How large it is shows when it was read. Until then it is charged so that only so many are begun.
                state.page = Some((instance.clone(), 0));
                self.charge_page(&user, room.div_ceil(self.settings.reads_in_flight));
                self.reads.push_back(user);
            } else {
                state.state = State::Idle;
                self.touched_users.insert(user);
            }
        }
    }

    fn dispatch_reads(&mut self, actions: &mut Vec<Action>) {
        while self.reads_in_flight < self.settings.reads_in_flight {
            let Some(user) = self.reads.pop_front() else { return };
            let state = self.user(&user);
            let from = match &state.state {
                State::Sweeping(sweep) => sweep.from,
                _ => state.mailbox.first,
            };
            let last = state.mailbox.last;
            self.reads_in_flight += 1;
            actions.push(Action::ReadMailbox { user, from, last });
        }
    }

    fn dispatch_park(&mut self, actions: &mut Vec<Action>) {
        if !self.parking.is_empty() || self.parks.is_empty() {
            return;
        }
        let (most, mut room) = self.settings.park_batch;
        while let Some((_, entry)) = self.parks.front() {
            if self.parking.len() >= most || (entry.bytes > room && !self.parking.is_empty()) {
                break;
            }
            room = room.saturating_sub(entry.bytes);
            self.parking.extend(self.parks.pop_front());
        }
        actions.push(Action::Park(self.parking.iter().map(|(user, entry)| (user.clone(), entry.item)).collect()));
    }

    // Look-ups.

    fn user(&mut self, user: &UserId) -> &mut User {
        if !self.users.contains_key(user) {
            self.users.insert(user.clone(), User::default());
        }
        self.users.get_mut(user).expect("it was inserted above")
    }

    fn lane(&mut self, instance: &Arc<Instance>) -> &mut Lane {
        self.touched_lanes.insert(instance.clone());
        self.lanes.entry(instance.clone()).or_default()
    }

    fn forget_if_empty(&mut self, user: &UserId) {
        if self.users.get(user).is_some_and(User::is_forgettable) {
            self.users.remove(user);
        }
    }

    fn remove_lane(&mut self, instance: &Arc<Instance>) {
        self.disarm_probe(instance);
        self.lanes.remove(instance);
    }
}

/// Sends a heartbeat.
fn ask(
    lane: &mut Lane,
    instance: &Arc<Instance>,
    users: Vec<(UserId, u64)>,
    is_probe: bool,
    actions: &mut Vec<Action>,
) {
    let names = users.iter().map(|(user, _)| user.clone()).collect();
    lane.checking = Some(Check { users, is_probe });
    actions.push(Action::Heartbeat { instance: instance.clone(), users: names });
}

fn forget(items: Vec<Item>, actions: &mut Vec<Action>) {
    if !items.is_empty() {
        actions.push(Action::Forget(items));
    }
}

fn parked_sequence(entry: &Entry) -> Option<u64> {
    match entry.item {
        Item::Parked { sequence } => Some(sequence),
        Item::Event { .. } => None,
    }
}

/// The reminders from the front that fit into the room of a request. The first of a request always does.
fn fitting(waiting: &VecDeque<Entry>, room: &mut usize, is_first: bool) -> Vec<Item> {
    let mut items = Vec::new();
    for entry in waiting {
        let must_go = is_first && items.is_empty();
        if entry.bytes > *room && !must_go {
            break;
        }
        *room = room.saturating_sub(entry.bytes);
        items.push(entry.item);
    }
    items
}
