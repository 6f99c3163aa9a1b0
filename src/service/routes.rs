//! Routes as they stand in their bucket: which app-server instance holds which user's connection.

use std::sync::Arc;

use async_nats::jetstream::kv::{Entry, Operation};

use super::follow::NotOurs;
use crate::nats::{Names, Nats, NatsError, bucket};
use crate::router::{Input, Instance};
use crate::token::{InstanceName, UserId};
use crate::wire::route::read_subject;
pub use crate::wire::route::{RouteError, read_key};

/// The most routes of one associate that are tried.
const MAX_LOOKED_UP: usize = 64;

/// What an instance's subjects begin with, by its route's value.
///
/// # Errors
/// Says what is wrong with the value.
pub fn read_value(names: &Names, instance: &InstanceName, value: &[u8]) -> Result<String, RouteError> {
    match read_subject(value)? {
        // With `.deliver` behind it, `bellhop.sets` would be where reminders are published.
        Some(subject) if names.is_reserved(&subject) && !subject.starts_with(&names.instances_prefix()) => {
            Err(RouteError::Subject(subject))
        }
        subject => Ok(subject.unwrap_or_else(|| names.instance(instance))),
    }
}

/// What an entry of the bucket tells the partition of its user.
pub(super) fn read(names: &Names, entry: &Entry) -> Result<(UserId, Input), NotOurs> {
    let (user, name) = read_key(&entry.key)?;
    let revision = entry.revision;
    let input = match entry.operation {
        Operation::Put => {
            let subject = read_value(names, &name, &entry.value)?;
            Input::RouteUp { user: user.clone(), instance: Arc::new(Instance { name, subject }), revision }
        }
        Operation::Delete | Operation::Purge => Input::RouteDown { user: user.clone(), instance: name, revision },
    };
    Ok((user, input))
}

/// Where a user may be connected by the bucket's word, the route put last first. The user may be another partition's.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn look_up(nats: &Nats, user: &UserId) -> Result<Vec<Arc<Instance>>, NatsError> {
    let keys = format!("{}.*", user.escaped());
    let mut found = bucket::last(nats, &nats.names.routes_bucket(), &keys, MAX_LOOKED_UP).await?;
    found.sort_by_key(|found| std::cmp::Reverse(found.revision));
    let instance = |found: bucket::Found| {
        let (_, name) = read_key(&found.key).ok()?;
        let subject = read_value(&nats.names, &name, &found.value).ok()?;
        Some(Arc::new(Instance { name, subject }))
    };
    Ok(found.into_iter().filter_map(instance).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_a_subject_means_the_instances_own() {
        let names = Names::new("bellhop");
        let read = |value: &str| read_value(&names, &"app 1".parse().unwrap(), value.as_bytes()).unwrap();
        assert_eq!(read(""), "bellhop.app.app=201");
        assert_eq!(read(r#"{"subject":"eu.app.7"}"#), "eu.app.7");
        assert_eq!(read(r#"{"subject":"bellhop.app.eu.7"}"#), "bellhop.app.eu.7");
    }

    #[test]
    fn a_route_leads_to_none_of_bellhops_own_subjects() {
        let names = Names::new("bellhop");
        for subject in ["bellhop.sets", "bellhop.parked.3", "bellhop.app", "bellhop.api"] {
            let value = serde_json::json!({ "subject": subject }).to_string();
            let read = read_value(&names, &"app-1".parse().unwrap(), value.as_bytes());
            assert!(matches!(read, Err(RouteError::Subject(_))), "{subject}");
        }
    }
}
