//! Ignored differences between texts, and the folding that removes them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use caseless::Caseless;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};
use unicode_segmentation::UnicodeSegmentation;

use super::document::{Difference, Matching};
use super::per_char::PerChar;
use super::shadow::{self, Shadows};
use super::unicode::{is_ignorable, plain_typography, without_ignorable};
use super::words::{Class, class_of_cluster, classes};

/// The ignored differences. By default, all of them do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Folding {
    /// Upper and lower case are the same.
    pub case: bool,
    /// `I` is `ı`, and `İ` is `i`, as in Turkish and Azeri.
    pub turkish: bool,
    /// Compatibility forms are the same.
    pub width: bool,
    /// Ignorable characters are not there.
    pub ignorable: bool,
    /// Typographic quotation marks and hyphens are plain ones.
    pub typography: bool,
    /// All white space is the space, and several of it are one.
    pub spaces: bool,
    /// The characters that become shadows.
    pub shadows: Shadows,
}

/// The result of folding a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Itself. It joins no other character that is not complex.
    Same,
    /// Its shadow. It joins as little.
    Shadow,
    /// This other character. It joins as little.
    Other(char),
    /// Nothing. It joins as little.
    Nothing,
    /// It may join its neighbours, become several characters, or be a word's end in the middle of a
    /// folded word.
    Complex,
}

impl Kind {
    /// Returns what one character becomes; none where that is nothing, or not to be said of one
    /// alone.
    pub fn folded(self, c: char) -> Option<char> {
        match self {
            Self::Same => Some(c),
            Self::Shadow => Some(shadow::of(c)),
            Self::Other(other) => Some(other),
            Self::Nothing | Self::Complex => None,
        }
    }
}

impl Folding {
    /// Returns how a document wants its keywords and its texts compared. Without shadows.
    pub fn of(matching: &Matching) -> Self {
        let folds = |difference| difference == Difference::Fold;
        Self {
            case: folds(matching.case),
            turkish: folds(matching.case) && matching.language.is_some(),
            width: folds(matching.width),
            ignorable: folds(matching.ignorable),
            typography: folds(matching.typography),
            spaces: folds(matching.typography),
            ..Self::default()
        }
    }

    /// Returns what this folding makes of all characters. Tables are made once for a process.
    pub fn kinds(self) -> &'static PerChar<Kind> {
        static TABLES: LazyLock<Mutex<HashMap<Folding, &'static PerChar<Kind>>>> =
            LazyLock::new(Mutex::default);
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        tables
            .entry(self)
            .or_insert_with(|| Box::leak(Box::new(PerChar::new(|c| self.kind(c)))))
    }

    fn kind(self, c: char) -> Kind {
        let mut utf8 = [0; 4];
        let text: &str = c.encode_utf8(&mut utf8);
        if joins(c) {
            return Kind::Complex;
        }
        let folded = self.normalize(text);
        let mut chars = folded.chars();
        match (chars.next(), chars.next()) {
            (None, _) => Kind::Nothing,
            (Some(one), None) if !(one != c && joins(one)) => {
                if is_symbol_of_letters(c, one) {
                    Kind::Complex
                } else if self
                    .shadows
                    .has(class_of_cluster(text, classes(self.ignorable)), one)
                {
                    match shadow::of(one) {
                        _ if one == c => Kind::Shadow,
                        other => Kind::Other(other),
                    }
                } else if one == c {
                    Kind::Same
                } else {
                    Kind::Other(one)
                }
            }
            _ => Kind::Complex,
        }
    }

    /// Returns a cluster or a phrase in the form in which texts are compared, without shadows;
    /// white space is not yet made one. By the definitions of canonical and compatibility caseless
    /// matching in section 3.13 of the Unicode Standard, and composed at the end, since that leaves
    /// most texts as they are.
    pub fn normalize(self, text: &str) -> Cow<'_, str> {
        let mut text = Cow::Borrowed(text);
        if self.ignorable && text.contains(is_ignorable) {
            text = text
                .graphemes(true)
                .map(without_ignorable)
                .collect::<String>()
                .into();
        }
        if (self.typography || self.spaces) && text.chars().any(|c| self.plain(c) != c) {
            let mut plain: String = text.chars().map(|c| self.plain(c)).collect();
            if self.spaces && &*text == "\r\n" {
                plain.pop();
            }
            text = plain.into();
        }
        if self.turkish && text.contains(['I', 'İ', '\u{307}']) {
            text = text.nfc().map(turkish).collect::<String>().into();
        }
        if self.is_normal(&text) {
            return text;
        }
        let chars = text.chars();
        let mut normal: String = match (self.case, self.width) {
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
        };
        if self.width {
            order_vowel_signs(&mut normal);
        }
        if self.ignorable {
            normal.retain(|c| !is_ignorable(c) || text.contains(c)); // Some compatibility forms have a tatweel in them.
        }
        Cow::Owned(normal)
    }

    fn is_normal(self, text: &str) -> bool {
        let is_composed = match self.width {
            false => is_nfc_quick(text.chars()) == IsNormalized::Yes,
            true => is_nfkc_quick(text.chars()) == IsNormalized::Yes && !text.contains(NIKHAHIT),
        };
        is_composed && (!self.case || text.chars().default_case_fold().eq(text.chars()))
    }

    fn plain(self, c: char) -> char {
        if self.spaces && c.is_whitespace() {
            ' '
        } else if self.typography {
            plain_typography(c)
        } else {
            c
        }
    }
}

/// Returns the grapheme clusters of a text that begins with one, each with its place. As
/// `grapheme_indices`, and faster where nothing joins.
pub fn clusters(text: &str) -> impl Iterator<Item = (usize, &str)> {
    static KINDS: LazyLock<&PerChar<Kind>> = LazyLock::new(|| Folding::default().kinds());
    let kinds = *KINDS;
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

/// Returns whether a character can be one with a simple neighbour, or with another one like itself.
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

/// Returns whether folding makes a part of a word of what is none, such as `¹`.
fn is_symbol_of_letters(c: char, folded: char) -> bool {
    let class = |c| classes(false).get(c);
    c != folded && class(c) == Class::Other && class(folded) != Class::Other
}

/// The case of the letters in which Turkish and Azeri differ from other languages.
fn turkish(c: char) -> char {
    match c {
        'I' => 'ı',
        'İ' => 'i',
        c => c,
    }
}

/// The Thai and the Lao nikhahit, which with the vowel sign AA are the compatibility form of the
/// vowel sign AM.
const NIKHAHIT: [char; 2] = ['\u{e4d}', '\u{ecd}'];

/// AM is typed behind a tone mark, and nikhahit before it; readers see the same. No form of
/// normalization knows that.
fn order_vowel_signs(text: &mut String) {
    let is_tone = |c: char| matches!(c, '\u{e48}'..='\u{e4b}' | '\u{ec8}'..='\u{ecb}');
    if text.contains(NIKHAHIT) && text.contains(is_tone) {
        let mut chars: Vec<char> = text.chars().collect();
        for at in 1..chars.len() {
            if is_tone(chars[at - 1]) && NIKHAHIT.contains(&chars[at]) {
                chars.swap(at - 1, at);
            }
        }
        *text = chars.into_iter().collect();
    }
}
