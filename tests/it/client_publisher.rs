//! Business systems that use Bellhop's own client.

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::time::Duration;

use bellhop::client::publisher::{Options, PublishError};
use bellhop::client::{Draft, Publisher, Publishing, Receipt};

use futures_util::StreamExt;

use crate::harness::{LATER, World, numbers};

async fn publisher(world: &World, options: Options) -> Publisher {
    let client = async_nats::connect(&world.url).await.unwrap();
    Publisher::start(client, "billing".parse().unwrap(), options)
}

fn draft(id: impl AsRef<str>, user: &str) -> Draft {
    let id = id.as_ref();
    Draft {
        id: Some(id.to_owned()),
        ..Draft::new(user.parse().unwrap(), format!("content of {id} for {user}"))
    }
}

async fn receipt(publishing: Publishing) -> Receipt {
    tokio::time::timeout(LATER, publishing.into_future())
        .await
        .expect("it is not acknowledged")
        .unwrap()
}

#[tokio::test]
async fn queued_reminders_form_the_next_set() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let publisher = publisher(&world, Options::default()).await;
    let mut publishing = Vec::new();
    for id in numbers(0..2_000) {
        publishing.push(publisher.publish(draft(id, "alice")).await.unwrap());
    }
    publisher.flush().await.unwrap();
    let mut sets = BTreeSet::new();
    for (publishing, id) in publishing.into_iter().zip(numbers(0..2_000)) {
        let Receipt { id: stored_id, set } = receipt(publishing).await;
        assert_eq!(stored_id, id);
        sets.insert(set);
    }
    assert!(sets.len() < 200, "{} sets", sets.len());
    assert_eq!(
        world.stream("BELLHOP_LOG").await.state.last_sequence,
        sets.len() as u64
    );
    world.taken(&numbers(0..2_000)).await;
    assert_eq!(world.order("alice"), numbers(0..2_000));
    assert_eq!(world.repeats(), []);
}

/// A subscriber sees the sets on their way. There is no stream yet, so nothing acknowledges them.
#[tokio::test]
async fn sets_of_several_users_are_in_flight() {
    let world = World::without_members("", &[]).await;
    let client = async_nats::connect(&world.url).await.unwrap();
    let mut sets = client.subscribe("bellhop.sets.billing").await.unwrap();
    client.flush().await.unwrap();
    let options = Options {
        max_reminders: 1,
        sets_in_flight: 4,
        ..Options::default()
    };
    let publisher = publisher(&world, options).await;
    let users = (0..100).map(|n| format!("user-{}", n % 50));
    for (id, user) in numbers(0..100).into_iter().zip(users) {
        publisher.publish(draft(id, &user)).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let set = tokio::time::timeout(LATER, sets.next()).await;
        seen.insert(set.expect("no set is under way").unwrap().payload);
    }
    let more = async {
        while let Some(set) = sets.next().await {
            seen.insert(set.payload);
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), more).await;
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(
        seen.iter()
            .any(|set| set.windows(8).any(|it| it == br#""id":"0""#)),
        "the first goes first: {seen:?}"
    );
}

#[tokio::test]
async fn sets_are_no_larger_than_they_may_be() {
    let world = World::start(&[]).await;
    let bytes = serde_json::to_string(&draft("100", "alice")).unwrap().len();
    let by_number = publisher(
        &world,
        Options {
            max_reminders: 10,
            ..Options::default()
        },
    )
    .await;
    let by_bytes = publisher(
        &world,
        Options {
            max_bytes: 1_024,
            ..Options::default()
        },
    )
    .await;
    for (publisher, ids, most) in [
        (by_number, numbers(0..100), 10),
        (by_bytes, numbers(100..200), 1_024 / bytes),
    ] {
        let mut publishing = Vec::new();
        for id in &ids {
            publishing.push(publisher.publish(draft(id, "alice")).await.unwrap());
        }
        let large = Draft {
            content: "x".repeat(64 << 10),
            ..draft(format!("large, {most}"), "alice")
        };
        publishing.push(publisher.publish(large).await.unwrap());
        let mut sizes = BTreeMap::<u64, usize>::new();
        for publishing in publishing {
            *sizes.entry(receipt(publishing).await.set).or_default() += 1;
        }
        let largest = *sizes.values().max().unwrap();
        assert!(
            (2..=most).contains(&largest),
            "{largest} of {most} in a set"
        );
    }
}

/// The server is killed with sets in flight: it is unknown which of them it has stored.
#[tokio::test]
async fn killed_server_costs_only_time() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let publisher = publisher(
        &world,
        Options {
            max_reminders: 2,
            ..Options::default()
        },
    )
    .await;
    let publish = async {
        let mut publishing = Vec::new();
        for id in numbers(0..2_000) {
            publishing.push(publisher.publish(draft(id, "alice")).await.unwrap());
            tokio::task::yield_now().await;
        }
        publishing
    };
    let trouble = async {
        let stored = async || match world.stream("BELLHOP_LOG").await.state.last_sequence {
            0..=5 => Err("too few sets are stored".to_owned()),
            _ => Ok(()),
        };
        world.within(LATER, "publishing has begun", stored).await;
        world.kill_nats().await;
        let flushed = tokio::time::timeout(Duration::from_millis(50), publisher.flush()).await;
        assert!(flushed.is_err(), "it was killed too late");
        world.restart_nats().await;
    };
    let (publishing, ()) = tokio::join!(publish, trouble);
    for publishing in publishing {
        receipt(publishing).await;
    }
    world
        .all_became("billing", &numbers(0..2_000), "delivered")
        .await;
    assert_eq!(world.order("alice"), numbers(0..2_000));
    let delivered = world
        .outcomes
        .all()
        .await
        .iter()
        .filter(|outcome| outcome.is_final())
        .count();
    assert_eq!(delivered, 2_000, "each is one reminder");
}

#[tokio::test]
async fn fast_publisher_waits_for_room() {
    let world = World::start(&[]).await;
    let one = serde_json::to_string(&draft("0", "alice")).unwrap().len();
    let publisher = publisher(
        &world,
        Options {
            max_waiting_bytes: 3 * one,
            ..Options::default()
        },
    )
    .await;
    world.kill_nats().await;
    let mut publishing = Vec::new();
    for id in numbers(0..3) {
        publishing.push(publisher.publish(draft(id, "alice")).await.unwrap());
    }
    let no_room = tokio::time::timeout(
        Duration::from_millis(100),
        publisher.publish(draft("3", "alice")),
    )
    .await;
    assert!(no_room.is_err(), "there is no room for a fourth");
    let unflushed = tokio::time::timeout(Duration::from_millis(100), publisher.flush()).await;
    assert!(unflushed.is_err(), "nothing is acknowledged");
    world.restart_nats().await;
    publishing.push(publisher.publish(draft("3", "alice")).await.unwrap());
    for publishing in publishing {
        receipt(publishing).await;
    }
    world.all_became("billing", &numbers(0..4), "parked").await;
}

#[tokio::test]
async fn reminders_without_id_get_one() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let publisher = publisher(&world, Options::default()).await;
    let first = receipt(publisher.publish(draft("inv-1", "alice")).await.unwrap()).await;
    let again = receipt(publisher.publish(draft("inv-1", "alice")).await.unwrap()).await;
    assert_eq!(first, again, "the same set");
    let nameless = || Draft::new("alice".parse().unwrap(), "no id");
    let (one, other) = (
        publisher.publish(nameless()).await.unwrap(),
        publisher.publish(nameless()).await.unwrap(),
    );
    let ids = [one.id().to_owned(), other.id().to_owned()];
    assert_ne!(ids[0], ids[1]);
    assert_eq!(receipt(one).await.id, ids[0]);
    receipt(other).await;
    world.taken(&["inv-1", &ids[0]]).await;
    assert_eq!(app.attempts("inv-1"), 1);
}

#[tokio::test]
async fn invalid_reminders_are_not_sent() {
    let world = World::start(&[]).await;
    let publisher = publisher(&world, Options::default()).await;
    let invalid = |draft: Draft| async {
        match publisher.publish(draft).await {
            Err(PublishError::Invalid(rejection)) => rejection.code.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let good = || draft("1", "alice");
    assert_eq!(
        invalid(Draft {
            content: String::new(),
            ..good()
        })
        .await,
        "invalid_content"
    );
    assert_eq!(
        invalid(Draft {
            id: Some(String::new()),
            ..good()
        })
        .await,
        "invalid_id"
    );
    assert_eq!(
        invalid(Draft {
            title: Some("x".repeat(1_025)),
            ..good()
        })
        .await,
        "invalid_title"
    );
    let data = serde_json::value::to_raw_value(&"x".repeat(256 << 10)).unwrap();
    assert_eq!(
        invalid(Draft {
            data: Some(data),
            ..good()
        })
        .await,
        "reminder_too_large"
    );
    publisher.flush().await.unwrap();
    assert_eq!(world.stream("BELLHOP_LOG").await.state.last_sequence, 0);
}

#[tokio::test]
async fn an_unvalidated_reminder_is_rejected_alone() {
    let world = World::start(&[]).await;
    let publisher = publisher(
        &world,
        Options {
            validate: false,
            ..Options::default()
        },
    )
    .await;
    publisher
        .publish(Draft {
            content: String::new(),
            ..draft("1", "alice")
        })
        .await
        .unwrap();
    publisher.publish(draft("2", "alice")).await.unwrap();
    world.became("billing", "1", "rejected").await;
    world.became("billing", "2", "parked").await;
}

/// A publication, a cancellation and another publication go out in this order, whichever sets they
/// are in.
#[tokio::test]
async fn scheduled_reminders_are_cancelled_in_order() {
    let world = World::start(&[]).await;
    let publisher = publisher(&world, Options::default()).await;
    let scheduled = |id: &str| Draft {
        deliver_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)),
        ..draft(id, "alice")
    };
    let listed = async |id: &str, expected: bool| {
        let listed = async || {
            let list = world.run(&["scheduled", "ls", "--json"]).await.succeeded();
            if list.contains(&format!("\"id\":\"{id}\"")) == expected {
                Ok(())
            } else {
                Err(list)
            }
        };
        world
            .within(LATER, &format!("{id} is scheduled: {expected}"), listed)
            .await;
    };
    for id in ["1", "2"] {
        publisher.publish(scheduled(id)).await.unwrap();
    }
    for id in ["1", "2", "never scheduled"] {
        publisher.cancel(id).await.unwrap();
    }
    publisher.publish(scheduled("2")).await.unwrap();
    world.became("billing", "1", "cancelled").await;
    listed("1", false).await;
    listed("2", true).await;
    // A second cancellation of the same reminder is not a retry of the first.
    assert_eq!(receipt(publisher.cancel("2").await.unwrap()).await.id, "2");
    listed("2", false).await;
    receipt(publisher.publish(scheduled("2")).await.unwrap()).await;
    listed("2", true).await;
    receipt(publisher.cancel("2").await.unwrap()).await;
    listed("2", false).await;
    receipt(publisher.publish(scheduled("3")).await.unwrap()).await;
    listed("3", true).await;
    let bob = "bob".parse().unwrap();
    receipt(publisher.cancel_for("3", &bob).await.unwrap()).await;
    receipt(publisher.publish(scheduled("fence")).await.unwrap()).await;
    listed("fence", true).await;
    listed("3", true).await;
    let alice = "alice".parse().unwrap();
    receipt(publisher.cancel_for("3", &alice).await.unwrap()).await;
    listed("3", false).await;
    let invalid = publisher.cancel("").await.unwrap_err();
    assert!(
        matches!(&invalid, PublishError::Invalid(rejection) if rejection.code.to_string() == "invalid_cancel"),
        "{invalid}"
    );
}

#[tokio::test]
async fn missing_acknowledgement_is_reported() {
    let world = World::without_members("", &[]).await;
    let publisher = publisher(
        &world,
        Options {
            give_up_after: Duration::from_millis(200),
            ..Options::default()
        },
    )
    .await;
    let publishing = publisher.publish(draft("1", "alice")).await.unwrap();
    let unconfirmed = publishing.await.unwrap_err();
    assert!(
        matches!(unconfirmed, PublishError::Unconfirmed { .. }),
        "{unconfirmed}"
    );
    world.serve().await;
    receipt(publisher.publish(draft("1", "alice")).await.unwrap()).await;
    world.became("billing", "1", "parked").await;
}
