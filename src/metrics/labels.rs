//! The labels of the metrics. Each is a closed set of values.

use std::fmt::Debug;

use strum::{IntoStaticStr, VariantArray};

use crate::partition::Role;
use crate::reminder::Priority;
use crate::reminder::outcome::Outcome;
use crate::reminder::reject::RejectCode;
use crate::router::{NoAnswer, Refusal};

/// A label's values.
pub trait Label: Copy + Debug + PartialEq + 'static {
    /// Returns all values.
    fn all() -> &'static [Self];

    /// Returns the value as Prometheus shows it.
    fn value(self) -> &'static str;
}

impl Label for Priority {
    fn all() -> &'static [Self] {
        &Self::ALL
    }

    fn value(self) -> &'static str {
        self.as_str()
    }
}

impl Label for RejectCode {
    fn all() -> &'static [Self] {
        Self::ALL
    }

    fn value(self) -> &'static str {
        self.as_str()
    }
}

/// Defines labels whose values are their variants in snake case.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
        #[strum(serialize_all = "snake_case")]
        pub enum $name { $($(#[$of])* $variant,)+ }

        impl Label for $name {
            fn all() -> &'static [Self] {
                Self::VARIANTS
            }

            fn value(self) -> &'static str {
                self.into()
            }
        }
    )+ };
}

labels! {
    /// The way on which a reminder reached an app server.
    Way {
        /// Straight to its user.
        Direct,
        /// To an associate.
        Rerouted,
        /// Through its user's mailbox.
        Mailbox,
    }

    /// The kind of a message that cannot be read.
    SetAside {
        /// A published set.
        Set,
        /// A scheduled set that is due.
        Due,
        /// A route.
        Route,
        /// A list of associates.
        Associates,
        /// A document of rules.
        Rules,
    }

    /// The purpose of a connection to NATS.
    Connection {
        /// Bellhop's own streams.
        Main,
        /// The connection for the members' records.
        Members,
        /// Published sets, and those that are due.
        Sets,
        /// Routes, associates and rules.
        Buckets,
        /// Requests to app servers.
        Apps,
        /// Queries.
        Queries,
    }

    /// A stream, or the stream of a bucket.
    Stream {
        /// Published sets.
        Log,
        /// Positions in the log.
        Positions,
        /// Scheduled sets.
        Scheduled,
        /// Mailboxes.
        Parked,
        /// Outcomes.
        Outcomes,
        /// Refused input.
        Rejected,
        /// The idempotency window.
        Seen,
        /// Routes.
        Routes,
        /// Associates.
        Associates,
        /// Rule documents.
        Rules,
        /// Members.
        Members,
    }

    /// The kind of a role.
    RoleKind {
        /// Works one partition's users.
        Partition,
        /// Reads the published sets.
        Intake,
        /// Announces reminders that stay parked.
        Escalation,
        /// Writes outcomes into the database.
        History,
    }

    /// The subject of a query.
    Question {
        /// A user's reminders.
        History,
        /// One reminder's outcomes.
        Why,
        /// A user's mailbox.
        Mailbox,
        /// Erasing a user.
        Erase,
    }

    /// The result of a query.
    Answer {
        /// It was answered.
        Answered,
        /// The question is wrong or about something unknown.
        Refused,
        /// It could not be answered.
        Failed,
    }

    /// The result of reading a reminder.
    Taken {
        /// It goes on.
        New,
        /// It is dropped as a repeat.
        Repeat,
        /// It is refused.
        Refused,
    }

    /// The result of a request to an app server.
    Ending {
        /// It was answered.
        Answered,
        /// Nothing listens to its subject.
        NoResponders,
        /// It was not answered in time.
        TimedOut,
        /// Its answer cannot be read.
        Garbage,
    }

    /// The reason for which an app server refused a reminder.
    Reason {
        /// The user is not connected there.
        NotConnected,
        /// It is busy.
        Busy,
    }

    /// True if a user has a route.
    Connected {
        /// There is one.
        True,
        /// There is none.
        False,
    }

    /// The state of an instance.
    State {
        /// It answers.
        Up,
        /// It does not answer.
        Down,
    }

    /// The result of reading a rule document.
    Load {
        /// It is in use.
        Loaded,
        /// It cannot be used.
        Ignored,
    }

    /// The effect of an outcome on the database.
    Row {
        /// A new row.
        New,
        /// An updated row.
        Changed,
    }

    /// An outcome without its details.
    OutcomeKind {
        /// Accepted by an app server.
        Delivered,
        /// Accepted for an associate.
        Rerouted,
        /// In a mailbox.
        Parked,
        /// Merged into another reminder.
        Merged,
        /// Blocked by a rule.
        Blocked,
        /// Cancelled before it was due.
        Cancelled,
        /// Too late.
        Expired,
        /// Refused.
        Rejected,
    }
}

impl From<Role> for RoleKind {
    fn from(role: Role) -> Self {
        match role {
            Role::Intake => Self::Intake,
            Role::Escalation => Self::Escalation,
            Role::History => Self::History,
            Role::Partition(_) => Self::Partition,
        }
    }
}

impl<T> From<&Result<T, NoAnswer>> for Ending {
    fn from(answer: &Result<T, NoAnswer>) -> Self {
        match answer {
            Ok(_) => Self::Answered,
            Err(NoAnswer::NoResponders) => Self::NoResponders,
            Err(NoAnswer::TimedOut) => Self::TimedOut,
            Err(NoAnswer::Garbage) => Self::Garbage,
        }
    }
}

impl From<&Outcome> for OutcomeKind {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered { .. } => Self::Delivered,
            Outcome::Rerouted { .. } => Self::Rerouted,
            Outcome::Parked { .. } => Self::Parked,
            Outcome::Merged { .. } => Self::Merged,
            Outcome::Blocked { .. } => Self::Blocked,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Expired { .. } => Self::Expired,
            Outcome::Rejected { .. } => Self::Rejected,
        }
    }
}

impl From<Refusal> for Reason {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::NotConnected => Self::NotConnected,
            Refusal::Busy => Self::Busy,
        }
    }
}
