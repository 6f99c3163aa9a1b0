//! The `bellhop` program.

use std::process::ExitCode;

use bellhop::cli::Cli;

/// A reminder is many small allocations: with the C library's allocator a third of the time goes there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::from_arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let _logging = cli.start_logging();
    cli.run().await
}
