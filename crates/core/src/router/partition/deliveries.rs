//! Deliveries: what goes into a request, and what its answer means.
//!
//! The reminders that go to a user together are a *batch*. It goes to all instances that are to get
//! it, each at its own queue's turn, and is over when all have answered. A reminder is done with if
//! one of them accepted it; a reminder that none accepted stays at the front. So every instance
//! gets the reminders in order, and none gets one again because another one had refused it. An
//! instance whose turn does not come for long is left out of the batch.
//!
//! Reminders that were not answered before go in a request of their own (`suspects`).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::{Router, Timer};
use crate::router::instance_queue::{Part, grown};
use crate::router::keys::{InstanceKey, InstanceKeys, UserKey};
use crate::router::suspicion::Suspicion;
use crate::router::user::{Batch, Reception, State};
use crate::router::{
    Action, Company, Entry, Instance, NoAnswer, Now, Refusal, Resolution, Share, Undelivered,
};
use bellhop_protocol::reminder::finished::REROUTED_BYTES;

/// Reminders of a batch that is over, and what became of each.
pub(super) type Answered = SmallVec<[(Entry, Reception); 1]>;

/// The part of a batch that goes into a request.
enum Load {
    Taken(Part, Share),
    /// It waits for the next one.
    NoRoom,
    /// There is nothing for the instance any more.
    Nothing,
}

impl Router {
    /// Queues for a delivery at each of these instances.
    pub(super) fn board(&mut self, user: UserKey, queues: InstanceKeys) {
        self.users[user].use_up_confirmations();
        let company = self.users[user].work().company();
        let (open, targets) = (queues.clone(), queues.len());
        let ticket = self.begin_turn(
            user,
            State::Delivering(Batch {
                open,
                targets,
                ..Batch::default()
            }),
        );
        for queue in queues {
            self.touch(queue).tracks[company].ready.push_back(ticket);
        }
    }

    pub(super) fn dispatch_delivery(
        &mut self,
        now: Now,
        number: InstanceKey,
        company: Company,
        actions: &mut Vec<Action>,
    ) {
        let mut room = self.settings.delivery_bytes;
        let mut until = now.instant + self.settings.turn_timeout;
        let (mut request, mut shares) = (Vec::new(), Vec::new());
        loop {
            let queue = &mut self.queues[number];
            if queue.tracks[company].delivering.is_some() || !queue.is_up() {
                break;
            }
            if company == Company::Alone && !shares.is_empty() {
                break;
            }
            let Some(ticket) = queue.tracks[company].ready.pop_front() else {
                break;
            };
            if !self.is_current(ticket, number) {
                continue;
            }
            match self.load(
                now,
                ticket.user,
                number,
                &mut room,
                shares.is_empty(),
                &mut until,
            ) {
                Load::Taken(part, share) => {
                    request.push(part);
                    shares.push(share);
                }
                Load::NoRoom => {
                    self.touch(number).tracks[company].ready.push_front(ticket);
                    break;
                }
                Load::Nothing => self.leave_batch(now, ticket.user, number),
            }
        }
        if !shares.is_empty() {
            let queue = self.touch(number);
            queue.tracks[company].delivering = Some(request);
            actions.push(Action::Deliver {
                instance: queue.instance.clone(),
                company,
                shares,
                until,
            });
            if company == Company::Shared {
                self.watch_crowd(now, number, false);
            }
        }
    }

    /// Takes the user's batch into a request. The first instance's request settles what belongs to
    /// it. The request is not to be sent after `until`.
    fn load(
        &mut self,
        now: Now,
        user: UserKey,
        queue: InstanceKey,
        room: &mut usize,
        is_first: bool,
        until: &mut Instant,
    ) -> Load {
        if !self.users[user].work().is_sent() {
            self.settle_what_is_over(now, user);
        }
        let (name, to) = (self.users[user].name.clone(), self.associate(user));
        let Some(revision) = self.revision_for(user, queue) else {
            return Load::Nothing;
        };
        let work = self.users[user].work_mut();
        let State::Delivering(batch) = &mut work.state else {
            return Load::Nothing;
        };
        let most_new = work.suspicion.as_ref().map_or(usize::MAX, Suspicion::most);
        let most = batch.receptions.as_ref().map_or(most_new, SmallVec::len);
        let may_go = |entry: &Entry| to.is_none() || entry.may_reroute;
        let waiting = work
            .waiting
            .iter()
            .enumerate()
            .take(most)
            .take_while(|(_, entry)| may_go(entry));
        let wanted: SmallVec<[_; 4]> = waiting
            .filter(|(_, entry)| !entry.is_expired(now))
            .collect();
        if wanted.is_empty() {
            return Load::Nothing;
        }
        let around = if to.is_some() { REROUTED_BYTES } else { 0 };
        let mut left = *room;
        let fitting = fitting(&wanted, around, &mut left, is_first);
        if fitting == 0 || (batch.receptions.is_some() && fitting < wanted.len()) {
            return Load::NoRoom;
        }
        *room = left;
        if batch.receptions.is_none() {
            batch.receptions = Some(SmallVec::from_elem(Reception::default(), fitting));
            batch.until = (batch.targets > 1).then(|| now.instant + self.settings.turn_timeout);
        }
        let leaves_out_at = batch.until;
        let taken = &wanted[..fitting];
        let expiries = taken
            .iter()
            .filter_map(|(_, entry)| entry.expires_at)
            .map(|at| now.instant_of(at));
        *until = expiries.chain(leaves_out_at).fold(*until, Instant::min);
        let items = taken.iter().map(|(_, entry)| entry.item).collect();
        let places = taken.iter().map(|(place, _)| *place).collect();
        if let Some(at) = leaves_out_at {
            self.timers.insert((at, Timer::LeaveOut(user)));
        }
        Load::Taken(
            Part {
                user,
                places,
                revision,
            },
            Share {
                user: name,
                to,
                items,
            },
        )
    }

    pub(super) fn delivered(
        &mut self,
        now: Now,
        instance: &Arc<Instance>,
        company: Company,
        answer: Result<Vec<(usize, usize, Refusal)>, Undelivered>,
        actions: &mut Vec<Action>,
    ) {
        let Some(queue) = self.queues.find(instance) else {
            return;
        };
        let Some(request) = self.touch(queue).tracks[company].delivering.take() else {
            return;
        };
        if company == Company::Shared {
            self.unwatch_crowd(queue);
        }
        match answer {
            Err(Undelivered::NotSent) => request.iter().for_each(|part| self.put_off(part)),
            Err(why) => {
                // The instance's last word on its connections no longer counts.
                for part in &request {
                    self.users[part.user]
                        .route_mut(queue)
                        .into_iter()
                        .for_each(|route| route.held_until = None);
                }
                let may_be_its_content = matches!(
                    why,
                    Undelivered::Unanswered(NoAnswer::TimedOut | NoAnswer::Garbage)
                );
                if may_be_its_content {
                    request
                        .iter()
                        .for_each(|part| self.left_unanswered(part, instance));
                }
                // Whether the instance answers anything at all is found out by the next heartbeat.
                if !(may_be_its_content && company == Company::Alone) {
                    self.instance_down(now, queue);
                }
            }
            Ok(refused) => {
                self.queues[queue].silent_since = None;
                let mut refusals: BTreeMap<usize, BTreeMap<usize, Refusal>> = BTreeMap::new();
                for (place, at, why) in refused {
                    refusals.entry(place).or_default().insert(at, why);
                }
                for (place, part) in request.iter().enumerate() {
                    let refusals = refusals.remove(&place).unwrap_or_default();
                    self.answered(now, queue, part, &refusals, actions);
                }
            }
        }
        for part in request {
            self.leave_batch(now, part.user, queue);
        }
    }

    /// One user's part of a delivery that was not sent in time: as if the instance were busy.
    fn put_off(&mut self, Part { user, places, .. }: &Part) {
        if let State::Delivering(Batch {
            receptions: Some(receptions),
            ..
        }) = &mut self.users[*user].work_mut().state
        {
            places
                .iter()
                .for_each(|place| receptions[*place].is_put_off = true);
        }
    }

    /// One user's part of a delivery that was sent and not answered.
    fn left_unanswered(&mut self, Part { user, .. }: &Part, instance: &Arc<Instance>) {
        if let State::Delivering(batch) = &mut self.users[*user].work_mut().state {
            batch.unanswered_by = Some(instance.clone());
        }
    }

    /// One user's part of an answered delivery.
    fn answered(
        &mut self,
        now: Now,
        queue: InstanceKey,
        Part {
            user,
            places,
            revision,
        }: &Part,
        refusals: &BTreeMap<usize, Refusal>,
        actions: &mut Vec<Action>,
    ) {
        let held_until = self.held_from(now);
        let work = self.users[*user].work_mut();
        let is_attempt = work.attempt.is_some();
        let State::Delivering(Batch {
            receptions: Some(receptions),
            ..
        }) = &mut work.state
        else {
            return;
        };
        for (at, place) in places.iter().enumerate() {
            match refusals.get(&at) {
                None => receptions[*place]
                    .by
                    .push(self.queues[queue].instance.name.clone()),
                Some(Refusal::Busy) => receptions[*place].is_put_off = true,
                Some(Refusal::NotConnected) => {}
            }
        }
        if refusals.len() < places.len() {
            if !is_attempt {
                if let Some(route) = self.users[*user].route_mut(queue) {
                    route.held_until = held_until;
                    self.renew_later(now, *user, queue);
                }
                self.note_held(now, *user);
            }
            self.queues[queue].accepted();
        }
        if !is_attempt && refusals.values().any(|why| *why == Refusal::NotConnected) {
            self.drop_route(*user, queue, *revision, actions);
        }
    }

    /// An instance has answered, or will not. With the last one the batch is over.
    pub(super) fn leave_batch(&mut self, now: Now, user: UserKey, queue: InstanceKey) {
        let State::Delivering(batch) = &mut self.users[user].work_mut().state else {
            return;
        };
        batch.open.retain(|open| *open != queue);
        if batch.open.is_empty() {
            let batch = std::mem::take(batch);
            self.users[user].work_mut().state = State::Idle;
            self.touched_users.push_back(user);
            self.finish_batch(now, user, batch);
        }
    }

    /// A slow instance's queue is not a reason to keep the user's other ones waiting.
    pub(super) fn leave_out_unsent(&mut self, now: Now, user: UserKey) {
        let State::Delivering(batch) = &self.users[user].work().state else {
            return;
        };
        let is_sent = |queue| {
            self.queues[queue]
                .tracks
                .iter()
                .any(|track| track.carries(user))
        };
        let unsent: InstanceKeys = batch
            .open
            .iter()
            .copied()
            .filter(|queue| !is_sent(*queue))
            .collect();
        for queue in unsent {
            self.leave_batch(now, user, queue);
        }
    }

    fn finish_batch(
        &mut self,
        now: Now,
        user: UserKey,
        Batch {
            targets,
            until,
            receptions,
            unanswered_by,
            ..
        }: Batch,
    ) {
        if let Some(until) = until {
            self.timers.remove(&(until, Timer::LeaveOut(user)));
        }
        let receptions = receptions.unwrap_or_default();
        let work = self.users[user].work_mut();
        let sent = work.waiting.drain(..receptions.len()).zip(receptions);
        let (refused, accepted): (Answered, Answered) =
            sent.partition(|(_, reception)| reception.by.is_empty());
        let is_put_off = refused.iter().any(|(_, reception)| reception.is_put_off);
        let count_refused = NonZeroUsize::new(refused.len());
        for (entry, _) in refused.into_iter().rev() {
            work.waiting.push_front(entry);
        }
        match unanswered_by.zip(count_refused) {
            Some((instance, sent)) => self.suspect(now, user, sent, instance),
            None => self.relieve(user, accepted.len()),
        }
        match self.associate(user) {
            Some(to) => self.attempt_is_due(now, user, &to, accepted, count_refused.is_some()),
            None => self.delivered_to_user(now, user, accepted, targets, is_put_off),
        }
    }

    fn delivered_to_user(
        &mut self,
        now: Now,
        user: UserKey,
        accepted: Answered,
        targets: usize,
        is_put_off: bool,
    ) {
        if !accepted.is_empty() {
            self.users[user].work_mut().busy = 0;
        }
        if is_put_off {
            self.pause_busy(now, user);
        }
        for (entry, Reception { by, .. }) in accepted {
            self.merge_window.accepted(now.instant, &entry);
            let missed = targets - by.len();
            self.settle(user, entry, Resolution::Delivered { by, missed });
        }
    }

    /// No instance accepted it, and one was busy.
    fn pause_busy(&mut self, now: Now, user: UserKey) {
        let backoff = self.settings.busy_backoff;
        let work = self.users[user].work_mut();
        let until = now.instant + grown(backoff, work.busy);
        work.busy = work.busy.saturating_add(1);
        self.pause(user, until);
    }

    /// Leaves the user alone until then, or until a route is put.
    pub(super) fn pause(&mut self, user: UserKey, until: Instant) {
        let work = self.users[user].work_mut();
        let until = work.paused_until.map_or(until, |before| before.max(until));
        if let Some(before) = work.paused_until.replace(until) {
            self.timers.remove(&(before, Timer::Resume(user)));
        }
        self.timers.insert((until, Timer::Resume(user)));
    }
}

/// Returns the number of reminders, from the front, that fit into the room of a request. The first
/// of a request always does. A duplicate of one of them waits for the answer: it is merged if that
/// one is accepted.
fn fitting(waiting: &[(usize, &Entry)], around: usize, room: &mut usize, is_first: bool) -> usize {
    let (mut count, mut texts) = (0, BTreeSet::new());
    for (_, entry) in waiting {
        let must_go = is_first && count == 0;
        let is_duplicate = entry
            .text
            .as_ref()
            .is_some_and(|text| !texts.insert(text.hash));
        let bytes = entry.bytes + around;
        if is_duplicate || (bytes > *room && !must_go) {
            break;
        }
        *room = room.saturating_sub(bytes);
        count += 1;
    }
    count
}
