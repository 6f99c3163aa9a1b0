//! Room in a mailbox: what is kept for others, and what is known of a mailbox that others have
//! emptied.

use super::*;

/// A mailbox of 10 places for alice, with these reminders of billing in it.
fn with_mail(count: u64) -> TestRouter {
    let mut router = TestRouter::with(|settings| {
        settings.room = Room {
            limit: 10,
            reserve: 10,
            source_share: 50,
        }
    });
    router.found("alice", (1, count), usize::try_from(count).unwrap());
    router
}

fn all(count: usize, of: &str, priority: Priority) -> Vec<Draft> {
    (0..count)
        .map(|_| reminder("alice").of(of, priority))
        .collect()
}

#[test]
fn one_source_fills_its_share_alone() {
    let mut router = with_mail(0);
    assert_eq!(
        router.event(all(6, "billing", Priority::Urgent)).len(),
        1,
        "five are parked, one waits"
    );
    assert!(
        router
            .parked(&[1, 2, 3, 4, 5])
            .contains(&"count alice".to_owned())
    );
    assert_eq!(
        router.counted("alice", Some(&[("billing", 1..6)])),
        ["alice e1.5 refused: mailbox full"]
    );
    assert_eq!(
        router.event(all(1, "claims", Priority::Low)),
        ["park alice e2"]
    );
}

#[test]
fn the_last_part_is_kept_for_higher_priorities() {
    let mut router = with_mail(5);
    assert_eq!(
        router.event(all(3, "claims", Priority::Low)),
        ["count alice"]
    );
    let counted = router.counted("alice", Some(&[("billing", 1..6)]));
    assert_eq!(
        counted,
        [
            "park alice e1, alice e1.1",
            "alice e1.2 refused: mailbox full"
        ]
    );
    router.parked(&[6, 7]);
    for (n, priority) in [
        (2, Priority::Normal),
        (3, Priority::High),
        (4, Priority::Urgent),
    ] {
        assert_eq!(
            router.event(all(1, "hr", priority)),
            [format!("park alice e{n}")]
        );
        assert_eq!(router.event(all(0, "hr", priority)), NOTHING);
        router.parked(&[n + 6]);
        router.sequence = n;
    }
    assert_eq!(
        router.event(all(1, "hr", Priority::Urgent)),
        ["count alice, if fewer than 10"]
    );
    assert_eq!(
        router.counted("alice", None),
        ["alice e5 refused: mailbox full"]
    );
}

#[test]
fn a_mailbox_that_was_emptied_has_room() {
    let mut router = with_mail(10);
    assert_eq!(router.publish("alice"), ["count alice"]);
    assert_eq!(
        router.counted("alice", Some(&[("billing", 1..11)])),
        ["alice e1 refused: mailbox full"]
    );
    assert_eq!(router.publish("alice"), ["count alice, if fewer than 10"]);
    assert_eq!(router.counted("alice", Some(&[])), ["park alice e2"]);
}

#[test]
fn later_reminders_wait_for_the_count() {
    let mut router = with_mail(5);
    assert_eq!(
        router.event(all(1, "billing", Priority::Normal)),
        ["count alice"]
    );
    assert_eq!(router.event(all(1, "claims", Priority::Urgent)), NOTHING);
    assert_eq!(router.publish("bob"), ["park bob e3"], "others do not wait");
    let counted = router.counted("alice", Some(&[("billing", 1..6)]));
    assert_eq!(counted, ["alice e1 refused: mailbox full"]);
    assert_eq!(router.parked(&[20]), ["park alice e2", "bob e3 parked"]);
}

#[test]
fn settled_reminders_do_not_count() {
    let mut router = with_mail(5);
    router.up("alice", "app-1");
    router.connected("app-1", "alice");
    router.last_page("alice", &(1..6).map(mail).collect::<Vec<_>>(), 6);
    router.refused(
        "app-1",
        &(0..4)
            .map(|place| (0, place, Refusal::Busy))
            .collect::<Vec<_>>(),
    );
    // The fifth was delivered and is still in the stream.
    assert_eq!(
        router.event(all(2, "billing", Priority::Normal)),
        ["park alice e1"]
    );
    router.parked(&[7]);
    let counted = router.counted("alice", Some(&[("billing", 1..8)]));
    assert_eq!(counted, ["alice e1.1 refused: mailbox full"]);
}
