//! `bellhop doctor`: is the installation healthy, and if not, what is wrong and how is it fixed?
//!
//! A check is a small function with a name. Most look at two [`Survey`]s, a second apart, and at
//! nothing else, so `bellhop top` makes them all the time; the others ask NATS something of their
//! own. None changes anything.

mod account;
mod data;
mod finding;
mod permissions;
mod positions;
mod report;
mod server;
mod streams;
mod system;
mod versions;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use super::survey::Survey;
use super::{CliError, SettingsArgs};
use crate::config::Config;
use crate::nats::names::Names;
use crate::nats::{Nats, NatsError, connect};

pub(super) use finding::{CheckResult, Finding, Status};
pub(super) use report::as_for_nagios;
#[cfg(feature = "top")]
pub(super) use work::is_unread;

use report::{Format, Report};
use system::SystemAccount;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It changes nothing, and may be run against a busy installation.

A check says ok, warning (look at it soon), critical (reminders wait, or could be lost), or unknown (it cannot be seen from here).

Exit codes:
  text, json   0 if nothing is critical, else 1
  nagios       0 ok, 1 warning, 2 critical, 3 unknown: wrong arguments or configuration

Examples:
  bellhop doctor
  bellhop doctor --format json | jq '.checks[] | select(.status == \"critical\")'
  bellhop doctor --format nagios --system-creds sys.creds"
)]
pub(super) struct Args {
    /// Format of the report
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    system: SystemAccount,
}

/// Time between two surveys: enough for messages in flight to arrive.
const BETWEEN: Duration = Duration::from_secs(1);

/// The input of most checks.
pub(super) struct Case<'a> {
    pub(super) config: &'a Config,
    pub(super) names: &'a Names,
    /// The survey a moment ago.
    pub(super) before: &'a Survey,
    /// The survey now.
    pub(super) now: &'a Survey,
}

/// A check of two surveys.
type Check = fn(&Case<'_>) -> Vec<Finding>;

/// The checks of two surveys, by name. Each returns a finding at least.
const AT_A_GLANCE: [(&str, Check); 15] = [
    ("connection", server::connection),
    ("clock", server::clock),
    ("account", account::limits),
    ("permissions", account::permissions),
    ("secrets", account::secrets),
    ("storage", streams::storage),
    ("replicas", streams::replicas),
    ("room", streams::room),
    ("members", work::members),
    ("roles", work::roles),
    ("consumers", work::consumers),
    ("backlog", work::backlog),
    ("rejected", data::rejected),
    ("unanswered", data::unanswered),
    ("names", data::shared_names),
];

/// Makes the checks of two surveys.
pub(super) fn at_a_glance(case: &Case<'_>) -> Vec<CheckResult> {
    AT_A_GLANCE
        .iter()
        .flat_map(|(check, look)| named(check, look(case)))
        .collect()
}

/// Makes the checks that send requests of their own.
async fn in_depth(case: &Case<'_>, nats: &Nats, system: &SystemAccount) -> Vec<CheckResult> {
    let servers = system::servers(case.config, system).await;
    [
        named("credentials", server::credentials(nats).await),
        named(
            "servers",
            system::versions(nats, case.config, &servers).await,
        ),
        named("sync", system::sync(case, &servers)),
        named("neighbours", server::neighbours(nats).await),
        named("setup", streams::setup(nats, case.config).await),
        named("positions", positions::positions(case, nats).await),
        named("history", data::history(case, nats).await),
        named("rules", data::rules(case, nats).await),
        named("routes", data::routes(case, nats).await),
        named("lookalikes", data::lookalikes(case, nats).await),
    ]
    .concat()
}

fn named(check: &'static str, findings: Vec<Finding>) -> Vec<CheckResult> {
    findings
        .into_iter()
        .map(|finding| CheckResult { check, finding })
        .collect()
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<ExitCode, CliError> {
    let config = match settings.config() {
        Ok(config) => config,
        Err(error) => return args.format.refuse(error.into()),
    };
    let report = match examine(&config, &args.system).await {
        Ok(report) => report,
        Err(error) => Report::new(vec![server::unreachable(&error)], None),
    };
    args.format.tell(&report)
}

async fn examine(config: &Config, system: &SystemAccount) -> Result<Report, NatsError> {
    let nats = connect(config, "bellhop doctor").await?;
    let before = Survey::take(&nats).await?;
    tokio::time::sleep(BETWEEN).await;
    let now = Survey::take(&nats).await?;
    let case = Case {
        config,
        names: &nats.names,
        before: &before,
        now: &now,
    };
    let result = [at_a_glance(&case), in_depth(&case, &nats, system).await].concat();
    Ok(Report::new(result, Some(report::figures(&case))))
}
