//! Pauses that grow while something goes on failing.

use std::time::Duration;

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(500);
/// The longest one: what fails, such as a request that is not permitted, may last, and so may an
/// outage that others wait for.
const LONGEST: Duration = Duration::from_secs(10);

/// The next pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Pause {
    /// Waits, and doubles the next pause. Up to a quarter more or less by chance keeps members that
    /// lost the same server apart.
    pub(super) async fn wait(&mut self) {
        let pause = self.0.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(LONGEST);
        tokio::time::sleep(pause).await;
    }

    /// Begins with the shortest pause again, after a success.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
