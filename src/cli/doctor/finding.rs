//! What a check found.

use serde::Serialize;

/// How it is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Status {
    /// As it should be.
    Ok,
    /// It cannot be seen from here. No verdict.
    Unseen,
    /// It works, and somebody should look at it soon.
    Warning,
    /// Reminders wait, or could be lost.
    Critical,
}

impl Status {
    /// In a word.
    pub(in crate::cli) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unseen => "unseen",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    /// How it is.
    pub(in crate::cli) status: Status,
    /// What is there.
    pub(in crate::cli) found: String,
    /// What should be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) wanted: Option<String>,
    /// What to do: a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) mend: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            found: found.into(),
            wanted: None,
            mend: None,
        }
    }

    /// Nobody can say from here.
    pub(super) fn unseen(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            status: Status::Unseen,
            found: found.into(),
            wanted: None,
            mend: Some(mend.into()),
        }
    }

    /// Something for office hours.
    pub(super) fn warning(
        found: impl Into<String>,
        wanted: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warning,
            found: found.into(),
            wanted: Some(wanted.into()),
            mend: Some(mend.into()),
        }
    }

    /// Something for now.
    pub(super) fn critical(
        found: impl Into<String>,
        wanted: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Critical,
            ..Self::warning(found, wanted, mend)
        }
    }
}

/// A finding with the name of its check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Told {
    /// The check.
    pub(in crate::cli) check: &'static str,
    /// What it found.
    #[serde(flatten)]
    pub(in crate::cli) finding: Finding,
}

/// What a check has to say: that all is well, where it found nothing.
pub(super) fn or_ok(findings: Vec<Finding>, found: impl FnOnce() -> String) -> Vec<Finding> {
    if findings.is_empty() {
        vec![Finding::ok(found())]
    } else {
        findings
    }
}
