//! Reminders that say the same as one before them.

use super::*;

/// Alice is at app-1 and has been told 7.
fn alice_was_told() -> Router {
    let mut router = Router::new();
    router.hold("alice", "app-1");
    router.event([reminder("alice").says(7)]);
    router.accepted("app-1");
    router
}

#[test]
fn what_was_accepted_stands_for_what_says_the_same_during_the_window() {
    let mut router = alice_was_told();
    router.wait(29_999);
    assert_eq!(
        router.event([reminder("alice").says(7)]),
        ["alice e3 merged into e2"]
    );
    router.wait(1);
    assert_eq!(
        router.event([reminder("alice").says(7)]),
        ["heartbeat app-1: alice"],
        "a merge extends nothing"
    );
}

#[test]
fn what_says_something_else_is_delivered() {
    let mut router = alice_was_told();
    assert_eq!(
        router.event([reminder("alice"), reminder("alice").says(8)]),
        ["deliver app-1: alice e3 e3.1"]
    );
}

#[test]
fn something_more_urgent_is_told_and_stands_for_the_rest() {
    let mut router = alice_was_told();
    assert_eq!(
        router.event([reminder("alice").says(7).urgently()]),
        ["deliver app-1: alice e3"]
    );
    router.accepted("app-1");
    assert_eq!(
        router.event([reminder("alice").says(7).urgently()]),
        ["alice e4 merged into e3"]
    );
}

#[test]
fn a_delivery_stops_before_what_says_the_same_and_its_answer_decides() {
    let mut router = Router::new();
    router.hold("alice", "app-1");
    let twins = || {
        [
            reminder("alice").says(7),
            reminder("alice"),
            reminder("alice").says(7),
            reminder("alice"),
        ]
    };
    assert_eq!(router.event(twins()), ["deliver app-1: alice e2 e2.1"]);
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: alice e2.3",
            "alice e2 delivered by app-1",
            "alice e2.1 delivered by app-1",
            "alice e2.2 merged into e2"
        ]
    );
}

#[test]
fn what_was_not_accepted_stands_for_nothing() {
    let mut router = Router::new();
    router.hold("alice", "app-1");
    router.event([reminder("alice").says(7)]);
    assert_eq!(router.event([reminder("alice").says(7)]), NOTHING);
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        ["park alice e2, alice e3"]
    );
}

#[test]
fn what_waits_stands_for_nothing() {
    let mut router = Router::new();
    router.event([reminder("alice").says(7)]);
    router.parked(&[10]);
    assert_eq!(
        router.event([reminder("alice").says(7)]),
        ["park alice e2"],
        "the first may yet be purged"
    );
}

#[test]
fn of_two_in_a_mailbox_the_first_is_delivered_and_stands_for_the_second() {
    let mut router = Router::new();
    router.found("alice", (10, 12), 3);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    let page = [saying(10, "a", 7), saying(11, "b", 7), mail(12)];
    assert_eq!(
        router.last_page("alice", &page, 13),
        ["deliver app-1: alice m10"]
    );
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: alice m12",
            "alice m10 delivered by app-1, purge up to 10",
            "alice m11 merged into a, purge up to 11"
        ]
    );
}
