//! Reminders that an instance never answers, as members name them to operators.

use serde::{Deserialize, Serialize};

use crate::token::{InstanceName, Source, UserId};

/// So many are named by a member: enough to see whose they are.
pub const MAX_NAMED: usize = 20;

/// A reminder that is held back, because an instance left it unanswered, alone, several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Whose it is.
    pub user: UserId,
    /// Its source.
    pub source: Source,
    /// Its id.
    pub id: String,
    /// Where it was tried last.
    pub instance: InstanceName,
    /// How often it was tried alone.
    pub tries: u32,
}
