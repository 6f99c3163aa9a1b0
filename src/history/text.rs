//! Texts without regard to case.

use caseless::Caseless;

use super::body::Body;

/// A text in the form in which texts are compared: the case of each character folded, as Unicode says, and nothing else. So what is a
/// part of a text stays a part of it.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().default_case_fold().collect()
}

/// A name as databases can store it: PostgreSQL takes no NUL, which a refused reminder may have in its user.
pub(super) fn storable(name: String) -> String {
    if name.contains('\0') { name.replace('\0', "\u{fffd}") } else { name }
}

/// What a title or content must have.
#[derive(Debug, Clone)]
pub struct Needle(String);

impl Needle {
    /// None if every text has it.
    pub fn new(contains: Option<&str>) -> Option<Self> {
        let folded = fold(contains.unwrap_or_default());
        (!folded.is_empty()).then_some(Self(folded))
    }

    /// The folded text; it is not empty.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a finished reminder, as JSON, has it.
    pub fn is_in(&self, reminder: &str) -> bool {
        Body::read(reminder).texts().any(|text| fold(text).contains(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_of_no_account_and_nothing_else_is() {
        let is_in = |needle: &str, text: &str| {
            let reminder = serde_json::json!({ "content": text }).to_string();
            Needle::new(Some(needle)).is_none_or(|needle| needle.is_in(&reminder))
        };
        for (needle, text) in
            [("ICE", "Invoice"), ("ΣΕΊΣ", "ο Οδυσσείς"), ("费用", "的费用。"), ("STRASSE", "Straße"), ("", "x")]
        {
            assert!(is_in(needle, text), "{needle} in {text}");
        }
        for (needle, text) in [("e", "é"), ("in voice", "invoice"), ("用费", "费用")] {
            assert!(!is_in(needle, text), "{needle} in {text}");
        }
        assert!(!Needle::new(Some("billing")).unwrap().is_in(r#"{"content":"x","tags":["billing"]}"#));
    }
}
