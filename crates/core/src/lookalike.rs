//! Names that look alike: they differ only in case, in width, or in how characters are composed.
//! Bellhop keeps such names apart; this is for hints to people.

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

/// Returns the form that names which look alike have in common. It is no name to show.
pub fn common_form(name: &str) -> String {
    // Unicode's compatibility caseless match (definition D146).
    name.nfd()
        .default_case_fold()
        .nfkd()
        .default_case_fold()
        .nfkc()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::common_form;

    #[test]
    fn case_width_and_composition_make_no_difference() {
        for (one, other) in [
            ("alice", "Alice"),
            ("Jos\u{e9}", "Jose\u{301}"),
            ("JOSE\u{301}", "jos\u{e9}"),
            ("Straße", "STRASSE"),
            ("ａｌｉｃｅ", "alice"),
            ("각", "\u{1100}\u{1161}\u{11a8}"),
        ] {
            assert_ne!(one, other);
            assert_eq!(common_form(one), common_form(other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn other_names_stay_different() {
        for (one, other) in [("alice", "alice1"), ("jose", "jos\u{e9}"), ("a.b", "a-b")] {
            assert_ne!(common_form(one), common_form(other), "{one:?} {other:?}");
        }
    }
}
