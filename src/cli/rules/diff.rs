//! `bellhop rules diff`: which of many texts another document would change.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::documents::{Place, stored, tag_of, usable};
use super::texts::{self, Text};
use crate::cli::file::{read, read_text};
use crate::cli::marked::Marks;
use crate::cli::output::{BAD, GOOD, Output, Progress, paint, plain, plural, thousands};
use crate::cli::{CliError, SettingsArgs};
use crate::rules::Rules;
use crate::rules::trial::{Sample, TrialResult};
use crate::token::Tag;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The input has one text in each line, or reminders as `bellhop publish` takes them: a set, a list, or one in each line; \
their own tags do not count. For each text that changes, both results are shown.

Examples:
  bellhop rules diff @billing billing.json --over texts.txt         what `rules put billing billing.json` would change
  bellhop rules diff @billing @vip --over reminders.jsonl --json | jq -r 'select(.new.verdict == \"blocked\") | .place'
  git show HEAD:billing.json | bellhop rules diff - billing.json --over texts.txt --exit-code"
)]
pub(in crate::cli) struct Args {
    /// The current document: a file, or @TAG for a stored one
    #[arg(value_name = "OLD")]
    old: Place,
    /// The new document
    #[arg(value_name = "NEW")]
    new: Place,
    /// The texts; `-` is standard input
    #[arg(long, value_name = "FILE")]
    over: PathBuf,
    /// Exit with code 1 if any text changes
    #[arg(long)]
    exit_code: bool,
    /// Print JSON: a line for each text that changes, and one with the count
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let tags = [tag(&args)];
    let old = rules(settings, &args.old, &tags[0]).await?;
    let new = rules(settings, &args.new, &tags[0]).await?;
    let texts = texts::read(&read_text(&args.over)?)
        .map_err(|problem| CliError::Failed(format!("{}: {problem}", args.over.display())))?;
    let (mut output, marks, mut progress) = (Output::new(), Marks::of_output(), Progress::new());
    let mut changed = 0;
    for (at, Text { place, sample }) in texts.iter().enumerate() {
        progress.tell(|| format!("{} of {}", thousands(at), plural(texts.len(), "text")));
        let [before, after] = [&old, &new].map(|rules| sample.result(rules, &tags));
        if before == after {
            continue;
        }
        changed += 1;
        if args.json {
            output.json(&json!({ "place": place, "text": sample, "old": before, "new": after }))?;
            continue;
        }
        let place = if place.is_empty() {
            "the reminder".to_owned()
        } else {
            plain(place)
        };
        output.painted(paint(Style::new().bold(), place))?;
        for (sign, style, result) in [
            ("-", AnsiColor::Red.on_default(), &before),
            ("+", GOOD, &after),
        ] {
            let sign = paint(style, sign);
            shown(result, sample, marks)
                .iter()
                .try_for_each(|line| output.painted(format!("{sign} {line}")))?;
        }
    }
    drop(progress);
    if args.json {
        output.json(&json!({ "texts": texts.len(), "changed": changed }))?;
    } else {
        let verb = if changed == 1 { "changes" } else { "change" };
        output.line(format!(
            "{} of {} {verb}",
            thousands(changed),
            plural(texts.len(), "text")
        ))?;
    }
    output.flush()?;
    if args.exit_code && changed > 0 {
        Err(CliError::Reported)
    } else {
        Ok(())
    }
}

fn shown(result: &TrialResult, sample: &Sample, marks: Marks) -> Vec<String> {
    match result {
        TrialResult::Delivered(delivered) => {
            let lines = marks.delivered(delivered, sample.priority);
            lines
                .iter()
                .flat_map(|line| line.split('\n').map(ToOwned::to_owned))
                .collect()
        }
        result => vec![paint(BAD, plain(&format!("not delivered: {result}")))],
    }
}

async fn rules(settings: &SettingsArgs, place: &Place, tag: &Tag) -> Result<Rules, CliError> {
    let input = match place {
        Place::File(file) => read(file)?,
        Place::Stored(tag) => {
            let (_, nats) = settings.connect().await?;
            stored(&nats, tag).await?
        }
    };
    Ok(Rules::default().with(tag.clone(), Some(usable(&input)?.engine)))
}

/// The tag that stands in marks: both documents are tried as the rules of one tag.
fn tag(args: &Args) -> Tag {
    let named = |place: &Place| match place {
        Place::Stored(tag) => Some(tag.clone()),
        Place::File(file) => tag_of(file),
    };
    named(&args.old)
        .or_else(|| named(&args.new))
        .unwrap_or_else(|| "rules".to_owned().try_into().expect("a tag"))
}
