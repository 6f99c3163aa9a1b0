//! The content of NATS, the reminders that app servers accepted, and the protocol's demands on
//! both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::{kv, stream};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{LATER, Outcome, Take, World, escape, few};

impl World {
    // Accepted reminders.

    /// Returns the reminders that app servers accepted so far, in order.
    pub(crate) fn takes(&self) -> Vec<Arc<Take>> {
        self.seen_by_apps.takes()
    }

    /// Waits until app servers have taken all of these reminders.
    pub(crate) async fn taken(&self, ids: &[impl AsRef<str>]) {
        self.taken_within(LATER, ids).await;
    }

    /// Waits until app servers have taken all of these reminders.
    pub(crate) async fn taken_within(&self, deadline: Duration, ids: &[impl AsRef<str>]) {
        self.within(
            deadline,
            &format!("{} reminders are taken", ids.len()),
            async || {
                let takes = self.takes();
                let taken: BTreeSet<_> = takes.iter().map(|take| take.id()).collect();
                let missing: Vec<_> = ids
                    .iter()
                    .map(AsRef::as_ref)
                    .filter(|id| !taken.contains(id))
                    .collect();
                if missing.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{} are not, as {:?}", missing.len(), few(&missing)))
                }
            },
        )
        .await;
    }

    /// The first take of a reminder.
    pub(crate) fn first(&self, id: &str) -> Arc<Take> {
        self.takes()
            .into_iter()
            .find(|take| take.id() == id)
            .unwrap_or_else(|| panic!("no app server took {id}"))
    }

    /// A user's reminders in the order in which they were first taken.
    pub(crate) fn order(&self, user: &str) -> Vec<String> {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for take in self.takes().iter().filter(|take| take.user() == user) {
            if seen.insert((take.source().to_owned(), take.id().to_owned())) {
                order.push(take.id().to_owned());
            }
        }
        order
    }

    /// Reminders that were taken more than once.
    pub(crate) fn repeats(&self) -> Vec<(String, String, String)> {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for take in self.takes() {
            *counts.entry(take.key()).or_default() += 1;
        }
        counts
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(key, _)| key)
            .collect()
    }

    // The content of NATS.

    /// The bucket of routes.
    pub(crate) async fn routes(&self) -> kv::Store {
        self.jetstream
            .get_key_value("bellhop_routes")
            .await
            .unwrap()
    }

    /// Returns true if the user has a route at the instance.
    pub(crate) async fn has_route(&self, user: &str, instance: &str) -> bool {
        let key = format!("{}.{}", escape(user), escape(instance));
        self.routes().await.get(key).await.unwrap().is_some()
    }

    /// Stores the user's associates, as a program does that knows the contract or
    /// does not.
    pub(crate) async fn put_associates(&self, user: &str, value: impl ToString) {
        let bucket = self
            .jetstream
            .get_key_value("bellhop_associates")
            .await
            .unwrap();
        bucket
            .put(escape(user), value.to_string().into())
            .await
            .unwrap();
    }

    /// Returns the number of reminders in mailboxes of these subjects, such as
    /// `bellhop.parked.*.alice`.
    pub(crate) async fn mailboxes(&self, subjects: &str) -> Result<usize, String> {
        let stream = self
            .jetstream
            .get_stream_no_info("BELLHOP_PARKED")
            .await
            .map_err(|error| error.to_string())?;
        let counts = stream
            .info_builder()
            .subjects(subjects)
            .fetch()
            .await
            .map_err(|error| error.to_string())?;
        let counts: Vec<_> = counts.collect().await;
        counts
            .into_iter()
            .try_fold(0, |sum, entry| entry.map(|(_, n)| sum + n))
            .map_err(|error| error.to_string())
    }

    /// A stream's configuration and state.
    pub(crate) async fn stream(&self, name: &str) -> stream::Info {
        self.jetstream
            .get_stream_no_info(name)
            .await
            .unwrap()
            .get_info()
            .await
            .unwrap()
    }

    async fn messages(&self, stream: &str) -> Result<u64, String> {
        let stream = self
            .jetstream
            .get_stream_no_info(stream)
            .await
            .map_err(|error| error.to_string())?;
        stream
            .get_info()
            .await
            .map(|info| info.state.messages)
            .map_err(|error| error.to_string())
    }

    /// Returns a member's record.
    pub(crate) async fn card(&self, member: &str) -> Option<Value> {
        let bucket = self.jetstream.get_key_value("bellhop_members").await.ok()?;
        bucket
            .get(member)
            .await
            .ok()?
            .map(|card| serde_json::from_slice(&card).unwrap())
    }

    /// Returns the members' records, by name. A listing can miss one who speaks just then.
    pub(crate) async fn cards(&self) -> BTreeMap<String, Value> {
        let Ok(bucket) = self.jetstream.get_key_value("bellhop_members").await else {
            return BTreeMap::new();
        };
        let Ok(keys) = bucket.keys().await else {
            return BTreeMap::new();
        };
        let mut cards = BTreeMap::new();
        for key in keys
            .filter_map(|key| async { key.ok() })
            .collect::<Vec<_>>()
            .await
        {
            cards.extend(self.card(&key).await.map(|card| (key, card)));
        }
        cards
    }

    /// Asks for messages of a consumer that a member reads. They never reach the member; here they
    /// show.
    pub(crate) async fn lose(&self, count: usize, consumer: [&str; 2]) -> Subscriber {
        let group = if consumer[0] == "BELLHOP_LOG" {
            Value::Null
        } else {
            json!("bellhop")
        };
        let request = json!({ "batch": count, "expires": 30_000_000_000_u64, "group": group });
        let inbox = self.client.new_inbox();
        let lost = self.client.subscribe(inbox.clone()).await.unwrap();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}", consumer.join("."));
        self.client
            .publish_with_reply(subject, inbox, request.to_string().into())
            .await
            .unwrap();
        self.client.flush().await.unwrap();
        lost
    }

    // Conditions of every test.

    /// Waits until every set is settled, and removed from the log.
    pub(crate) async fn quiet(&self) {
        self.within(LATER, "nothing is under way", async || {
            for stream in ["BELLHOP_LOG"] {
                let left = self.messages(stream).await?;
                if left > 0 {
                    return Err(format!("{left} messages in {stream}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Waits until nothing is under way, and checks the contract's promise: every reminder of every
    /// acknowledged set gets exactly one final outcome in the end, or is in a mailbox.
    pub(crate) async fn settle(&self) {
        self.quiet().await;
        self.within(LATER, "everything is settled", async || {
            let outcomes = self.outcomes.all().await;
            let trails = by_reminder(&outcomes);
            let open = |key: &&(String, String)| {
                !trails
                    .get(*key)
                    .is_some_and(|trail| trail.iter().any(|o| o.is_final()))
            };
            let open: Vec<_> = self
                .sent
                .lock()
                .unwrap()
                .iter()
                .filter(open)
                .cloned()
                .collect();
            let is_parked =
                |key: &&(String, String)| trails.get(*key).is_some_and(|trail| !trail.is_empty());
            let lost: Vec<_> = open.iter().filter(|key| !is_parked(key)).collect();
            let parked = self.mailboxes("bellhop.parked.*.*").await?;
            if !lost.is_empty() || open.len() != parked {
                let (n, few) = (lost.len(), few(&lost));
                return Err(format!(
                    "{} open, {parked} in mailboxes, {n} without any outcome, as {few:?}",
                    open.len()
                ));
            }
            Ok(())
        })
        .await;
        let outcomes = self.outcomes.all().await;
        for (key, trail) in by_reminder(&outcomes) {
            // One id may go to many users.
            let users: BTreeSet<_> = trail.iter().map(|outcome| &outcome.user).collect();
            for user in users {
                let of_user = trail
                    .iter()
                    .filter(|outcome| outcome.is_final() && outcome.user == *user);
                let finals = of_user.count();
                assert!(
                    finals <= 1,
                    "{key:?} has {finals} final outcomes for {user:?}: {trail:?}"
                );
            }
        }
        let takes: BTreeSet<_> = self
            .takes()
            .iter()
            .map(|take| (take.key(), take.app.clone()))
            .collect();
        for one in outcomes
            .iter()
            .filter(|one| ["delivered", "rerouted"].contains(&one.outcome.as_str()))
        {
            let recipient = one.to.clone().or(one.user.clone());
            let key = (
                one.source.clone(),
                one.id.clone(),
                recipient.unwrap_or_default(),
            );
            assert!(
                takes.contains(&(key, one.instance.clone().unwrap_or_default())),
                "no app server took {one:?}"
            );
        }
    }
}

fn by_reminder(outcomes: &[Arc<Outcome>]) -> BTreeMap<(String, String), Vec<&Outcome>> {
    let mut trails: BTreeMap<_, Vec<&Outcome>> = BTreeMap::new();
    for one in outcomes {
        trails
            .entry((one.source.clone(), one.id.clone()))
            .or_default()
            .push(one);
    }
    trails
}
