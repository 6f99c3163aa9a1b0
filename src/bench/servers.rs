//! The nats-servers of a measurement.

use std::time::Duration;

use super::{BenchError, usage};
use crate::local::Scratch;
use crate::nats_server::{self, NatsServer, start_cluster};

/// Which nats-servers are measured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// Those that run at this address.
    At(String),
    /// One of the measurement's own, that leaves to the operating system when what it acknowledged reaches the disk.
    One,
    /// One that syncs what it acknowledges: `sync_interval: always`.
    OneSynced,
    /// A cluster of three on this machine that syncs what it acknowledges; everything has three replicas.
    ClusterSynced,
}

impl Servers {
    /// What they are called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::At(_) => "given",
            Self::One => "one",
            Self::OneSynced => "one, synced",
            Self::ClusterSynced => "three, synced",
        }
    }

    /// Replicas of every stream.
    pub(super) fn replicas(&self) -> usize {
        if *self == Self::ClusterSynced { 3 } else { 1 }
    }
}

/// Servers that run, and, where they are the measurement's own, end with this.
pub(super) struct Running {
    url: String,
    own: Vec<NatsServer>,
}

impl Running {
    /// Starts what is to be started. A cluster may not have found itself yet.
    pub(super) async fn start(servers: &Servers, scratch: &Scratch) -> Result<Self, BenchError> {
        let own = match servers {
            Servers::At(url) => return Ok(Self { url: url.clone(), own: Vec::new() }),
            Servers::One => start_one(scratch, "").await?,
            Servers::OneSynced => start_one(scratch, SYNCED).await?,
            Servers::ClusterSynced => start_cluster(scratch.path(), &config(SYNCED)).await?,
        };
        Ok(Self { url: own[0].url().to_owned(), own })
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// CPU time that the measurement's own have used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.own.iter().filter_map(NatsServer::pid).map(usage::cpu_time).sum()
    }
}

const SYNCED: &str = "sync_interval: always";

fn config(sync: &str) -> String {
    format!("jetstream {{ max_memory_store: 256MB, max_file_store: 100GB\n{sync} }}")
}

async fn start_one(scratch: &Scratch, sync: &str) -> Result<Vec<NatsServer>, BenchError> {
    let options = nats_server::Options { extra_config: &config(sync), ..nats_server::Options::default() };
    Ok(vec![NatsServer::start(&scratch.path().join("nats"), options).await?])
}
