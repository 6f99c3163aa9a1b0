//! `bellhop erase`: removes what is kept of a user.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::output::{Output, confirm, plural};
use super::{CliError, SettingsArgs};
use crate::nats::api::ask;
use crate::token::UserId;
use crate::wire::erased::Erased;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  bellhop erase alice -f

Removes the user's reminders from the history, the mailbox and the schedule, the user's routes and associates, and the \
user from others' associates. Reminders in flight are not kept either. Streams keep their messages until they \
expire: outcomes after streams.outcomes_age (7 days), refused input after streams.rejected_age (30 days).")]
pub(super) struct Args {
    /// The user
    user: UserId,
    /// Skip the confirmation prompt
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    erased: Erased,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let Args { user, force, json } = args;
    let (_, nats) = settings.connect().await?;
    confirm(
        &format!("Erase everything that is stored about {user}? This cannot be undone."),
        force,
    )?;
    let answer: Answer = ask(&nats, "erase", &json!({ "user": user })).await?;
    let Erased {
        history,
        parked,
        scheduled,
        routes,
        associates,
    } = answer.erased;
    let count = |count: u64, noun| plural(usize::try_from(count).unwrap_or(usize::MAX), noun);
    let line = format!(
        "erased of {user}: {} of the history, {} of the mailbox, {}, {}, {}",
        count(history, "reminder"),
        count(parked, "reminder"),
        count(scheduled, "scheduled reminder"),
        count(routes, "route"),
        count(associates, "associate list"),
    );
    Output::tell(json, &answer, line)
}
