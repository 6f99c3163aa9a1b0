//! The same as the engine, as naively as possible: every place of the text is held against every
//! keyword, and the result is put together cluster by cluster. Tests and the fuzz target hold the
//! engine against it.
//!
//! It shares no table and no algorithm of Unicode with the engine: it segments, normalizes and
//! folds case with ICU4X, where the engine has the unicode-rs crates, and takes properties from
//! regex, where the engine has ICU4X's. Only lists that are our own decision stand in both.

use std::ops::Range;
use std::sync::LazyLock;

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};
use icu_segmenter::GraphemeClusterSegmenter;
use regex::{Regex, RegexBuilder};

use crate::rules::document::{Action, Allowed, Difference, Document, Matching, Words};

/// The result for a text: the matches, the text, and the marks as (bytes of the new text, rule).
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Each match and the number of its rule.
    pub matches: Vec<(Range<usize>, usize)>,
    /// The text after all rules.
    pub text: String,
    /// Marked ranges of `text`, in bytes, and the number of their rule.
    pub marks: Vec<(Range<usize>, usize)>,
}

/// A set of characters as regex's Unicode tables have it.
struct Set(LazyLock<Regex>);

impl Set {
    const fn new(make: fn() -> Regex) -> Self {
        Self(LazyLock::new(make))
    }

    fn has(&self, c: char) -> bool {
        self.0.is_match(c.encode_utf8(&mut [0; 4]))
    }
}

macro_rules! set {
    ($name:ident, $pattern:expr) => {
        static $name: Set = Set::new(|| Regex::new($pattern).expect("it is a pattern"));
    };
}

set!(INVISIBLE, r"^\p{Default_Ignorable_Code_Point}$");
set!(
    ELONGATION,
    r"^[\u{640}\u{7fa}\u{883}-\u{885}\u{180a}\u{200d}]$"
);
set!(PICTOGRAPH, r"^\p{Extended_Pictographic}$");
set!(MARK, r"^\p{M}$");
set!(ENCLOSING, r"^\p{Me}$");
set!(
    WORD,
    r"^[\p{Alphabetic}\p{Nd}\p{Pc}\p{Join_Control}--\p{M}]$"
);
set!(
    UNSPACED,
    r"^[\p{sc=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{sc=Hangul}\p{sc=Bopomofo}\p{sc=Yi}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}\p{sc=Tibetan}\p{sc=Javanese}\p{sc=Balinese}\p{sc=Tai_Viet}]$"
);

/// The differences that keywords, or patterns, ignore.
#[derive(Clone, Copy)]
struct Ways<'d> {
    matching: &'d Matching,
    is_pattern: bool,
}

impl Ways<'_> {
    fn has(difference: Difference) -> bool {
        difference == Difference::Fold
    }

    fn ignores(self, c: char) -> bool {
        Self::has(self.matching.ignorable) && (INVISIBLE.has(c) || ELONGATION.has(c))
    }

    fn folded(self, cluster: &str) -> String {
        if cluster == "\r\n" && Self::has(self.matching.typography) && !self.is_pattern {
            return " ".to_owned();
        }
        let chars: Vec<char> = cluster.chars().collect();
        let is_emoji = |at: usize| chars.get(at).is_some_and(|c| PICTOGRAPH.has(*c));
        let stays = |at: usize| {
            let holds_emoji_together = chars[at] == '\u{200d}' && is_emoji(at + 1);
            let is_tag = (0xe_0020..=0xe_007f).contains(&u32::from(chars[at]));
            !self.ignores(chars[at]) || (is_emoji(0) && (holds_emoji_together || is_tag))
        };
        let kept = (0..chars.len())
            .filter(|at| stays(*at))
            .map(|at| self.plain(chars[at]));
        let mut text: String = kept.collect();
        let case = Self::has(self.matching.case);
        if case && self.matching.language.is_some() {
            let composed = ComposingNormalizer::new_nfc().normalize(&text).into_owned();
            text = composed.replace('I', "ı").replace('İ', "i");
        }
        let fold_case = |text: &str| match case && !self.is_pattern {
            true => CaseMapper::new().fold_string(text).into_owned(),
            false => text.to_owned(),
        };
        let text = fold_case(&DecomposingNormalizer::new_nfd().normalize(&text));
        if !Self::has(self.matching.width) {
            return ComposingNormalizer::new_nfc().normalize(&text).into_owned();
        }
        let text = fold_case(&DecomposingNormalizer::new_nfkd().normalize(&text));
        let text = ComposingNormalizer::new_nfkc()
            .normalize(&text)
            .into_owned();
        let mut chars: Vec<char> = text.chars().collect();
        for at in 1..chars.len() {
            let is_tone =
                |c| "\u{e48}\u{e49}\u{e4a}\u{e4b}\u{ec8}\u{ec9}\u{eca}\u{ecb}".contains(c);
            if "\u{e4d}\u{ecd}".contains(chars[at]) && is_tone(chars[at - 1]) {
                chars.swap(at, at - 1);
            }
        }
        chars.into_iter().collect()
    }

    fn plain(self, c: char) -> char {
        if !Self::has(self.matching.typography) {
            c
        } else if c.is_whitespace() && !self.is_pattern {
            ' '
        } else if "‘’‚‛′‵ʼ‹›´`".contains(c) {
            '\''
        } else if "“”„‟″‶«»〝〞〟".contains(c) {
            '"'
        } else if "‐‑‒–⁃−".contains(c) {
            '-'
        } else {
            c
        }
    }
}

fn clusters(text: &str) -> Vec<(usize, &str)> {
    let ends: Vec<usize> = GraphemeClusterSegmenter::new().segment_str(text).collect();
    ends.windows(2)
        .map(|ends| (ends[0], &text[ends[0]..ends[1]]))
        .collect()
}

/// A text as its clusters; and their folded characters, each with its cluster.
struct Folded<'t> {
    ways: Ways<'t>,
    clusters: Vec<(usize, &'t str)>,
    chars: Vec<(char, usize)>,
}

impl<'t> Folded<'t> {
    fn new(text: &'t str, ways: Ways<'t>, skip: &str) -> Self {
        let skip: Vec<char> = skip
            .chars()
            .flat_map(|c| ways.folded(&c.to_string()).chars().collect::<Vec<_>>())
            .collect();
        let clusters = clusters(text);
        let mut chars: Vec<(char, usize)> = Vec::new();
        for (at, (_, cluster)) in clusters.iter().enumerate() {
            let folded = ways.folded(cluster);
            let has_space = chars.last().is_some_and(|(last, _)| *last == ' ');
            let is_one_more = folded == " " && has_space;
            if !(is_one_more && Ways::has(ways.matching.typography) && !ways.is_pattern) {
                chars.extend(
                    folded
                        .chars()
                        .filter(|c| !skip.contains(c))
                        .map(|c| (c, at)),
                );
            }
        }
        Self {
            ways,
            clusters,
            chars,
        }
    }

    fn string(&self) -> String {
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

    /// Returns true if words end at both ends of these folded characters. A keyword does not end
    /// inside of a cluster; a pattern may.
    fn is_whole(&self, part: Range<usize>, everywhere: bool) -> bool {
        [part.start, part.end].into_iter().all(|at| {
            let before = at.checked_sub(1).map(|before| self.chars[before]);
            let (Some((before, one)), Some((after, other))) = (before, self.chars.get(at)) else {
                return true;
            };
            if one == *other {
                let is_in_word = |c| {
                    (WORD.has(c) || MARK.has(c))
                        && self.is_in_word(self.clusters[one].1, everywhere) == Some(true)
                };
                return self.ways.is_pattern && !(is_in_word(before) && is_in_word(*after));
            }
            let end = self.clusters[one].0 + self.clusters[one].1.len();
            self.is_boundary(end, everywhere)
                || self.is_boundary(self.clusters[*other].0, everywhere)
        })
    }

    fn is_boundary(&self, at: usize, everywhere: bool) -> bool {
        let cluster = |(_, cluster): &(usize, &str)| self.is_in_word(cluster, everywhere);
        let (before, after): (Vec<_>, Vec<_>) = self
            .clusters
            .iter()
            .copied()
            .partition(|(start, _)| *start < at);
        !(before.iter().rev().find_map(cluster) == Some(true)
            && after.iter().find_map(cluster) == Some(true))
    }

    /// None if no reader sees the cluster.
    fn is_in_word(&self, cluster: &str, everywhere: bool) -> Option<bool> {
        let seen: Vec<char> = cluster.chars().filter(|c| !self.ways.ignores(*c)).collect();
        let first = *seen.first()?;
        let is_letter = WORD.has(first) && (everywhere || !UNSPACED.has(first));
        let is_symbol = |c: &char| ENCLOSING.has(*c) || !(WORD.has(*c) || MARK.has(*c));
        Some(is_letter && !seen.iter().any(is_symbol))
    }
}

/// Applies a document that compiles to a text.
pub fn apply(document: &Document, text: &str) -> Outcome {
    let matches = matches(document, text);
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
    let hides = |cluster: &str| {
        Ways::has(document.matching.ignorable) && cluster.chars().all(|c| INVISIBLE.has(c))
    };
    for (at, cluster) in clusters(text) {
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
                Some(Action::Mask { .. }) if hides(cluster) => {}
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
    let ways = |is_pattern| Ways {
        matching,
        is_pattern,
    };
    let folded = Folded::new(text, ways(false), &matching.skip);
    let occurrences = |keyword: &str| {
        let keyword = Folded::new(keyword, ways(false), &matching.skip).string();
        let length = keyword.chars().count();
        let is_here = |at: &usize| {
            let part = &folded.chars[*at..];
            part.len() >= length && keyword.chars().zip(part).all(|(a, (b, _))| a == *b)
        };
        let is_whole = |at: &usize| match matching.words {
            Words::Off => true,
            Words::Auto => folded.is_whole(*at..*at + length, false),
            Words::On => folded.is_whole(*at..*at + length, true),
        };
        let places = (0..folded.chars.len()).filter(is_here).filter(is_whole);
        places
            .map(|at| folded.span(at..at + length))
            .collect::<Vec<_>>()
    };
    let plain = Folded::new(text, ways(true), "");
    let found = |pattern: &str| found(pattern, &plain);
    let of_allowed = |allowed: &Allowed| match allowed {
        Allowed::Phrase(phrase) => occurrences(phrase),
        Allowed::Pattern { pattern } => found(pattern),
    };
    let allowed: Vec<_> = document.allow.iter().flat_map(of_allowed).collect();
    let mut matches = Vec::new();
    for (number, rule) in document.rules.iter().enumerate() {
        let of_keywords = rule
            .keywords
            .iter()
            .flat_map(|keyword| occurrences(keyword));
        let of_patterns = rule.patterns.iter().flat_map(|pattern| found(pattern));
        matches.extend(of_keywords.chain(of_patterns).map(|span| (span, number)));
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

/// All matches of a pattern whose literals need no folding. `\b` may stand at both of its ends, and
/// nowhere else: then every part of the text is held against the rest of it, the longest first.
fn found(pattern: &str, folded: &Folded<'_>) -> Vec<Range<usize>> {
    let text = folded.string();
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .case_insensitive(Ways::has(folded.ways.matching.case))
            .build()
            .expect("the document compiles")
    };
    let in_chars = |at: usize| text[..at].chars().count();
    let Some(inner) = pattern
        .strip_prefix(r"\b")
        .and_then(|rest| rest.strip_suffix(r"\b"))
    else {
        let found = compile(pattern)
            .find_iter(&text)
            .filter(|found| !found.is_empty())
            .map(|found| folded.span(in_chars(found.start())..in_chars(found.end())))
            .collect();
        return found;
    };
    let whole = compile(&format!("^(?:{inner})$"));
    let everywhere = folded.ways.matching.words == Words::On;
    let (mut at, mut spans) = (0, Vec::new());
    while at < folded.chars.len() {
        let is_match = |end: &usize| {
            let part: String = folded.chars[at..*end].iter().map(|(c, _)| c).collect();
            whole.is_match(&part) && folded.is_whole(at..*end, everywhere)
        };
        match (at + 1..=folded.chars.len()).rev().find(is_match) {
            Some(end) => {
                spans.push(folded.span(at..end));
                at = end;
            }
            None => at += 1,
        }
    }
    spans
}
