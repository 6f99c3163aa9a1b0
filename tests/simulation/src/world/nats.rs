//! JetStream's content: the log, positions, windows and outcomes, mailboxes with their fence, and
//! the buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellhop_core::log::Subscriber;
use bellhop_core::log::done::Done;
use bellhop_core::log::position::{LogState, Mark, Position};
use bellhop_core::log::window::Entries;
use bellhop_core::router::{Instance, Item, MailboxSummary};
use bellhop_protocol::token::UserId;

use super::ledger::{Id, Reminder};
use super::publishing::Stored;

/// Routes, with the revisions of their keys.
pub type Routes = BTreeMap<(UserId, Arc<Instance>), u64>;

/// Creation time of the log: there is one in a run.
pub const CREATED_NS: i64 = 1;

#[derive(Debug, Default)]
pub struct Nats {
    /// The sets.
    pub log: BTreeMap<u64, Stored>,
    /// The sequence of the first set that is not removed.
    pub first: u64,
    pub last: u64,
    /// The sets that were removed from the front: a server that went back has them again.
    pub removed: BTreeMap<u64, Stored>,
    /// The clock was here when the server last lost something.
    pub not_before: i64,
    /// Positions, with the revisions of their keys.
    pub positions: BTreeMap<Subscriber, (Position, u64)>,
    /// Positions as a replica knows them that is behind.
    pub positions_seen: BTreeMap<Subscriber, (Position, u64)>,
    /// The stored entries of the idempotency windows.
    pub entries: BTreeMap<Subscriber, Vec<Entries>>,
    /// The names in the outcomes, by the sequences of their messages.
    pub outcomes: BTreeMap<u64, Vec<(Subscriber, Done)>>,
    pub last_outcome: u64,
    /// Owners whose outcomes are refused.
    pub fenced: BTreeSet<u64>,
    /// The refused input: the sequence of its set, its time, and its index; without an index the
    /// whole set.
    pub rejected: BTreeSet<(u64, i64, Option<usize>)>,
    pub mailboxes: BTreeMap<UserId, BTreeMap<u64, Id>>,
    /// The owner that may append to them.
    pub fence: u64,
    /// The last sequence in the stream of mailboxes.
    pub parked: u64,
    /// The reminders that were ever in a mailbox.
    pub was_parked: BTreeSet<Id>,
    pub routes: Routes,
    /// The routes as a replica knows them that is behind.
    pub routes_seen: Routes,
    pub revision: u64,
    pub associates: BTreeMap<UserId, Vec<UserId>>,
}

/// The range of a mailbox to read: from the first to the last sequence, as far as the replica sees,
/// up to a maximum number.
#[derive(Debug)]
pub struct Reading {
    pub first: u64,
    pub until: u64,
    pub seen_until: u64,
    pub most: usize,
}

impl Nats {
    /// Returns the state of the log for a look at this mark.
    pub fn log_state(&self, mark: Mark) -> LogState {
        let stored_ms_at = self.log.get(&mark.sequence).map(|stored| stored.stored_ms);
        LogState {
            created_ns: CREATED_NS,
            first: self.first.max(1),
            last: self.last,
            stored_ms_at,
        }
    }

    /// Returns a subscriber's position, and the revision of its key.
    pub fn position(&self, subscriber: Subscriber) -> (Position, u64) {
        self.positions
            .get(&subscriber)
            .cloned()
            .unwrap_or((Position::first(CREATED_NS), 0))
    }

    /// Appends to a mailbox.
    pub fn park(&mut self, user: &UserId, id: Id) -> u64 {
        self.parked += 1;
        self.was_parked.insert(id);
        self.mailboxes
            .entry(user.clone())
            .or_default()
            .insert(self.parked, id);
        self.parked
    }

    pub fn is_parked(&self, user: &UserId, id: Id) -> bool {
        self.mailbox(user).any(|(_, parked)| parked == id)
    }

    pub fn mailbox(&self, user: &UserId) -> impl DoubleEndedIterator<Item = (u64, Id)> {
        self.mailboxes
            .get(user)
            .into_iter()
            .flatten()
            .map(|(sequence, id)| (*sequence, *id))
    }

    pub fn summary(&self, user: &UserId, reminders: &[Reminder]) -> Option<MailboxSummary> {
        let (first, _) = self.mailbox(user).next()?;
        let (last, _) = self.mailbox(user).next_back()?;
        let next_expiry = self
            .mailbox(user)
            .filter_map(|(_, id)| reminders[id].expires_at)
            .min();
        Some(MailboxSummary {
            first,
            last,
            count: self.mailbox(user).count(),
            next_expiry,
        })
    }

    /// Returns the found part of a mailbox, the beginning of the next page, and true if it is the
    /// last page.
    pub fn read(&self, user: &UserId, reading: &Reading) -> (Vec<(Item, Id)>, u64, bool) {
        let Reading {
            first,
            until,
            seen_until,
            most,
        } = *reading;
        let seen = || {
            self.mailbox(user)
                .filter(|(sequence, _)| *sequence <= seen_until)
        };
        let wanted = seen().filter(|(sequence, _)| (first..=until).contains(sequence));
        let found: Vec<_> = wanted
            .take(most)
            .map(|(sequence, id)| (Item::Parked { sequence }, id))
            .collect();
        let end = match found.last() {
            Some((Item::Parked { sequence }, _)) if found.len() == most => *sequence,
            _ => until.min(seen_until),
        };
        let is_last = seen()
            .next_back()
            .is_none_or(|(sequence, _)| sequence <= end);
        (found, (end + 1).max(first), is_last)
    }
}

/// The name of a message of a mailbox. That stream loses nothing in a run, so its sequences are
/// times.
pub fn parked(sequence: u64) -> Done {
    Done::Parked {
        sequence,
        stored_ms: sequence.cast_signed(),
    }
}

/// Returns the instances at which a user may be connected, the newest route first.
pub fn routes_of(routes: &Routes, user: &UserId) -> Vec<Arc<Instance>> {
    let own = routes.iter().filter(|((owner, _), _)| owner == user);
    let mut found: Vec<_> = own
        .map(|((_, instance), revision)| (*revision, instance.clone()))
        .collect();
    found.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    found.into_iter().map(|(_, instance)| instance).collect()
}
