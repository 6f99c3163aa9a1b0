//! Reminders that are to be delivered later: held by nats-server, delivered when they are due,
//! taken back before that.

use std::time::Duration;

use async_nats::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::{World, from_now, instant, reminder, with};

fn later(id: &str, user: &str, offset: SignedDuration) -> Value {
    with(
        reminder(id, user),
        json!({ "deliver_at": from_now(offset) }),
    )
}

fn soon(id: &str, user: &str) -> Value {
    later(id, user, SignedDuration::from_millis(1_500))
}

fn in_an_hour(id: &str, user: &str) -> Value {
    later(id, user, SignedDuration::from_hours(1))
}

impl World {
    /// Returns the scheduled reminders, the next one first.
    async fn scheduled(&self) -> Vec<Value> {
        let listed = self.run(&["scheduled", "ls", "--json"]).await.succeeded();
        serde_json::from_str(&listed).unwrap()
    }

    async fn is_scheduled(&self, ids: &[&str]) {
        self.eventually(&format!("{ids:?} are scheduled"), async || {
            let listed = self.scheduled().await;
            let found: Vec<_> = listed
                .iter()
                .map(|one| one["id"].as_str().unwrap())
                .collect();
            if found == ids {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }
}

/// "`deliver_at`: not delivered before this", on a reminder or on a set.
#[tokio::test]
async fn nothing_is_delivered_before_it_is_due() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob"]).await;
    let of_set = json!({ "id": "s", "deliver_at": from_now(SignedDuration::from_millis(1_500)), "reminders": [
        reminder("by its set", "alice"), soon("itself", "bob"), with(reminder("past", "alice"), json!({ "deliver_at": "2020-01-01T00:00:00Z" })),
        { "user": "alice", "content": "without a name", "reroute": false, "data": {"n": 1.50} },
    ]});
    world.publish_set("billing", of_set, HeaderMap::new()).await;
    world.taken(&["past"]).await;
    world.taken(&["by its set", "itself", "s#3"]).await;
    for id in ["by its set", "itself", "s#3", "past"] {
        let got = world.first(id).reminder.clone();
        let due = instant(got["deliver_at"].as_str().unwrap());
        let accepted = instant(&world.became("billing", id, "delivered").await.at);
        assert!(
            accepted >= due,
            "{id} was due at {due} and accepted at {accepted}"
        );
        assert!(
            instant(got["published_at"].as_str().unwrap()) >= due,
            "it counts as published when it was due: {got}"
        );
        assert_eq!(got["set"], "s");
    }
    assert_eq!(world.first("s#3").reminder["data"], json!({ "n": 1.5 }));
    assert_eq!(world.takes().len(), 4);
    world.settle().await;
    assert_eq!(world.scheduled().await.len(), 0);
}

/// "one for each source and id": a later word replaces an earlier one, and a cancellation leaves
/// nothing of it.
#[tokio::test]
async fn scheduled_reminder_can_be_changed_and_cancelled() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world
        .publish(
            "billing",
            [
                in_an_hour("moved", "alice"),
                in_an_hour("cancelled", "alice"),
                in_an_hour("kept", "alice"),
            ],
        )
        .await;
    world
        .publish("hr", [in_an_hour("cancelled", "alice")])
        .await;
    world
        .is_scheduled(&["moved", "cancelled", "kept", "cancelled"])
        .await;
    // Set by set, in order: what follows an acknowledged set finds it done.
    let replaced = with(
        soon("replaced", "alice"),
        json!({ "content": "the second" }),
    );
    world
        .publish(
            "billing",
            [
                in_an_hour("replaced", "alice"),
                in_an_hour("brief", "alice"),
            ],
        )
        .await;
    let set = json!({ "cancel": ["cancelled", "brief", "never heard of"], "reminders": [replaced, soon("moved", "alice")] });
    world.publish_set("billing", set, HeaderMap::new()).await;
    world
        .all_became("billing", &["cancelled", "brief"], "cancelled")
        .await;
    world.taken(&["moved", "replaced"]).await;
    assert_eq!(world.first("replaced").reminder["content"], "the second");
    let left = world.scheduled().await;
    let left: Vec<_> = left
        .iter()
        .map(|one| (one["source"].as_str().unwrap(), one["id"].as_str().unwrap()))
        .collect();
    assert_eq!(
        left,
        [("billing", "kept"), ("hr", "cancelled")],
        "another source's is another reminder"
    );

    let output = world
        .run(&["scheduled", "cancel", "hr", "cancelled"])
        .await
        .succeeded();
    assert!(
        output.contains("reminder cancelled of hr is cancelled"),
        "{output}"
    );
    assert_eq!(
        world
            .became("hr", "cancelled", "cancelled")
            .await
            .user
            .as_deref(),
        Some("alice")
    );
    let again = world.run(&["scheduled", "cancel", "hr", "cancelled"]).await;
    assert!(
        again.code == Some(1) && again.stderr.contains("is not scheduled"),
        "{again:?}"
    );
    let table = world
        .run(&["scheduled", "ls", "--source", "billing"])
        .await
        .succeeded();
    assert!(
        table.contains("kept") && table.contains("1 scheduled reminder"),
        "{table}"
    );
    let why = world.run(&["why", "billing", "kept"]).await.succeeded();
    assert!(why.contains("scheduled for"), "{why}");
    assert_eq!(world.takes().len(), 2, "nothing else was delivered");
}

/// "An entry may name one user": the reminders of other users of that id stay.
#[tokio::test]
async fn one_users_reminder_is_cancelled_alone() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob", "carol"]).await;
    let users = ["alice", "bob", "carol"];
    world
        .publish("billing", users.map(|user| in_an_hour("meeting", user)))
        .await;
    world.is_scheduled(&["meeting"; 3]).await;
    let set = json!({ "cancel": [{ "id": "meeting", "user": "alice" }],
        "reminders": [soon("soon", "alice"), soon("soon", "bob")] });
    world.publish_set("billing", set, HeaderMap::new()).await;
    let cancelled = world.became("billing", "meeting", "cancelled").await;
    assert_eq!(cancelled.user.as_deref(), Some("alice"));
    // One that comes due while the cancellation is under way is known, too.
    let set = json!({ "cancel": [{ "id": "soon", "user": "bob" }] });
    world
        .publish_bytes("billing", set.to_string().as_bytes(), HeaderMap::new())
        .await;
    let cancelled = world.became("billing", "soon", "cancelled").await;
    assert_eq!(cancelled.user.as_deref(), Some("bob"));
    world.taken(&["soon"]).await;
    let args = [
        "scheduled",
        "cancel",
        "billing",
        "meeting",
        "--user",
        "carol",
    ];
    let said = world.run(&args).await.succeeded();
    assert!(said.contains("for carol is cancelled"), "{said}");
    let again = world.run(&args).await;
    assert!(
        again.code == Some(1) && again.stderr.contains("for carol is not scheduled"),
        "{again:?}"
    );
    let left = world.scheduled().await;
    assert_eq!((left.len(), &left[0]["user"]), (1, &json!("bob")));
    assert_eq!(world.takes().len(), 1);
}

/// A restart loses none: of nats-server, and of Bellhop while reminders come due.
#[tokio::test]
async fn a_restart_loses_none() {
    let world = World::start(&[]).await;
    let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let due = |n: usize| SignedDuration::from_millis(1_000 + 20 * n as i64);
    let all: Vec<Value> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| later(id, "alice", due(n)))
        .collect();
    world.publish("billing", all).await;
    world
        .eventually("all are scheduled", async || {
            match world.stream("BELLHOP_SCHEDULED").await.state.last_sequence {
                sequence if sequence >= 200 => Ok(()),
                sequence => Err(format!("{sequence}")),
            }
        })
        .await;
    world.kill_nats().await;
    world.restart_nats().await;
    let member = world.kill_and_revive().await;
    world
        .eventually("it is ready again", async || member.is_ready().await)
        .await;
    world.app("app-1", &["alice"]).await;
    world.taken(&ids).await;
    assert_eq!(world.repeats(), []);
    world.settle().await;
}

/// A set that is published again, before or after it is due, adds no reminder. Errors are reported
/// at once.
#[tokio::test]
async fn scheduled_duplicates_and_errors_are_handled_early() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let set = json!({ "reminders": [soon("once", "alice")] });
    for _ in 0..2 {
        world
            .publish_set("billing", set.clone(), HeaderMap::new())
            .await;
    }
    world.taken(&["once"]).await;
    world.publish_set("billing", set, HeaderMap::new()).await;
    let late = json!({ "deliver_at": from_now(SignedDuration::from_hours(2)), "expires_at": from_now(SignedDuration::from_hours(1)) });
    world
        .publish(
            "billing",
            [
                with(reminder("never", "alice"), late),
                reminder("fence", "alice"),
            ],
        )
        .await;
    world.taken(&["fence"]).await;
    assert_eq!(
        world
            .became("billing", "never", "rejected")
            .await
            .error
            .as_deref(),
        Some("invalid_deliver_at")
    );
    world.settle().await;
    // It is known when it is due.
    world.is_scheduled(&[]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["once", "fence"]);
}

/// Rules, merging and expiry are those of the day on which it is due; who is erased gets nothing
/// later.
#[tokio::test]
async fn an_erased_user_gets_nothing_later() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob"]).await;
    world
        .publish(
            "billing",
            [
                soon("1", "alice"),
                soon("2", "bob"),
                in_an_hour("3", "alice"),
            ],
        )
        .await;
    world.is_scheduled(&["1", "2", "3"]).await;
    let erased = world
        .run(&["erase", "alice", "-f", "--json"])
        .await
        .succeeded();
    let erased: Value = serde_json::from_str(&erased).unwrap();
    assert_eq!(erased["erased"]["scheduled"], 2);
    world.taken(&["2"]).await;
    assert_eq!(world.takes().len(), 1);
    assert!(world.scheduled().await.is_empty());
}

/// Bellhop publishes what is due, and no publisher can choose a message id that keeps it out.
#[tokio::test]
async fn another_sources_message_ids_keep_nothing_due_out() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("hr", [soon("s1", "alice")]).await;
    world.is_scheduled(&["s1"]).await;
    for number in 1..=20 {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("due {number}"));
        world
            .publish_set(
                "billing",
                json!({ "reminders": [reminder(number.to_string(), "alice")] }),
                headers,
            )
            .await;
    }
    world.taken(&["s1"]).await;
    world.settle().await;
}

#[tokio::test]
async fn unschedulable_reminder_is_refused_at_once() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let at = |id: &str, at: &str| with(reminder(id, "alice"), json!({ "deliver_at": at }));
    let far = [
        at("2263", "2263-01-01T00:00:00Z"),
        at("6000", "6000-01-01T00:00:00Z"),
        at("9999", "9999-12-31T23:59:59Z"),
    ];
    world
        .publish(
            "billing",
            far.into_iter().chain([at("2200", "2200-01-01T00:00:00Z")]),
        )
        .await;
    for id in ["2263", "6000", "9999"] {
        assert_eq!(
            world
                .became("billing", id, "rejected")
                .await
                .error
                .as_deref(),
            Some("invalid_deliver_at")
        );
    }
    world.is_scheduled(&["2200"]).await;
    for refused in world.all_rejected(3).await {
        assert!(refused.detail().contains("2262"), "{}", refused.detail());
    }
    world.publish("billing", [reminder("fence", "alice")]).await;
    world.taken(&["fence"]).await;
    assert_eq!(
        world.stream("BELLHOP_LOG").await.state.last_sequence,
        2,
        "nothing circulates"
    );
}

#[tokio::test]
async fn cancelled_and_republished_reminder_ends_once() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world
        .publish(
            "billing",
            [
                in_an_hour("now", "alice"),
                in_an_hour("later", "alice"),
                in_an_hour("no", "alice"),
            ],
        )
        .await;
    world.is_scheduled(&["now", "later", "no"]).await;
    let again = |id: &str| with(reminder(id, "alice"), json!({ "content": "again" }));
    let later = with(soon("later", "alice"), json!({ "content": "again" }));
    let set = json!({ "cancel": ["now", "later", "no"], "reminders": [again("now"), later] });
    world.publish_set("billing", set, HeaderMap::new()).await;
    world.became("billing", "no", "cancelled").await;
    world.taken(&["now", "later"]).await;
    world.settle().await;
    for id in ["now", "later"] {
        assert_eq!(world.first(id).reminder["content"], "again");
        assert_eq!(world.trail("billing", id).await, ["delivered"], "{id}");
    }
    assert!(world.scheduled().await.is_empty());
}

/// "There is one of each source and id", also where the later word is due at once.
#[tokio::test]
async fn a_reminder_is_moved_to_now() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world
        .publish("billing", [in_an_hour("moved", "alice")])
        .await;
    let now =
        json!({ "content": "new text", "deliver_at": from_now(SignedDuration::from_millis(-500)) });
    world
        .publish("billing", [with(reminder("moved", "alice"), now)])
        .await;
    world.taken(&["moved"]).await;
    assert_eq!(world.first("moved").reminder["content"], "new text");
    world
        .eventually("nothing is scheduled", async || {
            match world.scheduled().await.len() {
                0 => Ok(()),
                left => Err(format!("{left} are")),
            }
        })
        .await;
    world.settle().await;
    assert_eq!(world.trail("billing", "moved").await, ["delivered"]);
}

/// "A reminder is cancelled if JetStream stored the cancellation before the reminder's
/// `deliver_at`", for as many as a set can cancel.
#[tokio::test]
async fn ten_thousand_are_cancelled_a_second_before() {
    const MANY: u64 = 10_000;
    let world = World::start(&[]).await;
    world.app("app-1", &["u0", "u9999", "alice"]).await;
    let ids: Vec<String> = (0..MANY).map(|n| n.to_string()).collect();
    // Storing them takes a while.
    let due = from_now(SignedDuration::from_secs(30));
    let all = ids
        .iter()
        .map(|id| json!({ "id": id, "user": format!("u{id}"), "content": "c" }));
    let set = json!({ "deliver_at": due, "reminders": all.collect::<Vec<_>>() });
    world.publish_set("billing", set, HeaderMap::new()).await;
    let until = |offset: SignedDuration| {
        let wait = instant(&due).duration_since(instant(&from_now(-offset)));
        wait.max(SignedDuration::ZERO).unsigned_abs()
    };
    let before = SignedDuration::from_secs(-1);
    let is_stored = async || match world.stream("BELLHOP_SCHEDULED").await.state.last_sequence {
        MANY.. => Ok(()),
        sequence => Err(format!("{sequence}")),
    };
    world
        .within(until(before), "all are scheduled", is_stored)
        .await;
    tokio::time::sleep(until(before)).await;
    let cancellation = json!({ "cancel": ids }).to_string();
    world
        .publish_bytes("billing", cancellation.as_bytes(), HeaderMap::new())
        .await;
    assert!(
        !until(SignedDuration::ZERO).is_zero(),
        "it was stored in time"
    );
    world.publish("billing", [soon("kept", "alice")]).await;
    world.all_became("billing", &ids, "cancelled").await;
    world.became("billing", "kept", "delivered").await;
    world.settle().await;
    let taken: Vec<_> = world
        .takes()
        .iter()
        .map(|take| take.id().to_owned())
        .collect();
    assert_eq!(taken, ["kept"]);
}

/// nats-server could only drop the oldest of them at a limit of its own, and those were
/// acknowledged.
#[tokio::test]
async fn schedules_beyond_their_room_are_refused() {
    // A tenth is theirs.
    let world = World::start(&[("streams.storage", "67108864")]).await;
    let limit = 67_108_864 / 10;
    let large = |id: &str| {
        with(
            in_an_hour(id, "alice"),
            json!({ "content": "x".repeat(60_000) }),
        )
    };
    let kept = async || world.stream("BELLHOP_SCHEDULED").await.state.messages as usize;
    let publish = async |source: &str, name: &str| {
        let ids: Vec<_> = (0..15).map(|n| format!("{name}-{n}")).collect();
        let before = kept().await;
        world.publish(source, ids.iter().map(|id| large(id))).await;
        let is_done = async || {
            let outcomes = world.outcomes.all().await;
            let refused = outcomes
                .iter()
                .filter(|one| one.source == source && ids.contains(&one.id))
                .count();
            let scheduled = kept().await - before;
            if refused + scheduled == ids.len() {
                Ok(refused)
            } else {
                Err(format!("{refused} and {scheduled}"))
            }
        };
        world
            .eventually("each is scheduled or refused", is_done)
            .await
    };
    let mut sets = 0;
    while publish("flood", &format!("flood-{sets}")).await == 0 {
        sets += 1;
        assert!(sets < 20, "one source takes everything");
    }
    let of_flood = world.stream("BELLHOP_SCHEDULED").await.state.bytes;
    assert!(
        of_flood > limit / 2 && of_flood < limit / 4 * 3,
        "{of_flood} of {limit}"
    );
    let code = async || world.rejected.all().await.last().unwrap().code().to_owned();
    assert_eq!(code().await, "scheduled_full");
    // Others have room, up to the limit.
    assert_eq!(publish("claims", "claims").await, 0);
    let mut sets = 0;
    while publish("hr", &format!("hr-{sets}")).await == 0 {
        sets += 1;
        assert!(sets < 20, "there is no limit");
    }
    assert!(world.stream("BELLHOP_SCHEDULED").await.state.bytes <= limit);
    let doctor = world.run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("that Bellhop schedules"),
        "{}",
        doctor.stdout
    );
    let is_measured = async || {
        let metrics = world.member().probe("GET", "/metrics").await?.body;
        let is_there = metrics.contains("\nbellhop_stream_limit_bytes{stream=\"scheduled\"} 67108");
        if is_there {
            Ok(())
        } else {
            Err("no such line".to_owned())
        }
    };
    world.eventually("the limit is measured", is_measured).await;
}

/// "It counts as published at that moment", also after an outage in which many came due.
#[tokio::test]
async fn due_in_an_outage_comes_by_moment() {
    let world = World::start(&[]).await;
    let users = ["u1", "u2", "u3", "u4", "u5"];
    world.app("app-1", &users).await;
    let published = tokio::time::Instant::now();
    let due =
        |id: &'static str, ms| users.map(|user| later(id, user, SignedDuration::from_millis(ms)));
    world.publish("billing", due("final", 6_000)).await;
    world.publish("billing", due("first", 3_000)).await;
    world
        .eventually("all are scheduled", async || {
            match world.scheduled().await.len() {
                10 => Ok(()),
                other => Err(format!("{other} are")),
            }
        })
        .await;
    world.kill_nats().await;
    tokio::time::sleep_until(published + Duration::from_secs(7)).await;
    world.restart_nats().await;
    world
        .all_became("billing", &["first", "final"], "delivered")
        .await;
    for user in users {
        world
            .eventually("both came", async || match world.order(user).len() {
                2 => Ok(()),
                other => Err(format!("{other} came")),
            })
            .await;
        assert_eq!(world.order(user), ["first", "final"], "{user}");
    }
}

#[tokio::test]
async fn near_moments_keep_their_order() {
    let world = World::start(&[]).await;
    let users: Vec<String> = (0..10).map(|n| format!("u{n}")).collect();
    world
        .app(
            "app-1",
            &users.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    // Spread over a second, so that the looks of nats-server fall between some pairs and not
    // others.
    let at = |n: usize, ms| SignedDuration::from_millis(2_000 + 97 * n as i64 + ms);
    for (id, ms) in [("second", 150), ("first", 0)] {
        let all = users.iter().enumerate();
        world
            .publish("billing", all.map(|(n, user)| later(id, user, at(n, ms))))
            .await;
    }
    for user in &users {
        world
            .eventually("both came", async || match world.order(user).len() {
                2 => Ok(()),
                other => Err(format!("{other} came")),
            })
            .await;
        assert_eq!(world.order(user), ["first", "second"], "{user}");
    }
}

#[tokio::test]
async fn set_due_at_one_moment_keeps_its_order() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let ids: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let due = from_now(SignedDuration::from_secs(3));
    let set = json!({ "deliver_at": due, "reminders": ids.iter().map(|id| reminder(id, "alice")).collect::<Vec<_>>() });
    world.publish_set("billing", set, HeaderMap::new()).await;
    world.taken(&ids).await;
    assert_eq!(world.order("alice"), ids);
}

/// "Remind me again": what was delivered may be scheduled for another moment under its id.
#[tokio::test]
async fn delivered_reminder_is_scheduled_again() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("now", "alice")]).await;
    world.publish("billing", [soon("later", "alice")]).await;
    world.taken(&["now", "later"]).await;
    let again = ["now", "later"].map(|id| soon(id, "alice"));
    world.publish("billing", again.clone()).await;
    world.is_scheduled(&["now", "later"]).await;
    world
        .eventually("both come again", async || match world.takes().len() {
            4 => Ok(()),
            other => Err(format!("{other} came")),
        })
        .await;
    world.publish("billing", again).await;
    world.publish("billing", [reminder("fence", "alice")]).await;
    world.taken(&["fence"]).await;
    let takes = world.takes();
    let ids: Vec<_> = takes.iter().map(|take| take.id()).collect();
    assert_eq!(ids, ["now", "later", "now", "later", "fence"]);
    assert!(world.rejected.all().await.is_empty());
}

/// Each occurrence is a reminder of its own; a kill of either program loses none and repeats none.
#[tokio::test]
async fn recurring_reminder_comes_each_time() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let recurring = |id: &str, cron: &str| {
        with(
            reminder(id, "alice"),
            json!({ "repeat": { "cron": cron, "zone": "Asia/Shanghai" } }),
        )
    };
    let all = ["ticks", "stops"].map(|id| recurring(id, "* * * * *"));
    let wrong = recurring("wrong", "* * * *");
    world
        .publish("billing", all.into_iter().chain([wrong]))
        .await;
    let refused = world.became("billing", "wrong", "rejected").await;
    assert_eq!(refused.error.as_deref(), Some("invalid_repeat"));
    world.is_scheduled(&["ticks", "stops"]).await;
    let next = |listed: &[Value], id: &str| {
        let found = listed.iter().find(|one| one["id"] == id)?;
        Some(found["deliver_at"].as_str().unwrap().to_owned())
    };
    let listed = world.scheduled().await;
    let first = next(&listed, "ticks").unwrap();
    assert_eq!(
        listed[0]["reminder"]["repeat"]["cron"], "* * * * *",
        "it is shown by the list"
    );
    // Both programs die before the first moment, and come back after it.
    world.kill_nats().await;
    let wait = instant(&first).duration_since(instant(&from_now(SignedDuration::ZERO)));
    let wait = wait + SignedDuration::from_secs(1);
    tokio::time::sleep(wait.max(SignedDuration::ZERO).unsigned_abs()).await;
    world.restart_nats().await;
    let member = world.kill_and_revive().await;
    world
        .eventually("it is ready again", async || member.is_ready().await)
        .await;
    let occurrence = |id: &str, moment: &str| format!("{id}@{moment}");
    world
        .taken(&[occurrence("ticks", &first), occurrence("stops", &first)])
        .await;
    world
        .publish_bytes("billing", br#"{"cancel":["stops"]}"#, HeaderMap::new())
        .await;
    world.became("billing", "stops", "cancelled").await;
    let second = next(&world.scheduled().await, "ticks").expect("the next one is scheduled");
    assert!(instant(&second) > instant(&first));
    let wait = Duration::from_secs(90);
    world
        .taken_within(wait, &[occurrence("ticks", &second)])
        .await;
    let takes = world.takes();
    let ids: Vec<_> = takes.iter().map(|take| take.id()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(world.repeats(), []);
}

/// "Each moment has at most one occurrence …, whichever program is killed"
#[tokio::test]
async fn kills_around_a_moment_repeat_no_occurrence() {
    let world = World::start(&[]).await;
    let users: Vec<String> = (0..50).map(|n| format!("u{n}")).collect();
    let names: Vec<_> = users.iter().map(String::as_str).collect();
    world.app("app-1", &names).await;
    let repeat = json!({ "repeat": { "cron": "* * * * *" } });
    let all = names
        .iter()
        .map(|user| with(reminder(user, user), repeat.clone()));
    world.publish("billing", all).await;
    let is_scheduled = async || match world.scheduled().await {
        listed if listed.len() == names.len() => Ok(listed),
        listed => Err(format!("{} are", listed.len())),
    };
    let listed = world.eventually("all are scheduled", is_scheduled).await;
    let first = instant(listed[0]["deliver_at"].as_str().unwrap());
    let of = |moment: Timestamp| names.iter().map(move |name| format!("{name}@{moment}"));
    let member_dies = [false, true];
    let moments = [0, 1, 2].map(|n| first + SignedDuration::from_mins(n));
    for (moment, member_dies) in moments.into_iter().zip(member_dies) {
        // In the middle of the occurrences: some are delivered, and others not published yet.
        let has_begun = async || {
            let (takes, ending) = (world.takes(), format!("@{moment}"));
            match takes.iter().any(|take| take.id().ends_with(&ending)) {
                true => Ok(()),
                false => Err(format!("{} takes", takes.len())),
            }
        };
        world
            .within(Duration::from_secs(90), "a moment comes", has_begun)
            .await;
        world.kill_nats().await;
        world.restart_nats().await;
        if member_dies {
            world.kill_and_revive().await;
        }
        let ids: Vec<_> = of(moment).collect();
        world.all_became("billing", &ids, "delivered").await;
    }
    let last: Vec<_> = of(moments[2]).collect();
    let wait = Duration::from_secs(90);
    world.taken_within(wait, &last).await;
    world.all_became("billing", &last, "delivered").await;
    // Another moment may pass before the cancellation.
    let cancellation = json!({ "cancel": names }).to_string();
    world
        .publish_bytes("billing", cancellation.as_bytes(), HeaderMap::new())
        .await;
    world.all_became("billing", &names, "cancelled").await;
    let mut expected: Vec<_> = moments.into_iter().flat_map(of).collect();
    expected.sort_unstable();
    let outcomes = world.outcomes.all().await;
    // A user whose app server does not answer in the middle of a kill has it parked first.
    let finals = outcomes.iter().filter(|outcome| outcome.is_final());
    let mut ended: Vec<_> = finals
        .map(|outcome| &outcome.id)
        .filter(|id| expected.binary_search(id).is_ok())
        .collect();
    ended.sort_unstable();
    assert_eq!(
        ended,
        expected.iter().collect::<Vec<_>>(),
        "each moment has one occurrence, with one final outcome"
    );
}
