//! Durations as people write them: `500ms`, `2s`, `10m`, `7d`.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// A duration as text, the way it is read back.
pub(super) fn show(duration: Duration) -> String {
    match SignedDuration::try_from(duration) {
        Ok(duration) if duration.is_zero() => "0s".to_owned(),
        Ok(duration) => format!("{duration:#}"),
        Err(_) => format!("{duration:?}"),
    }
}

pub(super) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Reads a duration such as `500ms`, `2s`, `1h30m`, `7d`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refuse =
        |why: &dyn std::fmt::Display| format!("`{text}` is not a duration such as 2s: {why}");
    let duration: SignedDuration = match text
        .strip_suffix('d')
        .and_then(|days| days.parse::<i64>().ok())
    {
        Some(days) => SignedDuration::from_hours(days.saturating_mul(24)),
        None => text.parse().map_err(|error: jiff::Error| refuse(&error))?,
    };
    Duration::try_from(duration).map_err(|_| refuse(&"it is negative"))
}
