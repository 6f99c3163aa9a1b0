//! The readers of the log in this world.

use bellhop_core::log::Subscriber;
use bellhop_protocol::partition::Partition;

/// The one partition.
pub const PARTITION: Subscriber = Subscriber::Partition(Partition(0));
/// The partition, and the role for what belongs to sets themselves.
pub const ALL: [Subscriber; 2] = [Subscriber::Sets, PARTITION];
