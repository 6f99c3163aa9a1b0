//! Subscriptions that are made again once they are permitted.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};

use super::Nats;

/// Pause before a refused subscription is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Returns what a subscription to `subject` brings. The server refuses one that is not permitted,
/// and ends it when permissions change; it says nothing when it is permitted. So it is made again
/// until then. The stream ends with the connection.
pub fn lasting<S, E, F, Subscribing>(
    nats: &Nats,
    subject: String,
    subscribe: F,
) -> impl Stream<Item = S::Item> + use<S, E, F, Subscribing>
where
    S: Stream + Unpin,
    F: FnMut() -> Subscribing,
    Subscribing: Future<Output = Result<S, E>>,
{
    let refusals = nats.refusals.clone();
    stream::unfold((subscribe, None), move |(mut subscribe, mut subscribed)| {
        let (refusals, subject) = (refusals.clone(), subject.clone());
        async move {
            loop {
                let (mut messages, mut refused) = match subscribed.take() {
                    Some(subscribed) => subscribed,
                    None => {
                        let refused = Box::pin(refusals.of_subscribing_to(&subject));
                        (subscribe().await.ok()?, refused)
                    }
                };
                tokio::select! {
                    message = messages.next() => return Some((message?, (subscribe, Some((messages, refused))))),
                    () = &mut refused => drop(messages),
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    })
}
