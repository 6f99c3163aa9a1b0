//! Routes as they stand in their bucket: which app-server instance holds which user's connection.

use std::sync::Arc;

use async_nats::jetstream::kv::{Entry, Operation};
use serde::Deserialize;

use super::follow::NotOurs;
use crate::nats::{Names, Nats, NatsError, bucket};
use crate::router::{Input, Instance};
use crate::token::{InstanceName, NameError, UserId};

/// The most routes of one associate that are tried.
const MAX_LOOKED_UP: usize = 64;

/// Why an entry of the bucket is no route.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The key has not two tokens.
    #[error("the key is not `<user>.<instance>`")]
    Key,
    /// A token is no name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The value is not the contract's.
    #[error("the value is neither empty nor JSON with a `subject`: {0}")]
    Value(#[from] serde_json::Error),
    /// The subject cannot be published to, or is not for app servers.
    #[error("`{0}` is not a subject that an app server can have")]
    Subject(String),
}

#[derive(Deserialize)]
struct Value {
    subject: Option<String>,
}

/// Whose route a key is, and at which instance.
///
/// # Errors
/// Says what is wrong with the key.
pub fn read_key(key: &str) -> Result<(UserId, InstanceName), RouteError> {
    let (user, instance) = key.split_once('.').ok_or(RouteError::Key)?;
    Ok((UserId::from_token(user)?, InstanceName::from_token(instance)?))
}

/// What an instance's subjects begin with, by its route's value.
///
/// # Errors
/// Says what is wrong with the value.
pub fn read_value(names: &Names, instance: &InstanceName, value: &[u8]) -> Result<String, RouteError> {
    let subject = match value {
        b"" => None,
        json => serde_json::from_slice::<Value>(json)?.subject,
    };
    let subject = subject.unwrap_or_else(|| names.instance(instance));
    let is_literal = subject.split('.').all(|token| {
        !token.is_empty()
            && token != "*"
            && token != ">"
            && !token.contains(|c: char| c.is_whitespace() || c.is_control())
    });
    // `$JS`, `$KV`, `$SYS`: a route must not turn Bellhop's own permissions against the server.
    if !is_literal || subject.starts_with('$') || subject.starts_with('_') {
        return Err(RouteError::Subject(subject));
    }
    Ok(subject)
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
    fn values_name_a_subject_or_leave_it_to_the_default() {
        let names = Names::new("bellhop");
        let read = |value: &str| read_value(&names, &"app 1".parse().unwrap(), value.as_bytes());
        assert_eq!(read("").unwrap(), "bellhop.app.app=201");
        assert_eq!(read(r#"{"since":"2026-11-22T00:00:00Z"}"#).unwrap(), "bellhop.app.app=201");
        assert_eq!(read(r#"{"subject":"eu.app.7"}"#).unwrap(), "eu.app.7");
        assert!(matches!(read("yes"), Err(RouteError::Value(_))));
        for subject in ["", "a..b", "a.*", ">", "$JS.API.STREAM.DELETE.X", "_INBOX.x", "a b", "a.\u{7}"] {
            let value = serde_json::json!({ "subject": subject }).to_string();
            assert!(matches!(read(&value), Err(RouteError::Subject(_))), "{subject}");
        }
    }

    #[test]
    fn keys_have_two_names() {
        assert_eq!(read_key("a=2Eb.app-1").unwrap(), ("a.b".parse().unwrap(), "app-1".parse().unwrap()));
        for key in ["alice", "a.b.c", "=zz.app", ".app", "alice."] {
            assert!(read_key(key).is_err(), "{key}");
        }
    }
}
