//! Reminders that say the same as one before them.

use super::*;

/// Alice is at app-1 and has got 7.
fn alice_got_seven() -> TestRouter {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.event([reminder("alice").says(7)]);
    router.accepted("app-1");
    router
}

#[test]
fn duplicate_within_window_is_merged() {
    let mut router = alice_got_seven();
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
fn different_text_is_delivered() {
    let mut router = alice_got_seven();
    assert_eq!(
        router.event([reminder("alice"), reminder("alice").says(8)]),
        ["deliver app-1: alice e3 e3.1"]
    );
}

#[test]
fn more_urgent_duplicate_is_delivered() {
    let mut router = alice_got_seven();
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
fn duplicate_in_flight_waits_for_the_answer() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    let merge_window = || {
        [
            reminder("alice").says(7),
            reminder("alice"),
            reminder("alice").says(7),
            reminder("alice"),
        ]
    };
    assert_eq!(
        router.event(merge_window()),
        ["deliver app-1: alice e2 e2.1"]
    );
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
fn unaccepted_reminder_merges_nothing() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.event([reminder("alice").says(7)]);
    assert_eq!(router.event([reminder("alice").says(7)]), NOTHING);
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        ["park alice e2, alice e3"]
    );
}

#[test]
fn waiting_reminder_merges_nothing() {
    let mut router = TestRouter::new();
    router.event([reminder("alice").says(7)]);
    router.parked(&[10]);
    assert_eq!(
        router.event([reminder("alice").says(7)]),
        ["park alice e2"],
        "the first may yet be purged"
    );
}

#[test]
fn second_duplicate_in_mailbox_is_merged() {
    let mut router = TestRouter::new();
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
