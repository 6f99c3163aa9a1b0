//! `bellhop mailbox`: the reminders of users who are away.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::lookalikes::{Lookalike, Users};
use super::output::{
    Listing, Output, Progress, Table, age, complain, confirm, one_line, plain, plural, short,
    thousands, time,
};
use super::{CliError, SettingsArgs};
use crate::event::Event;
use crate::nats::mailbox::{ParkedMessage, first, purge, remove};
use crate::nats::{During, Nats, NatsError, chain};
use crate::reminder::finished::with_parked_at;
use crate::token::{Source, UserId};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List users with parked reminders, the largest mailbox first
    #[command(after_help = "Example:
  bellhop mailbox ls --limit 10")]
    Ls {
        /// Maximum number of users to show
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a user's parked reminders, the oldest first
    #[command(after_help = "Examples:
  bellhop mailbox info alice
  bellhop mailbox info alice --limit 1000 --json | jq -r '.reminders[].reminder.content'")]
    Info {
        /// The user
        user: UserId,
        /// Maximum number of reminders to show
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print JSON: reminders as they will be delivered
        #[arg(long)]
        json: bool,
    },
    /// Delete all of a user's parked reminders
    #[command(
        after_help = "Purged reminders are gone, and get no final outcome: the last one that their publishers read of them \
stays `parked`. A running `bellhop serve` counts the mailbox before it next refuses a reminder for lack of room.

Example:
  bellhop mailbox purge alice -f"
    )]
    Purge {
        /// The user
        user: UserId,
        /// Skip the confirmation prompt
        #[arg(short, long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete one parked reminder of a user
    #[command(
        after_help = "For a reminder that an app server cannot read, as `bellhop doctor` and the members' logs name it. It gets no final \
outcome: the last one that its publisher reads stays `parked`. The reminders behind it are delivered at the next attempt, within \
heartbeat.backoff_max (30 s).

Example:
  bellhop mailbox rm alice billing inv-981 -f"
    )]
    Rm {
        /// The user
        user: UserId,
        /// The business system that published it
        source: Source,
        /// The reminder's id
        id: String,
        /// Skip the confirmation prompt
        #[arg(short, long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    match command {
        Command::Ls { limit, json } => ls(&nats, limit as usize, json).await,
        Command::Info { user, limit, json } => info(&nats, &user, limit as usize, json).await,
        Command::Purge { user, force, json } => empty(&nats, &user, force, json).await,
        Command::Rm {
            user,
            source,
            id,
            force,
            json,
        } => rm(&nats, &user, (&source, &id), force, json).await,
    }
}

/// A user's mailbox. The number of partitions is the installation's, so the subject is looked up
/// and not computed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mailbox {
    pub(super) count: usize,
    /// Of two that are equally full, the alphabet decides.
    pub(super) user: Reverse<UserId>,
    partition: u16,
    subject: String,
}

async fn ls(nats: &Nats, limit: usize, json: bool) -> Result<(), CliError> {
    // The smallest of the largest is on top. Millions may have a mailbox; `limit` of them are kept.
    let mut largest: BinaryHeap<Reverse<Mailbox>> = BinaryHeap::new();
    let (mut users, mut reminders, mut progress) = (0, 0, Progress::new());
    for_each_mailbox(nats, &nats.names.all_mailboxes(), |mailbox| {
        users += 1;
        reminders += mailbox.count;
        progress.tell(|| format!("{} seen", plural(users, "user")));
        largest.push(Reverse(mailbox));
        if largest.len() > limit {
            largest.pop();
        }
    })
    .await?;
    drop(progress);
    let mut listing = Listing::new(json, &["user", "partition", "parked"]);
    let shown = largest.len();
    for Reverse(Mailbox {
        count,
        user: Reverse(user),
        partition,
        ..
    }) in largest.into_sorted_vec()
    {
        let item = json!({ "user": user, "partition": partition, "parked": count });
        listing.add(&item, || {
            [user.to_string(), partition.to_string(), thousands(count)]
        })?;
    }
    let (reminders, of) = (plural(reminders, "reminder"), plural(users, "user"));
    let summary = match shown == users {
        true => format!("{reminders} of {of}"),
        false => format!(
            "the {} largest of {of}, who have {reminders}; --limit N shows more",
            thousands(shown)
        ),
    };
    listing.finish("no user has parked reminders", Some(summary))
}

/// The JSON of `mailbox info`, in the words of the contract's `bellhop.api.mailbox`.
#[derive(Serialize)]
struct Info<'a> {
    user: &'a UserId,
    partition: Option<u16>,
    parked: usize,
    oldest: Option<Timestamp>,
    reminders: Vec<Shown>,
    /// Users whose names look like this one, if this user has no route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lookalikes: Vec<Lookalike<'a>>,
}

#[derive(Serialize)]
struct Shown {
    sequence: u64,
    parked_at: Timestamp,
    /// As it will be delivered.
    reminder: Box<RawValue>,
}

async fn info(nats: &Nats, user: &UserId, limit: usize, json: bool) -> Result<(), CliError> {
    let mailbox = find(nats, user).await?;
    let messages = match &mailbox {
        Some(mailbox) => first(nats, &mailbox.subject, limit).await?,
        None => Vec::new(),
    };
    let users = lookalikes(nats).await;
    let info = Info {
        user,
        partition: mailbox.as_ref().map(|mailbox| mailbox.partition),
        parked: mailbox.map_or(0, |mailbox| mailbox.count),
        oldest: messages.first().map(|message| message.parked_at),
        reminders: messages.iter().filter_map(shown).collect(),
        lookalikes: users.like(user),
    };
    let mut output = Output::new();
    if json {
        output.json(&info)?;
    } else {
        print(&mut output, &info)?;
        for other in &info.lookalikes {
            output.line(other.hint(user))?;
        }
    }
    output.flush()
}

/// Reads the users whose names can be compared. The hint is no reason to fail.
async fn lookalikes(nats: &Nats) -> Users {
    match Users::read(nats).await {
        Ok(users) => users.unwrap_or_default(),
        Err(error) => {
            tracing::debug!(error = %chain(&error), "the names of users cannot be compared");
            Users::default()
        }
    }
}

fn print(output: &mut Output, info: &Info<'_>) -> Result<(), CliError> {
    let (user, now) = (info.user, Timestamp::now());
    let (Some(partition), Some(oldest)) = (info.partition, info.oldest) else {
        return output.line(format!("nothing is parked for {user}"));
    };
    let parked = plural(info.parked, "reminder");
    let oldest = format!("the oldest since {} ({})", time(oldest), age(now, oldest));
    output.line(format!(
        "{parked} for {user} in partition {partition}, {oldest}"
    ))?;
    let mut table = Table::new(&["seq", "parked at", "source", "id", "text"]);
    for Shown {
        sequence,
        parked_at,
        reminder,
    } in &info.reminders
    {
        let Text {
            source,
            id,
            title,
            content,
        } = serde_json::from_str(reminder.get()).unwrap_or_default();
        let text = one_line(title, content);
        table.row(&[
            sequence.to_string(),
            time(*parked_at),
            source,
            short(&id, 40),
            short(&text, 80),
        ]);
    }
    table
        .lines()
        .iter()
        .try_for_each(|line| output.line(line))?;
    match info.parked.saturating_sub(info.reminders.len()) {
        0 => Ok(()),
        more => output.line(format!(
            "{} more; --limit N shows more of them",
            thousands(more)
        )),
    }
}

#[derive(Default, Deserialize)]
struct Text {
    source: String,
    id: String,
    title: Option<String>,
    content: String,
}

fn shown(message: &ParkedMessage) -> Option<Shown> {
    let reminder = Event::decode(&message.message)
        .ok()
        .filter(|event| event.bodies.len() == 1);
    let json = reminder.map(|event| with_parked_at(&event.bodies[0], message.parked_at));
    let Some(reminder) = json.and_then(|json| serde_json::from_slice(&json).ok()) else {
        complain(format_args!(
            "message {} of the mailbox is not a parked reminder, passed over",
            message.sequence
        ));
        return None;
    };
    Some(Shown {
        sequence: message.sequence,
        parked_at: message.parked_at,
        reminder,
    })
}

async fn empty(nats: &Nats, user: &UserId, force: bool, json: bool) -> Result<(), CliError> {
    let Some(mailbox) = find(nats, user).await? else {
        return Err(CliError::Failed(format!(
            "nothing is parked for {user}, so there is nothing to purge"
        )));
    };
    let reminders = plural(mailbox.count, "parked reminder");
    confirm(
        &format!(
            "Delete {reminders} of {}? They get no final outcome: their last one stays `parked`.",
            user
        ),
        force,
    )?;
    let purged = purge(nats, &nats.names.parked_stream(), &mailbox.subject, None).await?;
    let item = json!({ "user": user, "partition": mailbox.partition, "purged": purged });
    let purged = plural(
        usize::try_from(purged).unwrap_or(usize::MAX),
        "parked reminder",
    );
    let line = format!(
        "purged {purged} of {user}; they get no final outcome, their last one stays `parked`"
    );
    Output::tell(json, &item, line)
}

async fn rm(
    nats: &Nats,
    user: &UserId,
    (source, id): (&Source, &str),
    force: bool,
    json: bool,
) -> Result<(), CliError> {
    let is_it = |message: &ParkedMessage| {
        let event = Event::decode(&message.message)
            .ok()
            .filter(|event| event.bodies.len() == 1);
        event.is_some_and(|event| {
            event.set_of(0).source == *source && event.index.reminders[0].id == id
        })
    };
    // A copy of a rerouted reminder has the id of the original.
    let found: Vec<u64> = all(nats, user)
        .await?
        .iter()
        .filter(|one| is_it(one))
        .map(|one| one.sequence)
        .collect();
    let shown = plain(id);
    if found.is_empty() {
        return Err(CliError::Failed(format!(
            "no reminder {shown} of {source} is parked for {user}; `bellhop mailbox info {user}` shows the parked ones"
        )));
    }
    confirm(
        &format!("Delete reminder {shown} of {source} for {user}? It gets no final outcome."),
        force,
    )?;
    for sequence in &found {
        remove(nats, &nats.names.parked_stream(), *sequence).await?;
    }
    let item = json!({ "user": user, "source": source, "id": id, "removed": found.len() });
    let line = format!(
        "removed {shown} of {source} for {user}; it gets no final outcome, its last one stays `parked`"
    );
    Output::tell(json, &item, line)
}

async fn find(nats: &Nats, user: &UserId) -> Result<Option<Mailbox>, CliError> {
    let in_any_partition = format!(
        "{}{}",
        nats.names.all_mailboxes().trim_end_matches('*'),
        user.escaped()
    );
    let mut found = None;
    for_each_mailbox(nats, &in_any_partition, |mailbox| found = Some(mailbox)).await?;
    Ok(found)
}

/// Calls `each` with every mailbox of these subjects.
pub(super) async fn for_each_mailbox(
    nats: &Nats,
    subjects: &str,
    mut each: impl FnMut(Mailbox),
) -> Result<(), NatsError> {
    let stream = nats.names.parked_stream();
    let action = || format!("list the subjects of {stream}");
    let handle = nats
        .jetstream
        .get_stream_no_info(&stream)
        .await
        .during_with(action)?;
    let mut subjects = handle
        .info_builder()
        .subjects(subjects)
        .fetch()
        .await
        .during_with(action)?;
    while let Some(entry) = subjects.next().await {
        let (subject, count) = entry.during_with(action)?;
        let mut tokens = subject.rsplit('.');
        let user = tokens
            .next()
            .and_then(|token| UserId::from_token(token).ok());
        let partition = tokens.next().and_then(|token| token.parse().ok());
        match (user, partition) {
            (Some(user), Some(partition)) => each(Mailbox {
                count,
                user: Reverse(user),
                partition,
                subject,
            }),
            _ => tracing::warn!(subject, "not a user's mailbox, skipped"),
        }
    }
    Ok(())
}

/// Everything in a user's mailbox.
pub(super) async fn all(nats: &Nats, user: &UserId) -> Result<Vec<ParkedMessage>, CliError> {
    match find(nats, user).await? {
        Some(mailbox) => Ok(first(nats, &mailbox.subject, usize::MAX).await?),
        None => Ok(Vec::new()),
    }
}
