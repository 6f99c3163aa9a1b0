//! `bellhop members`: the running `bellhop serve` processes.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::output::{Listing, age, complain};
use super::scan::scan_bucket;
use super::{CliError, SettingsArgs};
use crate::wire::member::MemberRecord;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the running `bellhop serve` processes and what they hold
    #[command(after_help = "States:
  serving   heard from within members.ttl
  stopping  handing over its work
  silent    no heartbeat for members.ttl: other members take over

Each partition, the intake and the escalation (in the JSON) is held by one member at a time, and is briefly unassigned during a handover.

Example:
  bellhop members ls --json | jq '[.[].partitions[]] | length'")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let Command::Ls { json } = command;
    let (config, nats) = settings.connect().await?;
    let ttl = SignedDuration::try_from(config.members.ttl).unwrap_or(SignedDuration::MAX);
    let mut members = Vec::new();
    scan_bucket(&nats, &nats.names.members_bucket(), "*", |name, stored| {
        match serde_json::from_slice::<MemberRecord>(&stored.message.payload) {
            Ok(card) => members.push((name.to_owned(), card, stored.at)),
            Err(error) => complain(format_args!(
                "key {name} of the bucket of members is not a member's: {error}"
            )),
        }
        Ok(())
    })
    .await?;
    members.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let now = Timestamp::now();
    let mut listing = Listing::new(
        json,
        &[
            "member",
            "version",
            "state",
            "roles",
            "held",
            "partitions",
            "last word",
        ],
    );
    for (name, card, at) in members {
        let state = match card.stopping {
            _ if now.duration_since(at) > ttl => "silent",
            true => "stopping",
            false => "serving",
        };
        let item = json!({ "member": name, "version": card.version, "state": state, "intake": card.intake,
            "escalation": card.escalation, "history": card.history, "partitions": card.partitions, "stopping": card.stopping, "last_word": at });
        let roles = [
            ("intake", card.intake),
            ("escalation", card.escalation),
            ("history", card.history),
        ];
        let roles: Vec<_> = roles
            .into_iter()
            .filter(|(_, is_held)| *is_held)
            .map(|(role, _)| role)
            .collect();
        let roles = if roles.is_empty() {
            "-".to_owned()
        } else {
            roles.join(" ")
        };
        listing.add(&item, || {
            let held = card.partitions.len().to_string();
            [
                name,
                card.version,
                state.to_owned(),
                roles,
                held,
                ranges(&card.partitions),
                age(now, at) + " ago",
            ]
        })?;
    }
    listing.finish("no `bellhop serve` is running", None)
}

/// `0-3,7`.
pub(super) fn ranges(numbers: &BTreeSet<u16>) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    if runs.is_empty() {
        return "-".to_owned();
    }
    let run = |(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8].into()), "0-2,5,7-8");
        assert_eq!(ranges(&[9].into()), "9");
        assert_eq!(ranges(&[].into()), "-");
        assert_eq!(ranges(&(0..=u16::MAX).collect()), "0-65535");
    }
}
