//! Short absences: a user who held a connection a moment ago is expected back.

use super::*;

/// Alice has associates, and held a connection to app-1 until now. She is expected for ten seconds.
fn alice_was_here() -> TestRouter {
    let mut router = TestRouter::with(|settings| settings.reroute_after = Duration::from_secs(10));
    router.associates("alice", "bob carol");
    router.hold("alice", "app-1");
    router
}

/// Her route was deleted a second ago.
fn alice_left() -> TestRouter {
    let mut router = alice_was_here();
    router.down("alice", "app-1");
    router.wait(1_000);
    router
}

#[test]
fn a_short_absence_sends_nothing_to_associates() {
    let mut router = alice_left();
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(router.wait(500), NOTHING);
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(router.up("alice", "app-1"), ["heartbeat app-1: alice"]);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e2 e3"]
    );
    router.accepted("app-1");
    assert_eq!(router.wait(60_000), NOTHING, "no deadline is left");
}

#[test]
fn at_its_end_associates_get_what_waits() {
    let mut router = alice_left();
    router.publish("alice");
    assert_eq!(router.wait(8_999), NOTHING);
    assert_eq!(router.wait(1), ["look up bob for alice"]);
    router.looked_up("alice", "bob", "app-9");
    router.connected("app-9", "bob");
    assert_eq!(
        router.accepted("app-9"),
        ["alice e2 rerouted to bob by app-9"]
    );
    assert_eq!(
        router.publish("alice"),
        ["look up bob for alice"],
        "she is away now"
    );
}

#[test]
fn associates_have_their_whole_time_after_it() {
    let mut router = alice_left();
    router.publish("alice");
    router.wait(9_000);
    assert_eq!(router.wait(4_999), NOTHING);
    assert_eq!(router.wait(1), ["park alice e2"]);
}

#[test]
fn unknown_user_is_not_expected() {
    let mut router = TestRouter::with(|settings| settings.reroute_after = Duration::from_secs(10));
    router.associates("alice", "bob");
    assert_eq!(router.publish("alice"), ["look up bob for alice"]);
}

#[test]
fn user_who_left_long_ago_is_not_expected() {
    let mut router = alice_left();
    router.wait(9_000);
    assert_eq!(router.publish("alice"), ["look up bob for alice"]);
}

#[test]
fn associates_wait_from_the_first_silence() {
    let mut router = alice_was_here();
    router.wait(3_600_000); // Nothing came for an hour, so nothing was confirmed.
    router.publish("alice");
    assert_eq!(
        router.heartbeat_fails("app-1", NoAnswer::NoResponders),
        NOTHING
    );
    router.wait(3_000);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e2"]
    );
    router.accepted("app-1");
}

#[test]
fn silent_instance_is_waited_for_once() {
    let mut router = alice_was_here();
    router.wait(3_600_000);
    router.publish("alice");
    router.heartbeat_fails("app-1", NoAnswer::NoResponders);
    for _ in 0..4 {
        router.wait(2_499);
        router.heartbeat_fails("app-1", NoAnswer::NoResponders);
    }
    assert_eq!(router.wait(4), ["look up bob for alice"]);
    router.looked_up("alice", "bob", "");
    router.looked_up("alice", "carol", "");
    router.parked(&[10]);
    router.wait(600_000);
    assert_eq!(
        router.publish("alice"),
        ["look up bob for alice"],
        "it has been silent for long"
    );
}

#[test]
fn denied_connection_counts_from_its_last_confirmation() {
    let mut router = alice_was_here();
    router.wait(9_000);
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e2"]);
    assert_eq!(
        router.refused("app-1", &[(0, 0, Refusal::NotConnected)]),
        ["drop route alice app-1 @1"]
    );
    assert_eq!(router.wait(1_000), ["look up bob for alice"]);
}

#[test]
fn reminder_without_reroute_is_parked_in_order() {
    let mut router = alice_left();
    assert_eq!(
        router.event([reminder("alice").stays(), reminder("alice")]),
        ["park alice e2"]
    );
    router.parked(&[10]);
    assert_eq!(
        router.up("alice", "app-1"),
        ["heartbeat app-1: alice", "park alice e2.1"],
        "behind what is in the mailbox"
    );
}

#[test]
fn reminders_beyond_the_bound_are_parked() {
    let mut router = alice_left();
    for _ in 0..100 {
        assert_eq!(router.event([reminder("alice").bytes(1)]), NOTHING);
    }
    let parked = router.event([reminder("alice").bytes(1)]);
    assert!(parked[0].starts_with("park alice e2"), "{parked:?}");
    let mut router = alice_left();
    assert_eq!(
        router.event([reminder("alice").bytes(10_001)]),
        ["park alice e2"]
    );
}

#[test]
fn without_associates_nothing_waits_in_memory() {
    let mut router = alice_left();
    router.publish("alice");
    assert_eq!(router.associates("alice", ""), ["park alice e2"]);
    router.parked(&[10]);
    assert_eq!(router.publish("alice"), ["park alice e3"]);
}

#[test]
fn stopping_parks_what_waits_for_the_user() {
    let mut router = alice_left();
    router.publish("alice");
    assert!(!router.partition.is_quiet());
    assert_eq!(router.stop(), ["park alice e2"]);
}

#[test]
fn reminder_that_expires_meanwhile_is_not_delivered() {
    let mut router = alice_left();
    router.event([reminder("alice").expires(router.now.unix_ms + 100)]);
    assert_eq!(router.wait(9_000), ["alice e2 expired"]);
}
