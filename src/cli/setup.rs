//! `bellhop setup`: creates or updates what the installation needs in NATS.

use super::output::Output;
use super::{CliError, SettingsArgs};
use crate::nats::topology;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only print what would change
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let (config, nats) = settings.connect().await?;
    let changes = match args.dry_run {
        true => topology::plan(&nats, &config)
            .await?
            .changes()
            .cloned()
            .collect(),
        false => topology::set_up(&nats, &config, false).await?,
    };
    let mut output = Output::new();
    if args.json {
        output.json(&serde_json::json!({ "dry_run": args.dry_run, "changes": changes }))?;
        return output.flush();
    }
    let verb = if args.dry_run { "would " } else { "" };
    changes
        .iter()
        .try_for_each(|change| output.line(format_args!("{verb}{change}")))?;
    if changes.is_empty() {
        output.line("everything is set up already")?;
    }
    output.flush()
}
