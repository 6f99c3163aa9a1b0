//! The most messages that a nats-server lets one pull ask for (`max_request_batch`). It says so
//! when it refuses one.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::chain;

/// The known limit of pulls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PullLimit(Arc<AtomicUsize>);

impl Default for PullLimit {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl PullLimit {
    /// Returns how many messages a pull may ask for, where `wanted` would be right.
    pub(super) fn at_most(&self, wanted: usize) -> usize {
        wanted.min(self.0.load(Ordering::Relaxed)).max(1)
    }

    /// Takes in why a pull failed. Returns whether the server named its limit, so that the next
    /// pull can keep to it.
    pub(super) fn learn(&self, error: &(dyn Error + 'static)) -> bool {
        let Some(limit) = read(&chain(error).to_string()) else {
            return false;
        };
        tracing::info!(limit, "nats-server limits the messages of a pull");
        self.0.store(limit, Ordering::Relaxed);
        true
    }
}

fn read(error: &str) -> Option<usize> {
    let (_, limit) = error.split_once("MaxRequestBatch of ")?;
    let end = limit.find(|c: char| !c.is_ascii_digit());
    limit[..end.unwrap_or(limit.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_read_from_the_refusal() {
        let refusal = r#"error while processing: 409, Some("Exceeded MaxRequestBatch of 500")"#;
        assert_eq!(read(refusal), Some(500));
        assert_eq!(read("Exceeded MaxRequestBatch of"), None);
        let limit = PullLimit::default();
        assert_eq!(limit.at_most(1_000), 1_000);
        assert!(limit.learn(&std::io::Error::other(refusal)));
        assert_eq!((limit.at_most(1_000), limit.at_most(1)), (500, 1));
    }
}
