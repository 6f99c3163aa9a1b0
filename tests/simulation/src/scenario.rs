//! The scenario of a seed: the settings, the faults and the plan of a run. All of it is drawn
//! before the run begins, and every step of the plan has luck of its own, so that a step can be
//! left out and the others stay what they are.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use bellhop_core::router::{Room, Settings};
use fastrand::Rng;

use crate::faults::{Fault, Faults};

/// A seed, and the omitted parts of its plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scenario {
    /// Draws settings, faults and plan.
    pub seed: u64,
    /// With the seed, draws everything else: how long a request takes, whether a fault strikes.
    pub luck: u64,
    /// Kinds of faults left out.
    pub without: BTreeSet<Fault>,
    /// The steps of the plan that are kept; all, if none are named.
    pub only: Option<BTreeSet<usize>>,
    /// The machine does not check itself: what fails can be seen from outside.
    pub is_unaudited: bool,
}

/// Something that happens from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A source publishes.
    Publish,
    /// A user connects, leaves or moves.
    Roam,
    /// A user names associates.
    Associate,
    /// An app server begins to behave in another way.
    Mood,
    /// A route comes and goes.
    Flap,
    /// The owner dies.
    Crash,
    /// Another owner takes over from one that goes on.
    FailOver,
    /// The owner is asked to stop.
    HandOver,
    /// The wall clock is set.
    ClockStep,
    /// The server loses the newest sets.
    PowerLoss,
    /// The rules become others.
    Rules,
}

impl Step {
    /// Returns the kind of the fault, if it is one.
    fn fault(self) -> Option<Fault> {
        match self {
            Self::Publish | Self::Roam | Self::Associate | Self::Rules => None,
            Self::Mood => Some(Fault::Moods),
            Self::Flap => Some(Fault::Flapping),
            Self::Crash => Some(Fault::Crashes),
            Self::FailOver => Some(Fault::FailOvers),
            Self::HandOver => Some(Fault::HandOvers),
            Self::ClockStep => Some(Fault::ClockSteps),
            Self::PowerLoss => Some(Fault::PowerLosses),
        }
    }

    /// Returns its frequency in plans, relative to the others.
    fn weight(self, faults: &Faults) -> u32 {
        let often = |fault, now_and_then, often| match faults.often(fault) {
            0 => 0,
            1..=100 => now_and_then,
            _ => often,
        };
        match self {
            Self::Publish => 450,
            Self::Roam => 300,
            Self::Associate => 50,
            Self::Mood => often(Fault::Moods, 60, 200),
            Self::Flap => often(Fault::Flapping, 20, 80),
            Self::Crash => often(Fault::Crashes, 20, 80),
            Self::FailOver => often(Fault::FailOvers, 20, 80),
            Self::HandOver => often(Fault::HandOvers, 20, 60),
            Self::ClockStep => often(Fault::ClockSteps, 10, 40),
            Self::PowerLoss => often(Fault::PowerLosses, 20, 60),
            Self::Rules => 30,
        }
    }

    const ALL: [Self; 11] = [
        Self::Publish,
        Self::Roam,
        Self::Associate,
        Self::Mood,
        Self::Flap,
        Self::Crash,
        Self::FailOver,
        Self::HandOver,
        Self::ClockStep,
        Self::PowerLoss,
        Self::Rules,
    ];
}

/// A step, when it happens, and what it draws from.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// Its place in the whole plan.
    pub number: usize,
    /// Milliseconds since the start.
    pub at: u64,
    /// The step.
    pub step: Step,
    /// Draws its details.
    pub luck: u64,
}

/// Settings of what reads the log.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Time for which a reminder's id is remembered.
    pub window: Duration,
    /// Bytes that may wait in a partition.
    pub queue_bytes: usize,
}

/// All that is drawn before a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The machine's settings.
    pub settings: Settings,
    /// The log's settings.
    pub log: LogSettings,
    /// The frequencies of faults.
    pub faults: Faults,
    /// Numbers of users, other partitions' users, and app servers.
    pub people: (usize, usize, usize),
    /// The steps, in the order of time.
    pub steps: Vec<Planned>,
}

impl Scenario {
    /// The whole run of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Draws what happens.
    pub fn plan(&self) -> Plan {
        let mut rng = Rng::with_seed(self.seed);
        let settings = draw_settings(&mut rng);
        let log = LogSettings {
            window: Duration::from_millis(pick(&mut rng, &[300, 5_000, 600_000])),
            queue_bytes: pick(&mut rng, &[1, 4_000, 1 << 20]),
        };
        let mut faults = Faults::draw(&mut rng);
        let people = (rng.usize(1..=4), rng.usize(0..=2), rng.usize(1..=3));
        let mut steps = draw_steps(&mut rng, &faults);
        steps.retain(|planned| {
            let is_kept = self
                .only
                .as_ref()
                .is_none_or(|only| only.contains(&planned.number));
            is_kept
                && planned
                    .step
                    .fault()
                    .is_none_or(|fault| !self.without.contains(&fault))
        });
        self.without.iter().for_each(|fault| faults.remove(*fault));
        Plan {
            settings,
            log,
            faults,
            people,
            steps,
        }
    }

    /// Returns the generator of the run's own random numbers.
    pub fn rng(&self) -> Rng {
        Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.luck.wrapping_add(1))
    }
}

/// The options that run it again.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if self.luck > 0 {
            write!(f, " --luck {}", self.luck)?;
        }
        if !self.without.is_empty() {
            write!(f, " --without {}", listed(&self.without))?;
        }
        if self.is_unaudited {
            f.write_str(" --unaudited")?;
        }
        self.only
            .iter()
            .try_for_each(|only| write!(f, " --only {}", listed(only)))
    }
}

fn listed<T: ToString>(things: &BTreeSet<T>) -> String {
    things
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

fn draw_settings(rng: &mut Rng) -> Settings {
    let lease = Duration::from_millis(pick(rng, &[0, 300, 5_000]));
    Settings {
        lease,
        ask_ahead: lease / 4 * rng.u32(0..=1),
        instance_backoff: (Duration::from_millis(100), Duration::from_secs(2)),
        busy_backoff: (Duration::from_millis(50), Duration::from_secs(1)),
        all_devices: rng.bool(),
        turn_timeout: Duration::from_millis(pick(rng, &[16, 200, 2_000])), // The eighth of it is whole milliseconds, too.
        heartbeat_users: rng.usize(1..=3),
        delivery_bytes: pick(rng, &[150, 150, 1_500]),
        room: Room {
            limit: pick(rng, &[3, 10, 20, 1_000]),
            reserve: pick(rng, &[0, 10]),
            source_share: pick(rng, &[50, 100]),
        },
        park_batch: (rng.usize(1..=4), 300),
        park_again: (Duration::from_millis(10), Duration::from_millis(200)),
        reads_in_flight: rng.usize(1..=2),
        expiry_interval: Duration::from_secs(1),
        copy_rerouted: rng.u32(0..3) == 0,
        reroute_after: Duration::from_millis(pick(rng, &[0, 300, 3_000])),
        expected_most: (pick(rng, &[2, 500]), pick(rng, &[300, 2 << 20])),
        reroute_timeout: Duration::from_millis(pick(rng, &[100, 1_000, 5_000])),
        merge_window: Duration::from_millis(pick(rng, &[0, 300, 10_000])),
        merge_limit: rng.usize(1..=8),
    }
}

fn draw_steps(rng: &mut Rng, faults: &Faults) -> Vec<Planned> {
    let until = rng.u64(1_000..12_000);
    let weights = Step::ALL.map(|step| step.weight(faults));
    let mut steps: Vec<_> = (0..rng.usize(10..70))
        .map(|_| {
            let mut point = rng.u32(0..weights.iter().sum());
            let step = Step::ALL.into_iter().zip(weights).find(|(_, weight)| {
                let is_here = point < *weight;
                point = point.saturating_sub(*weight);
                is_here
            });
            (
                rng.u64(0..until),
                step.map_or(Step::Publish, |(step, _)| step),
                rng.u64(..),
            )
        })
        .collect();
    steps.sort_by_key(|(at, _, _)| *at);
    let planned = |(number, (at, step, luck))| Planned {
        number,
        at,
        step,
        luck,
    };
    steps.into_iter().enumerate().map(planned).collect()
}

/// One of these.
pub(crate) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}
