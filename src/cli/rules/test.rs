//! `bellhop rules test`: runs the tests that stand in documents.

use std::path::PathBuf;

use anstream::adapter::strip_str;
use serde_json::json;

use super::documents::{Usable, usable};
use crate::cli::CliError;
use crate::cli::file::read;
use crate::cli::output::{
    BAD, GOOD, Output, aside, complain, paint, plain, plural, thousands, width,
};
use crate::rules::suite::{Mismatch, Report, run as run_suite};

pub(super) fn run(files: &[PathBuf], json: bool) -> Result<(), CliError> {
    let mut output = Output::new();
    let (mut all, mut unusable) = (Vec::new(), 0);
    for file in files {
        let input = read(file)?;
        let reports = match usable(&input) {
            Ok(usable) => run_suite(&usable.document, &usable.engine),
            Err(error) => {
                complain(&error);
                unusable += 1;
                continue;
            }
        };
        if !json {
            let none = if reports.is_empty() { ": no tests" } else { "" };
            output.line(plain(&format!("{}{none}", input.name)))?;
            reports
                .iter()
                .flat_map(lines)
                .try_for_each(|line| output.painted(line))?;
        }
        all.extend(
            reports
                .into_iter()
                .map(|report| (input.name.clone(), report)),
        );
    }
    let failed = all
        .iter()
        .filter(|(_, report)| !report.mismatches.is_empty())
        .count();
    if json {
        let item = |(name, report): &(String, Report)| {
            let Report { test, mismatches } = report;
            json!({ "document": name, "test": test, "passed": mismatches.is_empty(), "mismatches": mismatches })
        };
        output.json(&all.iter().map(item).collect::<Vec<_>>())?;
    } else {
        output.line(format!(
            "{} passed, {} failed",
            thousands(all.len() - failed),
            thousands(failed)
        ))?;
    }
    output.flush()?;
    if failed + unusable == 0 {
        Ok(())
    } else {
        Err(CliError::Reported)
    }
}

/// Prints every failing test of a document on standard error.
pub(super) fn failures(name: &str, usable: &Usable) -> Result<(), CliError> {
    let reports = run_suite(&usable.document, &usable.engine);
    let failed: Vec<_> = reports
        .iter()
        .filter(|report| !report.mismatches.is_empty())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    failed
        .iter()
        .copied()
        .flat_map(lines)
        .for_each(|line| aside(strip_str(&line)));
    let of = plural(reports.len(), "test");
    Err(CliError::Failed(format!(
        "{} of {of} in {name} failed, so nothing is stored",
        thousands(failed.len())
    )))
}

fn lines(report: &Report) -> Vec<String> {
    let Report { test, mismatches } = report;
    let verdict = if mismatches.is_empty() {
        paint(GOOD, "ok  ")
    } else {
        paint(BAD, "FAIL")
    };
    let headline = format!("  {verdict}  {}", plain(test));
    std::iter::once(headline)
        .chain(mismatches.iter().flat_map(difference))
        .collect()
}

/// Returns the expected and the actual value, one above the other, and the position of the first
/// difference.
fn difference(mismatch: &Mismatch) -> [String; 3] {
    const INDENT: &str = "        ";
    let Mismatch {
        what,
        expected,
        got,
    } = mismatch;
    let (expected, got) = (plain(expected), plain(got));
    let head = format!("{what} expected: ");
    let pointer = " ".repeat(head.len() + common_columns(&expected, &got)) + "^";
    let indented = |text: &str| format!("{INDENT}{text}");
    [
        indented(&(head.clone() + &expected)),
        indented(&format!("{:>length$}{got}", "got: ", length = head.len())),
        indented(&paint(BAD, pointer)),
    ]
}

/// Columns of what two texts have in common at their beginning.
fn common_columns(one: &str, other: &str) -> usize {
    let same = one
        .char_indices()
        .zip(other.chars())
        .find(|((_, a), b)| a != b)
        .map(|((at, _), _)| at);
    width(&one[..same.unwrap_or(one.len().min(other.len()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_points_at_the_first_difference() {
        let mismatch = Mismatch {
            what: "content",
            expected: "发票 abc".into(),
            got: "发票 axc".into(),
        };
        assert_eq!(
            difference(&mismatch).map(|line| strip_str(&line).to_string()),
            [
                "        content expected: 发票 abc",
                "                     got: 发票 axc",
                "                                ^",
            ]
        );
        assert_eq!(
            [
                common_columns("ab", "abc"),
                common_columns("", "x"),
                common_columns("é", "e")
            ],
            [2, 0, 0]
        );
    }
}
