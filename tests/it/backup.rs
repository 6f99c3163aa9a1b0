//! Backup and restore as nats-server offers them, stream by stream, while everything runs.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{LATER, World, numbers, reminder};

/// A stream as it was saved.
struct Saved {
    config: Value,
    state: Value,
    chunks: Vec<Bytes>,
}

/// The order of docs/backup.md: what moves a reminder on is saved after what it moves.
const ORDER: [&str; 11] = [
    "KV_bellhop_positions",
    "BELLHOP_SCHEDULED",
    "BELLHOP_LOG",
    "BELLHOP_OUTCOMES",
    "BELLHOP_PARKED",
    "BELLHOP_SEEN",
    "BELLHOP_REJECTED",
    "KV_bellhop_routes",
    "KV_bellhop_associates",
    "KV_bellhop_rules",
    "KV_bellhop_members",
];

async fn ask(client: &Client, subject: String, request: Value) -> Value {
    let answer = client
        .request(subject, request.to_string().into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer
}

async fn save(client: &Client, stream: &str) -> Saved {
    let inbox = client.new_inbox();
    let mut pieces = client.subscribe(inbox.clone()).await.unwrap();
    let request = json!({ "deliver_subject": inbox });
    let subject = format!("$JS.API.STREAM.SNAPSHOT.{stream}");
    let mut answer = ask(client, subject, request).await;
    let mut chunks = Vec::new();
    loop {
        let piece = tokio::time::timeout(LATER, pieces.next()).await;
        let piece = piece.expect("a piece in time").unwrap();
        if piece.payload.is_empty() {
            break;
        }
        // The server sends so much ahead, and more when it is answered.
        if let Some(reply) = piece.reply {
            client.publish(reply, Bytes::new()).await.unwrap();
        }
        chunks.push(piece.payload);
    }
    Saved {
        config: answer["config"].take(),
        state: answer["state"].take(),
        chunks,
    }
}

async fn restore(client: &Client, stream: &str, saved: &Saved) {
    let request = json!({ "config": saved.config, "state": saved.state });
    let answer = ask(client, format!("$JS.API.STREAM.RESTORE.{stream}"), request).await;
    let to = answer["deliver_subject"].as_str().unwrap().to_owned();
    for chunk in &saved.chunks {
        client.request(to.clone(), chunk.clone()).await.unwrap();
    }
    let ended = client.request(to, Bytes::new()).await.unwrap();
    let ended: Value = serde_json::from_slice(&ended.payload).unwrap();
    assert!(ended.get("error").is_none(), "{stream}: {ended}");
}

const USERS: usize = 20;

fn user(n: usize) -> String {
    format!("user-{}", n % USERS)
}

async fn publish(world: &World, from: usize, to: usize) {
    let ids = numbers(from..to);
    let reminders = ids.iter().zip(from..).map(|(id, n)| reminder(id, &user(n)));
    world.publish_surely("billing", reminders.collect()).await;
}

/// Everything is saved while reminders are published, parked and delivered; then it is lost, and
/// restored.
#[tokio::test]
async fn restored_installation_has_every_reminder_of_the_backup() {
    let world = World::start(&[]).await;
    let (half, users) = (USERS / 2, (0..USERS).map(user).collect::<Vec<_>>());
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    // Half of the users are there, the others' reminders are parked.
    world.app("app-1", &users[..half]).await;
    publish(&world, 0, 200).await;

    let mut saved = Vec::new();
    let publishing = async {
        for set in 0..40 {
            publish(&world, 200 + set * 20, 200 + (set + 1) * 20).await;
        }
    };
    let saving = async {
        for stream in ORDER {
            saved.push((stream, save(&world.client, stream).await));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(publishing, saving);

    world.member().kill();
    for (stream, _) in &saved {
        world.jetstream.delete_stream(*stream).await.unwrap();
    }
    for (stream, saved) in &saved {
        restore(&world.client, stream, saved).await;
    }
    world.serve_as("member-1").await;
    publish(&world, 1_000, 1_100).await;
    world.app("app-2", &users[half..]).await;
    // Those of the backup, and those published since. In between is what a backup cannot have.
    world.taken_within(LATER, &numbers(0..200)).await;
    world.taken_within(LATER, &numbers(1_000..1_100)).await;
    // The history is the same one, although every stream has another age.
    let why = world.run(&["why", "billing", &numbers(0..1)[0]]).await;
    assert!(why.succeeded().contains("delivered"));
}
