//! What the board looks like: a block of rows for a terminal, one row for anything else. Pure.

use std::time::Duration;

use bellhop_protocol::numbers;
use bellhop_protocol::printable::printable;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;
use unicode_width::UnicodeWidthStr;

use crate::board::{Content, Gauge, Kind, Line};
use crate::catalogue::{ALICE, INSTANCES};
use crate::ledger::Trouble;
use crate::meter::{Meter, bar};

/// A row of text, in styled pieces.
pub(crate) type Row = ratatui::text::Line<'static>;

pub(crate) const PLAIN: Style = Style::new();
/// Of lesser interest.
pub(crate) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
/// Of most interest.
pub(crate) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
/// As expected.
pub(crate) const GOOD: Style = Style::new().fg(Color::Green);
/// Worth a look.
pub(crate) const WARN: Style = Style::new().fg(Color::Yellow);
/// A failure.
pub(crate) const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Returns a piece of text, with everything that a terminal would obey written out.
pub(crate) fn piece(style: Style, text: impl AsRef<str>) -> Span<'static> {
    Span::styled(printable(text.as_ref()), style)
}

/// Returns a row of one piece.
pub(crate) fn row(style: Style, text: impl AsRef<str>) -> Row {
    piece(style, text).into()
}

/// Returns two rows as one, for output without a width.
pub(crate) fn join(mut first: Row, second: Row) -> Row {
    first.push_span(" · ");
    first.extend(
        second
            .into_iter()
            .map(|span| piece(span.style, span.content.trim_start())),
    );
    first
}

/// The number of rows of [`block`].
pub(crate) const BLOCK_ROWS: u16 = 6 + INSTANCES.len() as u16;

/// Returns the picture of the board for a terminal.
pub(crate) fn block(board: &Content, meter: &Meter, columns: usize) -> Vec<Row> {
    let counts = board.ledger.counts();
    let (published, delivered) = meter.rates();
    let (parked, users) = board.ledger.parked();
    let title = format!("── bellhop demo ── {:.0} s ", board.elapsed().as_secs_f64());
    let rule = "─".repeat(columns.saturating_sub(title.width()));
    let latency = board
        .ledger
        .live
        .quantile(0.5)
        .zip(board.ledger.live.quantile(0.99));
    let latency = latency.map(|(median, p99)| {
        format!(
            "median {}, 99 % in {}",
            numbers::time(median),
            numbers::time(p99)
        )
    });
    let room = columns.saturating_sub(COLUMNS).min(60);
    let rate = |rate| format!("{}/s", numbers::count(rate));
    let total = counts.delivered + counts.merged;
    let mut rows = vec![
        row(DIM, title + &rule),
        line(
            "published",
            counts.published,
            rate(published),
            piece(DIM, format!("{} sets", numbers::count(board.sets))),
        ),
        line(
            "delivered",
            total,
            rate(delivered),
            piece(DIM, latency.unwrap_or_default()),
        ),
        line(
            "in mailboxes",
            parked as u64,
            format!("{users} users"),
            piece(WARN, meter.curve(room)),
        ),
    ];
    for (name, server) in INSTANCES.iter().zip(&board.servers) {
        let state = if server.is_up {
            piece(GOOD, "up")
        } else {
            piece(WARN, "down")
        };
        rows.push(line(
            name,
            server.accepted,
            format!("{} users", server.users),
            state,
        ));
    }
    let waiting = board.ledger.parked_for(ALICE);
    let alice = match board.alice {
        Some(server) => piece(GOOD, format!("at {}", INSTANCES[server])),
        None => piece(WARN, format!("away {}", bar(waiting.div_ceil(8).min(room)))),
    };
    rows.push(line("alice", waiting as u64, "waiting".to_owned(), alice));
    let few = format!(
        "{} merged, {} rejected; ",
        numbers::count(counts.merged),
        counts.rejected
    );
    rows.push(Row::from(vec![
        piece(DIM, format!("{:<14}", "so far")),
        piece(DIM, few),
        verdict(board),
    ]));
    rows
}

/// What a row takes before its last piece.
const COLUMNS: usize = 40;

fn line(name: &str, number: u64, second: String, last: Span<'static>) -> Row {
    let number = piece(STRONG, format!("{:>10}", numbers::count(number)));
    Row::from(vec![
        piece(DIM, format!("{name:<14}")),
        number,
        piece(PLAIN, format!("{second:>12}    ")),
        last,
    ])
}

/// What went wrong so far, in few words.
pub(crate) fn verdict(board: &Content) -> Span<'static> {
    let troubles = board.ledger.troubles();
    if troubles.is_empty() {
        return piece(GOOD, "nothing lost, repeated or out of order");
    }
    let text = |(trouble, (count, first)): (&Trouble, &(u64, String))| {
        format!("{count} {} (first {first})", trouble.text())
    };
    piece(
        BAD,
        troubles.iter().map(text).collect::<Vec<_>>().join(", "),
    )
}

/// Returns the state in one line, for files and pipes.
pub(crate) fn plain(board: &Content, meter: &Meter) -> Row {
    let counts = board.ledger.counts();
    let (published, delivered) = meter.rates();
    let (parked, users) = board.ledger.parked();
    let server = |(name, server): (&&str, &Gauge)| match server.is_up {
        true => format!("{name} {} users", server.users),
        false => format!("{name} down"),
    };
    let servers: Vec<_> = INSTANCES.iter().zip(&board.servers).map(server).collect();
    let text = format!(
        "published {} ({}/s)  delivered {} ({}/s)  in mailboxes {} for {users} users  {}  alice {}",
        numbers::count(counts.published),
        numbers::count(published),
        numbers::count(counts.delivered + counts.merged),
        numbers::count(delivered),
        numbers::count(parked as u64),
        servers.join("  "),
        board.alice.map_or_else(
            || format!("away, {} wait", board.ledger.parked_for(ALICE)),
            |at| format!("at {}", INSTANCES[at])
        ),
    );
    Row::from(vec![stamp(board.elapsed()), piece(PLAIN, text)])
}

/// Returns an event, in as many rows as it needs.
pub(crate) fn event(at: Duration, line: &Line, columns: usize) -> Vec<Row> {
    let style = match line.kind {
        Kind::Scene => STRONG,
        Kind::Good => GOOD,
        Kind::Bad => BAD,
        Kind::Reminder => DIM,
    };
    let room = columns.saturating_sub(STAMP);
    let wrapped = |text: &str, style| {
        textwrap::wrap(text, room)
            .into_iter()
            .map(|line| piece(style, line))
            .collect::<Vec<_>>()
    };
    let mut pieces = wrapped(&line.text, style);
    pieces.extend(line.detail.iter().flat_map(|detail| wrapped(detail, PLAIN)));
    let mut stamps =
        std::iter::once(stamp(at)).chain(std::iter::repeat(piece(PLAIN, " ".repeat(STAMP))));
    pieces
        .into_iter()
        .map(|piece| stamps.next().into_iter().chain([piece]).collect())
        .collect()
}

/// Columns of a stamp.
const STAMP: usize = 10;

fn stamp(at: Duration) -> Span<'static> {
    piece(DIM, format!("{:>6.1} s  ", at.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::board::Board;
    use crate::ledger::Ledger;

    #[test]
    fn block_fits_a_common_terminal() {
        let board = Board::new(
            Ledger::new(&["billing"], &["alice".into()], &INSTANCES),
            INSTANCES.len(),
        );
        board.with(|board| {
            let mut meter = Meter::default();
            board.servers[0] = Gauge { is_up: true, life: 1, users: 107, accepted: 1_234_567 };
            let id = board.ledger.publish(Instant::now(), 0, ALICE, true);
            let parked = format!(r#"{{"id":"{id}","source":"billing","outcome":"parked"}}"#);
            board.ledger.outcome(&serde_json::from_str(&parked).unwrap());
            meter.note(Instant::now(), board);

            let rows: Vec<String> = block(board, &meter, 80).iter().map(Row::to_string).collect();
            assert_eq!(rows.len(), usize::from(BLOCK_ROWS));
            assert!(rows.iter().all(|row| row.width() <= 80), "{rows:#?}");
            assert_eq!(rows[3], "in mailboxes           1     1 users    ▁█");
            assert_eq!(rows[4], "app-east       1,234,567   107 users    up");
            assert_eq!(rows[6], "alice                  1     waiting    away █");
            assert_eq!(rows[7], "so far        0 merged, 0 rejected; nothing lost, repeated or out of order");
            let line = plain(board, &meter).to_string();
            assert!(
                line.ends_with("in mailboxes 1 for 1 users  app-east 107 users  app-west down  alice away, 1 wait"),
                "{line}"
            );
        });
    }

    #[test]
    fn events_are_wrapped_by_width_and_written_out() {
        let line = Line {
            kind: Kind::Good,
            text: "张三 is back, at once\u{7}".to_owned(),
            detail: None,
        };
        let rows = |columns| {
            event(Duration::from_secs(1), &line, columns)
                .iter()
                .map(Row::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            rows(23),
            ["   1.0 s  张三 is back,", "          at once\\u{7}"]
        );
        assert_eq!(rows(usize::MAX), ["   1.0 s  张三 is back, at once\\u{7}"]);
    }

    #[test]
    fn joined_rows_keep_their_pieces() {
        let joined = join(row(GOOD, "alice is back"), row(PLAIN, "  at once"));
        assert_eq!(
            (joined.to_string().as_str(), joined.spans[0].style),
            ("alice is back · at once", GOOD)
        );
    }
}
