//! Parking, and reading back in order.

use super::*;

/// Alice's mailbox holds messages 10, 12 and 15, her connection is held, and the first page was
/// asked for.
fn alice_is_read() -> TestRouter {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[mail(10), mail(12), mail(15)]);
    assert_eq!(router.up("alice", "app-1"), ["heartbeat app-1: alice"]);
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 15"]);
    router
}

#[test]
fn without_route_parked_then_settled_when_durable() {
    let mut router = TestRouter::new();
    assert_eq!(router.publish("alice"), ["park alice e1"]);
    assert_eq!(router.parked(&[40]), ["alice e1 parked"]);
    assert!(router.partition.is_quiet());
}

#[test]
fn new_reminders_queue_behind_the_mailbox() {
    let mut router = TestRouter::new();
    router.publish("alice");
    assert_eq!(router.publish("alice"), NOTHING, "one batch at a time");
    assert_eq!(
        router.up("alice", "app-1"),
        NOTHING,
        "nothing can be read yet"
    );
    assert_eq!(
        router.parked(&[10]),
        ["heartbeat app-1: alice", "park alice e2", "alice e1 parked"]
    );
    assert_eq!(router.parked(&[11]), ["alice e2 parked"]);
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 11"]);
    assert_eq!(router.publish("alice"), ["park alice e3"]);
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(11)], 12),
        ["deliver app-1: alice m10 m11"]
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "alice m10 delivered by app-1, purge up to 10",
            "alice m11 delivered by app-1, purge up to 11"
        ]
    );
    assert_eq!(
        router.publish("alice"),
        NOTHING,
        "event 3 is still on its way into the mailbox"
    );
    assert_eq!(
        router.parked(&[12]),
        ["read alice 12 to 12", "park alice e4", "alice e3 parked"]
    );
    assert_eq!(router.parked(&[14]), ["alice e4 parked"]);
    router.last_page("alice", &[mail(12), mail(14)], 15);
    router.accepted("app-1");
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e5"],
        "live again"
    );
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn a_mailbox_is_delivered_page_by_page() {
    let mut router = alice_is_read();
    assert_eq!(
        router.page("alice", &[mail(10), mail(12)], 13),
        ["deliver app-1: alice m10 m12"]
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "read alice 13 to 15",
            "alice m10 delivered by app-1, purge up to 10",
            "alice m12 delivered by app-1, purge up to 12"
        ]
    );
    assert_eq!(
        router.page("alice", &[], 14),
        ["read alice 14 to 15"],
        "an empty page is a step, too"
    );
    assert_eq!(
        router.last_page("alice", &[mail(15)], 16),
        ["deliver app-1: alice m15"]
    );
    assert_eq!(
        router.accepted("app-1"),
        ["alice m15 delivered by app-1, purge up to 15"]
    );
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn large_page_goes_out_in_several_deliveries() {
    let mut router = TestRouter::with(|settings| settings.delivery_bytes = 200);
    router.found("alice", (10, 12), 3);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(11), mail(12)], 13),
        ["deliver app-1: alice m10 m11"]
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: alice m12",
            "alice m10 delivered by app-1, purge up to 10",
            "alice m11 delivered by app-1, purge up to 11"
        ]
    );
}

#[test]
fn parks_go_in_order_and_in_bounded_batches() {
    let mut router = TestRouter::with(|settings| settings.park_batch = (3, 450));
    assert_eq!(router.publish("alice"), ["park alice e1"]);
    router.event([
        reminder("alice").bytes(300),
        reminder("alice"),
        reminder("alice").bytes(900),
        reminder("alice"),
    ]);
    router.publish("alice bob alice");
    assert_eq!(
        router.parked(&[1]),
        ["park alice e2, alice e2.1", "alice e1 parked"]
    );
    assert_eq!(
        router.parked(&[2, 3]),
        ["park alice e2.2", "alice e2 parked", "alice e2.1 parked"],
        "alone"
    );
    assert_eq!(
        router.parked(&[4]),
        ["park alice e2.3, alice e3, alice e3.2", "alice e2.2 parked"]
    );
    assert_eq!(
        router.parked(&[5, 6, 7]),
        [
            "park bob e3.1",
            "alice e2.3 parked",
            "alice e3 parked",
            "alice e3.2 parked"
        ]
    );
}

#[test]
fn reads_are_bounded() {
    let mut router = TestRouter::with(|settings| settings.reads_in_flight = 2);
    for (user, at) in [("alice", "app-1"), ("bob", "app-2"), ("carol", "app-3")] {
        router.found(user, (10, 30), 1);
        router.up(user, at);
    }
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 30"]);
    assert_eq!(router.connected("app-2", "bob"), ["read bob 10 to 30"]);
    assert_eq!(router.connected("app-3", "carol"), NOTHING);
    assert_eq!(
        router.last_page("alice", &[mail(10)], 31),
        ["deliver app-1: alice m10", "read carol 10 to 30"]
    );
}

#[test]
fn slow_instance_limits_read_ahead() {
    let mut router = TestRouter::with(|settings| settings.reads_in_flight = 4);
    let page = [Entry {
        bytes: 900,
        ..mail(10)
    }];
    for (user, at) in [
        ("alice", "app-1"),
        ("bob", "app-1"),
        ("carol", "app-1"),
        ("dave", "app-1"),
        ("erin", "app-2"),
    ] {
        router.found(user, (10, 10), 1);
        router.up(user, at);
    }
    assert_eq!(
        router.connected("app-1", "alice"),
        ["heartbeat app-1: bob, carol, dave", "read alice 10 to 10"]
    );
    assert_eq!(
        router.last_page("alice", &page, 11),
        ["deliver app-1: alice m10"]
    );
    assert_eq!(
        router.connected("app-1", "bob carol dave"),
        [
            "read bob 10 to 10",
            "read carol 10 to 10",
            "read dave 10 to 10"
        ],
        "by what is known"
    );
    assert_eq!(
        router.last_page("bob", &page, 11),
        NOTHING,
        "app-1 takes its time"
    );
    assert_eq!(router.last_page("carol", &page, 11), NOTHING);
    assert_eq!(router.down("dave", "app-1"), NOTHING);
    assert_eq!(router.last_page("dave", &page, 11), ["forget m10"]);
    assert_eq!(router.up("dave", "app-1"), ["heartbeat app-1: dave"]);
    assert_eq!(
        router.connected("app-1", "dave"),
        NOTHING,
        "no more than is known to fit"
    );
    assert_eq!(
        router.connected("app-2", "erin"),
        ["read erin 10 to 10"],
        "which is nothing to app-2"
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: bob m10",
            "read dave 10 to 10",
            "alice m10 delivered by app-1, purge up to 10"
        ]
    );
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        ["forget m10", "forget m10"]
    );
    assert_eq!(router.last_page("dave", &page, 11), ["forget m10"]);
}

#[test]
fn user_leaving_read_queue_uses_another_route() {
    let mut router = TestRouter::with(|settings| settings.reads_in_flight = 1);
    for user in ["alice", "bob"] {
        router.found(user, (10, 10), 1);
        router.up(user, "app-1");
    }
    router.connected("app-1", "alice");
    assert_eq!(
        router.connected("app-1", "bob"),
        NOTHING,
        "bob queues behind alice"
    );
    router.up("bob", "app-2");
    router.down("bob", "app-1");
    assert_eq!(
        router.last_page("alice", &[mail(10)], 11),
        ["deliver app-1: alice m10", "heartbeat app-2: bob"]
    );
}

/// After the last page the instance gets no request, and a user still queues there.
#[test]
fn user_in_read_queue_outlives_the_instance() {
    let mut router = TestRouter::with(|settings| {
        (settings.lease, settings.reads_in_flight) = (Duration::ZERO, 1)
    });
    router.away_with_mail("alice", &[mail(1)]);
    router.away_with_mail(
        "bob",
        &[Entry {
            bytes: 2_000,
            ..mail(2)
        }],
    );
    router.up("bob", "app-1");
    assert_eq!(router.connected("app-1", "bob"), ["read bob 2 to 2"]);
    router.up("alice", "app-1");
    assert_eq!(router.connected("app-1", "alice"), NOTHING, "behind bob");
    router.up("carol", "app-1");
    assert_eq!(router.publish("carol"), ["heartbeat app-1: carol"]);
    assert_eq!(
        router.last_page(
            "bob",
            &[Entry {
                bytes: 2_000,
                ..mail(2)
            }],
            3
        ),
        NOTHING,
        "to be confirmed behind carol"
    );
    for user in ["alice", "bob", "carol"] {
        router.down(user, "app-1");
    }
    assert_eq!(
        router.connected("app-1", ""),
        ["forget m2", "park carol e3"]
    );
    assert_eq!(router.up("alice", "app-2"), ["heartbeat app-2: alice"]);
    assert_eq!(router.connected("app-2", "alice"), ["read alice 1 to 1"]);
}

#[test]
fn mailboxes_found_on_takeover_are_delivered() {
    let mut router = TestRouter::new();
    assert_eq!(router.found("alice", (10, 20), 2), NOTHING);
    assert_eq!(
        router.publish("alice"),
        ["park alice e1"],
        "behind what was found"
    );
    router.parked(&[21]);
    router.up("alice", "app-1");
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 21"]);
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(20), mail(21)], 22),
        ["deliver app-1: alice m10 m20 m21"]
    );
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn a_full_mailbox_refuses_the_newest() {
    let mut router = TestRouter::with(|settings| settings.room.limit = 2);
    assert_eq!(
        router.publish("alice alice alice"),
        ["park alice e1, alice e1.1"]
    );
    assert_eq!(
        router.parked(&[10, 11]),
        ["count alice", "alice e1 parked", "alice e1.1 parked"]
    );
    assert_eq!(
        router.counted("alice", Some(&[("billing", 10..12)])),
        ["alice e1.2 refused: mailbox full"]
    );
    assert_eq!(
        router.publish("alice bob"),
        ["count alice, if fewer than 2", "park bob e2.1"]
    );
    assert_eq!(
        router.counted("alice", None),
        ["alice e2 refused: mailbox full"]
    );
    router.parked(&[12]);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    router.last_page("alice", &[mail(10), mail(11)], 12);
    router.refused("app-1", &[(0, 1, Refusal::Busy)]);
    assert_eq!(router.publish("alice"), ["park alice e3"], "one has left");
}

#[test]
fn busy_pauses_the_user_and_keeps_the_order() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.hold("bob", "app-1");
    router.publish("bob");
    router.publish("alice bob");
    router.accepted("app-1");
    assert_eq!(router.publish("bob"), NOTHING);
    assert_eq!(
        router.refused("app-1", &[(0, 0, Refusal::Busy)]),
        [
            "deliver app-1: bob e5",
            "park alice e4",
            "bob e4.1 delivered by app-1"
        ],
        "bob is not paused"
    );
    router.parked(&[10]);
    assert_eq!(router.publish("alice"), ["park alice e6"], "behind");
    router.parked(&[11]);
    router.accepted("app-1");
    assert_eq!(router.wait(199), NOTHING);
    assert_eq!(router.wait(1), ["read alice 10 to 11"]);
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(11)], 12),
        ["deliver app-1: alice m10 m11"]
    );
}

#[test]
fn pause_grows_with_busy_answers() {
    let mut router = alice_is_read();
    for pause in [200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        router.last_page("alice", &[mail(10), mail(12), mail(15)], 16);
        let all = [
            (0, 0, Refusal::Busy),
            (0, 1, Refusal::Busy),
            (0, 2, Refusal::Busy),
        ];
        assert_eq!(router.refused("app-1", &all), ["forget m10 m12 m15"]);
        assert_eq!(router.wait(pause - 1), NOTHING);
        let resumed = router.wait(1);
        if resumed == ["heartbeat app-1: alice"] {
            router.connected("app-1", "alice"); // The lease ended.
        } else {
            assert_eq!(resumed, ["read alice 10 to 15"]);
        }
    }
    router.last_page("alice", &[mail(10), mail(12), mail(15)], 16);
    router.refused("app-1", &[(0, 1, Refusal::Busy), (0, 2, Refusal::Busy)]);
    assert_eq!(router.wait(200), ["read alice 11 to 15"]);
}

#[test]
fn a_new_route_ends_the_pause() {
    let mut router = alice_is_read();
    router.last_page("alice", &[mail(10), mail(12), mail(15)], 16);
    router.refused(
        "app-1",
        &[
            (0, 0, Refusal::Busy),
            (0, 1, Refusal::Busy),
            (0, 2, Refusal::Busy),
        ],
    );
    assert_eq!(router.up("alice", "app-2"), ["heartbeat app-2: alice"]);
}

#[test]
fn accepted_reminder_behind_busy_one_is_settled() {
    let mut router = alice_is_read();
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(12), mail(15)], 16),
        ["deliver app-1: alice m10 m12 m15"]
    );
    assert_eq!(
        router.refused("app-1", &[(0, 1, Refusal::Busy)]),
        [
            "forget m12",
            "alice m10 delivered by app-1, purge up to 10",
            "alice m15 delivered by app-1, purge only 15"
        ]
    );
    assert_eq!(router.publish("alice"), ["park alice e4"]);
    router.parked(&[17]);
    assert_eq!(router.wait(200), ["read alice 11 to 17"]);
    // Message 15 has not been removed yet.
    assert_eq!(
        router.last_page("alice", &[mail(12), mail(15), mail(17)], 18),
        ["forget m15", "deliver app-1: alice m12 m17"]
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "alice m12 delivered by app-1, purge up to 12",
            "alice m17 delivered by app-1, purge up to 17"
        ]
    );
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn mailbox_with_only_accepted_reminders_is_empty() {
    let mut router = alice_is_read();
    router.last_page("alice", &[mail(10), mail(12), mail(15)], 16);
    router.refused("app-1", &[(0, 0, Refusal::Busy)]);
    assert_eq!(router.wait(200), ["read alice 10 to 15"]);
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(12), mail(15)], 16),
        ["forget m12 m15", "deliver app-1: alice m10"]
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "read alice 11 to 15",
            "alice m10 delivered by app-1, purge up to 10"
        ]
    );
    assert_eq!(router.last_page("alice", &[mail(15)], 16), ["forget m15"]);
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e4"],
        "live again"
    );
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn user_moves_during_mailbox_delivery() {
    let mut router = alice_is_read();
    router.page("alice", &[mail(10), mail(12)], 13);
    assert_eq!(router.up("alice", "app-2"), NOTHING);
    assert_eq!(router.down("alice", "app-1"), NOTHING);
    assert_eq!(
        router.refused("app-1", &[(0, 1, Refusal::NotConnected)]),
        [
            "heartbeat app-2: alice",
            "alice m10 delivered by app-1, purge up to 10"
        ]
    );
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-2: alice m12"]
    );
    assert_eq!(
        router.accepted("app-2"),
        [
            "read alice 13 to 15",
            "alice m12 delivered by app-2, purge up to 12"
        ]
    );
}

#[test]
fn user_leaves_during_mailbox_read() {
    let mut router = alice_is_read();
    assert_eq!(router.down("alice", "app-1"), NOTHING);
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(12), mail(15)], 16),
        ["forget m10 m12 m15"]
    );
    router.up("alice", "app-1");
    assert_eq!(
        router.connected("app-1", "alice"),
        ["read alice 10 to 15"],
        "from the start"
    );
}

#[test]
fn reminder_being_parked_is_not_delivered_yet() {
    let mut router = alice_is_read();
    assert_eq!(router.publish("alice alice"), ["park alice e4, alice e4.1"]);
    // The page sees the first of the batch, whose acknowledgement is still on its way.
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(12), mail(15), mail(16)], 17),
        ["forget m16", "deliver app-1: alice m10 m12 m15"]
    );
    router.accepted("app-1");
    assert_eq!(
        router.parked(&[16, 17]),
        [
            "read alice 16 to 17",
            "alice e4 parked",
            "alice e4.1 parked"
        ]
    );
    router.last_page("alice", &[mail(16), mail(17)], 18);
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn reminder_parked_before_a_crash_counts_once() {
    let mut router = TestRouter::with(|settings| settings.room.limit = 2);
    router.found("alice", (10, 10), 1);
    assert_eq!(
        router.publish("alice"),
        ["park alice e1"],
        "the event comes again"
    );
    assert_eq!(
        router.parked(&[10]),
        ["alice e1 parked"],
        "and JetStream knows it"
    );
    assert_eq!(router.publish("alice alice"), ["park alice e2"]);
    assert_eq!(router.parked(&[11]), ["count alice", "alice e2 parked"]);
    assert_eq!(
        router.counted("alice", Some(&[("billing", 10..12)])),
        ["alice e2.1 refused: mailbox full"]
    );
}

#[test]
fn reminder_delivered_before_a_crash_leaves_nothing() {
    let mut router = TestRouter::new();
    router.publish("alice");
    router.parked(&[10]);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    assert_eq!(router.last_page("alice", &[], 21), NOTHING);
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn stopping_begins_no_mailbox() {
    let mut router = TestRouter::with(|settings| settings.reads_in_flight = 1);
    for (user, at) in [
        ("alice", "app-1"),
        ("bob", "app-2"),
        ("carol", "app-2"),
        ("dave", "app-3"),
    ] {
        router.found(user, (10, 30), 2);
        router.up(user, at);
    }
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 30"]);
    assert_eq!(
        router.connected("app-2", "bob"),
        ["heartbeat app-2: carol"],
        "bob queues to be read"
    );
    assert_eq!(router.connected("app-2", "carol"), NOTHING, "behind bob");
    assert_eq!(router.stop(), NOTHING);
    assert_eq!(router.last_page("alice", &[mail(10)], 31), NOTHING);
    assert_eq!(router.connected("app-3", "dave"), NOTHING);
    assert_eq!(router.up("carol", "app-1"), NOTHING);
    assert_eq!(router.publish("bob"), ["park bob e1"]);
    assert_eq!(router.parked(&[31]), ["bob e1 parked"]);
    assert!(router.partition.is_quiet());
}

#[test]
fn stopping_ends_a_pause_without_reading() {
    let mut router = alice_is_read();
    router.last_page("alice", &[mail(10), mail(12), mail(15)], 16);
    router.refused(
        "app-1",
        &[
            (0, 0, Refusal::Busy),
            (0, 1, Refusal::Busy),
            (0, 2, Refusal::Busy),
        ],
    );
    router.stop();
    assert_eq!(router.wait(60_000), NOTHING);
    assert!(router.partition.is_quiet());
}
