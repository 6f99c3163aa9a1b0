//! Stores the idempotency windows of partitions, and reads them back.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use futures_util::TryStreamExt;

use crate::log::Subscriber;
use crate::log::window::{Entries, Id, decode, encode, encoded_bytes, partition_of};
use crate::nats::replay::replay;
use crate::nats::{During, Names, Nats, NatsError, raw};
use crate::partition::Partition;

/// Bytes of one message of the idempotency window. One set with 10,000 reminders has 240 kB.
const MESSAGE_BYTES: usize = 256 << 10;

/// The stored entries of a subscriber's window. A partition's subject says among how many
/// partitions its users are its own: another number has subjects of its own.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    subject: String,
    /// The partition, and how many there are; none for the role that works sets.
    of: Option<(Partition, u16)>,
}

impl Seen {
    pub(super) fn of(names: &Names, subscriber: Subscriber, count: u16) -> Self {
        match subscriber {
            Subscriber::Sets => Self {
                subject: names.seen(subscriber),
                of: None,
            },
            Subscriber::Partition(partition) => Self {
                subject: names.seen(format_args!("{count}-{partition}")),
                of: Some((partition, count)),
            },
        }
    }

    /// Reads what earlier owners stored, the oldest first. Entries may come twice.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(super) async fn load(
        &self,
        nats: &Nats,
        mut each: impl FnMut(&Entries),
    ) -> Result<(), NatsError> {
        self.of_other_counts(nats).await?.iter().for_each(&mut each);
        load(nats, &self.subject, each).await
    }

    /// Stores entries, however long JetStream is away. To store them twice changes nothing.
    pub(super) async fn store(&self, nats: &Nats, entries: &[Entries]) {
        for message in messages(entries) {
            nats.store_surely(
                &self.subject,
                HeaderMap::new(),
                encode(message).into(),
                None,
            )
            .await;
        }
    }

    /// Returns the entries of this partition's users that were stored while there was another
    /// number of partitions, the oldest first.
    async fn of_other_counts(&self, nats: &Nats) -> Result<Vec<Entries>, NatsError> {
        let Some((partition, count)) = self.of else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for subject in subjects(nats).await? {
            if count_of(&subject).is_none_or(|other| other == count) {
                continue;
            }
            load(nats, &subject, |entries| {
                let own = |(id, _): &&(Id, u64)| partition_of(*id, count) == partition;
                let reminders: Vec<_> = entries.reminders.iter().filter(own).copied().collect();
                if !reminders.is_empty() {
                    found.push(Entries {
                        reminders,
                        ..*entries
                    });
                }
            })
            .await?;
        }
        found.sort_by_key(|entries| (entries.stored_ms, entries.sequence));
        Ok(found)
    }
}

/// Returns among how many partitions the subject of a window counts; none for the role that works
/// sets.
fn count_of(subject: &str) -> Option<u16> {
    let (count, _) = subject.rsplit('.').next()?.split_once('-')?;
    count.parse().ok()
}

/// Returns the subjects of all windows.
async fn subjects(nats: &Nats) -> Result<Vec<String>, NatsError> {
    let action = "look at the stream of windows";
    let stream = nats.jetstream.get_stream_no_info(nats.names.seen_stream());
    let stream = stream.await.during(action)?;
    let found = stream.info_builder().subjects(nats.names.all_seen());
    let found = found.fetch().await.during(action)?;
    let subjects = found.map_ok(|(subject, _)| subject).try_collect().await;
    subjects.during(action)
}

/// Reads what earlier owners stored of a window.
async fn load(nats: &Nats, subject: &str, mut each: impl FnMut(&Entries)) -> Result<(), NatsError> {
    let stream = nats.names.seen_stream();
    let Some(last) = raw::last(nats, &stream, subject).await? else {
        return Ok(());
    };
    let config = pull::Config {
        filter_subject: subject.to_owned(),
        ..pull::Config::default()
    };
    let note =
        |message: &async_nats::Message, _, _| decode(&message.payload).iter().for_each(&mut each);
    replay(nats, &stream, config, last, note).await
}

/// Entries that go together into one message.
fn messages(mut entries: &[Entries]) -> impl Iterator<Item = &[Entries]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |one: &&Entries| {
            bytes += encoded_bytes(one);
            bytes <= MESSAGE_BYTES
        };
        let count = entries.iter().take_while(fits).count().max(1);
        let (message, rest) = entries.split_at_checked(count)?;
        entries = rest;
        Some(message)
    })
}
