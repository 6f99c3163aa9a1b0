//! `bellhop instances`: the app-server instances that routes name, and whether they answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use super::output::Listing;
use super::routes::Route;
use super::scan::scan_bucket;
use super::{CliError, SettingsArgs};
use crate::nats::instance::heartbeat_of_all;
use crate::router::{Instance, NoAnswer};
use crate::token::InstanceName;

/// Heartbeats under way at a time.
const HEARTBEATS_IN_FLIGHT: usize = 64;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List app-server instances, and ask each of them for a heartbeat now
    #[command(
        after_help = "Instances are found by their routes. Each is sent a heartbeat with an empty list of users, which changes \
no route:
  answers        it answered as the protocol requires
  N answers      N app servers run under this name: give each a name of its own
  no responders  no program subscribes to SUBJECT.heartbeat: it is not running
  silent         no answer within heartbeat.timeout
  garbage        an answer other than {\"connected\": [...]}

Example:
  bellhop instances ls --json | jq -r '.[] | select(.heartbeat != \"answers\").instance'"
    )]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let Command::Ls { json } = command;
    let (config, nats) = settings.connect().await?;
    let mut users: BTreeMap<(InstanceName, String), usize> = BTreeMap::new();
    scan_bucket(&nats, &nats.names.routes_bucket(), "*.*", |key, stored| {
        if let Ok(route) = Route::read(&nats.names, key, &stored.message.payload) {
            *users.entry((route.instance, route.subject)).or_default() += 1;
        }
        Ok(())
    })
    .await?;
    let ask = |((name, subject), users): ((InstanceName, String), usize)| {
        let (client, instance, timeout) = (
            nats.client.clone(),
            Instance { name, subject },
            config.heartbeat.timeout,
        );
        async move {
            let began = Instant::now();
            let answer = match heartbeat_of_all(&client, &instance, &[], timeout).await {
                Ok((_, others)) => {
                    let latency = began.elapsed();
                    Ok((1 + others.count().await, latency))
                }
                Err(why) => Err(why),
            };
            (instance, users, answer)
        }
    };
    // `buffered` keeps the order of names.
    let mut asked = stream::iter(users.into_iter().map(ask)).buffered(HEARTBEATS_IN_FLIGHT);
    let mut listing = Listing::new(
        json,
        &["instance", "users", "heartbeat", "latency", "subject"],
    );
    while let Some((Instance { name, subject }, users, answer)) = asked.next().await {
        let latency_ms = answer
            .as_ref()
            .ok()
            .map(|(_, latency)| milliseconds(*latency));
        let answers = answer.as_ref().map_or(0, |(count, _)| *count);
        let item = json!({ "instance": name, "users": users, "heartbeat": word(answer).replace(' ', "_"), "answers": answers,
            "latency_ms": latency_ms, "subject": subject });
        let latency = || latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        listing.add(&item, || {
            [
                name.to_string(),
                users.to_string(),
                match answers {
                    0 | 1 => word(answer).to_owned(),
                    _ => format!("{answers} answers"),
                },
                latency(),
                subject.clone(),
            ]
        })?;
    }
    listing.finish("no route names an instance", None)
}

fn word(answer: Result<(usize, Duration), NoAnswer>) -> &'static str {
    match answer {
        Ok(_) => "answers",
        Err(NoAnswer::NoResponders) => "no responders",
        Err(NoAnswer::TimedOut) => "silent",
        Err(NoAnswer::Garbage) => "garbage",
    }
}

/// In tenths of a millisecond: finer is noise.
fn milliseconds(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 10_000.0).round() / 10.0
}
