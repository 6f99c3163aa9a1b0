//! Adding reminders to the search index, and removing them.
//!
//! The newest two thousand are in none: a search looks at each of them. When they are
//! [`WORTH_AN_INDEX`], one is made of all of them, in the transaction that brought the last of
//! them; so indexes are large, however small the batches, and are never merged.

use super::postings::{self, Builder, Index};
use crate::rows::batch::{Changed, New};
use crate::rows::body::Body;
use crate::text;

/// Reminders of which an index is made.
pub(crate) const WORTH_AN_INDEX: usize = 2_048;

/// Returns the searchable additions of a batch: numbers and finished reminders.
pub(crate) fn fresh(new: &[New], changed: &[Changed]) -> Vec<(i64, String)> {
    let new = new
        .iter()
        .filter(|new| new.is_known)
        .map(|new| (new.n, new.body.clone()));
    let changed = changed
        .iter()
        .filter_map(|changed| Some((changed.n, changed.body.clone()?)));
    new.chain(changed).collect()
}

/// Indexes of these rows. It takes as long as the rows' writing, so it has a thread of its own
/// beside that.
pub(crate) fn indexes(mut rows: Vec<(i64, String)>) -> Vec<Index> {
    rows.sort_unstable();
    let index = |rows: &[(i64, String)]| {
        let mut builder = Builder::default();
        for (n, reminder) in rows {
            let texts: Vec<String> = Body::read(reminder).texts().map(text::fold).collect();
            builder.add(*n, texts.iter().map(String::as_str));
        }
        builder.build()
    };
    rows.chunks(postings::MOST_ROWS).map(index).collect()
}

/// Returns the places of these numbers, which are in order, among those of an index.
pub(crate) fn places(numbers: &[i64], gone: &[i64]) -> Vec<u16> {
    let places = gone.iter().filter_map(|n| numbers.binary_search(n).ok());
    places.map(|place| place as u16).collect()
}
