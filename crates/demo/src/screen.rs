//! Standard output: on a terminal a picture below a log of events, anywhere else plain lines.
//!
//! The cursor is never hidden, and stays below the picture: however the demo ends, there is nothing to
//! restore.

use std::env;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use ratatui::backend::{Backend, CrosstermBackend, IntoCrossterm};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::ContentStyle;
use ratatui::crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use ratatui::text::Text;
use ratatui::widgets::Widget;
use ratatui::{Terminal, TerminalOptions, Viewport};
use tokio::time::{Interval, MissedTickBehavior};

use crate::board::Board;
use crate::error::DemoError;
use crate::meter::Meter;
use crate::view::{self, Row};

/// The time between two pictures on a terminal.
const LIVE_EVERY: Duration = Duration::from_millis(250);
/// The time between two lines elsewhere.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// The screen of a demo.
pub(crate) struct Screen {
    lines: Lines,
    /// The picture, once it is shown.
    picture: Option<Terminal<CrosstermBackend<Stdout>>>,
    has_picture: bool,
    meter: Meter,
    interval: Interval,
}

/// Prints lines.
struct Lines {
    out: Box<dyn Write + Send>,
    is_coloured: bool,
}

impl Screen {
    /// Makes a screen on standard output. A service that was asked to log to the same terminal leaves no
    /// room for a picture.
    pub(crate) fn stdout() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = io::stdout().is_terminal() && !is_dumb;
        let is_logged_on = is_set("BELLHOP_LOG") && io::stderr().is_terminal();
        let mut screen = Self::plain(Box::new(io::stdout()));
        screen.lines.is_coloured = is_terminal && !is_set("NO_COLOR");
        screen.has_picture = is_terminal && !is_logged_on;
        if screen.has_picture {
            screen.interval = every(LIVE_EVERY);
        }
        screen
    }

    /// Makes a screen of plain lines on anything.
    pub(crate) fn plain(out: Box<dyn Write + Send>) -> Self {
        let lines = Lines {
            out,
            is_coloured: false,
        };
        Self {
            lines,
            picture: None,
            has_picture: false,
            meter: Meter::default(),
            interval: every(PLAIN_EVERY),
        }
    }

    /// Waits until the next picture is due.
    pub(crate) async fn tick(&mut self) {
        self.interval.tick().await;
    }

    /// Shows the board as it is, and the events since the last time.
    ///
    /// # Errors
    /// Fails if standard output is closed.
    pub(crate) fn show(&mut self, board: &Board) -> Result<(), DemoError> {
        self.begin_picture();
        let now = Instant::now();
        let columns = self
            .picture
            .as_ref()
            .and_then(|picture| picture.size().ok())
            .map(|size| size.width.into());
        let (events, block, plain) = board.with(|board| {
            self.meter.note(now, board);
            let width = columns.unwrap_or(usize::MAX);
            let events: Vec<Vec<Row>> = board
                .take_lines()
                .iter()
                .map(|(at, line)| view::event(*at, line, width))
                .collect();
            (
                events,
                view::block(board, &self.meter, width.min(200)),
                view::plain(board, &self.meter),
            )
        });
        match &mut self.picture {
            Some(picture) => {
                draw_at_once(picture, events.into_iter().flatten().collect(), block).map_err(failed)
            }
            None => {
                let one_line =
                    |rows: Vec<Row>| rows.into_iter().reduce(view::join).unwrap_or_default();
                let lines: Vec<Row> = events.into_iter().map(one_line).chain([plain]).collect();
                self.print(&lines)
            }
        }
    }

    /// Reserves room for the picture. A terminal that does not say where its cursor is gets plain lines.
    fn begin_picture(&mut self) {
        if !self.has_picture || self.picture.is_some() {
            return;
        }
        let options = TerminalOptions {
            viewport: Viewport::Inline(view::BLOCK_ROWS + 1),
        };
        self.picture = Terminal::with_options(CrosstermBackend::new(io::stdout()), options).ok();
        if self.picture.is_none() {
            self.has_picture = false;
            self.interval = every(PLAIN_EVERY);
        }
    }

    /// Prints rows below everything so far; the next picture is due a while later.
    ///
    /// # Errors
    /// Fails if standard output is closed.
    pub(crate) fn print(&mut self, rows: &[Row]) -> Result<(), DemoError> {
        self.interval.reset();
        self.lines.print(rows).map_err(failed)
    }

    /// Replaces the picture by these rows.
    ///
    /// # Errors
    /// Fails if standard output is closed.
    pub(crate) fn close(&mut self, board: &Board, rows: &[Row]) -> Result<(), DemoError> {
        self.show(board)?;
        if let Some(mut picture) = self.picture.take() {
            erase(&mut picture).map_err(failed)?;
        }
        self.print(rows)
    }
}

impl Lines {
    fn print(&mut self, rows: &[Row]) -> io::Result<()> {
        for row in rows {
            for span in row {
                let style: ContentStyle = span.style.into_crossterm();
                match self.is_coloured {
                    true => write!(self.out, "{}", style.apply(&span.content))?,
                    false => write!(self.out, "{}", span.content)?,
                }
            }
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

/// Draws so that a terminal that supports it shows everything at once.
fn draw_at_once<W: Write>(
    picture: &mut Terminal<CrosstermBackend<W>>,
    events: Vec<Row>,
    block: Vec<Row>,
) -> io::Result<()> {
    execute!(picture.backend_mut(), BeginSynchronizedUpdate)?;
    draw(picture, events, block)?;
    execute!(picture.backend_mut(), EndSynchronizedUpdate)
}

/// Adds events above the picture, and draws the picture again.
fn draw<B: Backend>(
    picture: &mut Terminal<B>,
    events: Vec<Row>,
    block: Vec<Row>,
) -> Result<(), B::Error> {
    picture.autoresize()?;
    if !events.is_empty() {
        let height = events.len() as u16;
        picture.insert_before(height, |buffer| {
            Text::from(events).render(buffer.area, buffer)
        })?;
    }
    picture.draw(|frame| {
        let area = frame.area();
        frame.render_widget(Text::from(block), area);
        frame.set_cursor_position((area.x, area.bottom().saturating_sub(1)));
    })?;
    Ok(())
}

/// Erases the picture, and leaves the cursor where it began.
fn erase<B: Backend>(picture: &mut Terminal<B>) -> Result<(), B::Error> {
    let mut top = None;
    picture.draw(|frame| {
        let area = frame.area();
        top = Some(area.as_position());
        frame.set_cursor_position(area.as_position());
    })?;
    top.map_or(Ok(()), |top| picture.set_cursor_position(top))
}

fn failed(error: io::Error) -> DemoError {
    DemoError::Io("cannot write to standard output", error)
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        texts
            .iter()
            .map(|text| Row::from((*text).to_owned()))
            .collect()
    }

    fn picture(columns: u16, rows: u16) -> Terminal<TestBackend> {
        let viewport = Viewport::Inline(3);
        Terminal::with_options(
            TestBackend::new(columns, rows),
            TerminalOptions { viewport },
        )
        .unwrap()
    }

    #[test]
    fn events_stay_above_the_picture() {
        let mut picture = picture(8, 6);
        draw(&mut picture, rows(&["1st"]), rows(&["a", "b"])).unwrap();
        draw(
            &mut picture,
            rows(&["2nd", "3rd"]),
            rows(&["c", "a long row"]),
        )
        .unwrap();
        picture
            .backend()
            .assert_buffer_lines(["1st", "2nd", "3rd", "c", "a long r", ""]);
        picture.backend_mut().assert_cursor_position((0, 5));
    }

    #[test]
    fn events_scroll_a_full_terminal() {
        let mut picture = picture(8, 4);
        draw(&mut picture, rows(&["1st", "2nd"]), rows(&["a", "b"])).unwrap();
        picture
            .backend()
            .assert_buffer_lines(["2nd     ", "a", "b", ""]);
        picture.backend().assert_scrollback_lines(["1st     "]);
    }

    #[test]
    fn erased_picture_leaves_events() {
        let mut picture = picture(8, 5);
        draw(&mut picture, rows(&["1st"]), rows(&["a", "b"])).unwrap();
        erase(&mut picture).unwrap();
        picture
            .backend()
            .assert_buffer_lines(["1st     ", "", "", "", ""]);
        picture.backend_mut().assert_cursor_position((0, 1));
    }

    #[test]
    fn lines_have_colours_only_where_asked_for() {
        let mut printed = Vec::new();
        for is_coloured in [false, true] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut lines = Lines {
                out: Box::new(file.reopen().unwrap()),
                is_coloured,
            };
            lines
                .print(&[view::row(view::GOOD, "up\u{1b}[2J")])
                .unwrap();
            printed.push(std::fs::read_to_string(file.path()).unwrap());
        }
        assert_eq!(printed[0], "up\\u{1b}[2J\n");
        assert!(
            printed[1].starts_with("\u{1b}[") && printed[1].contains("up\\u{1b}[2J"),
            "{:?}",
            printed[1]
        );
    }
}
