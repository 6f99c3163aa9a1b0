//! Streams and buckets: are they configured as expected, are their copies in step, is there room?

use async_nats::jetstream::stream::{DiscardPolicy, Info, StorageType};

use super::account::judged;
use super::finding::or_ok;
use super::{Case, Finding, Status};
use crate::cli::output::{bytes, plural, thousands};
use crate::config::Config;
use crate::nats::topology::{self, Change};
use crate::nats::{Nats, NatsError, chain, storage};

/// Compares everything with what the configuration wants, as `bellhop setup --dry-run` does.
pub(super) async fn setup(nats: &Nats, config: &Config) -> Vec<Finding> {
    match topology::plan(nats, config).await {
        Ok(plan) => {
            let findings = plan.changes().map(differs).collect();
            or_ok(findings, || {
                "streams, buckets and consumers are as the configuration wants them".to_owned()
            })
        }
        Err(error) => vec![unplanned(&error)],
    }
}

fn differs(change: &Change) -> Finding {
    if change.is_new {
        return Finding::critical(
            format!("there is no {}", change.what),
            change.what.clone(),
            "bellhop setup",
        );
    }
    let each = |show: fn(&(String, serde_json::Value, serde_json::Value)) -> String| {
        change
            .fields
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found = format!(
        "{} has {}",
        change.what,
        each(|(field, there, _)| format!("{field} {there}"))
    );
    Finding::warning(
        found,
        each(|(field, _, expected)| format!("{field} {expected}")),
        "bellhop setup",
    )
}

fn unplanned(error: &NatsError) -> Finding {
    let fix = "use the installation's own configuration (`--config FILE`, `bellhop check`), and a user who may ask JetStream";
    Finding::critical(
        chain(error).to_string(),
        "streams as the configuration says",
        fix,
    )
}

/// Streams in memory are gone with their server, whatever was acknowledged.
pub(super) fn storage(case: &Case<'_>) -> Vec<Finding> {
    let in_memory = case
        .now
        .streams
        .values()
        .filter(|info| info.config.storage == StorageType::Memory);
    let findings = in_memory.map(|info| {
        let name = &info.config.name;
        let fix = format!("it cannot be changed: stop the members, back up (`nats stream backup {name} DIR`), delete it, then `bellhop setup`");
        Finding::critical(format!("{name} is kept in memory, and lost with its server"), "storage: file", fix)
    });
    or_ok(findings.collect(), || {
        format!("{} on disk", plural(case.now.streams.len(), "stream"))
    })
}

/// Checks that copies are in step, and that a cluster has some.
pub(super) fn replicas(case: &Case<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = case
        .now
        .silent
        .iter()
        .map(|(name, problem)| {
            Finding::critical(
                format!("{name} does not answer: {problem}"),
                "a leader",
                "start the servers that are down: `nats server report jetstream`",
            )
        })
        .collect();
    findings.extend(case.now.streams.values().flat_map(copies));
    let is_cluster = case.now.server.cluster.is_some();
    if is_cluster && case.config.streams.replicas == 1 {
        findings.push(Finding::warning(
            "one copy of everything, on a cluster",
            "streams.replicas = 3: with 1, each stream is lost with the server that has it",
            "set streams.replicas to 3 in the configuration of all members, then `bellhop setup`",
        ));
    }
    or_ok(findings, || match case.config.streams.replicas {
        1 => "one copy, on one server".to_owned(),
        copies => format!("{copies} copies of each stream, all in step"),
    })
}

/// Returns the problems of a stream's copies.
fn copies(info: &Info) -> Vec<Finding> {
    let (name, Some(cluster)) = (&info.config.name, &info.cluster) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let report = "start the server, or find out why it lags: `nats server report jetstream`";
    if cluster.leader.is_none() {
        findings.push(Finding::critical(
            format!("{name} has no leader"),
            "a leader",
            report,
        ));
    }
    for peer in &cluster.replicas {
        if peer.offline {
            findings.push(Finding::warning(
                format!("the copy of {name} at {} is offline", peer.name),
                "all copies in step",
                report,
            ));
        } else if !peer.current {
            let lag = thousands(peer.lag.unwrap_or(0) as usize);
            findings.push(Finding::warning(
                format!("the copy of {name} at {} is {lag} steps behind", peer.name),
                "all copies in step",
                report,
            ));
        }
    }
    findings
}

/// Reports a stream that could drop acknowledged messages, or that is about to refuse more.
pub(super) fn room(case: &Case<'_>) -> Vec<Finding> {
    // Their messages were acknowledged.
    let promised = [
        case.names.log_stream(),
        case.names.scheduled_stream(),
        case.names.parked_stream(),
    ];
    let mut findings = Vec::new();
    for Info { config, state, .. } in case.now.streams.values() {
        let name = &config.name;
        // nats-server would have a stream with schedules drop its oldest at a limit.
        if config.max_bytes <= 0 && *name != case.names.scheduled_stream() {
            findings.push(Finding::warning(
                format!("{name} has no max_bytes, and may take all storage"),
                "max_bytes on every stream: a full store stops all of them",
                format!("bellhop setup; where it holds more than its share, nats stream edit {name} --max-bytes=BYTES"),
            ));
        }
        let bounds = [
            ("max_bytes", config.max_bytes, state.bytes),
            ("max_msgs", config.max_messages, state.messages),
        ];
        for (bound, limit, used) in bounds {
            let Some(limit) = u64::try_from(limit).ok().filter(|limit| *limit > 0) else {
                continue;
            };
            if promised.contains(name) && config.discard == DiscardPolicy::Old {
                findings.push(Finding::critical(
                    format!("{name} has {bound} {limit} and drops its oldest messages when it is full"),
                    "discard: new, which refuses new messages instead; its messages were acknowledged",
                    format!("nats stream edit {name} --discard=new --force"),
                ));
            }
            let show = |number| {
                if bound == "max_bytes" {
                    bytes(number)
                } else {
                    thousands(number as usize)
                }
            };
            let found = format!("{name} holds {} of {bound} {}", show(used), show(limit));
            let flag = if bound == "max_bytes" {
                "max-bytes"
            } else {
                "max-msgs"
            };
            let fix = format!(
                "nats stream edit {name} --{flag}={} --force",
                limit.saturating_mul(2)
            );
            findings.extend(
                judged(used, limit, found, fix).map(|finding| match config.discard {
                    // It drops its oldest messages, and stops no one.
                    DiscardPolicy::Old => Finding {
                        status: Status::Warning,
                        ..finding
                    },
                    DiscardPolicy::New => finding,
                }),
            );
        }
    }
    findings.extend(room_of_schedules(case));
    or_ok(findings, || {
        format!(
            "{} in {}, none is near its limit",
            bytes(case.now.streams.values().map(|info| info.state.bytes).sum()),
            plural(case.now.streams.len(), "stream")
        )
    })
}

/// Judges how much is scheduled: the intake refuses more.
fn room_of_schedules(case: &Case<'_>) -> Option<Finding> {
    let name = case.names.scheduled_stream();
    let used = case.now.streams.get(&name)?.state.bytes;
    let sets = case
        .now
        .streams
        .get(&case.names.log_stream())
        .map(|info| &info.config);
    let limit = storage::of_schedules(sets, case.config.streams.storage, case.names);
    let found = format!(
        "{name} holds {} of the {} that Bellhop schedules",
        bytes(used),
        bytes(limit)
    );
    judged(
        used,
        limit,
        found,
        "`bellhop scheduled ls` shows them; run `bellhop scheduled cancel`, or raise `streams.storage` and run `bellhop setup`",
    )
}
