//! Business systems: each publishes one set after the other, and writes down which of them
//! JetStream acknowledged.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use fastrand::Rng;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::logs::{Log, Published};

/// Time for which a careful one retries after it was stopped.
const LAST_TRIES: Duration = Duration::from_secs(30);

/// A business system and its habits.
pub(crate) struct Publisher {
    pub(crate) source: &'static str,
    /// Tries again under the same message id until the set is acknowledged. Else it tries once, and
    /// does not look back.
    pub(crate) is_careful: bool,
    /// From one set to the next, if JetStream is quick enough.
    pub(crate) every: Duration,
    /// Bytes of a content beside what names it.
    pub(crate) padding: usize,
    pub(crate) jetstream: Context,
    pub(crate) log: Log,
}

impl Publisher {
    /// Publishes to users whom `addressees` chooses for each set, until it is stopped.
    pub(crate) async fn run(
        self,
        mut addressees: impl FnMut() -> Vec<String>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for set in 0.. {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let name = |(n, user)| (format!("{}-{set}-{n}", self.source), user);
            let reminders: Vec<(String, String)> =
                addressees().into_iter().enumerate().map(name).collect();
            self.log.tell([Published::Sent {
                set,
                reminders: reminders.clone(),
            }]);
            let is_stored = self.publish(set, &reminders, &stop).await;
            self.log.tell([if is_stored {
                Published::Acknowledged { set }
            } else {
                Published::GivenUp { set }
            }]);
        }
    }

    async fn publish(
        &self,
        set: u64,
        reminders: &[(String, String)],
        stop: &CancellationToken,
    ) -> bool {
        let padding = "-".repeat(self.padding);
        let reminders = reminders.iter().map(
            |(id, user)| json!({ "id": id, "user": user, "content": format!("of {id}{padding}") }),
        );
        let body = json!({ "reminders": reminders.collect::<Vec<_>>() })
            .to_string()
            .into_bytes();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{}-{set}", self.source));
        let subject = format!("bellhop.sets.{}", self.source);
        let mut deadline = None;
        loop {
            if client::store(&self.jetstream, &subject, headers.clone(), body.clone()).await {
                return true;
            }
            if stop.is_cancelled() {
                deadline.get_or_insert_with(|| Instant::now() + LAST_TRIES);
            }
            if !self.is_careful || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Chooses this many users of a crowd for a set, now and then one who is away.
pub(crate) fn some_of(
    mut rng: Rng,
    crowd: Vec<String>,
    away: Vec<String>,
    count: usize,
) -> impl FnMut() -> Vec<String> {
    const AWAY_ONE_IN: u32 = 50;
    move || {
        let mut choose = |_| {
            let among = if rng.u32(0..AWAY_ONE_IN) == 0 {
                &away
            } else {
                &crowd
            };
            among[rng.usize(0..among.len())].clone()
        };
        (0..count).map(&mut choose).collect()
    }
}
