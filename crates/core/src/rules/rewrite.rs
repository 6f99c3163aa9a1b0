//! Applies what an engine found to a text: what stays, what takes the place of what, and where
//! marks are afterwards.
//!
//! Where matches overlap: replacements and removals are leftmost-longest, the earlier rule first
//! where two are as long. Masks take the union of all of them, except what is replaced or removed
//! anyway; where two masks cover a character the earlier rule's `with` stands for it. Marks of one
//! rule do not overlap, leftmost-longest again; marks of different rules may. A mark that covers
//! all of what is replaced covers what replaces it; one that covers a part of it loses that part.

use std::ops::Range;

use super::document::Action;
use super::engine::{Engine, Match};
use super::folding::clusters;
use super::unicode::is_invisible;

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
    /// The index of the document among those that were applied, from 0.
    pub document: usize,
    /// The index of its rule.
    pub rule: u16,
}

/// The text grew beyond its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text with its replacements has more than {0} bytes")]
pub struct TooLong(pub usize);

/// A stretch of the text, made of units of so many bytes, and what takes the place of each unit:
/// one unit for a replacement, one for each cluster under a mask.
struct Edit<'e> {
    span: Range<usize>,
    unit: usize,
    with: &'e str,
}

impl Edit<'_> {
    fn bytes(&self) -> usize {
        self.span.len() / self.unit * self.with.len()
    }
}

impl Text {
    /// A text without marks.
    pub fn new(text: String) -> Self {
        Self {
            text,
            marks: Vec::new(),
        }
    }

    /// Applies the matches of the `document`-th document. Blocking and priorities are not the
    /// text's business.
    ///
    /// # Errors
    /// When the text would have more than `most` bytes.
    pub fn rewrite(
        &mut self,
        engine: &Engine,
        document: usize,
        matches: &[Match],
        most: usize,
    ) -> Result<(), TooLong> {
        let edits = edits(engine, &self.text, matches);
        let marked = matches.iter().filter(|found| {
            matches!(
                action(engine, found),
                Action::Highlight | Action::Link { .. }
            )
        });
        let mut marked: Vec<&Match> = marked.collect();
        marked.sort_unstable_by_key(|found| {
            (
                found.rule,
                found.span.start,
                std::cmp::Reverse(found.span.end),
            )
        });
        for of_rule in marked.chunk_by(|a, b| a.rule == b.rule) {
            let spans = leftmost(of_rule.iter().copied());
            self.marks.extend(spans.map(|found| TextMark {
                span: found.span.clone(),
                document,
                rule: found.rule,
            }));
        }
        self.marks.sort_by_key(|mark| mark.span.start);
        self.apply(&edits, most)
    }

    fn apply(&mut self, edits: &[Edit<'_>], most: usize) -> Result<(), TooLong> {
        if edits.is_empty() {
            return Ok(());
        }
        let mut text = String::with_capacity(self.text.len());
        // Where each edit's replacement begins.
        let mut places = Vec::with_capacity(edits.len());
        let mut done = 0;
        for edit in edits {
            text.push_str(&self.text[done..edit.span.start]);
            places.push(text.len());
            if text.len() + edit.bytes() > most {
                return Err(TooLong(most));
            }
            (0..edit.span.len() / edit.unit).for_each(|_| text.push_str(edit.with));
            done = edit.span.end;
        }
        text.push_str(&self.text[done..]);
        for mark in &mut self.marks {
            let start = moved(edits, &places, mark.span.start, usize::div_ceil);
            let end = moved(edits, &places, mark.span.end, |bytes, unit| bytes / unit);
            mark.span = start..end;
        }
        self.marks.retain(|mark| mark.span.start < mark.span.end);
        self.text = text;
        if self.text.len() > most {
            Err(TooLong(most))
        } else {
            Ok(())
        }
    }
}

/// Returns a position of the text after the edits; `whole` rounds one inside of what is replaced to
/// its end or its start.
fn moved(
    edits: &[Edit<'_>],
    places: &[usize],
    at: usize,
    whole: impl Fn(usize, usize) -> usize,
) -> usize {
    let begun = edits.partition_point(|edit| edit.span.start < at);
    let Some(last) = begun.checked_sub(1) else {
        return at;
    };
    let edit = &edits[last];
    if at < edit.span.end {
        places[last] + whole(at - edit.span.start, edit.unit) * edit.with.len()
    } else {
        places[last] + edit.bytes() + (at - edit.span.end)
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
    rewritten.sort_unstable_by_key(|found| {
        (
            found.span.start,
            std::cmp::Reverse(found.span.end),
            found.rule,
        )
    });
    let whole = |found: &Match| Edit {
        span: found.span.clone(),
        unit: found.span.len(),
        with: with(engine, found.rule),
    };
    let mut edits: Vec<_> = leftmost(rewritten.into_iter()).map(whole).collect();
    if !masked.is_empty() {
        for (span, rule) in masks(&edits, &masked) {
            add_mask(&mut edits, engine, text, span, with(engine, rule));
        }
        edits.sort_unstable_by_key(|edit| edit.span.start);
    }
    edits
}

/// Returns the masked parts outside of rewritten text, each with the first rule that masks it.
fn masks(rewritten: &[Edit<'_>], masked: &[&Match]) -> Vec<(Range<usize>, u16)> {
    // Rewritten text counts like the match of a first rule.
    let mut covers: Vec<(Range<usize>, Option<u16>)> =
        Vec::with_capacity(rewritten.len() + masked.len());
    covers.extend(rewritten.iter().map(|edit| (edit.span.clone(), None)));
    covers.extend(
        masked
            .iter()
            .map(|found| (found.span.clone(), Some(found.rule))),
    );
    covers.sort_unstable_by_key(|(span, _)| span.start);
    let mut ends: Vec<usize> = covers
        .iter()
        .flat_map(|(span, _)| [span.start, span.end])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let mut waiting = covers.into_iter().peekable();
    // The rules that cover the place at hand, and how far each reaches.
    let mut active: Vec<(Option<u16>, usize)> = Vec::new();
    let mut masks: Vec<(Range<usize>, u16)> = Vec::new();
    for (from, to) in ends.windows(2).map(|pair| (pair[0], pair[1])) {
        active.retain(|(_, reach)| *reach > from);
        while let Some((span, rule)) = waiting.next_if(|(span, _)| span.start <= from) {
            match active.iter_mut().find(|(other, _)| *other == rule) {
                Some((_, reach)) => *reach = span.end.max(*reach),
                None => active.push((rule, span.end)),
            }
        }
        let Some(Some(rule)) = active.iter().map(|(rule, _)| *rule).min() else {
            continue;
        };
        match masks
            .last_mut()
            .filter(|(span, before)| span.end == from && *before == rule)
        {
            Some((span, _)) => span.end = to,
            None => masks.push((from..to, rule)),
        }
    }
    masks
}

/// Adds edits for the clusters under a mask: one for as many of the same length as follow each
/// other. Invisible characters get no mask if they are ignored.
fn add_mask<'e>(
    edits: &mut Vec<Edit<'e>>,
    engine: &Engine,
    text: &str,
    span: Range<usize>,
    with: &'e str,
) {
    let first = edits.len();
    for (at, cluster) in clusters(&text[span.clone()]) {
        let (start, unit) = (span.start + at, cluster.len());
        let is_seen = !engine.ignorable || cluster.contains(|c| !is_invisible(c));
        let with = if is_seen { with } else { "" };
        match edits[first..]
            .last_mut()
            .filter(|edit| edit.unit == unit && edit.with == with)
        {
            Some(edit) => edit.span.end += unit,
            None => edits.push(Edit {
                span: start..start + unit,
                unit,
                with,
            }),
        }
    }
}

/// Of matches in the order of their starts, the longest first: those that do not overlap one
/// before.
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

/// Returns the replacement for a rule's matches.
fn with(engine: &Engine, rule: u16) -> &str {
    match &engine.rules()[usize::from(rule)].action {
        Action::Mask { with } | Action::Replace { with } => with,
        _ => "",
    }
}

fn action<'e>(engine: &'e Engine, found: &Match) -> &'e Action {
    &engine.rules()[usize::from(found.rule)].action
}
