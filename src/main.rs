//! The `bellhop` program.

use std::process::ExitCode;

use bellhop::cli::Cli;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let _logging = cli.start_logging();
    cli.run().await
}
