//! Counts for gauges.

use super::*;
use crate::router::partition::stats::{Mail, PartitionStats};

#[test]
fn routes_mailboxes_and_instances_are_counted() {
    let mut router = TestRouter::new();
    assert_eq!(router.partition.stats(), PartitionStats::default());
    router.hold("alice", "app-1");
    router.up("alice", "app-2");
    router.away_with_mail("bob", &[mail(10), mail(11)]);
    router.away_with_mail("carol", &[mail(12)]);
    router.up("carol", "app-2");
    router.heartbeat_fails("app-2", NoAnswer::TimedOut);
    let stats = router.partition.stats();
    let expected = PartitionStats {
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
    assert_eq!(stats, expected);
}

#[test]
fn silent_instance_of_one_partition_is_down() {
    let up = PartitionStats {
        routes: 1,
        up: [name("app-1"), name("app-2")].into(),
        ..PartitionStats::default()
    };
    let mut sum = PartitionStats {
        routes: 2,
        down: [name("app-1")].into(),
        ..PartitionStats::default()
    };
    sum.add(&up);
    assert_eq!(
        sum,
        PartitionStats {
            routes: 3,
            up: [name("app-2")].into(),
            down: [name("app-1")].into(),
            ..PartitionStats::default()
        }
    );
    let mut other_way_round = up.clone();
    other_way_round.add(&PartitionStats {
        routes: 2,
        down: [name("app-1")].into(),
        ..PartitionStats::default()
    });
    assert_eq!(other_way_round, sum);
}
