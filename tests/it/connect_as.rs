//! `bellhop connect-as`: an app server on the command line.

use std::sync::Arc;

use serde_json::Value;

use crate::harness::{LATER, Member, SOON, World, numbers, reminder};
use crate::secured::{Realm, eventually};

/// Starts one for Alice as `app 9`, and waits until it is connected.
async fn connected(world: &World, flags: &[&str]) -> Arc<Member> {
    let arguments = [
        "connect-as",
        "app 9",
        "--user",
        "alice",
        "--json",
        "--nats",
        &world.url,
    ];
    let arguments: Vec<String> = arguments
        .iter()
        .chain(flags)
        .map(ToString::to_string)
        .collect();
    let member = world.launch_with("posing", &arguments);
    let is_connected = async || match events(&member).first() {
        Some(first) if first["event"] == "connected" => Ok(()),
        _ => Err(member.log()),
    };
    world.within(SOON, "it is connected", is_connected).await;
    member
}

/// The events that it printed.
fn events(member: &Member) -> Vec<Value> {
    member
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Its `reminder` events, each as its id, whether it is marked as a redelivery, and why it was
/// refused.
fn arrived(member: &Member) -> Vec<(String, bool, Option<String>)> {
    let of_reminders = events(member)
        .into_iter()
        .filter(|event| event["event"] == "reminder");
    let short = |event: Value| {
        let id = event["id"].as_str().unwrap().to_owned();
        (
            id,
            event["repeat"].as_bool().unwrap(),
            event["refused"].as_str().map(ToOwned::to_owned),
        )
    };
    of_reminders.map(short).collect()
}

async fn at_least(
    world: &World,
    member: &Member,
    count: usize,
) -> Vec<(String, bool, Option<String>)> {
    let have = async || match arrived(member) {
        arrived if arrived.len() >= count => Ok(arrived),
        arrived => Err(format!("{arrived:?}")),
    };
    world.within(LATER, "reminders are shown", have).await
}

#[tokio::test]
async fn accepts_reminders_and_leaves_no_route() {
    let world = World::start(&[]).await;
    let posing = connected(&world, &[]).await;
    assert!(world.has_route("alice", "app 9").await);
    world.publish("billing", [reminder("1", "alice")]).await;
    let outcome = world.became("billing", "1", "delivered").await;
    assert_eq!(outcome.instance.as_deref(), Some("app 9"));
    posing.signal("TERM");
    assert_eq!(
        world.ended(&posing).await.code(),
        Some(0),
        "{}",
        posing.log()
    );
    assert_eq!(arrived(&posing), [("1".to_owned(), false, None)]);
    assert_eq!(
        events(&posing)[1]["reminder"]["content"],
        "content of 1 for alice"
    );
    assert_eq!(events(&posing).last().unwrap()["event"], "disconnected");
    assert!(!world.has_route("alice", "app 9").await);
}

#[tokio::test]
async fn shows_every_reminder_that_it_refuses() {
    let world = World::start(&[]).await;
    let posing = connected(&world, &["--refuse", "busy"]).await;
    world
        .publish(
            "billing",
            numbers(0..10).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world.all_became("billing", &numbers(0..10), "parked").await;
    let mut refused = at_least(&world, &posing, 10).await;
    refused.truncate(10);
    let expected = numbers(0..10)
        .into_iter()
        .map(|id| (id, false, Some("busy".to_owned())));
    assert_eq!(refused, expected.collect::<Vec<_>>());
}

/// Each delivery is answered as late as the one before, also when it brings a reminder again.
#[tokio::test]
async fn a_delay_beyond_the_timeout_delivers_nothing() {
    let world = World::start(&[
        ("delivery.timeout", "200ms"),
        ("heartbeat.backoff_max", "500ms"),
    ])
    .await;
    let posing = connected(&world, &["--delay", "500ms"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    let shown = at_least(&world, &posing, 5).await;
    assert_eq!(shown[0], ("1".to_owned(), false, None));
    assert!(
        shown[1..]
            .iter()
            .all(|one| *one == ("1".to_owned(), true, None)),
        "{shown:?}"
    );
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .all(|outcome| !outcome.is_final())
    );
    posing.signal("TERM");
    assert_eq!(
        world.ended(&posing).await.code(),
        Some(0),
        "{}",
        posing.log()
    );
}

#[tokio::test]
async fn missing_installation_gives_advice() {
    let world = World::without_members("", &[]).await;
    let ended = world.run(&["connect-as", "app-1", "--user", "alice"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("`bellhop setup`"), "{ended:?}");
    let ended = world
        .run(&[
            "connect-as",
            "app-1",
            "--user",
            "alice",
            "--subject",
            "bellhop.sets",
        ])
        .await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--subject"), "{ended:?}");
}

/// By `nats-config/accounts.conf`, an app server may write its own routes and read none.
#[tokio::test]
async fn needs_no_more_rights_than_an_app_server() {
    let realm = Realm::start().await;
    realm
        .run("operator", &["setup", "--set", "partitions=1"], "")
        .await
        .succeeded();
    let _member = realm.serve("member-1", &["partitions=1"]).await;
    let arguments = [
        "connect-as",
        "app-1",
        "--user",
        "alice",
        "--json",
        "--nats",
        realm.server.url(),
    ];
    let arguments: Vec<String> = arguments
        .map(ToOwned::to_owned)
        .into_iter()
        .chain(realm.secrets.settings("app-1"))
        .collect();
    let posing = Member::spawn("posing", &[], &arguments, realm.dir.path());
    let publish = [
        "publish",
        "--source",
        "billing",
        "--user",
        "alice",
        "--content",
        "Invoice 981 is due",
    ];
    realm.run("billing", &publish, "").await.succeeded();
    let is_shown = async || {
        if arrived(&posing).len() == 1 {
            Ok(())
        } else {
            Err(posing.log())
        }
    };
    eventually("the reminder is shown", is_shown).await;
}
