//! A number is given again. References to the number's earlier user do not apply to the new one.

use super::*;

#[test]
fn heartbeat_of_forgotten_user_confirms_no_other() {
    let mut router = TestRouter::new();
    router.up("alice", "app-1");
    router.publish("alice");
    router.heartbeat_fails("app-1", NoAnswer::TimedOut);
    router.parked(&[10]);
    assert_eq!(router.wait(500), ["heartbeat app-1: alice"], "a probe");
    router.down("alice", "app-1");
    router.up("alice", "app-2");
    router.connected("app-2", "alice");
    router.last_page("alice", &[mail(10)], 11);
    assert_eq!(
        router.accepted("app-2"),
        ["alice m10 delivered by app-2, purge up to 10"]
    );
    router.down("alice", "app-2");
    router.up("bob", "app-1");
    router.publish("bob");
    router.parked(&[11]);
    assert_eq!(
        router.connected("app-1", "alice"),
        ["heartbeat app-1: bob"],
        "he was not asked about"
    );
}

#[test]
fn place_of_forgotten_user_is_void() {
    let mut router = TestRouter::with(|settings| settings.all_devices = true);
    router.hold("carol", "app-2");
    router.up("alice", "app-1");
    router.up("alice", "app-2");
    router.publish("carol");
    router.publish("alice");
    router.connected("app-1", "alice");
    assert_eq!(
        router.connected("app-2", "alice"),
        ["deliver app-1: alice e3"],
        "at app-2 she waits for carol's answer"
    );
    assert_eq!(router.accepted("app-1"), NOTHING);
    assert_eq!(
        router.wait(2_000),
        ["alice e3 delivered by app-1, missed by 1"],
        "app-2 is left out"
    );
    router.down("alice", "app-1");
    router.down("alice", "app-2");
    router.up("bob", "app-2");
    router.publish("bob");
    assert_eq!(router.connected("app-2", "bob"), NOTHING);
    assert_eq!(
        router.accepted("app-2"),
        ["deliver app-2: bob e4", "carol e2 delivered by app-2"],
        "one ticket is his"
    );
    assert_eq!(router.accepted("app-2"), ["bob e4 delivered by app-2"]);
}
