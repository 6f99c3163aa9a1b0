//! `bellhop upgrade`: an installation as the last version before the log left it.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use bellhop::partition::of_user;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::{Member, World, from_now, reminder, with};

/// Makes the streams that the earlier version had, with 4 partitions.
async fn earlier_streams(world: &World) {
    let queue = |name: &str, subjects: &[&str]| Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    let kept = |name: &str, subjects: &[&str]| Config {
        retention: RetentionPolicy::Limits,
        allow_direct: true,
        ..queue(name, subjects)
    };
    let events = Config {
        metadata: [("bellhop.partitions".to_owned(), "4".to_owned())].into(),
        ..queue("BELLHOP_EVENTS", &["bellhop.events.*"])
    };
    let scheduled = Config {
        allow_message_schedules: true,
        allow_rollup: true,
        allow_direct: true,
        ..queue(
            "BELLHOP_SCHEDULED",
            &["bellhop.scheduled.*.*", "bellhop.due.*"],
        )
    };
    let parked = Config {
        allow_rollup: true,
        allow_atomic_publish: true,
        ..kept("BELLHOP_PARKED", &["bellhop.parked.*.*", "bellhop.fence.*"])
    };
    for config in [
        queue("BELLHOP_SETS", &["bellhop.sets.*"]),
        events,
        scheduled,
        parked,
        kept("BELLHOP_OUTCOMES", &["bellhop.outcomes.*"]),
        kept("BELLHOP_SEEN", &["bellhop.seen"]),
        kept("KV_bellhop_members", &["$KV.bellhop_members.>"]),
    ] {
        world.jetstream.create_stream(config).await.unwrap();
    }
}

async fn store(world: &World, subject: String, headers: &[(&str, String)], body: impl Into<Bytes>) {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(*name, value.as_str());
    }
    let sent = world
        .jetstream
        .publish_with_headers(subject, all, body.into())
        .await;
    sent.unwrap().await.unwrap();
}

/// Parks a reminder as the earlier version did: as an event of one, named by the event that it came
/// in.
async fn parked_earlier(world: &World, id: &str, user: &str) {
    let finished = with(
        reminder(id, user),
        json!({ "source": "billing", "set": "s" }),
    )
    .to_string();
    let index = json!({
        "sets": [{ "source": "billing", "id": "s", "sequence": 3, "published_ms": 1_700_000_000_000_i64 }],
        "reminders": [{ "id": id, "user": user, "bytes": finished.len() }],
    });
    let partition = of_user(&user.parse().unwrap(), 4);
    store(
        world,
        format!("bellhop.parked.{partition}.{user}"),
        &[("Bellhop-Event", "7.0".to_owned())],
        format!("{index}\n{finished}"),
    )
    .await;
}

/// Schedules a reminder as the earlier version did: without the user in the subject, nor the place
/// among the headers.
async fn scheduled_earlier(world: &World, id: &str, user: &str, at: String) {
    let finished = with(
        reminder(id, user),
        json!({ "source": "billing", "deliver_at": at }),
    );
    let set = json!({ "id": "s", "reminders": [finished] });
    let headers = [
        ("Nats-Schedule", format!("@at {at}")),
        ("Nats-Schedule-Target", "bellhop.due.billing".to_owned()),
        (
            "Bellhop-Set-Time",
            Timestamp::now().as_nanosecond().to_string(),
        ),
    ];
    store(
        world,
        format!("bellhop.scheduled.billing.{id}"),
        &headers,
        set.to_string(),
    )
    .await;
}

/// Starts the command, and waits until it has said this.
async fn upgrading(world: &World, says: &str) -> Member {
    let arguments = ["upgrade", "--nats", &world.url, "--set", "partitions=4"];
    let arguments = arguments.map(ToOwned::to_owned);
    let command = Member::spawn("upgrade", &[], &arguments, world.dir());
    let said = async || {
        if command.log().contains(says) {
            Ok(())
        } else {
            Err(command.log())
        }
    };
    world.eventually(says, said).await;
    command
}

async fn purge(world: &World, stream: &str) {
    let stream = world.jetstream.get_stream_no_info(stream).await.unwrap();
    stream.purge().await.unwrap();
}

#[tokio::test]
async fn upgrade_keeps_mail_and_schedules() {
    let world = World::without_members("", &[]).await;
    earlier_streams(&world).await;
    parked_earlier(&world, "mail", "alice").await;
    scheduled_earlier(
        &world,
        "soon",
        "alice",
        from_now(SignedDuration::from_secs(4)),
    )
    .await;
    scheduled_earlier(
        &world,
        "later",
        "bob",
        from_now(SignedDuration::from_hours(1)),
    )
    .await;
    let outcome = json!({ "outcomes": [] }).to_string();
    let settles = [("Bellhop-Settles", "0:1.0".to_owned())];
    store(
        &world,
        "bellhop.outcomes.billing".to_owned(),
        &settles,
        outcome,
    )
    .await;
    store(&world, "bellhop.sets.billing".to_owned(), &[], "{}").await;
    store(&world, "bellhop.events.0".to_owned(), &[], "{}").await;

    let refused = world.run(&["setup"]).await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("bellhop upgrade"),
        "{refused:?}"
    );
    let command = upgrading(&world, "2 left to finish, and no member runs").await;
    let sent = world
        .jetstream
        .publish("bellhop.sets.billing", "{}".into())
        .await;
    assert!(sent.unwrap().await.is_err(), "no set is stored meanwhile");
    // This is what members of the earlier version do.
    purge(&world, "BELLHOP_SETS").await;
    purge(&world, "BELLHOP_EVENTS").await;
    assert_eq!(
        world.ended(&command).await.code(),
        Some(0),
        "{}",
        command.log()
    );
    assert!(
        command.log().contains("moved 2 scheduled reminders"),
        "{}",
        command.log()
    );

    world.serve().await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("new", "alice")]).await;
    world.taken(&["mail", "soon", "new"]).await;
    assert_eq!(world.order("alice").first().unwrap(), "mail");
    world.settle().await;
    let scheduled = world.run(&["scheduled", "ls", "--json"]).await.succeeded();
    assert!(
        scheduled.contains("later") && !scheduled.contains("soon"),
        "{scheduled}"
    );
    world
        .run(&["scheduled", "cancel", "billing", "later"])
        .await
        .succeeded();
    world.became("billing", "later", "cancelled").await;
    assert_eq!(world.repeats(), []);
}

#[tokio::test]
async fn interrupted_upgrade_is_run_again() {
    let world = World::without_members("", &[]).await;
    earlier_streams(&world).await;
    for number in 0..50 {
        let at = from_now(SignedDuration::from_hours(1));
        scheduled_earlier(&world, &format!("r{number}"), "alice", at).await;
    }
    store(&world, "bellhop.events.0".to_owned(), &[], "{}").await;
    let command = upgrading(&world, "1 left to finish").await;
    command.kill();
    world.ended(&command).await;
    purge(&world, "BELLHOP_EVENTS").await;
    // It stops at any point of what it moves.
    let command = upgrading(&world, "").await;
    command.kill();
    world.ended(&command).await;
    let again = world.run(&["upgrade"]).await;
    let is_over =
        again.code == Some(0) || again.stderr.contains("no streams of an earlier version");
    assert!(is_over, "{again:?}");
    world.run(&["setup"]).await.succeeded();
    let scheduled = world.run(&["scheduled", "ls", "--json"]).await.succeeded();
    let scheduled: Vec<Value> = serde_json::from_str(&scheduled).unwrap();
    assert_eq!(scheduled.len(), 50);
}

#[tokio::test]
async fn upgrade_refuses_another_number_of_partitions() {
    let world = World::without_members("", &[("partitions", "8")]).await;
    earlier_streams(&world).await;
    let refused = world.run(&["upgrade"]).await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("partitions = 4"),
        "{refused:?}"
    );
    let stream = world.stream("BELLHOP_SETS").await;
    assert_eq!(
        stream.config.subjects,
        ["bellhop.sets.*"],
        "nothing is changed"
    );
}

#[tokio::test]
async fn upgrade_of_this_version_is_refused() {
    let world = World::start(&[]).await;
    let refused = world.run(&["upgrade"]).await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("bellhop setup"),
        "{refused:?}"
    );
}
