//! Figures as people read them: each beside the baseline of the same run.

use super::stage::System;
use super::{Felt, Heartbeats, Latency, Offline, Report, Routes, Throughput};

/// The names of a table's columns, and its rows.
pub type Table = (Vec<&'static str>, Vec<Vec<String>>);

/// The report as a table.
pub fn table(report: &Report) -> Table {
    match report {
        Report::Throughput(all) => throughput(all),
        Report::Latency(all) => latency(all),
        Report::Offline(all) => offline(all),
        Report::Routes(one) => routes(one),
    }
}

fn throughput(all: &[Throughput]) -> Table {
    let columns =
        vec!["SYSTEM", "SET", "REMINDERS/S", "× RAW", "× RAW-BATCH", "× PER-EVENT", "CPU S/MILLION", "DISK B"];
    let base = |system, size: Option<usize>| {
        let is_meant = |one: &&Throughput| one.system == system && size.is_none_or(|size| one.set_size == size);
        all.iter().find(is_meant).map(|one| one.per_second)
    };
    let row = |one: &Throughput| {
        let ratio =
            |base: Option<f64>| base.map_or_else(|| "-".to_owned(), |base| format!("{:.2}", one.per_second / base));
        let cpu: f64 = one.cpu_per_million.values().sum();
        vec![
            one.system.name().to_owned(),
            one.set_size.to_string(),
            format!("{:.0}", one.per_second),
            ratio(base(System::Raw, None)),
            ratio(base(System::RawBatch, Some(one.set_size))),
            ratio(base(System::PerEvent, None)),
            format!("{cpu:.1}"),
            format!("{:.0}", one.disk_bytes),
        ]
    };
    (columns, all.iter().map(row).collect())
}

fn latency(all: &[Latency]) -> Table {
    let columns = vec!["SYSTEM", "RATE/S", "SET", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS", "P99 × RAW"];
    let row = |one: &Latency| {
        let raw = all.iter().find(|other| other.system == System::Raw && other.rate == one.rate);
        let ratio = raw.map_or_else(|| "-".to_owned(), |raw| format!("{:.2}", one.p99_ms / raw.p99_ms));
        let ms = |ms: f64| format!("{ms:.2}");
        vec![
            one.system.name().to_owned(),
            one.rate.to_string(),
            one.set_size.to_string(),
            ms(one.p50_ms),
            ms(one.p99_ms),
            ms(one.p999_ms),
            ms(one.max_ms),
            ratio,
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
        let ratio = per_event.map_or(f64::NAN, |base| one.users_per_second / base.users_per_second);
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
            format!("{ratio:.2}"),
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
