//! What runs a machine, crashes and starts another one. Everything that the machine wants done is checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{Id, Reading};
use super::world::{Happening, World};
use crate::reminder::finished::REROUTED_BYTES;
use crate::router::tests::show;
use crate::router::{Action, Fate, Input, Instance, Item, Parking, Partition, Removal, Settings, Settled, Share};
use crate::token::{InstanceName, UserId};

/// The most events given to the machine and not acknowledged.
const WINDOW: usize = 6;
/// The longest time between a confirmation and the delivery that it allows, when deliveries before it time out.
const QUEUED_UP_TO_MS: u64 = 2_000;
/// Within this time a machine that was told to stop is quiet.
const STOPPED_WITHIN_MS: u64 = 20_000;

/// A machine from its start to its crash, and what the shell around it keeps in memory.
#[derive(Debug)]
pub(super) struct Life {
    number: u64,
    pub(super) partition: Partition,
    /// What the last owner had recorded or parked, where this shell looks for it.
    recorded_before: BTreeSet<Item>,
    parked_before: BTreeSet<Id>,
    /// The last event that the machine was given.
    fed: u64,
    is_feeding: bool,
    /// Events given to it, and how many of their reminders are not removed.
    open: BTreeMap<u64, usize>,
    /// What it settled, and how many of these are not recorded and removed.
    settled: BTreeSet<Item>,
    unfinished: usize,
    /// What it settled for good.
    over: BTreeSet<Id>,
    /// Parked reminders whose content is in memory.
    held: BTreeSet<Item>,
    delivering: BTreeMap<Arc<Instance>, Vec<(UserId, usize)>>,
    /// When a connection was last confirmed, by a heartbeat or an accepted delivery.
    confirmed: BTreeMap<(UserId, Arc<Instance>), u64>,
    /// The same, for those who are told as associates.
    confirmed_associates: BTreeMap<(UserId, Arc<Instance>), u64>,
    checking: BTreeSet<Arc<Instance>>,
    /// What is being parked; of a copy, that it is one.
    parking: Vec<(UserId, Id, bool)>,
    landed: Vec<u64>,
    /// Parked again although it had left the mailbox before a crash, or found in a mailbox although it was done with: the
    /// machine counts it until the mailbox is empty.
    ghosts: usize,
    reading: BTreeSet<UserId>,
    /// Outcomes keep their order.
    recorded_until: u64,
    stopping_since: Option<u64>,
}

impl Life {
    pub(super) fn new(number: u64, settings: &Settings) -> Self {
        Self {
            number,
            partition: Partition::new(settings.clone()),
            recorded_before: BTreeSet::new(),
            parked_before: BTreeSet::new(),
            fed: 0,
            is_feeding: false,
            open: BTreeMap::new(),
            settled: BTreeSet::new(),
            unfinished: 0,
            over: BTreeSet::new(),
            held: BTreeSet::new(),
            delivering: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            confirmed_associates: BTreeMap::new(),
            checking: BTreeSet::new(),
            parking: Vec::new(),
            landed: Vec::new(),
            ghosts: 0,
            reading: BTreeSet::new(),
            recorded_until: 0,
            stopping_since: None,
        }
    }
}

impl World {
    // Into the machine.

    pub(super) fn tell(&mut self, input: Input) {
        self.tell_of(|| format!("<- {input:?}"));
        match &input {
            Input::Delivered { instance, answer } => {
                let parts = self.life.delivering.remove(instance).unwrap();
                let refused = |place| answer.iter().flatten().filter(|refused| refused.0 == place).count();
                let accepted = parts.into_iter().enumerate().filter(|(place, (_, count))| refused(*place) < *count);
                let users: Vec<_> = accepted.map(|(_, (user, _))| user).collect();
                if answer.is_ok() && !self.settings.lease.is_zero() {
                    self.confirm(instance, &users);
                }
            }
            Input::HeartbeatAnswered { instance, answer } => {
                assert!(self.life.checking.remove(instance));
                self.confirm(instance, answer.as_deref().unwrap_or_default());
            }
            Input::MailboxRead { user, page } => {
                assert!(self.life.reading.remove(user));
                page.entries.iter().for_each(|entry| assert!(self.life.held.insert(entry.item), "{entry:?} is held"));
            }
            _ => {}
        }
        let mut actions = Vec::new();
        self.life.partition.handle(self.now(), input, &mut actions);
        self.life.partition.audit();
        for action in actions {
            self.tell_of(|| format!("-> {}", show(&action).join("; ")));
            self.perform(action);
        }
    }

    fn confirm(&mut self, instance: &Arc<Instance>, users: &[UserId]) {
        let at = self.at;
        let confirmed = || users.iter().map(|user| ((user.clone(), instance.clone()), at));
        self.life.confirmed.extend(confirmed());
        self.life.confirmed_associates.extend(confirmed());
    }

    /// An associate was asked for, and is somebody else whom the user named.
    fn check_associate(&self, instance: &Arc<Instance>, user: &UserId, to: &UserId) {
        let connection = (to.clone(), instance.clone());
        let confirmed = self.life.confirmed_associates.get(&connection);
        let is_held = confirmed.is_some_and(|at| self.at <= at + QUEUED_UP_TO_MS);
        assert!(is_held && user != to, "{to} at {instance:?} was confirmed at {confirmed:?} for {user}");
    }

    /// Where there is a lease, the confirmation may have aged in the queue for the delivery.
    fn check_confirmed(&mut self, instance: &Arc<Instance>, user: &UserId) {
        let connection = (user.clone(), instance.clone());
        let lease = u64::try_from(self.settings.lease.as_millis()).unwrap();
        let confirmed = match lease {
            0 => self.life.confirmed.remove(&connection),
            _ => self.life.confirmed.get(&connection).copied(),
        };
        let is_held = confirmed.is_some_and(|at| self.at <= at + lease + QUEUED_UP_TO_MS);
        assert!(is_held, "{user} at {instance:?} was confirmed at {confirmed:?}");
    }

    pub(super) fn answer(&mut self, life: u64, delay: u64, input: Input) {
        if life == self.life.number {
            self.after(delay, Happening::Tell(input));
        }
    }

    /// Events follow as long as the window has room; a machine that has stopped is followed by another one.
    pub(super) fn keep_going(&mut self) {
        if self.has_stopped() {
            self.end_life();
            self.begin_life();
        }
        let Life { fed, is_feeding, open, stopping_since, .. } = &self.life;
        let has_room = !is_feeding && open.len() < WINDOW && stopping_since.is_none();
        if has_room && self.nats.events.range(fed + 1..).next().is_some() {
            self.life.is_feeding = true;
            let delay = self.latency();
            self.after(delay, Happening::Feed);
        }
    }

    fn has_stopped(&self) -> bool {
        let Life { partition, open, unfinished, stopping_since, .. } = &self.life;
        let Some(since) = stopping_since else { return false };
        assert!(self.at < since + STOPPED_WITHIN_MS, "it does not stop: {partition:#?}");
        let is_over = partition.is_quiet() && *unfinished == 0;
        assert!(!is_over || open.is_empty(), "it stopped with live reminders: {open:?} {partition:#?}");
        is_over
    }

    pub(super) fn feed(&mut self) {
        self.life.is_feeding = false;
        let Some((&sequence, ids)) = self.nats.events.range(self.life.fed + 1..).next() else { return };
        if self.life.stopping_since.is_some() {
            return;
        }
        let (mut new, mut parked) = (Vec::new(), Vec::new());
        for (index, id) in ids.iter().enumerate() {
            let (item, reminder) = (Item::Event { sequence, index }, &self.reminders[*id]);
            let user = reminder.user.clone();
            if self.life.recorded_before.contains(&item) {
                continue;
            } else if self.life.parked_before.contains(id) {
                parked.push(Settled { user, item, fate: Fate::Parked, removal: Removal::Event });
            } else {
                new.push((user, reminder.entry(item)));
            }
        }
        self.life.fed = sequence;
        self.life.open.insert(sequence, new.len() + parked.len());
        if !parked.is_empty() {
            self.settle(parked);
        }
        self.tell(Input::Event(new));
        self.acknowledge(sequence);
    }

    // Out of the machine.

    fn perform(&mut self, action: Action) {
        match action {
            Action::Deliver { instance, shares } => self.deliver(&instance, shares),
            Action::LookUpRoutes { user, associate } => {
                self.count("look-ups");
                let delay = self.latency();
                self.after(delay, Happening::LookUpIsServed { user, associate });
            }
            Action::Heartbeat { instance, users } => self.heartbeat(&instance, users),
            Action::DropRoute { user, instance, revision } => {
                let (app, delay) = (self.app(&instance), self.latency());
                self.after(delay, Happening::DropRoute { user, app, revision });
            }
            Action::Park(batch) => self.park(batch),
            Action::ReadMailbox { user, from, last } => {
                assert!(self.life.reading.insert(user.clone()), "{user}'s mailbox is read twice at a time");
                assert!(self.life.reading.len() <= self.settings.reads_in_flight);
                let delay = self.latency();
                self.after(delay, Happening::ReadIsServed { user, from, last });
            }
            Action::Settle(settled) => self.settle(settled),
            Action::Forget(items) => items.iter().for_each(|item| self.let_go(item)),
        }
    }

    fn app(&self, instance: &InstanceName) -> usize {
        self.apps.iter().position(|app| app.instance.name == *instance).unwrap()
    }

    fn let_go(&mut self, item: &Item) {
        assert!(self.life.held.remove(item), "{item:?} was not held");
    }

    fn deliver(&mut self, instance: &Arc<Instance>, shares: Vec<Share>) {
        self.count("deliveries");
        let under_way = self.life.delivering.values().flatten().filter(|_| !self.settings.all_devices);
        let mut users: Vec<_> = under_way.map(|(user, _)| user.clone()).collect();
        let (mut bytes, mut count, mut parts) = (0, 0, Vec::new());
        let mut under_way = Vec::new();
        for Share { user, to, items } in shares {
            assert!(!users.contains(&user), "{user} has a delivery in flight");
            assert!(!items.is_empty(), "{user} has an empty part");
            match &to {
                Some(to) => self.check_associate(instance, &user, to),
                None => self.check_confirmed(instance, &user),
            }
            for item in &items {
                assert!(!self.life.settled.contains(item), "{item:?} was settled");
                let is_held = matches!(item, Item::Event { .. }) || self.life.held.contains(item);
                assert!(is_held, "{item:?} is not in memory");
            }
            let ids: Vec<_> = items.iter().map(|item| self.nats.resolve(&user, *item)).collect();
            for id in &ids {
                let reminder = &self.reminders[*id];
                assert!(reminder.expires_at.is_none_or(|at| at > self.now().unix_ms), "{id} is late");
                assert!(to.is_none() || !reminder.stays, "{id} is the user's alone: {reminder:?}");
                bytes += reminder.bytes + if to.is_some() { REROUTED_BYTES } else { 0 };
                count += 1;
            }
            users.push(user.clone());
            under_way.push((user.clone(), ids.len()));
            parts.push((to.unwrap_or(user), ids));
        }
        assert!(count == 1 || bytes <= self.settings.delivery_bytes, "{count} reminders of {bytes} bytes");
        assert!(self.life.delivering.insert(instance.clone(), under_way).is_none(), "two deliveries for {instance:?}");
        let (life, app, delay) = (self.life.number, self.app(&instance.name), self.latency());
        self.after(delay, Happening::DeliveryArrives { life, app, parts });
    }

    fn heartbeat(&mut self, instance: &Arc<Instance>, users: Vec<UserId>) {
        assert!((1..=self.settings.heartbeat_users).contains(&users.len()), "{users:?}");
        assert!(users.iter().collect::<BTreeSet<_>>().len() == users.len(), "{users:?}");
        assert!(self.life.checking.insert(instance.clone()), "two heartbeats for {instance:?}");
        let (life, app, delay) = (self.life.number, self.app(&instance.name), self.latency());
        self.after(delay, Happening::HeartbeatArrives { life, app, users });
    }

    fn park(&mut self, batch: Vec<Parking>) {
        assert!(self.life.parking.is_empty(), "two batches at a time");
        assert!((1..=self.settings.park_batch.0).contains(&batch.len()), "{batch:?}");
        for Parking { user, item, rerouted_to } in batch {
            assert!(matches!(item, Item::Event { .. }) && !self.life.settled.contains(&item), "{item:?}");
            let id = self.nats.resolve(&user, item);
            if let Some(to) = &rerouted_to {
                assert!(self.reminders[id].accepted_by.iter().any(|(_, told)| told == to), "{id} is copied for {to}");
            }
            self.life.parking.push((user, id, rerouted_to.is_some()));
        }
        let delay = self.latency();
        self.after(delay, Happening::ParkLands);
    }

    /// One connection, one order: what is lost in a crash is the end of a batch.
    pub(super) fn park_lands(&mut self) {
        let (user, mut id, is_copy) = self.life.parking[self.life.landed.len()].clone();
        if is_copy {
            self.count("copies parked");
            self.reminders.push(self.reminders[id].copy());
            id = self.reminders.len() - 1;
        }
        if self.nats.known.contains_key(&id) {
            self.count("parked again after a crash");
        }
        let gap = self.rng.u64(0..3);
        let sequence = self.nats.park(&user, id, gap);
        self.life.landed.push(sequence);
        self.life.ghosts += usize::from(!self.nats.mailbox(&user).any(|(at, _)| at == sequence));
        self.tell_of(|| format!("{id} is in {user}'s mailbox"));
        let in_mailbox = self.nats.mailbox(&user).map(|(sequence, _)| Item::Parked { sequence });
        let waiting = in_mailbox.filter(|item| self.is_unsettled(*item)).count();
        assert!(waiting <= self.settings.mailbox_limit, "{waiting} in {user}'s mailbox");
        if self.life.landed.len() < self.life.parking.len() {
            let delay = self.rng.u64(0..4);
            return self.after(delay, Happening::ParkLands);
        }
        self.life.parking.clear();
        let (landed, delay) = (std::mem::take(&mut self.life.landed), self.latency());
        self.after(delay, Happening::Tell(Input::Parked(landed)));
    }

    /// A replica may be behind, but not behind what the machine knows.
    pub(super) fn read_is_served(&mut self, user: UserId, from: u64, last: u64) {
        let newest = self.nats.parked.max(last);
        let seen_until = if self.rng.bool() { newest } else { self.rng.u64(last..=newest) };
        let until = if self.rng.bool() { u64::MAX } else { from + self.rng.u64(0..6) };
        let reading = Reading { from, until, seen_until, most: self.rng.usize(1..=4) };
        let mut page = self.nats.read(&user, &self.reminders, &reading);
        let done =
            page.entries.extract_if(.., |entry| self.life.recorded_before.contains(&entry.item)).collect::<Vec<_>>();
        for entry in done {
            if let Item::Parked { sequence } = entry.item {
                let (user, delay) = (user.clone(), self.latency());
                self.after(delay, Happening::RemoveAgain { user, sequence });
            }
        }
        let delay = self.latency();
        self.after(delay, Happening::Tell(Input::MailboxRead { user, page }));
    }

    // Settling: the outcome first, and in order; then the removal.

    fn settle(&mut self, settled: Vec<Settled>) {
        let mut known = Vec::new();
        for one in settled {
            assert!(self.life.settled.insert(one.item), "{one:?} is settled twice");
            let id = self.nats.resolve(&one.user, one.item);
            if matches!(one.item, Item::Parked { .. }) {
                self.let_go(&one.item);
            }
            self.check_fate(id, &one);
            known.push((one, id));
        }
        self.life.unfinished += known.len();
        self.life.recorded_until = self.life.recorded_until.max(self.at + self.latency());
        self.after(self.life.recorded_until - self.at, Happening::Record(known));
    }

    fn check_fate(&mut self, id: Id, Settled { user, item, fate, .. }: &Settled) {
        let now = self.now();
        let reminder = &mut self.reminders[id];
        match fate {
            Fate::Delivered { by, .. } => {
                let has_it = |instance: &InstanceName| reminder.accepted_by.contains(&(instance.clone(), user.clone()));
                assert!(!by.is_empty() && by.iter().all(has_it), "{id}: {reminder:?}");
                assert!(by.len() == 1 || self.settings.all_devices, "{id}: {by:?}");
                if by.len() > 1 {
                    self.count("accepted by several");
                }
            }
            Fate::Rerouted { instance, to } => {
                assert!(reminder.accepted_by.contains(&(instance.clone(), to.clone())), "{id}: {reminder:?}");
                self.count("rerouted");
            }
            Fate::Expired => assert!(reminder.expires_at.is_some_and(|at| at <= now.unix_ms), "{id}: {reminder:?}"),
            Fate::MailboxFull => reminder.is_overtaken = true,
            Fate::Merged { into } => self.check_merged(id, into.parse().unwrap()),
            Fate::Parked => {
                assert!(matches!(item, Item::Event { .. }) && self.nats.known.contains_key(&id), "{id} {item:?}");
                assert!(reminder.is_touched || !reminder.is_settled, "{id} is parked after its end: {reminder:?}");
                return self.count("parked");
            }
        }
        let reminder = &mut self.reminders[id];
        assert!(self.life.over.insert(id) || reminder.is_touched, "{id} ends twice: {reminder:?}");
        reminder.is_settled = true;
        match (fate, item) {
            (Fate::Expired, Item::Parked { .. }) => self.count("expired in a mailbox"),
            (Fate::Expired, Item::Event { .. }) => self.count("expired on the way"),
            (Fate::MailboxFull, _) => self.check_mailbox_is_full(user),
            _ => {}
        }
    }

    /// The other one says the same, no less urgently, and was told or lies in the mailbox for as long.
    fn check_merged(&mut self, id: Id, into: Id) {
        self.count("merged");
        let (reminder, other) = (&self.reminders[id], &self.reminders[into]);
        let (own, others) = (reminder.text.as_ref().unwrap(), other.text.as_ref().unwrap());
        assert!(id != into && own.hash == others.hash && own.priority <= others.priority, "{id}: {own:?} {others:?}");
        assert!(other.was_told(), "{id} is merged into {into}: {other:?}");
        self.reminders[id].merged_into = Some(into);
    }

    /// Counts what lies in the mailbox or may be on its way into it.
    fn check_mailbox_is_full(&mut self, user: &UserId) {
        self.count("refused by a full mailbox");
        let in_mailbox = self.nats.mailbox(user).map(|(sequence, _)| Item::Parked { sequence });
        let on_the_way = self.life.open.keys().flat_map(|sequence| {
            let ids = self.nats.events[sequence].iter().enumerate();
            let of_user = ids.filter(|(_, id)| self.reminders[**id].user == *user);
            of_user.map(|(index, _)| Item::Event { sequence: *sequence, index })
        });
        let unsettled = in_mailbox.chain(on_the_way).filter(|item| self.is_unsettled(*item)).count();
        let waiting = unsettled + self.life.ghosts;
        assert!(waiting >= self.settings.mailbox_limit, "refused with {waiting} in {user}'s mailbox");
    }

    fn is_unsettled(&self, item: Item) -> bool {
        !self.life.settled.contains(&item)
    }

    pub(super) fn record(&mut self, settled: Vec<(Settled, Id)>) {
        self.mark_recorded(&settled);
        let delay = self.latency();
        self.after(delay, Happening::Remove(settled));
    }

    fn mark_recorded(&mut self, settled: &[(Settled, Id)]) {
        for (one, id) in settled {
            self.reminders[*id].is_recorded |= one.fate != Fate::Parked;
            self.nats.recorded.insert(one.item);
        }
    }

    /// Conservation: what leaves a place has a recorded end or lies in the mailbox.
    pub(super) fn remove(&mut self, settled: &[(Settled, Id)]) {
        self.life.unfinished -= settled.len();
        for (Settled { user, item, removal, .. }, _) in settled {
            match *removal {
                Removal::Event => self.remove_event(*item),
                Removal::MailboxUpTo(last) => self.remove_mail(user, 0..=last),
                Removal::MailboxOnly(sequence) => self.remove_mail(user, sequence..=sequence),
            }
        }
    }

    fn remove_event(&mut self, item: Item) {
        let Item::Event { sequence, .. } = item else { panic!("{item:?} is no event") };
        *self.life.open.get_mut(&sequence).unwrap() -= 1;
        self.acknowledge(sequence);
    }

    /// An event is acknowledged with its last reminder.
    fn acknowledge(&mut self, sequence: u64) {
        if self.life.open[&sequence] > 0 {
            return;
        }
        self.life.open.remove(&sequence);
        for id in self.nats.events.remove(&sequence).unwrap() {
            let reminder = &self.reminders[id];
            let is_kept = reminder.is_recorded || self.nats.is_parked(&reminder.user, id);
            assert!(is_kept, "{id} is lost: {reminder:?}");
        }
    }

    pub(super) fn remove_mail(&mut self, user: &UserId, range: std::ops::RangeInclusive<u64>) {
        let Some(mailbox) = self.nats.mailboxes.get_mut(user) else { return };
        for (sequence, id) in mailbox.extract_if(range, |_, _| true) {
            let reminder = &self.reminders[id];
            assert!(reminder.is_recorded, "{id} is purged from {user}'s mailbox at {sequence}: {reminder:?}");
        }
    }

    // Ends and beginnings.

    /// What was under way lands or does not. What may be done twice because of that is touched.
    pub(super) fn crash(&mut self) {
        self.count("crashes");
        self.tell_of(|| "crash".into());
        let mut is_record_lost = false;
        for ((at, order), happening) in std::mem::take(&mut self.agenda) {
            match happening {
                Happening::Record(settled) => {
                    is_record_lost |= self.rng.bool();
                    if !is_record_lost {
                        self.mark_recorded(&settled);
                        self.remove_or_not(&settled);
                    }
                }
                Happening::Remove(settled) => self.remove_or_not(&settled),
                happening => drop(self.agenda.insert((at, order), happening)),
            }
        }
        let under_way: Vec<Id> = self.agenda.values().flat_map(ids_of).collect();
        self.touch(&under_way);
        let given = self.nats.events.range(..=self.life.fed).flat_map(|(_, ids)| ids.clone());
        let done = |id: &Id| !self.reminders[*id].accepted_by.is_empty() || self.reminders[*id].merged_into.is_some();
        let not_removed = self.nats.mailboxes.values().flat_map(|mailbox| mailbox.values().copied()).filter(done);
        let repeated: Vec<Id> = given.chain(not_removed).collect();
        self.touch(&repeated);
        self.end_life();
        self.begin_life();
    }

    fn remove_or_not(&mut self, settled: &[(Settled, Id)]) {
        if self.rng.bool() {
            self.remove(settled);
        }
    }

    pub(super) fn hand_over(&mut self) {
        if self.life.stopping_since.is_none() {
            self.count("hand-overs");
            self.life.stopping_since = Some(self.at);
            self.tell(Input::Stop);
        }
    }

    fn end_life(&mut self) {
        self.agenda.retain(|_, happening| !happening.ends_with_life());
        self.life = Life::new(self.life.number + 1, &self.settings);
        if self.rng.bool() {
            self.life.recorded_before = self.nats.recorded.clone();
            let found = self.nats.mailboxes.values().flat_map(|mailbox| mailbox.keys());
            let is_done = |sequence: &&u64| self.nats.recorded.contains(&Item::Parked { sequence: **sequence });
            self.life.ghosts = found.filter(is_done).count();
            self.life.parked_before =
                self.nats.mailboxes.values().flat_map(|mailbox| mailbox.values().copied()).collect();
        }
    }

    fn begin_life(&mut self) {
        for user in self.nats.mailboxes.keys().cloned().collect::<Vec<_>>() {
            if let Some(summary) = self.nats.summary(&user, &self.reminders) {
                self.count("mailboxes found");
                self.tell(Input::MailboxFound(user, summary));
            }
        }
        let own = self.nats.routes.iter().filter(|((user, _), _)| self.users.contains(user));
        let mut routes: Vec<_> = own.map(|(route, revision)| (*revision, route.clone())).collect();
        routes.sort();
        for (revision, (user, instance)) in routes {
            self.tell(Input::RouteUp { user, instance, revision });
        }
        for (user, associates) in self.nats.associates.clone() {
            self.tell(Input::Associates { user, associates });
        }
    }

    pub(super) fn assert_everything_is_over(&self) {
        assert!(self.life.partition.is_quiet());
        assert_eq!(self.life.partition.leftovers(), [""; 0]);
        assert!(self.nats.events.is_empty(), "{:?}", self.nats.events);
        assert!(self.nats.mailboxes.values().all(BTreeMap::is_empty), "{:?}", self.nats.mailboxes);
        assert!(self.life.held.is_empty(), "still in memory: {:?}", self.life.held);
        assert!(self.life.open.is_empty() && self.life.unfinished == 0);
        for (id, reminder) in self.reminders.iter().enumerate() {
            assert!(reminder.is_recorded, "{id} has no end: {reminder:?}");
        }
    }
}

/// The reminders of a request that a crash leaves under way.
fn ids_of(happening: &Happening) -> Vec<Id> {
    match happening {
        Happening::DeliveryArrives { parts, .. } => parts.iter().flat_map(|(_, ids)| ids.clone()).collect(),
        _ => Vec::new(),
    }
}
