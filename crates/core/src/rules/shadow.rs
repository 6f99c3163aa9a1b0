//! Shadows: how a pattern's `\b` learns where words end.
//!
//! The library for regular expressions has its own idea of `\b`: a Chinese character beside a digit
//! is not a boundary to it, nor is the `T` that folding made of `™`. So a text for patterns with
//! `\b` has *shadows* in place of those characters: code points of planes that have no characters,
//! which the library takes for no part of a word. Each class and literal of the pattern matches a
//! character and its shadow alike (`pattern.rs`).

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};
use regex_syntax::is_word_character;

use super::words;

/// The characters that become shadows: they are parts of a word for the library, and not for us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Shadows {
    /// None.
    #[default]
    None,
    /// Those that stand for symbols.
    Symbols,
    /// The same, and those of scripts without spaces.
    Unspaced,
}

/// Moves a character of planes 0 to 3 to planes 4 to 7, one of plane 14 to plane 10, and back.
const AWAY: u32 = 0x4_0000;

/// Returns a character's shadow, or the character of a shadow.
pub fn of(c: char) -> char {
    char::from_u32(u32::from(c) ^ AWAY).unwrap_or(c)
}

impl Shadows {
    /// Returns whether a folded character from a cluster of this class becomes a shadow.
    pub fn has(self, class: words::Class, folded: char) -> bool {
        let is_away = match self {
            Self::None => false,
            Self::Symbols => !class.is_in_word(true),
            Self::Unspaced => !class.is_in_word(false),
        };
        is_away && is_word_character(folded)
    }
}

/// Returns a class whose characters are as good as their shadows. It has no other shadows.
pub fn with_shadows(mut class: ClassUnicode) -> ClassUnicode {
    static WORD: LazyLock<ClassUnicode> = LazyLock::new(|| {
        match regex_syntax::parse(r"\w")
            .expect("it is a pattern")
            .into_kind()
        {
            HirKind::Class(Class::Unicode(class)) => class,
            kind => unreachable!("{kind:?} is not a class"),
        }
    });
    static SHADOWS: LazyLock<ClassUnicode> = LazyLock::new(|| moved(&WORD));
    let mut own = class.clone();
    own.intersect(&WORD);
    class.difference(&SHADOWS);
    class.union(&moved(&own));
    class
}

fn moved(class: &ClassUnicode) -> ClassUnicode {
    let ranges = class.ranges().iter();
    ClassUnicode::new(
        ranges.map(|range| ClassUnicodeRange::new(of(range.start()), of(range.end()))),
    )
}
