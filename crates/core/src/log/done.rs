//! Names of reminders that are done with, as a message of outcomes carries them in a header.
//!
//! A reminder is recorded first and removed after. An owner that dies in between leaves it to be
//! found again. So each message of outcomes names what it is of, and a new owner passes that by. A
//! reminder of a set is named by the set's sequence, the time at which the set was stored, and its
//! place there; one in a mailbox by its sequence and time. The time is needed because nats-server
//! gives a sequence again after it lost its newest messages.

use std::collections::HashSet;
use std::fmt::Write;
use std::iter::Peekable;

use bellhop_protocol::reminder::set::MAX_REMINDERS;

use super::Subscriber;

/// A reminder that is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Done {
    /// It came with a set.
    Published {
        /// The set's sequence.
        set: u64,
        /// Time at which the set was stored, in milliseconds since 1970.
        stored_ms: i64,
        /// Its place in the set as published, from 0.
        place: usize,
    },
    /// It lay in a mailbox.
    Parked {
        /// Its sequence in the stream of mailboxes.
        sequence: u64,
        /// Time at which it was stored there, in milliseconds since 1970.
        stored_ms: i64,
    },
}

/// All that is known as done.
pub type AllDone = HashSet<Done>;

/// Writes the header's value: `<subscriber>:<set>@<ms>.<places>` and
/// `<subscriber>:m<sequence>@<ms>`, with a space between two. Places of one set that follow each
/// other are one entry: `0,3-7`.
pub fn encode(done: impl IntoIterator<Item = (Subscriber, Done)>) -> String {
    let (mut text, mut done) = (String::new(), done.into_iter().peekable());
    while let Some((subscriber, first)) = done.next() {
        let separator = if text.is_empty() { "" } else { " " };
        let written = match first {
            Done::Parked {
                sequence,
                stored_ms,
            } => write!(text, "{separator}{subscriber}:m{sequence}@{stored_ms}"),
            Done::Published {
                set,
                stored_ms,
                place,
            } => {
                let is_next = |next: &(Subscriber, Done)| match next {
                    (
                        of,
                        Done::Published {
                            set: other,
                            stored_ms: at,
                            place,
                        },
                    ) => (*of == subscriber && *other == set && *at == stored_ms).then_some(*place),
                    (_, Done::Parked { .. }) => None,
                };
                write!(text, "{separator}{subscriber}:{set}@{stored_ms}.")
                    .and_then(|()| write_places(&mut text, place, &mut done, is_next))
            }
        };
        written.expect("text takes anything");
    }
    text
}

/// Writes the places of one set.
fn write_places<I: Iterator>(
    text: &mut String,
    first: usize,
    rest: &mut Peekable<I>,
    place_of: impl Fn(&I::Item) -> Option<usize>,
) -> std::fmt::Result {
    let (mut from, mut to) = (first, first);
    loop {
        let next = rest.peek().and_then(&place_of);
        if next.is_some() {
            rest.next();
        }
        match next {
            Some(place) if place == to + 1 => to = place,
            _ => {
                if from == to {
                    write!(text, "{from}")?
                } else {
                    write!(text, "{from}-{to}")?
                }
                let Some(place) = next else { return Ok(()) };
                text.push(',');
                (from, to) = (place, place);
            }
        }
    }
}

/// Reads a header's value. Entries that [`encode`] did not write are passed by.
pub fn decode(text: &str) -> impl Iterator<Item = (Subscriber, Done)> + '_ {
    text.split(' ')
        .flat_map(|entry| decode_entry(entry).into_iter().flatten())
}

fn decode_entry(entry: &str) -> Option<Vec<(Subscriber, Done)>> {
    let (subscriber, name) = entry.split_once(':')?;
    let subscriber: Subscriber = subscriber.parse().ok()?;
    let (sequence, rest) = name.split_once('@')?;
    if let Some(sequence) = sequence.strip_prefix('m') {
        let (sequence, stored_ms) = (sequence.parse().ok()?, rest.parse().ok()?);
        return Some(vec![(
            subscriber,
            Done::Parked {
                sequence,
                stored_ms,
            },
        )]);
    }
    let (stored_ms, places) = rest.split_once('.')?;
    let (set, stored_ms) = (sequence.parse().ok()?, stored_ms.parse().ok()?);
    let mut done = Vec::new();
    for range in places.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        // No set has more, so no header takes much memory.
        if to >= MAX_REMINDERS || done.len() + to.saturating_sub(from) >= MAX_REMINDERS {
            return None;
        }
        done.extend((from..=to).map(|place| {
            (
                subscriber,
                Done::Published {
                    set,
                    stored_ms,
                    place,
                },
            )
        }));
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use bellhop_protocol::partition::Partition;
    use proptest::prelude::*;

    use super::*;

    const SEVEN: Subscriber = Subscriber::Partition(Partition(7));

    fn published(set: u64, place: usize) -> Done {
        Done::Published {
            set,
            stored_ms: 500,
            place,
        }
    }

    #[test]
    fn places_of_one_set_are_one_entry() {
        let places = [0, 3, 4, 5, 2].map(|place| (SEVEN, published(12, place)));
        let parked = (
            Subscriber::Partition(Partition(0)),
            Done::Parked {
                sequence: u64::MAX,
                stored_ms: -1,
            },
        );
        let others = [
            (SEVEN, published(13, 0)),
            (Subscriber::Sets, published(13, 1)),
            parked,
        ];
        let all: Vec<_> = places.into_iter().chain(others).collect();
        let text = encode(all.clone());
        assert_eq!(
            text,
            "7:12@500.0,3-5,2 7:13@500.0 sets:13@500.1 0:m18446744073709551615@-1"
        );
        assert_eq!(decode(&text).collect::<Vec<_>>(), all);
        assert_eq!(encode([]), "");
    }

    #[test]
    fn strange_entries_are_passed_by() {
        let text =
            "7:12 x 8:m 9:1@2.x 70000:1@2.3 1:1@2.0-99999999999 1:1@2.5-4 1:m5@6 :: 1:1@2.0-9999,0";
        let expected = [(
            Subscriber::Partition(Partition(1)),
            Done::Parked {
                sequence: 5,
                stored_ms: 6,
            },
        )];
        assert_eq!(decode(text).collect::<Vec<_>>(), expected);
        assert_eq!(decode("").count(), 0);
    }

    proptest! {
        #[test]
        fn names_round_trip(
            names in prop::collection::vec((any::<bool>(), 0..3u16, 1..4u64, 0..3i64, 0..30usize), 0..60),
        ) {
            let all: Vec<_> = names.into_iter().map(|(is_parked, partition, sequence, stored_ms, place)| {
                let subscriber = if partition == 0 { Subscriber::Sets } else { Subscriber::Partition(Partition(partition)) };
                let done = if is_parked {
                    Done::Parked { sequence, stored_ms }
                } else {
                    Done::Published { set: sequence, stored_ms, place }
                };
                (subscriber, done)
            }).collect();
            prop_assert_eq!(decode(&encode(all.clone())).collect::<Vec<_>>(), all);
        }

        #[test]
        fn any_text_is_read(text in "[0-9msx:@.,\\- ]{0,60}") {
            prop_assert!(decode(&text).count() <= MAX_REMINDERS);
        }
    }
}
