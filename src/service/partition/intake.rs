//! A partition's way through the log: takes its slices, plans them, and stores how far it has come.

use super::{Context, Done, InWork, LogItem, Subscription, Worker, entry, may_reroute};
use crate::event::{Event, IndexEntry, OfSet};
use crate::log::Subscriber;
use crate::log::done::Done as Name;
use crate::log::planner::{Ended, Planned, Planner};
use crate::log::split::RefusedReminder;
use crate::nats::mailbox::Mailboxes;
use crate::nats::{NatsError, chain};
use crate::partition::Partition;
use crate::reminder::outcome::{Outcome, Record};
use crate::router::{Entry, Input, Item};
use crate::service::outcomes::message::OutcomeEntry;
use crate::service::{now_ms, rejected};
use crate::token::UserId;

/// Bytes of slices that are planned in one step, as they are in memory: some sixty reminders, and a
/// millisecond. Other tasks, the connection among them, get their turn after each step.
const PLAN_BYTES: usize = 64 << 10;

/// Records as parked what an earlier owner stored in mailboxes and did not come to record. Returns
/// the names.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn record_parked(
    context: &Context,
    partition: Partition,
    mailboxes: &Mailboxes,
    unrecorded: &[(u64, Name)],
) -> Result<Vec<Name>, NatsError> {
    let (mut entries, mut names, at) = (Vec::new(), Vec::new(), now_ms());
    for (sequence, name) in unrecorded {
        // An unreadable reminder is set aside when its mailbox is read.
        let message = mailboxes.message(*sequence).await?;
        let Some(event) = message.and_then(|message| Event::decode(&message).ok()) else {
            continue;
        };
        let Some(IndexEntry { id, user, .. }) = event.index.reminders.first().cloned() else {
            continue;
        };
        let OfSet {
            source,
            id: set,
            published_ms,
            ..
        } = event.set_of(0).clone();
        let record = Record {
            id,
            source,
            set,
            user: Some(user),
            outcome: Outcome::Parked { escalated: false },
            at,
        };
        let settles = Some((Subscriber::Partition(partition), *name));
        entries.push(OutcomeEntry {
            record,
            published_ms,
            reminder: event.bodies.first().cloned(),
            settles,
        });
        names.push(*name);
    }
    if !entries.is_empty() {
        context.owner.recorder.record_all(&entries).await;
    }
    Ok(names)
}

impl Worker {
    /// Takes in what the reader has for this partition.
    ///
    /// # Errors
    /// When the log is another one than before.
    pub(super) fn item(
        &mut self,
        item: Option<LogItem>,
        subscription: &Subscription,
    ) -> Result<(), NatsError> {
        match item {
            Some(LogItem::Slice(slice, before)) => {
                let (bytes, set) = (slice.bytes, slice.set.clone());
                let taken = self.log.take_in(slice, before);
                self.log
                    .progress
                    .read(before.after(set.sequence, set.published_ms));
                // A dropped reminder leaves room at once.
                subscription.drained(bytes - taken.queued);
                self.context
                    .metrics
                    .reminders_taken(taken.new, taken.repeats, 0);
                self.warn_of_forgotten(taken.forgotten);
                Ok(())
            }
            Some(LogItem::Read(upto)) => {
                self.log.read(upto);
                Ok(())
            }
            Some(LogItem::OfSet(..)) => Ok(()), // It is for another subscriber.
            None => Err(NatsError::failed(
                "read the log of sets",
                "it is another one than before",
            )),
        }
    }

    fn warn_of_forgotten(&mut self, count: usize) {
        self.context.metrics.ids_forgotten(count);
        if count > 0 && !std::mem::replace(&mut self.has_warned, true) {
            let max_ids = self.context.owner.config.idempotency.max_ids;
            tracing::warn!(
                max_ids,
                partition = %self.partition,
                "ids are forgotten before the end of `idempotency.window`: a repeated reminder may be delivered again; \
                 raise `idempotency.max_ids`"
            );
        }
    }

    /// Returns true if the router has room for what waits to be planned.
    pub(super) fn has_room(&self) -> bool {
        let dispatch = &self.context.owner.config.dispatch;
        self.bytes_in_work < dispatch.max_bytes_in_flight
            && self.in_work.len() < dispatch.max_events_in_flight
    }

    /// Plans slices that wait, [`PLAN_BYTES`] of them at most, and gives them to the router in one
    /// step.
    pub(super) fn plan(&mut self, subscription: &Subscription) {
        let rules = self.context.rules.current();
        let planner = Planner {
            rules: &rules,
            merges: !self.context.owner.config.merge.window.is_zero(),
        };
        let (mut reminders, mut bytes) = (Vec::new(), 0);
        while bytes < PLAN_BYTES && self.has_room() {
            let Some(next) = self.log.next(&planner) else {
                break;
            };
            bytes += next.bytes;
            self.begin(next.planned, &mut reminders);
        }
        subscription.drained(bytes);
        if !reminders.is_empty() {
            self.feed(Input::Event(reminders));
        }
    }

    /// Begins the work on a planned slice. Adds what is for the router to `reminders`.
    fn begin(&mut self, planned: Planned, reminders: &mut Vec<(UserId, Entry)>) {
        let bytes = planned.event_bytes();
        let Planned {
            event,
            ended,
            refused,
        } = planned;
        self.end(&event, ended, refused);
        let (unsettled, sequence) = (event.bodies.len(), event.index.sets[0].sequence);
        if unsettled == 0 {
            return;
        }
        let entry = |(index, reminder): (usize, &IndexEntry)| {
            let set = event.set_of(index);
            let may_reroute = may_reroute(&self.context.owner.config, &set.source, reminder);
            let entry = entry(Item::Event { sequence, index }, set, reminder, 1);
            (
                reminder.user.clone(),
                Entry {
                    may_reroute,
                    ..entry
                },
            )
        };
        reminders.extend(event.index.reminders.iter().enumerate().map(entry));
        self.bytes_in_work += bytes;
        self.in_work.insert(
            sequence,
            InWork {
                event,
                unsettled,
                bytes,
            },
        );
    }

    /// Records what goes no further than this.
    fn end(&mut self, event: &Event, ended: Vec<Ended>, refused: Vec<RefusedReminder>) {
        let parts = ended.len() + refused.len();
        if parts == 0 {
            return;
        }
        let set = &event.index.sets[0];
        let (at, subscriber) = (now_ms(), Subscriber::Partition(self.partition));
        let name = |place| {
            Some((
                subscriber,
                Name::Published {
                    set: set.sequence,
                    stored_ms: set.published_ms,
                    place,
                },
            ))
        };
        let mut entries = Vec::with_capacity(parts);
        for Ended {
            place,
            outcome,
            id,
            user,
            reminder,
        } in ended
        {
            let record = Record {
                id,
                source: set.source.clone(),
                set: set.id.clone(),
                user: Some(user),
                outcome,
                at,
            };
            entries.push(OutcomeEntry {
                record,
                published_ms: set.published_ms,
                reminder,
                settles: name(place),
            });
        }
        let mut messages = Vec::with_capacity(refused.len());
        self.context.metrics.reminders_taken(0, 0, refused.len());
        for one in refused {
            messages.push(rejected::Message::of_reminder(
                &self.context.owner.nats.names,
                set,
                &one,
            ));
            if one.has_outcome() {
                let outcome = Outcome::Rejected {
                    error: one.rejection.code,
                };
                let (id, source, of) = (one.id, set.source.clone(), set.id.clone());
                let record = Record {
                    id,
                    source,
                    set: of,
                    user: one.user,
                    outcome,
                    at,
                };
                let settles = name(one.place);
                entries.push(OutcomeEntry {
                    record,
                    published_ms: set.published_ms,
                    reminder: None,
                    settles,
                });
            }
        }
        let (sequence, context) = (set.sequence, self.context.clone());
        self.start(async move {
            for message in messages {
                message.store(&context.owner.nats, &context.metrics).await;
            }
            context.owner.recorder.record_all(&entries).await;
            Done::Ended(sequence, parts)
        });
    }

    /// Stores how far the partition has come, if that has changed.
    pub(super) fn checkpoint(&mut self) {
        self.log
            .progress
            .outcome_stored(self.context.owner.recorder.last_stored());
        let checkpoint = self.log.progress.checkpoint();
        let Some(mut ownership) = self
            .ownership
            .take_if(|ownership| ownership.is_new(&checkpoint))
        else {
            return;
        };
        self.start(async move {
            let stored = ownership.store(&checkpoint).await;
            Done::Checkpoint(stored.map(|()| Box::new(ownership)), checkpoint)
        });
    }

    /// Stores how far the partition has come, for the next owner.
    pub(super) async fn release(self) {
        let Self {
            log,
            ownership,
            context,
            partition,
            ..
        } = self;
        let Some(ownership) = ownership else { return };
        let mut progress = log.progress;
        progress.outcome_stored(context.owner.recorder.last_stored());
        let checkpoint = progress.checkpoint();
        if let Err(error) = ownership.release(&checkpoint).await {
            tracing::warn!(error = %chain(&error), %partition, "failed to store the position: its next owner reads some outcomes again");
        }
    }
}
