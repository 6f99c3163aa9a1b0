//! `bellhop rejected`: input that was refused, and how it comes back.

mod requeue;

use std::collections::VecDeque;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::output::{Listing, Output, plain, plural, short, time};
use super::scan::{Stored, scan, timestamp};
use super::{CliError, SettingsArgs};
use crate::headers;
use crate::nats::{During, Nats, NatsError};
use crate::reminder::reject::RejectCode;
use crate::token::{Source, unescape};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List refused sets and reminders, the newest first
    #[command(after_help = "Examples:
  bellhop rejected ls --source billing
  bellhop rejected ls --code invalid_user --json | jq -r '.[].detail'")]
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// Maximum number to show
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one message: its headers, and its body as it was published
    #[command(after_help = "Examples:
  bellhop rejected info 7
  bellhop rejected info 7 --body > fixed.json; $EDITOR fixed.json
  bellhop rejected requeue 7 --body fixed.json")]
    Info {
        /// Its sequence, from `rejected ls`
        #[arg(value_name = "SEQ")]
        sequence: u64,
        /// Print the body alone, byte for byte
        #[arg(long, conflicts_with = "json")]
        body: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish refused input again, and delete it here once it is stored
    Requeue(requeue::Args),
}

/// The selected messages.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Filter {
    /// Only those of this source
    #[arg(long)]
    source: Option<Source>,
    /// Only those refused for this reason
    #[arg(long, value_parser = PossibleValuesParser::new(RejectCode::ALL.iter().map(|code| code.as_str())), hide_possible_values = true)]
    code: Option<String>,
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    match command {
        Command::Ls {
            filter,
            limit,
            json,
        } => ls(&nats, &filter, limit as usize, json).await,
        Command::Info {
            sequence,
            body,
            json,
        } => info(&nats, sequence, body, json).await,
        Command::Requeue(args) => requeue::run(&nats, args).await,
    }
}

/// A refused message, by its headers.
#[derive(Debug, Clone, Serialize)]
struct Refused {
    sequence: u64,
    time: Timestamp,
    source: String,
    code: String,
    detail: String,
    /// The set that a refused reminder came in. A set that was refused whole has none.
    set: Option<String>,
    /// Its id, if it is a reminder.
    id: Option<String>,
}

impl Refused {
    fn new<'a>(
        sequence: u64,
        time: Timestamp,
        subject: &str,
        header: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Self {
        let token = subject.rsplit('.').next().unwrap_or_default();
        let text = |name| header(name).unwrap_or_default().to_owned();
        Self {
            sequence,
            time,
            // The token may be why it was refused.
            source: unescape(token).unwrap_or_else(|_| token.to_owned()),
            code: text(headers::ERROR),
            detail: text(headers::ERROR_DETAIL),
            set: header(headers::SET).map(ToOwned::to_owned),
            id: header(headers::ID).map(ToOwned::to_owned),
        }
    }

    fn of(message: &StreamMessage) -> Self {
        let header = |name| message.headers.get(name).map(|value| value.as_str());
        Self::new(
            message.sequence,
            timestamp(message.time.unix_timestamp_nanos()),
            &message.subject,
            header,
        )
    }
}

impl Filter {
    /// Passes the refused messages from a sequence on to `each`, the oldest first.
    async fn scan(
        &self,
        nats: &Nats,
        from: u64,
        mut each: impl FnMut(Refused),
    ) -> Result<(), CliError> {
        let subject = self
            .source
            .as_ref()
            .map(|source| nats.names.rejected(&source.escaped()));
        let config = pull::Config {
            filter_subject: subject.unwrap_or_else(|| nats.names.all_rejected()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.max(1),
            },
            headers_only: true,
            ..pull::Config::default()
        };
        scan(
            nats,
            &nats.names.rejected_stream(),
            config,
            |stored: Stored<'_>| {
                let refused = Refused::new(
                    stored.sequence,
                    stored.at,
                    &stored.message.subject,
                    |name| stored.header(name),
                );
                if self.code.as_ref().is_none_or(|code| *code == refused.code) {
                    each(refused);
                }
                Ok(())
            },
        )
        .await
    }

    /// The newest of them, oldest first. The stream is read from ever further back until there are
    /// enough.
    async fn newest(&self, nats: &Nats, limit: usize) -> Result<VecDeque<Refused>, CliError> {
        let state = stream(nats).await?.cached_info().state.clone();
        let mut window = 4 * limit as u64;
        loop {
            let from = (state.last_sequence + 1).saturating_sub(window);
            let mut newest = VecDeque::new();
            self.scan(nats, from, |refused| {
                newest.push_back(refused);
                if newest.len() > limit {
                    newest.pop_front();
                }
            })
            .await?;
            if newest.len() == limit || from <= state.first_sequence {
                return Ok(newest);
            }
            window = window.saturating_mul(8);
        }
    }
}

async fn stream(nats: &Nats) -> Result<Stream, NatsError> {
    let name = nats.names.rejected_stream();
    nats.jetstream
        .get_stream(&name)
        .await
        .during_with(|| format!("open stream {name}"))
}

async fn message(stream: &Stream, sequence: u64) -> Result<StreamMessage, CliError> {
    stream
        .get_raw_message(sequence)
        .await
        .map_err(|error| match error.kind() {
            RawMessageErrorKind::NoMessageFound => CliError::Failed(format!(
                "nothing refused has sequence {sequence}; `bellhop rejected ls` shows what there is"
            )),
            _ => NatsError::failed(format!("read refused message {sequence}"), error).into(),
        })
}

async fn ls(nats: &Nats, filter: &Filter, limit: usize, json: bool) -> Result<(), CliError> {
    let mut listing = Listing::new(json, &["seq", "time", "source", "id", "code", "detail"]);
    let newest = filter.newest(nats, limit).await?;
    let more = (newest.len() == limit).then(|| {
        format!(
            "the newest {}; --limit N shows more",
            plural(limit, "message")
        )
    });
    for refused in newest.into_iter().rev() {
        let Refused {
            sequence,
            time: at,
            source,
            id,
            code,
            detail,
            ..
        } = &refused;
        listing.add(&refused, || {
            [
                sequence.to_string(),
                time(*at),
                source.clone(),
                id.clone().unwrap_or_default(),
                code.clone(),
                short(detail, 100),
            ]
        })?;
    }
    listing.finish("nothing is rejected", more)
}

async fn info(nats: &Nats, sequence: u64, body_alone: bool, json: bool) -> Result<(), CliError> {
    let message = message(&stream(nats).await?, sequence).await?;
    let mut output = Output::new();
    if body_alone {
        output.bytes(&message.payload)?;
        return output.flush();
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, values) in message.headers.iter() {
        headers.extend(
            values
                .iter()
                .map(|value| (name.to_string(), value.to_string())),
        );
    }
    headers.sort();
    if json {
        let mut value =
            serde_json::to_value(Refused::of(&message)).expect("it has only string keys");
        value["subject"] = message.subject.as_str().into();
        value["headers"] = headers
            .into_iter()
            .map(|(name, value)| (name, Value::from(value)))
            .collect::<Map<_, _>>()
            .into();
        // Bytes that are not text are shown in hexadecimal digits: JSON cannot hold them.
        match std::str::from_utf8(&message.payload) {
            Ok(text) => value["body"] = text.into(),
            Err(_) => {
                value["body_hex"] = message
                    .payload
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
                    .into()
            }
        }
        output.json(&value)?;
        return output.flush();
    }
    let Refused {
        time: at,
        source,
        code,
        detail,
        set,
        ..
    } = Refused::of(&message);
    output.line(format!(
        "{sequence} of {}, refused {}",
        plain(&source),
        time(at)
    ))?;
    output.line(format!("{code}: {}", plain(&detail)))?;
    let meaning = RejectCode::ALL
        .iter()
        .find(|known| known.as_str() == code)
        .map(|code| code.meaning());
    meaning
        .iter()
        .try_for_each(|meaning| output.line(meaning))?;
    match set {
        Some(set) => output.line(format!("a reminder of set {}, refused alone", plain(&set)))?,
        None => output.line("refused as a whole")?,
    }
    output.line("")?;
    headers
        .iter()
        .try_for_each(|(name, value)| output.line(format!("{name}: {}", plain(value))))?;
    output.line("")?;
    output.untrusted(&message.payload)?;
    output.line("")?;
    output.flush()
}
