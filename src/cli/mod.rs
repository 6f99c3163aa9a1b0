//! The command line: arguments become calls; output is for people (tables, plain lines) or for
//! programs (`--json`).

#![allow(clippy::disallowed_methods)] // People see times.
// `output` writes out what a terminal would obey.
#![warn(clippy::print_stderr, clippy::print_stdout)]

mod associates;
mod check;
mod completions;
mod conformance;
mod connect_as;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod erase;
mod file;
mod history;
mod instances;
mod logging;
mod lookalikes;
mod mailbox;
mod man;
mod marked;
mod members;
mod output;
mod partitions;
mod publish;
mod rejected;
mod repartition;
mod routes;
mod rules;
mod scan;
mod scheduled;
mod schema;
mod serve;
mod setup;
mod survey;
#[cfg(feature = "terminal")]
mod terminal;
#[cfg(feature = "top")]
mod top;
mod upgrade;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Layers, Loaded, load};
use crate::nats::api::ApiError;
use crate::nats::{Nats, NatsError, chain, connect};
use output::complain;

/// Exit codes, as far as they are not clap's own 2 for usage.
pub mod exit {
    /// Something failed.
    pub const FAILURE: u8 = 1;
    /// Arguments that do not go together, where clap cannot know it.
    pub const USAGE: u8 = 2;
    /// The configuration is wrong (`EX_CONFIG` of sysexits.h).
    pub const CONFIGURATION: u8 = 78;
}

/// A NATS-native reminder router.
#[derive(Debug, Parser)]
#[command(
    name = "bellhop",
    version,
    about,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

/// The heading of the options that every command has.
const HEADING: &str = "Settings";

/// The sources of settings.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// Configuration file (TOML)
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    config: Option<PathBuf>,
    /// NATS server addresses, separated by commas [default: nats://127.0.0.1:4222]
    #[arg(long, global = true, help_heading = HEADING, value_name = "URL")]
    nats: Option<String>,
    /// Any setting, such as `--set heartbeat.lease=0s`; `bellhop check` prints them all
    #[arg(long, global = true, help_heading = HEADING, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system on this machine, with its own nats-server
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Route reminders until stopped
    Serve(serve::Args),
    /// Create or update streams, buckets and consumers
    Setup(setup::Args),
    /// Upgrade an installation that an earlier version set up
    Upgrade(upgrade::Args),
    /// Change the number of partitions of an installation whose members are stopped
    Repartition(repartition::Args),
    /// Validate the configuration and print each value with its origin
    Check(check::Args),
    /// Diagnose the installation and suggest fixes
    Doctor(doctor::Args),
    /// Watch the installation live: throughput, members, app servers, findings
    #[cfg(feature = "top")]
    Top(top::Args),
    /// Publish reminders as a business system does
    Publish(Box<publish::Args>),
    /// Act as an app server and print what arrives
    ConnectAs(connect_as::Args),
    /// Check an app server against the protocol, rule by rule
    Conformance(conformance::Args),
    /// Run a sample web app server that shows reminders in a browser
    #[cfg(feature = "terminal")]
    Terminal(terminal::Args),
    /// List and change routes: which instance holds which user's connection
    #[command(subcommand)]
    Routes(routes::Command),
    /// List and change associates: who gets a user's reminders during an absence
    #[command(subcommand)]
    Associates(associates::Command),
    /// List app-server instances and whether they answer
    #[command(subcommand)]
    Instances(instances::Command),
    /// Write, test and store the rules for reminders with a tag
    #[command(subcommand)]
    Rules(rules::Command),
    /// List the running `bellhop serve` processes
    #[command(subcommand)]
    Members(members::Command),
    /// Show each partition's progress in the log of published sets
    #[command(subcommand)]
    Partitions(partitions::Command),
    /// Show and delete parked reminders of users who are away
    #[command(subcommand)]
    Mailbox(mailbox::Command),
    /// List and cancel scheduled reminders
    #[command(subcommand)]
    Scheduled(scheduled::Command),
    /// Show refused input, fix it, publish it again
    #[command(subcommand)]
    Rejected(rejected::Command),
    /// Print the protocol as data: JSON Schemas of all bodies, and an AsyncAPI document
    Schema(schema::Args),
    /// Search the history of reminders and their outcomes
    History(Box<history::Args>),
    /// Show the outcomes of one reminder, step by step
    Why(why::Args),
    /// Erase everything that is stored about a user
    Erase(erase::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page, or write one for each command
    Man(man::Args),
}

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// NATS did not do what it was asked.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    /// Arguments that do not go together, or are not enough here.
    #[error("{0}")]
    Usage(String),
    /// The reader of the output has closed it. That is a normal end.
    #[error("the reader closed the output")]
    OutputClosed,
    /// The command did its work, and has printed the failure itself.
    #[error("see above")]
    Reported,
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Invalid(problem) => Self::Usage(problem),
            ApiError::Nats(error) => Self::Nats(error),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl CliError {
    /// Returns a fix, if the error itself cannot know it.
    fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::Nats(error) if error.is_of_missing()).then_some(
            "`bellhop setup` creates it; an installation with another prefix needs `--set prefix=NAME`",
        )
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Config(_) => exit::CONFIGURATION.into(),
            Self::Usage(_) => exit::USAGE.into(),
            Self::Nats(_) | Self::Io(..) | Self::Reported | Self::Failed(_) => exit::FAILURE.into(),
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("it has no `=`; write NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

impl SettingsArgs {
    fn load(&self) -> Result<Loaded, ConfigError> {
        let mut flags = self.set.clone();
        flags.extend(
            self.nats
                .iter()
                .map(|url| ("nats.url".to_owned(), url.clone())),
        );
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        load(&Layers {
            file: self.config.as_deref(),
            environment,
            flags,
        })
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

/// Runs this process as its arguments say. Returns its exit code.
///
/// The runtime is made here and not in the program. rustc compiles an `async fn` where it is first
/// polled: with `#[tokio::main]` in the program all of Bellhop would be compiled there, alone and
/// after everything else.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format!("cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let cli = match Cli::from_arguments() {
            Ok(cli) => cli,
            Err(code) => return code,
        };
        let _logging = cli.start_logging();
        cli.run().await
    })
}

impl Cli {
    /// Reads this process's arguments.
    ///
    /// # Errors
    /// The exit code to end with, when they are wrong or ask for help only; everything is printed
    /// by then.
    fn from_arguments() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|problem| {
            let arguments: Vec<String> = std::env::args_os()
                .map(|text| text.to_string_lossy().into_owned())
                .collect();
            doctor::as_for_nagios(&arguments, &problem).unwrap_or_else(|| problem.exit())
        })
    }

    /// Returns the default log filter: a service logs what it does, a tool only what went wrong.
    fn default_log(&self) -> &'static str {
        match self.command {
            Command::Serve(_) => "warn,bellhop=info",
            // These two draw a picture where the log would go, and show failures themselves.
            #[cfg(feature = "demo")]
            Command::Demo(_) => "off",
            #[cfg(feature = "top")]
            Command::Top(_) => "off",
            _ => "warn",
        }
    }

    /// Runs the command. Returns the process's exit code.
    async fn run(self) -> ExitCode {
        let Self { settings, command } = self;
        let result = match command {
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::run(&settings, args).await,
            Command::Serve(args) => serve::run(settings, args).await,
            Command::Setup(args) => setup::run(&settings, args).await,
            Command::Upgrade(args) => upgrade::run(&settings, args).await,
            Command::Repartition(args) => repartition::run(&settings, args).await,
            Command::Check(args) => check::run(&settings, &args),
            Command::Doctor(args) => match doctor::run(&settings, args).await {
                Ok(code) => return code,
                Err(error) => Err(error),
            },
            #[cfg(feature = "top")]
            Command::Top(args) => top::run(&settings, args).await,
            Command::Publish(args) => publish::run(&settings, *args).await,
            Command::ConnectAs(args) => connect_as::run(&settings, args).await,
            Command::Conformance(args) => conformance::run(&settings, args).await,
            #[cfg(feature = "terminal")]
            Command::Terminal(args) => terminal::run(&settings, args).await,
            Command::Routes(command) => routes::run(&settings, command).await,
            Command::Associates(command) => associates::run(&settings, command).await,
            Command::Instances(command) => instances::run(&settings, command).await,
            Command::Rules(command) => rules::run(&settings, command).await,
            Command::Members(command) => members::run(&settings, command).await,
            Command::Partitions(command) => partitions::run(&settings, command).await,
            Command::Mailbox(command) => mailbox::run(&settings, command).await,
            Command::Scheduled(command) => scheduled::run(&settings, command).await,
            Command::Rejected(command) => rejected::run(&settings, command).await,
            Command::Schema(args) => schema::run(&settings, &args),
            Command::History(args) => history::run(&settings, *args).await,
            Command::Why(args) => why::run(&settings, args).await,
            Command::Erase(args) => erase::run(&settings, args).await,
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(args),
        };
        let Err(error) = result else {
            return ExitCode::SUCCESS;
        };
        if !matches!(error, CliError::OutputClosed | CliError::Reported) {
            complain(chain(&error));
            error.hint().iter().for_each(complain);
        }
        error.exit_code()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Paragraphs of a help text that begin a line before the one above it is full.
    fn ragged(help: &str, width: usize) -> Vec<String> {
        let lines: Vec<&str> = help.lines().collect();
        let is_text = |line: &str| line.starts_with(|first: char| !first.is_whitespace());
        let is_ragged = |pair: &&[&str]| {
            let next_word = pair[1].split(' ').next().unwrap_or_default();
            is_text(pair[0])
                && is_text(pair[1])
                && pair[0].chars().count() + 1 + next_word.chars().count() <= width
        };
        lines
            .windows(2)
            .filter(is_ragged)
            .map(|pair| pair.join("\n"))
            .collect()
    }

    fn each(command: &mut clap::Command, name: &str, see: &mut impl FnMut(&str, String)) {
        see(name, command.render_long_help().to_string());
        for subcommand in command.get_subcommands_mut() {
            let name = format!("{name} {}", subcommand.get_name());
            each(subcommand, &name, see);
        }
    }

    #[test]
    fn helps_have_no_ragged_paragraph() {
        assert_eq!(ragged("It is short\nand goes on.\n\nNext", 80).len(), 1);
        for width in [60, 80, 120] {
            let mut command = Cli::command().term_width(width);
            command.build();
            let mut found = Vec::new();
            each(&mut command, "bellhop", &mut |name, help| {
                found.extend(
                    ragged(&help, width)
                        .into_iter()
                        .map(|lines| format!("{name}: {lines}")),
                );
            });
            assert!(
                found.is_empty(),
                "at {width} columns:\n{}",
                found.join("\n")
            );
        }
    }
}
