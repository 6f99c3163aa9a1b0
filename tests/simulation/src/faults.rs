//! The kinds of faults. Each run draws which of it does, and how often: a world in which everything
//! always fails never gets far enough to fail in an interesting way.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A request to an instance never arrives.
    LostRequests,
    /// An answer never arrives: the effect of the request is unknown.
    LostAnswers,
    /// A delivery arrives, and is accepted, long after its time-out.
    LateRequests,
    /// A request waits for others to the same app server, and is given back.
    Queues,
    /// A reminder cannot be read by app servers: a request that has it is not answered.
    Unreadable,
    /// App servers are busy, slow, hung, silent, gone or confused.
    Moods,
    /// Durations of milliseconds become a quarter of a second.
    Slowness,
    /// A user's route comes and goes, several times within milliseconds.
    Flapping,
    /// An app server forgets to delete the route of a user who has left.
    ForgottenRoutes,
    /// News of routes and associates come seconds late.
    StaleWatches,
    /// Routes are looked up at a replica that is behind.
    StaleLookUps,
    /// A look-up is never answered.
    HungLookUps,
    /// Mailboxes are read at a replica that is behind, and in pages of any size.
    ReplicaLag,
    /// The owner dies. Its messages arrive late or never.
    Crashes,
    /// Another owner takes over, and the one before goes on for a while.
    FailOvers,
    /// The owner is asked to stop, and finishes what is in flight.
    HandOvers,
    /// An append to mailboxes is not confirmed, whether it was stored or not.
    UnconfirmedAppends,
    /// JetStream refuses an append to mailboxes, as when it has no room.
    RefusedAppends,
    /// A removal is lost.
    LostRemovals,
    /// A set is published again, or another reminder under its id.
    RepeatedSets,
    /// A set, or a reminder of it, is wrong.
    InvalidSets,
    /// The server loses the newest sets, and gives their sequences again.
    PowerLosses,
    /// A stored position is not confirmed.
    UnconfirmedPositions,
    /// Reminders expire soon, at any step of their way.
    Expiry,
    /// The wall clock is set forward or back.
    ClockSteps,
}

impl Fault {
    /// All there are, with their names.
    pub const ALL: [(Self, &str); 25] = [
        (Self::LostRequests, "lost-requests"),
        (Self::LostAnswers, "lost-answers"),
        (Self::LateRequests, "late-requests"),
        (Self::Queues, "queues"),
        (Self::Unreadable, "unreadable"),
        (Self::Moods, "moods"),
        (Self::Slowness, "slowness"),
        (Self::Flapping, "flapping"),
        (Self::ForgottenRoutes, "forgotten-routes"),
        (Self::StaleWatches, "stale-watches"),
        (Self::StaleLookUps, "stale-look-ups"),
        (Self::HungLookUps, "hung-look-ups"),
        (Self::ReplicaLag, "replica-lag"),
        (Self::Crashes, "crashes"),
        (Self::FailOvers, "fail-overs"),
        (Self::HandOvers, "hand-overs"),
        (Self::UnconfirmedAppends, "unconfirmed-appends"),
        (Self::RefusedAppends, "refused-appends"),
        (Self::LostRemovals, "lost-removals"),
        (Self::RepeatedSets, "repeated-sets"),
        (Self::InvalidSets, "invalid-sets"),
        (Self::PowerLosses, "power-losses"),
        (Self::UnconfirmedPositions, "unconfirmed-positions"),
        (Self::Expiry, "expiry"),
        (Self::ClockSteps, "clock-steps"),
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(fault, _)| fault == self)
            .map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.iter().find(|(_, name)| *name == text);
        named.map(|(fault, _)| *fault).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("`{text}` is no fault; there are {}", names.join(", "))
        })
    }
}

/// The frequency of each kind in a run, in thousandths of the occasions.
#[derive(Debug, Clone, Default)]
pub struct Faults(BTreeMap<Fault, u32>);

impl Faults {
    /// Half of the kinds never, the others now and then, or often.
    pub fn draw(rng: &mut Rng) -> Self {
        let draw = |(fault, _)| (fault, [0, 0, 0, 40, 40, 250][rng.usize(0..6)]);
        Self(
            Fault::ALL
                .map(draw)
                .into_iter()
                .filter(|(_, often)| *often > 0)
                .collect(),
        )
    }

    /// Returns the kinds that can strike.
    pub fn kinds(&self) -> impl Iterator<Item = Fault> + '_ {
        self.0.keys().copied()
    }

    /// Without one kind.
    pub fn remove(&mut self, fault: Fault) {
        self.0.remove(&fault);
    }

    /// Returns the frequency.
    pub fn often(&self, fault: Fault) -> u32 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// Returns whether it strikes now. A fault that never strikes draws no number.
    pub fn strikes(&self, rng: &mut Rng, fault: Fault) -> bool {
        let often = self.often(fault);
        often > 0 && rng.u32(0..1_000) < often
    }
}
