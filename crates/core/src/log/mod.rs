//! The log of published sets, and what each partition makes of it. Pure.
//!
//! All sets lie in one stream, in the order of publishing. Each member reads it once, in order, and
//! splits each set into slices for the partitions that it owns. A partition has a position:
//! everything up to there is settled, and that is recorded. A new owner begins at the position, and
//! knows by name what above it is recorded. The front of the log is removed up to the lowest
//! position. `docs/design/log.md` has the whole design, and what the shell must do in which order.
//!
//! | module | |
//! | --- | --- |
//! | [`position`] | how far a partition has come, and where a new owner begins |
//! | [`done`] | names of reminders that are done with |
//! | [`window`] | which reminders were published lately |
//! | [`split`](mod@split) | what of a set belongs to which partition, and what to the set itself |
//! | [`planner`] | what becomes of a slice: merging, rules, finished JSON |
//! | [`progress`] | what is in work, and so the position |
//! | [`partition`] | all of it for one partition, from a slice to the position |
//! | [`sets`] | what belongs to sets and not to users: refusals, schedules, cancellations |
//! | [`readers`] | who reads for which partitions, and from where |

pub mod done;
pub mod partition;
pub mod planner;
pub mod position;
pub mod progress;
pub mod readers;
pub mod recurring;
pub mod sets;
pub mod split;
pub mod window;

use std::fmt;
use std::str::FromStr;

use bellhop_protocol::partition::Partition;

/// A subscriber that takes a part of each set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscriber {
    /// The role that works what belongs to a set and not to a user: refusals, schedules,
    /// cancellations.
    Sets,
    /// A partition, which takes its users' reminders.
    Partition(Partition),
}

impl Subscriber {
    /// All that an installation with so many partitions has.
    pub fn all(partitions: u16) -> impl Iterator<Item = Self> {
        [Self::Sets]
            .into_iter()
            .chain((0..partitions).map(|number| Self::Partition(Partition(number))))
    }
}

/// The key of its position in the bucket.
impl fmt::Display for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sets => f.write_str("sets"),
            Self::Partition(partition) => partition.fmt(f),
        }
    }
}

/// A text that names no subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither `sets` nor the number of a partition")]
pub struct NoSubscriber;

impl FromStr for Subscriber {
    type Err = NoSubscriber;

    fn from_str(text: &str) -> Result<Self, NoSubscriber> {
        match text {
            "sets" => Ok(Self::Sets),
            _ => text
                .parse()
                .map(|number| Self::Partition(Partition(number)))
                .map_err(|_| NoSubscriber),
        }
    }
}
