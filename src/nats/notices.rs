//! Notices of a nats-server that is about to stop (lame duck mode).

use tokio::sync::watch;

/// Counts the notices that came over a connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Notices(watch::Sender<u64>);

impl Notices {
    /// Takes in a notice.
    pub(super) fn note(&self) {
        self.0.send_modify(|notices| *notices += 1);
    }

    /// Waits for the next notice after this call.
    pub fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut notices = self.0.subscribe();
        async move {
            if notices.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }
}
