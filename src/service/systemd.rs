//! Notifications to systemd that this member is ready, or stops, if a unit of `Type=notify` started
//! it. So `systemctl restart` waits until the member works its share, and one after the other can
//! be restarted without a gap.

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::http::Readiness;
use crate::nats::chain;

/// Notifies systemd until the member has ended. Without systemd it does nothing.
pub async fn tell(mut readiness: watch::Receiver<Readiness>) {
    let mut was_ready = false;
    while readiness.changed().await.is_ok() {
        let now = *readiness.borrow_and_update();
        if now.is_stopping {
            return notify(NotifyState::Stopping);
        }
        // Later changes are the probes' to tell: for systemd, what has started has started.
        if now.is_ready() && !was_ready {
            was_ready = true;
            notify(NotifyState::Ready);
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %chain(&error), "failed to notify systemd");
    }
}
