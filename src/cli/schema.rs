//! `bellhop schema`: prints the contract as data.

use clap::builder::PossibleValuesParser;

use super::output::{Listing, Output};
use super::{CliError, SettingsArgs};
use crate::nats::Names;
use crate::schema::{BODIES, Body, asyncapi, pretty};

/// The name of the AsyncAPI document.
const DOCUMENT: &str = "asyncapi";

#[derive(Debug, clap::Args)]
#[command(after_help = "Without NAME it lists the schemas.

Examples:
  bellhop schema set > set.schema.json
  bellhop schema asyncapi --set prefix=eu > asyncapi.json")]
pub(super) struct Args {
    /// A body, or `asyncapi` for the document of all channels
    #[arg(value_parser = names(), hide_possible_values = true)]
    name: Option<String>,
    /// List as JSON
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(BODIES.iter().map(|body| body.name).chain([DOCUMENT]))
}

pub(super) fn run(settings: &SettingsArgs, args: &Args) -> Result<(), CliError> {
    let text = match &args.name {
        None => return list(args.json),
        Some(name) => match Body::named(name) {
            Some(body) => pretty(&body.schema()),
            None => pretty(&asyncapi::document(&Names::new(&settings.config()?.prefix))),
        },
    };
    let mut output = Output::new();
    output.bytes(text.as_bytes())?;
    output.flush()
}

fn list(json: bool) -> Result<(), CliError> {
    let mut listing = Listing::new(json, &["name", "about"]);
    let document = (
        DOCUMENT,
        "all channels and messages, with these schemas: an AsyncAPI document",
    );
    for (name, about) in BODIES
        .iter()
        .map(|body| (body.name, body.about))
        .chain([document])
    {
        let item = serde_json::json!({ "name": name, "about": about });
        listing.add(&item, || [name.to_owned(), about.to_owned()])?;
    }
    listing.finish("", None)
}
