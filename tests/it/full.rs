//! A stream without room. JetStream's refusal says that nothing was stored: what cannot be parked
//! waits, everybody else goes on, and what waits is parked when there is room.

use std::time::Duration;

use crate::harness::{LATER, Reply, World, numbers, reminder};

/// Maximum time for which a connected user waits for a reminder while the mailboxes are full.
const MEANWHILE: Duration = Duration::from_secs(2);

/// Bytes that the mailboxes may take: some forty reminders.
const ROOM: i64 = 20_000;

async fn limit_mailboxes(world: &World, bytes: i64) {
    let mut config = world.stream("BELLHOP_PARKED").await.config;
    config.max_bytes = bytes;
    config.discard = async_nats::jetstream::stream::DiscardPolicy::New;
    world.jetstream.update_stream(config).await.unwrap();
}

/// Publishes reminders one by one for a user who is away, until the mailboxes have no room, and
/// some more.
async fn fill_mailboxes(world: &World, user: &str, ids: &[String]) {
    for id in ids {
        world.publish("billing", [reminder(id, user)]).await;
    }
    world
        .within(LATER, "the mailboxes are full", async || {
            match world.member().log() {
                log if log.contains("maximum bytes exceeded") => Ok(()),
                _ => Err(format!(
                    "{} bytes of them",
                    world.stream("BELLHOP_PARKED").await.state.bytes
                )),
            }
        })
        .await;
}

async fn one_partition() -> World {
    let world = World::start(&[("partitions", "1")]).await;
    limit_mailboxes(&world, ROOM).await;
    world
}

/// Reminders for a connected user come within [`MEANWHILE`], one after the other.
async fn is_served(world: &World, user: &str, ids: &[&str]) {
    for id in ids {
        world.publish("billing", [reminder(id, user)]).await;
        world.taken_within(MEANWHILE, &[id]).await;
    }
}

fn assert_in_order(world: &World, user: &str, ids: &[String]) {
    assert_eq!(world.order(user), ids);
    assert_eq!(world.repeats(), []);
}

#[tokio::test]
async fn connected_users_are_served_while_mailboxes_are_full() {
    let world = one_partition().await;
    let app = world.app("app-1", &["bob"]).await;
    app.on_delivery(|_| Reply::accept().after(Duration::from_millis(40)));
    let waiting = numbers(0..100);
    fill_mailboxes(&world, "alice", &waiting).await;
    is_served(&world, "bob", &["b-1", "b-2", "b-3", "b-4", "b-5"]).await;
    // Her own mailbox makes the room for what waits.
    app.connect(&["alice"]).await;
    world.taken(&waiting).await;
    world.settle().await;
    assert_in_order(&world, "alice", &waiting);
    assert!(
        !world.member().log().contains("taking over again"),
        "no partition is given up"
    );
}

#[tokio::test]
async fn returning_user_gets_unparked_reminders() {
    let world = one_partition().await;
    let app = world.app("app-1", &[]).await;
    let (hers, his) = (numbers(0..100), numbers(100..130));
    fill_mailboxes(&world, "alice", &hers).await;
    for id in &his {
        world.publish("billing", [reminder(id, "bob")]).await;
    }
    app.connect(&["bob"]).await;
    world.taken_within(MEANWHILE * 2, &his).await;
    assert_in_order(&world, "bob", &his);
    limit_mailboxes(&world, -1).await;
    world.settle().await;
    app.connect(&["alice"]).await;
    world.taken(&hers).await;
    world.settle().await;
    assert_in_order(&world, "alice", &hers);
}

#[tokio::test]
async fn a_member_takes_over_while_mailboxes_are_full() {
    let world = one_partition().await;
    let app = world.app("app-1", &["bob"]).await;
    let waiting = numbers(0..100);
    fill_mailboxes(&world, "alice", &waiting).await;
    world.kill_and_revive().await;
    limit_mailboxes(&world, ROOM).await; // A member that starts may set the stream up.
    is_served(&world, "bob", &["b-1", "b-2", "b-3"]).await;
    app.connect(&["alice"]).await;
    world.taken(&waiting).await;
    world.settle().await;
    assert_in_order(&world, "alice", &waiting);
}

#[tokio::test]
async fn member_stops_cleanly_with_full_mailboxes() {
    let world = World::start(&[("partitions", "1"), ("members.grace", "60s")]).await;
    limit_mailboxes(&world, ROOM).await;
    let waiting = numbers(0..100);
    fill_mailboxes(&world, "alice", &waiting).await;
    let member = world.member();
    member.signal("TERM");
    assert!(world.ended(&member).await.success());
    world.serve().await;
    let app = world.app("app-1", &["alice"]).await;
    world.taken(&waiting).await;
    world.settle().await;
    assert_in_order(&world, "alice", &waiting);
    drop(app);
}

/// nats-server opens so many batches in a stream at a time, and refuses the next one.
#[tokio::test]
async fn many_partitions_park_without_takeover() {
    let limit = "jetstream { limits { batch { max_inflight_per_stream: 16 } } }";
    let world = World::without_members(limit, &[("partitions", "64")]).await;
    world.serve().await;
    let takes_over = || world.member().log().matches("taking over again").count();
    let before = takes_over();
    let mut ids = Vec::new();
    for round in 0..3 {
        let of_round: Vec<_> = numbers(round * 2_000..(round + 1) * 2_000);
        world
            .publish(
                "billing",
                of_round
                    .iter()
                    .enumerate()
                    .map(|(n, id)| reminder(id, &format!("user-{}", n % 200))),
            )
            .await;
        ids.extend(of_round);
    }
    world.all_became("billing", &ids, "parked").await;
    assert_eq!(takes_over(), before);
    world.settle().await;
}

/// The limits of Bellhop's streams are reserved in the account.
#[tokio::test]
async fn full_account_stops_nothing() {
    let account = "accounts { A { jetstream { max_file: 100MB }, users: [{user: a, password: a}] } }\nno_auth_user: a";
    let world = World::without_members(account, &[("streams.storage", "67108864")]).await;
    world.serve().await;
    let app = world.app("app-1", &["alice"]).await;
    let others = async_nats::jetstream::stream::Config {
        name: "OTHERS".to_owned(),
        subjects: vec!["others".to_owned()],
        ..Default::default()
    };
    world.jetstream.create_stream(others).await.unwrap();
    let fill = async || {
        let sent = world
            .jetstream
            .publish("others", vec![b'x'; 900_000].into())
            .await
            .unwrap();
        sent.await
    };
    let mut stored = 0;
    while fill().await.is_ok() {
        stored += 1;
        assert!(stored < 200, "the account has no limit");
    }
    world
        .publish(
            "billing",
            [reminder("one", "alice"), reminder("two", "bob")],
        )
        .await;
    world.taken(&["one"]).await;
    world.became("billing", "two", "parked").await;
    app.connect(&["bob"]).await;
    world.became("billing", "two", "delivered").await;
    world.settle().await;
}
