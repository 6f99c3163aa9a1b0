//! Properties of characters and texts from Unicode, as far as matching needs them.

use std::borrow::Cow;

use icu_properties::props::{DefaultIgnorableCodePoint, ExtendedPictographic, JoiningType};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Returns whether a reader does not see the character, or sees it as no letter of its own: soft
/// hyphens, zero-width characters, variation selectors, marks of direction, fillers
/// (Default_Ignorable_Code_Point), and what only makes a word longer, such as the Arabic tatweel
/// (Joining_Type=Join_Causing).
pub fn is_ignorable(c: char) -> bool {
    c > '\u{7f}'
        && (is_invisible(c)
            || CodePointMapData::<JoiningType>::new().get(c) == JoiningType::JoinCausing)
}

/// Returns whether the character is never seen by itself.
pub fn is_invisible(c: char) -> bool {
    c > '\u{7f}' && CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Returns a cluster without its ignorable characters. Those that make one emoji of several, or a
/// flag of a black one, stay: a reader sees the difference.
pub fn without_ignorable(cluster: &str) -> Cow<'_, str> {
    if !cluster.contains(is_ignorable) {
        return Cow::Borrowed(cluster);
    }
    let is_emoji = |c: Option<char>| {
        c.is_some_and(|c| CodePointSetData::new::<ExtendedPictographic>().contains(c))
    };
    let begins_with_emoji = is_emoji(cluster.chars().next());
    let mut rest = cluster.chars();
    let mut kept = String::with_capacity(cluster.len());
    while let Some(c) = rest.next() {
        let is_joiner = c == '\u{200d}' && is_emoji(rest.clone().next());
        let is_tag = ('\u{e0020}'..='\u{e007f}').contains(&c);
        if !is_ignorable(c) || (begins_with_emoji && (is_joiner || is_tag)) {
            kept.push(c);
        }
    }
    Cow::Owned(kept)
}

/// Returns the plain character for a typographic quotation mark, apostrophe or hyphen; other
/// characters as they are. The em dash stands between clauses and joins no words, so it stays.
pub fn plain_typography(c: char) -> char {
    match c {
        '‘' | '’' | '‚' | '‛' | '′' | '‵' | '‹' | '›' | '´' | '`' => '\'',
        '“' | '”' | '„' | '‟' | '″' | '‶' | '«' | '»' | '〝' | '〞' | '〟' => '"',
        '‐' | '‑' | '‒' | '–' | '⁃' | '−' => '-',
        c => c,
    }
}
