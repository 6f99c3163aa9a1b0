//! The JSON Schema of documents, generated from the types that read them.

use crate::schema::{Body, pretty};

/// The schema, as it stands in `docs/rules.schema.json`.
pub(super) fn schema() -> String {
    pretty(&Body::named("rules").map(Body::schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.schema.json");

    #[test]
    fn the_docs_have_the_schema_of_the_types() {
        if std::env::var_os("BELLHOP_BLESS").is_some() {
            std::fs::write(FILE, schema()).unwrap();
        }
        let written = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            written == schema(),
            "{FILE} is out of date; write it again: BELLHOP_BLESS=1 cargo test --lib schema"
        );
    }
}
