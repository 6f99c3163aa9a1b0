//! What the ledger can be asked.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Counts, End, Ledger, Open, Taken, Trouble};

impl Ledger {
    /// How many went which way so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Reminders about which not everything is known yet.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Reminders that are neither settled nor in a mailbox.
    pub(crate) fn under_way(&self) -> usize {
        self.open.len() - self.parked().0
    }

    /// Reminders in mailboxes, and the users they wait for.
    pub(crate) fn parked(&self) -> (usize, usize) {
        let parked = self
            .users
            .iter()
            .map(|user| user.parked)
            .filter(|parked| *parked > 0);
        parked.fold((0, 0), |(reminders, users), parked| {
            (reminders + parked, users + 1)
        })
    }

    /// Reminders in a user's mailbox.
    pub(crate) fn parked_for(&self, user: usize) -> usize {
        self.users[user].parked
    }

    /// Returns a user's valid reminders published before `then` that no app server accepted yet.
    pub(crate) fn due(&self, user: usize, then: Instant) -> usize {
        let is_due = |open: &&Open| {
            open.user == user && open.is_valid && open.taken == Taken::Not && open.published_at < then
                // One that is to be merged waits for another one.
                && !matches!(open.end, Some(End::Merged(_)))
        };
        self.open.values().filter(is_due).count()
    }

    /// How much went wrong with a user's reminders.
    pub(crate) fn troubles_of(&self, user: usize) -> usize {
        self.users[user].troubles
    }

    /// What went wrong: how often, and the id of the first.
    pub(crate) fn troubles(&self) -> &BTreeMap<Trouble, (u64, String)> {
        &self.troubles
    }

    /// What visitors' instances took, by instance.
    pub(crate) fn elsewhere(&self) -> &BTreeMap<String, u64> {
        &self.elsewhere
    }
}
