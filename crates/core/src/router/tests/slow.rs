//! Instances that answer late, but in time.

use super::*;

/// A user for each number.
fn crowd(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("user-{number:02}"))
        .collect()
}

/// A request to app-1 is under way, and a reminder of 100 bytes waits for each of so many users; a
/// request has room for ten.
fn with_a_crowd(count: usize) -> TestRouter {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    for user in crowd(count) {
        router.up(&user, "app-1");
    }
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e2"]);
    router.publish(&crowd(count).join(" "));
    router.connected("app-1", &crowd(count).join(" "));
    router
}

#[test]
fn waiting_reminders_of_slow_instance_are_parked() {
    let mut router = with_a_crowd(3);
    assert_eq!(router.wait(249), NOTHING, "most instances answer earlier");
    assert_eq!(
        router.wait(1),
        ["park user-00 e3, user-01 e3.1, user-02 e3.2"]
    );
    router.parked(&[10, 11, 12]);
    assert_eq!(
        router.publish("user-01"),
        ["park user-01 e4"],
        "behind the mail"
    );
    assert_eq!(router.wait(1_500), NOTHING);
}

#[test]
fn new_reminders_for_slow_instance_are_parked() {
    let mut router = with_a_crowd(1);
    router.up("bob", "app-1");
    router.wait(250);
    router.parked(&[10]);
    assert_eq!(router.publish("bob"), ["park bob e4"]);
    router.parked(&[11]);
    router.accepted("app-1");
    assert_eq!(
        router.publish("alice"),
        ["park alice e5"],
        "its answer came late"
    );
}

#[test]
fn a_quick_answer_ends_the_detour() {
    let mut router = with_a_crowd(1);
    router.wait(250);
    router.parked(&[10]);
    router.last_page("user-00", &[mail(10)], 11);
    router.accepted("app-1");
    assert_eq!(
        router.accepted("app-1"),
        ["user-00 m10 delivered by app-1, purge up to 10"]
    );
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e4"]);
}

#[test]
fn a_quick_instance_has_everything_in_memory() {
    let mut router = with_a_crowd(23);
    for _ in 0..4 {
        assert!(router.wait(200).is_empty());
        router.accepted("app-1");
    }
    assert!(router.partition.is_quiet());
}

#[test]
fn idle_slow_instance_parks_nothing() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.wait(1_800);
    router.accepted("app-1");
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e3"]);
}

#[test]
fn starved_request_is_postponed() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    assert_eq!(
        router.delivery_fails("app-1", Undelivered::NotSent),
        ["park alice e2"]
    );
    router.parked(&[10]);
    assert_eq!(
        router.wait(200),
        ["read alice 10 to 10"],
        "as if the instance were busy, and it is not left alone"
    );
}

/// Until when the delivery of this step may be sent, in milliseconds from now.
fn may_be_sent_for(router: &mut TestRouter, input: Input) -> u128 {
    let mut actions = Vec::new();
    router.partition.handle(router.now, input, &mut actions);
    let until = actions.iter().find_map(|action| match action {
        Action::Deliver { until, .. } => Some(*until),
        _ => None,
    });
    until
        .unwrap()
        .duration_since(router.now.instant)
        .as_millis()
}

#[test]
fn request_is_not_sent_after_first_expiry() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    let entry = |index, expires_at| {
        (
            name("alice"),
            Entry {
                item: Item::Event { sequence: 9, index },
                ..expiring(0, expires_at)
            },
        )
    };
    let later = router.now.unix_ms + 60_000;
    assert_eq!(
        may_be_sent_for(&mut router, Input::Event(vec![entry(0, later)])),
        2_000,
        "the time-out"
    );
    router.accepted("app-1");
    let soon = router.now.unix_ms + 300;
    assert_eq!(
        may_be_sent_for(
            &mut router,
            Input::Event(vec![entry(1, later), entry(2, soon)])
        ),
        300
    );
}
