//! Reports as tables: each figure beside the baseline of the same run.

use super::{
    Durable, Heartbeats, Latency, LiveLatency, Offline, Report, Routes, Scale, System, Throughput,
};

/// The names of a table's columns, and its rows.
type Table = (Vec<&'static str>, Vec<Vec<String>>);

/// Returns the lines of a report as a table.
pub fn lines(report: &Report) -> Vec<String> {
    let (columns, mut rows) = table(report);
    rows.insert(0, columns.into_iter().map(str::to_owned).collect());
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let is_number = |cell: &String| cell.chars().all(|c| c.is_ascii_digit());
    let columns = 0..rows[0].len();
    let shape: Vec<(usize, bool)> = columns
        .map(|column| {
            (
                width(column),
                rows[1..].iter().all(|row| is_number(&row[column])),
            )
        })
        .collect();
    let pad = |(cell, (width, is_number)): (&String, &(usize, bool))| match is_number {
        true => format!("{cell:>width$}"),
        false => format!("{cell:<width$}"),
    };
    let line = |row: &Vec<String>| {
        row.iter()
            .zip(&shape)
            .map(pad)
            .collect::<Vec<_>>()
            .join("  ")
    };
    rows.iter()
        .map(|row| line(row).trim_end().to_owned())
        .collect()
}

fn table(report: &Report) -> Table {
    match report {
        Report::Throughput(all) => throughput(all),
        Report::Latency(all) => latency(all),
        Report::Scale(all) => scale(all),
        Report::Durable(all) => durable(all),
        Report::Offline(all) => offline(all),
        Report::Routes(one) => routes(one),
    }
}

/// Returns a line to print below the table, if there is any.
pub fn note(report: &Report) -> Option<&'static str> {
    let Report::Throughput(all) = report else {
        return None;
    };
    let has_mosquitto = all.iter().any(|one| one.system == System::Mosquitto);
    let missing = match cfg!(feature = "mqtt") {
        true => {
            "mosquitto was not measured, because it is not installed; on Debian: `apt-get install mosquitto`"
        }
        false => "mosquitto was not measured; build with `--features mqtt` to do so",
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
        let is_meant = |one: &&Throughput| {
            one.system == system && size.is_none_or(|size| one.set_size == size)
        };
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
    let columns = vec![
        "SYSTEM",
        "RATE/S",
        "SET",
        "P50 MS",
        "P99 MS",
        "P99.9 MS",
        "MAX MS",
        "P99 × RAW",
    ];
    let row = |one: &Latency| {
        let raw = all
            .iter()
            .find(|other| other.system == System::Raw && other.rate == one.rate);
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

/// The processes whose CPU time shows which one limits throughput.
const PROCESSES: [&str; 4] = ["bellhop", "nats-server", "app servers", "publisher"];

fn scale(all: &[Scale]) -> Table {
    let mut columns = vec!["VARIED", "MEMBERS", "PARTITIONS", "REMINDERS/S", "× FIRST"];
    columns.extend([
        "CPU BELLHOP",
        "CPU NATS-SERVER",
        "CPU APP SERVERS",
        "CPU PUBLISHER",
    ]);
    let row = |one: &Scale| {
        let varied: &'static str = one.varied.into();
        let first = all.iter().find(|first| first.varied == one.varied);
        let row = [
            varied.to_owned(),
            one.members.to_string(),
            one.partitions.to_string(),
            format!("{:.0}", one.found.per_second),
            ratio(
                one.found.per_second,
                first.map(|first| first.found.per_second),
            ),
        ];
        let cpu = PROCESSES.map(|process| {
            format!(
                "{:.1}",
                one.found.cpu_per_million.get(process).unwrap_or(&0.0)
            )
        });
        row.into_iter().chain(cpu).collect()
    };
    (columns, all.iter().map(row).collect())
}

fn durable(all: &[Durable]) -> Table {
    let columns = vec![
        "NATS-SERVERS",
        "SYSTEM",
        "SET",
        "REMINDERS/S",
        "× RAW",
        "× RAW-BATCH",
        "CPU S/MILLION",
        "DISK B",
    ];
    let row = |one: &Durable| {
        let base = |system| {
            let is_meant =
                |other: &&Durable| other.servers == one.servers && other.found.system == system;
            all.iter()
                .find(is_meant)
                .map(|other| other.found.per_second)
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
        let live = |of: fn(&LiveLatency) -> [f64; 2]| {
            let change = |live| of(live).map(|ms| format!("{ms:.2}")).join(" → ");
            one.live.as_ref().map_or_else(|| "-".to_owned(), change)
        };
        vec![
            one.system.name().to_owned(),
            one.users.to_string(),
            one.reminders.to_string(),
            format!("{:.0}", one.parked_per_second),
            format!("{:.0}", one.users_per_second),
            ratio(
                one.users_per_second,
                per_event.map(|base| base.users_per_second),
            ),
            format!("{:.0}", one.reminders_per_second),
            format!("{:.2}", one.emptied_seconds),
            live(|live| [live.before_p50_ms, live.during_p50_ms]),
            live(|live| [live.before_p99_ms, live.during_p99_ms]),
        ]
    };
    (columns, all.iter().map(row).collect())
}

fn routes(one: &Routes) -> Table {
    let Heartbeats {
        users,
        requests_per_1000,
        request_ms,
        ms_per_1000,
        cpu_ms_per_1000,
    } = &one.heartbeats;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    let mut rows = vec![
        row("routes", one.routes.to_string()),
        row(
            "routes put in a second",
            format!("{:.0}", one.puts_per_second),
        ),
        row(
            "seconds until the last route was read",
            format!("{:.2}", one.followed_seconds),
        ),
        row(
            "seconds until a process is ready, with no routes",
            format!("{:.2}", one.ready_without_seconds),
        ),
        row(
            "seconds until a process is ready, with all routes",
            format!("{:.2}", one.ready_seconds),
        ),
        row(
            "bytes for one more route",
            format!("{:.0}", one.bytes_per_route),
        ),
        row(
            "bytes for a route in a process that was restarted",
            format!("{:.0}", one.bytes_per_loaded_route),
        ),
        row("mailboxes", one.mailboxes.to_string()),
        row(
            "bytes for one more mailbox",
            format!("{:.0}", one.bytes_per_mailbox),
        ),
        row("users confirmed by heartbeats", users.to_string()),
        row(
            "heartbeats for 1,000 users",
            format!("{requests_per_1000:.1}"),
        ),
        row("milliseconds for a heartbeat", format!("{request_ms:.2}")),
        row(
            "additional milliseconds for 1,000 users",
            format!("{ms_per_1000:.2}"),
        ),
    ];
    let cpu = |(process, ms): (&&str, &f64)| {
        row(
            &format!("additional CPU milliseconds for 1,000 users: {process}"),
            format!("{ms:.2}"),
        )
    };
    rows.extend(cpu_ms_per_1000.iter().map(cpu));
    (vec!["MEASURE", "VALUE"], rows)
}

fn ratio(figure: f64, base: Option<f64>) -> String {
    base.map_or_else(|| "-".to_owned(), |base| format!("{:.2}", figure / base))
}

fn cpu(one: &Throughput) -> String {
    format!("{:.1}", one.cpu_per_million.values().sum::<f64>())
}
