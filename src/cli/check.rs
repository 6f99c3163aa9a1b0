//! `bellhop check`: validates the configuration and prints it whole, with where each value came from.

use toml::Value;

use super::{CliError, SettingsArgs};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Settings whose values are not shown.
const SECRETS: [&str; 2] = ["nats.password", "nats.token"];

pub(super) fn run(settings: &SettingsArgs, args: &Args) -> Result<(), CliError> {
    let mut loaded = settings.load()?;
    for secret in SECRETS {
        if let Some((value, _)) = loaded.values.get_mut(secret)
            && value.as_str() != Some("")
        {
            *value = Value::String("***".to_owned());
        }
    }
    for variable in &loaded.unknown_variables {
        eprintln!("bellhop: ${variable} names no setting and is ignored");
    }
    if args.json {
        let settings: serde_json::Map<_, _> = loaded
            .values
            .iter()
            .map(|(name, (value, from))| {
                (name.clone(), serde_json::json!({ "value": value, "from": from.to_string() }))
            })
            .collect();
        println!("{}", serde_json::Value::Object(settings));
        return Ok(());
    }
    let longest = loaded.values.keys().map(String::len).max().unwrap_or(0);
    for (name, (value, origin)) in &loaded.values {
        println!("{name:longest$} = {:30}  # {origin}", value.to_string());
    }
    Ok(())
}
