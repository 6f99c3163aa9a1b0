//! What the last owner of a partition had recorded as done, but had not come to acknowledge or remove.
//!
//! A reminder is recorded first and removed after. A process that dies in between leaves it to be found again, and a new
//! owner would deliver it a second time and record a second outcome. So each message of the outcomes stream names, in a
//! header, what it settles; a new owner reads the latest of these headers and only finishes the removal.
//!
//! What came with an event is named by its place in its set as published, and not by its event: an intake that heard no
//! confirmation, or another one after it, stores the same reminder again in another event, perhaps after the first is gone.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

use async_nats::datetime::{self, DateTime};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::event::Event;
use crate::nats::replay::{last_sequence, replay};
use crate::nats::{During, Nats, NatsError, chain};
use crate::partition::Partition;

/// What an outcome is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// A reminder that came with an event.
    Published {
        /// The sequence of its set in `BELLHOP_SETS`.
        set: u64,
        /// Where it stands there as published.
        place: usize,
    },
    /// A message of a mailbox.
    Parked {
        /// Its sequence in `BELLHOP_PARKED`.
        sequence: u64,
    },
}

impl Settled {
    /// One of an event's reminders, whichever event it came in.
    pub fn published(event: &Event, index: usize) -> Self {
        Self::Published {
            set: event.set_of(index).sequence,
            place: event.index.reminders[index].place,
        }
    }
}

/// The header that names what a message of outcomes settles: `<partition>:<set>.<place>` and `<partition>:m<message>`.
pub const HEADER: &str = "Bellhop-Settles";

/// What fails when something does.
const WHAT: &str = "read what is recorded";

/// How long before the last outcome the reading begins, for removals from mailboxes that were under way. For events it
/// begins with the oldest set that is in one, or that may be planned again.
const REMOVALS_UNDER_WAY: Duration = Duration::from_secs(10);
/// No event that waits for its acknowledgement was settled longer ago. Behind a backlog the oldest set can be much older.
const OLDEST_IN_WORK: Duration = Duration::from_secs(120);

/// Writes the header's value.
pub fn encode<'a>(settled: impl Iterator<Item = &'a (Partition, Settled)>) -> String {
    let mut text = String::new();
    for (partition, item) in settled {
        let separator = if text.is_empty() { "" } else { " " };
        let written = match item {
            Settled::Published { set, place } => {
                write!(text, "{separator}{partition}:{set}.{place}")
            }
            Settled::Parked { sequence } => write!(text, "{separator}{partition}:m{sequence}"),
        };
        written.expect("text takes anything");
    }
    text
}

fn decode(text: &str) -> impl Iterator<Item = (Partition, Settled)> + '_ {
    text.split(' ').filter_map(|entry| {
        let (partition, item) = entry.split_once(':')?;
        let item = match item.strip_prefix('m') {
            Some(sequence) => Settled::Parked {
                sequence: sequence.parse().ok()?,
            },
            None => {
                let (set, place) = item.split_once('.')?;
                Settled::Published {
                    set: set.parse().ok()?,
                    place: place.parse().ok()?,
                }
            }
        };
        Some((Partition(partition.parse().ok()?), item))
    })
}

/// Partitions that wait for the next reading.
const MAX_WAITING: usize = 1_024;

/// A partition that is taken over.
struct Wish {
    partition: Partition,
    /// When the last outcome was stored before the take-over began.
    last: DateTime,
    answer: oneshot::Sender<Result<HashSet<Settled>, NatsError>>,
}

/// Reads what is recorded, once for all partitions that ask while the reading before is under way: those of a member that
/// leaves come one after the other, and the stream is long.
#[derive(Debug, Clone)]
pub struct Reader {
    nats: Nats,
    wishes: mpsc::Sender<Wish>,
}

impl Reader {
    /// Starts the task that reads. It ends with the last reader.
    pub fn start(nats: Nats) -> Self {
        let (wishes, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(answer(nats.clone(), waiting));
        Self { nats, wishes }
    }
}

/// What is recorded for partitions that are taken over together.
#[derive(Debug)]
pub struct Recorded {
    reader: Reader,
    last: OnceCell<DateTime>,
}

impl Recorded {
    /// By this reader.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            last: OnceCell::new(),
        }
    }

    /// What is recorded for one of them. To be asked when the partition's fence is set.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn of(&self, partition: Partition) -> Result<HashSet<Settled>, NatsError> {
        let last = self.last_outcome().await?;
        let (answer, answered) = oneshot::channel();
        let _ = self
            .reader
            .wishes
            .send(Wish {
                partition,
                last,
                answer,
            })
            .await;
        answered
            .await
            .unwrap_or_else(|_| Err(NatsError::failed(WHAT, "its reader ended")))
    }

    /// Returns what is recorded of the sets that wait in their stream: an intake that plans one of them again, after a crash of
    /// the one before, leaves that out. To be asked when the last intake gets no more sets.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn of_waiting_sets(&self) -> Result<HashSet<Settled>, NatsError> {
        let (nats, last) = (&self.reader.nats, self.last_outcome().await?);
        let sets = nats.jetstream.get_stream(nats.names.sets_stream()).await;
        let sets = sets.during(WHAT)?;
        let (created, state) = (sets.cached_info().created, &sets.cached_info().state);
        let mut settled = HashSet::new();
        let start_time = state
            .first_timestamp
            .max(last - OLDEST_IN_WORK)
            .max(created);
        if state.messages == 0 || start_time > last {
            return Ok(settled);
        }
        let note = |_, item| {
            if matches!(item, Settled::Published { set, .. } if set >= state.first_sequence) {
                settled.insert(item);
            }
        };
        replay_headers(nats, start_time, note).await?;
        Ok(settled)
    }

    /// When the last outcome was stored, at the first call. To be asked before any role that is taken together with the
    /// partitions begins: after an outage, what it tells is much younger than what the last owners recorded.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn last_outcome(&self) -> Result<DateTime, NatsError> {
        let nats = &self.reader.nats;
        let read = || async {
            let stream = nats
                .jetstream
                .get_stream(nats.names.outcomes_stream())
                .await;
            let stream = stream.during(WHAT)?;
            match &stream.cached_info().state {
                state if state.messages > 0 => Ok(state.last_timestamp),
                // Whatever comes is read.
                _ => datetime::from_nanos(0).during(WHAT),
            }
        };
        self.last.get_or_try_init(read).await.copied()
    }
}

async fn answer(nats: Nats, mut waiting: mpsc::Receiver<Wish>) {
    let mut wishes = Vec::new();
    while waiting.recv_many(&mut wishes, MAX_WAITING).await > 0 {
        let settled = read(&nats, &wishes).await;
        for Wish {
            partition, answer, ..
        } in wishes.drain(..)
        {
            let its = match &settled {
                Ok(settled) => Ok(settled.get(&partition).cloned().unwrap_or_default()),
                // Several wait for this answer, and an error cannot be copied.
                Err(error) => Err(NatsError::failed(WHAT, chain(error).to_string())),
            };
            let _ = answer.send(its); // A take-over may have been given up.
        }
    }
}

async fn read(
    nats: &Nats,
    wishes: &[Wish],
) -> Result<HashMap<Partition, HashSet<Settled>>, NatsError> {
    let mut settled: HashMap<Partition, HashSet<Settled>> = wishes
        .iter()
        .map(|wish| (wish.partition, HashSet::new()))
        .collect();
    let sets = nats
        .jetstream
        .get_stream(nats.names.sets_stream())
        .await
        .during(WHAT)?;
    let sets = sets.cached_info();
    let oldest_set = (sets.state.messages > 0).then_some(sets.state.first_timestamp);
    let starts = try_join_all(wishes.iter().map(|wish| start(nats, wish, oldest_set))).await?;
    let Some(start_time) = starts.into_iter().min() else {
        return Ok(settled);
    };
    // Of a stream that was made anew, the sequences are of other sets.
    let start_time = start_time.max(sets.created);
    let note = |partition, item| {
        if let Some(its) = settled.get_mut(&partition) {
            its.insert(item);
        }
    };
    replay_headers(nats, start_time, note).await?;
    Ok(settled)
}

/// Reads what outcomes settled from this time on.
async fn replay_headers(
    nats: &Nats,
    start_time: DateTime,
    mut each: impl FnMut(Partition, Settled),
) -> Result<(), NatsError> {
    let outcomes = nats.names.outcomes_stream();
    let through = last_sequence(nats, &outcomes).await?;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartTime { start_time },
        headers_only: true,
        ..pull::Config::default()
    };
    replay(nats, &outcomes, config, through, |message, _| {
        let header = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(HEADER));
        header
            .into_iter()
            .flat_map(|text| decode(text.as_str()))
            .for_each(|(partition, item)| each(partition, item));
    })
    .await
}

/// From when on a partition's outcomes tell of something that may not be removed yet, or that may come again.
async fn start(
    nats: &Nats,
    Wish {
        partition, last, ..
    }: &Wish,
    oldest_set: Option<DateTime>,
) -> Result<DateTime, NatsError> {
    let events = nats
        .jetstream
        .get_stream_no_info(nats.names.events_stream())
        .await
        .during(WHAT)?;
    let info = events
        .consumer_info(nats.names.dispatch_consumer(*partition))
        .await
        .during(WHAT)?;
    let in_events = if info.num_ack_pending == 0 && info.num_pending == 0 {
        None
    } else {
        let oldest = events
            .raw_message_builder()
            .sequence(info.ack_floor.stream_sequence + 1);
        let oldest = oldest
            .next_by_subject(nats.names.events(*partition))
            .send()
            .await
            .ok();
        oldest.map(|oldest| oldest_set_in(&oldest.payload).unwrap_or(oldest.time))
    };
    let oldest = oldest_set
        .into_iter()
        .chain(in_events)
        .map(|oldest| oldest.max(*last - OLDEST_IN_WORK));
    Ok(oldest.fold(*last - REMOVALS_UNDER_WAY, DateTime::min))
}

/// When the oldest set of an event was published.
fn oldest_set_in(event: &Bytes) -> Option<DateTime> {
    let event = Event::decode(event).ok()?;
    let oldest = event.index.sets.iter().map(|set| set.published_ms).min()?;
    datetime::from_nanos(i128::from(oldest) * 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_round_trips_and_strange_entries_are_passed_over() {
        let settled = [
            (Partition(7), Settled::Published { set: 12, place: 3 }),
            (Partition(31), Settled::Parked { sequence: u64::MAX }),
        ];
        let text = encode(settled.iter());
        assert_eq!(text, "7:12.3 31:m18446744073709551615");
        assert_eq!(decode(&text).collect::<Vec<_>>(), settled);
        assert_eq!(
            decode("7:12 x 8:m 9:1.x 1:m5 :: ").collect::<Vec<_>>(),
            [(Partition(1), Settled::Parked { sequence: 5 })]
        );
        assert_eq!(decode("").count(), 0);
    }
}
