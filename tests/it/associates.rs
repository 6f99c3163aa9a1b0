//! Reminders of users who are away reach their associates, or wait.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{App, Reply, World, numbers, reminder, with};

fn associates(names: &[&str]) -> Value {
    json!({ "associates": names })
}

/// Waits until the router has taken in what was said of the user's associates: it reroutes.
async fn reroutes(world: &World, user: &str) {
    let mut number = 0;
    world
        .eventually(&format!("{user}'s reminders are rerouted"), async || {
            number += 1;
            let id = format!("try {number} for {user}");
            world.publish("tries", [reminder(&id, user)]).await;
            match world.outcome("tries", &id).await.as_str() {
                "rerouted" => Ok(()),
                other => Err(format!("{id} became {other}")),
            }
        })
        .await;
}

/// The partition of each of these users, by the mailbox that it gets.
async fn partitions(world: &World, users: &[String]) -> BTreeMap<String, u64> {
    for user in users {
        world
            .publish("probe", [reminder(format!("probe {user}"), user)])
            .await;
        world
            .became("probe", &format!("probe {user}"), "parked")
            .await;
    }
    let stream = world
        .jetstream
        .get_stream_no_info("BELLHOP_PARKED")
        .await
        .unwrap();
    let subjects: Vec<_> = stream
        .info_builder()
        .subjects("bellhop.parked.*.*")
        .fetch()
        .await
        .unwrap()
        .collect()
        .await;
    let place = |subject: &str| {
        let mut tokens = subject.split('.').skip(2);
        let partition = tokens.next().unwrap().parse().unwrap();
        (tokens.next().unwrap().to_owned(), partition)
    };
    subjects
        .into_iter()
        .map(|found| place(found.unwrap().0.as_ref()))
        .collect()
}

/// A user and an associate whose partitions belong to different members.
async fn of_different_members(world: &World) -> (String, String) {
    let users: Vec<_> = (0..12).map(|number| format!("user-{number}")).collect();
    let partitions = partitions(world, &users).await;
    let cards = world.cards().await;
    let owner = |user: &String| {
        let holds = |card: &Value| {
            card["partitions"]
                .as_array()
                .unwrap()
                .contains(&json!(partitions[user]))
        };
        cards
            .iter()
            .find(|(_, card)| holds(card))
            .map(|(name, _)| name.clone())
            .unwrap()
    };
    let other = users
        .iter()
        .find(|user| owner(user) != owner(&users[0]))
        .unwrap();
    (users[0].clone(), other.clone())
}

#[tokio::test]
async fn associate_on_another_member_sees_the_user() {
    let world = World::start(&[]).await;
    world.serve().await;
    world
        .eventually("two members share the partitions", async || {
            let cards = world.cards().await;
            let shares: Vec<_> = cards
                .values()
                .map(|card| card["partitions"].as_array().unwrap().len())
                .collect();
            if shares == [2, 2] {
                Ok(())
            } else {
                Err(format!("{shares:?}"))
            }
        })
        .await;
    let (away, there) = of_different_members(&world).await;
    let app = world.app("app-1", &[&there]).await;
    world
        .put_associates(&away, associates(&[&away, "stranger", &there]))
        .await;
    reroutes(&world, &away).await;
    let data = json!({ "data": {"b": 1, "a": [1, 2]}, "tags": ["t"] });
    world
        .publish("billing", [with(reminder("1", &away), data)])
        .await;
    let outcome = world.became("billing", "1", "rerouted").await;
    assert_eq!(
        (
            outcome.user.as_deref(),
            outcome.to.as_deref(),
            outcome.instance.as_deref()
        ),
        (Some(away.as_str()), Some(there.as_str()), Some("app-1"))
    );
    let take = world.first("1");
    assert_eq!(
        (take.user(), &take.reminder["for"]),
        (there.as_str(), &json!(away))
    );
    assert_eq!(take.reminder["data"], json!({"b": 1, "a": [1, 2]}));
    assert_eq!(app.attempts("1"), 1);

    world.app("app-2", &[&away]).await;
    world.publish("billing", [reminder("2", &away)]).await;
    world.became("billing", "2", "delivered").await;
    assert_eq!(world.first("2").reminder.get("for"), None);
    world.settle().await;
    assert!(world.has_route(&there, "app-1").await);
}

#[tokio::test]
async fn order_holds_while_users_come_and_go() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["bob"]).await;
    world.put_associates("alice", associates(&["bob"])).await;
    reroutes(&world, "alice").await;
    for set in numbers(0..200).chunks(5) {
        world
            .publish("billing", set.iter().map(|id| reminder(id, "alice")))
            .await;
    }
    world.became("billing", "199", "rerouted").await;
    app.expel("bob");
    for set in numbers(200..300).chunks(5) {
        world
            .publish("billing", set.iter().map(|id| reminder(id, "alice")))
            .await;
    }
    world.became("billing", "299", "parked").await;
    assert!(
        world.has_route("bob", "app-1").await,
        "bob's route is for his own partition to drop"
    );
    world.app("app-2", &["alice"]).await;
    world.taken(&numbers(200..300)).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
    let numbered = |user| {
        world
            .order(user)
            .into_iter()
            .filter(|id| !id.starts_with("try"))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbered("bob"), numbers(0..200));
    assert_eq!(numbered("alice"), numbers(200..300));
}

#[tokio::test]
async fn private_and_low_priority_reminders_wait() {
    let world = World::start(&[
        ("reroute.sources", "tries,billing"),
        ("reroute.min_priority", "normal"),
    ])
    .await;
    world.app("app-1", &["bob"]).await;
    world.put_associates("alice", associates(&["bob"])).await;
    reroutes(&world, "alice").await;
    world
        .publish(
            "billing",
            [with(reminder("1", "alice"), json!({ "reroute": false }))],
        )
        .await;
    world
        .publish(
            "billing",
            [with(reminder("2", "alice"), json!({ "priority": "low" }))],
        )
        .await;
    world.publish("hr", [reminder("3", "alice")]).await;
    world
        .publish(
            "billing",
            [with(
                reminder("4", "alice"),
                json!({ "priority": "high", "reroute": true }),
            )],
        )
        .await;
    world.all_became("billing", &["1", "2"], "parked").await;
    world.became("hr", "3", "parked").await;
    world.became("billing", "4", "rerouted").await;
    world.settle().await;
}

#[tokio::test]
async fn invalid_value_keeps_last_good_until_deleted() {
    let world = World::start(&[]).await;
    world.app("app-1", &["bob"]).await;
    world.put_associates("alice", associates(&["bob"])).await;
    reroutes(&world, "alice").await;
    world
        .put_associates("alice", r#"{"associates":"bob"}"#)
        .await;
    world.put_associates("carol", associates(&["bob"])).await;
    reroutes(&world, "carol").await; // So the bad one was seen, too.
    reroutes(&world, "alice").await;
    let bucket = world
        .jetstream
        .get_key_value("bellhop_associates")
        .await
        .unwrap();
    bucket.delete("alice").await.unwrap();
    world
        .eventually("alice has no associates", async || {
            let id = format!("{:?}", std::time::Instant::now());
            world.publish("late", [reminder(&id, "alice")]).await;
            match world.outcome("late", &id).await.as_str() {
                "parked" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
    world.settle().await;
}

#[tokio::test]
async fn hanging_or_refusing_associate_is_skipped() {
    let quick = [
        ("delivery.timeout", "300ms"),
        ("heartbeat.timeout", "300ms"),
        ("reroute.timeout", "2s"),
    ];
    let world = World::start(&quick).await;
    let silent = world.app("silent", &["bob"]).await;
    silent.on_heartbeat(|_| Reply::silence());
    let busy = world.app("busy", &["carol"]).await;
    busy.on_delivery(|batch| Reply::refuse(batch, "busy", |_| true));
    world.app("well", &["dave"]).await;
    world
        .put_associates("alice", associates(&["bob", "carol", "dave"]))
        .await;
    reroutes(&world, "alice").await;
    world.publish("billing", [reminder("1", "alice")]).await;
    let outcome = world.became("billing", "1", "rerouted").await;
    assert_eq!(outcome.to.as_deref(), Some("dave"));
    assert_eq!(
        world.takes().iter().filter(|take| take.id() == "1").count(),
        1
    );
    assert_eq!(busy.attempts("1"), 1);
    world.settle().await;
}

/// Ends a user's connection as the contract asks.
async fn leave(app: &App, user: &str) {
    app.expel(user);
    app.delete_route(user).await;
}

#[tokio::test]
async fn a_short_absence_sends_nothing_to_associates() {
    let world = World::start(&[("reroute.after", "4s")]).await;
    let app = world.app("app-1", &["alice", "bob"]).await;
    world.put_associates("alice", associates(&["bob"])).await;
    world.put_associates("carol", associates(&["bob"])).await;
    reroutes(&world, "carol").await; // So alice's are known, too.
    world.publish("billing", [reminder("0", "alice")]).await;
    world.became("billing", "0", "delivered").await;
    for round in 1..=3 {
        leave(&app, "alice").await;
        let id = round.to_string();
        world.publish("billing", [reminder(&id, "alice")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await; // The absence.
        app.connect(&["alice"]).await;
        world.became("billing", &id, "delivered").await;
    }
    leave(&app, "alice").await;
    world.publish("billing", [reminder("last", "alice")]).await;
    let outcome = world.became("billing", "last", "rerouted").await;
    assert_eq!(outcome.to.as_deref(), Some("bob"));
    world.settle().await;
}

/// "The user still holds the connection, so the reminder comes there again"
#[tokio::test]
async fn slow_acceptance_sends_nothing_to_associates() {
    let world = World::start(&[("delivery.timeout", "300ms")]).await;
    let app = world.app("app-1", &["alice"]).await;
    world.app("app-2", &["bob"]).await;
    world.put_associates("alice", associates(&["bob"])).await;
    world.put_associates("carol", associates(&["bob"])).await;
    reroutes(&world, "carol").await; // So alice's are known, too.
    world.publish("billing", [reminder("0", "alice")]).await;
    world.became("billing", "0", "delivered").await;
    app.on_delivery(|_| Reply::accept().after(Duration::from_millis(500)));
    world.publish("billing", [reminder("1", "alice")]).await;
    world
        .eventually("it comes again", async || match app.attempts("1") {
            0 | 1 => Err("it has not".to_owned()),
            _ => Ok(()),
        })
        .await;
    app.recover();
    let outcome = world.became("billing", "1", "delivered").await;
    assert_eq!(outcome.instance.as_deref(), Some("app-1"));
    world.settle().await;
}

#[tokio::test]
async fn member_death_settles_each_reminder_once() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["bob"]).await;
    app.on_delivery(|_| Reply::accept().after(Duration::from_millis(5)));
    world.put_associates("alice", associates(&["bob"])).await;
    reroutes(&world, "alice").await;
    for set in numbers(0..200).chunks(2) {
        world
            .publish_surely(
                "billing",
                set.iter().map(|id| reminder(id, "alice")).collect(),
            )
            .await;
    }
    world.taken_so_far(50).await;
    world.kill_and_revive().await;
    world.taken(&numbers(0..200)).await;
    world.settle().await;
}

#[tokio::test]
async fn user_gets_copy_on_return_if_configured() {
    let world = World::start(&[
        ("delivery.copy_rerouted", "true"),
        ("mailbox.escalate_after.normal", "1s"),
    ])
    .await;
    world.app("app-1", &["bob"]).await;
    world.put_associates("alice", associates(&["bob"])).await;
    reroutes(&world, "alice").await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "rerouted").await;
    world
        .publish(
            "billing",
            [with(reminder("2", "alice"), json!({ "reroute": false }))],
        )
        .await;
    world.became("billing", "2", "parked").await;
    world
        .eventually("what waits is announced, a copy is not", async || {
            let outcomes = world.outcomes.all().await;
            let escalated: Vec<_> = outcomes
                .iter()
                .filter(|one| one.escalated && one.source == "billing")
                .collect();
            match escalated.as_slice() {
                [one] if one.id == "2" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    world.kill_and_revive().await;
    world.app("app-2", &["alice"]).await;
    world.became("billing", "2", "delivered").await;
    world.settle().await;
    assert_eq!(
        world.trail("billing", "1").await,
        ["rerouted"],
        "a copy has no outcome"
    );
    let copies: Vec<_> = world
        .takes()
        .iter()
        .filter(|take| take.id() == "1" && take.app == "app-2")
        .cloned()
        .collect();
    let [copy] = copies.as_slice() else {
        panic!("{copies:?}")
    };
    assert_eq!(
        (copy.user(), &copy.reminder["rerouted_to"]),
        ("alice", &json!("bob"))
    );
    assert_eq!(copy.reminder.get("for"), None);
    assert_eq!(world.first("2").reminder.get("rerouted_to"), None);
}
