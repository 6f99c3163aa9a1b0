//! What JetStream keeps: events, mailboxes with their fence, what is recorded, and the buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellhop_core::router::{Instance, Item, MailboxSummary, Page};
use bellhop_protocol::token::UserId;

use super::ledger::{Id, Reminder};

/// Routes, with the revisions of their keys.
pub type Routes = BTreeMap<(UserId, Arc<Instance>), u64>;

#[derive(Debug, Default)]
pub struct Nats {
    /// Messages of the events stream that are not acknowledged.
    pub events: BTreeMap<u64, Vec<Id>>,
    /// Messages published so far.
    pub published: u64,
    /// To which owner the consumer hands messages.
    pub pinned: u64,
    pub mailboxes: BTreeMap<UserId, BTreeMap<u64, Id>>,
    /// Which owner may append to them.
    pub fence: u64,
    /// The last sequence in the stream of mailboxes.
    pub parked: u64,
    /// What ever was in a mailbox.
    pub was_parked: BTreeSet<Id>,
    /// What the outcomes say is done with.
    pub recorded: BTreeSet<Item>,
    pub routes: Routes,
    /// The routes as a replica knows them that is behind.
    pub routes_seen: Routes,
    pub revision: u64,
    pub associates: BTreeMap<UserId, Vec<UserId>>,
}

/// What of a mailbox is read: from the first to the last sequence, as far as the replica sees, so many at most.
#[derive(Debug)]
pub struct Reading {
    pub first: u64,
    pub until: u64,
    pub seen_until: u64,
    pub most: usize,
}

impl Nats {
    /// Appends to a mailbox.
    pub fn park(&mut self, user: &UserId, id: Id) -> u64 {
        self.parked += 1;
        self.was_parked.insert(id);
        self.mailboxes.entry(user.clone()).or_default().insert(self.parked, id);
        self.parked
    }

    pub fn is_parked(&self, user: &UserId, id: Id) -> bool {
        self.mailbox(user).any(|(_, parked)| parked == id)
    }

    pub fn mailbox(&self, user: &UserId) -> impl DoubleEndedIterator<Item = (u64, Id)> {
        self.mailboxes.get(user).into_iter().flatten().map(|(sequence, id)| (*sequence, *id))
    }

    pub fn summary(&self, user: &UserId, reminders: &[Reminder]) -> Option<MailboxSummary> {
        let (first, _) = self.mailbox(user).next()?;
        let (last, _) = self.mailbox(user).next_back()?;
        let next_expiry = self.mailbox(user).filter_map(|(_, id)| reminders[id].expires_at).min();
        Some(MailboxSummary { first, last, count: self.mailbox(user).count(), next_expiry })
    }

    /// A page, and which reminder each of its messages is.
    pub fn read(&self, user: &UserId, reminders: &[Reminder], reading: &Reading) -> (Page, Vec<(Item, Id)>) {
        let Reading { first, until, seen_until, most } = *reading;
        let seen = || self.mailbox(user).filter(|(sequence, _)| *sequence <= seen_until);
        let wanted = seen().filter(|(sequence, _)| (first..=until).contains(sequence));
        let found: Vec<_> = wanted.take(most).map(|(sequence, id)| (Item::Parked { sequence }, id)).collect();
        let end = match found.last() {
            Some((Item::Parked { sequence }, _)) if found.len() == most => *sequence,
            _ => until.min(seen_until),
        };
        let entries = found.iter().map(|(item, id)| reminders[*id].entry(*item)).collect();
        let is_last = seen().next_back().is_none_or(|(sequence, _)| sequence <= end);
        (Page { entries, next: (end + 1).max(first), is_last }, found)
    }
}

/// Where somebody may be connected, the newest route first.
pub fn routes_of(routes: &Routes, user: &UserId) -> Vec<Arc<Instance>> {
    let own = routes.iter().filter(|((owner, _), _)| owner == user);
    let mut found: Vec<_> = own.map(|((_, instance), revision)| (*revision, instance.clone())).collect();
    found.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    found.into_iter().map(|(_, instance)| instance).collect()
}
