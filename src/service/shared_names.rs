//! Finds app servers that run under one name. Each of them answers the same heartbeat, and only the
//! first answer counts.
//!
//! Now and then the request batcher also listens for later answers to a heartbeat, and reports how
//! many came. App servers need nothing for this. Copies that share their subscription (a queue
//! group) are not found, since one of them answers each request.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::metrics::Metrics;
use crate::router::Instance;
use crate::token::InstanceName;
use crate::wire::member::MAX_SHARED_NAMES;

/// The length of a round, in which the later answers of each instance are counted once. The names
/// are to be found within a minute.
const ROUND: Duration = Duration::from_secs(20);
/// The time for which a name is reported after several answered under it. Without routes no
/// heartbeat is sent, so there may be no later count.
const KEEP: Duration = Duration::from_secs(600);
/// Reports that wait for the task. What does not fit is reported again in the next round.
const QUEUE: usize = 64;

/// The instances whose later answers were counted in this round.
#[derive(Debug)]
pub struct Turns {
    began: Instant,
    had: HashSet<Arc<Instance>>,
}

impl Turns {
    /// Begins the first round.
    pub fn new(now: Instant) -> Self {
        let had = HashSet::new();
        Self { began: now, had }
    }

    /// Returns whether it is the instance's turn, and notes that it has had it.
    pub fn take(&mut self, instance: &Arc<Instance>, now: Instant) -> bool {
        if now - self.began >= ROUND {
            *self = Self::new(now);
        }
        self.had.insert(instance.clone())
    }
}

/// The names that were found, and where answers are reported. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedNames {
    reports: mpsc::Sender<(InstanceName, usize)>,
    found: watch::Receiver<Vec<InstanceName>>,
}

impl SharedNames {
    /// Starts the task that keeps what was found. It ends with the last handle.
    pub fn start(metrics: Metrics) -> Self {
        let (reports, reported) = mpsc::channel(QUEUE);
        let (finding, found) = watch::channel(Vec::new());
        tokio::spawn(keep(reported, finding, metrics));
        Self { reports, found }
    }

    /// Reports how many answered one heartbeat of an instance.
    pub fn report(&self, instance: &Instance, answers: usize) {
        let _ = self.reports.try_send((instance.name.clone(), answers));
    }

    /// Returns the names under which several app servers answer, up to [`MAX_SHARED_NAMES`] of
    /// them.
    pub fn found(&self) -> Vec<InstanceName> {
        self.found.borrow().clone()
    }
}

async fn keep(
    mut reported: mpsc::Receiver<(InstanceName, usize)>,
    finding: watch::Sender<Vec<InstanceName>>,
    metrics: Metrics,
) {
    let mut found: BTreeMap<InstanceName, Instant> = BTreeMap::new();
    let mut tick = tokio::time::interval(KEEP / 10);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            report = reported.recv() => match report {
                None => return,
                Some((name, 0 | 1)) => drop(found.remove(&name)),
                Some((name, answers)) => {
                    if !found.contains_key(&name) {
                        tracing::warn!(
                            instance = %name,
                            answers,
                            "several app servers answer under one name, and only the first answer counts: \
                             give each app server a name of its own"
                        );
                    }
                    found.insert(name, Instant::now());
                }
            },
            _ = tick.tick() => found.retain(|_, at| at.elapsed() < KEEP),
        }
        metrics.shared_names(found.len());
        finding.send_replace(found.keys().take(MAX_SHARED_NAMES).cloned().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // Some instant is needed to count from.
    fn each_instance_has_one_turn_in_a_round() {
        let instance = |name: &str| {
            Arc::new(Instance {
                name: name.parse().unwrap(),
                subject: format!("bellhop.app.{name}"),
            })
        };
        let now = Instant::now();
        let mut turns = Turns::new(now);
        let (one, two) = (instance("app-1"), instance("app-2"));
        assert!(turns.take(&one, now));
        assert!(turns.take(&two, now + ROUND / 2));
        assert!(!turns.take(&one, now + ROUND / 2));
        assert!(turns.take(&one, now + ROUND));
        assert!(turns.take(&two, now + ROUND));
    }
}
