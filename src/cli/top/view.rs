//! The picture of a frame, for a terminal or for a page of text. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Sparkline, Table, Widget, Wrap};

use super::model::{Frame, MemberRow, Sort, lost_for};
use super::sample::Consumer;
use crate::cli::doctor::{CheckResult, Status};
use crate::cli::members::ranges;
use crate::cli::output::{duration, plain, plural, thousands, time};

/// The terminal's way to emphasize; without colours the words alone suffice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    pub(super) has_colours: bool,
}

impl Palette {
    fn of(self, status: Status) -> Style {
        let colour = match status {
            Status::Ok => Color::Green,
            Status::Unknown => Color::DarkGray,
            Status::Warning => Color::Yellow,
            Status::Critical => Color::Red,
        };
        if self.has_colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn dim(self) -> Style {
        if self.has_colours {
            Style::new().add_modifier(Modifier::DIM)
        } else {
            Style::new()
        }
    }

    fn strong(self) -> Style {
        if self.has_colours {
            Style::new().add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        }
    }
}

/// Maximum rows of the panel of findings.
const MOST_NEEDS: usize = 6;

/// Draws a frame, as it is `now`.
pub(super) fn draw(
    frame: &Frame,
    palette: Palette,
    now: Timestamp,
    area: Rect,
    buffer: &mut Buffer,
) {
    let needs = frame.needs.len().clamp(1, MOST_NEEDS) as u16 + 1;
    let rows = [
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Length(needs),
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(1),
    ];
    let [top, middle, trouble, people, work, bottom] = Layout::vertical(rows).areas(area);
    header(frame, palette, now).render(top, buffer);
    flows(frame, palette, middle, buffer);
    needing(&frame.needs, palette, trouble, buffer);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(3), Constraint::Fill(1)]).areas(people);
    members(&frame.members, palette, left, buffer);
    connected(frame, palette, right, buffer);
    consumers(&frame.consumers, palette, work, buffer);
    footer(frame, palette).render(bottom, buffer);
}

/// Draws the help on keys, over everything else.
pub(super) fn draw_help(palette: Palette, area: Rect, buffer: &mut Buffer) {
    let lines = [
        "q      quit",
        "s      sort by load or by name",
        "p      pause or resume",
        "?      show or hide this help",
        "",
        "Rates are per second, over the last five seconds;",
        "latency is over the last minute. `bellhop doctor`",
        "looks deeper and suggests fixes.",
    ];
    let wanted = Rect {
        x: area.x + 2,
        y: area.y + 2,
        width: 52,
        height: lines.len() as u16 + 2,
    };
    let area = wanted.intersection(area);
    Clear.render(area, buffer);
    let text: Vec<Line> = lines.into_iter().map(Line::from).collect();
    Paragraph::new(text)
        .block(
            Block::bordered()
                .title(" keys ")
                .border_style(palette.strong()),
        )
        .render(area, buffer);
}

fn header(frame: &Frame, palette: Palette, now: Timestamp) -> Line<'static> {
    let round_trip = duration(Duration::from_secs_f64(frame.round_trip_seconds));
    let mut spans = vec![
        Span::styled("bellhop top  ", palette.strong()),
        Span::styled(frame.status.word(), palette.of(frame.status)),
    ];
    if frame.is_still {
        spans.push(Span::styled("  paused", palette.of(Status::Warning)));
    }
    if let (Some(lost), Some((_, problem))) = (lost_for(frame, now), &frame.trouble) {
        let text = format!("  no data for {}: {}", duration(lost), plain(problem));
        spans.push(Span::styled(text, palette.of(Status::Critical)));
    }
    let server = format!(
        "  {} nats-server {}, {round_trip}  {}",
        plain(&frame.server),
        frame.version,
        time(frame.at)
    );
    spans.push(Span::raw(server));
    Line::from(spans)
}

fn panel(title: String, palette: Palette) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(palette.dim())
        .title(Span::styled(title, palette.strong()))
}

/// A rate: whole numbers, but for slow ones.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0/s".to_owned(),
        slow if slow < 9.95 => format!("{slow:.1}/s"),
        fast => format!("{}/s", thousands(fast.round() as usize)),
    }
}

fn flows(frame: &Frame, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let flow = &frame.per_second;
    let latency = frame.latency.map_or_else(String::new, |latency| {
        let [median, p99] = [latency.median_seconds, latency.p99_seconds]
            .map(|seconds| duration(Duration::from_secs_f64(seconds)));
        format!("median {median}, 99 % in {p99}")
    });
    let waiting = match frame.sets {
        0 => "no backlog".to_owned(),
        sets => {
            let oldest = duration(Duration::from_secs_f64(frame.oldest_seconds));
            format!(
                "{} wait, the oldest for {oldest}",
                plural(sets as usize, "set")
            )
        }
    };
    let parked = format!(
        "{} in mailboxes of {}",
        plural(frame.parked_reminders as usize, "reminder"),
        plural(frame.parked_users as usize, "user")
    );
    let rows = [
        [
            "in",
            &rate(flow.reminders),
            &format!("{} sets", rate(flow.sets)),
            &waiting,
        ],
        [
            "out",
            &rate(flow.delivered),
            &format!("{} rerouted", rate(flow.rerouted)),
            &latency,
        ],
        [
            "parked",
            &rate(flow.parked),
            &format!("{} merged", rate(flow.merged)),
            &parked,
        ],
        [
            "rejected",
            &rate(flow.rejected),
            &format!("{} dropped", rate(flow.dropped)),
            &format!(
                "{} kept; {} requests to app servers failed",
                plural(frame.rejected as usize, "message"),
                rate(flow.failed)
            ),
        ],
    ];
    let line = |[name, first, second, rest]: &[&str; 4]| {
        Line::from(vec![
            Span::styled(format!("{name:<9}"), palette.dim()),
            Span::styled(format!("{first:>10}"), palette.strong()),
            Span::raw(format!("{second:>18}   ")),
            Span::raw((*rest).to_owned()),
        ])
    };
    let [text, curve] =
        Layout::vertical([Constraint::Length(5), Constraint::Length(1)]).areas(area);
    let lines: Vec<Line> = rows.iter().map(line).collect();
    Paragraph::new(lines)
        .block(panel(" reminders ".to_owned(), palette))
        .render(text, buffer);
    let newest = frame.curve.len().saturating_sub(usize::from(curve.width));
    Sparkline::default()
        .data(&frame.curve[newest..])
        .style(palette.of(Status::Ok))
        .render(curve, buffer);
}

fn needing(needs: &[CheckResult], palette: Palette, area: Rect, buffer: &mut Buffer) {
    let more = needs.len().saturating_sub(MOST_NEEDS);
    let title = if more == 0 {
        " needs attention ".to_owned()
    } else {
        format!(" needs attention, and {more} more ")
    };
    let mut lines: Vec<Line> = needs
        .iter()
        .take(MOST_NEEDS)
        .map(|CheckResult { check, finding }| {
            let fix = finding
                .fix
                .as_ref()
                .map_or_else(String::new, |fix| format!(" → {}", plain(fix)));
            Line::from(vec![
                Span::styled(
                    format!("{:<9}", finding.status.word()),
                    palette.of(finding.status),
                ),
                Span::raw(format!("{check}: {}", plain(&finding.found))),
                Span::styled(fix, palette.dim()),
            ])
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("nothing found", palette.of(Status::Ok)));
    }
    Paragraph::new(lines)
        .block(panel(title, palette))
        .render(area, buffer);
}

fn table<const N: usize>(
    title: String,
    columns: [(&str, Constraint); N],
    rows: Vec<Row<'static>>,
    palette: Palette,
    area: Rect,
    buffer: &mut Buffer,
) {
    let header = Row::new(columns.map(|(name, _)| name.to_uppercase())).style(palette.dim());
    let table = Table::new(rows, columns.map(|(_, width)| width))
        .header(header)
        .block(panel(title, palette));
    Widget::render(table, area, buffer);
}

fn members(members: &[MemberRow], palette: Palette, area: Rect, buffer: &mut Buffer) {
    let row = |MemberRow {
                   member,
                   delivered_per_second,
                   ..
               }: &MemberRow| {
        let partitions: BTreeSet<u16> = member.partitions.iter().copied().collect();
        let status = if member.state == "serving" {
            Status::Ok
        } else {
            Status::Warning
        };
        Row::new([
            Line::from(plain(&member.name)),
            Line::styled(member.state, palette.of(status)),
            Line::from(rate(*delivered_per_second)),
            Line::from(ranges(&partitions)),
            Line::from(member.roles.join(" ")),
            Line::from(duration(Duration::from_secs_f64(member.silent_seconds))),
            Line::from(plain(&member.version)),
        ])
    };
    let columns = [
        ("member", Constraint::Fill(2)),
        ("state", Constraint::Length(8)),
        ("out", Constraint::Length(9)),
        ("partitions", Constraint::Fill(2)),
        ("roles", Constraint::Length(25)),
        ("silent", Constraint::Length(7)),
        ("version", Constraint::Length(8)),
    ];
    table(
        format!(" {} ", plural(members.len(), "member")),
        columns,
        members.iter().map(row).collect(),
        palette,
        area,
        buffer,
    );
}

fn connected(frame: &Frame, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let columns = [
        ("app server", Constraint::Fill(1)),
        ("users", Constraint::Length(9)),
    ];
    let routes = match &frame.routes {
        Ok(routes) => routes,
        Err(why) => {
            return Paragraph::new(why.text())
                .wrap(Wrap { trim: true })
                .block(panel(" connected ".to_owned(), palette))
                .render(area, buffer);
        }
    };
    let users: u64 = routes.iter().map(|(_, users)| users).sum();
    let row =
        |(instance, users): &(String, u64)| Row::new([plain(instance), thousands(*users as usize)]);
    table(
        format!(" {} connected ", plural(users as usize, "route")),
        columns,
        routes.iter().map(row).collect(),
        palette,
        area,
        buffer,
    );
}

fn consumers(consumers: &[Consumer], palette: Palette, area: Rect, buffer: &mut Buffer) {
    let row = |consumer: &Consumer| {
        let (reader, status) = match consumer.is_read {
            Some(true) => ("a member", Status::Ok),
            Some(false) => ("none", Status::Critical),
            None => ("-", Status::Unknown),
        };
        let [pending, in_work, redelivered] =
            [consumer.pending, consumer.in_work, consumer.redelivered]
                .map(|count| Line::from(thousands(count as usize)));
        Row::new([
            Line::from(plain(&consumer.name)),
            Line::from(plain(&consumer.stream)),
            pending,
            in_work,
            redelivered,
            Line::styled(reader, palette.of(status)),
        ])
    };
    let columns = [
        ("consumer", Constraint::Fill(1)),
        ("stream", Constraint::Fill(1)),
        ("pending", Constraint::Length(11)),
        ("in work", Constraint::Length(9)),
        ("again", Constraint::Length(9)),
        ("read by", Constraint::Length(9)),
    ];
    let shown = usize::from(area.height).saturating_sub(2);
    let more = consumers.len().saturating_sub(shown);
    let title = if more == 0 {
        format!(" {} ", plural(consumers.len(), "consumer"))
    } else {
        format!(
            " {}, {more} more below ",
            plural(consumers.len(), "consumer")
        )
    };
    table(
        title,
        columns,
        consumers.iter().take(shown).map(row).collect(),
        palette,
        area,
        buffer,
    );
}

fn footer(frame: &Frame, palette: Palette) -> Line<'static> {
    let sort = if frame.sort == Sort::Load {
        "load"
    } else {
        "name"
    };
    Line::styled(
        format!("q quit   s sort (by {sort})   p pause   ? help"),
        palette.dim(),
    )
}

/// A frame as text, in so many columns, and in as many rows as it needs.
pub(super) fn page(frame: &Frame, columns: u16) -> Vec<String> {
    let members = frame
        .members
        .len()
        .max(frame.routes.as_ref().map_or(1, Vec::len));
    let rows = 12 + MOST_NEEDS + 3 * members.max(frame.consumers.len());
    let area = Rect::new(0, 0, columns, rows.min(200) as u16);
    let mut buffer = Buffer::empty(area);
    draw(
        frame,
        Palette { has_colours: false },
        frame.at,
        area,
        &mut buffer,
    );
    // Its last row lists the keys.
    let lines = text(&buffer);
    lines[..lines.len() - 1]
        .iter()
        .filter(|line| !line.is_empty())
        .cloned()
        .collect()
}

/// A buffer's lines, without what is empty at their ends.
pub(super) fn text(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.content.chunks(usize::from(buffer.area.width).max(1));
    rows.map(|row| {
        row.iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect::<String>()
            .trim_end()
            .to_owned()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::tests::frame;
    use super::*;

    fn drawn(frame: &Frame, size: (u16, u16), now: Timestamp) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        let palette = Palette { has_colours: true };
        terminal
            .draw(|screen| draw(frame, palette, now, screen.area(), screen.buffer_mut()))
            .unwrap();
        text(terminal.backend().buffer())
    }

    #[test]
    fn a_screen_shows_all_of_it() {
        let frame = frame();
        let shown = drawn(&frame, (110, 26), frame.at);
        let expected = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/top/screen.txt");
        let expected = std::fs::read_to_string(expected).unwrap();
        assert_eq!(
            shown.join("\n"),
            expected.trim_end_matches('\n'),
            "\n{}",
            shown.join("\n")
        );
    }

    #[test]
    fn lost_connection_shows_on_any_screen() {
        let mut frame = frame();
        frame.trouble = Some((frame.at, "timed out".into()));
        let shown = drawn(&frame, (110, 26), frame.at + SignedDuration::from_secs(3));
        assert!(
            shown[0].contains("critical  no data for 3.0 s: timed out  nats-1"),
            "{}",
            shown[0]
        );
        for size in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            drawn(&frame, size, frame.at);
            let area = Rect::new(0, 0, size.0, size.1);
            draw_help(
                Palette { has_colours: false },
                area,
                &mut Buffer::empty(area),
            );
        }
    }

    #[test]
    fn page_is_as_long_as_its_content() {
        let page = page(&frame(), 110);
        assert!(
            page.iter().any(|line| line.starts_with("reader-3 ")),
            "{page:#?}"
        );
        assert!(
            page.iter().all(|line| !line.contains("q quit")),
            "{page:#?}"
        );
    }

    #[test]
    fn rates_are_for_people() {
        assert_eq!(
            [0.0, 0.24, 9.9, 9.96, 12_345.6].map(rate),
            ["0/s", "0.2/s", "9.9/s", "10/s", "12,346/s"]
        );
    }
}
