//! Associates: live reminders of a user who is away go to another user, or wait.

use super::*;

/// Alice is away; bob and carol may get her reminders.
fn alice_is_away() -> TestRouter {
    let mut router = TestRouter::with(|settings| settings.delivery_bytes = 10_000);
    router.associates("alice", "bob carol");
    router
}

/// Reminder 1 is with app-9, for bob.
fn bob_gets_reminders() -> TestRouter {
    let mut router = alice_is_away();
    router.publish("alice");
    router.looked_up("alice", "bob", "app-9");
    assert_eq!(
        router.connected("app-9", "bob"),
        ["deliver app-9: alice e1 to bob"]
    );
    router
}

#[test]
fn connected_associate_gets_reminder() {
    let mut router = alice_is_away();
    assert_eq!(router.publish("alice"), ["look up bob for alice"]);
    assert_eq!(
        router.looked_up("alice", "bob", "app-9"),
        ["heartbeat app-9: bob"]
    );
    assert_eq!(
        router.connected("app-9", "bob"),
        ["deliver app-9: alice e1 to bob"]
    );
    assert_eq!(
        router.accepted("app-9"),
        ["alice e1 rerouted to bob by app-9"]
    );
    router.associates("alice", "");
    router.assert_nothing_is_left();
}

#[test]
fn associates_are_tried_in_order_before_mailbox() {
    let mut router = alice_is_away();
    router.publish("alice");
    assert_eq!(
        router.looked_up("alice", "bob", "app-8 app-9"),
        ["heartbeat app-8: bob"]
    );
    assert_eq!(
        router.connected("app-8", ""),
        ["heartbeat app-9: bob"],
        "his route is not ours to drop"
    );
    assert_eq!(
        router.heartbeat_fails("app-9", NoAnswer::TimedOut),
        ["look up carol for alice"]
    );
    assert_eq!(router.looked_up("alice", "carol", ""), ["park alice e1"]);
}

#[test]
fn refusing_associate_is_skipped() {
    for why in [Refusal::Busy, Refusal::NotConnected] {
        let mut router = alice_is_away();
        router.event([reminder("alice"), reminder("alice"), reminder("alice")]);
        router.looked_up("alice", "bob", "app-9");
        assert_eq!(
            router.connected("app-9", "bob"),
            ["deliver app-9: alice e1 e1.1 e1.2 to bob"]
        );
        assert_eq!(
            router.refused("app-9", &[(0, 1, why)]),
            [
                "look up carol for alice",
                "alice e1 rerouted to bob by app-9",
                "alice e1.2 rerouted to bob by app-9"
            ]
        );
        router.looked_up("alice", "carol", "app-9");
        assert_eq!(
            router.connected("app-9", "carol"),
            ["deliver app-9: alice e1.1 to carol"]
        );
        assert_eq!(
            router.accepted("app-9"),
            ["alice e1.1 rerouted to carol by app-9"]
        );
    }
}

#[test]
fn instance_dying_with_delivery_is_skipped() {
    let mut router = bob_gets_reminders();
    assert_eq!(
        router.delivery_fails("app-9", NoAnswer::TimedOut),
        ["look up carol for alice"]
    );
    assert_eq!(
        router.looked_up("alice", "carol", "app-9"),
        ["park alice e1"],
        "it is down for everybody"
    );
    router.parked(&[10]);
    router.associates("dave", "bob");
    assert_eq!(router.publish("dave"), ["look up bob for dave"]);
    assert_eq!(router.looked_up("dave", "bob", "app-9"), ["park dave e2"]);
    router.parked(&[11]);
    router.wait(500);
    assert_eq!(router.publish("dave"), ["look up bob for dave"]);
    assert_eq!(
        router.looked_up("dave", "bob", "app-9"),
        ["heartbeat app-9: bob"]
    );
}

#[test]
fn later_reminders_wait_behind_the_attempt() {
    let mut router = bob_gets_reminders();
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(
        router.accepted("app-9"),
        ["look up bob for alice", "alice e1 rerouted to bob by app-9"]
    );
    router.publish("alice");
    router.looked_up("alice", "bob", "app-9");
    assert_eq!(
        router.connected("app-9", "bob"),
        ["deliver app-9: alice e2 e3 to bob"],
        "in order"
    );
}

#[test]
fn returning_user_wins_until_delivery_is_sent() {
    let steps: [fn(&mut TestRouter) -> Vec<String>; 3] = [
        |_| Vec::new(),
        |router| router.looked_up("alice", "bob", "app-9"),
        |router| {
            router.associates("dave", "bob");
            router.publish("dave");
            router.looked_up("dave", "bob", "app-9");
            router.connected("app-9", "bob"); // Dave's delivery is under way, and alice's queues.
            router.looked_up("alice", "bob", "app-9");
            router.connected("app-9", "bob")
        },
    ];
    for step in steps {
        let mut router = alice_is_away();
        router.publish("alice");
        step(&mut router);
        assert_eq!(router.up("alice", "app-1"), ["heartbeat app-1: alice"]);
        assert_eq!(
            router.connected("app-1", "alice"),
            ["deliver app-1: alice e1"]
        );
        assert_eq!(router.accepted("app-1"), ["alice e1 delivered by app-1"]);
        let late = [
            router.looked_up("alice", "bob", "app-9"),
            router.connected("app-9", "bob"),
        ];
        assert!(
            late.concat().iter().all(|line| !line.contains("alice")),
            "{late:?}"
        );
    }
}

#[test]
fn user_returning_late_gets_refused_reminders() {
    let mut router = bob_gets_reminders();
    assert_eq!(router.up("alice", "app-1"), NOTHING);
    router.publish("alice");
    assert_eq!(
        router.refused("app-9", &[(0, 0, Refusal::NotConnected)]),
        ["heartbeat app-1: alice"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e1 e2"]
    );
}

#[test]
fn unconfirmed_return_resumes_rerouting() {
    let mut router = alice_is_away();
    router.publish("alice");
    assert_eq!(router.up("alice", "app-1"), ["heartbeat app-1: alice"]);
    assert_eq!(
        router.connected("app-1", ""),
        ["drop route alice app-1 @1", "look up bob for alice"]
    );
}

#[test]
fn unaccepted_reminders_queue_behind_mail() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[mail(10)]);
    router.associates("alice", "bob");
    assert_eq!(router.publish("alice"), ["look up bob for alice"]);
    router.looked_up("alice", "bob", "app-9");
    router.connected("app-9", "bob");
    assert_eq!(
        router.accepted("app-9"),
        ["alice e2 rerouted to bob by app-9"]
    );
    router.publish("alice");
    assert_eq!(
        router.up("alice", "app-1"),
        ["heartbeat app-1: alice", "park alice e3"],
        "mail first"
    );
    router.parked(&[11]);
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 11"]);
}

#[test]
fn private_reminder_waits_for_earlier_ones() {
    let mut router = alice_is_away();
    router.event([
        reminder("alice").stays(),
        reminder("alice"),
        reminder("alice").stays(),
        reminder("alice"),
    ]);
    router.looked_up("alice", "bob", "app-9");
    assert_eq!(
        router.connected("app-9", "bob"),
        ["deliver app-9: alice e1.1 to bob"]
    );
    assert_eq!(
        router.refused("app-9", &[(0, 0, Refusal::Busy)]),
        ["look up carol for alice"],
        "the third must not overtake it"
    );
    router.parked(&[10]);
    assert_eq!(
        router.looked_up("alice", "carol", ""),
        ["park alice e1.1, alice e1.2, alice e1.3"]
    );
    assert_eq!(
        router.event([reminder("alice").stays()]),
        NOTHING,
        "no other user may get it"
    );
}

#[test]
fn hanging_lookup_or_instance_is_bounded_by_timeout() {
    let mut router = alice_is_away();
    router.publish("alice");
    assert_eq!(router.wait(4_999), NOTHING);
    assert_eq!(router.wait(1), ["park alice e1"]);
    router.parked(&[10]);
    assert_eq!(
        router.looked_up("alice", "bob", "app-9"),
        NOTHING,
        "too late"
    );
    router.publish("alice");
    router.looked_up("alice", "bob", "app-9");
    assert_eq!(
        router.wait(5_000),
        ["park alice e2"],
        "the heartbeat is still under way"
    );
    router.parked(&[11]);
    assert_eq!(router.connected("app-9", "bob"), NOTHING);
}

#[test]
fn sent_delivery_is_awaited_beyond_timeout() {
    let mut router = bob_gets_reminders();
    assert_eq!(router.wait(6_000), NOTHING);
    assert_eq!(
        router.delivery_fails("app-9", NoAnswer::TimedOut),
        ["park alice e1"],
        "and no other user is tried"
    );
}

#[test]
fn user_is_not_own_associate_and_eight_suffice() {
    let mut router = TestRouter::new();
    router.associates("alice", "alice a b b c d e f g h i");
    router.publish("alice");
    for associate in ["a", "b", "c", "d", "e", "f", "g"] {
        let next = router.looked_up("alice", associate, "");
        assert!(next[0].starts_with("look up"), "{next:?}");
    }
    assert_eq!(router.looked_up("alice", "h", ""), ["park alice e1"]);
}

#[test]
fn an_associates_associates_are_nobodys_business() {
    let mut router = TestRouter::new();
    router.associates("alice", "bob");
    router.associates("bob", "alice carol");
    router.publish("alice");
    assert_eq!(router.looked_up("alice", "bob", ""), ["park alice e1"]);
}

#[test]
fn associate_gets_own_and_others_in_one_request() {
    let mut router = TestRouter::with(|settings| settings.delivery_bytes = 10_000);
    router.up("bob", "app-9");
    router.associates("alice", "bob");
    router.associates("dave", "bob");
    router.publish("erin bob"); // The first heartbeat is under way, and the others queue behind it.
    router.parked(&[10]);
    router.publish("alice dave");
    router.looked_up("alice", "bob", "app-9");
    router.looked_up("dave", "bob", "app-9");
    assert_eq!(
        router.connected("app-9", "bob"),
        ["heartbeat app-9: bob", "deliver app-9: bob e1.1"]
    );
    router.connected("app-9", "bob");
    router.publish("bob");
    assert_eq!(
        router.accepted("app-9"),
        [
            "deliver app-9: alice e2 to bob, dave e2.1 to bob, bob e3",
            "bob e1.1 delivered by app-9"
        ]
    );
    assert_eq!(
        router.refused("app-9", &[(1, 0, Refusal::Busy)]),
        [
            "park dave e2.1",
            "alice e2 rerouted to bob by app-9",
            "bob e3 delivered by app-9"
        ]
    );
}

#[test]
fn busy_own_instance_prevents_rerouting() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.associates("alice", "bob");
    router.publish("alice");
    assert_eq!(
        router.refused("app-1", &[(0, 0, Refusal::Busy)]),
        ["park alice e2"]
    );
    assert_eq!(router.publish("alice"), NOTHING, "behind it");
}

#[test]
fn silent_own_instance_causes_rerouting() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.associates("alice", "bob");
    router.publish("alice");
    assert_eq!(
        router.delivery_fails("app-1", NoAnswer::NoResponders),
        ["look up bob for alice"]
    );
}

#[test]
fn attempt_ends_when_its_reminders_expire() {
    let mut router = alice_is_away();
    router.event([reminder("alice").expires(1_000)]);
    router.wait(1_000);
    assert_eq!(
        router.looked_up("alice", "bob", "app-9"),
        ["alice e1 expired"]
    );
    router.associates("alice", "");
    router.assert_nothing_is_left();
}

#[test]
fn reminders_during_mailbox_search_queue_or_reroute() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 500), mail(11)]);
    router.associates("alice", "bob");
    assert_eq!(router.wait(500), ["read alice 10 to 11"]);
    assert_eq!(router.publish("alice"), NOTHING);
    assert_eq!(
        router.event([reminder("alice").stays()]),
        NOTHING,
        "in order"
    );
    assert_eq!(
        router.last_page("alice", &[expiring(10, 500), mail(11)], 12),
        [
            "forget m11",
            "alice m10 expired, purge up to 10",
            "look up bob for alice"
        ]
    );
    assert_eq!(
        router.looked_up("alice", "bob", ""),
        ["park alice e3, alice e4"]
    );
}

#[test]
fn copy_is_parked_before_rerouted_is_settled() {
    let mut router = TestRouter::with(|settings| settings.copy_rerouted = true);
    router.associates("alice", "bob");
    router.event([reminder("alice").says(7)]);
    router.looked_up("alice", "bob", "app-9");
    router.connected("app-9", "bob");
    assert_eq!(router.accepted("app-9"), ["park alice e1 that bob got"]);
    assert_eq!(router.parked(&[10]), ["alice e1 rerouted to bob by app-9"]);
    assert_eq!(
        router.event([reminder("alice").says(7)]),
        ["look up bob for alice"],
        "a copy stands for nothing"
    );
    router.up("alice", "app-1");
    router.parked(&[11]);
    router.connected("app-1", "alice");
    assert_eq!(
        router.last_page("alice", &[mail(10), mail(11)], 12),
        ["deliver app-1: alice m10 m11"]
    );
}

#[test]
fn a_full_mailbox_gets_no_copies() {
    let mut router =
        TestRouter::with(|settings| (settings.copy_rerouted, settings.room.limit) = (true, 1));
    router.away_with_mail("alice", &[mail(10)]);
    router.associates("alice", "bob");
    router.publish("alice");
    router.looked_up("alice", "bob", "app-9");
    router.connected("app-9", "bob");
    assert_eq!(router.accepted("app-9"), ["count alice"]);
    assert_eq!(
        router.counted("alice", Some(&[("billing", 10..11)])),
        ["alice e2 rerouted to bob by app-9"]
    );
}

#[test]
fn removed_associate_gets_nothing_new() {
    for (left, next) in [("carol", "look up carol for alice"), ("", "park alice e1")] {
        let mut router = alice_is_away();
        router.publish("alice");
        router.looked_up("alice", "bob", "app-8 app-9");
        assert_eq!(router.associates("alice", left), [next]);
        assert!(router.connected("app-8", "bob").is_empty());
    }
    let mut router = alice_is_away();
    router.publish("alice");
    router.associates("alice", "bob");
    assert_eq!(router.looked_up("alice", "bob", ""), ["park alice e1"]);
}
