//! The connections of a member, one for each kind of stranger that it hears.
//!
//! The client library can lose its connection over a message that it cannot read, and can even end
//! for good. So what strangers write does not come over the connection that Bellhop's own streams
//! are worked on, nor over another kind's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::http::Readiness;
use crate::metrics::{Connection, Label, Metrics};
use crate::nats::link::Link;
use crate::nats::{Nats, NatsError, chain, connect};

/// Pause before a client that could not be replaced is tried again.
const REST: Duration = Duration::from_secs(1);

/// Interval at which a connection's state is checked,
const POLL: Duration = Duration::from_millis(10);
/// how long that may take before the next one moves,
const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// and the time in which a connection that has moved takes its work up again.
const BETWEEN_MOVES: Duration = Duration::from_millis(500);

/// The connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Links {
    /// Bellhop's own streams.
    main: Link,
    /// The connection for the members' records.
    members: Link,
    /// Published sets, and those that are due.
    pub sets: Link,
    /// Routes, associates and rules.
    pub buckets: Link,
    /// Requests to app servers, and their answers.
    pub apps: Link,
    /// Questions, and what is counted.
    pub queries: Link,
}

/// The sender of a link whose client is replaced when it has ended, or of one whose client is the
/// process's for good.
type Ends = [(Connection, watch::Sender<Nats>); 6];

impl Links {
    /// Makes the connections that are not made yet. The second result is for [`keep`].
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub async fn connect(
        config: &Config,
        member: &str,
        main: Nats,
        members: Nats,
    ) -> Result<(Self, Ends), NatsError> {
        let make = async |name| connect(config, &client_name(member, name)).await;
        let (sets, buckets, apps, queries) = tokio::try_join!(
            make(Connection::Sets),
            make(Connection::Buckets),
            make(Connection::Apps),
            make(Connection::Queries)
        )?;
        let made = [main, members, sets, buckets, apps, queries].map(Link::new);
        let [main, members, sets, buckets, apps, queries] =
            made.each_ref().map(|(_, link)| link.clone());
        let mut names = Connection::all().iter();
        let ends = made.map(|(sender, _)| (*names.next().expect("six connections"), sender));
        Ok((
            Self {
                main,
                members,
                sets,
                buckets,
                apps,
                queries,
            },
            ends,
        ))
    }

    /// Returns each with its name.
    pub fn all(&self) -> [(Connection, &Link); 6] {
        [
            (Connection::Main, &self.main),
            (Connection::Members, &self.members),
            (Connection::Sets, &self.sets),
            (Connection::Buckets, &self.buckets),
            (Connection::Apps, &self.apps),
            (Connection::Queries, &self.queries),
        ]
    }
}

/// Returns what a connection is called at the server.
pub fn client_name(member: &str, connection: Connection) -> String {
    match connection {
        Connection::Main => format!("bellhop {member}"),
        connection => format!("bellhop {member} {}", connection.value()),
    }
}

/// Replaces clients that have ended for good, and moves connections whose server is about to stop.
/// Where a client cannot be replaced, it says so: only a restart helps then.
pub fn keep(
    ends: Ends,
    config: &Arc<Config>,
    member: &str,
    metrics: &Metrics,
    readiness: &watch::Sender<Readiness>,
) -> JoinSet<()> {
    let mut keeping = JoinSet::new();
    let turn = Arc::new(Mutex::new(()));
    for (name, link) in ends {
        let (config, metrics, readiness) = (config.clone(), metrics.clone(), readiness.clone());
        let (client_name, turn) = (client_name(member, name), turn.clone());
        keeping.spawn(async move {
            loop {
                let nats = link.borrow().clone();
                tokio::select! {
                    () = nats.ended.cancelled() => {}
                    () = nats.notices.next() => {
                        // One connection after the other, so that never all of them are without a
                        // server.
                        let _turn = turn.lock().await;
                        leave(&nats, &config, &client_name, name, &link).await;
                        continue;
                    }
                }
                tracing::error!(
                    connection = name.value(),
                    "a NATS client ended and is replaced"
                );
                if [Connection::Main, Connection::Members].contains(&name) {
                    // Every task has this one, and what it was about to write is not known any
                    // more.
                    readiness.send_modify(|readiness| readiness.ended = Some(name.value()));
                    return;
                }
                let nats = replacement(&config, &client_name, name, &readiness).await;
                readiness.send_if_modified(|readiness| {
                    readiness
                        .ended
                        .take_if(|ended| *ended == name.value())
                        .is_some()
                });
                metrics.nats_client_replaced(name);
                link.send_replace(nats);
            }
        });
    }
    keeping
}

/// Leaves a server that is about to stop, if another one lets this member in.
async fn leave(
    nats: &Nats,
    config: &Config,
    client_name: &str,
    name: Connection,
    link: &watch::Sender<Nats>,
) {
    let elsewhere = match connect(config, client_name).await {
        Ok(elsewhere) => Some(elsewhere),
        // The client has heard of other servers of the cluster.
        Err(_) if !nats.client.server_info().connect_urls.is_empty() => None,
        Err(error) => {
            tracing::warn!(connection = name.value(), error = %chain(&error), "no other nats-server to move to");
            return;
        }
    };
    tracing::info!(connection = name.value(), "moving to another nats-server");
    if let Some(elsewhere) = elsewhere.filter(|_| name == Connection::Apps) {
        // Requests under way have their answers over the old client, which lasts as long as they
        // do.
        link.send_replace(elsewhere);
    } else {
        let connects = || nats.client.statistics().connects.load(Ordering::Relaxed);
        let before = connects();
        // It fails for a client that has ended, which is noticed elsewhere.
        if nats.client.force_reconnect().await.is_ok() {
            let is_back = async {
                while connects() == before {
                    tokio::time::sleep(POLL).await;
                }
            };
            let _ = tokio::time::timeout(MOVE_WITHIN, is_back).await;
        }
    }
    tokio::time::sleep(BETWEEN_MOVES).await;
}

/// Connects, however long the server is away.
async fn replacement(
    config: &Config,
    client_name: &str,
    name: Connection,
    readiness: &watch::Sender<Readiness>,
) -> Nats {
    loop {
        match connect(config, client_name).await {
            Ok(nats) => return nats,
            Err(error) => {
                tracing::warn!(connection = name.value(), error = %chain(&error), "failed to connect, retrying");
                // A restart does not help where a server is away, or a file of credentials is not
                // there yet.
                let may_pass = matches!(
                    error,
                    NatsError::Connect { .. }
                        | NatsError::NotLetIn { .. }
                        | NatsError::Unusable { .. }
                );
                if !may_pass {
                    readiness.send_modify(|readiness| readiness.ended = Some(name.value()));
                }
            }
        }
        tokio::time::sleep(REST).await;
    }
}
