//! The connections to NATS of all programs but Bellhop itself.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, HeaderMap};

/// A server that stands still, or behind a cut, says nothing and closes nothing: the client finds
/// out by its pings, three of these intervals later.
const PING: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time for JetStream's answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// Connects to one of these servers, and to another one whenever that is lost.
pub(crate) async fn connect(url: &str, name: &str) -> Client {
    let options = ConnectOptions::new()
        .name(name)
        .ping_interval(PING)
        .connection_timeout(CONNECT_TIMEOUT);
    options
        .connect(url.split(',').collect::<Vec<_>>())
        .await
        .unwrap()
}

/// JetStream over this connection.
pub(crate) fn jetstream(client: Client) -> Context {
    ContextBuilder::new().timeout(ANSWER).build(client)
}

/// Publishes once. Answers whether JetStream acknowledged it; if it did not, it may be stored
/// nonetheless.
pub(crate) async fn store(
    jetstream: &Context,
    subject: &str,
    headers: HeaderMap,
    body: Vec<u8>,
) -> bool {
    let sent = jetstream.publish_with_headers(subject.to_owned(), headers, body.into());
    // A client without a connection keeps messages until it has one.
    match tokio::time::timeout(ANSWER, sent).await {
        Ok(Ok(acknowledgement)) => acknowledgement.await.is_ok(),
        _ => false,
    }
}
