//! The `bellhop-bench` program.

#![allow(clippy::disallowed_methods)] // It shows progress by the clock.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellhop_bench::{BenchError, Options, Report, Role, Scenario, Servers, table};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

/// The same as in the program under test.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmark Bellhop on this machine against hand-written baselines
#[derive(Debug, Parser)]
#[command(
    name = "bellhop-bench",
    version,
    after_help = "Examples:
  bellhop-bench throughput
  bellhop-bench throughput --set-sizes 100 --rounds 5 --json
  bellhop-bench latency --rates 1000,10000
  bellhop-bench scale --scale-members 1,2 --scale-partitions 8,32
  bellhop-bench durable
  bellhop-bench offline --users 100000 --reminders 1000000
  bellhop-bench routes --routes 1000000 --users 200000

It starts a nats-server unless --nats names one, and everything else as separate processes. Compare ratios: \
absolute figures hold for this machine only. Figures of a debug build mean nothing."
)]
struct Arguments {
    /// Scenario to measure
    #[arg(value_enum, required_unless_present = "worker")]
    scenario: Option<Scenario>,
    /// The `bellhop` program to measure [default: the one beside this program]
    #[arg(long, env = "BELLHOP", value_name = "PATH", hide_env_values = true)]
    bellhop: Option<PathBuf>,
    /// NATS server addresses, separated by commas [default: a nats-server of the benchmark]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Approximate number of reminders in one measurement
    #[arg(long, default_value_t = 1_000_000, value_parser = number(1..=1_000_000_000))]
    reminders: u64,
    /// Users with one connection each; for routes, users with a mailbox, and users confirmed by
    /// heartbeats
    #[arg(long, default_value_t = 100_000, value_parser = number(1..=10_000_000))]
    users: u64,
    /// Routes, each for a different user; for routes
    #[arg(long, default_value_t = 1_000_000, value_parser = number(1_000..=10_000_000))]
    routes: u64,
    /// App-server instances
    #[arg(long, default_value_t = 8, value_parser = number(1..=1_000))]
    instances: u64,
    /// `bellhop serve` processes
    #[arg(long, default_value_t = 1, value_parser = number(1..=16))]
    members: u64,
    /// Partitions
    #[arg(long, default_value_t = 32, value_parser = partitions())]
    partitions: u16,
    /// Numbers of `bellhop serve` processes to try; for scale
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = number(1..=16))]
    scale_members: Vec<u64>,
    /// Numbers of partitions to try; for scale
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,32,64", value_parser = partitions())]
    scale_partitions: Vec<u16>,
    /// Reminders in a set, one measurement each [default: 1,10,100,1000; for latency 1; for scale,
    /// durable and offline 100]
    #[arg(long, value_delimiter = ',', value_parser = number(1..=10_000))]
    set_sizes: Vec<u64>,
    /// Reminders a second, one measurement each; for latency
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_parser = number(1..=10_000_000))]
    rates: Vec<u64>,
    /// Reminders a second to users who stay connected while others come back; for offline
    #[arg(long, default_value_t = 500, value_parser = number(1..=1_000_000))]
    live_rate: u64,
    /// Duration of each rate, in seconds
    #[arg(long, default_value_t = 10, value_parser = number(1..=86_400))]
    seconds: u64,
    /// Number of rounds; the median counts
    #[arg(long, default_value_t = 3, value_parser = number(1..=100))]
    rounds: u64,
    /// Let every acknowledgement wait for the disk (`sync_interval: always`), as durable always
    /// does
    #[arg(long)]
    durable: bool,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Run one process of a measurement
    #[arg(long, value_enum, hide = true, exclusive = true)]
    worker: Option<Role>,
}

fn number(range: std::ops::RangeInclusive<u64>) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(range)
}

fn partitions() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=1_024)
}

impl Arguments {
    fn options(self, scenario: Scenario) -> Result<Options, BenchError> {
        let servers = self.servers(scenario);
        let set_sizes = match (self.set_sizes.is_empty(), scenario) {
            (false, _) => self.set_sizes,
            (true, Scenario::Throughput) => vec![1, 10, 100, 1_000],
            (true, Scenario::Latency) => vec![1],
            (true, Scenario::Scale | Scenario::Durable | Scenario::Offline | Scenario::Routes) => {
                vec![100]
            }
        };
        let sizes = |numbers: Vec<u64>| numbers.into_iter().map(|number| number as usize).collect();
        Ok(Options {
            scenario,
            program: bellhop_bench::find_program(self.bellhop)?,
            servers,
            users: self.users as usize,
            routes: self.routes as usize,
            instances: self.instances as usize,
            members: self.members as usize,
            partitions: self.partitions,
            reminders: self.reminders as usize,
            set_sizes: sizes(set_sizes),
            rates: sizes(self.rates),
            duration: Duration::from_secs(self.seconds),
            live_rate: self.live_rate as usize,
            rounds: self.rounds as usize,
            scale_members: sizes(self.scale_members),
            scale_partitions: self.scale_partitions,
        })
    }

    /// Returns the servers to measure with. Ends the process if the arguments contradict each
    /// other.
    fn servers(&self, scenario: Scenario) -> Servers {
        let refuse = |problem: &str| {
            Self::command()
                .error(ErrorKind::ArgumentConflict, problem)
                .exit()
        };
        match (&self.nats, scenario) {
            (None, _) => {
                if self.durable {
                    Servers::OneSynced
                } else {
                    Servers::One
                }
            }
            (Some(_), Scenario::Scale | Scenario::Durable) => {
                refuse("this scenario starts its own nats-servers; omit --nats")
            }
            (Some(_), _) if self.durable => {
                refuse("--durable applies to the benchmark's own nats-server; omit --nats")
            }
            (Some(url), _) => Servers::At(url.clone()),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let warnings = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN);
    warnings.init();
    let arguments = Arguments::parse();
    let ended = match (arguments.worker, arguments.scenario) {
        (Some(role), _) => bellhop_bench::run_worker(role).await,
        (None, Some(scenario)) => measure(arguments, scenario).await,
        (None, None) => unreachable!("clap requires one of both"),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bellhop-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: Arguments, scenario: Scenario) -> Result<(), BenchError> {
    let is_json = arguments.json;
    let options = arguments.options(scenario)?;
    let mut line = ProgressLine {
        next: Instant::now(),
    };
    let report = bellhop_bench::run(&options, &mut |step| line.show(&step)).await?;
    drop(line);
    print(&report, is_json).map_err(|cause| BenchError::Failed {
        action: "print the report".into(),
        cause: cause.into(),
    })
}

fn print(report: &Report, is_json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if is_json {
        serde_json::to_writer(&mut output, report)?;
        return writeln!(output);
    }
    let lines = table::lines(report);
    lines
        .iter()
        .map(String::as_str)
        .chain(table::note(report))
        .try_for_each(|line| writeln!(output, "{line}"))
}

/// A line on standard error with the current step, if that is a terminal.
struct ProgressLine {
    next: Instant,
}

impl ProgressLine {
    /// The shortest time between two steps shown.
    const PERIOD: Duration = Duration::from_millis(300);
    /// Returns to the begin of the line and clears it.
    const CLEAR: &str = "\r\x1b[K";

    fn show(&mut self, step: &str) {
        let now = Instant::now();
        if now >= self.next && io::stderr().is_terminal() {
            self.next = now + Self::PERIOD;
            eprint!("{}{step}", Self::CLEAR);
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if io::stderr().is_terminal() {
            eprint!("{}", Self::CLEAR);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn documented_commands_parse() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pages = ["README.md", "CONTRIBUTING.md", "docs/performance.md"];
        let pages = pages.map(|page| fs::read_to_string(root.join(page)).unwrap());
        let lines = pages.iter().flat_map(|page| page.lines());
        let commands = lines.filter_map(|line| {
            let begins = [
                "./target/release/bellhop-bench ",
                "-p bellhop-bench -- ",
                "`bellhop-bench ",
            ];
            let (_, command) = begins.iter().find_map(|begin| line.split_once(begin))?;
            Some(command.split(['`', '#']).next().unwrap().trim())
        });
        let commands: Vec<_> = commands.collect();
        assert!(commands.len() > 10, "{commands:?}");
        for command in commands {
            let words = ["bellhop-bench"]
                .into_iter()
                .chain(command.split_whitespace());
            let parsed = Arguments::try_parse_from(words);
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        }
    }
}
