//! The benchmark, small: what it measures arrives, and what it prints can be read.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use crate::harness::{LATER, bellhop_within};

/// Several installations of a dozen processes, one after the other, on a machine that has other tests to run; and their own
/// deadlines are longer.
const DEADLINE: Duration = Duration::from_secs(120);
/// Everything small.
const SMALL: [&str; 9] = ["bench", "--users", "200", "--instances", "2", "--rounds", "1", "--partitions", "4"];

/// A benchmark takes all of the machine that it can get: one at a time, or the tests beside it get too little.
static MACHINE: Mutex<()> = Mutex::const_new(());

async fn measured(arguments: &[&str]) -> Value {
    let _machine = MACHINE.lock().await;
    let ended = bellhop_within(DEADLINE, &[&SMALL, arguments, &["--json"]].concat(), &[], b"").await;
    serde_json::from_str(&ended.succeeded()).unwrap()
}

/// The rows of what was measured.
fn rows(measured: &Value) -> &Vec<Value> {
    measured.as_array().unwrap()
}

#[tokio::test]
async fn throughput_is_told_beside_its_baselines() {
    let measured = measured(&["throughput", "--reminders", "10000", "--set-sizes", "1,10"]).await;
    let who = |one: &Value| format!("{} {}", one["system"].as_str().unwrap(), one["set_size"]);
    let systems: Vec<_> = rows(&measured).iter().map(who).collect();
    let mut expected = vec!["raw 1", "per-event 1", "mosquitto 1", "bellhop 1", "bellhop 10", "raw-batch 10"];
    // Where Debian's package has it; CI installs that, and runs this with the feature.
    let has_mosquitto = cfg!(feature = "bench-mqtt") && Path::new("/usr/sbin/mosquitto").is_file();
    expected.retain(|who| has_mosquitto || !who.starts_with("mosquitto"));
    assert_eq!(systems, expected);
    for one in rows(&measured) {
        assert!(one["per_second"].as_f64().unwrap() > 0.0, "{one}");
    }
    // It is counted in steps of 10 ms, and one of these may take less.
    let cpu = |server: &str| {
        let of_one = |one: &Value| one["cpu_per_million"][server].as_f64().unwrap();
        rows(&measured).iter().map(of_one).sum::<f64>()
    };
    assert!(cpu("nats-server") > 0.0 && (!has_mosquitto || cpu("mosquitto") > 0.0), "{measured}");
}

#[tokio::test]
async fn latency_is_told_beside_its_baseline() {
    let measured = measured(&["latency", "--rates", "200", "--seconds", "1"]).await;
    let systems: Vec<_> = rows(&measured).iter().map(|one| one["system"].as_str().unwrap()).collect();
    assert_eq!(systems, ["bellhop", "raw"]);
    for one in rows(&measured) {
        let [p50, p99, max] = ["p50_ms", "p99_ms", "max_ms"].map(|name| one[name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{one}");
    }
}

#[tokio::test]
async fn scale_is_told_by_members_and_partitions() {
    let tried = ["--scale-members", "1,2", "--scale-partitions", "2", "--reminders", "1000", "--set-sizes", "10"];
    let measured = measured(&[&["scale"][..], &tried].concat()).await;
    let which = |one: &Value| format!("{} {} {}", one["varied"].as_str().unwrap(), one["members"], one["partitions"]);
    let installations: Vec<_> = rows(&measured).iter().map(which).collect();
    assert_eq!(installations, ["members 1 4", "members 2 4", "partitions 1 2"]);
    assert!(rows(&measured).iter().all(|one| one["per_second"].as_f64().unwrap() > 0.0), "{measured}");
}

#[tokio::test]
async fn durable_is_told_on_one_server_and_on_a_cluster() {
    let measured = measured(&["durable", "--reminders", "1000", "--set-sizes", "10"]).await;
    let who = |one: &Value| format!("{}: {}", one["servers"].as_str().unwrap(), one["system"].as_str().unwrap());
    let systems: Vec<_> = rows(&measured).iter().map(who).collect();
    let on = |servers| ["raw", "raw-batch", "bellhop"].map(|system| format!("{servers}: {system}"));
    assert_eq!(systems, [on("one, synced"), on("three, synced")].concat());
    assert!(rows(&measured).iter().all(|one| one["per_second"].as_f64().unwrap() > 0.0), "{measured}");
}

#[tokio::test]
async fn a_mass_return_is_told_beside_its_baseline() {
    let measured = measured(&["offline", "--reminders", "2000", "--seconds", "1", "--live-rate", "100"]).await;
    let systems: Vec<_> =
        rows(&measured).iter().map(|one| format!("{} {}", one["system"].as_str().unwrap(), one["users"])).collect();
    assert_eq!(systems, ["bellhop 200", "per-event 4"]);
    for one in rows(&measured) {
        for figure in ["parked_per_second", "users_per_second", "reminders_per_second"] {
            assert!(one[figure].as_f64().unwrap() > 0.0, "{figure}: {one}");
        }
        let [accepted, emptied] = ["accepted_seconds", "emptied_seconds"].map(|name| one[name].as_f64().unwrap());
        assert!(0.0 < accepted && accepted <= emptied, "{one}");
    }
    let live = &measured[0]["live"];
    for when in ["before", "during"] {
        let [p50, p99] = ["p50", "p99"].map(|name| live[format!("{when}_{name}_ms")].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{live}");
    }
}

#[tokio::test]
async fn very_many_routes_are_told_of() {
    let measured = measured(&["routes", "--routes", "3000"]).await;
    assert_eq!((&measured["routes"], &measured["mailboxes"]), (&3_000.into(), &200.into()));
    for figure in ["puts_per_second", "followed_seconds", "ready_without_seconds", "ready_seconds"] {
        assert!(measured[figure].as_f64().unwrap() > 0.0, "{figure}: {measured}");
    }
    // So few weigh less than what memory is counted in.
    for figure in ["bytes_per_route", "bytes_per_loaded_route", "bytes_per_mailbox"] {
        assert!(measured[figure].is_f64(), "{figure}: {measured}");
    }
    let heartbeats = &measured["heartbeats"];
    for figure in ["requests_per_1000", "request_ms"] {
        assert!(heartbeats[figure].as_f64().unwrap() > 0.0, "{figure}: {measured}");
    }
    assert!(heartbeats["cpu_ms_per_1000"]["bellhop"].is_f64(), "{measured}");
}

#[tokio::test]
async fn a_killed_benchmark_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    bench.args(SMALL).arg("throughput").env("TMPDIR", dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut bench = bench.spawn().unwrap();
    within(LATER, "it has started a member", || {
        processes_in(dir.path()).iter().any(|command| command.contains(" serve "))
    })
    .await;
    bench.kill().unwrap();
    bench.wait().unwrap();
    // Sooner than a member gives up that finds no nats-server.
    within(Duration::from_secs(5), "all are gone", || processes_in(dir.path()).is_empty()).await;
}

/// What processes were called with that work in a directory, or are told of it.
fn processes_in(dir: &Path) -> Vec<String> {
    let called = |process: fs::DirEntry| {
        let command = fs::read(process.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works_there = fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (works_there || command.contains(dir.to_str()?)).then_some(command)
    };
    fs::read_dir("/proc").unwrap().filter_map(|process| called(process.ok()?)).collect()
}

async fn within(deadline: Duration, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
