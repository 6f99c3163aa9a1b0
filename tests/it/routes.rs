//! The bucket of routes: instances that come and go leave nothing behind, and a wrong route
//! has no effect on others.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream;
use futures_util::{StreamExt, TryStreamExt, stream as streams};
use serde_json::json;

use crate::harness::{World, reminder};

/// Puts a user's routes at so many instances, which are gone now: a plain client deletes the keys.
async fn past_routes(world: &World, user: &str, instances: usize) {
    let bucket = &world.routes().await;
    let come_and_go = |number| async move {
        let key = format!("{user}.pod-{number}");
        bucket.put(&key, "".into()).await.unwrap();
        bucket.delete(&key).await.unwrap();
    };
    streams::iter(0..instances)
        .map(come_and_go)
        .buffer_unordered(64)
        .collect::<Vec<_>>()
        .await;
}

/// The time to live of each mark of a deleted key, if it has one.
async fn marks(world: &World, bucket: &str) -> Vec<Option<String>> {
    let stream = world
        .jetstream
        .get_stream_no_info(format!("KV_{bucket}"))
        .await
        .unwrap();
    let filter_subject = format!("$KV.{bucket}.>");
    let deliver_policy = DeliverPolicy::LastPerSubject;
    let config = pull::Config {
        filter_subject,
        deliver_policy,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer
        .fetch()
        .max_messages(10_000)
        .messages()
        .await
        .unwrap();
    let mut marks = Vec::new();
    while let Some(message) = messages.try_next().await.unwrap() {
        let header = |name| {
            message
                .headers
                .as_ref()
                .and_then(|headers: &HeaderMap| headers.get(name))
        };
        if header("KV-Operation").is_some() {
            marks.push(header("Nats-TTL").map(ToString::to_string));
        }
    }
    marks
}

async fn all_marks_go(world: &World, bucket: &str, expected: usize) {
    world
        .eventually("every mark has a time to live", async || {
            let marks = marks(world, bucket).await;
            let is_right = marks.len() == expected && marks.iter().all(Option::is_some);
            if is_right {
                Ok(())
            } else {
                Err(format!("{marks:?}"))
            }
        })
        .await;
}

#[tokio::test]
async fn marks_of_plain_clients_expire() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    past_routes(&world, "alice", 20).await;
    let associates = world
        .jetstream
        .get_key_value("bellhop_associates")
        .await
        .unwrap();
    associates
        .put("alice", json!({ "associates": ["bob"] }).to_string().into())
        .await
        .unwrap();
    associates.delete("alice").await.unwrap();
    world.serve().await;
    all_marks_go(&world, "bellhop_routes", 20).await;
    all_marks_go(&world, "bellhop_associates", 1).await;
    // Nothing is lost of what is there.
    world.app("pod-20", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.taken(&["1"]).await;
}

#[tokio::test]
async fn every_deletion_of_bellhops_own_ends_by_itself() {
    let world = World::start(&[]).await;
    all_marks_go(&world, "bellhop_routes", 0).await;
    // A wrong route, an operator's deletions, and an erased user's.
    let app = world.app("app-1", &[]).await;
    app.put_route("alice").await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    world
        .run(&["routes", "put", "bob", "app-1"])
        .await
        .succeeded();
    world
        .run(&["routes", "rm", "-f", "bob", "app-1"])
        .await
        .succeeded();
    world
        .run(&["associates", "put", "bob", "carol"])
        .await
        .succeeded();
    world
        .run(&["associates", "rm", "-f", "bob"])
        .await
        .succeeded();
    app.put_route("carol").await;
    assert_eq!(
        world
            .ask("erase", json!({ "user": "carol" }))
            .await
            .unwrap()["erased"]["routes"],
        1
    );
    all_marks_go(&world, "bellhop_routes", 3).await;
    all_marks_go(&world, "bellhop_associates", 1).await;
}

#[tokio::test]
async fn a_user_of_many_past_instances_is_erased() {
    let world = World::start(&[]).await;
    past_routes(&world, "alice", 1_100).await;
    let app = world.app("app-1", &[]).await;
    app.put_route("alice").await;
    let erased = world
        .ask("erase", json!({ "user": "alice" }))
        .await
        .unwrap();
    assert_eq!(erased["erased"]["routes"], 1, "{erased}");
}

#[tokio::test]
async fn an_associate_is_found_behind_past_routes() {
    let world = World::start(&[]).await;
    past_routes(&world, "bob", 100).await;
    world.app("app-1", &["bob"]).await;
    world
        .put_associates("alice", json!({ "associates": ["bob"] }))
        .await;
    world
        .eventually("alice's reminders go to bob", async || {
            let id = format!("{:?}", std::time::Instant::now());
            world.publish("billing", [reminder(&id, "alice")]).await;
            match world.outcome("billing", &id).await.as_str() {
                "rerouted" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
}

/// An installation of an earlier version permits roll-ups.
#[tokio::test]
async fn no_bucket_permits_roll_ups_any_more() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let buckets = [
        "KV_bellhop_routes",
        "KV_bellhop_associates",
        "KV_bellhop_rules",
        "KV_bellhop_members",
    ];
    for bucket in buckets {
        let config = stream::Config {
            allow_rollup: true,
            ..world.stream(bucket).await.config
        };
        world.jetstream.update_stream(config).await.unwrap();
    }
    world.serve().await;
    for bucket in buckets {
        assert!(!world.stream(bucket).await.config.allow_rollup, "{bucket}");
    }
}

/// A route may lead to its own instance's subject, or to a subject that is not Bellhop's.
#[tokio::test]
async fn a_wrong_route_is_logged_once_and_ignored() {
    let world = World::start(&[]).await;
    let victim = world.app("app-2", &["bob"]).await;
    let long = format!("other.{}", "x".repeat(251));
    let huge = "x".repeat(900_000);
    let forged = "a\n2026-11-22T08:00:00Z  WARN forged\u{1b}[2J";
    let mut wrong = vec![
        ("carol", forged),
        ("dave", long.as_str()),
        ("dave", huge.as_str()),
    ];
    let others = [
        "$JS.API.STREAM.PURGE.BELLHOP_PARKED",
        "_INBOX.x",
        "bellhop.sets",
        "bellhop.api",
        "bellhop.parked.0",
    ];
    let patterns = ["a.*", ">", "a b", "a..b", ""];
    wrong.extend(
        others
            .into_iter()
            .chain(patterns)
            .map(|subject| ("dave", subject)),
    );
    wrong.push(("alice", "bellhop.app.app-2"));
    let routes = world.routes().await;
    for (number, (user, subject)) in wrong.iter().enumerate() {
        let value = json!({ "subject": subject }).to_string();
        routes
            .put(format!("{user}.wrong-{number:02}"), value.into())
            .await
            .unwrap();
    }
    let users = ["alice", "bob", "carol", "dave"];
    world
        .publish("billing", users.map(|user| reminder(user, user)))
        .await;
    for user in ["alice", "carol", "dave"] {
        world.became("billing", user, "parked").await;
    }
    world.taken(&["bob"]).await;
    assert_eq!(victim.heartbeats("alice"), 0, "app-2 was asked about alice");
    let last = format!("wrong-{:02}", wrong.len() - 1);
    let log = world
        .eventually("the last one is logged", async || {
            let log = world.member().log();
            if log.contains(&last) {
                Ok(log)
            } else {
                Err(log)
            }
        })
        .await;
    for number in 0..wrong.len() {
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains(&format!("wrong-{number:02}")))
            .collect();
        assert!(
            lines.len() == 1 && lines[0].len() < 1_000,
            "{number}: {lines:?}"
        );
    }
    assert!(
        !log.lines()
            .any(|line| line.starts_with("2026-11-22T08:00:00Z")),
        "{log}"
    );
}

/// Puts the routes of so many others, all at once, so that a watch is busy for a time.
async fn crowd(world: &World, users: usize) {
    let bucket = &world.routes().await;
    let put = |number| async move {
        let key = format!("other-{number}.elsewhere");
        bucket.put(&key, "".into()).await.unwrap();
    };
    streams::iter(0..users)
        .map(put)
        .buffer_unordered(512)
        .collect::<Vec<_>>()
        .await;
}

#[tokio::test]
async fn route_put_just_before_reminder_counts() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &[]).await;
    for turn in 0..20 {
        let (user, id) = (format!("user-{turn}"), format!("r{turn}"));
        crowd(&world, 500).await;
        app.connect(&[&user]).await;
        world.publish("billing", [reminder(&id, &user)]).await;
        world.taken(&[id]).await;
    }
    world.settle().await;
    let parked: Vec<_> = world
        .outcomes
        .all()
        .await
        .into_iter()
        .filter(|outcome| outcome.outcome == "parked")
        .collect();
    assert!(parked.is_empty(), "{parked:?}");
}
