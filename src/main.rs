//! The `bellhop` program.

use std::process::ExitCode;

/// A reminder is many small allocations: with the C library's allocator a third of the time goes
/// there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bellhop::cli::main()
}
