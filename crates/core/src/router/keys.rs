//! The numbers by which the machine speaks of users and instances. [`Users`](super::users::Users)
//! and [`InstanceQueues`](super::instance_queues::InstanceQueues) give them out.

use smallvec::SmallVec;

/// A user as the machine speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserKey(pub(super) u32);

/// An instance as the machine speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceKey(pub(super) u32);

/// Some instances. Few users have more connections than fit into it without an allocation.
pub type InstanceKeys = SmallVec<[InstanceKey; 4]>;
