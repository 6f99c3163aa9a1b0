//! Connections that are asked about before their leases end.

use super::*;

/// A machine that asks about connections when a quarter of their lease is left.
fn asking_ahead() -> TestRouter {
    TestRouter::with(|settings| settings.ask_ahead = settings.lease / 4)
}

#[test]
fn connection_with_a_delivery_is_asked_about_ahead() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    assert_eq!(router.wait(7_500), ["heartbeat app-1: alice"]);
    router.connected("app-1", "alice");
    router.wait(9_000);
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e2"],
        "the lease began again with the heartbeat"
    );
}

#[test]
fn connection_without_delivery_since_is_left_alone() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    router.wait(7_500);
    router.connected("app-1", "alice");
    assert_eq!(router.wait(60_000), NOTHING);
    assert_eq!(router.publish("alice"), ["heartbeat app-1: alice"]);
}

#[test]
fn delivery_puts_the_heartbeat_ahead_off() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    for _ in 0..10 {
        assert_eq!(router.wait(5_000), NOTHING);
        router.publish("alice");
        router.accepted("app-1");
    }
    assert_eq!(router.wait(7_500), ["heartbeat app-1: alice"]);
}

#[test]
fn connections_due_together_share_a_heartbeat() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    router.wait(400);
    router.hold("bob", "app-1");
    assert_eq!(router.wait(7_500), ["heartbeat app-1: bob, alice"]);
}

#[test]
fn connection_not_held_ahead_loses_its_route() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    router.wait(7_500);
    assert_eq!(router.connected("app-1", ""), ["drop route alice app-1 @1"]);
    router.assert_nothing_is_left();
}

#[test]
fn silent_instance_is_not_asked_ahead() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    router.hold("bob", "app-1");
    router.publish("alice");
    router.delivery_fails("app-1", NoAnswer::TimedOut);
    let said = router.wait(7_500);
    assert!(!said.iter().any(|line| line.contains("bob")), "{said:?}");
}

#[test]
fn reminder_waits_for_at_most_one_heartbeat() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    router.up("carol", "app-1");
    assert_eq!(router.wait(7_500), ["heartbeat app-1: alice"]);
    assert_eq!(router.publish("carol"), NOTHING);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["heartbeat app-1: carol"]
    );
}

#[test]
fn partition_that_is_given_up_asks_nothing_ahead() {
    let mut router = asking_ahead();
    router.hold("alice", "app-1");
    router.stop();
    assert_eq!(router.wait(60_000), NOTHING);
}

#[test]
fn short_lease_is_renewed_once_a_slot() {
    for lease in [1, 2, 3, 5, 7].map(Duration::from_millis) {
        let mut router = TestRouter::with(|settings| {
            (settings.lease, settings.ask_ahead) = (lease, lease / 4);
        });
        router.hold("alice", "app-1");
        let said = router.wait(20);
        assert!(said.len() <= 1, "{lease:?}: {said:?}");
    }
}

#[test]
fn lease_shorter_than_a_slot_is_not_renewed() {
    let mut router = TestRouter::with(|settings| {
        (settings.lease, settings.ask_ahead) =
            (Duration::from_micros(1_900), Duration::from_nanos(5));
    });
    router.hold("alice", "app-1");
    assert_eq!(router.wait(20), NOTHING);
}
