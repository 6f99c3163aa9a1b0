//! Watches the bucket of routes once for the whole process, and tells each partition held here of its own users'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::nats::bucket::Watched;
use crate::nats::{Names, Nats, NatsError};
use crate::partition::{Partition, of_user};
use crate::router::Instance;
use crate::token::{InstanceName, NameError, UserId};

/// Changes that wait for a partition to take them in.
const MAX_WAITING: usize = 8_192;

/// What a partition is told.
#[derive(Debug)]
pub enum RouteChange {
    /// A route was put.
    Up(UserId, Arc<Instance>, u64),
    /// A route was deleted.
    Down(UserId, InstanceName, u64),
    /// All routes that there were when the partition asked have been told.
    Loaded,
}

/// Asks for a partition's routes.
#[derive(Debug, Clone)]
pub struct Routes {
    follow: mpsc::Sender<(Partition, mpsc::Sender<RouteChange>)>,
}

impl Routes {
    /// Starts the task that watches.
    pub fn start(nats: Nats, partitions: u16) -> (Self, tokio::task::JoinHandle<()>) {
        let (follow, wishes) = mpsc::channel(usize::from(partitions).max(1));
        (Self { follow }, tokio::spawn(watch(nats, partitions, wishes)))
    }

    /// The partition's routes: those there are, [`RouteChange::Loaded`], and every change, until the receiver is dropped.
    pub async fn follow(&self, partition: Partition) -> mpsc::Receiver<RouteChange> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let _ = self.follow.send((partition, sender)).await; // The watch ends with the process only.
        receiver
    }
}

type Wish = (Partition, mpsc::Sender<RouteChange>);

struct Follower {
    sender: mpsc::Sender<RouteChange>,
    is_loaded: bool,
}

async fn watch(nats: Nats, partitions: u16, mut wishes: mpsc::Receiver<Wish>) {
    let mut followers: BTreeMap<Partition, Follower> = BTreeMap::new();
    // A newcomer needs everything from the start, so a second watch begins. The first one goes on meanwhile, so that
    // nobody else waits for news.
    let (mut current, mut fresh): (Option<Watched>, Option<Watched>) = (None, None);
    loop {
        if fresh.is_none() && followers.values().any(|follower| !follower.is_loaded) {
            match Watched::begin(&nats, nats.names.routes_bucket()).await {
                Ok(watch) => fresh = Some(watch),
                Err(error) => pause(&error).await,
            }
        }
        if fresh.as_ref().is_some_and(Watched::is_loaded) {
            current = fresh.take();
            for follower in followers.values_mut().filter(|follower| !follower.is_loaded) {
                follower.is_loaded = true;
                let _ = follower.sender.send(RouteChange::Loaded).await;
            }
        }
        let entry = tokio::select! {
            wish = wishes.recv() => {
                let Some(mut wish) = wish else { return };
                loop {
                    followers.insert(wish.0, Follower { sender: wish.1, is_loaded: false });
                    // Partitions are taken in groups, and one fresh watch serves them all.
                    match wishes.try_recv() {
                        Ok(next) => wish = next,
                        Err(_) => break,
                    }
                }
                fresh = None;
                continue;
            }
            entry = next(&mut current) => entry,
            entry = next(&mut fresh) => entry,
        };
        match entry {
            Ok(entry) => tell(&mut followers, &nats.names, partitions, entry).await,
            Err(error) => {
                // What happened meanwhile is in the bucket: everybody is told everything again.
                (current, fresh) = (None, None);
                followers.values_mut().for_each(|follower| follower.is_loaded = false);
                pause(&error).await;
            }
        }
    }
}

async fn next(watch: &mut Option<Watched>) -> Result<Entry, NatsError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn pause(error: &NatsError) {
    tracing::warn!(%error, "watching routes again");
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn tell(followers: &mut BTreeMap<Partition, Follower>, names: &Names, partitions: u16, entry: Entry) {
    let (user, change) = match read(names, &entry) {
        Ok(read) => read,
        Err(problem) => {
            tracing::warn!(key = entry.key, %problem, "not a route, ignored");
            return;
        }
    };
    let partition = of_user(&user, partitions);
    if let Some(follower) = followers.get(&partition)
        && follower.sender.send(change).await.is_err()
    {
        followers.remove(&partition);
    }
}

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

fn read(names: &Names, entry: &Entry) -> Result<(UserId, RouteChange), RouteError> {
    let (user, name) = read_key(&entry.key)?;
    let change = match entry.operation {
        Operation::Put => {
            let subject = read_value(names, &name, &entry.value)?;
            RouteChange::Up(user.clone(), Arc::new(Instance { name, subject }), entry.revision)
        }
        Operation::Delete | Operation::Purge => RouteChange::Down(user.clone(), name, entry.revision),
    };
    Ok((user, change))
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
