//! What happens when: the plan, the people, the app servers, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::Story;
use super::model::{AppServer, Id, Mood, Nats, Reminder};
use super::shell::Life;
use crate::reminder::Priority;
use crate::router::tests::{instance, later, name, start};
use crate::router::{Input, Instance, NoAnswer, Now, Refusal, Settings, Settled};
use crate::token::UserId;

const DELIVERY_TIMEOUT_MS: u64 = 500;
const HEARTBEAT_TIMEOUT_MS: u64 = 300;
/// Later than any back-off, expiry or sweep of a run.
const PATIENCE_MS: u64 = 300_000;

pub(super) struct World {
    pub(super) rng: Rng,
    start: Now,
    /// Milliseconds since the start.
    pub(super) at: u64,
    pub(super) agenda: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    pub(super) settings: Settings,
    pub(super) nats: Nats,
    pub(super) reminders: Vec<Reminder>,
    published: u64,
    /// Whose reminders the machine routes.
    pub(super) users: Vec<UserId>,
    /// Users of other partitions, who may be associates.
    strangers: Vec<UserId>,
    pub(super) apps: Vec<AppServer>,
    pub(super) life: Life,
    /// The latest of each user's reminders that was accepted for the first time, for each who was told, anywhere and at each
    /// app server.
    accepted: BTreeMap<(UserId, UserId, Option<usize>), Id>,
    /// A watch keeps its order.
    watched_until: u64,
    is_healing: bool,
    pub(super) tally: BTreeMap<&'static str, u64>,
    told: Story,
    pub(super) story: Vec<String>,
}

/// A delivery: who is told, and what.
pub(super) type Parts = Vec<(UserId, Vec<Id>)>;

/// What happens at some time.
#[derive(Debug)]
pub(super) enum Happening {
    // The plan.
    Publish,
    Roam,
    Mood,
    Associate,
    Crash,
    HandOver,
    // What is under way in the shell. A crash ends it.
    Feed,
    Tell(Input),
    ParkLands,
    ReadIsServed { user: UserId, from: u64, last: u64 },
    Record(Vec<(Settled, Id)>),
    Remove(Vec<(Settled, Id)>),
    RemoveAgain { user: UserId, sequence: u64 },
    LookUpIsServed { user: UserId, associate: UserId },
    // What is under way outside. Requests name the life that waits for the answer.
    DeliveryArrives { life: u64, app: usize, parts: Parts },
    HeartbeatArrives { life: u64, app: usize, users: Vec<UserId> },
    AcceptedTooLate { app: usize, parts: Parts },
    Watched(Input),
    DropRoute { user: UserId, app: usize, revision: u64 },
}

impl Happening {
    fn is_planned(&self) -> bool {
        matches!(self, Self::Publish | Self::Roam | Self::Mood | Self::Associate | Self::Crash | Self::HandOver)
    }

    /// It is under way in the shell.
    pub(super) fn ends_with_life(&self) -> bool {
        match self {
            Self::Feed | Self::Tell(_) | Self::ParkLands | Self::ReadIsServed { .. } => true,
            Self::Record(_) | Self::Remove(_) | Self::RemoveAgain { .. } | Self::LookUpIsServed { .. } => true,
            Self::Publish | Self::Roam | Self::Mood | Self::Associate | Self::Crash | Self::HandOver => false,
            Self::DeliveryArrives { .. } | Self::HeartbeatArrives { .. } | Self::AcceptedTooLate { .. } => false,
            Self::Watched(_) | Self::DropRoute { .. } => false,
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, told: Story) -> Self {
        let mut rng = Rng::with_seed(seed);
        let settings = Settings {
            lease: Duration::from_millis(pick(&mut rng, &[0, 300, 5_000])),
            instance_backoff: (Duration::from_millis(100), Duration::from_secs(2)),
            busy_backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            all_devices: rng.bool(),
            turn_timeout: Duration::from_millis(pick(&mut rng, &[20, 200, 2_000])),
            heartbeat_users: rng.usize(1..=3),
            delivery_bytes: pick(&mut rng, &[150, 150, 1_500]),
            mailbox_limit: pick(&mut rng, &[3, 20, 1_000, 1_000]),
            park_batch: (rng.usize(1..=4), 300),
            reads_in_flight: rng.usize(1..=2),
            expiry_interval: Duration::from_secs(1),
            copy_rerouted: rng.u32(0..3) == 0,
            reroute_timeout: Duration::from_millis(pick(&mut rng, &[100, 1_000, 5_000])),
            merge_window: Duration::from_millis(pick(&mut rng, &[0, 300, 10_000])),
            merge_limit: rng.usize(1..=8),
        };
        let app = |number| AppServer {
            instance: instance(&format!("app-{number}")),
            mood: Mood::Well,
            connected: BTreeSet::new(),
        };
        let mut world = Self {
            start: start(),
            at: 0,
            agenda: BTreeMap::new(),
            scheduled: 0,
            nats: Nats::default(),
            reminders: Vec::new(),
            published: 0,
            users: ["alice", "bob", "carol", "dave"][..rng.usize(1..=4)].iter().map(|user| name(user)).collect(),
            strangers: ["erin", "frank"][..rng.usize(0..=2)].iter().map(|user| name(user)).collect(),
            apps: (1..=rng.usize(1..=3)).map(app).collect(),
            life: Life::new(1, &settings),
            accepted: BTreeMap::new(),
            watched_until: 0,
            is_healing: false,
            tally: BTreeMap::new(),
            told,
            story: Vec::new(),
            settings,
            rng,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let until = self.rng.u64(1_000..15_000);
        for _ in 0..self.rng.usize(10..80) {
            let happening = match self.rng.u32(0..100) {
                0..45 => Happening::Publish,
                45..50 => Happening::Associate,
                50..80 => Happening::Roam,
                80..93 => Happening::Mood,
                93..97 => Happening::Crash,
                _ => Happening::HandOver,
            };
            let delay = self.rng.u64(0..until);
            self.after(delay, happening);
        }
        self.after(until, Happening::Publish);
    }

    // Time.

    pub(super) fn now(&self) -> Now {
        later(self.start, self.at)
    }

    pub(super) fn after(&mut self, delay: u64, happening: Happening) {
        self.scheduled += 1;
        self.agenda.insert((self.at + delay, self.scheduled), happening);
    }

    /// Mostly quick, sometimes not.
    pub(super) fn latency(&mut self) -> u64 {
        if self.rng.u32(0..20) == 0 { self.rng.u64(20..250) } else { self.rng.u64(0..15) }
    }

    /// Everything that was planned happens.
    pub(super) fn live(&mut self) {
        while self.agenda.values().any(Happening::is_planned) {
            self.happen();
        }
    }

    /// Everything gets well, and time passes until nothing is left to happen.
    pub(super) fn heal(&mut self) {
        self.tell_of(|| "everything heals".into());
        self.is_healing = true;
        for app in &mut self.apps {
            app.mood = Mood::Well;
        }
        for user in self.users.clone() {
            if !self.apps.iter().any(|app| app.connected.contains(&user)) {
                let app = self.rng.usize(0..self.apps.len());
                self.connect(&user, app);
            }
        }
        self.run_out();
        self.assert_everything_is_over();
    }

    /// Everybody leaves: the machine has nothing to remember.
    pub(super) fn desert(&mut self) {
        for (user, instance) in self.nats.routes.keys().cloned().collect::<Vec<_>>() {
            self.delete_route(&user, &instance);
        }
        for user in std::mem::take(&mut self.nats.associates).into_keys() {
            self.watch(Input::Associates { user, associates: Vec::new() });
        }
        self.run_out();
        assert!(self.life.partition.is_empty(), "{:#?}", self.life.partition);
    }

    fn run_out(&mut self) {
        let until = self.at + PATIENCE_MS;
        while !self.agenda.is_empty() || self.life.partition.next_deadline().is_some() {
            self.happen();
            assert!(self.at < until, "it never ends: {:#?}", self.life.partition);
        }
    }

    /// The next thing happens: something on the agenda, or a deadline of the machine.
    fn happen(&mut self) {
        let deadline = self.life.partition.next_deadline().map(|at| at.saturating_duration_since(self.start.instant));
        let deadline = deadline.map(|after| u64::try_from(after.as_millis()).unwrap().max(self.at));
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let is_tick = match (deadline, agenda) {
            (Some(deadline), Some(agenda)) if deadline == agenda => self.rng.bool(),
            (Some(deadline), Some(agenda)) => deadline < agenda,
            (deadline, _) => deadline.is_some(),
        };
        if is_tick {
            self.at = deadline.unwrap_or(self.at);
            self.tell(Input::Tick);
        } else if let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.at = at;
            self.on(happening);
        }
        self.keep_going();
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Publish => self.publish(),
            Happening::Roam => self.roam(),
            Happening::Mood => self.change_mood(),
            Happening::Associate => self.associate(),
            Happening::LookUpIsServed { user, associate } => self.look_up_is_served(user, associate),
            Happening::Crash => {
                // In the middle of things: the watch is behind what the next owner finds.
                (0..self.rng.usize(0..4)).for_each(|_| self.roam());
                self.crash();
            }
            Happening::HandOver => self.hand_over(),
            Happening::Feed => self.feed(),
            Happening::Tell(input) | Happening::Watched(input) => self.tell(input),
            Happening::ParkLands => self.park_lands(),
            Happening::ReadIsServed { user, from, last } => self.read_is_served(user, from, last),
            Happening::Record(settled) => self.record(settled),
            Happening::Remove(settled) => self.remove(&settled),
            Happening::RemoveAgain { user, sequence } => self.remove_mail(&user, sequence..=sequence),
            Happening::DeliveryArrives { life, app, parts } => self.delivery_arrives(life, app, &parts),
            Happening::HeartbeatArrives { life, app, users } => self.heartbeat_arrives(life, app, &users),
            Happening::AcceptedTooLate { app, parts } => {
                for (told, ids) in parts {
                    ids.into_iter().for_each(|id| self.accept(app, &told, id));
                }
            }
            Happening::DropRoute { user, app, revision } => self.drop_route(&user, app, revision),
        }
    }

    // People.

    fn publish(&mut self) {
        let ids: Vec<Id> = (0..self.rng.usize(1..=4)).map(|_| self.write()).collect();
        self.published += 1;
        let sequence = self.published;
        self.tell_of(|| format!("event {sequence} has {ids:?}"));
        self.nats.events.insert(sequence, ids);
    }

    fn write(&mut self) -> Id {
        let number = self.rng.usize(0..self.users.len());
        let user = self.users[number].clone();
        let expires = self.rng.u32(0..10) < 3;
        let expires_at = expires.then(|| i64::try_from(self.at + self.rng.u64(0..8_000)).unwrap());
        let bytes = pick(&mut self.rng, &[10, 60, 200]);
        let (id, mut reminder) = (self.reminders.len(), Reminder::new(user, expires_at, bytes));
        reminder.stays = self.rng.u32(0..6) == 0;
        if !self.settings.merge_window.is_zero() && self.rng.bool() {
            let priority = pick(&mut self.rng, &[Priority::Normal, Priority::Normal, Priority::High]);
            reminder = reminder.saying(id, (2 * number + self.rng.usize(0..2)) as u128, priority);
        }
        self.reminders.push(reminder);
        id
    }

    /// Everybody there is.
    fn people(&self) -> Vec<UserId> {
        self.users.iter().chain(&self.strangers).cloned().collect()
    }

    /// A user names others, or itself, or somebody whom nobody knows.
    fn associate(&mut self) {
        let user = self.rng.choice(&self.users).unwrap().clone();
        let mut associates = self.people();
        associates.push(name("nobody"));
        self.rng.shuffle(&mut associates);
        associates.truncate(self.rng.usize(0..=4));
        self.tell_of(|| format!("{user}'s associates are {associates:?}"));
        self.nats.associates.insert(user.clone(), associates.clone());
        self.watch(Input::Associates { user, associates });
    }

    /// Some look-ups hang.
    fn look_up_is_served(&mut self, user: UserId, associate: UserId) {
        if !self.is_healing && self.rng.u32(0..20) == 0 {
            return self.count("look-ups that hang");
        }
        let instances = self.nats.routes_of(&associate);
        let delay = self.latency();
        self.after(delay, Happening::Tell(Input::RoutesFound { user, associate, instances }));
    }

    /// A user connects, disconnects or moves.
    fn roam(&mut self) {
        let user = self.rng.choice(&self.people()).unwrap().clone();
        let app = self.rng.usize(0..self.apps.len());
        if self.apps[app].connected.contains(&user) {
            return self.disconnect(&user, app);
        }
        let others: Vec<_> = (0..self.apps.len()).filter(|other| self.apps[*other].connected.contains(&user)).collect();
        let (moves, is_first) = (self.rng.bool(), self.rng.bool());
        if is_first {
            self.connect(&user, app);
        }
        for other in others.into_iter().filter(|_| moves) {
            self.disconnect(&user, other);
        }
        if !is_first {
            self.connect(&user, app);
        }
    }

    fn connect(&mut self, user: &UserId, app: usize) {
        self.tell_of(|| format!("{user} connects to {}", app + 1));
        self.apps[app].connected.insert(user.clone());
        self.nats.revision += 1;
        let (instance, revision) = (self.apps[app].instance.clone(), self.nats.revision);
        self.nats.routes.insert((user.clone(), instance.clone()), revision);
        self.watch_route(user, Input::RouteUp { user: user.clone(), instance, revision });
    }

    /// Now and then the app server forgets to delete the route.
    fn disconnect(&mut self, user: &UserId, app: usize) {
        self.tell_of(|| format!("{user} disconnects from {}", app + 1));
        self.apps[app].connected.remove(user);
        if self.rng.u32(0..4) > 0 {
            self.delete_route(user, &self.apps[app].instance.clone());
        }
    }

    fn delete_route(&mut self, user: &UserId, instance: &Arc<Instance>) {
        if self.nats.routes.remove(&(user.clone(), instance.clone())).is_some() {
            self.nats.revision += 1;
            let (instance, revision) = (instance.name.clone(), self.nats.revision);
            self.watch_route(user, Input::RouteDown { user: user.clone(), instance, revision });
        }
    }

    fn drop_route(&mut self, user: &UserId, app: usize, revision: u64) {
        let instance = self.apps[app].instance.clone();
        if self.nats.routes.get(&(user.clone(), instance.clone())) == Some(&revision) {
            self.count("routes dropped");
            self.delete_route(user, &instance);
        }
    }

    /// Other partitions' routes are not told to this one.
    fn watch_route(&mut self, user: &UserId, change: Input) {
        if self.users.contains(user) {
            self.watch(change);
        }
    }

    fn watch(&mut self, change: Input) {
        self.watched_until = self.watched_until.max(self.at + self.latency());
        self.after(self.watched_until - self.at, Happening::Watched(change));
    }

    // App servers.

    fn change_mood(&mut self) {
        let app = self.rng.usize(0..self.apps.len());
        let mood = pick(&mut self.rng, &Mood::ALL);
        self.tell_of(|| format!("app-{} is {mood:?}", app + 1));
        self.apps[app].mood = mood;
    }

    fn heartbeat_arrives(&mut self, life: u64, app: usize, users: &[UserId]) {
        let is_lost = !self.is_healing && self.rng.u32(0..40) == 0;
        let answer = if is_lost { Err(NoAnswer::TimedOut) } else { self.apps[app].heartbeat(users) };
        let delay = if answer == Err(NoAnswer::TimedOut) { HEARTBEAT_TIMEOUT_MS } else { self.latency() };
        self.answer(life, delay, Input::HeartbeatAnswered { instance: self.apps[app].instance.clone(), answer });
        users.iter().for_each(|user| self.may_come_back(user, app));
    }

    /// A user who was just said not to be connected connects again, before that answer is known.
    fn may_come_back(&mut self, user: &UserId, app: usize) {
        if !self.is_healing && !self.apps[app].connected.contains(user) && self.rng.u32(0..4) == 0 {
            self.connect(user, app);
        }
    }

    fn delivery_arrives(&mut self, life: u64, app: usize, parts: &Parts) {
        let is_lost = !self.is_healing && self.rng.u32(0..25) == 0;
        let instance = self.apps[app].instance.clone();
        let all: Vec<Id> = parts.iter().flat_map(|(_, ids)| ids.clone()).collect();
        let answer = match self.apps[app].mood {
            Mood::Gone => Err(NoAnswer::NoResponders),
            Mood::Silent => Err(NoAnswer::TimedOut),
            Mood::Hung => {
                self.take_in_too_late(app, parts, &all);
                Err(NoAnswer::TimedOut)
            }
            Mood::Garbled if self.rng.bool() => Err(NoAnswer::Garbage),
            Mood::Garbled => {
                self.touch(&all);
                self.take_in(app, parts);
                Err(NoAnswer::Garbage)
            }
            Mood::Well | Mood::Busy if is_lost => {
                self.count("answers lost");
                self.touch(&all);
                self.take_in(app, parts);
                Err(NoAnswer::TimedOut)
            }
            Mood::Well | Mood::Busy => Ok(self.take_in(app, parts)),
        };
        let delay = if answer == Err(NoAnswer::TimedOut) { DELIVERY_TIMEOUT_MS } else { self.latency() };
        self.answer(life, delay, Input::Delivered { instance, answer });
        parts.iter().for_each(|(user, _)| self.may_come_back(user, app));
    }

    /// Accepts what it can; answers the rest.
    fn take_in(&mut self, app: usize, parts: &Parts) -> Vec<(usize, usize, Refusal)> {
        let mut refused = Vec::new();
        let is_orderly = self.rng.bool();
        for (place, (user, ids)) in parts.iter().enumerate() {
            let mut put_off = Vec::new();
            for (at, id) in ids.iter().enumerate() {
                let is_busy = self.apps[app].mood == Mood::Busy && self.rng.bool();
                if !self.apps[app].connected.contains(user) {
                    self.count("refused as not connected");
                    refused.push((place, at, Refusal::NotConnected));
                } else if is_busy || (is_orderly && !put_off.is_empty()) {
                    self.count("refused as busy");
                    put_off.push(*id);
                    refused.push((place, at, Refusal::Busy));
                } else {
                    put_off.iter().for_each(|id| self.reminders[*id].is_overtaken = true);
                    self.accept(app, user, *id);
                }
            }
        }
        refused
    }

    /// Hangs: never takes it in, or long after the time-out.
    fn take_in_too_late(&mut self, app: usize, parts: &Parts, ids: &[Id]) {
        if self.rng.bool() {
            self.touch(ids);
            self.count("accepted too late");
            let (delay, parts) = (self.rng.u64(0..3_000), parts.clone());
            self.after(delay, Happening::AcceptedTooLate { app, parts });
        }
    }

    fn accept(&mut self, app: usize, told: &UserId, id: Id) {
        self.tell_of(|| format!("app-{} accepts {id} for {told}", app + 1));
        let reminder = &mut self.reminders[id];
        let is_repeated = !reminder.accepted_by.is_empty();
        let place = (self.apps[app].instance.name.clone(), told.clone());
        let is_repeated_here = reminder.accepted_by.contains(&place);
        let may_be_repeated = reminder.is_touched || (self.settings.all_devices && !is_repeated_here);
        assert!(!is_repeated || may_be_repeated, "{id} is accepted again without a fault: {reminder:?}");
        let is_rerouted = *told != reminder.user;
        assert!(!is_rerouted || !reminder.stays, "{id} is told to {told}: {reminder:?}");
        reminder.accepted_by.push(place);
        for (is_first, at) in [(!is_repeated, None), (!is_repeated_here, Some(app))] {
            if !is_first || reminder.is_copy {
                continue;
            }
            let latest = self.accepted.entry((reminder.user.clone(), told.clone(), at)).or_insert(id);
            // What an associate's instance hung on goes another way, and others to the associate meanwhile.
            let is_late = is_rerouted && reminder.is_touched;
            let may_be_late = reminder.is_overtaken || reminder.is_settled || is_late;
            assert!(*latest <= id || may_be_late, "{id} is accepted after {latest}: {reminder:?}");
            *latest = id.max(*latest);
        }
        self.count(if is_repeated { "accepted again after a fault" } else { "accepted" });
    }

    pub(super) fn touch(&mut self, ids: &[Id]) {
        ids.iter().for_each(|id| self.reminders[*id].is_touched = true);
    }

    // Telling.

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(super) fn tell_of(&mut self, what: impl FnOnce() -> String) {
        if self.told == Story::Untold {
            return;
        }
        let line = format!("{:>6} {}", self.at, what());
        if self.told == Story::Printed {
            println!("{line}");
        }
        self.story.push(line);
    }
}

pub(super) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    *rng.choice(from).unwrap()
}
