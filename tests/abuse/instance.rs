//! An instance that accepts nothing, or late, or everything but one user's reminders.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::Mood;
use crate::memory;
use crate::world::{World, names};

/// Its users, who are sent reminders all the time.
const USERS: usize = 200;
/// From one set for some of them to the next.
const EVERY: Duration = Duration::from_millis(100);
/// Reminders in such a set.
const SET: usize = 20;
/// Duration of the abuse.
const LASTS: Duration = Duration::from_secs(4);

/// A mood, and whose reminders it meets. In each but the slow one, some of them are parked.
const MOODS: [(Mood, &str); 6] = [
    (Mood::Busy, "billing"),
    (Mood::Hung, "claims"),
    (Mood::Garbled, "hr"),
    (Mood::Estranged, "payroll"),
    (Mood::Slow, "travel"),
    (Mood::Unreadable, "sales"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusing_instance_slows_only_its_users() {
    let mut world = World::start(&[], &[]).await;
    let mut abuses = Vec::new();
    for (mood, source) in MOODS {
        world.app.connect(names("user", USERS));
        let (stop, mut turn) = (
            CancellationToken::new(),
            names("user", USERS).into_iter().cycle(),
        );
        world
            .publish(source, EVERY, stop.clone(), move || {
                turn.by_ref().take(SET).collect()
            })
            .await;
        world.quiet().await;
        let abuse = world
            .abuse(async |world| {
                world.app.be(mood);
                tokio::time::sleep(LASTS).await;
            })
            .await;
        assert!(
            mood == Mood::Slow || world.parked().await.unwrap() > 0,
            "an instance that is {mood:?} takes nothing, or not everything"
        );
        abuses.push((format!("an instance is {}", mood.name()), abuse.apart()));
        stop.cancel();
        world.app.be(Mood::Well);
        // As an app server does when it is started again.
        world.app.clear();
        world.app.connect(names("user", USERS));
        world.has_parked(0).await;
        world.app.clear();
    }
    let (_, verdict) = world.judge(abuses, memory::bound(USERS)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
}

/// Settings by which what is for the slow one's users fills the memory for events within seconds.
const SMALL: [(&str, &str); 2] = [
    ("partitions", "4"),
    ("dispatch.max_bytes_in_flight", "1048576"),
];
/// Reminders for them in a set, and the size of each.
const LARGE: (usize, usize) = (100, 2_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_that_answers_late_slows_only_its_users() {
    let mut world = World::start(&SMALL, &[]).await;
    world.app.connect(names("user", USERS));
    let (set, padding) = LARGE;
    let mut abuses = Vec::new();
    for (mood, source) in [(Mood::Well, "billing"), (Mood::Slow, "claims")] {
        world.app.be(mood);
        let (stop, mut turn) = (
            CancellationToken::new(),
            names("user", USERS).into_iter().cycle(),
        );
        let abuse = world
            .abuse(async |world| {
                world.padding = padding;
                world
                    .publish(source, EVERY, stop.clone(), move || {
                        turn.by_ref().take(set).collect()
                    })
                    .await;
                tokio::time::sleep(LASTS * 2).await;
            })
            .await;
        abuses.push((
            format!("an instance that is {} gets much", mood.name()),
            abuse.apart(),
        ));
        stop.cancel();
    }
    assert!(
        world.parked().await.unwrap() > 0,
        "what the slow one could not take is parked"
    );
    world.app.be(Mood::Well);
    world.has_parked(0).await;
    let (_, verdict) = world.judge(abuses, memory::bound(USERS)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
}
