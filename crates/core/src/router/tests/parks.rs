//! JetStream refuses what is to be parked: it waits, and nothing else does.

use super::{NOTHING, TestRouter, mail, reminder};

#[test]
fn a_refused_batch_is_repeated_after_growing_pauses() {
    let mut router = TestRouter::new();
    assert_eq!(router.publish("alice"), ["park alice e1"]);
    for pause in [100, 200, 300, 300] {
        assert_eq!(router.park_refused(), NOTHING);
        assert_eq!(router.wait(pause - 1), NOTHING, "during {pause} ms");
        assert_eq!(router.wait(1), ["park alice e1"], "after {pause} ms");
    }
    assert_eq!(router.parked(&[10]), ["alice e1 parked"]);
    assert_eq!(router.publish("alice"), ["park alice e2"]);
    router.park_refused();
    assert_eq!(
        router.wait(100),
        ["park alice e2"],
        "the pauses begin again"
    );
}

#[test]
fn refused_batches_shrink_and_keep_their_order() {
    let mut router = TestRouter::with(|settings| settings.park_batch = (4, 10_000));
    router.publish("alice alice alice alice");
    router.publish("alice");
    router.park_refused();
    assert_eq!(router.wait(100), ["park alice e1, alice e1.1"]);
    router.park_refused();
    assert_eq!(router.wait(200), ["park alice e1"]);
    assert_eq!(
        router.parked(&[10]),
        ["park alice e1.1, alice e1.2", "alice e1 parked"]
    );
    assert_eq!(
        router.parked(&[11, 12]),
        [
            "park alice e1.3, alice e2",
            "alice e1.1 parked",
            "alice e1.2 parked"
        ]
    );
}

#[test]
fn nothing_is_parked_during_the_pause() {
    let mut router = TestRouter::new();
    router.publish("alice");
    router.park_refused();
    assert_eq!(router.publish("alice bob"), NOTHING);
    assert_eq!(
        router.wait(100),
        ["park alice e1"],
        "half of a batch of one"
    );
    assert_eq!(
        router.parked(&[10]),
        ["park alice e2, bob e2.1", "alice e1 parked"]
    );
}

#[test]
fn connected_users_are_served_during_the_pause() {
    let mut router = TestRouter::new();
    router.hold("bob", "app-1");
    router.publish("alice");
    router.park_refused();
    assert_eq!(router.publish("bob"), ["deliver app-1: bob e3"]);
}

#[test]
fn returning_user_gets_unparked_reminders_directly() {
    let mut router = TestRouter::new();
    router.publish("alice bob alice");
    router.park_refused();
    router.publish("alice");
    assert_eq!(router.up("alice", "app-1"), NOTHING);
    assert_eq!(
        router.wait(100),
        ["heartbeat app-1: alice", "park bob e1.1"]
    );
    assert_eq!(
        router.connected("app-1", "alice"),
        ["deliver app-1: alice e1 e1.2 e2"]
    );
}

#[test]
fn mailbox_is_delivered_before_unparked_reminders() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[mail(10)]);
    router.publish("alice");
    router.park_refused();
    router.up("alice", "app-1");
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 10"]);
    assert_eq!(
        router.last_page("alice", &[mail(10)], 11),
        ["deliver app-1: alice m10"]
    );
    assert_eq!(
        router.accepted("app-1"),
        ["alice m10 delivered by app-1, purge up to 10"]
    );
    assert_eq!(router.wait(100), ["deliver app-1: alice e2"]);
}

#[test]
fn a_refused_copy_is_not_delivered() {
    let mut router = TestRouter::with(|settings| settings.copy_rerouted = true);
    router.associates("alice", "bob");
    router.event([reminder("alice")]);
    router.looked_up("alice", "bob", "app-1");
    router.connected("app-1", "bob");
    router.accepted("app-1");
    router.park_refused();
    router.up("alice", "app-1");
    assert_eq!(router.wait(100), ["park alice e1 that bob got"]);
}
