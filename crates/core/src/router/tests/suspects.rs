//! A reminder that an instance cannot read, and those beside it.

use super::*;

/// Alice's reminders e2.0, which app-1 cannot read, and e2.1, and bob's e2.2 were in one request,
/// which had no answer. They are parked as 10 to 12; the instance answers its probe, and alice's
/// mailbox is read.
fn after_an_unanswered_request() -> TestRouter {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.up("bob", "app-1");
    router.publish("alice alice bob");
    assert_eq!(
        router.connected("app-1", "alice bob"),
        ["deliver app-1: alice e1 e1.1, bob e1.2"]
    );
    router.delivery_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10, 11, 12]);
    assert_eq!(router.wait(500), ["heartbeat app-1: alice, bob"]);
    assert_eq!(
        router.connected("app-1", "alice bob"),
        ["read alice 10 to 11", "read bob 12 to 12"]
    );
    router
}

#[test]
fn unanswered_reminders_go_user_by_user() {
    let mut router = after_an_unanswered_request();
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(11)], 12),
        ["deliver app-1 alone: alice m10 m11"],
        "alone in a request"
    );
    assert_eq!(
        router.last_page("bob", &[mail(12)], 13),
        NOTHING,
        "one of them at a time"
    );
    assert_eq!(
        router.answered_in(Company::Alone, "app-1", Err(NoAnswer::TimedOut.into())),
        ["forget m10 m11", "deliver app-1 alone: bob m12"]
    );
    assert_eq!(
        router.accepted("app-1"),
        ["bob m12 delivered by app-1, purge up to 12"]
    );
}

#[test]
fn others_are_served_beside_an_unanswered_delivery() {
    let mut router = after_an_unanswered_request();
    router.last_page("alice", &[mail(10), mail(11)], 12);
    router.up("carol", "app-1");
    assert_eq!(router.publish("carol"), ["heartbeat app-1: carol"]);
    assert_eq!(
        router.connected("app-1", "carol"),
        ["deliver app-1: carol e2"]
    );
    assert_eq!(
        router.answered_in(Company::Shared, "app-1", Ok(Vec::new())),
        ["carol e2 delivered by app-1"],
        "while alice's has no answer"
    );
    router.answered_in(Company::Alone, "app-1", Err(NoAnswer::TimedOut.into()));
    assert_eq!(
        router.publish("carol"),
        ["deliver app-1: carol e3"],
        "the instance is not left alone"
    );
}

#[test]
fn halving_leaves_the_one_that_cannot_be_read() {
    let mut router = after_an_unanswered_request();
    router.last_page("alice", &[mail(10), mail(11)], 12);
    router.answered_in(Company::Alone, "app-1", Err(NoAnswer::TimedOut.into()));
    assert_eq!(
        router.publish("alice"),
        ["park alice e2"],
        "behind what is suspect"
    );
    router.parked(&[13]);
    for (tries, pause) in [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000)] {
        assert_eq!(router.wait(pause - 1), NOTHING);
        assert_eq!(router.wait(1), ["heartbeat app-1: alice"]);
        assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 13"]);
        let page = [mail(10), mail(11), mail(13)];
        assert_eq!(
            router.last_page("alice", &page, 14),
            ["deliver app-1 alone: alice m10"],
            "alone"
        );
        let actions = router.answered_in(Company::Alone, "app-1", Err(NoAnswer::TimedOut.into()));
        let is_reported =
            actions[0] == format!("hold back alice m10: {tries} times unanswered by app-1");
        assert_eq!(is_reported, tries >= HELD_BACK_AFTER, "{actions:?}");
    }
}

#[test]
fn a_removed_reminder_holds_up_nothing_more() {
    let mut router = after_an_unanswered_request();
    router.last_page("alice", &[mail(10), mail(11)], 12);
    router.answered_in(Company::Alone, "app-1", Err(NoAnswer::TimedOut.into()));
    router.wait(500);
    router.connected("app-1", "alice");
    assert_eq!(
        router.last_page("alice", &[mail(11)], 12),
        ["deliver app-1 alone: alice m11"],
        "an operator removed the first one"
    );
    router.accepted("app-1");
    router.publish("alice bob");
    assert_eq!(
        router.publish("alice"),
        NOTHING,
        "it waits for the request under way"
    );
}

#[test]
fn new_route_retries_held_back_reminders() {
    let mut router = after_an_unanswered_request();
    router.last_page("alice", &[mail(10), mail(11)], 12);
    router.answered_in(Company::Alone, "app-1", Err(NoAnswer::TimedOut.into()));
    assert_eq!(router.up("alice", "app-1"), ["heartbeat app-1: alice"]);
}

#[test]
fn an_instance_without_responders_makes_nothing_suspect() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.delivery_fails("app-1", NoAnswer::NoResponders);
    router.parked(&[10]);
    router.wait(500);
    router.connected("app-1", "alice");
    assert_eq!(
        router.last_page("alice", &[mail(10)], 11),
        ["deliver app-1: alice m10"]
    );
}

#[test]
fn reminder_accepted_elsewhere_is_not_suspect() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.publish("alice");
    router.connected("app-1", "alice");
    router.connected("app-2", "alice");
    router.accepted("app-1");
    assert_eq!(
        router.delivery_fails("app-2", NoAnswer::TimedOut),
        ["alice e1 delivered by app-1, missed by 1"]
    );
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e2"]);
}

#[test]
fn withheld_reminder_is_not_suspect() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    assert_eq!(
        router.delivery_fails("app-1", Undelivered::Withheld),
        ["park alice e2"],
        "the instance is silent"
    );
    router.parked(&[10]);
    router.wait(500);
    router.connected("app-1", "alice");
    assert_eq!(
        router.last_page("alice", &[mail(10)], 11),
        ["deliver app-1: alice m10"]
    );
}
