//! Figures as people read them: each beside the baseline of the same run.

use super::stage::System;
use super::{Durable, Latency, Report, Scale, Throughput};

/// The names of a table's columns, and its rows.
pub type Table = (Vec<&'static str>, Vec<Vec<String>>);

/// The report as a table.
pub fn table(report: &Report) -> Table {
    match report {
        Report::Throughput(all) => throughput(all),
        Report::Latency(all) => latency(all),
        Report::Scale(all) => scale(all),
        Report::Durable(all) => durable(all),
    }
}

/// What is to be said of it, beside the table.
pub fn note(report: &Report) -> Option<&'static str> {
    let Report::Throughput(all) = report else { return None };
    let has_mosquitto = all.iter().any(|one| one.system == System::Mosquitto);
    (!has_mosquitto)
        .then_some("mosquitto is not installed, so it was not measured; `apt-get install mosquitto` on Debian")
}

fn throughput(all: &[Throughput]) -> Table {
    let columns = vec![
        "SYSTEM",
        "SET",
        "REMINDERS/S",
        "× RAW",
        "× RAW-BATCH",
        "× PER-EVENT",
        "× MOSQUITTO",
        "CPU S/MILLION",
        "DISK B",
    ];
    let base = |system, size: Option<usize>| {
        let is_meant = |one: &&Throughput| one.system == system && size.is_none_or(|size| one.set_size == size);
        all.iter().find(is_meant).map(|one| one.per_second)
    };
    let row = |one: &Throughput| {
        let ratio = |base| ratio(one.per_second, base);
        vec![
            one.system.name().to_owned(),
            one.set_size.to_string(),
            format!("{:.0}", one.per_second),
            ratio(base(System::Raw, None)),
            ratio(base(System::RawBatch, Some(one.set_size))),
            ratio(base(System::PerEvent, None)),
            ratio(base(System::Mosquitto, None)),
            cpu(one),
            format!("{:.0}", one.disk_bytes),
        ]
    };
    (columns, all.iter().map(row).collect())
}

fn latency(all: &[Latency]) -> Table {
    let columns = vec!["SYSTEM", "RATE/S", "SET", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS", "P99 × RAW"];
    let row = |one: &Latency| {
        let raw = all.iter().find(|other| other.system == System::Raw && other.rate == one.rate);
        let ms = |ms: f64| format!("{ms:.2}");
        vec![
            one.system.name().to_owned(),
            one.rate.to_string(),
            one.set_size.to_string(),
            ms(one.p50_ms),
            ms(one.p99_ms),
            ms(one.p999_ms),
            ms(one.max_ms),
            ratio(one.p99_ms, raw.map(|raw| raw.p99_ms)),
        ]
    };
    (columns, all.iter().map(row).collect())
}

/// The processes whose CPU time tells where the limit is.
const PARTS: [&str; 4] = ["bellhop", "nats-server", "app servers", "publisher"];

fn scale(all: &[Scale]) -> Table {
    let mut columns = vec!["VARIED", "MEMBERS", "PARTITIONS", "REMINDERS/S", "× FIRST"];
    columns.extend(["CPU BELLHOP", "CPU NATS-SERVER", "CPU APP SERVERS", "CPU PUBLISHER"]);
    let row = |one: &Scale| {
        let first = all.iter().find(|first| first.varied == one.varied);
        let row = [
            one.varied.name().to_owned(),
            one.members.to_string(),
            one.partitions.to_string(),
            format!("{:.0}", one.found.per_second),
            ratio(one.found.per_second, first.map(|first| first.found.per_second)),
        ];
        let cpu = PARTS.map(|part| format!("{:.1}", one.found.cpu_per_million.get(part).unwrap_or(&0.0)));
        row.into_iter().chain(cpu).collect()
    };
    (columns, all.iter().map(row).collect())
}

fn durable(all: &[Durable]) -> Table {
    let columns =
        vec!["NATS-SERVERS", "SYSTEM", "SET", "REMINDERS/S", "× RAW", "× RAW-BATCH", "CPU S/MILLION", "DISK B"];
    let row = |one: &Durable| {
        let base = |system| {
            let is_meant = |other: &&Durable| other.servers == one.servers && other.found.system == system;
            all.iter().find(is_meant).map(|other| other.found.per_second)
        };
        vec![
            one.servers.to_owned(),
            one.found.system.name().to_owned(),
            one.found.set_size.to_string(),
            format!("{:.0}", one.found.per_second),
            ratio(one.found.per_second, base(System::Raw)),
            ratio(one.found.per_second, base(System::RawBatch)),
            cpu(&one.found),
            format!("{:.0}", one.found.disk_bytes),
        ]
    };
    (columns, all.iter().map(row).collect())
}

fn ratio(figure: f64, base: Option<f64>) -> String {
    base.map_or_else(|| "-".to_owned(), |base| format!("{:.2}", figure / base))
}

fn cpu(one: &Throughput) -> String {
    format!("{:.1}", one.cpu_per_million.values().sum::<f64>())
}
