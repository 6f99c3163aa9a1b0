//! Translates between the service and NATS: names, streams, consumers, buckets, requests. It decides nothing.

pub mod aging;
pub mod bucket;
mod direct;
pub mod instance;
pub mod mailbox;
pub mod names;
pub mod pinned;
pub mod replay;
pub mod topology;

use std::time::Duration;

use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, HeaderMap};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use crate::config::Config;

pub use names::Names;

/// A connection to NATS with what everything in this layer needs.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The client.
    pub client: Client,
    /// JetStream.
    pub jetstream: Context,
    /// The installation's names.
    pub names: Names,
    /// How long JetStream may take to answer.
    pub timeout: Duration,
}

/// Why NATS did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// No connection could be made.
    #[error("cannot connect to {url}: {problem}; is nats-server running there? Set --nats URL or NATS_URL")]
    Connect {
        /// The address, without credentials.
        url: String,
        /// Why.
        problem: String,
    },
    /// The server is too old.
    #[error("{url} runs nats-server {found}; Bellhop needs {needed} or later")]
    TooOld {
        /// The address.
        url: String,
        /// Its version.
        found: String,
        /// The least version.
        needed: &'static str,
    },
    /// The server takes too small messages.
    #[error("{url} has max_payload {found}; Bellhop needs {LEAST_PAYLOAD} or more to deliver up to 256 KiB at once")]
    SmallPayload {
        /// The address.
        url: String,
        /// Its limit, in bytes.
        found: usize,
    },
    /// A request failed.
    #[error("{what}: {problem}")]
    Failed {
        /// What was asked.
        what: String,
        /// Why it failed.
        problem: String,
    },
    /// JetStream refused a message because its writer no longer owns what it writes to.
    #[error("{0} has a newer owner")]
    Fenced(String),
}

impl NatsError {
    /// A failed request.
    pub fn failed(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Failed { what: what.into(), problem: problem.to_string() }
    }
}

/// The least nats-server: consumer resets came with 2.14, and there is no 2.13.
const LEAST_SERVER: (i64, i64, i64) = (2, 14, 0);

/// The least `max_payload`, in bytes: a delivery or a parked reminder of 256 KiB, with room for what surrounds it.
const LEAST_PAYLOAD: usize = 512 << 10;

/// Connects, once. Reconnecting later is the client's business.
///
/// # Errors
/// When no server can be reached, credentials are refused, or the server is too old.
pub async fn connect(config: &Config, client_name: &str) -> Result<Nats, NatsError> {
    let client = connect_to(config, client_name).await?;
    let url = || split_credentials(&config.nats.url).0;
    let (major, minor, patch) = LEAST_SERVER;
    if !client.is_server_compatible(major, minor, patch) {
        let found = client.server_info().version;
        return Err(NatsError::TooOld { url: url(), found, needed: "2.14.0" });
    }
    if client.max_payload() < LEAST_PAYLOAD {
        return Err(NatsError::SmallPayload { url: url(), found: client.max_payload() });
    }
    let timeout = config.nats.timeout;
    let jetstream = jetstream::context::ContextBuilder::new().timeout(timeout).build(client.clone());
    Ok(Nats { client, jetstream, names: Names::new(&config.prefix), timeout })
}

/// Connects to whatever server there is, of any version, for whatever it is good for.
///
/// # Errors
/// When no server can be reached, or credentials are refused.
pub async fn connect_to(config: &Config, client_name: &str) -> Result<Client, NatsError> {
    let nats = &config.nats;
    let (url, credentials) = split_credentials(&nats.url);
    let failed = |problem: &dyn std::fmt::Display| NatsError::Connect {
        url: url.clone(),
        problem: problem.to_string().trim_end_matches(['.', ':']).to_owned(),
    };
    let mut options = ConnectOptions::new().name(client_name).request_timeout(Some(nats.timeout));
    // The client gives up when it is to ping a third time without an answer.
    options = options.ping_interval(nats.ping_interval).connection_timeout(nats.ping_interval * 3);
    if !nats.creds.is_empty() {
        options = options.credentials_file(&nats.creds).await.map_err(|e| failed(&format!("{}: {e}", nats.creds)))?;
    }
    match credentials {
        _ if !nats.user.is_empty() => options = options.user_and_password(nats.user.clone(), nats.password.clone()),
        // async-nats passes over credentials in an address.
        Some((user, Some(password))) => options = options.user_and_password(user, password),
        Some((token, None)) => options = options.token(token),
        None => {}
    }
    if !nats.token.is_empty() {
        options = options.token(nats.token.clone());
    }
    options = options.event_callback(|event| async move {
        match event {
            async_nats::Event::Connected => tracing::info!("connected to nats"),
            async_nats::Event::Disconnected => tracing::warn!("disconnected from nats, reconnecting"),
            async_nats::Event::Closed | async_nats::Event::Draining => tracing::debug!(%event, "nats client"),
            other => tracing::warn!(event = %other, "nats client"),
        }
    });
    let addresses: Vec<&str> = url.split(',').map(str::trim).collect();
    options.connect(addresses).await.map_err(|error| failed(&error))
}

/// The first `user:password@` or `token@` in a list of server addresses.
type Credentials = Option<(String, Option<String>)>;

/// Takes credentials out of server addresses, so that they can be used, and are not shown.
pub fn split_credentials(url: &str) -> (String, Credentials) {
    let mut credentials = None;
    let clean = |address: &str| {
        let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
        let Some((own, host)) = rest.rsplit_once('@') else { return address.to_owned() };
        let own = own.split_once(':').map_or((own, None), |(user, password)| (user, Some(password.to_owned())));
        credentials.get_or_insert((own.0.to_owned(), own.1));
        if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
    };
    let addresses: Vec<String> = url.split(',').map(str::trim).map(clean).collect();
    (addresses.join(","), credentials)
}

impl Nats {
    /// The server's clock, by which it stores messages.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn server_time(&self) -> Result<Timestamp, NatsError> {
        #[derive(Deserialize)]
        struct Told {
            ts: Timestamp,
        }
        let failed = |error: &dyn std::fmt::Display| NatsError::failed("ask for the server's time", error);
        let asked = self.jetstream.request(format!("STREAM.INFO.{}", self.names.sets_stream()), &()).await;
        match asked.map_err(|error| failed(&error))? {
            Response::Ok(Told { ts }) => Ok(ts),
            Response::Err { error } => Err(failed(&error)),
        }
    }

    /// Publishes to a stream and waits until the message is stored.
    ///
    /// # Errors
    /// When the stream refused it, or did not confirm it in time: it may be stored then.
    pub async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<jetstream::publish::PublishAck, NatsError> {
        let what = || format!("publish to {subject}");
        let sent = self.jetstream.publish_with_headers(subject.clone(), headers, payload).await;
        sent.map_err(|error| NatsError::failed(what(), error))?.await.map_err(|error| NatsError::failed(what(), error))
    }

    /// Publishes until it is stored, however long JetStream is away. `id` makes the repeats one message.
    pub async fn store_surely(&self, subject: &str, headers: HeaderMap, payload: Bytes, id: &str) {
        self.store_unless(|| false, subject, headers, payload, id).await;
    }

    /// Publishes until it is stored, or until somebody else may be doing so. Answers whether it is stored.
    pub async fn store_unless(
        &self,
        is_pointless: impl Fn() -> bool,
        subject: &str,
        mut headers: HeaderMap,
        payload: Bytes,
        id: &str,
    ) -> bool {
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let mut pause = Duration::from_millis(50);
        while !is_pointless() {
            match self.store(subject.to_owned(), headers.clone(), payload.clone()).await {
                Ok(_) => return true,
                Err(error) => tracing::warn!(%error, "not stored, trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_addresses() {
        let split = |url| split_credentials(url);
        assert_eq!(split("nats://a:4222, tls://b"), ("nats://a:4222,tls://b".into(), None));
        let with_user = Some(("u".to_owned(), Some("p@ss:word".to_owned())));
        assert_eq!(split("nats://u:p@ss:word@a:1,nats://x@b"), ("nats://a:1,nats://b".into(), with_user));
        assert_eq!(split("token@a"), ("a".into(), Some(("token".to_owned(), None))));
    }
}
