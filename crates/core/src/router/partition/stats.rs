//! Counts of the machine's state, for gauges.

use std::collections::BTreeSet;

use super::Router;
use crate::router::HELD_BACK_AFTER;
use bellhop_protocol::token::{InstanceName, UserId};

/// The size of a partition's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// Routes.
    pub routes: usize,
    /// Users with a route.
    pub connected_users: usize,
    /// The mailboxes in use of users with a route.
    pub mail_of_connected: Mail,
    /// The mailboxes in use of users without one.
    pub mail_of_away: Mail,
    /// Instances that are spoken to.
    pub up: BTreeSet<InstanceName>,
    /// Silent instances.
    pub down: BTreeSet<InstanceName>,
    /// Users with a reminder that is held back.
    pub held_back: BTreeSet<UserId>,
}

/// Mailboxes that reminders lie in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mail {
    /// Number of users.
    pub users: usize,
    /// Reminders in them.
    pub reminders: usize,
}

impl PartitionStats {
    /// Adds another partition's. An instance that is silent for one of them is down.
    pub fn add(&mut self, other: &Self) {
        self.routes += other.routes;
        self.connected_users += other.connected_users;
        self.mail_of_connected.add(other.mail_of_connected);
        self.mail_of_away.add(other.mail_of_away);
        self.down.extend(other.down.iter().cloned());
        self.up.extend(other.up.iter().cloned());
        self.up.retain(|instance| !self.down.contains(instance));
        self.held_back.extend(other.held_back.iter().cloned());
    }
}

impl Mail {
    fn add(&mut self, other: Self) {
        self.users += other.users;
        self.reminders += other.reminders;
    }
}

impl Router {
    /// Counts everything, in time proportional to it: some 10 ns for each user.
    pub fn stats(&self) -> PartitionStats {
        let mut stats = PartitionStats::default();
        for (_, user) in self.users.iter() {
            let is_connected = !user.routes.is_empty();
            stats.routes += user.routes.len();
            if user
                .work()
                .suspicion
                .as_ref()
                .is_some_and(|suspicion| suspicion.tries() >= HELD_BACK_AFTER)
            {
                stats.held_back.insert(user.name.clone());
            }
            stats.connected_users += usize::from(is_connected);
            if user.mailbox().has_mail() {
                let mail = if is_connected {
                    &mut stats.mail_of_connected
                } else {
                    &mut stats.mail_of_away
                };
                mail.users += 1;
                mail.reminders += user.mailbox().count;
            }
        }
        for (_, queue) in self.queues.iter() {
            let side = if queue.is_up() {
                &mut stats.up
            } else {
                &mut stats.down
            };
            side.insert(queue.instance.name.clone());
        }
        stats
    }
}
