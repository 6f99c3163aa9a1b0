//! Brings an installation of a version before the log to this one.
//!
//! What that version has taken in, it finishes itself, and only then its work queues are removed.
//! So nothing is translated but the subjects of scheduled reminders, and nothing is delivered
//! twice. It can be run again after it was interrupted.

use std::time::Duration;

use crate::config::Config;
use crate::nats::{Nats, NatsError, repartition, topology, upgrade};

/// Interval at which JetStream is asked for the members' progress.
const POLL: Duration = Duration::from_millis(200);

/// The progress of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Members of the earlier version finish so many messages; so many members run.
    Finishing(u64, usize),
    /// So many members are to be stopped.
    Stopping(usize),
    /// So many scheduled reminders were moved.
    Moved(usize),
}

/// Upgrades the installation, and says how far it has come.
///
/// # Errors
/// When there is nothing to upgrade, the configuration does not fit, or JetStream does not do as it
/// is asked; run it again then.
pub async fn run(
    nats: &Nats,
    config: &Config,
    mut progress: impl FnMut(Progress),
) -> Result<(), NatsError> {
    if upgrade::former_streams(nats).await?.is_empty() {
        return Err(NatsError::Contrary {
            what: format!("prefix {}", nats.names.prefix()),
            problem: "no streams of an earlier version are there; `bellhop setup` creates what is missing"
                .to_owned(),
        });
    }
    // Mailboxes lie under the partitions' numbers.
    if let Some(noted) = upgrade::noted_partitions(nats).await?
        && noted != config.partitions
    {
        let problem = format!(
            "it has {noted} partitions and the configuration says {}; set `partitions = {noted}`",
            config.partitions
        );
        return Err(NatsError::Contrary {
            what: "the installation".to_owned(),
            problem,
        });
    }
    loop {
        // A member that starts meanwhile opens it again.
        upgrade::close(nats).await?;
        // A member leaves when it has finished, so it is counted first.
        let members = repartition::members(nats).await?.len();
        let left = upgrade::unfinished(nats).await?;
        match (left, members) {
            (0, 0) => break,
            (0, members) => progress(Progress::Stopping(members)),
            (left, members) => progress(Progress::Finishing(left, members)),
        }
        tokio::time::sleep(POLL).await;
    }
    progress(Progress::Moved(upgrade::move_schedules(nats).await?));
    upgrade::remove(nats).await?;
    topology::set_up(nats, config, false).await?;
    upgrade::begin_positions(nats, config.partitions).await
}
