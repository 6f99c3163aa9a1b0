//! Conditions that must hold between any two steps. Only the tests and the simulation ask, after
//! every step.

use std::sync::Arc;

use super::catching_up::CatchUp;
use super::expected::Held;
use super::mailboxes::parked_sequence;
use super::{InstanceQueue, Router, State, Ticket, Timer, User};
use crate::router::instance_queue::{Health, Track};
use crate::router::keys::{InstanceKey, UserKey};
use crate::router::{Company, Instance};

impl Router {
    /// Checks the machine against itself, in time proportional to all that it knows.
    ///
    /// # Panics
    /// Where it contradicts itself.
    pub fn audit(&self) {
        assert!(
            self.touched_users.is_empty() && self.touched_queues.is_empty(),
            "the step was not finished"
        );
        assert!(
            self.settled.is_empty(),
            "settled and not said: {:?}",
            self.settled
        );
        assert!(
            self.held_back.is_empty(),
            "held back and not said: {:?}",
            self.held_back
        );
        assert!(self.reads_in_flight <= self.settings.reads_in_flight);
        assert!(
            self.catch_up.unasked.is_empty() || !self.catch_up.asked.is_empty(),
            "no routes are asked for: {:?}",
            self.catch_up
        );
        let (mut readers, mut counted) = (0, 0);
        for (number, user) in self.users.iter() {
            self.audit_user(number, user);
            readers += usize::from(matches!(
                user.work().state,
                State::Reading | State::Sweeping(_)
            ));
            counted += usize::from(
                user.mailbox()
                    .tally
                    .as_ref()
                    .is_some_and(|tally| tally.is_asked),
            );
        }
        let expected = self
            .users
            .iter()
            .map(|(_, user)| user)
            .filter(|user| user.work().state == State::Expected)
            .fold(Held::default(), |held, user| {
                held.plus(Held::of(&user.work().waiting))
            });
        assert_eq!(self.expected, expected, "what waits for expected users");
        assert!(!self.expects_too_much(), "{:?}", self.expected);
        let unread: usize = self
            .queues
            .iter()
            .map(|(_, queue)| queue.unread.len())
            .sum();
        let under_way = unread + self.reads.len() + self.counts.len() + self.reads_in_flight;
        assert_eq!(readers + counted, under_way, "reads and counts under way");
        let users = || self.users.iter().map(|(_, user)| user);
        for (number, queue) in self.queues.iter() {
            let instance = &queue.instance;
            assert_eq!(
                self.queues.find(instance),
                Some(number),
                "{instance:?} is found"
            );
            let routes = users()
                .flat_map(|user| &user.routes)
                .filter(|route| route.queue == number);
            assert_eq!(queue.routes, routes.count(), "routes of {instance:?}");
            let pages = users()
                .flat_map(|user| &user.work().page)
                .filter(|(at, _)| *at == number);
            assert_eq!(
                queue.page_bytes,
                pages.map(|(_, bytes)| bytes).sum::<usize>(),
                "pages of {instance:?}"
            );
            assert!(!queue.is_unused(), "{instance:?} is unused");
            self.audit_health(number, queue);
        }
        for (at, timer) in &self.timers {
            match timer {
                Timer::Probe(queue) => {
                    assert_eq!(self.queues[*queue].health, Health::Down(*at), "{queue:?}")
                }
                Timer::Resume(user) => {
                    assert_eq!(self.users[*user].work().paused_until, Some(*at), "{user:?}")
                }
                Timer::Sweep(user) => {
                    assert_eq!(self.users[*user].mailbox().sweep_at, Some(*at), "{user:?}")
                }
                Timer::LeaveOut(user) => {
                    let state = &self.users[*user].work().state;
                    assert!(
                        matches!(state, State::Delivering(batch) if batch.until == Some(*at)),
                        "{user:?}"
                    );
                }
                Timer::ParkAgain => {
                    assert_eq!(
                        self.refused.as_ref().map(|refused| refused.until),
                        Some(*at),
                        "{:?}",
                        self.refused
                    );
                    assert!(
                        self.parking.is_empty(),
                        "{:?} during the pause",
                        self.parking
                    );
                }
                Timer::Crowded(queue) => {
                    let queue = &self.queues[*queue];
                    let is_delivering = queue.tracks[Company::Shared].delivering.is_some();
                    assert!(
                        is_delivering && queue.watch.is_some_and(|watch| watch.at == *at),
                        "{queue:?}"
                    );
                }
                Timer::Renew => {
                    assert_eq!(self.renewals.armed, Some(*at), "{:?}", self.renewals);
                }
                Timer::Expected(user) => {
                    let work = self.users[*user].work();
                    let back_by = work.attempt.as_ref().and_then(|attempt| attempt.back_by);
                    assert!(
                        work.state == State::Expected && back_by == Some(*at),
                        "{user:?}"
                    );
                }
                Timer::GiveUp(user) => {
                    let attempt = &self.users[*user].work().attempt;
                    assert_eq!(
                        attempt.as_ref().map(|attempt| attempt.until),
                        Some(*at),
                        "{user:?}"
                    );
                }
            }
        }
    }

    fn audit_user(&self, number: UserKey, user: &User) {
        let name = &user.name;
        let work = user.work();
        assert_eq!(self.users.find(name), Some(number), "{name:?} is found");
        assert!(!user.is_forgettable(), "{name:?} is not forgotten");
        assert!(
            user.routes
                .is_sorted_by(|newer, older| newer.revision > older.revision),
            "{user:?}"
        );
        let parking = self
            .parks
            .iter()
            .chain(&self.parking)
            .filter(|park| park.user == number)
            .count();
        let undecided = user
            .mailbox()
            .tally
            .as_ref()
            .map_or(0, |tally| tally.undecided.len());
        let on_the_way = parking + undecided;
        assert_eq!(
            user.mailbox().parking,
            on_the_way,
            "{name:?}'s reminders on their way into the mailbox"
        );
        assert!(
            !user.mailbox().wants_count(),
            "{name:?}'s mailbox is not counted: {user:?}"
        );
        let parked = work.waiting.iter().filter_map(parked_sequence);
        assert!(parked.clone().is_sorted_by(|a, b| a < b), "{user:?}");
        assert!(
            parked.clone().count() == 0 || work.page.is_some(),
            "{name:?} has a page without room for it"
        );
        let waits_in_one_place =
            parked.count() == work.waiting.len() || !user.mailbox().is_in_use();
        let may_leave =
            work.attempt.is_some() || matches!(work.state, State::Sweeping(_) | State::CatchingUp);
        assert!(
            waits_in_one_place || may_leave,
            "{name:?} waits in two places: {user:?}"
        );
        self.audit_attempt(number, user);
        for (at, timer) in [
            (work.paused_until, Timer::Resume(number)),
            (user.mailbox().sweep_at, Timer::Sweep(number)),
        ] {
            assert!(
                at.is_none_or(|at| self.timers.contains(&(at, timer.clone()))),
                "{timer:?} is not armed"
            );
        }
        let ticket = Ticket {
            user: number,
            turn: work.turn,
        };
        match &work.state {
            State::Expected => {
                let back_by = work.attempt.as_ref().and_then(|attempt| attempt.back_by);
                let timer = back_by.map(|at| (at, Timer::Expected(number)));
                assert!(
                    timer.is_some_and(|timer| self.timers.contains(&timer)),
                    "{name:?} is expected without a deadline: {user:?}"
                );
            }
            State::LookingUp => assert!(work.attempt.is_some(), "{user:?}"),
            State::CatchingUp => {
                let CatchUp { asked, unasked } = &self.catch_up;
                let places = asked
                    .iter()
                    .chain(unasked)
                    .filter(|other| **other == number);
                assert!(places.count() == 1 && work.attempt.is_none(), "{user:?}");
            }
            State::Idle => self.audit_idle(number, user),
            State::Checking(queues) => {
                assert!(!queues.is_empty(), "{user:?}");
                for queue in queues.iter().map(|queue| &self.queues[*queue]) {
                    let asked = queue
                        .checking
                        .iter()
                        .flat_map(|check| check.asked.iter().map(|asked| &asked.ticket));
                    let places = queue
                        .unconfirmed
                        .iter()
                        .chain(asked)
                        .filter(|other| **other == ticket)
                        .count();
                    assert_eq!(places, 1, "{name:?} is checked by {:?}", queue.instance);
                }
            }
            State::Delivering(batch) => {
                let sent = batch.receptions.as_ref().map_or(0, |all| all.len());
                assert!(
                    !batch.open.is_empty() && sent <= work.waiting.len(),
                    "{user:?}"
                );
                for queue in batch.open.iter().map(|queue| &self.queues[*queue]) {
                    let mine = &queue.tracks[work.company()];
                    let queued = mine.ready.iter().filter(|other| **other == ticket).count();
                    let parts = queue
                        .tracks
                        .iter()
                        .flat_map(|track| track.delivering.iter().flatten());
                    let parts: Vec<_> = parts.filter(|part| part.user == number).collect();
                    assert_eq!(
                        queued + parts.len(),
                        1,
                        "{name:?} at {:?}: {user:?}",
                        queue.instance
                    );
                    let mut places = parts.iter().flat_map(|part| &part.places);
                    assert!(
                        places.clone().is_sorted() && places.all(|place| *place < sent),
                        "{user:?}"
                    );
                }
            }
            State::Reading => {
                let is_unread = self
                    .queues
                    .iter()
                    .any(|(_, queue)| queue.unread.contains(&number));
                assert!(
                    work.page.is_some() != is_unread,
                    "{name:?} is read without room for it: {user:?}"
                );
            }
            State::Sweeping(_) => {}
        }
    }

    /// An attempt has something to bring, and is under way for as long as there is no better way.
    fn audit_attempt(&self, number: UserKey, user: &User) {
        let name = &user.name;
        let work = user.work();
        let Some(attempt) = &work.attempt else { return };
        assert!(
            work.has_live() && work.state != State::Idle,
            "{name:?} has an idle attempt: {user:?}"
        );
        if work.is_sent() {
            return;
        }
        let timer = (attempt.until, Timer::GiveUp(number));
        assert!(
            self.timers.contains(&timer),
            "{name:?}'s attempt has no end"
        );
        let has_own_way = work.paused_until.is_none()
            && user
                .routes
                .iter()
                .any(|route| self.queues[route.queue].is_up());
        assert!(!has_own_way, "{name:?} comes first: {user:?}");
    }

    /// With nothing under way, what waits has a reason to wait.
    fn audit_idle(&self, number: UserKey, user: &User) {
        let name = &user.name;
        let work = user.work();
        if self.is_stopping {
            return;
        }
        assert!(
            work.waiting.is_empty() && work.page.is_none(),
            "{name:?} waits in memory: {user:?}"
        );
        if user.mailbox().has_mail() && work.paused_until.is_none() {
            for route in &user.routes {
                let queue = &self.queues[route.queue];
                assert!(
                    !queue.is_up() && queue.wanted.contains(&number),
                    "{name:?} is forgotten by {:?}",
                    queue.instance
                );
            }
        }
    }

    fn audit_health(&self, number: InstanceKey, queue: &InstanceQueue) {
        let instance = &queue.instance;
        for user in &queue.wanted {
            let user = &self.users[*user];
            assert!(
                user.routes.iter().any(|route| route.queue == number),
                "{user:?} does not want {instance:?}"
            );
        }
        match queue.health {
            Health::Down(at) => {
                let ready: usize = queue.tracks.iter().map(|track| track.ready.len()).sum();
                let queue_for_it = ready + queue.unconfirmed.len() + queue.unread.len();
                assert_eq!(queue_for_it, 0, "users queue for {instance:?}: {queue:?}");
                let is_probed = queue.checking.as_ref().is_some_and(|check| check.is_probe);
                let is_armed = self.timers.contains(&(at, Timer::Probe(number)));
                assert!(is_probed || is_armed, "{instance:?} stays down permanently");
            }
            Health::Up => {
                assert!(
                    queue.wanted.is_empty(),
                    "{instance:?} is up and wanted: {queue:?}"
                );
                let idles = |track: &Track| !track.ready.is_empty() && track.delivering.is_none();
                assert!(
                    !queue.tracks.iter().any(idles),
                    "{instance:?} idles: {queue:?}"
                );
                assert!(
                    queue.unconfirmed.is_empty() || queue.checking.is_some(),
                    "{instance:?} idles: {queue:?}"
                );
                let may_read = queue.page_bytes < self.settings.delivery_bytes * 2;
                assert!(
                    queue.unread.is_empty() || !may_read,
                    "{instance:?} idles: {queue:?}"
                );
            }
        }
    }

    /// Returns true if a shared delivery to an instance is in flight.
    pub fn is_sharing(&self, instance: &Arc<Instance>) -> bool {
        let queue = self.queues.find(instance);
        queue.is_some_and(|queue| {
            self.queues[queue].tracks[Company::Shared]
                .delivering
                .is_some()
        })
    }

    /// Describes the machine's memory beyond routes to instances that are up. Of a machine with
    /// nothing to do, nothing.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (_, user) in self.users.iter() {
            let work = user.work();
            let is_bare = work.waiting.is_empty()
                && work.state == State::Idle
                && work.page.is_none()
                && work.paused_until.is_none()
                && work.suspicion.is_none()
                && !user.mailbox().is_in_use()
                && user.mailbox().count == 0
                && user.mailbox().settled_ahead.is_empty()
                && user.mailbox().next_expiry.is_none();
            left.extend((!is_bare).then(|| format!("{user:?}")));
        }
        for (_, queue) in self.queues.iter() {
            let is_bare = queue.is_up()
                && queue.tracks.iter().all(Track::is_idle)
                && queue.unconfirmed.is_empty()
                && queue.unread.is_empty()
                && queue.page_bytes == 0
                && queue.wanted.is_empty()
                && queue.checking.is_none();
            left.extend((!is_bare).then(|| format!("{queue:?}")));
        }
        left.extend(self.timers.iter().map(|timer| format!("{timer:?}")));
        left.extend(
            self.parks
                .iter()
                .chain(&self.parking)
                .map(|park| format!("{park:?}")),
        );
        left.extend(
            self.reads
                .iter()
                .map(|user| format!("read of {:?}", self.users[*user].name)),
        );
        left.extend(
            self.counts
                .iter()
                .map(|user| format!("count of {:?}", self.users[*user].name)),
        );
        left.extend(
            (self.reads_in_flight > 0).then(|| format!("{} reads in flight", self.reads_in_flight)),
        );
        left
    }

    /// Returns true if it remembers nothing at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.queues.is_empty() && self.leftovers().is_empty()
    }
}
