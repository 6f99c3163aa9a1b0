//! Lines of text in pieces, with colours where there are any. Pure.

use super::text;

/// How a piece of text is shown where there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// Of lesser interest.
    Dim,
    /// What to look at.
    Strong,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// As it must not be.
    Bad,
}

/// One line on the screen, in pieces.
pub(super) type Row = Vec<(Tone, String)>;

/// A row of one piece.
pub(super) fn row(tone: Tone, text: impl Into<String>) -> Row {
    vec![(tone, text.into())]
}

/// The row as text, cut to so many columns.
pub(super) fn render(row: &Row, columns: usize, is_colored: bool) -> String {
    let mut out = String::new();
    let mut left = columns;
    for (tone, piece) in row {
        let piece = text::cut(piece, left);
        left -= piece.chars().count();
        match code(*tone).filter(|_| is_colored) {
            Some(code) => out.extend(["\x1b[", code, "m", &piece, "\x1b[0m"]),
            None => out.push_str(&piece),
        }
        if left == 0 {
            break;
        }
    }
    out
}

fn code(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Dim => Some("2"),
        Tone::Strong => Some("1"),
        Tone::Good => Some("32"),
        Tone::Warn => Some("33"),
        Tone::Bad => Some("1;31"),
    }
}

/// Two rows in one, where width does not matter.
pub(super) fn join(mut first: Row, second: Row) -> Row {
    first.push((Tone::Plain, " · ".to_owned()));
    first.extend(second.into_iter().map(|(tone, text)| (tone, text.trim_start().to_owned())));
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_as_a_whole_and_coloured_in_pieces() {
        let row: Row =
            vec![(Tone::Dim, "alice ".into()), (Tone::Plain, "is ".into()), (Tone::Good, "back\u{7}".into())];
        assert_eq!(render(&row, 80, false), "alice is back ");
        assert_eq!(render(&row, 11, false), "alice is b…");
        assert_eq!(render(&row, 6, false), "alice ");
        assert_eq!(render(&row, 80, true), "\x1b[2malice \x1b[0mis \x1b[32mback \x1b[0m");
        assert_eq!(render(&join(row, vec![(Tone::Plain, "  at once".into())]), 80, false), "alice is back  · at once");
    }
}
