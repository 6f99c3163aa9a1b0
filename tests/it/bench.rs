//! The benchmark, small: what it measures arrives, and what it prints can be read.

use std::path::Path;

use serde_json::Value;

use crate::harness::bellhop;

async fn measured(arguments: &[&str]) -> Vec<Value> {
    let small = ["--users", "200", "--instances", "2", "--rounds", "1", "--partitions", "4", "--json"];
    let ended = bellhop(&[&["bench"], arguments, &small].concat(), &[], b"").await;
    serde_json::from_str(&ended.succeeded()).unwrap()
}

#[tokio::test]
async fn throughput_is_told_beside_its_baselines() {
    let measured = measured(&["throughput", "--reminders", "10000", "--set-sizes", "1,10"]).await;
    let who = |one: &Value| format!("{} {}", one["system"].as_str().unwrap(), one["set_size"]);
    let systems: Vec<_> = measured.iter().map(who).collect();
    let mut expected = vec!["raw 1", "per-event 1", "mosquitto 1", "bellhop 1", "bellhop 10", "raw-batch 10"];
    // Where Debian's package has it; CI installs that.
    let has_mosquitto = Path::new("/usr/sbin/mosquitto").is_file();
    expected.retain(|who| has_mosquitto || !who.starts_with("mosquitto"));
    assert_eq!(systems, expected);
    for one in &measured {
        assert!(one["per_second"].as_f64().unwrap() > 0.0, "{one}");
        let server = if one["system"] == "mosquitto" { "mosquitto" } else { "nats-server" };
        assert!(one["cpu_per_million"][server].as_f64().unwrap() > 0.0, "{one}");
    }
}

#[tokio::test]
async fn latency_is_told_beside_its_baseline() {
    let measured = measured(&["latency", "--rates", "200", "--seconds", "1"]).await;
    let systems: Vec<_> = measured.iter().map(|one| one["system"].as_str().unwrap()).collect();
    assert_eq!(systems, ["bellhop", "raw"]);
    for one in &measured {
        let [p50, p99, max] = ["p50_ms", "p99_ms", "max_ms"].map(|name| one[name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{one}");
    }
}

#[tokio::test]
async fn scale_is_told_by_members_and_partitions() {
    let tried = ["--scale-members", "1,2", "--scale-partitions", "2", "--reminders", "1000", "--set-sizes", "10"];
    let measured = measured(&[&["scale"][..], &tried].concat()).await;
    let which = |one: &Value| format!("{} {} {}", one["varied"].as_str().unwrap(), one["members"], one["partitions"]);
    let installations: Vec<_> = measured.iter().map(which).collect();
    assert_eq!(installations, ["members 1 4", "members 2 4", "partitions 1 2"]);
    assert!(measured.iter().all(|one| one["per_second"].as_f64().unwrap() > 0.0), "{measured:?}");
}

#[tokio::test]
async fn durable_is_told_on_one_server_and_on_a_cluster() {
    let measured = measured(&["durable", "--reminders", "1000", "--set-sizes", "10"]).await;
    let who = |one: &Value| format!("{}: {}", one["servers"].as_str().unwrap(), one["system"].as_str().unwrap());
    let systems: Vec<_> = measured.iter().map(who).collect();
    let on = |servers| ["raw", "raw-batch", "bellhop"].map(|system| format!("{servers}: {system}"));
    assert_eq!(systems, [on("one, synced"), on("three, synced")].concat());
    assert!(measured.iter().all(|one| one["per_second"].as_f64().unwrap() > 0.0), "{measured:?}");
}
