//! Appends to mailboxes: in order, one batch at a time.
//!
//! JetStream may refuse a batch, most often because there is no room. Then nothing of it is stored,
//! and it is tried again after growing pauses, in smaller batches, which need less room. Everything
//! else goes on meanwhile. The limit on reminders in work bounds this queue, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Park, Router, State, Timer};
use crate::router::keys::UserKey;
use crate::router::{Action, Now, Parking, Resolution};

/// The last batch was refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// Time of the next attempt.
    pub(super) until: Instant,
    /// The pause that ends then.
    pause: Duration,
}

impl Router {
    /// Returns true if JetStream refused the last batch for a mailbox, so that parking waits.
    pub fn is_park_refused(&self) -> bool {
        self.refused.is_some()
    }

    pub(super) fn parked(&mut self, now: Now, sequences: &[u64]) {
        let batch = std::mem::take(&mut self.parking);
        debug_assert_eq!(batch.len(), sequences.len());
        self.refused = None;
        self.park_most = self
            .park_most
            .saturating_mul(2)
            .min(self.settings.park_batch.0);
        for (
            Park {
                user,
                entry,
                resolution,
            },
            &sequence,
        ) in batch.into_iter().zip(sequences)
        {
            let mailbox = self.users[user].mailbox_mut();
            mailbox.parking -= 1;
            // A reminder that was already parked before a crash gets the sequence that it had then.
            if sequence > mailbox.last {
                mailbox.append(sequence, entry.expires_at);
                self.schedule_sweep(now, user);
            } else {
                mailbox
                    .tally
                    .iter_mut()
                    .for_each(|tally| tally.take_out(&entry.source));
            }
            self.count_if_wanted(user);
            self.settle(user, entry, resolution);
            self.touched_users.push_back(user);
        }
    }

    /// None of the batch is stored: it is first in the queue again.
    pub(super) fn park_refused(&mut self, now: Now) {
        let batch = std::mem::take(&mut self.parking);
        self.park_most = (batch.len() / 2).max(1);
        batch
            .into_iter()
            .rev()
            .for_each(|park| self.parks.push_front(park));
        let (first, longest) = self.settings.park_again;
        let pause = self
            .refused
            .as_ref()
            .map_or(first, |refused| (refused.pause * 2).min(longest));
        let until = now.instant + pause;
        self.refused = Some(Refused { until, pause });
        self.timers.insert((until, Timer::ParkAgain));
        self.take_back();
    }

    /// Takes users out of the queue who can be reached and have no mail: what waits here goes to
    /// them directly. All of a user's reminders leave together, so their order stays.
    pub(super) fn take_back(&mut self) {
        let mut leaves: BTreeMap<UserKey, bool> = BTreeMap::new();
        for Park {
            user, resolution, ..
        } in &self.parks
        {
            // A copy is for the mailbox alone, and what was published later queues behind it.
            let is_live = *resolution == Resolution::Parked;
            let may_leave = leaves
                .entry(*user)
                .or_insert_with(|| self.is_served_directly(*user));
            *may_leave &= is_live;
        }
        let leaving;
        (leaving, self.parks) = std::mem::take(&mut self.parks)
            .into_iter()
            .partition(|park| leaves[&park.user]);
        for Park { user, entry, .. } in leaving {
            let mailbox = self.users[user].mailbox_mut();
            mailbox.parking -= 1;
            mailbox
                .tally
                .iter_mut()
                .for_each(|tally| tally.take_out(&entry.source));
            self.users[user].work_mut().waiting.push_back(entry);
            self.touched_users.push_back(user);
        }
    }

    /// Returns true if the user would get a reminder at once, if none were on its way into the
    /// mailbox.
    fn is_served_directly(&self, user: UserKey) -> bool {
        let mailbox = self.users[user].mailbox();
        let is_last = !mailbox.has_mail()
            && mailbox
                .tally
                .as_ref()
                .is_none_or(|tally| tally.undecided.is_empty());
        let work = self.users[user].work();
        let is_free = work.state == State::Idle && work.waiting.is_empty() && is_last;
        is_free && self.has_own_way(user)
    }

    pub(super) fn dispatch_park(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.parking.is_empty() || self.parks.is_empty() {
            return;
        }
        if let Some(Refused { until, .. }) = self.refused {
            if until > now.instant {
                return;
            }
            self.timers.remove(&(until, Timer::ParkAgain));
        }
        let mut room = self.settings.park_batch.1;
        while let Some(Park { entry, .. }) = self.parks.front() {
            if self.parking.len() >= self.park_most
                || (entry.bytes > room && !self.parking.is_empty())
            {
                break;
            }
            room = room.saturating_sub(entry.bytes);
            self.parking.extend(self.parks.pop_front());
        }
        let parking = |park: &Park| {
            let rerouted_to = match &park.resolution {
                Resolution::Rerouted { to, .. } => Some(to.clone()),
                _ => None,
            };
            Parking {
                user: self.users[park.user].name.clone(),
                item: park.entry.item,
                rerouted_to,
            }
        };
        actions.push(Action::Park(self.parking.iter().map(parking).collect()));
    }
}
