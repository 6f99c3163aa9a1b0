//! A document made ready for work: compiled once, immutable, shared by everybody who processes reminders.

use std::ops::Range;

use regex_automata::meta::{self, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;

use super::document::{Action, Difference, Document, Matching, Words};
use super::finder::Finder;
use super::fold::{Fold, Folded};
use super::problem::Problem;

/// The most matches in one text. More come from nowhere but a keyword and a text made for each other.
pub const MAX_MATCHES: usize = 1_000_000;
/// The most bytes that a compiled pattern may take: its automaton, without what speeds it up.
const PATTERN_BYTES: usize = 1 << 20;
/// The most bytes that all compiled patterns of a document may take. What they take is also what a text costs: with so much, a text
/// of 64 KiB takes about 0.1 s of the intake, which all sources share.
const PATTERNS_BYTES: usize = 32 << 20;
/// The owner of allowed phrases, beyond all rules.
const ALLOW: u16 = u16::MAX;

/// A compiled document.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<CompiledRule>,
    words: Words,
    fold: Fold,
    finder: Option<Finder>,
    pattern_fold: Fold,
    patterns: Vec<(u16, Regex)>,
}

/// A rule without what it looks for.
#[derive(Debug)]
pub struct CompiledRule {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Action,
}

/// A rule found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Where: bytes of the text, whole grapheme clusters.
    pub span: Range<usize>,
    /// Which rule, counted from 0.
    pub rule: u16,
}

/// A text in which the rules match more often than [`MAX_MATCHES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rules match more than {MAX_MATCHES} times in one text")]
pub struct TooManyMatches;

impl Engine {
    /// Compiles a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(document: &Document) -> Result<Self, Vec<Problem>> {
        let mut problems = document.check();
        let matching = &document.matching;
        let (case, width) = (
            matching.case == Difference::Fold,
            matching.width == Difference::Fold,
        );
        let fold = fold(matching);
        let mut keywords = Vec::new();
        let mut patterns = Vec::new();
        let mut pattern_bytes = 0;
        let mut take = |list: &str, at: usize, keyword: &str, owner: u16| {
            let folded = fold.fold(keyword).text().to_owned();
            if folded.is_empty() && !keyword.is_empty() {
                let problem = format!(
                    "{keyword:?} has nothing but characters of `match.skip`, so nothing is left to find"
                );
                return Some(Problem::error(problem).at(format!("{list}[{at}]")));
            }
            keywords.push((folded, owner));
            None
        };
        problems.extend(
            document
                .allow
                .iter()
                .enumerate()
                .filter_map(|(at, phrase)| take("allow", at, phrase, ALLOW)),
        );
        for ((at, rule), number) in document.rules.iter().enumerate().zip(0u16..) {
            let empty = rule
                .keywords
                .iter()
                .enumerate()
                .filter_map(|(place, keyword)| take("keywords", place, keyword, number));
            problems.extend(empty.map(|problem| problem.in_rule(at, &rule.name)));
            for (place, pattern) in rule.patterns.iter().enumerate() {
                if pattern_bytes > PATTERNS_BYTES {
                    break; // That is said already, and compiling more only takes time.
                }
                let compiled = compile(pattern, case).and_then(|pattern| {
                    pattern_bytes += pattern.memory_usage();
                    if pattern_bytes > PATTERNS_BYTES {
                        Err(too_many_bytes())
                    } else {
                        Ok(pattern)
                    }
                });
                match compiled {
                    Ok(pattern) => patterns.push((number, pattern)),
                    Err(problem) => problems.push(
                        problem
                            .in_rule(at, &rule.name)
                            .at(format!("patterns[{place}]")),
                    ),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // What skipping puts together is no word of the text.
        let words = if matching.skip.is_empty() {
            matching.words
        } else {
            Words::Off
        };
        let finder = (!keywords.is_empty())
            .then(|| Finder::new(keywords, words))
            .transpose();
        Ok(Self {
            rules: document.rules.iter().map(CompiledRule::of).collect(),
            words: matching.words,
            fold,
            finder: finder
                .map_err(|error| vec![Problem::error(format!("too many keywords: {error}"))])?,
            pattern_fold: Fold::new(false, width, ""),
            patterns,
        })
    }

    /// Its rules, in order.
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// Returns the bytes of memory that its keywords and patterns hold.
    pub fn heap_bytes(&self) -> usize {
        let patterns = self
            .patterns
            .iter()
            .map(|(_, pattern)| pattern.memory_usage());
        self.finder.as_ref().map_or(0, Finder::heap_bytes) + patterns.sum::<usize>()
    }

    /// Everything that the rules find in a text, overlapping or not, less what is allowed.
    ///
    /// # Errors
    /// When that is too much.
    pub fn find(&self, text: &str) -> Result<Vec<Match>, TooManyMatches> {
        let (mut matches, mut allowed) = (Vec::new(), Vec::new());
        if let Some(finder) = &self.finder {
            let folded = self.fold.fold(text);
            let mut count = 0usize;
            finder.find(folded.text(), |part, owner| {
                count += 1;
                if count > MAX_MATCHES || !self.is_whole(&folded, &part) {
                    return;
                }
                let span = folded.span(part);
                if owner == ALLOW {
                    allowed.push(span)
                } else {
                    matches.push(Match { span, rule: owner })
                }
            });
            if count > MAX_MATCHES {
                return Err(TooManyMatches);
            }
        }
        if !self.patterns.is_empty() {
            let folded = self.pattern_fold.fold(text);
            for (rule, pattern) in &self.patterns {
                let found = pattern
                    .find_iter(folded.text())
                    .filter(|found| !found.is_empty());
                matches.extend(found.map(|found| Match {
                    span: folded.span(found.range()),
                    rule: *rule,
                }));
                if matches.len() > MAX_MATCHES {
                    return Err(TooManyMatches);
                }
            }
        }
        if !allowed.is_empty() {
            let allowed = Allowed::new(allowed);
            matches.retain(|found| !allowed.contains(&found.span));
        }
        Ok(matches)
    }

    /// Whether a keyword found here is whole words, or does not have to be.
    fn is_whole(&self, folded: &Folded<'_>, part: &Range<usize>) -> bool {
        let ends = |everywhere| {
            [part.start, part.end]
                .into_iter()
                .all(|at| folded.is_word_boundary(at, everywhere))
        };
        match self.words {
            Words::Off => true,
            Words::On => ends(true),
            Words::Auto => ends(false),
        }
    }
}

/// Returns what makes keywords and texts comparable.
pub(super) fn fold(matching: &Matching) -> Fold {
    Fold::new(
        matching.case == Difference::Fold,
        matching.width == Difference::Fold,
        &matching.skip,
    )
}

impl CompiledRule {
    fn of(rule: &super::document::Rule) -> Self {
        Self {
            name: rule.name.clone(),
            action: rule.action.clone(),
        }
    }
}

fn compile(pattern: &str, case: bool) -> Result<Regex, Problem> {
    // Where a match begins and ends is all that is asked of it; captures and a one-pass automaton would take memory for nothing.
    let config = meta::Config::new()
        .nfa_size_limit(Some(PATTERN_BYTES))
        .which_captures(WhichCaptures::Implicit)
        .onepass(false);
    let syntax = syntax::Config::new().case_insensitive(case);
    Regex::builder()
        .configure(config)
        .syntax(syntax)
        .build(pattern)
        .map_err(|error| {
            Problem::error(match error.syntax_error() {
                Some(error) => format!(
                    "{pattern:?} is no regular expression: {}",
                    in_one_line(&error.to_string())
                ),
                None => format!(
                    "{pattern:?} takes more than {} MiB when compiled; make it shorter",
                    PATTERN_BYTES >> 20
                ),
            })
        })
}

fn too_many_bytes() -> Problem {
    Problem::error(format!(
        "with this one, the patterns of the document take more than {} MiB when compiled; use fewer or shorter ones, or ASCII \
         classes: `[0-9]` for `\\d`, `(?-u:\\b)` for `\\b`, and small counts take far less",
        PATTERNS_BYTES >> 20
    ))
}

/// What is wrong with a pattern and where, of a message that draws it: the pattern, a caret below, and `error: ...`.
fn in_one_line(drawn: &str) -> String {
    let Some((drawing, problem)) = drawn.rsplit_once("error: ") else {
        return drawn.to_owned();
    };
    match drawing.lines().collect::<Vec<_>>()[..] {
        [_, _, caret] => {
            format!(
                "{problem}, at character {}",
                caret.find('^').unwrap_or(DRAWING_INDENT) + 1 - DRAWING_INDENT
            )
        }
        _ => problem.to_owned(),
    }
}

/// How far regex indents a pattern that it draws.
const DRAWING_INDENT: usize = 4;

/// Allowed stretches of a text.
struct Allowed {
    /// By start: the stretch that reaches furthest among those that begin there or before.
    reach: Vec<(usize, usize)>,
}

impl Allowed {
    fn new(mut spans: Vec<Range<usize>>) -> Self {
        spans.sort_unstable_by_key(|span| span.start);
        let mut furthest = 0;
        let reach = spans.into_iter().map(|span| {
            furthest = furthest.max(span.end);
            (span.start, furthest)
        });
        Self {
            reach: reach.collect(),
        }
    }

    /// Whether one of them contains this one.
    fn contains(&self, span: &Range<usize>) -> bool {
        let begun = self
            .reach
            .partition_point(|(start, _)| *start <= span.start);
        begun
            .checked_sub(1)
            .is_some_and(|at| self.reach[at].1 >= span.end)
    }
}
