//! How fast things go, and how mailboxes fill and empty. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::board::Content;

/// Samples kept: the longest curve.
const MEMORY: usize = 60;
/// Rates are those of the last second or so.
const RATE_OVER: Duration = Duration::from_secs(1);
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Remembers the last seconds, for rates and the curve.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    published: u64,
    delivered: u64,
    parked: usize,
}

impl Meter {
    /// Takes the present state in.
    pub(crate) fn note(&mut self, now: Instant, board: &Content) {
        if self.samples.is_empty() {
            let start = now.checked_sub(board.elapsed()).unwrap_or(now);
            self.samples.push_back(Sample {
                at: start,
                published: 0,
                delivered: 0,
                parked: 0,
            });
        }
        if self.samples.len() == MEMORY {
            self.samples.pop_front();
        }
        let counts = board.ledger.counts();
        let (published, delivered) = (counts.published, counts.delivered + counts.merged);
        let (parked, _) = board.ledger.parked();
        self.samples.push_back(Sample {
            at: now,
            published,
            delivered,
            parked,
        });
    }

    /// Published and delivered a second.
    pub(crate) fn rates(&self) -> (u64, u64) {
        let Some(last) = self.samples.back() else {
            return (0, 0);
        };
        let before = self
            .samples
            .iter()
            .rev()
            .find(|sample| last.at - sample.at >= RATE_OVER);
        let Some(before) = before
            .or(self.samples.front())
            .filter(|before| before.at < last.at)
        else {
            return (0, 0);
        };
        let rate = |then: u64, now: u64| {
            ((now - then) as f64 / (last.at - before.at).as_secs_f64()).round() as u64
        };
        (
            rate(before.published, last.published),
            rate(before.delivered, last.delivered),
        )
    }

    /// What lay in mailboxes, over time.
    pub(crate) fn curve(&self, columns: usize) -> String {
        let highest = self
            .samples
            .iter()
            .map(|sample| sample.parked)
            .max()
            .unwrap_or(0)
            .max(1);
        let last = self
            .samples
            .iter()
            .skip(self.samples.len().saturating_sub(columns));
        last.map(|sample| BARS[(sample.parked * (BARS.len() - 1)).div_ceil(highest)])
            .collect()
    }
}

/// Returns a bar of full blocks.
pub(crate) fn bar(length: usize) -> String {
    BARS[7].to_string().repeat(length)
}
