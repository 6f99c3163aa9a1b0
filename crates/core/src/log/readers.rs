//! Assignment of partitions to readers of the log, and the readers' positions. A pure state
//! machine: the shell performs its [`Action`]s.
//!
//! A reader has a place in the log and some subscribers. Mostly a process has one. A subscriber
//! whose queue stays full while another one's has run dry leaves its reader, which goes on without
//! it; when there is room again, a reader of its own begins where it stopped. A partition that was
//! just taken over begins in the same way. A reader that comes near another one catches up with it,
//! and the two become one. So a slow partition costs disk, and nothing else.
//!
//! Each subscriber knows how far it has come, and takes from a reader only what lies behind that.
//! So it may join any reader that is not ahead of it.

use std::collections::BTreeMap;

use super::Subscriber;
use super::position::{Mark, Start};

/// The number of a reader in its process.
pub type ReaderId = u64;

/// Bounds, in one process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that may wait in a subscriber's queue before it counts as full. One set may come on
    /// top of it.
    pub queue_bytes: usize,
    /// Readers at a time: each takes every set of the log from nats-server.
    pub readers: usize,
    /// A reader that is so many sequences ahead of another one that reads, or fewer, waits for it:
    /// milliseconds of reading.
    pub near: u64,
}

/// A request to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin to read behind this sequence.
    Open {
        /// The new reader.
        reader: ReaderId,
        /// The sequence after which it reads.
        after: u64,
    },
    /// Stop reading.
    Close(ReaderId),
}

/// A set for one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taker {
    /// The subscriber whose part of it is to be queued.
    pub subscriber: Subscriber,
    /// The subscriber's earlier progress.
    pub before: Mark,
}

/// The progress of one subscriber.
#[derive(Debug)]
struct Subscription {
    /// The progress that it has, or that was settled when it started.
    taken: Mark,
    /// Its next reader begins behind this sequence.
    after: u64,
    reader: Option<ReaderId>,
    /// Bytes in its queue.
    queued: usize,
    /// It was full at the last tick, while another one had run dry.
    was_in_the_way: bool,
}

/// The progress of one reader.
#[derive(Debug)]
struct Reader {
    /// The last sequence that it has read, or behind which it begins.
    at: u64,
    /// It has read something. Until then it is being opened, which can take as long as any request.
    has_read: bool,
}

/// All readers of a process.
#[derive(Debug)]
pub struct Readers {
    limits: Limits,
    readers: BTreeMap<ReaderId, Reader>,
    subscriptions: BTreeMap<Subscriber, Subscription>,
    /// Readers so far.
    opened: ReaderId,
}

impl Readers {
    /// No readers yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            readers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            opened: 0,
        }
    }

    /// A subscriber begins. Those that begin together are best given in the order of their
    /// positions: one reader serves them all.
    pub fn subscribe(&mut self, subscriber: Subscriber, start: Start, actions: &mut Vec<Action>) {
        let Start {
            after,
            settled: taken,
        } = start;
        self.subscriptions.insert(
            subscriber,
            Subscription {
                taken,
                after,
                reader: None,
                queued: 0,
                was_in_the_way: false,
            },
        );
        self.rearrange(actions);
    }

    /// A subscriber is given up.
    pub fn unsubscribe(&mut self, subscriber: Subscriber, actions: &mut Vec<Action>) {
        self.subscriptions.remove(&subscriber);
        self.rearrange(actions);
    }

    /// Returns true if the reader may take the next set now.
    pub fn may_read(&self, reader: ReaderId) -> bool {
        let Some(&Reader { at, .. }) = self.readers.get(&reader) else {
            return false;
        };
        // A reader that cannot go on, or has not begun, is not waited for.
        let is_near = |other: &Reader| at > other.at && at - other.at <= self.limits.near;
        let is_awaited = self
            .readers
            .iter()
            .any(|(id, other)| other.has_read && is_near(other) && self.has_room(*id));
        self.has_room(reader) && !is_awaited
    }

    /// A reader has read a set. Returns who takes it.
    pub fn read(
        &mut self,
        reader: ReaderId,
        sequence: u64,
        stored_ms: i64,
        actions: &mut Vec<Action>,
    ) -> Vec<Taker> {
        let one = self.readers.get_mut(&reader);
        let Some(one) = one.filter(|one| one.at < sequence) else {
            return Vec::new();
        };
        (one.at, one.has_read) = (sequence, true);
        let mut takers = Vec::new();
        for (&subscriber, subscription) in &mut self.subscriptions {
            if subscription.reader != Some(reader) || subscription.taken.covers(sequence, stored_ms)
            {
                continue;
            }
            takers.push(Taker {
                subscriber,
                before: subscription.taken,
            });
            subscription.taken = subscription.taken.after(sequence, stored_ms);
            subscription.after = sequence;
        }
        self.rearrange(actions);
        takers
    }

    /// So many bytes of a set are in a subscriber's queue.
    pub fn queued(&mut self, subscriber: Subscriber, bytes: usize, actions: &mut Vec<Action>) {
        if let Some(subscription) = self.subscriptions.get_mut(&subscriber) {
            subscription.queued += bytes;
        }
        self.rearrange(actions);
    }

    /// So many bytes have left a subscriber's queue.
    pub fn drained(&mut self, subscriber: Subscriber, bytes: usize, actions: &mut Vec<Action>) {
        if let Some(subscription) = self.subscriptions.get_mut(&subscriber) {
            subscription.queued = subscription.queued.saturating_sub(bytes);
        }
        self.rearrange(actions);
    }

    /// Time has passed, enough for a queue that moves to have room again. A subscriber that blocked
    /// others at the last tick, and still does, leaves its reader. Each reader parses every set, so
    /// this is not for queues that are full for a moment.
    pub fn tick(&mut self, actions: &mut Vec<Action>) {
        let most = self.limits.queue_bytes;
        for reader in self.readers.keys().copied().collect::<Vec<_>>() {
            let is_dry = self.of(reader).any(|subscription| subscription.queued == 0);
            let own = self.subscriptions.values_mut();
            for one in own.filter(|one| one.reader == Some(reader)) {
                let is_in_the_way = is_dry && one.queued >= most;
                if is_in_the_way && one.was_in_the_way {
                    one.reader = None;
                }
                one.was_in_the_way = is_in_the_way;
            }
        }
        self.rearrange(actions);
    }

    /// Returns how far a subscriber has come.
    pub fn taken(&self, subscriber: Subscriber) -> Option<Mark> {
        self.subscriptions
            .get(&subscriber)
            .map(|subscription| subscription.taken)
    }

    /// Returns up to where the subscriber was served that has come furthest. What it passed by
    /// since its position covers it does not count: other sets may lie there by now.
    pub fn furthest(&self) -> Mark {
        let served = self.subscriptions.values().map(|subscription| Mark {
            sequence: subscription.after,
            stored_ms: subscription.taken.stored_ms,
        });
        served.max().unwrap_or(Mark::START)
    }

    /// Returns the readers, and how far each has read.
    pub fn readers(&self) -> impl Iterator<Item = (ReaderId, u64)> + '_ {
        self.readers.iter().map(|(reader, one)| (*reader, one.at))
    }

    /// Returns how many subscribers wait for room or for a reader.
    pub fn detached(&self) -> usize {
        self.subscriptions
            .values()
            .filter(|subscription| subscription.reader.is_none())
            .count()
    }

    fn of(&self, reader: ReaderId) -> impl Iterator<Item = &Subscription> {
        self.subscriptions
            .values()
            .filter(move |subscription| subscription.reader == Some(reader))
    }

    /// Returns true if all of a reader's subscribers have room for a set.
    fn has_room(&self, reader: ReaderId) -> bool {
        self.of(reader)
            .all(|subscription| subscription.queued < self.limits.queue_bytes)
    }

    fn rearrange(&mut self, actions: &mut Vec<Action>) {
        if self.is_arranged() {
            return;
        }
        self.detach_the_full();
        self.join_those_that_meet();
        self.close_the_unused(actions);
        self.attach(actions);
    }

    /// Returns true if one reader serves every subscriber: then nothing is to be rearranged. This
    /// is the state of a busy process, which asks several times for each set.
    fn is_arranged(&self) -> bool {
        self.readers.len() == 1
            && !self.subscriptions.is_empty()
            && self
                .subscriptions
                .values()
                .all(|subscription| subscription.reader.is_some())
    }

    /// A reader all of whose subscribers are full makes room for others that wait for one.
    fn detach_the_full(&mut self) {
        let most = self.limits.queue_bytes;
        if self.readers.len() < 2 {
            return;
        }
        for reader in self.readers.keys().copied().collect::<Vec<_>>() {
            let is_full = self.of(reader).all(|one| one.queued >= most);
            let own = self.subscriptions.values_mut().filter(|_| is_full);
            own.filter(|one| one.reader == Some(reader))
                .for_each(|full| full.reader = None);
        }
    }

    /// A reader that has caught up with another one gives its subscribers to it.
    fn join_those_that_meet(&mut self) {
        let ids: Vec<_> = self.readers.keys().copied().collect();
        for (number, &one) in ids.iter().enumerate() {
            for &other in &ids[number + 1..] {
                if self.readers[&one].at == self.readers[&other].at {
                    let own = self
                        .subscriptions
                        .values_mut()
                        .filter(|subscription| subscription.reader == Some(other));
                    own.for_each(|subscription| subscription.reader = Some(one));
                }
            }
        }
    }

    fn close_the_unused(&mut self, actions: &mut Vec<Action>) {
        for reader in self.readers.keys().copied().collect::<Vec<_>>() {
            if self.of(reader).next().is_none() {
                self.readers.remove(&reader);
                actions.push(Action::Close(reader));
            }
        }
    }

    /// Assigns a reader to each subscriber that has room again, the one that is furthest behind
    /// first.
    fn attach(&mut self, actions: &mut Vec<Action>) {
        let low = self.limits.queue_bytes / 2;
        let is_waiting =
            |(_, one): &(&Subscriber, &Subscription)| one.reader.is_none() && one.queued <= low;
        let waiting = self.subscriptions.iter().filter(is_waiting);
        let mut waiting: Vec<_> = waiting
            .map(|(subscriber, one)| (one.after, *subscriber))
            .collect();
        waiting.sort_unstable();
        for (after, subscriber) in waiting {
            let behind = self
                .readers
                .iter()
                .filter(|(_, reader)| reader.at <= after)
                .max_by_key(|(_, reader)| reader.at);
            let (is_free, near) = (
                self.readers.len() < self.limits.readers.max(1),
                self.limits.near,
            );
            let reader = match behind.map(|(id, reader)| (*id, after - reader.at)) {
                Some((reader, distance)) if distance <= near || !is_free => reader,
                _ if is_free => {
                    self.opened += 1;
                    let (at, has_read) = (after, false);
                    self.readers.insert(self.opened, Reader { at, has_read });
                    actions.push(Action::Open {
                        reader: self.opened,
                        after,
                    });
                    self.opened
                }
                _ => continue,
            };
            if let Some(subscription) = self.subscriptions.get_mut(&subscriber) {
                subscription.reader = Some(reader);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bellhop_protocol::partition::Partition;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        queue_bytes: 100,
        readers: 3,
        near: 4,
    };

    fn partition(number: u16) -> Subscriber {
        Subscriber::Partition(Partition(number))
    }

    fn start(after: u64) -> Start {
        Start {
            after,
            settled: Mark {
                sequence: after,
                stored_ms: after as i64,
            },
        }
    }

    /// Readers over a log whose sets are stored at the times of their sequences.
    struct World {
        readers: Readers,
        open: BTreeMap<ReaderId, u64>,
        last: u64,
        got: BTreeMap<Subscriber, Vec<u64>>,
    }

    impl World {
        fn new(last: u64) -> Self {
            Self {
                readers: Readers::new(LIMITS),
                open: BTreeMap::new(),
                last,
                got: BTreeMap::new(),
            }
        }

        fn perform(&mut self, step: impl FnOnce(&mut Readers, &mut Vec<Action>)) {
            let mut actions = Vec::new();
            step(&mut self.readers, &mut actions);
            for action in actions {
                match action {
                    Action::Open { reader, after } => {
                        assert!(self.open.insert(reader, after).is_none())
                    }
                    Action::Close(reader) => assert!(self.open.remove(&reader).is_some()),
                }
            }
            assert!(self.open.len() <= LIMITS.readers);
        }

        fn subscribe(&mut self, subscriber: Subscriber, after: u64) {
            self.got.insert(subscriber, vec![after]);
            self.perform(|readers, actions| readers.subscribe(subscriber, start(after), actions));
        }

        /// The reader takes its next set, of which each subscriber gets so many bytes. Returns
        /// false if it may not.
        fn read(&mut self, reader: ReaderId, bytes: usize) -> bool {
            let Some(at) = self.open.get(&reader).copied() else {
                return false;
            };
            if at >= self.last || !self.readers.may_read(reader) {
                return false;
            }
            self.open.insert(reader, at + 1);
            let mut takers = Vec::new();
            self.perform(|readers, actions| {
                takers = readers.read(reader, at + 1, at as i64 + 1, actions)
            });
            for Taker { subscriber, before } in takers {
                let got = self.got.get_mut(&subscriber).unwrap();
                assert_eq!(got.last(), Some(&before.sequence));
                got.push(at + 1);
                self.perform(|readers, actions| readers.queued(subscriber, bytes, actions));
            }
            true
        }

        fn drain(&mut self, subscriber: Subscriber) {
            self.perform(|readers, actions| readers.drained(subscriber, usize::MAX, actions));
        }

        fn assert_complete(&self, subscriber: Subscriber) {
            let got = &self.got[&subscriber];
            assert!(
                got.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "{subscriber} got {got:?}"
            );
            assert_eq!(got.last(), Some(&self.last.max(got[0])), "{subscriber}");
        }
    }

    #[test]
    fn one_reader_serves_all() {
        let mut world = World::new(10);
        for (number, after) in [(0, 3), (1, 4), (2, 6)] {
            world.subscribe(partition(number), after);
        }
        assert_eq!(world.open, BTreeMap::from([(1, 3)]));
        while world.read(1, 1) {}
        (0..3).for_each(|number| world.assert_complete(partition(number)));
    }

    #[test]
    fn full_partition_is_detached_and_catches_up() {
        let mut world = World::new(40);
        (0..2).for_each(|number| world.subscribe(partition(number), 0));
        while world.read(1, 10) {
            world.drain(partition(0));
        }
        assert_eq!(
            world.got[&partition(1)].len(),
            11,
            "its queue took ten sets of ten bytes"
        );
        world.perform(|readers, actions| readers.tick(actions));
        assert_eq!(world.readers.detached(), 0, "it may have room in a moment");
        world.perform(|readers, actions| readers.tick(actions));
        while world.read(1, 10) {
            world.drain(partition(0));
        }
        world.assert_complete(partition(0));
        assert_eq!((world.readers.detached(), world.open.len()), (1, 1));
        world.drain(partition(1));
        assert_eq!(
            world.open.get(&2),
            Some(&10),
            "a reader begins where it stopped"
        );
        while world.read(2, 10) {
            world.drain(partition(1));
        }
        world.assert_complete(partition(1));
        assert_eq!(world.open.len(), 1, "the two have become one");
    }

    #[test]
    fn reader_waits_for_one_that_is_near() {
        let mut world = World::new(100);
        world.subscribe(partition(0), 50);
        world.subscribe(partition(1), 40);
        assert!(world.readers.may_read(1) && world.readers.may_read(2));
        world.subscribe(partition(2), 48);
        assert!(world.readers.may_read(1), "the third is being opened");
        world.perform(|readers, actions| readers.unsubscribe(partition(2), actions));
        (0..6).for_each(|_| assert!(world.read(2, 0)));
        assert!(!world.readers.may_read(1), "four sets are milliseconds");
        (0..4).for_each(|_| assert!(world.read(2, 0)));
        assert_eq!((world.open.len(), world.readers.may_read(1)), (1, true));
    }

    #[test]
    fn all_full_and_none_dry_just_wait() {
        let mut world = World::new(40);
        (0..2).for_each(|number| world.subscribe(partition(number), 0));
        while world.read(1, 50) {}
        assert_eq!(
            (world.readers.detached(), world.got[&partition(0)].len()),
            (0, 3)
        );
    }

    proptest! {
        /// Whatever happens, each subscriber gets each set once and in order, and all come to the
        /// end when they may.
        #[test]
        fn each_set_comes_once_and_in_order(
            steps in prop::collection::vec((0..7u8, 0..4u16, 0..60u64, 0..80usize), 0..300),
        ) {
            let mut world = World::new(0);
            for (step, number, more, bytes) in steps {
                let subscriber = partition(number);
                match step {
                    4 => world.perform(|readers, actions| readers.tick(actions)),
                    0 if !world.got.contains_key(&subscriber) => world.subscribe(subscriber, more.min(world.last)),
                    1 => world.last += more / 4,
                    2 => world.drain(subscriber),
                    3 if world.got.remove(&subscriber).is_some() => {
                        world.perform(|readers, actions| readers.unsubscribe(subscriber, actions));
                    }
                    _ => {
                        let reader = world.open.keys().copied().nth(usize::from(number) % LIMITS.readers);
                        if let Some(reader) = reader {
                            world.read(reader, bytes);
                        }
                    }
                }
            }
            for _ in 0..10_000 {
                let subscribers: Vec<_> = world.got.keys().copied().collect();
                world.perform(|readers, actions| readers.tick(actions));
                subscribers.iter().for_each(|subscriber| world.drain(*subscriber));
                let readers: Vec<_> = world.open.keys().copied().collect();
                let moved = readers.into_iter().filter(|reader| world.read(*reader, 30)).count();
                if moved == 0 {
                    break;
                }
            }
            world.got.keys().for_each(|subscriber| world.assert_complete(*subscriber));
            prop_assert!(world.open.len() <= 1, "{:?}", world.readers);
        }
    }

    #[test]
    fn covered_sets_do_not_count_as_served() {
        let mut readers = Readers::new(LIMITS);
        let settled = start(7).settled;
        readers.subscribe(partition(0), Start { after: 0, settled }, &mut Vec::new());
        assert_eq!(readers.furthest().sequence, 0);
        readers.subscribe(partition(1), start(4), &mut Vec::new());
        assert_eq!(readers.furthest(), start(4).settled);
    }
}
