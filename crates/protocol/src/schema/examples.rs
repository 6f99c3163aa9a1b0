//! The examples of the protocol page: each block of JSON there names its body's schema, and is an
//! example of it.

use serde_json::Value;

/// The page.
pub const PAGE: &str = include_str!("../../protocol.md");

/// All examples: the name of the schema, which is empty where the page gives none, and the text.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("\n```json").skip(1).map(|block| {
        let (name, rest) = block.split_once('\n').unwrap_or_default();
        (name.trim(), rest.split("\n```").next().unwrap_or_default())
    })
}

/// The examples of this schema.
///
/// # Panics
/// When one of them is not JSON, which a test finds first.
pub fn of(name: &str) -> Vec<Value> {
    let its = all().filter(|(schema, _)| *schema == name);
    its.map(|(_, text)| serde_json::from_str(text).expect("the page's examples are JSON"))
        .collect()
}
