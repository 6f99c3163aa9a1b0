//! Errors of a history, and whether trying again can help.

/// The kind of an error, which shows whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryErrorKind {
    /// The database is away, full or busy: the same may succeed later. Nothing of it was stored, or
    /// all of it.
    Away,
    /// An operator has to act first: the address is wrong, the schema is newer than the program,
    /// the file is corrupt, a permission is missing.
    Broken,
}

/// The reason why a history did not do something.
#[derive(Debug, Clone, thiserror::Error)]
#[error("history {url}: {problem}")]
pub struct HistoryError {
    kind: HistoryErrorKind,
    url: String,
    problem: String,
}

impl HistoryError {
    pub(crate) fn new(kind: HistoryErrorKind, url: impl ToString, problem: impl ToString) -> Self {
        Self {
            kind,
            url: url.to_string(),
            problem: problem.to_string(),
        }
    }

    /// Returns whether trying again can help.
    pub fn kind(&self) -> HistoryErrorKind {
        self.kind
    }
}

/// A database, and nothing of how it is reached yet: its error becomes a [`HistoryError`] where the
/// address is known.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: HistoryErrorKind,
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn broken(text: impl ToString) -> Self {
        Self {
            kind: HistoryErrorKind::Broken,
            text: text.to_string(),
        }
    }

    pub(crate) fn at(self, url: &super::HistoryUrl) -> HistoryError {
        HistoryError::new(self.kind, url, self.text)
    }
}
