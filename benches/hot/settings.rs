//! The settings of the router that the benchmarks measure.

use std::time::Duration;

use bellhop_core::router::{Room, Settings};

/// Returns the default settings.
pub fn settings() -> Settings {
    Settings {
        lease: Duration::from_secs(20),
        ask_ahead: Duration::from_secs(5),
        instance_backoff: (Duration::from_millis(500), Duration::from_secs(30)),
        busy_backoff: (Duration::from_millis(100), Duration::from_secs(5)),
        all_devices: true,
        turn_timeout: Duration::from_secs(2),
        heartbeat_users: 1_000,
        delivery_bytes: 256 << 10,
        room: Room {
            limit: 10_000,
            reserve: 10,
            source_share: 50,
        },
        park_batch: (500, 1 << 20),
        park_again: (Duration::from_millis(50), Duration::from_secs(1)),
        reads_in_flight: 8,
        expiry_interval: Duration::from_secs(60),
        copy_rerouted: false,
        reroute_after: Duration::from_secs(10),
        expected_most: (500, 2 << 20),
        reroute_timeout: Duration::from_secs(5),
        merge_window: Duration::ZERO,
        merge_limit: 0,
    }
}
