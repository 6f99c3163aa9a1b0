//! What is counted for gauges.

use super::*;
use crate::router::partition::census::{Census, Mail};

#[test]
fn routes_mailboxes_and_instances_are_counted() {
    let mut router = Router::new();
    assert_eq!(router.partition.census(), Census::default());
    router.hold("alice", "app-1");
    router.up("alice", "app-2");
    router.away_with_mail("bob", &[mail(10), mail(11)]);
    router.away_with_mail("carol", &[mail(12)]);
    router.up("carol", "app-2");
    router.heartbeat_fails("app-2", NoAnswer::TimedOut);
    let census = router.partition.census();
    let expected = Census {
        routes: 3,
        connected_users: 2,
        mail_of_connected: Mail {
            users: 1,
            reminders: 1,
        },
        mail_of_away: Mail {
            users: 1,
            reminders: 2,
        },
        up: [name("app-1")].into(),
        down: [name("app-2")].into(),
        held_back: Default::default(),
    };
    assert_eq!(census, expected);
}

#[test]
fn silent_instance_of_one_partition_is_down() {
    let up = Census {
        routes: 1,
        up: [name("app-1"), name("app-2")].into(),
        ..Census::default()
    };
    let mut sum = Census {
        routes: 2,
        down: [name("app-1")].into(),
        ..Census::default()
    };
    sum.add(&up);
    assert_eq!(
        sum,
        Census {
            routes: 3,
            up: [name("app-2")].into(),
            down: [name("app-1")].into(),
            ..Census::default()
        }
    );
    let mut other_way_round = up.clone();
    other_way_round.add(&Census {
        routes: 2,
        down: [name("app-1")].into(),
        ..Census::default()
    });
    assert_eq!(other_way_round, sum);
}
