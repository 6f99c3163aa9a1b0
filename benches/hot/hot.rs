//! The cost of a reminder on its way through Bellhop, step by step and without NATS: nanoseconds,
//! and allocations.
//!
//! Sets of 100 of `bellhop-bench`, half of them with a tag whose document has 1,000 keywords. A
//! step begins with what the one before it leaves, and its time includes freeing what it makes. The
//! fastest round counts: whatever else the machine does only slows.

#![allow(clippy::disallowed_methods)] // It measures time.

mod settings;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop::service::outcomes::message::{self, OutcomeEntry, Outcomes};
use bellhop_bench::load::{self, Crowd, Load, TAG};
use bellhop_core::event::{Event, IndexEntry};
use bellhop_core::log::Subscriber;
use bellhop_core::log::done::{AllDone, Done};
use bellhop_core::log::partition::{Next, PartitionLog, StartState};
use bellhop_core::log::planner::Planner;
use bellhop_core::log::position::Mark;
use bellhop_core::log::split::{Message, Slice, split};
use bellhop_core::log::window::Window;
use bellhop_core::merge::merge;
use bellhop_core::partition;
use bellhop_core::router::{Action, Entry, Input, Instance, Item, Now, Router};
use bellhop_core::rules::Rules;
use bellhop_core::rules::document::Document;
use bellhop_core::rules::engine::Engine;
use bellhop_protocol::reminder::Reminder;
use bellhop_protocol::reminder::outcome::{Outcome, Record};
use bellhop_protocol::reminder::set::{self, Origin};
use bellhop_protocol::wire::answer::delivery_body;
use bytes::Bytes;
use jiff::Timestamp;

const SET: usize = 100;
const LOAD: Load = Load {
    crowd: Crowd::Bench,
    users: 100_000,
    instances: 8,
};
const ROUNDS: usize = 25;
const RUNS: usize = 40;

fn main() {
    let bench = Bench::new();
    println!("| step | ns a reminder | allocations a reminder |");
    println!("| --- | ---: | ---: |");
    row(
        "decode and validate a set",
        || (),
        |()| set::parse(&bench.origin, &bench.body).is_ok(),
    );
    row("merge", || bench.reminders(), merge);
    row(
        "rules",
        || bench.reminders(),
        |reminders| bench.ruled(reminders),
    );
    row(
        "split a set for 32 partitions: decode, validate, copy",
        || (),
        |()| bench.split(32),
    );
    row(
        "judge and plan it: merge, rules, finish",
        || bench.split(32),
        |slices| bench.plan(slices),
    );
    let event = bench.plan(bench.split(1)).remove(0).planned.event;
    let mut router = TestRouter::new(&event);
    let mut sequences = 1..;
    let mut next = || arriving(&event, sequences.next().expect("they do not end"));
    assert_eq!(router.settled_after(next()), SET);
    row("route an event to connected users", next, |event| {
        router.settled_after(event)
    });
    row(
        "write a delivery",
        || (),
        |()| delivery_body(event.bodies.iter().map(AsRef::as_ref)),
    );
    let recorded: Vec<_> = (0..SET).map(|index| outcome_entry(&event, index)).collect();
    row(
        "write outcomes",
        || (),
        |()| message::encode(&Outcomes::of(&recorded, true).into_parts()),
    );
}

/// Measures a step that moves [`SET`] reminders. What `prepare` makes counts for nothing.
fn row<I, O>(step: &str, mut prepare: impl FnMut() -> I, mut work: impl FnMut(I) -> O) {
    let mut round = || {
        let inputs: Vec<I> = (0..RUNS).map(|_| prepare()).collect();
        let began = Instant::now();
        inputs
            .into_iter()
            .for_each(|input| drop(black_box(work(black_box(input)))));
        began.elapsed()
    };
    round(); // Caches and branch predictors learn.
    let fastest = (0..ROUNDS)
        .map(|_| round())
        .min()
        .expect("there are rounds");
    let input = prepare();
    let allocated = allocation_counter::measure(|| drop(black_box(work(input))));
    let ns = fastest.as_nanos() as f64 / (RUNS * SET) as f64;
    println!(
        "| {step} | {ns:.0} | {:.2} |",
        allocated.count_total as f64 / SET as f64
    );
}

/// A published set, and what planning it needs.
struct Bench {
    body: Bytes,
    origin: Origin,
    rules: Rules,
}

impl Bench {
    fn new() -> Self {
        let source = "bench".parse().expect("it is a name");
        let origin = Origin {
            source,
            sequence: 1,
            published_at: Timestamp::UNIX_EPOCH,
        };
        let document = Document::parse(&load::rules()).expect("it has no problem");
        let engine = Arc::new(Engine::new(&document).expect("it has no problem"));
        let rules = Rules::default().with(TAG.parse().expect("it is a name"), Some(engine));
        Self {
            body: LOAD.set(0, SET, 0).into(),
            origin,
            rules,
        }
    }

    /// The set's reminders, as they were decoded.
    fn reminders(&self) -> Vec<Reminder> {
        let set = set::parse(&self.origin, &self.body).expect("it is valid");
        set.reminders
            .into_iter()
            .map(|one| one.parsed.expect("it is valid"))
            .collect()
    }

    fn ruled(&self, mut reminders: Vec<Reminder>) -> Vec<Reminder> {
        for reminder in &mut reminders {
            self.rules.apply(reminder).expect("there are few matches");
        }
        reminders
    }

    fn split(&self, partitions: u16) -> Vec<Slice> {
        let (body, set) = (&self.body[..], Ok(&self.body[..]));
        let (message_id, is_requeued, is_due, trace) = (None, false, false, None);
        let (source_token, sequence, stored_ms) = ("bench", 1, 0);
        let message = Message {
            source_token,
            sequence,
            stored_ms,
            body,
            set,
            message_id,
            is_requeued,
            is_due,
            trace,
        };
        split(&message, partitions)
            .slices
            .into_iter()
            .map(|(_, slice)| slice)
            .collect()
    }

    /// Plans each slice in a partition of its own.
    fn plan(&self, slices: Vec<Slice>) -> Vec<Next> {
        let planner = Planner {
            rules: &self.rules,
            merges: false,
        };
        let plan = |slice| {
            let (window, done) = (
                Window::new(Duration::from_secs(600), 1_000_000),
                AllDone::new(),
            );
            let found = StartState {
                settled: Mark::START,
                outcomes: 0,
                window,
                done,
                parked: Default::default(),
            };
            let mut log = PartitionLog::new(found);
            log.take_in(slice, Mark::START);
            log.next(&planner).expect("it was taken in")
        };
        slices.into_iter().map(plan).collect()
    }
}

/// A partition whose users are connected, and instances that accept everything.
struct TestRouter {
    machine: Router,
    now: Now,
}

impl TestRouter {
    fn new(event: &Event) -> Self {
        let mut router = Self {
            machine: Router::new(settings::settings()),
            now: Now {
                instant: Instant::now(),
                unix_ms: 0,
            },
        };
        for (revision, reminder) in (1..).zip(&event.index.reminders) {
            let user = reminder.user.clone();
            let number =
                LOAD.instance_of(LOAD.user_number(user.as_str()).expect("the load named it"));
            let name = LOAD.instance_name(number);
            let subject = format!("bellhop.app.{name}");
            let instance = Arc::new(Instance {
                name: name.parse().expect("it is a name"),
                subject,
            });
            router.settled_after(Input::RouteUp {
                user,
                instance,
                revision,
            });
        }
        router
    }

    /// Lets the machine come to rest. Answers how many reminders are done with.
    fn settled_after(&mut self, input: Input) -> usize {
        let (mut settled, mut inputs, mut actions) = (0, vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            self.machine.handle(self.now, input, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Deliver {
                        instance, company, ..
                    } => inputs.push(Input::Delivered {
                        instance,
                        company,
                        answer: Ok(Vec::new()),
                    }),
                    Action::Heartbeat { instance, users } => {
                        inputs.push(Input::HeartbeatAnswered {
                            instance,
                            answer: Ok(users),
                        });
                    }
                    Action::Settle(items) => settled += items.len(),
                    other => panic!("the users are connected: {other:?}"),
                }
            }
        }
        settled
    }
}

/// An event as the machine gets it.
fn arriving(event: &Event, sequence: u64) -> Input {
    let entry = |(index, reminder): (usize, &IndexEntry)| {
        let item = Item::Event { sequence, index };
        let (source, priority) = (event.set_of(index).source.clone(), reminder.priority);
        let (expires_at, bytes, may_reroute, text) = (None, reminder.bytes, true, None);
        let entry = Entry {
            item,
            expires_at,
            bytes,
            may_reroute,
            source,
            priority,
            text,
        };
        (reminder.user.clone(), entry)
    };
    Input::Event(
        event
            .index
            .reminders
            .iter()
            .enumerate()
            .map(entry)
            .collect(),
    )
}

/// That a reminder of an event was delivered.
fn outcome_entry(event: &Event, index: usize) -> OutcomeEntry {
    let IndexEntry { id, user, .. } = &event.index.reminders[index];
    let by = LOAD
        .instance_name(index % LOAD.instances)
        .parse()
        .expect("it is a name");
    let record = Record {
        id: id.clone(),
        source: event.set_of(index).source.clone(),
        set: event.set_of(index).id.clone(),
        user: Some(user.clone()),
        outcome: Outcome::delivered(vec![by]).expect("there is one"),
        at: Timestamp::UNIX_EPOCH,
    };
    let settles = Some((
        Subscriber::Partition(partition::Partition(0)),
        Done::Published {
            set: 1,
            stored_ms: 0,
            place: index,
        },
    ));
    OutcomeEntry {
        record,
        published_ms: 0,
        reminder: Some(event.bodies[index].clone()),
        settles,
    }
}
