//! App servers, and what becomes of requests to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellhop_core::router::{Company, Input, Instance, NoAnswer, Refusal, Undelivered};
use bellhop_protocol::token::UserId;
use fastrand::Rng;

use super::ledger::Id;
use super::nats::routes_of;
use super::{Inside, Sent, World, named};
use crate::faults::Fault;
use crate::scenario::pick;

const DELIVERY_TIMEOUT_MS: u64 = 500;
const HEARTBEAT_TIMEOUT_MS: u64 = 300;
/// A request that comes late comes within this time.
const LATE_MS: u64 = 3_000;

/// A delivery: the recipient, and the reminders.
pub type Parts = Vec<(UserId, Vec<Id>)>;

/// The refused reminders, or the reason why they are unknown.
type Answer = Result<Vec<(usize, usize, Refusal)>, Undelivered>;

/// The behaviour of an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Refuses some as busy.
    Busy,
    /// Its answers arrive shortly before the timeout, or after it.
    Slow,
    /// Its answers to heartbeats arrive, and those to deliveries too late or never.
    Hung,
    /// No answer arrives.
    Silent,
    /// Does not run.
    Gone,
    /// Its answers are invalid.
    Garbled,
}

impl Mood {
    const ALL: [Self; 7] = [
        Self::Well,
        Self::Busy,
        Self::Slow,
        Self::Hung,
        Self::Silent,
        Self::Gone,
        Self::Garbled,
    ];
}

/// An app-server instance and the terminals at it.
#[derive(Debug)]
pub struct AppServer {
    pub instance: Arc<Instance>,
    pub mood: Mood,
    pub connected: BTreeSet<UserId>,
}

impl AppServer {
    pub fn new(number: usize) -> Self {
        let name = format!("app-{number}");
        let instance = Arc::new(Instance {
            name: named(&name),
            subject: format!("bellhop.app.{name}"),
        });
        Self {
            instance,
            mood: Mood::Well,
            connected: BTreeSet::new(),
        }
    }

    /// Returns those of these users who are connected.
    fn heartbeat(&self, users: &[UserId]) -> Result<Vec<UserId>, NoAnswer> {
        match self.mood {
            Mood::Well | Mood::Busy | Mood::Slow | Mood::Hung => Ok(users
                .iter()
                .filter(|user| self.connected.contains(*user))
                .cloned()
                .collect()),
            Mood::Silent => Err(NoAnswer::TimedOut),
            Mood::Gone => Err(NoAnswer::NoResponders),
            Mood::Garbled => Err(NoAnswer::Garbage),
        }
    }
}

impl World {
    pub(super) fn change_mood(&mut self, luck: &mut Rng) {
        let app = luck.usize(0..self.apps.len());
        let mood = pick(luck, &Mood::ALL);
        self.tell_of(|| format!("app-{} is {mood:?}", app + 1));
        self.apps[app].mood = mood;
    }

    // Heartbeats.

    pub(super) fn send_heartbeat(&mut self, from: u64, app: usize, users: Vec<UserId>) {
        if self.strikes(Fault::LostRequests) {
            let instance = self.apps[app].instance.clone();
            let answer = Err(NoAnswer::TimedOut);
            return self.inside(
                from,
                HEARTBEAT_TIMEOUT_MS,
                Inside::Tell(Input::HeartbeatAnswered { instance, answer }),
            );
        }
        self.send(Sent::Heartbeat { from, app, users });
    }

    pub(super) fn heartbeat_arrives(&mut self, from: u64, app: usize, users: &[UserId]) {
        let mut answer = self.apps[app].heartbeat(users);
        let delay = self.answers_within(app, HEARTBEAT_TIMEOUT_MS);
        if delay.is_none() && answer.is_ok() {
            answer = Err(NoAnswer::TimedOut);
        }
        let is_silent = answer == Err(NoAnswer::TimedOut);
        let delay = delay.filter(|_| !is_silent).unwrap_or(HEARTBEAT_TIMEOUT_MS);
        let instance = self.apps[app].instance.clone();
        self.inside(
            from,
            delay,
            Inside::Tell(Input::HeartbeatAnswered { instance, answer }),
        );
        users.iter().for_each(|user| self.may_come_back(user, app));
    }

    /// Returns the delay of an answer; none if it does not arrive in time.
    fn answers_within(&mut self, app: usize, timeout: u64) -> Option<u64> {
        let is_lost = self.strikes(Fault::LostAnswers);
        let delay = match self.apps[app].mood {
            Mood::Slow => self.rng.u64(timeout * 7 / 10..timeout * 11 / 10),
            _ => self.latency(),
        };
        (!is_lost && delay < timeout).then_some(delay)
    }

    /// A user who was just said not to be connected connects again, before that answer is known.
    fn may_come_back(&mut self, user: &UserId, app: usize) {
        if !self.apps[app].connected.contains(user) && self.strikes(Fault::Flapping) {
            self.connect(user, app);
        }
    }

    // Look-ups of associates' routes.

    pub(super) fn look_up_is_served(&mut self, from: u64, user: UserId, associate: UserId) {
        if self.strikes(Fault::HungLookUps) {
            return self.count("look-ups that hang");
        }
        if self.strikes(Fault::StaleLookUps) {
            self.count("look-ups at a replica that is behind");
        } else {
            self.nats.routes_seen = self.nats.routes.clone();
        }
        let instances = routes_of(&self.nats.routes_seen, &associate);
        let delay = self.latency();
        self.inside(
            from,
            delay,
            Inside::Tell(Input::RoutesFound {
                user,
                associate,
                instances,
            }),
        );
    }

    // Deliveries.

    pub(super) fn send_delivery(&mut self, from: u64, app: usize, company: Company, parts: Parts) {
        self.count(if company == Company::Alone {
            "deliveries alone"
        } else {
            "deliveries"
        });
        if company == Company::Shared && self.strikes(Fault::Queues) {
            return self.is_not_sent(from, app);
        }
        let (is_lost, is_late) = (
            self.strikes(Fault::LostRequests),
            self.strikes(Fault::LateRequests),
        );
        if !is_lost && !is_late {
            return self.send(Sent::Delivery {
                from: Some(from),
                app,
                company,
                parts,
            });
        }
        let instance = self.apps[app].instance.clone();
        let answer = Err(NoAnswer::TimedOut.into());
        self.inside(
            from,
            DELIVERY_TIMEOUT_MS,
            Inside::Tell(Input::Delivered {
                instance,
                company,
                answer,
            }),
        );
        if is_late {
            self.comes_too_late(app, parts);
        } else {
            self.count("requests lost");
        }
    }

    /// Others' requests to the app server keep it from being sent.
    fn is_not_sent(&mut self, from: u64, app: usize) {
        self.count("requests given back");
        let instance = self.apps[app].instance.clone();
        let why = pick(
            &mut self.rng,
            &[Undelivered::NotSent, Undelivered::Withheld],
        );
        let delay = self.rng.u64(0..DELIVERY_TIMEOUT_MS);
        self.inside(
            from,
            delay,
            Inside::Tell(Input::Delivered {
                instance,
                company: Company::Shared,
                answer: Err(why),
            }),
        );
    }

    fn comes_too_late(&mut self, app: usize, parts: Parts) {
        self.count("accepted too late");
        self.ledger.touch(ids_of(&parts));
        let delay = self.rng.u64(0..LATE_MS);
        self.after(
            delay,
            super::Happening::Arrives(Sent::Delivery {
                from: None,
                app,
                company: Company::Shared,
                parts,
            }),
        );
    }

    pub(super) fn delivery_arrives(
        &mut self,
        from: Option<u64>,
        app: usize,
        company: Company,
        parts: &Parts,
    ) {
        let Some(owner) = from else {
            return parts.iter().for_each(|(recipient, ids)| {
                ids.iter().for_each(|id| self.accept(app, recipient, *id))
            });
        };
        let instance = self.apps[app].instance.clone();
        let (answer, delay) = self.receive(app, parts);
        self.inside(
            owner,
            delay,
            Inside::Tell(Input::Delivered {
                instance,
                company,
                answer,
            }),
        );
        parts
            .iter()
            .for_each(|(user, _)| self.may_come_back(user, app));
    }

    /// Returns the answer that the sender gets, and its time.
    fn receive(&mut self, app: usize, parts: &Parts) -> (Answer, u64) {
        let silence = (Err(NoAnswer::TimedOut.into()), DELIVERY_TIMEOUT_MS);
        if self.apps[app].mood != Mood::Gone
            && ids_of(parts).iter().any(|id| self.is_unreadable(*id))
        {
            self.count("requests that cannot be read");
            return silence;
        }
        match self.apps[app].mood {
            Mood::Gone => (Err(NoAnswer::NoResponders.into()), self.latency()),
            Mood::Silent => silence,
            Mood::Hung => {
                if self.rng.bool() {
                    self.comes_too_late(app, parts.clone());
                }
                silence
            }
            Mood::Garbled => {
                if self.rng.bool() {
                    self.ledger.touch(ids_of(parts));
                    self.take_in(app, parts);
                }
                (Err(NoAnswer::Garbage.into()), self.latency())
            }
            Mood::Well | Mood::Busy | Mood::Slow => {
                match self.answers_within(app, DELIVERY_TIMEOUT_MS) {
                    Some(delay) => (Ok(self.take_in(app, parts)), delay),
                    None => {
                        self.count("answers lost");
                        self.ledger.touch(ids_of(parts));
                        self.take_in(app, parts);
                        silence
                    }
                }
            }
        }
    }

    /// No app server can read it, until everything heals.
    fn is_unreadable(&self, id: Id) -> bool {
        self.ledger.reminders[id].is_unreadable && !self.is_healing
    }

    /// Accepts what it can; answers the rest.
    fn take_in(&mut self, app: usize, parts: &Parts) -> Vec<(usize, usize, Refusal)> {
        let mut refused = Vec::new();
        let is_orderly = self.rng.bool();
        for (place, (user, ids)) in parts.iter().enumerate() {
            let mut put_off = Vec::new();
            for (at, id) in ids.iter().enumerate() {
                let is_busy = self.apps[app].mood == Mood::Busy && self.rng.bool();
                if !self.apps[app].connected.contains(user) {
                    self.count("refused as not connected");
                    refused.push((place, at, Refusal::NotConnected));
                } else if is_busy || (is_orderly && !put_off.is_empty()) {
                    self.count("refused as busy");
                    put_off.push(*id);
                    refused.push((place, at, Refusal::Busy));
                } else {
                    put_off
                        .iter()
                        .for_each(|id| self.ledger.reminders[*id].is_overtaken = true);
                    self.accept(app, user, *id);
                }
            }
        }
        refused
    }

    fn accept(&mut self, app: usize, recipient: &UserId, id: Id) {
        self.tell_of(|| format!("app-{} accepts {id} for {recipient}", app + 1));
        let at = self.apps[app].instance.name.clone();
        let is_repeat = self.ledger.accept(
            id,
            recipient,
            &at,
            self.settings.all_devices,
            self.wall_ms(),
        );
        self.count(if is_repeat {
            "accepted again"
        } else {
            "accepted"
        });
    }
}

/// Returns the reminders of a request.
pub fn ids_of(parts: &Parts) -> Vec<Id> {
    parts.iter().flat_map(|(_, ids)| ids.clone()).collect()
}
