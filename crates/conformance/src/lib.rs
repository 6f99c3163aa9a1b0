//! `bellhop conformance`: plays Bellhop's side against an app server, and judges it by the
//! contract, rule by rule.
//!
//! Only NATS is needed, no `bellhop serve`: what is sent is made of the same parts,
//! [`wire::answer`](bellhop_protocol::wire::answer) and [`reminder`](bellhop_protocol::reminder). A
//! rule says one thing and is broken by one fault, so that the verdicts name what to fix.
//!
//! | module | |
//! | --- | --- |
//! | `rules` | the rules, in the order in which they are tried, each with its sentence of `docs/protocol.md` |
//! | `peer` | the app server: what it is asked, and its answers with their times |
//! | `bucket` | its routes |
//! | `sample` | reminders that are sent |
//! | `routes`, `heartbeats`, `deliveries`, `fields`, `endurance`, `leaving` | what the rules try |

#![allow(clippy::disallowed_methods)] // It measures how long answers take.

mod bucket;
mod deliveries;
mod endurance;
mod fields;
mod heartbeats;
mod leaving;
mod peer;
mod routes;
mod rules;
mod sample;

use std::time::Duration;

use async_nats::jetstream::context::KeyValueError;
use bellhop_protocol::token::{InstanceName, UserId};
use bucket::MAX_ROUTES;
use serde::Serialize;

pub use peer::Peer;
pub use rules::{RULES, Rule, chosen};

/// The source of every reminder that is sent, so that app servers and people can distinguish it
/// from a real one.
pub const SOURCE: &str = "bellhop-conformance";

/// The app server, and its time limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// The app server's instance name.
    pub instance: InstanceName,
    /// Users who are connected there. When there are none, its routes tell.
    pub users: Vec<UserId>,
    /// One of them who leaves before the rules about that are tried.
    pub leaver: Option<UserId>,
    /// Maximum time for an answer to a heartbeat.
    pub heartbeat_timeout: Duration,
    /// Maximum time for an answer to a delivery.
    pub delivery_timeout: Duration,
}

/// The reason why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The bucket of routes cannot be opened.
    #[error("open bucket {bucket}: {source}; `bellhop setup` creates it")]
    Open {
        /// The bucket.
        bucket: String,
        /// The cause.
        source: KeyValueError,
    },
    /// Routes cannot be read.
    #[error("read routes: {0}")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are more routes than are looked at.
    #[error("the routes to {0} are more than {MAX_ROUTES}, name users with --user")]
    TooManyRoutes(InstanceName),
    /// No user is known to be connected.
    #[error(
        "no usable route leads to {0}; connect a user to it, or name one who is connected with --user"
    )]
    NobodyConnected(InstanceName),
}

impl ConformanceError {
    fn read(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Read(Box::new(error))
    }
}

/// The verdict on a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "found", rename_all = "snake_case")]
pub enum Verdict {
    /// It was.
    Passed,
    /// It was not; this is what was found instead.
    Failed(String),
    /// Unknown, for this reason.
    NotTried(String),
}

/// A rule and its verdict.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The rule's name.
    pub rule: &'static str,
    /// The contract's sentence.
    pub sentence: &'static str,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Tries rules on an app server, one after the other.
///
/// It knows why what is left cannot be tried: an app server that does not do the simplest thing
/// would break every other rule.
#[derive(Default)]
pub struct Judge {
    /// Basic rules that were not kept.
    broken: Vec<&'static Rule>,
    /// The rule broken last, after which no answer was seen.
    suspect: Option<&'static str>,
    /// The rule since which there is no answer.
    dead_since: Option<&'static str>,
}

impl Judge {
    /// Tries a rule, if nothing stands in the way.
    pub async fn judge(&mut self, peer: &Peer, rule: &'static Rule) -> Judged {
        let verdict = match self.hindrance(peer, rule).await {
            Some(hindrance) => Verdict::NotTried(hindrance),
            None => rule
                .check(peer)
                .await
                .map_or_else(Verdict::Failed, |()| Verdict::Passed),
        };
        self.note(rule, &verdict);
        Judged {
            rule: rule.name,
            sentence: rule.sentence,
            verdict,
        }
    }

    async fn hindrance(&mut self, peer: &Peer, rule: &Rule) -> Option<String> {
        let is_needed =
            |basic: &&&'static Rule| basic.asks.iter().any(|ask| rule.asks.contains(ask));
        if let Some(basic) = self.broken.iter().find(is_needed) {
            return Some(format!("{} comes first", basic.name));
        }
        if let Some(suspect) = self.suspect.take()
            && self.broken.is_empty()
            && !peer.is_alive().await
        {
            self.dead_since = Some(suspect);
        }
        Some(format!("it has not answered since {}", self.dead_since?))
    }

    fn note(&mut self, rule: &'static Rule, verdict: &Verdict) {
        if rule.is_basic && *verdict != Verdict::Passed {
            self.broken.push(rule);
        } else if matches!(verdict, Verdict::Failed(_)) && !rule.asks.is_empty() {
            self.suspect = Some(rule.name);
        }
    }
}

/// The examples of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
