//! A connection whose client may be replaced: the library's client can end for good over what it
//! reads.

use async_nats::Client;
use tokio::sync::watch;

use super::Nats;

/// A way to the client of now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link(watch::Receiver<Nats>);

impl Link {
    /// Makes one of this connection. The holder of the sender replaces the client; without it, it
    /// is the client for good.
    pub fn new(nats: Nats) -> (watch::Sender<Nats>, Self) {
        let (sender, current) = watch::channel(nats);
        (sender, Self(current))
    }

    /// Returns the connection as it is now. Its client may have ended.
    pub fn current(&self) -> Nats {
        self.0.borrow().clone()
    }

    /// Returns the client as it is now. It may have ended.
    pub fn client(&self) -> Client {
        self.0.borrow().client.clone()
    }

    /// Waits for a connection whose client has not ended.
    pub async fn live(&self) -> Nats {
        match self
            .0
            .clone()
            .wait_for(|nats| !nats.ended.is_cancelled())
            .await
        {
            Ok(nats) => nats.clone(),
            Err(_) => self.current(), // It is not replaced any more, so its user sees the error.
        }
    }
}
