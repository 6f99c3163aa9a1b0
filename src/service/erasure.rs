//! Erases what is kept of a user, everywhere, and counts it.
//!
//! The history goes first, since with it the erasure itself is recorded: whatever was published
//! before it and is recorded later, by outcomes on their way, is not written. If such a reminder
//! was parked meanwhile, the writer, who sees every outcome, takes it out of the mailbox
//! ([`finish`]).

use std::collections::{BTreeMap, HashSet};

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use serde::Deserialize;

use super::archive::Archive;
use super::associates::Associates;
use crate::event::Event;
use crate::history::{HistoryError, Unwritten};
use crate::nats::mailbox::{Pages, purge, remove};
use crate::nats::replay::{last_sequence, replay};
use crate::nats::{Nats, NatsError, bucket, is_outdated, keys, schedule};
use crate::token::UserId;
use crate::wire::erased::Erased;

/// The reason why an erasure was not finished. It can be requested again.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The history is away.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// JetStream did not do what it was asked.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// Erases a user.
///
/// # Errors
/// When a part of it could not be done; the rest may be done then, and is not counted again.
pub async fn erase(context: &Archive, user: &UserId) -> Result<Erased, EraseError> {
    let nats = &context.nats;
    // By the clock that says when sets were published.
    let at = nats.server_time().await?;
    let history = match context.history.open().await? {
        Some(history) => history.erase(user.as_str(), at.as_millisecond()).await?,
        None => 0,
    };
    let buckets = &context.buckets.live().await;
    let routes = remove_keys(
        buckets,
        nats.names.routes_bucket(),
        &format!("{}.*", user.escaped()),
    )
    .await?;
    let own = remove_keys(buckets, nats.names.associates_bucket(), &user.escaped()).await?;
    let named = remove_from_lists(buckets, user).await?;
    let mailbox = context.mailbox_of(user);
    let parked = purge(nats, &nats.names.parked_stream(), &mailbox, None).await?;
    let scheduled = remove_scheduled(nats, user).await?;
    let erased = Erased {
        history,
        parked,
        scheduled,
        routes,
        associates: own + named,
    };
    tracing::info!(?erased, "a user was erased");
    Ok(erased)
}

/// Reminders of erased users were recorded after the erasure: they were in flight then. Those that
/// were parked meanwhile, or as the copy of a rerouted one, are removed from the mailboxes.
///
/// # Errors
/// When JetStream did not do what it was asked. It may be repeated.
pub async fn finish(context: &Archive, erased: &[Unwritten]) -> Result<(), NatsError> {
    let mut of_users: BTreeMap<UserId, HashSet<Name<'_>>> = BTreeMap::new();
    for one in erased
        .iter()
        .filter(|one| ["parked", "rerouted"].contains(&one.outcome.as_str()))
    {
        if let Ok(user) = one.user.parse() {
            of_users
                .entry(user)
                .or_default()
                .insert((&one.source, &one.id, one.published_ms));
        }
    }
    for (user, reminders) in of_users {
        remove_from_mailbox(context, &user, &reminders).await?;
    }
    Ok(())
}

/// The identity of a reminder: source, id, and the time of publishing, since an id may be used
/// again.
type Name<'a> = (&'a str, &'a str, i64);

async fn remove_from_mailbox(
    context: &Archive,
    user: &UserId,
    names: &HashSet<Name<'_>>,
) -> Result<(), NatsError> {
    let nats = &context.nats;
    let mailbox = context.mailbox_of(user);
    let mut pages = Pages::of(nats, &mailbox);
    loop {
        let page = pages.next(usize::MAX).await?;
        if page.is_empty() {
            return Ok(());
        }
        for parked in page {
            let Ok(event) = Event::decode(&parked.message) else {
                continue;
            };
            let name = |at: usize| {
                let (source, id) = (
                    event.set_of(at).source.as_str(),
                    event.index.reminders[at].id.as_str(),
                );
                (source, id, event.set_of(at).published_ms)
            };
            if (0..event.bodies.len()).any(|at| names.contains(&name(at))) {
                remove(nats, &nats.names.parked_stream(), parked.sequence).await?;
            }
        }
    }
}

/// Removes keys of a bucket, and answers how many there were.
async fn remove_keys(nats: &Nats, bucket: String, pattern: &str) -> Result<u64, NatsError> {
    let mut removed = HashSet::new();
    loop {
        let found = keys::list(nats, &bucket, pattern).await?;
        if found.is_empty() {
            return Ok(removed.len() as u64);
        }
        // A lagging replica may return removed messages.
        for key in found {
            keys::delete(nats, &bucket, &key, None).await?;
            removed.insert(key);
        }
    }
}

/// Removes what is to be delivered later to a user, and answers how much it was. It is not stored
/// by user.
async fn remove_scheduled(nats: &Nats, user: &UserId) -> Result<u64, NatsError> {
    #[derive(Deserialize)]
    struct Set {
        reminders: Vec<Whose>,
    }
    #[derive(Deserialize)]
    struct Whose {
        user: String,
    }
    let mut theirs = Vec::new();
    schedule::each(nats, &nats.names.all_scheduled(), |message, sequence| {
        let set = serde_json::from_slice::<Set>(&message.payload);
        if set.is_ok_and(|set| {
            set.reminders
                .iter()
                .any(|reminder| reminder.user == user.as_str())
        }) {
            theirs.push(sequence);
        }
    })
    .await?;
    for sequence in &theirs {
        remove(nats, &nats.names.scheduled_stream(), *sequence).await?;
    }
    Ok(theirs.len() as u64)
}

/// Takes a user out of others' lists of associates, and answers out of how many.
async fn remove_from_lists(nats: &Nats, user: &UserId) -> Result<u64, NatsError> {
    let bucket = nats.names.associates_bucket();
    let mut naming = Vec::new();
    let config = pull::Config {
        filter_subject: format!("$KV.{bucket}.>"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull::Config::default()
    };
    let stream = format!("KV_{bucket}");
    let through = last_sequence(nats, &stream).await?;
    replay(nats, &stream, config, through, |message, revision, _| {
        if let Ok(mut list) = Associates::read(&message.payload)
            && let Some(key) = message.subject.rsplit('.').next()
            && list.associates.contains(user)
        {
            list.associates.retain(|associate| associate != user);
            naming.push((key.to_owned(), revision, list));
        }
    })
    .await?;
    let store = bucket::open(nats, bucket).await?;
    let mut changed = 0;
    for (key, revision, list) in naming {
        let value = serde_json::to_vec(&list).expect("names are text");
        match store.update(&key, value.into(), revision).await {
            Ok(_) => changed += 1,
            // It was changed meanwhile, which is its owner's new word.
            Err(error) if is_outdated(&error) => {}
            Err(error) => {
                return Err(NatsError::failed(
                    format!("take a user out of the associates of {key}"),
                    error,
                ));
            }
        }
    }
    Ok(changed)
}
