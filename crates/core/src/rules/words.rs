//! Boundaries of words in a text, as its reader sees it.
//!
//! A letter or digit is a part of a word; a combining mark belongs to the character before it; an
//! ignorable character is not there. A character in an enclosing mark, such as the keycap `1⃣`, is
//! a symbol, and so is one with an emoji's skin tone, such as `a🏽`. Texts are judged as they were
//! written: folding turns symbols such as `™` into letters.

use std::sync::LazyLock;

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, LineBreak, Script};
use icu_properties::script::ScriptWithExtensions;
use regex_syntax::is_word_character;
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use super::per_char::PerChar;
use super::unicode::is_ignorable;

/// The role of a character in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// No part of a word.
    Other,
    /// Part of a word, in a script that puts spaces between words.
    Spaced,
    /// Part of a word, in a script that does not.
    Unspaced,
    /// Belongs to the character before it.
    Mark,
    /// The same, and makes a symbol of that character.
    Enclosing,
    /// No reader sees it.
    Ignorable,
}

impl Class {
    /// Returns whether the character is a part of a word. `everywhere`: scripts make no difference.
    pub fn is_in_word(self, everywhere: bool) -> bool {
        self == Self::Spaced || (everywhere && self == Self::Unspaced)
    }
}

/// Returns the classes of all characters. `ignorable`: whether ignorable characters are left out.
pub fn classes(ignorable: bool) -> &'static PerChar<Class> {
    static TABLES: [LazyLock<PerChar<Class>>; 2] = [
        LazyLock::new(|| PerChar::new(|c| class(c, false))),
        LazyLock::new(|| PerChar::new(|c| class(c, true))),
    ];
    &TABLES[usize::from(ignorable)]
}

fn class(c: char, ignorable: bool) -> Class {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    match category {
        _ if ignorable && is_ignorable(c) => Class::Ignorable,
        GeneralCategory::EnclosingMark => Class::Enclosing,
        GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark => Class::Mark,
        _ if !is_word_character(c) => Class::Other,
        _ if is_unspaced(plain(c)) => Class::Unspaced,
        _ => Class::Spaced,
    }
}

/// Full-width and half-width letters are letters of the script that they belong to.
fn plain(c: char) -> char {
    let mut chars = std::iter::once(c).nfkc();
    match (chars.next(), chars.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// Returns whether words of the character's script follow each other without spaces: lines break
/// between its letters, as the property Line_Break says. Korean has spaces, but its particles are
/// written at the word. Tibetan breaks lines at its syllable marks alone, and has no spaces between
/// words either. `々` and the like, which stay with the character before them at a line's end, are
/// known by their script.
fn is_unspaced(c: char) -> bool {
    let breaks = matches!(
        CodePointMapData::<LineBreak>::new().get(c),
        LineBreak::ComplexContext
            | LineBreak::Ideographic
            | LineBreak::ConditionalJapaneseStarter
            | LineBreak::H2
            | LineBreak::H3
            | LineBreak::JL
            | LineBreak::JV
            | LineBreak::JT
            | LineBreak::Aksara
            | LineBreak::AksaraPrebase
            | LineBreak::AksaraStart
    );
    let scripts = ScriptWithExtensions::new();
    breaks
        || [
            Script::Tibetan,
            Script::Han,
            Script::Hiragana,
            Script::Katakana,
        ]
        .into_iter()
        .any(|script| scripts.has_script(c, script))
}

/// Returns the class of a cluster: `Other`, `Spaced` or `Unspaced`; or `Ignorable`, if no reader
/// sees any of it.
pub fn class_of_cluster(cluster: &str, classes: &PerChar<Class>) -> Class {
    let mut seen = cluster
        .chars()
        .map(|c| classes.get(c))
        .filter(|class| *class != Class::Ignorable);
    match seen.next() {
        None => Class::Ignorable,
        Some(Class::Mark | Class::Enclosing) => Class::Other, // On its own.
        Some(class) => match seen.any(|class| matches!(class, Class::Enclosing | Class::Other)) {
            true => Class::Other,
            false => class,
        },
    }
}

/// Returns whether a word can begin or end at this place between two clusters: not both sides are
/// parts of a word.
pub fn is_boundary(text: &str, at: usize, everywhere: bool, classes: &PerChar<Class>) -> bool {
    let is_in_word = |cluster: &str| match class_of_cluster(cluster, classes) {
        Class::Ignorable => None,
        class => Some(class.is_in_word(everywhere)),
    };
    let (before, after) = text.split_at(at);
    let mut before = before.graphemes(true).rev();
    let mut after = after.graphemes(true);
    !(before.find_map(is_in_word) == Some(true) && after.find_map(is_in_word) == Some(true))
}
