//! The work: which member does it, and does it make progress?

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{Info, PriorityPolicy};

use super::finding::or_ok;
use super::{Case, Finding};
use crate::cli::members::ranges;
use crate::cli::output::{duration, plural, thousands};
use crate::cli::survey::Survey;
use crate::partition::{Partition, Role};

/// Time that a message may wait in a stream before a warning.
pub(super) const WAIT_WARNING: Duration = Duration::from_secs(10);
/// Time that a message may wait in a stream before it is critical.
pub(super) const WAIT_CRITICAL: Duration = Duration::from_secs(60);
/// Messages that a consumer may be behind while it falls further behind.
const FAR_BEHIND: u64 = 10_000;

pub(super) fn members(case: &Case<'_>) -> Vec<Finding> {
    let ttl = case.config.members.ttl;
    let alive: Vec<_> = case.now.alive(ttl).collect();
    let mut findings = Vec::new();
    if alive.is_empty() {
        findings.push(Finding::critical(
            "no member is alive, so reminders are not routed",
            "one `bellhop serve` or more",
            "bellhop serve",
        ));
    }
    for (name, member) in case
        .now
        .members
        .iter()
        .filter(|(name, _)| !alive.iter().any(|(alive, _)| alive == name))
    {
        let found = format!(
            "{name} disappeared without shutting down, last seen {} ago",
            duration(case.now.silence(member))
        );
        let fix =
            format!("check its log; restart it under its name: `bellhop serve --set name={name}`");
        findings.push(Finding::warning(
            found,
            format!("a heartbeat within {}", duration(ttl)),
            fix,
        ));
    }
    let versions: BTreeSet<_> = alive
        .iter()
        .map(|(_, member)| member.card.version.as_str())
        .collect();
    if versions.len() > 1 {
        let found = format!(
            "members of {} versions: {}",
            versions.len(),
            Vec::from_iter(versions.iter().copied()).join(", ")
        );
        findings.push(Finding::warning(
            found,
            "one version",
            "finish the upgrade: `bellhop members ls` shows who runs what",
        ));
    }
    or_ok(findings, || {
        format!(
            "{} alive, version {}",
            plural(alive.len(), "member"),
            Vec::from_iter(versions).join(", ")
        )
    })
}

/// Checks that exactly one member works each role. During a handover a role is briefly unassigned.
pub(super) fn roles(case: &Case<'_>) -> Vec<Finding> {
    let (before, now) = (holders(case, case.before), holders(case, case.now));
    let lasting = |is_wrong: fn(usize) -> bool| {
        let is_wrong = |role: &&Role| {
            [&before, &now]
                .iter()
                .all(|holders| is_wrong(holders.iter().filter(|held| *held == *role).count()))
        };
        all_roles(case)
            .iter()
            .filter(is_wrong)
            .copied()
            .collect::<Vec<_>>()
    };
    let (idle, contested) = (
        lasting(|holders| holders == 0),
        lasting(|holders| holders > 1),
    );
    let fix = "`bellhop members ls` shows who holds what; look at the members' logs for `ended`, or restart them one by one";
    let mut findings = Vec::new();
    if !idle.is_empty() {
        findings.push(Finding::critical(
            format!("no member works {}", named(&idle)),
            "a member for each",
            fix,
        ));
    }
    if !contested.is_empty() {
        findings.push(Finding::critical(
            format!("more than one member works {}", named(&contested)),
            "one member for each",
            fix,
        ));
    }
    or_ok(findings, || {
        format!(
            "{} and the roles of the installation are worked",
            plural(usize::from(case.config.partitions), "partition")
        )
    })
}

fn all_roles(case: &Case<'_>) -> Vec<Role> {
    Role::all(case.config.partitions).collect()
}

/// The roles that living members hold, each as often as it is held.
fn holders(case: &Case<'_>, survey: &Survey) -> Vec<Role> {
    let roles = all_roles(case);
    let cards = survey
        .alive(case.config.members.ttl)
        .map(|(_, member)| &member.card);
    cards
        .flat_map(|card| roles.iter().copied().filter(|role| role.is_held_by(card)))
        .collect()
}

fn named(roles: &[Role]) -> String {
    let partitions: BTreeSet<u16> = roles
        .iter()
        .filter_map(|role| role.partition())
        .map(|Partition(number)| number)
        .collect();
    let mut names: Vec<String> = roles
        .iter()
        .filter(|role| role.partition().is_none())
        .map(|role| format!("the {role}"))
        .collect();
    if !partitions.is_empty() {
        names.push(format!("partition {}", ranges(&partitions)));
    }
    names.join(", ")
}

pub(super) fn consumers(case: &Case<'_>) -> Vec<Finding> {
    let own: Vec<_> = case
        .now
        .consumers
        .iter()
        .filter(|info| is_own(case, info))
        .collect();
    let has_members = case.now.alive(case.config.members.ttl).next().is_some();
    let findings: Vec<_> = own
        .iter()
        .flat_map(|info| {
            let before = case.before.consumer(&info.stream_name, &info.name);
            before.map_or_else(Vec::new, |before| troubles(before, info, has_members))
        })
        .collect();
    let pending: u64 = own
        .iter()
        .filter(|info| !info.name.starts_with("escalate-"))
        .map(|info| info.num_pending)
        .sum();
    or_ok(findings, || {
        format!(
            "{}, {} pending",
            plural(own.len(), "consumer"),
            plural(pending as usize, "message")
        )
    })
}

/// Other programs may have consumers of the same streams; those are their business.
fn is_own(case: &Case<'_>, info: &Info) -> bool {
    let names = case.names;
    let prefixes = [
        (names.scheduled_stream(), names.due_consumer()),
        (names.parked_stream(), "escalate-"),
        (names.outcomes_stream(), names.history_consumer()),
    ];
    prefixes
        .iter()
        .any(|(stream, prefix)| info.stream_name == *stream && info.name.starts_with(prefix))
}

/// Returns the problems of a consumer, now and a moment ago.
fn troubles(before: &Info, now: &Info, has_members: bool) -> Vec<Finding> {
    let (stream, name) = (&now.stream_name, &now.name);
    let mut findings = Vec::new();
    let lasts = |is_wrong: fn(&Info) -> bool| is_wrong(before) && is_wrong(now);
    if now.paused {
        let found = format!(
            "consumer {name} of {stream} is paused for {}",
            duration(now.pause_remaining.unwrap_or_default())
        );
        findings.push(Finding::critical(
            found,
            "a consumer that is not paused",
            format!("nats consumer resume {stream} {name} --force"),
        ));
    }
    let look = "`bellhop members ls` shows who should read it; look at that member's log";
    if has_members && !now.paused && lasts(is_unread) {
        findings.push(Finding::critical(
            format!("no member reads consumer {name} of {stream}"),
            "a member that pulls from it",
            look,
        ));
    }
    if lasts(|info| {
        info.config.max_ack_pending > 0
            && info.num_ack_pending as i64 >= info.config.max_ack_pending
    }) {
        let found = format!(
            "consumer {name} of {stream} has {} unacknowledged messages, its limit",
            thousands(now.num_ack_pending)
        );
        findings.push(Finding::warning(
            found,
            "fewer: app servers that answer in time",
            "bellhop instances ls",
        ));
    }
    if lasts(|info| info.num_redelivered > 0) {
        let found = format!(
            "consumer {name} of {stream} redelivers {}",
            plural(now.num_redelivered, "message")
        );
        findings.push(Finding::warning(
            found,
            "no message that takes longer than dispatch.ack_wait",
            look,
        ));
    }
    if !name.starts_with("escalate-")
        && now.num_pending > FAR_BEHIND
        && now.num_pending > before.num_pending
    {
        let found = format!(
            "consumer {name} of {stream} is {} behind and falling further behind",
            plural(now.num_pending as usize, "message")
        );
        findings.push(Finding::warning(
            found,
            "a shrinking backlog",
            "start another `bellhop serve`; `bellhop instances ls` shows slow app servers",
        ));
    }
    findings
}

/// Returns whether no client reads a pinned consumer. While nothing is handed out no client is
/// pinned, but pulls wait.
pub(in crate::cli) fn is_unread(info: &Info) -> bool {
    let is_pinned = info
        .priority_groups
        .iter()
        .any(|group| group.pinned_client_id.is_some());
    info.config.priority_policy == PriorityPolicy::PinnedClient
        && !is_pinned
        && info.num_waiting == 0
}

/// Checks how long the oldest unprocessed message has waited.
pub(super) fn backlog(case: &Case<'_>) -> Vec<Finding> {
    let log = case.names.log_stream();
    let sets = plural(case.now.messages(&log) as usize, "set");
    let waits = case.now.oldest(&log).filter(|waits| *waits > WAIT_WARNING);
    let finding = waits.map(|waits| {
        let found = format!("{sets} wait in {log}, the oldest for {}", duration(waits));
        let (expected, fix) = (
            format!("less than {}", duration(WAIT_WARNING)),
            "`bellhop members ls` shows who works, `bellhop instances ls` who is slow",
        );
        if waits > WAIT_CRITICAL {
            Finding::critical(found, expected, fix)
        } else {
            Finding::warning(found, expected, fix)
        }
    });
    or_ok(finding.into_iter().collect(), || {
        format!("{sets} are being worked on")
    })
}
