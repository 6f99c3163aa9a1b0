//! `bellhop rejected requeue`: gives refused input back to the intake.

use std::collections::HashMap;
use std::hash::Hasher;
use std::path::PathBuf;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Stream;
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::json;
use siphasher::sip::SipHasher13;

use super::{Filter, Refused, message, stream};
use crate::cli::CliError;
use crate::cli::file::read;
use crate::cli::output::{Output, complain, plural};
use crate::headers;
use crate::nats::headers::of_publisher;
use crate::nats::{self, Nats, NatsError, chain};
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::set::{self, Origin};
use crate::token::Source;
use crate::wire::cloud_event::{self, Published};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A set that was refused as a whole is published unchanged, with its publisher's headers; a reminder that was \
refused alone becomes a set of its own. A header tells Bellhop that these reminders are not redeliveries. Once JetStream has stored it, the refused message \
is deleted. A message that would be refused again is left where it is.

Examples:
  bellhop rejected requeue 7 9
  bellhop rejected requeue --all --code mailbox_full
  bellhop rejected info 7 --body > fixed.json; $EDITOR fixed.json
  bellhop rejected requeue 7 --body fixed.json"
)]
pub(in crate::cli) struct Args {
    /// Sequences, from `rejected ls`
    #[arg(value_name = "SEQ", required_unless_present = "all", conflicts_with_all = ["all", "source", "code"])]
    sequences: Vec<u64>,
    /// All current ones, the oldest first, or those of --source and --code
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Publish the content of this file in place of the refused message: a set, one reminder, or a
    /// CloudEvent in JSON
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    body: Option<PathBuf>,
    /// Keep the refused message
    #[arg(long)]
    keep: bool,
    /// Publish even if it would be refused again
    #[arg(short, long)]
    force: bool,
    /// Print JSON: one line for each
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(nats: &Nats, args: Args) -> Result<(), CliError> {
    let fixed = match &args.body {
        Some(_) if args.sequences.len() != 1 => {
            return Err(CliError::Usage(
                "--body takes the place of one refused message: name one SEQ".to_owned(),
            ));
        }
        Some(file) => Some(Bytes::from(read(file)?.bytes)),
        None => None,
    };
    let stream = stream(nats).await?;
    let mut sequences = args.sequences.clone();
    if args.all {
        args.filter
            .scan(nats, 1, |refused| sequences.push(refused.sequence))
            .await?;
    }
    let (mut output, mut failed) = (Output::new(), 0);
    for &sequence in &sequences {
        match requeue(nats, &stream, sequence, fixed.clone(), &args).await {
            Ok(done) => done.print(&mut output, args.json)?,
            Err(error) if sequences.len() == 1 => return Err(error),
            Err(error) => {
                complain(format_args!("{sequence}: {}", chain(&error)));
                failed += 1;
            }
        }
    }
    if sequences.is_empty() && !args.json {
        output.line("nothing is rejected, so nothing was requeued")?;
    }
    output.flush()?;
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Failed(format!(
            "{failed} of {} not requeued",
            plural(sequences.len(), "message")
        ))),
    }
}

/// A message that was published again.
struct Done {
    sequence: u64,
    source: Source,
    set_sequence: u64,
    is_duplicate: bool,
    is_deleted: bool,
}

impl Done {
    fn print(&self, output: &mut Output, json: bool) -> Result<(), CliError> {
        let Self {
            sequence,
            source,
            set_sequence,
            is_duplicate,
            is_deleted,
        } = self;
        if json {
            output.json(
                &json!({ "sequence": sequence, "source": source, "set_sequence": set_sequence,
                "duplicate": is_duplicate, "deleted": is_deleted }),
            )?;
        } else {
            let how = if *is_duplicate {
                "was requeued before"
            } else {
                "requeued"
            };
            let kept = if *is_deleted { "" } else { ", and kept" };
            output.line(format!(
                "{sequence} {how} as set {set_sequence} of {source}{kept}"
            ))?;
        }
        output.flush()
    }
}

async fn requeue(
    nats: &Nats,
    stream: &Stream,
    sequence: u64,
    fixed: Option<Bytes>,
    args: &Args,
) -> Result<Done, CliError> {
    let message = message(stream, sequence).await?;
    let source = source(&message)?;
    let (mut headers, body) = match fixed {
        Some(fixed) => replaced(&message, fixed),
        None if message.headers.get(headers::SET).is_none() => {
            (of_publisher(&message.headers), message.payload.clone())
        }
        None => (HeaderMap::new(), set_of(&message.payload)),
    };
    if !args.force {
        check(&source, &headers, &body)?;
    }
    headers.insert(headers::REQUEUE, sequence.to_string());
    // Should the deletion fail and this be run again, it is taken in once. Publishers do not know
    // the time, and so not the id.
    let refused_ns = message.time.unix_timestamp_nanos();
    headers.insert(
        header::NATS_MESSAGE_ID,
        format!("requeue {sequence} {refused_ns} {:016x}", hash(&body)),
    );
    let ack = nats.store(nats.names.sets(&source), headers, body).await?;
    if !args.keep {
        stream.delete_message(sequence).await.map_err(|error| {
            NatsError::failed(
                format!(
                    "requeued as set {}, but not deleted here: run it again",
                    ack.sequence
                ),
                error,
            )
        })?;
    }
    let (set_sequence, is_duplicate) = (ack.sequence, ack.duplicate);
    Ok(Done {
        sequence,
        source,
        set_sequence,
        is_duplicate,
        is_deleted: !args.keep,
    })
}

/// Returns the replacement of a refused message. It is a CloudEvent as far as the message was one
/// whose headers are right.
fn replaced(message: &StreamMessage, fixed: Bytes) -> (HeaderMap, Bytes) {
    let headers = of_publisher(&message.headers);
    let others = headers
        .iter()
        .filter(|(name, _)| !cloud_event::is_about_events(name.as_ref()));
    let mut plain: HeaderMap = others
        .flat_map(|(name, values)| Some((name.clone(), values.first()?.clone())))
        .collect();
    if has_field(&fixed, "specversion") {
        plain.insert("Content-Type", cloud_event::STRUCTURED);
        return (plain, fixed);
    }
    let body = if has_field(&fixed, "reminders") {
        fixed
    } else {
        set_of(&fixed)
    };
    let is_right = Published::read(|name| nats::header(Some(&headers), name), &body)
        .set
        .is_ok();
    (if is_right { headers } else { plain }, body)
}

/// Returns the message's source, if it can be published again at all.
fn source(message: &StreamMessage) -> Result<Source, CliError> {
    let Refused { sequence, code, .. } = Refused::of(message);
    if code == RejectCode::CorruptEvent.as_str() {
        let problem =
            "it was never published: it is an unreadable message of Bellhop's own streams";
        return Err(CliError::Failed(problem.to_owned()));
    }
    let token = message.subject.rsplit('.').next().unwrap_or_default();
    Source::from_token(token).map_err(|error| {
        CliError::Failed(format!(
            "its subject {} names no source ({error}); publish it under a right one: \
             bellhop rejected info {sequence} --body | bellhop publish - --source S",
            message.subject
        ))
    })
}

/// A set of one reminder, which keeps its bytes.
fn set_of(reminder: &[u8]) -> Bytes {
    [br#"{"reminders":["#, reminder.trim_ascii(), b"]}"]
        .concat()
        .into()
}

fn has_field(body: &[u8], name: &str) -> bool {
    serde_json::from_slice::<HashMap<String, IgnoredAny>>(body)
        .is_ok_and(|fields| fields.contains_key(name))
}

/// Finds out what the intake would say.
fn check(source: &Source, headers: &HeaderMap, body: &[u8]) -> Result<(), CliError> {
    let origin = Origin {
        source: source.clone(),
        sequence: u64::MAX,
        published_at: Timestamp::now(),
    };
    let refused = |place: String, rejection: &dyn std::fmt::Display| {
        CliError::Failed(format!(
            "left where it is, since it would be refused again: {place}{rejection}; fix it with --body FILE"
        ))
    };
    let published = Published::read(|name| nats::header(Some(headers), name), body);
    let set = published
        .set
        .as_ref()
        .map_err(Rejection::clone)
        .and_then(|set| set::parse(&origin, set));
    let set = set.map_err(|rejection| refused(String::new(), &rejection))?;
    for (index, candidate) in set.reminders.iter().enumerate() {
        if let Err(set::Refused { rejection, .. }) = &candidate.parsed {
            return Err(refused(format!("reminders[{index}]: "), rejection));
        }
    }
    Ok(())
}

fn hash(body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_reminder_becomes_a_set() {
        assert_eq!(
            set_of(b" {\"user\":\"a\",  \"n\":1.50}\n"),
            r#"{"reminders":[{"user":"a",  "n":1.50}]}"#
        );
    }

    #[test]
    fn sets_and_reminders_are_distinguished() {
        assert!(has_field(br#"{"id":"x","reminders":7}"#, "reminders"));
        for body in [
            "{\"user\":\"reminders\"}",
            "[\"reminders\"]",
            "not json",
            "7",
            "",
        ] {
            assert!(!has_field(body.as_bytes(), "reminders"), "{body}");
        }
    }

    #[test]
    fn repeated_refusal_is_predicted() {
        let source = "billing".parse().unwrap();
        let (plain, mut event) = (HeaderMap::new(), HeaderMap::new());
        event.insert("content-type", cloud_event::STRUCTURED);
        assert!(
            check(
                &source,
                &plain,
                br#"{"reminders":[{"user":"a","content":"c"}]}"#
            )
            .is_ok()
        );
        assert!(
            check(
                &source,
                &event,
                br#"{"reminders":[{"user":"a","content":"c"}]}"#
            )
            .is_err()
        );
        for body in [
            "not json",
            "{}",
            r#"{"reminders":[]}"#,
            r#"{"reminders":[{"user":"a"}]}"#,
        ] {
            assert!(check(&source, &plain, body.as_bytes()).is_err(), "{body}");
        }
    }
}
