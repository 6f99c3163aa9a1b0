//! The effect of an upgrade on users: every member is replaced while reminders flow to hundreds of
//! users, and no user waits long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::harness::{LATER, Take, World, numbers, reminder};

const MEMBERS: [&str; 3] = ["member-1", "member-2", "member-3"];
const USERS: usize = 300;
/// Each user is sent a reminder every half second: `SET` reminders every `PACE`.
const SET: usize = 60;
const PACE: Duration = Duration::from_millis(100);
/// `members.ttl`: a user who waits longer may wait for a partition that no member handed over. The
/// goal is half of it, and a second on a quiet machine.
const LONGEST_GAP: Duration = Duration::from_secs(4);

fn user(n: usize) -> String {
    format!("user-{}", n % USERS)
}

/// Three members with the defaults, and two app servers to which everybody is connected.
async fn busy_installation() -> World {
    let world = World::start(&[("partitions", "32")]).await;
    for _ in &MEMBERS[1..] {
        world.serve().await;
    }
    for (n, name) in ["app-1", "app-2"].into_iter().enumerate() {
        let users: Vec<_> = (n..USERS).step_by(2).map(user).collect();
        world
            .app(name, &users.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
    }
    world
}

/// Publishes at a steady pace until it is stopped. Returns the number of reminders.
async fn publish_until(world: &World, is_over: &AtomicBool) -> usize {
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut total = 0;
    while !is_over.load(Ordering::Relaxed) {
        tick.tick().await;
        let set = numbers(total..total + SET);
        total += SET;
        let reminders = set
            .iter()
            .zip(total - SET..)
            .map(|(number, n)| reminder(number, &user(n)));
        world.publish_surely("billing", reminders.collect()).await;
    }
    total
}

/// Waits until every user has had a reminder that was published after this moment.
async fn everybody_is_served(world: &World) {
    let before = world.takes().len();
    world.taken_so_far(before + 2 * USERS).await;
}

/// The longest that one user waited between two reminders.
fn longest_gap(takes: &[Arc<Take>], from: Instant, to: Instant) -> Duration {
    let mut by_user: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for take in takes.iter().filter(|take| from <= take.at && take.at <= to) {
        by_user.entry(take.user()).or_default().push(take.at);
    }
    let gaps = by_user
        .values()
        .flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
    gaps.max().expect("reminders were taken")
}

/// A member ends in good order.
async fn stop(world: &World, name: &str) {
    let member = world.member_named(name);
    member.signal("TERM");
    assert_eq!(
        world.ended(&member).await.code(),
        Some(0),
        "{}",
        member.log_tail()
    );
}

/// Replaces all members in turn under load, and checks that nothing is lost, repeated or out of
/// order.
async fn roll(headline: &str, replace: impl AsyncFn(&World, &'static str)) {
    let world = busy_installation().await;
    let is_over = AtomicBool::new(false);
    let restarts = async {
        let began = Instant::now();
        for _ in 0..5 {
            everybody_is_served(&world).await;
        }
        let quiet = Instant::now();
        for name in MEMBERS {
            replace(&world, name).await;
            everybody_is_served(&world).await;
        }
        let ended = Instant::now();
        is_over.store(true, Ordering::Relaxed);
        [began, quiet, ended]
    };
    let (total, [began, quiet, ended]) = tokio::join!(publish_until(&world, &is_over), restarts);
    world.taken(&numbers(0..total)).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
    for n in 0..USERS {
        assert_eq!(
            world.order(&user(n)),
            numbers(0..total)
                .into_iter()
                .skip(n)
                .step_by(USERS)
                .collect::<Vec<_>>()
        );
    }
    let takes = world.takes();
    let gap = longest_gap(&takes, quiet, ended);
    println!(
        "{headline}: {total} reminders to {USERS} users, each sent one every {:?}; longest gap {gap:?}, before the first \
         restart {:?}",
        PACE * (USERS / SET) as u32,
        longest_gap(&takes, began, quiet),
    );
    assert!(gap < LONGEST_GAP, "a user waited {gap:?}");
}

/// As systemd does it: one after the other is stopped and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_restarted_in_turn_without_a_gap() {
    let restart = async |world: &World, name| {
        stop(world, name).await;
        world.serve_as(name).await;
    };
    roll("stopped and started in turn", restart).await;
}

/// As Kubernetes does it: the new one is ready before the old one is stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_members_leaves_no_gap() {
    let replace = async |world: &World, name: &'static str| {
        world.serve_as(&name.replace("member", "new")).await;
        stop(world, name).await;
    };
    roll("replaced in turn", replace).await;
}

/// A server of a cluster says that it is about to stop (lame duck mode). Members leave it before it
/// does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_move_before_a_nats_server_stops() {
    let world = World::on_cluster(&[("partitions", "8"), ("streams.replicas", "3")]).await;
    let members = [world.serve().await, world.serve().await];
    let app = world.app("app-1", &[]).await;
    let elsewhere = async_nats::connect(world.other_node()).await.unwrap();
    app.stop().await;
    app.start(elsewhere).await;
    let users: Vec<_> = (0..USERS).map(user).collect();
    app.connect(&users.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let is_over = AtomicBool::new(false);
    let stopping = async {
        for _ in 0..3 {
            everybody_is_served(&world).await;
        }
        let quiet = Instant::now();
        world.signal_nats("USR2").await;
        for member in &members {
            let has_moved = async || match member.log().matches("moving to another nats").count() {
                6 => Ok(()),
                moved => Err(format!("{moved} of 6 connections have moved")),
            };
            world
                .within(LATER, "all connections have moved", has_moved)
                .await;
        }
        everybody_is_served(&world).await;
        let lost = || {
            members
                .each_ref()
                .map(|member| member.log().matches("disconnected").count())
        };
        let before = lost();
        world.kill_nats().await;
        for _ in 0..3 {
            everybody_is_served(&world).await;
        }
        assert_eq!(lost(), before, "a connection was still at the server");
        is_over.store(true, Ordering::Relaxed);
        (quiet, Instant::now())
    };
    let (total, (quiet, ended)) = tokio::join!(publish_until(&world, &is_over), stopping);
    world.taken_within(LATER, &numbers(0..total)).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
    let gap = longest_gap(&world.takes(), quiet, ended);
    println!("one of three nats-servers stopped: {total} reminders, longest gap {gap:?}");
    assert!(gap < 2 * LONGEST_GAP, "a user waited {gap:?}");
}
