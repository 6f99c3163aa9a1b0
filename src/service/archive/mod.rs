//! Everything that is needed to write, query and erase the history.

pub mod handle;

use std::sync::Arc;

use handle::HistoryHandle;
use tokio::sync::watch;

use crate::config::Config;
use crate::http::Readiness;
use crate::metrics::Metrics;
use crate::nats::Nats;
use crate::nats::link::Link;
use crate::partition::of_user;
use crate::token::UserId;

/// The history's database, and the streams and buckets around it.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The settings.
    pub config: Arc<Config>,
    /// The connection.
    pub nats: Nats,
    /// The installation's name.
    pub installation: String,
    /// The connection for buckets.
    pub buckets: Link,
    /// The connection for queries.
    pub queries: Link,
    /// Has the database.
    pub history: HistoryHandle,
    /// The metrics.
    pub metrics: Metrics,
    /// Probes hear here that the history is behind.
    pub readiness: watch::Sender<Readiness>,
}

impl Archive {
    /// Returns the subject of a user's mailbox.
    pub(super) fn mailbox_of(&self, user: &UserId) -> String {
        let partition = of_user(user, self.config.partitions);
        self.nats.names.mailbox(partition, user)
    }
}
