//! Text from outside, made safe to show in a log, on a terminal or in an error.
//!
//! A terminal obeys control characters and direction marks instead of showing them: with them a
//! stranger's text could forge lines, hide others, or read differently from what it says. They are
//! written out here, as `\n` or `\u{202e}`.

use std::fmt::{self, Write};

/// The longest excerpt, in bytes: enough for every error of our own, and a bound for what strangers
/// can put into a log.
pub const MAX_EXCERPT_BYTES: usize = 500;

/// Returns whether a terminal obeys the character instead of showing it: a control character, a
/// line or paragraph separator, or a mark that changes the direction of text.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the text on one line, with everything that a terminal would obey written out.
pub fn printable(text: &str) -> String {
    written_out(text, is_obeyed)
}

/// Returns the text with its line breaks and tabs, and everything else that a terminal would obey
/// written out.
pub fn printable_lines(text: &str) -> String {
    written_out(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

fn written_out(text: &str, is_harmful: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Returns the value's text as [`printable`] does, cut to [`MAX_EXCERPT_BYTES`]; the cut says how
/// many bytes are missing.
pub fn excerpt(value: fmt::Arguments<'_>) -> String {
    let mut excerpt = Excerpt::default();
    // Only a value's own `Display` can fail here, and what it wrote until then is shown.
    let _ = excerpt.write_fmt(value);
    match excerpt.missing {
        0 => excerpt.text,
        missing => format!("{}… ({missing} more bytes)", excerpt.text),
    }
}

/// Keeps the beginning of what is written to it, so that a long text is never held a second time.
#[derive(Default)]
struct Excerpt {
    text: String,
    missing: usize,
}

impl Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (at, c) in text.char_indices() {
            let shown = if is_obeyed(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            };
            if self.missing > 0 || self.text.len() + shown.len() > MAX_EXCERPT_BYTES {
                self.missing += text.len() - at;
                break;
            }
            self.text.push_str(&shown);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obeyed_characters_are_written_out() {
        let hostile = "a\u{1b}[2J\r\nb\u{202e}c\u{2066}\u{200f}\u{61c}\u{2028}\u{85}";
        assert_eq!(
            printable(hostile),
            r"a\u{1b}[2J\r\nb\u{202e}c\u{2066}\u{200f}\u{61c}\u{2028}\u{85}"
        );
        assert_eq!(
            printable_lines("a\tb\nc\rd\u{200e}"),
            "a\tb\nc\\rd\\u{200e}"
        );
        let harmless = "张三 🧑‍🚒 שלום é\u{301} \\ \"";
        assert_eq!(printable(harmless), harmless);
    }

    #[test]
    fn excerpts_are_bounded_and_say_so() {
        assert_eq!(
            excerpt(format_args!("{}", "x".repeat(MAX_EXCERPT_BYTES))),
            "x".repeat(MAX_EXCERPT_BYTES)
        );
        let long = "张".repeat(400);
        assert_eq!(
            excerpt(format_args!("{long}b{}", 1)),
            format!("{}… (704 more bytes)", "张".repeat(166))
        );
        assert_eq!(
            excerpt(format_args!("{}\u{202e}", "x".repeat(499))),
            format!("{}… (3 more bytes)", "x".repeat(499))
        );
    }
}
