//! `bellhop upgrade`: brings an installation of a version before the log to this one.

use super::output::{Output, plural};
use super::{CliError, SettingsArgs};
use crate::service::upgrade::{Progress, run as upgrade};

#[derive(Debug, clap::Args)]
#[command(after_help = "What it does:
  1. stores no more sets: business systems get errors, and publish again when it is done
  2. waits until the members of the earlier version have finished what they had taken in
  3. waits until you have stopped these members
  4. moves scheduled reminders to where this version looks, removes the streams BELLHOP_SETS and BELLHOP_EVENTS, which are \
empty, and does what `bellhop setup` does

Mailboxes, outcomes, routes, rules and the history stay as they are. Interrupted, it is safe to run again. docs/upgrade.md has \
more.")]
pub(super) struct Args {}

pub(super) async fn run(settings: &SettingsArgs, Args {}: Args) -> Result<(), CliError> {
    let (config, nats) = settings.connect().await?;
    let (mut output, mut shown) = (Output::new(), None);
    upgrade(&nats, &config, |progress| {
        if shown.replace(progress) != Some(progress) {
            // The work goes on if the output is closed.
            let _ = output
                .line(describe(progress))
                .and_then(|()| output.flush());
        }
    })
    .await?;
    output.line("the installation is upgraded; start members of this version")?;
    output.flush()
}

fn describe(progress: Progress) -> String {
    match progress {
        Progress::Finishing(left, 0) => format!(
            "{left} left to finish, and no member runs: start one of the earlier version again"
        ),
        Progress::Finishing(left, _) => {
            format!("waiting until members have finished what they had taken in: {left} left")
        }
        Progress::Stopping(members) => format!(
            "everything is finished: stop {} now",
            plural(members, "member")
        ),
        Progress::Moved(schedules) => {
            format!("moved {}", plural(schedules, "scheduled reminder"))
        }
    }
}
