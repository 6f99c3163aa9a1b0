//! Finds keywords that begin with a word and are made of whole words, where that is asked for.
//!
//! Such a keyword can begin only where a word of the text begins, and its words are the text's
//! words. So one look into a hash table decides for nearly every word of a text, however many
//! keywords there are. An automaton takes a step for every letter, and with many keywords most
//! steps miss the cache.
//!
//! Texts are seen as tokens: whole words, and the single characters between them. The table has the
//! hash of every keyword's first token, of its first two, and so on. A hash is not a proof: what it
//! finds is compared with the keyword. In a folded text a word of the original can begin or end
//! inside of a token, at a *break* (`fold.rs`); the parts between are looked up, too.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::ops::Range;

use foldhash::fast::FixedState;

use super::words::{Class, classes};

/// Keywords as sequences of tokens.
#[derive(Debug)]
pub struct Vocabulary {
    /// True if words are also searched in scripts without spaces.
    everywhere: bool,
    hash: FixedState,
    /// The hash of a keyword's first tokens → the place of the keyword that has no more than these,
    /// or [`LONGER`].
    prefixes: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    /// The end of each keyword in `texts`, and its tag.
    keywords: Vec<(u32, u32)>,
    texts: String,
    /// Bytes of the longest token.
    longest: usize,
}

/// The place of no keyword: there are only longer ones.
const LONGER: u32 = u32::MAX;

impl Vocabulary {
    /// The vocabulary of these keywords with their tags. All begin with a word, and none comes
    /// twice.
    pub fn new(keywords: &[(String, u32)], everywhere: bool) -> Self {
        // Two keywords with the same hash: about once in 2⁶⁴ / n² tries.
        (0..)
            .find_map(|seed| Self::with_seed(keywords, everywhere, seed))
            .expect("some seed tells the keywords apart")
    }

    fn with_seed(keywords: &[(String, u32)], everywhere: bool, seed: u64) -> Option<Self> {
        let mut vocabulary = Self {
            everywhere,
            hash: FixedState::with_seed(seed),
            prefixes: HashMap::default(),
            keywords: Vec::with_capacity(keywords.len()),
            texts: String::new(),
            longest: 0,
        };
        for ((keyword, tag), place) in keywords.iter().zip(0..) {
            let (mut prefix, mut at) = (0, 0);
            while at < keyword.len() {
                let end = token_end(keyword, at, everywhere);
                vocabulary.longest = vocabulary.longest.max(end - at);
                prefix = vocabulary.longer(prefix, &keyword[at..end]);
                match vocabulary.prefixes.entry(prefix) {
                    Entry::Vacant(entry) => {
                        _ = entry.insert(if end == keyword.len() { place } else { LONGER })
                    }
                    Entry::Occupied(mut entry) if end == keyword.len() => {
                        if entry.insert(place) != LONGER {
                            return None;
                        }
                    }
                    Entry::Occupied(_) => {}
                }
                at = end;
            }
            vocabulary.texts.push_str(keyword);
            vocabulary
                .keywords
                .push((vocabulary.texts.len() as u32, *tag));
        }
        Some(vocabulary)
    }

    /// Calls `found` with every occurrence in a text that begins where a word does, or at one of
    /// these breaks, and its keyword's tag.
    pub fn find(&self, text: &str, breaks: &[usize], mut found: impl FnMut(Range<usize>, u32)) {
        let text = Broken { text, breaks };
        let mut at = 0;
        while at < text.text.len() {
            let end = token_end(text.text, at, self.everywhere);
            if begins_with_word(&text.text[at..end], self.everywhere) {
                self.follow(&text, at, end, &mut found);
                for start in text.breaks(at..end) {
                    self.follow(&text, *start, end, &mut found);
                }
            }
            at = end;
        }
    }

    /// Follows the text from `start`, in the token that ends at `end`, as long as some keyword goes
    /// on like it.
    #[inline]
    fn follow(
        &self,
        text: &Broken<'_>,
        start: usize,
        mut end: usize,
        found: &mut impl FnMut(Range<usize>, u32),
    ) {
        let (mut prefix, mut token) = (0, start);
        loop {
            for part in text.breaks(token..end.min(token + self.longest + 1)) {
                let prefix = self.longer(prefix, &text.text[token..*part]);
                if let Some(place) = self.prefixes.get(&prefix) {
                    self.report(text.text, start..*part, *place, found);
                }
            }
            prefix = self.longer(prefix, &text.text[token..end]);
            let Some(place) = self.prefixes.get(&prefix) else {
                return;
            };
            self.report(text.text, start..end, *place, found);
            if end == text.text.len() {
                return;
            }
            token = end;
            end = token_end(text.text, end, self.everywhere);
        }
    }

    /// Reports an occurrence of the keyword at this place, if it is one.
    fn report(
        &self,
        text: &str,
        span: Range<usize>,
        place: u32,
        found: &mut impl FnMut(Range<usize>, u32),
    ) {
        if place != LONGER && self.keyword(place) == &text[span.clone()] {
            found(span, self.keywords[place as usize].1);
        }
    }

    fn keyword(&self, place: u32) -> &str {
        let place = place as usize;
        let begin = place
            .checked_sub(1)
            .map_or(0, |before| self.keywords[before].0);
        &self.texts[begin as usize..self.keywords[place].0 as usize]
    }

    /// The hash of some tokens and one more.
    #[inline]
    fn longer(&self, prefix: u64, token: &str) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(prefix);
        hasher.write(token.as_bytes());
        hasher.finish()
    }

    /// Bytes of memory that it holds, about.
    pub fn heap_bytes(&self) -> usize {
        // A table has a byte of its own for each place, and an eighth more places than it can fill.
        let prefixes = self.prefixes.capacity() * 8 / 7 * (size_of::<(u64, u32)>() + 1);
        prefixes + size_of_val(&*self.keywords) + self.texts.capacity()
    }
}

/// A text and its breaks.
struct Broken<'t> {
    text: &'t str,
    breaks: &'t [usize],
}

impl Broken<'_> {
    /// Returns the breaks inside of this part of the text.
    #[inline]
    fn breaks(&self, part: Range<usize>) -> &[usize] {
        if self.breaks.is_empty() {
            return &[];
        }
        let begin = self.breaks.partition_point(|at| *at <= part.start);
        let end = self.breaks.partition_point(|at| *at < part.end);
        &self.breaks[begin..end.max(begin)]
    }
}

/// Returns true if a keyword begins with a word.
#[inline]
pub fn begins_with_word(keyword: &str, everywhere: bool) -> bool {
    match keyword.as_bytes().first() {
        Some(byte) if byte.is_ascii() => is_ascii_word(*byte),
        Some(_) => keyword
            .chars()
            .next()
            .is_some_and(|first| classes(false).get(first).is_in_word(everywhere)),
        None => false,
    }
}

/// Returns the end of the token that begins here. A mark belongs to the word before it, and to no
/// word where there is none.
#[inline]
fn token_end(text: &str, at: usize, everywhere: bool) -> usize {
    let bytes = text.as_bytes();
    let mut end = at;
    loop {
        while bytes.get(end).is_some_and(|byte| is_ascii_word(*byte)) {
            end += 1;
        }
        match bytes.get(end) {
            Some(byte) if !byte.is_ascii() => {
                let c = text[end..].chars().next().expect("a character begins here");
                let class = classes(false).get(c);
                let is_mark = matches!(class, Class::Mark | Class::Enclosing);
                if !class.is_in_word(everywhere) && (end == at || !is_mark) {
                    return if end > at { end } else { end + c.len_utf8() };
                }
                end += c.len_utf8();
            }
            Some(_) if end == at => return at + 1,
            _ => return end,
        }
    }
}

fn is_ascii_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Hashes what is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are of type u64");
    }
}
