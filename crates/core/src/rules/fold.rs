//! Makes texts comparable, and remembers where everything came from.
//!
//! A document says which differences between texts do not matter ([`Folding`]), and which
//! characters may stand between letters. [`Fold::fold`] removes both; keywords and texts go through
//! the same function. The result, [`Folded`], maps every place back to the original, always to
//! whole grapheme clusters: what a reader sees as one character is matched, masked and marked as
//! one.
//!
//! Nearly all text is simple: characters that become themselves, one other character or nothing,
//! and that never join their neighbours. Those go through a table. The rest (combining marks,
//! ligatures, emoji sequences, conjoining Hangul) is cut into clusters and normalized by the
//! Unicode algorithms.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::folding::{Folding, Kind};
use super::per_char::PerChar;
use super::shadow;
use super::words::{Class, class_of_cluster, classes, is_boundary};

/// Folds texts in one way.
#[derive(Debug, Clone)]
pub struct Fold {
    folding: Folding,
    skip: Vec<char>,
    kinds: &'static PerChar<Kind>,
    /// ASCII characters that stay as they are.
    unchanged: [bool; 128],
    /// ASCII characters that stay as they are or become their lower case. Not CR, which is one with
    /// LF.
    kept: [bool; 128],
    /// U+4000 to U+9FFF stay as they are: ideographs, all of three bytes of which the first tells
    /// enough.
    keeps_ideographs: bool,
}

/// A text without the differences, and the way back.
#[derive(Debug)]
pub struct Folded<'t> {
    original: &'t str,
    text: Cow<'t, str>,
    /// The runs that map the text to the original, in order. None at all: it is the original.
    runs: Vec<Run>,
    /// Places of the folded text where a word of the original may end, though the folded text goes
    /// on with letters or marks: those were symbols, such as `™`, or belong to no letter.
    breaks: Vec<usize>,
    classes: &'static PerChar<Class>,
    /// The run that was asked for last.
    last_run: Cell<usize>,
}

/// A stretch in which every unit of the original became one unit of the folded text. Units are
/// single bytes where no length changed, and whole characters or clusters where one did. The text
/// between two runs was skipped.
#[derive(Debug, Clone, Copy)]
struct Run {
    folded: usize,
    original: usize,
    folded_unit: usize,
    original_unit: usize,
}

impl Fold {
    /// A fold that removes these differences and the characters of `skip`.
    pub fn new(folding: Folding, skip: &str) -> Self {
        let kinds = folding.kinds();
        let mut skip: Vec<char> = skip
            .chars()
            .flat_map(|c| {
                folding
                    .normalize(&c.to_string())
                    .chars()
                    .collect::<Vec<_>>()
            })
            .collect();
        skip.sort_unstable();
        skip.dedup();
        let ascii = |at: usize| char::from(at as u8);
        let folded = |at: usize| kinds.get(ascii(at)).folded(ascii(at));
        let unchanged: [bool; 128] =
            std::array::from_fn(|at| folded(at) == Some(ascii(at)) && !skip.contains(&ascii(at)));
        let kept = std::array::from_fn(|at| {
            let lower = ascii(at).to_ascii_lowercase();
            unchanged[at] || (folding.case && folded(at) == Some(lower) && !skip.contains(&lower))
        });
        let keeps_ideographs = kinds.get('\u{4e00}') == Kind::Same
            && !skip.iter().any(|c| ('\u{4000}'..='\u{9fff}').contains(c));
        Self {
            folding,
            skip,
            kinds,
            unchanged,
            kept,
            keeps_ideographs,
        }
    }

    /// Folds a text.
    pub fn fold<'t>(&self, text: &'t str) -> Folded<'t> {
        let mut writer = Writer {
            fold: self,
            original: text,
            text: String::new(),
            runs: Vec::new(),
            breaks: Vec::new(),
            done: 0,
        };
        let unchanged = writer.stretch(&self.unchanged);
        if unchanged < text.len() {
            writer.text.reserve(text.len() + 16);
            writer.copy(unchanged);
        }
        while writer.done < text.len() && unchanged < text.len() {
            writer.next();
        }
        let is_original = unchanged == text.len();
        Folded {
            original: text,
            text: if is_original {
                Cow::Borrowed(text)
            } else {
                Cow::Owned(writer.text)
            },
            runs: writer.runs,
            breaks: writer.breaks,
            classes: classes(self.folding.ignorable),
            last_run: Cell::new(0),
        }
    }
}

impl Folded<'_> {
    /// The folded text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The clusters of the original from which this part of the folded text came.
    pub fn span(&self, part: Range<usize>) -> Range<usize> {
        self.start(part.start)..self.end(part.end)
    }

    /// Returns the places where a word of the original may end in the middle of letters of the
    /// folded text.
    pub fn breaks(&self) -> &[usize] {
        &self.breaks
    }

    /// Returns whether this part of the folded text begins and ends where words of the original do.
    /// A skipped character ends a word if it would in the original.
    pub fn is_whole(&self, part: &Range<usize>, everywhere: bool) -> bool {
        let is_end = |original| is_boundary(self.original, original, everywhere, self.classes);
        [part.start, part.end].into_iter().all(|at| {
            self.is_between_clusters(at)
                && (at == self.text.len() || is_end(self.end(at)) || is_end(self.start(at)))
        })
    }

    fn is_between_clusters(&self, at: usize) -> bool {
        self.run_at(at)
            .is_none_or(|run| (at - run.folded).is_multiple_of(run.folded_unit))
    }

    fn start(&self, at: usize) -> usize {
        match self.run_at(at) {
            Some(run) => run.original + (at - run.folded) / run.folded_unit * run.original_unit,
            None => at,
        }
    }

    fn end(&self, at: usize) -> usize {
        match at.checked_sub(1).and_then(|last| self.run_at(last)) {
            Some(run) => {
                run.original + (at - run.folded).div_ceil(run.folded_unit) * run.original_unit
            }
            None => at,
        }
    }

    fn run_at(&self, at: usize) -> Option<&Run> {
        if self.runs.first()?.folded > at {
            return None;
        }
        let begins_by = |run: usize| self.runs.get(run).is_some_and(|run| run.folded <= at);
        // Matches come one after the other: it is the last run asked for, or near.
        let last = self.last_run.get();
        let near = (last..last + 3).find(|run| begins_by(*run) && !begins_by(run + 1));
        let run = near.unwrap_or_else(|| self.runs.partition_point(|run| run.folded <= at) - 1);
        self.last_run.set(run);
        Some(&self.runs[run])
    }
}

/// Writes a folded text.
struct Writer<'f, 't> {
    fold: &'f Fold,
    original: &'t str,
    text: String,
    runs: Vec<Run>,
    breaks: Vec<usize>,
    /// Number of processed bytes of the original.
    done: usize,
}

impl Writer<'_, '_> {
    fn next(&mut self) {
        let c = char_at(self.original, self.done);
        match self.fold.kinds.get(c) {
            Kind::Complex => self.clusters(),
            kind => self.push(kind.folded(c), c.len_utf8()),
        }
        let to = self.stretch(&self.fold.kept);
        self.copy(to);
    }

    /// Returns the end of the stretch of these ASCII characters, and others that fold to
    /// themselves.
    fn stretch(&self, ascii: &[bool; 128]) -> usize {
        let bytes = self.original.as_bytes();
        let mut at = self.done;
        while let Some(&byte) = bytes.get(at) {
            if byte < 0x80 {
                if !ascii[usize::from(byte)] || (byte == b' ' && self.is_one_space_more(at)) {
                    break;
                }
                at += 1;
            } else if self.fold.keeps_ideographs && (0xe4..=0xe9).contains(&byte) {
                at += 3;
            } else {
                let c = char_at(self.original, at);
                if self.fold.kinds.get(c) != Kind::Same || self.is_skipped(c) {
                    break;
                }
                at += c.len_utf8();
            }
        }
        at
    }

    /// Copies the original up to `to`; nothing but the case of ASCII letters can change.
    fn copy(&mut self, to: usize) {
        if to > self.done {
            let begin = self.text.len();
            self.text.push_str(&self.original[self.done..to]);
            if self.fold.folding.case {
                self.text[begin..].make_ascii_lowercase();
            }
            self.note(begin, 1, 1);
            self.done = to;
        }
    }

    /// Returns true if the space at this position of the original follows another one in the folded
    /// text.
    fn is_one_space_more(&self, at: usize) -> bool {
        self.fold.folding.spaces
            && match at.checked_sub(1) {
                Some(before) if at > self.done => self.original.as_bytes()[before] == b' ',
                _ => self.text.ends_with(' '),
            }
    }

    /// One character of the original became this one, or nothing.
    fn push(&mut self, folded: Option<char>, original_unit: usize) {
        let is_dropped =
            |c: &char| self.is_skipped(*c) || (*c == ' ' && self.is_one_space_more(self.done));
        if let Some(folded) = folded.filter(|c| !is_dropped(c)) {
            let begin = self.text.len();
            self.text.push(folded);
            match folded.len_utf8() {
                same if same == original_unit => self.note(begin, 1, 1),
                folded_unit => self.note(begin, folded_unit, original_unit),
            }
        }
        self.done += original_unit;
    }

    /// The next character may join the one before and those behind: works by clusters until that is
    /// over.
    fn clusters(&mut self) {
        let before = self.original[..self.done]
            .chars()
            .next_back()
            .map_or(0, char::len_utf8);
        let from = self.done - before;
        for (at, cluster) in self.original[from..].grapheme_indices(true) {
            let start = from + at;
            if start + cluster.len() <= self.done {
                continue; // The character before stands for itself.
            }
            if start < self.done {
                self.take_back(start);
            } else if self.is_simple(cluster) {
                return;
            }
            self.cluster(cluster);
        }
    }

    fn is_simple(&self, cluster: &str) -> bool {
        let mut chars = cluster.chars();
        chars
            .next()
            .is_some_and(|c| self.fold.kinds.get(c) != Kind::Complex)
            && chars.next().is_none()
    }

    /// The simple character before turns out to begin a cluster.
    fn take_back(&mut self, start: usize) {
        let is_written = self.runs.last().is_some_and(|run| {
            run.original + (self.text.len() - run.folded) / run.folded_unit * run.original_unit
                == self.done
        });
        if is_written {
            self.text.pop();
            self.runs.pop_if(|run| run.folded >= self.text.len());
        }
        self.done = start;
    }

    fn cluster(&mut self, cluster: &str) {
        let begin = self.text.len();
        let Folding {
            ignorable, shadows, ..
        } = self.fold.folding;
        let folded = self.fold.folding.normalize(cluster);
        let class = class_of_cluster(cluster, classes(ignorable));
        if !(folded == " " && self.is_one_space_more(self.done)) {
            let kept = folded.chars().filter(|c| !self.fold.skip.contains(c));
            self.text.extend(kept.map(|c| match shadows.has(class, c) {
                true => shadow::of(c),
                false => c,
            }));
        }
        let end = self.text.len();
        if end > begin {
            self.note(begin, end - begin, cluster.len());
        }
        let is_letter = |c| {
            let folded = classes(false).get(c);
            folded.is_in_word(true) && folded != class
        };
        // A mark whose own character is left out, or which has none, would go on with the word
        // before it.
        let is_mark = |c| matches!(classes(false).get(c), Class::Mark | Class::Enclosing);
        let folded = &self.text[begin..];
        if class != Class::Spaced && (folded.starts_with(is_mark) || folded.contains(is_letter)) {
            self.breaks.extend([begin, end]);
        }
        self.done += cluster.len();
    }

    /// Notes that the text from `folded` on consists of such units, and came from the original at
    /// `done`.
    fn note(&mut self, folded: usize, folded_unit: usize, original_unit: usize) {
        let continues = self.runs.last().is_some_and(|run| {
            (run.folded_unit, run.original_unit) == (folded_unit, original_unit)
                && run.original + (folded - run.folded) / folded_unit * original_unit == self.done
        });
        if !continues {
            self.runs.push(Run {
                folded,
                original: self.done,
                folded_unit,
                original_unit,
            });
        }
    }

    fn is_skipped(&self, c: char) -> bool {
        self.fold.skip.contains(&c)
    }
}

/// The character that begins at this place.
#[inline]
fn char_at(text: &str, at: usize) -> char {
    text[at..]
        .chars()
        .next()
        .expect("the place lies before the end")
}
