//! Headers of messages.

use async_nats::{HeaderMap, HeaderName, HeaderValue};

/// Returns a header's first value. The case of its name does not matter.
pub(crate) fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    let is_meant =
        |(found, _): &(&HeaderName, _)| AsRef::<str>::as_ref(*found).eq_ignore_ascii_case(name);
    let (_, values) = headers?.iter().find(is_meant)?;
    values.first().map(HeaderValue::as_str)
}

/// Returns the headers that are the publisher's own: all but those that NATS and Bellhop act upon.
/// Of several of one name it returns the first.
pub fn of_publisher(headers: &HeaderMap) -> HeaderMap {
    let is_ours = |name: &str| {
        ["nats-", "bellhop-"]
            .iter()
            .any(|prefix| begins_with(name, prefix))
    };
    let kept = headers.iter().filter(|(name, _)| !is_ours(name.as_ref()));
    kept.flat_map(|(name, values)| Some((name.clone(), values.first()?.clone())))
        .collect()
}

fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
