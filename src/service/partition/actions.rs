//! Performs the actions of a partition's state machine: each becomes a piece of work in flight,
//! whose end is an input.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::{Done, Worker};
use crate::event::{Event, IndexEntry};
use crate::log::Subscriber;
use crate::log::done::Done as Name;
use crate::log::progress::Hold;
use crate::metrics::Way;
use crate::nats::mailbox::Parking;
use crate::nats::{NatsError, chain, keys};
use crate::reminder::finished::{rerouted, with_parked_at};
use crate::reminder::outcome::Outcome;
use crate::reminder::reject::{RejectCode, Rejection};
use crate::router::{
    self, Action, Company, HeldBack, Input, Item, Refusal, Removal, Resolution, Settled, Share,
};
use crate::service::outcomes::message::{Line, Outcomes};
use crate::service::refusals::Refusals;
use crate::service::request_batcher::DeliveryPart;
use crate::service::{now_ms, rejected, routes, spans};
use crate::token::UserId;
use crate::wire::member;
use crate::wire::route::key;

impl Worker {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Deliver {
                instance,
                company,
                shares,
                until,
            } => self.deliver(instance, company, shares, until),
            Action::Heartbeat { instance, users } => {
                let batcher = self.context.batcher.clone();
                self.start(async move {
                    let answer = batcher.heartbeat(instance.clone(), users).await;
                    Done::Input(Input::HeartbeatAnswered { instance, answer })
                });
            }
            Action::CatchUpWithRoutes => {
                let (routes, partition) = (self.context.routes.clone(), self.partition);
                self.start(async move {
                    routes.catch_up(partition).await;
                    Done::Nothing
                });
            }
            Action::LookUpRoutes { user, associate } => self.look_up(user, associate),
            Action::DropRoute {
                user,
                instance,
                revision,
            } => {
                self.context.metrics.route_dropped();
                let (nats, key) = (self.context.owner.nats.clone(), key(&user, &instance));
                self.start(async move {
                    // That it was put again, or deleted, since then is why the revision is named.
                    let _ = keys::delete(&nats, &nats.names.routes_bucket(), &key, Some(revision))
                        .await;
                    Done::Nothing
                });
            }
            Action::Park(reminders) => self.park(reminders),
            Action::ReadMailbox { user, from, last } => self.read_mailbox(user, from, last),
            Action::CountMailbox { user, known } => self.count_mailbox(user, known),
            Action::Settle(items) => self.record(items),
            Action::Forget(items) => items.iter().for_each(|item| self.forget(item)),
            Action::HoldBack(held_back) => self.hold_back(held_back),
        }
    }

    fn deliver(
        &mut self,
        instance: Arc<router::Instance>,
        company: Company,
        shares: Vec<Share>,
        until: Instant,
    ) {
        let mut reminders = Vec::with_capacity(shares.iter().map(|share| share.items.len()).sum());
        for share in &shares {
            reminders.extend(share.items.iter().map(|item| self.in_request(item, share)));
        }
        let items = shares.iter().flat_map(|share| &share.items);
        let traces = spans::distinct(items.filter_map(|item| {
            let (event, index) = self.event_of(item)?;
            event.set_of(index).trace.as_ref()
        }));
        let batcher = self.context.batcher.clone();
        self.start(async move {
            let answer = batcher
                .deliver(
                    instance.clone(),
                    company,
                    DeliveryPart { reminders, traces },
                    until,
                )
                .await;
            Done::Delivered(instance, company, shares, answer)
        });
    }

    /// Finds the refused reminders' places in what was sent. Refusals of unknown reminders, or of
    /// other partitions', have no effect.
    pub(super) fn refused(
        &self,
        shares: &[Share],
        refusals: &Refusals,
    ) -> Vec<(usize, usize, Refusal)> {
        if refusals.is_empty() {
            return Vec::new();
        }
        let mut places = Vec::new();
        for (place, share) in shares.iter().enumerate() {
            let why = |item: &Item| {
                let (event, index) = self.event_of(item)?;
                let (source, id) = (
                    &event.set_of(index).source,
                    &event.index.reminders[index].id,
                );
                refusals.of(source.as_str(), id, share.recipient().as_str())
            };
            let found = share
                .items
                .iter()
                .enumerate()
                .filter_map(|(at, item)| Some((place, at, why(item)?)));
            places.extend(found);
        }
        places
    }

    /// Names a reminder that an instance does not answer, so that an operator can look at it.
    fn hold_back(
        &mut self,
        HeldBack {
            user,
            item,
            instance,
            tries,
            pause,
        }: HeldBack,
    ) {
        let Some((event, index)) = self.event_of(&item) else {
            return;
        };
        let (source, id) = (
            event.set_of(index).source.clone(),
            event.index.reminders[index].id.clone(),
        );
        tracing::warn!(
            %source, id, %user, instance = %instance.name, tries, ?pause,
            "an app server never answers this reminder, so it is held back; `bellhop mailbox rm` removes it"
        );
        let instance = instance.name.clone();
        self.held_back.insert(
            user.clone(),
            member::HeldBack {
                user,
                source,
                id,
                instance,
                tries,
            },
        );
    }

    /// An associate's routes. That they cannot be read is as if there were none: the mailbox is
    /// safe.
    fn look_up(&mut self, user: UserId, associate: UserId) {
        let (buckets, lookups) = (self.context.buckets.current(), self.lookups.clone());
        self.start(async move {
            let _turn = lookups.acquire().await;
            let instances = routes::look_up(&buckets, &associate)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(error = %chain(&error), "associate skipped");
                    Vec::new()
                });
            Done::Input(Input::RoutesFound {
                user,
                associate,
                instances,
            })
        });
    }

    /// The reminder's JSON as it goes into a request.
    fn in_request(&self, item: &Item, share: &Share) -> Bytes {
        let json = self.finished(item);
        match share.to.as_ref().map(|to| rerouted(&json, to)) {
            Some(Ok(rerouted)) => rerouted.into(),
            // The intake wrote an object.
            Some(Err(_)) | None => json,
        }
    }

    /// The reminder's JSON as it is delivered to the user.
    fn finished(&self, item: &Item) -> Bytes {
        match item {
            Item::Event { sequence, index } => self
                .in_work
                .get(sequence)
                .map(|in_work| in_work.event.bodies[*index].clone())
                .unwrap_or_default(),
            Item::Parked { sequence } => {
                let in_memory = self.in_memory.get(sequence);
                in_memory
                    .map(|parked| with_parked_at(&parked.event.bodies[0], parked.parked_at).into())
                    .unwrap_or_default()
            }
        }
    }

    fn event_of(&self, item: &Item) -> Option<(&Event, usize)> {
        match item {
            Item::Event { sequence, index } => Some((&self.in_work.get(sequence)?.event, *index)),
            Item::Parked { sequence } => Some((&self.in_memory.get(sequence)?.event, 0)),
        }
    }

    fn park(&mut self, reminders: Vec<router::Parking>) {
        let parking = reminders.into_iter().filter_map(
            |router::Parking {
                 user,
                 item,
                 rerouted_to,
             }| {
                let Item::Event { sequence, index } = item else {
                    return None;
                };
                let in_work = self.in_work.get(&sequence)?;
                let event = &in_work.event;
                let IndexEntry {
                    expires_at,
                    priority,
                    ..
                } = event.index.reminders[index];
                let (name, event) = match rerouted_to {
                    None => (Some(Name::of_event(event, index)), event.only(index)),
                    Some(to) => (None, event.copy_of(index, &to)),
                };
                let source = Some(in_work.event.set_of(index).source.clone());
                Some(Parking {
                    user,
                    source,
                    name,
                    expires_at,
                    priority,
                    message: event.encode(),
                })
            },
        );
        let (mailboxes, parking) = (self.mailboxes.clone(), parking.collect());
        self.start(async move { Done::Parked(mailboxes.park(parking).await) });
    }

    fn read_mailbox(&mut self, user: UserId, from: u64, last: u64) {
        let (mailboxes, settings) = (self.mailboxes.clone(), &self.context.owner.config.mailbox);
        let (messages, bytes) = (settings.page_messages, settings.page_bytes);
        self.start(async move {
            loop {
                match mailboxes.read(&user, from, last, messages, bytes).await {
                    Ok((page, is_last)) => return Done::Page(user, last, page, is_last),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "failed to read the mailbox, retrying")
                    }
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    fn count_mailbox(&mut self, user: UserId, known: Option<usize>) {
        let mailboxes = self.mailboxes.clone();
        self.start(async move {
            loop {
                match mailboxes.count_by_source(&user, known).await {
                    Ok(found) => return Done::Counted(user, found),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "failed to count the mailbox, retrying")
                    }
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    /// Makes outcomes durable; only then are the reminders removed from where they came.
    pub(super) fn record(&mut self, items: Vec<Settled>) {
        // Those that are refused are stored first. The others must not wait for that: what is
        // settled after them would be recorded before them, and take them out of their mailbox with
        // it.
        let (refused, others): (Vec<_>, Vec<_>) = items
            .into_iter()
            .partition(|settled| settled.resolution == Resolution::MailboxFull);
        for items in [others, refused] {
            if !items.is_empty() {
                self.record_together(items);
            }
        }
    }

    fn record_together(&mut self, items: Vec<Settled>) {
        let at = now_ms();
        let mut outcomes = self.context.owner.recorder.outcomes();
        for settled in &items {
            self.write_outcome(settled, at, &mut outcomes);
        }
        let refused: Vec<_> = items
            .iter()
            .filter(|settled| settled.resolution == Resolution::MailboxFull)
            .filter_map(|settled| self.refuse(settled))
            .collect();
        let is_parked = |settled: &Settled| matches!(settled.item, Item::Parked { .. });
        let hold = items
            .iter()
            .any(is_parked)
            .then(|| self.log.progress.hold());
        // Mostly nothing is refused, and then a copy of the connection costs as much as all else
        // here.
        let context = (!refused.is_empty()).then(|| self.context.clone());
        let recorder = self.context.owner.recorder.clone();
        self.start(async move {
            if let Some(context) = context {
                for message in refused {
                    message.store(&context.owner.nats, &context.metrics).await;
                }
            }
            recorder.record(outcomes).await;
            Done::Settled(items, hold)
        });
    }

    /// Writes what became of a reminder, unless it is known already, and counts it.
    fn write_outcome(&self, settled: &Settled, at: jiff::Timestamp, outcomes: &mut Outcomes) {
        let Some((event, index)) = self.event_of(&settled.item) else {
            return;
        };
        let (set, reminder) = (event.set_of(index), &event.index.reminders[index]);
        if reminder.rerouted_to.is_some() {
            return; // Of a copy's reminder it is known what became.
        }
        let Some(outcome) = outcome(&settled.resolution, reminder, at) else {
            return;
        };
        if let Resolution::Delivered { missed, .. } = settled.resolution {
            self.context.metrics.devices_missed(missed);
        }
        if let Some(way) = way(&settled.resolution, &settled.item) {
            let after = at.as_millisecond() - set.published_ms;
            let after = Duration::from_millis(u64::try_from(after).unwrap_or(0));
            self.context.metrics.accepted(reminder.priority, way, after);
        }
        let name = match settled.item {
            Item::Event { .. } => Some(Name::of_event(event, index)),
            Item::Parked { sequence } => self.in_memory.get(&sequence).map(|parked| Name::Parked {
                sequence,
                stored_ms: parked.parked_at.as_millisecond(),
            }),
        };
        // What comes from a mailbox was recorded when it was parked; what is refused lies with what
        // was refused.
        let is_new = matches!(settled.item, Item::Event { .. })
            && settled.resolution != Resolution::MailboxFull;
        outcomes.push(&Line {
            id: &reminder.id,
            source: &set.source,
            set: &set.id,
            user: Some(&settled.user),
            outcome: &outcome,
            at,
            published_ms: set.published_ms,
            reminder: is_new.then(|| &*event.bodies[index]),
            settles: name.map(|name| (Subscriber::Partition(self.partition), name)),
        });
    }

    fn refuse(&self, settled: &Settled) -> Option<rejected::Message> {
        let (event, index) = self.event_of(&settled.item)?;
        let (room, priority) = (
            super::room(&self.context.owner.config),
            event.index.reminders[index].priority,
        );
        let detail = format!(
            "the mailbox of `{}` has no room for it: `mailbox.limit` is {}; reminders of priority {} may fill it up to {}, and one \
             source may have {}",
            settled.user,
            room.limit,
            priority.as_str(),
            room.of_priority(priority),
            room.of_source()
        );
        let rejection = Rejection::new(RejectCode::MailboxFull, detail);
        let id = match settled.item {
            Item::Event { .. } => {
                let place = event.index.reminders[index].place;
                format!("{}.{place}", event.set_of(index).sequence)
            }
            Item::Parked { sequence } => format!("parked {sequence}"),
        };
        let (set, raw, names) = (
            event.set_of(index),
            event.publishable(index),
            &self.context.owner.nats.names,
        );
        let message = rejected::Message::new(
            names,
            &set.source.escaped(),
            raw,
            &rejection,
            Some(&set.id),
            id,
        );
        Some(message.with_id(&event.index.reminders[index].id))
    }

    /// The outcomes are durable: removes the reminders. With the last removal the hold is released.
    pub(super) fn remove(&mut self, items: Vec<Settled>, hold: Option<Hold>) {
        let mut up_to: HashMap<UserId, u64> = HashMap::new();
        let mut sets: BTreeMap<u64, usize> = BTreeMap::new();
        let mut alone = Vec::new();
        for Settled {
            user,
            item,
            removal,
            ..
        } in items
        {
            self.forget(&item);
            match (removal, item) {
                (Removal::MailboxUpTo(sequence), _) => {
                    let slot = up_to.entry(user).or_default();
                    *slot = sequence.max(*slot);
                }
                (Removal::MailboxOnly(sequence), _) => alone.push(sequence),
                (Removal::Event, Item::Event { sequence, .. }) => {
                    *sets.entry(sequence).or_default() += 1
                }
                (Removal::Event, Item::Parked { .. }) => {}
            }
        }
        for (sequence, count) in sets {
            self.settled(sequence, count);
        }
        let mailboxes = self.mailboxes.clone();
        let removals = up_to.into_iter().map(|(user, sequence)| {
            let mailboxes = mailboxes.clone();
            surely(move || {
                let (mailboxes, user) = (mailboxes.clone(), user.clone());
                async move { mailboxes.remove_up_to(&user, sequence).await }
            })
            .boxed()
        });
        let alone = alone.into_iter().map(|sequence| {
            let mailboxes = mailboxes.clone();
            surely(move || {
                let mailboxes = mailboxes.clone();
                async move { mailboxes.remove_only(sequence).await }
            })
            .boxed()
        });
        let removals: Vec<_> = removals.chain(alone).collect();
        if removals.is_empty() {
            hold.into_iter()
                .for_each(|hold| self.log.progress.release(hold));
            return;
        }
        self.start(async move {
            join_all(removals).await;
            hold.map_or(Done::Nothing, Done::Removed)
        });
    }

    pub(super) fn remove_only(&mut self, sequence: u64, hold: Option<Hold>) {
        let mailboxes = self.mailboxes.clone();
        self.start(async move {
            surely(move || {
                let mailboxes = mailboxes.clone();
                async move { mailboxes.remove_only(sequence).await }
            })
            .await;
            hold.map_or(Done::Nothing, Done::Removed)
        });
    }

    fn forget(&mut self, item: &Item) {
        if let Item::Parked { sequence } = item {
            self.in_memory.remove(sequence);
        }
    }
}

/// The outcome of a reminder with this resolution at this time.
fn outcome(resolution: &Resolution, reminder: &IndexEntry, at: jiff::Timestamp) -> Option<Outcome> {
    Some(match resolution {
        Resolution::Delivered { by, .. } => Outcome::Delivered {
            instance: by.first()?.clone(),
            instances: match by.len() {
                1 => Vec::new(),
                _ => by.clone(),
            },
        },
        Resolution::Rerouted { instance, to } => Outcome::Rerouted {
            instance: instance.clone(),
            to: to.clone(),
        },
        Resolution::Parked => Outcome::Parked { escalated: false },
        Resolution::Expired => {
            let after = reminder.expires_at;
            let after = after.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            Outcome::Expired {
                expires_at: after.unwrap_or(at),
            }
        }
        Resolution::Merged { into } => Outcome::Merged { into: into.clone() },
        Resolution::MailboxFull => Outcome::Rejected {
            error: RejectCode::MailboxFull,
        },
    })
}

/// On which way a reminder was accepted, if it was.
fn way(resolution: &Resolution, item: &Item) -> Option<Way> {
    match (resolution, item) {
        (Resolution::Rerouted { .. }, _) => Some(Way::Rerouted),
        (Resolution::Delivered { .. }, Item::Event { .. }) => Some(Way::Direct),
        (Resolution::Delivered { .. }, Item::Parked { .. }) => Some(Way::Mailbox),
        _ => None,
    }
}

/// Repeats a removal until JetStream has confirmed it.
async fn surely<F: Future<Output = Result<(), NatsError>>>(mut attempt: impl FnMut() -> F) {
    while let Err(error) = attempt().await {
        tracing::warn!(error = %chain(&error), "failed to remove a message, retrying");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
