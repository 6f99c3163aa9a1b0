//! Stretches of a text, and what lies inside of one of them.

use std::ops::Range;

/// Stretches of a text.
#[derive(Debug)]
pub struct Spans {
    /// By start: the stretch that reaches furthest among those that begin there or before.
    reach: Vec<(usize, usize)>,
}

impl Spans {
    /// Stretches in any order, overlapping or not.
    pub fn new(mut spans: Vec<Range<usize>>) -> Self {
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

    /// Returns whether one of them contains this one.
    pub fn contains(&self, span: &Range<usize>) -> bool {
        let begun = self
            .reach
            .partition_point(|(start, _)| *start <= span.start);
        begun
            .checked_sub(1)
            .is_some_and(|at| self.reach[at].1 >= span.end)
    }
}
