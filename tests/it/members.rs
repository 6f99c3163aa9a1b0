//! Several `bellhop serve` share the work: fairly, without repeats when one comes or goes in order,
//! without loss when one dies or stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;

use crate::harness::{LATER, Member, World, numbers, reminder};

const SEVEN: [(&str, &str); 1] = [("partitions", "7")];
/// A member is missed after two seconds. A loaded machine can take longer for less.
const SHORT: [(&str, &str); 3] = [
    ("partitions", "7"),
    ("members.interval", "500ms"),
    ("members.ttl", "2s"),
];
/// Reminders under way at a time.
const AHEAD: usize = 400;

fn held(card: &Value) -> BTreeSet<u64> {
    card["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_u64().unwrap())
        .collect()
}

/// Waits until these members hold everything, and nothing twice. Answers how many partitions each
/// has.
async fn shared(world: &World, names: &[&str], partitions: u64) -> Vec<usize> {
    world
        .within(LATER, &format!("{names:?} share everything"), async || {
            let cards: BTreeMap<_, _> = world.cards().await;
            if cards.keys().map(String::as_str).ne(names.iter().copied()) {
                return Err(format!("there are {cards:?}"));
            }
            let all: Vec<_> = cards.values().flat_map(held).collect();
            let intakes = cards.values().filter(|card| card["intake"] == true).count();
            let distinct: BTreeSet<_> = all.iter().copied().collect();
            if distinct != (0..partitions).collect() || all.len() != distinct.len() || intakes != 1
            {
                return Err(format!("{cards:?}"));
            }
            Ok(cards.values().map(|card| held(card).len()).collect())
        })
        .await
}

/// Waits until this one of two members holds all seven partitions and the intake.
async fn has_everything(world: &World, name: &str) {
    world
        .within(LATER, &format!("{name} has everything"), async || {
            let card = world.card(name).await.unwrap_or_default();
            if card["intake"] == true && held(&card).len() == 7 {
                Ok(())
            } else {
                Err(card.to_string())
            }
        })
        .await;
}

async fn stopped(world: &World, member: &Arc<Member>) {
    member.signal("TERM");
    assert_eq!(world.ended(member).await.code(), Some(0));
}

#[tokio::test]
async fn two_members_share_fairly() {
    let world = World::start(&SEVEN).await;
    assert_eq!(shared(&world, &["member-1"], 7).await, [7]);
    world.serve().await;
    let mut shares = shared(&world, &["member-1", "member-2"], 7).await;
    shares.sort_unstable();
    assert_eq!(shares, [3, 4]);
    world.serve().await;
    let shares = shared(&world, &["member-1", "member-2", "member-3"], 7).await;
    assert!(
        shares.iter().all(|share| (1..=3).contains(share)),
        "{shares:?}"
    );
}

/// With the defaults: 32 partitions, and each of two members has 16.
#[tokio::test]
async fn the_default_partitions_are_shared_fairly() {
    let world = World::start(&[("partitions", "32")]).await;
    world.serve().await;
    assert_eq!(
        shared(&world, &["member-1", "member-2"], 32).await,
        [16, 16]
    );
}

/// A member that joins and one that leaves in order: no reminder twice, none out of order, and exit
/// code 0.
#[tokio::test]
async fn joining_and_stopping_repeat_nothing() {
    const TOTAL: usize = 6_000;
    let world = World::start(&SEVEN).await;
    world.crowd().await;
    let changes = async {
        world.taken_so_far(500).await;
        world.serve().await;
        shared(&world, &["member-1", "member-2"], 7).await;
        let before = world.takes().len();
        world.taken_so_far(before + 500).await;
        stopped(&world, &world.member()).await;
    };
    tokio::join!(world.flow(0..TOTAL, AHEAD), changes);
    world.complete(TOTAL).await;
    assert_eq!(world.repeats(), []);
    assert_eq!(shared(&world, &["member-2"], 7).await, [7]);
}

/// A rolling restart, as a deployment makes it: one after the other is replaced.
#[tokio::test]
async fn a_rolling_restart_repeats_nothing() {
    const TOTAL: usize = 4_000;
    let world = World::start(&SEVEN).await;
    world.serve().await;
    world.crowd().await;
    let restart = async {
        let mut running = vec![world.serve_as("old-1").await, world.serve_as("old-2").await];
        stopped(&world, &world.member()).await;
        for name in ["new-1", "new-2"] {
            let before = world.takes().len();
            world.taken_so_far((before + 300).min(TOTAL)).await;
            world.serve_as(name).await;
            stopped(&world, &running.remove(0)).await;
        }
    };
    tokio::join!(world.flow(0..TOTAL, AHEAD), restart);
    world.complete(TOTAL).await;
    assert_eq!(world.repeats(), []);
}

/// One of two is killed: with the default settings the other has everything within 10 s, and
/// nothing is lost.
#[tokio::test]
async fn a_killed_member_is_replaced_within_ten_seconds() {
    const TOTAL: usize = 2_000;
    let world = World::start(&[]).await;
    world.serve().await;
    shared(&world, &["member-1", "member-2"], 4).await;
    world.crowd().await;
    let kill = async {
        world.taken_so_far(800).await;
        world.member().kill();
        Instant::now()
    };
    let (_, killed_at) = tokio::join!(world.flow(0..TOTAL, AHEAD), kill);
    world.taken(&numbers(0..TOTAL)).await;
    let last = world.takes().last().unwrap().at;
    assert!(
        last - killed_at < Duration::from_secs(10),
        "it took {:?}",
        last - killed_at
    );
    world.complete(TOTAL).await;
}

/// A member that stands still for longer than its ttl, and then goes on as if nothing had happened:
/// what it held is the other's by then, so it must drop it, and share again.
#[tokio::test]
async fn paused_member_stops_working() {
    const TOTAL: usize = 3_000;
    let world = World::start(&SHORT).await;
    world.serve().await;
    shared(&world, &["member-1", "member-2"], 7).await;
    world.crowd().await;
    let still = world.member();
    let pause = async {
        world.taken_so_far(500).await;
        still.signal("STOP");
        has_everything(&world, "member-2").await;
        let before = world.takes().len();
        world.taken_so_far((before + 500).min(TOTAL)).await;
        still.signal("CONT");
    };
    tokio::join!(world.flow(0..TOTAL, AHEAD), pause);
    world.taken(&numbers(0..TOTAL)).await;
    let mut shares = shared(&world, &["member-1", "member-2"], 7).await;
    shares.sort_unstable();
    assert_eq!(shares, [3, 4]);
    world.flow(TOTAL..TOTAL + 300, AHEAD).await;
    world.complete(TOTAL + 300).await;
    world
        .eventually("the one that stood still is ready again", async || {
            still.is_ready().await
        })
        .await;
}

/// It could not hear its peers for so long; they are not dead.
#[tokio::test]
async fn paused_member_takes_nothing_over() {
    let world = World::start(&SHORT).await;
    world.serve().await;
    shared(&world, &["member-1", "member-2"], 7).await;
    let still = world.member();
    let mut held_before = held(&world.card("member-1").await.unwrap());
    still.signal("STOP");
    has_everything(&world, "member-2").await;
    let mut words = world
        .client
        .subscribe("$KV.bellhop_members.*")
        .await
        .unwrap();
    let mut living = held(&world.card("member-2").await.unwrap());
    still.signal("CONT");
    let mut said = 0;
    while said < 6 {
        let word = tokio::time::timeout(LATER, words.next())
            .await
            .expect("members say that they live")
            .unwrap();
        let card = serde_json::from_slice(&word.payload).unwrap();
        if word.subject.ends_with(".member-2") {
            living = held(&card);
        } else {
            let taken: Vec<_> = held(&card).difference(&held_before).copied().collect();
            let stolen: Vec<_> = taken
                .iter()
                .filter(|number| living.contains(number))
                .collect();
            assert!(
                stolen.is_empty(),
                "it takes {stolen:?} from a member that lives\n{}",
                still.log()
            );
            held_before = held(&card);
            said += 1;
        }
    }
}

/// The same with mailboxes: nothing may be appended by the one that stood still, and nothing be
/// lost.
#[tokio::test]
async fn paused_member_does_not_append_to_mailboxes() {
    const TOTAL: usize = 2_000;
    let world = World::start(&SHORT).await;
    world.serve().await;
    shared(&world, &["member-1", "member-2"], 7).await;
    let still = world.member();
    let pause = async {
        world
            .all_became("billing", &numbers(0..300), "parked")
            .await;
        still.signal("STOP");
        has_everything(&world, "member-2").await;
        still.signal("CONT");
    };
    tokio::join!(world.flow(0..TOTAL, usize::MAX), pause);
    world
        .all_became("billing", &numbers(0..TOTAL), "parked")
        .await;
    shared(&world, &["member-1", "member-2"], 7).await;
    world.settle().await;
    assert_eq!(
        world.mailboxes("bellhop.parked.*.*").await,
        Ok(TOTAL),
        "each lies there once"
    );
    world.crowd().await;
    world.complete(TOTAL).await;
    assert_eq!(world.repeats(), []);
}

/// A member that returns under its old name, as a replaced pod does, ignores its own earlier
/// records.
#[tokio::test]
async fn a_killed_member_returns_under_its_name() {
    let world = World::start(&SHORT).await;
    world.app("app-1", &["alice"]).await;
    world.member().kill();
    world.publish("billing", [reminder("1", "alice")]).await;
    let began = Instant::now();
    world.serve_as("member-1").await;
    world.taken(&["1"]).await;
    world.settle().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it waited for itself: {:?}",
        began.elapsed()
    );
    assert_eq!(shared(&world, &["member-1"], 7).await, [7]);
}

/// A bucket entry that is not a member's record has no effect.
#[tokio::test]
async fn invalid_member_entry_is_ignored() {
    let world = World::start(&SEVEN).await;
    let bucket = world
        .jetstream
        .get_key_value("bellhop_members")
        .await
        .unwrap();
    for (key, value) in [
        ("stranger", "hello"),
        ("list", "[]"),
        ("empty", ""),
        ("odd", r#"{"partitions":"all"}"#),
    ] {
        bucket.put(key, value.into()).await.unwrap();
    }
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.taken(&["1"]).await;
    for key in ["stranger", "list", "empty", "odd"] {
        bucket.delete(key).await.unwrap();
    }
    let mut shares = shared(&world, &["member-1", "member-2"], 7).await;
    shares.sort_unstable();
    assert_eq!(shares, [3, 4]);
}

/// A configuration in which one user, `restricted`, may not publish to these subjects.
fn restricting(subjects: &[&str]) -> String {
    format!(
        "no_auth_user: others\nauthorization {{ users: [{{ user: others, password: o }}, {{ user: restricted, password: r, \
         permissions: {{ publish: {{ deny: {subjects:?} }} }} }}] }}\n"
    )
}

/// Two members that share; the second one can be restricted.
async fn with_second_restricted() -> (World, Arc<Member>) {
    let world = World::without_members(&restricting(&[]), &SHORT).await;
    world.serve().await;
    let second = world.launch(
        "member-2",
        &[("nats.user", "restricted"), ("nats.password", "r")],
    );
    shared(&world, &["member-1", "member-2"], 7).await;
    (world, second)
}

/// A joining member that cannot hear the others must not consider them dead.
#[tokio::test]
async fn isolated_member_does_not_act_alone() {
    let (world, deaf) = with_second_restricted().await;
    let before = held(&world.card("member-2").await.unwrap());
    deaf.signal("STOP");
    has_everything(&world, "member-1").await;
    // A member that cannot watch the bucket reads it message by message.
    let (watches, reads) = (
        "$JS.API.CONSUMER.CREATE.KV_bellhop_members",
        "$JS.API.STREAM.MSG.GET.KV_bellhop_members",
    );
    world
        .reconfigure_nats(&restricting(&[watches, &format!("{watches}.>"), reads]))
        .await;
    let mut words = world
        .client
        .subscribe("$KV.bellhop_members.member-2")
        .await
        .unwrap();
    deaf.signal("CONT");
    for number in 0..6 {
        let word = tokio::time::timeout(LATER, words.next())
            .await
            .expect("it says that it lives")
            .unwrap();
        let now = held(&serde_json::from_slice(&word.payload).unwrap());
        // It may have been stopped while it spoke, with a word before that on the way.
        let is_late = number < 2 && now == before;
        assert!(
            now.is_empty() || is_late,
            "member-1 has all of it, and it takes {now:?}\n{}",
            deaf.log()
        );
    }
    world.reconfigure_nats(&restricting(&[])).await;
    let mut shares = shared(&world, &["member-1", "member-2"], 7).await;
    shares.sort_unstable();
    assert_eq!(shares, [3, 4]);
}

/// A watch can fall silent without an end: its consumer was on a node that is gone. The others are
/// not dead for that.
#[tokio::test]
async fn member_with_silent_watch_takes_nothing() {
    let world = World::start(&SHORT).await;
    world.serve().await;
    shared(&world, &["member-1", "member-2"], 7).await;
    let mut cards = world.cards().await;
    let mut words = world
        .client
        .subscribe("$KV.bellhop_members.*")
        .await
        .unwrap();
    let bucket = world
        .jetstream
        .get_stream_no_info("KV_bellhop_members")
        .await
        .unwrap();
    let watches: Vec<_> = bucket.consumer_names().collect().await;
    assert!(watches.len() >= 2, "each member watches: {watches:?}");
    for watch in watches {
        bucket.delete_consumer(&watch.unwrap()).await.unwrap();
    }
    for _ in 0..20 {
        let word = tokio::time::timeout(LATER, words.next())
            .await
            .expect("members say that they live")
            .unwrap();
        let (name, card) = (
            word.subject.rsplit('.').next().unwrap(),
            serde_json::from_slice(&word.payload).unwrap(),
        );
        cards.insert(name.to_owned(), card);
        let all: Vec<_> = cards.values().flat_map(held).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len(), "both live: {cards:?}");
    }
    shared(&world, &["member-1", "member-2"], 7).await;
}

/// The partition asks again for its missing state, even if nothing else happens.
#[tokio::test]
async fn takeover_resumes_when_a_bucket_is_readable() {
    let (world, second) = with_second_restricted().await;
    world
        .reconfigure_nats(&restricting(&["$JS.API.STREAM.INFO.KV_bellhop_associates"]))
        .await;
    stopped(&world, &world.member()).await;
    world
        .within(
            LATER,
            "it could not read the bucket",
            async || match second.log() {
                log if log.contains("open bucket bellhop_associates") => Ok(()),
                log => Err(log),
            },
        )
        .await;
    world.reconfigure_nats(&restricting(&[])).await;
    has_everything(&world, "member-2").await;
    world
        .eventually("it works everything", async || second.is_ready().await)
        .await;
}

/// A partition's share of each bucket is more than what waits for a partition to take it in.
#[tokio::test]
async fn a_member_starts_with_many_routes_and_associates() {
    const USERS: usize = 20_000;
    let world = World::without_members("", &[("partitions", "2")]).await;
    world.run(&["setup"]).await.succeeded();
    for n in 0..USERS {
        let user = format!("user-{n}");
        let route = r#"{"subject":"bellhop.app.app-1"}"#;
        world
            .client
            .publish(format!("$KV.bellhop_routes.{user}.app-1"), route.into())
            .await
            .unwrap();
        world
            .client
            .publish(
                format!("$KV.bellhop_associates.{user}"),
                r#"{"associates":["bob"]}"#.into(),
            )
            .await
            .unwrap();
    }
    for bucket in ["KV_bellhop_routes", "KV_bellhop_associates"] {
        world
            .within(LATER, "the keys are put", async || {
                match world.stream(bucket).await.state.messages {
                    keys if keys == USERS as u64 => Ok(()),
                    keys => Err(format!("{keys} are in {bucket}")),
                }
            })
            .await;
    }
    // Each start is another order of entries.
    for _ in 0..3 {
        let member = world.launch("member-1", &[]);
        world
            .within(LATER, "it is ready", async || member.is_ready().await)
            .await;
        member.kill();
    }
}
