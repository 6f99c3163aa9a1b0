//! A reminder that an app server cannot read: a request that has it is never answered.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{LATER, Reply, World, numbers, reminder};

/// Others at the same app server.
const OTHERS: usize = 50;

/// An app server that never answers a request with one of these reminders in it.
async fn app_that_cannot_read(
    world: &World,
    bad: &'static [&'static str],
    users: &[&str],
) -> std::sync::Arc<crate::harness::App> {
    let app = world.app("app-1", &[]).await;
    app.on_delivery(move |batch| {
        let is_bad = |one: &Value| bad.contains(&one["id"].as_str().unwrap());
        if batch.iter().any(is_bad) {
            Reply::silence()
        } else {
            Reply::accept()
        }
    });
    app.connect(users).await;
    app
}

fn other(number: usize) -> String {
    format!("other-{number}")
}

/// Publishes a reminder every 20 ms for so long, to one of the others after the other, and returns
/// how long each took, in ascending order. `first` numbers them.
async fn trickle(world: &World, first: usize, lasts: Duration) -> Vec<Duration> {
    let (until, mut published) = (Instant::now() + lasts, Vec::new());
    while Instant::now() < until {
        let number = first + published.len();
        let id = format!("t-{number}");
        published.push((id.clone(), Instant::now()));
        world
            .publish("trickle", [reminder(id, &other(number % OTHERS))])
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ids: Vec<_> = published.iter().map(|(id, _)| id.clone()).collect();
    world.taken_within(LATER, &ids).await;
    let mut took: Vec<_> = published
        .iter()
        .map(|(id, at)| world.first(id).at - *at)
        .collect();
    took.sort_unstable();
    took
}

#[tokio::test]
async fn an_unreadable_reminder_holds_up_its_user_alone() {
    let world = World::start(&[]).await;
    let others: Vec<String> = (0..OTHERS).map(other).collect();
    let users: Vec<&str> = others.iter().map(String::as_str).chain(["alice"]).collect();
    app_that_cannot_read(&world, &["bad"], &users).await;
    let quiet = trickle(&world, 0, Duration::from_secs(2)).await;
    world
        .publish(
            "billing",
            [reminder("bad", "alice"), reminder("behind", "alice")],
        )
        .await;
    let found = trickle(&world, 10_000, Duration::from_secs(6)).await;
    let held = trickle(&world, 20_000, Duration::from_secs(8)).await;
    let at = |all: &[Duration], share: usize| all[(all.len() - 1) * share / 100];
    let figures = [&quiet, &found, &held].map(|all| [50, 99].map(|share| at(all, share)));
    eprintln!(
        "others' median and p99 in quiet, while it is found, while it is held back: {figures:?}"
    );
    assert!(
        at(&held, 99) < (at(&quiet, 99) * 3).max(Duration::from_millis(300)),
        "{figures:?}"
    );

    let is_named = async || {
        let log = world.member().log();
        let line = log
            .lines()
            .find(|line| line.contains("WARN") && line.contains("billing") && line.contains("bad"));
        line.map(str::to_owned)
            .ok_or_else(|| "the log does not name it".to_owned())
    };
    world.within(LATER, "the log names it", is_named).await;
    let doctor = async || {
        let said = world.run(&["doctor"]).await.stdout;
        if said.contains("bellhop mailbox rm alice billing bad -f") {
            Ok(())
        } else {
            Err(said)
        }
    };
    world.within(LATER, "the doctor names it", doctor).await;
    let why = world.run(&["why", "billing", "bad"]).await.succeeded();
    assert!(why.contains("app-1 left it unanswered"), "{why}");

    let wrong = world
        .run(&["mailbox", "rm", "alice", "billing", "none", "-f"])
        .await;
    assert!(
        wrong.code != Some(0) && wrong.stderr.contains("no reminder none of billing"),
        "{wrong:?}"
    );
    world
        .run(&["mailbox", "rm", "alice", "billing", "bad", "-f"])
        .await
        .succeeded();
    world.taken_within(LATER, &["behind"]).await;
}

#[tokio::test]
async fn one_of_many_in_a_mailbox_is_found() {
    let settings = [
        ("delivery.timeout", "400ms"),
        ("heartbeat.backoff_min", "50ms"),
    ];
    let world = World::start(&settings).await;
    world
        .publish(
            "billing",
            numbers(0..40).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world.all_became("billing", &numbers(0..40), "parked").await;
    app_that_cannot_read(&world, &["23"], &["alice", "bob"]).await;
    world.taken_within(LATER, &numbers(0..23)).await;
    let is_named = async || match world.member().log().contains("id=\"23\"")
        || world.member().log().contains("id=23")
    {
        true => Ok(()),
        false => Err("not yet".to_owned()),
    };
    world.within(LATER, "the log names it", is_named).await;
    world.publish("billing", [reminder("40", "bob")]).await;
    world.taken(&["40"]).await;
    world
        .run(&["mailbox", "rm", "alice", "billing", "23", "-f"])
        .await
        .succeeded();
    world.taken_within(LATER, &numbers(24..40)).await;
    assert_eq!(
        world.order("alice").len(),
        39,
        "and nothing is repeated or lost"
    );
    assert!(
        world
            .order("alice")
            .iter()
            .map(|id| id.parse::<usize>().unwrap())
            .is_sorted()
    );
}
