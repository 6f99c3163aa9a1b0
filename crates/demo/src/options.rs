//! The caller's choices for a demo.

use std::net::SocketAddr;
use std::time::Duration;

/// The options of a demo.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long it lasts; without it, until it is stopped.
    pub duration: Option<Duration>,
    /// Reminders a second, all business systems together.
    pub rate: u32,
    /// The web terminal, if there shall be one.
    pub look: Option<Look>,
}

/// The web terminal of a demo.
#[derive(Debug, Clone)]
pub struct Look {
    /// The address of the web terminal; port 0 picks a free port.
    pub listen: SocketAddr,
    /// Whether to open a browser.
    pub opens_browser: bool,
}
