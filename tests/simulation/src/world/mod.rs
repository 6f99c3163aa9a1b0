//! The world: one clock, one agenda, one random number generator, and what they are for.
//!
//! | module | |
//! | --- | --- |
//! | [`ledger`] | the reference: each reminder, what became of it, and what may become of it |
//! | [`nats`] | streams, mailboxes, routes |
//! | [`publishing`] | who publishes sets, and what must become of each reminder |
//! | [`people`] | who connects and leaves |
//! | [`apps`] | app servers, and requests to them |
//! | [`owner`] | a process that works the partition: a machine, and the shell around it |
//! | [`reading`] | how the shell reads the log, stores positions and removes the front |
//! | [`record`] | what the shell sends to be stored |
//! | [`settling`] | how the shell parks, records and removes |
//! | [`succession`], [`stage`] | how owners end and begin |
//! | [`subscribers`] | the readers of the log |

mod apps;
mod ledger;
mod nats;
mod owner;
mod people;
mod publishing;
mod reading;
mod record;
mod settling;
mod stage;
mod subscribers;
mod succession;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bellhop_core::log::Subscriber;
use bellhop_core::log::progress::{Checkpoint, Hold};
use bellhop_core::log::readers::ReaderId;
use bellhop_core::router::{Company, Input, Now, Settings};
use bellhop_core::rules::Rules;
use bellhop_core::rules::document::Document;
use bellhop_core::rules::engine::Engine;
use bellhop_protocol::token::UserId;
use fastrand::Rng;

use self::apps::{AppServer, Mood, Parts};
use self::ledger::Ledger;
use self::nats::Nats;
use self::owner::Owner;
use self::publishing::{Draft, Publications};
use self::reading::{SetsWork, SliceRefused};
use self::record::{Parcel, Records};
use self::stage::Stage;
use crate::faults::{Fault, Faults};
use crate::scenario::{LogSettings, Plan, Planned, Scenario, Step};

/// Later than any back-off, expiry or sweep of a run.
const PATIENCE_MS: u64 = 300_000;
/// More than any run needs: a machine that wants something indefinitely, without time passing, is
/// stopped.
const MAX_HAPPENINGS: u64 = 300_000;

pub struct World {
    rng: Rng,
    faults: Faults,
    settings: Settings,
    log_settings: LogSettings,
    /// The rules of this moment.
    rules: Rules,
    publications: Publications,
    start: Instant,
    /// Milliseconds since the start.
    at: u64,
    /// Difference between the wall clock and that clock.
    wall_ahead: i64,
    agenda: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    happened: u64,
    nats: Nats,
    ledger: Ledger,
    /// The users whose reminders the machine routes.
    users: Vec<UserId>,
    /// Users of other partitions, who may be associates.
    strangers: Vec<UserId>,
    apps: Vec<AppServer>,
    /// The owners of the partition, or those that believe to be, by number. The last one has the
    /// word.
    owners: BTreeMap<u64, Owner>,
    newest: u64,
    /// Time by which the outcomes of an owner that stopped in doubt, and whose process continues,
    /// are recorded.
    flushed_at: u64,
    is_healing: bool,
    /// The machine checks itself after every step.
    is_audited: bool,
    /// Numbers of events, by kind.
    pub tally: BTreeMap<&'static str, u64>,
    /// The trace of the run, if it is requested.
    pub trace: Option<Vec<String>>,
}

/// An event at some time.
#[derive(Debug)]
enum Happening {
    /// A step of the plan.
    Step(Planned),
    /// A new owner begins, if there is none.
    Begin,
    /// In an owner's process, and only while it lives.
    Inside(u64, Inside),
    /// It was sent, and arrives whether its sender lives or not.
    Arrives(Sent),
}

/// An event in an owner's process.
#[derive(Debug)]
enum Inside {
    TakeOver(Stage),
    Feed,
    Tell(Input),
    /// Of routes and associates.
    News(Input),
    Submit(Records),
    Recorded(Records, u64),
    /// The effect of an append is unknown.
    Doubt,
    /// The reader takes its next set.
    ReadLog(ReaderId),
    /// A connection that was cut is there again.
    Reconnected,
    /// It is time to store positions, and to remove the front.
    Checkpoint,
    EntriesStored(Subscriber, Checkpoint),
    PositionStored(Subscriber, Checkpoint, u64),
    /// The work for a set itself is done.
    SetWorked(Box<SetsWork>),
    /// Refused reminders of a slice are stored.
    Refused(Box<SliceRefused>),
    Remove(UserId, std::ops::RangeInclusive<u64>, usize, Vec<Hold>),
    Removed(usize, Vec<Hold>),
    /// Others may hold by now what it held.
    LeaseEnds,
}

/// A message on its way, and the owner that sent it.
#[derive(Debug)]
enum Sent {
    Delivery {
        from: Option<u64>,
        app: usize,
        company: Company,
        parts: Parts,
    },
    Heartbeat {
        from: u64,
        app: usize,
        users: Vec<UserId>,
    },
    LookUp {
        from: u64,
        user: UserId,
        associate: UserId,
    },
    DropRoute {
        from: u64,
        user: UserId,
        app: usize,
        revision: u64,
    },
    Read {
        from: u64,
        user: UserId,
        first: u64,
        last: u64,
    },
    Count {
        from: u64,
        user: UserId,
        known: Option<usize>,
    },
    Park {
        from: u64,
        batch: Vec<Parcel>,
        is_confirmed: bool,
    },
    Record {
        from: u64,
        records: Records,
    },
    Set(Arc<Draft>),
    Entries {
        from: u64,
        of: Subscriber,
        checkpoint: Checkpoint,
    },
    Position {
        from: u64,
        of: Subscriber,
        checkpoint: Checkpoint,
        revision: u64,
        is_last: bool,
    },
    Purge {
        from: u64,
        upto: u64,
    },
    Removal {
        from: u64,
        user: UserId,
        range: std::ops::RangeInclusive<u64>,
        count: usize,
        holds: Vec<Hold>,
    },
}

impl World {
    #[allow(clippy::disallowed_methods)] // Some instant is needed to count from; which one makes no difference.
    pub fn new(scenario: &Scenario, is_traced: bool) -> Self {
        let Plan {
            settings,
            log,
            faults,
            people: (users, strangers, apps),
            steps,
        } = scenario.plan();
        let names =
            |all: &[&str], count: usize| all[..count].iter().map(|name| named(name)).collect();
        let mut world = Self {
            rng: scenario.rng(),
            faults,
            settings,
            log_settings: log,
            rules: Rules::default(),
            publications: Publications::default(),
            start: Instant::now(),
            at: 0,
            wall_ahead: 0,
            agenda: BTreeMap::new(),
            scheduled: 0,
            happened: 0,
            nats: Nats::default(),
            ledger: Ledger::default(),
            users: names(&["alice", "bob", "carol", "dave"], users),
            strangers: names(&["erin", "frank"], strangers),
            apps: (1..=apps).map(AppServer::new).collect(),
            owners: BTreeMap::new(),
            newest: 0,
            flushed_at: 0,
            is_healing: false,
            is_audited: !scenario.is_unaudited,
            tally: BTreeMap::new(),
            trace: is_traced.then(Vec::new),
        };
        let faults: Vec<_> = world
            .faults
            .kinds()
            .map(|fault| fault.to_string())
            .collect();
        world.tell_of(|| format!("faults: {}", faults.join(", ")));
        for planned in steps {
            world.after(planned.at, Happening::Step(planned));
        }
        world.begin();
        world
    }

    /// Everything that was planned happens.
    pub fn live(&mut self) {
        while self
            .agenda
            .values()
            .any(|happening| matches!(happening, Happening::Step(_)))
        {
            self.happen();
        }
    }

    /// Everything gets well, and time passes until nothing is left to happen. Then every reminder
    /// has come to its end.
    pub fn heal(&mut self) {
        self.tell_of(|| "everything heals".into());
        self.is_healing = true;
        self.faults = Faults::default();
        for app in &mut self.apps {
            app.mood = Mood::Well;
        }
        for user in self.users.clone() {
            if !self.apps.iter().any(|app| app.connected.contains(&user)) {
                let app = self.rng.usize(0..self.apps.len());
                self.connect(&user, app);
            }
        }
        self.run_out();
        self.assert_everything_is_over();
    }

    /// Everybody leaves: the machine has nothing to remember.
    pub fn desert(&mut self) {
        for (user, instance) in self.nats.routes.keys().cloned().collect::<Vec<_>>() {
            self.delete_route(&user, &instance);
        }
        for user in std::mem::take(&mut self.nats.associates).into_keys() {
            self.watch(
                &user,
                Input::Associates {
                    user: user.clone(),
                    associates: Vec::new(),
                },
            );
        }
        self.run_out();
        let machine = &self.owners[&self.newest].partition;
        assert!(machine.is_empty(), "{machine:#?}");
    }

    fn run_out(&mut self) {
        let until = self.at + PATIENCE_MS;
        while !self.agenda.is_empty() || self.deadline().is_some() {
            self.happen();
            assert!(self.at < until, "it never ends: {:#?}", self.owners);
        }
    }

    fn assert_everything_is_over(&self) {
        assert!(self.owners.len() == 1, "{:?} own it", self.owners.keys());
        self.owners[&self.newest].assert_nothing_is_left();
        self.assert_log_is_over();
        assert!(
            self.nats.mailboxes.values().all(BTreeMap::is_empty),
            "not empty: {:?}",
            self.nats.mailboxes
        );
        self.ledger.assert_everything_has_an_end();
    }

    // Time.

    fn now(&self) -> Now {
        Now {
            instant: self.start + Duration::from_millis(self.at),
            unix_ms: self.wall_ms(),
        }
    }

    /// Returns the time of the wall clock.
    fn wall_ms(&self) -> i64 {
        i64::try_from(self.at).expect("a run is short") + self.wall_ahead
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.scheduled += 1;
        self.agenda
            .insert((self.at + delay, self.scheduled), happening);
    }

    fn inside(&mut self, owner: u64, delay: u64, what: Inside) {
        self.after(delay, Happening::Inside(owner, what));
    }

    fn send(&mut self, sent: Sent) {
        let delay = self.latency();
        self.after(delay, Happening::Arrives(sent));
    }

    /// Mostly quick, sometimes not.
    fn latency(&mut self) -> u64 {
        let is_slow = self.strikes(Fault::Slowness);
        if is_slow {
            self.rng.u64(20..250)
        } else {
            self.rng.u64(0..15)
        }
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        self.faults.strikes(&mut self.rng, fault)
    }

    /// Returns the time at which an owner's machine wants a tick, and the owner.
    fn deadline(&self) -> Option<(u64, u64)> {
        let millis = |at: Instant| {
            u64::try_from(at.saturating_duration_since(self.start).as_millis())
                .expect("a run is short")
        };
        let deadlines = self.owners.iter().filter_map(|(number, owner)| {
            owner
                .partition
                .next_deadline()
                .map(|at| (millis(at).max(self.at), *number))
        });
        deadlines.min()
    }

    /// The next thing happens: something on the agenda, or a deadline of a machine.
    fn happen(&mut self) {
        self.happened += 1;
        assert!(
            self.happened < MAX_HAPPENINGS,
            "it never rests: {:#?}",
            self.owners
        );
        let deadline = self.deadline();
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let is_tick = match (deadline, agenda) {
            (Some((deadline, _)), Some(agenda)) if deadline == agenda => self.rng.bool(),
            (Some((deadline, _)), Some(agenda)) => deadline < agenda,
            (deadline, _) => deadline.is_some(),
        };
        if let Some((at, owner)) = deadline.filter(|_| is_tick) {
            self.at = at;
            self.tell(owner, Input::Tick);
        } else if let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.at = at;
            self.on(happening);
        }
        for owner in self.owners.keys().copied().collect::<Vec<_>>() {
            self.keep_going(owner);
        }
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Step(planned) => self.step(planned),
            Happening::Begin if !self.owners.contains_key(&self.newest) => self.begin(),
            Happening::Inside(owner, what) if self.owners.contains_key(&owner) => {
                self.go_on(owner, what)
            }
            Happening::Begin | Happening::Inside(..) => {} // An owner has begun, or its process has ended.
            Happening::Arrives(sent) => self.arrives(sent),
        }
    }

    fn step(
        &mut self,
        Planned {
            number, step, luck, ..
        }: Planned,
    ) {
        self.tell_of(|| format!("step {number}: {step:?}"));
        let mut luck = Rng::with_seed(luck);
        match step {
            Step::Publish => self.publish(&mut luck),
            Step::Roam => self.roam(&mut luck),
            Step::Associate => self.associate(&mut luck),
            Step::Mood => self.change_mood(&mut luck),
            Step::Flap => self.flap(&mut luck),
            Step::Crash => self.crash(&mut luck),
            Step::FailOver => self.fail_over(&mut luck),
            Step::HandOver => self.hand_over(),
            Step::ClockStep => self.wall_ahead += luck.i64(-3_000..=3_000),
            Step::PowerLoss => self.power_loss(&mut luck),
            Step::Rules => {
                self.rules = if luck.bool() {
                    blocking()
                } else {
                    Rules::default()
                }
            }
        }
    }

    fn go_on(&mut self, owner: u64, what: Inside) {
        match what {
            Inside::TakeOver(stage) => self.take_over(owner, stage),
            Inside::Feed => self.feed(owner),
            Inside::Tell(input) => self.tell(owner, input),
            Inside::News(input) => self.hear(owner, input),
            Inside::Submit(records) => self.submit(owner, records),
            Inside::Recorded(records, sequence) => self.recorded(owner, records, sequence),
            Inside::Doubt => self.doubt(owner),
            Inside::ReadLog(reader) => self.read_log(owner, reader),
            Inside::Reconnected => self.reconnected(owner),
            Inside::Checkpoint => self.checkpoint(owner),
            Inside::EntriesStored(of, checkpoint) => self.entries_are_stored(owner, of, checkpoint),
            Inside::PositionStored(of, checkpoint, revision) => {
                self.position_is_stored(owner, of, &checkpoint, revision)
            }
            Inside::SetWorked(work) => self.set_is_worked(owner, *work),
            Inside::Refused(refused) => self.slice_is_refused(owner, *refused),
            Inside::Remove(user, range, count, holds) => {
                self.remove(owner, user, range, count, holds)
            }
            Inside::Removed(count, holds) => self.removed(owner, count, holds),
            Inside::LeaseEnds => self.lease_ends(owner),
        }
    }

    fn arrives(&mut self, sent: Sent) {
        match sent {
            Sent::Delivery {
                from,
                app,
                company,
                parts,
            } => self.delivery_arrives(from, app, company, &parts),
            Sent::Heartbeat { from, app, users } => self.heartbeat_arrives(from, app, &users),
            Sent::LookUp {
                from,
                user,
                associate,
            } => self.look_up_is_served(from, user, associate),
            Sent::DropRoute {
                user,
                app,
                revision,
                ..
            } => self.drop_route(&user, app, revision),
            Sent::Read {
                from,
                user,
                first,
                last,
            } => self.read_is_served(from, user, first, last),
            Sent::Count { from, user, known } => self.count_is_served(from, user, known),
            Sent::Park {
                from,
                batch,
                is_confirmed,
            } => self.park_arrives(from, batch, is_confirmed),
            Sent::Record { from, records } => self.record_arrives(from, records),
            Sent::Set(draft) => self.set_arrives(draft),
            Sent::Entries {
                from,
                of,
                checkpoint,
            } => self.entries_arrive(from, of, checkpoint),
            Sent::Position {
                from,
                of,
                checkpoint,
                revision,
                is_last,
            } => {
                self.position_arrives(from, of, checkpoint, revision, is_last);
            }
            Sent::Purge { from, upto } => self.purge_arrives(from, upto),
            Sent::Removal {
                from,
                user,
                range,
                count,
                holds,
            } => {
                self.removal_arrives(from, &user, range, count, holds);
            }
        }
    }

    // Telling.

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn tell_of(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} {}", self.at, what()));
        }
    }
}

/// Returns a name that is one.
fn named<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the simulation's names are names")
}

/// Rules that block a reminder with the keyword and the tag.
fn blocking() -> Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    let make = || {
        let keyword = publishing::BLOCKED;
        let document =
            format!(r#"{{"rules":[{{"name":"b","keywords":["{keyword}"],"action":"block"}}]}}"#);
        let document = Document::parse(document.as_bytes()).expect("it is a document");
        Rules::default().with(
            named("t"),
            Some(Arc::new(
                Engine::new(&document).expect("it has few keywords"),
            )),
        )
    };
    RULES.get_or_init(make).clone()
}
