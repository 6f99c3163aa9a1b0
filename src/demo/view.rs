//! What the board looks like: a block of rows for a terminal, one row for anything else. Pure.

use std::time::Duration;

use super::board::{Content, Gauge, Kind, Line};
use super::ledger::Trouble;
use super::meter::{Meter, bar};
use super::paint::{Row, Tone, row};
use super::{ALICE, INSTANCES, text};

/// The block that a terminal shows.
pub(super) fn block(board: &Content, meter: &Meter, columns: usize) -> Vec<Row> {
    let counts = board.ledger.counts();
    let (published, delivered) = meter.rates();
    let (parked, users) = board.ledger.parked();
    let title = format!("── bellhop demo ── {:.0} s ", board.elapsed().as_secs_f64());
    let rule = "─".repeat(columns.saturating_sub(title.chars().count()));
    let latency = board.ledger.live.quantile(0.5).zip(board.ledger.live.quantile(0.99));
    let latency = latency.map(|(median, p99)| format!("median {}, 99 % in {}", text::time(median), text::time(p99)));
    let room = columns.saturating_sub(COLUMNS).min(60);
    let rate = |rate| format!("{}/s", text::count(rate));
    let total = counts.delivered + counts.merged;
    let mut rows = vec![
        row(Tone::Dim, title + &rule),
        line("published", counts.published, rate(published), (Tone::Dim, format!("{} sets", text::count(board.sets)))),
        line("delivered", total, rate(delivered), (Tone::Dim, latency.unwrap_or_default())),
        line("in mailboxes", parked as u64, format!("{users} users"), (Tone::Warn, meter.curve(room))),
    ];
    for (name, server) in INSTANCES.iter().zip(&board.servers) {
        let state = if server.is_up { (Tone::Good, "up".to_owned()) } else { (Tone::Warn, "down".to_owned()) };
        rows.push(line(name, server.accepted, format!("{} users", server.users), state));
    }
    let waiting = board.ledger.parked_for(ALICE);
    let alice = match board.alice {
        Some(server) => (Tone::Good, format!("at {}", INSTANCES[server])),
        None => (Tone::Warn, format!("away {}", bar(waiting.div_ceil(8).min(room)))),
    };
    rows.push(line("alice", waiting as u64, "waiting".to_owned(), alice));
    let few = format!("{} merged, {} rejected; ", text::count(counts.merged), counts.rejected);
    rows.push(vec![(Tone::Dim, format!("{:<14}", "so far")), (Tone::Dim, few), verdict(board)]);
    rows
}

/// What a row takes before its last piece.
const COLUMNS: usize = 40;

fn line(name: &str, number: u64, second: String, last: (Tone, String)) -> Row {
    let number = (Tone::Strong, format!("{:>10}", text::count(number)));
    vec![(Tone::Dim, format!("{name:<14}")), number, (Tone::Plain, format!("{second:>12}    ")), last]
}

/// What went wrong so far, in few words.
pub(super) fn verdict(board: &Content) -> (Tone, String) {
    let troubles = board.ledger.troubles();
    if troubles.is_empty() {
        return (Tone::Good, "nothing lost, repeated or out of order".to_owned());
    }
    let text =
        |(trouble, (count, first)): (&Trouble, &(u64, String))| format!("{count} {} (first {first})", trouble.text());
    (Tone::Bad, troubles.iter().map(text).collect::<Vec<_>>().join(", "))
}

/// The state in one line, for files and pipes.
pub(super) fn plain(board: &Content, meter: &Meter) -> Row {
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
        text::count(counts.published),
        text::count(published),
        text::count(counts.delivered + counts.merged),
        text::count(delivered),
        text::count(parked as u64),
        servers.join("  "),
        board.alice.map_or_else(
            || format!("away, {} wait", board.ledger.parked_for(ALICE)),
            |at| format!("at {}", INSTANCES[at])
        ),
    );
    vec![stamp(board.elapsed()), (Tone::Plain, text)]
}

/// An event, in as many rows as it needs.
pub(super) fn event(at: Duration, line: &Line, columns: usize) -> Vec<Row> {
    let tone = match line.kind {
        Kind::Scene => Tone::Strong,
        Kind::Good => Tone::Good,
        Kind::Bad => Tone::Bad,
        Kind::Reminder => Tone::Dim,
    };
    let room = columns.saturating_sub(STAMP);
    let told = text::wrap(&line.text, room).into_iter().map(|text| (tone, text));
    let detail = line.detail.iter().flat_map(|detail| text::wrap(detail, room)).map(|text| (Tone::Plain, text));
    let mut stamps = std::iter::once(stamp(at)).chain(std::iter::repeat((Tone::Plain, " ".repeat(STAMP))));
    told.chain(detail).map(|piece| stamps.next().into_iter().chain([piece]).collect()).collect()
}

/// Columns of a stamp.
const STAMP: usize = 10;

fn stamp(at: Duration) -> (Tone, String) {
    (Tone::Dim, format!("{:>6.1} s  ", at.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::demo::board::Board;
    use crate::demo::ledger::Ledger;
    use crate::demo::paint::render;

    #[test]
    fn the_block_shows_the_board_and_fits_a_usual_terminal() {
        let board = Board::new(Ledger::new(&["billing"], &["alice".into()], &INSTANCES), INSTANCES.len());
        board.with(|board| {
            let mut meter = Meter::default();
            board.servers[0] = Gauge { is_up: true, life: 1, users: 107, accepted: 1_234_567 };
            let id = board.ledger.publish(Instant::now(), 0, ALICE, true);
            let parked = format!(r#"{{"id":"{id}","source":"billing","outcome":"parked"}}"#);
            board.ledger.outcome(&serde_json::from_str(&parked).unwrap());
            meter.note(Instant::now(), board);

            let rows: Vec<String> = block(board, &meter, 80).iter().map(|row| render(row, usize::MAX, false)).collect();
            assert!(rows.iter().all(|row| row.chars().count() <= 80), "{rows:#?}");
            assert_eq!(rows[3], "in mailboxes           1     1 users    ▁█");
            assert_eq!(rows[4], "app-east       1,234,567   107 users    up");
            assert_eq!(rows[6], "alice                  1     waiting    away █");
            assert_eq!(rows[7], "so far        0 merged, 0 rejected; nothing lost, repeated or out of order");
            let line = render(&plain(board, &meter), usize::MAX, false);
            assert!(
                line.ends_with("in mailboxes 1 for 1 users  app-east 107 users  app-west down  alice away, 1 wait"),
                "{line}"
            );
        });
    }
}
