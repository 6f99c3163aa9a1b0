//! `bellhop history`: every reminder and its outcomes, as the database knows them.

mod follow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::output::{Output, Table, one_line, plural, short, time};
use super::{CliError, SettingsArgs};
use crate::config::parse_duration;
use crate::nats::Nats;
use crate::nats::api::ask;
use crate::reminder::outcome;
use crate::token::{Source, Tag, UserId};
use crate::wire::query::MAX_LIMIT;
use follow::Live;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop history --user alice
  bellhop history --outcome parked --since 1d
  bellhop history --source billing --contains 981 --json | jq -r .outcome
  bellhop history --user alice --follow

Filters combine. The newest reminder comes first; with --follow it comes last, and new events follow.")]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Maximum number to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Keep running and show new events
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one reminder a line
    #[arg(long)]
    json: bool,
}

/// The filter, in the words of `bellhop.api.history`.
#[derive(Debug, Clone, Serialize, clap::Args)]
struct Filter {
    /// Only those for this user
    #[arg(long)]
    user: Option<UserId>,
    /// Only those of this business system
    #[arg(long)]
    source: Option<Source>,
    /// Only those with this id
    #[arg(long)]
    id: Option<String>,
    /// Only those with this tag
    #[arg(long)]
    tag: Option<Tag>,
    /// Only those whose latest outcome is this
    #[arg(long, value_parser = outcome::NAMES)]
    outcome: Option<String>,
    /// Only those published at or after this time, or not longer ago than this
    #[arg(long, visible_alias = "from", value_name = "TIME|AGE", value_parser = moment)]
    #[serde(rename = "from")]
    since: Option<Timestamp>,
    /// Only those published before this time, or longer ago than this
    #[arg(long, visible_alias = "to", value_name = "TIME|AGE", value_parser = moment)]
    #[serde(rename = "to")]
    until: Option<Timestamp>,
    /// Only those with this text in title or content, ignoring case
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
}

/// `2026-11-22T08:00:00Z`, or `15m` for so long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let problem = || {
        format!(
            "`{text}` is neither a time such as 2026-11-22T08:00:00Z nor an age such as 15m, 2h, 7d"
        )
    };
    let age = parse_duration(text).map_err(|_| problem())?;
    Timestamp::now().checked_sub(age).map_err(|_| problem())
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(flatten)]
    filter: &'a Filter,
    limit: usize,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    reminders: Vec<Box<RawValue>>,
    cursor: Option<String>,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let Args {
        filter,
        limit,
        follow,
        json,
    } = args;
    let (_, nats) = settings.connect().await?;
    // From before the first look on, so that nothing falls in between.
    let live = if follow {
        Some(Live::begin(&nats).await?)
    } else {
        None
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut reminders, has_more) = find(&nats, &filter, limit).await?;
    if follow {
        reminders.reverse();
    }
    let mut output = Output::new();
    if json {
        reminders
            .iter()
            .try_for_each(|reminder| output.json(reminder))?;
    } else {
        print(&mut output, &reminders, has_more && !follow, follow)?;
    }
    output.flush()?;
    match live {
        Some(live) => live.show(&nats, &filter, json, &mut output).await,
        None => Ok(()),
    }
}

/// The newest reminders, and whether there are more.
async fn find(
    nats: &Nats,
    filter: &Filter,
    limit: usize,
) -> Result<(Vec<Box<RawValue>>, bool), CliError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let request = Request {
            filter,
            limit: MAX_LIMIT.min(limit - found.len()),
            cursor,
        };
        let answer: Answer = ask(nats, "history", &request).await?;
        found.extend(answer.reminders);
        cursor = answer.cursor;
        if cursor.is_none() || found.len() >= limit {
            return Ok((found, cursor.is_some()));
        }
    }
}

/// A line's view of a reminder.
#[derive(Deserialize)]
struct Shown {
    source: String,
    id: String,
    user: Option<String>,
    title: Option<String>,
    #[serde(default)]
    content: String,
    outcome: String,
    at: Timestamp,
}

impl Shown {
    const COLUMNS: [&'static str; 6] = ["at", "outcome", "source", "id", "user", "text"];

    fn cells(reminder: &RawValue) -> Result<[String; 6], CliError> {
        let Self {
            source,
            id,
            user,
            title,
            content,
            outcome,
            at,
        } = serde_json::from_str(reminder.get()).map_err(|error| {
            CliError::Failed(format!("the answer is not a reminder's: {error}"))
        })?;
        let text = one_line(title, content);
        Ok([
            time(at),
            outcome,
            short(&source, 24),
            short(&id, 40),
            short(&user.unwrap_or_default(), 24),
            short(&text, 60),
        ])
    }
}

fn print(
    output: &mut Output,
    reminders: &[Box<RawValue>],
    has_more: bool,
    follow: bool,
) -> Result<(), CliError> {
    if reminders.is_empty() && !follow {
        return output.line("no such reminder is known");
    }
    let mut table = Table::new(&Shown::COLUMNS);
    for reminder in reminders {
        table.row(&Shown::cells(reminder)?);
    }
    table
        .lines()
        .iter()
        .try_for_each(|line| output.line(line))?;
    match has_more {
        true => output.line(format!(
            "{}, and there are more; --limit N shows them",
            plural(reminders.len(), "reminder")
        )),
        false => Ok(()),
    }
}
