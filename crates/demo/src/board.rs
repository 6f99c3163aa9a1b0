//! What everybody in the demo writes down and the screen shows: the ledger, the app servers' state, the latest events.
//!
//! It is a lock, held for moments and never across an await: an acceptance must be entered before it is answered, and
//! the order of entries is what the verdict on order rests on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::catalogue::SOURCES;
use crate::ledger::Ledger;

/// Events that wait for the screen; the oldest give way.
const MAX_LINES: usize = 200;
/// How often a reminder is shown in full.
const SAMPLE_EVERY: Duration = Duration::from_millis(2_500);

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// What kind of thing.
    pub kind: Kind,
    /// The thing itself.
    pub text: String,
    /// A second line.
    pub detail: Option<String>,
}

/// What kind of thing a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Part of the story.
    Scene,
    /// The good end of a part of the story.
    Good,
    /// Something that must not be.
    Bad,
    /// One reminder, in full.
    Reminder,
}

impl Line {
    /// Part of the story.
    pub(crate) fn scene(text: String) -> Self {
        Self {
            kind: Kind::Scene,
            text,
            detail: None,
        }
    }
}

/// An app server as others see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gauge {
    /// Whether it runs.
    pub is_up: bool,
    /// How often it was started.
    pub life: u32,
    /// Users connected to it.
    pub users: usize,
    /// Reminders that it accepted.
    pub accepted: u64,
}

/// The board's content.
#[derive(Debug)]
pub(crate) struct Content {
    /// The account.
    pub ledger: Ledger,
    /// Each app server's state.
    pub servers: Vec<Gauge>,
    /// Where alice is connected.
    pub alice: Option<usize>,
    /// Sets published.
    pub sets: u64,
    /// The last message of the outcomes stream that was entered.
    pub outcomes_seen: u64,
    started: Instant,
    lines: VecDeque<(Duration, Line)>,
    /// When a reminder is to be shown in full again, and the source whose turn it is.
    next_sample: (Instant, usize),
}

impl Content {
    /// How long the demo has been running.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells something.
    pub(crate) fn say(&mut self, line: Line) {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back((self.elapsed(), line));
    }

    /// Returns the lines since the last call, with their time since the start.
    pub(crate) fn take_lines(&mut self) -> Vec<(Duration, Line)> {
        self.lines.drain(..).collect()
    }

    /// Returns whether a reminder of this source is to be shown in full now. The sources take turns.
    pub(crate) fn wants_sample(&mut self, now: Instant, source: &str) -> bool {
        let (due, turn) = self.next_sample;
        let is_wanted = now >= due && source == SOURCES[turn];
        if is_wanted {
            self.next_sample = (now + SAMPLE_EVERY, (turn + 1) % SOURCES.len());
        }
        is_wanted
    }
}

/// The board.
#[derive(Debug)]
pub(crate) struct Board {
    content: Mutex<Content>,
}

impl Board {
    /// A board with an empty ledger.
    pub(crate) fn new(ledger: Ledger, servers: usize) -> Self {
        let started = Instant::now();
        Self {
            content: Mutex::new(Content {
                ledger,
                servers: vec![Gauge::default(); servers],
                alice: None,
                sets: 0,
                outcomes_seen: 0,
                started,
                lines: VecDeque::new(),
                next_sample: (started + SAMPLE_EVERY / 4, 0),
            }),
        }
    }

    /// Reads or writes.
    pub(crate) fn with<R>(&self, access: impl FnOnce(&mut Content) -> R) -> R {
        // A panic elsewhere ends the demo anyhow.
        access(&mut self.content.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells something.
    pub(crate) fn say(&self, line: Line) {
        self.with(|content| content.say(line));
    }
}
