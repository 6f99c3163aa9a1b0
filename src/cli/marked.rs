//! Shows texts with their marks: in colours where there are some, and else in brackets, as
//! `[due]{highlight}`.

use anstream::ColorChoice;
use anstyle::Style;

use crate::cli::output::{colours, paint};
use crate::printable::printable_lines;
use crate::reminder::{Field, Mark, MarkAction, Priority};
use crate::rules::trial::Delivered;

/// The way to show marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    Colours,
    Brackets,
}

impl Marks {
    /// Returns colours if standard output has them, and else brackets.
    pub(super) fn of_output() -> Self {
        if colours() == ColorChoice::Never {
            Self::Brackets
        } else {
            Self::Colours
        }
    }

    /// A delivered sample as its reader might see it. `usual` is the priority that is not worth a
    /// word.
    pub(super) fn delivered(self, delivered: &Delivered, usual: Priority) -> Vec<String> {
        let shown = |field| {
            let marks: Vec<_> = delivered
                .marks
                .iter()
                .filter(|mark| mark.field == field)
                .collect();
            self.marked(delivered.text(field), &marks)
        };
        let title = delivered
            .title
            .is_some()
            .then(|| format!("title: {}", shown(Field::Title)));
        let priority = (delivered.priority != usual)
            .then(|| format!("priority: {}", delivered.priority.as_str()));
        [title, priority]
            .into_iter()
            .flatten()
            .chain([shown(Field::Content)])
            .collect()
    }

    /// Returns a text with these marks on it, and everything that a terminal would obey written
    /// out.
    pub(super) fn marked(self, text: &str, marks: &[&Mark]) -> String {
        let chars: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = marks
            .iter()
            .flat_map(|mark| [mark.start, mark.end])
            .collect();
        cuts.extend([0, chars.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut shown = String::new();
        for (nth, &cut) in cuts.iter().enumerate() {
            let end = cuts.get(nth + 1).copied().unwrap_or(cut);
            let piece = printable_lines(&chars[cut..end].iter().collect::<String>());
            match self {
                Self::Colours => {
                    shown += &colour(
                        &piece,
                        marks.iter().filter(|m| m.start <= cut && cut < m.end),
                    )
                }
                Self::Brackets => shown.extend([brackets(marks, cut), piece]),
            }
        }
        shown
    }
}

fn colour<'m>(piece: &str, marks: impl Iterator<Item = &'m &'m Mark> + Clone) -> String {
    let has = |action| marks.clone().any(|mark| mark.action == action);
    let style = if has(MarkAction::Highlight) {
        Style::new().invert()
    } else {
        Style::new()
    };
    paint(
        if has(MarkAction::Link) {
            style.underline()
        } else {
            style
        },
        piece,
    )
}

/// The brackets at a place: what ends there, the latest begun first, and then what begins there,
/// the longest first.
fn brackets(marks: &[&Mark], at: usize) -> String {
    let mut ending: Vec<_> = marks.iter().filter(|mark| mark.end == at).collect();
    ending.sort_by_key(|mark| std::cmp::Reverse(mark.start));
    let name = |mark: &Mark| match &mark.href {
        Some(href) => format!("link {}", printable_lines(href)),
        None => "highlight".to_owned(),
    };
    let closed: String = ending
        .into_iter()
        .map(|mark| format!("]{{{}}}", name(mark)))
        .collect();
    closed + &"[".repeat(marks.iter().filter(|mark| mark.start == at).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(start: usize, end: usize, href: Option<&str>) -> Mark {
        Mark {
            tag: "t".parse().unwrap(),
            rule: "r".into(),
            field: Field::Content,
            start,
            end,
            action: if href.is_some() {
                MarkAction::Link
            } else {
                MarkAction::Highlight
            },
            href: href.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn marks_are_brackets_or_colours() {
        let marks = [mark(0, 8, None), mark(4, 8, Some("x:y")), mark(9, 10, None)];
        let marks: Vec<_> = marks.iter().collect();
        let shown = |how: Marks| how.marked("das Büro\u{7}😀", &marks);
        assert_eq!(
            shown(Marks::Brackets),
            "[das [Büro]{link x:y}]{highlight}\\u{7}[😀]{highlight}"
        );
        assert_eq!(
            shown(Marks::Colours),
            "\x1b[7mdas \x1b[0m\x1b[4m\x1b[7mBüro\x1b[0m\\u{7}\x1b[7m😀\x1b[0m"
        );
        assert_eq!(Marks::Colours.marked("", &[]), "");
    }
}
