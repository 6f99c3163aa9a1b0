//! Small models of what surrounds the machine: reminders, NATS, app servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::reminder::Priority;
use crate::router::{Entry, Instance, Item, MailboxSummary, NoAnswer, Page, Text};
use crate::token::{InstanceName, UserId};

/// A reminder, by its place in the order of publishing.
pub(super) type Id = usize;

#[derive(Debug)]
pub(super) struct Reminder {
    pub(super) user: UserId,
    pub(super) expires_at: Option<i64>,
    pub(super) bytes: usize,
    /// It comes when it comes: its place in the order is past.
    pub(super) is_copy: bool,
    /// No associate may get it.
    pub(super) stays: bool,
    /// What it says, if others say it too.
    pub(super) text: Option<Arc<Text>>,
    /// The one that it was merged into.
    pub(super) merged_into: Option<Id>,
    /// Every acceptance, in order: where, and who was told.
    pub(super) accepted_by: Vec<(InstanceName, UserId)>,
    /// A final fate was decided.
    pub(super) is_settled: bool,
    /// And it is recorded.
    pub(super) is_recorded: bool,
    /// A crash or a lost answer touched it: it may be accepted again.
    pub(super) is_touched: bool,
    /// An instance chose to take a later one before it, or a full mailbox refused it.
    pub(super) is_overtaken: bool,
}

impl Reminder {
    pub(super) fn new(user: UserId, expires_at: Option<i64>, bytes: usize) -> Self {
        Self {
            user,
            expires_at,
            bytes,
            is_copy: false,
            stays: false,
            text: None,
            merged_into: None,
            accepted_by: Vec::new(),
            is_settled: false,
            is_recorded: false,
            is_touched: false,
            is_overtaken: false,
        }
    }

    pub(super) fn entry(&self, item: Item) -> Entry {
        let may_reroute = matches!(item, Item::Event { .. }) && !self.stays;
        Entry { item, expires_at: self.expires_at, bytes: self.bytes, may_reroute, text: self.text.clone() }
    }

    /// What the user gets of a reminder that an associate got.
    pub(super) fn copy(&self) -> Self {
        Self { is_copy: true, stays: true, ..Self::new(self.user.clone(), self.expires_at, self.bytes) }
    }

    /// Says one of a few things, as the reminder of this id.
    pub(super) fn saying(self, id: Id, what: u128, priority: Priority) -> Self {
        Self { text: Some(Arc::new(Text { id: id.to_string(), hash: what, priority })), ..self }
    }

    /// The user itself was told.
    pub(super) fn was_told(&self) -> bool {
        self.accepted_by.iter().any(|(_, told)| *told == self.user)
    }
}

/// The streams and the bucket.
#[derive(Debug, Default)]
pub(super) struct Nats {
    /// Messages of the events stream that are not acknowledged.
    pub(super) events: BTreeMap<u64, Vec<Id>>,
    pub(super) mailboxes: BTreeMap<UserId, BTreeMap<u64, Id>>,
    /// The last sequence in the stream of mailboxes.
    pub(super) parked: u64,
    /// Its idempotency window.
    pub(super) known: BTreeMap<Id, u64>,
    /// What the outcomes say is done with.
    pub(super) recorded: BTreeSet<Item>,
    pub(super) routes: BTreeMap<(UserId, Arc<Instance>), u64>,
    pub(super) revision: u64,
    pub(super) associates: BTreeMap<UserId, Vec<UserId>>,
}

/// What of a mailbox is read: from the first to the last sequence, as far as the replica sees, so many at most.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) seen_until: u64,
    pub(super) most: usize,
}

impl Nats {
    /// Appends to a mailbox, `gap` messages of others later. A repeat is answered with the first one's sequence.
    pub(super) fn park(&mut self, user: &UserId, id: Id, gap: u64) -> u64 {
        if let Some(sequence) = self.known.get(&id) {
            return *sequence;
        }
        self.parked += 1 + gap;
        self.known.insert(id, self.parked);
        self.mailboxes.entry(user.clone()).or_default().insert(self.parked, id);
        self.parked
    }

    pub(super) fn is_parked(&self, user: &UserId, id: Id) -> bool {
        self.mailbox(user).any(|(_, parked)| parked == id)
    }

    pub(super) fn mailbox(&self, user: &UserId) -> impl DoubleEndedIterator<Item = (u64, Id)> {
        self.mailboxes.get(user).into_iter().flatten().map(|(sequence, id)| (*sequence, *id))
    }

    /// Which reminder a handle stands for.
    pub(super) fn resolve(&self, user: &UserId, item: Item) -> Id {
        match item {
            Item::Event { sequence, index } => self.events[&sequence][index],
            Item::Parked { sequence } => self.mailboxes[user][&sequence],
        }
    }

    /// Where somebody may be connected, the newest route first.
    pub(super) fn routes_of(&self, user: &UserId) -> Vec<Arc<Instance>> {
        let own = self.routes.iter().filter(|((owner, _), _)| owner == user);
        let mut routes: Vec<_> = own.map(|((_, instance), revision)| (*revision, instance.clone())).collect();
        routes.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
        routes.into_iter().map(|(_, instance)| instance).collect()
    }

    pub(super) fn summary(&self, user: &UserId, reminders: &[Reminder]) -> Option<MailboxSummary> {
        let (first, _) = self.mailbox(user).next()?;
        let (last, _) = self.mailbox(user).next_back()?;
        let next_expiry = self.mailbox(user).filter_map(|(_, id)| reminders[id].expires_at).min();
        Some(MailboxSummary { first, last, count: self.mailbox(user).count(), next_expiry })
    }

    pub(super) fn read(&self, user: &UserId, reminders: &[Reminder], reading: &Reading) -> Page {
        let Reading { from, until, seen_until, most } = *reading;
        let seen = || self.mailbox(user).filter(|(sequence, _)| *sequence <= seen_until);
        let wanted = seen().filter(|(sequence, _)| (from..=until).contains(sequence));
        let found: Vec<_> = wanted.take(most).collect();
        let end = match found.last() {
            Some((sequence, _)) if found.len() == most => *sequence,
            _ => until.min(seen_until),
        };
        let entries = found.iter().map(|(sequence, id)| reminders[*id].entry(Item::Parked { sequence: *sequence }));
        let is_last = seen().next_back().is_none_or(|(sequence, _)| sequence <= end);
        Page { entries: entries.collect(), next: (end + 1).max(from), is_last }
    }
}

/// How an app server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Refuses some as busy.
    Busy,
    /// Answers heartbeats, but deliveries too late or never.
    Hung,
    /// Answers nothing.
    Silent,
    /// Does not run.
    Gone,
    /// Answers what nobody understands.
    Garbled,
}

impl Mood {
    pub(super) const ALL: [Self; 6] = [Self::Well, Self::Busy, Self::Hung, Self::Silent, Self::Gone, Self::Garbled];
}

/// An app-server instance and the terminals at it.
#[derive(Debug)]
pub(super) struct AppServer {
    pub(super) instance: Arc<Instance>,
    pub(super) mood: Mood,
    pub(super) connected: BTreeSet<UserId>,
}

impl AppServer {
    /// Who of these users is connected.
    pub(super) fn heartbeat(&self, users: &[UserId]) -> Result<Vec<UserId>, NoAnswer> {
        match self.mood {
            Mood::Well | Mood::Busy | Mood::Hung => {
                Ok(users.iter().filter(|user| self.connected.contains(*user)).cloned().collect())
            }
            Mood::Silent => Err(NoAnswer::TimedOut),
            Mood::Gone => Err(NoAnswer::NoResponders),
            Mood::Garbled => Err(NoAnswer::Garbage),
        }
    }
}
