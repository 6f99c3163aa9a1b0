//! `bellhop scheduled`: reminders that are to be delivered later.

use std::collections::BinaryHeap;
use std::time::Duration;

use async_nats::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::output::{Listing, Output, one_line, plain, plural, short, thousands, time};
use super::{CliError, SettingsArgs};
use crate::nats::{Nats, schedule};
use crate::token::{Source, UserId};

/// Maximum time to wait for a cancellation.
const CANCELLED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List scheduled reminders, the next one first
    #[command(after_help = "Examples:
  bellhop scheduled ls --source billing
  bellhop scheduled ls --limit 1000 --json | jq -r '.[].deliver_at'

Reminders are shown as they were published: rules apply when they are due.")]
    Ls {
        /// Only those of this business system
        #[arg(long)]
        source: Option<Source>,
        /// Maximum number to show
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Cancel a scheduled reminder, as its business system does
    #[command(after_help = "Examples:
  bellhop scheduled cancel billing inv-981
  bellhop scheduled cancel billing meeting-7 --user alice

It publishes a set {\"cancel\": [\"inv-981\"]} to the business system's subject, and waits until a running `bellhop serve` has \
processed it. The reminder gets the outcome `cancelled`.")]
    Cancel {
        /// The business system that published it
        source: Source,
        /// The reminder's id
        id: String,
        /// Only this user's; else the reminders of all users of this id
        #[arg(long)]
        user: Option<UserId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    match command {
        Command::Ls {
            source,
            limit,
            json,
        } => ls(&nats, source.as_ref(), limit as usize, json).await,
        Command::Cancel {
            source,
            id,
            user,
            json,
        } => cancel(&nats, &source, &id, user.as_ref(), json).await,
    }
}

/// A set of one reminder.
#[derive(Deserialize)]
struct Set {
    reminders: (Box<RawValue>,),
}

#[derive(Deserialize)]
struct Text {
    source: String,
    id: String,
    user: String,
    title: Option<String>,
    content: String,
}

async fn ls(
    nats: &Nats,
    source: Option<&Source>,
    limit: usize,
    json: bool,
) -> Result<(), CliError> {
    let subjects = source.map_or_else(
        || nats.names.all_scheduled(),
        |source| nats.names.scheduled_of(source),
    );
    let (mut next, mut count) = (BinaryHeap::new(), 0);
    schedule::each(nats, &subjects, |message, sequence| {
        let headers = message.headers.as_ref();
        if let Some(at) =
            schedule::due_at(headers).filter(|_| schedule::Withdrawal::of(headers).is_none())
        {
            count += 1;
            next.push((at, sequence, message.payload.clone()));
            if next.len() > limit {
                next.pop();
            }
        }
    })
    .await?;
    let mut listing = Listing::new(json, &["deliver at", "source", "id", "user", "text"]);
    let shown = next.len();
    for (at, _, set) in next.into_sorted_vec() {
        let Ok(Set {
            reminders: (reminder,),
        }) = serde_json::from_slice(&set)
        else {
            continue;
        };
        let Ok(Text {
            source,
            id,
            user,
            title,
            content,
        }) = serde_json::from_str(reminder.get())
        else {
            continue;
        };
        let text = one_line(title, content);
        let item = json!({ "deliver_at": at, "source": source, "id": id, "user": user, "reminder": reminder });
        listing.add(&item, || {
            [
                time(at),
                source.clone(),
                short(&id, 40),
                user.clone(),
                short(&text, 60),
            ]
        })?;
    }
    let summary = match shown == count {
        true => plural(count, "scheduled reminder"),
        false => format!(
            "the next {} of {}; --limit N shows more",
            thousands(shown),
            thousands(count)
        ),
    };
    listing.finish("nothing is scheduled", Some(summary))
}

async fn cancel(
    nats: &Nats,
    source: &Source,
    id: &str,
    user: Option<&UserId>,
    json: bool,
) -> Result<(), CliError> {
    let is_scheduled = async || -> Result<bool, CliError> {
        let found = schedule::under(nats, source, id).await?;
        Ok(found.iter().any(|(of, headers)| {
            user.is_none_or(|user| user == of) && schedule::Withdrawal::of(Some(headers)).is_none()
        }))
    };
    let whose = user.map_or_else(String::new, |user| format!(" for {user}"));
    if !is_scheduled().await? {
        let id = plain(id);
        return Err(CliError::Failed(format!(
            "reminder {id} of {source}{whose} is not scheduled: it may be due already; \
             `bellhop why {source} {id}` shows what became of it"
        )));
    }
    let entry = user.map_or_else(|| json!(id), |user| json!({ "id": id, "user": user }));
    let set = json!({ "cancel": [entry] }).to_string();
    nats.store(nats.names.sets(source), HeaderMap::new(), set.into())
        .await?;
    let deadline = Timestamp::now() + CANCELLED_WITHIN;
    while is_scheduled().await? {
        if Timestamp::now() > deadline {
            return Err(CliError::Failed(
                "the cancellation is published, but no member has processed it yet: is a `bellhop serve` running?"
                    .to_owned(),
            ));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut item = json!({ "source": source, "id": id, "cancelled": true });
    if let Some(user) = user {
        item["user"] = json!(user);
    }
    Output::tell(
        json,
        &item,
        format!("reminder {} of {source}{whose} is cancelled", plain(id)),
    )
}
