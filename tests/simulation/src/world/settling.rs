//! The shell's parking, recording and removing: the outcome first, and in order; then the removal.
//! Here is checked that nothing leaves its place before it has come to another one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bellhop_core::log::done;
use bellhop_core::log::progress::Hold;
use bellhop_core::router::{Input, Item, Removal, Resolution, Settled};
use bellhop_protocol::token::{InstanceName, UserId};

use super::ledger::Id;
use super::nats::parked;
use super::record::{Parcel, Record, Records, Then};
use super::stage::Stage;
use super::subscribers::PARTITION;
use super::{Happening, Inside, Sent, World};
use crate::faults::Fault;

/// After this time an unanswered append is given up.
const PATIENCE_MS: u64 = 500;
/// After this time an unanswered removal is repeated. It is long enough for the next owner to read
/// the mailbox before that.
const REMOVAL_PATIENCE_MS: u64 = 2_000;

impl World {
    // Parking.

    pub(super) fn send_parcels(&mut self, from: u64, batch: Vec<Parcel>) {
        let is_confirmed = !self.strikes(Fault::UnconfirmedAppends);
        if !is_confirmed {
            self.inside(from, PATIENCE_MS, Inside::Doubt);
            if self.rng.bool() {
                return self.count("appends lost");
            }
        }
        self.send(Sent::Park {
            from,
            batch,
            is_confirmed,
        });
    }

    /// All of a batch is stored or none of it, and only the last owner's.
    pub(super) fn park_arrives(&mut self, from: u64, batch: Vec<Parcel>, is_confirmed: bool) {
        if self.nats.fence != from {
            self.count("appends refused by the fence");
            return self.inside(from, 0, Inside::Doubt);
        }
        if is_confirmed && self.strikes(Fault::RefusedAppends) {
            self.count("appends refused for lack of room");
            let delay = self.latency();
            return self.inside(from, delay, Inside::Tell(Input::ParkRefused));
        }
        // Others' messages lie in between.
        self.nats.parked += self.rng.u64(0..3);
        let sequences: Vec<u64> = batch
            .into_iter()
            .map(|parcel| self.store(from, parcel))
            .collect();
        if is_confirmed {
            let delay = self.latency();
            self.inside(from, delay, Inside::Tell(Input::Parked(sequences)));
        }
    }

    fn store(
        &mut self,
        from: u64,
        Parcel {
            user,
            mut id,
            is_copy,
        }: Parcel,
    ) -> u64 {
        if is_copy {
            self.count("copies parked");
            id = self.ledger.add_copy(id);
        }
        assert!(
            !self.nats.is_parked(&user, id),
            "{id} is parked twice: {:?}",
            self.nats.mailboxes[&user]
        );
        let sequence = self.nats.park(&user, id);
        self.tell_of(|| format!("{id} is in {user}'s mailbox at {sequence}"));
        let (room, new) = (&self.settings.room, &self.ledger.reminders[id]);
        if let Some(owner) = self.owners.get_mut(&from) {
            owner
                .counted
                .entry(user.clone())
                .or_default()
                .insert(sequence);
            let in_mailbox = self
                .nats
                .mailbox(&user)
                .map(|(sequence, id)| (Item::Parked { sequence }, id));
            let is_recorded = |item: &Item| matches!(item, Item::Parked { sequence } if owner.recorded_before.contains(&parked(*sequence)));
            let is_over = |item: &Item| owner.settled.contains(item) || is_recorded(item);
            let waiting: Vec<_> = in_mailbox.filter(|(item, _)| !is_over(item)).collect();
            let of_source = |(_, id): &&(Item, Id)| self.ledger.reminders[*id].source == new.source;
            let (all, own) = (waiting.len(), waiting.iter().filter(of_source).count());
            assert!(
                all <= room.of_priority(new.priority),
                "{all} in {user}'s mailbox with {new:?}"
            );
            assert!(
                own <= room.of_source(),
                "{own} of {} in {user}'s mailbox",
                new.source
            );
        }
        sequence
    }

    // Settling.

    pub(super) fn settle(&mut self, number: u64, settled: Vec<Settled>) {
        let (mut refused, mut others) = (Records::new(), Records::new());
        for one in settled {
            let owner = self.owner(number);
            assert!(owner.settled.insert(one.item), "{one} is settled twice");
            owner.unfinished += 1;
            let id = owner.items[&one.item];
            if matches!(one.item, Item::Parked { .. }) {
                self.let_go(number, &one.item);
            }
            self.check_fate(number, id, &one);
            let owner = self.owner(number);
            let is_refused = one.resolution == Resolution::MailboxFull;
            let is_final = one.resolution != Resolution::Parked;
            let Settled {
                user,
                item,
                removal,
                ..
            } = one;
            let (name, then) = match item {
                Item::Event { .. } => (owner.names[&item], Then::Item(item, removal)),
                Item::Parked { sequence } => {
                    let hold = owner.log.as_mut().expect("it works").progress.hold();
                    (
                        parked(sequence),
                        Then::Mailbox(user, sequence, removal, hold),
                    )
                }
            };
            let record = Record {
                id: Some(id),
                name: (PARTITION, name),
                is_final,
                then,
            };
            if is_refused {
                refused.push(record)
            } else {
                others.push(record)
            }
        }
        // Those that are refused are stored first. The others do not wait for that.
        self.submit(number, others);
        if !refused.is_empty() {
            let delay = self.latency();
            self.inside(number, delay, Inside::Submit(refused));
        }
    }

    fn check_fate(
        &mut self,
        number: u64,
        id: Id,
        Settled {
            user,
            item,
            resolution,
            ..
        }: &Settled,
    ) {
        let reminder = &mut self.ledger.reminders[id];
        match resolution {
            Resolution::Delivered { by, .. } => {
                let has_it = |instance: &InstanceName| {
                    reminder
                        .accepted_by
                        .contains(&(instance.clone(), user.clone()))
                };
                assert!(
                    !by.is_empty() && by.iter().all(has_it),
                    "{id} was not accepted by {by:?}: {reminder:?}"
                );
                assert!(
                    by.len() == 1 || self.settings.all_devices,
                    "{id} is accepted by {by:?}"
                );
                if by.len() > 1 {
                    self.count("accepted by several");
                }
            }
            Resolution::Rerouted { instance, to } => {
                let has_it = reminder
                    .accepted_by
                    .contains(&(instance.clone(), to.clone()));
                assert!(has_it, "{id} was not accepted by {to}: {reminder:?}");
                self.count("rerouted");
            }
            Resolution::Expired => {
                let is_over = reminder.expires_at.is_some_and(|at| at <= self.wall_ms());
                assert!(
                    is_over,
                    "{id} has not expired: {:?}",
                    self.ledger.reminders[id]
                );
                self.count(if matches!(item, Item::Parked { .. }) {
                    "expired in a mailbox"
                } else {
                    "expired on the way"
                });
            }
            Resolution::MailboxFull => {
                reminder.is_overtaken = true;
                self.check_mailbox_is_full(number, user, id);
            }
            Resolution::Merged { into } => {
                self.count("merged");
                self.ledger.check_merged(id, into);
            }
            Resolution::Parked => {
                let is_there =
                    matches!(item, Item::Event { .. }) && self.nats.was_parked.contains(&id);
                assert!(is_there, "{id} is in no mailbox: {reminder:?}");
                assert!(
                    reminder.is_touched || !reminder.is_settled,
                    "{id} is parked after its end: {reminder:?}"
                );
                return self.count("parked");
            }
        }
        let is_first = self.owner(number).over.insert(id);
        self.ledger.settle(id, is_first);
    }

    /// Counts what the machine knows to lie in the mailbox, and what may be on its way into it.
    fn check_mailbox_is_full(&mut self, number: u64, user: &UserId, refused: Id) {
        self.count("refused by a full mailbox");
        let owner = &self.owners[&number];
        let counted = owner
            .counted
            .get(user)
            .into_iter()
            .flatten()
            .map(|sequence| Item::Parked {
                sequence: *sequence,
            });
        let of_user = |(item, id): &(&Item, &Id)| match item {
            Item::Event { sequence, .. } => {
                owner.open.contains_key(sequence) && self.ledger.reminders[**id].user == *user
            }
            Item::Parked { .. } => false,
        };
        let on_the_way = owner.items.iter().filter(of_user).map(|(item, _)| *item);
        // The one that is refused is settled already.
        let waiting: Vec<_> = counted
            .chain(on_the_way)
            .filter(|item| !owner.settled.contains(item))
            .collect();
        let (room, refused) = (&self.settings.room, &self.ledger.reminders[refused]);
        let id = |item: &Item| match item {
            Item::Event { .. } => owner.items.get(item).copied(),
            Item::Parked { sequence } => self.nats.mailboxes.get(user)?.get(sequence).copied(),
        };
        // This owner counts a message that another owner has removed until it knows; whose it was
        // is not looked up.
        let is_own = |item: &&Item| {
            id(item).is_none_or(|id| self.ledger.reminders[id].source == refused.source)
        };
        let (all, own) = (waiting.len(), waiting.iter().filter(is_own).count());
        let is_full = all >= room.of_priority(refused.priority) || own >= room.of_source();
        assert!(
            is_full,
            "{refused:?} is refused with {all} in {user}'s mailbox, {own} of its source"
        );
    }

    // Recording: one message after the other.

    pub(super) fn submit(&mut self, number: u64, records: Records) {
        let owner = self.owner(number);
        owner.records.extend(records);
        if owner.recording_until.is_none() && !owner.records.is_empty() {
            self.send_records(number);
        }
    }

    fn send_records(&mut self, number: u64) {
        let (delay, at) = (self.latency(), self.at);
        let owner = self.owner(number);
        let records = std::mem::take(&mut owner.records);
        owner.recording_until = Some(at + delay);
        self.after(
            delay,
            Happening::Arrives(Sent::Record {
                from: number,
                records,
            }),
        );
    }

    /// An owner that doubts leaves a process that goes on to record what was handed in, in order.
    pub(super) fn flush(&mut self, number: u64, records: Records, recording_until: Option<u64>) {
        let begins = recording_until.unwrap_or(self.at).max(self.at);
        let at = begins + self.latency();
        self.flushed_at = self.flushed_at.max(at);
        self.after(
            at - self.at,
            Happening::Arrives(Sent::Record {
                from: number,
                records,
            }),
        );
    }

    /// Outcomes of one batch are stored together, unless their owner is fenced.
    pub(super) fn record_arrives(&mut self, from: u64, records: Records) {
        if self.nats.fenced.contains(&from) {
            self.count("outcomes refused by the fence");
            return self.inside(from, 0, Inside::Doubt);
        }
        if !self.owners.contains_key(&from) {
            self.count("recorded by an owner that is no more");
        }
        for record in &records {
            self.tell_of(|| format!("[{from}] records {:?} of {:?}", record.name, record.id));
            if let Some(id) = record.id.filter(|_| record.is_final) {
                self.ledger.record(id);
            }
        }
        // Others' outcomes lie in between.
        self.nats.last_outcome += self.rng.u64(1..3);
        let sequence = self.nats.last_outcome;
        let text = done::encode(records.iter().map(|record| record.name));
        self.nats
            .outcomes
            .insert(sequence, done::decode(&text).collect());
        let delay = self.latency();
        self.inside(from, delay, Inside::Recorded(records, sequence));
    }

    pub(super) fn recorded(&mut self, number: u64, records: Records, sequence: u64) {
        let owner = self.owner(number);
        owner.recording_until = None;
        if !owner.is_loaded {
            // Reminders found in mailboxes are recorded.
            return self.next(number, Stage::Load);
        }
        for progress in owner.progress() {
            progress.outcome_stored(sequence);
        }
        if !owner.records.is_empty() {
            self.send_records(number);
        }
        let mut up_to: BTreeMap<UserId, (u64, usize, Vec<Hold>)> = BTreeMap::new();
        for Record { then, .. } in records {
            match then {
                Then::Nothing => {}
                Then::Set(of, sequence, parts) => self.settle_parts(number, of, sequence, parts),
                Then::Item(Item::Event { sequence, .. }, Removal::Event) => {
                    self.owner(number).unfinished -= 1;
                    self.settle_parts(number, PARTITION, sequence, 1);
                }
                Then::Mailbox(user, _, Removal::MailboxUpTo(last), hold) => {
                    let (until, count, holds) = up_to.entry(user).or_default();
                    (*until, *count) = (last.max(*until), *count + 1);
                    holds.push(hold);
                }
                Then::Mailbox(user, _, Removal::MailboxOnly(sequence), hold) => {
                    self.remove(number, user, sequence..=sequence, 1, vec![hold]);
                }
                Then::Item(item, removal) => panic!("{item:?} is removed as {removal:?}"),
                Then::Mailbox(_, sequence, removal, _) => {
                    panic!("parked {sequence} is removed as {removal:?}")
                }
            }
        }
        for (user, (last, count, holds)) in up_to {
            self.remove(number, user, 0..=last, count, holds);
        }
    }

    // Removing from mailboxes.

    /// `count` settled reminders leave a mailbox with this range. It is repeated until it is
    /// confirmed.
    pub(super) fn remove(
        &mut self,
        number: u64,
        user: UserId,
        range: RangeInclusive<u64>,
        count: usize,
        holds: Vec<Hold>,
    ) {
        if !self.strikes(Fault::LostRemovals) {
            return self.send(Sent::Removal {
                from: number,
                user,
                range,
                count,
                holds,
            });
        }
        self.count("removals lost");
        if self.rng.bool() {
            // Only the answer is lost.
            let (user, range) = (user.clone(), range.clone());
            self.send(Sent::Removal {
                from: number,
                user,
                range,
                count: 0,
                holds: Vec::new(),
            });
        }
        self.inside(
            number,
            REMOVAL_PATIENCE_MS,
            Inside::Remove(user, range, count, holds),
        );
    }

    pub(super) fn removal_arrives(
        &mut self,
        from: u64,
        user: &UserId,
        range: RangeInclusive<u64>,
        count: usize,
        holds: Vec<Hold>,
    ) {
        let mailbox = self.nats.mailboxes.entry(user.clone()).or_default();
        for (sequence, id) in mailbox.extract_if(range, |_, _| true) {
            let reminder = &self.ledger.reminders[id];
            assert!(
                reminder.is_recorded,
                "{id} is removed from {user}'s mailbox at {sequence}: {reminder:?}"
            );
        }
        let delay = self.latency();
        self.inside(from, delay, Inside::Removed(count, holds));
    }

    pub(super) fn removed(&mut self, number: u64, count: usize, holds: Vec<Hold>) {
        let owner = self.owner(number);
        owner.unfinished -= count;
        let progress = &mut owner.log.as_mut().expect("it works").progress;
        holds.into_iter().for_each(|hold| progress.release(hold));
    }
}
