//! Connected users, and the routes to put or delete for them. Pure.
//!
//! There is one write at a time for each user. Changes in the meantime make one more write, so the
//! latest state wins, and a user who connects and disconnects often costs no more.

use std::collections::{HashMap, VecDeque};

use tokio::sync::mpsc;

use bellhop_protocol::token::UserId;

/// Held until a change is written. It receives the problems meanwhile.
pub(super) type Waiter = mpsc::Sender<String>;

#[derive(Debug, Default)]
pub(super) struct Connections {
    users: HashMap<UserId, Entry>,
    /// Users whose routes have to be written, without a write under way.
    due: VecDeque<UserId>,
    /// Users whose routes could not be written.
    failed: Vec<UserId>,
}

/// A user who is connected, or whose route is still there.
#[derive(Debug, Default)]
struct Entry {
    terminals: usize,
    /// The revision of the route, if known.
    route: Option<u64>,
    /// True if a put has begun that was not confirmed. It may be stored, also later.
    in_doubt: bool,
    state: State,
    waiting: Vec<Waiter>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The route is right.
    #[default]
    Written,
    Due,
    UnderWay,
    /// The write under way is out of date.
    Outdated,
}

/// A write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put,
    /// Deletes the route, unless it has another revision than this one. Without a revision, in any
    /// case.
    Delete(Option<u64>),
}

impl Connections {
    /// Adds a terminal of the user. The route is put even if there is one, which makes this the
    /// user's latest device.
    pub(super) fn connect(&mut self, user: UserId, waiter: Waiter) {
        let entry = self.users.entry(user.clone()).or_default();
        entry.terminals += 1;
        entry.waiting.push(waiter);
        self.is_due(user);
    }

    /// Removes a terminal of the user. Returns whether it was the last.
    pub(super) fn disconnect(&mut self, user: &UserId, waiter: Waiter) -> bool {
        let Some(entry) = self.users.get_mut(user).filter(|entry| entry.terminals > 0) else {
            return false;
        };
        entry.terminals -= 1;
        let was_last = entry.terminals == 0;
        if was_last {
            entry.waiting.push(waiter);
            self.is_due(user.clone());
        }
        was_last
    }

    /// Removes all terminals.
    pub(super) fn disconnect_all(&mut self) {
        let connected = |(user, entry): (&UserId, &mut Entry)| {
            (std::mem::take(&mut entry.terminals) > 0).then(|| user.clone())
        };
        let users: Vec<UserId> = self.users.iter_mut().filter_map(connected).collect();
        users.into_iter().for_each(|user| self.is_due(user));
    }

    pub(super) fn is_connected(&self, user: &UserId) -> bool {
        self.users
            .get(user)
            .is_some_and(|entry| entry.terminals > 0)
    }

    /// Puts every route again: it may be lost.
    pub(super) fn put_all_again(&mut self) {
        let connected = self.users.iter().filter(|(_, entry)| entry.terminals > 0);
        let users: Vec<UserId> = connected.map(|(user, _)| user.clone()).collect();
        users.into_iter().for_each(|user| self.is_due(user));
    }

    /// Tries again what failed.
    pub(super) fn retry(&mut self) {
        self.due.extend(self.failed.drain(..));
    }

    /// Returns the next write, which is under way from here on.
    pub(super) fn next_change(&mut self) -> Option<(UserId, Change)> {
        while let Some(user) = self.due.pop_front() {
            let Some(entry) = self.users.get_mut(&user) else {
                continue;
            };
            entry.state = State::UnderWay;
            if entry.terminals > 0 {
                entry.in_doubt = true;
                return Some((user, Change::Put));
            }
            match entry.route {
                _ if entry.in_doubt => return Some((user, Change::Delete(None))),
                Some(revision) => return Some((user, Change::Delete(Some(revision)))),
                None => self.written(user, Ok(None)),
            }
        }
        None
    }

    /// Takes the result of a write: the revision of the route, if there is one now, or the problem.
    pub(super) fn written(&mut self, user: UserId, result: Result<Option<u64>, String>) {
        let Some(entry) = self.users.get_mut(&user) else {
            return;
        };
        let state = std::mem::take(&mut entry.state);
        match result {
            Ok(route) => (entry.route, entry.in_doubt) = (route, false),
            Err(problem) => {
                let tell = |waiter: &Waiter| drop(waiter.try_send(problem.clone())); // The last word is enough.
                entry.waiting.iter().for_each(tell);
                entry.state = State::Due;
                return self.failed.push(user);
            }
        }
        if state == State::Outdated {
            return self.is_due(user);
        }
        entry.waiting.clear();
        if entry.terminals == 0 {
            self.users.remove(&user);
        }
    }

    /// Returns true if every route is right.
    pub(super) fn is_settled(&self) -> bool {
        self.users
            .values()
            .all(|entry| entry.state == State::Written)
    }

    fn is_due(&mut self, user: UserId) {
        let Some(entry) = self.users.get_mut(&user) else {
            return;
        };
        match entry.state {
            State::Written => {
                entry.state = State::Due;
                self.due.push_back(user);
            }
            State::UnderWay => entry.state = State::Outdated,
            State::Due | State::Outdated => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn waiter() -> (Waiter, mpsc::Receiver<String>) {
        mpsc::channel(1)
    }

    #[test]
    fn the_first_terminal_puts_and_the_last_deletes() {
        let mut connections = Connections::default();
        connections.connect(user("alice"), waiter().0);
        assert!(
            connections.is_connected(&user("alice")),
            "before the route is there"
        );
        assert_eq!(
            connections.next_change(),
            Some((user("alice"), Change::Put))
        );
        assert_eq!(connections.next_change(), None);
        connections.written(user("alice"), Ok(Some(7)));
        connections.connect(user("alice"), waiter().0);
        assert_eq!(
            connections.next_change(),
            Some((user("alice"), Change::Put)),
            "it is the one put last now"
        );
        connections.written(user("alice"), Ok(Some(8)));
        assert!(!connections.disconnect(&user("alice"), waiter().0));
        assert_eq!(
            (connections.next_change(), connections.is_settled()),
            (None, true)
        );
        assert!(connections.disconnect(&user("alice"), waiter().0));
        assert!(!connections.is_connected(&user("alice")) && !connections.is_settled());
        assert_eq!(
            connections.next_change(),
            Some((user("alice"), Change::Delete(Some(8))))
        );
        connections.written(user("alice"), Ok(None));
        assert!(
            connections.users.is_empty() && !connections.disconnect(&user("alice"), waiter().0)
        );
    }

    #[test]
    fn changes_during_a_write_make_one_more() {
        let mut connections = Connections::default();
        let (first, mut waiting) = waiter();
        connections.connect(user("alice"), first);
        connections.next_change();
        connections.disconnect(&user("alice"), waiter().0);
        connections.connect(user("alice"), waiter().0);
        connections.disconnect(&user("alice"), waiter().0);
        assert_eq!(connections.next_change(), None, "one write at a time");
        connections.written(user("alice"), Ok(Some(7)));
        assert_eq!(
            connections.next_change(),
            Some((user("alice"), Change::Delete(Some(7))))
        );
        assert!(
            waiting
                .try_recv()
                .is_err_and(|error| error == mpsc::error::TryRecvError::Empty)
        );
        connections.written(user("alice"), Ok(None));
        assert!(
            waiting
                .try_recv()
                .is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected)
        );
    }

    #[test]
    fn failed_writes_are_reported_and_retried() {
        let mut connections = Connections::default();
        let (connecting, mut waiting) = waiter();
        connections.connect(user("alice"), connecting);
        connections.next_change();
        connections.written(user("alice"), Err("no stream".to_owned()));
        assert_eq!(waiting.try_recv().unwrap(), "no stream");
        connections.put_all_again();
        assert_eq!(connections.next_change(), None, "not at once");
        connections.retry();
        assert_eq!(
            connections.next_change(),
            Some((user("alice"), Change::Put))
        );
        connections.written(user("alice"), Err("no stream".to_owned()));
        connections.disconnect(&user("alice"), waiter().0);
        connections.retry();
        assert_eq!(
            connections.next_change(),
            Some((user("alice"), Change::Delete(None))),
            "the put may have been stored"
        );
        connections.written(user("alice"), Ok(None));
        assert!(connections.users.is_empty());
    }

    #[test]
    fn all_routes_are_put_again_or_deleted() {
        let mut connections = Connections::default();
        for name in ["alice", "bob"] {
            connections.connect(user(name), waiter().0);
            connections.next_change();
            connections.written(user(name), Ok(Some(1)));
        }
        connections.put_all_again();
        for _ in 0..2 {
            let (user, change) = connections.next_change().unwrap();
            assert_eq!(change, Change::Put);
            connections.written(user, Ok(Some(2)));
        }
        connections.disconnect_all();
        assert!(!connections.is_connected(&user("alice")));
        assert!((0..2).all(|_| matches!(
            connections.next_change(),
            Some((_, Change::Delete(Some(2))))
        )));
    }

    /// A user who comes and goes, with writes that succeed, that fail, and that fail although
    /// they were stored.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Comes,
        Goes,
        WriteBegins,
        WriteEnds(WriteEnd),
        Reconnected,
        Retried,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum WriteEnd {
        Stored,
        Lost,
        StoredUnheard,
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = prop_oneof![
            Just(WriteEnd::Stored),
            Just(WriteEnd::Lost),
            Just(WriteEnd::StoredUnheard)
        ];
        prop_oneof![
            Just(Step::Comes),
            Just(Step::Goes),
            Just(Step::WriteBegins),
            end.prop_map(Step::WriteEnds),
            Just(Step::Reconnected),
            Just(Step::Retried),
        ]
    }

    /// The connections, and the route as it stands in the bucket.
    #[derive(Default)]
    struct World {
        connections: Connections,
        under_way: Option<Change>,
        route: Option<u64>,
        revision: u64,
        terminals: usize,
        waiters: Vec<mpsc::Receiver<String>>,
    }

    impl World {
        fn go(&mut self, step: Step) {
            let alice = user("alice");
            match step {
                Step::Comes => {
                    let (waiter, held) = waiter();
                    self.connections.connect(alice, waiter);
                    self.waiters.push(held);
                    self.terminals += 1;
                }
                Step::Goes => {
                    let (waiter, held) = waiter();
                    assert_eq!(
                        self.connections.disconnect(&alice, waiter),
                        self.terminals == 1
                    );
                    self.waiters.push(held);
                    self.terminals = self.terminals.saturating_sub(1);
                }
                Step::WriteBegins => {
                    let change = self.connections.next_change().map(|(_, change)| change);
                    assert!(
                        self.under_way.is_none() || change.is_none(),
                        "one write at a time"
                    );
                    self.under_way = self.under_way.take().or(change);
                }
                Step::WriteEnds(end) => self.end_write(end),
                Step::Reconnected => self.connections.put_all_again(),
                Step::Retried => self.connections.retry(),
            }
        }

        fn end_write(&mut self, end: WriteEnd) {
            let Some(change) = self.under_way.take() else {
                return;
            };
            if end != WriteEnd::Lost {
                self.revision += 1;
                self.route = match change {
                    Change::Put => Some(self.revision),
                    Change::Delete(Some(revision)) => self.route.filter(|&route| route != revision),
                    Change::Delete(None) => None,
                };
            }
            let written = if change == Change::Put {
                self.route
            } else {
                None
            };
            let result = if end == WriteEnd::Stored {
                Ok(written)
            } else {
                Err("no answer".to_owned())
            };
            self.connections.written(user("alice"), result);
        }
    }

    proptest! {
        #[test]
        fn the_route_ends_up_matching_the_terminals(steps in vec(step(), 0..40)) {
            let mut world = World::default();
            steps.into_iter().for_each(|step| world.go(step));
            let is_connected = world.terminals > 0;
            prop_assert_eq!(world.connections.is_connected(&user("alice")), is_connected);
            for step in [Step::WriteBegins, Step::WriteEnds(WriteEnd::Stored), Step::Retried].repeat(4) {
                world.go(step);
            }
            prop_assert!(world.connections.is_settled());
            prop_assert_eq!(world.route.is_some(), is_connected);
            prop_assert_eq!(world.connections.users.is_empty(), !is_connected);
            for waiter in &mut world.waiters {
                let _ = waiter.try_recv(); // What went wrong on the way.
                prop_assert_eq!(waiter.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
            }
        }
    }
}
