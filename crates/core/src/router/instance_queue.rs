//! Requests to one instance: one delivery and one heartbeat at a time, so that waiting reminders
//! form batches; mailboxes are read ahead for one more delivery. A silent instance is asked only
//! now and then.
//!
//! A silent instance is *down*: it gets no deliveries, so a hung one costs one time-out and not one
//! for each reminder. When its back-off ends it is probed by a heartbeat that names users who want
//! it. An answer brings it up again. Back-off grows until a delivery is accepted: an instance that
//! answers heartbeats but hangs on deliveries stays expensive only for its own users.
//!
//! A delivery without an answer may be the fault of one reminder in it that the instance cannot
//! read. So those who were in it go alone from then on, one user at a time on a track of their own,
//! beside the shared requests of everybody else. The module `suspicion` finds which reminder it is.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::keys::UserKey;
use super::{Company, Instance};
use bellhop_protocol::token::UserId;

/// The health of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Up,
    /// Not before this instant.
    Down(Instant),
}

/// A place in the queue of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The user of the reminders.
    pub user: UserKey,
    /// The user's turn in which it was taken. When another one has begun, the ticket is passed by.
    pub turn: u64,
}

/// One user's part of a heartbeat under way.
#[derive(Debug)]
pub struct Asked {
    /// For whom it asks.
    pub ticket: Ticket,
    /// About whom: the user, or an associate.
    pub who: UserId,
    /// The revision of the user's route that is in question.
    pub revision: u64,
}

/// A heartbeat under way.
#[derive(Debug)]
pub struct Check {
    /// About whom it asks.
    pub asked: Vec<Asked>,
    /// True if it was sent to find out whether the instance is back.
    pub is_probe: bool,
}

/// One user's part of a delivery under way.
#[derive(Debug)]
pub struct Part {
    /// The user of the reminders.
    pub user: UserKey,
    /// Indexes of the reminders among those that wait.
    pub places: SmallVec<[usize; 2]>,
    /// The revision of the route that was used.
    pub revision: u64,
}

/// Deliveries of one kind: one is under way, and others wait for their turn.
#[derive(Debug, Default)]
pub struct Track {
    /// For whom a connection is held and something is to be delivered, first come first served.
    pub ready: VecDeque<Ticket>,
    /// The delivery under way.
    pub delivering: Option<Vec<Part>>,
}

impl Track {
    /// Nothing is in flight, and no user waits.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.delivering.is_none()
    }

    /// Returns true if some reminder of the user is in flight.
    pub fn carries(&self, user: UserKey) -> bool {
        self.delivering
            .iter()
            .flatten()
            .any(|part| part.user == user)
    }
}

/// The tracks of an instance.
#[derive(Debug, Default)]
pub struct Tracks {
    shared: Track,
    alone: Track,
}

impl Tracks {
    /// Both.
    pub fn iter(&self) -> impl Iterator<Item = &Track> {
        [&self.shared, &self.alone].into_iter()
    }
}

impl Index<Company> for Tracks {
    type Output = Track;

    fn index(&self, company: Company) -> &Track {
        match company {
            Company::Shared => &self.shared,
            Company::Alone => &self.alone,
        }
    }
}

impl IndexMut<Company> for Tracks {
    fn index_mut(&mut self, company: Company) -> &mut Track {
        match company {
            Company::Shared => &mut self.shared,
            Company::Alone => &mut self.alone,
        }
    }
}

/// Time at which to check the reminders behind a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// The next look.
    pub at: Instant,
    /// It was looked at before: the instance takes long.
    pub is_slow: bool,
}

/// One instance as its partition sees it.
#[derive(Debug)]
pub struct InstanceQueue {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Deliveries to it.
    pub tracks: Tracks,
    /// For whom a connection is to be confirmed.
    pub unconfirmed: VecDeque<Ticket>,
    /// Connections that are held, and about which the next heartbeat asks as well.
    pub ahead: Vec<UserKey>,
    /// Users with a held connection whose mailbox is to be read, first come first served.
    pub unread: VecDeque<UserKey>,
    /// Bytes of the mailbox pages that are in memory for it, or being read.
    pub page_bytes: usize,
    /// Users for whom something waits and who have no other way while this instance is down.
    pub wanted: BTreeSet<UserKey>,
    /// The heartbeat under way.
    pub checking: Option<Check>,
    /// Of the shared delivery under way.
    pub watch: Option<Watch>,
    /// Live reminders had to wait for it for long, and it has not answered quickly since.
    pub is_crowded: bool,
    /// Its health.
    pub health: Health,
    /// The time at which it left a request unanswered, with no answer since.
    pub silent_since: Option<Instant>,
    /// Failures since the last accepted delivery.
    failures: u32,
    /// Routes that name it.
    pub routes: usize,
}

impl InstanceQueue {
    /// Nothing was said yet.
    pub fn new(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            tracks: Tracks::default(),
            unconfirmed: VecDeque::new(),
            ahead: Vec::new(),
            unread: VecDeque::new(),
            page_bytes: 0,
            wanted: BTreeSet::new(),
            checking: None,
            watch: None,
            is_crowded: false,
            health: Health::Up,
            silent_since: None,
            failures: 0,
            routes: 0,
        }
    }

    /// Returns true if reminders may go to it.
    pub fn is_up(&self) -> bool {
        self.health == Health::Up
    }

    /// Returns true if a request to it is in flight.
    pub fn is_asked(&self) -> bool {
        self.checking.is_some() || self.tracks.iter().any(|track| track.delivering.is_some())
    }

    /// Nothing refers to it any more. That it is down is remembered: attempts come to instances
    /// without routes, too.
    pub fn is_unused(&self) -> bool {
        let has_deliveries = !self.tracks.iter().all(Track::is_idle);
        let is_spoken_to = has_deliveries || self.checking.is_some() || self.page_bytes > 0;
        let is_queued_for = !(self.unconfirmed.is_empty() && self.unread.is_empty());
        self.routes == 0 && !is_spoken_to && !is_queued_for && self.is_up()
    }

    /// It was silent. Answers those who queued for it and must look for another way.
    pub fn goes_down(&mut self, now: Instant, backoff: (Duration, Duration)) -> Vec<Ticket> {
        self.health = Health::Down(now + grown(backoff, self.failures));
        self.failures = self.failures.saturating_add(1);
        self.ahead.clear();
        self.silent_since.get_or_insert(now);
        let Tracks { shared, alone } = &mut self.tracks;
        shared
            .ready
            .drain(..)
            .chain(alone.ready.drain(..))
            .chain(self.unconfirmed.drain(..))
            .collect()
    }

    /// It answered. Answers the users that wanted it.
    pub fn comes_up(&mut self) -> BTreeSet<UserKey> {
        self.health = Health::Up;
        std::mem::take(&mut self.wanted)
    }

    /// It accepted a delivery.
    pub fn accepted(&mut self) {
        self.failures = 0;
    }
}

/// The pause after `failures` failures in a row: the first one doubled each time, up to the
/// longest.
pub fn grown((first, longest): (Duration, Duration), failures: u32) -> Duration {
    first.saturating_mul(1u32 << failures.min(20)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let backoff = (Duration::from_millis(500), Duration::from_secs(30));
        let pauses: Vec<_> = [0, 1, 2, 5, 6, 40, u32::MAX]
            .map(|n| grown(backoff, n).as_millis())
            .into();
        assert_eq!(pauses, [500, 1_000, 2_000, 16_000, 30_000, 30_000, 30_000]);
    }
}
