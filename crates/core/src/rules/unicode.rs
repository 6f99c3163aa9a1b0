//! What Unicode says of characters, as far as matching needs it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use caseless::Caseless;
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};
use unicode_script::{Script, UnicodeScript};
use unicode_segmentation::UnicodeSegmentation;

/// A text in the form in which texts are compared: composed (NFC), with `width` of compatibility forms (NFKC), with
/// `case` of case folding. By the definitions of canonical and compatibility caseless matching in section 3.13 of the
/// Unicode Standard; composed at the end, since that leaves most texts as they are.
pub fn normalize(text: &str, case: bool, width: bool) -> Cow<'_, str> {
    let is_composed = match width {
        false => is_nfc_quick(text.chars()) == IsNormalized::Yes,
        true => is_nfkc_quick(text.chars()) == IsNormalized::Yes,
    };
    if is_composed && (!case || text.chars().default_case_fold().eq(text.chars())) {
        return Cow::Borrowed(text);
    }
    let chars = text.chars();
    Cow::Owned(match (case, width) {
        (false, false) => chars.nfc().collect(),
        (false, true) => chars.nfkc().collect(),
        (true, false) => chars.nfd().default_case_fold().nfc().collect(),
        (true, true) => chars
            .nfd()
            .default_case_fold()
            .nfkd()
            .default_case_fold()
            .nfkc()
            .collect(),
    })
}

/// What a character is to folding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It stands for itself, and joins no other character that is not complex.
    Same,
    /// So, but it stands for this other character.
    Other(char),
    /// It may join its neighbours, or stands for several characters.
    Complex,
}

impl Kind {
    /// What stands for `c`, which is of this kind and not complex.
    pub fn folded(self, c: char) -> char {
        match self {
            Self::Other(other) => other,
            Self::Same | Self::Complex => c,
        }
    }
}

/// A value for every character. Two steps: a block for the upper bits, a value of the block for the lower ones; blocks that
/// are alike are stored once.
#[derive(Debug)]
pub struct PerChar<T> {
    blocks: Vec<u16>,
    values: Vec<T>,
}

const BLOCK: u32 = 128;

/// Ranges whose blocks have one value each, so that they need no look: ideographs, Hangul syllables, Tangut, private use, and
/// planes with nothing in them.
const UNIFORM: [RangeInclusive<u32>; 8] = [
    0x3400..=0x4dbf,
    0x4e00..=0x9fff,
    0xac00..=0xd77f,
    0xd800..=0xf8ff,
    0x1_7000..=0x1_8cff,
    0x2_0000..=0x2_f7ff,
    0x3_0000..=0xd_ffff,
    0xe_1000..=0x10_ffff,
];

impl<T: Copy + Eq + Hash> PerChar<T> {
    fn new(value: impl Fn(char) -> T) -> Self {
        let mut table = Self {
            blocks: Vec::new(),
            values: Vec::new(),
        };
        let mut known: HashMap<Vec<T>, u16> = HashMap::new();
        let value = |code| value(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        for first in (0..=u32::from(char::MAX)).step_by(BLOCK as usize) {
            let last = first + BLOCK - 1;
            let block: Vec<T> = match UNIFORM
                .iter()
                .any(|range| range.contains(&first) && range.contains(&last))
            {
                true => vec![value(first); BLOCK as usize],
                false => (first..=last).map(&value).collect(),
            };
            let number = *known.entry(block).or_insert_with_key(|block| {
                table.values.extend(block);
                u16::try_from(table.values.len() / BLOCK as usize - 1)
                    .expect("there are 8,704 blocks")
            });
            table.blocks.push(number);
        }
        table
    }

    /// A character's value.
    #[inline]
    pub fn get(&self, c: char) -> T {
        let code = u32::from(c);
        let block = usize::from(self.blocks[(code / BLOCK) as usize]);
        self.values[block * BLOCK as usize + (code % BLOCK) as usize]
    }
}

/// The kinds of all characters with these options.
pub fn kinds(case: bool, width: bool) -> &'static PerChar<Kind> {
    static TABLES: [LazyLock<PerChar<Kind>>; 4] = [
        LazyLock::new(|| PerChar::new(|c| kind(c, false, false))),
        LazyLock::new(|| PerChar::new(|c| kind(c, true, false))),
        LazyLock::new(|| PerChar::new(|c| kind(c, false, true))),
        LazyLock::new(|| PerChar::new(|c| kind(c, true, true))),
    ];
    &TABLES[usize::from(case) + 2 * usize::from(width)]
}

fn kind(c: char, case: bool, width: bool) -> Kind {
    let mut utf8 = [0; 4];
    let text: &str = c.encode_utf8(&mut utf8);
    if joins(c) {
        return Kind::Complex;
    }
    let folded = normalize(text, case, width);
    let mut chars = folded.chars();
    match (chars.next(), chars.next()) {
        (Some(one), None) if one == c => Kind::Same,
        (Some(one), None) if !joins(one) => Kind::Other(one),
        _ => Kind::Complex,
    }
}

/// Whether a character can be one with a simple neighbour, or with another one like itself.
fn joins(c: char) -> bool {
    let is_maybe_composed = is_nfc_quick(std::iter::once(c)) == IsNormalized::Maybe;
    let is_joined = ['a', c, c, 'a']
        .iter()
        .collect::<String>()
        .graphemes(true)
        .count()
        < 4;
    is_maybe_composed || is_joined || c == '\r' // CR joins LF.
}

/// The grapheme clusters of a text that begins with one, each with its place. As `grapheme_indices`, and faster where nothing
/// joins.
pub fn clusters(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let kinds = kinds(false, false);
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let mut chars = rest.chars();
        let (first, next) = (chars.next()?, chars.next());
        let joins = |c: char| kinds.get(c) == Kind::Complex;
        let is_alone = !joins(first) && next.is_none_or(|next| !joins(next));
        let length = if is_alone {
            first.len_utf8()
        } else {
            rest.graphemes(true).next()?.len()
        };
        at += length;
        Some((at - length, &rest[..length]))
    })
}

/// What a character is to words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// No part of a word.
    Other,
    /// Part of a word, in a script that puts spaces between words.
    Spaced,
    /// Part of a word, in a script that does not.
    Unspaced,
}

impl Class {
    /// A character's class.
    #[inline]
    pub fn of(c: char) -> Self {
        static CLASSES: LazyLock<PerChar<Class>> = LazyLock::new(|| PerChar::new(class));
        CLASSES.get(c)
    }

    /// Whether a word goes on from a character of this class to one of the other. `everywhere`: scripts make no difference.
    pub fn joins(self, other: Self, everywhere: bool) -> bool {
        let is_in_word =
            |class: Self| class == Self::Spaced || (everywhere && class == Self::Unspaced);
        is_in_word(self) && is_in_word(other)
    }
}

fn class(c: char) -> Class {
    if !(c.is_alphanumeric() || c == '_' || is_combining_mark(c)) {
        Class::Other
    } else if is_unspaced(c) {
        Class::Unspaced
    } else {
        Class::Spaced
    }
}

/// Whether words of the character's script follow each other without spaces. Korean has spaces, but its particles are
/// written at the word.
fn is_unspaced(c: char) -> bool {
    use Script::*;
    let scripts = c.script_extension();
    let unspaced = [
        Han,
        Hiragana,
        Katakana,
        Hangul,
        Bopomofo,
        Yi,
        Thai,
        Lao,
        Khmer,
        Myanmar,
        Tibetan,
        Tai_Le,
        New_Tai_Lue,
        Tai_Tham,
    ];
    !scripts.is_common()
        && !scripts.is_inherited()
        && unspaced
            .into_iter()
            .any(|script| scripts.contains_script(script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_need_no_look_are_uniform() {
        for range in UNIFORM {
            // A prime: every place of a block has its turn.
            for c in range.clone().step_by(31).filter_map(char::from_u32) {
                let first = char::from_u32(*range.start()).unwrap_or(char::REPLACEMENT_CHARACTER);
                for (case, width) in [(false, false), (true, true)] {
                    assert_eq!(kind(c, case, width), kind(first, case, width), "{c:?}");
                }
                // A character that Unicode has not assigned yet is seen as its neighbours.
                assert!(class(c) == class(first) || !c.is_alphanumeric(), "{c:?}");
            }
        }
    }
}
