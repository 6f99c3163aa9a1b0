//! Things by number: a number is given when a thing comes in, finds it at once, and is free for
//! another one when it has gone.
//!
//! Things lie in chunks, so what is there never moves, and no memory is held for twice as many.

use std::ops::{Index, IndexMut};

/// The bytes of a chunk. A power of two is what an allocator has no remainder of.
const CHUNK_BYTES: usize = 32 << 10;

/// Things of one kind, numbered from 0.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// All are full but for the last one.
    chunks: Vec<Vec<Option<T>>>,
    /// The slots whose thing has gone. The last one is given first.
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// The slots of a chunk.
    const CHUNK: usize = CHUNK_BYTES / size_of::<Option<T>>();

    /// Nothing.
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes a thing in, and answers its number.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        if let Some(number) = self.free.pop() {
            let (chunk, slot) = Self::place(number);
            self.chunks[chunk][slot] = Some(thing);
            return number;
        }
        if self
            .chunks
            .last()
            .is_none_or(|chunk| chunk.len() == Self::CHUNK)
        {
            self.chunks.push(Vec::with_capacity(Self::CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        let number = chunk * Self::CHUNK + self.chunks[chunk].len();
        self.chunks[chunk].push(Some(thing));
        u32::try_from(number).expect("four billion things do not fit into the memory")
    }

    /// Gives a thing back. Its number may be another one's next.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let (chunk, slot) = Self::place(number);
        let thing = self.chunks.get_mut(chunk)?.get_mut(slot)?.take();
        self.free.extend(thing.is_some().then_some(number));
        thing
    }

    /// The thing with this number, if there is one.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, slot) = Self::place(number);
        self.chunks.get(chunk)?.get(slot)?.as_ref()
    }

    /// The thing with this number, if there is one.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, slot) = Self::place(number);
        self.chunks.get_mut(chunk)?.get_mut(slot)?.as_mut()
    }

    /// All of them with their numbers, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(self.chunks.iter().flatten())
            .filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().flatten()
    }

    /// The chunk of a number, and the slot in it.
    fn place(number: u32) -> (usize, usize) {
        let number = number as usize;
        (number / Self::CHUNK, number % Self::CHUNK)
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        self.get(number)
            .expect("a number belongs to something that is there")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.get_mut(number)
            .expect("a number belongs to something that is there")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a map whose keys it chooses itself, from as few as there were things at once.
        #[test]
        fn key_finds_value_until_removed(
            steps in prop::collection::vec((0..5u8, any::<prop::sample::Index>()), 1..3_000),
        ) {
            let (mut slab, mut expected, mut most) = (Slab::new(), BTreeMap::new(), 0);
            for (thing, (what, which)) in steps.into_iter().enumerate() {
                if what > 0 || expected.is_empty() {
                    prop_assert_eq!(expected.insert(slab.insert(thing), thing), None, "its number was free");
                } else {
                    let number = *which.get(&expected.keys().copied().collect::<Vec<u32>>());
                    prop_assert_eq!(slab.remove(number), expected.remove(&number));
                    prop_assert_eq!(slab.get(number), None);
                    prop_assert_eq!(slab.remove(number), None);
                }
                most = most.max(expected.len());
            }
            prop_assert!(slab.iter().eq(expected.iter().map(|(number, thing)| (*number, thing))));
            prop_assert!(expected.keys().all(|number| (*number as usize) < most && slab[*number] == expected[number]));
        }
    }
}
