//! Mailboxes: what waits for a user who is away, in which order it goes out, and what never does.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{LATER, Reply, World, from_now, instant, numbers, reminder, with};

/// "one user's reminders are in order within it and across requests", "`parked_at` when it waited
/// in a mailbox"
#[tokio::test]
async fn mailbox_is_delivered_in_order_before_new_reminders() {
    let world = World::start(&[("mailbox.page_messages", "50")]).await;
    let (early, late) = (numbers(0..300), numbers(300..400));
    for (n, ids) in early.chunks(50).enumerate() {
        let source = ["billing", "hr"][n % 2];
        world
            .publish(source, ids.iter().map(|id| reminder(id, "alice")))
            .await;
        world.all_became(source, ids, "parked").await;
    }
    world.app("app-1", &["alice"]).await;
    for ids in late.chunks(5) {
        world
            .publish("billing", ids.iter().map(|id| reminder(id, "alice")))
            .await;
    }
    world.taken(&early).await;
    world.taken(&late).await;
    world.settle().await;
    assert_eq!(world.order("alice"), [early.clone(), late].concat());
    assert_eq!(world.repeats(), []);
    for id in &early {
        let got = &world.first(id).reminder;
        let time = |field: &str| {
            instant(
                got[field]
                    .as_str()
                    .unwrap_or_else(|| panic!("no {field} in {got}")),
            )
        };
        // Both are JetStream's own times, the one of the set and the other of the message in the
        // mailbox.
        assert!(time("parked_at") >= time("published_at"), "{got}");
    }
    assert_eq!(
        world.mailboxes("bellhop.parked.*.alice").await,
        Ok(0),
        "what was delivered is gone"
    );

    world.publish("hr", [reminder("direct", "alice")]).await;
    world.taken(&["direct"]).await;
    assert!(
        world.first("direct").reminder.get("parked_at").is_none(),
        "it never waited"
    );
}

/// "Priority does not change the order"
#[tokio::test]
async fn an_urgent_reminder_comes_after_earlier_ones() {
    let world = World::start(&[]).await;
    let ids = numbers(0..50);
    let of = |id: &String, priority| with(reminder(id, "alice"), json!({ "priority": priority }));
    world
        .publish("news", ids.iter().map(|id| of(id, "low")))
        .await;
    world
        .publish("claims", [of(&"urgent".to_owned(), "urgent")])
        .await;
    world.all_became("news", &ids, "parked").await;
    world.became("claims", "urgent", "parked").await;
    world.app("app-1", &["alice"]).await;
    world.became("claims", "urgent", "delivered").await;
    let expected: Vec<_> = ids.into_iter().chain(["urgent".to_owned()]).collect();
    assert_eq!(world.order("alice"), expected);
}

/// Not final: `parked`. The outcome that ends it comes when it is delivered.
#[tokio::test]
async fn parked_is_no_end() {
    let world = World::start(&[]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.alice").await, Ok(1));
    world.app("app-1", &["alice"]).await;
    let outcome = world.became("billing", "1", "delivered").await;
    assert_eq!(
        (outcome.instance.as_deref(), outcome.user.as_deref()),
        (Some("app-1"), Some("alice"))
    );
    world.settle().await;
    assert_eq!(world.trail("billing", "1").await, ["parked", "delivered"]);
}

/// At `mailbox.limit` the newest is refused: outcome `rejected`, error `mailbox_full`, and it lies
/// in BELLHOP_REJECTED.
#[tokio::test]
async fn a_full_mailbox_refuses_the_newest() {
    let world = World::start(&[("mailbox.limit", "5")]).await;
    let ids = numbers(0..8);
    world
        .publish("billing", ids.iter().map(|id| reminder(id, "alice")))
        .await;
    world.publish("billing", [reminder("bobs", "bob")]).await;
    world.all_became("billing", &ids[..5], "parked").await;
    let refused = world.all_became("billing", &ids[5..], "rejected").await;
    assert!(
        refused
            .iter()
            .all(|outcome| outcome.error.as_deref() == Some("mailbox_full")),
        "{refused:?}"
    );
    world.became("billing", "bobs", "parked").await;
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.alice").await, Ok(5));

    let rejected = world.all_rejected(3).await;
    assert_eq!(rejected.len(), 3);
    for (message, id) in rejected.iter().zip(&ids[5..]) {
        assert_eq!(
            (message.code(), message.subject.as_str()),
            ("mailbox_full", "bellhop.rejected.billing")
        );
        assert!(message.detail().contains("alice"), "{message:?}");
        let kept: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((&kept["id"], &kept["user"]), (&json!(id), &json!("alice")));
    }

    world.app("app-1", &["alice"]).await;
    world.taken(&ids[..5]).await;
    world.settle().await;
    world.publish("billing", [reminder("after", "alice")]).await;
    world.taken(&["after"]).await;
    world.settle().await;
    assert_eq!(
        world.order("alice"),
        [&ids[..5], &["after".to_owned()]].concat()
    );
}

/// One source has half of a mailbox, and what is urgent has room beyond what others may fill.
#[tokio::test]
async fn no_source_fills_a_mailbox_for_the_others() {
    let world = World::start(&[("mailbox.limit", "20")]).await;
    let of = |source: &str, range: std::ops::Range<usize>| {
        range.map(|n| format!("{source} {n}")).collect::<Vec<_>>()
    };
    let urgent = |id: &String| with(reminder(id, "zoe"), json!({ "priority": "urgent" }));
    let flood = of("billing", 0..15);
    world.publish("billing", flood.iter().map(urgent)).await;
    world.all_became("billing", &flood[..10], "parked").await;
    let refused = world.all_became("billing", &flood[10..], "rejected").await;
    assert!(
        refused
            .iter()
            .all(|outcome| outcome.error.as_deref() == Some("mailbox_full")),
        "{refused:?}"
    );
    let detail = world.all_rejected(5).await[0].detail().to_owned();
    assert!(
        ["zoe", "mailbox.limit", "20", "10"]
            .iter()
            .all(|part| detail.contains(part)),
        "{detail}"
    );

    let normal = of("claims", 0..8);
    world
        .publish("claims", normal.iter().map(|id| reminder(id, "zoe")))
        .await;
    world.all_became("claims", &normal[..6], "parked").await;
    world.all_became("claims", &normal[6..], "rejected").await;
    world.kill_and_revive().await;
    world.publish("billing", [urgent(&"late".to_owned())]).await;
    world.became("billing", "late", "rejected").await;
    world.publish("claims", [urgent(&"vital".to_owned())]).await;
    world.became("claims", "vital", "parked").await;
    world.app("app-1", &["zoe"]).await;
    let all = [&flood[..10], &normal[..6], &["vital".to_owned()]].concat();
    world.taken(&all).await;
    world.settle().await;
    assert_eq!(world.order("zoe"), all);
}

/// Erased reminders, and those purged by hand, make room at once.
#[tokio::test]
async fn a_mailbox_that_was_emptied_takes_new_reminders() {
    let world = World::start(&[("mailbox.limit", "5")]).await;
    for (round, emptied) in [
        &["erase", "alice", "--force"][..],
        &["mailbox", "purge", "alice", "--force"],
    ]
    .iter()
    .enumerate()
    {
        let ids = numbers(10 * round..10 * round + 6);
        world
            .publish("billing", ids.iter().map(|id| reminder(id, "alice")))
            .await;
        world.all_became("billing", &ids[..5], "parked").await;
        world.became("billing", &ids[5], "rejected").await;
        world.run(emptied).await.succeeded();
        let after = format!("after {round}");
        world.publish("billing", [reminder(&after, "alice")]).await;
        world.became("billing", &after, "parked").await;
        world
            .run(&["mailbox", "purge", "alice", "--force"])
            .await
            .succeeded();
    }
}

/// Room that deliveries make is room for new ones, also for the next owner of the partition.
#[tokio::test]
async fn full_mailbox_survives_restart() {
    let world = World::start(&[("mailbox.limit", "5")]).await;
    world
        .publish(
            "billing",
            numbers(0..5).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world.all_became("billing", &numbers(0..5), "parked").await;
    world.settle().await;
    world.kill_and_revive().await;
    world.publish("billing", [reminder("5", "alice")]).await;
    world.became("billing", "5", "rejected").await;

    let app = world.app("app-1", &["alice"]).await;
    world.taken(&numbers(0..5)).await;
    world.settle().await;
    app.expel("alice");
    app.delete_route("alice").await;
    world
        .publish(
            "billing",
            numbers(6..12).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world.all_became("billing", &numbers(6..11), "parked").await;
    world.became("billing", "11", "rejected").await;
    world.settle().await;
}

/// "`expires_at` … never delivered after this", and its outcome is recorded although no user
/// returned.
#[tokio::test]
async fn reminder_expired_during_absence_is_not_delivered() {
    let world = World::start(&[("mailbox.expiry_interval", "100ms")]).await;
    let ends_in =
        |millis: i64| json!({ "expires_at": from_now(SignedDuration::from_millis(millis)) });
    let (short, long) = (ends_in(1_200), ends_in(600_000));
    let set = [
        reminder("1", "alice"),
        with(reminder("short", "alice"), short.clone()),
        with(reminder("2", "alice"), long.clone()),
        with(reminder("short too", "alice"), short.clone()),
    ];
    world.publish("billing", set).await;
    world
        .all_became("billing", &["1", "short", "2", "short too"], "parked")
        .await;
    for outcome in world
        .all_became("billing", &["short", "short too"], "expired")
        .await
    {
        assert!(
            instant(&outcome.at) >= instant(short["expires_at"].as_str().unwrap()),
            "{outcome:?} is early"
        );
    }
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.alice").await, Ok(2));
    world.app("app-1", &["alice"]).await;
    world.taken(&["1", "2"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2"]);
    assert_eq!(world.trail("billing", "short").await, ["parked", "expired"]);
}

/// Expired reminders take no room in a mailbox, with the default interval of the look for them.
#[tokio::test]
async fn expired_reminders_leave_room_in_a_mailbox() {
    let world = World::start(&[("mailbox.limit", "3")]).await;
    let ids = ["1", "2", "3"];
    let ends = |seconds| json!({ "expires_at": from_now(SignedDuration::from_secs(seconds)) });
    let short = ids.iter().zip(2..);
    let short = short.map(|(id, seconds)| with(reminder(id, "alice"), ends(seconds)));
    world.publish("billing", short).await;
    world.all_became("billing", &ids, "parked").await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await; // All have expired then.
    world.publish("billing", [reminder("4", "alice")]).await;
    world.became("billing", "4", "parked").await;
    world.all_became("billing", &ids, "expired").await;
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.alice").await, Ok(1));
}

/// The next owner of a partition knows what expires in mailboxes that it has not filled.
#[tokio::test]
async fn reminder_expired_across_restart_is_not_delivered() {
    let world = World::start(&[]).await;
    let short = json!({ "expires_at": from_now(SignedDuration::from_millis(1_500)) });
    world
        .publish(
            "billing",
            [
                with(reminder("short", "alice"), short),
                reminder("1", "alice"),
            ],
        )
        .await;
    world.all_became("billing", &["short", "1"], "parked").await;
    world.kill_and_revive().await;
    world.became("billing", "short", "expired").await;
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.alice").await, Ok(1));
}

#[tokio::test]
async fn reminder_expired_at_silent_instance_is_not_delivered() {
    let settings = [
        ("delivery.timeout", "300ms"),
        ("heartbeat.backoff_min", "50ms"),
        ("heartbeat.backoff_max", "100ms"),
    ];
    let world = World::start(&settings).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::silence());
    let short = json!({ "expires_at": from_now(SignedDuration::from_millis(1_000)) });
    world
        .publish(
            "billing",
            [
                with(reminder("short", "alice"), short.clone()),
                reminder("1", "alice"),
            ],
        )
        .await;
    world.became("billing", "short", "expired").await;
    let deadline = instant(short["expires_at"].as_str().unwrap());
    app.recover();
    world.taken(&["1"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1"]);
    assert!(app.attempts("short") > 0, "it was tried before {deadline}");
}

/// A user who moves from one instance to another while the mailbox is delivered: nothing is lost,
/// and the order stays.
#[tokio::test]
async fn user_moves_during_mailbox_delivery() {
    let world = World::start(&[]).await;
    let ids = numbers(0..1_500);
    for ids in ids.chunks(500) {
        let large = |id: &String| {
            with(
                reminder(id, "alice"),
                json!({ "content": format!("{id} {}", "c".repeat(1_000)) }),
            )
        };
        world.publish("billing", ids.iter().map(large)).await;
    }
    world.all_became("billing", &ids, "parked").await;
    let (old, new) = (world.app("app-1", &[]).await, world.app("app-2", &[]).await);
    old.on_delivery(|_| Reply::accept().after(Duration::from_millis(50)));
    old.connect(&["alice"]).await;
    let is_begun = async || {
        if world.takes().is_empty() {
            Err("nothing is taken".into())
        } else {
            Ok(())
        }
    };
    world.eventually("the delivery has begun", is_begun).await;
    old.recover();
    old.expel("alice");
    new.connect(&["alice"]).await;
    old.delete_route("alice").await; // Late.
    world.taken(&ids).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ids);
    let at_new = world
        .takes()
        .iter()
        .filter(|take| take.app == "app-2")
        .count();
    assert!(
        0 < at_new && at_new < ids.len(),
        "{at_new} at the new instance"
    );
}

/// Away again in the middle: the rest waits on, in order, behind nothing and before everything new.
#[tokio::test]
async fn user_leaves_during_mailbox_delivery() {
    let world = World::start(&[("mailbox.page_messages", "20")]).await;
    let (early, late) = (numbers(0..200), numbers(200..220));
    world
        .publish("billing", early.iter().map(|id| reminder(id, "alice")))
        .await;
    world.all_became("billing", &early, "parked").await;
    let app = world.app("app-1", &[]).await;
    app.on_delivery(|batch| {
        let is_late =
            |one: &serde_json::Value| one["id"].as_str().unwrap().parse::<u32>().unwrap() >= 50;
        Reply::refuse(batch, "not_connected", is_late)
    });
    app.connect(&["alice"]).await;
    world.taken(&early[..50]).await;
    world
        .publish("billing", late.iter().map(|id| reminder(id, "alice")))
        .await;
    world.all_became("billing", &late, "parked").await;
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.alice").await, Ok(170));
    app.recover();
    app.connect(&["alice"]).await;
    world.taken(&late).await;
    world.settle().await;
    assert_eq!(world.order("alice"), [early, late].concat());
    assert_eq!(world.repeats(), []);
}

/// Parked reminders are in JetStream: a killed and restarted server has them.
#[tokio::test]
async fn mailboxes_outlive_bellhop_and_nats() {
    let world = World::start(&[]).await;
    let ids = numbers(0..100);
    world
        .publish("billing", ids.iter().map(|id| reminder(id, "alice")))
        .await;
    world.all_became("billing", &ids, "parked").await;
    world.member().kill();
    world.kill_nats().await;
    world.restart_nats().await;
    world.serve_as("member-1").await;
    world.app("app-1", &["alice"]).await;
    world.taken(&ids).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ids);
    assert_eq!(world.repeats(), []);
}

/// Many users at once, as after a deployment of the app servers: each gets its own, in order.
#[tokio::test]
async fn many_users_return_at_once() {
    let world = World::start(&[]).await;
    let users: Vec<_> = (0..200).map(|n| format!("user-{n}")).collect();
    for round in 0..5 {
        world
            .publish(
                "billing",
                users
                    .iter()
                    .map(|user| reminder(format!("{user}/{round}"), user)),
            )
            .await;
    }
    let last: Vec<_> = users.iter().map(|user| format!("{user}/4")).collect();
    world.all_became("billing", &last, "parked").await;
    let app = world.app("app-1", &[]).await;
    users.iter().for_each(|user| app.admit(user));
    futures_util::future::join_all(users.iter().map(|user| app.put_route(user))).await;
    world.taken_within(LATER, &last).await;
    world.settle().await;
    for user in &users {
        assert_eq!(
            world.order(user),
            (0..5)
                .map(|round| format!("{user}/{round}"))
                .collect::<Vec<_>>()
        );
    }
    assert_eq!(world.repeats(), []);
}

/// A message in a mailbox that Bellhop did not write is set aside, and what lies around it is
/// delivered.
#[tokio::test]
async fn corrupt_message_in_mailbox_is_set_aside() {
    let world = World::start(&[]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    let mailbox = {
        let stream = world.jetstream.get_stream("BELLHOP_PARKED").await.unwrap();
        let filter = "bellhop.parked.*.alice";
        let message = stream
            .raw_message_builder()
            .sequence(1)
            .next_by_subject(filter)
            .send()
            .await
            .unwrap();
        message.subject.to_string()
    };
    let corrupt = [
        "",
        "not an event",
        "{}\n",
        "{\"source\":\"billing\",\"set\":\"1\",\"reminders\":[]}\n",
        "\n",
    ];
    for body in corrupt {
        world
            .jetstream
            .publish(mailbox.clone(), body.into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    world.publish("billing", [reminder("2", "alice")]).await;
    world.became("billing", "2", "parked").await;
    world.app("app-1", &["alice"]).await;
    world.taken(&["1", "2"]).await;
    world.publish("billing", [reminder("3", "alice")]).await;
    world.taken(&["3"]).await;

    let rejected = world.all_rejected(corrupt.len()).await;
    let mut bodies: Vec<_> = rejected
        .iter()
        .map(|it| String::from_utf8(it.payload.to_vec()).unwrap())
        .collect();
    bodies.sort();
    let mut due = corrupt;
    due.sort();
    assert_eq!(bodies, due);
    for message in &rejected {
        assert_eq!(
            (message.code(), message.subject.as_str()),
            ("corrupt_event", "bellhop.rejected.bellhop")
        );
    }
    world
        .eventually("the mailbox is empty", async || {
            match world.mailboxes("bellhop.parked.*.alice").await? {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["1", "2", "3"]);
}

/// A message that is gone before Bellhop removes it: that is as good, and nothing is tried for
/// ever.
#[tokio::test]
async fn externally_removed_message_is_gone() {
    let world = World::start(&[]).await;
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "alice")])
        .await;
    world.all_became("billing", &["1", "2"], "parked").await;
    let app = world.app("app-1", &[]).await;
    app.on_delivery(|batch| {
        Reply::refuse(batch, "busy", |one| one["id"] == "1").after(Duration::from_millis(300))
    });
    app.connect(&["alice"]).await;
    world.taken(&["2"]).await;
    let stream = world.jetstream.get_stream("BELLHOP_PARKED").await.unwrap();
    let last = stream
        .get_last_raw_message_by_subject("bellhop.parked.*.alice")
        .await
        .unwrap();
    assert!(
        String::from_utf8_lossy(&last.payload).contains("content of 2"),
        "{last:?}"
    );
    stream.delete_message(last.sequence).await.unwrap();
    world.became("billing", "2", "delivered").await;
    app.recover();
    world.taken(&["1"]).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);

    // Endless work would keep it from stopping.
    let (member, began) = (world.member(), Instant::now());
    member.signal("TERM");
    assert_eq!(world.ended(&member).await.code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?} to stop\n{}",
        began.elapsed(),
        member.log()
    );
}

/// Corrupt messages, found by a new owner, and under a subject without a user.
#[tokio::test]
async fn corrupt_mailbox_does_not_stop_takeover() {
    let world = World::start(&[("partitions", "1")]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    world.member().kill();
    for subject in [
        "bellhop.parked.0.alice",
        "bellhop.parked.0.bob",
        "bellhop.parked.0.=zz",
        "bellhop.parked.0.a%b",
        "bellhop.parked.9.carol",
    ] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Bellhop-Event", "no.event");
        headers.insert("Bellhop-Expires-At", "never");
        world
            .jetstream
            .publish_with_headers(subject, headers, "corrupt".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    world.serve_as("member-1").await;
    world
        .publish("billing", [reminder("2", "alice"), reminder("b", "bob")])
        .await;
    world.app("app-1", &["alice", "bob"]).await;
    world.taken(&["1", "2", "b"]).await;
    assert_eq!(world.order("alice"), ["1", "2"]);
    let rejected = world.all_rejected(2).await;
    assert!(
        rejected
            .iter()
            .all(|message| message.code() == "corrupt_event" && message.payload == "corrupt")
    );
}
