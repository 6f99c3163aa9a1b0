//! Texts without regard to case.

use caseless::Caseless;

/// Returns a text in the form in which texts are compared: the case of each character folded, as
/// Unicode says, and nothing else. So a part of a text stays a part of it.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().default_case_fold().collect()
}

/// Returns a name as databases can store it: PostgreSQL takes no NUL, which a refused reminder may
/// have in its user.
pub(crate) fn storable(name: String) -> String {
    if name.contains('\0') {
        name.replace('\0', "\u{fffd}")
    } else {
        name
    }
}

/// A text that a title or content must contain, without regard to case.
#[derive(Debug, Clone)]
pub struct Needle(String);

impl Needle {
    /// Returns the needle for the `contains` of a query, or none if every text contains it.
    pub fn new(contains: Option<&str>) -> Option<Self> {
        let folded = fold(contains.unwrap_or_default());
        (!folded.is_empty()).then_some(Self(folded))
    }

    /// Returns its text, with the case folded. It is not empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether one of these texts contains it.
    pub fn is_in<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        texts.into_iter().any(|text| fold(text).contains(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_ignored_and_nothing_else() {
        let is_in = |needle: &str, text: &str| {
            Needle::new(Some(needle)).is_none_or(|needle| needle.is_in([text]))
        };
        for (needle, text) in [
            ("ICE", "Invoice"),
            ("ΣΕΊΣ", "ο Οδυσσείς"),
            ("费用", "的费用。"),
            ("STRASSE", "Straße"),
            ("", "x"),
        ] {
            assert!(is_in(needle, text), "{needle} in {text}");
        }
        for (needle, text) in [("e", "é"), ("in voice", "invoice"), ("用费", "费用")] {
            assert!(!is_in(needle, text), "{needle} in {text}");
        }
        assert!(
            Needle::new(Some("b"))
                .is_some_and(|needle| needle.is_in(["a", "b"]) && !needle.is_in([]))
        );
    }
}
