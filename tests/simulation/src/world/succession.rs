//! The end of an owner, and the start of the next one. A new one takes over step by step, as
//! `service::partition` does, and whatever an old one has sent may arrive between any two of the
//! steps: before the fence an append is stored, and found; after it, it is refused.

use bellhop_core::log::Subscriber;
use bellhop_core::log::done::{AllDone, Done};
use bellhop_core::log::partition::{PartitionLog, StartState};
use bellhop_core::log::position::{OutcomesStart, OutcomesState, Position, Start};
use bellhop_core::log::readers::Limits;
use bellhop_core::log::sets::SetsLog;
use bellhop_core::log::window::Window;
use bellhop_core::router::Input;
use bellhop_protocol::token::UserId;
use fastrand::Rng;

use super::apps::ids_of;
use super::ledger::Id;
use super::nats::parked;
use super::owner::Owner;
use super::record::{Record, Then};
use super::stage::Stage;
use super::subscribers::{ALL, PARTITION};
use super::{Happening, Inside, Sent, World};

/// So long an owner may go on that others believe dead.
const LEASE_MS: u64 = 3_000;
/// Maximum time for which a dead owner's messages are on their way, and for which its death goes
/// unnoticed.
const LATE_MS: u64 = 3_000;
/// Within this time a stopping machine becomes quiet.
const STOPPED_WITHIN_MS: u64 = 20_000;

/// The end of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything was finished.
    Released,
    /// Its process is no more, or has stopped to believe in it.
    Died,
    /// It cannot know what is stored.
    Doubts,
}

impl World {
    // Beginnings.

    /// A new owner begins.
    pub(super) fn begin(&mut self) {
        self.newest += 1;
        let limits = Limits {
            queue_bytes: self.log_settings.queue_bytes,
            readers: 2,
            near: 2,
        };
        let mut owner = Owner::new(&self.settings, limits);
        owner.news = self.present();
        self.owners.insert(self.newest, owner);
        if self.owners.len() > 1 {
            self.count("owners beside each other");
            self.owners
                .keys()
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|other| self.touch_what_may_repeat(other));
        }
        let newest = self.newest;
        self.tell_of(|| format!("[{newest}] begins"));
        self.next(newest, Stage::FenceOutcomes);
    }

    pub(super) fn next(&mut self, number: u64, stage: Stage) {
        let delay = self.latency();
        self.inside(number, delay, Inside::TakeOver(stage));
    }

    /// Returns the routes and associates that there are.
    fn present(&self) -> Vec<Input> {
        let own = self
            .nats
            .routes
            .iter()
            .filter(|((user, _), _)| self.users.contains(user));
        let mut routes: Vec<_> = own
            .map(|(route, revision)| (*revision, route.clone()))
            .collect();
        routes.sort();
        let up = |(revision, (user, instance))| Input::RouteUp {
            user,
            instance,
            revision,
        };
        let associates = self.nats.associates.clone().into_iter();
        let named = associates.map(|(user, associates)| Input::Associates { user, associates });
        routes.into_iter().map(up).chain(named).collect()
    }

    pub(super) fn take_over(&mut self, number: u64, stage: Stage) {
        if number != self.newest {
            return self.end(number, End::Died); // Another one was quicker.
        }
        self.tell_of(|| format!("[{number}] takes over: {stage:?}"));
        match stage {
            Stage::FenceOutcomes => self.fence_outcomes(number),
            Stage::Claim => self.claim(number),
            Stage::Fence => {
                self.nats.fence = number;
                self.next(number, Stage::Find);
            }
            Stage::Find => self.find(number),
            Stage::Recorded => self.read_recorded(number),
            Stage::Load => self.load(number),
        }
    }

    /// Records the outcomes that the earlier owner in this process handed in.
    fn fence_outcomes(&mut self, number: u64) {
        if self.at < self.flushed_at {
            return self.inside(
                number,
                self.flushed_at - self.at,
                Inside::TakeOver(Stage::FenceOutcomes),
            );
        }
        for of in ALL {
            let (position, revision) = self.nats.position(of);
            if let Some(owner) = &position.owner {
                self.nats
                    .fenced
                    .insert(owner.parse().expect("owners are numbers"));
                self.nats.last_outcome += 1;
            }
            let owner = self.owner(number);
            owner.claimed.insert(of, position);
            owner.revisions.insert(of, revision);
        }
        self.owner(number).outcomes_until = self.nats.last_outcome;
        self.next(number, Stage::Claim);
    }

    fn claim(&mut self, number: u64) {
        for of in ALL {
            let owner = self.owners.get_mut(&number).expect("it lives");
            let (_, revision) = self.nats.position(of);
            if revision != owner.revisions[&of] {
                self.count("positions that another one claimed");
                return self.end(number, End::Died);
            }
            let position = Position {
                owner: Some(number.to_string()),
                ..owner.claimed[&of].clone()
            };
            owner.revisions.insert(of, revision + 1);
            self.nats.positions.insert(of, (position, revision + 1));
        }
        self.next(number, Stage::Fence);
    }

    fn find(&mut self, number: u64) {
        let summary = |user| Some((user, self.nats.summary(user, &self.ledger.reminders)?));
        let found: Vec<_> = self
            .users
            .iter()
            .filter_map(summary)
            .map(|(user, found)| (user.clone(), found))
            .collect();
        let counted = self
            .nats
            .mailboxes
            .iter()
            .map(|(user, mailbox)| (user.clone(), mailbox.keys().copied().collect()));
        let counted = counted.collect();
        let parked_before = self
            .nats
            .mailboxes
            .values()
            .flat_map(|mailbox| mailbox.values().copied());
        let parked_before = parked_before
            .filter_map(|id| self.ledger.reminders[id].published)
            .collect();
        let owner = self.owner(number);
        (owner.found, owner.counted, owner.parked_before) = (found, counted, parked_before);
        self.next(number, Stage::Recorded);
    }

    /// Reads the names in the outcomes, from where each position says. Reminders in a mailbox above
    /// the position that are not among them are recorded as parked, before any is delivered from
    /// there.
    fn read_recorded(&mut self, number: u64) {
        let mut done = self.recorded_of(number, PARTITION);
        let settled = self.owners[&number].claimed[&PARTITION].settled;
        let is_open = |name: &Done| match *name {
            Done::Published { set, stored_ms, .. } => {
                !settled.covers(set, stored_ms) && !done.contains(name)
            }
            Done::Parked { .. } => false,
        };
        let mut found: Vec<_> = self.owners[&number]
            .parked_before
            .iter()
            .copied()
            .filter(is_open)
            .collect();
        found.sort();
        done.extend(&found);
        self.owner(number).recorded_before = done;
        if found.is_empty() {
            return self.next(number, Stage::Load);
        }
        self.count("parked by the owner before");
        let (id, is_final, then) = (None, false, Then::Nothing);
        let record = |name| Record {
            id,
            name: (PARTITION, name),
            is_final,
            then: then.clone(),
        };
        let records = found.into_iter().map(record).collect();
        self.submit(number, records);
    }

    fn recorded_of(&self, number: u64, of: Subscriber) -> AllDone {
        let owner = &self.owners[&number];
        let outcomes = OutcomesState {
            last: self.nats.last_outcome,
            stored_ms_at: None,
        };
        let start = owner.claimed[&of].outcomes_start(&outcomes, 0);
        let OutcomesStart::After(after) = start else {
            panic!("no outcomes were lost: {start:?}")
        };
        let messages = self
            .nats
            .outcomes
            .range(after + 1..=owner.outcomes_until.max(after + 1));
        messages
            .flat_map(|(_, names)| names)
            .filter(|(subscriber, _)| *subscriber == of)
            .map(|(_, done)| *done)
            .collect()
    }

    fn load(&mut self, number: u64) {
        let done_of_sets = self.recorded_of(number, Subscriber::Sets);
        let window = |of| {
            let mut window = Window::new(self.log_settings.window, usize::MAX);
            let stored = self.nats.entries.get(&of).into_iter().flatten();
            stored.for_each(|entries| {
                window.load(entries, self.owners[&number].claimed[&of].settled)
            });
            window
        };
        let windows = ALL.map(window);
        let [of_sets, of_partition] = windows;
        let starts = ALL.map(|of| {
            let position = &self.owners[&number].claimed[&of];
            (
                position.start(&self.nats.log_state(position.settled)),
                position.outcomes,
                of,
            )
        });
        let owner = self.owners.get_mut(&number).expect("it lives");
        owner.is_loaded = true;
        for of in ALL {
            owner.stored.insert(
                of,
                (owner.claimed[&of].settled, owner.claimed[&of].outcomes),
            );
        }
        let [
            (start_of_sets, outcomes_of_sets, _),
            (Start { settled, .. }, outcomes, _),
        ] = starts;
        owner.sets = Some(SetsLog::new(
            start_of_sets.settled,
            outcomes_of_sets,
            of_sets,
            done_of_sets,
        ));
        let (done, parked) = (owner.recorded_before.clone(), Default::default());
        owner.log = Some(PartitionLog::new(StartState {
            settled,
            outcomes,
            window: of_partition,
            done,
            parked,
        }));
        let found = std::mem::take(&mut owner.found)
            .into_iter()
            .map(|(user, summary)| Input::MailboxFound(user, summary));
        let inputs: Vec<_> = std::mem::take(&mut owner.news)
            .into_iter()
            .chain(found)
            .collect();
        for input in inputs {
            if matches!(input, Input::MailboxFound(..)) {
                self.count("mailboxes found");
            }
            self.tell(number, input);
        }
        self.finish_removals(number);
        let mut starts = starts.to_vec();
        starts.sort_by_key(|(start, _, _)| start.after);
        for (start, _, of) in starts {
            if start.after < start.settled.sequence {
                self.count("positions that a log that went back does not count");
            }
            let mut actions = Vec::new();
            self.owner(number)
                .readers
                .subscribe(of, start, &mut actions);
            self.perform_reading(number, actions);
        }
    }

    /// Finishes removals of reminders that earlier owners recorded, and did not remove from
    /// mailboxes.
    fn finish_removals(&mut self, number: u64) {
        let mailboxes = self.nats.mailboxes.iter();
        let all = mailboxes
            .flat_map(|(user, mailbox)| mailbox.keys().map(|sequence| (user.clone(), *sequence)));
        let is_over = |(_, sequence): &(UserId, u64)| {
            self.owners[&number]
                .recorded_before
                .contains(&parked(*sequence))
        };
        for (user, sequence) in all.filter(is_over).collect::<Vec<_>>() {
            let hold = self
                .owner(number)
                .log
                .as_mut()
                .expect("it works")
                .progress
                .hold_from_before();
            self.remove(number, user, sequence..=sequence, 0, vec![hold]);
        }
    }

    pub(super) fn hear(&mut self, number: u64, input: Input) {
        let owner = self.owner(number);
        if owner.is_loaded {
            self.tell(number, input);
        } else {
            owner.news.push(input);
        }
    }

    // Ends.

    pub(super) fn crash(&mut self, luck: &mut Rng) {
        if self.owners.contains_key(&self.newest) {
            self.count("crashes");
            // In the middle of things: the watch is behind what the next owner finds.
            (0..luck.usize(0..4)).for_each(|_| self.roam(luck));
            self.end(self.newest, End::Died);
        }
    }

    /// Others believe that it is dead. It goes on until it notices.
    pub(super) fn fail_over(&mut self, luck: &mut Rng) {
        if !self.owners.contains_key(&self.newest) {
            return;
        }
        self.count("fail-overs");
        for number in self.owners.keys().copied().collect::<Vec<_>>() {
            let delay = luck.u64(0..LEASE_MS);
            self.inside(number, delay, Inside::LeaseEnds);
        }
        self.begin();
    }

    pub(super) fn hand_over(&mut self) {
        let (newest, at) = (self.newest, self.at);
        if let Some(owner) = self
            .owners
            .get_mut(&newest)
            .filter(|owner| owner.is_loaded && owner.stopping_since.is_none())
        {
            owner.stopping_since = Some(at);
            self.count("hand-overs");
            self.tell(newest, Input::Stop);
        }
    }

    pub(super) fn has_stopped(&mut self, number: u64) -> bool {
        let Owner {
            partition,
            open,
            unfinished,
            is_parking,
            stopping_since,
            recording_until,
            storing,
            sets,
            ..
        } = &self.owners[&number];
        let Some(since) = stopping_since else {
            return false;
        };
        assert!(
            self.at < since + STOPPED_WITHIN_MS,
            "it does not stop: {partition:#?}"
        );
        let is_over = partition.is_quiet() && !is_parking && *unfinished == 0 && open.is_empty();
        let is_recorded = recording_until.is_none()
            && sets
                .as_ref()
                .is_some_and(|sets| sets.progress.is_finished());
        let is_stored = storing.is_empty();
        if !(is_over && is_recorded && is_stored) {
            return false;
        }
        let owner = self.owner(number);
        if owner.is_releasing {
            return owner.releasing.is_empty();
        }
        // The last positions name no owner.
        owner.is_releasing = true;
        owner.releasing.extend(ALL);
        owner.stored.clear();
        for (of, checkpoint) in owner.checkpoints().collect::<Vec<_>>() {
            self.owner(number).storing.insert(of);
            self.store_checkpoint(number, of, checkpoint);
        }
        false
    }

    pub(super) fn release(&mut self, number: u64) {
        self.end(number, End::Released);
    }

    /// An append was not confirmed, or refused by a fence. An owner that was refused may not know
    /// yet that it is none any more.
    pub(super) fn doubt(&mut self, number: u64) {
        self.count("doubts");
        self.end(number, End::Doubts);
        let believes = number != self.newest && !self.is_healing && self.rng.u32(0..4) == 0;
        if believes && self.owners.contains_key(&self.newest) {
            self.count("take-overs by an owner that was refused");
            let delay = self.rng.u64(0..LEASE_MS);
            self.inside(self.newest, delay, Inside::LeaseEnds);
            self.begin();
        }
    }

    /// The front of the log passed sets that this owner has not read: another one has come further.
    pub(super) fn overtaken(&mut self, number: u64) {
        self.end(number, End::Doubts);
    }

    pub(super) fn lease_ends(&mut self, number: u64) {
        self.end(number, End::Died);
    }

    fn end(&mut self, number: u64, end: End) {
        self.tell_of(|| format!("[{number}] ends: {end:?}"));
        if end != End::Released {
            self.touch_what_may_repeat(number);
        }
        let Some(owner) = self.owners.remove(&number) else {
            return;
        };
        match end {
            End::Released => {}
            End::Died => self.leave_under_way(number),
            End::Doubts => self.flush(number, owner.records, owner.recording_until),
        }
        if number == self.newest {
            let delay = if end == End::Died {
                self.rng.u64(0..LATE_MS)
            } else {
                self.latency()
            };
            self.after(delay, Happening::Begin);
        }
    }

    /// Lets a dead owner's messages arrive, late or never.
    fn leave_under_way(&mut self, number: u64) {
        for ((at, order), happening) in std::mem::take(&mut self.agenda) {
            let is_its = matches!(&happening, Happening::Arrives(sent) if sent.is_from(number));
            let (is_lost, is_late) = if is_its {
                (self.rng.u32(0..3) == 0, self.rng.bool())
            } else {
                (false, false)
            };
            let at = if is_late {
                at + self.rng.u64(0..LATE_MS)
            } else {
                at
            };
            if !is_lost {
                self.agenda.insert((at, order), happening);
            }
        }
    }

    /// Marks reminders that two owners, or an owner and its successor, may deliver twice: those
    /// that it was given and had not finished, and those that it has sent.
    fn touch_what_may_repeat(&mut self, number: u64) {
        let owner = &self.owners[&number];
        let given = self
            .nats
            .log
            .range(..=owner.read)
            .flat_map(|(_, stored)| stored.ids());
        let given = given.filter(|id| !self.ledger.reminders[*id].is_recorded);
        let held = owner.held.iter().map(|item| owner.items[item]);
        let is_done = |id: &Id| {
            self.ledger.reminders[*id].is_settled
                || !self.ledger.reminders[*id].accepted_by.is_empty()
        };
        let parked = self
            .nats
            .mailboxes
            .values()
            .flat_map(|mailbox| mailbox.values().copied());
        let sent = self.agenda.values().flat_map(|happening| match happening {
            Happening::Arrives(Sent::Delivery { from, parts, .. }) if *from == Some(number) => {
                ids_of(parts)
            }
            _ => Vec::new(),
        });
        let ids: Vec<Id> = given
            .chain(held)
            .chain(parked.filter(is_done))
            .chain(sent)
            .collect();
        self.ledger.touch(ids);
    }
}

impl Sent {
    fn is_from(&self, owner: u64) -> bool {
        match self {
            Self::Delivery { from, .. } => *from == Some(owner),
            Self::Heartbeat { from, .. }
            | Self::LookUp { from, .. }
            | Self::DropRoute { from, .. } => *from == owner,
            Self::Read { from, .. } | Self::Count { from, .. } => *from == owner,
            Self::Park { from, .. } | Self::Record { from, .. } => *from == owner,
            Self::Entries { from, .. } | Self::Position { from, .. } => *from == owner,
            Self::Purge { from, .. } | Self::Removal { from, .. } => *from == owner,
            Self::Set(_) => false,
        }
    }
}
