//! The machine itself. `Router::advance` is its heart: the one place that decides what comes next
//! for a user. The modules of these names handle instances, deliveries, mailboxes and associates
//! (associates: `attempts`).

mod audit;
mod catching_up;
mod crowding;
mod deliveries;
mod expected;
mod instances;
mod mailboxes;
mod parks;
mod renewals;
mod rerouting;
pub mod stats;
mod suspects;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::instance_queue::{InstanceQueue, Ticket};
use super::instance_queues::InstanceQueues;
use super::keys::{InstanceKey, InstanceKeys, UserKey};
use super::merge_window::MergeWindow;
use super::user::{Route, State, User};
use super::users::Users;
use super::{
    Action, Company, Entry, HeldBack, Input, Item, MAX_DEVICES, Now, Removal, Resolution, Settings,
    Settled,
};
use bellhop_protocol::token::UserId;
use catching_up::CatchUp;
use expected::Held;
use parks::Refused;
use renewals::Renewals;

/// The purpose of a deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A down instance may be probed.
    Probe(InstanceKey),
    /// A busy user may be tried again.
    Resume(UserKey),
    /// A mailbox has a reminder that expires.
    Sweep(UserKey),
    /// A user who was expected back has not come.
    Expected(UserKey),
    /// An attempt has taken long enough.
    GiveUp(UserKey),
    /// Those who have not been sent a batch are left out.
    LeaveOut(UserKey),
    /// Reminders whose parking JetStream refused may be parked.
    ParkAgain,
    /// An instance takes long: look at how much waits for it.
    Crowded(InstanceKey),
    /// Leases end soon.
    Renew,
}

/// A reminder to be appended to a mailbox, and what became of it once that is durable: it is
/// parked, or, of a copy, rerouted.
#[derive(Debug)]
struct Park {
    user: UserKey,
    entry: Entry,
    resolution: Resolution,
}

/// The state of one partition's users. See the [module](super).
#[derive(Debug)]
pub struct Router {
    settings: Settings,
    users: Users,
    queues: InstanceQueues,
    timers: BTreeSet<(Instant, Timer)>,
    renewals: Renewals,
    /// Reminders to be appended to mailboxes, in order.
    parks: VecDeque<Park>,
    /// The batch of them under way.
    parking: Vec<Park>,
    /// The most reminders in the next batch.
    park_most: usize,
    /// JetStream refused the last batch.
    refused: Option<Refused>,
    /// Users whose mailbox is to be read.
    reads: VecDeque<UserKey>,
    /// Users whose mailbox is to be counted.
    counts: VecDeque<UserKey>,
    /// Reads and counts under way.
    reads_in_flight: usize,
    /// Users who wait for the routes.
    catch_up: CatchUp,
    /// The amount that waits in memory for users who are expected back.
    expected: Held,
    merge_window: MergeWindow,
    /// Turns of users so far.
    turns: u64,
    /// Users and instances that this step touched.
    touched_users: VecDeque<UserKey>,
    touched_queues: BTreeSet<InstanceKey>,
    settled: Vec<Settled>,
    held_back: Vec<HeldBack>,
    is_stopping: bool,
}

impl Router {
    /// An empty partition.
    pub fn new(settings: Settings) -> Self {
        Self {
            merge_window: MergeWindow::new(settings.merge_window, settings.merge_limit),
            park_most: settings.park_batch.0,
            refused: None,
            settings,
            users: Users::new(),
            queues: InstanceQueues::new(),
            timers: BTreeSet::new(),
            renewals: Renewals::default(),
            parks: VecDeque::new(),
            parking: Vec::new(),
            reads: VecDeque::new(),
            counts: VecDeque::new(),
            reads_in_flight: 0,
            catch_up: CatchUp::default(),
            expected: Held::default(),
            turns: 0,
            touched_users: VecDeque::new(),
            touched_queues: BTreeSet::new(),
            settled: Vec::new(),
            held_back: Vec::new(),
            is_stopping: false,
        }
    }

    /// Takes in what happened and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Event(reminders) => self.event(now, reminders),
            Input::MailboxFound(user, summary) => self.mailbox_found(now, user, summary),
            Input::RouteUp {
                user,
                instance,
                revision,
            } => self.route_up(now, user, instance, revision),
            Input::RouteDown {
                user,
                instance,
                revision,
            } => self.route_down(now, &user, &instance, revision),
            Input::CaughtUpWithRoutes => self.caught_up(),
            Input::Associates { user, associates } => self.associates_changed(user, associates),
            Input::RoutesFound {
                user,
                associate,
                instances,
            } => self.routes_found(&user, &associate, instances),
            Input::Delivered {
                instance,
                company,
                answer,
            } => self.delivered(now, &instance, company, answer, actions),
            Input::HeartbeatAnswered { instance, answer } => {
                self.heartbeat_answered(now, &instance, answer, actions)
            }
            Input::Parked(sequences) => self.parked(now, &sequences),
            Input::ParkRefused => self.park_refused(now),
            Input::MailboxRead { user, page } => self.mailbox_read(now, user, page, actions),
            Input::MailboxCounted { user, found } => self.mailbox_counted(now, user, found),
            Input::Tick => self.fire_timers(now, actions),
            Input::Stop => self.stop(now),
        }
        actions.extend(self.held_back.drain(..).map(Action::HoldBack));
        while let Some(user) = self.touched_users.pop_front() {
            self.advance(now, user, actions);
        }
        self.dispatch(now, actions);
    }

    /// Returns the time at which [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns true if no request, park or read is in flight.
    pub fn is_quiet(&self) -> bool {
        self.parks.is_empty()
            && self.parking.is_empty()
            && self.counts.is_empty()
            && self.reads_in_flight == 0
            && self.catch_up.asked.is_empty()
            && self.queues.iter().all(|(_, queue)| !queue.is_asked())
            && self
                .users
                .iter()
                .all(|(_, user)| !matches!(user.work().state, State::LookingUp | State::Expected))
    }

    // Handle the input.

    fn event(&mut self, now: Now, reminders: Vec<(UserId, Entry)>) {
        for (name, entry) in reminders {
            let user = self.users.admit(name);
            if self.queues_in_mailbox(user, &entry) {
                self.park(now, user, entry);
            } else {
                self.expect_with(user, entry.bytes);
                let work = self.users[user].work_mut();
                // What was known of routes is older than this.
                work.is_caught_up &= !work.waiting.is_empty();
                work.waiting.push_back(entry);
                self.touched_users.push_back(user);
            }
            if self.users[user].work().state == State::Expected && self.expects_too_much() {
                self.park_expected(now, user);
            }
        }
    }

    /// Returns true if a live reminder goes behind the mail at once, because it cannot go to an
    /// associate before.
    fn queues_in_mailbox(&self, user: UserKey, entry: &Entry) -> bool {
        if !self.users[user].mailbox().is_in_use() {
            return false;
        }
        let work = self.users[user].work();
        let is_away =
            matches!(work.state, State::Idle | State::Sweeping(_)) && !self.has_own_way(user);
        let may_leave = entry.may_reroute
            && is_away
            && !work.associates.is_empty()
            && work.paused_until.is_none();
        !(may_leave || work.has_live())
    }

    fn stop(&mut self, now: Now) {
        self.is_stopping = true;
        let is_expected = |user: &User| user.work().state == State::Expected;
        let expected: Vec<_> = (self.users.iter())
            .filter_map(|(number, user)| is_expected(user).then_some(number))
            .collect();
        for user in expected {
            self.park_expected(now, user);
        }
        let unread = self
            .queues
            .iter_mut()
            .flat_map(|queue| queue.unread.drain(..));
        for user in self.reads.drain(..).chain(unread).collect::<Vec<_>>() {
            self.users[user].work_mut().state = State::Idle;
            self.touched_users.push_back(user);
        }
    }

    fn fire_timers(&mut self, now: Now, actions: &mut Vec<Action>) {
        while self
            .timers
            .first()
            .is_some_and(|(at, _)| *at <= now.instant)
        {
            let Some((at, timer)) = self.timers.pop_first() else {
                return;
            };
            match timer {
                Timer::Probe(queue) => self.probe(now, at, queue, actions),
                Timer::Resume(user) => {
                    self.users[user].work_mut().paused_until = None;
                    self.touched_users.push_back(user);
                }
                Timer::Sweep(user) => self.sweep(now, user),
                Timer::Expected(user) => {
                    self.expect_no_more(user);
                    self.touched_users.push_back(user);
                }
                Timer::GiveUp(user) => self.give_up(user),
                Timer::LeaveOut(user) => self.leave_out_unsent(now, user),
                Timer::ParkAgain => self.take_back(),
                Timer::Crowded(queue) => self.park_the_crowd(now, queue),
                Timer::Renew => self.renew_leases(now),
            }
        }
    }

    // Decide what comes next.

    /// Decides what comes next for a user for whom nothing is under way.
    fn advance(&mut self, now: Now, user: UserKey, actions: &mut Vec<Action>) {
        if self.users.get(user).is_none() {
            return; // Nothing was left to do for it.
        }
        self.prefer_own_route(user);
        if self.users[user].work().state != State::Idle {
            return;
        }
        self.settle_what_is_over(now, user);
        self.release_page(user);
        let has_way = self.has_own_way(user);
        if !has_way && (self.catch_up(user) || self.run_attempt(now, user, actions)) {
            return;
        }
        self.end_attempt(user);
        self.queue_behind_mail(now, user);
        let work = self.users[user].work();
        let has_nothing = work.waiting.is_empty() && !self.users[user].mailbox().has_mail();
        if has_nothing || (!work.has_live() && self.is_stopping) {
            self.users[user].use_up_confirmations();
            self.schedule_sweep(now, user);
            return self.forget_if_empty(user);
        }
        if !has_way {
            self.users[user].use_up_confirmations();
            self.wait_in_mailbox(now, user, actions);
            return self.forget_if_empty(user);
        }
        let (held, unconfirmed) = self.own_connections(now, user);
        if self.is_crowded_out(user, &[&held, &unconfirmed]) {
            self.leave_line(now, user);
        } else if !unconfirmed.is_empty() {
            self.check(user, unconfirmed);
        } else if self.users[user].work().waiting.is_empty() {
            self.read(user, &held);
        } else {
            self.board(user, held);
        }
    }

    /// Returns true if the user has a route that may be used now.
    fn has_own_way(&self, user: UserKey) -> bool {
        self.usable(&self.users[user]).next().is_some()
    }

    /// The instances that the user's reminders go to now, and those that are to be asked before:
    /// which hold its connections, and which may.
    fn own_connections(&self, now: Now, user: UserKey) -> (InstanceKeys, InstanceKeys) {
        let most = if self.settings.all_devices {
            MAX_DEVICES
        } else {
            1
        };
        let (mut held, mut unconfirmed) = (InstanceKeys::new(), InstanceKeys::new());
        for route in self.usable(&self.users[user]).take(most) {
            let side = if route.is_held(now.instant) {
                &mut held
            } else {
                &mut unconfirmed
            };
            side.push(route.queue);
        }
        (held, unconfirmed)
    }

    /// The user's routes to instances that are spoken to.
    fn usable<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Route> {
        let is_up = |route: &&Route| self.queues[route.queue].is_up();
        user.routes
            .iter()
            .filter(|_| user.work().paused_until.is_none())
            .filter(is_up)
    }

    /// A turn of the user begins. Tickets of earlier turns are skipped.
    fn begin_turn(&mut self, user: UserKey, state: State) -> Ticket {
        self.turns += 1;
        let turn = self.turns;
        let work = self.users[user].work_mut();
        (work.turn, work.state) = (turn, state);
        Ticket { user, turn }
    }

    /// Returns true if a ticket at an instance was taken in the current turn.
    fn is_current(&self, ticket: Ticket, queue: InstanceKey) -> bool {
        self.users.get(ticket.user).is_some_and(|user| {
            let waits_for_it = match &user.work().state {
                State::Checking(queues) => queues.contains(&queue),
                State::Delivering(batch) => batch.open.contains(&queue),
                State::Idle
                | State::CatchingUp
                | State::Expected
                | State::LookingUp
                | State::Reading
                | State::Sweeping(_) => false,
            };
            waits_for_it && user.work().turn == ticket.turn
        })
    }

    /// Takes what needs no delivery any more out of `waiting`.
    fn settle_what_is_over(&mut self, now: Now, user: UserKey) {
        let is_over = |entry: &Entry| self.end_without_delivery(now, entry).is_some();
        if !self.users[user].work().waiting.iter().any(is_over) {
            return;
        }
        let waiting = std::mem::take(&mut self.users[user].work_mut().waiting);
        let (mut alive, mut over) = (VecDeque::new(), Vec::new());
        for entry in waiting {
            match self.end_without_delivery(now, &entry) {
                Some(resolution) => over.push((entry, resolution)),
                None => alive.push_back(entry),
            }
        }
        self.users[user].work_mut().waiting = alive;
        for (entry, resolution) in over {
            self.settle(user, entry, resolution);
        }
    }

    /// Returns the outcome of a reminder that no longer needs delivery.
    fn end_without_delivery(&self, now: Now, entry: &Entry) -> Option<Resolution> {
        if entry.is_expired(now) {
            return Some(Resolution::Expired);
        }
        let other = self.merge_window.duplicate_of(now.instant, entry)?;
        Some(Resolution::Merged {
            into: other.id.clone(),
        })
    }

    /// A reminder that has left `waiting` is done with.
    fn settle(&mut self, user: UserKey, entry: Entry, resolution: Resolution) {
        let front = self.users[user].work().front_parked();
        self.settle_before_front(user, entry, resolution, front);
    }

    /// A reminder is done with; `front` is the oldest one known to stay in the mailbox.
    fn settle_before_front(
        &mut self,
        user: UserKey,
        entry: Entry,
        resolution: Resolution,
        front: Option<u64>,
    ) {
        let user = &mut self.users[user];
        let name = user.name.clone();
        let removal = match entry.item {
            Item::Event { .. } => Removal::Event,
            Item::Parked { sequence } => {
                let mailbox = user.mailbox_mut();
                mailbox
                    .tally
                    .iter_mut()
                    .for_each(|tally| tally.take_out(&entry.source));
                mailbox.settle(sequence, front)
            }
        };
        self.settled.push(Settled {
            user: name,
            item: entry.item,
            resolution,
            removal,
        });
    }

    // Actions.

    fn dispatch(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(queue) = self.touched_queues.pop_first() {
            self.dispatch_heartbeat(queue, actions);
            self.dispatch_delivery(now, queue, Company::Shared, actions);
            self.dispatch_delivery(now, queue, Company::Alone, actions);
            self.dispatch_pages(queue);
            // A user that could not go this way may need another one.
            while let Some(user) = self.touched_users.pop_front() {
                self.advance(now, user, actions);
            }
            if self.queues[queue].is_unused() {
                self.remove_queue(queue);
            }
        }
        self.dispatch_catch_up(actions);
        self.dispatch_reads(actions);
        self.dispatch_park(now, actions);
        if !self.settled.is_empty() {
            actions.push(Action::Settle(std::mem::take(&mut self.settled)));
        }
    }

    // Look-ups.

    /// A queue to be looked at before the step ends: something of it changes.
    fn touch(&mut self, queue: InstanceKey) -> &mut InstanceQueue {
        self.touched_queues.insert(queue);
        &mut self.queues[queue]
    }

    fn forget_if_empty(&mut self, number: UserKey) {
        let user = &mut self.users[number];
        if user.work().suspicion.is_some()
            && user.work().waiting.is_empty()
            && !user.mailbox().is_in_use()
        {
            user.work_mut().suspicion = None;
        }
        user.shrink();
        if user.is_forgettable() {
            self.users.forget(number);
        }
    }
}
