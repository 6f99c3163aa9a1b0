//! `bellhop repartition`: gives an installation another number of partitions.

use super::output::{Output, plural};
use super::{CliError, SettingsArgs};
use crate::service::repartition::{Progress, run as repartition};

#[derive(Debug, clap::Args)]
#[command(after_help = "What it does:
  1. pauses the intake, and waits until the members have settled what they have read
  2. waits until you have stopped all members
  3. moves the mailboxes that belong to another partition now

Sets that are published meanwhile wait in their stream; nothing is lost or delivered twice. Interrupted before step 3, it has \
changed nothing. After that, members refuse to start until it has run to completion; it is safe to run again. To go back, \
run it with the previous number. Moved reminders get a new `parked_at`, which `mailbox.escalate_after` counts from.

Example:
  bellhop repartition 64    # then set `partitions = 64` for every member, and start them")]
pub(super) struct Args {
    /// New number of partitions
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    partitions: u16,
}

pub(super) async fn run(
    settings: &SettingsArgs,
    Args { partitions }: Args,
) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    let (mut output, mut shown) = (Output::new(), None);
    repartition(&nats, partitions, |progress| {
        if shown.replace(progress) != Some(progress) {
            // The work goes on if the output is closed.
            let _ = output
                .line(describe(progress))
                .and_then(|()| output.flush());
        }
    })
    .await?;
    let count = plural(usize::from(partitions), "partition");
    output.line(format_args!(
        "the installation has {count}; start members with `partitions = {partitions}`"
    ))?;
    output.flush()
}

fn describe(progress: Progress) -> String {
    match progress {
        Progress::Finishing(left) => {
            format!("waiting until members have settled all sets: {left} left")
        }
        Progress::Stopping(members) => format!(
            "everything is finished: stop {} now",
            plural(members, "member")
        ),
        Progress::Copied(users) => format!("moved the mailboxes of {}", plural(users, "user")),
    }
}
