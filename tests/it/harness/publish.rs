//! Business systems: they publish sets, and follow what becomes of their reminders.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::publish::PublishAck;
use serde_json::{Value, json};

use super::{LATER, Outcome, Rejected, World, escape, few};

impl World {
    /// Publishes a valid set and remembers its reminders.
    pub(crate) async fn publish(
        &self,
        source: &str,
        reminders: impl IntoIterator<Item = Value>,
    ) -> PublishAck {
        let reminders: Vec<Value> = reminders.into_iter().collect();
        self.publish_set(source, json!({ "reminders": reminders }), HeaderMap::new())
            .await
    }

    /// Publishes a valid set as it stands and remembers its reminders.
    pub(crate) async fn publish_set(
        &self,
        source: &str,
        set: Value,
        headers: HeaderMap,
    ) -> PublishAck {
        let ack = self
            .publish_bytes(source, set.to_string().as_bytes(), headers)
            .await;
        let name = set["id"]
            .as_str()
            .map_or(ack.sequence.to_string(), ToOwned::to_owned);
        let ids =
            set["reminders"]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
                .map(|(index, reminder)| {
                    let id = reminder["id"]
                        .as_str()
                        .map_or(format!("{name}#{index}"), ToOwned::to_owned);
                    (source.to_owned(), id)
                });
        self.sent.lock().unwrap().extend(ids);
        ack
    }

    /// Publishes anything as a set.
    pub(crate) async fn publish_bytes(
        &self,
        source: &str,
        body: &[u8],
        headers: HeaderMap,
    ) -> PublishAck {
        let subject = format!("bellhop.sets.{}", escape(source));
        let sent = self
            .jetstream
            .publish_with_headers(subject, headers, body.to_vec().into())
            .await;
        sent.unwrap().await.unwrap()
    }

    /// Publishes a valid set as a careful business system does: under a message id, until it is
    /// acknowledged.
    pub(crate) async fn publish_surely(&self, source: &str, reminders: Vec<Value>) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", self.client.new_inbox());
        let (subject, body) = (
            format!("bellhop.sets.{}", escape(source)),
            json!({ "reminders": reminders }).to_string(),
        );
        self.within(LATER, "a set is acknowledged", async || {
            let sent = self
                .jetstream
                .publish_with_headers(subject.clone(), headers.clone(), body.clone().into())
                .await;
            sent.map_err(|error| error.to_string())?
                .await
                .map_err(|error| error.to_string())
        })
        .await;
        let ids = reminders.iter().map(|reminder| {
            (
                source.to_owned(),
                reminder["id"].as_str().unwrap().to_owned(),
            )
        });
        self.sent.lock().unwrap().extend(ids);
    }

    /// Waits until this reminder has this outcome.
    pub(crate) async fn became(&self, source: &str, id: &str, outcome: &str) -> Arc<Outcome> {
        self.all_became(source, &[id], outcome).await.remove(0)
    }

    /// Waits until all of these reminders have this outcome, and answers the outcomes.
    pub(crate) async fn all_became(
        &self,
        source: &str,
        ids: &[impl AsRef<str>],
        outcome: &str,
    ) -> Vec<Arc<Outcome>> {
        self.within(
            LATER,
            &format!("{} reminders become {outcome}", ids.len()),
            async || {
                let all = self.outcomes.all().await;
                let fitting = all
                    .iter()
                    .filter(|one| one.source == source && one.outcome == outcome);
                let by_id: BTreeMap<_, _> = fitting.map(|one| (one.id.as_str(), one)).collect();
                let missing: Vec<_> = ids
                    .iter()
                    .map(AsRef::as_ref)
                    .filter(|id| !by_id.contains_key(id))
                    .collect();
                if !missing.is_empty() {
                    return Err(format!("{} are not, as {:?}", missing.len(), few(&missing)));
                }
                Ok(ids.iter().map(|id| by_id[id.as_ref()].clone()).collect())
            },
        )
        .await
    }

    /// Waits until this reminder has any outcome, and answers it.
    pub(crate) async fn outcome(&self, source: &str, id: &str) -> String {
        self.within(LATER, &format!("{id} has an outcome"), async || {
            self.trail(source, id)
                .await
                .into_iter()
                .next()
                .ok_or_else(|| "it has none".to_owned())
        })
        .await
    }

    /// The outcomes of one reminder, oldest first.
    pub(crate) async fn trail(&self, source: &str, id: &str) -> Vec<String> {
        let all = self.outcomes.all().await;
        let its = all
            .iter()
            .filter(|one| one.source == source && one.id == id);
        its.map(|one| one.outcome.clone()).collect()
    }

    /// Waits until the stream of refused input has this many messages, and answers them.
    pub(crate) async fn all_rejected(&self, count: usize) -> Vec<Arc<Rejected>> {
        self.eventually(&format!("{count} messages are rejected"), async || {
            let all = self.rejected.all().await;
            if all.len() >= count {
                Ok(all)
            } else {
                Err(format!("{} are", all.len()))
            }
        })
        .await
    }
}

/// A reminder whose content is like no other's, so that nothing is merged by accident.
pub(crate) fn reminder(id: impl AsRef<str>, user: &str) -> Value {
    let id = id.as_ref();
    json!({ "id": id, "user": user, "content": format!("content of {id} for {user}") })
}

/// The reminder with these fields added or replaced; `null` takes a field away.
pub(crate) fn with(mut reminder: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("{fields} are no fields")
    };
    let reminder_fields = reminder.as_object_mut().unwrap();
    for (name, value) in fields {
        match value {
            Value::Null => drop(reminder_fields.remove(&name)),
            value => drop(reminder_fields.insert(name, value)),
        }
    }
    reminder
}

/// `0`, `1`, … as ids.
pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A time this far from now, as the contract writes it.
pub(crate) fn from_now(offset: jiff::SignedDuration) -> String {
    (jiff::Timestamp::now() + offset).to_string()
}
