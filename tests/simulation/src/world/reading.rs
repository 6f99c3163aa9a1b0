//! The shell's reading of the log, storing of positions and removing of the front. Here is checked
//! that a position covers only what is recorded, and that only what every position covers is
//! removed.

use std::sync::Arc;

use bellhop_core::log::Subscriber;
use bellhop_core::log::done::Done;
use bellhop_core::log::partition::Next;
use bellhop_core::log::planner::{Planned, Planner};
use bellhop_core::log::position::{Mark, Position, front, may_remove};
use bellhop_core::log::progress::Checkpoint;
use bellhop_core::log::readers::{Action, ReaderId, Taker};
use bellhop_core::log::split::{OfSetItself, SetWork, split};
use bellhop_core::router::{Entry, Input, Item, Text};
use bellhop_protocol::reminder::outcome::Outcome;
use bellhop_protocol::reminder::reject::RejectCode;

use super::ledger::Id;
use super::nats::CREATED_NS;
use super::publishing::Expected;
use super::record::{Record, Then};
use super::subscribers::{ALL, PARTITION};
use super::{Inside, Sent, World};
use crate::faults::Fault;

/// The most sets given to the machine and not settled.
const WINDOW: usize = 6;
/// Positions are stored this often.
const CHECKPOINT_MS: std::ops::Range<u64> = 20..400;

/// The work for a set itself.
#[derive(Debug)]
pub struct SetsWork {
    sequence: u64,
    stored_ms: i64,
    bytes: usize,
    work: Option<SetWork>,
}

/// Refused reminders of a slice: places with an outcome, and others.
#[derive(Debug)]
pub struct SliceRefused {
    sequence: u64,
    stored_ms: i64,
    recorded: Vec<usize>,
    others: Vec<usize>,
}

impl World {
    // Reading.

    pub(super) fn perform_reading(&mut self, number: u64, actions: Vec<Action>) {
        for action in actions {
            self.tell_of(|| format!("[{number}] {action:?}"));
            let owner = self.owner(number);
            match action {
                Action::Open { reader, after } => owner.cursors.insert(reader, after),
                Action::Close(reader) => owner.cursors.remove(&reader),
            };
            let detached = self.owner(number).readers.detached();
            if detached > 0 {
                self.count("partitions without a reader");
            }
        }
    }

    /// Readers go on as long as they may, and plans go to the machine as long as it has room.
    pub(super) fn keep_reading(&mut self, number: u64) {
        let owner = &self.owners[&number];
        if owner.log.is_none() || owner.stopping_since.is_some() {
            return;
        }
        let is_next = |(reader, at): (&ReaderId, &u64)| {
            let is_idle = !owner.is_reading.contains(reader) && owner.readers.may_read(*reader);
            let has_next = self.nats.log.range(at + 1..).next().is_some();
            (is_idle && has_next && !owner.is_cut).then_some(*reader)
        };
        let readers: Vec<_> = owner.cursors.iter().filter_map(is_next).collect();
        let waits = owner.log.as_ref().is_some_and(|log| log.queued_bytes() > 0);
        let is_planning = waits && !owner.is_feeding && owner.open.len() < WINDOW;
        for reader in readers {
            self.owner(number).is_reading.insert(reader);
            let delay = self.latency();
            self.inside(number, delay, Inside::ReadLog(reader));
        }
        if is_planning {
            self.owner(number).is_feeding = true;
            let delay = self.latency();
            self.inside(number, delay, Inside::Feed);
        }
    }

    /// A reader takes its next set, and each of its subscribers its part.
    pub(super) fn read_log(&mut self, number: u64, reader: ReaderId) {
        let owner = self.owners.get_mut(&number).expect("it lives");
        owner.is_reading.remove(&reader);
        let Some(at) = owner
            .cursors
            .get(&reader)
            .copied()
            .filter(|_| !owner.is_cut)
        else {
            return;
        };
        if at + 1 < self.nats.first {
            return self.overtaken(number);
        }
        let owner = self.owners.get_mut(&number).expect("it lives");
        let is_stopping = owner.stopping_since.is_some();
        let next = self
            .nats
            .log
            .range(at + 1..)
            .next()
            .filter(|_| !is_stopping && owner.readers.may_read(reader));
        let Some(stored) = next.map(|(_, stored)| stored.clone()) else {
            return;
        };
        owner.cursors.insert(reader, stored.sequence);
        owner.read = owner.read.max(stored.sequence);
        let mut actions = Vec::new();
        let takers = owner
            .readers
            .read(reader, stored.sequence, stored.stored_ms, &mut actions);
        let mut parts = split(&stored.message(), 1);
        for Taker { subscriber, before } in takers {
            let queued = match subscriber {
                Subscriber::Sets => parts
                    .of_set
                    .take()
                    .map_or(0, |of_set| self.take_in_of_set(number, of_set, before)),
                Subscriber::Partition(_) => {
                    let slice = parts.slices.pop().map(|(_, slice)| slice);
                    let log = self.owner(number).log.as_mut().expect("it reads");
                    let taken = slice.map(|slice| log.take_in(slice, before));
                    if taken.is_some_and(|taken| taken.repeats > 0) {
                        self.count("repeats dropped");
                    }
                    taken.map_or(0, |taken| taken.queued)
                }
            };
            self.owner(number)
                .readers
                .queued(subscriber, queued, &mut actions);
        }
        self.touch_if_shared(stored.ids().collect::<Vec<_>>());
        self.perform_reading(number, actions);
    }

    fn take_in_of_set(&mut self, number: u64, of_set: OfSetItself, before: Mark) -> usize {
        let (sequence, stored_ms, bytes) = (of_set.sequence, of_set.stored_ms, of_set.bytes());
        let taken = self
            .owner(number)
            .sets
            .as_mut()
            .expect("it reads")
            .take_in(of_set, before);
        if taken.work.is_none() {
            self.count("sets that came again");
            return 0;
        }
        let delay = self.latency();
        let work = SetsWork {
            sequence,
            stored_ms,
            bytes,
            work: taken.work,
        };
        self.inside(number, delay, Inside::SetWorked(Box::new(work)));
        bytes
    }

    /// Records the outcomes of a set's refused reminders, which are stored now.
    pub(super) fn set_is_worked(&mut self, number: u64, work: SetsWork) {
        let SetsWork {
            sequence,
            stored_ms,
            bytes,
            work,
        } = work;
        let mut records = Vec::new();
        match work {
            Some(SetWork::Parts(parts)) => {
                for refused in parts.refused {
                    self.nats
                        .rejected
                        .insert((sequence, stored_ms, Some(refused.place)));
                    if refused.has_outcome() {
                        records.push(self.final_record(
                            Subscriber::Sets,
                            sequence,
                            stored_ms,
                            refused.place,
                        ));
                    }
                }
            }
            Some(SetWork::Refuse { .. }) => {
                self.nats.rejected.insert((sequence, stored_ms, None));
            }
            None => {}
        }
        let mut actions = Vec::new();
        let owner = self.owner(number);
        owner.readers.drained(Subscriber::Sets, bytes, &mut actions);
        match records.last_mut() {
            Some(last) => last.then = Then::Set(Subscriber::Sets, sequence, 1),
            None => owner
                .sets
                .as_mut()
                .expect("it works")
                .progress
                .settle(sequence, 1),
        }
        self.perform_reading(number, actions);
        self.submit(number, records);
    }

    /// Returns the record of a final outcome, of what stands at this place.
    fn final_record(
        &mut self,
        of: Subscriber,
        sequence: u64,
        stored_ms: i64,
        place: usize,
    ) -> Record {
        let name = Done::Published {
            set: sequence,
            stored_ms,
            place,
        };
        Record {
            id: self.id_of(sequence, stored_ms, place),
            name: (of, name),
            is_final: true,
            then: Then::Nothing,
        }
    }

    /// Returns which reminder stands here: a new one, or an invalid one.
    fn id_of(&self, sequence: u64, stored_ms: i64, place: usize) -> Option<Id> {
        let name = Done::Published {
            set: sequence,
            stored_ms,
            place,
        };
        let found = self
            .ledger
            .reminders
            .iter()
            .rposition(|reminder| reminder.published == Some(name));
        Some(found.unwrap_or_else(|| panic!("{name:?} is no new reminder")))
    }

    // Planning.

    pub(super) fn feed(&mut self, number: u64) {
        let planner = Planner {
            rules: &self.rules,
            merges: !self.settings.merge_window.is_zero(),
        };
        let owner = self.owners.get_mut(&number).expect("it lives");
        owner.is_feeding = false;
        if owner.stopping_since.is_some() {
            return;
        }
        let Some(Next { planned, bytes }) = owner.log.as_mut().expect("it reads").next(&planner)
        else {
            return;
        };
        let mut actions = Vec::new();
        owner.readers.drained(PARTITION, bytes, &mut actions);
        self.perform_reading(number, actions);
        let parts = planned.parts();
        let Planned {
            event,
            ended,
            refused,
        } = planned;
        let (sequence, stored_ms) = (
            event.index.sets[0].sequence,
            event.index.sets[0].published_ms,
        );
        if parts > 0 {
            self.owner(number).open.insert(sequence, parts);
        }
        let mut records = Vec::new();
        for one in ended {
            let mut record = self.final_record(PARTITION, sequence, stored_ms, one.place);
            record.then = Then::Set(PARTITION, sequence, 1);
            record.is_final = !matches!(one.outcome, Outcome::Parked { .. });
            self.count(match one.outcome {
                Outcome::Merged { .. } => "merged in a set",
                Outcome::Parked { .. } => "parked by the owner before",
                _ => "blocked",
            });
            let id = record.id.expect("it is new");
            let reminder = &mut self.ledger.reminders[id];
            reminder.is_settled |= record.is_final;
            reminder.is_overtaken |= record.is_final;
            assert_eq!((&reminder.name, &reminder.user), (&one.id, &one.user));
            let is_hidden = reminder.says.starts_with(super::publishing::BLOCKED);
            assert!(
                is_hidden || !matches!(one.outcome, Outcome::Blocked { .. }),
                "{reminder:?}"
            );
            assert!(
                record.is_final || self.nats.was_parked.contains(&id),
                "{reminder:?}"
            );
            records.push(record);
        }
        let mut new = Vec::new();
        for (index, entry) in event.index.reminders.iter().enumerate() {
            let (item, id) = (
                Item::Event { sequence, index },
                self.id_of(sequence, stored_ms, entry.place),
            );
            let id = id.expect("it is new");
            let reminder = &self.ledger.reminders[id];
            assert_eq!((&reminder.name, &reminder.user), (&entry.id, &entry.user));
            let owner = self.owners.get_mut(&number).expect("it lives");
            owner.items.insert(item, id);
            owner.names.insert(item, Done::of_event(&event, index));
            let text = entry.text.map(|hash| {
                Arc::new(Text {
                    id: entry.id.clone(),
                    hash,
                    priority: entry.priority,
                })
            });
            self.ledger.reminders[id].text = text.clone();
            let reminder = &self.ledger.reminders[id];
            let (source, priority, expires_at) =
                (reminder.source.clone(), entry.priority, entry.expires_at);
            let (bytes, may_reroute) = (reminder.bytes, !entry.stays);
            new.push((
                entry.user.clone(),
                Entry {
                    item,
                    expires_at,
                    bytes,
                    may_reroute,
                    source,
                    priority,
                    text,
                },
            ));
        }
        if !refused.is_empty() {
            let mut of_slice = SliceRefused {
                sequence,
                stored_ms,
                recorded: Vec::new(),
                others: Vec::new(),
            };
            for one in refused {
                assert_eq!(one.rejection.code, RejectCode::DuplicateId, "{one:?}");
                let places = if one.has_outcome() {
                    &mut of_slice.recorded
                } else {
                    &mut of_slice.others
                };
                places.push(one.place);
            }
            let delay = self.latency();
            self.inside(number, delay, Inside::Refused(Box::new(of_slice)));
        }
        self.submit(number, records);
        if !new.is_empty() {
            self.tell(number, Input::Event(new));
        }
    }

    pub(super) fn slice_is_refused(&mut self, number: u64, refused: SliceRefused) {
        let SliceRefused {
            sequence,
            stored_ms,
            recorded,
            others,
        } = refused;
        for place in recorded.iter().chain(&others) {
            self.count("refused as duplicates");
            self.nats
                .rejected
                .insert((sequence, stored_ms, Some(*place)));
        }
        let mut records = Vec::new();
        for place in recorded {
            let record = self.final_record(PARTITION, sequence, stored_ms, place);
            records.push(Record {
                then: Then::Set(PARTITION, sequence, 1),
                ..record
            });
        }
        self.submit(number, records);
        if !others.is_empty() {
            self.settle_parts(number, PARTITION, sequence, others.len());
        }
    }

    /// So many parts of a set are settled.
    pub(super) fn settle_parts(
        &mut self,
        number: u64,
        of: Subscriber,
        sequence: u64,
        parts: usize,
    ) {
        let owner = self.owner(number);
        if of == Subscriber::Sets {
            return owner
                .sets
                .as_mut()
                .expect("it works")
                .progress
                .settle(sequence, parts);
        }
        owner
            .log
            .as_mut()
            .expect("it works")
            .progress
            .settle(sequence, parts);
        let open = owner.open.get_mut(&sequence).expect("it is open");
        *open -= parts;
        if *open == 0 {
            owner.open.remove(&sequence);
        }
    }

    // Positions.

    /// Positions are stored when they have changed.
    pub(super) fn keep_storing(&mut self, number: u64) {
        let owner = self.owners.get_mut(&number).expect("it lives");
        if owner.log.is_some()
            && !owner.is_storing
            && owner.releasing.is_empty()
            && owner.checkpoints().next().is_some()
        {
            owner.is_storing = true;
            let delay = self.rng.u64(CHECKPOINT_MS);
            self.inside(number, delay, Inside::Checkpoint);
        }
    }

    pub(super) fn checkpoint(&mut self, number: u64) {
        let owner = self.owner(number);
        owner.is_storing = false;
        let mut actions = Vec::new();
        owner.readers.tick(&mut actions);
        self.perform_reading(number, actions);
        let owner = self.owner(number);
        for (of, checkpoint) in owner.checkpoints().collect::<Vec<_>>() {
            let owner = self.owner(number);
            if owner.storing.insert(of) {
                self.store_checkpoint(number, of, checkpoint);
            }
        }
    }

    /// First the entries of the window, then the position.
    pub(super) fn store_checkpoint(&mut self, number: u64, of: Subscriber, checkpoint: Checkpoint) {
        if checkpoint.entries.is_empty() {
            self.entries_are_stored(number, of, checkpoint);
        } else {
            self.send(Sent::Entries {
                from: number,
                of,
                checkpoint,
            });
        }
    }

    pub(super) fn entries_arrive(&mut self, from: u64, of: Subscriber, checkpoint: Checkpoint) {
        self.nats
            .entries
            .entry(of)
            .or_default()
            .extend(checkpoint.entries.iter().cloned());
        let delay = self.latency();
        self.inside(from, delay, Inside::EntriesStored(of, checkpoint));
    }

    pub(super) fn entries_are_stored(
        &mut self,
        number: u64,
        of: Subscriber,
        checkpoint: Checkpoint,
    ) {
        let owner = self.owner(number);
        let (revision, is_last) = (owner.revisions[&of], owner.releasing.contains(&of));
        self.send(Sent::Position {
            from: number,
            of,
            checkpoint,
            revision,
            is_last,
        });
    }

    /// A position is stored if its key has the revision that its owner knows.
    pub(super) fn position_arrives(
        &mut self,
        from: u64,
        of: Subscriber,
        checkpoint: Checkpoint,
        revision: u64,
        is_last: bool,
    ) {
        let (_, stored) = self.nats.position(of);
        if stored != revision {
            self.count("positions of earlier owners refused");
            return self.inside(from, 0, Inside::Doubt);
        }
        self.check_covered(of, checkpoint.settled);
        self.tell_of(|| {
            format!(
                "[{from}] stores position {of}: {:?} {}",
                checkpoint.settled, checkpoint.outcomes
            )
        });
        self.count("positions stored");
        if self.strikes(Fault::ReplicaLag) {
            self.nats.positions_seen = self.nats.positions.clone();
        }
        let Checkpoint {
            settled, outcomes, ..
        } = checkpoint;
        let owner = (!is_last).then(|| from.to_string());
        let position = Position {
            stream_ns: CREATED_NS,
            settled,
            outcomes,
            owner,
        };
        let position = Position::from_json(&position.to_json()).expect("it round-trips");
        self.nats.positions.insert(of, (position, revision + 1));
        if !is_last && self.strikes(Fault::UnconfirmedPositions) {
            self.count("positions not confirmed");
            return self.inside(from, 500, Inside::Doubt);
        }
        let delay = self.latency();
        self.inside(
            from,
            delay,
            Inside::PositionStored(of, checkpoint, revision + 1),
        );
    }

    /// Checks that everything that a position covers is recorded, or is in a mailbox.
    fn check_covered(&self, of: Subscriber, settled: Mark) {
        for stored in self
            .nats
            .log
            .values()
            .filter(|stored| settled.covers(stored.sequence, stored.stored_ms))
        {
            self.check_settled(of, stored.sequence);
        }
    }

    fn check_settled(&self, of: Subscriber, sequence: u64) {
        let stored = &self.nats.log[&sequence];
        if of == Subscriber::Sets && stored.expected.is_empty() && !stored.is_repeat {
            let whole = (sequence, stored.stored_ms, None);
            assert!(
                self.nats.rejected.contains(&whole),
                "set {sequence} is not refused"
            );
        }
        for (place, expected) in stored.expected.iter().enumerate() {
            let place = (sequence, stored.stored_ms, Some(place));
            match (of, expected) {
                (Subscriber::Sets, Expected::Invalid(id)) => {
                    let reminder = &self.ledger.reminders[*id];
                    assert!(
                        reminder.is_recorded || reminder.is_optional,
                        "{id} is passed, and has no end: {reminder:?}"
                    );
                }
                (Subscriber::Partition(_), Expected::New(id)) => {
                    let reminder = &self.ledger.reminders[*id];
                    let is_kept = reminder.is_recorded || self.nats.is_parked(&reminder.user, *id);
                    assert!(
                        is_kept || reminder.is_optional,
                        "{id} is passed, and has no end: {reminder:?}"
                    );
                }
                (Subscriber::Partition(_), Expected::Duplicate) => {
                    let is_doubtful = self.nats.not_before > 0;
                    assert!(
                        self.nats.rejected.contains(&place) || is_doubtful,
                        "{place:?} is dropped in silence"
                    );
                }
                _ => {}
            }
        }
    }

    pub(super) fn position_is_stored(
        &mut self,
        number: u64,
        of: Subscriber,
        checkpoint: &Checkpoint,
        revision: u64,
    ) {
        let owner = self.owner(number);
        owner.revisions.insert(of, revision);
        owner.storing.remove(&of);
        owner.releasing.remove(&of);
        owner
            .stored
            .insert(of, (checkpoint.settled, checkpoint.outcomes));
        match of {
            Subscriber::Sets => owner
                .sets
                .as_mut()
                .expect("it works")
                .progress
                .stored(checkpoint),
            Subscriber::Partition(_) => owner
                .log
                .as_mut()
                .expect("it works")
                .progress
                .stored(checkpoint),
        }
        self.remove_front(number);
    }

    // The front.

    fn remove_front(&mut self, number: u64) {
        let is_behind = self.strikes(Fault::ReplicaLag);
        let positions = if is_behind {
            &self.nats.positions_seen
        } else {
            &self.nats.positions
        };
        let positions = ALL.map(|of| positions.get(&of).map(|(position, _)| position));
        let Some(mark) = front(positions, CREATED_NS) else {
            return;
        };
        let stored = self.nats.log.get(&mark.sequence);
        if stored.is_some_and(|stored| may_remove(mark, stored.stored_ms)) {
            self.send(Sent::Purge {
                from: number,
                upto: mark.sequence,
            });
        }
    }

    /// Checks that everything that is removed is settled.
    pub(super) fn purge_arrives(&mut self, from: u64, upto: u64) {
        if upto < self.nats.first {
            return;
        }
        self.tell_of(|| format!("[{from}] removes the log up to {upto}"));
        self.count("fronts removed");
        for sequence in self
            .nats
            .log
            .range(..=upto)
            .map(|(sequence, _)| *sequence)
            .collect::<Vec<_>>()
        {
            ALL.into_iter()
                .for_each(|of| self.check_settled(of, sequence));
        }
        let rest = self.nats.log.split_off(&(upto + 1));
        self.nats
            .removed
            .append(&mut std::mem::replace(&mut self.nats.log, rest));
        self.nats.first = upto + 1;
    }

    // A stream that went back.

    /// A connection was cut. If the log is not what it was, everything is taken over again.
    pub(super) fn reconnected(&mut self, number: u64) {
        let owner = &self.owners[&number];
        let is_same = |mark: Mark| {
            let position = Position {
                settled: mark,
                ..Position::first(CREATED_NS)
            };
            let start = position.start(&self.nats.log_state(mark));
            start.settled == mark && start.after >= mark.sequence
        };
        if owner.log.is_some()
            && !ALL
                .into_iter()
                .filter_map(|of| owner.readers.taken(of))
                .all(is_same)
        {
            self.count("owners that see that the log went back");
            return self.doubt(number);
        }
        self.owner(number).is_cut = false;
    }

    pub(super) fn assert_log_is_over(&self) {
        for of in ALL {
            let (position, _) = self.nats.position(of);
            for stored in self.nats.log.values() {
                let is_covered = position.settled.covers(stored.sequence, stored.stored_ms);
                assert!(
                    is_covered,
                    "{of} stays at {position:?}, before set {}",
                    stored.sequence
                );
            }
            self.check_covered(of, position.settled);
        }
    }
}
