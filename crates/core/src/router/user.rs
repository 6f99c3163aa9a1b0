//! A partition's state of one user.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::keys::{InstanceKey, InstanceKeys};
use super::room::Tally;
use super::suspicion::Suspicion;
use super::{BySource, Company, Entry, Instance, Item, Removal, Resolution, Room};
use bellhop_protocol::token::{InstanceName, UserId};

/// A live route.
#[derive(Debug)]
pub struct Route {
    /// The instance of the connection.
    pub queue: InstanceKey,
    /// The key's revision: the newest is tried first, and an older deletion cannot remove it.
    pub revision: u64,
    /// Until when the connection counts as held; none while it is not confirmed.
    pub held_until: Option<Instant>,
    /// It was confirmed for what comes next, however long the user's other connections take to be.
    pub is_fresh: bool,
    /// It is asked about again before its lease ends.
    pub is_renewed: bool,
}

impl Route {
    /// Returns true if a delivery needs no heartbeat now.
    pub fn is_held(&self, now: Instant) -> bool {
        self.is_fresh || self.held_until.is_some_and(|until| now <= until)
    }
}

/// The activity in progress for a user. One thing at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing.
    #[default]
    Idle,
    /// It has no route, and those that were put up to now are not known yet.
    CatchingUp,
    /// It held a connection a moment ago and is expected back. Until then its attempt does not
    /// begin.
    Expected,
    /// The routes of the associate that its attempt goes to are being looked up.
    LookingUp,
    /// Connections of its own, or its associate's, are being confirmed at these instances, or
    /// queued for that.
    Checking(InstanceKeys),
    /// A page of its mailbox is being read, or queued for that.
    Reading,
    /// Its mailbox is searched for expired reminders.
    Sweeping(Sweep),
    /// The first of its waiting reminders are with instances, or queue for them.
    Delivering(Batch),
}

/// A delivery to all of a user's connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The instances that have not answered.
    pub open: InstanceKeys,
    /// Number of instances that were to get it.
    pub targets: usize,
    /// Time after which unsent instances are left out.
    pub until: Option<Instant>,
    /// The instance that left it unanswered last, if one did.
    pub unanswered_by: Option<Arc<Instance>>,
    /// The results for each of the first waiting reminders. How many these are is settled when the
    /// first instance is sent them.
    pub receptions: Option<SmallVec<[Reception; 1]>>,
}

/// The result for one reminder of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reception {
    /// The instances that accepted it.
    pub by: Vec<InstanceName>,
    /// An associate may want it later.
    pub is_put_off: bool,
}

/// An attempt to bring what waits to an associate: one after the other, and each one's instances
/// one after the other.
#[derive(Debug)]
pub struct RerouteAttempt {
    /// The user is expected back until then. Associates are tried after it.
    pub back_by: Option<Instant>,
    /// No further step is taken after this.
    pub until: Instant,
    /// The associates that were not tried.
    pub untried: VecDeque<UserId>,
    /// The associate that is being tried.
    pub associate: Option<UserId>,
    /// That associate's instances that were not tried.
    pub instances: VecDeque<Arc<Instance>>,
}

/// A search of a mailbox for expired reminders, page by page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// The sequence at which the next page begins.
    pub from: u64,
    /// The earliest expiry among the reminders that stay.
    pub next_expiry: Option<i64>,
    /// The oldest reminder that stays.
    pub oldest_kept: Option<u64>,
}

/// A user's parked reminders, as far as the machine needs to know them.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Everything before this sequence is settled.
    pub first: u64,
    /// The last message known. Nothing waits when it lies before `first`.
    pub last: u64,
    /// Number of waiting messages; for the limit.
    pub count: usize,
    /// Reminders on their way into it.
    pub parking: usize,
    /// Their numbers by source, if that matters.
    pub tally: Option<Box<Tally>>,
    /// Settled at or after `first`, out of order; their removal may still be under way.
    pub settled_ahead: BTreeSet<u64>,
    /// Time at which its earliest reminder expires, in milliseconds since 1970.
    pub next_expiry: Option<i64>,
    /// Time of the next search for expired reminders.
    pub sweep_at: Option<Instant>,
    /// It is not searched again before this instant.
    pub no_sweep_before: Option<Instant>,
}

impl Mailbox {
    /// Returns true if it has reminders.
    pub fn has_mail(&self) -> bool {
        self.first <= self.last && self.last > 0
    }

    /// Nothing is worth remembering.
    fn is_forgettable(&self) -> bool {
        !self.is_in_use() && self.settled_ahead.is_empty() && self.sweep_at.is_none()
    }

    /// Returns true if a new reminder must queue behind others here.
    pub fn is_in_use(&self) -> bool {
        self.has_mail() || self.parking > 0
    }

    /// A message was added behind all others.
    pub fn append(&mut self, sequence: u64, expires_at: Option<i64>) {
        if !self.has_mail() {
            self.first = sequence;
        }
        self.last = sequence;
        self.count += 1;
        self.next_expiry = [self.next_expiry, expires_at].into_iter().flatten().min();
    }

    /// Everything before `first` is settled.
    pub fn settle_before(&mut self, first: u64) {
        self.first = self.first.max(first);
        self.settled_ahead = self.settled_ahead.split_off(&self.first);
        while self.settled_ahead.remove(&self.first) {
            self.first += 1;
        }
        if !self.has_mail() {
            self.count = 0;
            self.next_expiry = None;
            self.tally
                .take_if(|tally| !tally.is_asked && tally.undecided.is_empty());
        }
    }

    /// Counts a reminder in that is to be parked, if there is room for it by what is known. None
    /// overtakes those before it.
    pub fn take_in(&mut self, room: &Room, entry: &Entry) -> bool {
        let occupied = self.count + self.parking;
        let has_room = match &mut self.tally {
            None => occupied < room.of_anybody(),
            Some(tally) => {
                tally.undecided.is_empty()
                    && occupied < room.of_priority(entry.priority)
                    && tally.take_in(&entry.source, room.of_source())
            }
        };
        self.parking += usize::from(has_room);
        has_room
    }

    /// Takes in what the shell has counted, and gives back what waited for it. Nothing is being
    /// parked meanwhile.
    pub fn counted(&mut self, found: Option<BySource>) -> VecDeque<(Entry, Resolution)> {
        let Some(tally) = &mut self.tally else {
            return VecDeque::new();
        };
        tally.is_asked = false;
        if let Some(found) = found {
            self.count = tally.recount(found, (self.first, self.last), &self.settled_ahead);
        }
        let undecided = std::mem::take(&mut tally.undecided);
        self.parking -= undecided.len();
        undecided
    }

    /// Returns true if reminders wait for a count that can begin: parking in progress comes first.
    pub fn wants_count(&self) -> bool {
        let wants = |tally: &Tally| {
            !tally.is_asked && !tally.undecided.is_empty() && self.parking == tally.undecided.len()
        };
        self.tally.as_deref().is_some_and(wants)
    }

    /// A message is settled. `front` is the oldest message that is not, where one is known.
    pub fn settle(&mut self, sequence: u64, front: Option<u64>) -> Removal {
        self.count = self.count.saturating_sub(1);
        if front.is_none_or(|front| sequence < front) {
            self.settle_before(sequence + 1);
            Removal::MailboxUpTo(sequence)
        } else {
            self.settled_ahead.insert(sequence);
            Removal::MailboxOnly(sequence)
        }
    }
}

/// One user. Most users there are have a route and nothing else: what they lack takes no memory.
#[derive(Debug)]
pub struct User {
    /// The user's id.
    pub name: UserId,
    /// Newest first.
    pub routes: SmallVec<[Route; 1]>,
    mailbox: Option<Box<Mailbox>>,
    work: Option<Box<Work>>,
}

/// The pending and current work for a user.
#[derive(Debug, Default)]
pub struct Work {
    /// The reminders in memory, in order: either a page of the mailbox; or live reminders, while
    /// the mailbox is not in use or an attempt may take them.
    pub waiting: VecDeque<Entry>,
    /// For which instance a page of the mailbox is in memory or being read, and the bytes that it
    /// is charged there.
    pub page: Option<(InstanceKey, usize)>,
    /// The users who may get its reminders while it has no usable connection.
    pub associates: Vec<UserId>,
    /// The last time it held a connection, as far as that is known. Kept for users with associates
    /// alone.
    pub held_at: Option<Instant>,
    /// The attempt to reach them.
    pub attempt: Option<RerouteAttempt>,
    /// All routes were known that had been put when the first of what waits arrived.
    pub is_caught_up: bool,
    /// The activity in progress.
    pub state: State,
    /// Distinguishes the tickets of this turn from earlier ones.
    pub turn: u64,
    /// No attempt before this instant: its instance was busy.
    pub paused_until: Option<Instant>,
    /// `busy` answers since the last accepted reminder.
    pub busy: u32,
    /// That an instance may be unable to read one of its first reminders.
    pub suspicion: Option<Suspicion>,
}

static NO_MAILBOX: Mailbox = Mailbox {
    first: 0,
    last: 0,
    count: 0,
    parking: 0,
    tally: None,
    settled_ahead: BTreeSet::new(),
    next_expiry: None,
    sweep_at: None,
    no_sweep_before: None,
};

static NO_WORK: Work = Work {
    waiting: VecDeque::new(),
    page: None,
    associates: Vec::new(),
    held_at: None,
    attempt: None,
    is_caught_up: false,
    state: State::Idle,
    turn: 0,
    paused_until: None,
    busy: 0,
    suspicion: None,
};

impl Work {
    /// There is nothing to do.
    fn is_over(&self) -> bool {
        self.associates.is_empty()
            && self.waiting.is_empty()
            && self.page.is_none()
            && self.attempt.is_none()
            && self.state == State::Idle
            && self.paused_until.is_none()
            && self.suspicion.is_none()
    }

    /// Returns the way in which its waiting reminders are sent.
    pub fn company(&self) -> Company {
        if self.suspicion.is_some() {
            Company::Alone
        } else {
            Company::Shared
        }
    }

    /// Returns true if the first waiting reminder is with an instance.
    pub fn is_sent(&self) -> bool {
        matches!(&self.state, State::Delivering(batch) if batch.receptions.is_some())
    }

    /// Returns true if the reminders in memory came with an event.
    pub fn has_live(&self) -> bool {
        self.waiting
            .front()
            .is_some_and(|entry| matches!(entry.item, Item::Event { .. }))
    }

    /// The sequence of the oldest waiting reminder, where it is a parked one.
    pub fn front_parked(&self) -> Option<u64> {
        match self.waiting.front()?.item {
            Item::Parked { sequence } => Some(sequence),
            Item::Event { .. } => None,
        }
    }
}

impl User {
    /// A user of whom nothing else is known.
    pub fn new(name: UserId) -> Self {
        Self {
            name,
            routes: SmallVec::new(),
            mailbox: None,
            work: None,
        }
    }

    /// Returns the user's mailbox in JetStream.
    pub fn mailbox(&self) -> &Mailbox {
        self.mailbox.as_deref().unwrap_or(&NO_MAILBOX)
    }

    /// Returns the user's mailbox in JetStream, to be changed.
    pub fn mailbox_mut(&mut self) -> &mut Mailbox {
        self.mailbox.get_or_insert_default()
    }

    /// Returns what there is to do for the user.
    pub fn work(&self) -> &Work {
        self.work.as_deref().unwrap_or(&NO_WORK)
    }

    /// Returns the same to be changed. It takes memory from now on, until the user is
    /// [shrunk](Self::shrink).
    pub fn work_mut(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Gives back the memory of what it lacks.
    pub fn shrink(&mut self) {
        self.mailbox.take_if(|mailbox| mailbox.is_forgettable());
        self.work.take_if(|work| work.is_over() && work.busy == 0);
    }

    /// Nothing is worth remembering, and nothing speaks of it any more. See
    /// [`users`](super::users).
    pub fn is_forgettable(&self) -> bool {
        self.routes.is_empty() && self.work().is_over() && self.mailbox().is_forgettable()
    }

    /// The route to this instance.
    pub fn route_mut(&mut self, queue: InstanceKey) -> Option<&mut Route> {
        self.routes.iter_mut().find(|route| route.queue == queue)
    }

    /// Marks confirmations as used, since a delivery used them or none is needed.
    pub fn use_up_confirmations(&mut self) {
        self.routes
            .iter_mut()
            .for_each(|route| route.is_fresh = false);
    }
}
