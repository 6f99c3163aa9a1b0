//! `bellhop routes`: which app-server instance holds which user's connection.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::output::{Listing, Output, confirm, plural, time};
use super::scan::{Stored, scan_bucket};
use super::{CliError, SettingsArgs};
use crate::nats::{During, Names, Nats, bucket, keys};
use crate::token::{InstanceName, UserId};
use crate::wire::route::{RouteError, key, read_key, value};
use crate::wire::subject::read_value;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List routes
    #[command(after_help = "Examples:
  bellhop routes ls --user alice          where alice is connected
  bellhop routes ls --instance app-1      who is connected to app-1
  bellhop routes ls --json | jq -r '.[].user'")]
    Ls {
        /// Only routes of this user
        #[arg(long)]
        user: Option<UserId>,
        /// Only routes at this app-server instance
        #[arg(long)]
        instance: Option<InstanceName>,
        /// Print JSON: one list, written as it is read
        #[arg(long)]
        json: bool,
    },
    /// Put a route, as an app server does when a user connects
    #[command(after_help = "Example:
  bellhop routes put alice app-1

The instance must answer at SUBJECT.deliver and SUBJECT.heartbeat. If it does not confirm there that the user is \
connected, the route is deleted. `bellhop connect-as` runs such an instance.")]
    Put {
        /// The user
        user: UserId,
        /// The app-server instance that holds it
        instance: InstanceName,
        /// Prefix of the instance's subjects [default: bellhop.app.INSTANCE]
        #[arg(long)]
        subject: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a route, as an app server does when a user disconnects
    #[command(after_help = "Example:
  bellhop routes rm alice app-1 -f")]
    Rm {
        /// The user
        user: UserId,
        /// The app-server instance that held it
        instance: InstanceName,
        /// Skip the confirmation prompt
        #[arg(short, long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A route as it stands in the bucket.
pub(super) struct Route {
    pub(super) user: UserId,
    pub(super) instance: InstanceName,
    pub(super) subject: String,
    since: Option<String>,
}

impl Route {
    pub(super) fn read(names: &Names, key: &str, value: &[u8]) -> Result<Self, RouteError> {
        #[derive(Default, Deserialize)]
        struct Value {
            since: Option<String>,
        }
        let (user, instance) = read_key(key)?;
        let subject = read_value(names, &instance, value)?;
        let Value { since } = serde_json::from_slice(value).unwrap_or_default();
        Ok(Self {
            user,
            instance,
            subject,
            since,
        })
    }
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    match command {
        Command::Ls {
            user,
            instance,
            json,
        } => ls(&nats, user, instance, json).await,
        Command::Put {
            user,
            instance,
            subject,
            json,
        } => put(&nats, &user, &instance, subject, json).await,
        Command::Rm {
            user,
            instance,
            force,
            json,
        } => rm(&nats, &user, &instance, force, json).await,
    }
}

async fn ls(
    nats: &Nats,
    user: Option<UserId>,
    instance: Option<InstanceName>,
    json: bool,
) -> Result<(), CliError> {
    let any = || "*".to_owned();
    let keys = format!(
        "{}.{}",
        user.map_or_else(any, |user| user.escaped()),
        instance.map_or_else(any, |instance| instance.escaped())
    );
    // Keys of another shape are reported only without a filter.
    let keys = if keys == "*.*" { ">" } else { &keys };
    let mut listing = Listing::new(json, &["user", "instance", "subject", "since"]);
    let (mut good, mut bad) = (0, 0);
    scan_bucket(nats, &nats.names.routes_bucket(), keys, |key, Stored { sequence, at, message }| {
        match Route::read(&nats.names, key, &message.payload) {
            Ok(Route { user, instance, subject, since }) => {
                good += 1;
                let item = json!({ "user": user, "instance": instance, "subject": subject, "since": since, "created": at,
                    "revision": sequence });
                let since = || since.clone().unwrap_or_else(|| time(at));
                listing.add(&item, || [user.to_string(), instance.to_string(), subject.clone(), since()])
            }
            Err(error) => {
                bad += 1;
                let item = json!({ "key": key, "error": error.to_string(), "created": at, "revision": sequence });
                listing.add(&item, || [key.to_owned(), "?".to_owned(), format!("no route: {error}"), time(at)])
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
        "there are no such routes",
        Some(format!("{}{ignored}", plural(good, "route"))),
    )
}

async fn put(
    nats: &Nats,
    user: &UserId,
    instance: &InstanceName,
    subject: Option<String>,
    json: bool,
) -> Result<(), CliError> {
    let value = value(
        &subject.unwrap_or_else(|| nats.names.instance(instance)),
        Timestamp::now(),
    );
    let subject = read_value(&nats.names, instance, value.as_bytes()).map_err(|error| {
        CliError::Usage(format!(
            "--subject: {error}; write one such as eu.app.7, without wildcards"
        ))
    })?;
    let routes = bucket::open(nats, nats.names.routes_bucket()).await?;
    let put = routes.put(key(user, instance), value.into()).await;
    let revision = put.during_with(|| format!("put the route of {user} at {instance}"))?;
    Output::tell(
        json,
        &json!({ "user": user, "instance": instance, "subject": subject, "revision": revision }),
        format!("{user} is routed to {instance} at {subject}"),
    )
}

async fn rm(
    nats: &Nats,
    user: &UserId,
    instance: &InstanceName,
    force: bool,
    json: bool,
) -> Result<(), CliError> {
    let routes = bucket::open(nats, nats.names.routes_bucket()).await?;
    let found = routes
        .get(key(user, instance))
        .await
        .during_with(|| format!("look up the route of {user} at {instance}"))?;
    if found.is_none() {
        let problem = format!(
            "{user} has no route at {instance}; `bellhop routes ls --user {user}` shows where there are"
        );
        return Err(CliError::Failed(problem));
    }
    confirm(
        &format!(
            "Delete the route of {user} at {instance}? It is not restored until {user} connects again."
        ),
        force,
    )?;
    keys::delete(
        nats,
        &nats.names.routes_bucket(),
        &key(user, instance),
        None,
    )
    .await?;
    Output::tell(
        json,
        &json!({ "user": user, "instance": instance, "deleted": true }),
        format!("{user} is no longer routed to {instance}"),
    )
}
