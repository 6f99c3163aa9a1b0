//! Small runs of every scenario: what is measured arrives, and the report can be read.
//!
//! They measure the `bellhop` beside `bellhop-bench`, which `cargo test` has built.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.
#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

/// Enough for several installations of a dozen processes, one after the other, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// Enough for the start of an installation.
const STARTED: Duration = Duration::from_secs(30);
/// Arguments for small measurements.
const SMALL: [&str; 8] = [
    "--users",
    "200",
    "--instances",
    "2",
    "--rounds",
    "1",
    "--partitions",
    "4",
];

/// A benchmark uses the whole machine, so tests run one at a time.
static MACHINE: Mutex<()> = Mutex::const_new(());

async fn measured(arguments: &[&str]) -> Value {
    let _machine = MACHINE.lock().await;
    let Output {
        status,
        stdout,
        stderr,
    } = ended(bench().args(arguments).arg("--json")).await;
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// A small benchmark, without a variable that the environment may have set for it.
fn bench() -> Command {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bellhop-bench"));
    bench
        .args(SMALL)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    bench.kill_on_drop(true);
    bench
}

async fn ended(bench: &mut Command) -> Output {
    tokio::time::timeout(DEADLINE, bench.output())
        .await
        .expect("the benchmark ends in time")
        .unwrap()
}

/// Returns the rows of a report.
fn rows(measured: &Value) -> &Vec<Value> {
    measured.as_array().unwrap()
}

#[tokio::test]
async fn throughput_has_rows_for_its_baselines() {
    let measured = measured(&["throughput", "--reminders", "10000", "--set-sizes", "1,10"]).await;
    let who = |one: &Value| format!("{} {}", one["system"].as_str().unwrap(), one["set_size"]);
    let systems: Vec<_> = rows(&measured).iter().map(who).collect();
    let mut expected = vec![
        "raw 1",
        "per-event 1",
        "mosquitto 1",
        "bellhop 1",
        "bellhop 10",
        "raw-batch 10",
    ];
    // CI runs this test with the feature, and must have the program.
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let is_installed = is_ci || Path::new("/usr/sbin/mosquitto").is_file();
    if cfg!(feature = "mqtt") && !is_installed {
        eprintln!("Mosquitto is left out: apt-get install mosquitto");
    }
    let has_mosquitto = cfg!(feature = "mqtt") && is_installed;
    expected.retain(|who| has_mosquitto || !who.starts_with("mosquitto"));
    assert_eq!(systems, expected);
    for one in rows(&measured) {
        assert!(one["per_second"].as_f64().unwrap() > 0.0, "{one}");
    }
    // The kernel counts in steps of 10 ms, so a single figure may be zero.
    let cpu = |server: &str| {
        let of_one = |one: &Value| one["cpu_per_million"][server].as_f64().unwrap();
        rows(&measured).iter().map(of_one).sum::<f64>()
    };
    assert!(
        cpu("nats-server") > 0.0 && (!has_mosquitto || cpu("mosquitto") > 0.0),
        "{measured}"
    );
}

#[tokio::test]
async fn latency_has_rows_for_its_baseline() {
    let measured = measured(&["latency", "--rates", "200", "--seconds", "1"]).await;
    let systems: Vec<_> = rows(&measured)
        .iter()
        .map(|one| one["system"].as_str().unwrap())
        .collect();
    assert_eq!(systems, ["bellhop", "raw"]);
    for one in rows(&measured) {
        let [p50, p99, max] =
            ["p50_ms", "p99_ms", "max_ms"].map(|name| one[name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{one}");
    }
}

#[tokio::test]
async fn scale_has_rows_by_members_and_partitions() {
    let tried = [
        "--scale-members",
        "1,2",
        "--scale-partitions",
        "2",
        "--reminders",
        "1000",
        "--set-sizes",
        "10",
    ];
    let measured = measured(&[&["scale"][..], &tried].concat()).await;
    let which = |one: &Value| {
        format!(
            "{} {} {}",
            one["varied"].as_str().unwrap(),
            one["members"],
            one["partitions"]
        )
    };
    let installations: Vec<_> = rows(&measured).iter().map(which).collect();
    assert_eq!(
        installations,
        ["members 1 4", "members 2 4", "partitions 1 2"]
    );
    assert!(
        rows(&measured)
            .iter()
            .all(|one| one["per_second"].as_f64().unwrap() > 0.0),
        "{measured}"
    );
}

#[tokio::test]
async fn durable_has_rows_for_one_server_and_three() {
    let measured = measured(&["durable", "--reminders", "1000", "--set-sizes", "10"]).await;
    let who = |one: &Value| {
        format!(
            "{}: {}",
            one["servers"].as_str().unwrap(),
            one["system"].as_str().unwrap()
        )
    };
    let systems: Vec<_> = rows(&measured).iter().map(who).collect();
    let on = |servers| ["raw", "raw-batch", "bellhop"].map(|system| format!("{servers}: {system}"));
    assert_eq!(systems, [on("one, synced"), on("three, synced")].concat());
    assert!(
        rows(&measured)
            .iter()
            .all(|one| one["per_second"].as_f64().unwrap() > 0.0),
        "{measured}"
    );
}

#[tokio::test]
async fn offline_has_rows_for_its_baseline() {
    let measured = measured(&[
        "offline",
        "--reminders",
        "2000",
        "--seconds",
        "1",
        "--live-rate",
        "100",
    ])
    .await;
    let systems: Vec<_> = rows(&measured)
        .iter()
        .map(|one| format!("{} {}", one["system"].as_str().unwrap(), one["users"]))
        .collect();
    assert_eq!(systems, ["bellhop 200", "per-event 4"]);
    for one in rows(&measured) {
        for figure in [
            "parked_per_second",
            "users_per_second",
            "reminders_per_second",
        ] {
            assert!(one[figure].as_f64().unwrap() > 0.0, "{figure}: {one}");
        }
        let [accepted, emptied] =
            ["accepted_seconds", "emptied_seconds"].map(|name| one[name].as_f64().unwrap());
        assert!(0.0 < accepted && accepted <= emptied, "{one}");
    }
    let live = &measured[0]["live"];
    for when in ["before", "during"] {
        let [p50, p99] =
            ["p50", "p99"].map(|name| live[format!("{when}_{name}_ms")].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{live}");
    }
}

#[tokio::test]
async fn routes_has_each_figure() {
    let measured = measured(&["routes", "--routes", "3000"]).await;
    assert_eq!(
        (&measured["routes"], &measured["mailboxes"]),
        (&3_000.into(), &200.into())
    );
    for figure in [
        "puts_per_second",
        "followed_seconds",
        "ready_without_seconds",
        "ready_seconds",
    ] {
        assert!(
            measured[figure].as_f64().unwrap() > 0.0,
            "{figure}: {measured}"
        );
    }
    // So few routes weigh less than a page of memory.
    for figure in [
        "bytes_per_route",
        "bytes_per_loaded_route",
        "bytes_per_mailbox",
    ] {
        assert!(measured[figure].is_f64(), "{figure}: {measured}");
    }
    let heartbeats = &measured["heartbeats"];
    for figure in ["requests_per_1000", "request_ms"] {
        assert!(
            heartbeats[figure].as_f64().unwrap() > 0.0,
            "{figure}: {measured}"
        );
    }
    assert!(
        heartbeats["cpu_ms_per_1000"]["bellhop"].is_f64(),
        "{measured}"
    );
}

#[tokio::test]
async fn a_missing_program_is_a_clear_error() {
    let Output { status, stderr, .. } =
        ended(bench().args(["throughput", "--bellhop", "/nowhere/bellhop"])).await;
    let error = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(
        error.contains("/nowhere/bellhop") && error.contains("--bellhop PATH"),
        "{error}"
    );
}

#[tokio::test]
async fn servers_of_two_kinds_are_a_usage_error() {
    for arguments in [["throughput", "--durable"], ["scale", "--json"]] {
        let Output { status, stderr, .. } = ended(
            bench()
                .args(arguments)
                .args(["--nats", "nats://127.0.0.1:1"]),
        )
        .await;
        let error = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(2), "{error}");
        assert!(error.contains("omit --nats"), "{error}");
    }
}

#[tokio::test]
async fn a_killed_benchmark_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench();
    bench
        .arg("throughput")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut bench = bench.spawn().unwrap();
    within(STARTED, "it has started a member", || {
        processes_in(dir.path())
            .iter()
            .any(|command| command.contains(" serve "))
    })
    .await;
    bench.kill().await.unwrap();
    // A member that has lost its nats-server would give up later.
    within(Duration::from_secs(5), "all processes are gone", || {
        processes_in(dir.path()).is_empty()
    })
    .await;
}

/// Returns the command lines of processes that work in a directory, or name it.
fn processes_in(dir: &Path) -> Vec<String> {
    let called = |process: fs::DirEntry| {
        let command = fs::read(process.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works_there =
            fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (works_there || command.contains(dir.to_str()?)).then_some(command)
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|process| called(process.ok()?))
        .collect()
}

async fn within(deadline: Duration, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
