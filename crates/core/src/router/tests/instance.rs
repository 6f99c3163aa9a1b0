//! Instances that are silent, hung or gone.

use super::*;

#[test]
fn silent_instance_is_down_and_users_parked() {
    for why in [
        NoAnswer::NoResponders,
        NoAnswer::TimedOut,
        NoAnswer::Garbage,
    ] {
        let mut router = TestRouter::new();
        for (user, at) in [
            ("alice", "app-1"),
            ("bob", "app-1"),
            ("carol", "app-1"),
            ("dave", "app-2"),
        ] {
            router.hold(user, at);
        }
        assert_eq!(router.publish("alice"), ["deliver app-1: alice e5"]);
        assert_eq!(router.publish("alice bob"), NOTHING);
        assert_eq!(
            router.delivery_fails("app-1", why),
            ["park bob e6.1, alice e5, alice e6"],
            "also bob, who waited for it"
        );
        router.parked(&[10, 11, 12]);
        assert_eq!(
            router.publish("carol"),
            ["park carol e7"],
            "no second time-out for her"
        );
        assert_eq!(
            router.publish("dave"),
            ["deliver app-2: dave e8"],
            "another instance is not affected"
        );
    }
}

#[test]
fn users_of_silent_instance_use_other_routes() {
    let mut router = TestRouter::new();
    router.up("alice", "app-2");
    router.hold("alice", "app-1");
    router.publish("alice");
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        ["heartbeat app-2: alice"]
    );
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-2 alone: alice e2"]
    );
}

#[test]
fn a_heartbeat_without_answer_brings_an_instance_down() {
    let mut router = TestRouter::with(|settings| settings.heartbeat_users = 1);
    router.up("alice", "app-1");
    router.up("bob", "app-1");
    router.publish("alice bob");
    assert_eq!(
        router.heartbeat_fails("app-1", NoAnswer::TimedOut),
        ["park bob e1.1, alice e1"],
        "no second time-out"
    );
    assert_eq!(router.down("alice", "app-1"), NOTHING, "its routes stayed");
}

#[test]
fn down_instance_is_probed_with_growing_pauses() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.up("bob", "app-1");
    router.publish("alice bob");
    router.heartbeat_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10, 11]);
    for pause in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert_eq!(router.wait(pause - 1), NOTHING);
        assert_eq!(router.wait(1), ["heartbeat app-1: alice, bob"]);
        assert_eq!(router.wait(1_000), NOTHING, "one probe at a time");
        assert_eq!(router.heartbeat_fails("app-1", NoAnswer::TimedOut), NOTHING);
    }
    router.wait(30_000);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["drop route bob app-1 @2", "read alice 10 to 10"],
        "it is back and says who is there"
    );
    assert_eq!(
        router.last_page("alice", &[mail(10)], 11),
        ["deliver app-1: alice m10"]
    );
    router.accepted("app-1");
    router.publish("alice");
    router.delivery_fails("app-1", NoAnswer::NoResponders);
    router.parked(&[12]);
    assert_eq!(
        router.wait(500),
        ["heartbeat app-1: alice"],
        "an accepted delivery ended the back-off"
    );
}

#[test]
fn hanging_deliveries_are_retried_less_often() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        ["park alice e2"]
    );
    router.parked(&[10]);
    for (tries, pause) in (1..).zip([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
        assert_eq!(router.wait(pause - 1), NOTHING);
        assert_eq!(router.wait(1), ["heartbeat app-1: alice"]);
        assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 10"]);
        assert_eq!(
            router.last_page("alice", &[mail(10)], 11),
            ["deliver app-1 alone: alice m10"]
        );
        let report = format!("hold back alice m10: {tries} times unanswered by app-1");
        let reports: Vec<_> = [report]
            .into_iter()
            .filter(|_| tries >= HELD_BACK_AFTER)
            .collect();
        let expected: Vec<_> = reports
            .into_iter()
            .chain(["forget m10".to_owned()])
            .collect();
        assert_eq!(router.delivery_fails("app-1", NoAnswer::TimedOut), expected);
    }
}

#[test]
fn probe_is_bounded_like_a_heartbeat() {
    let mut router = TestRouter::with(|settings| settings.heartbeat_users = 2);
    for user in ["alice", "bob", "carol"] {
        router.up(user, "app-1");
    }
    router.publish("alice bob carol");
    router.heartbeat_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10, 11, 12]);
    assert_eq!(router.wait(500), ["heartbeat app-1: alice, bob"]);
    assert_eq!(
        router.connected("app-1", "alice bob"),
        [
            "heartbeat app-1: carol",
            "read alice 11 to 11",
            "read bob 12 to 12"
        ]
    );
}

#[test]
fn new_route_probes_down_instance_at_once() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.publish("alice");
    router.heartbeat_fails("app-1", NoAnswer::NoResponders);
    router.parked(&[10]);
    assert_eq!(router.up("bob", "app-1"), NOTHING);
    assert_eq!(router.wait(0), ["heartbeat app-1: alice"]);
    assert_eq!(router.up("carol", "app-1"), NOTHING);
    assert_eq!(router.wait(0), NOTHING, "one probe at a time");
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 10"]);
}

#[test]
fn instance_without_waiting_users_is_not_probed() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.delivery_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10]);
    router.up("alice", "app-2");
    router.connected("app-2", "alice");
    router.last_page("alice", &[mail(10)], 11);
    router.accepted("app-2");
    assert_eq!(router.wait(60_000), NOTHING);
    assert_eq!(router.down("alice", "app-2"), NOTHING);
    assert_eq!(
        router.publish("alice"),
        ["heartbeat app-1: alice"],
        "the next reminder finds out"
    );
}

#[test]
fn heartbeat_during_failed_delivery_keeps_instance_down() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.up("bob", "app-1");
    assert_eq!(
        router.publish("alice bob"),
        ["heartbeat app-1: bob", "deliver app-1: alice e2"]
    );
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::TimedOut),
        ["park alice e2"]
    );
    assert_eq!(
        router.connected("app-1", "bob"),
        NOTHING,
        "bob's is parked with the next batch"
    );
    assert_eq!(router.parked(&[10]), ["park bob e2.1", "alice e2 parked"]);
    router.parked(&[11]);
    assert_eq!(router.wait(500), ["heartbeat app-1: alice, bob"]);
}

#[test]
fn heartbeat_outlasting_backoff_is_the_probe() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.up("bob", "app-1");
    router.publish("alice bob");
    router.delivery_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10]);
    assert_eq!(router.wait(700), NOTHING);
    assert_eq!(
        router.connected("app-1", "bob"),
        ["heartbeat app-1: alice", "deliver app-1: bob e2.1"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["read alice 10 to 10"],
        "the failure ended what was known of her"
    );
}

#[test]
fn deserted_instance_is_forgotten_after_its_pause() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.delivery_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10]);
    router.down("alice", "app-1");
    router.up("alice", "app-2");
    router.connected("app-2", "alice");
    router.last_page("alice", &[mail(10)], 11);
    router.accepted("app-2");
    router.down("alice", "app-2");
    assert_eq!(router.wait(500), NOTHING);
    router.assert_nothing_is_left();
}
