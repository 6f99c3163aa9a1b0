//! What the last owner of a partition had recorded as done, but had not come to acknowledge or remove.
//!
//! A reminder is recorded first and removed after. A process that dies in between leaves it to be found again, and a new
//! owner would deliver it a second time and record a second outcome. So each message of the outcomes stream names, in a
//! header, what it settles; a new owner reads the latest of these headers and only finishes the removal.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

use async_nats::datetime::{self, DateTime};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use tokio::sync::OnceCell;

use crate::nats::replay::{last_sequence, replay};
use crate::nats::{Nats, NatsError};
use crate::partition::Partition;
use crate::router::Item;

/// The header that names what a message of outcomes settles: `<partition>:<event>.<index>` and `<partition>:m<message>`.
pub const HEADER: &str = "Bellhop-Settles";

/// How long before the last outcome the reading begins, for removals from mailboxes that were under way. For events it
/// begins with the oldest one that is there.
const REMOVALS_UNDER_WAY: Duration = Duration::from_secs(10);
/// No event that waits for its acknowledgement was settled longer ago. Behind a backlog the oldest event can be much older.
const OLDEST_IN_WORK: Duration = Duration::from_secs(120);

/// Writes the header's value.
pub fn encode<'a>(settled: impl Iterator<Item = &'a (Partition, Item)>) -> String {
    let mut text = String::new();
    for (partition, item) in settled {
        let separator = if text.is_empty() { "" } else { " " };
        let written = match item {
            Item::Event { sequence, index } => write!(text, "{separator}{partition}:{sequence}.{index}"),
            Item::Parked { sequence } => write!(text, "{separator}{partition}:m{sequence}"),
        };
        written.expect("text takes anything");
    }
    text
}

fn decode(text: &str) -> impl Iterator<Item = (Partition, Item)> + '_ {
    text.split(' ').filter_map(|entry| {
        let (partition, item) = entry.split_once(':')?;
        let item = match item.strip_prefix('m') {
            Some(sequence) => Item::Parked { sequence: sequence.parse().ok()? },
            None => {
                let (sequence, index) = item.split_once('.')?;
                Item::Event { sequence: sequence.parse().ok()?, index: index.parse().ok()? }
            }
        };
        Some((Partition(partition.parse().ok()?), item))
    })
}

/// What is recorded for a group of partitions that are taken over together. It is read once, when the first asks.
#[derive(Debug)]
pub struct Recorded {
    nats: Nats,
    partitions: BTreeSet<Partition>,
    last: OnceCell<DateTime>,
    settled: OnceCell<HashMap<Partition, HashSet<Item>>>,
}

impl Recorded {
    /// For these partitions.
    pub fn new(nats: Nats, partitions: impl Iterator<Item = Partition>) -> Self {
        Self { nats, partitions: partitions.collect(), last: OnceCell::new(), settled: OnceCell::new() }
    }

    /// What is recorded for one of them. To be asked when the partition's fence is set.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn of(&self, partition: Partition) -> Result<HashSet<Item>, NatsError> {
        let settled = self.settled.get_or_try_init(|| self.read()).await?;
        Ok(settled.get(&partition).cloned().unwrap_or_default())
    }

    /// When the last outcome was stored, at the first call. To be asked before any role that is taken together with the
    /// partitions begins: after an outage, what it tells is much younger than what the last owners recorded.
    ///
    /// # Errors
    /// When JetStream could not be read.
    pub async fn last_outcome(&self) -> Result<DateTime, NatsError> {
        let read = || async {
            let failed = |error: &dyn std::fmt::Display| NatsError::failed("read what is recorded", error);
            let stream = self.nats.jetstream.get_stream(self.nats.names.outcomes_stream()).await;
            let stream = stream.map_err(|error| failed(&error))?;
            match &stream.cached_info().state {
                state if state.messages > 0 => Ok(state.last_timestamp),
                // Whatever comes is read.
                _ => datetime::from_nanos(0).map_err(|error| failed(&error)),
            }
        };
        self.last.get_or_try_init(read).await.copied()
    }

    async fn read(&self) -> Result<HashMap<Partition, HashSet<Item>>, NatsError> {
        let failed = |error: &dyn std::fmt::Display| NatsError::failed("read what is recorded", error);
        let nats = &self.nats;
        let outcomes = nats.names.outcomes_stream();
        let mut settled: HashMap<Partition, HashSet<Item>> = HashMap::new();
        let last = self.last_outcome().await?;
        let mut start_time = last - REMOVALS_UNDER_WAY;
        let earliest = last - OLDEST_IN_WORK;
        let events = nats.jetstream.get_stream_no_info(nats.names.events_stream()).await.map_err(|e| failed(&e))?;
        for &partition in &self.partitions {
            let info = events.consumer_info(nats.names.dispatch_consumer(partition)).await.map_err(|e| failed(&e))?;
            if info.num_ack_pending == 0 && info.num_pending == 0 {
                continue;
            }
            let oldest = events.raw_message_builder().sequence(info.ack_floor.stream_sequence + 1);
            if let Ok(oldest) = oldest.next_by_subject(nats.names.events(partition)).send().await {
                start_time = start_time.min(oldest.time.max(earliest));
            }
        }
        let through = last_sequence(nats, &outcomes).await?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            headers_only: true,
            ..pull::Config::default()
        };
        replay(nats, &outcomes, config, through, |message, _| {
            let header = message.headers.as_ref().and_then(|headers| headers.get(HEADER));
            for (partition, item) in header.into_iter().flat_map(|text| decode(text.as_str())) {
                if self.partitions.contains(&partition) {
                    settled.entry(partition).or_default().insert(item);
                }
            }
        })
        .await?;
        Ok(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_round_trips_and_strange_entries_are_passed_over() {
        let settled = [
            (Partition(7), Item::Event { sequence: 12, index: 3 }),
            (Partition(31), Item::Parked { sequence: u64::MAX }),
        ];
        let text = encode(settled.iter());
        assert_eq!(text, "7:12.3 31:m18446744073709551615");
        assert_eq!(decode(&text).collect::<Vec<_>>(), settled);
        assert_eq!(
            decode("7:12 x 8:m 9:1.x 1:m5 :: ").collect::<Vec<_>>(),
            [(Partition(1), Item::Parked { sequence: 5 })]
        );
        assert_eq!(decode("").count(), 0);
    }
}
