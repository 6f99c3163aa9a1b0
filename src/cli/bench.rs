//! `bellhop bench`: how fast it is here, beside what one would write without it.

use std::time::Duration;

use super::output::{Output, Progress, Table};
use super::{CliError, SettingsArgs};
use crate::bench::{self, Options, Scenario, Servers, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop bench throughput
  bellhop bench throughput --set-sizes 100 --rounds 5 --json
  bellhop bench latency --rates 1000,10000
  bellhop bench scale --scale-members 1,2 --scale-partitions 8,32
  bellhop bench durable
  bellhop bench offline --users 100000 --reminders 1000000
  bellhop bench routes --routes 1000000 --users 200000

It starts a nats-server of its own unless --nats names one, and everything else
as processes of its own. Ratios count; figures are this machine's. Without
--release they mean nothing.")]
pub(super) struct Args {
    /// What to measure
    #[arg(value_enum)]
    scenario: Named,
    /// Reminders of one measurement, about
    #[arg(long, default_value_t = 1_000_000, value_parser = number(1..=1_000_000_000))]
    reminders: u64,
    /// Users, each with one connection; for routes, those with a mailbox, and those asked about
    #[arg(long, default_value_t = 100_000, value_parser = number(1..=10_000_000))]
    users: u64,
    /// Routes, each of another user; for routes
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
    /// Reminders in a set, one measurement each [default: 1,10,100,1000; for latency 1; for scale, durable and offline 100]
    #[arg(long, value_delimiter = ',', value_parser = number(1..=10_000))]
    set_sizes: Vec<u64>,
    /// Reminders a second, one measurement each; for latency
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_parser = number(1..=10_000_000))]
    rates: Vec<u64>,
    /// Reminders a second to users who stay connected while others come back; for offline
    #[arg(long, default_value_t = 500, value_parser = number(1..=1_000_000))]
    live_rate: u64,
    /// How long a rate is held, in seconds
    #[arg(long, default_value_t = 10, value_parser = number(1..=86_400))]
    seconds: u64,
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = number(1..=100))]
    rounds: u64,
    /// Every acknowledgement waits for the disk (`sync_interval: always`); for durable they always do
    #[arg(long)]
    durable: bool,
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Named {
    /// Reminders a second under saturating load
    Throughput,
    /// Time from publishing to acceptance at fixed rates
    Latency,
    /// Reminders a second with more members, and with more partitions
    Scale,
    /// Reminders a second where acknowledgements wait for the disk, on one nats-server and on three
    Durable,
    /// Reminders for users who are all away, and who are all back at once
    Offline,
    /// Very many routes: putting them, memory, starting with them, asking about them
    Routes,
}

fn number(range: std::ops::RangeInclusive<u64>) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(range)
}

fn partitions() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=1_024)
}

fn servers(settings: &SettingsArgs, scenario: Scenario, is_durable: bool) -> Result<Servers, CliError> {
    match (&settings.nats, scenario) {
        (None, _) => Ok(if is_durable { Servers::OneSynced } else { Servers::One }),
        (Some(_), Scenario::Scale | Scenario::Durable) => {
            Err(CliError::Usage("this scenario starts nats-servers of its own; leave --nats out".to_owned()))
        }
        (Some(_), _) if is_durable => {
            Err(CliError::Usage("--durable is for a nats-server of the benchmark's own; leave --nats out".to_owned()))
        }
        (Some(url), _) => Ok(Servers::At(url.clone())),
    }
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let scenario = match args.scenario {
        Named::Throughput => Scenario::Throughput,
        Named::Latency => Scenario::Latency,
        Named::Scale => Scenario::Scale,
        Named::Durable => Scenario::Durable,
        Named::Offline => Scenario::Offline,
        Named::Routes => Scenario::Routes,
    };
    let servers = servers(settings, scenario, args.durable)?;
    let set_sizes = match (args.set_sizes.is_empty(), scenario) {
        (false, _) => args.set_sizes,
        (true, Scenario::Throughput) => vec![1, 10, 100, 1_000],
        (true, Scenario::Latency) => vec![1],
        (true, Scenario::Scale | Scenario::Durable | Scenario::Offline | Scenario::Routes) => vec![100],
    };
    let options = Options {
        scenario,
        servers,
        users: args.users as usize,
        routes: args.routes as usize,
        instances: args.instances as usize,
        members: args.members as usize,
        partitions: args.partitions,
        reminders: args.reminders as usize,
        set_sizes: set_sizes.into_iter().map(|size| size as usize).collect(),
        rates: args.rates.into_iter().map(|rate| rate as usize).collect(),
        duration: Duration::from_secs(args.seconds),
        live_rate: args.live_rate as usize,
        rounds: args.rounds as usize,
        scale_members: args.scale_members.into_iter().map(|members| members as usize).collect(),
        scale_partitions: args.scale_partitions,
    };
    let mut shown = Progress::new();
    let mut tell = |text: String| shown.tell(|| text);
    let report = bench::run(&options, &mut tell).await.map_err(|error| CliError::Failed(error.to_string()))?;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        let (columns, rows) = table::table(&report);
        let mut shown = Table::new(&columns);
        rows.iter().for_each(|row| shown.row(row));
        for line in shown.lines() {
            output.line(line)?;
        }
        if let Some(note) = table::note(&report) {
            output.line(note)?;
        }
    }
    output.flush()
}

/// One process of a measurement.
pub(super) async fn run_part() -> Result<(), CliError> {
    bench::run_part().await.map_err(|error| CliError::Failed(error.to_string()))
}
