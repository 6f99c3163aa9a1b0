//! Random durations.

use std::ops::Range;
use std::time::Duration;

/// Returns a duration between these numbers of seconds.
pub(crate) fn between(chance: &mut fastrand::Rng, seconds: Range<f64>) -> Duration {
    Duration::from_secs_f64(seconds.start + (seconds.end - seconds.start) * chance.f64())
}
