//! The answer to an erasure.

use serde::{Deserialize, Serialize};

/// Numbers of removed entries, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Erased {
    /// Reminders of the history.
    pub history: u64,
    /// Reminders of the mailbox.
    pub parked: u64,
    /// Reminders that were to be delivered later; absent if there were none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub scheduled: u64,
    /// Routes.
    pub routes: u64,
    /// The user's list of associates, and others' lists that named the user.
    pub associates: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}
