//! Delivery requests, and what becomes of a reminder whose instance refuses, errs, hangs or dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{App, Asked, Reply, World, numbers, reminder, with};

/// Short timeouts, for tests with failures.
const QUICK: [(&str, &str); 6] = [
    ("delivery.timeout", "500ms"),
    ("heartbeat.timeout", "500ms"),
    ("heartbeat.backoff_min", "50ms"),
    ("heartbeat.backoff_max", "200ms"),
    ("delivery.busy_min", "20ms"),
    ("delivery.busy_max", "100ms"),
];

/// Waits until a reminder was brought to the app server this often.
async fn attempted(world: &World, app: &App, id: &str, times: usize) {
    let what = format!("{id} is brought {times} times");
    world
        .eventually(&what, async || match app.attempts(id) {
            attempts if attempts >= times => Ok(()),
            attempts => Err(format!("it was {attempts} times")),
        })
        .await;
}

/// "One request carries up to 256 KiB; one user's reminders are in order within it and across
/// requests."
#[tokio::test]
async fn large_reminders_share_requests_in_order() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let large = |id: &String| {
        with(
            reminder(id, "alice"),
            json!({ "content": format!("{id:>4}{}", "c".repeat(65_532)) }),
        )
    };
    let ids = numbers(0..40);
    for ids in ids.chunks(10) {
        world.publish("billing", ids.iter().map(large)).await;
    }
    world.taken(&ids).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ids);
    assert_eq!(world.repeats(), []);
    let shared = app
        .requests()
        .iter()
        .filter(|it| matches!(&it.asked, Asked::Delivery(batch) if batch.len() > 1))
        .count();
    assert!(shared > 0, "a request has room for three");
}

#[tokio::test]
async fn the_largest_reminder_there_can_be_is_delivered() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    // A delivered reminder has more fields than a published one; find the most `data` that is
    // taken.
    let with_data =
        |id: &str, bytes: usize| with(reminder(id, "alice"), json!({ "data": "d".repeat(bytes) }));
    let most = 256 * 1024;
    let sizes: Vec<_> = (0..40).map(|step| most - 400 + 10 * step).collect();
    for size in &sizes {
        world
            .publish("billing", [with_data(&size.to_string(), *size)])
            .await;
    }
    world.settle().await;
    let outcomes = world.outcomes.all().await;
    let became = |size: &usize| {
        outcomes
            .iter()
            .find(|it| it.id == size.to_string())
            .map(|it| it.outcome.clone())
            .unwrap()
    };
    let outcomes: Vec<_> = sizes.iter().map(became).collect();
    let delivered = outcomes
        .iter()
        .take_while(|outcome| *outcome == "delivered")
        .count();
    assert!(delivered > 0 && delivered < sizes.len(), "{outcomes:?}");
    assert!(
        outcomes[delivered..]
            .iter()
            .all(|outcome| outcome == "rejected"),
        "{outcomes:?}"
    );
    assert_eq!(app.attempts(&sizes[delivered - 1].to_string()), 1);
}

/// "`not_connected` (the route is dropped, the reminder goes on to its next choice)": without
/// another route, the mailbox.
#[tokio::test]
async fn not_connected_drops_the_route_and_parks() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice", "bob"]).await;
    app.on_delivery(|batch| Reply::refuse(batch, "not_connected", |one| one["user"] == "alice"));
    world
        .publish(
            "billing",
            [
                reminder("1", "alice"),
                reminder("b", "bob"),
                reminder("2", "alice"),
            ],
        )
        .await;
    world.all_became("billing", &["1", "2"], "parked").await;
    world.taken(&["b"]).await;
    let is_dropped = async || {
        if world.has_route("alice", "app-1").await {
            Err("it is there".into())
        } else {
            Ok(())
        }
    };
    world.eventually("the route is dropped", is_dropped).await;
    assert!(world.has_route("bob", "app-1").await);

    app.recover();
    let asked = app.heartbeats("alice");
    world.publish("billing", [reminder("3", "alice")]).await;
    world.became("billing", "3", "parked").await;
    assert_eq!(
        app.heartbeats("alice"),
        asked,
        "there is no route to ask about"
    );
    app.connect(&["alice"]).await;
    world.taken(&["1", "2", "3"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2", "3"]);
    assert_eq!((app.attempts("b"), app.attempts("3")), (1, 1));
}

/// "`busy` (tried again later, in order)"
#[tokio::test]
async fn busy_is_tried_again_in_order() {
    let world = World::start(&QUICK).await;
    let app = world.app("app-1", &["alice", "bob"]).await;
    app.on_delivery(|batch| {
        Reply::refuse(batch, "busy", |one| {
            one["user"] == "alice" && one["id"] != "1"
        })
    });
    let first = ["1", "2", "3", "4", "5"].map(|id| reminder(id, "alice"));
    world
        .publish("billing", first.into_iter().chain([reminder("b", "bob")]))
        .await;
    world.taken(&["1", "b"]).await;
    attempted(&world, &app, "2", 3).await;
    world.publish("billing", [reminder("6", "alice")]).await;
    app.recover();
    world.taken(&["2", "3", "4", "5", "6"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(
        (app.attempts("1"), app.attempts("b")),
        (1, 1),
        "what was accepted is not brought again"
    );
    assert!(world.has_route("alice", "app-1").await, "busy is connected");
}

#[tokio::test]
async fn refusal_affects_only_the_named_reminder() {
    let world = World::start(&QUICK).await;
    let app = world.app("app-1", &["alice"]).await;
    // Stops the lane, so that all of these come in one request.
    app.on_delivery(|batch| Reply::refuse(batch, "busy", |_| true));
    world
        .publish("billing", ["1", "2", "3"].map(|id| reminder(id, "alice")))
        .await;
    world
        .all_became("billing", &["1", "2", "3"], "parked")
        .await;
    world
        .publish("hr", ["2", "3"].map(|id| reminder(id, "alice")))
        .await;
    world.all_became("hr", &["2", "3"], "parked").await;
    let calls = Arc::new(AtomicUsize::new(0));
    app.on_delivery(move |batch| match batch.len() {
        5 if calls.fetch_add(1, Ordering::Relaxed) == 0 => {
            let stranger =
                json!({ "id": "1", "source": "unknown", "user": "alice", "reason": "busy" });
            let twos = json!({ "id": "2", "source": "hr", "user": "alice", "reason": "busy" });
            let body = json!({ "refused": [stranger, twos] }).to_string();
            let is_hrs_two = |one: &Value| one["id"] == "2" && one["source"] == "hr";
            Reply::say(body).taking(move |one| !is_hrs_two(one))
        }
        _ => Reply::accept(),
    });
    world.became("hr", "2", "delivered").await;
    world.settle().await;
    assert_eq!(world.repeats(), [], "only what was refused came again");
    let keys: Vec<_> = world
        .takes()
        .iter()
        .map(|take| (take.source().to_owned(), take.id().to_owned()))
        .collect();
    let due = [
        ("billing", "1"),
        ("billing", "2"),
        ("billing", "3"),
        ("hr", "3"),
        ("hr", "2"),
    ];
    assert_eq!(
        keys,
        due.map(|(source, id)| (source.to_owned(), id.to_owned()))
    );
}

/// "No subscriber, no answer in time, or an answer that is not this: nothing in the request counts
/// as delivered."
#[tokio::test]
async fn invalid_answer_counts_as_none() {
    let world = World::start(&QUICK).await;
    let refusal = |reason: Value| json!({ "refused": [{ "id": "1", "source": "billing", "user": "u", "reason": reason }] });
    let say = |body: &str| -> Box<dyn Fn() -> Reply + Send> {
        let body = body.to_owned();
        Box::new(move || Reply::say(&body))
    };
    let mut cases: Vec<(String, Box<dyn Fn() -> Reply + Send>)> = vec![
        ("no UTF-8".into(), Box::new(|| Reply::say(b"\xff{}"))),
        ("no answer".into(), Box::new(Reply::silence)),
        (
            "late".into(),
            Box::new(|| Reply::say("{}").after(Duration::from_millis(700))),
        ),
        (
            "service error".into(),
            Box::new(|| Reply::say("{}").with_header("Nats-Service-Error-Code", "500")),
        ),
    ];
    let (tired, nothing) = (
        refusal(json!("tired")).to_string(),
        refusal(Value::Null).to_string(),
    );
    let bodies = [
        "",
        "ok",
        "[]",
        "[[]]",
        "42",
        "null",
        "{",
        r#"{"refused": 7}"#,
        r#"{"refused": ["1"]}"#,
        &tired,
        &nothing,
    ];
    cases.extend(bodies.map(|body| (format!("`{body}`"), say(body))));
    cases.push((
        "a field is missing".into(),
        say(r#"{"refused": [{"id": "1", "source": "billing"}]}"#),
    ));

    let mut apps = Vec::new();
    let users: Vec<_> = (0..cases.len()).map(|n| format!("user {n}")).collect();
    for (n, (_, reply)) in cases.into_iter().enumerate() {
        let app = world.app(&format!("app {n}"), &[&users[n]]).await;
        app.on_delivery(move |_| reply());
        apps.push(app);
    }
    let named = |n: usize| {
        users
            .iter()
            .map(move |user| reminder(format!("{n} {user}"), user))
    };
    for n in 0..3 {
        world.publish("billing", named(n)).await;
    }
    for (app, user) in apps.iter().zip(&users) {
        attempted(&world, app, &format!("0 {user}"), 3).await;
    }
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .all(|outcome| outcome.outcome == "parked")
    );

    for app in &apps {
        app.on_delivery(|_| Reply::say(r#"{"unknown": "field"}"#).taking(|_| true));
    }
    world.settle().await;
    for user in &users {
        let due: Vec<_> = (0..3).map(|n| format!("{n} {user}")).collect();
        world.taken(&due).await;
        assert_eq!(world.order(user), due);
    }
    world.settle().await;
    assert_eq!(
        world.repeats(),
        [],
        "the garbage took nothing, and what was accepted is not brought again"
    );
}

/// A late answer is none, even when it comes before the next attempt's.
#[tokio::test]
async fn late_answer_does_not_answer_the_next() {
    let world = World::start(&QUICK).await;
    let app = world.app("app-1", &["alice"]).await;
    let calls = Arc::new(AtomicUsize::new(0));
    app.on_delivery(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::accept().after(Duration::from_millis(600)),
        // The first answer comes while this one is awaited.
        1 => Reply::say("garbage").after(Duration::from_millis(300)),
        _ => Reply::accept(),
    });
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "delivered").await;
    world.settle().await;
    assert_eq!(app.attempts("1"), 3);
    assert_eq!(
        world.repeats(),
        [("billing".into(), "1".into(), "alice".into())],
        "it took the first one too"
    );
}

/// "Delivery is at least once; (`source`, `id`, `user`) is the key to drop repeats by."
#[tokio::test]
async fn unanswered_delivery_is_repeated_after_a_crash() {
    let world = World::start(&QUICK).await;
    let app = world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("0", "alice")]).await;
    world.taken(&["0"]).await;
    app.on_delivery(|_| Reply::accept().dying());
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "alice")])
        .await;
    world.taken(&["1", "2"]).await;
    world.all_became("billing", &["1", "2"], "parked").await;
    world.publish("billing", [reminder("3", "alice")]).await;
    app.recover();
    world.restart(&app).await;
    world.became("billing", "3", "delivered").await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["0", "1", "2", "3"]);
    let again = ["1", "2"].map(|id| ("billing".to_owned(), id.to_owned(), "alice".to_owned()));
    assert_eq!(world.repeats(), again);
    assert_eq!(
        world.first("1").reminder,
        with(last(&world, "1"), json!({ "parked_at": null })),
        "the same, but parked"
    );
}

fn last(world: &World, id: &str) -> Value {
    world
        .takes()
        .iter()
        .rfind(|take| take.id() == id)
        .unwrap()
        .reminder
        .clone()
}

/// "No subscriber, … nothing in the request counts as delivered", "its routes stay".
#[tokio::test]
async fn missing_subscriber_loses_nothing() {
    let world = World::start(&QUICK).await;
    let app = world.app("app-1", &["alice", "carol"]).await;
    world.app("app-2", &["bob"]).await;
    world.publish("billing", [reminder("0", "alice")]).await;
    world.taken(&["0"]).await;
    app.stop().await;
    let away = ["1", "2", "3", "4"].map(|id| reminder(id, "alice"));
    world
        .publish(
            "billing",
            away.into_iter().chain([reminder("never asked", "carol")]),
        )
        .await;
    world
        .publish("billing", [reminder("meanwhile", "bob")])
        .await;
    world.taken(&["meanwhile"]).await;
    world
        .all_became("billing", &["1", "2", "3", "4", "never asked"], "parked")
        .await;
    for user in ["alice", "carol"] {
        assert!(world.has_route(user, "app-1").await, "{user}");
    }
    world.restart(&app).await;
    world.taken(&["1", "2", "3", "4", "never asked"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["0", "1", "2", "3", "4"]);
    assert_eq!(world.repeats(), []);
}

/// A hung instance and a good one in one partition: requests of a minute, and no user at the good
/// one notices.
#[tokio::test]
async fn a_hung_instance_delays_only_its_own_users() {
    let minute = [
        ("partitions", "1"),
        ("delivery.timeout", "60s"),
        ("heartbeat.timeout", "60s"),
    ];
    let world = World::start(&minute).await;
    let (deaf, mute) = (
        world.app("deaf", &["dan"]).await,
        world.app("mute", &["mia"]).await,
    );
    world.app("good", &["bob"]).await;
    deaf.on_delivery(|_| Reply::silence());
    mute.on_heartbeat(|_| Reply::silence());
    world
        .publish(
            "billing",
            [
                reminder("d", "dan"),
                reminder("m", "mia"),
                reminder("b", "bob"),
            ],
        )
        .await;
    attempted(&world, &deaf, "d", 1).await;
    let is_asked = async || {
        if mute.heartbeats("mia") > 0 {
            Ok(())
        } else {
            Err("not asked".into())
        }
    };
    world.eventually("the mute one is asked", is_asked).await;
    let ids = numbers(0..200);
    for (n, id) in ids.iter().enumerate() {
        let hung =
            [("dan", "d"), ("mia", "m")].map(|(user, who)| reminder(format!("{who}{n}"), user));
        world
            .publish("billing", hung.into_iter().chain([reminder(id, "bob")]))
            .await;
    }
    world.taken(&ids).await;
    assert_eq!(
        (deaf.requests().len(), mute.requests().len()),
        (2, 1),
        "a heartbeat and a delivery; a heartbeat"
    );
}

/// "The instance is in the key, so a late delete from one instance can never remove the user's
/// newer route at another"
#[tokio::test]
async fn late_delete_keeps_a_newer_route() {
    let world = World::start(&[]).await;
    let old = world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.taken(&["1"]).await;
    let new = world.app("app-2", &["alice"]).await;
    old.expel("alice");
    old.delete_route("alice").await;
    world.publish("billing", [reminder("2", "alice")]).await;
    world.taken(&["2"]).await;
    world.settle().await;
    assert_eq!(world.first("2").app, "app-2");
    assert_eq!(
        world.trail("billing", "2").await,
        ["delivered"],
        "not by way of the mailbox"
    );
    assert_eq!(new.attempts("2"), 1);
}

/// "A user may have routes at several instances at once (several devices)."
#[tokio::test]
async fn instance_with_the_user_gets_the_reminder() {
    let world = World::start(&[("delivery.devices", "latest")]).await;
    let apps = [
        world.app("app-1", &["alice"]).await,
        world.app("app-2", &["alice"]).await,
    ];
    let ids = numbers(0..20);
    for id in &ids {
        world.publish("billing", [reminder(id, "alice")]).await;
    }
    world.taken(&ids).await;
    assert_eq!(world.order("alice"), ids);
    let first = world.first("19").app.clone();
    let (chosen, other) = if first == "app-1" {
        (&apps[0], "app-2")
    } else {
        (&apps[1], "app-1")
    };
    chosen.expel("alice");
    world.publish("billing", [reminder("next", "alice")]).await;
    world.taken(&["next"]).await;
    world.settle().await;
    assert_eq!(world.first("next").app, other);
    assert_eq!(
        world.trail("billing", "next").await,
        ["delivered"],
        "not by way of the mailbox"
    );
    assert_eq!(world.repeats(), []);
}

#[tokio::test]
async fn silent_instance_of_two_is_skipped() {
    let world = World::start(&QUICK).await;
    world.app("app-1", &["alice"]).await;
    let silent = world.app("app-2", &["alice"]).await; // The newer one.
    silent.on_heartbeat(|_| Reply::silence());
    silent.on_delivery(|_| Reply::silence());
    world
        .publish(
            "billing",
            numbers(0..10).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world.settle().await;
    assert_eq!(world.order("alice"), numbers(0..10));
    assert!(world.takes().iter().all(|take| take.app == "app-1"));
}

/// A route deleted while a delivery is under way: the answer still counts, and nothing else goes
/// there.
#[tokio::test]
async fn route_deleted_in_flight_ends_with_the_answer() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::accept().after(Duration::from_millis(300)));
    world.publish("billing", [reminder("1", "alice")]).await;
    attempted(&world, &app, "1", 1).await;
    app.delete_route("alice").await;
    world.publish("billing", [reminder("2", "alice")]).await;
    world.became("billing", "1", "delivered").await;
    world.became("billing", "2", "parked").await;
    world.settle().await;
    assert_eq!((app.attempts("1"), app.attempts("2")), (1, 0));
    assert_eq!(world.trail("billing", "1").await, ["delivered"]);
}

#[tokio::test]
async fn deleted_route_without_answer_parks() {
    let world = World::start(&QUICK).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::silence());
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "alice")])
        .await;
    attempted(&world, &app, "1", 1).await;
    app.delete_route("alice").await;
    world.all_became("billing", &["1", "2"], "parked").await;
    world.app("app-2", &["alice"]).await;
    world.taken(&["1", "2"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2"]);
    assert!(world.takes().iter().all(|take| take.app == "app-2"));
}

/// A refusal is about the route that was used: one put meanwhile stays.
#[tokio::test]
async fn route_put_in_flight_survives_old_refusal() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let calls = Arc::new(AtomicUsize::new(0));
    app.on_delivery(move |batch| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::refuse(batch, "not_connected", |_| true).after(Duration::from_millis(300)),
        _ => Reply::accept(),
    });
    world.publish("billing", [reminder("1", "alice")]).await;
    attempted(&world, &app, "1", 1).await;
    app.put_route("alice").await; // The user is back before the absence is noticed.
    world.taken(&["1"]).await;
    world.settle().await;
    assert!(world.has_route("alice", "app-1").await);
}

/// Value `{"subject": "bellhop.app.<instance>", "since": "..."}` "(an empty value means just that
/// default subject)"
#[tokio::test]
async fn instances_may_have_any_name_and_subject() {
    let world = World::start(&[]).await;
    let longest = "n".repeat(128);
    let instances = [
        ("app 1.*>", None),
        ("服务器", None),
        (longest.as_str(), None),
        ("custom", Some("region-7.chat.app")),
        ("own", Some("bellhop.app.own")),
        ("$JS", None),
    ];
    for (name, subject) in instances {
        let user = format!("of {}", &name.chars().take(20).collect::<String>());
        world.app_at(name, subject, &[&user]).await;
        world.publish("billing", [reminder(name, &user)]).await;
        world.taken(&[name]).await;
        let outcome = world.became("billing", name, "delivered").await;
        assert_eq!(outcome.instance.as_deref(), Some(name));
    }
}

#[tokio::test]
async fn a_route_may_move_to_another_subject() {
    let world = World::start(&[]).await;
    let old = world.app_at("app-1", Some("old.app"), &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.taken(&["1"]).await;
    world.app_at("app-1", Some("new.app"), &["alice"]).await;
    world.publish("billing", [reminder("2", "alice")]).await;
    world.taken(&["2"]).await;
    world.settle().await;
    assert_eq!((old.attempts("1"), old.attempts("2")), (1, 0));
}

/// Whatever else is in the bucket is not a route, does no harm, and is never sent to.
#[tokio::test]
async fn invalid_routes_are_ignored() {
    let world = World::start(&[]).await;
    let mut everything = world.client.subscribe(">").await.unwrap();
    let put = async |key: &str, value: &[u8]| {
        let subject = format!("$KV.bellhop_routes.{key}");
        world
            .jetstream
            .publish(subject, value.to_vec().into())
            .await
            .unwrap()
            .await
            .unwrap();
    };
    for key in [
        "alice",
        "alice.app-1.more",
        "al=zzice.app-1",
        "alice.=FF",
        "al%ice.app-1",
        "alice.a=2e",
    ] {
        put(key, b"").await;
    }
    let subjects = [
        "",
        "bad..subject",
        "bad.*",
        ">",
        "$JS.API.STREAM.DELETE.BELLHOP_LOG",
        "$SYS.bad",
        "_INBOX.bad",
        "bellhop.sets",
        "bellhop.outcomes",
        "bad subject",
        "bad.\u{7}",
    ];
    let mut values: Vec<Vec<u8>> = subjects
        .iter()
        .map(|subject| json!({ "subject": subject }).to_string().into())
        .collect();
    values.extend([
        b"yes".to_vec(),
        b"[]".into(),
        b"7".into(),
        br#"{"subject":7}"#.into(),
        b"\xff\xfe".into(),
        b"{".into(),
    ]);
    for (n, value) in values.iter().enumerate() {
        put(&format!("alice.bad-{n}"), value).await;
    }
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    world.app("app-1", &["alice"]).await;
    world.taken(&["1"]).await;
    world.settle().await;

    world.client.publish("the.end", "".into()).await.unwrap();
    let mut sent_to = Vec::new();
    while let Some(message) = everything.next().await {
        if message.subject.as_str() == "the.end" {
            break;
        }
        sent_to.push(message.subject.to_string());
    }
    assert!(
        sent_to
            .iter()
            .any(|subject| subject == "bellhop.app.app-1.deliver"),
        "everything is seen"
    );
    let is_request =
        |subject: &&String| subject.ends_with(".deliver") || subject.ends_with(".heartbeat");
    let strays: Vec<_> = sent_to
        .iter()
        .filter(is_request)
        .filter(|it| !it.starts_with("bellhop.app.app-1."))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

/// A business system needs no header and no acknowledgement to be served: core NATS publishes reach
/// the stream, too.
#[tokio::test]
async fn a_plain_publish_is_served_like_any_other() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let body = json!({ "reminders": [reminder("1", "alice")] }).to_string();
    world
        .client
        .publish("bellhop.sets.billing", body.clone().into())
        .await
        .unwrap();
    world.taken(&["1"]).await;
    let mut headers = HeaderMap::new();
    headers.insert("X-Anything", "is passed over");
    world
        .publish_bytes(
            "billing",
            body.replace("\"1\"", "\"2\"").as_bytes(),
            headers,
        )
        .await;
    world.taken(&["2"]).await;
}
