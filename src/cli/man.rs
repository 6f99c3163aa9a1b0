//! `bellhop man`: prints a manual page, or writes one for each command.

use std::path::PathBuf;

use clap::CommandFactory;

use super::output::Output;
use super::{Cli, CliError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop man | man -l -
  bellhop man --out /usr/local/share/man/man1")]
pub(super) struct Args {
    /// Write one page for each command into this directory, instead of printing the program's
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<(), CliError> {
    let Some(dir) = args.out else {
        let mut output = Output::new();
        output.bytes(&page())?;
        return output.flush();
    };
    let unwritable =
        |error| CliError::Io(format!("cannot write pages into {}", dir.display()), error);
    std::fs::create_dir_all(&dir).map_err(unwritable)?;
    clap_mangen::generate_to(Cli::command(), &dir).map_err(unwritable)
}

fn page() -> Vec<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .expect("memory can be written");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_command() {
        // A hyphen is escaped.
        let page = String::from_utf8(page()).unwrap().replace('\\', "");
        for command in Cli::command().get_subcommands() {
            assert!(
                page.contains(&format!("bellhop-{}(1)", command.get_name())),
                "{command} in {page}"
            );
        }
    }

    #[test]
    fn each_command_gets_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("man1");
        run(Args {
            out: Some(out.clone()),
        })
        .unwrap();
        for page in ["bellhop.1", "bellhop-serve.1", "bellhop-rules-put.1"] {
            assert!(out.join(page).is_file(), "{page}");
        }
    }

    #[test]
    fn unwritable_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = run(Args {
            out: Some(file.path().join("man1")),
        })
        .unwrap_err();
        assert!(
            error.to_string().contains("cannot write pages into"),
            "{error}"
        );
    }
}
