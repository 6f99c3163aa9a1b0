//! A reminder's whole way through the core as `bellhop serve` takes it, without NATS: nanoseconds
//! and allocations of each stage.
//!
//! 32 partitions of one member work sets of `bellhop-bench`, half of whose reminders have a tag
//! with 1,000 keywords. All users are connected and all instances accept. One thread runs one stage
//! after the other over a batch of sets, so each stage finds what a busy member finds: queues with
//! several sets, and windows and users that are not in the cache. A stage's time includes freeing.
//! Only time on the processor counts, and of it the median round.

#![allow(clippy::disallowed_methods)] // It measures time.

mod settings;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellhop_bench::load::{self, Crowd, Load, TAG};
use bellhop_core::event::Event;
use bellhop_core::log::done::AllDone;
use bellhop_core::log::partition::{PartitionLog, StartState};
use bellhop_core::log::planner::Planner;
use bellhop_core::log::position::Mark;
use bellhop_core::log::split::{Message, Split, split};
use bellhop_core::log::window::{self, Window};
use bellhop_core::router::{
    Action, Company, Entry, Input, Instance, Item, Now, Router, Settled, Share,
};
use bellhop_core::rules::Rules;
use bellhop_core::rules::document::Document;
use bellhop_core::rules::engine::Engine;
use bellhop_protocol::wire::answer::delivery_body;
use bytes::Bytes;

const PARTITIONS: u16 = 32;
const LOAD: Load = Load {
    crowd: Crowd::Bench,
    users: 100_000,
    instances: 8,
};
/// Reminders of a round. The window of the default settings is full after ten.
const ROUND: usize = 100_000;
/// Reminders that wait in a member at a time.
const BATCH: usize = 4_000;
/// Rounds that count, after those that fill the window.
const ROUNDS: usize = 15;
const WARM_UP: usize = 11;
const MAX_IDS: usize = 1_000_000;

/// The allocator of `bellhop serve`, which counts here.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: mimalloc does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { mimalloc::MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { mimalloc::MiMalloc.realloc(memory, layout, size) }
    }
}

/// Counts an allocation. One thread counts, so that needs no atomic addition.
fn count() {
    ALLOCATIONS.store(ALLOCATIONS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn main() {
    println!("| set | stage | ns a reminder | allocations a reminder |");
    println!("| ---: | --- | ---: | ---: |");
    for set in [100, 1] {
        let mut member = Member::new(set);
        (0..WARM_UP).for_each(|_| drop(member.round()));
        let rounds: Vec<_> = (0..ROUNDS).map(|_| member.round()).collect();
        let stages: Vec<_> = rounds[0].iter().map(|stage| stage.name).collect();
        let mut all = Cost::default();
        for (at, name) in stages.into_iter().enumerate() {
            let mut times: Vec<_> = rounds.iter().map(|round| round[at].cost.time).collect();
            times.sort();
            let cost = Cost {
                time: times[ROUNDS / 2],
                allocations: rounds[ROUNDS / 2][at].cost.allocations,
            };
            all.add(cost);
            cost.print(set, name);
        }
        all.print(set, "all");
    }
}

/// The cost of a stage.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    time: Duration,
    allocations: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.time += other.time;
        self.allocations += other.allocations;
    }

    fn print(self, set: usize, stage: &str) {
        let ns = self.time.as_nanos() as f64 / ROUND as f64;
        let allocations = self.allocations as f64 / ROUND as f64;
        println!("| {set} | {stage} | {ns:.0} | {allocations:.2} |");
    }
}

struct Stage {
    name: &'static str,
    cost: Cost,
}

/// A member that works all partitions.
struct Member {
    set: usize,
    rules: Rules,
    lanes: Vec<Lane>,
    now: Now,
    published: usize,
    last: Mark,
}

/// A partition.
struct Lane {
    log: PartitionLog,
    machine: Router,
    in_work: BTreeMap<u64, (Event, usize)>,
    actions: Vec<Action>,
    deliveries: VecDeque<(Arc<Instance>, Company, Vec<Share>)>,
    settled: Vec<Settled>,
}

impl Member {
    fn new(set: usize) -> Self {
        let document = Document::parse(&load::rules()).expect("it has no problem");
        let engine = Arc::new(Engine::new(&document).expect("it has no problem"));
        let rules = Rules::default().with(TAG.parse().expect("it is a name"), Some(engine));
        let now = Now {
            instant: Instant::now(),
            unix_ms: 0,
        };
        let mut member = Self {
            set,
            rules,
            lanes: (0..PARTITIONS).map(|_| Lane::new()).collect(),
            now,
            published: 0,
            last: Mark::START,
        };
        member.connect_all();
        member
    }

    fn connect_all(&mut self) {
        let instances: Vec<_> = (0..LOAD.instances)
            .map(|number| {
                let name = LOAD.instance_name(number);
                Arc::new(Instance {
                    subject: format!("bellhop.app.{name}"),
                    name: name.parse().expect("it is a name"),
                })
            })
            .collect();
        for number in 0..LOAD.users {
            let user = LOAD.user_name(number).parse().expect("it is a name");
            let partition = bellhop_core::partition::of_user(&user, PARTITIONS);
            let input = Input::RouteUp {
                user,
                instance: instances[LOAD.instance_of(number)].clone(),
                revision: number as u64 + 1,
            };
            self.lanes[usize::from(partition.0)].feed(self.now, input);
        }
    }

    fn round(&mut self) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        for _ in 0..ROUND / BATCH {
            let batch = self.batch();
            if stages.is_empty() {
                stages = batch;
            } else {
                let pairs = stages.iter_mut().zip(batch);
                pairs.for_each(|(sum, one)| sum.cost.add(one.cost));
            }
        }
        stages
    }

    /// Takes a batch of sets through all stages.
    fn batch(&mut self) -> Vec<Stage> {
        let sets = BATCH / self.set;
        let bodies: Vec<Bytes> = (0..sets)
            .map(|number| {
                LOAD.set(self.published + number * self.set, self.set, 0)
                    .into()
            })
            .collect();
        self.published += BATCH;
        let (first, last) = (self.last.sequence + 1, self.last.sequence + sets as u64);
        let mut stages = Vec::new();
        let mut stage = |name, work: &mut dyn FnMut()| {
            let (before, began) = (ALLOCATIONS.load(Ordering::Relaxed), processor_time());
            work();
            let time = processor_time() - began;
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            stages.push(Stage {
                name,
                cost: Cost { time, allocations },
            });
        };
        let mut splits = Vec::with_capacity(sets);
        stage("read and split", &mut || {
            splits.extend(
                bodies
                    .iter()
                    .zip(first..)
                    .map(|(body, at)| split_one(body, at)),
            );
        });
        let lanes = &mut self.lanes;
        let mut before = self.last;
        stage("judge", &mut || {
            for (splitted, sequence) in splits.drain(..).zip(first..) {
                for (partition, slice) in splitted.slices {
                    let log = &mut lanes[usize::from(partition.0)].log;
                    log.take_in(slice, before);
                    log.progress.read(before.after(sequence, ms_of(sequence)));
                }
                before = before.after(sequence, ms_of(sequence));
            }
        });
        self.last = before;
        let planner = Planner {
            rules: &self.rules,
            merges: false,
        };
        let mut events: Vec<Vec<Event>> =
            (0..PARTITIONS).map(|_| Vec::with_capacity(BATCH)).collect();
        stage("plan", &mut || {
            for (lane, events) in lanes.iter_mut().zip(&mut events) {
                while let Some(next) = lane.log.next(&planner) {
                    events.push(next.planned.event);
                }
            }
        });
        stage("route", &mut || {
            for (lane, events) in lanes.iter_mut().zip(&mut events) {
                events
                    .drain(..)
                    .for_each(|event| lane.event(self.now, event));
            }
        });
        stage("deliver", &mut || {
            lanes.iter_mut().for_each(|lane| lane.deliver(self.now));
        });
        let settled: usize = lanes.iter().map(|lane| lane.settled.len()).sum();
        assert_eq!(settled, BATCH, "each reminder is delivered");
        stage("settle", &mut || lanes.iter_mut().for_each(Lane::settle));
        stage("checkpoint", &mut || {
            for lane in lanes.iter_mut() {
                lane.log.progress.read(Mark {
                    sequence: last,
                    stored_ms: ms_of(last),
                });
                let checkpoint = lane.log.progress.checkpoint();
                black_box(window::encode(&checkpoint.entries));
                lane.log.progress.stored(&checkpoint);
            }
        });
        stages
    }
}

/// The time for which this thread has had a processor: what else the machine does counts for
/// little.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().expect("it is not negative")
}

/// The time at which a set was stored: 10,000 sets a second.
fn ms_of(sequence: u64) -> i64 {
    (sequence / 10) as i64
}

fn split_one(body: &Bytes, sequence: u64) -> Split {
    let message = Message {
        source_token: "bench",
        sequence,
        stored_ms: ms_of(sequence),
        body,
        set: Ok(body),
        message_id: None,
        is_requeued: false,
        is_due: false,
        trace: None,
    };
    split(&message, PARTITIONS)
}

impl Lane {
    fn new() -> Self {
        let ids = MAX_IDS / usize::from(PARTITIONS);
        let found = StartState {
            settled: Mark::START,
            outcomes: 0,
            window: Window::new(Duration::from_secs(600), ids),
            done: AllDone::new(),
            parked: Default::default(),
        };
        Self {
            log: PartitionLog::new(found),
            machine: Router::new(settings::settings()),
            in_work: BTreeMap::new(),
            actions: Vec::new(),
            deliveries: VecDeque::new(),
            settled: Vec::new(),
        }
    }

    fn event(&mut self, now: Now, event: Event) {
        let sequence = event.index.sets[0].sequence;
        let entry = |(index, reminder): (usize, &bellhop_core::event::IndexEntry)| {
            let entry = Entry {
                item: Item::Event { sequence, index },
                expires_at: reminder.expires_at,
                bytes: reminder.bytes + 1,
                may_reroute: true,
                source: event.set_of(index).source.clone(),
                priority: reminder.priority,
                text: None,
            };
            (reminder.user.clone(), entry)
        };
        let reminders = event.index.reminders.iter().enumerate();
        let input = Input::Event(reminders.map(entry).collect());
        let unsettled = event.bodies.len();
        self.in_work.insert(sequence, (event, unsettled));
        self.feed(now, input);
    }

    fn feed(&mut self, now: Now, input: Input) {
        self.machine.handle(now, input, &mut self.actions);
        let mut answers = Vec::new();
        for action in self.actions.drain(..) {
            match action {
                Action::Deliver {
                    instance,
                    company,
                    shares,
                    ..
                } => self.deliveries.push_back((instance, company, shares)),
                Action::Settle(items) => self.settled.extend(items),
                Action::Heartbeat { instance, users } => answers.push(Input::HeartbeatAnswered {
                    instance,
                    answer: Ok(users),
                }),
                other => panic!("all users are connected: {other:?}"),
            }
        }
        answers
            .into_iter()
            .for_each(|answer| self.feed(now, answer));
    }

    /// Instances get what waits for them, and accept it.
    fn deliver(&mut self, now: Now) {
        while let Some((instance, company, shares)) = self.deliveries.pop_front() {
            let items = shares.iter().flat_map(|share| &share.items);
            let bodies = items.map(|item| match item {
                Item::Event { sequence, index } => &*self.in_work[sequence].0.bodies[*index],
                Item::Parked { .. } => panic!("nothing is parked"),
            });
            black_box(delivery_body(bodies));
            let input = Input::Delivered {
                instance,
                company,
                answer: Ok(Vec::new()),
            };
            self.feed(now, input);
        }
    }

    fn settle(&mut self) {
        for settled in self.settled.drain(..) {
            let Item::Event { sequence, .. } = settled.item else {
                continue;
            };
            self.log.progress.settle(sequence, 1);
            if let Some((_, unsettled)) = self.in_work.get_mut(&sequence) {
                *unsettled -= 1;
                if *unsettled == 0 {
                    self.in_work.remove(&sequence);
                }
            }
        }
    }
}
