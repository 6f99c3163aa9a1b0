//! Chaos: a cluster of three nats-servers, three `bellhop serve`, app servers and business systems,
//! all real processes or with connections of their own, and a nemesis that kills, stops, restarts
//! and cuts. Everybody writes down what they did; a checker that reads nothing else says whether
//! every promise was kept.
//!
//! `cargo test --test chaos` is a short run; `BELLHOP_CHAOS=30m` makes it longer,
//! `BELLHOP_CHAOS_SEED` repeats the faults of another run, though never its timing, and
//! `BELLHOP_CHAOS_FAULTS=nats_kill,host_cut` has no others. `BELLHOP_CHAOS_OTHER_NATS` names
//! another nats-server: the fault `nats_upgrade` switches all nodes to it, and back.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.
#![allow(clippy::disallowed_methods)] // Faults and deadlines are real time.

#[allow(dead_code)] // The tests of abuse use all of it.
mod app;
#[allow(dead_code)]
mod apps;
mod arrivals;
mod check;
mod client;
mod hosts;
mod installation;
mod logs;
mod nemesis;
mod nodes;
mod planted;
#[allow(dead_code)] // The other tests use all of it.
#[path = "../it/harness/program.rs"]
mod program;
mod publisher;
mod run;
mod world;

use std::ffi::OsStr;

use run::Settings;
use tempfile::TempDir;

#[test]
fn a_cluster_in_trouble_keeps_every_promise() {
    let this = std::env::current_exe().unwrap();
    let words = [
        this.as_os_str(),
        OsStr::new("--exact"),
        OsStr::new("run_apart"),
        OsStr::new("--ignored"),
        OsStr::new("--nocapture"),
    ];
    assert!(hosts::run_apart(&words).success(), "see above");
}

/// The other half of the test above, in a network of its own where that can be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above"]
async fn run_apart() {
    let settings = Settings::from_env();
    let mut dir = TempDir::with_prefix("bellhop-chaos-").unwrap();
    eprintln!(
        "chaos for {:?} with BELLHOP_CHAOS_SEED={}, in {}",
        settings.length,
        settings.seed,
        dir.path().display()
    );
    dir.disable_cleanup(true);
    let (history, verdict, troubles) = run::run(dir.path(), &settings).await;
    eprintln!("{verdict}");
    assert!(
        troubles.is_empty(),
        "{troubles:?}; the logs are in {}",
        dir.path().display()
    );
    assert!(
        verdict.wrong.is_empty(),
        "promises were broken; the logs are in {}",
        dir.path().display()
    );
    planted::are_found(&history);
    dir.disable_cleanup(settings.keeps_logs);
}

/// An app server of a run, as a process of its own.
#[tokio::test]
#[ignore = "run by the test above"]
async fn app_server() {
    let Some((name, url, logs)) = apps::asked_to_be() else {
        return;
    };
    app::serve(&name, &url, &logs).await;
}
