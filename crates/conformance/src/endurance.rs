//! Rules about what an app server outlives: much at once, too much, and what it cannot read.

use bellhop_protocol::reminder::MAX_DELIVERY_BYTES;
use bellhop_protocol::wire::answer::Refused;
use futures_util::future::{join_all, try_join, try_join_all};

use super::peer::{Ask, Kept, Peer, body, heartbeat_body};
use super::sample::{Sample, padded};

/// Requests of each kind under way at once: a Bellhop of several members has this many, if it has
/// any.
const AT_ONCE: usize = 16;

/// Bodies that are not valid requests.
const UNREADABLE: [&str; 6] = [
    "",
    "\u{0}",
    "{",
    "null",
    "[]",
    r#"{"users":7,"reminders":{"id":[]}}"#,
];

/// Values that are not reminders.
const NO_REMINDERS: [&str; 5] = [
    "7",
    "null",
    "[]",
    "{}",
    r#"{"id":1,"source":[],"user":{},"content":null}"#,
];

/// Each of many requests has an answer of its own.
pub(super) async fn at_once(peer: &Peer) -> Kept {
    let heartbeats = try_join_all((0..AT_ONCE).map(|_| own_heartbeat(peer)));
    let requests: Vec<[Sample; 2]> = (0..AT_ONCE)
        .map(|_| [peer.sample(&peer.user()), peer.sample(&peer.stranger())])
        .collect();
    let deliveries = try_join_all(
        requests
            .iter()
            .map(|request| own_delivery(peer, request, &requests)),
    );
    try_join(heartbeats, deliveries).await.map(drop)
}

async fn own_heartbeat(peer: &Peer) -> Kept {
    let asked = [peer.stranger(), peer.user()];
    let named = peer.heartbeat(&asked).await?;
    if named.contains(asked[1].as_str()) {
        Ok(())
    } else {
        Err(format!("it left out {} then", asked[1]))
    }
}

async fn own_delivery(peer: &Peer, request: &[Sample; 2], all: &[[Sample; 2]]) -> Kept {
    let refused = peer.deliver_once(request).await?;
    let is_of =
        |request: &[Sample; 2], refused: &Refused| request.iter().any(|sample| sample.is(refused));
    let strays = |refused: &&Refused| {
        !is_of(request, refused) && all.iter().any(|other| is_of(other, refused))
    };
    match refused.iter().find(strays) {
        None => Ok(()),
        Some(refused) => Err(format!(
            "one answer refuses {}, which was in another request",
            refused.id
        )),
    }
}

/// A request that Bellhop does not send, larger than the contract allows.
pub(super) async fn oversize(peer: &Peer) -> Kept {
    let too_large = padded(peer.reminder(&peer.user()), MAX_DELIVERY_BYTES + 64 * 1024);
    peer.send(Ask::Delivery, body(&[too_large])).await?;
    goes_on(peer, Ask::Delivery).await
}

/// Heartbeats that are none.
pub(super) async fn unreadable_heartbeats(peer: &Peer) -> Kept {
    join_all(UNREADABLE.map(|body| peer.send(Ask::Heartbeat, body.into()))).await;
    goes_on(peer, Ask::Heartbeat).await
}

/// Malformed deliveries, and deliveries with something other than a reminder.
pub(super) async fn unreadable_deliveries(peer: &Peer) -> Kept {
    let of_none = NO_REMINDERS.map(|one| format!(r#"{{"reminders":[{one}]}}"#));
    let bodies = UNREADABLE.iter().map(ToString::to_string).chain(of_none);
    join_all(bodies.map(|body| peer.send(Ask::Delivery, body.into()))).await;
    goes_on(peer, Ask::Delivery).await
}

/// Checks that the next request is answered.
async fn goes_on(peer: &Peer, what: Ask) -> Kept {
    let next = match what {
        Ask::Heartbeat => peer.ask_in_time(what, heartbeat_body(&peer.users)).await,
        Ask::Delivery => {
            peer.ask_in_time(what, body(&[peer.sample(&peer.user())]))
                .await
        }
    };
    next.map(drop)
        .map_err(|problem| format!("the request after it: {problem}"))
}
