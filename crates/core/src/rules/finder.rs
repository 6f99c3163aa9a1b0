//! Finds all occurrences of many keywords in one pass.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use daachorse::CharwiseDoubleArrayAhoCorasick;
use foldhash::fast::FixedState;

use super::document::Words;
use super::fold::Folded;
use super::vocabulary::{Vocabulary, begins_with_word};

/// The folded keywords of a document. Immutable: a new document makes a new one.
#[derive(Debug)]
pub struct Finder {
    /// Keywords that begin with a word, where only whole words count.
    words: Option<Vocabulary>,
    /// All others.
    anywhere: Option<Automaton>,
    /// The owners of a keyword that has several; its tag is [`SHARED`] and the index here.
    shared: Vec<Vec<u16>>,
}

/// A keyword's tag is its owner, or where to find its owners.
const SHARED: u32 = 1 << 31;

/// Two ways of laying out the same automaton. Measured (`benches/rules`, docs/rules.md) over
/// reminder-sized texts:
///
/// - a DFA of bytes takes one look for a byte and is the fastest for keywords in ASCII, as long as
///   it stays in the cache; it grows with keywords times alphabet, to 11 MiB for 10,000 English
///   keywords and 34 MiB for as many Chinese ones;
/// - a double array of characters takes one look for a character where bytes take three, is the
///   fastest for everything that is not ASCII, and the smallest for large dictionaries: 5 MiB for
///   100,000 Chinese keywords.
///
/// The contiguous NFA that aho-corasick chooses by itself for more than 100 keywords is slower than
/// both at every size.
enum Automaton {
    /// With the tag of each pattern.
    Bytes(AhoCorasick, Vec<u32>),
    Characters(CharwiseDoubleArrayAhoCorasick<u32>),
}

/// Up to this many bytes of ASCII keywords a DFA pays.
const MAX_DFA_BYTES: usize = 256 << 10;

impl Finder {
    /// Compiles keywords, each with its owner. None may be empty. The same keyword may have several
    /// owners. Occurrences that are not whole `words` may be left out, and may not.
    ///
    /// # Errors
    /// When they are too many for the automaton.
    pub fn new(
        keywords: impl IntoIterator<Item = (String, u16)>,
        words: Words,
    ) -> Result<Self, String> {
        let mut shared: Vec<Vec<u16>> = Vec::new();
        let mut tags: HashMap<String, u32, FixedState> = HashMap::default();
        for (keyword, owner) in keywords {
            match tags.entry(keyword) {
                Entry::Vacant(entry) => _ = entry.insert(owner.into()),
                Entry::Occupied(mut entry) if *entry.get() < SHARED => {
                    if *entry.get() != u32::from(owner) {
                        let tag = SHARED | shared.len() as u32;
                        shared.push(vec![entry.insert(tag) as u16, owner]);
                    }
                }
                Entry::Occupied(entry) => {
                    let owners = &mut shared[(entry.get() & !SHARED) as usize];
                    if !owners.contains(&owner) {
                        owners.push(owner);
                    }
                }
            }
        }
        let everywhere = words == Words::On;
        let mut keywords: Vec<(String, u32)> = tags.into_iter().collect();
        keywords.sort_unstable();
        let (whole, others): (Vec<_>, Vec<_>) = keywords
            .into_iter()
            .partition(|(keyword, _)| words != Words::Off && begins_with_word(keyword, everywhere));
        Ok(Self {
            words: (!whole.is_empty()).then(|| Vocabulary::new(&whole, everywhere)),
            anywhere: (!others.is_empty())
                .then(|| Automaton::new(&others))
                .transpose()?,
            shared,
        })
    }

    /// Calls `found` with every occurrence in a text and each of its keyword's owners.
    pub fn find(&self, folded: &Folded<'_>, mut found: impl FnMut(Range<usize>, u16)) {
        let text = folded.text();
        let mut report = |span: Range<usize>, tag: u32| {
            if tag < SHARED {
                found(span, tag as u16);
            } else {
                self.shared[(tag & !SHARED) as usize]
                    .iter()
                    .for_each(|owner| found(span.clone(), *owner));
            }
        };
        if let Some(words) = &self.words {
            words.find(text, folded.breaks(), &mut report);
        }
        match &self.anywhere {
            Some(Automaton::Bytes(automaton, tags)) => automaton
                .find_overlapping_iter(text)
                .for_each(|found| report(found.range(), tags[found.pattern().as_usize()])),
            Some(Automaton::Characters(automaton)) => automaton
                .find_overlapping_iter(text)
                .for_each(|found| report(found.start()..found.end(), found.value())),
            None => {}
        }
    }

    /// Bytes of memory that it holds, about.
    pub fn heap_bytes(&self) -> usize {
        let anywhere = self
            .anywhere
            .as_ref()
            .map_or(0, |automaton| match automaton {
                Automaton::Bytes(automaton, tags) => {
                    automaton.memory_usage() + size_of_val(&**tags)
                }
                Automaton::Characters(automaton) => automaton.heap_bytes(),
            });
        let words = self.words.as_ref().map_or(0, Vocabulary::heap_bytes);
        let shared: usize = self
            .shared
            .iter()
            .map(|owners| size_of_val(owners) + size_of_val(&**owners))
            .sum();
        words + anywhere + shared
    }
}

impl Automaton {
    fn new(keywords: &[(String, u32)]) -> Result<Self, String> {
        let bytes: usize = keywords.iter().map(|(keyword, _)| keyword.len()).sum();
        if bytes <= MAX_DFA_BYTES && keywords.iter().all(|(keyword, _)| keyword.is_ascii()) {
            let texts = keywords.iter().map(|(keyword, _)| keyword);
            let automaton = AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::DFA))
                .build(texts);
            let tags = keywords.iter().map(|(_, tag)| *tag).collect();
            return automaton
                .map(|automaton| Self::Bytes(automaton, tags))
                .map_err(|error| error.to_string());
        }
        let tagged = keywords.iter().map(|(keyword, tag)| (keyword, *tag));
        CharwiseDoubleArrayAhoCorasick::with_values(tagged)
            .map(Self::Characters)
            .map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for Automaton {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes(..) => "Bytes",
            Self::Characters(_) => "Characters",
        })
    }
}
