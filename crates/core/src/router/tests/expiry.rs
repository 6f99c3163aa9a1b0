//! Reminders that are too late, wherever they wait.

use super::*;

#[test]
fn an_expired_reminder_is_not_sent() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.publish("alice");
    router.event([
        reminder("alice").expires(1_000),
        reminder("alice").expires(9_000),
    ]);
    router.wait(1_000);
    assert_eq!(
        router.accepted("app-1"),
        [
            "deliver app-1: alice e3.1",
            "alice e2 delivered by app-1",
            "alice e3 expired"
        ]
    );
}

#[test]
fn reminder_expired_in_queue_is_not_sent() {
    let mut router = TestRouter::new();
    router.hold("alice", "app-1");
    router.hold("bob", "app-1");
    router.publish("alice");
    router.event([reminder("bob").expires(200)]);
    router.wait(200);
    assert_eq!(
        router.accepted("app-1"),
        ["alice e3 delivered by app-1", "bob e4 expired"]
    );
}

#[test]
fn an_expired_reminder_is_not_parked() {
    let mut router = TestRouter::new();
    router.wait(1_000);
    assert_eq!(
        router.event([reminder("alice").expires(1_000)]),
        ["alice e1 expired"]
    );
    router.assert_nothing_is_left();
}

#[test]
fn expired_part_of_a_page_is_settled() {
    let mut router = TestRouter::new();
    router.away_with_mail(
        "alice",
        &[expiring(10, 500), mail(11), expiring(12, 500), mail(13)],
    );
    router.up("alice", "app-1");
    assert_eq!(router.connected("app-1", "alice"), ["read alice 10 to 13"]);
    router.now = later(router.now, 500); // The shell reads the page before it ticks.
    assert_eq!(
        router.last_page(
            "alice",
            &[expiring(10, 500), mail(11), expiring(12, 500), mail(13)],
            14
        ),
        [
            "deliver app-1: alice m11 m13",
            "alice m10 expired, purge up to 10",
            "alice m12 expired, purge only 12"
        ]
    );
    router.accepted("app-1");
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn mailbox_is_swept_at_first_expiry() {
    let mut router = TestRouter::new();
    router.away_with_mail(
        "alice",
        &[
            expiring(10, 800),
            expiring(11, 500),
            mail(12),
            expiring(13, 700),
            mail(14),
        ],
    );
    assert_eq!(router.wait(499), NOTHING);
    assert_eq!(router.wait(1), ["read alice 10 to 14"]);
    router.wait(200);
    let entries = [
        expiring(10, 800),
        expiring(11, 500),
        mail(12),
        expiring(13, 700),
        mail(14),
    ];
    assert_eq!(
        router.last_page("alice", &entries, 15),
        [
            "forget m10 m12 m14",
            "alice m11 expired, purge only 11",
            "alice m13 expired, purge only 13"
        ]
    );
    assert_eq!(
        router.wait(59_999),
        NOTHING,
        "a mailbox is not swept more often than that"
    );
    assert_eq!(router.wait(1), ["read alice 10 to 14"]);
    assert_eq!(
        router.last_page("alice", &[expiring(10, 800), mail(12), mail(14)], 15),
        ["forget m12 m14", "alice m10 expired, purge up to 10"]
    );
    assert_eq!(router.wait(600_000), NOTHING, "nothing else in it expires");
}

/// The clock may have been wrong when the search was armed.
#[test]
fn clock_set_back_delays_expiry_one_minute() {
    const HOUR_MS: i64 = 3_600_000;
    let mut router = TestRouter::new();
    router.now.unix_ms -= HOUR_MS;
    router.away_with_mail("alice", &[expiring(10, 500)]);
    assert_eq!(
        router.wait(500),
        NOTHING,
        "it has an hour left, by the clock"
    );
    router.now.unix_ms += HOUR_MS;
    assert_eq!(router.wait(60_000), ["read alice 10 to 10"]);
}

#[test]
fn a_sweep_goes_on_over_pages() {
    let mut router = TestRouter::new();
    router.away_with_mail(
        "alice",
        &[
            expiring(10, 500),
            expiring(11, 500),
            mail(12),
            expiring(13, 500),
        ],
    );
    assert_eq!(router.wait(500), ["read alice 10 to 13"]);
    assert_eq!(
        router.page("alice", &[expiring(10, 500), expiring(11, 500)], 12),
        [
            "read alice 12 to 13",
            "alice m10 expired, purge up to 10",
            "alice m11 expired, purge up to 11"
        ]
    );
    assert_eq!(router.up("alice", "app-1"), NOTHING, "the sweep ends first");
    assert_eq!(
        router.last_page("alice", &[mail(12), expiring(13, 500)], 14),
        [
            "forget m12",
            "heartbeat app-1: alice",
            "alice m13 expired, purge only 13"
        ]
    );
    assert_eq!(router.connected("app-1", "alice"), ["read alice 12 to 13"]);
    router.last_page("alice", &[mail(12), expiring(13, 500)], 14);
    router.accepted("app-1");
    router.last_page("alice", &[], 14);
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn fully_expired_mailbox_leaves_nothing() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 500), expiring(11, 500)]);
    router.wait(500);
    assert_eq!(
        router.last_page("alice", &[expiring(10, 500), expiring(11, 500)], 12),
        [
            "alice m10 expired, purge up to 10",
            "alice m11 expired, purge up to 11"
        ]
    );
    router.assert_nothing_is_left();
}

#[test]
fn mailbox_expired_in_two_sweeps_leaves_nothing() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 60_500), expiring(12, 500)]);
    router.wait(500);
    assert_eq!(
        router.last_page("alice", &[expiring(10, 60_500), expiring(12, 500)], 13),
        ["forget m10", "alice m12 expired, purge only 12"]
    );
    assert_eq!(router.wait(60_000), ["read alice 10 to 12"]);
    assert_eq!(
        router.last_page("alice", &[expiring(10, 60_500)], 13),
        ["alice m10 expired, purge up to 10"]
    );
    router.assert_nothing_is_left();
}

#[test]
fn a_mailbox_removed_behind_our_back_leaves_nothing() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 500)]);
    assert_eq!(router.wait(500), ["read alice 10 to 10"]);
    assert_eq!(
        router.last_page("alice", &[], 11),
        NOTHING,
        "JetStream's own time to live was quicker"
    );
    router.assert_nothing_is_left();
}

#[test]
fn reminder_parked_during_sweep_expires_later() {
    let mut router = TestRouter::with(|settings| {
        settings.expiry_interval = std::time::Duration::from_millis(100)
    });
    router.away_with_mail("alice", &[expiring(10, 500), expiring(11, 9_000)]);
    assert_eq!(router.wait(500), ["read alice 10 to 11"]);
    router.away_with_mail("alice", &[expiring(12, 1_000)]);
    assert_eq!(
        router.last_page("alice", &[expiring(10, 500), expiring(11, 9_000)], 12),
        ["forget m11", "alice m10 expired, purge up to 10"]
    );
    assert_eq!(router.wait(499), NOTHING);
    assert_eq!(router.wait(1), ["read alice 11 to 12"]);
}

#[test]
fn a_sweep_ends_where_parking_begins() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 500), mail(11)]);
    assert_eq!(router.wait(500), ["read alice 10 to 11"]);
    assert_eq!(router.publish("alice alice"), ["park alice e3, alice e3.1"]);
    // The page sees the first of the batch, whose acknowledgement is still on its way.
    assert_eq!(
        router.page("alice", &[expiring(10, 500), mail(11), mail(12)], 13),
        [
            "forget m12",
            "forget m11",
            "alice m10 expired, purge up to 10"
        ]
    );
}

#[test]
fn mailbox_in_delivery_is_not_swept() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[mail(10), expiring(11, 500)]);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    router.page("alice", &[mail(10)], 11);
    assert_eq!(router.wait(500), NOTHING);
    router.down("alice", "app-1");
    assert_eq!(
        router.accepted("app-1"),
        ["alice m10 delivered by app-1, purge up to 10"]
    );
    assert_eq!(router.wait(59_999), NOTHING);
    assert_eq!(
        router.wait(1),
        ["read alice 11 to 11"],
        "what stayed behind is looked for later"
    );
}

#[test]
fn an_empty_mailbox_keeps_no_timer() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 86_400_000)]);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    router.last_page("alice", &[expiring(10, 86_400_000)], 11);
    router.accepted("app-1");
    assert_eq!(router.partition.next_deadline(), None);
    router.down("alice", "app-1");
    router.assert_nothing_is_left();
}

#[test]
fn stopping_sweeps_nothing_more() {
    let mut router = TestRouter::new();
    router.away_with_mail("alice", &[expiring(10, 500), mail(11)]);
    router.away_with_mail("bob", &[expiring(12, 600)]);
    assert_eq!(router.wait(500), ["read alice 10 to 11"]);
    router.stop();
    assert_eq!(router.wait(500), NOTHING);
    assert_eq!(
        router.page("alice", &[expiring(10, 500)], 11),
        ["alice m10 expired, purge up to 10"]
    );
    assert!(router.partition.is_quiet());
}
