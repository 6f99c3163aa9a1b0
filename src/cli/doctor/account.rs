//! The account: what it may use, and what this user may do.

use async_nats::jetstream::account::Limits;

use super::finding::or_ok;
use super::permissions::{missing, needs};
use super::{Case, Finding};
use crate::cli::output::{bytes, plural, thousands};
use crate::config::Exposure;

/// Shares of a limit, in percent, that are worth a warning, and more than that.
const NEARLY: u64 = 80;
const ALMOST: u64 = 95;

/// Judges the used share of a limit.
pub(super) fn judged(
    used: u64,
    limit: u64,
    found: String,
    fix: impl Into<String>,
) -> Option<Finding> {
    let expected = format!("less than {NEARLY} % of {limit}");
    match used.saturating_mul(100) / limit.max(1) {
        ALMOST.. => Some(Finding::critical(found, expected, fix)),
        NEARLY.. => Some(Finding::warning(found, expected, fix)),
        _ => None,
    }
}

/// Secrets that others could read, by the settings of this command.
pub(super) fn secrets(case: &Case<'_>) -> Vec<Finding> {
    let warning = |exposure: Exposure| {
        Finding::warning(
            exposure.found,
            "files that others cannot read, and TLS between machines",
            exposure.remedy,
        )
    };
    let findings = case.config.exposures().into_iter().map(warning).collect();
    or_ok(findings, || {
        "no file or connection of these settings exposes a secret".to_owned()
    })
}

pub(super) fn limits(case: &Case<'_>) -> Vec<Finding> {
    let Some(account) = &case.now.account else {
        let fix = "allow it to publish on $JS.API.INFO";
        return vec![Finding::unknown(
            "this user is not permitted to read the account's limits",
            fix,
        )];
    };
    let whole = (
        String::new(),
        account.storage,
        account.memory,
        account.streams,
        account.consumers,
        &account.limits,
    );
    let tiers = account.tiers.iter().map(|(name, tier)| {
        (
            format!(" of tier {name}"),
            tier.storage,
            tier.memory,
            tier.streams,
            tier.consumers,
            &tier.limits,
        )
    });
    let mut findings = Vec::new();
    for (tier, storage, memory, streams, consumers, limits) in std::iter::once(whole).chain(tiers) {
        let Limits {
            max_storage,
            max_memory,
            max_streams,
            max_consumers,
            ..
        } = limits;
        let uses = [
            ("file storage", storage, max_storage, true),
            ("memory storage", memory, max_memory, true),
            ("streams", streams as u64, max_streams, false),
            ("consumers", consumers as u64, max_consumers, false),
        ];
        for (what, used, limit, is_bytes) in uses {
            // No limit, and the 0 of an account whose limits are those of its tiers.
            let Some(limit) = limit
                .and_then(|limit| u64::try_from(limit).ok())
                .filter(|limit| *limit > 0)
            else {
                continue;
            };
            let show = |number: u64| {
                if is_bytes {
                    bytes(number)
                } else {
                    thousands(number as usize)
                }
            };
            let found = format!("{} of {} {what}{tier} are used", show(used), show(limit));
            let fix = format!(
                "raise the account's limit of {what}, or remove unused ones: `nats account info`, `nats stream report`"
            );
            findings.extend(judged(used, limit, found, fix));
        }
    }
    or_ok(findings, || {
        let (streams, consumers) = (
            plural(account.streams, "stream"),
            plural(account.consumers, "consumer"),
        );
        format!(
            "{} in {streams} with {consumers}, no limit is near",
            bytes(account.storage + account.memory)
        )
    })
}

/// Checks this user's permissions, as the server reports them, against what `bellhop serve` needs.
pub(super) fn permissions(case: &Case<'_>) -> Vec<Finding> {
    let Some(identity) = &case.now.identity else {
        return vec![Finding::unknown(
            "this user is not permitted to read its own permissions",
            "allow it to publish on $SYS.REQ.USER.INFO, or look at what nats-server logs of permission violations",
        )];
    };
    let Some(permissions) = &identity.permissions else {
        return vec![Finding::ok("this user may do everything in its account")];
    };
    let needs = needs(case.names, case.config);
    let missing = missing(permissions, &needs);
    let is_missing = |subject| {
        missing
            .iter()
            .any(|(_, subjects)| subjects.contains(subject))
    };
    if [case.names.all_seen(), case.names.all_outcomes()]
        .iter()
        .all(is_missing)
    {
        return vec![Finding::unknown(
            "this user is not the one that `bellhop serve` runs as",
            "to see whether that one may do all that it must, run the doctor with its credentials",
        )];
    }
    let finding = |(verb, subjects): (&str, Vec<String>)| {
        let expected = format!("what `bellhop serve` does: {verb} {}", subjects.join(" "));
        let fix = format!("add to the user's permissions: {verb}: {subjects:?}");
        (!subjects.is_empty()).then(|| {
            Finding::critical(
                format!("this user is not permitted to {verb} {}", few(&subjects)),
                expected,
                fix,
            )
        })
    };
    let findings = missing.into_iter().filter_map(finding).collect();
    or_ok(findings, || {
        format!(
            "this user may do what `bellhop serve` does: {} subjects",
            needs.publish.len() + needs.subscribe.len()
        )
    })
}

fn few(subjects: &[String]) -> String {
    match subjects {
        [first, rest @ ..] if rest.len() > 1 => format!("{first} and {} more", rest.len()),
        all => all.join(" and "),
    }
}
