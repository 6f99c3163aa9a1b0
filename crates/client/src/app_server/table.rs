//! Who is connected, and which routes have to be put or deleted for that. Pure.
//!
//! A user's route is written by one write at a time, and what changes meanwhile makes the next: so the last word wins, and a user
//! who comes and goes often costs no more than that.

use std::collections::{HashMap, VecDeque};

use tokio::sync::mpsc;

use bellhop_protocol::token::UserId;

/// Held by whom a change concerns until it is written. It takes what went wrong meanwhile.
pub(super) type Ticket = mpsc::Sender<String>;

#[derive(Debug, Default)]
pub(super) struct Table {
    seats: HashMap<UserId, Seat>,
    /// Users whose routes are to be written, and nothing of them is under way.
    due: VecDeque<UserId>,
    /// Users whose routes could not be written.
    failed: Vec<UserId>,
}

/// A user who is connected, or whose route is still there.
#[derive(Debug, Default)]
struct Seat {
    terminals: usize,
    /// The revision of the route, where it is known.
    route: Option<u64>,
    state: State,
    waiting: Vec<Ticket>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The route is as it should be.
    #[default]
    Written,
    Due,
    UnderWay,
    /// What is under way is not what is wanted by now.
    Outdated,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put,
    /// The route, unless it is another one than this revision by now.
    Delete(u64),
}

impl Table {
    /// A terminal of the user connects. Its route is put even if there is one: what was put last counts where a user's reminders go
    /// to one device.
    pub(super) fn connect(&mut self, user: UserId, ticket: Ticket) {
        let seat = self.seats.entry(user.clone()).or_default();
        seat.terminals += 1;
        seat.waiting.push(ticket);
        self.is_due(user);
    }

    /// A terminal of the user leaves. Answers whether it was the last.
    pub(super) fn disconnect(&mut self, user: &UserId, ticket: Ticket) -> bool {
        let Some(seat) = self.seats.get_mut(user).filter(|seat| seat.terminals > 0) else { return false };
        seat.terminals -= 1;
        let was_last = seat.terminals == 0;
        if was_last {
            seat.waiting.push(ticket);
            self.is_due(user.clone());
        }
        was_last
    }

    /// All terminals leave.
    pub(super) fn disconnect_all(&mut self) {
        let connected =
            |(user, seat): (&UserId, &mut Seat)| (std::mem::take(&mut seat.terminals) > 0).then(|| user.clone());
        let users: Vec<UserId> = self.seats.iter_mut().filter_map(connected).collect();
        users.into_iter().for_each(|user| self.is_due(user));
    }

    pub(super) fn is_connected(&self, user: &UserId) -> bool {
        self.seats.get(user).is_some_and(|seat| seat.terminals > 0)
    }

    /// Every route is put once more: nobody knows whether it is still there.
    pub(super) fn put_all_again(&mut self) {
        let connected = self.seats.iter().filter(|(_, seat)| seat.terminals > 0);
        let users: Vec<UserId> = connected.map(|(user, _)| user.clone()).collect();
        users.into_iter().for_each(|user| self.is_due(user));
    }

    /// What failed is tried again.
    pub(super) fn retry(&mut self) {
        self.due.extend(self.failed.drain(..));
    }

    /// The next write, which is under way from here on.
    pub(super) fn next_change(&mut self) -> Option<(UserId, Change)> {
        while let Some(user) = self.due.pop_front() {
            let Some(seat) = self.seats.get_mut(&user) else { continue };
            seat.state = State::UnderWay;
            if seat.terminals > 0 {
                return Some((user, Change::Put));
            }
            match seat.route {
                Some(revision) => return Some((user, Change::Delete(revision))),
                // Nobody knows which it would be. If there is one, Bellhop finds out that it is wrong.
                None => self.written(user, Ok(None)),
            }
        }
        None
    }

    /// A write ended: with the revision of the route that is there now, or with what went wrong.
    pub(super) fn written(&mut self, user: UserId, result: Result<Option<u64>, String>) {
        let Some(seat) = self.seats.get_mut(&user) else { return };
        let state = std::mem::take(&mut seat.state);
        match result {
            Ok(route) => seat.route = route,
            Err(problem) => {
                let tell = |ticket: &Ticket| drop(ticket.try_send(problem.clone())); // The last word is enough.
                seat.waiting.iter().for_each(tell);
                seat.state = State::Due;
                return self.failed.push(user);
            }
        }
        if state == State::Outdated {
            return self.is_due(user);
        }
        seat.waiting.clear();
        if seat.terminals == 0 {
            self.seats.remove(&user);
        }
    }

    /// Every route is as it should be.
    pub(super) fn is_settled(&self) -> bool {
        self.seats.values().all(|seat| seat.state == State::Written)
    }

    fn is_due(&mut self, user: UserId) {
        let Some(seat) = self.seats.get_mut(&user) else { return };
        match seat.state {
            State::Written => {
                seat.state = State::Due;
                self.due.push_back(user);
            }
            State::UnderWay => seat.state = State::Outdated,
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

    fn ticket() -> (Ticket, mpsc::Receiver<String>) {
        mpsc::channel(1)
    }

    #[test]
    fn the_first_terminal_puts_the_route_and_the_last_one_deletes_it() {
        let mut table = Table::default();
        table.connect(user("alice"), ticket().0);
        assert!(table.is_connected(&user("alice")), "before the route is there");
        assert_eq!(table.next_change(), Some((user("alice"), Change::Put)));
        assert_eq!(table.next_change(), None);
        table.written(user("alice"), Ok(Some(7)));
        table.connect(user("alice"), ticket().0);
        assert_eq!(table.next_change(), Some((user("alice"), Change::Put)), "it is the one put last now");
        table.written(user("alice"), Ok(Some(8)));
        assert!(!table.disconnect(&user("alice"), ticket().0));
        assert_eq!((table.next_change(), table.is_settled()), (None, true));
        assert!(table.disconnect(&user("alice"), ticket().0));
        assert!(!table.is_connected(&user("alice")) && !table.is_settled());
        assert_eq!(table.next_change(), Some((user("alice"), Change::Delete(8))));
        table.written(user("alice"), Ok(None));
        assert!(table.seats.is_empty() && !table.disconnect(&user("alice"), ticket().0));
    }

    #[test]
    fn what_changes_while_a_write_is_under_way_makes_the_next() {
        let mut table = Table::default();
        let (first, mut waiting) = ticket();
        table.connect(user("alice"), first);
        table.next_change();
        table.disconnect(&user("alice"), ticket().0);
        table.connect(user("alice"), ticket().0);
        table.disconnect(&user("alice"), ticket().0);
        assert_eq!(table.next_change(), None, "one write at a time");
        table.written(user("alice"), Ok(Some(7)));
        assert_eq!(table.next_change(), Some((user("alice"), Change::Delete(7))));
        assert!(waiting.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
        table.written(user("alice"), Ok(None));
        assert!(waiting.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn what_failed_is_told_and_tried_again() {
        let mut table = Table::default();
        let (connecting, mut waiting) = ticket();
        table.connect(user("alice"), connecting);
        table.next_change();
        table.written(user("alice"), Err("no stream".to_owned()));
        assert_eq!(waiting.try_recv().unwrap(), "no stream");
        table.put_all_again();
        assert_eq!(table.next_change(), None, "not at once");
        table.retry();
        assert_eq!(table.next_change(), Some((user("alice"), Change::Put)));
        table.written(user("alice"), Err("no stream".to_owned()));
        table.disconnect(&user("alice"), ticket().0);
        table.retry();
        assert_eq!(table.next_change(), None, "a route that nobody knows of is not deleted");
        assert!(table.seats.is_empty());
    }

    #[test]
    fn all_routes_are_put_again_and_all_are_deleted() {
        let mut table = Table::default();
        for name in ["alice", "bob"] {
            table.connect(user(name), ticket().0);
            table.next_change();
            table.written(user(name), Ok(Some(1)));
        }
        table.put_all_again();
        for _ in 0..2 {
            let (user, change) = table.next_change().unwrap();
            assert_eq!(change, Change::Put);
            table.written(user, Ok(Some(2)));
        }
        table.disconnect_all();
        assert!(!table.is_connected(&user("alice")));
        assert!((0..2).all(|_| matches!(table.next_change(), Some((_, Change::Delete(2))))));
    }

    /// A user who comes and goes, with writes that succeed, that fail, and that fail with nobody knowing that they were stored.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Comes,
        Goes,
        WriteBegins,
        WriteEnds(Fate),
        Reconnected,
        Retried,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Stored,
        Lost,
        StoredUnheard,
    }

    fn step() -> impl Strategy<Value = Step> {
        let fate = prop_oneof![Just(Fate::Stored), Just(Fate::Lost), Just(Fate::StoredUnheard)];
        prop_oneof![
            Just(Step::Comes),
            Just(Step::Goes),
            Just(Step::WriteBegins),
            fate.prop_map(Step::WriteEnds),
            Just(Step::Reconnected),
            Just(Step::Retried),
        ]
    }

    /// The table, and the route as it stands in the bucket.
    #[derive(Default)]
    struct World {
        table: Table,
        under_way: Option<Change>,
        route: Option<u64>,
        revision: u64,
        terminals: usize,
        tickets: Vec<mpsc::Receiver<String>>,
    }

    impl World {
        fn go(&mut self, step: Step) {
            let alice = user("alice");
            match step {
                Step::Comes => {
                    let (ticket, held) = ticket();
                    self.table.connect(alice, ticket);
                    self.tickets.push(held);
                    self.terminals += 1;
                }
                Step::Goes => {
                    let (ticket, held) = ticket();
                    assert_eq!(self.table.disconnect(&alice, ticket), self.terminals == 1);
                    self.tickets.push(held);
                    self.terminals = self.terminals.saturating_sub(1);
                }
                Step::WriteBegins => {
                    let change = self.table.next_change().map(|(_, change)| change);
                    assert!(self.under_way.is_none() || change.is_none(), "one write at a time");
                    self.under_way = self.under_way.take().or(change);
                }
                Step::WriteEnds(fate) => self.end_write(fate),
                Step::Reconnected => self.table.put_all_again(),
                Step::Retried => self.table.retry(),
            }
        }

        fn end_write(&mut self, fate: Fate) {
            let Some(change) = self.under_way.take() else { return };
            if fate != Fate::Lost {
                self.revision += 1;
                self.route = match change {
                    Change::Put => Some(self.revision),
                    Change::Delete(revision) => self.route.filter(|&route| route != revision),
                };
            }
            let written = if change == Change::Put { self.route } else { None };
            let result = if fate == Fate::Stored { Ok(written) } else { Err("no answer".to_owned()) };
            self.table.written(user("alice"), result);
        }
    }

    proptest! {
        #[test]
        fn the_route_is_there_in_the_end_if_and_only_if_it_shall_be(steps in vec(step(), 0..40)) {
            let mut world = World::default();
            steps.into_iter().for_each(|step| world.go(step));
            let is_connected = world.terminals > 0;
            prop_assert_eq!(world.table.is_connected(&user("alice")), is_connected);
            let unknown = world.route.is_some() && world.table.seats.get(&user("alice")).is_none_or(|it| it.route != world.route);
            for step in [Step::WriteBegins, Step::WriteEnds(Fate::Stored), Step::Retried].repeat(4) {
                world.go(step);
            }
            prop_assert!(world.table.is_settled());
            // A route whose revision was never told is left to Bellhop, which finds out that it is wrong.
            let has_route = world.route.is_some();
            prop_assert!(has_route == is_connected || (has_route && unknown));
            prop_assert_eq!(world.table.seats.is_empty(), !is_connected);
            for ticket in &mut world.tickets {
                let _ = ticket.try_recv(); // What went wrong on the way.
                prop_assert_eq!(ticket.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
            }
        }
    }
}
