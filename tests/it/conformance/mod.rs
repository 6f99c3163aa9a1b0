//! The conformance kit: an app server that keeps the contract passes, and each planted fault fails
//! its own rules.

mod app;
mod faults;

use std::collections::BTreeSet;
use std::time::Duration;

use bellhop::client::app_server::Options;
use bellhop::client::{AppServer, UserId};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::harness::{Ended, World, bellhop_within};
use app::{Fault, LEAVER, USERS, start};
use faults::{FAULTS, Planted};

/// App servers that are tried at a time. Most of the time goes by in waiting for answers that do
/// not come.
const AT_ONCE: usize = 16;

/// Maximum time for a trial: some faults leave several requests unanswered.
const TRIAL: Duration = Duration::from_secs(90);

async fn world() -> World {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    world
}

async fn conformance(world: &World, instance: &str, more: &[&str]) -> Ended {
    // Only a planted fault is to be late, also where many tests share two cores.
    let timeouts = [
        "--set",
        "heartbeat.timeout=5s",
        "--set",
        "delivery.timeout=5s",
    ];
    let arguments = [&["conformance", "--instance", instance], more, &timeouts].concat();
    bellhop_within(TRIAL, &arguments, &[("NATS_URL", &world.url)], b"").await
}

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The rules of a report that have this verdict.
fn with_verdict(report: &Value, verdict: &str) -> BTreeSet<String> {
    let rules = report["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["verdict"] == verdict);
    rules
        .map(|rule| rule["rule"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_app_server_that_keeps_the_contract_passes() {
    let world = world().await;
    start(&world, "app 1", Fault::None).await;
    let ended = conformance(
        &world,
        "app 1",
        &["--json", "--user", "alice", "--leaving", LEAVER],
    )
    .await;
    let report = report(&ended);
    assert!(
        ended
            .stderr
            .contains(&format!("disconnect {LEAVER} from app 1 now")),
        "{ended:?}"
    );
    assert_eq!(
        (ended.code, &report["failed"], &report["not_tried"]),
        (Some(0), &0.into(), &0.into()),
        "{report:#}"
    );
    assert_eq!(report["users"].as_array().unwrap().len(), USERS.len());
    let output = conformance(&world, "app 1", &[]).await.succeeded();
    let all_that_stay = report["passed"].as_u64().unwrap() - 3;
    assert!(
        output.ends_with(&format!("{all_that_stay} passed, 0 failed, 0 not tried\n")),
        "{output}"
    );
}

#[tokio::test]
async fn an_app_server_of_bellhops_own_client_passes() {
    let world = world().await;
    let client = async_nats::connect(&world.url).await.unwrap();
    let (app, mut deliveries) =
        AppServer::start(client, "app-1".parse().unwrap(), Options::default())
            .await
            .unwrap();
    app.connect_all(USERS.map(|user| user.parse::<UserId>().unwrap()))
        .await
        .unwrap();
    let application = tokio::spawn(async move {
        let mut shown = Vec::new();
        while let Some(delivery) = deliveries.next().await {
            let reminder = delivery.accept();
            shown.push((reminder.source, reminder.id, reminder.user));
        }
        shown
    });
    let ended = conformance(&world, "app-1", &["--json"]).await;
    assert_eq!(ended.code, Some(0), "{:#}", report(&ended));
    app.drain();
    let shown = application.await.unwrap();
    let once: BTreeSet<_> = shown.iter().collect();
    assert!(
        shown.len() > 10 && once.len() == shown.len(),
        "what came again is shown again: {shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_fault_fails_its_own_rules() {
    let world = &world().await;
    let tried =
        stream::iter(FAULTS.iter().enumerate()).map(|(number, fault)| tried(world, number, fault));
    let wrong: Vec<String> = tried
        .buffer_unordered(AT_ONCE)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tries an app server with a fault. Answers what is wrong about the verdicts.
async fn tried(world: &World, number: usize, (name, plant, rules): &Planted) -> Option<String> {
    let instance = format!("app-{number}");
    start(world, &instance, plant()).await;
    let users = USERS.map(|user| ["--user", user]).concat();
    // A key that is none is found among the instance's routes, not by a user.
    let users = if rules.contains(&"route-key") {
        &[][..]
    } else {
        &users
    };
    let has_leaver = rules.iter().any(|rule| rule.starts_with("leaving"));
    let leaving = if has_leaver {
        &["--leaving", LEAVER][..]
    } else {
        &[]
    };
    let ended = conformance(world, &instance, &[&["--json"], users, leaving].concat()).await;
    let report = report(&ended);
    let expected = rules.iter().map(ToString::to_string).collect();
    let is_right = ended.code == Some(1) && with_verdict(&report, "failed") == expected;
    let failed = || {
        report["rules"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["verdict"] == "failed")
    };
    (!is_right).then(|| {
        format!(
            "who {name} is to fail {rules:?}: {:#?}",
            failed().collect::<Vec<_>>()
        )
    })
}

#[tokio::test]
async fn every_rule_has_a_fault_that_fails_it() {
    let world = world().await;
    let rules: Value = serde_json::from_str(
        &world
            .run(&["conformance", "--list", "--json"])
            .await
            .succeeded(),
    )
    .unwrap();
    let rules: BTreeSet<&str> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["rule"].as_str().unwrap())
        .collect();
    let failed: BTreeSet<&str> = FAULTS
        .iter()
        .flat_map(|(_, _, rules)| rules.iter().copied())
        .collect();
    assert_eq!(rules, failed);
}

#[tokio::test]
async fn rules_behind_a_failure_are_skipped() {
    let world = world().await;
    let ended = conformance(&world, "app-1", &["--user", "alice", "--json"]).await;
    let report = report(&ended);
    let failed = ["route", "heartbeat-in-time", "delivery-in-time"].map(str::to_owned);
    assert_eq!(
        with_verdict(&report, "failed"),
        failed.into(),
        "no app server is there: {report:#}"
    );
    assert_eq!(
        with_verdict(&report, "passed"),
        ["route-key", "route-value"].map(str::to_owned).into()
    );

    start(
        &world,
        "app-2",
        Fault::Dies("deliver", |request| request.len() > 100_000),
    )
    .await;
    let output = conformance(&world, "app-2", &[]).await;
    let died_of = "FAILED     delivery-full             no answer within 10s\n";
    let not_tried =
        "not tried  at-once                   it has not answered since delivery-full\n";
    assert!(
        output.stdout.contains(died_of) && output.stdout.contains(not_tried),
        "{}",
        output.stdout
    );
}

#[tokio::test]
async fn wrong_users_and_unknown_rules_are_reported() {
    let world = world().await;
    let ended = conformance(&world, "app-1", &[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("no usable route leads to app-1") && ended.stderr.contains("--user"),
        "{ended:?}"
    );
    let put = |n| {
        world
            .jetstream
            .publish(format!("$KV.bellhop_routes.user-{n}.app-2"), "".into())
    };
    for acknowledged in try_join_all((0..1_025).map(put)).await.unwrap() {
        acknowledged.await.unwrap();
    }
    let ended = conformance(&world, "app-2", &[]).await;
    assert!(
        ended
            .stderr
            .contains("more than 1000, name users with --user"),
        "{ended:?}"
    );
    let ended = conformance(&world, "app-1", &["--only", "politeness"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("`politeness`") && ended.stderr.contains("--list"),
        "{ended:?}"
    );
    assert_eq!(world.run(&["conformance"]).await.code, Some(2));
}
