//! `bellhop rules put`: stores a document as the rules of a tag.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_nats::jetstream::kv::{CreateErrorKind, Entry};
use serde_json::json;

use super::documents::{Usable, entry, usable};
use super::lint::line;
use super::store::Size;
use super::test::failures;
use crate::cli::file::{Input, read};
use crate::cli::output::{Output, aside, plural, thousands};
use crate::cli::{CliError, SettingsArgs};
use crate::nats::{During, Nats, bucket, is_outdated};
use crate::rules::document::{Document, Rule};
use crate::token::Tag;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The document is linted and its tests are run first; with an error or a failed test nothing is \
stored. Every `bellhop serve` then uses it at once, without a restart.

Examples:
  bellhop rules put billing billing.json
  bellhop rules put billing billing.json --dry-run
  jq '.rules |= map(select(.name != \"old\"))' billing.json | bellhop rules put billing -"
)]
pub(in crate::cli) struct Args {
    /// The tag
    tag: Tag,
    /// The document; `-` is standard input
    file: PathBuf,
    /// Validate it and show what would change
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let input = read(&args.file)?;
    let usable = usable(&input)?;
    usable
        .warnings
        .iter()
        .for_each(|warning| aside(line(&input.name, warning)));
    failures(&input.name, &usable)?;
    let (_, nats) = settings.connect().await?;
    fits(&input, nats.client.max_payload())?;
    let before = entry(&nats, &args.tag).await?;
    let is_new = before
        .as_ref()
        .is_none_or(|before| before.value != input.bytes);
    let revision = match &before {
        Some(before) if !is_new => Some(before.revision),
        _ if args.dry_run => None,
        before => Some(store(&nats, &args.tag, input.bytes.clone(), before.as_ref()).await?),
    };
    report(&args, &usable, before.as_ref(), is_new, revision)
}

/// Maximum number of bytes of a message around a document.
const HEADER_BYTES: usize = 256;

fn fits(input: &Input, max_payload: usize) -> Result<(), CliError> {
    let (bytes, most) = (input.bytes.len(), max_payload - HEADER_BYTES);
    if bytes <= most {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "{} has {} bytes, and the server's max_payload leaves {} for a document; write it without spaces (`jq -c .`), give \
         reminders several tags with a document each, or raise max_payload in nats-server's configuration",
        input.name,
        thousands(bytes),
        thousands(most)
    )))
}

/// Stores the document in the place of exactly the one that was looked at.
async fn store(
    nats: &Nats,
    tag: &Tag,
    document: Vec<u8>,
    before: Option<&Entry>,
) -> Result<u64, CliError> {
    let rules = bucket::open(nats, nats.names.rules_bucket()).await?;
    let key = tag.escaped();
    let action = || format!("store the rules of {tag}");
    let stored = match before {
        Some(before) => match rules.update(key, document.into(), before.revision).await {
            Err(error) if is_outdated(&error) => None,
            stored => Some(stored.during_with(action)?),
        },
        None => match rules.create(key, document.into()).await {
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists || is_outdated(&error) => {
                None
            }
            stored => Some(stored.during_with(action)?),
        },
    };
    stored.ok_or_else(|| {
        CliError::Failed(format!(
            "{}: other rules were stored at the same moment: check them, and run this again",
            action()
        ))
    })
}

fn report(
    args: &Args,
    usable: &Usable,
    before: Option<&Entry>,
    is_new: bool,
    revision: Option<u64>,
) -> Result<(), CliError> {
    let Args {
        tag, dry_run, json, ..
    } = args;
    let size = Size::of(&usable.document);
    let changes = before.map(|before| match Document::parse(&before.value) {
        Ok(old) => changes(&old, &usable.document),
        Err(_) => vec!["in place of a document that could not be used".to_owned()],
    });
    let mut output = Output::new();
    if *json {
        output.json(&json!({ "tag": tag, "revision": revision, "replaced": before.map(|before| before.revision),
            "changed": is_new, "changes": changes, "size": size, "dry_run": dry_run }))?;
        return output.flush();
    }
    output.line(match (before, changes) {
        (Some(before), _) if !is_new => {
            format!(
                "tag {tag} has exactly these rules already, as revision {}",
                before.revision
            )
        }
        (before, changes) => {
            let stored = revision.map_or("would be stored".to_owned(), |revision| {
                format!("stored as revision {revision}")
            });
            let place = before.map_or(String::new(), |before| {
                format!(", in place of revision {}", before.revision)
            });
            let changes = changes.map_or(String::new(), |changes| changes.join(", ") + "; ");
            format!("rules of {tag} {stored}{place}: {changes}{size}")
        }
    })?;
    output.flush()
}

/// The most names that a change lists.
const MAX_NAMES: usize = 5;

/// Describes the differences between two documents.
fn changes(old: &Document, new: &Document) -> Vec<String> {
    let (before, after) = (by_name(old), by_name(new));
    let names = |from: &Document, is_meant: &dyn Fn(&str) -> bool| -> Vec<String> {
        from.rules
            .iter()
            .map(|rule| rule.name.clone())
            .filter(|name| is_meant(name))
            .collect()
    };
    let added = names(new, &|name| !before.contains_key(name));
    let removed = names(old, &|name| !after.contains_key(name));
    let changed = names(new, &|name| {
        before.get(name).is_some_and(|rule| after[name] != *rule)
    });
    let is_common = |name: &str| before.contains_key(name) && after.contains_key(name);
    let mut changes: Vec<String> = [
        ("+", added, ""),
        ("-", removed, ""),
        ("", changed, " changed"),
    ]
    .into_iter()
    .filter(|(_, names, _)| !names.is_empty())
    .map(|(sign, names, what)| {
        format!(
            "{sign}{}{what} ({})",
            plural(names.len(), "rule"),
            listed(&names)
        )
    })
    .collect();
    for (is_different, what) in [
        (
            names(old, &is_common) != names(new, &is_common),
            "another order of rules",
        ),
        (old.allow != new.allow, "other allowed text"),
        (old.matching != new.matching, "another `match`"),
        (
            old.pattern_mib != new.pattern_mib,
            "another limit of patterns",
        ),
        (old.tests != new.tests, "other tests"),
    ] {
        changes.extend(is_different.then(|| what.to_owned()));
    }
    if changes.is_empty() {
        changes.push("the same, in another notation".to_owned());
    }
    changes
}

fn by_name(document: &Document) -> BTreeMap<&str, &Rule> {
    document
        .rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule))
        .collect()
}

fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(MAX_NAMES)
        .map(|name| format!("{name:?}"))
        .collect();
    shown.join(", ") + if names.len() > MAX_NAMES { ", …" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(rules: &[(&str, &str)], more: &str) -> Document {
        let rule = |(name, word): &(&str, &str)| json!({ "name": name, "keywords": [word], "action": "block" });
        let mut document = json!({ "rules": rules.iter().map(rule).collect::<Vec<_>>() });
        let more: serde_json::Value = serde_json::from_str(more).unwrap();
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Document::parse(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn changes_are_described() {
        let old = document(&[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")], "{}");
        for (rules, more, expected) in [
            (
                &[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")][..],
                "{}",
                "the same, in another notation",
            ),
            (
                &[("a", "x"), ("c", "y"), ("d", "x"), ("e", "x")],
                "{}",
                r#"+1 rule ("e"), -1 rule ("b"), 1 rule changed ("c")"#,
            ),
            (
                &[("b", "x"), ("a", "x"), ("d", "x"), ("c", "x")],
                "{}",
                "another order of rules",
            ),
            (&[], "{}", r#"-4 rules ("a", "b", "c", "d")"#),
            (
                &[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")],
                r#"{"allow":["p"],"match":{"words":"on"},"tests":[{"content":"c","expect":{}}]}"#,
                "other allowed text, another `match`, other tests",
            ),
        ] {
            assert_eq!(changes(&old, &document(rules, more)).join(", "), expected);
        }
        assert_eq!(
            listed(&["a", "b", "c", "d", "e", "f"].map(String::from)),
            r#""a", "b", "c", "d", "e", …"#
        );
    }

    #[test]
    fn a_document_must_fit_into_a_message() {
        let input = |bytes| Input {
            name: "x.json".into(),
            bytes: vec![b' '; bytes],
        };
        assert!(fits(&input(1_024 - HEADER_BYTES), 1_024).is_ok());
        let refused = fits(&input(1_024), 1_024).unwrap_err().to_string();
        assert!(
            refused.starts_with("x.json has 1,024 bytes, and the server's max_payload leaves 768 "),
            "{refused}"
        );
    }
}
