//! The reasons why a measurement has no result.

use std::borrow::Cow;
use std::error::Error;
use std::path::PathBuf;

use bellhop_testkit::nats_server::{FindError, StartError};

/// Any error, as a cause.
pub type Cause = Box<dyn Error + Send + Sync>;

/// The reason why a measurement has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no `bellhop` program to measure.
    #[error(
        "there is no `bellhop` program at {0:?}; build it with `cargo build --release`, or name it with --bellhop PATH or \
         the variable BELLHOP"
    )]
    NoProgram(PathBuf),
    /// No nats-server was found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The nats-server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// NATS, a file or a process did not do what it was asked.
    #[error("cannot {action}: {cause}")]
    Failed {
        /// The attempted action.
        action: Cow<'static, str>,
        /// The cause.
        #[source]
        cause: Cause,
    },
    /// A process of the measurement failed.
    #[error("{process}: {problem}")]
    Process {
        /// The process.
        process: String,
        /// The problem.
        problem: String,
    },
    /// The received reminders differ from the published ones, so the measurement is void.
    #[error("the measurement of {what} is void: {problem}")]
    Void {
        /// The measurement.
        what: String,
        /// The problem.
        problem: String,
    },
}

impl BenchError {
    pub(crate) fn failed(action: impl Into<Cow<'static, str>>, cause: impl Into<Cause>) -> Self {
        Self::Failed {
            action: action.into(),
            cause: cause.into(),
        }
    }

    pub(crate) fn process(process: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Process {
            process: process.into(),
            problem: problem.to_string(),
        }
    }
}

/// Names the action that failed.
pub(crate) trait During<T> {
    /// Turns an error into the failure of `action`.
    fn during(self, action: impl Into<Cow<'static, str>>) -> Result<T, BenchError>;
}

impl<T, E: Into<Cause>> During<T> for Result<T, E> {
    fn during(self, action: impl Into<Cow<'static, str>>) -> Result<T, BenchError> {
        self.map_err(|cause| BenchError::failed(action, cause))
    }
}
