//! Outcomes of reminders, as in the stream `BELLHOP_OUTCOMES`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::reject::RejectCode;
use crate::token::{InstanceName, Source, Tag, UserId};

/// The outcome of a reminder. All are final but [`Outcome::Parked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// App-server instances accepted it.
    Delivered {
        /// The first of them.
        instance: InstanceName,
        /// All of them, where they are several.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        instances: Vec<InstanceName>,
    },
    /// An associate's instance accepted it, while the user was away.
    Rerouted {
        /// The instance.
        instance: InstanceName,
        /// The associate.
        to: UserId,
    },
    /// It waits in the user's mailbox.
    Parked {
        /// It has waited for long: the publisher may want to reach the user another way.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        escalated: bool,
    },
    /// Another reminder with the same user and text, of its set or an earlier one, stands for it.
    Merged {
        /// That reminder's id.
        into: String,
    },
    /// A rule says that it is not to be delivered.
    Blocked {
        /// The tag whose rule it is.
        tag: Tag,
        /// The rule's name.
        rule: String,
    },
    /// Its business system took it back before its `deliver_at`.
    Cancelled,
    /// Its `expires_at` passed before it could be delivered.
    Expired {
        /// That time.
        expires_at: Timestamp,
    },
    /// It was refused, and lies in `BELLHOP_REJECTED`.
    Rejected {
        /// The reason.
        #[serde(serialize_with = "code_as_text")]
        error: RejectCode,
    },
}

/// The names of all outcomes.
pub const NAMES: [&str; 8] = [
    "delivered",
    "rerouted",
    "parked",
    "merged",
    "blocked",
    "cancelled",
    "expired",
    "rejected",
];

impl Outcome {
    /// Its name, as it stands in the stream.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Rerouted { .. } => "rerouted",
            Self::Parked { .. } => "parked",
            Self::Merged { .. } => "merged",
            Self::Blocked { .. } => "blocked",
            Self::Cancelled => "cancelled",
            Self::Expired { .. } => "expired",
            Self::Rejected { .. } => "rejected",
        }
    }

    /// Accepted by these, the first first; none if there are none.
    pub fn delivered(by: Vec<InstanceName>) -> Option<Self> {
        let instance = by.first()?.clone();
        Some(Self::Delivered {
            instance,
            instances: if by.len() > 1 { by } else { Vec::new() },
        })
    }
}

fn code_as_text<S: serde::Serializer>(code: &RejectCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

/// One line of the outcomes stream: which reminder, what, when.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Outcome")
)]
pub struct Record {
    /// The reminder's id.
    pub id: String,
    /// Its business system.
    pub source: Source,
    /// Its set.
    pub set: String,
    /// The user for whom it was published; `null` for a refused reminder that has no user, or one
    /// that is not a valid name.
    pub user: Option<UserId>,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Time of the decision.
    pub at: Timestamp,
}

/// A message of the outcomes stream.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Outcomes")
)]
pub struct Batch<R> {
    /// Outcomes of one source.
    pub outcomes: Vec<R>,
}
