//! The output of commands, tables and lines for people and JSON for programs, and their questions.

#![allow(clippy::print_stderr)]

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::CliError;
use crate::numbers;
use crate::printable::{printable, printable_lines};

/// Standard output. Its reader may go away: that ends the command and is not a failure.
pub(super) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    colours: ColorChoice,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            colours: colours(),
            ..Self::to(Box::new(io::stdout()))
        }
    }

    /// The whole output of a command that has one thing to tell: as JSON, or as a line.
    pub(super) fn tell(
        is_json: bool,
        item: &impl Serialize,
        line: impl Display,
    ) -> Result<(), CliError> {
        let mut output = Self::new();
        if is_json {
            output.json(item)?;
        } else {
            output.line(line)?;
        }
        output.flush()
    }

    fn to(writer: Box<dyn Write>) -> Self {
        Self {
            writer: BufWriter::new(writer),
            colours: ColorChoice::Never,
        }
    }

    /// Prints one line, with everything in it that a terminal would obey written out.
    pub(super) fn line(&mut self, line: impl Display) -> Result<(), CliError> {
        self.painted(printable(&line.to_string()))
    }

    /// Prints lines with styles, which are removed where the output has no colours. Text from
    /// outside must be [`plain`] already.
    pub(super) fn painted(&mut self, lines: impl Display) -> Result<(), CliError> {
        let lines = lines.to_string();
        written(match self.colours {
            ColorChoice::Never => writeln!(self.writer, "{}", strip_str(&lines)),
            _ => writeln!(self.writer, "{lines}"),
        })
    }

    /// One JSON document on a line of its own.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        written(serde_json::to_writer(&mut self.writer, value).map_err(io::Error::from))?;
        written(self.writer.write_all(b"\n"))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        written(self.writer.write_all(bytes))
    }

    /// Prints foreign text as it is; on a terminal with control characters written out.
    pub(super) fn untrusted(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        if !io::stdout().is_terminal() {
            return self.bytes(bytes);
        }
        self.bytes(printable_lines(&String::from_utf8_lossy(bytes)).as_bytes())
    }

    /// Shows what was written. Streams call it after each item, everything else once, at the end.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        written(self.writer.flush())
    }
}

/// Prints lines on standard error, with everything in them that a terminal would obey written out.
pub(super) fn aside(lines: impl Display) {
    eprintln!("{}", printable_lines(&lines.to_string()));
}

/// Prints on standard error what goes wrong, after the program's name.
pub(super) fn complain(problem: impl Display) {
    aside(format_args!("bellhop: {problem}"));
}

/// Green: as expected.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Yellow: worth a look.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default();
/// Bold red: a failure.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Dim: of little interest.
pub(super) const DIM: Style = Style::new().dimmed();

/// Returns a text between the codes of a style; see [`Output::painted`].
pub(super) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Returns whether standard output shows colours: it is a terminal that can, and `NO_COLOR` is not
/// set.
pub(super) fn colours() -> ColorChoice {
    AutoStream::choice(&io::stdout())
}

fn written(result: io::Result<()>) -> Result<(), CliError> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::Io("cannot write to standard output".to_owned(), error),
    })
}

/// The output of an `ls`: a table, or one JSON list that is written as its items arrive.
pub(super) struct Listing {
    output: Output,
    is_json: bool,
    items: usize,
    table: Table,
}

impl Listing {
    pub(super) fn new(is_json: bool, columns: &[&str]) -> Self {
        Self::to(Output::new(), is_json, columns)
    }

    fn to(output: Output, is_json: bool, columns: &[&str]) -> Self {
        Self {
            output,
            is_json,
            items: 0,
            table: Table::new(columns),
        }
    }

    pub(super) fn add<const N: usize>(
        &mut self,
        item: &impl Serialize,
        cells: impl FnOnce() -> [String; N],
    ) -> Result<(), CliError> {
        self.items += 1;
        if self.is_json {
            self.output
                .bytes(if self.items == 1 { b"[\n" } else { b",\n" })?;
            let json = serde_json::to_vec(item).expect("items have only string keys");
            return self.output.bytes(&json);
        }
        self.table.row(&cells());
        Ok(())
    }

    /// Ends the list. In text it prints `nothing` if the list is empty, else `summary`, if there is
    /// one.
    pub(super) fn finish(mut self, nothing: &str, summary: Option<String>) -> Result<(), CliError> {
        match (self.is_json, self.items) {
            (true, 0) => self.output.line("[]")?,
            (true, _) => self.output.bytes(b"\n]\n")?,
            (false, 0) => self.output.line(nothing)?,
            (false, _) => {
                self.table
                    .lines()
                    .iter()
                    .try_for_each(|line| self.output.line(line))?;
                summary
                    .iter()
                    .try_for_each(|summary| self.output.line(summary))?;
            }
        }
        self.output.flush()
    }
}

/// Aligned columns. A column of numbers is aligned to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[&str]) -> Self {
        Self {
            rows: vec![columns.iter().map(|column| column.to_uppercase()).collect()],
        }
    }

    /// Adds a row of [`plain`] cells.
    pub(super) fn row(&mut self, cells: &[String]) {
        self.rows
            .push(cells.iter().map(|cell| plain(cell)).collect());
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let columns = self.rows[0].len();
        let widest = |column: usize| {
            self.rows
                .iter()
                .map(|row| width(&row[column]))
                .max()
                .unwrap_or(0)
        };
        let is_number = |cell: &String| cell.chars().all(|c| c.is_ascii_digit() || c == ',');
        let shape: Vec<(usize, bool)> = (0..columns)
            .map(|at| {
                (
                    widest(at),
                    self.rows[1..].iter().all(|row| is_number(&row[at])),
                )
            })
            .collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (cell, (width_of_column, is_right)) in row.iter().zip(&shape) {
                let pad = " ".repeat(width_of_column - width(cell));
                let (before, after) = if *is_right {
                    (pad.as_str(), "")
                } else {
                    ("", pad.as_str())
                };
                line.extend([before, cell, after, "  "]);
            }
            line.truncate(line.trim_end().len());
            line
        };
        self.rows.iter().map(line).collect()
    }
}

/// Returns the number of columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Returns the text on one line: white space becomes spaces, and what else a terminal would obey is
/// written out.
pub(super) fn plain(text: &str) -> String {
    printable(&text.replace(['\n', '\r', '\t'], " "))
}

/// The text on one line, cut to `columns`.
pub(super) fn short(text: &str, columns: usize) -> String {
    // Looking at more characters than can fit would be for nothing; content has up to 64 KiB.
    let begin: String = text.chars().take(columns + 1).collect();
    let mut cut = plain(&begin);
    if begin.len() == text.len() && width(&cut) <= columns {
        return cut;
    }
    while width(&cut) >= columns.max(1) {
        cut.pop();
    }
    cut + "…"
}

/// Returns a reminder's text as a cell of a table.
pub(super) fn one_line(title: Option<String>, content: String) -> String {
    match title {
        Some(title) => format!("{title}: {content}"),
        None => content,
    }
}

/// `1 reminder`, `12,345 reminders`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        thousands(count),
        if count == 1 { "" } else { "s" }
    )
}

/// `12,345`.
pub(super) fn thousands(number: usize) -> String {
    numbers::count(number)
}

/// `0.8 ms`, `12 ms`, `3.4 s`.
pub(super) fn duration(duration: Duration) -> String {
    numbers::time(duration)
}

/// `999 B`, `1.2 KiB`, `3.4 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, bits)| bytes >= 1 << bits) {
        Some((unit, bits)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << bits)),
        None => format!("{bytes} B"),
    }
}

/// A time as people read it: RFC 3339 in whole seconds.
pub(super) fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Returns the age of something, in its largest unit: `12s`, `3m`, `5h`, `9d`. Another machine's
/// clock may be ahead.
pub(super) fn age(now: Timestamp, at: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Asks before something is deleted, unless `force` says that it was thought about.
///
/// # Errors
/// If the answer is no, or no person can be asked.
pub(super) fn confirm(question: &str, force: bool) -> Result<(), CliError> {
    if force {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(CliError::Usage(format!(
            "{question} No terminal for a confirmation prompt; use -f (--force)"
        )));
    }
    eprint!("{} [y/N] ", printable(question));
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CliError::Io("cannot read the answer".to_owned(), error))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Failed("nothing was deleted".to_owned())),
    }
}

/// A line on a terminal's standard error that says how far something long has come.
pub(super) struct Progress {
    is_shown: bool,
    next: Instant,
}

impl Progress {
    /// Shorter work shows no progress.
    const PATIENCE: Duration = Duration::from_millis(300);

    pub(super) fn new() -> Self {
        Self {
            is_shown: false,
            next: Instant::now() + Self::PATIENCE,
        }
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if now >= self.next && io::stderr().is_terminal() {
            self.next = now + Self::PATIENCE;
            self.is_shown = true;
            eprint!("\r\x1b[K{}", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_to_the_right() {
        let mut table = Table::new(&["user", "parked", "subject"]);
        table.row(&[
            "张三".into(),
            "1,200".into(),
            "a\u{1b}[2J\nb\u{202e}".into(),
        ]);
        table.row(&["alice".into(), "7".into(), String::new()]);
        assert_eq!(
            table.lines(),
            [
                "USER   PARKED  SUBJECT",
                r"张三    1,200  a\u{1b}[2J b\u{202e}",
                "alice       7"
            ]
        );
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn listed(is_json: bool, items: &[u8]) -> String {
        let written = Written::default();
        let mut listing = Listing::to(Output::to(Box::new(written.clone())), is_json, &["n"]);
        items
            .iter()
            .try_for_each(|n| listing.add(n, || [n.to_string()]))
            .unwrap();
        listing.finish("nothing", Some("all".to_owned())).unwrap();
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn listing_is_json_or_a_table() {
        assert_eq!(
            [listed(true, &[]), listed(true, &[1]), listed(true, &[1, 2])],
            ["[]\n", "[\n1\n]\n", "[\n1,\n2\n]\n"]
        );
        assert_eq!(
            [listed(false, &[]), listed(false, &[1])],
            ["nothing\n", "N\n1\nall\n"]
        );
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::to(Box::new(Gone));
        output.line("a").unwrap();
        assert!(matches!(output.flush(), Err(CliError::OutputClosed)));
        let mut output = Output::to(Box::new(Gone));
        assert!(matches!(
            output.json(&"x".repeat(100_000)),
            Err(CliError::OutputClosed)
        ));
    }

    #[test]
    fn texts_are_shortened_by_columns() {
        assert_eq!(short("abcdef", 6), "abcdef");
        assert_eq!(short("abcdefg", 6), "abcde…");
        assert_eq!(short("张三李四", 6), "张三…");
        assert_eq!(short("a\nb", 6), "a b");
        assert_eq!(
            [short("a\u{202e}b", 10), short("a\u{202e}b", 9)],
            [r"a\u{202e}b", r"a\u{202e…"]
        );
        assert_eq!(short("", 6), "");
    }

    #[test]
    fn widths_are_those_of_terminals() {
        assert_eq!(
            ["e\u{301}", "한글", "…", "\u{1f469}\u{200d}\u{1f4bb}"].map(width),
            [1, 4, 1, 2]
        );
    }

    #[test]
    fn plain_output_has_no_styles() {
        let print = |colours| {
            let written = Written::default();
            let mut output = Output {
                colours,
                ..Output::to(Box::new(written.clone()))
            };
            output.painted(paint(BAD, "no")).unwrap();
            output.bytes(b"\x1b[31m").unwrap();
            output.flush().unwrap();
            String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
        };
        assert_eq!(print(ColorChoice::Never), "no\n\x1b[31m");
        assert_eq!(
            print(ColorChoice::Always),
            "\x1b[1m\x1b[31mno\x1b[0m\n\x1b[31m"
        );
    }

    #[test]
    fn numbers_and_ages_are_for_people() {
        assert_eq!(
            [
                thousands(0),
                thousands(999),
                thousands(1_000),
                thousands(1_234_567)
            ],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [bytes(0), bytes(1_023), bytes(1_536), bytes(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!(
            [plural(1, "set"), plural(0, "set"), plural(1_000, "set")],
            ["1 set", "0 sets", "1,000 sets"]
        );
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (at, expected) in [
            ("2026-11-22T12:00:09Z", "0s"),
            ("2026-11-22T11:59:01Z", "59s"),
            ("2026-11-22T11:00:01Z", "59m"),
            ("2026-11-21T12:00:01Z", "23h"),
            ("2026-11-12T12:00:00Z", "10d"),
        ] {
            assert_eq!(age(now, at.parse().unwrap()), expected, "{at}");
        }
        assert_eq!(
            time("2026-11-22T12:00:00.923456Z".parse().unwrap()),
            "2026-11-22T12:00:00Z"
        );
    }
}
