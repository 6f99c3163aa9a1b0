//! The parts of texts by which they are found: three characters each.
//!
//! A text has one gram for each of its characters: that one and the two behind it, or fewer at its
//! end. So whatever is in a text, of one character or many, is the beginning of some gram of it;
//! that is true of every language, and a word of two Chinese characters is found as well as a
//! sentence. Grams are numbers in the order of their texts: all that begin alike are one range.

use std::ops::RangeInclusive;

/// Bits of a character.
const BITS: u32 = 21;
/// Characters of a gram.
const LENGTH: usize = 3;

/// Returns the grams of a folded text, one for each character.
pub(crate) fn grams(text: &str) -> impl Iterator<Item = i64> {
    let ahead = text.chars().map(code).chain([0; LENGTH - 1]);
    let mut window = 0;
    ahead.enumerate().filter_map(move |(nth, code)| {
        window = (window << BITS | code) & i64::MAX;
        (nth >= LENGTH - 1).then_some(window)
    })
}

/// Grams of a long text that are asked for: the more, the less is named that does not have it.
const ASKED_FOR: usize = 4;

/// Returns the grams that a text with this folded part must have: one of each range. The part must
/// not be empty. Not all that could be asked for, but some from all over the text.
pub(crate) fn needed(part: &str) -> Vec<RangeInclusive<i64>> {
    let characters = part.chars().count();
    let whole = characters.saturating_sub(LENGTH - 1).max(1);
    let some = grams(part).take(whole).step_by(whole.div_ceil(ASKED_FOR));
    let missing = BITS * LENGTH.saturating_sub(characters) as u32;
    some.map(|gram| gram..=gram | ((1 << missing) - 1))
        .collect()
}

/// Its place among characters, from 1.
fn code(c: char) -> i64 {
    i64::from(u32::from(c)) + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_part_of_a_text_is_found(text in "[ab费用🎉é]{1,12}", from in 0..12usize, length in 1..12usize) {
            let part: String = text.chars().skip(from).take(length).collect();
            prop_assume!(!part.is_empty());
            let all: Vec<i64> = grams(&text).collect();
            prop_assert_eq!(all.len(), text.chars().count());
            for range in needed(&part) {
                prop_assert!(all.iter().any(|gram| range.contains(gram)), "{} in {}", part, text);
            }
        }
    }

    #[test]
    fn absent_text_is_mostly_not_found() {
        let has = |text: &str, part: &str| {
            needed(part)
                .iter()
                .all(|range| grams(text).any(|gram| range.contains(&gram)))
        };
        assert!(
            has("费用报销", "费用")
                && has("费用报销", "销")
                && has("\u{10ffff}\u{10ffff}", "\u{10ffff}")
        );
        assert_eq!(
            [
                needed("报").len(),
                needed("invoice").len(),
                needed(&"long ".repeat(99)).len()
            ],
            [1, 3, 4]
        );
        assert!(!has("费用报销", "用费") && !has("费用报销", "报销单") && !has("invoice", "x"));
    }
}
