//! Mailboxes: what is parked, read back, and searched for expired reminders. `parks` has the way
//! there.

use std::time::Duration;

use super::{Park, Router, Timer};
use crate::router::keys::{InstanceKey, UserKey};
use crate::router::user::{State, Sweep};
use crate::router::{Action, BySource, Entry, Item, MailboxSummary, Now, Page, Resolution};
use bellhop_protocol::token::UserId;

/// For this long the wall clock is assumed to be unchanged.
const CLOCK_TRUSTED: Duration = Duration::from_secs(60);

impl Router {
    pub(super) fn mailbox_found(&mut self, now: Now, user: UserId, summary: MailboxSummary) {
        let user = self.users.admit(user);
        let mailbox = self.users[user].mailbox_mut();
        mailbox.first = summary.first;
        mailbox.last = summary.last;
        mailbox.count = summary.count;
        mailbox.next_expiry = summary.next_expiry;
        self.schedule_sweep(now, user);
        self.touched_users.push_back(user);
    }

    pub(super) fn mailbox_read(
        &mut self,
        now: Now,
        user: UserId,
        mut page: Page,
        actions: &mut Vec<Action>,
    ) {
        self.reads_in_flight = self.reads_in_flight.saturating_sub(1);
        let number = self.users.admit(user);
        let user = &mut self.users[number];
        let mailbox = user.mailbox_mut();
        if mailbox.parking == 0 {
            mailbox.last = mailbox.last.max(
                page.entries
                    .iter()
                    .filter_map(parked_sequence)
                    .max()
                    .unwrap_or(0),
            );
        } else if page.next > mailbox.last {
            // The reminders behind are being parked: its turn comes when it is settled as such.
            page.next = mailbox.last + 1;
            page.is_last = true;
        }
        let is_left_out = |at: u64| at > mailbox.last || mailbox.settled_ahead.contains(&at);
        let left_out = page
            .entries
            .extract_if(.., |entry| parked_sequence(entry).is_some_and(is_left_out));
        forget(left_out.map(|entry| entry.item).collect(), actions);
        if let State::Sweeping(sweep) = user.work().state.clone() {
            return self.swept(now, number, sweep, page, actions);
        }
        if page.entries.is_empty() {
            user.mailbox_mut().settle_before(page.next);
        }
        let work = user.work_mut();
        work.state = State::Idle;
        work.waiting.extend(page.entries);
        let bytes = work.waiting.iter().map(|entry| entry.bytes).sum();
        self.charge_page(number, bytes);
        self.touched_users.push_back(number);
    }

    /// One page of a search for expired reminders.
    pub(super) fn swept(
        &mut self,
        now: Now,
        user: UserKey,
        mut sweep: Sweep,
        page: Page,
        actions: &mut Vec<Action>,
    ) {
        let mut kept = Vec::new();
        for entry in page.entries {
            if entry.is_expired(now) {
                sweep.oldest_kept = sweep.oldest_kept.or(kept.first().and_then(parked_sequence));
                self.settle_before_front(user, entry, Resolution::Expired, sweep.oldest_kept);
            } else {
                sweep.next_expiry = [sweep.next_expiry, entry.expires_at]
                    .into_iter()
                    .flatten()
                    .min();
                kept.push(entry);
            }
        }
        sweep.oldest_kept = sweep.oldest_kept.or(kept.first().and_then(parked_sequence));
        forget(kept.iter().map(|entry| entry.item).collect(), actions);
        let is_over = page.is_last || self.is_stopping;
        if is_over {
            let mailbox = self.users[user].mailbox_mut();
            if sweep.oldest_kept.is_none() {
                mailbox.settle_before(page.next);
            }
            mailbox.next_expiry = [mailbox.next_expiry, sweep.next_expiry]
                .into_iter()
                .flatten()
                .min();
            self.users[user].work_mut().state = State::Idle;
            self.rest_between_sweeps(now, user);
            self.touched_users.push_back(user);
        } else {
            self.users[user].work_mut().state = State::Sweeping(Sweep {
                from: page.next,
                ..sweep
            });
            self.reads.push_back(user);
        }
    }

    /// Adds what is in memory to a count. It counts until it is settled here, even if another
    /// program has removed it.
    fn with_memory(&self, user: UserKey, mut found: BySource) -> BySource {
        let is_found =
            |found: &BySource, at| found.iter().any(|(_, all)| all.binary_search(&at).is_ok());
        for entry in &self.users[user].work().waiting {
            if let Some(at) = parked_sequence(entry).filter(|at| !is_found(&found, *at)) {
                found.push((Some(entry.source.clone()), vec![at]));
            }
        }
        found
    }

    /// There is no way to the user now: what is in memory goes to, or stays in, the mailbox.
    pub(super) fn wait_in_mailbox(&mut self, now: Now, user: UserKey, actions: &mut Vec<Action>) {
        let work = self.users[user].work_mut();
        let waiting = std::mem::take(&mut work.waiting);
        if work.paused_until.is_none() {
            self.want_routes(user);
        }
        let mut forgotten = Vec::new();
        for entry in waiting {
            match entry.item {
                Item::Event { .. } => self.park(now, user, entry),
                Item::Parked { .. } => forgotten.push(entry.item),
            }
        }
        forget(forgotten, actions);
        self.release_page(user);
    }

    /// Charges the user's page to the room of its instance.
    pub(super) fn charge_page(&mut self, user: UserKey, bytes: usize) {
        if let Some((queue, charged)) = &mut self.users[user].work_mut().page {
            let (queue, before) = (*queue, std::mem::replace(charged, bytes));
            let queue = self.touch(queue);
            queue.page_bytes = queue.page_bytes + bytes - before;
        }
    }

    /// Once nothing of it is left in memory, the user's page makes room for another one.
    pub(super) fn release_page(&mut self, user: UserKey) {
        let work = self.users[user].work();
        if work.waiting.is_empty() && work.page.is_some() {
            self.charge_page(user, 0);
            self.users[user].work_mut().page = None;
        }
    }

    pub(super) fn park(&mut self, now: Now, user: UserKey, entry: Entry) {
        match self.end_without_delivery(now, &entry) {
            Some(resolution) => self.settle(user, entry, resolution),
            None => self.take_in(user, entry, Resolution::Parked),
        }
    }

    /// Queues a reminder for its park, if there is room for it. Otherwise it waits until the
    /// mailbox is counted.
    fn take_in(&mut self, user: UserKey, entry: Entry, resolution: Resolution) {
        let mailbox = self.users[user].mailbox_mut();
        if mailbox.take_in(&self.settings.room, &entry) {
            return self.parks.push_back(Park {
                user,
                entry,
                resolution,
            });
        }
        mailbox.parking += 1;
        mailbox
            .tally
            .get_or_insert_default()
            .undecided
            .push_back((entry, resolution));
        self.count_if_wanted(user);
    }

    pub(super) fn count_if_wanted(&mut self, user: UserKey) {
        let mailbox = self.users[user].mailbox_mut();
        if mailbox.wants_count() {
            mailbox.tally.get_or_insert_default().is_asked = true;
            self.counts.push_back(user);
        }
    }

    /// A mailbox was counted: decides on the reminders that waited for it.
    pub(super) fn mailbox_counted(&mut self, now: Now, user: UserId, found: Option<BySource>) {
        self.reads_in_flight = self.reads_in_flight.saturating_sub(1);
        let user = self.users.admit(user);
        let found = found.map(|found| self.with_memory(user, found));
        for (entry, resolution) in self.users[user].mailbox_mut().counted(found) {
            let is_copy = resolution != Resolution::Parked;
            let over = if is_copy {
                None
            } else {
                self.end_without_delivery(now, &entry)
            };
            if let Some(over) = over {
                self.settle(user, entry, over);
            } else if self.users[user]
                .mailbox_mut()
                .take_in(&self.settings.room, &entry)
            {
                self.parks.push_back(Park {
                    user,
                    entry,
                    resolution,
                });
            } else {
                // A copy that has no room is left out; its reminder is rerouted all the same.
                self.settle(
                    user,
                    entry,
                    if is_copy {
                        resolution
                    } else {
                        Resolution::MailboxFull
                    },
                );
            }
        }
        self.touched_users.push_back(user);
    }

    /// An associate has got it. A copy goes to the mailbox, if the user is to have one and there is
    /// room.
    pub(super) fn rerouted(
        &mut self,
        now: Now,
        user: UserKey,
        entry: Entry,
        resolution: Resolution,
    ) {
        if !self.settings.copy_rerouted || entry.is_expired(now) {
            return self.settle(user, entry, resolution);
        }
        self.take_in(user, entry, resolution);
    }

    /// Arms the search of a mailbox for the moment its earliest reminder expires; or, where that is
    /// far, a look at the clock.
    pub(super) fn schedule_sweep(&mut self, now: Now, user: UserKey) {
        let mailbox = self.users[user].mailbox();
        if mailbox.next_expiry.is_none() && mailbox.sweep_at.is_none() {
            return;
        }
        let mailbox = self.users[user].mailbox_mut();
        let due = mailbox
            .next_expiry
            .map(|at| now.instant_of(at).min(now.instant + CLOCK_TRUSTED));
        let wanted = due.map(|due| {
            mailbox
                .no_sweep_before
                .map_or(due, |earliest| due.max(earliest))
        });
        let before = std::mem::replace(&mut mailbox.sweep_at, wanted);
        if before != wanted {
            if let Some(at) = before {
                self.timers.remove(&(at, Timer::Sweep(user)));
            }
            if let Some(at) = wanted {
                self.timers.insert((at, Timer::Sweep(user)));
            }
        }
    }

    pub(super) fn rest_between_sweeps(&mut self, now: Now, user: UserKey) {
        self.users[user].mailbox_mut().no_sweep_before =
            Some(now.instant + self.settings.expiry_interval);
        self.schedule_sweep(now, user);
    }

    pub(super) fn sweep(&mut self, now: Now, user: UserKey) {
        let mailbox = self.users[user].mailbox_mut();
        mailbox.sweep_at = None;
        if !mailbox.has_mail() || self.is_stopping {
            return;
        }
        if mailbox.next_expiry.is_some_and(|at| at > now.unix_ms) {
            return self.schedule_sweep(now, user);
        }
        let from = mailbox.first;
        let work = self.users[user].work();
        if work.state == State::Idle && work.waiting.is_empty() {
            self.users[user].mailbox_mut().next_expiry = None;
            self.users[user].work_mut().state = State::Sweeping(Sweep {
                from,
                next_expiry: None,
                oldest_kept: None,
            });
            self.reads.push_back(user);
        } else {
            // It is being delivered, and what has expired is noticed there. Look again for what may
            // stay behind.
            self.rest_between_sweeps(now, user);
        }
    }

    /// Queues for a page of the mailbox, at the queue of the best connection.
    pub(super) fn read(&mut self, user: UserKey, held: &[InstanceKey]) {
        let Some(&queue) = held.first() else { return };
        self.users[user].use_up_confirmations();
        self.users[user].work_mut().state = State::Reading;
        self.touch(queue).unread.push_back(user);
    }

    /// Mailboxes are read ahead of an instance by one delivery and not further: a slow one must not
    /// fill the memory, nor hold up the reads for others.
    pub(super) fn dispatch_pages(&mut self, queue: InstanceKey) {
        let room = self.settings.delivery_bytes * 2;
        while self.queues[queue].page_bytes < room {
            let Some(user) = self.queues[queue].unread.pop_front() else {
                break;
            };
            if self.users[user].route_mut(queue).is_some() {
                // How large it is shows when it was read. Until then it is charged so that only so
                // many are begun.
                self.users[user].work_mut().page = Some((queue, 0));
                self.charge_page(user, room.div_ceil(self.settings.reads_in_flight));
                self.reads.push_back(user);
            } else {
                self.users[user].work_mut().state = State::Idle;
                self.touched_users.push_back(user);
            }
        }
    }

    pub(super) fn dispatch_reads(&mut self, actions: &mut Vec<Action>) {
        while self.reads_in_flight < self.settings.reads_in_flight {
            if let Some(user) = self.counts.pop_front() {
                let user = &self.users[user];
                let is_known = user
                    .mailbox()
                    .tally
                    .as_ref()
                    .is_some_and(|tally| tally.is_known());
                let known = is_known.then_some(user.mailbox().count);
                self.reads_in_flight += 1;
                actions.push(Action::CountMailbox {
                    user: user.name.clone(),
                    known,
                });
                continue;
            }
            let Some(user) = self.reads.pop_front() else {
                return;
            };
            let user = &self.users[user];
            let from = match &user.work().state {
                State::Sweeping(sweep) => sweep.from,
                _ => user.mailbox().first,
            };
            let last = user.mailbox().last;
            self.reads_in_flight += 1;
            actions.push(Action::ReadMailbox {
                user: user.name.clone(),
                from,
                last,
            });
        }
    }
}

pub(super) fn forget(items: Vec<Item>, actions: &mut Vec<Action>) {
    if !items.is_empty() {
        actions.push(Action::Forget(items));
    }
}

pub(super) fn parked_sequence(entry: &Entry) -> Option<u64> {
    match entry.item {
        Item::Parked { sequence } => Some(sequence),
        Item::Event { .. } => None,
    }
}
