//! The identity of this connection for the server, its permissions, and the server's time. Any user
//! may ask, unless it was denied.

use std::time::{Duration, Instant};

use async_nats::Request;
use jiff::Timestamp;
use serde::Deserialize;

use crate::nats::{Nats, NatsError};

/// The identity of a connection for the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Identity {
    /// The user's name; empty if none is required.
    #[serde(default)]
    pub(in crate::cli) user: String,
    /// The account's.
    #[serde(default)]
    pub(in crate::cli) account: String,
    /// The user's permissions, if they are restricted.
    #[serde(default)]
    pub(in crate::cli) permissions: Option<Permissions>,
}

/// The permissions of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Permissions {
    /// Subjects to publish on.
    #[serde(default)]
    pub(in crate::cli) publish: Option<Allowed>,
    /// Subjects to subscribe to.
    #[serde(default)]
    pub(in crate::cli) subscribe: Option<Allowed>,
    /// Its permission to answer any request.
    #[serde(default)]
    pub(in crate::cli) responses: Option<serde_json::Value>,
}

/// Subjects of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Allowed {
    /// Those that are allowed; none says all.
    #[serde(default)]
    pub(in crate::cli) allow: Vec<String>,
    /// Those that are not, whatever is allowed.
    #[serde(default)]
    pub(in crate::cli) deny: Vec<String>,
}

/// The server's answer, and when it came.
pub(super) struct Clock {
    pub(super) at: Timestamp,
    pub(super) server_time: Timestamp,
    pub(super) round_trip: Duration,
    pub(super) identity: Option<Identity>,
}

/// A server answers this without looking anything up. A user who must not ask gets no answer at
/// all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the server; where this user must not, JetStream tells the time.
pub(super) async fn ask(nats: &Nats) -> Result<Clock, NatsError> {
    #[derive(Deserialize)]
    struct Answer {
        server: Server,
        data: Identity,
    }
    #[derive(Deserialize)]
    struct Server {
        time: Timestamp,
    }
    let began = Instant::now();
    let request = Request::new().timeout(Some(PATIENCE));
    if let Ok(answer) = nats
        .client
        .send_request("$SYS.REQ.USER.INFO", request)
        .await
        && let Ok(Answer { server, data }) = serde_json::from_slice(&answer.payload)
    {
        return Ok(clock(began.elapsed(), server.time, Some(data)));
    }
    let began = Instant::now();
    let server_time = nats.server_time().await?;
    Ok(clock(began.elapsed(), server_time, None))
}

/// The server spoke half a round trip ago.
fn clock(round_trip: Duration, server_time: Timestamp, identity: Option<Identity>) -> Clock {
    Clock {
        at: Timestamp::now() - round_trip / 2,
        server_time,
        round_trip,
        identity,
    }
}
