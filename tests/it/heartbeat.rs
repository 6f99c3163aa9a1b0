//! Heartbeats: when they are asked for, what their answers mean, and how long a confirmed
//! connection counts as held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{App, Asked, Reply, World, numbers, reminder};

/// Publishes and awaits one reminder after the other.
async fn one_by_one(world: &World, ids: &[String]) {
    for id in ids {
        world.publish("billing", [reminder(id, "alice")]).await;
        world.taken(&[id]).await;
    }
}

async fn asked(world: &World, app: &App, user: &str, times: usize) {
    let what = format!("it is asked about {user} {times} times");
    world
        .eventually(&what, async || match app.heartbeats(user) {
            heartbeats if heartbeats >= times => Ok(()),
            heartbeats => Err(format!("it was {heartbeats} times")),
        })
        .await;
}

/// "A connection that was confirmed (by a heartbeat or an accepted delivery) counts as held for the
/// lease"
#[tokio::test]
async fn lease_saves_heartbeats() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    one_by_one(&world, &numbers(0..20)).await;
    let due: Vec<_> = ["heartbeat"].into_iter().chain(["deliver"; 20]).collect();
    assert_eq!(app.verbs(), due);
    assert!(matches!(&app.requests()[0].asked, Asked::Heartbeat(users) if *users == ["alice"]));
    assert_eq!(app.requests()[0].body, r#"{"users":["alice"]}"#);
}

/// "Where several app servers answer under one name, only the first answer counts"
#[tokio::test]
async fn app_servers_that_share_a_name_are_found() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.app("app-1", &["alice"]).await;
    world.app("app-2", &["bob"]).await;
    let both = [reminder("1", "alice"), reminder("2", "bob")];
    world.publish("billing", both).await;
    let doctor = async || {
        let report = world.run(&["doctor"]).await.stdout;
        match report.contains("several app servers answer as app-1") {
            true => Ok(report),
            false => Err(report),
        }
    };
    let report = world
        .within(Duration::from_secs(60), "the doctor names app-1", doctor)
        .await;
    assert!(!report.contains("answer as app-2"), "{report}");
    let listed = world.run(&["instances", "ls", "--json"]).await.succeeded();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let answers = listed.iter().map(|one| (&one["instance"], &one["answers"]));
    let expected = [(json!("app-1"), json!(2)), (json!("app-2"), json!(1))];
    assert!(
        answers.eq(expected.iter().map(|(name, count)| (name, count))),
        "{listed:?}"
    );
    let log = world.member().log();
    assert!(
        log.contains("several app servers answer under one name"),
        "{log}"
    );
}

/// "`0` asks before every delivery"
#[tokio::test]
async fn without_lease_every_delivery_is_asked_for() {
    let world = World::start(&[("heartbeat.lease", "0s")]).await;
    let app = world.app("app-1", &["alice"]).await;
    one_by_one(&world, &numbers(0..20)).await;
    assert_eq!(app.verbs(), ["heartbeat", "deliver"].repeat(20));
}

#[tokio::test]
async fn mailbox_is_delivered_without_lease() {
    let world = World::start(&[("heartbeat.lease", "0s"), ("mailbox.page_messages", "10")]).await;
    let ids = numbers(0..50);
    world
        .publish("billing", ids.iter().map(|id| reminder(id, "alice")))
        .await;
    world.all_became("billing", &ids, "parked").await;
    let app = world.app("app-1", &["alice"]).await;
    world.taken(&ids).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ids);
    let verbs = app.verbs();
    let unasked = verbs
        .windows(2)
        .filter(|pair| *pair == ["deliver", "deliver"])
        .count();
    assert_eq!(unasked, 0, "{verbs:?}");
}

/// Every accepted delivery renews the lease; otherwise it ends.
#[tokio::test]
async fn the_lease_runs_from_the_last_confirmation() {
    let lease = Duration::from_millis(700);
    let world = World::start(&[("heartbeat.lease", "700ms")]).await;
    let app = world.app("app-1", &["alice"]).await;
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < 2 * lease {
        one_by_one(&world, &[count.to_string()]).await;
        count += 1;
    }
    let times: Vec<_> = app.requests().iter().map(|request| request.at).collect();
    let longest = times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap();
    // On a machine that stood still for so long, the router was right to ask again.
    assert!(
        app.heartbeats("alice") == 1 || longest > lease / 2,
        "{:?}",
        app.verbs()
    );

    tokio::time::sleep(lease).await; // It is time itself that the lease is about.
    one_by_one(&world, &["later".to_owned()]).await;
    assert!(
        app.verbs().ends_with(&["heartbeat", "deliver"]),
        "{:?}",
        app.verbs()
    );
}

/// "One request carries at most 1,000 users." Every request is measured; this one would have more.
#[tokio::test]
async fn heartbeat_holds_a_thousand_users() {
    let world = World::start(&[("partitions", "1")]).await;
    let users: Vec<_> = (0..2_500).map(|n| format!("user-{n}")).collect();
    let app = world.app("app-1", &[]).await;
    for user in &users {
        app.admit(user);
    }
    let routes: Vec<_> = users.iter().map(|user| app.put_route(user)).collect();
    futures_util::future::join_all(routes).await;
    let calls = AtomicUsize::new(0);
    app.on_heartbeat(move |users| {
        let answer = Reply::say(json!({ "connected": users }).to_string());
        // While the first one waits, everybody else queues up for the next.
        let is_first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first {
            answer.after(Duration::from_millis(500))
        } else {
            answer
        }
    });
    world
        .publish("billing", users.iter().map(|user| reminder(user, user)))
        .await;
    world.taken(&users).await;
    let sizes: Vec<_> = app
        .requests()
        .iter()
        .filter_map(|request| match &request.asked {
            Asked::Heartbeat(users) => Some(users.len()),
            Asked::Delivery(_) => None,
        })
        .collect();
    assert_eq!(sizes.iter().max(), Some(&1_000), "{sizes:?}");
    assert_eq!(
        sizes.iter().sum::<usize>(),
        2_500,
        "no user is asked about twice: {sizes:?}"
    );
}

/// "A user named in the answer is connected there and now; one left out is not, and its route is
/// dropped."
#[tokio::test]
async fn unconfirmed_user_loses_the_route() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice", "bob"]).await;
    app.expel("alice");
    world
        .publish("billing", [reminder("1", "alice"), reminder("bobs", "bob")])
        .await;
    world.became("billing", "1", "parked").await;
    let is_dropped = async || {
        if world.has_route("alice", "app-1").await {
            Err("it is there".into())
        } else {
            Ok(())
        }
    };
    world.eventually("the route is dropped", is_dropped).await;
    app.admit("alice"); // But no route is put.
    world.publish("billing", [reminder("2", "alice")]).await;
    world.became("billing", "2", "parked").await;
    world.taken(&["bobs"]).await;
    assert_eq!(
        (app.heartbeats("alice"), world.order("alice").len()),
        (1, 0)
    );
    assert!(world.has_route("bob", "app-1").await);
    app.connect(&["alice"]).await;
    world.taken(&["1", "2"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2"]);
}

#[tokio::test]
async fn unasked_names_are_ignored() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice", "bob"]).await;
    app.on_heartbeat(|users| {
        let others = ["carol", "", "\u{7}", "x\n"]
            .into_iter()
            .chain(users.iter().map(String::as_str));
        Reply::say(json!({ "connected": others.collect::<Vec<_>>() }).to_string())
    });
    world
        .publish("billing", [reminder("1", "alice"), reminder("c", "carol")])
        .await;
    world.taken(&["1"]).await;
    world.became("billing", "c", "parked").await;
    world.publish("billing", [reminder("2", "bob")]).await;
    world.taken(&["2"]).await;
    assert_eq!(
        app.heartbeats("bob"),
        1,
        "bob was not confirmed by an answer about alice"
    );
}

/// "An instance that did not answer is asked again, with back-off up to 30 s, …; its routes stay."
#[tokio::test]
async fn silent_instance_is_retried_with_growing_pauses() {
    let settings = [
        ("heartbeat.timeout", "100ms"),
        ("heartbeat.backoff_min", "100ms"),
        ("heartbeat.backoff_max", "400ms"),
    ];
    let world = World::start(&settings).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_heartbeat(|_| Reply::silence());
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "alice")])
        .await;
    asked(&world, &app, "alice", 6).await;
    assert!(world.has_route("alice", "app-1").await);
    let times: Vec<_> = app.requests().iter().map(|request| request.at).collect();
    // Time-outs of 100 ms and pauses of 100, 200, 400, 400, 400 ms make 2 s; without growth it is 1
    // s. A request may arrive late on a busy machine, so only the whole is measured.
    let in_all = (times[5] - times[0]).as_millis();
    assert!(in_all >= 1_700, "six heartbeats within {in_all} ms");
    app.recover();
    world.taken(&["1", "2"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2"]);
}

#[tokio::test]
async fn invalid_heartbeat_answer_counts_as_none() {
    let settings = [
        ("heartbeat.timeout", "500ms"),
        ("heartbeat.backoff_min", "50ms"),
        ("heartbeat.backoff_max", "100ms"),
    ];
    let world = World::start(&settings).await;
    let bodies = [
        "",
        "ok",
        "[]",
        "null",
        "{}",
        r#"{"connected": 7}"#,
        r#"{"connected": "alice"}"#,
        r#"{"connected": [7]}"#,
    ];
    let mut apps = Vec::new();
    for (n, body) in bodies.into_iter().enumerate() {
        let app = world
            .app(&format!("app-{n}"), &[&format!("user-{n}")])
            .await;
        app.on_heartbeat(move |_| Reply::say(body));
        apps.push(app);
    }
    let late = world
        .app(
            &format!("app-{}", apps.len()),
            &[&format!("user-{}", apps.len())],
        )
        .await;
    let answer = |users: &[String]| Reply::say(json!({ "connected": users }).to_string());
    late.on_heartbeat(move |users| answer(users).after(Duration::from_millis(700)));
    apps.push(late);
    let ids = numbers(0..apps.len());
    world
        .publish(
            "billing",
            ids.iter().map(|id| reminder(id, &format!("user-{id}"))),
        )
        .await;
    for (n, app) in apps.iter().enumerate() {
        asked(&world, app, &format!("user-{n}"), 2).await;
        assert!(
            world
                .has_route(&format!("user-{n}"), &format!("app-{n}"))
                .await
        );
    }
    assert_eq!(world.takes().len(), 0, "no user was confirmed");
    apps.iter().for_each(|app| app.recover());
    world.taken(&ids).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
}
