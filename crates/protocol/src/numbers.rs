//! Numbers and times as people read them. Pure.

use std::time::Duration;

/// Returns a number with its thousands separated: `12,345`.
pub fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a time in the unit that suits it: `0.8 ms`, `12 ms`, `3.4 s`.
pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.009_95 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!(
            [
                count(0u64),
                count(999u64),
                count(1_000u64),
                count(1_234_567u64)
            ],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            ["0.8 ms", "9.9 ms", "10 ms", "999 ms", "1.0 s"],
            [800, 9_940, 9_960, 999_400, 999_600].map(|us| time(Duration::from_micros(us)))
        );
    }
}
