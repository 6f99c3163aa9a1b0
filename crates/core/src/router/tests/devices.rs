//! A user with several connections.

use super::*;
use crate::router::MAX_DEVICES;

/// Alice is held at app-1 and app-2; her route at app-2 is the newer one.
fn alice_at_two() -> TestRouter {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    assert_eq!(
        router.publish("alice"),
        ["heartbeat app-1: alice", "heartbeat app-2: alice"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        NOTHING,
        "the other one is asked, too"
    );
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-1: alice e1", "deliver app-2: alice e1"]
    );
    assert_eq!(router.accepted("app-1"), NOTHING);
    assert_eq!(
        router.accepted("app-2"),
        ["alice e1 delivered by app-1 app-2"]
    );
    router
}

#[test]
fn of_many_devices_the_newest_get_it() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    let name = |number: usize| format!("app-{number}");
    (0..MAX_DEVICES + 3).for_each(|number| drop(router.up("alice", &name(number))));
    let mut asked = router.publish("alice");
    let mut newest: Vec<_> = (3..MAX_DEVICES + 3)
        .map(|number| format!("heartbeat {}: alice", name(number)))
        .collect();
    asked.sort();
    newest.sort();
    assert_eq!(asked, newest);
}

#[test]
fn all_get_it_and_the_outcome_names_them() {
    let mut router = alice_at_two();
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e2", "deliver app-2: alice e2"]
    );
    assert_eq!(
        router.publish("alice"),
        NOTHING,
        "what arrives meanwhile waits for all answers"
    );
    assert_eq!(router.accepted("app-2"), NOTHING);
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: alice e3",
            "deliver app-2: alice e3",
            "alice e2 delivered by app-2 app-1"
        ]
    );
}

#[test]
fn one_accepting_device_suffices_beside_silent_one() {
    let mut router = alice_at_two();
    router.publish("alice");
    router.accepted("app-1");
    assert_eq!(
        router.delivery_fails("app-2", NoAnswer::TimedOut),
        ["alice e2 delivered by app-1, missed by 1"]
    );
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e3"],
        "no second time-out"
    );
    router.accepted("app-1");
    assert_eq!(router.wait(500), NOTHING);
    assert_eq!(
        router.publish("alice"),
        ["heartbeat app-2: alice"],
        "it may be back, and was not confirmed since"
    );
}

#[test]
fn disconnected_device_loses_only_its_route() {
    let mut router = alice_at_two();
    router.publish("alice");
    assert_eq!(
        router.refused("app-2", &[(0, 0, Refusal::NotConnected)]),
        ["drop route alice app-2 @2"]
    );
    assert_eq!(
        router.accepted("app-1"),
        ["alice e2 delivered by app-1, missed by 1"]
    );
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e3"]);
}

#[test]
fn busy_device_is_skipped_once_other_accepted() {
    let mut router = alice_at_two();
    router.publish("alice alice");
    assert_eq!(router.refused("app-1", &[(0, 0, Refusal::Busy)]), NOTHING);
    assert_eq!(
        router.accepted("app-2"),
        [
            "alice e2 delivered by app-2, missed by 1",
            "alice e2.1 delivered by app-1 app-2"
        ]
    );
    assert_eq!(
        router.publish("alice"),
        ["deliver app-1: alice e3", "deliver app-2: alice e3"],
        "and no pause"
    );
}

#[test]
fn reminders_refused_by_all_retry_in_order() {
    let mut router = alice_at_two();
    router.publish("alice alice");
    router.refused("app-1", &[(0, 0, Refusal::Busy)]);
    assert_eq!(
        router.refused("app-2", &[(0, 0, Refusal::Busy), (0, 1, Refusal::Busy)]),
        [
            "park alice e2",
            "alice e2.1 delivered by app-1, missed by 1"
        ]
    );
    router.parked(&[10]);
    assert_eq!(router.wait(200), ["read alice 10 to 10"]);
    assert_eq!(
        router.last_page("alice", &[mail(10)], 11),
        ["deliver app-1: alice m10", "deliver app-2: alice m10"]
    );
}

#[test]
fn silent_instances_park_the_reminder() {
    let mut router = alice_at_two();
    router.publish("alice");
    assert_eq!(router.delivery_fails("app-1", NoAnswer::TimedOut), NOTHING);
    assert_eq!(
        router.delivery_fails("app-2", NoAnswer::NoResponders),
        ["park alice e2"]
    );
    router.parked(&[10]);
    assert_eq!(
        router.wait(500),
        ["heartbeat app-1: alice", "heartbeat app-2: alice"]
    );
}

#[test]
fn all_instances_get_the_same_batch() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.hold("bob", "app-2");
    router.publish("bob"); // app-2 is at work for a while.
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.publish("alice");
    router.connected("app-1", "alice");
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-1: alice e3"]
    );
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(router.accepted("app-1"), NOTHING);
    assert_eq!(
        router.accepted("app-2"),
        ["deliver app-2: alice e3", "bob e2 delivered by app-2"]
    );
    assert_eq!(
        router.accepted("app-2"),
        [
            "deliver app-2: alice e4",
            "deliver app-1: alice e4",
            "alice e3 delivered by app-1 app-2"
        ]
    );
}

#[test]
fn reminder_expired_before_its_turn_is_skipped() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.hold("bob", "app-2");
    router.publish("bob");
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.event([
        reminder("alice").expires(1_000),
        reminder("alice"),
        reminder("alice").expires(1_000),
    ]);
    router.connected("app-1", "alice");
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-1: alice e3 e3.1 e3.2"]
    );
    router.refused("app-1", &[(0, 2, Refusal::Busy)]);
    router.wait(1_000);
    router.accepted("app-2");
    assert_eq!(
        router.accepted("app-2"),
        [
            "alice e3 delivered by app-1, missed by 1",
            "alice e3.1 delivered by app-1 app-2",
            "alice e3.2 expired"
        ]
    );
}

#[test]
fn a_new_device_joins_with_the_next_batch() {
    let mut router = alice_at_two();
    router.publish("alice");
    assert_eq!(router.up("alice", "app-3"), NOTHING);
    assert_eq!(router.down("alice", "app-1"), NOTHING);
    router.publish("alice");
    router.accepted("app-1");
    assert_eq!(
        router.accepted("app-2"),
        [
            "heartbeat app-3: alice",
            "alice e2 delivered by app-1 app-2"
        ]
    );
    assert_eq!(
        router.connected("app-3", "alice"),
        ["deliver app-2: alice e3", "deliver app-3: alice e3"]
    );
}

#[test]
fn device_leaving_the_queue_ends_its_part() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.hold("bob", "app-2");
    router.publish("bob");
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.publish("alice");
    router.connected("app-1", "alice");
    router.connected("app-2", "alice");
    router.accepted("app-1");
    router.down("alice", "app-2");
    assert_eq!(
        router.accepted("app-2"),
        [
            "bob e2 delivered by app-2",
            "alice e3 delivered by app-1, missed by 1"
        ]
    );
}

#[test]
fn without_lease_each_batch_asks_all_once() {
    let mut router = TestRouter::with(|settings| {
        (settings.all_devices, settings.lease) = (true, Duration::ZERO)
    });
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.publish("alice");
    router.connected("app-1", "alice");
    router.wait(500);
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-1: alice e1", "deliver app-2: alice e1"]
    );
    router.accepted("app-1");
    router.accepted("app-2");
    assert_eq!(
        router.publish("alice"),
        ["heartbeat app-1: alice", "heartbeat app-2: alice"]
    );
}

#[test]
fn a_mailbox_is_delivered_to_all() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.away_with_mail("alice", &[mail(10), mail(11)]);
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    assert_eq!(
        router.connected("app-1", "alice"),
        ["heartbeat app-2: alice"]
    );
    assert_eq!(router.connected("app-2", "alice"), ["read alice 10 to 11"]);
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(11)], 12),
        [
            "deliver app-1: alice m10 m11",
            "deliver app-2: alice m10 m11"
        ]
    );
    router.accepted("app-2");
    assert_eq!(
        router.accepted("app-1"),
        [
            "alice m10 delivered by app-2 app-1, purge up to 10",
            "alice m11 delivered by app-2 app-1, purge up to 11"
        ]
    );
    router.down("alice", "app-1");
    router.down("alice", "app-2");
    router.assert_nothing_is_left();
}

#[test]
fn starved_instance_joins_the_next_batch() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.hold("bob", "app-2");
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.publish("alice");
    router.publish("bob");
    router.connected("app-1", "alice");
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-1: alice e2"]
    );
    assert_eq!(router.accepted("app-1"), NOTHING);
    assert_eq!(router.wait(1_999), NOTHING);
    assert_eq!(router.wait(1), ["alice e2 delivered by app-1, missed by 1"]);
    assert_eq!(router.publish("alice"), ["deliver app-1: alice e4"]);
    assert_eq!(
        router.accepted("app-2"),
        ["deliver app-2: alice e4", "bob e3 delivered by app-2"]
    );
    router.accepted("app-1");
    assert_eq!(router.wait(2_000), NOTHING, "what was sent is waited for");
    assert_eq!(
        router.accepted("app-2"),
        ["alice e4 delivered by app-1 app-2"]
    );
}

#[test]
fn the_newest_routes_are_remembered() {
    let mut router = TestRouter::new();
    for number in 0..=MAX_ROUTES {
        router.up("alice", &format!("app-{number}"));
    }
    assert_eq!(
        router.up_at(1, "alice", "app-old"),
        NOTHING,
        "older than all of them"
    );
    for number in 1..=MAX_ROUTES {
        router.down("alice", &format!("app-{number}"));
    }
    assert_eq!(
        router.publish("alice"),
        ["park alice e1"],
        "the first one was forgotten"
    );
}
