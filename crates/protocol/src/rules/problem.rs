//! Problems of a document, with their positions.

use std::fmt;

/// Something wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The rule or the test, as `rule 2 "due"`; none where it is about the whole document.
    pub part: Option<String>,
    /// The place in it, such as `keywords[3]`.
    pub place: Option<String>,
    /// The problem, with the invalid input.
    pub problem: String,
    /// True if the document cannot be used. If not, it does not do what its author may think.
    pub is_error: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.part, &self.place].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl Problem {
    /// An error about the whole document.
    pub fn error(problem: impl fmt::Display) -> Self {
        Self {
            part: None,
            place: None,
            problem: problem.to_string(),
            is_error: true,
        }
    }

    /// The same as a warning.
    pub fn warning(self) -> Self {
        Self {
            is_error: false,
            ..self
        }
    }

    /// The same about a rule, counted from 0.
    pub fn in_rule(self, at: usize, name: &str) -> Self {
        self.in_part(label("rule", at, name))
    }

    /// The same about a rule or a test, by its [`label`].
    pub fn in_part(self, label: String) -> Self {
        Self {
            part: Some(label),
            ..self
        }
    }

    /// The same at a place.
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self {
            place: Some(place.to_string()),
            ..self
        }
    }
}

/// Returns the name of a rule or a test in messages, such as `rule 2 "due"`. It is counted from 0,
/// and may have no name.
pub fn label(kind: &str, at: usize, name: &str) -> String {
    let name = if name.is_empty() {
        String::new()
    } else {
        format!(" {name:?}")
    };
    format!("{kind} {}{name}", at + 1)
}
