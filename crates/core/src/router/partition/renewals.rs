//! Heartbeats ahead of need. A connection over which something was delivered is asked about again
//! before its lease ends. So the next delivery mostly finds a connection that is held, and does not
//! wait for a heartbeat.
//!
//! Connections are kept by the *slot* of the wall clock in which they are due. All partitions have
//! the same slots, so what they ask an instance at that moment goes together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::instances::NO_TURN;
use super::{Router, Timer};
use crate::router::Now;
use crate::router::instance_queue::{Asked, Ticket};
use crate::router::keys::{InstanceKey, UserKey};

/// Slots in the part of a lease for which connections are asked about ahead: the more, the later
/// they are asked about, and the less goes together.
const SLOTS: u32 = 4;

/// Connections that are asked about before their leases end.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    /// By the number of the slot.
    due: BTreeMap<i64, Vec<(UserKey, InstanceKey)>>,
    /// The timer of the first slot.
    pub(super) armed: Option<Instant>,
}

impl Router {
    /// Something was delivered over a held connection: it is asked about again before its lease
    /// ends.
    pub(super) fn renew_later(&mut self, now: Now, user: UserKey, queue: InstanceKey) {
        let settings = &self.settings;
        let Some(after) = settings.lease.checked_sub(settings.ask_ahead) else {
            return;
        };
        let is_new = |is_renewed: &mut bool| !std::mem::replace(is_renewed, true);
        let route = self.users[user].route_mut(queue);
        if !settings.ask_ahead.is_zero() && route.is_some_and(|route| is_new(&mut route.is_renewed))
        {
            self.renew_after(now, after, user, queue);
        }
    }

    fn renew_after(&mut self, now: Now, after: Duration, user: UserKey, queue: InstanceKey) {
        let slot_ms = self.slot_ms();
        let at_ms = now.unix_ms.saturating_add(milliseconds(after));
        // A short lease may be due within this slot, whose turn may be over.
        let next = now.unix_ms.div_euclid(slot_ms).saturating_add(1);
        let slot = at_ms.div_euclid(slot_ms).max(next);
        self.renewals
            .due
            .entry(slot)
            .or_default()
            .push((user, queue));
        self.arm_renewal(now);
    }

    fn slot_ms(&self) -> i64 {
        milliseconds(self.settings.ask_ahead / SLOTS).max(1)
    }

    /// Sets the timer of the first slot.
    fn arm_renewal(&mut self, now: Now) {
        let slot_ms = self.slot_ms();
        let first = self.renewals.due.first_key_value();
        let at = first.map(|(slot, _)| now.instant_of(slot.saturating_mul(slot_ms)));
        if at != self.renewals.armed {
            if let Some(before) = std::mem::replace(&mut self.renewals.armed, at) {
                self.timers.remove(&(before, Timer::Renew));
            }
            self.timers.extend(at.map(|at| (at, Timer::Renew)));
        }
    }

    /// Asks about the connections of the first slot, but for those over which something was
    /// delivered since: their leases end later.
    pub(super) fn renew_leases(&mut self, now: Now) {
        self.renewals.armed = None;
        let (ahead, is_stopping) = (self.settings.ask_ahead, self.is_stopping);
        let due = self.renewals.due.pop_first().map(|(_, due)| due);
        for (user, queue) in due.into_iter().flatten() {
            let route = self
                .users
                .get_mut(user)
                .and_then(|user| user.route_mut(queue));
            let Some(route) = route.filter(|route| route.is_renewed) else {
                continue;
            };
            let left = route
                .held_until
                .map(|until| until.saturating_duration_since(now.instant))
                .filter(|left| !left.is_zero() && !is_stopping);
            match left {
                Some(left) if left > ahead + ahead / SLOTS => {
                    self.renew_after(now, left - ahead, user, queue);
                }
                left => {
                    route.is_renewed = false;
                    if left.is_some() && self.queues[queue].is_up() {
                        self.touch(queue).ahead.push(user);
                    }
                }
            }
        }
        self.arm_renewal(now);
    }

    /// Adds connections that are asked about ahead to a heartbeat, as far as it has room.
    pub(super) fn ask_ahead(&mut self, number: InstanceKey, asked: &mut Vec<Asked>) {
        let most = self.settings.heartbeat_users;
        while asked.len() < most {
            let queue = &mut self.queues[number];
            if queue.checking.is_some() || !queue.is_up() {
                return;
            }
            let Some(key) = queue.ahead.pop() else {
                return;
            };
            let Some(user) = self.users.get_mut(key) else {
                continue;
            };
            let who = user.name.clone();
            asked.extend(user.route_mut(number).map(|route| Asked {
                ticket: Ticket {
                    user: key,
                    turn: NO_TURN,
                },
                who,
                revision: route.revision,
            }));
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
