//! Due times of recurring reminders: the cron pattern and the time zone of `repeat`.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::id::MAX_ID_BYTES;

/// The longest `cron` and `zone` together, in bytes: far longer than any that people write.
const MAX_PATTERN_BYTES: usize = 256;
/// The fields of a cron pattern.
const FIELDS: usize = 5;
/// The number of bytes that an occurrence adds to the id: `@2026-12-01T08:00:00Z`.
const MOMENT_BYTES: usize = 21;
/// The longest `id` of a recurring reminder, in bytes. Its occurrences have longer ones.
pub const MAX_RECURRING_ID_BYTES: usize = MAX_ID_BYTES - MOMENT_BYTES;

/// The recurrence of a reminder, as published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Repeat")
)]
pub struct RawRepeat {
    /// A cron pattern of five fields: minute, hour, day of the month, month, day of the week.
    /// `0 8 * * MON-FRI` is 08:00 from Monday to Friday.
    pub cron: String,
    /// The time zone of the pattern by its name in the IANA database, such as `Asia/Shanghai`; else
    /// `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The recurrence of a reminder.
#[derive(Debug, Clone)]
pub struct Repeat {
    raw: RawRepeat,
    crontab: Crontab,
}

impl Repeat {
    /// Reads a pattern and its zone.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn read(raw: RawRepeat) -> Result<Self, String> {
        let zone = raw.zone.as_deref().unwrap_or("UTC");
        let pattern = format!("{} {zone}", raw.cron);
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "`cron` and `zone` have {} bytes; at most {MAX_PATTERN_BYTES} are allowed",
                pattern.len()
            ));
        }
        let fields = raw.cron.split_whitespace().count();
        if fields != FIELDS {
            return Err(format!(
                "`cron` is `{}`, which has {fields} fields; it has {FIELDS}: minute, hour, day of the month, month, day of the week",
                raw.cron
            ));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
        if zone.is_empty() || !zone.bytes().all(is_name) {
            return Err(format!(
                "`zone` is `{zone}`, not a name such as `Asia/Shanghai`"
            ));
        }
        let crontab = parse_crontab(&pattern).map_err(|error| {
            let error = error.to_string().replace('\n', " ");
            format!("`{pattern}` is not a pattern and a time zone: {error}")
        })?;
        Ok(Self { raw, crontab })
    }

    /// Returns the first moment of the pattern after `at`. None if there is none within four years.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let next = self.crontab.find_next(MakeTimestamp(at)).ok()?;
        Some(next.timestamp())
    }

    /// Returns the first moment of the pattern that is after `published_at`, and not before
    /// `deliver_at`.
    pub fn first(
        &self,
        published_at: Timestamp,
        deliver_at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let just_before =
            deliver_at.and_then(|at| at.checked_sub(SignedDuration::from_nanos(1)).ok());
        self.next_after(just_before.map_or(published_at, |at| at.max(published_at)))
    }

    /// Returns it as it is published.
    pub fn raw(&self) -> &RawRepeat {
        &self.raw
    }
}

/// Returns the id of one occurrence of a recurring reminder: `standup@2026-12-01T08:00:00Z`.
pub fn occurrence_id(id: &str, moment: Timestamp) -> String {
    format!("{id}@{moment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(cron: &str, zone: Option<&str>) -> Result<Repeat, String> {
        Repeat::read(RawRepeat {
            cron: cron.to_owned(),
            zone: zone.map(ToOwned::to_owned),
        })
    }

    fn moments(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let repeat = repeat(cron, Some(zone)).unwrap();
        let next = |at: &Timestamp| repeat.next_after(*at);
        let first = next(&from.parse().unwrap());
        let moments = std::iter::successors(first, next).take(count);
        moments.map(|moment| moment.to_string()).collect()
    }

    #[test]
    fn pattern_is_meant_in_its_zone() {
        assert_eq!(
            moments(
                "0 8 * * MON-FRI",
                "Asia/Shanghai",
                "2026-12-04T00:00:00Z",
                2
            ),
            ["2026-12-07T00:00:00Z", "2026-12-08T00:00:00Z"]
        );
        let utc = repeat("30 8 1 * *", None).unwrap();
        let next = utc.next_after("2026-12-01T08:30:00Z".parse().unwrap());
        assert_eq!(next.unwrap().to_string(), "2027-01-01T08:30:00Z");
    }

    #[test]
    fn change_of_clocks_skips_and_doubles_moments() {
        // 02:30 does not exist on 29 March 2026 in Berlin, and comes twice on 25 October.
        assert_eq!(
            moments("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1),
            ["2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            moments("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-26T01:30:00Z"
            ]
        );
    }

    #[test]
    fn first_moment_is_not_before_deliver_at() {
        let repeat = repeat("0 8 * * *", None).unwrap();
        let first = |published: &str, deliver_at: Option<&str>| {
            let deliver_at = deliver_at.map(|at| at.parse().unwrap());
            let first = repeat.first(published.parse().unwrap(), deliver_at);
            first.unwrap().to_string()
        };
        let (published, morning) = ("2026-12-01T07:59:59Z", "2026-12-01T08:00:00Z");
        assert_eq!(first(published, None), morning);
        assert_eq!(first(published, Some(morning)), morning);
        assert_eq!(first(morning, None), "2026-12-02T08:00:00Z");
        assert_eq!(
            first(published, Some("2026-12-05T08:00:00.1Z")),
            "2026-12-06T08:00:00Z"
        );
        assert_eq!(first(published, Some("2020-01-01T00:00:00Z")), morning);
    }

    #[test]
    fn wrong_patterns_are_refused() {
        for (cron, zone, problem) in [
            ("0 8 * *", None, "has 4 fields"),
            ("0 8 * * * UTC", None, "has 6 fields"),
            ("61 8 * * *", None, "is not a pattern"),
            ("0 8 * * *", Some("Asia/Nowhere"), "is not a pattern"),
            ("0 8 * * *", Some("Asia Shanghai"), "not a name"),
            ("0 8 * * *", Some(""), "not a name"),
        ] {
            let error = repeat(cron, zone).unwrap_err();
            assert!(error.contains(problem), "{cron} {zone:?}: {error}");
        }
        let never = repeat("0 0 30 2 *", None).unwrap();
        assert_eq!(never.next_after(Timestamp::UNIX_EPOCH), None);
        assert!(repeat(&format!("{} 8 * * *", "1,".repeat(200)), None).is_err());
    }
}
