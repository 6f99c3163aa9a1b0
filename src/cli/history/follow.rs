//! New outcomes, as their stream gets them.

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::output::Output;
use super::{CliError, Filter, Shown};
use crate::history::{Entry, Needle};
use crate::nats::api::{ApiError, ask};
use crate::nats::{During, Nats, NatsError};
use crate::reminder::finished::with_fate;
use crate::reminder::history::entries;

/// The stream of outcomes, from now on.
pub(super) struct Live {
    messages: Ordered,
}

/// The action in errors.
const ACTION: &str = "follow the outcomes";

impl Live {
    pub(super) async fn begin(nats: &Nats) -> Result<Self, CliError> {
        let stream = nats
            .jetstream
            .get_stream_no_info(nats.names.outcomes_stream())
            .await;
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::New,
            ..OrderedConfig::default()
        };
        let consumer = stream
            .during(ACTION)?
            .create_consumer(config)
            .await
            .during(ACTION)?;
        Ok(Self {
            messages: consumer.messages().await.during(ACTION)?,
        })
    }

    /// Shows what passes the filter, until an error.
    pub(super) async fn show(
        mut self,
        nats: &Nats,
        filter: &Filter,
        is_json: bool,
        output: &mut Output,
    ) -> Result<(), CliError> {
        while let Some(message) = self.messages.next().await {
            let message = message.during(ACTION)?;
            // Messages that are not ours are skipped.
            for entry in entries(&message.payload).unwrap_or_default() {
                let Some(reminder) = wanted(nats, filter, entry).await? else {
                    continue;
                };
                if is_json {
                    output.json(&reminder)?;
                } else {
                    output.line(Shown::cells(&reminder)?.join("  "))?;
                }
            }
            output.flush()?;
        }
        Err(NatsError::failed(ACTION, "it ended").into())
    }
}

/// The reminder as it is shown, if the filter lets it through.
async fn wanted(
    nats: &Nats,
    filter: &Filter,
    entry: Entry,
) -> Result<Option<Box<RawValue>>, CliError> {
    if !filter.may_want(&entry) {
        return Ok(None);
    }
    let reminder = match &entry.reminder {
        Some(reminder) => reminder.clone(),
        None => said_before(nats, &entry).await?,
    };
    if !filter.wants(&reminder) {
        return Ok(None);
    }
    let at = Timestamp::from_millisecond(entry.at_ms).unwrap_or_default();
    let shown = with_fate(
        reminder.as_bytes(),
        &entry.outcome,
        at,
        &format!("[{}]", entry.step),
    );
    let shown = String::from_utf8(shown);
    let shown = shown.during(ACTION)?;
    Ok(Some(RawValue::from_string(shown).during(ACTION)?))
}

/// A reminder that an earlier outcome has brought, or what little is known of it.
async fn said_before(
    nats: &Nats,
    Entry {
        source,
        id,
        set,
        user,
        ..
    }: &Entry,
) -> Result<String, CliError> {
    #[derive(Deserialize)]
    struct Answer {
        reminder: Box<RawValue>,
    }
    let query = json!({ "source": source, "id": id, "user": user });
    match ask::<Answer>(nats, "why", &query).await {
        Ok(answer) => Ok(answer.reminder.get().to_owned()),
        // A failed query must not end the following.
        Err(ApiError::Unknown(_) | ApiError::Away(_) | ApiError::NoResponder) => {
            Ok(json!({ "id": id, "source": source, "set": set, "user": user }).to_string())
        }
        Err(error) => Err(error.into()),
    }
}

impl Filter {
    /// By what every outcome tells.
    fn may_want(&self, entry: &Entry) -> bool {
        let published = Timestamp::from_millisecond(entry.published_ms).unwrap_or_default();
        self.user
            .as_ref()
            .is_none_or(|user| entry.user.as_deref() == Some(user.as_str()))
            && self
                .source
                .as_ref()
                .is_none_or(|source| entry.source == source.as_str())
            && self.id.as_ref().is_none_or(|id| entry.id == *id)
            && self
                .outcome
                .as_ref()
                .is_none_or(|outcome| entry.outcome == *outcome)
            && self.since.is_none_or(|since| published >= since)
            && self.until.is_none_or(|until| published < until)
    }

    /// By what the reminder says.
    fn wants(&self, reminder: &str) -> bool {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Searched {
            tags: Vec<String>,
            title: Option<String>,
            content: Option<String>,
        }
        let Searched {
            tags,
            title,
            content,
        } = serde_json::from_str(reminder).unwrap_or_default();
        let mut texts = title.iter().chain(&content).map(String::as_str);
        self.tag
            .as_ref()
            .is_none_or(|tag| tags.iter().any(|one| one == tag.as_str()))
            && Needle::new(self.contains.as_deref()).is_none_or(|needle| needle.is_in(&mut texts))
    }
}
