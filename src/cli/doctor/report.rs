//! Prints the findings: for people, for programs, for Nagios and compatible tools.

use std::process::ExitCode;

use anstyle::Style;
use serde::Serialize;

use super::{Case, CheckResult, Status};
use crate::cli::output::{BAD, DIM, GOOD, Output, WARNING, paint, plain, plural};
use crate::cli::{CliError, exit};
use crate::nats::chain;

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table
    Text,
    /// One JSON document
    Json,
    /// One line for Nagios, Icinga and compatible tools
    Nagios,
}

/// All findings.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    status: Status,
    checks: Vec<CheckResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
}

/// The installation in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Seconds that NATS takes to answer.
    round_trip_seconds: f64,
    /// Seconds that the server's clock is ahead.
    clock_skew_seconds: f64,
    /// Sets that wait to be taken in.
    sets: u64,
    /// Seconds that the oldest of them has waited.
    oldest_seconds: f64,
    /// Reminders in mailboxes.
    parked_reminders: u64,
    /// Users whose mailboxes are not empty.
    parked_users: u64,
    /// Refused messages that are kept.
    rejected: u64,
    /// Members that live.
    members: usize,
    /// Bytes of all streams.
    stored_bytes: u64,
}

pub(super) fn figures(case: &Case<'_>) -> Figures {
    let (now, names) = (case.now, case.names);
    let log = names.log_stream();
    let oldest = now.oldest(&log).unwrap_or_default();
    Figures {
        round_trip_seconds: now.round_trip.as_secs_f64(),
        clock_skew_seconds: now.skew().as_secs_f64(),
        sets: now.messages(&log),
        oldest_seconds: oldest.as_secs_f64(),
        parked_reminders: now.parked.reminders,
        parked_users: now.parked.users,
        rejected: now.messages(&names.rejected_stream()),
        members: now.alive(case.config.members.ttl).count(),
        stored_bytes: now.streams.values().map(|info| info.state.bytes).sum(),
    }
}

impl Report {
    pub(super) fn new(checks: Vec<CheckResult>, figures: Option<Figures>) -> Self {
        let status = checks
            .iter()
            .map(|result| result.finding.status)
            .max()
            .unwrap_or(Status::Ok);
        // An unknown state is not a reason for an alarm.
        Self {
            status: if status == Status::Unknown {
                Status::Ok
            } else {
                status
            },
            checks,
            figures,
        }
    }

    fn count(&self, status: Status) -> usize {
        self.checks
            .iter()
            .filter(|result| result.finding.status == status)
            .count()
    }

    fn print(&self, output: &mut Output) -> Result<(), CliError> {
        for CheckResult { check, finding } in &self.checks {
            let status = paint(
                style(finding.status),
                format_args!("{:<9}", finding.status.word()),
            );
            output.painted(format_args!(
                "{status} {check:<12} {}",
                plain(&finding.found)
            ))?;
            let more = [("expected", &finding.expected), ("fix", &finding.fix)];
            for (what, text) in more
                .iter()
                .filter_map(|(what, text)| Some((what, text.as_ref()?)))
            {
                output.line(format_args!("{:23}{what}: {}", "", plain(text)))?;
            }
        }
        let (critical, warnings, unknown) = (
            self.count(Status::Critical),
            self.count(Status::Warning),
            self.count(Status::Unknown),
        );
        output.line(format_args!(
            "{critical} critical, {}, {unknown} unknown, {} ok",
            plural(warnings, "warning"),
            self.count(Status::Ok)
        ))
    }

    /// The line of a Nagios plugin: a verdict, what it rests on, and figures after a bar.
    fn nagios(&self) -> String {
        let (word, _) = verdict(self.status);
        let worst = self
            .checks
            .iter()
            .filter(|result| result.finding.status >= Status::Warning);
        let mut worst: Vec<_> = worst.collect();
        worst.sort_by_key(|result| std::cmp::Reverse(result.finding.status));
        let text = match worst.as_slice() {
            [] => format!("{} findings, nothing wrong", self.checks.len()),
            found => found
                .iter()
                .map(|result| format!("{}: {}", result.check, result.finding.found))
                .collect::<Vec<_>>()
                .join("; "),
        };
        let data = self
            .figures
            .as_ref()
            .map_or_else(String::new, |figures| format!("|{}", performance(figures)));
        format!("BELLHOP {word} - {}{data}", on_one_line(&text))
    }
}

/// The figures as the guidelines for plugins have them: name, value, unit.
fn performance(figures: &Figures) -> String {
    [
        format!("round_trip={:.6}s", figures.round_trip_seconds),
        format!("clock_skew={:.6}s", figures.clock_skew_seconds),
        format!("sets={}", figures.sets),
        format!("oldest={:.3}s", figures.oldest_seconds),
        format!("parked_reminders={}", figures.parked_reminders),
        format!("parked_users={}", figures.parked_users),
        format!("rejected={}", figures.rejected),
        format!("members={}", figures.members),
        format!("stored={}B", figures.stored_bytes),
    ]
    .join(" ")
}

/// The word and the exit code of the guidelines for plugins.
fn verdict(status: Status) -> (&'static str, u8) {
    match status {
        Status::Ok | Status::Unknown => ("OK", 0),
        Status::Warning => ("WARNING", 1),
        Status::Critical => ("CRITICAL", 2),
    }
}

const UNKNOWN: u8 = 3;

/// Replaces bars: a bar would begin the figures.
fn on_one_line(text: &str) -> String {
    plain(text).replace('|', "/")
}

fn style(status: Status) -> Style {
    match status {
        Status::Ok => GOOD,
        Status::Unknown => DIM,
        Status::Warning => WARNING,
        Status::Critical => BAD,
    }
}

impl Format {
    pub(super) fn tell(self, report: &Report) -> Result<ExitCode, CliError> {
        let mut output = Output::new();
        let mut code = if report.status == Status::Critical {
            exit::FAILURE
        } else {
            0
        };
        match self {
            Self::Text => report.print(&mut output)?,
            Self::Json => output.json(report)?,
            Self::Nagios => {
                output.line(report.nagios())?;
                code = verdict(report.status).1;
            }
        }
        output.flush()?;
        Ok(code.into())
    }

    /// Reports that nothing was checked, since the configuration is wrong.
    pub(super) fn refuse(self, error: CliError) -> Result<ExitCode, CliError> {
        if self != Self::Nagios {
            return Err(error);
        }
        unknown(&chain(&error).to_string())
    }
}

fn unknown(problem: &str) -> Result<ExitCode, CliError> {
    let mut output = Output::new();
    output.line(format_args!("BELLHOP UNKNOWN - {}", on_one_line(problem)))?;
    output.flush()?;
    Ok(UNKNOWN.into())
}

/// Returns the exit code for wrong arguments if the caller expects a plugin's output.
pub(in crate::cli) fn as_for_nagios(
    arguments: &[String],
    problem: &clap::Error,
) -> Option<ExitCode> {
    let is_doctor = arguments.iter().any(|argument| argument == "doctor");
    let is_nagios = arguments
        .windows(2)
        .any(|pair| pair == ["--format", "nagios"])
        || arguments
            .iter()
            .any(|argument| argument == "--format=nagios");
    let text = problem.to_string();
    let first = text.lines().next().unwrap_or_default();
    (problem.use_stderr() && is_doctor && is_nagios)
        .then(|| unknown(first).unwrap_or(UNKNOWN.into()))
}
