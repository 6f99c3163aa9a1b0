//! Finds the addresses in a text: those with a scheme, such as `https://example.com/due`, and
//! e-mail addresses.

use std::ops::Range;

use linkify::LinkFinder;

/// Returns where the addresses of a text stand, in bytes.
pub fn find(text: &str) -> Vec<Range<usize>> {
    LinkFinder::new()
        .links(text)
        .map(|link| link.start()..link.end())
        .collect()
}
