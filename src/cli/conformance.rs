//! `bellhop conformance`: whether an app server keeps the contract, rule by rule.

use bellhop_conformance::{
    ConformanceError, Judge, Judged, Options, Peer, RULES, SOURCE, Verdict, chosen,
};
use serde_json::json;

use super::output::{BAD, DIM, GOOD, Output, complain, paint, plain};
use super::{CliError, SettingsArgs};
use crate::token::{InstanceName, UserId};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It plays Bellhop's side and sends heartbeats and deliveries, ordinary and extreme ones. It needs a nats-server and the \
app server with at least one connected user, but no `bellhop serve`.

Users see these reminders. Each has the source bellhop-conformance and says that it is a test; some are long or unusual. \
Use a test app server and test users.

A failed rule shows what was found and what docs/protocol.md says. A rule is skipped if a simpler one failed. Behaviour \
inside the app server, such as showing a redelivered reminder once, cannot be checked from outside.

Examples:
  bellhop conformance --instance app-1
  bellhop conformance --instance app-1 --user alice --user bob
  bellhop conformance --instance app-1 --leaving bob
  bellhop conformance --instance app-1 --only delivery-full --set delivery.timeout=10s
  bellhop conformance --instance app-1 --json | jq -r '.rules[] | select(.verdict == \"failed\").rule'

Exit codes: 0 all passed, 1 some did not, 2 wrong arguments, 78 wrong configuration."
)]
pub(super) struct Args {
    /// The app server's instance name
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    instance: Option<InstanceName>,
    /// A user who is connected to it; may be repeated [default: those who have routes to it, of up
    /// to 1,000]
    #[arg(long = "user", value_name = "USER")]
    users: Vec<UserId>,
    /// A connected user whom you will disconnect when asked to, so that leaving can be checked
    #[arg(long, value_name = "USER")]
    leaving: Option<UserId>,
    /// Only this rule and its prerequisites; may be repeated
    #[arg(long, value_name = "RULE")]
    only: Vec<String>,
    /// List the rules and exit
    #[arg(long)]
    list: bool,
    /// Print JSON: one document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let mut rules = chosen(&args.only).map_err(|name| {
        CliError::Usage(format!(
            "no rule is called `{name}`; --list tells what they are called"
        ))
    })?;
    let Some(instance) = args.instance.filter(|_| !args.list) else {
        return list(args.json);
    };
    let (config, nats) = settings.connect().await?;
    let (heartbeat_timeout, delivery_timeout) = (config.heartbeat.timeout, config.delivery.timeout);
    let (users, leaver) = (args.users, args.leaving.clone());
    let options = Options {
        instance: instance.clone(),
        users,
        leaver,
        heartbeat_timeout,
        delivery_timeout,
    };
    let peer = Peer::find(&nats.jetstream, &nats.names, options).await?;
    rules.retain(|rule| args.leaving.is_some() || !rule.is_of_leaving);
    let mut report = Report {
        output: Output::new(),
        is_json: args.json,
        all: Vec::new(),
    };
    let (mut judge, mut leaver) = (Judge::default(), args.leaving);
    for rule in rules {
        if let Some(leaver) = leaver.take_if(|_| rule.is_of_leaving) {
            complain(format_args!(
                "disconnect {leaver} from {instance} now, within a minute"
            ));
        }
        report.add(judge.judge(&peer, rule).await)?;
    }
    report.finish(&instance, &peer)
}

impl From<ConformanceError> for CliError {
    fn from(error: ConformanceError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn list(is_json: bool) -> Result<(), CliError> {
    let mut output = Output::new();
    if is_json {
        let rules: Vec<_> = RULES
            .iter()
            .map(|rule| json!({ "rule": rule.name, "sentence": rule.sentence }))
            .collect();
        output.json(&rules)?;
    } else {
        RULES.iter().try_for_each(|rule| {
            output.line(format_args!("{:<24}  {}", rule.name, rule.sentence))
        })?;
    }
    output.flush()
}

/// The verdicts so far. People see each verdict when it is there.
struct Report {
    output: Output,
    is_json: bool,
    all: Vec<Judged>,
}

impl Report {
    fn add(&mut self, judged: Judged) -> Result<(), CliError> {
        if !self.is_json {
            let (word, style, found) = match &judged.verdict {
                Verdict::Passed => ("passed", GOOD, None),
                Verdict::Failed(found) => ("FAILED", BAD, Some(found)),
                Verdict::NotTried(hindrance) => ("not tried", DIM, Some(hindrance)),
            };
            let word = paint(style, format_args!("{word:<9}"));
            let found = found.map(|found| plain(found)).unwrap_or_default();
            self.output.painted(
                format_args!("{word}  {:<24}  {found}", judged.rule)
                    .to_string()
                    .trim_end(),
            )?;
            if matches!(judged.verdict, Verdict::Failed(_)) {
                self.output
                    .line(format_args!("{:37}the contract: {}", "", judged.sentence))?;
            }
            self.output.flush()?;
        }
        self.all.push(judged);
        Ok(())
    }

    fn finish(mut self, instance: &InstanceName, peer: &Peer) -> Result<(), CliError> {
        let count = |is_it: fn(&Verdict) -> bool| {
            self.all
                .iter()
                .filter(|judged| is_it(&judged.verdict))
                .count()
        };
        let passed = count(|verdict| *verdict == Verdict::Passed);
        let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let not_tried = self.all.len() - passed - failed;
        if self.is_json {
            self.output.json(&json!({ "instance": instance, "subject": peer.subject(), "users": peer.users(),
                "source": SOURCE, "passed": passed, "failed": failed, "not_tried": not_tried, "rules": self.all }))?;
        } else {
            self.output.line(format_args!(
                "{passed} passed, {failed} failed, {not_tried} not tried"
            ))?;
        }
        self.output.flush()?;
        if passed == self.all.len() {
            Ok(())
        } else {
            Err(CliError::Reported)
        }
    }
}
