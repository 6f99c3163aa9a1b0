//! Answers that say why there is no other one.

use axum::http::StatusCode;

/// A status, and the reason as text.
pub(super) type Refusal = (StatusCode, String);

/// Returns a refusal with this text.
pub(super) fn refuse(status: StatusCode, text: impl Into<String>) -> Refusal {
    (status, text.into())
}
