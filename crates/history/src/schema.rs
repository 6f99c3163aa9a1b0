//! The schema of a database, in numbered steps.

use crate::error::Problem;

/// Returns the steps that a database of this version lacks, oldest first.
///
/// # Errors
/// When the version is one that this program does not know: a newer program made it.
pub(crate) fn missing<'s>(
    version: i64,
    steps: &'s [&'static str],
) -> Result<&'s [&'static str], Problem> {
    let missing = usize::try_from(version)
        .ok()
        .and_then(|version| steps.get(version..));
    missing.ok_or_else(|| {
        let known = steps.len();
        Problem::broken(format!(
            "its schema is version {version}, this program knows {known}; use a newer bellhop"
        ))
    })
}
