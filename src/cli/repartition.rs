//! `bellhop repartition`: gives an installation another number of partitions.

use super::output::{Output, plural};
use super::{CliError, SettingsArgs};
use crate::service::repartition::{Progress, run as repartition};

#[derive(Debug, clap::Args)]
#[command(after_help = "What it does:
  1. pauses the intake, and waits until the members have finished what was taken in
  2. waits until you have stopped all members
  3. copies the mailboxes that lie in another partition now, and removes them where they were

What is published meanwhile waits in its stream, and nothing is lost or comes twice. Ended before its third step it has changed \
nothing; from then on no member starts until it was run to its end, which may be done as often as it takes. Run it with the \
number there was, and everything is as it was. Reminders that were moved count as parked anew: `parked_at`, and \
`mailbox.escalate_after`.

Example:
  bellhop repartition 64    # then set `partitions = 64` for every member, and start them")]
pub(super) struct Args {
    /// How many partitions the installation is to have
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    partitions: u16,
}

pub(super) async fn run(
    settings: &SettingsArgs,
    Args { partitions }: Args,
) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    let (mut output, mut told) = (Output::new(), None);
    repartition(&nats, partitions, |progress| {
        if told.replace(progress) != Some(progress) {
            // Nobody need read it: the work goes on.
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
            format!("waiting until members have finished what was taken in: {left} left")
        }
        Progress::Stopping(members) => format!(
            "everything is finished: stop {} now",
            plural(members, "member")
        ),
        Progress::Copied(users) => format!("moved the mailboxes of {}", plural(users, "user")),
    }
}
