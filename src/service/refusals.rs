//! The reminders of a delivery that an instance refused, by hash: a request has reminders of many
//! partitions, and each looks up its own.

use std::collections::HashMap;

use crate::nats::instance::{DeliveryAnswer, Refused};
use crate::router::Refusal;

/// The source, the id, and the user.
type Key = (String, String, String);

/// The refused reminders. All others were accepted.
#[derive(Debug, Default)]
pub struct Refusals(HashMap<Key, Refusal>);

impl Refusals {
    /// Nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the reason why a reminder was refused, if it was. `user` is who was to get it.
    pub fn of(&self, source: &str, id: &str, user: &str) -> Option<Refusal> {
        self.0
            .get(&(source.to_owned(), id.to_owned(), user.to_owned()))
            .copied()
    }
}

impl From<DeliveryAnswer> for Refusals {
    /// Of two words about the same reminder the last one counts.
    fn from(answer: DeliveryAnswer) -> Self {
        let entry = |Refused {
                         id,
                         source,
                         user,
                         reason,
                     }| ((source, id, user), Refusal::from(reason));
        Self(answer.refused.into_iter().map(entry).collect())
    }
}
