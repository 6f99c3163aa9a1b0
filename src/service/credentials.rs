//! Watches over this member's credentials: warns before a JWT ends, and says while the server does
//! not let it in.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::links::Links;
use super::now_ms;
use crate::http::{Readiness, Refused};
use crate::metrics::Metrics;
use crate::nats::access::{Validity, ends_soon};

/// Interval at which the file is read. It is small, and on this machine.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches until the task is aborted.
pub(super) async fn run(links: Links, metrics: Metrics, readiness: watch::Sender<Readiness>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned_of = None;
    loop {
        tick.tick().await;
        let connections: Vec<_> = links
            .all()
            .into_iter()
            .map(|(_, link)| link.current().access)
            .collect();
        // All connections have the same credentials.
        let validity = match connections.first() {
            Some(access) => access.validity().await,
            None => None,
        };
        let is_refused = connections.iter().any(|access| access.is_refused());
        let refused = is_refused.then(|| why(validity, now_ms()));
        readiness.send_if_modified(|readiness| {
            std::mem::replace(&mut readiness.refused, refused) != refused
        });
        metrics.credentials_end(validity.map(|validity| validity.expires));
        if let Some(validity) = validity
            && ends_soon(&validity, now_ms())
            && warned_of.replace(validity.expires) != Some(validity.expires)
        {
            tracing::warn!(
                expires = %validity.expires,
                "the JWT in the file of nats.creds expires soon; replace the file, it is read at each connection"
            );
        }
    }
}

fn why(validity: Option<Validity>, now: Timestamp) -> Refused {
    match validity {
        Some(Validity { expires, .. }) if expires <= now => Refused::Expired(expires),
        _ => Refused::Unknown,
    }
}
