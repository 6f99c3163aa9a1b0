//! A document made ready for work: compiled once, immutable, shared by everybody who processes
//! reminders.

use std::ops::Range;

use super::addresses;
use super::document::{Action, Addresses, Allowed, Difference, Document, Words};
use super::finder::Finder;
use super::fold::Fold;
use super::folding::Folding;
use super::pattern::Patterns;
use super::problem::Problem;
use super::spans::Spans;

/// The most matches in one text. More come from nowhere but a keyword and a text made for each
/// other.
pub const MAX_MATCHES: usize = 1_000_000;
/// The owner of what is allowed, beyond all rules.
const ALLOW: u16 = u16::MAX;

/// A compiled document.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<CompiledRule>,
    words: Words,
    /// True if a mask does not count invisible characters.
    pub(super) ignorable: bool,
    addresses: Addresses,
    fold: Fold,
    finder: Option<Finder>,
    patterns: Patterns,
}

/// A rule without what it looks for.
#[derive(Debug)]
pub struct CompiledRule {
    /// Its name.
    pub name: String,
    /// The rule's action.
    pub action: Action,
}

/// A rule found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The position: bytes of the text, whole grapheme clusters.
    pub span: Range<usize>,
    /// The rule's index, from 0.
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
        let fold = Fold::new(Folding::of(matching), &matching.skip);
        let mut keywords = Vec::new();
        let mut patterns = Patterns::new(matching, usize::from(document.pattern_mib) << 20);
        let mut keyword = |at: String, keyword: &str, owner: u16| {
            let folded = fold.fold(keyword).text().to_owned();
            if folded.is_empty() && !keyword.is_empty() {
                let problem = format!(
                    "{keyword:?} has nothing but characters that `match.ignorable` or `match.skip` leaves out, so nothing is \
                     left to find"
                );
                return Some(Problem::error(problem).at(at));
            }
            keywords.push((folded, owner));
            None
        };
        for (at, allowed) in document.allow.iter().enumerate() {
            let at = format!("allow[{at}]");
            problems.extend(match allowed {
                Allowed::Phrase(phrase) => keyword(at, phrase, ALLOW),
                Allowed::Pattern { pattern } => {
                    patterns.add(pattern, ALLOW).map(|wrong| wrong.at(at))
                }
            });
        }
        for ((at, rule), number) in document.rules.iter().enumerate().zip(0u16..) {
            let of_keywords = rule.keywords.iter().enumerate();
            let mut wrong: Vec<_> = of_keywords
                .filter_map(|(place, text)| keyword(format!("keywords[{place}]"), text, number))
                .collect();
            let of_patterns = rule.patterns.iter().enumerate();
            wrong.extend(of_patterns.filter_map(|(place, pattern)| {
                Some(
                    patterns
                        .add(pattern, number)?
                        .at(format!("patterns[{place}]")),
                )
            }));
            problems.extend(
                wrong
                    .into_iter()
                    .map(|problem| problem.in_rule(at, &rule.name)),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // Skipping puts together what is not a word of the text.
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
            ignorable: matching.ignorable == Difference::Fold,
            addresses: matching.addresses,
            fold,
            finder: finder
                .map_err(|error| vec![Problem::error(format!("too many keywords: {error}"))])?,
            patterns,
        })
    }

    /// Its rules, in order.
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// Returns the bytes of memory that its keywords and patterns hold.
    pub fn heap_bytes(&self) -> usize {
        self.finder.as_ref().map_or(0, Finder::heap_bytes) + self.patterns.heap_bytes()
    }

    /// Everything that the rules find in a text, overlapping or not, less what is allowed.
    ///
    /// # Errors
    /// When that is too much.
    pub fn find(&self, text: &str) -> Result<Vec<Match>, TooManyMatches> {
        let (mut matches, mut allowed) = (Vec::new(), Vec::new());
        let mut note = |span, owner| match owner {
            ALLOW => allowed.push(span),
            rule => matches.push(Match { span, rule }),
        };
        let mut count = 0usize;
        if let Some(finder) = &self.finder {
            let folded = self.fold.fold(text);
            finder.find(&folded, |part, owner| {
                count += 1;
                let is_whole = || match self.words {
                    Words::Off => true,
                    Words::On => folded.is_whole(&part, true),
                    Words::Auto => folded.is_whole(&part, false),
                };
                if count <= MAX_MATCHES && is_whole() {
                    note(folded.span(part), owner);
                }
            });
        }
        self.patterns.find(text, |span, owner| {
            count += 1;
            if count <= MAX_MATCHES {
                note(span, owner);
            }
            count <= MAX_MATCHES
        });
        if count > MAX_MATCHES {
            return Err(TooManyMatches);
        }
        if self.addresses == Addresses::Leave && !matches.is_empty() {
            allowed.extend(addresses::find(text));
        }
        if !allowed.is_empty() {
            let allowed = Spans::new(allowed);
            matches.retain(|found| !allowed.contains(&found.span));
        }
        Ok(matches)
    }
}

impl CompiledRule {
    fn of(rule: &super::document::Rule) -> Self {
        Self {
            name: rule.name.clone(),
            action: rule.action.clone(),
        }
    }
}
