//! Rules about a user who leaves while this is running: the operator disconnects the user when
//! asked to.

use std::time::{Duration, Instant};

use bellhop_protocol::token::UserId;

use super::peer::{Kept, Peer};

/// Time for the operator to disconnect the user.
const NOTICE: Duration = Duration::from_secs(60);
/// Maximum time for the app server's other reactions, when one has shown that the user has left.
const REST: Duration = Duration::from_secs(5);
/// Interval between two checks.
const PAUSE: Duration = Duration::from_millis(100);

/// The route is deleted.
pub(super) async fn route(peer: &Peer) -> Kept {
    let user = peer.leaver()?;
    let has_left = async || Ok(!peer.has_route(user).await? || !is_named(peer, user).await?);
    within(NOTICE, "the user was not disconnected", has_left).await?;
    within(REST, "the user's route is still there", async || {
        Ok(!peer.has_route(user).await?)
    })
    .await
}

/// Heartbeats leave the user out.
pub(super) async fn heartbeat(peer: &Peer) -> Kept {
    let user = peer.leaver()?;
    within(REST, "heartbeats still name the user", async || {
        Ok(!is_named(peer, user).await?)
    })
    .await
}

/// Checks that reminders for the user are refused.
pub(super) async fn delivery(peer: &Peer) -> Kept {
    let sample = peer.sample(peer.leaver()?);
    let refused = peer.deliver(std::slice::from_ref(&sample)).await?;
    if sample.is_among(&refused) {
        Ok(())
    } else {
        Err(format!(
            "it accepted {}, which is for {}",
            sample.id, sample.user
        ))
    }
}

async fn is_named(peer: &Peer, user: &UserId) -> Result<bool, String> {
    peer.heartbeat(std::slice::from_ref(user))
        .await
        .map(|named| named.contains(user.as_str()))
}

/// Waits for a condition.
async fn within(
    time: Duration,
    otherwise: &str,
    mut holds: impl AsyncFnMut() -> Result<bool, String>,
) -> Kept {
    let began = Instant::now();
    while !holds().await? {
        if began.elapsed() > time {
            return Err(format!("after {time:?} {otherwise}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
