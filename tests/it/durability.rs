//! Sets that JetStream acknowledged survive a kill of its server at any moment. A kill is not a
//! loss of power: what the operating system holds stays, so this cannot show that `sync_interval:
//! always` flushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use async_nats::jetstream::Context;
use serde_json::{Value, json};

use crate::harness::{LATER, World, reminder};

const DURABLE_CONF: &str = include_str!("../../nats-config/durable.conf");
/// Each publishes one set after the other.
const PUBLISHERS: usize = 4;
const KILLS: usize = 4;
/// Maximum number of sets, by chance, that are acknowledged from one kill to the next.
const BETWEEN: usize = 200;

/// Publishes until it is stopped. Returns what was acknowledged: its sequence, and what was
/// published.
async fn publish(
    jetstream: Context,
    publisher: usize,
    count: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<(u64, Value)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let set = json!({ "reminders": [reminder(format!("{publisher}-{n}"), "alice")] });
        let sent = jetstream
            .publish("bellhop.sets.billing", set.to_string().into())
            .await;
        if let Ok(ack) = async { sent?.await }.await {
            acknowledged.push((ack.sequence, set));
            count.fetch_add(1, Relaxed);
        }
        if stop.load(Relaxed) {
            break;
        }
    }
    acknowledged
}

/// Kills the server at random moments, and finds every acknowledged set.
async fn acknowledged_sets_survive(nats_config: &str) {
    let world = World::without_members(nats_config, &[]).await;
    world.run(&["setup"]).await.succeeded();
    let (count, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let publishers = (0..PUBLISHERS).map(|publisher| {
        tokio::spawn(publish(
            world.jetstream.clone(),
            publisher,
            count.clone(),
            stop.clone(),
        ))
    });
    let publishers: Vec<_> = publishers.collect();
    for _ in 0..KILLS {
        let enough = count.load(Relaxed) + fastrand::usize(1..BETWEEN);
        world
            .within(LATER, "sets are acknowledged", async || {
                match count.load(Relaxed) {
                    acknowledged if acknowledged >= enough => Ok(()),
                    acknowledged => Err(format!("{acknowledged} are")),
                }
            })
            .await;
        world.kill_nats().await;
        world.restart_nats().await;
    }
    stop.store(true, Relaxed);
    let stream = world.jetstream.get_stream("BELLHOP_LOG").await.unwrap();
    let mut ids = Vec::new();
    for publisher in publishers {
        for (sequence, set) in publisher.await.unwrap() {
            let stored = stream
                .get_raw_message(sequence)
                .await
                .unwrap_or_else(|error| panic!("{sequence}: {error}"));
            assert_eq!(
                serde_json::from_slice::<Value>(&stored.payload).unwrap(),
                set,
                "set {sequence}"
            );
            ids.push(set["reminders"][0]["id"].as_str().unwrap().to_owned());
        }
    }
    assert!(ids.len() >= KILLS);
    world.app("app-1", &["alice"]).await;
    world.serve().await;
    world.taken(&ids).await;
}

#[tokio::test]
async fn sets_survive_kills_with_periodic_flush() {
    acknowledged_sets_survive("").await;
}

#[tokio::test]
async fn sets_survive_kills_with_immediate_flush() {
    acknowledged_sets_survive(DURABLE_CONF).await;
}
