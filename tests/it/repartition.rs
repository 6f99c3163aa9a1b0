//! `bellhop repartition`: another number of partitions, with mailboxes in them and reminders still
//! coming in.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use bellhop::partition::of_user;

use crate::harness::{Ended, Member, World, numbers, reminder};

/// Reminders in mailboxes before the change; the crowd's users have some each.
const PARKED: usize = 600;
/// The number there is in a world, and the one there is to be.
const FROM: u16 = 4;
const TO: u16 = 7;
const KEYS: [&str; 2] = ["bellhop.partitions", "bellhop.partitions.spread"];

/// An installation with full mailboxes.
async fn full_mailboxes() -> World {
    let world = World::start(&[]).await;
    world.flow(0..PARKED, usize::MAX).await;
    world
        .all_became("billing", &numbers(0..PARKED), "parked")
        .await;
    world.settle().await;
    world
}

async fn stop(world: &World) {
    let member = world.member();
    member.signal("TERM");
    assert_eq!(world.ended(&member).await.code(), Some(0));
}

/// Members with the new number bring everybody everything, once and in order, whose mailboxes lie
/// where they belong.
async fn serves(world: &World, partitions: u16, total: usize) {
    for (subject, _) in parked(world).await {
        let mut tokens = subject.rsplit('.');
        let user = tokens.next().unwrap().parse().unwrap();
        assert_eq!(
            tokens.next().unwrap(),
            of_user(&user, partitions).to_string(),
            "{subject}"
        );
    }
    let member = world.launch("restarted", &[("partitions", &partitions.to_string())]);
    world
        .eventually("it is ready", async || member.is_ready().await)
        .await;
    world.crowd().await;
    world.complete(total).await;
    assert_eq!(world.repeats(), []);
}

/// The subjects of mailboxes, and how many reminders each has.
async fn parked(world: &World) -> BTreeMap<String, usize> {
    use futures_util::TryStreamExt;
    let stream = world
        .jetstream
        .get_stream_no_info("BELLHOP_PARKED")
        .await
        .unwrap();
    stream
        .info_builder()
        .subjects("bellhop.parked.>")
        .fetch()
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap()
}

/// Notes what the command notes while it is at work.
async fn note(world: &World, values: [u16; 2]) {
    let mut config = world.stream("BELLHOP_LOG").await.config;
    config.metadata.extend(
        KEYS.map(ToOwned::to_owned)
            .into_iter()
            .zip(values.map(|value| value.to_string())),
    );
    world.jetstream.update_stream(config).await.unwrap();
}

/// Copies some mailboxes' first messages to where they belong among so many partitions, as an
/// interrupted command leaves them.
async fn copy_some(world: &World, partitions: u16) {
    let stream = world
        .jetstream
        .get_stream_no_info("BELLHOP_PARKED")
        .await
        .unwrap();
    for subject in parked(world).await.into_keys().step_by(3) {
        let user = subject.rsplit('.').next().unwrap();
        let copy = format!(
            "bellhop.parked.{}.{user}",
            of_user(&user.parse().unwrap(), partitions)
        );
        if copy != subject {
            let first = stream
                .get_first_raw_message_by_subject(&subject, 1)
                .await
                .unwrap();
            let sent = world
                .jetstream
                .publish_with_headers(copy, HeaderMap::new(), first.payload)
                .await;
            sent.unwrap().await.unwrap();
        }
    }
}

async fn repartition(world: &World, partitions: u16) -> Ended {
    world.run(&["repartition", &partitions.to_string()]).await
}

#[tokio::test]
async fn repartition_works_while_sets_are_published() {
    let world = full_mailboxes().await;
    let arguments = ["repartition", "7", "--nats", &world.url].map(ToOwned::to_owned);
    let command = Member::spawn("repartition", &[], &arguments, world.dir());
    let asks = async || {
        if command.log().contains("stop 1 member now") {
            Ok(())
        } else {
            Err(command.log())
        }
    };
    world
        .eventually("it asks for the member to be stopped", asks)
        .await;
    world.flow(PARKED..2 * PARKED, usize::MAX).await;
    stop(&world).await;
    assert_eq!(
        world.ended(&command).await.code(),
        Some(0),
        "{}",
        command.log()
    );
    assert!(
        command
            .log()
            .contains("start members with `partitions = 7`"),
        "{}",
        command.log()
    );
    assert_eq!(
        parked(&world).await.values().sum::<usize>(),
        PARKED,
        "what came meanwhile waits in its stream"
    );
    let old = world.run(&["setup"]).await;
    assert!(
        old.code == Some(1) && old.stderr.contains("partitions = 7"),
        "{old:?}"
    );
    serves(&world, TO, 2 * PARKED).await;
}

#[tokio::test]
async fn fewer_partitions_leave_nothing_behind() {
    let world = full_mailboxes().await;
    stop(&world).await;
    repartition(&world, 1).await.succeeded();
    serves(&world, 1, PARKED).await;
}

/// Copies are made first and originals removed last, so what an interrupted command leaves is too
/// much, never too little.
#[tokio::test]
async fn an_interrupted_change_is_run_to_its_end() {
    for (counts, wanted) in [(FROM, TO), (FROM, FROM), (TO, TO)] {
        let world = full_mailboxes().await;
        stop(&world).await;
        if counts == TO {
            // Everything is copied, and nothing is removed yet: the other way round it is the same
            // mess.
            repartition(&world, TO).await.succeeded();
            copy_some(&world, FROM).await;
        } else {
            copy_some(&world, TO).await;
        }
        note(&world, [counts, TO]).await;
        let refused = world.run(&["serve", "--http", "127.0.0.1:0"]).await;
        assert!(
            refused.code == Some(1) && refused.stderr.contains("bellhop repartition"),
            "{refused:?}"
        );
        repartition(&world, wanted).await.succeeded();
        serves(&world, wanted, PARKED).await;
    }
}

#[tokio::test]
async fn the_number_there_is_changes_nothing() {
    let world = full_mailboxes().await;
    let output = repartition(&world, FROM).await.succeeded();
    assert!(output.contains("4 partitions"), "{output}");
    world.crowd().await;
    world.complete(PARKED).await;
}

/// "The same source, `id` and user is one reminder" within the window, also where the partitions
/// have changed meanwhile.
#[tokio::test]
async fn repeats_are_known_after_a_change() {
    let world = World::start(&[]).await;
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    world.app("app-1", &names).await;
    let all = || users.iter().map(|user| reminder(user, user));
    world.publish("billing", all()).await;
    world.taken(&users).await;
    world.settle().await;
    stop(&world).await;
    repartition(&world, TO).await.succeeded();
    let member = world.launch("restarted", &[("partitions", &TO.to_string())]);
    world
        .eventually("it is ready", async || member.is_ready().await)
        .await;
    world.publish("billing", all()).await;
    let fences: Vec<String> = users
        .iter()
        .map(|user| format!("fence of {user}"))
        .collect();
    let fence = |(id, user): (&String, &String)| reminder(id, user);
    world
        .publish("billing", fences.iter().zip(&users).map(fence))
        .await;
    world.taken(&fences).await;
    assert_eq!(world.repeats(), []);
}
