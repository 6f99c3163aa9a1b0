//! `bellhop publish`: sends reminders as a business system does.

mod input;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use async_nats::{HeaderMap, header};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use self::input::{Bad, Plan, Request, Set};
use super::file::read_text;
use super::output::{Output, complain, plural, short, thousands};
use super::{CliError, SettingsArgs};
use crate::nats::{Names, Nats, NatsError, chain};
use crate::reminder::set;
use crate::token::Source;

/// nats-server's default max_payload, for a dry run without a server.
const USUAL_MAX_PAYLOAD: usize = 1 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "FILE holds one of
  a set               {\"reminders\": [...]}, sent as it is, in one message
  a list              [{\"user\": ..., \"content\": ...}, ...]
  a reminder a line   (JSONL)
Lists and lines are split into sets of at most 10,000 reminders that fit into one message. Everything is validated first, \
and nothing is sent if anything is invalid, unless --skip-invalid is given.

Examples:
  bellhop publish --source billing --user alice --content 'Invoice 981 is due'
  bellhop publish --source billing --user bob --content 'Come' --priority urgent --data '{\"n\": 1}'
  bellhop publish reminders.jsonl --source billing --set-id 2026-11-22 --msg-id 2026-11-22
  jq -c '.[]' export.json | bellhop publish - --source crm --dry-run

With --msg-id, the same sets count once, however often they are published within the idempotency window (10 minutes).")]
pub(super) struct Args {
    /// A file, or `-` for standard input, which is also read when it is not a terminal
    #[arg(conflicts_with = "user")]
    file: Option<PathBuf>,
    /// The business system that publishes
    #[arg(long)]
    source: Source,
    /// The set's id, in place of its own; of several sets, each has /1, /2, ... added
    #[arg(long, value_name = "ID", value_parser = id)]
    set_id: Option<String>,
    /// The set's Nats-Msg-Id, after the source and a slash; of several sets, each has /1, /2, ...
    /// added
    #[arg(long, value_name = "ID", value_parser = id)]
    msg_id: Option<String>,
    /// Send what is valid and leave out the rest
    #[arg(long)]
    skip_invalid: bool,
    /// Check, and print what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: one line for each set
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    one: One,
}

/// One reminder, in place of a file.
#[derive(Debug, clap::Args, Serialize)]
#[command(next_help_heading = "One reminder, in place of a file")]
struct One {
    /// Its id; without one it is the set's id and `#0`
    #[arg(long, requires = "user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The user
    #[arg(long, requires = "content")]
    user: Option<String>,
    /// A short headline
    #[arg(long, requires = "user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// The text
    #[arg(long, requires = "user")]
    content: Option<String>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "TAG", requires = "user")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// low, normal, high or urgent
    #[arg(long, requires = "user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    /// Not delivered before this, such as 2026-11-29T00:00:00Z
    #[arg(long, value_name = "TIME", requires = "user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    /// Never delivered after this, such as 2026-11-29T00:00:00Z
    #[arg(long, value_name = "TIME", requires = "user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Keep it from the user's associates
    #[arg(long = "no-reroute", requires = "user", action = clap::ArgAction::SetFalse)]
    #[serde(skip_serializing_if = "is_true")]
    reroute: bool,
    /// Do not merge it with a reminder of the same user and text
    #[arg(long = "no-merge", requires = "user", action = clap::ArgAction::SetFalse)]
    #[serde(skip_serializing_if = "is_true")]
    merge: bool,
    /// Any JSON, carried through untouched
    #[arg(long, value_name = "JSON", requires = "user", value_parser = raw_json)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

fn is_true(value: &bool) -> bool {
    *value
}

/// Room for `/1` and so on within the 256 bytes of an id.
fn id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=240 if !text.contains(char::is_control) => Ok(text.to_owned()),
        1..=240 => Err("it has a control character".to_owned()),
        bytes => Err(format!("it has {bytes} bytes; 1 to 240 are allowed here")),
    }
}

fn raw_json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let text = read(&args)?;
    let nats = match settings.connect().await {
        Ok((_, nats)) => Some(nats),
        Err(CliError::Nats(error)) if args.dry_run => {
            let size = thousands(USUAL_MAX_PAYLOAD);
            let error = chain(&error);
            complain(format_args!(
                "{error}\nbellhop: going on with nats-server's usual max_payload of {size} bytes"
            ));
            None
        }
        Err(error) => return Err(error),
    };
    let max_bytes = set::max_bytes(
        nats.as_ref()
            .map_or(USUAL_MAX_PAYLOAD, |nats| nats.client.max_payload()),
    );
    // JetStream itself knows a message id in all sources' sets, if only for a moment.
    let msg_id = args
        .msg_id
        .as_ref()
        .map(|id| format!("{}/{id}", args.source.escaped()));
    let (set_id, msg_id) = (args.set_id.as_deref(), msg_id.as_deref());
    let plan = input::plan(
        &text,
        Request {
            source: &args.source,
            set_id,
            msg_id,
            max_bytes,
        },
    )?;
    report(&plan, args.skip_invalid)?;
    match nats {
        Some(nats) if !args.dry_run => send(&nats, &args, plan.sets).await,
        _ => {
            let subject = Names::new(&settings.config()?.prefix).sets(&args.source);
            show(&subject, plan.sets, args.json)
        }
    }
}

fn read(args: &Args) -> Result<String, CliError> {
    match &args.file {
        None if args.one.user.is_some() => {
            Ok(serde_json::to_string(&args.one).expect("a reminder is JSON"))
        }
        None if std::io::stdin().is_terminal() => {
            let problem = "what shall be published? Name a FILE, `-` for standard input, or --user and --content";
            Err(CliError::Usage(problem.to_owned()))
        }
        file => read_text(file.as_deref().unwrap_or(Path::new("-"))),
    }
}

/// Reports every bad reminder, and fails unless they may be left out.
fn report(plan: &Plan, skip_invalid: bool) -> Result<(), CliError> {
    for Bad {
        place,
        code,
        detail,
    } in &plan.bad
    {
        complain(format_args!("{place}: {code}: {}", short(detail, 300)));
    }
    let (bad, of) = (plan.bad.len(), plural(plan.reminders, "reminder"));
    if bad > 0 && !skip_invalid {
        let problem = format!(
            "{} of {of} cannot be sent, so nothing was; --skip-invalid sends the rest",
            thousands(bad)
        );
        return Err(CliError::Failed(problem));
    }
    if plan.sets.is_empty() {
        return Err(CliError::Failed(format!("none of {of} can be sent")));
    }
    if bad > 0 {
        complain(format_args!("{} of {of} left out", thousands(bad)));
    }
    Ok(())
}

/// Sends the sets one after the other: each one's acknowledgement is awaited, so that their order
/// is the input's.
async fn send(nats: &Nats, args: &Args, sets: Vec<Set>) -> Result<(), CliError> {
    let (subject, mut output) = (nats.names.sets(&args.source), Output::new());
    let (count, mut reminders) = (sets.len(), 0);
    for (done, set) in sets.into_iter().enumerate() {
        let mut headers = HeaderMap::new();
        if let Some(id) = &set.msg_id {
            headers.insert(header::NATS_MESSAGE_ID, id.as_str());
        }
        let bytes = set.body.len();
        let ack = nats.store(subject.clone(), headers, set.body.into()).await;
        let ack = ack.map_err(|error| failed(&error, done, count, args.msg_id.is_some()))?;
        reminders += set.reminders;
        if args.json {
            let id = set.id.unwrap_or_else(|| ack.sequence.to_string());
            output.json(
                &json!({ "subject": subject, "sequence": ack.sequence, "set": id,
                "reminders": set.reminders, "bytes": bytes, "duplicate": ack.duplicate }),
            )?;
        } else {
            let what = format!(
                "{}, {} bytes",
                plural(set.reminders, "reminder"),
                thousands(bytes)
            );
            let name = set.id.map_or_else(String::new, |id| format!(" ({id})"));
            output.line(match ack.duplicate {
                false => format!("stored set {}{name}: {what}", ack.sequence),
                true => format!(
                    "set {}{name} was stored before under this Nats-Msg-Id: {what}",
                    ack.sequence
                ),
            })?;
        }
        output.flush()?;
    }
    if count > 1 && !args.json {
        output.line(format!(
            "{}, {}",
            plural(count, "set"),
            plural(reminders, "reminder")
        ))?;
    }
    output.flush()
}

/// Describes what is stored and what is not, when a set could not be sent.
fn failed(error: &NatsError, done: usize, count: usize, has_msg_id: bool) -> CliError {
    let mut text = chain(error).to_string();
    if count > 1 {
        text += &format!(
            "; {} of {} are stored",
            thousands(done),
            plural(count, "set")
        );
    }
    let again = match has_msg_id {
        true => {
            "run it again: with its --msg-id nothing is taken in twice within the idempotency window"
        }
        false => "it may be stored all the same; give a --msg-id to be able to run this again",
    };
    if error.is_of_lost_answer() || done > 0 {
        text += &format!("; {again}");
    }
    CliError::Failed(text)
}

/// Prints the sets without sending them.
fn show(subject: &str, sets: Vec<Set>, json: bool) -> Result<(), CliError> {
    let mut output = Output::new();
    for set in sets {
        let Set {
            id,
            msg_id,
            reminders,
            body,
        } = set;
        if json {
            output.json(
                &json!({ "dry_run": true, "subject": subject, "set": id, "msg_id": msg_id, "reminders": reminders,
                "bytes": body.len(), "body": body }),
            )?;
            continue;
        }
        let msg_id = msg_id.map_or_else(String::new, |id| format!(", Nats-Msg-Id {id}"));
        let (count, bytes) = (plural(reminders, "reminder"), thousands(body.len()));
        output.line(format!(
            "would publish to {subject}: {count}, {bytes} bytes{msg_id}"
        ))?;
        output.line(format!("  {}", short(&body, 200)))?;
    }
    output.flush()
}
