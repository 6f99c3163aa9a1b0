//! Figures as people read them: each beside the baseline of the same run.

use super::stage::System;
use super::{Durable, Felt, Heartbeats, Latency, Offline, Report, Routes, Scale, Throughput};

/// The names of a table's columns, and its rows.
pub type Table = (Vec<&'static str>, Vec<Vec<String>>);

/// The report as a table.
pub fn table(report: &Report) -> Table {
    match report {
        Report::Throughput(all) => throughput(all),
        Report::Latency(all) => latency(all),
        Report::Scale(all) => scale(all),
        Report::Durable(all) => durable(all),
        Report::Offline(all) => offline(all),
        Report::Routes(one) => routes(one),
    }
}

/// What is to be said of it, beside the table.
pub fn note(report: &Report) -> Option<&'static str> {
    let Report::Throughput(all) = report else { return None };
    let has_mosquitto = all.iter().any(|one| one.system == System::Mosquitto);
    let missing = match cfg!(feature = "bench-mqtt") {
        true => "mosquitto is not installed, so it was not measured; `apt-get install mosquitto` on Debian",
        false => "mosquitto was not measured; a build with `--features bench-mqtt` does so where it is installed",
    };
    (!has_mosquitto).then_some(missing)
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

fn offline(all: &[Offline]) -> Table {
    let columns = vec![
        "SYSTEM",
        "USERS",
        "REMINDERS",
        "PARKED/S",
        "BACK: USERS/S",
        "× PER-EVENT",
        "REMINDERS/S",
        "SECONDS",
        "OTHERS' P50 MS",
        "P99 MS",
    ];
    let per_event = all.iter().find(|one| one.system == System::PerEvent);
    let row = |one: &Offline| {
        let felt = |of: fn(&Felt) -> [f64; 2]| {
            let change = |felt| of(felt).map(|ms| format!("{ms:.2}")).join(" → ");
            one.live.as_ref().map_or_else(|| "-".to_owned(), change)
        };
        vec![
            one.system.name().to_owned(),
            one.users.to_string(),
            one.reminders.to_string(),
            format!("{:.0}", one.parked_per_second),
            format!("{:.0}", one.users_per_second),
            ratio(one.users_per_second, per_event.map(|base| base.users_per_second)),
            format!("{:.0}", one.reminders_per_second),
            format!("{:.2}", one.emptied_seconds),
            felt(|felt| [felt.before_p50_ms, felt.during_p50_ms]),
            felt(|felt| [felt.before_p99_ms, felt.during_p99_ms]),
        ]
    };
    (columns, all.iter().map(row).collect())
}

fn routes(one: &Routes) -> Table {
    let Heartbeats { users, requests_per_1000, request_ms, ms_per_1000, cpu_ms_per_1000 } = &one.heartbeats;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    let mut rows = vec![
        row("routes", one.routes.to_string()),
        row("routes put a second", format!("{:.0}", one.puts_per_second)),
        row("seconds until the last one was followed", format!("{:.2}", one.followed_seconds)),
        row("seconds until a process is ready, with no routes", format!("{:.2}", one.ready_without_seconds)),
        row("seconds until a process is ready, with all routes", format!("{:.2}", one.ready_seconds)),
        row("bytes for a route more", format!("{:.0}", one.bytes_per_route)),
        row("bytes for a route in a process that was restarted", format!("{:.0}", one.bytes_per_loaded_route)),
        row("mailboxes", one.mailboxes.to_string()),
        row("bytes for a mailbox more", format!("{:.0}", one.bytes_per_mailbox)),
        row("users asked about", users.to_string()),
        row("heartbeats for 1,000 users", format!("{requests_per_1000:.1}")),
        row("milliseconds for a heartbeat", format!("{request_ms:.2}")),
        row("milliseconds more for 1,000 users", format!("{ms_per_1000:.2}")),
    ];
    let cpu =
        |(part, ms): (&&str, &f64)| row(&format!("CPU milliseconds more for 1,000 users: {part}"), format!("{ms:.2}"));
    rows.extend(cpu_ms_per_1000.iter().map(cpu));
    (vec!["WHAT", "FIGURE"], rows)
}

fn ratio(figure: f64, base: Option<f64>) -> String {
    base.map_or_else(|| "-".to_owned(), |base| format!("{:.2}", figure / base))
}

fn cpu(one: &Throughput) -> String {
    format!("{:.1}", one.cpu_per_million.values().sum::<f64>())
}
