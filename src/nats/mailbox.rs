//! Mailboxes as JetStream keeps them: one subject for each user in one stream, one message for each
//! reminder.
//!
//! A new owner stores a message under the partition's fence. Every append names its sequence
//! ([`batch`]), so JetStream refuses the appends of an owner that has a successor. Appends go one
//! at a time for a partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{
    DeleteMessageError, DeleteMessageErrorKind, RawMessageErrorKind,
};
use async_nats::{HeaderMap, Message, header};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::batch::{self, Fence, Stored};
use super::direct::{self, text};
use super::replay::replay;
use super::{During, Nats, NatsError, raw};
use crate::log::Subscriber;
use crate::log::done::{self, AllDone, Done};
use crate::log::position::Mark;
use crate::partition::Partition;
use crate::reminder::Priority;
use crate::router::{BySource, MailboxSummary};
use crate::token::{Source, UserId};

/// The name of the published reminder that a parked one is, as [`done::encode`] writes it.
const NAME_HEADER: &str = "Bellhop-Event";
/// The priority of a parked reminder, where it is not the default.
const PRIORITY_HEADER: &str = "Bellhop-Priority";
/// The source of a parked reminder, escaped.
const SOURCE_HEADER: &str = "Bellhop-Source";
/// Milliseconds since 1970 after which a parked reminder is not delivered.
const EXPIRES_HEADER: &str = "Bellhop-Expires-At";

/// Batches that this process has open at a time. By default nats-server takes 50 for a stream, and
/// remembers for ten seconds those of a process that died. Three members stay below that; what more
/// of them open is refused, and tried again.
static OPEN_BATCHES: Semaphore = Semaphore::const_new(16);

/// Messages and
const PAGE_MESSAGES: usize = 500;
/// bytes of one read of a mailbox for display.
const PAGE_BYTES: usize = 1 << 20;

/// The mailboxes of one partition, while this member owns them.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    nats: Nats,
    stream: String,
    partition: Partition,
    fence: Fence,
    /// The last message that this owner knows to be stored.
    last: Arc<AtomicU64>,
    /// Removals under way: more would only wait for each other at the stream.
    removals: Arc<Semaphore>,
}

/// A reminder on its way into a mailbox.
#[derive(Debug)]
pub struct Parking {
    /// The mailbox's user.
    pub user: UserId,
    /// The reminder's source, if it is known.
    pub source: Option<Source>,
    /// The published reminder that it is; none for a copy, whose reminder is settled another way.
    pub name: Option<Done>,
    /// Time of expiry, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Its urgency.
    pub priority: Priority,
    /// The message: an event with this reminder alone.
    pub message: Bytes,
}

/// A reminder in a mailbox.
#[derive(Debug)]
pub struct ParkedMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Time at which it was stored.
    pub parked_at: Timestamp,
    /// The message: an event with this reminder alone.
    pub message: Bytes,
}

/// The state that a new owner finds.
#[derive(Debug, Default)]
pub struct FoundMailboxes {
    /// Each user's mailbox.
    pub mailboxes: HashMap<UserId, MailboxSummary>,
    /// Messages that are published reminders above the position, of which that is not recorded.
    pub unrecorded: Vec<(u64, Done)>,
    /// Messages that an earlier owner was done with, and did not come to remove. They do not count.
    pub finished: Vec<u64>,
}

impl Mailboxes {
    /// Takes the partition's mailboxes over: from here on no earlier owner can append to them.
    ///
    /// # Errors
    /// When JetStream does not confirm it.
    pub async fn take_over(
        nats: &Nats,
        partition: Partition,
        owner: &str,
        removals_in_flight: usize,
    ) -> Result<Self, NatsError> {
        let stream = nats.names.parked_stream();
        let fence = match Self::set_fence(nats, partition, owner).await {
            // The stream has no room, not even for a message that takes the place of another one.
            // While there is no fence no owner can append to these mailboxes.
            Err(NatsError::Refused { .. }) => {
                purge(nats, &stream, &nats.names.fence(partition), None).await?;
                Self::set_fence(nats, partition, "").await?
            }
            set => set?,
        };
        let (last, removals) = (
            Arc::new(AtomicU64::new(fence.sequence)),
            Arc::new(Semaphore::new(removals_in_flight)),
        );
        Ok(Self {
            nats: nats.clone(),
            stream,
            partition,
            fence,
            last,
            removals,
        })
    }

    async fn set_fence(nats: &Nats, partition: Partition, owner: &str) -> Result<Fence, NatsError> {
        let (subject, mut headers) = (nats.names.fence(partition), HeaderMap::new());
        headers.insert(header::NATS_ROLLUP, "sub");
        let stored = nats.store(subject.clone(), headers, owner.to_owned().into());
        let sequence = stored.await?.sequence;
        Ok(Fence { subject, sequence })
    }

    /// Learns from the messages' headers alone what lies in the partition's mailboxes, which
    /// published reminders above the position that is, and what of it is recorded as done.
    ///
    /// # Errors
    /// When the stream could not be read to its end.
    pub async fn find(&self, settled: Mark, done: &AllDone) -> Result<FoundMailboxes, NatsError> {
        let filter_subject = self.nats.names.mailboxes(self.partition);
        // The reader may be served by a replica that is behind. No earlier owner can append any
        // more. The fence itself is not read: up to nats-server 2.14.6, a consumer of two subjects
        // passes messages of one by when the other is rolled up.
        let last = raw::last(&self.nats, &self.stream, &filter_subject).await?;
        let config = pull::Config {
            filter_subject,
            headers_only: true,
            ..pull::Config::default()
        };
        let mut found = FoundMailboxes::default();
        replay(
            &self.nats,
            &self.stream,
            config,
            last.unwrap_or(0),
            |message, sequence, stored_ms| {
                if done.contains(&Done::Parked {
                    sequence,
                    stored_ms,
                }) {
                    found.finished.push(sequence);
                } else {
                    found.add(message, sequence, settled, done);
                }
            },
        )
        .await?;
        Ok(found)
    }

    /// Returns one message of the partition's mailboxes, by the word of the stream's leader; none
    /// if it is gone.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn message(&self, sequence: u64) -> Result<Option<Bytes>, NatsError> {
        let subjects = self.nats.names.mailboxes(self.partition);
        let found = raw::next(&self.nats, &self.stream, &subjects, sequence).await?;
        Ok(found
            .filter(|found| found.sequence == sequence)
            .map(|found| found.payload))
    }

    /// Returns the time at which the oldest reminder in the partition's mailboxes was stored there.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn oldest(&self) -> Result<Option<Timestamp>, NatsError> {
        let subject = self.nats.names.mailboxes(self.partition);
        let (first, _) = direct_get(&self.nats, &self.stream, &subject, 1, 1, PAGE_BYTES).await?;
        Ok(first.first().map(|message| message.parked_at))
    }

    /// Appends reminders to mailboxes, all or none, and returns their sequences.
    ///
    /// # Errors
    /// [`NatsError::Fenced`] when the partition has a newer owner. [`NatsError::Refused`] when none
    /// of them is stored, most often because there is no room: they may be parked again later. Any
    /// other error leaves open whether they are stored: take the partition over again to find out.
    pub async fn park(&self, reminders: Vec<Parking>) -> Result<Vec<u64>, NatsError> {
        let result = self.append(&reminders).await;
        match &result {
            Ok(sequences) => {
                self.last
                    .fetch_max(sequences.last().copied().unwrap_or(0), Ordering::Relaxed);
            }
            // A server that reaches its limit in the middle of a batch refuses the end of it, and
            // keeps the beginning.
            Err(NatsError::Refused { what, .. }) if self.has_appended().await? => {
                return Err(NatsError::failed(
                    what.clone(),
                    "only a part of the batch is stored",
                ));
            }
            Err(_) => {}
        }
        result
    }

    /// Returns true if anything was appended after the last confirmed append. The fence keeps
    /// others from appending.
    async fn has_appended(&self) -> Result<bool, NatsError> {
        let stream = self
            .nats
            .jetstream
            .get_stream_no_info(&self.stream)
            .await
            .during("look for appended reminders")?;
        let next = stream
            .raw_message_builder()
            .sequence(self.last.load(Ordering::Relaxed) + 1);
        match next
            .next_by_subject(self.nats.names.mailboxes(self.partition))
            .send()
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(NatsError::failed("look for appended reminders", error)),
        }
    }

    async fn append(&self, reminders: &[Parking]) -> Result<Vec<u64>, NatsError> {
        let count = reminders.len() as u64;
        if count == 0 {
            return Ok(Vec::new());
        }
        let _turn = if count > 1 {
            OPEN_BATCHES.acquire().await.ok()
        } else {
            None
        };
        let messages = reminders.iter().map(|one| self.message_of(one)).collect();
        let action = || format!("park {count} reminders");
        match batch::store(&self.nats, &self.fence, messages, action).await? {
            Stored::Through(last) => Ok((last + 1 - count..=last).collect()),
            Stored::Before => Err(NatsError::failed(action(), "the answer has no sequence")),
        }
    }

    fn message_of(&self, reminder: &Parking) -> batch::Message {
        let mut headers = HeaderMap::new();
        if let Some(source) = &reminder.source {
            headers.insert(SOURCE_HEADER, source.escaped());
        }
        if let Some(name) = reminder.name {
            let name = (Subscriber::Partition(self.partition), name);
            headers.insert(NAME_HEADER, done::encode([name]));
        }
        if let Some(at) = reminder.expires_at {
            headers.insert(EXPIRES_HEADER, at.to_string());
        }
        if reminder.priority != Priority::default() {
            headers.insert(PRIORITY_HEADER, reminder.priority.as_str());
        }
        batch::Message {
            subject: self.nats.names.mailbox(self.partition, &reminder.user),
            headers,
            payload: reminder.message.clone(),
        }
    }

    /// Reads reminders of a mailbox from a sequence on, up to `messages` and about `bytes`.
    ///
    /// A replica may not have what its leader has confirmed, so a read that ends before `last`,
    /// which is known to have been stored, is repeated until the replica has caught up or the
    /// leader says that nothing is there.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn read(
        &self,
        user: &UserId,
        from: u64,
        last: u64,
        messages: usize,
        bytes: usize,
    ) -> Result<(Vec<ParkedMessage>, bool), NatsError> {
        let subject = self.nats.names.mailbox(self.partition, user);
        if from == last
            && let Some(only) = direct::get_one(&self.nats, &self.stream, last).await?
            && text(&only, "Nats-Subject") == Some(&subject)
            && let Some(only) = parked_message(only)
        {
            return Ok((vec![only], true));
        }
        loop {
            let (page, is_last) =
                direct_get(&self.nats, &self.stream, &subject, from, messages, bytes).await?;
            if let Some(end) = page.last().map(|message| message.sequence) {
                return Ok((page, is_last && end >= last));
            }
            if from > last || self.has_nothing_from(&subject, from).await? {
                return Ok((page, true));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Counts what lies in a mailbox, from the messages' headers alone: the sequences of each
    /// source's reminders. Returns none if the leader says that they are not fewer than `known`,
    /// without reading them.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn count_by_source(
        &self,
        user: &UserId,
        known: Option<usize>,
    ) -> Result<Option<BySource>, NatsError> {
        let subject = self.nats.names.mailbox(self.partition, user);
        loop {
            let count = count(&self.nats, &self.stream, &subject).await?;
            if known.is_some_and(|known| count >= known) {
                return Ok(None);
            }
            let config = pull::Config {
                filter_subject: subject.clone(),
                headers_only: true,
                ..pull::Config::default()
            };
            let mut found: HashMap<Option<Source>, Vec<u64>> = HashMap::new();
            replay(
                &self.nats,
                &self.stream,
                config,
                0,
                |message, sequence, _| {
                    let source = text(message, SOURCE_HEADER)
                        .and_then(|token| Source::from_token(token).ok());
                    found.entry(source).or_default().push(sequence);
                },
            )
            .await?;
            // A replica may be behind its leader; and what lies there may be delivered meanwhile.
            if found.values().map(Vec::len).sum::<usize>() >= count {
                return Ok(Some(found.into_iter().collect()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The leader's word on whether the mailbox is empty from a sequence on.
    async fn has_nothing_from(&self, subject: &str, from: u64) -> Result<bool, NatsError> {
        let stream = self.nats.jetstream.get_stream_no_info(&self.stream).await;
        let stream = stream.during("read a mailbox")?;
        match stream
            .raw_message_builder()
            .sequence(from)
            .next_by_subject(subject)
            .send()
            .await
        {
            Ok(_) => Ok(false),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(true),
            Err(error) => Err(NatsError::failed("read a mailbox", error)),
        }
    }

    /// Removes everything from a user's mailbox up to and including `sequence`.
    ///
    /// # Errors
    /// When JetStream does not confirm it.
    pub async fn remove_up_to(&self, user: &UserId, sequence: u64) -> Result<(), NatsError> {
        let _turn = self.removals.acquire().await;
        purge(
            &self.nats,
            &self.stream,
            &self.nats.names.mailbox(self.partition, user),
            Some(sequence + 1),
        )
        .await?;
        Ok(())
    }

    /// Removes one message. That it is gone already is as good.
    ///
    /// # Errors
    /// When JetStream does not confirm it.
    pub async fn remove_only(&self, sequence: u64) -> Result<(), NatsError> {
        let _turn = self.removals.acquire().await;
        remove(&self.nats, &self.stream, sequence).await
    }
}

/// Returns true if a message could not be deleted because it does not exist.
fn is_gone(error: &DeleteMessageError) -> bool {
    let DeleteMessageErrorKind::JetStream(error) = error.kind() else {
        return false;
    };
    [ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::NO_MESSAGE_FOUND].contains(&error.error_code())
}

impl FoundMailboxes {
    fn add(&mut self, message: &Message, sequence: u64, settled: Mark, done: &AllDone) {
        let user = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| UserId::from_token(token).ok());
        let Some(user) = user else {
            tracing::warn!(subject = %message.subject, sequence, "not a user's mailbox, left unchanged");
            return;
        };
        let expires_at = text(message, EXPIRES_HEADER).and_then(|text| text.parse().ok());
        let mailbox = self.mailboxes.entry(user).or_insert(MailboxSummary {
            first: sequence,
            last: sequence,
            count: 0,
            next_expiry: None,
        });
        mailbox.last = sequence;
        mailbox.count += 1;
        mailbox.next_expiry = [mailbox.next_expiry, expires_at]
            .into_iter()
            .flatten()
            .min();
        let names = text(message, NAME_HEADER)
            .map(done::decode)
            .into_iter()
            .flatten();
        let is_above = |name: &Done| matches!(name, Done::Published { set, stored_ms, .. } if !settled.covers(*set, *stored_ms));
        let unrecorded = names
            .map(|(_, name)| name)
            .filter(|name| is_above(name) && !done.contains(name));
        self.unrecorded
            .extend(unrecorded.map(|name| (sequence, name)));
    }
}

/// The priority of a parked reminder; none if the message is not one, or a copy.
pub(super) fn priority_of(message: &Message) -> Option<Priority> {
    text(message, NAME_HEADER)?;
    match text(message, PRIORITY_HEADER) {
        Some(name) => Priority::named(name),
        None => Some(Priority::default()),
    }
}

/// Removes one message from a stream. That it is gone already is as good.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn remove(nats: &Nats, stream: &str, sequence: u64) -> Result<(), NatsError> {
    let action = || format!("remove a message from {stream}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    match handle.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(NatsError::failed(action(), error)),
    }
}

/// Removes a subject's messages before `sequence`, or all of them, and answers how many they were.
///
/// # Errors
/// When JetStream does not confirm it.
pub async fn purge(
    nats: &Nats,
    stream: &str,
    subject: &str,
    before: Option<u64>,
) -> Result<u64, NatsError> {
    let action = || format!("purge {subject}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    let purge = handle.purge().filter(subject);
    let answer = match before {
        Some(sequence) => purge.sequence(sequence).await,
        None => purge.await,
    };
    Ok(answer.during_with(action)?.purged)
}

/// Returns the number of messages of a subject, according to the leader.
///
/// # Errors
/// When JetStream does not answer.
pub async fn count(nats: &Nats, stream: &str, subject: &str) -> Result<usize, NatsError> {
    let action = || format!("count {subject}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    let info = handle
        .info_builder()
        .subjects(subject)
        .fetch()
        .await
        .during_with(action)?;
    let counts: Vec<_> = info.collect().await;
    counts
        .into_iter()
        .try_fold(0, |sum, entry| entry.map(|(_, n)| sum + n))
        .during_with(action)
}

/// A mailbox, read from its front for display.
#[derive(Debug)]
pub struct Pages<'a> {
    nats: &'a Nats,
    subject: &'a str,
    from: u64,
    is_over: bool,
}

impl<'a> Pages<'a> {
    /// Of the mailbox with this subject.
    pub fn of(nats: &'a Nats, subject: &'a str) -> Self {
        Self {
            nats,
            subject,
            from: 1,
            is_over: false,
        }
    }

    /// Returns the next messages, at most `most` and about 1 MiB. None are left when none come.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn next(&mut self, most: usize) -> Result<Vec<ParkedMessage>, NatsError> {
        if self.is_over || most == 0 {
            return Ok(Vec::new());
        }
        let (stream, messages) = (self.nats.names.parked_stream(), PAGE_MESSAGES.min(most));
        let (page, is_last) = direct_get(
            self.nats,
            &stream,
            self.subject,
            self.from,
            messages,
            PAGE_BYTES,
        )
        .await?;
        self.from = page
            .last()
            .map_or(self.from, |message| message.sequence + 1);
        self.is_over = is_last;
        Ok(page)
    }
}

/// The first messages of a mailbox, `most` of them or all.
///
/// # Errors
/// When JetStream does not answer.
pub async fn first(
    nats: &Nats,
    subject: &str,
    most: usize,
) -> Result<Vec<ParkedMessage>, NatsError> {
    let (mut pages, mut found) = (Pages::of(nats, subject), Vec::new());
    loop {
        let page = pages.next(most - found.len()).await?;
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page);
    }
}

/// Reads a subject's messages from a sequence on by one batched direct get (nats-server 2.11),
/// without a consumer. Returns them, and whether nothing lay behind them.
///
/// # Errors
/// When JetStream does not answer.
pub async fn direct_get(
    nats: &Nats,
    stream: &str,
    subject: &str,
    from: u64,
    messages: usize,
    bytes: usize,
) -> Result<(Vec<ParkedMessage>, bool), NatsError> {
    let action = || format!("read {subject}");
    let page = direct::page(nats, stream, subject, from, messages, bytes).await;
    let (answers, is_last) = page.during_with(action)?;
    let page: Option<Vec<_>> = answers.into_iter().map(parked_message).collect();
    Ok((page.ok_or("it is malformed").during_with(action)?, is_last))
}

fn parked_message(answer: Message) -> Option<ParkedMessage> {
    let sequence = direct::sequence(&answer)?;
    let parked_at = text(&answer, "Nats-Time-Stamp")?.parse().ok()?;
    Some(ParkedMessage {
        sequence,
        parked_at,
        message: answer.payload,
    })
}
