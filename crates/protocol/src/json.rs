//! Reads structs from JSON objects.

use serde::Deserialize;

/// Reads a struct from a JSON object only; serde alone would take a list of the fields' values too.
pub(crate) fn from_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    let list = text
        .trim_start()
        .starts_with('[')
        .then(|| serde_json::from_str::<serde::de::IgnoredAny>(text));
    match list {
        None => serde_json::from_str(text),
        Some(Err(syntax)) => Err(syntax),
        Some(Ok(_)) => Err(serde::de::Error::custom(
            "a list stands where an object belongs",
        )),
    }
}
