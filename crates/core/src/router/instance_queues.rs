//! The instances a partition speaks to, by name and by number.
//!
//! Within the machine an instance is a number, as a [user](super::users) is. Nothing that speaks of
//! a queue by number outlives it: routes, tickets, requests and pages keep the queue
//! (`InstanceQueue::is_unused`), and so does being down, which the timer of a probe is for. An
//! attempt's instances may have no queue, so they have none of the numbers.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::Instance;
use super::instance_queue::InstanceQueue;
use super::keys::InstanceKey;
use super::slab::Slab;

/// The queues of a partition.
#[derive(Debug)]
pub struct InstanceQueues {
    queues: Slab<InstanceQueue>,
    numbers: BTreeMap<Arc<Instance>, InstanceKey>,
}

impl InstanceQueues {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            queues: Slab::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The number of an instance's queue, which is there from now on.
    pub fn admit(&mut self, instance: Arc<Instance>) -> InstanceKey {
        self.find(&instance).unwrap_or_else(|| {
            let number = InstanceKey(self.queues.insert(InstanceQueue::new(instance.clone())));
            self.numbers.insert(instance, number);
            number
        })
    }

    /// The number of an instance's queue, if there is one.
    pub fn find(&self, instance: &Arc<Instance>) -> Option<InstanceKey> {
        self.numbers.get(instance).copied()
    }

    /// The queue with this number, unless it was removed.
    pub fn get(&self, number: InstanceKey) -> Option<&InstanceQueue> {
        self.queues.get(number.0)
    }

    /// Removes a queue. Its number may be another one's next.
    pub fn remove(&mut self, number: InstanceKey) {
        if let Some(queue) = self.queues.remove(number.0) {
            self.numbers.remove(&queue.instance);
        }
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (InstanceKey, &InstanceQueue)> {
        self.queues
            .iter()
            .map(|(number, queue)| (InstanceKey(number), queue))
    }

    /// All of them, in the order of their numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut InstanceQueue> {
        self.queues.iter_mut()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

impl Index<InstanceKey> for InstanceQueues {
    type Output = InstanceQueue;

    fn index(&self, number: InstanceKey) -> &InstanceQueue {
        &self.queues[number.0]
    }
}

impl IndexMut<InstanceKey> for InstanceQueues {
    fn index_mut(&mut self, number: InstanceKey) -> &mut InstanceQueue {
        &mut self.queues[number.0]
    }
}
