//! The command line: arguments become calls; output is for people (tables, plain lines) or for programs (`--json`).

#![allow(clippy::disallowed_methods)] // People see times.

mod check;
mod serve;
mod setup;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Layers, Loaded, load};
use crate::nats::{Nats, NatsError, connect};

/// Exit codes, as far as they are not clap's own 2 for usage.
pub mod exit {
    /// Something failed.
    pub const FAILURE: u8 = 1;
    /// The configuration is wrong (`EX_CONFIG` of sysexits.h).
    pub const CONFIGURATION: u8 = 78;
}

/// A NATS-native reminder router.
#[derive(Debug, Parser)]
#[command(name = "bellhop", version, about, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

/// Where settings come from.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// NATS server addresses, separated by commas [default: nats://127.0.0.1:4222]
    #[arg(long, global = true, value_name = "URL")]
    nats: Option<String>,
    /// Any setting, such as `--set heartbeat.lease=0s`; `bellhop check` prints them all
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Route reminders until stopped
    Serve(serve::Args),
    /// Create or update streams, buckets and consumers
    Setup(setup::Args),
    /// Validate the configuration and print it, with where each value came from
    Check(check::Args),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// NATS did not do what it was asked.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// Reading or writing failed.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no `=`; write NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

impl SettingsArgs {
    fn load(&self) -> Result<Loaded, ConfigError> {
        let mut flags = self.set.clone();
        flags.extend(self.nats.iter().map(|url| ("nats.url".to_owned(), url.clone())));
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        load(&Layers { file: self.config.as_deref(), environment, flags })
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let loaded = self.load()?;
        for variable in &loaded.unknown_variables {
            tracing::warn!(variable, "no setting has this name, ignored");
        }
        Ok(loaded.config)
    }

    /// Connects as a tool.
    async fn connect(&self) -> Result<(Config, Nats), CliError> {
        let config = self.config()?;
        let nats = connect(&config, "bellhop cli").await?;
        Ok((config, nats))
    }
}

impl Cli {
    /// Runs the command. Answers the process's exit code.
    pub async fn run(self) -> ExitCode {
        let Self { settings, command } = self;
        let result = match command {
            Command::Serve(args) => serve::run(settings, args).await,
            Command::Setup(args) => setup::run(&settings, args).await,
            Command::Check(args) => check::run(&settings, &args),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bellhop: {error}");
                match error {
                    CliError::Config(_) => exit::CONFIGURATION.into(),
                    _ => exit::FAILURE.into(),
                }
            }
        }
    }
}
