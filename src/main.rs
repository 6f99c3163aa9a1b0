//! The `bellhop` program.

use std::process::ExitCode;

use bellhop::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::from_arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let _logging = cli.start_logging();
    cli.run().await
}
