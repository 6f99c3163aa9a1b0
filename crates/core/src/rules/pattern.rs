//! Compiles patterns, so that they see texts as keywords do: folded, and with words that end where
//! keywords' words end.
//!
//! The literals of a pattern are folded as texts are, before it is compiled: no folded text has a
//! full-width colon. Case is left to the library. In a pattern with `\b`, every class and literal
//! matches shadows, too (`shadow.rs`).

use std::ops::Range;

use regex_automata::meta::{self, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_syntax::ast::{self, Ast, ClassSet, ClassSetItem, Span};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{self, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look};

use super::document::{Difference, MAX_PATTERN_MIB, Matching, Words};
use super::fold::Fold;
use super::folding::Folding;
use super::problem::Problem;
use super::shadow::{self, Shadows};

/// A range of a class with more characters than this is not folded: it has the plain forms in it.
const MOST_IN_RANGE: u32 = 4_096;

/// Reads patterns and folds their literals.
#[derive(Debug)]
pub struct Reader {
    case: bool,
    folding: Folding,
    fold: Fold,
}

/// The compiled patterns of a document, each with its owner.
#[derive(Debug)]
pub struct Patterns {
    reader: Reader,
    plain: Vec<(u16, Regex)>,
    /// Those with `\b`, which search a text with shadows.
    bounded: Vec<(u16, Regex)>,
    shadows: Shadows,
    shadow_fold: Option<Fold>,
    bytes: usize,
    most_bytes: usize,
}

impl Reader {
    /// Reads patterns for texts that are compared in this way.
    pub fn new(matching: &Matching) -> Self {
        // White space is left to `\s`, and case to the library.
        let folding = Folding {
            case: false,
            spaces: false,
            ..Folding::of(matching)
        };
        Self {
            case: matching.case == Difference::Fold,
            folding,
            fold: Fold::new(folding, ""),
        }
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// The reason and the position, if it is not a valid regular expression.
    pub fn read(&self, pattern: &str) -> Result<Hir, Problem> {
        let wrong = |problem: &dyn std::fmt::Display, span: &Span| {
            Problem::error(format!(
                "invalid regular expression {pattern:?}: {problem}, at character {}",
                pattern[..span.start.offset].chars().count() + 1
            ))
        };
        let mut ast = ast::parse::Parser::new()
            .parse(pattern)
            .map_err(|error| wrong(error.kind(), error.span()))?;
        self.fold(&mut ast);
        TranslatorBuilder::new()
            .case_insensitive(self.case)
            .build()
            .translate(pattern, &ast)
            .map_err(|error| wrong(error.kind(), error.span()))
    }

    /// Returns whether no folded text has what the pattern asks for.
    pub fn is_futile(&self, hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => false,
            HirKind::Literal(literal) => {
                std::str::from_utf8(&literal.0).is_ok_and(|text| self.folded(text) != text)
            }
            HirKind::Class(hir::Class::Unicode(class)) => !class
                .ranges()
                .iter()
                .flat_map(|range| range.start()..=range.end())
                .any(|c| self.is_plain(c)),
            HirKind::Class(hir::Class::Bytes(class)) => class.ranges().is_empty(),
            HirKind::Repetition(repetition) => {
                repetition.min > 0 && self.is_futile(&repetition.sub)
            }
            HirKind::Capture(capture) => self.is_futile(&capture.sub),
            HirKind::Concat(parts) => parts.iter().any(|part| self.is_futile(part)),
            HirKind::Alternation(parts) => parts.iter().all(|part| self.is_futile(part)),
        }
    }

    fn folded(&self, text: &str) -> String {
        self.folding.normalize(text).into_owned()
    }

    fn is_plain(&self, c: char) -> bool {
        let mut utf8 = [0; 4];
        let text: &str = c.encode_utf8(&mut utf8);
        self.folding.normalize(text) == text
    }

    fn fold(&self, ast: &mut Ast) {
        match ast {
            Ast::Literal(literal) => {
                if let Some(folded) = self.folded_literals(std::slice::from_ref(literal)) {
                    *ast = sequence(folded, literal.span);
                }
            }
            Ast::ClassBracketed(class) => {
                let mut strings = Vec::new();
                self.fold_set(&mut class.kind, &mut strings);
                if !class.negated && !strings.is_empty() {
                    let span = class.span;
                    let class = Ast::ClassBracketed(class.clone());
                    *ast = either(class, strings, span);
                }
            }
            Ast::Repetition(repetition) => self.fold(&mut repetition.ast),
            Ast::Group(group) => self.fold(&mut group.ast),
            Ast::Alternation(parts) => parts.asts.iter_mut().for_each(|part| self.fold(part)),
            Ast::Concat(parts) => self.fold_sequence(&mut parts.asts),
            Ast::Empty(_)
            | Ast::Flags(_)
            | Ast::Dot(_)
            | Ast::Assertion(_)
            | Ast::ClassUnicode(_)
            | Ast::ClassPerl(_) => {}
        }
    }

    /// Literals that follow each other are folded as one text: a letter and a mark may become one
    /// character.
    fn fold_sequence(&self, parts: &mut Vec<Ast>) {
        let mut folded = Vec::with_capacity(parts.len());
        let mut literals: Vec<Box<ast::Literal>> = Vec::new();
        let end = |literals: &mut Vec<Box<ast::Literal>>, folded: &mut Vec<Ast>| {
            let literals = std::mem::take(literals);
            match self.folded_literals(&literals) {
                Some(chars) => {
                    let span = literals[0].span;
                    folded.extend(chars.chars().map(|c| literal(c, span)));
                }
                None => folded.extend(literals.into_iter().map(Ast::Literal)),
            }
        };
        for mut part in parts.drain(..) {
            if let Ast::Literal(literal) = &part {
                literals.push(literal.clone());
                continue;
            }
            end(&mut literals, &mut folded);
            self.fold(&mut part);
            folded.push(part);
        }
        end(&mut literals, &mut folded);
        *parts = folded;
    }

    /// Returns the folded form of some literals, if it differs.
    fn folded_literals(&self, literals: &[Box<ast::Literal>]) -> Option<String> {
        let text: String = literals.iter().map(|literal| literal.c).collect();
        Some(self.folded(&text)).filter(|folded| *folded != text)
    }

    /// Folds the characters of a class; those that become several are `strings`.
    fn fold_set(&self, set: &mut ClassSet, strings: &mut Vec<String>) {
        match set {
            ClassSet::Item(item) => self.fold_item(item, strings),
            ClassSet::BinaryOp(operation) => {
                // An intersection has no place for strings.
                self.fold_set(&mut operation.lhs, &mut Vec::new());
                self.fold_set(&mut operation.rhs, &mut Vec::new());
            }
        }
    }

    fn fold_item(&self, item: &mut ClassSetItem, strings: &mut Vec<String>) {
        let (range, span) = match item {
            ClassSetItem::Literal(literal) => (literal.c..=literal.c, literal.span),
            ClassSetItem::Range(range) => (range.start.c..=range.end.c, range.span),
            ClassSetItem::Bracketed(class) => {
                let mut own = Vec::new();
                self.fold_set(&mut class.kind, &mut own);
                strings.extend(own.into_iter().filter(|_| !class.negated));
                return;
            }
            ClassSetItem::Union(union) => {
                for item in &mut union.items {
                    self.fold_item(item, strings);
                }
                return;
            }
            ClassSetItem::Empty(_)
            | ClassSetItem::Ascii(_)
            | ClassSetItem::Unicode(_)
            | ClassSetItem::Perl(_) => return,
        };
        if u32::from(*range.end()).saturating_sub((*range.start()).into()) > MOST_IN_RANGE {
            return;
        }
        let mut items = vec![item.clone()];
        for c in range.filter(|c| !self.is_plain(*c)) {
            let folded = self.folded(c.encode_utf8(&mut [0; 4]));
            let mut chars = folded.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => items.push(ClassSetItem::Literal(verbatim(c, span))),
                (Some(_), Some(_)) => strings.push(folded),
                (None, _) => {}
            }
        }
        *item = ClassSetItem::Union(ast::ClassSetUnion { span, items });
    }
}

impl Patterns {
    /// No patterns yet; they may take so many bytes in all.
    pub fn new(matching: &Matching, most_bytes: usize) -> Self {
        Self {
            reader: Reader::new(matching),
            plain: Vec::new(),
            bounded: Vec::new(),
            shadows: match matching.words {
                Words::On => Shadows::Symbols,
                Words::Auto | Words::Off => Shadows::Unspaced,
            },
            shadow_fold: None,
            bytes: 0,
            most_bytes,
        }
    }

    /// Adds a pattern. Returns what is wrong with it.
    pub fn add(&mut self, pattern: &str, owner: u16) -> Option<Problem> {
        if self.bytes > self.most_bytes {
            return None; // That is said already, and compiling more only takes time.
        }
        self.compile(pattern, owner).err()
    }

    fn compile(&mut self, pattern: &str, owner: u16) -> Result<(), Problem> {
        let mut hir = self.reader.read(pattern)?;
        let has_boundary = hir.properties().look_set().contains_word_unicode();
        if has_boundary {
            hir = with_shadows(hir);
        }
        // Where a match begins and ends is all that is asked of it; captures and a one-pass
        // automaton would take memory for nothing.
        let config = meta::Config::new()
            .nfa_size_limit(Some(self.most_bytes))
            .which_captures(WhichCaptures::Implicit)
            .onepass(false);
        let regex = Regex::builder().configure(config).build_from_hir(&hir);
        let bytes = regex
            .as_ref()
            .map_or(self.most_bytes + 1, Regex::memory_usage);
        self.bytes += bytes;
        let regex = regex
            .ok()
            .filter(|_| self.bytes <= self.most_bytes)
            .ok_or_else(|| too_many_bytes(self.most_bytes))?;
        if has_boundary {
            let reader = &self.reader;
            self.shadow_fold.get_or_insert_with(|| {
                let folding = Folding {
                    shadows: self.shadows,
                    ..reader.folding
                };
                Fold::new(folding, "")
            });
            self.bounded.push((owner, regex));
        } else {
            self.plain.push((owner, regex));
        }
        Ok(())
    }

    /// Returns the bytes of memory that the compiled patterns hold.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// Calls `found` with every match in a text that is not empty, and its pattern's owner, until
    /// that says no.
    pub fn find(&self, text: &str, mut found: impl FnMut(Range<usize>, u16) -> bool) {
        let shadows = self.shadow_fold.as_ref().unwrap_or(&self.reader.fold);
        for (fold, patterns) in [(&self.reader.fold, &self.plain), (shadows, &self.bounded)] {
            if patterns.is_empty() {
                continue;
            }
            let folded = fold.fold(text);
            for (owner, pattern) in patterns {
                let matches = pattern.find_iter(folded.text());
                for part in matches
                    .map(|found| found.range())
                    .filter(|part| !part.is_empty())
                {
                    if !found(folded.span(part), *owner) {
                        return;
                    }
                }
            }
        }
    }
}

/// Makes every class and literal of a pattern match shadows as well, and `\b` the boundary of
/// keywords.
fn with_shadows(hir: Hir) -> Hir {
    let all = |parts: Vec<Hir>| parts.into_iter().map(with_shadows).collect();
    let of_class = |class| Hir::class(hir::Class::Unicode(shadow::with_shadows(class)));
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        // As for keywords: not both sides are parts of a word.
        HirKind::Look(Look::WordUnicode) => Hir::alternation(vec![
            Hir::look(Look::WordStartHalfUnicode),
            Hir::look(Look::WordEndHalfUnicode),
        ]),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => {
                let single = |c| ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
                Hir::concat(text.chars().map(|c| of_class(single(c))).collect())
            }
            Err(_) => Hir::literal(literal.0),
        },
        HirKind::Class(hir::Class::Unicode(class)) => of_class(class),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Repetition(mut repetition) => {
            *repetition.sub = with_shadows(*repetition.sub);
            Hir::repetition(repetition)
        }
        HirKind::Capture(mut capture) => {
            *capture.sub = with_shadows(*capture.sub);
            Hir::capture(capture)
        }
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}

fn verbatim(c: char, span: Span) -> ast::Literal {
    ast::Literal {
        span,
        kind: ast::LiteralKind::Verbatim,
        c,
    }
}

fn literal(c: char, span: Span) -> Ast {
    Ast::literal(verbatim(c, span))
}

/// One character, or a group of several.
fn sequence(text: String, span: Span) -> Ast {
    let mut literals: Vec<_> = text.chars().map(|c| literal(c, span)).collect();
    match literals.len() {
        0 => Ast::empty(span),
        1 => literals.remove(0),
        _ => group(
            Ast::concat(ast::Concat {
                span,
                asts: literals,
            }),
            span,
        ),
    }
}

fn either(class: Ast, strings: Vec<String>, span: Span) -> Ast {
    let strings = strings.into_iter().map(|text| sequence(text, span));
    let asts = strings.chain([class]).collect();
    group(Ast::alternation(ast::Alternation { span, asts }), span)
}

fn group(ast: Ast, span: Span) -> Ast {
    let kind = ast::GroupKind::NonCapturing(ast::Flags {
        span,
        items: Vec::new(),
    });
    Ast::group(ast::Group {
        span,
        kind,
        ast: Box::new(ast),
    })
}

fn too_many_bytes(most: usize) -> Problem {
    Problem::error(format!(
        "with this one, the patterns of the document take more than {} MiB when compiled. Unicode's classes are large: `[0-9]` \
         takes far less than `\\d`, `[0-9A-Za-z_]` than `\\w`, `(?-u:\\b)` than `\\b`, and a small count less than a large \
         one. The document's field `pattern_mib` sets the limit, up to {MAX_PATTERN_MIB}",
        most >> 20
    ))
}
