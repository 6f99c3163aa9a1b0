//! Times as people and systems publish them: RFC 3339, and nothing else.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// From here on an `expires_at` means "never": systems write the last second of the year 9999.
pub const NEVER: Timestamp = Timestamp::constant(253_370_764_800, 0);

/// The reason why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    /// It does not look like one.
    #[error("not an RFC 3339 time such as 2026-11-29T00:00:00Z")]
    Form,
    /// It looks like one, and there is no such day or time of day.
    #[error("not an RFC 3339 time: {0}")]
    Value(String),
}

/// Digits of a fraction of a second that count.
const FRACTION_DIGITS: usize = 9;

/// Reads a time. Of a fraction of a second, nanoseconds count. A time after the latest timestamp,
/// in the last hours of the year 9999, becomes that one.
///
/// # Errors
/// When it is not as RFC 3339 wants it, or there is no such time.
pub fn read(text: &str) -> Result<Timestamp, NotATime> {
    let (local, rest) = text.split_at_checked(19).ok_or(NotATime::Form)?;
    let (fraction, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).ok_or(NotATime::Form)?);
    let digits = fraction.strip_prefix('.');
    let is_fraction = digits.is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !is_like(local, "0000-00-00T00:00:00") || !(fraction.is_empty() || is_fraction) {
        return Err(NotATime::Form);
    }
    let fraction = &fraction[..fraction.len().min(1 + FRACTION_DIGITS)];
    let time: DateTime = format!("{local}{fraction}")
        .parse()
        .map_err(|error: jiff::Error| NotATime::Value(error.to_string()))?;
    // Years have four digits, so a time that is out of bounds is too late.
    Ok(offset(zone)?.to_timestamp(time).unwrap_or(Timestamp::MAX))
}

fn offset(zone: &str) -> Result<Offset, NotATime> {
    let sign = match zone {
        "Z" | "z" => return Ok(Offset::UTC),
        _ if is_like(zone, "+00:00") => 1,
        _ if is_like(zone, "-00:00") => -1,
        _ => return Err(NotATime::Form),
    };
    let number = |digits: &str| digits.parse::<i32>().map_err(|_| NotATime::Form);
    let (hours, minutes) = (number(&zone[1..3])?, number(&zone[4..])?);
    if hours > 23 || minutes > 59 {
        return Err(NotATime::Value(format!("invalid offset {zone}")));
    }
    Offset::from_seconds(sign * (hours * 60 + minutes) * 60)
        .map_err(|error| NotATime::Value(error.to_string()))
}

/// Returns true if a text has digits where the form has a zero, and the form's own characters,
/// small or capital, elsewhere.
fn is_like(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text
            .bytes()
            .zip(form.bytes())
            .all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                form => byte.eq_ignore_ascii_case(&form),
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_rfc_3339_is_read() {
        for (text, expected) in [
            ("2026-11-29T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("2026-11-29t08:00:00.5z", "2026-11-29T08:00:00.5Z"),
            ("2026-11-29T08:00:00+08:00", "2026-11-29T00:00:00Z"),
            ("2026-11-29T00:00:00-23:59", "2026-11-29T23:59:00Z"),
            ("2026-11-29T00:00:00-00:00", "2026-11-29T00:00:00Z"),
            (
                "2026-11-29T00:00:00.123456789123Z",
                "2026-11-29T00:00:00.123456789Z",
            ),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9998-12-31T23:59:59Z", "9998-12-31T23:59:59Z"),
        ] {
            assert_eq!(read(text).unwrap(), expected.parse().unwrap(), "{text}");
        }
        assert_eq!(NEVER, "9999-01-01T00:00:00Z".parse().unwrap());
        for never in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.9999999Z",
            "9999-12-31T23:59:59-12:00",
            "9999-12-31T00:00:00+14:00",
        ] {
            assert!(read(never).unwrap() > NEVER, "{never}");
        }
    }

    #[test]
    fn other_forms_are_no_times() {
        for text in [
            "",
            "tomorrow",
            "1764547200",
            "2030-01-01",
            "2030-01-01T00Z",
            "2030-01-01T00:00Z",
            "2030-01-01T00:00:00",
            "2030-01-01 00:00:00Z",
            "2030-01-01T00:00:00 Z",
            " 2030-01-01T00:00:00Z",
            "2030-01-01T00:00:00Z ",
            "20300101T000000Z",
            "2030-001T00:00:00Z",
            "2030-W01-1T00:00:00Z",
            "2030-01-01T00:00:00,5Z",
            "2030-01-01T00:00:00.Z",
            "2030-01-01T00:00:00+01",
            "2030-01-01T00:00:00+0100",
            "2030-01-01T00:00:00+01:00:00",
            "2030-01-01T00:00:00+01:00[Europe/Paris]",
            "2030-01-01T00:00:00Z[UTC]",
            "2030-01-01T00:00:00é",
            "+002030-01-01T00:00:00Z",
            "-002030-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "２030-01-01T00:00:00Z",
        ] {
            assert_eq!(read(text), Err(NotATime::Form), "{text}");
        }
        for text in [
            "2030-13-01T00:00:00Z",
            "2030-02-29T00:00:00Z",
            "2030-01-00T00:00:00Z",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:60:00Z",
            "2030-01-01T00:00:61Z",
            "2030-01-01T00:00:00+24:00",
            "2030-01-01T00:00:00+01:60",
        ] {
            assert!(matches!(read(text), Err(NotATime::Value(_))), "{text}");
        }
    }
}
