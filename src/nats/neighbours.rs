//! Other installations that hear the same subjects, such as one at the other end of a leaf node.
//!
//! NATS stores a message in every stream whose subjects it hears, so two installations under one
//! prefix that are joined would both take in every set and deliver it twice.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::{StatusCode, Subject};
use futures_util::StreamExt;
use serde::Deserialize;

use super::{During, Nats, NatsError};

/// The name of the micro service that members are.
pub const SERVICE: &str = "bellhop";
/// The service's metadata: the installation's name,
pub const INSTALLATION: &str = "installation";
/// and its prefix, since installations with others may share an account.
pub const PREFIX: &str = "prefix";

/// After this no other member answers any more.
const PATIENCE: Duration = Duration::from_millis(500);

/// Returns the installations but `own` whose members hear this prefix.
///
/// # Errors
/// When the connection is lost, or this user may not ask.
pub async fn others(nats: &Nats, own: &str) -> Result<BTreeSet<String>, NatsError> {
    #[derive(Deserialize)]
    struct Pong {
        #[serde(default)]
        metadata: std::collections::HashMap<String, String>,
    }
    let what = "ask for other installations";
    let inbox = Subject::from(nats.client.new_inbox());
    let mut answers = nats.client.subscribe(inbox.clone()).await.during(what)?;
    let subject = format!("$SRV.PING.{SERVICE}");
    let refused = nats.refusals.of_publishing_to(&subject);
    let asked = nats
        .client
        .publish_with_reply(subject.clone(), inbox, "".into())
        .await;
    asked.during(what)?;
    let collect = async {
        let mut found = BTreeSet::new();
        let late = tokio::time::sleep(PATIENCE);
        tokio::pin!(late);
        loop {
            let answer = tokio::select! {
                answer = answers.next() => answer,
                () = &mut late => return found,
            };
            let Some(answer) = answer else { return found };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                return found;
            }
            let Ok(Pong { mut metadata }) = serde_json::from_slice(&answer.payload) else {
                continue;
            };
            let is_joined = metadata
                .get(PREFIX)
                .is_some_and(|prefix| prefix == nats.names.prefix());
            if let Some(name) = metadata
                .remove(INSTALLATION)
                .filter(|name| is_joined && name != own)
            {
                found.insert(name);
            }
        }
    };
    tokio::select! {
        found = collect => Ok(found),
        () = refused => Err(NatsError::NotPermitted { what: what.to_owned(), subject }),
    }
}

/// Returns what is wrong where another installation is heard, and what to do.
pub fn problem(other: &str) -> String {
    format!(
        "installation {other} hears the same subjects, so both would take in every set and deliver it twice; give one of \
         them another `prefix`, or deny the prefix's subjects between them (docs/nats.md)"
    )
}
