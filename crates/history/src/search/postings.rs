//! The search index of some thousand rows that were written together: for each gram, the rows that
//! have it.
//!
//! Rows are called by their places among the index's rows. The index is cut into *blocks* of about
//! a kilobyte, in the order of grams, so that a search reads the few blocks that its grams are in.
//! A block is a row of a table; so is what tells the blocks apart, its head.
//!
//! An index of one's own, since FTS5's and `pg_trgm` cost more to write than all else together; it
//! is never changed but to forget rows, and it is the same for every database.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::grams::grams;

/// Rows of an index: places are 16 bits.
pub(crate) const MOST_ROWS: usize = 1 << 16;
/// A block that has so many bytes is full.
const BLOCK_BYTES: usize = 1_024;

/// An index that is to be written.
#[derive(Debug)]
pub(crate) struct Index {
    /// The rows' numbers, in order.
    pub(crate) numbers: Vec<i64>,
    /// The first gram of each block.
    pub(crate) firsts: Vec<i64>,
    /// The blocks.
    pub(crate) blocks: Vec<Vec<u8>>,
}

/// Collects rows, whose numbers only grow.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    numbers: Vec<i64>,
    places: HashMap<i64, Vec<u16>, foldhash::fast::RandomState>,
}

impl Builder {
    /// Adds a row with these folded texts.
    pub(crate) fn add<'t>(&mut self, number: i64, texts: impl Iterator<Item = &'t str>) {
        let place = self.numbers.len() as u16;
        self.numbers.push(number);
        for gram in texts.flat_map(grams) {
            let places = self.places.entry(gram).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }

    pub(crate) fn build(self) -> Index {
        let mut index = Index {
            numbers: self.numbers,
            firsts: Vec::new(),
            blocks: Vec::new(),
        };
        let mut sorted: Vec<(i64, Vec<u16>)> = self.places.into_iter().collect();
        sorted.sort_unstable_by_key(|(gram, _)| *gram);
        let mut block = Block::default();
        for (gram, places) in &sorted {
            if block.bytes.len() >= BLOCK_BYTES {
                index.blocks.push(std::mem::take(&mut block).bytes);
            }
            if block.bytes.is_empty() {
                index.firsts.push(*gram);
            }
            block.push(*gram, places);
        }
        if !block.bytes.is_empty() {
            index.blocks.push(block.bytes);
        }
        index
    }
}

/// A block that is being written: for each gram its distance from the one before, how many bytes
/// its places have, and their distances.
#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    last: i64,
    places: Vec<u8>,
}

impl Block {
    fn push(&mut self, gram: i64, places: &[u16]) {
        push(&mut self.bytes, (gram - self.last) as u64);
        self.last = gram;
        self.places.clear();
        let mut before = 0;
        for place in places {
            push(&mut self.places, u64::from(place - before));
            before = *place;
        }
        push(&mut self.bytes, self.places.len() as u64);
        self.bytes.extend_from_slice(&self.places);
    }
}

/// Returns the blocks of an index that have grams of this range; `firsts` are the blocks' first
/// grams.
pub(crate) fn blocks_of(firsts: &[i64], range: &RangeInclusive<i64>) -> std::ops::Range<usize> {
    let begin = firsts
        .partition_point(|first| first <= range.start())
        .saturating_sub(1);
    begin
        ..firsts
            .partition_point(|first| first <= range.end())
            .max(begin)
}

/// Adds the places of all grams of a range, in no order, and perhaps several times.
pub(crate) fn places_of(block: &[u8], range: &RangeInclusive<i64>, into: &mut Vec<u16>) {
    let asked = Entries {
        rest: block,
        gram: 0,
    }
    .skip_while(|(gram, _)| gram < range.start());
    for (_, places) in asked.take_while(|(gram, _)| gram <= range.end()) {
        into.extend(Places {
            rest: places,
            place: 0,
        });
    }
}

/// Returns the block without these places, which are in order; none if it has none of them.
pub(crate) fn without(block: &[u8], gone: &[u16]) -> Option<Vec<u8>> {
    let mut kept = Block::default();
    let mut is_same = true;
    for (gram, places) in (Entries {
        rest: block,
        gram: 0,
    }) {
        let mut places: Vec<u16> = Places {
            rest: places,
            place: 0,
        }
        .collect();
        let all = places.len();
        places.retain(|place| gone.binary_search(place).is_err());
        is_same &= places.len() == all;
        if !places.is_empty() {
            kept.push(gram, &places);
        }
    }
    (!is_same).then_some(kept.bytes)
}

/// The grams of a block, each with its places as bytes.
struct Entries<'b> {
    rest: &'b [u8],
    gram: i64,
}

impl<'b> Iterator for Entries<'b> {
    type Item = (i64, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.gram += pull(&mut self.rest) as i64;
        let length = pull(&mut self.rest) as usize;
        let (places, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some((self.gram, places))
    }
}

/// The places of a gram.
struct Places<'b> {
    rest: &'b [u8],
    place: u16,
}

impl Iterator for Places<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.rest.is_empty() {
            return None;
        }
        self.place += pull(&mut self.rest) as u16;
        Some(self.place)
    }
}

/// Numbers that grow, as bytes.
pub(crate) fn pack(numbers: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len() * 3);
    let mut last = 0;
    for number in numbers {
        push(&mut bytes, (number - last) as u64);
        last = *number;
    }
    bytes
}

/// Returns the numbers that [`pack`] turned into bytes.
pub(crate) fn unpack(mut bytes: &[u8]) -> Vec<i64> {
    let (mut numbers, mut last) = (Vec::new(), 0);
    while !bytes.is_empty() {
        last += pull(&mut bytes) as i64;
        numbers.push(last);
    }
    numbers
}

/// Appends a number: seven bits a byte, and a bit that says that more follow.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number off; 0 where there is none.
fn pull(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else {
            break;
        };
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::grams::needed;
    use super::*;

    fn search(index: &Index, part: &str) -> Vec<i64> {
        let mut found: Option<Vec<u16>> = None;
        for range in needed(part) {
            let mut places = Vec::new();
            for block in blocks_of(&index.firsts, &range) {
                places_of(&index.blocks[block], &range, &mut places);
            }
            found = Some(found.map_or(places.clone(), |found| {
                found.into_iter().filter(|p| places.contains(p)).collect()
            }));
        }
        let mut found: Vec<i64> = found
            .unwrap()
            .into_iter()
            .map(|place| index.numbers[usize::from(place)])
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    proptest! {
        #[test]
        fn row_is_found_by_every_part_until_forgotten(
            texts in prop::collection::vec("[abc费用\u{1f389}]{0,9}", 1..60),
            part in "[abc费用]{1,3}",
        ) {
            let mut builder = Builder::default();
            for (nth, text) in texts.iter().enumerate() {
                builder.add(nth as i64 * 1_000_000_007, [text.as_str(), "c"].into_iter());
            }
            let mut index = builder.build();
            prop_assert_eq!(unpack(&pack(&index.numbers)), index.numbers.clone());
            let have = |is_there: &dyn Fn(usize) -> bool| -> Vec<i64> {
                let having = texts.iter().enumerate().filter(|(nth, text)| {
                    is_there(*nth) && (text.contains(&part) || "c".contains(&part))
                });
                having.map(|(nth, _)| nth as i64 * 1_000_000_007).collect()
            };
            prop_assert_eq!(search(&index, &part), have(&|_| true));
            for block in &mut index.blocks {
                if let Some(kept) = without(block, &[0, 2]) {
                    *block = kept;
                }
            }
            prop_assert_eq!(search(&index, &part), have(&|nth| nth != 0 && nth != 2));
        }
    }

    #[test]
    fn a_large_index_is_cut_into_blocks() {
        let mut builder = Builder::default();
        let text = |nth: i64| format!("{nth} {}", char::from_u32(0x4e00 + nth as u32).unwrap());
        (0..5_000).for_each(|nth| builder.add(nth, [&*text(nth)].into_iter()));
        let index = builder.build();
        assert!(index.blocks.len() > 5, "{}", index.blocks.len());
        assert!(
            index
                .blocks
                .iter()
                .all(|block| block.len() < 3 * BLOCK_BYTES)
        );
        for nth in [0, 77, 4_999] {
            assert_eq!(search(&index, &text(nth)[text(nth).len() - 3..]), [nth]);
        }
    }
}
