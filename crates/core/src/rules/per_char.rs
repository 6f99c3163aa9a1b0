//! A table with a value for every character.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;

/// A value for every character. Two steps: a block for the upper bits, a value of the block for the
/// lower ones. Blocks with the same values are stored once.
#[derive(Debug)]
pub struct PerChar<T> {
    blocks: Vec<u16>,
    values: Vec<T>,
}

const BLOCK: u32 = 128;

/// Ranges whose blocks have one value each, so that only their first character is looked up:
/// ideographs, Hangul syllables, Tangut, private use, and planes with nothing in them.
pub(super) const UNIFORM: [RangeInclusive<u32>; 8] = [
    0x3400..=0x4dbf,
    0x4e00..=0x9fff,
    0xac00..=0xd77f,
    0xd800..=0xf8ff,
    0x1_7000..=0x1_87ff,
    0x2_0000..=0x2_f7ff,
    0x4_0000..=0xd_ffff,
    0xe_1000..=0x10_ffff,
];

impl<T: Copy + Eq + Hash> PerChar<T> {
    /// Asks for every character's value, and keeps the answers.
    pub fn new(value: impl Fn(char) -> T) -> Self {
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

    /// Returns a character's value.
    #[inline]
    pub fn get(&self, c: char) -> T {
        let code = u32::from(c);
        let block = usize::from(self.blocks[(code / BLOCK) as usize]);
        self.values[block * BLOCK as usize + (code % BLOCK) as usize]
    }
}
