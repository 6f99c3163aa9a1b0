//! A process that works the partition: a machine, and what the shell around it keeps in memory.
//! Everything that the machine wants done is checked here.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bellhop_core::log::Subscriber;
use bellhop_core::log::done::Done;
use bellhop_core::log::partition::PartitionLog;
use bellhop_core::log::position::{Mark, Position};
use bellhop_core::log::progress::{Checkpoint, Progress};
use bellhop_core::log::readers::{Limits, ReaderId, Readers};
use bellhop_core::log::sets::SetsLog;
use bellhop_core::router::{
    Action, Company, HELD_BACK_AFTER, HeldBack, Input, Instance, Item, MailboxSummary, Page,
    Router, Settings, Share, Undelivered,
};
use bellhop_protocol::reminder::finished::REROUTED_BYTES;
use bellhop_protocol::token::{InstanceName, Source, UserId};

use super::ledger::Id;
use super::nats::{Reading, parked};
use super::record::{Parcel, Records};
use super::subscribers::ALL;
use super::{Inside, Sent, World};
use crate::faults::Fault;

/// The longest time between a confirmation and the delivery that it allows, when deliveries before
/// it time out.
const QUEUED_UP_TO_MS: u64 = 2_000;

/// The user of the reminders in a request, their number, and whether they go to that user.
type Contents = Vec<(UserId, usize, bool)>;

#[derive(Debug)]
pub struct Owner {
    pub partition: Router,
    /// It has read what there is, and works.
    pub is_loaded: bool,
    /// The mailboxes that it found when it took over, with the origins of their reminders, and the
    /// records.
    pub found: Vec<(UserId, MailboxSummary)>,
    pub parked_before: HashSet<Done>,
    pub recorded_before: HashSet<Done>,
    /// The positions that it claimed, with the revisions of their keys.
    pub claimed: BTreeMap<Subscriber, Position>,
    pub revisions: BTreeMap<Subscriber, u64>,
    /// Up to this outcome it reads what earlier owners recorded.
    pub outcomes_until: u64,
    /// Routes and associates as they were when it began to watch, and news since, until it is
    /// loaded.
    pub news: Vec<Input>,
    /// A watch keeps its order.
    pub news_until: u64,
    /// The readers of the log, and their progress.
    pub readers: Readers,
    pub cursors: BTreeMap<ReaderId, u64>,
    pub is_reading: BTreeSet<ReaderId>,
    /// Its connection is cut: it reads nothing.
    pub is_cut: bool,
    /// The last set that it read.
    pub read: u64,
    /// Its state of the log, once it has taken over.
    pub log: Option<PartitionLog>,
    pub sets: Option<SetsLog>,
    pub is_feeding: bool,
    /// Sets given to the machine, and how many of their parts are not settled.
    pub open: BTreeMap<u64, usize>,
    /// The reminder of each handle.
    pub items: BTreeMap<Item, Id>,
    pub names: BTreeMap<Item, Done>,
    /// A checkpoint is due; one is being stored; the last ones are; what was stored.
    pub is_storing: bool,
    pub storing: BTreeSet<Subscriber>,
    pub releasing: BTreeSet<Subscriber>,
    pub is_releasing: bool,
    pub stored: BTreeMap<Subscriber, (Mark, u64)>,
    /// The items that the machine settled.
    pub settled: BTreeSet<Item>,
    /// And how many of these are not recorded and removed.
    pub unfinished: usize,
    /// The reminders that it settled finally.
    pub over: BTreeSet<Id>,
    /// Parked reminders whose content is in memory.
    pub held: BTreeSet<Item>,
    /// Messages of a mailbox that the machine counts.
    pub counted: BTreeMap<UserId, BTreeSet<u64>>,
    delivering: BTreeMap<(Arc<Instance>, Company), Contents>,
    /// Time at which a connection was last confirmed, by a heartbeat or an accepted delivery.
    confirmed: BTreeMap<(UserId, Arc<Instance>), u64>,
    /// The same, for associates.
    confirmed_associates: BTreeMap<(UserId, Arc<Instance>), u64>,
    /// Users with associates, and when each of them accepted a delivery last: until some time later
    /// nothing goes to associates.
    accepted: BTreeMap<UserId, Option<u64>>,
    checking: BTreeSet<Arc<Instance>>,
    reading: BTreeSet<UserId>,
    counting: BTreeSet<UserId>,
    /// A batch of appends is under way.
    pub is_parking: bool,
    /// The next records, and the times of those on their way.
    pub records: Records,
    pub recording_until: Option<u64>,
    pub stopping_since: Option<u64>,
}

impl Owner {
    pub fn new(settings: &Settings, limits: Limits) -> Self {
        Self {
            partition: Router::new(settings.clone()),
            is_loaded: false,
            found: Vec::new(),
            parked_before: HashSet::new(),
            recorded_before: HashSet::new(),
            claimed: BTreeMap::new(),
            revisions: BTreeMap::new(),
            outcomes_until: 0,
            news: Vec::new(),
            news_until: 0,
            readers: Readers::new(limits),
            cursors: BTreeMap::new(),
            is_reading: BTreeSet::new(),
            is_cut: false,
            read: 0,
            log: None,
            sets: None,
            is_feeding: false,
            open: BTreeMap::new(),
            items: BTreeMap::new(),
            names: BTreeMap::new(),
            is_storing: false,
            storing: BTreeSet::new(),
            releasing: BTreeSet::new(),
            is_releasing: false,
            stored: BTreeMap::new(),
            settled: BTreeSet::new(),
            unfinished: 0,
            over: BTreeSet::new(),
            held: BTreeSet::new(),
            counted: BTreeMap::new(),
            delivering: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            confirmed_associates: BTreeMap::new(),
            accepted: BTreeMap::new(),
            checking: BTreeSet::new(),
            reading: BTreeSet::new(),
            counting: BTreeSet::new(),
            is_parking: false,
            records: Records::new(),
            recording_until: None,
            stopping_since: None,
        }
    }

    pub fn assert_nothing_is_left(&self) {
        assert!(self.partition.is_quiet(), "{:#?}", self.partition);
        assert_eq!(self.partition.leftovers(), [""; 0]);
        assert!(self.held.is_empty(), "still in memory: {:?}", self.held);
        assert!(
            self.open.is_empty() && self.unfinished == 0,
            "not removed: {:?}",
            self.open
        );
    }

    /// Returns its progress in the log.
    pub fn progress(&mut self) -> impl Iterator<Item = &mut Progress> {
        let of_sets = self.sets.as_mut().map(|sets| &mut sets.progress);
        of_sets
            .into_iter()
            .chain(self.log.as_mut().map(|log| &mut log.progress))
    }

    /// Returns the changed checkpoints to store, by subscriber.
    pub fn checkpoints(&mut self) -> impl Iterator<Item = (Subscriber, Checkpoint)> + '_ {
        let Self {
            readers,
            log,
            sets,
            stored,
            storing,
            ..
        } = self;
        let progress = [
            sets.as_mut().map(|sets| &mut sets.progress),
            log.as_mut().map(|log| &mut log.progress),
        ];
        ALL.into_iter()
            .zip(progress)
            .filter_map(move |(of, progress)| {
                let progress = progress?;
                // Everything up to there was taken in.
                progress.read(readers.taken(of)?);
                let checkpoint = progress.checkpoint();
                let is_new = stored.get(&of) != Some(&(checkpoint.settled, checkpoint.outcomes));
                (is_new && !storing.contains(&of)).then_some((of, checkpoint))
            })
    }

    fn confirm(&mut self, at: u64, instance: &Arc<Instance>, users: &[UserId]) {
        let confirmed = || {
            users
                .iter()
                .map(|user| ((user.clone(), instance.clone()), at))
        };
        self.confirmed.extend(confirmed());
        self.confirmed_associates.extend(confirmed());
    }

    /// Handles an answer's effects on the shell, before the machine gets it.
    fn take_note(&mut self, at: u64, has_lease: bool, input: &Input) {
        match input {
            Input::Delivered {
                instance,
                company,
                answer,
            } => {
                let parts = self
                    .delivering
                    .remove(&(instance.clone(), *company))
                    .expect("a delivery is under way");
                let refused = |place| {
                    answer
                        .iter()
                        .flatten()
                        .filter(|refused| refused.0 == place)
                        .count()
                };
                let accepted = parts
                    .into_iter()
                    .enumerate()
                    .filter(|(place, (_, count, _))| refused(*place) < *count);
                let accepted: Vec<_> = accepted.map(|(_, part)| part).collect();
                if answer.is_ok() {
                    for (user, _, is_own) in &accepted {
                        self.accepted
                            .entry(user.clone())
                            .and_modify(|last| *last = is_own.then_some(at).or(*last));
                    }
                }
                let users: Vec<_> = accepted.into_iter().map(|(user, ..)| user).collect();
                match answer {
                    Ok(_) if has_lease => self.confirm(at, instance, &users),
                    Ok(_) => {}
                    // The instance's last word on their connections no longer counts.
                    Err(Undelivered::NotSent) => {}
                    Err(_) => self
                        .confirmed
                        .retain(|(user, at), _| at != instance || !users.contains(user)),
                }
            }
            Input::HeartbeatAnswered { instance, answer } => {
                assert!(self.checking.remove(instance));
                self.confirm(at, instance, answer.as_deref().unwrap_or_default());
            }
            Input::MailboxRead { user, page } => {
                assert!(self.reading.remove(user));
                page.entries
                    .iter()
                    .for_each(|entry| assert!(self.held.insert(entry.item), "{entry:?} is held"));
            }
            // An empty list, or the user alone, is no associate.
            Input::Associates { user, associates } if associates.iter().all(|it| it == user) => {
                self.accepted.remove(user);
            }
            Input::Associates { user, .. } => {
                self.accepted.entry(user.clone()).or_default();
            }
            Input::MailboxCounted { user, .. } => assert!(self.counting.remove(user)),
            Input::Parked(_) | Input::ParkRefused => self.is_parking = false,
            _ => {}
        }
    }
}

impl World {
    pub(super) fn owner(&mut self, number: u64) -> &mut Owner {
        self.owners.get_mut(&number).expect("it lives")
    }

    // Into the machine.

    pub(super) fn tell(&mut self, number: u64, input: Input) {
        self.tell_of(|| format!("[{number}] <- {input}"));
        let (now, at, has_lease) = (self.now(), self.at, !self.settings.lease.is_zero());
        let is_audited = self.is_audited;
        let owner = self.owner(number);
        owner.take_note(at, has_lease, &input);
        let mut actions = Vec::new();
        owner.partition.handle(now, input, &mut actions);
        if is_audited {
            owner.partition.audit();
        }
        for action in actions {
            self.tell_of(|| format!("[{number}] -> {action}"));
            self.perform(number, action);
        }
    }

    /// Continues work that needs no outside event.
    pub(super) fn keep_going(&mut self, number: u64) {
        if self.has_stopped(number) {
            return self.release(number);
        }
        self.keep_reading(number);
        self.keep_storing(number);
    }

    /// With two owners at work, both may do the same.
    pub(super) fn touch_if_shared(&mut self, ids: impl IntoIterator<Item = Id>) {
        if self.owners.len() > 1 {
            self.ledger.touch(ids);
        }
    }

    /// A replica may be behind, but not behind what the machine knows.
    pub(super) fn read_is_served(&mut self, from: u64, user: UserId, first: u64, last: u64) {
        let newest = self.nats.parked.max(last);
        let is_behind = self.strikes(Fault::ReplicaLag);
        let seen_until = if is_behind {
            self.rng.u64(last..=newest)
        } else {
            newest
        };
        let until = if is_behind {
            first + self.rng.u64(0..6)
        } else {
            u64::MAX
        };
        let reading = Reading {
            first,
            until,
            seen_until,
            most: self.rng.usize(1..=4),
        };
        let (items, next, is_last) = self.nats.read(&user, &reading);
        let entries = items
            .iter()
            .map(|(item, id)| self.ledger.reminders[*id].parked(*item))
            .collect();
        let page = Page {
            entries,
            next,
            is_last,
        };
        self.touch_if_shared(items.iter().map(|(_, id)| *id));
        if let Some(owner) = self.owners.get_mut(&from) {
            owner.items.extend(items);
        }
        let page = self.finish_removing(from, &user, page);
        let delay = self.latency();
        self.inside(from, delay, Inside::Tell(Input::MailboxRead { user, page }));
    }

    /// Hides reminders that the last owner recorded, and finishes their removal.
    fn finish_removing(&mut self, from: u64, user: &UserId, mut page: Page) -> Page {
        let Some(owner) = self.owners.get(&from) else {
            return page;
        };
        let is_over = |item: Item| matches!(item, Item::Parked { sequence } if owner.recorded_before.contains(&parked(sequence)));
        let done = page
            .entries
            .extract_if(.., |entry| is_over(entry.item))
            .collect::<Vec<_>>();
        for entry in done {
            if let Item::Parked { sequence } = entry.item {
                self.count("removals finished for another owner");
                self.remove(from, user.clone(), sequence..=sequence, 0, Vec::new());
            }
        }
        page
    }

    /// The leader is asked, which knows all that is stored. Reminders that the earlier owner
    /// settled do not count.
    pub(super) fn count_is_served(&mut self, from: u64, user: UserId, known: Option<usize>) {
        let count = self.nats.mailbox(&user).count();
        let is_counted = known.is_none_or(|known| count < known);
        self.count(if is_counted {
            "mailboxes counted"
        } else {
            "mailboxes as full as known"
        });
        let Some(owner) = self.owners.get(&from) else {
            return;
        };
        let is_over = |sequence: &u64| owner.recorded_before.contains(&parked(*sequence));
        let mut found: BTreeMap<Source, Vec<u64>> = BTreeMap::new();
        for (sequence, id) in self
            .nats
            .mailbox(&user)
            .filter(|(sequence, _)| !is_over(sequence))
        {
            found
                .entry(self.ledger.reminders[id].source.clone())
                .or_default()
                .push(sequence);
        }
        let found = is_counted.then(|| {
            found
                .into_iter()
                .map(|(source, all)| (Some(source), all))
                .collect()
        });
        let delay = self.latency();
        self.inside(
            from,
            delay,
            Inside::Tell(Input::MailboxCounted { user, found }),
        );
    }

    // Out of the machine.

    fn perform(&mut self, number: u64, action: Action) {
        match action {
            Action::Deliver {
                instance,
                company,
                shares,
                ..
            } => self.deliver(number, &instance, company, shares),
            Action::CatchUpWithRoutes => {
                self.count("catching up with routes");
                let asked = self.latency();
                let fed = self.owner(number).news_until.saturating_sub(self.at);
                self.inside(
                    number,
                    asked.max(fed),
                    Inside::Tell(Input::CaughtUpWithRoutes),
                );
            }
            Action::LookUpRoutes { user, associate } => {
                self.count("look-ups");
                self.send(Sent::LookUp {
                    from: number,
                    user,
                    associate,
                });
            }
            Action::Heartbeat { instance, users } => self.heartbeat(number, &instance, users),
            Action::DropRoute {
                user,
                instance,
                revision,
            } => {
                let app = self.app(&instance);
                self.send(Sent::DropRoute {
                    from: number,
                    user,
                    app,
                    revision,
                });
            }
            Action::Park(batch) => self.park(number, batch),
            Action::ReadMailbox { user, from, last } => {
                let most = self.settings.reads_in_flight;
                let owner = self.owner(number);
                assert!(
                    owner.reading.insert(user.clone()),
                    "{user}'s mailbox is read twice at a time"
                );
                let reads = owner.reading.len() + owner.counting.len();
                assert!(
                    reads <= most,
                    "more than {most} reads: {:?} {:?}",
                    owner.reading,
                    owner.counting
                );
                self.send(Sent::Read {
                    from: number,
                    user,
                    first: from,
                    last,
                });
            }
            Action::CountMailbox { user, known } => {
                let most = self.settings.reads_in_flight;
                let owner = self.owner(number);
                assert!(
                    owner.counting.insert(user.clone()),
                    "{user}'s mailbox is counted twice at a time"
                );
                let reads = owner.reading.len() + owner.counting.len();
                assert!(
                    reads <= most,
                    "more than {most} reads: {:?} {:?}",
                    owner.reading,
                    owner.counting
                );
                self.send(Sent::Count {
                    from: number,
                    user,
                    known,
                });
            }
            Action::Settle(settled) => self.settle(number, settled),
            Action::Forget(items) => items.iter().for_each(|item| self.let_go(number, item)),
            Action::HoldBack(held_back) => self.hold_back(number, &held_back),
        }
    }

    fn app(&self, instance: &InstanceName) -> usize {
        self.apps
            .iter()
            .position(|app| app.instance.name == *instance)
            .expect("it is one of ours")
    }

    pub(super) fn let_go(&mut self, number: u64, item: &Item) {
        assert!(
            self.owner(number).held.remove(item),
            "{item:?} was not held"
        );
    }

    fn heartbeat(&mut self, number: u64, instance: &Arc<Instance>, users: Vec<UserId>) {
        assert!(
            (1..=self.settings.heartbeat_users).contains(&users.len()),
            "{users:?}"
        );
        assert!(
            users.iter().collect::<BTreeSet<_>>().len() == users.len(),
            "{users:?}"
        );
        assert!(
            self.owner(number).checking.insert(instance.clone()),
            "two heartbeats for {instance:?}"
        );
        let app = self.app(&instance.name);
        self.send_heartbeat(number, app, users);
    }

    /// Checks that a held-back reminder is in memory, and was tried as often as reported.
    fn hold_back(&mut self, number: u64, held_back: &HeldBack) {
        self.count("held back");
        let owner = self.owner(number);
        let is_over = owner.settled.contains(&held_back.item);
        assert!(
            !is_over && owner.items.contains_key(&held_back.item),
            "{held_back:?}"
        );
        assert!(held_back.tries >= HELD_BACK_AFTER, "{held_back:?}");
    }

    fn deliver(
        &mut self,
        number: u64,
        instance: &Arc<Instance>,
        company: Company,
        shares: Vec<Share>,
    ) {
        assert!(
            company == Company::Shared || shares.len() == 1,
            "{shares:?} go alone"
        );
        let under_way = self.owners[&number]
            .delivering
            .values()
            .flatten()
            .filter(|_| !self.settings.all_devices);
        let mut users: Vec<_> = under_way.map(|(user, ..)| user.clone()).collect();
        let (mut bytes, mut count, mut parts, mut sent) = (0, 0, Vec::new(), Vec::new());
        for share in shares {
            assert!(
                !users.contains(&share.user),
                "{} has a delivery in flight",
                share.user
            );
            users.push(share.user.clone());
            match &share.to {
                Some(to) => self.check_associate(number, instance, &share.user, to),
                None => self.check_confirmed(number, instance, &share.user),
            }
            let ids = self.check_share(number, &share);
            let around = if share.to.is_some() {
                REROUTED_BYTES
            } else {
                0
            };
            bytes += ids
                .iter()
                .map(|id| self.ledger.reminders[*id].bytes + around)
                .sum::<usize>();
            count += ids.len();
            sent.push((share.user.clone(), ids.len(), share.to.is_none()));
            parts.push((share.recipient().clone(), ids));
        }
        assert!(
            count == 1 || bytes <= self.settings.delivery_bytes,
            "{count} reminders of {bytes} bytes"
        );
        let before = self
            .owner(number)
            .delivering
            .insert((instance.clone(), company), sent);
        assert!(before.is_none(), "two deliveries for {instance:?}");
        let app = self.app(&instance.name);
        self.send_delivery(number, app, company, parts);
    }

    /// Checks that delivered reminders are in memory, not settled, not expired, and permitted
    /// there.
    fn check_share(&self, number: u64, Share { user, to, items }: &Share) -> Vec<Id> {
        let owner = &self.owners[&number];
        assert!(!items.is_empty(), "{user} has an empty part");
        let check = |item: &Item| {
            assert!(!owner.settled.contains(item), "{item:?} was settled");
            let is_held = match item {
                Item::Event { sequence, .. } => owner.open.contains_key(sequence),
                Item::Parked { .. } => owner.held.contains(item),
            };
            assert!(is_held, "{item:?} is not in memory");
            let id = owner.items[item];
            let reminder = &self.ledger.reminders[id];
            assert!(reminder.user == *user, "{id} is not {user}'s: {reminder:?}");
            assert!(
                reminder.expires_at.is_none_or(|at| at > self.wall_ms()),
                "{id} is late"
            );
            assert!(
                to.is_none() || !reminder.stays,
                "{id} is the user's alone: {reminder:?}"
            );
            id
        };
        items.iter().map(check).collect()
    }

    /// The recipient is an associate, not the user.
    fn check_associate(&self, number: u64, instance: &Arc<Instance>, user: &UserId, to: &UserId) {
        let connection = (to.clone(), instance.clone());
        let confirmed = self.owners[&number].confirmed_associates.get(&connection);
        let is_held = confirmed.is_some_and(|at| self.at <= at + QUEUED_UP_TO_MS);
        assert!(
            is_held && user != to,
            "{to} at {instance:?} was confirmed at {confirmed:?} for {user}"
        );
        let after = u64::try_from(self.settings.reroute_after.as_millis()).expect("it is short");
        let accepted = self.owners[&number].accepted.get(user).copied().flatten();
        assert!(
            accepted.is_none_or(|at| at + after <= self.at),
            "{user} accepted something at {accepted:?} and is expected back"
        );
    }

    /// Checks the confirmation; with a lease it may have aged in the queue for the delivery.
    fn check_confirmed(&mut self, number: u64, instance: &Arc<Instance>, user: &UserId) {
        let connection = (user.clone(), instance.clone());
        let lease = u64::try_from(self.settings.lease.as_millis()).expect("a lease is short");
        let owner = self.owner(number);
        let confirmed = match lease {
            0 => owner.confirmed.remove(&connection),
            _ => owner.confirmed.get(&connection).copied(),
        };
        let is_held = confirmed.is_some_and(|at| self.at <= at + lease + QUEUED_UP_TO_MS);
        assert!(
            is_held,
            "{user} at {instance:?} was confirmed at {confirmed:?}"
        );
    }

    fn park(&mut self, number: u64, batch: Vec<bellhop_core::router::Parking>) {
        assert!(
            (1..=self.settings.park_batch.0).contains(&batch.len()),
            "{batch:?}"
        );
        let owner = self.owners.get_mut(&number).expect("it lives");
        assert!(
            !std::mem::replace(&mut owner.is_parking, true),
            "two batches at a time"
        );
        let parcel = |parking: &bellhop_core::router::Parking| {
            let item = parking.item;
            assert!(
                matches!(item, Item::Event { .. }) && !owner.settled.contains(&item),
                "{item:?}"
            );
            let id = owner.items[&item];
            if let Some(to) = &parking.rerouted_to {
                let has_it = self.ledger.reminders[id]
                    .accepted_by
                    .iter()
                    .any(|(_, recipient)| recipient == to);
                assert!(has_it, "{id} is copied for {to}");
            }
            Parcel {
                user: parking.user.clone(),
                id,
                is_copy: parking.rerouted_to.is_some(),
            }
        };
        let parcels = batch.iter().map(parcel).collect();
        self.send_parcels(number, parcels);
    }
}
