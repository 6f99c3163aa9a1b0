//! One look at an installation, in the figures that are shown. Pure.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::{Info, PriorityPolicy};
use jiff::Timestamp;
use serde::Serialize;

use super::figures::Figures;
use crate::cli::doctor::{Case, CheckResult, Status, at_a_glance, is_unread};
use crate::cli::survey::{Parked, Routes};
use crate::partition::Role;

/// A look.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) server: String,
    pub(super) version: String,
    pub(super) round_trip_seconds: f64,
    /// Sets published since the stream began.
    pub(super) sets: u64,
    /// Sets of which not everything is settled.
    pub(super) waiting: u64,
    /// Seconds that the oldest of them has waited.
    pub(super) oldest_seconds: f64,
    pub(super) parked: Parked,
    /// Refused messages that are kept.
    pub(super) rejected: u64,
    /// The connected users and their instances, or the reason why they are not counted.
    pub(super) routes: Result<Routes, Uncounted>,
    pub(super) members: Vec<Member>,
    /// The metrics of each member that answered.
    pub(super) figures: BTreeMap<String, Figures>,
    pub(super) consumers: Vec<Consumer>,
    /// The problems, the worst first.
    pub(super) needs: Vec<CheckResult>,
}

/// The reason why routes are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncounted {
    /// Reading so many takes too long.
    TooMany,
    /// The bucket cannot be read by this user, or does not answer.
    Unreadable,
}

impl Uncounted {
    /// Returns what to show in place of the routes.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TooMany => "too many routes to count here; `bellhop instances ls` does",
            Self::Unreadable => {
                "the routes cannot be read by this user; `bellhop instances ls` as an operator shows them"
            }
        }
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) version: String,
    /// `serving`, `stopping` or `silent`.
    pub(super) state: &'static str,
    /// The member's roles for the installation.
    pub(super) roles: Vec<&'static str>,
    pub(super) partitions: Vec<u16>,
    pub(super) silent_seconds: f64,
}

/// A consumer of Bellhop's streams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Consumer {
    pub(super) stream: String,
    pub(super) name: String,
    pub(super) pending: u64,
    /// Handed out and not acknowledged.
    pub(super) in_work: u64,
    pub(super) redelivered: u64,
    /// True if its one client is there; none if any client may read.
    pub(super) is_read: Option<bool>,
}

impl Sample {
    /// Of two surveys, with what else was learnt.
    pub(super) fn new(
        case: &Case<'_>,
        figures: BTreeMap<String, Figures>,
        routes: Result<Routes, Uncounted>,
    ) -> Self {
        let (survey, names) = (case.now, case.names);
        let log = names.log_stream();
        let mut needs: Vec<CheckResult> = at_a_glance(case)
            .into_iter()
            .filter(|result| result.finding.status >= Status::Warning)
            .collect();
        needs.sort_by_key(|result| std::cmp::Reverse(result.finding.status));
        Self {
            at: survey.at,
            server: survey.server_name(),
            version: survey.server.version.clone(),
            round_trip_seconds: survey.round_trip.as_secs_f64(),
            sets: survey
                .streams
                .get(&log)
                .map_or(0, |info| info.state.last_sequence),
            waiting: survey.messages(&log),
            oldest_seconds: survey.oldest(&log).unwrap_or_default().as_secs_f64(),
            parked: survey.parked,
            rejected: survey.messages(&names.rejected_stream()),
            routes,
            members: members(case),
            figures,
            consumers: survey.consumers.iter().map(consumer).collect(),
            needs,
        }
    }
}

fn members(case: &Case<'_>) -> Vec<Member> {
    let ttl = case.config.members.ttl;
    let roles = Role::SINGLE;
    case.now
        .members
        .iter()
        .map(|(name, member)| {
            let silence = case.now.silence(member);
            Member {
                name: name.clone(),
                version: member.card.version.clone(),
                state: match member.card.stopping {
                    _ if silence > ttl => "silent",
                    true => "stopping",
                    false => "serving",
                },
                roles: roles
                    .iter()
                    .filter(|role| role.is_held_by(&member.card))
                    .map(|role| role.kind())
                    .collect(),
                partitions: member.card.partitions.iter().copied().collect(),
                silent_seconds: silence.as_secs_f64(),
            }
        })
        .collect()
}

fn consumer(info: &Info) -> Consumer {
    Consumer {
        stream: info.stream_name.clone(),
        name: info.name.clone(),
        pending: info.num_pending,
        in_work: info.num_ack_pending as u64,
        redelivered: info.num_redelivered as u64,
        is_read: (info.config.priority_policy == PriorityPolicy::PinnedClient)
            .then(|| !is_unread(info)),
    }
}
