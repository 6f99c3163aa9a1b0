//! App servers that use Bellhop's own client.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop::client::app_server::{Options, RouteError};
use bellhop::client::{
    AppServer, Deliveries, Delivery, Draft, Publisher, Reason, UserId, publisher,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{LATER, World, numbers, reminder};
use crate::secured::Realm;

fn user(name: impl AsRef<str>) -> UserId {
    name.as_ref().parse().unwrap()
}

/// An instance with a connection of its own, where these users are connected.
async fn app_server(
    world: &World,
    name: &str,
    options: Options,
    users: &[&str],
) -> (AppServer, Deliveries) {
    let client = async_nats::connect(&world.url).await.unwrap();
    let (app, deliveries) = AppServer::start(client, name.parse().unwrap(), options)
        .await
        .unwrap();
    if !users.is_empty() {
        app.connect_all(users.iter().map(user)).await.unwrap();
    }
    (app, deliveries)
}

/// The next reminder.
async fn next(deliveries: &mut Deliveries) -> Delivery {
    tokio::time::timeout(LATER, deliveries.next())
        .await
        .expect("no reminder came")
        .expect("the stream ended")
}

/// Accepts so many reminders, and answers their ids.
async fn accept(deliveries: &mut Deliveries, count: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        ids.push(next(deliveries).await.accept().id);
    }
    ids
}

/// Returns true if the stream is empty at this moment.
async fn is_empty(deliveries: &mut Deliveries) -> bool {
    tokio::time::timeout(Duration::from_millis(20), deliveries.next())
        .await
        .is_err()
}

/// Asks the instance `app-1` as Bellhop does.
async fn ask(world: &World, what: &str, request: Value) -> Value {
    let answer = world
        .client
        .request(
            format!("bellhop.app.app-1.{what}"),
            request.to_string().into(),
        )
        .await;
    serde_json::from_slice(&answer.unwrap().payload).unwrap()
}

/// A delivery of reminders, each by its user and id.
fn delivery(reminders: &[(&str, &str)]) -> Value {
    let reminder = |(user, id): &(&str, &str)| {
        json!({ "id": id, "source": "billing", "set": "7", "user": user, "content": "c", "tags": [],
            "priority": "normal", "published_at": "2026-11-22T08:00:00Z" })
    };
    json!({ "reminders": reminders.iter().map(reminder).collect::<Vec<_>>() })
}

/// Returns the refused ids of an answer, with their reasons.
fn refused(answer: &Value) -> BTreeMap<&str, &str> {
    let refused = answer["refused"].as_array().map_or(&[][..], Vec::as_slice);
    refused
        .iter()
        .map(|it| (it["id"].as_str().unwrap(), it["reason"].as_str().unwrap()))
        .collect()
}

async fn routes(world: &World, instance: &str) -> usize {
    let keys = world.routes().await.keys().await.unwrap();
    keys.filter(|key| std::future::ready(key.as_ref().unwrap().ends_with(&format!(".{instance}"))))
        .count()
        .await
}

/// Waits until the user's route is there, or is not.
async fn route_is(world: &World, wanted: bool, user: &str) {
    let state = async || match world.has_route(user, "app-1").await {
        is if is == wanted => Ok(()),
        is => Err(format!("it is there: {is}")),
    };
    world
        .within(LATER, "the route is as it should be", state)
        .await;
}

#[tokio::test]
async fn thousand_users_connect_and_leave_no_route() {
    let world = World::start(&[]).await;
    let (app, mut deliveries) = app_server(&world, "app-1", Options::default(), &[]).await;
    let users: Vec<String> = numbers(0..1_000)
        .iter()
        .map(|number| format!("user {number}"))
        .collect();
    app.connect_all(users.iter().map(user)).await.unwrap();
    assert_eq!(routes(&world, "app-1").await, 1_000);
    world
        .publish(
            "billing",
            users
                .iter()
                .zip(numbers(0..1_000))
                .map(|(user, id)| reminder(id, user)),
        )
        .await;
    let mut taken = accept(&mut deliveries, 1_000).await;
    taken.sort_by_key(|id| id.parse::<usize>().unwrap());
    assert_eq!(taken, numbers(0..1_000));
    for outcome in world
        .all_became("billing", &numbers(0..1_000), "delivered")
        .await
    {
        assert_eq!(outcome.instance.as_deref(), Some("app-1"));
    }
    app.disconnect_all(users.iter().map(user)).await.unwrap();
    assert_eq!(routes(&world, "app-1").await, 0);
}

#[tokio::test]
async fn user_is_connected_until_last_terminal_leaves() {
    let world = World::start(&[]).await;
    let (app, _deliveries) = app_server(
        &world,
        "app-1",
        Options::default(),
        &["alice", "alice", "bob"],
    )
    .await;
    let connected = async || {
        ask(
            &world,
            "heartbeat",
            json!({ "users": ["alice", "bob", "stranger"] }),
        )
        .await
    };
    assert_eq!(
        connected().await,
        json!({ "connected": ["alice", "bob"] }),
        "who is no stranger"
    );
    app.disconnect(user("alice")).await.unwrap();
    assert_eq!(connected().await["connected"], json!(["alice", "bob"]));
    assert!(world.has_route("alice", "app-1").await);
    app.disconnect(user("alice")).await.unwrap();
    assert_eq!(connected().await["connected"], json!(["bob"]));
    assert!(!world.has_route("alice", "app-1").await);
    app.disconnect(user("stranger")).await.unwrap();
}

#[tokio::test]
async fn overflow_is_busy_and_order_holds() {
    let world = World::start(&[]).await;
    let options = Options {
        capacity: 3,
        answer_within: Duration::from_secs(30),
        ..Options::default()
    };
    let (app, mut deliveries) = app_server(&world, "app-1", options, &["alice", "bob"]).await;
    let asked = delivery(&[
        ("alice", "1"),
        ("alice", "2"),
        ("bob", "3"),
        ("alice", "4"),
        ("bob", "5"),
        ("carol", "6"),
    ]);
    let refusing = async {
        assert_eq!(next(&mut deliveries).await.accept().id, "1");
        let second = next(&mut deliveries).await;
        app.disconnect(user("bob")).await.unwrap();
        second.refuse(Reason::Busy);
        assert!(
            is_empty(&mut deliveries).await,
            "what a user who left has in the queue is taken back"
        );
    };
    let (answer, ()) = tokio::join!(ask(&world, "deliver", asked), refusing);
    let (busy, gone) = ("busy", "not_connected");
    assert_eq!(
        refused(&answer),
        [
            ("2", busy),
            ("3", gone),
            ("4", busy),
            ("5", gone),
            ("6", gone)
        ]
        .into()
    );

    let asked = delivery(&[
        ("alice", "1"),
        ("alice", "2"),
        ("alice", "4"),
        ("alice", "7"),
    ]);
    let dropping = async {
        drop(next(&mut deliveries).await);
        assert!(
            is_empty(&mut deliveries).await,
            "what stands behind what was refused is taken back"
        );
    };
    let (answer, ()) = tokio::join!(ask(&world, "deliver", asked), dropping);
    assert_eq!(
        refused(&answer),
        [("2", busy), ("4", busy), ("7", busy)].into(),
        "the first is a repeat"
    );
}

#[tokio::test]
async fn slow_application_gets_everything_in_order() {
    let world = World::start(&[]).await;
    let options = Options {
        capacity: 5,
        answer_within: Duration::from_millis(100),
        ..Options::default()
    };
    let (_app, mut deliveries) = app_server(&world, "app-1", options, &["alice"]).await;
    for set in numbers(0..60).chunks(10) {
        world
            .publish("billing", set.iter().map(|id| reminder(id, "alice")))
            .await;
    }
    let mut taken = Vec::new();
    while taken.len() < 60 {
        let delivery = next(&mut deliveries).await;
        if taken.len() % 20 == 7 {
            // Longer than the request waits: it comes again, but not to the application, which has
            // it.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        taken.push(delivery.accept().id);
    }
    assert_eq!(taken, numbers(0..60));
    world
        .all_became("billing", &numbers(0..60), "delivered")
        .await;
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .any(|one| one.outcome == "parked"),
        "it never was busy"
    );
    assert!(is_empty(&mut deliveries).await);
}

#[tokio::test]
async fn repeats_are_accepted_and_not_handed_over_again() {
    let world = World::start(&[]).await;
    let options = Options {
        answer_within: Duration::from_millis(400),
        ..Options::default()
    };
    let (_app, mut deliveries) = app_server(&world, "app-1", options, &["alice"]).await;
    let first = async || ask(&world, "deliver", delivery(&[("alice", "1")])).await;
    let (answer, _) = tokio::join!(first(), accept(&mut deliveries, 1));
    assert_eq!(answer, json!({}));
    assert_eq!(first().await, json!({}), "a repeat");

    let second = async || ask(&world, "deliver", delivery(&[("alice", "2")])).await;
    let (answer, held) = tokio::join!(second(), next(&mut deliveries));
    assert_eq!(
        refused(&answer),
        [("2", "busy")].into(),
        "the application takes its time"
    );
    let (answer, ()) = tokio::join!(second(), async {
        assert!(is_empty(&mut deliveries).await, "it has this one");
        held.accept();
    });
    assert_eq!(
        answer,
        json!({}),
        "the word that came late is the answer to the second try"
    );
    assert_eq!(
        refused(&ask(&world, "deliver", delivery(&[("alice", "3")])).await),
        [("3", "busy")].into()
    );
    let (answer, again) = tokio::join!(
        ask(&world, "deliver", delivery(&[("alice", "3")])),
        next(&mut deliveries)
    );
    assert_eq!(again.accept().id, "3", "what was taken back comes again");
    assert_eq!(refused(&answer), [("3", "busy")].into());
}

#[tokio::test]
async fn invalid_delivery_gets_no_answer() {
    let world = World::start(&[]).await;
    let (_app, mut deliveries) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    for body in ["", "[]", "{\"reminders\":[7]}"] {
        let request = async_nats::Request::new()
            .payload(body.into())
            .timeout(Some(Duration::from_millis(50)));
        world
            .client
            .send_request("bellhop.app.app-1.deliver", request)
            .await
            .unwrap_err();
    }
    world.publish("billing", [reminder("1", "alice")]).await;
    assert_eq!(accept(&mut deliveries, 1).await, ["1"]);
}

#[tokio::test]
async fn routes_are_put_again_when_nats_was_away() {
    let world = World::start(&[]).await;
    let options = Options {
        patience: Duration::from_secs(2),
        ..Options::default()
    };
    let (app, mut deliveries) = app_server(&world, "app-1", options, &["alice"]).await;
    world.routes().await.delete("alice.app-1").await.unwrap();
    world.kill_nats().await;
    let late = app.connect(user("bob")).await;
    assert!(matches!(late, Err(RouteError::Late { .. })), "{late:?}");
    world.restart_nats().await;
    route_is(&world, true, "alice").await;
    route_is(&world, true, "bob").await;
    world
        .publish_surely(
            "billing",
            vec![reminder("1", "alice"), reminder("2", "bob")],
        )
        .await;
    let mut taken = accept(&mut deliveries, 2).await;
    taken.sort();
    assert_eq!(taken, ["1", "2"]);
    world.all_became("billing", &["1", "2"], "delivered").await;
}

#[tokio::test]
async fn draining_hands_over_waiting_reminders() {
    let world = World::start(&[]).await;
    let (app, mut deliveries) =
        app_server(&world, "app-1", Options::default(), &["alice", "bob"]).await;
    world
        .publish(
            "billing",
            numbers(0..20).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    let mut taken = vec![next(&mut deliveries).await.accept().id];
    app.drain();
    while let Some(delivery) = deliveries.next().await {
        taken.push(delivery.accept().id);
    }
    assert_eq!(taken, numbers(0..20), "what was in the stream");
    assert_eq!(routes(&world, "app-1").await, 0);
    assert_eq!(app.connect(user("alice")).await, Err(RouteError::Stopped));
    world
        .all_became("billing", &numbers(0..20), "delivered")
        .await;

    world
        .publish(
            "billing",
            numbers(20..30).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world
        .all_became("billing", &numbers(20..30), "parked")
        .await;
    let (_other, mut deliveries) =
        app_server(&world, "app-2", Options::default(), &["alice"]).await;
    assert_eq!(accept(&mut deliveries, 10).await, numbers(20..30));
}

#[tokio::test]
async fn dropped_app_server_leaves_cleanly() {
    let world = World::start(&[]).await;
    let (app, deliveries) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    drop((app, deliveries));
    route_is(&world, false, "alice").await;
    assert_eq!(world.became("billing", "1", "parked").await.instance, None);
}

#[tokio::test]
async fn late_delete_keeps_the_next_process_route() {
    let world = World::start(&[]).await;
    let (old, mut deliveries) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    let (_new, _) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    old.drain();
    assert!(deliveries.next().await.is_none());
    assert!(world.has_route("alice", "app-1").await);
}

#[tokio::test]
async fn custom_subject_receives_reminders() {
    let world = World::start(&[]).await;
    let options = |subject: &str| Options {
        subject: Some(subject.to_owned()),
        ..Options::default()
    };
    let (_app, mut deliveries) = app_server(&world, "app-1", options("eu.app.7"), &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    let delivery = next(&mut deliveries).await;
    assert!(delivery.json().get().contains("content of 1 for alice"));
    assert_eq!(delivery.accept().content, "content of 1 for alice");
    for subject in ["$JS.x", "bellhop.sets", "a.*"] {
        let wrong = AppServer::start(
            world.client.clone(),
            "app-1".parse().unwrap(),
            options(subject),
        )
        .await;
        assert!(wrong.unwrap_err().to_string().contains(subject));
    }
}

/// A member and the nats-server are killed with deliveries under way: what was answered in vain
/// comes again.
#[tokio::test]
async fn kills_keep_delivery_complete_and_ordered() {
    let world = World::start(&[]).await;
    let (_app, mut deliveries) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    let publish = async {
        for set in numbers(0..600).chunks(2) {
            world
                .publish_surely(
                    "billing",
                    set.iter().map(|id| reminder(id, "alice")).collect(),
                )
                .await;
        }
    };
    let (sender, taken) = tokio::sync::watch::channel(0);
    let take = async {
        let mut ids = Vec::new();
        while ids.len() < 600 {
            ids.extend(accept(&mut deliveries, 1).await);
            sender.send_replace(ids.len());
        }
        ids
    };
    let trouble = async {
        taken.clone().wait_for(|&taken| taken >= 100).await.unwrap();
        world.kill_and_revive().await;
        taken.clone().wait_for(|&taken| taken >= 200).await.unwrap();
        world.kill_nats().await;
        world.restart_nats().await;
    };
    let ((), ids, ()) = tokio::join!(publish, take, trouble);
    assert_eq!(ids, numbers(0..600));
    world
        .all_became("billing", &numbers(0..600), "delivered")
        .await;
    assert!(is_empty(&mut deliveries).await);
}

#[tokio::test]
async fn with_the_connection_everything_ends() {
    let world = World::start(&[]).await;
    let client = async_nats::connect(&world.url).await.unwrap();
    let (app, mut deliveries) =
        AppServer::start(client.clone(), "app-1".parse().unwrap(), Options::default())
            .await
            .unwrap();
    app.connect(user("alice")).await.unwrap();
    client.drain().await.unwrap();
    let end = tokio::time::timeout(LATER, deliveries.next()).await;
    assert!(end.is_ok_and(|next| next.is_none()));
    assert_eq!(app.connect(user("bob")).await, Err(RouteError::Stopped));
}

/// The next process of that name takes the users over: no reminder goes to a mailbox.
#[tokio::test]
async fn an_abandoned_instance_leaves_its_routes() {
    let world = World::start(&[]).await;
    let (app, mut deliveries) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    world
        .publish(
            "billing",
            numbers(0..10).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    let mut taken = Vec::new();
    while taken.len() < 10 {
        let batch = tokio::time::timeout(LATER, deliveries.next_batch())
            .await
            .unwrap()
            .unwrap();
        taken.extend(batch.into_iter().map(|delivery| delivery.accept().id));
    }
    app.abandon().await;
    assert_eq!(taken, numbers(0..10));
    assert!(deliveries.next_batch().await.is_none());
    world
        .all_became("billing", &numbers(0..10), "delivered")
        .await;
    assert!(world.has_route("alice", "app-1").await);
    assert_eq!(app.connect(user("bob")).await, Err(RouteError::Stopped));

    let (_next, mut deliveries) = app_server(&world, "app-1", Options::default(), &["alice"]).await;
    world.publish("billing", [reminder("10", "alice")]).await;
    assert_eq!(accept(&mut deliveries, 1).await, ["10"]);
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .all(|outcome| outcome.outcome == "delivered")
    );
}

/// By `nats-config/accounts.conf`, an app server may write its own routes and read none, and a
/// business system may publish.
#[tokio::test]
async fn clients_work_with_minimal_permissions() {
    let realm = Realm::start().await;
    realm
        .run("operator", &["setup", "--set", "partitions=1"], "")
        .await
        .succeeded();
    let _member = realm.serve("member-1", &["partitions=1"]).await;
    let (desk, billing) = (
        realm.nats_user("app-1").await,
        realm.nats_user("billing").await,
    );
    let (app, mut deliveries) =
        AppServer::start(desk.client, "app-1".parse().unwrap(), Options::default())
            .await
            .unwrap();
    app.connect(user("alice")).await.unwrap();
    let billing = Publisher::start(
        billing.client,
        "billing".parse().unwrap(),
        publisher::Options::default(),
    );
    let publish = async || {
        let draft = Draft::new(user("alice"), "Invoice 981 is due on Friday");
        billing.publish(draft).await.unwrap().await.unwrap().id
    };
    let id = publish().await;
    assert_eq!(accept(&mut deliveries, 1).await, [id]);
    app.drain();
    assert!(deliveries.next().await.is_none());
    let routes = realm
        .run("operator", &["routes", "ls", "--json"], "")
        .await
        .succeeded();
    assert_eq!(routes.trim(), "[]");
}
