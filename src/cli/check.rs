//! `bellhop check`: validates the configuration and prints it whole, with where each value came
//! from.

use toml::Value;

use super::output::{Output, complain};
use super::{CliError, SettingsArgs};
use crate::history::without_password;
use crate::nats::shown_addresses;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Settings whose values are not shown.
const SECRETS: [&str; 2] = ["nats.password", "nats.token"];

/// Takes what is secret out of an address.
type Clean = fn(&str) -> String;

/// Settings whose values are addresses.
const ADDRESSES: [(&str, Clean); 2] = [
    ("nats.url", shown_addresses),
    ("history.url", without_password),
];

pub(super) fn run(settings: &SettingsArgs, args: &Args) -> Result<(), CliError> {
    let mut loaded = settings.load()?;
    for secret in SECRETS {
        if let Some((value, _)) = loaded.values.get_mut(secret)
            && value.as_str() != Some("")
        {
            *value = Value::String("***".to_owned());
        }
    }
    for (address, without_secrets) in ADDRESSES {
        if let Some((value, _)) = loaded.values.get_mut(address)
            && let Some(url) = value.as_str()
        {
            *value = Value::String(without_secrets(url));
        }
    }
    for variable in &loaded.unknown_variables {
        complain(format_args!("${variable} names no setting and is ignored"));
    }
    let mut output = Output::new();
    if args.json {
        let settings: serde_json::Map<_, _> = loaded
            .values
            .iter()
            .map(|(name, (value, from))| {
                (
                    name.clone(),
                    serde_json::json!({ "value": value, "from": from.to_string() }),
                )
            })
            .collect();
        output.json(&settings)?;
        return output.flush();
    }
    let longest = loaded.values.keys().map(String::len).max().unwrap_or(0);
    for (name, (value, origin)) in &loaded.values {
        output.line(format_args!(
            "{name:longest$} = {:30}  # {origin}",
            value.to_string()
        ))?;
    }
    output.flush()
}
