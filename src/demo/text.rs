//! Numbers and times as people read them, and texts cut to the screen.

use std::time::Duration;

use crate::printable::is_obeyed;

/// `12,345`.
pub(crate) fn count(number: impl TryInto<u64>) -> String {
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

/// `0.8 ms`, `12 ms`, `3.4 s`.
pub(crate) fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.009_95 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// Cut to so many characters, with spaces for what a terminal would obey.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let plain = |c: char| if is_obeyed(c) { ' ' } else { c };
    match text.char_indices().nth(columns) {
        None => text.chars().map(plain).collect(),
        Some(_) => text.chars().take(columns.saturating_sub(1)).map(plain).chain(['…']).collect(),
    }
}

/// Broken into lines of so many characters, between words where that can be.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!(
            [count(0u64), count(999u64), count(1_000u64), count(1_234_567u64)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            ["0.8 ms", "9.9 ms", "10 ms", "999 ms", "1.0 s"],
            [800, 9_940, 9_960, 999_400, 999_600].map(|us| time(Duration::from_micros(us)))
        );
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("alice is back, now", 8), ["alice is", "back,", "now"]);
        assert_eq!(wrap("alice is back", usize::MAX), ["alice is back"]);
        assert_eq!(wrap("unbreakable it is", 5), ["unbreakable", "it is"]);
    }

    #[test]
    fn what_is_too_long_is_cut_and_nothing_moves_the_cursor() {
        assert_eq!([cut("zoë", 3), cut("abcd", 3), cut("a\x1b[2J", 9)], ["zoë", "ab…", "a [2J"]);
    }
}
