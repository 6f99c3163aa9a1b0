//! The records that members write to their bucket, for each other and for operators.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::token::{InstanceName, Source, UserId};

/// The most reminders that a member names as held back: enough to see whose they are.
pub const MAX_HELD_BACK: usize = 20;

/// The most names that a member reports as used by several app servers.
pub const MAX_SHARED_NAMES: usize = 20;

/// The value of a member's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its version.
    pub version: String,
    /// Partitions it holds.
    pub partitions: BTreeSet<u16>,
    /// True if it holds the intake.
    pub intake: bool,
    /// True if it announces reminders that stay parked.
    #[serde(default)]
    pub escalation: bool,
    /// True if it writes the history.
    #[serde(default)]
    pub history: bool,
    /// It gives everything up and takes nothing.
    pub stopping: bool,
    /// Reminders that no instance answers, [`MAX_HELD_BACK`] of them at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
    /// Names under which several app servers answer, [`MAX_SHARED_NAMES`] of them at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_names: Vec<InstanceName>,
}

/// A reminder that is held back, because an instance left it unanswered, alone, several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The reminder's user.
    pub user: UserId,
    /// Its source.
    pub source: Source,
    /// Its id.
    pub id: String,
    /// The instance that was tried last.
    pub instance: InstanceName,
    /// Number of attempts to deliver it alone.
    pub tries: u32,
}
