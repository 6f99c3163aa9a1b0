//! Every pair of things that can happen to a user, an associate and their instances, at every pair
//! of steps.
//!
//! A small world answers whatever the machine wants, one answer after the other. Before each answer
//! something may happen in it. However it goes, each reminder ends once: with the user, with one
//! associate, or in the mailbox of a user who is away; and everybody gets what they get in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

const HAPPENINGS: [&str; 11] = [
    "nothing",
    "another reminder",
    "alice comes",
    "alice leaves",
    "bob leaves",
    "bob comes back",
    "carol comes",
    "app-8 dies",
    "app-9 dies",
    "alice has no associates",
    "time passes",
];
/// More answers than any way to the end takes before its first settling.
const STEPS: usize = 9;

struct World {
    router: TestRouter,
    /// The connections of all users. Everybody has an app server: alice app-1, bob app-9, carol
    /// app-8.
    there: BTreeSet<&'static str>,
    dead: BTreeSet<&'static str>,
    /// The machine's unanswered requests.
    wanted: VecDeque<String>,
    /// The reminder in each message of the mailbox.
    mail: BTreeMap<u64, String>,
    /// The deliveries to each user, in order.
    delivered: BTreeMap<String, Vec<String>>,
    published: usize,
}

fn at(who: &str) -> &'static str {
    match who {
        "alice" => "app-1",
        "bob" => "app-9",
        _ => "app-8",
    }
}

impl World {
    fn new() -> Self {
        let mut router = TestRouter::with(|settings| settings.delivery_bytes = 10_000);
        router.associates("alice", "bob carol");
        let (there, dead) = (["bob"].into(), BTreeSet::new());
        let (wanted, mail, delivered) = Default::default();
        let mut world = Self {
            router,
            there,
            dead,
            wanted,
            mail,
            delivered,
            published: 0,
        };
        world.happen("another reminder");
        world
    }

    fn happen(&mut self, what: &str) {
        let lines = match what {
            "another reminder" => {
                self.published += 1;
                self.router.publish("alice")
            }
            "alice comes" => {
                self.there.insert("alice");
                self.router.up("alice", "app-1")
            }
            "alice leaves" => {
                self.there.remove("alice");
                self.router.down("alice", "app-1")
            }
            "alice has no associates" => self.router.associates("alice", ""),
            "time passes" => self.router.wait(6_000),
            _ => {
                match what {
                    "bob leaves" => drop(self.there.remove("bob")),
                    "bob comes back" => drop(self.there.insert("bob")),
                    "carol comes" => drop(self.there.insert("carol")),
                    "app-8 dies" => drop(self.dead.insert("app-8")),
                    "app-9 dies" => drop(self.dead.insert("app-9")),
                    _ => {}
                }
                Vec::new()
            }
        };
        self.take_in(lines);
    }

    fn take_in(&mut self, lines: Vec<String>) {
        let is_wish = |line: &String| {
            ["look up", "heartbeat", "deliver ", "park ", "read "]
                .iter()
                .any(|verb| line.starts_with(verb))
        };
        self.wanted.extend(lines.into_iter().filter(is_wish));
    }

    /// Performs the oldest request, and feeds the result back.
    fn answer(&mut self) -> bool {
        let Some(wish) = self.wanted.pop_front() else {
            return false;
        };
        let words: Vec<&str> = wish
            .split([' ', ':', ','])
            .filter(|word| !word.is_empty() && *word != "alone")
            .collect();
        let lines = match words.as_slice() {
            ["look", "up", who, "for", user] => {
                let instances = if self.there.contains(who) {
                    at(who)
                } else {
                    ""
                };
                self.router.looked_up(user, who, instances)
            }
            ["heartbeat", app, users @ ..] if self.dead.contains(app) || users.is_empty() => {
                self.router.heartbeat_fails(app, NoAnswer::NoResponders)
            }
            ["heartbeat", app, users @ ..] => {
                let is_there = |user: &&&str| self.there.contains(**user) && at(user) == *app;
                let connected: Vec<&str> = users.iter().filter(is_there).copied().collect();
                self.router.connected(app, &connected.join(" "))
            }
            ["deliver", app, "alice", items @ ..] => {
                let (items, who) = match items {
                    [items @ .., "to", who] => (items, *who),
                    items => (items, "alice"),
                };
                self.deliver(app, who, items)
            }
            ["park", items @ ..] => {
                let parked: Vec<String> = items
                    .iter()
                    .filter(|word| **word != "alice")
                    .map(|word| (*word).to_owned())
                    .collect();
                let next = self.mail.keys().last().map_or(10, |last| last + 1);
                let sequences: Vec<u64> = (next..).take(parked.len()).collect();
                self.mail.extend(sequences.iter().copied().zip(parked));
                self.router.parked(&sequences)
            }
            ["read", "alice", from, "to", last] => {
                let (from, last): (u64, u64) = (from.parse().unwrap(), last.parse().unwrap());
                let page: Vec<Entry> = self
                    .mail
                    .range(from..=last)
                    .map(|(sequence, _)| mail(*sequence))
                    .collect();
                self.router.last_page("alice", &page, last + 1)
            }
            other => panic!("{other:?}"),
        };
        self.take_in(lines);
        true
    }

    fn deliver(&mut self, app: &str, who: &str, items: &[&str]) -> Vec<String> {
        if self.dead.contains(app) {
            return self.router.delivery_fails(app, NoAnswer::TimedOut);
        }
        if !self.there.contains(who) {
            let all: Vec<_> = (0..items.len())
                .map(|at| (0, at, Refusal::NotConnected))
                .collect();
            return self.router.refused(app, &all);
        }
        let name = |item: &&str| match item.strip_prefix('m') {
            Some(sequence) => self.mail[&sequence.parse().unwrap()].clone(),
            None => (*item).to_owned(),
        };
        let names: Vec<String> = items.iter().map(name).collect();
        self.delivered
            .entry(who.to_owned())
            .or_default()
            .extend(names);
        self.router.accepted(app)
    }

    /// Everything is answered, and no request waits for a pause to end.
    fn come_to_rest(&mut self) {
        for _ in 0..3 {
            while self.answer() {}
            self.happen("time passes");
        }
        while self.answer() {}
    }

    fn check(&self, story: &str) {
        let delivered: Vec<&String> = self.delivered.values().flatten().collect();
        for number in 1..=self.published {
            let reminder = format!("e{number}");
            let times = delivered.iter().filter(|one| **one == &reminder).count();
            let waits =
                self.mail.values().any(|one| *one == reminder) && !self.there.contains("alice");
            assert!(
                times == 1 || (times == 0 && waits),
                "{reminder} was delivered {times} times: {story} {:?}",
                self.delivered
            );
        }
        for (who, delivered) in &self.delivered {
            assert!(delivered.is_sorted(), "{who} got {delivered:?}: {story}");
        }
    }
}

#[test]
fn whatever_happens_each_ends_once_and_in_order() {
    let mut all_delivered = BTreeSet::new();
    for (first, one) in (0..STEPS).flat_map(|step| HAPPENINGS.map(|what| (step, what))) {
        for (second, other) in (first..STEPS).flat_map(|step| HAPPENINGS.map(|what| (step, what))) {
            let mut world = World::new();
            for step in 0..STEPS {
                for (_, what) in [(first, one), (second, other)]
                    .into_iter()
                    .filter(|(at, _)| *at == step)
                {
                    world.happen(what);
                }
                world.answer();
            }
            world.come_to_rest();
            world.check(&format!("{one} at {first}, {other} at {second}"));
            all_delivered.extend(world.delivered.into_keys());
        }
    }
    assert_eq!(
        all_delivered,
        ["alice", "bob", "carol"].map(ToOwned::to_owned).into()
    );
}
