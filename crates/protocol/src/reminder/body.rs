//! Reads the bodies of published messages.

use std::fmt::Display;

use serde::Deserialize;

use super::reject::{RejectCode, Rejection};
use crate::byte_order_mark;
use crate::json::from_object;

/// Reads a struct from a message's body. Where the body is JSON and not such a struct, the refusal
/// has the code that is given.
pub(crate) fn from_body<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    code: RejectCode,
) -> Result<T, Rejection> {
    let not_json = |error: &dyn Display| {
        let detail =
            byte_order_mark::complaint(body).map_or_else(|| error.to_string(), ToOwned::to_owned);
        Rejection::new(RejectCode::NotJson, detail)
    };
    let text = std::str::from_utf8(body).map_err(|error| not_json(&error))?;
    from_object(text).map_err(|error| {
        if error.is_data() {
            Rejection::new(code, error)
        } else {
            not_json(&error)
        }
    })
}
