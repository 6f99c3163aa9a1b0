//! Finds documents: in files, on standard input, and in the bucket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::jetstream::kv::{Entry, Operation};

use super::lint::line;
use crate::cli::CliError;
use crate::cli::file::Input;
use crate::cli::output::{aside, plural};
use crate::nats::{During, Nats, bucket};
use crate::rules::document::Document;
use crate::rules::engine::Engine;
use crate::rules::lint::{Lint, lint};
use crate::rules::problem::Problem;
use crate::token::Tag;

/// A document that can be used.
pub(super) struct Usable {
    pub(super) document: Document,
    pub(super) engine: Arc<Engine>,
    pub(super) warnings: Vec<Problem>,
}

/// Reads a document. Its errors are printed on standard error.
pub(super) fn usable(input: &Input) -> Result<Usable, CliError> {
    let Lint { problems, usable } = lint(&input.bytes);
    match usable {
        Some((document, engine)) => Ok(Usable {
            document,
            engine,
            warnings: problems,
        }),
        None => {
            problems
                .iter()
                .for_each(|problem| aside(line(&input.name, problem)));
            Err(CliError::Failed(format!(
                "{} has {} and cannot be used",
                input.name,
                plural(problems.len(), "error")
            )))
        }
    }
}

/// A document on the command line: a file, or `@` and a tag whose rules are stored.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Stored(Tag),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some(tag) => tag
                .parse()
                .map(Self::Stored)
                .map_err(|error| format!("the tag {error}")),
            None => Ok(Self::File(text.into())),
        }
    }
}

/// Reads what a tag has stored.
pub(super) async fn stored(nats: &Nats, tag: &Tag) -> Result<Input, CliError> {
    let entry = entry(nats, tag)
        .await?
        .ok_or_else(|| CliError::Failed(no_rules(tag)))?;
    Ok(input(tag, entry))
}

pub(super) fn input(tag: &Tag, entry: Entry) -> Input {
    Input {
        name: format!("@{tag}"),
        bytes: entry.value.into(),
    }
}

pub(super) fn no_rules(tag: &Tag) -> String {
    format!("tag {tag} has no rules; `bellhop rules ls` shows which tags have some")
}

/// The document of a tag, if it has one.
pub(super) async fn entry(nats: &Nats, tag: &Tag) -> Result<Option<Entry>, CliError> {
    let store = bucket::open(nats, nats.names.rules_bucket()).await?;
    let entry = store.entry(tag.escaped()).await;
    let entry = entry.during_with(|| format!("look up the rules of {tag}"))?;
    Ok(entry.filter(|entry| entry.operation == Operation::Put))
}

/// The tag that a file is named after: `billing` of `rules/billing.json`.
pub(super) fn tag_of(file: &Path) -> Option<Tag> {
    file.file_stem()?
        .to_str()?
        .parse()
        .ok()
        .filter(|tag: &Tag| tag.as_str() != "-")
}
