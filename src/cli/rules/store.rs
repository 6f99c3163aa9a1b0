//! `bellhop rules ls | get | rm`: what the bucket of rules holds.

use std::fmt;
use std::io::IsTerminal;

use serde::Serialize;
use serde_json::json;

use super::documents::stored;
use crate::cli::output::{Listing, Output, confirm, plural, short, thousands, time};
use crate::cli::scan::{Stored, scan_bucket};
use crate::cli::{CliError, SettingsArgs};
use crate::nats::{During, bucket};
use crate::rules::document::Document;
use crate::rules::engine::Engine;
use crate::token::Tag;

/// The size of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Size {
    pub(super) rules: usize,
    pub(super) keywords: usize,
    pub(super) patterns: usize,
}

impl Size {
    pub(super) fn of(document: &Document) -> Self {
        let rules = &document.rules;
        Self {
            rules: rules.len(),
            keywords: rules.iter().map(|rule| rule.keywords.len()).sum(),
            patterns: rules.iter().map(|rule| rule.patterns.len()).sum(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rules,
            keywords,
            patterns,
        } = *self;
        write!(
            f,
            "{}, {}, {}",
            plural(rules, "rule"),
            plural(keywords, "keyword"),
            plural(patterns, "pattern")
        )
    }
}

/// Reads an entry of the bucket, and finds out whether `bellhop serve` can use it.
pub(in crate::cli) fn look(key: &str, value: &[u8]) -> (String, Result<Size, String>) {
    let tag = match Tag::from_token(key) {
        Ok(tag) => tag,
        Err(error) => {
            return (
                key.to_owned(),
                Err(format!("the key is not a tag: {error}")),
            );
        }
    };
    let document =
        Document::parse(value).and_then(|document| Engine::new(&document).map(|_| document));
    let first = |problems: Vec<_>| {
        problems
            .first()
            .map_or_else(String::new, ToString::to_string)
    };
    (
        tag.to_string(),
        document.map(|document| Size::of(&document)).map_err(first),
    )
}

pub(super) async fn ls(settings: &SettingsArgs, json: bool) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    let columns = [
        "tag", "rules", "keywords", "patterns", "bytes", "revision", "updated", "state",
    ];
    let mut listing = Listing::new(json, &columns);
    let (mut good, mut bad) = (0, 0);
    scan_bucket(
        &nats,
        &nats.names.rules_bucket(),
        ">",
        |key,
         Stored {
             sequence,
             at,
             message,
         }| {
            let (tag, size) = look(key, &message.payload);
            let bytes = message.payload.len();
            let (counts, state) = match &size {
                Ok(size) => (Some(*size), "ok".to_owned()),
                Err(problem) => (None, format!("cannot be used: {}", short(problem, 80))),
            };
            *(if size.is_ok() { &mut good } else { &mut bad }) += 1;
            let mut item =
                json!({ "tag": tag, "bytes": bytes, "revision": sequence, "updated": at });
            match size {
                Ok(Size {
                    rules,
                    keywords,
                    patterns,
                }) => {
                    (item["rules"], item["keywords"], item["patterns"]) =
                        (rules.into(), keywords.into(), patterns.into());
                }
                Err(problem) => item["problem"] = problem.into(),
            }
            let count =
                |of: fn(Size) -> usize| counts.map_or_else(String::new, |size| thousands(of(size)));
            let [rules, keywords, patterns] = [
                |s: Size| s.rules,
                |s: Size| s.keywords,
                |s: Size| s.patterns,
            ]
            .map(count);
            let (revision, updated) = (sequence.to_string(), time(at));
            listing.add(&item, || {
                [
                    tag,
                    rules,
                    keywords,
                    patterns,
                    thousands(bytes),
                    revision,
                    updated,
                    state,
                ]
            })
        },
    )
    .await?;
    let ignored = if bad == 0 {
        String::new()
    } else {
        format!(", and {} that cannot be used", thousands(bad))
    };
    listing.finish(
        "no tag has rules",
        Some(format!("{}{ignored}", plural(good, "document"))),
    )
}

pub(super) async fn get(settings: &SettingsArgs, tag: &Tag, json: bool) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    let document = stored(&nats, tag).await?.bytes;
    let mut output = Output::new();
    if json || !std::io::stdout().is_terminal() {
        output.bytes(&document)?;
        return output.flush();
    }
    let text = String::from_utf8_lossy(&document);
    let text = text.trim_end();
    // One that a person has laid out stays as it is.
    output.untrusted(
        if text.contains('\n') {
            text.to_owned()
        } else {
            laid_out(text)
        }
        .as_bytes(),
    )?;
    output.line("")?;
    output.flush()
}

/// JSON with a line for each field and each item, in its own order. Text that is not JSON is
/// printed, too.
fn laid_out(json: &str) -> String {
    let (mut out, mut depth, mut in_text, mut is_escaped) = (String::new(), 0usize, false, false);
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    for c in json.chars() {
        let was_open = out.ends_with(['{', '[']) && !in_text;
        match c {
            _ if in_text => out.push(c),
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                out.extend((!was_open).then(|| line(depth)));
                out.push(c);
            }
            _ => {
                out.extend(was_open.then(|| line(depth)));
                out.push(c);
                match c {
                    '{' | '[' => depth += 1,
                    ',' => out += &line(depth),
                    ':' => out.push(' '),
                    _ => {}
                }
            }
        }
        in_text ^= c == '"' && !is_escaped;
        is_escaped = in_text && c == '\\' && !is_escaped;
    }
    out
}

pub(super) async fn rm(
    settings: &SettingsArgs,
    tag: &Tag,
    force: bool,
    json: bool,
) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    stored(&nats, tag).await?;
    confirm(
        &format!("Delete the rules of {tag}? Reminders with this tag then pass untouched."),
        force,
    )?;
    let rules = bucket::open(&nats, nats.names.rules_bucket()).await?;
    let deleted = rules.delete(tag.escaped()).await;
    deleted.during_with(|| format!("delete the rules of {tag}"))?;
    Output::tell(
        json,
        &json!({ "tag": tag, "deleted": true }),
        format!("tag {tag} has no rules any more"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_json_is_indented_in_order() {
        let json = r#"{"z":[],"a":[{"t":"{\"[:, é\\"},-1.50],"e":{ }}"#;
        let expected = r#"{
  "z": [],
  "a": [
    {
      "t": "{\"[:, é\\"
    },
    -1.50
  ],
  "e": {}
}"#;
        assert_eq!(laid_out(json), expected);
        assert_eq!(laid_out("]\"x["), "\n]\"x[");
    }
}
