//! The findings of a check.

use serde::Serialize;

/// A verdict, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Status {
    /// As it should be.
    Ok,
    /// It cannot be seen from here: no verdict.
    Unknown,
    /// It works, but an operator should look at it soon.
    Warning,
    /// Reminders wait, or could be lost.
    Critical,
}

impl Status {
    /// Returns the verdict as one word.
    pub(in crate::cli) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A finding of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    /// The verdict.
    pub(in crate::cli) status: Status,
    /// The state that was found.
    pub(in crate::cli) found: String,
    /// The expected state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) expected: Option<String>,
    /// The fix: a command if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) fix: Option<String>,
}

impl Finding {
    /// Returns a finding that all is well.
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            found: found.into(),
            expected: None,
            fix: None,
        }
    }

    /// Returns a finding about something that cannot be seen from here.
    pub(super) fn unknown(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            status: Status::Unknown,
            found: found.into(),
            expected: None,
            fix: Some(fix.into()),
        }
    }

    /// Returns a finding that can wait for office hours.
    pub(super) fn warning(
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warning,
            found: found.into(),
            expected: Some(expected.into()),
            fix: Some(fix.into()),
        }
    }

    /// Returns a finding that needs action now.
    pub(super) fn critical(
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Critical,
            ..Self::warning(found, expected, fix)
        }
    }
}

/// A finding with the name of its check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct CheckResult {
    /// The check.
    pub(in crate::cli) check: &'static str,
    /// Its finding.
    #[serde(flatten)]
    pub(in crate::cli) finding: Finding,
}

/// Returns the findings, or that all is well if there are none.
pub(super) fn or_ok(findings: Vec<Finding>, found: impl FnOnce() -> String) -> Vec<Finding> {
    if findings.is_empty() {
        vec![Finding::ok(found())]
    } else {
        findings
    }
}
