//! Standard output: on a terminal a block that is drawn over and over, below a log of events; anywhere else plain lines.
//!
//! The cursor is never hidden, and each picture is one write that leaves it below: whatever ends the demo, there is
//! nothing to restore.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

use super::DemoError;
use super::board::Board;
use super::meter::Meter;
use super::paint::{self, Row};
use super::view;

/// Between two pictures on a terminal.
const LIVE_EVERY: Duration = Duration::from_millis(250);
/// Between two lines elsewhere.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// Rows and columns of a terminal that does not tell.
const USUAL: (usize, usize) = (24, 80);
/// Around a picture: no line breaks at the edge, and terminals that can shall show it all at once.
const BEGIN: &str = "\x1b[?2026h\x1b[?7l";
const END: &str = "\x1b[?7h\x1b[?2026l";

/// Where it is shown.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    meter: Meter,
    interval: Interval,
    live: Option<Live>,
    is_colored: bool,
}

struct Live {
    rows: usize,
    columns: usize,
    /// Rows of the last picture, above the cursor.
    drawn: usize,
    resized: Option<Signal>,
    is_resized: bool,
}

impl Screen {
    /// Looks at what standard output is. A service that was asked to log to the same terminal makes it plain.
    pub(super) fn stdout() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = io::stdout().is_terminal() && !is_dumb;
        let is_logged_on = is_set("BELLHOP_LOG") && io::stderr().is_terminal();
        let mut screen = Self::plain(Box::new(io::stdout()));
        screen.is_colored = is_terminal && !is_set("NO_COLOR");
        if is_terminal && !is_logged_on {
            let resized = signal(SignalKind::window_change()).ok();
            screen.live = Some(Live { rows: USUAL.0, columns: USUAL.1, drawn: 0, resized, is_resized: true });
            screen.interval = every(LIVE_EVERY);
        }
        screen
    }

    /// Plain lines, to anything.
    pub(super) fn plain(out: Box<dyn Write + Send>) -> Self {
        Self { out, meter: Meter::default(), interval: every(PLAIN_EVERY), live: None, is_colored: false }
    }

    /// Waits until the next picture is due.
    pub(super) async fn tick(&mut self) {
        let Some(live) = &mut self.live else {
            self.interval.tick().await;
            return;
        };
        loop {
            tokio::select! {
                _ = self.interval.tick() => break,
                Some(()) = next(&mut live.resized) => live.is_resized = true,
            }
        }
        if live.is_resized {
            (live.rows, live.columns) = size().await.unwrap_or(USUAL);
            // Nobody knows what became of the last picture.
            (live.drawn, live.is_resized) = (0, false);
        }
    }

    /// Shows the board as it is, and the events since the last time.
    ///
    /// # Errors
    /// When nobody reads standard output any more.
    pub(super) fn show(&mut self, board: &Board) -> Result<(), DemoError> {
        let (columns, rows) = self.live.as_ref().map_or((usize::MAX, 0), |live| (live.columns, live.rows));
        let now = Instant::now();
        let (events, block, plain) = board.with(|board| {
            self.meter.note(now, board);
            let events: Vec<Vec<Row>> =
                board.take_lines().iter().map(|(at, line)| view::event(*at, line, columns)).collect();
            (events, view::block(board, &self.meter, columns.min(200)), view::plain(board, &self.meter))
        });
        let Some(live) = &mut self.live else {
            let one_line = |rows: Vec<Row>| rows.into_iter().reduce(paint::join).unwrap_or_default();
            let mut lines: Vec<Row> = events.into_iter().map(one_line).collect();
            lines.push(plain);
            return self.print(&lines);
        };
        let block = &block[..block.len().min(rows.saturating_sub(1))];
        let mut picture = BEGIN.to_owned();
        if live.drawn > 0 {
            picture.push_str(&format!("\r\x1b[{}A", live.drawn));
        }
        for row in events.iter().flatten().chain(block) {
            // Erased first: after the last column there is nothing to the right of the cursor but the last character.
            picture.push_str("\x1b[2K");
            picture.push_str(&paint::render(row, columns, self.is_colored));
            picture.push_str("\r\n");
        }
        picture.push_str("\x1b[J");
        picture.push_str(END);
        live.drawn = block.len();
        self.write(&picture)
    }

    /// Prints rows below everything so far; the next picture is due a while later.
    ///
    /// # Errors
    /// When nobody reads standard output any more.
    pub(super) fn print(&mut self, rows: &[Row]) -> Result<(), DemoError> {
        self.interval.reset();
        let line = |row: &Row| paint::render(row, usize::MAX, self.is_colored) + "\n";
        let text: String = rows.iter().map(line).collect();
        self.write(&text)
    }

    /// Replaces the picture by these rows.
    ///
    /// # Errors
    /// When nobody reads standard output any more.
    pub(super) fn close(&mut self, board: &Board, rows: &[Row]) -> Result<(), DemoError> {
        self.show(board)?;
        if let Some(live) = self.live.take() {
            self.write(&format!("\r\x1b[{}A\x1b[J", live.drawn))?;
        }
        self.print(rows)
    }

    fn write(&mut self, text: &str) -> Result<(), DemoError> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| DemoError::Io("cannot write to standard output".to_owned(), error))
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn next(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Rows and columns. Asking for them needs `unsafe` here, so `stty` asks.
async fn size() -> Option<(usize, usize)> {
    let terminal = File::open("/dev/tty").ok()?;
    let output = Command::new("stty").arg("size").stdin(terminal).kill_on_drop(true).output().await.ok()?;
    let output = String::from_utf8(output.stdout).ok()?;
    let (rows, columns) = output.trim().split_once(' ')?;
    let size = (rows.parse().ok()?, columns.parse().ok()?);
    (size.0 > 0 && size.1 > 0).then_some(size)
}
