//! Why a demo has no good end.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use bellhop_terminal::TerminalError;
use bellhop_testkit::nats_server::{FindError, StartError};
use tokio::task::JoinError;

/// Any error, as a cause.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why the demo did not run, or what it found.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no nats-server.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The nats-server does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The web terminal cannot be opened.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// The service failed.
    #[error("the service failed")]
    Service(#[source] Cause),
    /// NATS, or a program of the demo, did not do what it was asked.
    #[error("{action}")]
    Failed {
        /// The attempted action, such as `follow the outcomes`.
        action: Cow<'static, str>,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A file, a port or the screen is not available.
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    /// The service was not ready in time.
    #[error("{0}")]
    Late(String),
    /// Something ended that must run as long as the demo.
    #[error("{0}")]
    Ended(&'static str),
    /// A task of the demo panicked.
    #[error("a part of the demo panicked")]
    Panicked(#[from] JoinError),
    /// The demo was stopped during its start.
    #[error("stopped before it had begun")]
    Stopped,
    /// Reminders were lost, repeated or out of order.
    #[error("the demo failed: {0}; with BELLHOP_LOG=info the service logs beside it")]
    Verdict(String),
}

/// Names the action that failed.
pub(crate) trait During<T> {
    /// Turns an error into the failure of `action`.
    fn during(self, action: impl Into<Cow<'static, str>>) -> Result<T, DemoError>;
}

impl<T, E: Into<Cause>> During<T> for Result<T, E> {
    fn during(self, action: impl Into<Cow<'static, str>>) -> Result<T, DemoError> {
        self.map_err(|source| DemoError::Failed {
            action: action.into(),
            source: source.into(),
        })
    }
}
