//! `bellhop completions`: prints a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::Output;
use super::{Cli, CliError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop completions bash > /etc/bash_completion.d/bellhop
  bellhop completions zsh > ~/.zfunc/_bellhop
  bellhop completions fish > ~/.config/fish/completions/bellhop.fish")]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bellhop", &mut script);
    let mut output = Output::new();
    output.bytes(&script)?;
    output.flush()
}
