//! The ends of things: a stop in order, a kill, a server that goes away and comes back; and what is
//! not Bellhop's in its own streams.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::harness::{LATER, Member, Proxy, Reply, World, numbers, reminder};

/// A message whose acknowledgement was lost with the server comes again after this, and only then
/// is all settled.
const SHORT_ACK_WAIT: [(&str, &str); 1] = [("dispatch.ack_wait", "10s")];

async fn ends_with(world: &World, member: &Arc<Member>, signal: &str, code: i32) {
    member.signal(signal);
    assert_eq!(
        world.ended(member).await.code(),
        Some(code),
        "after SIG{signal}\n{}",
        member.log()
    );
}

#[tokio::test]
async fn a_signal_ends_it_in_order() {
    for signal in ["TERM", "INT"] {
        let world = World::start(&[]).await;
        let began = Instant::now();
        ends_with(&world, &world.member(), signal, 0).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?} to stop with nothing to do",
            began.elapsed()
        );
        assert!(
            world.cards().await.is_empty(),
            "no member is left to share with"
        );
    }
}

/// A stop in the middle of a flow finishes what is under way: no reminder twice, exit code 0.
#[tokio::test]
async fn a_stop_in_the_middle_repeats_nothing() {
    const TOTAL: usize = 3_000;
    let world = World::start(&[]).await;
    world.crowd().await;
    let stop = async {
        world.taken_so_far(TOTAL / 2).await;
        ends_with(&world, &world.member(), "TERM", 0).await;
        world.serve().await;
    };
    tokio::join!(world.flow(0..TOTAL, 1_000), stop);
    world.complete(TOTAL).await;
    assert_eq!(world.repeats(), []);
}

/// A new owner reads the log again from the position. It knows by name what is recorded above it,
/// also where the position is lost and everything is read again.
#[tokio::test]
async fn recorded_reminders_are_not_repeated_without_a_position() {
    let world = World::start(&[("delivery.timeout", "60s"), ("members.grace", "0s")]).await;
    world.app("app-1", &["alice"]).await;
    let silent = world.app("app-2", &["bob"]).await;
    silent.on_delivery(|_| Reply::silence());
    let set = [
        reminder("b-1", "bob"),
        reminder("a-1", "alice"),
        reminder("c-1", "carol"),
        reminder("a-2", "alice"),
    ];
    world.publish("billing", set).await;
    world
        .all_became("billing", &["a-1", "a-2"], "delivered")
        .await;
    world.became("billing", "c-1", "parked").await;
    world.member().kill();
    assert_eq!(
        world.stream("BELLHOP_LOG").await.state.messages,
        1,
        "its set is not settled"
    );
    world
        .jetstream
        .get_stream("KV_bellhop_positions")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    silent.recover();
    world.serve().await;
    world.taken(&["b-1"]).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
    assert_eq!(world.order("alice"), ["a-1", "a-2"]);
    world.app("app-3", &["carol"]).await;
    world.taken(&["c-1"]).await;
    world.settle().await;
    assert_eq!(world.takes().len(), 4);
}

/// Recorded outcomes are known after a crash, however much was recorded behind it.
#[tokio::test]
async fn early_outcomes_of_an_open_set_are_known() {
    const LATER_ONES: usize = 2_000;
    let world = World::start(&[("delivery.timeout", "60s"), ("members.grace", "0s")]).await;
    world.app("app-1", &["alice", "dora"]).await;
    let silent = world.app("app-2", &["bob"]).await;
    silent.on_delivery(|_| Reply::silence());
    let set = [
        reminder("a-1", "alice"),
        reminder("b-1", "bob"),
        reminder("c-1", "carol"),
    ];
    world.publish("billing", set).await;
    world.became("billing", "a-1", "delivered").await;
    world.became("billing", "c-1", "parked").await;
    let behind = numbers(0..LATER_ONES);
    for part in behind.chunks(100) {
        let set = part.iter().map(|id| reminder(id, "dora"));
        world.publish("claims", set).await;
    }
    world.all_became("claims", &behind, "delivered").await;
    world.member().kill();
    silent.recover();
    world.serve().await;
    world.taken(&["b-1"]).await;
    world.settle().await;
    assert_eq!(world.repeats(), []);
}

/// A batch of outcomes whose acknowledgement is lost is sent again, and nothing overtakes it.
#[tokio::test]
async fn outcomes_keep_their_order_without_connections() {
    let world = World::without_members("", &[]).await;
    let proxy = Proxy::before(&world).await;
    world.serve_at(&proxy.url, "member-1").await;
    let app = world.app("app-1", &[]).await;
    let mut ids = Vec::new();
    for round in 0..6 {
        let users: Vec<String> = (0..40).map(|number| format!("{round}-{number}")).collect();
        let set = users.iter().map(|user| reminder(user, user)).collect();
        world.publish_surely("billing", set).await;
        proxy.cut_all();
        world.became("billing", &users[0], "parked").await;
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        app.connect(&users).await;
        proxy.cut_all();
        ids.extend(users.iter().map(|id| (*id).to_owned()));
    }
    world.all_became("billing", &ids, "delivered").await;
    world.settle().await;
    let mut ended = BTreeSet::new();
    let outcomes = world.outcomes.all().await;
    for one in &outcomes {
        assert!(!ended.contains(&one.id), "{one:?} is behind its end");
        if one.is_final() {
            ended.insert(one.id.clone());
        }
    }
    let parked = outcomes.iter().filter(|one| one.outcome == "parked");
    assert!(parked.count() > 0, "some have two outcomes");
}

/// "Every reminder of every acknowledged set gets exactly one final outcome in the end", after a
/// kill, too; and what had its outcome before is not delivered again.
#[tokio::test]
async fn kill_during_ten_thousand_loses_nothing() {
    const TOTAL: usize = 10_000;
    let world = World::start(&[]).await;
    world.crowd().await;
    let kill = async {
        world.taken_so_far(TOTAL / 2).await;
        world.member().kill();
        let outcomes = world.outcomes.all().await;
        world.serve_as("member-1").await;
        outcomes
            .iter()
            .filter(|outcome| outcome.is_final())
            .map(|outcome| outcome.id.clone())
            .collect::<BTreeSet<_>>()
    };
    let (_, known) = tokio::join!(world.flow(0..TOTAL, 2_000), kill);
    world.complete(TOTAL).await;
    let again: Vec<_> = world
        .repeats()
        .into_iter()
        .filter(|(_, id, _)| known.contains(id))
        .collect();
    assert_eq!(again, [], "their outcome was known");
    assert!(
        known.len() > TOTAL / 10,
        "it was killed in the middle: {}",
        known.len()
    );
}

/// The same while everybody is away: the mailboxes hold each reminder once.
#[tokio::test]
async fn kill_during_parking_parks_each_once() {
    const TOTAL: usize = 3_000;
    let world = World::start(&[]).await;
    let kill = async {
        world
            .within(LATER, "a third is parked", async || {
                match world.mailboxes("bellhop.parked.*.*").await? {
                    parked if parked > TOTAL / 3 => Ok(()),
                    parked => Err(format!("{parked} are")),
                }
            })
            .await;
        world.kill_and_revive().await;
    };
    tokio::join!(world.flow(0..TOTAL, usize::MAX), kill);
    world
        .all_became("billing", &numbers(0..TOTAL), "parked")
        .await;
    world.settle().await;
    assert_eq!(world.mailboxes("bellhop.parked.*.*").await, Ok(TOTAL));
    world.crowd().await;
    world.complete(TOTAL).await;
    assert_eq!(world.repeats(), []);
}

/// A kill while mailboxes are delivered: what was under way comes again, and nothing else. Many
/// small pages make it likely that outcomes are written of which the reminders are not removed yet.
#[tokio::test]
async fn a_kill_while_mailboxes_are_delivered_loses_nothing() {
    const TOTAL: usize = 3_000;
    let world = World::start(&[
        ("mailbox.page_messages", "5"),
        ("mailbox.reads_in_flight", "50"),
    ])
    .await;
    world.flow(0..TOTAL, usize::MAX).await;
    world
        .all_became("billing", &numbers(0..TOTAL), "parked")
        .await;
    let kill = async {
        world.taken_so_far(TOTAL / 3).await;
        world.member().kill();
        let outcomes = world.outcomes.all().await;
        world.serve_as("member-1").await;
        outcomes
            .iter()
            .filter(|outcome| outcome.is_final())
            .map(|outcome| outcome.id.clone())
            .collect::<BTreeSet<_>>()
    };
    let (known, ()) = tokio::join!(kill, world.crowd());
    world.complete(TOTAL).await;
    let again: Vec<_> = world
        .repeats()
        .into_iter()
        .filter(|(_, id, _)| known.contains(id))
        .collect();
    assert_eq!(again, [], "their outcome was known");
    assert!(
        !known.is_empty() && known.len() < TOTAL,
        "it was killed in the middle: {}",
        known.len()
    );
}

/// The first signal waits for what is in flight, the second one does not.
#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let minute = [("delivery.timeout", "60s"), ("members.grace", "60s")];
    let world = World::start(&minute).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::silence());
    world.publish("billing", [reminder("1", "alice")]).await;
    let is_asked = async || {
        if app.attempts("1") > 0 {
            Ok(())
        } else {
            Err("not asked".to_owned())
        }
    };
    world.eventually("a delivery is under way", is_asked).await;
    let member = world.member();
    member.signal("TERM");
    let is_stopping = async || {
        if member.log().contains("stopping") {
            Ok(())
        } else {
            Err("not stopping".to_owned())
        }
    };
    world.eventually("it is stopping", is_stopping).await;
    assert_eq!(member.status(), None, "a delivery is in flight");
    let began = Instant::now();
    ends_with(&world, &member, "TERM", 1).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?} is not at once",
        began.elapsed()
    );

    app.recover();
    world.serve_as(member.name()).await;
    world.taken(&["1"]).await;
    world.settle().await;
}

/// A stop waits for what is in flight, but no longer than `members.grace`.
#[tokio::test]
async fn a_stop_waits_no_longer_than_its_grace() {
    let world = World::start(&[("delivery.timeout", "60s"), ("members.grace", "300ms")]).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::silence());
    world.publish("billing", [reminder("1", "alice")]).await;
    let is_asked = async || {
        if app.attempts("1") > 0 {
            Ok(())
        } else {
            Err("not asked".to_owned())
        }
    };
    world.eventually("a delivery is under way", is_asked).await;
    let began = Instant::now();
    ends_with(&world, &world.member(), "TERM", 0).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?} is more than its grace",
        began.elapsed()
    );
    app.recover();
    world.serve().await;
    world.taken(&["1"]).await;
    world.settle().await;
}

/// Reminders in flight at a stop are finished if the answer arrives in time: delivered once, by the
/// stopping member.
#[tokio::test]
async fn stop_waits_for_timely_answers() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::accept().after(Duration::from_millis(500)));
    world.publish("billing", [reminder("1", "alice")]).await;
    world.taken(&["1"]).await;
    ends_with(&world, &world.member(), "TERM", 0).await;
    assert_eq!(world.trail("billing", "1").await, ["delivered"]);
    world.serve().await;
    world.settle().await;
    assert_eq!(app.attempts("1"), 1);
}

/// A nats-server that is killed and comes back while reminders flow: nothing acknowledged is lost,
/// and the flow goes on by itself.
#[tokio::test]
async fn a_killed_nats_server_comes_back() {
    const TOTAL: usize = 3_000;
    let world = World::start(&SHORT_ACK_WAIT).await;
    world.crowd().await;
    let outage = async {
        for part in [1, 2] {
            world.taken_so_far(part * TOTAL / 3).await;
            world.kill_nats().await;
            world.restart_nats().await;
        }
    };
    tokio::join!(world.flow(0..TOTAL, 600), outage);
    world.complete(TOTAL).await;
    let member = world.member();
    world
        .eventually("it is ready again", async || member.is_ready().await)
        .await;
}

/// Everything goes at once, as when a machine crashes, and comes back.
#[tokio::test]
async fn a_crash_of_bellhop_and_nats_loses_nothing() {
    const TOTAL: usize = 3_000;
    let world = World::start(&[]).await;
    world.crowd().await;
    let crash = async {
        world.taken_so_far(TOTAL / 2).await;
        world.member().kill();
        world.kill_nats().await;
        world.restart_nats().await;
        world.serve_as("member-1").await;
    };
    tokio::join!(world.flow(0..TOTAL, 1_000), crash);
    world.complete(TOTAL).await;
}

/// An outage longer than a member's ttl: each must think that it is alone, and find that it is not.
#[tokio::test]
async fn an_outage_longer_than_the_ttl_ends_well() {
    const TOTAL: usize = 2_000;
    let world = World::start(&[
        ("members.interval", "200ms"),
        ("members.ttl", "1s"),
        SHORT_ACK_WAIT[0],
    ])
    .await;
    world.serve().await;
    world.crowd().await;
    let outage = async {
        world.taken_so_far(TOTAL / 2).await;
        world.kill_nats().await;
        tokio::time::sleep(Duration::from_millis(1_500)).await; // The ttl is what it is about.
        world.restart_nats().await;
    };
    tokio::join!(world.flow(0..TOTAL, 600), outage);
    world.complete(TOTAL).await;
}

/// Asked to stop while the server is away, with outcomes that cannot be stored, it still ends, soon
/// after its grace.
#[tokio::test]
async fn it_stops_without_its_nats_server() {
    const TOTAL: usize = 1_000;
    let world = World::start(&[("members.grace", "1s"), ("nats.timeout", "1s")]).await;
    world.crowd().await;
    world.flow(0..TOTAL, usize::MAX).await;
    world.taken_so_far(TOTAL / 4).await;
    world.kill_nats().await;
    let member = world.member();
    let began = Instant::now();
    member.signal("TERM");
    world.ended(&member).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?} for a grace of 1 s\n{}",
        began.elapsed(),
        member.log()
    );

    world.restart_nats().await;
    world.serve_as(member.name()).await;
    world.complete(TOTAL).await;
}

/// A backlog that grew without members is worked off, in order.
#[tokio::test]
async fn sets_published_without_member_are_delivered() {
    let world = World::start(&[]).await;
    ends_with(&world, &world.member(), "TERM", 0).await;
    world.flow(0..1_000, usize::MAX).await;
    world.crowd().await;
    world.serve().await;
    world.complete(1_000).await;
    assert_eq!(world.repeats(), []);
}

/// JetStream counts a message as handed out when it has sent it. A set that is lost on the way to a
/// reader of the log must not be overtaken for that, and not be left out.
#[tokio::test]
async fn sets_lost_on_the_way_are_not_overtaken() {
    let world = World::start(&[("partitions", "1")]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("0", "alice")]).await;
    world.taken(&["0"]).await;
    let log = world.jetstream.get_stream("BELLHOP_LOG").await.unwrap();
    let readers: Vec<String> = log
        .consumer_names()
        .map(|name| name.unwrap())
        .collect()
        .await;
    for reader in &readers {
        let mut lost = world.lose(1, ["BELLHOP_LOG", reader]).await;
        // One of the two who ask for it gets the next set.
        for number in 0..2 {
            world
                .publish("billing", [reminder(format!("{reader}-{number}"), "alice")])
                .await;
        }
        lost.next().await.unwrap();
    }
    for number in numbers(1..6) {
        world.publish("billing", [reminder(number, "alice")]).await;
    }
    let of_readers = readers
        .iter()
        .flat_map(|reader| (0..2).map(move |number| format!("{reader}-{number}")));
    let all: Vec<_> = ["0".to_owned()]
        .into_iter()
        .chain(of_readers)
        .chain(numbers(1..6))
        .collect();
    world.taken(&all).await;
    assert_eq!(world.order("alice"), all);
    world.settle().await;
}

/// A server that stands still, or is behind a cut cable, closes nothing. A member must find that
/// out by itself, and soon, so that it goes to another server of the cluster.
#[tokio::test]
async fn a_nats_server_that_stands_still_is_left() {
    let world = World::start(&[]).await;
    let member = world.member();
    world.signal_nats("STOP").await;
    world
        .eventually("the member knows", async || {
            let answer = member.probe("GET", "/readyz").await?;
            if answer.body.contains("[-] nats connected") {
                Ok(())
            } else {
                Err(answer.body)
            }
        })
        .await;
    world.signal_nats("CONT").await;
    world
        .eventually("it is ready again", async || member.is_ready().await)
        .await;
}
