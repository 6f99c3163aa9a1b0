//! Queries, as anybody may ask them. A valid one is within the bounds of the contract, and a cursor
//! is written and read back as the same; what is refused names a field of the contract.
#![no_main]

use bellhop_protocol::wire::query::{self, MAX_CONTAINS_BYTES, MAX_LIMIT, QueryError};
use libfuzzer_sys::fuzz_target;

const FIELDS: [&str; 10] = [
    "user", "source", "id", "tag", "outcome", "from", "to", "contains", "limit", "cursor",
];

fn named<T>(asked: Result<T, QueryError>) -> Option<T> {
    if let Err(QueryError::Missing(field) | QueryError::Invalid { field, .. }) = &asked {
        assert!(FIELDS.contains(field), "{field}");
    }
    asked.ok()
}

fuzz_target!(|body: &[u8]| {
    if let Some(query) = named(query::history(body)) {
        assert!((1..=MAX_LIMIT).contains(&query.limit));
        assert!(
            query
                .contains
                .is_none_or(|text| (1..=MAX_CONTAINS_BYTES).contains(&text.len()))
        );
        assert!(
            query
                .from_ms
                .zip(query.to_ms)
                .is_none_or(|(from, to)| from <= to)
        );
        if let Some(cursor) = query.before {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
    named(query::why(body));
    named(query::mailbox(body));
    named(query::erase(body));
});
