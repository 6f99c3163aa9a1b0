//! Makes texts comparable, and remembers where everything came from.
//!
//! A document says which differences between texts do not matter: upper and lower case, compatibility forms such as
//! full-width letters, characters that somebody may put between letters. [`Fold::fold`] removes those differences; keywords
//! and texts go through the same function. The result, [`Folded`], maps every place back to the original, always to
//! whole grapheme clusters: what a reader sees as one character is matched, masked and marked as one.
//!
//! Nearly all text is simple: characters that stand for themselves or for one other character, and that never join their
//! neighbours. Those go through a table. What is left (combining marks, ligatures, emoji sequences, conjoining Hangul) is
//! cut into clusters and normalized by the Unicode algorithms.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::unicode::{Class, Kind, PerChar, kinds, normalize};

/// Which differences do not matter.
#[derive(Debug, Clone)]
pub struct Fold {
    case: bool,
    width: bool,
    skip: Vec<char>,
    kinds: &'static PerChar<Kind>,
    /// ASCII characters that stay as they are.
    unchanged: [bool; 128],
    /// ASCII characters that stay as they are or become their lower case. Not CR, which is one with LF.
    kept: [bool; 128],
    /// U+4000 to U+9FFF stay as they are: ideographs, all of three bytes of which the first tells enough.
    keeps_ideographs: bool,
}

/// A text without the differences, and the way back.
#[derive(Debug)]
pub struct Folded<'t> {
    original: &'t str,
    text: Cow<'t, str>,
    /// How the text lies in the original, in order. None at all: it is the original.
    runs: Vec<Run>,
    /// The run that was asked for last.
    last_run: Cell<usize>,
}

/// A stretch in which every unit of the original became one unit of the folded text. Units are single bytes where no length
/// changed, and whole characters or clusters where one did. What lies between two runs was skipped.
#[derive(Debug, Clone, Copy)]
struct Run {
    folded: usize,
    original: usize,
    folded_unit: usize,
    original_unit: usize,
}

impl Fold {
    /// A fold that takes no notice of case, of width, and of the characters of `skip`, as told.
    pub fn new(case: bool, width: bool, skip: &str) -> Self {
        let kinds = kinds(case, width);
        let mut skip: Vec<char> = skip
            .chars()
            .flat_map(|c| {
                normalize(&c.to_string(), case, width)
                    .into_owned()
                    .chars()
                    .collect::<Vec<_>>()
            })
            .collect();
        skip.sort_unstable();
        skip.dedup();
        let ascii = |at: usize| char::from(at as u8);
        let folded = |at: usize| {
            if case {
                ascii(at).to_ascii_lowercase()
            } else {
                ascii(at)
            }
        };
        let kept: [bool; 128] =
            std::array::from_fn(|at| !skip.contains(&folded(at)) && ascii(at) != '\r');
        let unchanged = std::array::from_fn(|at| kept[at] && folded(at) == ascii(at));
        let keeps_ideographs = !skip.iter().any(|c| ('\u{4000}'..='\u{9fff}').contains(c));
        Self {
            case,
            width,
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
            done: 0,
        };
        let unchanged = writer.stretch(&self.unchanged);
        if unchanged == text.len() {
            return Folded {
                original: text,
                text: Cow::Borrowed(text),
                runs: Vec::new(),
                last_run: Cell::new(0),
            };
        }
        writer.text.reserve(text.len() + 16);
        writer.copy(unchanged);
        while writer.done < text.len() {
            writer.next();
        }
        Folded {
            original: text,
            text: Cow::Owned(writer.text),
            runs: writer.runs,
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

    /// Whether a word can begin or end at this place of the folded text. What was skipped there separates words as it does
    /// in the original.
    pub fn is_word_boundary(&self, at: usize, everywhere: bool) -> bool {
        if self
            .run_at(at)
            .is_some_and(|run| !(at - run.folded).is_multiple_of(run.folded_unit))
        {
            return false; // Inside of what a reader sees as one character.
        }
        let skipped = &self.original[self.end(at)..self.start(at)];
        let (before, after) = self.text.split_at(at);
        let class = |c: Option<char>| c.map_or(Class::Other, Class::of);
        let (before, after) = (
            class(before.chars().next_back()),
            class(after.chars().next()),
        );
        if skipped.is_empty() {
            !before.joins(after, everywhere)
        } else {
            let (first, last) = (
                class(skipped.chars().next()),
                class(skipped.chars().next_back()),
            );
            !(before.joins(first, everywhere) && last.joins(after, everywhere))
        }
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
    /// How much of the original is done.
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

    /// Where the stretch ends in which these ASCII characters, and others that stand for themselves, follow each other.
    fn stretch(&self, ascii: &[bool; 128]) -> usize {
        let bytes = self.original.as_bytes();
        let mut at = self.done;
        while let Some(&byte) = bytes.get(at) {
            if byte < 0x80 {
                if !ascii[usize::from(byte)] {
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
            if self.fold.case {
                self.text[begin..].make_ascii_lowercase();
            }
            self.note(begin, 1, 1);
            self.done = to;
        }
    }

    /// One character of the original became this one.
    fn push(&mut self, folded: char, original_unit: usize) {
        if !self.is_skipped(folded) {
            let begin = self.text.len();
            self.text.push(folded);
            match folded.len_utf8() {
                same if same == original_unit => self.note(begin, 1, 1),
                folded_unit => self.note(begin, folded_unit, original_unit),
            }
        }
        self.done += original_unit;
    }

    /// The next character may join the one before and those behind: works by clusters until that is over.
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
        let c = char_at(self.original, start);
        let folded = self.fold.kinds.get(c).folded(c);
        if !self.is_skipped(folded) {
            self.text.truncate(self.text.len() - folded.len_utf8());
            self.runs.pop_if(|run| run.folded >= self.text.len());
        }
        self.done = start;
    }

    fn cluster(&mut self, cluster: &str) {
        let begin = self.text.len();
        let folded = normalize(cluster, self.fold.case, self.fold.width);
        self.text
            .extend(folded.chars().filter(|c| !self.fold.skip.contains(c)));
        if self.text.len() > begin {
            self.note(begin, self.text.len() - begin, cluster.len());
        }
        self.done += cluster.len();
    }

    /// What was written from `folded` on is made of such units, and came from where `done` still stands.
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
