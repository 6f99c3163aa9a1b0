//! Mailboxes: one user with very many reminders, and very many users with one.

use std::time::Instant;

use bellhop::config::Config;

use crate::check::{Verdict, Wrong};
use crate::logs::{History, Served};
use crate::memory;
use crate::size;
use crate::world::{World, names};

/// Reminders in one set.
const SET: usize = 1_000;
/// One source may fill a mailbox,
const SHARE: (&str, &str) = ("mailbox.source_share", "100");
/// and any priority.
const RESERVE: (&str, &str) = ("mailbox.reserve", "0");

/// Sets for this user, so many reminders together.
fn sets_for(user: &str, count: usize) -> Vec<Vec<String>> {
    vec![user.to_owned(); count]
        .chunks(SET)
        .map(<[String]>::to_vec)
        .collect()
}

/// Returns the ids that the abused users' app server accepted, in order.
fn takes(history: &History) -> Vec<&str> {
    let takes = history.served["app"]
        .iter()
        .filter_map(|line| match &line.event {
            Served::Accepted(reminder) => Some(reminder.id.as_str()),
            _ => None,
        });
    takes.collect()
}

/// The ids of these sets, in the order of publishing.
fn ids(source: &str, sets: &[Vec<String>]) -> Vec<String> {
    let ids = sets
        .iter()
        .enumerate()
        .flat_map(|(set, users)| (0..users.len()).map(move |n| (set, n)));
    ids.map(|(set, n)| format!("{source}-{set}-{n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_with_many_reminders_slows_no_other() {
    let size = size();
    let mut world =
        World::start(&[("mailbox.limit", &size.to_string()), RESERVE, SHARE], &[]).await;
    let sets = sets_for("hoarder", size);
    let expected = ids("hoard", &sets);
    let leaving = world
        .abuse(async |world| {
            world.publish_all("hoard", sets).await;
            world.has_parked(size).await;
        })
        .await;
    world.quiet().await;
    let coming = world
        .abuse(async |world| {
            world.app.connect(["hoarder".to_owned()]);
            world.has_parked(0).await;
        })
        .await;
    world.quiet().await;
    let abuses = vec![
        (format!("{size} reminders parked for one user"), leaving),
        ("the user returns".into(), coming),
    ];
    let (history, verdict) = world.judge(abuses, memory::bound(0)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
    assert!(
        takes(&history) == expected,
        "each of them once, in the order of publishing"
    );
}

/// At the limit the newest is refused: with the contract's code, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_mailbox_refuses_newest_and_loses_nothing() {
    const BEYOND: usize = 700;
    let limit = Config::default().mailbox.limit;
    let mut world = World::start(&[RESERVE, SHARE], &[]).await;
    let sets = sets_for("hoarder", limit + BEYOND);
    let expected = ids("hoard", &sets);
    let parking = world
        .abuse(async |world| {
            world.publish_all("hoard", sets).await;
            world.has_parked(limit).await;
            world
                .within("the rest is refused", async |world| {
                    match world.installation.messages("BELLHOP_REJECTED").await? {
                        refused if refused >= BEYOND as u64 => Ok(()),
                        refused => Err(format!("{refused} are refused")),
                    }
                })
                .await;
        })
        .await;
    assert_eq!(
        world.installation.messages("BELLHOP_REJECTED").await,
        Ok(BEYOND as u64)
    );
    world.app.connect(["hoarder".to_owned()]);
    world.has_parked(0).await;
    let abuses = vec![(
        format!("a mailbox with its limit of {limit}, and {BEYOND} more"),
        parking,
    )];
    let (history, Verdict { wrong, .. }) = world.judge(abuses, memory::bound(0)).await;
    assert!(
        takes(&history) == expected[..limit],
        "the first of them, once, in order"
    );
    assert!(
        wrong.keys().eq([&Wrong::NotDelivered]),
        "{:?}",
        wrong.keys()
    );
    let refused: Vec<&String> = wrong[&Wrong::NotDelivered]
        .iter()
        .map(|reminder| &reminder.id)
        .collect();
    let mut newest: Vec<&String> = expected[limit..].iter().collect();
    newest.sort_unstable();
    assert_eq!(refused, newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mass_return_slows_no_other_user() {
    let size = size();
    let mut world = World::start(&[], &[]).await;
    let users = names("user", size);
    let leaving = world
        .abuse(async |world| {
            world
                .publish_all(
                    "crowd",
                    names("user", size)
                        .chunks(SET)
                        .map(<[String]>::to_vec)
                        .collect(),
                )
                .await;
            world.has_parked(size).await;
        })
        .await;
    world.quiet().await;
    let began = Instant::now();
    let coming = world
        .abuse(async |world| {
            world.app.connect(users);
            world.has_parked(0).await;
        })
        .await;
    #[allow(clippy::cast_precision_loss)]
    let rate = size as f64 / began.elapsed().as_secs_f64();
    world.quiet().await;
    let kept = memory::resident(world.member.pid()) >> 20;
    eprintln!("{size} users were back at {rate:.0} users/s; {kept} MiB are resident after that");
    let abuses = vec![
        (
            format!("a reminder parked for each of {size} users"),
            leaving,
        ),
        ("all of them return at once".into(), coming),
    ];
    let (_, verdict) = world.judge(abuses, memory::bound(size)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
}
