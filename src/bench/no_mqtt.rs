//! Stands in for `mqtt` in a build without the feature `bench-mqtt`: Mosquitto is not measured.

use std::path::Path;
use std::time::Duration;

use super::BenchError;
use super::crew::{AppServers, Publisher};
use super::load::Load;

pub(super) const TOPICS: &str = "";

/// A Mosquitto that never runs.
pub(super) struct Mosquitto {
    pub(super) publisher: Publisher,
    pub(super) subscribers: AppServers,
}

impl Mosquitto {
    pub(super) async fn start(_: &Path, _: Load) -> Result<Option<Self>, BenchError> {
        Ok(None)
    }

    pub(super) fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}
