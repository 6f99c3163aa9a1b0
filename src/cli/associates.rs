//! `bellhop associates`: who may get a user's reminders while the user is away.

use std::error::Error;

use serde_json::json;

use super::output::{Listing, Output, confirm, plural, time};
use super::scan::{Stored, scan_bucket};
use super::{CliError, SettingsArgs};
use crate::nats::{During, Nats, bucket, keys};
use crate::router::MAX_ASSOCIATES;
use crate::token::UserId;
use crate::wire::associates::Associates;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List users and their associates
    #[command(after_help = "Examples:
  bellhop associates ls --user alice
  bellhop associates ls --json | jq -r '.[] | select(.associates | index(\"bob\")) | .user'    # users whose associate is bob")]
    Ls {
        /// Only this user's
        #[arg(long)]
        user: Option<UserId>,
        /// Print JSON: one list, written as it is read
        #[arg(long)]
        json: bool,
    },
    /// Set a user's associates in order of preference, replacing the existing list
    #[command(after_help = "Example:
  bellhop associates put alice bob carol

They get new reminders for alice while she is not connected and they are. Her mailbox stays hers.")]
    Put {
        /// The user
        user: UserId,
        /// The associates
        #[arg(required = true, value_name = "ASSOCIATE")]
        associates: Vec<UserId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a user's associates
    #[command(after_help = "Example:
  bellhop associates rm alice -f")]
    Rm {
        /// The user
        user: UserId,
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
        Command::Ls { user, json } => ls(&nats, user, json).await,
        Command::Put {
            user,
            associates,
            json,
        } => put(&nats, &user, associates, json).await,
        Command::Rm { user, force, json } => rm(&nats, &user, force, json).await,
    }
}

fn read(key: &str, value: &[u8]) -> Result<(UserId, Associates), Box<dyn Error>> {
    Ok((UserId::from_token(key)?, Associates::read(value)?))
}

fn listed(associates: &[UserId]) -> String {
    associates
        .iter()
        .map(UserId::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

async fn ls(nats: &Nats, user: Option<UserId>, json: bool) -> Result<(), CliError> {
    let keys = user.map_or_else(|| ">".to_owned(), |user| user.escaped());
    let mut listing = Listing::new(json, &["user", "associates", "since"]);
    let (mut good, mut bad) = (0, 0);
    scan_bucket(nats, &nats.names.associates_bucket(), &keys, |key, Stored { sequence, at, message }| {
        match read(key, &message.payload) {
            Ok((user, Associates { associates })) => {
                good += 1;
                let item = json!({ "user": user, "associates": associates, "created": at, "revision": sequence });
                listing.add(&item, || [user.to_string(), listed(&associates), time(at)])
            }
            Err(error) => {
                bad += 1;
                let item = json!({ "key": key, "error": error.to_string(), "created": at, "revision": sequence });
                listing.add(&item, || [key.to_owned(), format!("ignored: {error}"), time(at)])
            }
        }
    })
    .await?;
    let ignored = if bad == 0 {
        String::new()
    } else {
        format!(", and {} that Bellhop ignores", plural(bad, "key"))
    };
    listing.finish(
        "no user has associates",
        Some(format!("{}{ignored}", plural(good, "user"))),
    )
}

async fn put(
    nats: &Nats,
    user: &UserId,
    associates: Vec<UserId>,
    json: bool,
) -> Result<(), CliError> {
    if associates.contains(user) {
        return Err(CliError::Usage(format!(
            "a user cannot be their own associate: {user}; name others"
        )));
    }
    if associates.len() > MAX_ASSOCIATES {
        let count = associates.len();
        return Err(CliError::Usage(format!(
            "these are {count} associates; at most {MAX_ASSOCIATES} are tried"
        )));
    }
    let value = serde_json::to_vec(&Associates {
        associates: associates.clone(),
    })
    .expect("names are text");
    let bucket = bucket::open(nats, nats.names.associates_bucket()).await?;
    let put = bucket.put(user.escaped(), value.into()).await;
    let revision = put.during_with(|| format!("put the associates of {user}"))?;
    Output::tell(
        json,
        &json!({ "user": user, "associates": associates, "revision": revision }),
        format!(
            "while {user} is away, new reminders go to {}",
            listed(&associates)
        ),
    )
}

async fn rm(nats: &Nats, user: &UserId, force: bool, json: bool) -> Result<(), CliError> {
    let bucket = bucket::open(nats, nats.names.associates_bucket()).await?;
    let found = bucket
        .get(user.escaped())
        .await
        .during_with(|| format!("look up the associates of {user}"))?;
    if found.is_none() {
        return Err(CliError::Failed(format!(
            "{user} has no associates; `bellhop associates ls` shows who has"
        )));
    }
    confirm(
        &format!("Delete the associates of {user}? What arrives while {user} is away waits then."),
        force,
    )?;
    keys::delete(nats, &nats.names.associates_bucket(), &user.escaped(), None).await?;
    Output::tell(
        json,
        &json!({ "user": user, "deleted": true }),
        format!("{user} has no associates"),
    )
}
