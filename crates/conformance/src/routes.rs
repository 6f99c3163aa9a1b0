//! Rules about routes: what the app server has put into the bucket.

use bellhop_protocol::wire::route::read_key;
use bellhop_protocol::wire::subject::read_value;
use jiff::Timestamp;
use serde_json::Value;

use super::peer::{Kept, Peer};

/// Everybody who is connected has one.
pub(super) async fn put(peer: &Peer) -> Kept {
    let missing = peer
        .users
        .iter()
        .find(|user| !peer.routes.iter().any(|route| route.key == peer.key(user)));
    missing.map_or(Ok(()), |user| {
        Err(format!(
            "{user} has no route: there is no key {}",
            peer.key(user)
        ))
    })
}

/// Each is under the escaped names.
pub(super) async fn keys(peer: &Peer) -> Kept {
    let wrong = peer
        .routes
        .iter()
        .find_map(|route| Some((&route.key, read_key(&route.key).err()?)));
    wrong.map_or(Ok(()), |(key, error)| Err(format!("key {key}: {error}")))
}

/// Each leads to a subject that an app server can have.
pub(super) async fn values(peer: &Peer) -> Kept {
    for route in &peer.routes {
        let wrong = |problem: String| format!("{}: {problem}", route.key);
        read_value(&peer.names, &peer.instance, &route.value)
            .map_err(|error| wrong(error.to_string()))?;
        let value: Value = serde_json::from_slice(&route.value).unwrap_or_default();
        let is_time = |since: &Value| {
            since
                .as_str()
                .is_some_and(|text| text.parse::<Timestamp>().is_ok())
        };
        match &value["since"] {
            Value::Null => {}
            since if is_time(since) => {}
            since => {
                return Err(wrong(format!(
                    "`since` is {since}, which is not an RFC 3339 time"
                )));
            }
        }
    }
    Ok(())
}
