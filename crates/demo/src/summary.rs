//! The texts before and after the demo.

use std::time::Duration;

use bellhop_protocol::numbers;
use ratatui::text::Span;

use crate::board::Content;
use crate::catalogue::{INSTANCES, SOURCES, USERS, VISITORS};
use crate::latency::Latencies;
use crate::ledger::Counts;
use crate::options::Options;
use crate::stage::Stage;
use crate::view::{BAD, DIM, GOOD, PLAIN, Row, STRONG, piece, row, verdict};

const PROMISE: &str =
    "Nothing lost, nothing repeated, order kept; each reminder has one final outcome.";
const PUBLISH: &str = "publish --source lunch --user alice --title Soup --content 'It gets cold'";

/// What there is, where, and what to try.
pub(crate) fn welcome(stage: &Stage, options: &Options, terminal: Option<&str>) -> Vec<Row> {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "bellhop".to_owned());
    let url = stage.url();
    let label = |name: &str, text: String| {
        Row::from(vec![
            piece(DIM, format!("  {name:<10}")),
            piece(PLAIN, text),
        ])
    };
    let what = format!(
        "Bellhop at work: {USERS} users, {} app servers, {} business systems, {} reminders a second",
        INSTANCES.len(),
        SOURCES.len(),
        numbers::count(options.rate),
    );
    let mut rows = vec![
        row(STRONG, what),
        label(
            "NATS",
            format!(
                "{url}  (nats-server {}, {})",
                stage.found.version,
                stage.found.path.display()
            ),
        ),
        label("probes", format!("http://{}/readyz?verbose", stage.probes)),
    ];
    rows.extend(terminal.map(|url| {
        label(
            "browser",
            format!("{url}  (sign in as {}, or anybody)", VISITORS[0]),
        )
    }));
    rows.push(row(DIM, "  In another terminal, while this runs:"));
    let commands = [
        "routes ls --user alice",
        "mailbox ls",
        PUBLISH,
        "connect-as desk-3 --user bob",
    ];
    rows.push(row(PLAIN, format!("    export NATS_URL={url}")));
    rows.extend(commands.map(|command| row(PLAIN, format!("    {program} {command}"))));
    let end = match options.duration {
        Some(_) => {
            "  It ends by itself; Ctrl-C ends it sooner, with the same account of every reminder."
        }
        None => "  Ctrl-C ends it with an account of every reminder.",
    };
    rows.extend([row(DIM, end), Row::default()]);
    rows
}

/// The end's account.
#[derive(Debug)]
pub(crate) struct Summary {
    counts: Counts,
    sets: u64,
    lasted: Duration,
    live: Latencies,
    waited: Latencies,
    elsewhere: Vec<(String, u64)>,
    verdict: Span<'static>,
    is_good: bool,
}

impl Summary {
    /// Of a closed ledger, and how long reminders were published.
    pub(crate) fn of(board: &Content, lasted: Duration) -> Self {
        let ledger = &board.ledger;
        Self {
            counts: ledger.counts().clone(),
            sets: board.sets,
            lasted,
            live: ledger.live.clone(),
            waited: ledger.waited.clone(),
            elsewhere: ledger
                .elsewhere()
                .iter()
                .map(|(instance, count)| (instance.clone(), *count))
                .collect(),
            verdict: verdict(board),
            is_good: ledger.troubles().is_empty(),
        }
    }

    /// What is wrong, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        (!self.is_good).then(|| self.verdict.content.to_string())
    }

    /// Returns the account as a table.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let Counts {
            published,
            delivered,
            waited,
            merged,
            rejected,
            elsewhere,
            visitors,
        } = self.counts;
        let seconds = self.lasted.as_secs_f64().max(0.001);
        let rate = numbers::count((published as f64 / seconds).round() as u64);
        let pace = format!(
            "in {} sets and {seconds:.1} s: {rate} a second",
            numbers::count(self.sets)
        );
        let mut rows = vec![
            Row::default(),
            row(STRONG, "What became of every reminder"),
            line("published", published, pace),
            line(
                "delivered",
                delivered,
                format!("{} of them by way of a mailbox", numbers::count(waited)),
            ),
            line(
                "merged",
                merged,
                "duplicates, named by the one that was delivered".to_owned(),
            ),
            line(
                "rejected",
                rejected,
                "bad ones; the rest of their sets went on".to_owned(),
            ),
        ];
        if elsewhere > 0 {
            let by_instance = self
                .elsewhere
                .iter()
                .map(|(instance, count)| format!("{instance} {count}"));
            let instances = by_instance.collect::<Vec<_>>().join(", ");
            rows.push(line(
                "elsewhere",
                elsewhere,
                format!("to visitors' own routes: {instances}"),
            ));
        }
        if visitors > 0 {
            rows.push(line(
                "besides",
                visitors,
                "from outside, delivered to users of the demo".to_owned(),
            ));
        }
        rows.extend([
            Row::default(),
            Row::from(vec![
                piece(STRONG, "From publishing to acceptance"),
                piece(DIM, "    median      99 %"),
            ]),
            latency("directly", &self.live),
            latency("by way of a mailbox", &self.waited),
            Row::default(),
        ]);
        rows.push(match self.is_good {
            true => row(GOOD, PROMISE),
            false => row(BAD, format!("It failed: {}", self.verdict.content)),
        });
        rows
    }
}

fn line(name: &str, count: u64, note: String) -> Row {
    let count = piece(STRONG, format!("{:>17}", numbers::count(count)));
    Row::from(vec![
        piece(PLAIN, format!("  {name:<10}")),
        count,
        piece(DIM, format!("   {note}")),
    ])
}

fn latency(name: &str, latencies: &Latencies) -> Row {
    let shown = |share| {
        latencies
            .quantile(share)
            .map_or_else(|| "-".to_owned(), numbers::time)
    };
    let times = format!("{:>12}{:>10}", shown(0.5), shown(0.99));
    Row::from(vec![
        piece(PLAIN, format!("  {name:<25}")),
        piece(STRONG, times),
    ])
}
