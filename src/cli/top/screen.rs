//! The terminal: draws the model and handles keys, until the user quits.

use std::io;

use anstream::ColorChoice;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Duration;

use super::Look;
use super::model::{Command, Model};
use super::view::{self, Palette};
use crate::cli::CliError;
use crate::cli::output::colours;
use crate::nats::chain;

/// While nothing is learnt, the time for which that is so goes on.
const REDRAW: Duration = Duration::from_secs(1);

/// Shows looks as they come. The terminal is as it was when this returns, and also after a panic.
pub(super) async fn show(looks: mpsc::Receiver<Look>) -> Result<(), CliError> {
    let unusable = |error| CliError::Io("cannot use the terminal".to_owned(), error);
    let mut terminal = ratatui::try_init().map_err(unusable)?;
    let shown = follow(&mut terminal, looks).await;
    ratatui::restore();
    shown.map_err(unusable)
}

async fn follow(terminal: &mut DefaultTerminal, mut looks: mpsc::Receiver<Look>) -> io::Result<()> {
    let (mut model, mut events) = (Model::default(), EventStream::new());
    let (mut terminated, mut hung_up) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        draw(terminal, &model)?;
        tokio::select! {
            look = looks.recv() => match look {
                Some(Ok(sample)) => model.take(sample),
                Some(Err(error)) => model.lose(Timestamp::now(), chain(&error).to_string()),
                None => return Ok(()),
            },
            event = events.next() => match event {
                Some(event) => if command(&event?).is_some_and(|command| !model.obey(command)) { return Ok(()) },
                None => return Ok(()),
            },
            _ = redraw.tick() => {}
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// Draws everything; only what differs from the last picture is written.
fn draw(terminal: &mut DefaultTerminal, model: &Model) -> io::Result<()> {
    let palette = Palette {
        has_colours: colours() != ColorChoice::Never,
    };
    terminal.draw(|screen| {
        let (area, buffer) = (screen.area(), screen.buffer_mut());
        match model.frame() {
            Some(frame) => view::draw(&frame, palette, Timestamp::now(), area, buffer),
            None => buffer.set_string(
                area.x,
                area.y,
                model.opening(),
                ratatui::style::Style::new(),
            ),
        }
        if model.is_help_shown() {
            view::draw_help(palette, area, buffer);
        }
    })?;
    Ok(())
}

fn command(event: &Event) -> Option<Command> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return None;
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Command::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Command::Quit),
        KeyCode::Char('?' | 'h') => Some(Command::Help),
        KeyCode::Char('s') => Some(Command::Sort),
        KeyCode::Char('p' | ' ') => Some(Command::Pause),
        _ => None,
    }
}
