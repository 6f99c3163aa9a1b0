//! The instances a partition speaks to, by name and by number.
//!
//! Within the machine an instance is a number, as a [user](super::users) is. Nothing that speaks of a lane by number outlives it:
//! routes, tickets, requests and pages keep the lane (`Lane::is_unused`), and so does being down, which the timer of a probe is for.
//! An attempt's instances may have no lane, so they have none of the numbers.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::Instance;
use super::keys::InstanceKey;
use super::lane::Lane;
use super::slab::Slab;

/// The lanes of a partition.
#[derive(Debug)]
pub struct Lanes {
    lanes: Slab<Lane>,
    numbers: BTreeMap<Arc<Instance>, InstanceKey>,
}

impl Lanes {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            lanes: Slab::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The number of an instance's lane, which is there from now on.
    pub fn admit(&mut self, instance: Arc<Instance>) -> InstanceKey {
        self.find(&instance).unwrap_or_else(|| {
            let number = InstanceKey(self.lanes.insert(Lane::new(instance.clone())));
            self.numbers.insert(instance, number);
            number
        })
    }

    /// The number of an instance's lane, if there is one.
    pub fn find(&self, instance: &Arc<Instance>) -> Option<InstanceKey> {
        self.numbers.get(instance).copied()
    }

    /// The lane with this number, unless it was removed.
    pub fn get(&self, number: InstanceKey) -> Option<&Lane> {
        self.lanes.get(number.0)
    }

    /// Removes a lane. Its number may be another one's next.
    pub fn remove(&mut self, number: InstanceKey) {
        if let Some(lane) = self.lanes.remove(number.0) {
            self.numbers.remove(&lane.instance);
        }
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (InstanceKey, &Lane)> {
        self.lanes
            .iter()
            .map(|(number, lane)| (InstanceKey(number), lane))
    }

    /// All of them, in the order of their numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

impl Index<InstanceKey> for Lanes {
    type Output = Lane;

    fn index(&self, number: InstanceKey) -> &Lane {
        &self.lanes[number.0]
    }
}

impl IndexMut<InstanceKey> for Lanes {
    fn index_mut(&mut self, number: InstanceKey) -> &mut Lane {
        &mut self.lanes[number.0]
    }
}
