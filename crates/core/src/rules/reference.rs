//! The same as the engine, as naively as possible: every place of the text is held against every keyword, and the result is put
//! together cluster by cluster. Tests and the fuzz target hold the engine against it.

use std::ops::Range;

use regex::RegexBuilder;
use unicode_segmentation::UnicodeSegmentation;

use crate::rules::document::{Action, Difference, Document, Words};
use crate::rules::unicode::{Class, normalize};

/// What becomes of a text: the matches, the text, and the marks as (bytes of the new text, rule).
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Each match and the number of its rule.
    pub matches: Vec<(Range<usize>, usize)>,
    /// The text after all rules.
    pub text: String,
    /// Marked ranges of `text`, in bytes, and the number of their rule.
    pub marks: Vec<(Range<usize>, usize)>,
}

/// A text as its clusters; and their folded characters, each with its cluster.
struct Folded<'t> {
    clusters: Vec<(usize, &'t str)>,
    chars: Vec<(char, usize)>,
}

impl<'t> Folded<'t> {
    fn new(text: &'t str, case: bool, width: bool, skip: &str) -> Self {
        let skip: Vec<char> = skip
            .chars()
            .flat_map(|c| folded(&c.to_string(), case, width))
            .collect();
        let clusters: Vec<_> = text.grapheme_indices(true).collect();
        let chars = clusters.iter().enumerate().flat_map(|(at, (_, cluster))| {
            folded(cluster, case, width)
                .into_iter()
                .filter(|c| !skip.contains(c))
                .map(move |c| (c, at))
                .collect::<Vec<_>>()
        });
        let chars = chars.collect();
        Self { clusters, chars }
    }

    fn text(&self) -> String {
        self.chars.iter().map(|(c, _)| c).collect()
    }

    /// The bytes of the original under these folded characters.
    fn span(&self, part: Range<usize>) -> Range<usize> {
        let (first, last) = (
            self.clusters[self.chars[part.start].1],
            self.clusters[self.chars[part.end - 1].1],
        );
        first.0..last.0 + last.1.len()
    }

    /// Whether a word can begin or end before this folded character.
    fn is_boundary(&self, at: usize, everywhere: bool) -> bool {
        let cluster = |at: usize| self.chars[at].1;
        let before = at.checked_sub(1).map(cluster);
        let after = (at < self.chars.len()).then(|| cluster(at));
        if before.is_some() && before == after {
            return false;
        }
        // The folded neighbours; and between them, what was skipped.
        let begin = before.map_or(0, |before| before + 1);
        let end = after.unwrap_or(self.clusters.len());
        let skipped = self.clusters[begin..end]
            .iter()
            .flat_map(|(_, cluster)| cluster.chars());
        let line: Vec<char> = at
            .checked_sub(1)
            .map(|before| self.chars[before].0)
            .into_iter()
            .chain(skipped)
            .chain(self.chars.get(at).map(|(c, _)| *c))
            .collect();
        let has_both = before.is_some() && after.is_some();
        let first_joins =
            line.len() > 1 && Class::of(line[0]).joins(Class::of(line[1]), everywhere);
        let last_joins = line.len() > 1
            && Class::of(line[line.len() - 2]).joins(Class::of(line[line.len() - 1]), everywhere);
        !(has_both && first_joins && last_joins)
    }
}

fn folded(text: &str, case: bool, width: bool) -> Vec<char> {
    normalize(text, case, width).chars().collect()
}

/// Applies a document that compiles to a text.
pub fn apply(document: &Document, text: &str) -> Outcome {
    let matches = matches(document, text);
    let clusters: Vec<(usize, &str)> = text.grapheme_indices(true).collect();
    let action = |rule: usize| &document.rules[rule].action;
    let of = |wanted: fn(&Action) -> bool| {
        matches
            .iter()
            .filter(move |(_, rule)| wanted(action(*rule)))
    };

    let rewritten = leftmost(
        of(|action| matches!(action, Action::Replace { .. } | Action::Remove))
            .cloned()
            .collect(),
    );
    let masks: Vec<_> = of(|action| matches!(action, Action::Mask { .. }))
        .cloned()
        .collect();
    let mut output = String::new();
    // Old place → new place, for starts and for ends of marks.
    let (mut starts, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 1]);
    for (at, cluster) in clusters {
        let is_inside = |span: &Range<usize>| span.contains(&at);
        let begin = output.len();
        if let Some((span, rule)) = rewritten.iter().find(|(span, _)| is_inside(span)) {
            if at == span.start {
                starts[at] = begin;
                ends[at] = begin;
                if let Action::Replace { with } = action(*rule) {
                    output.push_str(with);
                }
            } else {
                let end = output.len();
                let with = match action(*rule) {
                    Action::Replace { with } => with.len(),
                    _ => 0,
                };
                (starts[at], ends[at]) = (end, end - with);
            }
        } else {
            (starts[at], ends[at]) = (begin, begin);
            match masks
                .iter()
                .filter(|(span, _)| is_inside(span))
                .map(|(_, rule)| *rule)
                .min()
                .map(action)
            {
                Some(Action::Mask { with }) => output.push_str(with),
                _ => output.push_str(cluster),
            }
        }
    }
    (starts[text.len()], ends[text.len()]) = (output.len(), output.len());

    let mut marks = Vec::new();
    for rule in 0..document.rules.len() {
        if matches!(action(rule), Action::Highlight | Action::Link { .. }) {
            let own = leftmost(
                matches
                    .iter()
                    .filter(|(_, of)| *of == rule)
                    .cloned()
                    .collect(),
            );
            marks.extend(
                own.into_iter()
                    .map(|(span, rule)| (starts[span.start]..ends[span.end], rule)),
            );
        }
    }
    marks.retain(|(span, _)| span.start < span.end);
    marks.sort_by_key(|(span, rule)| (span.start, span.end, *rule));
    Outcome {
        matches,
        text: output,
        marks,
    }
}

/// Non-overlapping matches: leftmost, then longest, then by rule.
fn leftmost(mut matches: Vec<(Range<usize>, usize)>) -> Vec<(Range<usize>, usize)> {
    matches.sort_by_key(|(span, rule)| (span.start, usize::MAX - span.end, *rule));
    let mut taken: Vec<(Range<usize>, usize)> = Vec::new();
    for found in matches {
        if taken.iter().all(|before| before.0.end <= found.0.start) {
            taken.push(found);
        }
    }
    taken
}

fn matches(document: &Document, text: &str) -> Vec<(Range<usize>, usize)> {
    let matching = &document.matching;
    let (case, width) = (
        matching.case == Difference::Fold,
        matching.width == Difference::Fold,
    );
    let folded = Folded::new(text, case, width, &matching.skip);
    let occurrences = |keyword: &String| {
        let keyword = Folded::new(keyword, case, width, &matching.skip).text();
        let length = keyword.chars().count();
        let is_here = |at: &usize| {
            let part = &folded.chars[*at..];
            part.len() >= length && keyword.chars().zip(part).all(|(a, (b, _))| a == *b)
        };
        let is_whole = |at: &usize| match matching.words {
            Words::Off => true,
            Words::Auto => {
                folded.is_boundary(*at, false) && folded.is_boundary(*at + length, false)
            }
            Words::On => folded.is_boundary(*at, true) && folded.is_boundary(*at + length, true),
        };
        let places = (0..folded.chars.len()).filter(is_here).filter(is_whole);
        places
            .map(|at| folded.span(at..at + length))
            .collect::<Vec<_>>()
    };
    let allowed: Vec<_> = document.allow.iter().flat_map(occurrences).collect();
    let plain = Folded::new(text, false, width, "");
    let plain_text = plain.text();
    let in_chars = |at: usize| plain_text[..at].chars().count();
    let mut matches = Vec::new();
    for (number, rule) in document.rules.iter().enumerate() {
        matches.extend(
            rule.keywords
                .iter()
                .flat_map(occurrences)
                .map(|span| (span, number)),
        );
        for pattern in &rule.patterns {
            let pattern = RegexBuilder::new(pattern)
                .case_insensitive(case)
                .build()
                .expect("the document compiles");
            let found = pattern
                .find_iter(&plain_text)
                .filter(|found| !found.is_empty());
            matches.extend(found.map(|found| {
                (
                    plain.span(in_chars(found.start())..in_chars(found.end())),
                    number,
                )
            }));
        }
    }
    matches.retain(|(span, _)| {
        !allowed
            .iter()
            .any(|allowed| allowed.start <= span.start && span.end <= allowed.end)
    });
    matches.sort_by_key(|(span, rule)| (span.start, span.end, *rule));
    matches.dedup();
    matches
}
