//! The server of this connection: is it there, is it near, is its clock right?

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::finding::or_ok;
use super::{Case, CheckResult, Finding};
use crate::cli::output::duration;
use crate::nats::access::ends_soon;
use crate::nats::{Nats, NatsError, chain, neighbours, topology};

/// Above this a reminder takes noticeably long: on its way it waits for some five answers of NATS.
const NEAR: Duration = Duration::from_millis(100);
/// Maximum difference between clocks: members' clocks decide on expiry, and people compare times.
const CLOCK_WARNING: Duration = Duration::from_secs(1);
/// Beyond this, reminders expire at a noticeably wrong time.
const CLOCK_CRITICAL: Duration = Duration::from_secs(60);

/// Without a connection nothing else can be looked at.
pub(super) fn unreachable(error: &NatsError) -> CheckResult {
    let (check, expected, fix) = match error {
        NatsError::TooOld { needed, .. } => (
            "servers",
            format!("nats-server {needed} or later"),
            "upgrade nats-server, one node after the other",
        ),
        NatsError::SmallPayload { .. } => (
            "payload",
            "max_payload of 512 KiB or more".to_owned(),
            "set `max_payload: 1MB` in nats-server's configuration, then `nats-server --signal reload`",
        ),
        NatsError::Connect { .. } => (
            "connection",
            "a connection".to_owned(),
            "`bellhop check` shows the settings nats.* and where they come from; `--nats URL` tries another address",
        ),
        _ => (
            "jetstream",
            "an answer of JetStream".to_owned(),
            "enable JetStream (`jetstream {}` in nats-server's configuration), for this account, too; allow this user to publish \
             on $JS.API.> and to subscribe to _INBOX.>",
        ),
    };
    CheckResult {
        check,
        finding: Finding::critical(chain(error).to_string(), expected, fix),
    }
}

pub(super) fn connection(case: &Case<'_>) -> Vec<Finding> {
    let (server, took) = (
        case.now.server_name(),
        case.now.round_trip.min(case.before.round_trip),
    );
    let identity = case.now.identity.as_ref();
    let user = match identity {
        Some(identity) if identity.user.is_empty() => format!(", account {}", identity.account),
        Some(identity) => format!(", as {} of account {}", identity.user, identity.account),
        None => String::new(),
    };
    let found = format!("{server} answers within {}{user}", duration(took));
    vec![if took > NEAR {
        let expected = format!("an answer within {}", duration(NEAR));
        Finding::warning(
            found,
            expected,
            "run `bellhop serve` in the same network as nats-server",
        )
    } else {
        Finding::ok(found)
    }]
}

/// Checks the lifetime of this command's credentials. They are to be those of `bellhop serve`.
pub(super) async fn credentials(nats: &Nats) -> Vec<Finding> {
    let Some(validity) = nats.access.validity().await else {
        return vec![Finding::ok("these credentials have no end")];
    };
    let found = format!("the JWT of nats.creds ends at {}", validity.expires);
    vec![if ends_soon(&validity, Timestamp::now()) {
        Finding::warning(
            found,
            "more than a tenth of its life, or 14 days",
            "put a new credentials file in its place; each connection reads it when it is made",
        )
    } else {
        Finding::ok(found)
    }]
}

/// Checks for another installation that receives the same subjects.
pub(super) async fn neighbours(nats: &Nats) -> Vec<Finding> {
    let others = async { neighbours::others(nats, &topology::installation(nats).await?).await };
    match others.await {
        Ok(others) => {
            let finding = |other: &String| {
                Finding::critical(
                    format!("installation {other} hears the same subjects"),
                    "one installation for each prefix where NATS is joined",
                    "give one of them another `prefix`, or deny the prefix's subjects between them: docs/nats.md",
                )
            };
            or_ok(others.iter().map(finding).collect(), || {
                "no other installation hears these subjects".to_owned()
            })
        }
        Err(_) => vec![Finding::unknown(
            "whether another installation hears the same subjects cannot be asked",
            "allow this user to publish on $SRV.PING.bellhop",
        )],
    }
}

pub(super) fn clock(case: &Case<'_>) -> Vec<Finding> {
    // The quicker answer is the more exact one; the server spoke at some time of it.
    let survey = if case.now.round_trip < case.before.round_trip {
        case.now
    } else {
        case.before
    };
    vec![apart(survey.skew(), survey.round_trip / 2)]
}

/// A server's clock that is so far ahead, or less or more by half a round trip.
fn apart(skew: SignedDuration, half: Duration) -> Finding {
    let least = skew.unsigned_abs().saturating_sub(half);
    let direction = if skew.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let (distance, error) = (duration(skew.unsigned_abs()), duration(half));
    let found = format!(
        "the server's clock is {distance} {direction} this machine's, give or take {error}"
    );
    let expected = format!("less than {}", duration(CLOCK_WARNING));
    let fix = "synchronize both machines' clocks: `timedatectl set-ntp true`, `chronyc tracking`";
    match least {
        least if least > CLOCK_CRITICAL => Finding::critical(found, expected, fix),
        least if least > CLOCK_WARNING => Finding::warning(found, expected, fix),
        _ => Finding::ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    /// No clock is stepped for a test, so this is about figures alone.
    #[test]
    fn clock_skew_exceeds_the_round_trip() {
        let status = |skew_ms, half_ms| {
            apart(
                SignedDuration::from_millis(skew_ms),
                Duration::from_millis(half_ms),
            )
            .status
        };
        assert_eq!(
            [status(0, 1), status(-999, 1), status(1_500, 600)],
            [Status::Ok; 3]
        );
        assert_eq!([status(1_500, 1), status(-60_000, 1)], [Status::Warning; 2]);
        assert_eq!(
            [status(61_000, 1), status(-90_000_000, 500)],
            [Status::Critical; 2]
        );
        let behind = apart(SignedDuration::from_secs(-90), Duration::from_millis(2));
        assert_eq!(
            behind.found,
            "the server's clock is 90.0 s behind this machine's, give or take 2.0 ms"
        );
    }
}
