//! Users with several connections.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Reply, World, numbers, reminder};

/// Returns the ids that an app server accepted, in order.
fn taken_by(world: &World, app: &str) -> Vec<String> {
    world
        .takes()
        .iter()
        .filter(|take| take.app == app)
        .map(|take| take.id().to_owned())
        .collect()
}

#[tokio::test]
async fn all_connections_get_everything_in_order() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.app("app-2", &["alice"]).await;
    for set in numbers(0..100).chunks(4) {
        world
            .publish("billing", set.iter().map(|id| reminder(id, "alice")))
            .await;
    }
    let outcomes = world
        .all_became("billing", &numbers(0..100), "delivered")
        .await;
    assert_eq!(taken_by(&world, "app-1"), numbers(0..100));
    assert_eq!(taken_by(&world, "app-2"), numbers(0..100));
    for outcome in outcomes {
        let mut instances = outcome.instances.clone();
        assert_eq!(Some(&instances[0]), outcome.instance.as_ref());
        instances.sort();
        assert_eq!(instances, ["app-1", "app-2"]);
    }
    world.settle().await;
}

#[tokio::test]
async fn one_accepting_connection_suffices() {
    let world = World::start(&[
        ("delivery.timeout", "400ms"),
        ("heartbeat.backoff_min", "50ms"),
    ])
    .await;
    world.app("well", &["alice"]).await;
    let hung = world.app("hung", &["alice"]).await;
    hung.on_delivery(|_| Reply::silence());
    let busy = world.app("busy", &["alice"]).await;
    busy.on_delivery(|batch| Reply::refuse(batch, "busy", |_| true));
    let gone = world.app("gone", &["alice"]).await;
    gone.on_delivery(|batch| Reply::refuse(batch, "not_connected", |_| true));
    for id in numbers(0..20) {
        world.publish("billing", [reminder(id, "alice")]).await;
    }
    let outcomes = world
        .all_became("billing", &numbers(0..20), "delivered")
        .await;
    assert!(
        outcomes
            .iter()
            .all(|one| one.instance.as_deref() == Some("well") && one.instances.is_empty())
    );
    assert_eq!(taken_by(&world, "well"), numbers(0..20));
    assert!(!world.has_route("alice", "gone").await && world.has_route("alice", "busy").await);
    assert!(numbers(0..20).iter().all(|id| busy.attempts(id) <= 1));
    let metrics = world.member().probe("GET", "/metrics").await.unwrap().body;
    let missed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("bellhop_devices_missed_total "))
        .unwrap();
    assert!(missed.parse::<usize>().unwrap() >= 20, "{missed}");
    world.settle().await;
}

#[tokio::test]
async fn later_device_gets_new_reminders() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "delivered").await;
    world.app("app-2", &["alice"]).await;
    let mut number = 1;
    world
        .within(Duration::from_secs(10), "both get it", async || {
            number += 1;
            let id = number.to_string();
            world.publish("billing", [reminder(&id, "alice")]).await;
            let outcome = world.became("billing", &id, "delivered").await;
            if outcome.instances.len() == 2 {
                Ok(())
            } else {
                Err(json!(outcome.instance).to_string())
            }
        })
        .await;
    assert!(!taken_by(&world, "app-2").contains(&"1".to_owned()));
    world.settle().await;
}

#[tokio::test]
async fn with_latest_one_connection_gets_it() {
    let world = World::start(&[("delivery.devices", "latest")]).await;
    world.app("app-1", &["alice"]).await;
    world.app("app-2", &["alice"]).await;
    for id in numbers(0..10) {
        world.publish("billing", [reminder(id, "alice")]).await;
    }
    world.taken(&numbers(0..10)).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
}

#[tokio::test]
async fn a_user_with_many_routes_stops_no_outcomes() {
    let world = World::start(&[]).await;
    let app = world.app_at("app-1", Some("eu.app-1"), &["bob"]).await;
    app.admit("alice");
    let routes = world.routes().await;
    let name = |number: usize| format!("{number:03}{}", "x".repeat(122));
    for number in 0..60 {
        let key = format!("alice.{}", name(number));
        routes
            .put(key, r#"{"subject":"eu.app-1"}"#.into())
            .await
            .unwrap();
    }
    world
        .publish(
            "billing",
            numbers(0..250).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    let outcomes = world
        .all_became("billing", &numbers(0..250), "delivered")
        .await;
    let newest: Vec<_> = (44..60).map(name).collect();
    for outcome in outcomes {
        assert!(outcome.instances.len() <= 16, "{outcome:?}");
    }
    // Routes may still be on their way with the first reminders.
    world.publish("billing", [reminder("last", "alice")]).await;
    let mut last = world
        .became("billing", "last", "delivered")
        .await
        .instances
        .clone();
    last.sort();
    assert_eq!(last, newest, "the newest count");
    world.publish("billing", [reminder("others", "bob")]).await;
    world.became("billing", "others", "delivered").await;
}
