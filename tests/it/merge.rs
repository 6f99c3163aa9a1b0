//! Merging beyond the set: later duplicates are merged into accepted reminders.

use serde_json::{Value, json};

use crate::harness::{World, reminder, with};

const WINDOW: [(&str, &str); 1] = [("merge.window", "1m")];

fn saying(what: &str, id: &str) -> Value {
    with(reminder(id, "alice"), json!({ "content": what }))
}

#[tokio::test]
async fn accepted_reminder_merges_later_duplicates() {
    let world = World::start(&WINDOW).await;
    world.app("app-1", &["alice"]).await;
    world.publish("ops", [saying("disk full", "1")]).await;
    world.became("ops", "1", "delivered").await;
    world
        .publish("ops", [saying("disk full", "2"), saying("disk empty", "3")])
        .await;
    world.publish("hr", [saying("disk full", "4")]).await;
    world
        .publish(
            "ops",
            [with(
                saying("disk full", "5"),
                json!({ "priority": "urgent" }),
            )],
        )
        .await;
    let merged = world.became("ops", "2", "merged").await;
    assert_eq!(merged.into.as_deref(), Some("1"));
    world.taken(&["3", "4", "5"]).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
}

#[tokio::test]
async fn waiting_duplicate_is_merged_after_acceptance() {
    let world = World::start(&WINDOW).await;
    world.publish("ops", [saying("disk full", "1")]).await;
    world.publish("ops", [saying("disk full", "2")]).await;
    world.became("ops", "2", "parked").await;
    world.kill_and_revive().await;
    world.publish("ops", [saying("disk full", "3")]).await;
    world.became("ops", "3", "parked").await;
    world.app("app-1", &["alice"]).await;
    for id in ["2", "3"] {
        assert_eq!(
            world.became("ops", id, "merged").await.into.as_deref(),
            Some("1")
        );
    }
    world.settle().await;
    assert_eq!(world.order("alice"), ["1"]);
}

#[tokio::test]
async fn without_window_each_set_is_delivered() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("ops", [saying("disk full", "1")]).await;
    world.publish("ops", [saying("disk full", "2")]).await;
    world.taken(&["1", "2"]).await;
    world.settle().await;
}
