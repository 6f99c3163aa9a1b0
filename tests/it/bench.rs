//! The benchmark, small: what it measures arrives, and what it prints can be read.

use std::time::Duration;

use serde_json::Value;

use crate::harness::bellhop_within;

/// A measurement starts a dozen processes, and its own deadlines are longer.
const DEADLINE: Duration = Duration::from_secs(120);

async fn measured(arguments: &[&str]) -> Value {
    let small = ["--users", "200", "--instances", "2", "--rounds", "1", "--partitions", "4", "--json"];
    let ended = bellhop_within(DEADLINE, &[&["bench"], arguments, &small].concat(), &[], b"").await;
    serde_json::from_str(&ended.succeeded()).unwrap()
}

/// The rows of what was measured.
fn rows(measured: &Value) -> &Vec<Value> {
    measured.as_array().unwrap()
}

#[tokio::test]
async fn throughput_is_told_beside_its_baselines() {
    let measured = measured(&["throughput", "--reminders", "2000", "--set-sizes", "1,10"]).await;
    let who = |one: &Value| format!("{} {}", one["system"].as_str().unwrap(), one["set_size"]);
    let systems: Vec<_> = rows(&measured).iter().map(who).collect();
    assert_eq!(systems, ["raw 1", "per-event 1", "bellhop 1", "bellhop 10", "raw-batch 10"]);
    for one in rows(&measured) {
        assert!(one["per_second"].as_f64().unwrap() > 0.0, "{one}");
    }
    // It is counted in steps of 10 ms, and one of these may take less.
    let cpu = |one: &Value| one["cpu_per_million"]["nats-server"].as_f64().unwrap();
    assert!(rows(&measured).iter().map(cpu).sum::<f64>() > 0.0, "{measured}");
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
