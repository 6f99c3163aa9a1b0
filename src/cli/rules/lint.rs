//! `bellhop rules lint`: looks for mistakes in documents.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::CliError;
use crate::cli::file::read;
use crate::cli::output::{Output, plain, plural};
use crate::rules::lint::lint;
use crate::rules::problem::Problem;

/// A problem of a document, on a line.
pub(super) fn line(name: &str, problem: &Problem) -> String {
    let severity = if problem.is_error { "" } else { "warning: " };
    plain(&format!("{name}: {severity}{problem}"))
}

pub(super) fn run(files: &[PathBuf], json: bool) -> Result<(), CliError> {
    let mut found = Vec::new();
    for file in files {
        let input = read(file)?;
        found.extend(
            lint(&input.bytes)
                .problems
                .into_iter()
                .map(|problem| (input.name.clone(), problem)),
        );
    }
    let errors = found.iter().filter(|(_, problem)| problem.is_error).count();
    let mut output = Output::new();
    if json {
        let item = |(name, problem): &(String, Problem)| {
            let Problem {
                part,
                place,
                problem,
                is_error,
            } = problem;
            let severity = if *is_error { "error" } else { "warning" };
            json!({ "document": name, "part": part, "place": place, "problem": problem, "severity": severity })
        };
        output.json(&found.iter().map(item).collect::<Vec<_>>())?;
    } else {
        found
            .iter()
            .try_for_each(|(name, problem)| output.line(line(name, problem)))?;
        let (documents, warnings) = (plural(files.len(), "document"), found.len() - errors);
        output.line(format!(
            "{documents}: {}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        ))?;
    }
    output.flush()?;
    if errors == 0 {
        Ok(())
    } else {
        Err(CliError::Reported)
    }
}
