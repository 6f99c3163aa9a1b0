//! Connecting and leaving users. A step draws its details from luck of its own.

use std::sync::Arc;

use bellhop_core::router::{Input, Instance};
use bellhop_protocol::token::UserId;
use fastrand::Rng;

use super::{Happening, Inside, World, named};
use crate::faults::Fault;

/// Maximum delay of a watch.
const STALE_MS: u64 = 2_000;

impl World {
    /// Everybody there is.
    fn people(&self) -> Vec<UserId> {
        self.users.iter().chain(&self.strangers).cloned().collect()
    }

    /// A user names others, or itself, or an unknown user.
    pub(super) fn associate(&mut self, luck: &mut Rng) {
        let user = self.users[luck.usize(0..self.users.len())].clone();
        let mut associates = self.people();
        associates.push(named("stranger"));
        luck.shuffle(&mut associates);
        associates.truncate(luck.usize(0..=4));
        self.nats
            .associates
            .insert(user.clone(), associates.clone());
        self.watch(&user.clone(), Input::Associates { user, associates });
    }

    /// A user connects, disconnects or moves.
    pub(super) fn roam(&mut self, luck: &mut Rng) {
        let people = self.people();
        let user = &people[luck.usize(0..people.len())];
        let app = luck.usize(0..self.apps.len());
        let (moves, is_first) = (luck.bool(), luck.bool());
        if self.apps[app].connected.contains(user) {
            return self.disconnect(user, app);
        }
        let others: Vec<_> = (0..self.apps.len())
            .filter(|other| self.apps[*other].connected.contains(user))
            .collect();
        if is_first {
            self.connect(user, app);
        }
        for other in others.into_iter().filter(|_| moves) {
            self.disconnect(user, other);
        }
        if !is_first {
            self.connect(user, app);
        }
    }

    /// A terminal with a bad line.
    pub(super) fn flap(&mut self, luck: &mut Rng) {
        self.count("flapping routes");
        let user = self.users[luck.usize(0..self.users.len())].clone();
        let app = luck.usize(0..self.apps.len());
        for _ in 0..luck.usize(2..8) {
            if self.apps[app].connected.contains(&user) {
                self.disconnect(&user, app);
            } else {
                self.connect(&user, app);
            }
        }
    }

    pub(super) fn connect(&mut self, user: &UserId, app: usize) {
        self.tell_of(|| format!("{user} connects to app-{}", app + 1));
        self.apps[app].connected.insert(user.clone());
        self.nats.revision += 1;
        let (instance, revision) = (self.apps[app].instance.clone(), self.nats.revision);
        self.nats
            .routes
            .insert((user.clone(), instance.clone()), revision);
        self.watch(
            user,
            Input::RouteUp {
                user: user.clone(),
                instance,
                revision,
            },
        );
    }

    fn disconnect(&mut self, user: &UserId, app: usize) {
        self.tell_of(|| format!("{user} disconnects from app-{}", app + 1));
        self.apps[app].connected.remove(user);
        if !self.strikes(Fault::ForgottenRoutes) {
            self.delete_route(user, &self.apps[app].instance.clone());
        }
    }

    pub(super) fn delete_route(&mut self, user: &UserId, instance: &Arc<Instance>) {
        if self
            .nats
            .routes
            .remove(&(user.clone(), instance.clone()))
            .is_some()
        {
            self.nats.revision += 1;
            let (instance, revision) = (instance.name.clone(), self.nats.revision);
            self.watch(
                user,
                Input::RouteDown {
                    user: user.clone(),
                    instance,
                    revision,
                },
            );
        }
    }

    pub(super) fn drop_route(&mut self, user: &UserId, app: usize, revision: u64) {
        let instance = self.apps[app].instance.clone();
        if self.nats.routes.get(&(user.clone(), instance.clone())) == Some(&revision) {
            self.count("routes dropped");
            self.delete_route(user, &instance);
        }
    }

    /// Passes a change to every owner, in order. Other partitions' users are left out.
    pub(super) fn watch(&mut self, user: &UserId, change: Input) {
        if !self.users.contains(user) {
            return;
        }
        for number in self.owners.keys().copied().collect::<Vec<_>>() {
            let delay = if self.strikes(Fault::StaleWatches) {
                self.rng.u64(0..STALE_MS)
            } else {
                self.latency()
            };
            if let Some(owner) = self.owners.get_mut(&number) {
                owner.news_until = owner.news_until.max(self.at + delay);
                let delay = owner.news_until - self.at;
                self.after(
                    delay,
                    Happening::Inside(number, Inside::News(change.clone())),
                );
            }
        }
    }
}
