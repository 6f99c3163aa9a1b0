//! Rules about heartbeats: who the app server says is connected.

use bellhop_protocol::token::{UserId, escape};
use bellhop_protocol::wire::answer::HeartbeatAnswer;
use serde_json::json;

use super::peer::{Ask, Kept, Peer, heartbeat_body};

/// Users in the largest heartbeat.
const MOST_ASKED: usize = 1_000;

/// An answer comes, and soon.
pub(super) async fn in_time(peer: &Peer) -> Kept {
    peer.ask_in_time(Ask::Heartbeat, heartbeat_body(&peer.users))
        .await
        .map(drop)
}

/// It has the contract's form.
pub(super) async fn form(peer: &Peer) -> Kept {
    peer.ask(Ask::Heartbeat, heartbeat_body(&peer.users))
        .await?
        .read::<HeartbeatAnswer<String>>()
        .map(drop)
}

/// Everybody who is connected is named.
pub(super) async fn connected(peer: &Peer) -> Kept {
    let named = peer
        .heartbeat(&[peer.users.as_slice(), &[peer.stranger()]].concat())
        .await?;
    let left_out = peer
        .users
        .iter()
        .find(|user| !named.contains(user.as_str()));
    left_out.map_or(Ok(()), |user| {
        Err(format!(
            "{user}, who has a route or was said to be connected, is left out"
        ))
    })
}

/// No other user is named.
pub(super) async fn strangers(peer: &Peer) -> Kept {
    let strangers = [peer.stranger(), peer.stranger(), peer.stranger()];
    named_none_of(peer, &strangers).await
}

/// Names are compared as they are: those that almost look like a connected user's are others'.
pub(super) async fn names(peer: &Peer) -> Kept {
    let user = peer.user();
    let text = user.as_str();
    let alike = [
        text.to_uppercase(),
        text.to_lowercase(),
        format!("{text} "),
        format!(" {text}"),
        escape(text) + "=2E",
    ];
    let alike = alike
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .filter(|name| !peer.users.contains(name));
    let odd = [
        "张三",
        "a.b@c",
        "*",
        ">",
        "\"\\",
        "👩‍🚀",
        "=61",
        "${x}",
        "%00",
    ]
    .map(|end| peer.stranger_with(end));
    let others: Vec<UserId> = alike.chain(odd).collect();
    named_none_of(peer, &others).await
}

async fn named_none_of(peer: &Peer, others: &[UserId]) -> Kept {
    let named = peer.heartbeat(others).await?;
    let wrong = others.iter().find(|user| named.contains(user.as_str()));
    wrong.map_or(Ok(()), |user| {
        Err(format!("`{user}` is named, and is not connected"))
    })
}

/// Checks that the answer names only users of the request.
pub(super) async fn asked_only(peer: &Peer) -> Kept {
    let stranger = peer.stranger();
    let named = peer.heartbeat(std::slice::from_ref(&stranger)).await?;
    let other = named.iter().find(|name| *name != stranger.as_str());
    other.map_or(Ok(()), |name| {
        Err(format!("asked about {stranger} alone, it named {name}"))
    })
}

/// The largest heartbeat.
pub(super) async fn largest(peer: &Peer) -> Kept {
    let user = peer.user();
    let others = (1..MOST_ASKED).map(|_| peer.stranger());
    let asked: Vec<UserId> = others.chain([user.clone()]).collect();
    let named = peer.heartbeat(&asked).await?;
    if named.contains(user.as_str()) {
        Ok(())
    } else {
        Err(format!("{user}, the last of {}, is left out", asked.len()))
    }
}

/// Fields that a later Bellhop might add.
pub(super) async fn unknown_fields(peer: &Peer) -> Kept {
    let user = peer.user();
    let body =
        json!({ "users": [user], "asked_by": { "member": "bellhop-conformance" }, "version": 2 });
    let answer = peer
        .ask_in_time(Ask::Heartbeat, body.to_string().into())
        .await?;
    let HeartbeatAnswer::<String> { connected } = answer.read()?;
    if connected.contains(&user.to_string()) {
        Ok(())
    } else {
        Err(format!("{user} is left out"))
    }
}
