//! `bellhop rules`: for the people who write rules.
//!
//! | file | |
//! | --- | --- |
//! | `documents` | finds documents: in files, and in the bucket |
//! | `store`, `put` | what the bucket holds |
//! | `lint`, `test`, `schema` | looks at documents |
//! | `trial`, `diff` | tries documents on texts |
//! | `texts` | reads many texts |

mod diff;
mod documents;
mod lint;
mod put;
mod schema;
pub(super) mod store;
mod test;
mod texts;
mod trial;

use std::path::PathBuf;

use super::output::Output;
use super::{CliError, SettingsArgs};
use crate::token::Tag;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the tags that have rules
    #[command(after_help = "Examples:
  bellhop rules ls
  bellhop rules ls --json | jq -r '.[] | select(.problem) | .tag'     documents that cannot be used")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a tag's document
    #[command(after_help = "Examples:
  bellhop rules get billing > billing.json; $EDITOR billing.json
  bellhop rules put billing billing.json")]
    Get {
        /// The tag
        tag: Tag,
        /// Print the stored document byte for byte, even on a terminal
        #[arg(long)]
        json: bool,
    },
    /// Store a document as the rules of a tag
    Put(put::Args),
    /// Delete the rules of a tag: its reminders pass unchanged
    #[command(after_help = "Example:
  bellhop rules rm billing -f")]
    Rm {
        /// The tag
        tag: Tag,
        /// Skip the confirmation prompt
        #[arg(short, long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check documents for mistakes
    #[command(
        after_help = "Errors are what `rules put` refuses; they make the exit code 1. Warnings are about rules without effect, or with \
a surprising one.

Examples:
  bellhop rules lint billing.json
  bellhop rules lint *.json --json | jq -r '.[] | select(.severity == \"error\") | .problem'"
    )]
    Lint {
        /// Documents; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON: one list of problems
        #[arg(long)]
        json: bool,
    },
    /// Run the tests in documents
    #[command(
        after_help = "A document's field `tests` has texts and the expected results:

  { \"rules\": [{ \"name\": \"due\", \"keywords\": [\"due\"], \"action\": \"highlight\" }],
    \"tests\": [
      { \"name\": \"only as a word\", \"content\": \"overdue\", \"expect\": { \"unchanged\": true } },
      { \"content\": \"Due today\", \"expect\": { \"marks\": [{ \"rule\": \"due\", \"text\": \"Due\" }] } }] }

`expect` has `title`, `content`, `marks`, `priority` as delivered; or `blocked`, the name of the rule that blocks; or `unchanged`. \
A failed test makes the exit code 1. `rules put` runs them, too.

Example:
  bellhop rules test *.json"
    )]
    Test {
        /// Documents; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON: one list of tests
        #[arg(long)]
        json: bool,
    },
    /// Apply the rules to a text and show the result
    Try(trial::Args),
    /// Show which of many texts another document would change
    Diff(diff::Args),
    /// Print the JSON Schema of documents, for editors
    #[command(after_help = "Example:
  bellhop rules schema > rules.schema.json")]
    Schema,
}

pub(super) async fn run(settings: &SettingsArgs, command: Command) -> Result<(), CliError> {
    match command {
        Command::Ls { json } => store::ls(settings, json).await,
        Command::Get { tag, json } => store::get(settings, &tag, json).await,
        Command::Put(args) => put::run(settings, args).await,
        Command::Rm { tag, force, json } => store::rm(settings, &tag, force, json).await,
        Command::Lint { files, json } => lint::run(&files, json),
        Command::Test { files, json } => test::run(&files, json),
        Command::Try(args) => trial::run(settings, args).await,
        Command::Diff(args) => diff::run(settings, args).await,
        Command::Schema => {
            let mut output = Output::new();
            output.bytes(schema::schema().as_bytes())?;
            output.flush()
        }
    }
}
