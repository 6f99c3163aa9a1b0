//! How many reminders a second where an acknowledgement means that the disk has it: on one server, and on three with three
//! replicas.

use serde::Serialize;

use super::crew::Progress;
use super::stage::{Stage, System, Trial};
use super::{BenchError, Options, Servers, Throughput, throughput};

/// One system on some servers.
#[derive(Debug, Serialize)]
pub struct Durable {
    /// Which ones: [`Servers::name`].
    pub servers: &'static str,
    /// What it reached.
    #[serde(flatten)]
    pub found: Throughput,
}

/// Fewer show as much, and three servers on one machine that are flooded for longer leave no time for a member to be heard.
const SHARE: usize = 4;
/// One message a reminder is so slow then that fewer yet show it.
const RAW_SHARE: usize = 20;
/// A route waits for the disk, too: with more users the time goes into connecting them.
const USERS: usize = 10_000;

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Vec<Durable>, BenchError> {
    let size = options.set_size();
    let trials = [
        Trial::saturating(System::Raw, 1, options.reminders / RAW_SHARE),
        Trial::saturating(System::RawBatch, size, options.reminders / SHARE),
        Trial::saturating(System::Bellhop, size, options.reminders / SHARE),
    ];
    let mut told = Vec::new();
    for servers in [Servers::OneSynced, Servers::ClusterSynced] {
        let name = servers.name();
        let mut stage =
            Stage::set(&Options { servers, users: options.users.min(USERS), ..options.clone() }, progress).await?;
        let found = throughput::interleaved(&mut stage, options, &trials, progress).await?;
        told.extend(found.into_iter().map(|found| Durable { servers: name, found }));
        stage.clear().await;
    }
    Ok(told)
}
