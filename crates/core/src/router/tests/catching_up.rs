//! Routes and reminders come by different ways: a user without a route may have put one before its
//! reminder was published.

use super::*;

/// Routes take a time to arrive.
fn with_late_routes() -> TestRouter {
    TestRouter {
        knows_all_routes: false,
        ..TestRouter::new()
    }
}

#[test]
fn route_put_before_reminder_prevents_parking() {
    let mut router = with_late_routes();
    assert_eq!(router.publish("alice"), ["catch up with routes"]);
    assert_eq!(router.up("alice", "app-1"), NOTHING, "others may follow");
    assert_eq!(router.caught_up(), ["heartbeat app-1: alice"]);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e1"]
    );
}

#[test]
fn users_without_route_are_parked_afterwards() {
    let mut router = with_late_routes();
    router.publish("alice bob");
    assert_eq!(router.publish("alice"), NOTHING, "alice waits already");
    assert_eq!(router.caught_up(), ["park alice e1, alice e2, bob e1.1"]);
}

#[test]
fn later_users_wait_for_the_next_question() {
    let mut router = with_late_routes();
    router.publish("alice");
    assert_eq!(router.publish("bob"), NOTHING);
    assert_eq!(
        router.caught_up(),
        ["catch up with routes", "park alice e1"]
    );
    router.parked(&[10]);
    assert_eq!(router.caught_up(), ["park bob e2"]);
}

#[test]
fn reminders_behind_mail_ask_for_nothing() {
    let mut router = with_late_routes();
    router.found("alice", (3, 3), 1);
    assert_eq!(router.publish("alice"), ["park alice e1"]);
}

#[test]
fn dropped_route_asks_whether_another_was_put() {
    let mut router = with_late_routes();
    router.up("alice", "app-1");
    router.publish("alice");
    assert_eq!(
        router.connected("app-1", ""),
        ["drop route alice app-1 @1", "catch up with routes"]
    );
    router.up("alice", "app-2");
    assert_eq!(router.caught_up(), ["heartbeat app-2: alice"]);
}

#[test]
fn associates_are_tried_after_catching_up() {
    let mut router = with_late_routes();
    router.associates("alice", "bob");
    assert_eq!(router.publish("alice"), ["catch up with routes"]);
    assert_eq!(router.caught_up(), ["look up bob for alice"]);
}

#[test]
fn reminders_are_parked_while_stopping() {
    let mut router = with_late_routes();
    router.publish("alice");
    router.stop();
    assert_eq!(router.caught_up(), ["park alice e1"]);
}
