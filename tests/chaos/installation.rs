//! An installation as its operator sees it: what is under way, what waits, and what was decided.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use crate::logs::{Log, Outcome, Reminder};
use crate::program::bellhop;

/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(50);

/// The installation's streams, for queries.
pub(crate) struct Installation {
    pub(crate) jetstream: Context,
    pub(crate) url: String,
}

impl Installation {
    /// Checks that no reminder is in flight.
    ///
    /// # Errors
    /// What is.
    pub(crate) async fn is_quiet(&self) -> Result<(), String> {
        for name in ["BELLHOP_LOG"] {
            match self.messages(name).await? {
                0 => {}
                left => return Err(format!("{left} messages in {name}")),
            }
        }
        Ok(())
    }

    /// Returns the number of messages of a stream.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(crate) async fn messages(&self, stream: &str) -> Result<u64, String> {
        let stream = self
            .jetstream
            .get_stream(stream)
            .await
            .map_err(|error| error.to_string())?;
        Ok(stream.cached_info().state.messages)
    }

    /// Returns the users with mail: at most a thousand.
    pub(crate) async fn mailboxes(&self) -> Vec<String> {
        let listed = self
            .ask(&["mailbox", "ls", "--json", "--limit", "1000"])
            .await;
        listed
            .into_iter()
            .map(|mailbox| mailbox["user"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Runs a command that prints JSON: a list, or one object.
    async fn ask(&self, arguments: &[&str]) -> Vec<Value> {
        let text = bellhop(arguments, &[("NATS_URL", &self.url)], b"")
            .await
            .succeeded();
        match serde_json::from_str(&text).unwrap() {
            Value::Array(list) => list,
            one => vec![one],
        }
    }

    /// Writes down the outcomes, and what lies in mailboxes.
    pub(crate) async fn write_down(&self, logs: &Path) {
        let waiting = Log::open(logs, "waiting");
        for user in self.mailboxes().await {
            for info in self
                .ask(&["mailbox", "info", &user, "--json", "--limit", "1000000"])
                .await
            {
                let reminders = info["reminders"].as_array().unwrap().iter();
                waiting
                    .write(reminders.map(|one| Reminder::deserialize(&one["reminder"]).unwrap()));
            }
        }
        let log = Log::open(logs, "outcomes");
        let stream = self.jetstream.get_stream("BELLHOP_OUTCOMES").await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let mut messages = stream
            .create_consumer(config)
            .await
            .unwrap()
            .messages()
            .await
            .unwrap();
        let mut read = 0;
        while read < last {
            #[derive(Deserialize)]
            struct Batch {
                outcomes: Vec<Outcome>,
            }
            let message = messages.next().await.unwrap().unwrap();
            read = message.info().unwrap().stream_sequence;
            let Batch { outcomes } = serde_json::from_slice(&message.payload).unwrap();
            log.write(outcomes);
        }
    }
}

/// Waits for a condition, within a time limit.
///
/// # Errors
/// What was seen last.
pub(crate) async fn try_within(
    limit: Duration,
    mut ready: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    loop {
        // A probe of a process that stands still is not answered.
        let state = match tokio::time::timeout(limit / 10, ready()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(state)) => state,
            Err(_) => "looking took too long".to_owned(),
        };
        if Instant::now() >= until {
            return Err(state);
        }
        tokio::time::sleep(POLL).await;
    }
}
