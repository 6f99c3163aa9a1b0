//! Reminders that stay parked are announced once.

use std::time::Duration;

use serde_json::json;

use crate::harness::{World, instant, reminder, with};

const QUICK: [(&str, &str); 2] = [
    ("mailbox.escalate_after.urgent", "500ms"),
    ("mailbox.escalate_after.normal", "2s"),
];

/// The ids that were announced, in order.
async fn announced(world: &World) -> Vec<String> {
    let outcomes = world.outcomes.all().await;
    outcomes
        .iter()
        .filter(|one| one.escalated)
        .map(|one| one.id.clone())
        .collect()
}

async fn until_announced(world: &World, ids: &[&str]) {
    world
        .eventually(&format!("{ids:?} are announced"), async || {
            let announced = announced(world).await;
            if ids.iter().all(|id| announced.iter().any(|one| one == id)) {
                Ok(())
            } else {
                Err(format!("{announced:?}"))
            }
        })
        .await;
}

#[tokio::test]
async fn each_priority_has_its_own_patience() {
    let world = World::start(&QUICK).await;
    let of =
        |id: &str, priority: &str| with(reminder(id, "alice"), json!({ "priority": priority }));
    world
        .publish(
            "billing",
            [
                of("n1", "normal"),
                of("l1", "low"),
                of("u1", "urgent"),
                of("n2", "normal"),
            ],
        )
        .await;
    world
        .publish("billing", [of("u2", "urgent"), of("h1", "high")])
        .await;
    until_announced(&world, &["u1", "u2", "n1", "n2"]).await;
    assert_eq!(
        announced(&world).await,
        ["u1", "u2", "n1", "n2"],
        "nothing of those without limit"
    );
    let outcomes = world.outcomes.all().await;
    for (id, least) in [("u1", 500), ("n1", 2_000)] {
        let at = |escalated| {
            outcomes
                .iter()
                .find(|one| one.id == id && one.escalated == escalated)
                .unwrap()
        };
        let waited = instant(&at(true).at).duration_since(instant(&at(false).at));
        // The outcome `parked` is a little younger than the message.
        assert!(
            waited.as_millis() >= least - 200,
            "{id} was announced after {waited}"
        );
        assert_eq!(
            (at(true).outcome.as_str(), at(true).user.as_deref()),
            ("parked", Some("alice"))
        );
    }
    world.settle().await;
    world.app("app-1", &["alice"]).await;
    world.taken(&["u1", "u2", "n1", "n2", "l1", "h1"]).await;
    world.settle().await;
}

#[tokio::test]
async fn timely_delivery_is_not_announced() {
    let world = World::start(&QUICK).await;
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "bob")])
        .await;
    world.all_became("billing", &["1", "2"], "parked").await;
    world.app("app-1", &["alice"]).await;
    world.taken(&["1"]).await;
    until_announced(&world, &["2"]).await;
    assert_eq!(announced(&world).await, ["2"]);
    world.settle().await;
}

#[tokio::test]
async fn each_is_announced_once_across_failover() {
    let world = World::start(&QUICK).await;
    let urgent = |number: usize| {
        with(
            reminder(number.to_string(), "alice"),
            json!({ "priority": "urgent" }),
        )
    };
    let ids: Vec<_> = (0..60).map(|number| number.to_string()).collect();
    let mut member = world.member();
    for begin in [0, 20, 40] {
        world
            .publish("billing", (begin..begin + 20).map(urgent))
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await; // Some are announced, and others are not.
        member.kill();
        member = world.serve_as(member.name()).await;
    }
    until_announced(&world, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.publish("billing", [urgent(60)]).await;
    until_announced(&world, &["60"]).await;
    let announced = announced(&world).await;
    assert_eq!(
        announced,
        (0..61).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    world.settle().await;
}
