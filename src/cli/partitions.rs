//! `bellhop partitions`: how far each partition has come in the log of published sets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;
use serde_json::json;

use super::output::{Listing, age, plural, thousands};
use super::{CliError, SettingsArgs};
use crate::nats::behind::{self, Oldest, furthest};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the partitions with their owners and progress
    #[command(
        after_help = "Published sets are in a log. Each partition has a position in it: all sets up to there are settled \
for its users. The partition that is furthest behind holds the front of the log back. The row `sets` is what belongs to no \
user: refused input, schedules and cancellations.

Positions are stored once a second, so a busy partition is always a little behind.

Examples:
  bellhop partitions ls
  bellhop partitions ls --json | jq 'max_by(.behind)'"
    )]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let Command::Ls { json } = command;
    let (_, nats) = settings.connect().await?;
    let found = behind::all(&nats).await?;
    let now = Timestamp::now();
    let columns = [
        "partition",
        "owner",
        "position",
        "behind",
        "oldest set",
        "stored",
    ];
    // Most positions are the same.
    let mut oldest: BTreeMap<u64, Option<Oldest>> = BTreeMap::new();
    for one in &found {
        if let Entry::Vacant(vacant) = oldest.entry(one.sequence) {
            vacant.insert(behind::oldest(&nats, one).await?);
        }
    }
    let mut listing = Listing::new(json, &columns);
    for one in &found {
        let oldest = oldest[&one.sequence];
        let (owner, stored_at) = one.stored.clone().unzip();
        let owner = owner.flatten();
        let item = json!({
            "partition": one.subscriber.to_string(), "owner": owner, "position": one.sequence, "behind": one.sets,
            "oldest_set": oldest.map(|oldest| oldest.sequence),
            "oldest_set_at": oldest.map(|oldest| oldest.stored_at), "stored_at": stored_at,
        });
        let since = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| age(now, at));
        listing.add(&item, || {
            [
                one.subscriber.to_string(),
                owner.clone().unwrap_or_else(|| "-".to_owned()),
                one.sequence.to_string(),
                thousands(usize::try_from(one.sets).unwrap_or(usize::MAX)),
                since(oldest.map(|oldest| oldest.stored_at)),
                since(stored_at),
            ]
        })?;
    }
    let summary = furthest(&found).and_then(|one| {
        let Oldest {
            sequence,
            stored_at,
        } = oldest[&one.sequence]?;
        let sets = plural(usize::try_from(one.sets).unwrap_or(usize::MAX), "set");
        Some(format!(
            "{} is furthest behind, by {sets}: set {sequence} has waited for {}",
            one.subscriber,
            age(now, stored_at)
        ))
    });
    listing.finish("there are no partitions", summary)
}
