//! `bellhop rules try`: what would become of a text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::documents::{entry, input, no_rules, tag_of, usable};
use crate::cli::file::{read, read_text};
use crate::cli::marked::Marks;
use crate::cli::output::{BAD, Output, Table, complain, paint, plain, short};
use crate::cli::{CliError, SettingsArgs};
use crate::reminder::{Field, Priority};
use crate::rules::Rules;
use crate::rules::engine::Engine;
use crate::rules::trial::{Finding, Sample, TrialResult};
use crate::token::Tag;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Below the text are all matches of the rules, with their position in characters. If several \
documents apply, each sees the text as the one before left it.

Examples:
  bellhop rules try --tag billing 'Invoice 981 is due'             the rules that are stored
  bellhop rules try --file billing.json 'Invoice 981 is due'       a document that is not stored yet
  bellhop rules try --tag billing --tag vip --file billing=new.json - < text.txt"
)]
pub(in crate::cli) struct Args {
    /// The text; `-` is standard input
    text: String,
    /// A tag of the reminder, whose stored rules apply; may be repeated, and the order counts
    #[arg(long = "tag", value_name = "TAG", required_unless_present = "files")]
    tags: Vec<Tag>,
    /// A document to use instead of the stored one; its tag is the only --tag, or the file's name
    #[arg(long = "file", value_name = "[TAG=]FILE")]
    files: Vec<String>,
    /// The reminder's title
    #[arg(long)]
    title: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let (tags, rules) = rules(settings, &args).await?;
    let content = match args.text.as_str() {
        "-" => {
            let text = read_text(Path::new("-"))?;
            text.strip_suffix('\n').unwrap_or(&text).to_owned()
        }
        text => text.to_owned(),
    };
    let sample = Sample {
        title: args.title.clone(),
        ..Sample::of(content)
    };
    let (result, findings) = (sample.result(&rules, &tags), sample.findings(&rules, &tags));
    let mut output = Output::new();
    if args.json {
        let mut shown = serde_json::to_value(&result).expect("a result is valid JSON");
        shown["found"] = json!(findings);
        output.json(&shown)?;
        return output.flush();
    }
    match &result {
        TrialResult::Delivered(delivered) => {
            Marks::of_output()
                .delivered(delivered, Priority::default())
                .iter()
                .try_for_each(|line| output.painted(line))?;
        }
        TrialResult::Blocked { tag, rule } => {
            output.painted(paint(
                BAD,
                plain(&format!(
                    "not delivered: blocked by rule {rule:?} of tag {tag}"
                )),
            ))?;
        }
        TrialResult::Rejected { problem } => {
            output.painted(paint(BAD, plain(&format!("not delivered: {problem}"))))?
        }
    }
    output.line("")?;
    table(&findings)
        .iter()
        .try_for_each(|line| output.line(line))?;
    output.flush()
}

fn table(findings: &[Finding]) -> Vec<String> {
    if findings.is_empty() {
        return vec!["no rule found anything".to_owned()];
    }
    let mut table = Table::new(&["tag", "rule", "action", "found", "where"]);
    for Finding {
        tag,
        rule,
        action,
        field,
        text,
        start,
        end,
        breaks_address,
    } in findings
    {
        let field = if *field == Field::Title {
            "title"
        } else {
            "content"
        };
        let address = if *breaks_address {
            " (changes an address)"
        } else {
            ""
        };
        let place = format!("{field} {start}..{end}{address}");
        table.row(&[
            tag.to_string(),
            rule.clone(),
            (*action).to_owned(),
            short(text, 40),
            place,
        ]);
    }
    table.lines()
}

/// The documents that apply: those in files, and for all other tags the stored ones.
async fn rules(settings: &SettingsArgs, args: &Args) -> Result<(Vec<Tag>, Rules), CliError> {
    let files = args
        .files
        .iter()
        .map(|file| named_file(file, &args.tags))
        .collect::<Result<Vec<_>, _>>()?;
    let mut tags = args.tags.clone();
    for (tag, _) in &files {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    let mut engines: BTreeMap<Tag, Arc<Engine>> = BTreeMap::new();
    for (tag, file) in files {
        engines.insert(tag, usable(&read(&file)?)?.engine);
    }
    let missing: Vec<_> = tags
        .iter()
        .filter(|tag| !engines.contains_key(*tag))
        .collect();
    if !missing.is_empty() {
        let (_, nats) = settings.connect().await?;
        for tag in missing {
            match entry(&nats, tag).await? {
                Some(entry) => _ = engines.insert(tag.clone(), usable(&input(tag, entry))?.engine),
                None => complain(no_rules(tag)),
            }
        }
    }
    Ok((tags, Rules::new(engines)))
}

/// `TAG=FILE`, or a file that is the document of the only tag, or of the tag that it is named
/// after.
fn named_file(text: &str, tags: &[Tag]) -> Result<(Tag, PathBuf), CliError> {
    if let Some((tag, file)) = text.split_once('=').filter(|_| !Path::new(text).exists()) {
        let tag = tag
            .parse()
            .map_err(|error| CliError::Usage(format!("--file {text}: the tag {error}")))?;
        return Ok((tag, file.into()));
    }
    let tag = match tags {
        [only] => Some(only.clone()),
        _ => tag_of(Path::new(text)),
    };
    let unknown = || {
        CliError::Usage(format!(
            "--file {text}: whose rules are these? Write --file TAG={text}"
        ))
    };
    Ok((tag.ok_or_else(unknown)?, text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_document_of_a_tag() {
        let tags = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.parse().unwrap())
                .collect::<Vec<Tag>>()
        };
        for (text, given, expected) in [
            ("vip=a/b.json", &["billing"][..], ("vip", "a/b.json")),
            ("a/b.json", &["billing"], ("billing", "a/b.json")),
            ("a/b.json", &["billing", "vip"], ("b", "a/b.json")),
            ("a/b.json", &[], ("b", "a/b.json")),
        ] {
            let (tag, file) = named_file(text, &tags(given)).unwrap();
            assert_eq!(
                (tag.as_str(), file.to_str().unwrap()),
                expected,
                "{text} {given:?}"
            );
        }
        assert!(matches!(named_file("-", &[]), Err(CliError::Usage(_))));
        assert!(matches!(named_file("=x", &[]), Err(CliError::Usage(_))));
    }
}
