//! The ledger's words: what is entered, what is counted, what can be wrong.

use serde::Deserialize;

use bellhop_protocol::reminder::duplicate::Duplicate;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// No app server accepted it, whatever its outcome says.
    Lost,
    /// An app server accepted it once more.
    Repeated,
    /// An app server accepted it after a later one of the same source and user.
    OutOfOrder,
    /// It reached another user.
    Misdelivered,
    /// It was valid, and Bellhop refused it or let it expire.
    Refused,
    /// Everybody was connected at the end, and it was still in the mailbox.
    LeftInMailbox,
    /// It was accepted, and no final outcome says so.
    NoOutcome,
    /// It has one final outcome more.
    SecondOutcome,
    /// Its final outcome contradicts what app servers saw.
    WrongOutcome,
}

impl Trouble {
    /// Fits behind a number: `3 lost`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::OutOfOrder => "out of order",
            Self::Misdelivered => "to the wrong user",
            Self::Refused => "refused though valid",
            Self::LeftInMailbox => "left in a mailbox",
            Self::NoOutcome => "without outcome",
            Self::SecondOutcome => "with a second outcome",
            Self::WrongOutcome => "with a wrong outcome",
        }
    }
}

/// How many reminders went which way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Published by the demo.
    pub published: u64,
    /// Accepted by one of the demo's app servers.
    pub delivered: u64,
    /// Those of `delivered` that had waited in a mailbox.
    pub waited: u64,
    /// Merged into one that was delivered.
    pub merged: u64,
    /// Bad on purpose, and refused.
    pub rejected: u64,
    /// Taken by a visitor's instance, or merged into one that was.
    pub elsewhere: u64,
    /// A visitor's own, accepted by one of the demo's app servers.
    pub visitors: u64,
}

/// What an app server is asked to accept, as far as the ledger cares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted<'a> {
    /// The reminder's source.
    pub source: &'a str,
    /// Its id.
    pub id: &'a str,
    /// For whom it came.
    pub user: &'a str,
    /// Those merged into it.
    pub merged: &'a [Duplicate],
    /// Whether it had waited in a mailbox.
    pub has_waited: bool,
}

/// An outcome in `BELLHOP_OUTCOMES`, as far as the demo reads it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Record {
    /// The reminder's id.
    pub id: String,
    /// Its business system.
    pub source: String,
    /// The outcome.
    pub outcome: String,
    /// Who accepted it first.
    pub instance: Option<String>,
    /// All who did, where they are several.
    #[serde(default)]
    pub instances: Vec<String>,
    /// What it was merged into.
    pub into: Option<String>,
    /// Why it was refused.
    pub error: Option<String>,
}

impl Record {
    /// Returns the instances that accepted it.
    pub(crate) fn accepted_by(&self) -> impl Iterator<Item = &String> {
        self.instance.iter().chain(&self.instances)
    }
}
