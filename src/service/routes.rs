//! Routes as they stand in their bucket: which app-server instance holds which user's connection.

use std::sync::Arc;

use super::bucket_watch::NotOurs;
use crate::nats::bucket::{self, Entry, Operation};
use crate::nats::{Names, Nats, NatsError, keys};
use crate::router::{Input, Instance};
use crate::token::{InstanceName, UserId};
use crate::wire::route::{key, read_key};
use crate::wire::subject::read_value;

/// The most routes of one associate that are tried, those put last.
const MAX_LOOKED_UP: usize = 64;
/// The most keys of one user that are read: as many as nats-server looks up at once.
const MAX_KEYS: usize = 1_024;

/// Returns the user of an entry of the bucket, and the input for that user's partition.
pub(super) fn read(names: &Names, entry: &Entry) -> Result<(UserId, Input), NotOurs> {
    let (user, name) = read_key(&entry.key)?;
    let revision = entry.revision;
    let input = match entry.operation {
        Operation::Put => {
            let subject = read_value(names, &name, &entry.value)?;
            Input::RouteUp {
                user: user.clone(),
                instance: Arc::new(Instance { name, subject }),
                revision,
            }
        }
        Operation::Delete | Operation::Purge => Input::RouteDown {
            user: user.clone(),
            instance: name,
            revision,
        },
    };
    Ok((user, input))
}

/// Returns the instances at which a user may be connected according to the bucket, the route put
/// last first. The user may be another partition's.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn look_up(nats: &Nats, user: &UserId) -> Result<Vec<Arc<Instance>>, NatsError> {
    let pattern = format!("{}.*", user.escaped());
    let mut found = bucket::last(nats, &nats.names.routes_bucket(), &pattern, MAX_KEYS).await?;
    found.sort_by_key(|found| std::cmp::Reverse(found.revision));
    let instance = |found: bucket::StoredValue| {
        let (_, name) = read_key(&found.key).ok()?;
        let subject = read_value(&nats.names, &name, &found.value).ok()?;
        Some(Arc::new(Instance { name, subject }))
    };
    Ok(found
        .into_iter()
        .filter_map(instance)
        .take(MAX_LOOKED_UP)
        .collect())
}

/// Returns true if a user has a route at an instance. A route that is refused is none.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn is_at(
    nats: &Nats,
    user: &UserId,
    instance: &InstanceName,
) -> Result<bool, NatsError> {
    let value = keys::value(nats, &nats.names.routes_bucket(), &key(user, instance)).await?;
    Ok(value.is_some_and(|value| read_value(&nats.names, instance, &value).is_ok()))
}
