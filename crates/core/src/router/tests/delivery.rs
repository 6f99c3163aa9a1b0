//! Live reminders, leases, batches, routes.

use super::*;
use std::time::Duration;

#[test]
fn a_reminder_is_delivered_after_a_heartbeat() {
    let mut router = TestRouter::new();
    assert_eq!(router.up("alice", "app-1"), NOTHING);
    assert_eq!(router.publish("alice"), ["heartbeat app-1: alice"]);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e1"]
    );
    assert_eq!(router.accepted("app-1"), ["alice e1 delivered by app-1"]);
    assert_eq!(router.down("alice", "app-1"), NOTHING);
    router.assert_nothing_is_left();
}

#[test]
fn held_connection_needs_no_heartbeat_within_lease() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.publish("alice");
    router.connected("app-1", "alice");
    router.wait(1_000);
    router.accepted("app-1");
    router.wait(10_000);
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e2"],
        "the accepted delivery began a new lease"
    );
    router.accepted("app-1");
    router.wait(10_001);
    assert_eq!(router.publish("alice"), ["heartbeat app-1: alice"]);
}

#[test]
fn without_lease_each_delivery_needs_a_heartbeat() {
    let mut router = TestRouter::with(|settings| settings.lease = Duration::ZERO);
    router.up("alice", "app-1");
    assert_eq!(router.publish("alice"), ["heartbeat app-1: alice"]);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e1"]
    );
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(
        router.accepted("app-1"),
        ["heartbeat app-1: alice", "alice e1 delivered by app-1"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e2"]
    );
    assert_eq!(router.accepted("app-1"), ["alice e2 delivered by app-1"]);
}

#[test]
fn without_lease_a_mailbox_is_delivered() {
    let mut router = TestRouter::with(|settings| settings.lease = Duration::ZERO);
    router.found("alice", (7, 8), 2);
    assert_eq!(router.up("alice", "app-1"), ["heartbeat app-1: alice"]);
    assert_eq!(router.connected("app-1", "alice"), ["read alice 7 to 8"]);
    router.wait(3);
    assert_eq!(
        router.last_page("alice", &[mail(7), mail(8)], 9),
        ["heartbeat app-1: alice"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice m7 m8"]
    );
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn reminders_during_a_delivery_form_one_batch() {
    let mut router = TestRouter::new();
    for user in ["alice", "bob", "carol"] {
        router.hold(user, "app-1");
    }
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e4"]);
    assert_eq!(router.publish("bob carol bob"), NOTHING);
    assert_eq!(router.publish("carol alice"), NOTHING);
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: bob e5 e5.2, carol e5.1 e6, alice e6.1",
            "alice e4 delivered by app-1"
        ]
    );
}

#[test]
fn heartbeat_asks_for_waiting_users_up_to_limit() {
    let mut router = TestRouter::with(|settings| settings.heartbeat_users = 2);
    for user in ["alice", "bob", "carol", "dave"] {
        router.up(user, "app-1");
    }
    assert_eq!(
        router.publish("alice bob carol dave"),
        ["heartbeat app-1: alice, bob"]
    );
    assert_eq!(
        router.connected("app-1", "alice bob"),
        [
            "heartbeat app-1: carol, dave",
            "deliver app-1: alice e1, bob e1.1"
        ]
    );
    assert_eq!(
        router.connected("app-1", "carol dave"),
        NOTHING,
        "one delivery at a time"
    );
    router.accepted("app-1");
}

#[test]
fn users_who_left_do_not_block_heartbeat_queue() {
    let mut router = TestRouter::with(|settings| settings.heartbeat_users = 1);
    for user in ["alice", "bob", "carol", "dave"] {
        router.up(user, "app-1");
    }
    assert_eq!(
        router.publish("alice bob carol dave"),
        ["heartbeat app-1: alice"]
    );
    assert_eq!(router.down("bob", "app-1"), NOTHING, "bob still queues");
    assert_eq!(router.down("carol", "app-1"), NOTHING);
    assert_eq!(
        router.connected("app-1", "alice"),
        [
            "heartbeat app-1: dave",
            "deliver app-1: alice e1",
            "park bob e1.1, carol e1.2"
        ]
    );
}

#[test]
fn users_queued_at_deserted_instance_are_parked() {
    let mut router = TestRouter::with(|settings| settings.heartbeat_users = 1);
    for user in ["alice", "bob", "carol"] {
        router.up(user, "app-1");
    }
    router.publish("alice bob carol");
    for user in ["bob", "carol", "alice"] {
        assert_eq!(router.down(user, "app-1"), NOTHING);
    }
    assert_eq!(
        router.connected("app-1", ""),
        ["park alice e1, bob e1.1, carol e1.2"]
    );
}

#[test]
fn moving_user_has_one_delivery_in_flight() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e2"]);
    assert_eq!(router.up("alice", "app-2"), NOTHING);
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(
        router.accepted("app-1"),
        ["heartbeat app-2: alice", "alice e2 delivered by app-1"]
    );
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-2: alice e3"]
    );
}

#[test]
fn a_delivery_is_bounded_in_bytes() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.hold("bob", "app-1");
    router.publish("alice");
    router.event([
        reminder("bob").bytes(400),
        reminder("bob").bytes(600),
        reminder("bob").bytes(300),
    ]);
    router.publish("alice");
    assert_eq!(
        router.accepted("app-1"),
        ["deliver app-1: bob e4 e4.1", "alice e3 delivered by app-1"],
        "1,000 bytes, and no one overtakes"
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: alice e5, bob e4.2",
            "bob e4 delivered by app-1",
            "bob e4.1 delivered by app-1"
        ]
    );
}

#[test]
fn a_reminder_beyond_the_bound_goes_alone() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.event([
        reminder("alice").bytes(50),
        reminder("alice").bytes(5_000),
        reminder("alice").bytes(50),
    ]);
    assert_eq!(
        router.accepted("app-1"),
        ["deliver app-1: alice e3", "alice e2 delivered by app-1"]
    );
    assert_eq!(
        router.accepted("app-1"),
        ["deliver app-1: alice e3.1", "alice e3 delivered by app-1"]
    );
    assert_eq!(
        router.accepted("app-1"),
        ["deliver app-1: alice e3.2", "alice e3.1 delivered by app-1"]
    );
}

#[test]
fn unconfirmed_route_is_dropped_and_next_tried() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    assert_eq!(
        router.publish("alice"),
        ["heartbeat app-2: alice"],
        "the newest first"
    );
    assert_eq!(
        router.connected("app-2", ""),
        ["drop route alice app-2 @2", "heartbeat app-1: alice"]
    );
    assert_eq!(
        router.connected("app-1", ""),
        ["drop route alice app-1 @1", "park alice e1"]
    );
    assert_eq!(router.parked(&[40]), ["alice e1 parked"]);
}

#[test]
fn refused_route_is_dropped_and_next_tried() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.hold("alice", "app-2");
    assert_eq!(
        router.publish("alice alice"),
        ["deliver app-2: alice e2 e2.1"]
    );
    assert_eq!(
        router.refused(
            "app-2",
            &[(0, 0, Refusal::NotConnected), (0, 1, Refusal::NotConnected)]
        ),
        ["drop route alice app-2 @2", "heartbeat app-1: alice"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e2 e2.1"]
    );
    assert_eq!(
        router.refused("app-1", &[(0, 1, Refusal::NotConnected)]),
        [
            "drop route alice app-1 @1",
            "alice e2 delivered by app-1",
            "park alice e2.1"
        ],
        "the terminal left in between"
    );
}

#[test]
fn only_the_refused_user_loses_the_route() {
    let mut router = TestRouter::new();
    for user in ["alice", "bob", "carol"] {
        router.hold(user, "app-1");
    }
    router.publish("alice");
    router.publish("bob carol");
    router.accepted("app-1");
    assert_eq!(
        router.refused("app-1", &[(0, 0, Refusal::NotConnected)]),
        [
            "drop route bob app-1 @2",
            "carol e5.1 delivered by app-1",
            "park bob e5"
        ]
    );
}

#[test]
fn old_heartbeat_answer_keeps_a_newer_route() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.publish("alice");
    assert_eq!(router.up("alice", "app-1"), NOTHING, "it is put again");
    assert_eq!(
        router.connected("app-1", ""),
        ["heartbeat app-1: alice"],
        "and asked about again"
    );
    assert_eq!(
        router.connected("app-1", ""),
        ["drop route alice app-1 @2", "park alice e1"]
    );
}

#[test]
fn old_refusal_keeps_a_newer_route() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.up("alice", "app-1");
    assert_eq!(
        router.refused("app-1", &[(0, 0, Refusal::NotConnected)]),
        ["heartbeat app-1: alice"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e2"]
    );
}

#[test]
fn route_deleted_during_delivery_ends_afterwards() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.publish("alice");
    assert_eq!(router.down("alice", "app-1"), NOTHING);
    assert_eq!(
        router.accepted("app-1"),
        ["alice e2 delivered by app-1", "park alice e3"]
    );
    router.parked(&[40]);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    router.last_page("alice", &[mail(40)], 41);
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn late_news_of_an_older_route_changes_nothing() {
    let mut router = TestRouter::new();
    router.up_at(5, "alice", "app-1");
    router.down_at(4, "alice", "app-1");
    router.up_at(3, "alice", "app-1");
    assert_eq!(router.publish("alice"), ["heartbeat app-1: alice"]);
    assert_eq!(
        router.connected("app-1", ""),
        ["drop route alice app-1 @5", "park alice e1"]
    );
}

#[test]
fn a_route_may_name_a_new_subject() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.publish("alice");
    let moved = Arc::new(Instance {
        name: name("app-1"),
        subject: "elsewhere".into(),
    });
    router.step(Input::RouteUp {
        user: name("alice"),
        instance: moved.clone(),
        revision: 2,
    });
    assert_eq!(
        router.connected("app-1", ""),
        ["heartbeat app-1: alice"],
        "on the new subject"
    );
    let connected = vec![name("alice")];
    assert_eq!(
        router.step(Input::HeartbeatAnswered {
            instance: moved,
            answer: Ok(connected)
        }),
        ["deliver app-1: alice e1"]
    );
}

#[test]
fn stopping_finishes_live_reminders() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.up("bob", "app-1");
    router.publish("alice bob carol");
    router.publish("alice");
    assert_eq!(router.stop(), NOTHING);
    assert!(!router.partition.is_quiet());
    router.connected("app-1", "bob");
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: bob e2.1, alice e3",
            "alice e2 delivered by app-1"
        ]
    );
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        NOTHING,
        "they are parked when the batch under way is durable"
    );
    assert_eq!(
        router.parked(&[40]),
        ["park bob e2.1, alice e3", "carol e2.2 parked"]
    );
    assert_eq!(
        router.parked(&[41, 42]),
        ["bob e2.1 parked", "alice e3 parked"]
    );
    assert!(router.partition.is_quiet());
}
