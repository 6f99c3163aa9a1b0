//! Applies what an engine found to a text: what stays, what takes the place of what, and where marks are afterwards.
//!
//! Where matches overlap: replacements and removals are leftmost-longest, the earlier rule first where two are as long.
//! Masks take the union of all of them, except what is replaced or removed anyway; where two masks cover a character the
//! earlier rule's `with` stands for it. Marks of one rule do not overlap, leftmost-longest again; marks of different rules may. A
//! mark that covers all of what is replaced covers what replaces it; one that covers a part of it loses that part.

use std::collections::BTreeMap;
use std::ops::Range;

use super::document::Action;
use super::engine::{Engine, Match};
use super::unicode::clusters;

/// A text in work, with its marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// As it stands now.
    pub text: String,
    /// In the order of their starts.
    pub marks: Vec<TextMark>,
}

/// A mark on a text in work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextMark {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Which document of those that were applied, counted from 0.
    pub document: usize,
    /// Which rule of it.
    pub rule: u16,
}

/// The text grew beyond its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text with its replacements has more than {0} bytes")]
pub struct TooLong(pub usize);

/// A stretch of the text and what takes its place.
struct Edit<'e> {
    span: Range<usize>,
    with: &'e str,
}

impl Text {
    /// A text without marks.
    pub fn new(text: String) -> Self {
        Self { text, marks: Vec::new() }
    }

    /// Applies the matches of the `document`-th document. Blocking and priorities are not the text's business.
    ///
    /// # Errors
    /// When the text would have more than `most` bytes.
    pub fn rewrite(&mut self, engine: &Engine, document: usize, matches: &[Match], most: usize) -> Result<(), TooLong> {
        let edits = edits(engine, &self.text, matches);
        let marked =
            matches.iter().filter(|found| matches!(action(engine, found), Action::Highlight | Action::Link { .. }));
        let mut marked: Vec<&Match> = marked.collect();
        marked.sort_unstable_by_key(|found| (found.rule, found.span.start, std::cmp::Reverse(found.span.end)));
        for of_rule in marked.chunk_by(|a, b| a.rule == b.rule) {
            let spans = leftmost(of_rule.iter().copied());
            self.marks.extend(spans.map(|found| TextMark { span: found.span.clone(), document, rule: found.rule }));
        }
        self.marks.sort_by_key(|mark| mark.span.start);
        self.apply(&edits, most)
    }

    fn apply(&mut self, edits: &[Edit<'_>], most: usize) -> Result<(), TooLong> {
        if edits.is_empty() {
            return Ok(());
        }
        let mut text = String::with_capacity(self.text.len());
        // Where each edit's replacement stands afterwards.
        let mut places = Vec::with_capacity(edits.len());
        let mut done = 0;
        for Edit { span, with } in edits {
            text.push_str(&self.text[done..span.start]);
            places.push(text.len()..text.len() + with.len());
            text.push_str(with);
            done = span.end;
            if text.len() > most {
                return Err(TooLong(most));
            }
        }
        text.push_str(&self.text[done..]);
        for mark in &mut self.marks {
            let start = moved(edits, &places, mark.span.start, |place| place.end);
            let end = moved(edits, &places, mark.span.end, |place| place.start);
            mark.span = start..end;
        }
        self.marks.retain(|mark| mark.span.start < mark.span.end);
        self.text = text;
        if self.text.len() > most { Err(TooLong(most)) } else { Ok(()) }
    }
}

/// Where a place of the text is after the edits; `inside` decides for one that an edit covers.
fn moved(edits: &[Edit<'_>], places: &[Range<usize>], at: usize, inside: impl Fn(&Range<usize>) -> usize) -> usize {
    let begun = edits.partition_point(|edit| edit.span.start < at);
    match begun.checked_sub(1) {
        None => at,
        Some(last) if at < edits[last].span.end => inside(&places[last]),
        Some(last) => places[last].end + (at - edits[last].span.end),
    }
}

/// All edits, in order, none overlapping another one.
fn edits<'e>(engine: &'e Engine, text: &str, matches: &[Match]) -> Vec<Edit<'e>> {
    let (mut rewritten, mut masked) = (Vec::new(), Vec::new());
    for found in matches {
        match action(engine, found) {
            Action::Replace { .. } | Action::Remove => rewritten.push(found),
            Action::Mask { .. } => masked.push(found),
            Action::Highlight | Action::Link { .. } | Action::Block | Action::Priority { .. } => {}
        }
    }
    rewritten.sort_unstable_by_key(|found| (found.span.start, std::cmp::Reverse(found.span.end), found.rule));
    let mut edits: Vec<_> =
        leftmost(rewritten.into_iter()).map(|found| edit(engine, found.rule, found.span.clone())).collect();
    let masks = masks(engine, text, masked, &edits);
    edits.extend(masks);
    edits.sort_unstable_by_key(|edit| edit.span.start);
    edits
}

/// Every cluster under a mask and outside of what is rewritten.
fn masks<'e>(engine: &'e Engine, text: &str, mut masked: Vec<&Match>, rewritten: &[Edit<'_>]) -> Vec<Edit<'e>> {
    masked.sort_unstable_by_key(|found| found.span.start);
    let mut edits = Vec::new();
    let mut waiting = masked.into_iter().peekable();
    // The rules that mask here, and how far.
    let mut active: BTreeMap<u16, usize> = BTreeMap::new();
    let mut rewritten = rewritten.iter().peekable();
    while let Some(first) = waiting.peek() {
        let begin = first.span.start;
        for (at, cluster) in clusters(&text[begin..]) {
            let span = begin + at..begin + at + cluster.len();
            while let Some(found) = waiting.next_if(|found| found.span.start <= span.start) {
                let reach = active.entry(found.rule).or_default();
                *reach = found.span.end.max(*reach);
            }
            while active.first_entry().is_some_and(|entry| *entry.get() <= span.start) {
                active.pop_first();
            }
            let Some((&rule, _)) = active.first_key_value() else { break };
            while rewritten.next_if(|edit| edit.span.end <= span.start).is_some() {}
            if rewritten.peek().is_none_or(|edit| span.start < edit.span.start) {
                edits.push(edit(engine, rule, span));
            }
        }
        active.clear();
    }
    edits
}

/// Of matches in the order of their starts, the longest first: those that do not overlap one before.
fn leftmost<'m>(matches: impl Iterator<Item = &'m Match>) -> impl Iterator<Item = &'m Match> {
    let mut done = 0;
    matches.filter(move |found| {
        let is_free = found.span.start >= done;
        if is_free {
            done = found.span.end;
        }
        is_free
    })
}

fn edit(engine: &Engine, rule: u16, span: Range<usize>) -> Edit<'_> {
    let with = match &engine.rules()[usize::from(rule)].action {
        Action::Mask { with } | Action::Replace { with } => with.as_str(),
        _ => "",
    };
    Edit { span, with }
}

fn action<'e>(engine: &'e Engine, found: &Match) -> &'e Action {
    &engine.rules()[usize::from(found.rule)].action
}
