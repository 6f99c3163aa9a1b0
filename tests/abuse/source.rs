//! A source that floods.

use bellhop::config::Config;

use crate::memory;
use crate::size;
use crate::world::{World, names};

/// Reminders in one set, each for another user.
const SET: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_floods_slows_no_other_source() {
    let sets = size() / SET;
    let mut world = World::start(&[], &[]).await;
    world.app.connect(names("user", SET));
    world.quiet().await;
    let flood = world
        .abuse(async |world| {
            let sent = world
                .publish_all("flood", vec![names("user", SET); sets])
                .await;
            sent.cancelled().await;
            let (_, last) = world.log_range().await.expect("JetStream answers");
            world.has_passed(last).await;
            // Where the machine is so busy that answers are late, some take the way through the
            // mailbox.
            world.has_parked(0).await;
        })
        .await;
    world.quiet().await;
    let abuses = vec![(
        format!("a source publishes {sets} sets of {SET} at once"),
        flood,
    )];
    let (_, verdict) = world.judge(abuses, memory::bound(SET)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
}

/// A small set can become much in memory: each of its reminders is refused on its own, or known as
/// a mistake of the whole set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_of_empty_reminders_take_little_memory() {
    const REMINDERS: usize = 10_000;
    const BOUND: usize = 150 << 20;
    let mut world = World::start(&[], &[]).await;
    let set = format!(r#"{{"reminders":[{}{{}}]}}"#, "{},".repeat(REMINDERS - 1));
    let sets = Config::default().intake.max_bytes_in_flight / set.len();
    let abuse = world
        .abuse(async |world| {
            let all = vec![("bellhop.sets.empty".to_owned(), set); sets];
            world.store_all(all).await;
            let (_, last) = world.log_range().await.expect("JetStream answers");
            world.has_passed(last).await;
        })
        .await;
    let growth = world.growth(&abuse);
    eprintln!(
        "{sets} sets of {REMINDERS} empty reminders: {} MiB",
        growth >> 20
    );
    assert!(growth <= BOUND, "{growth} bytes");
    // Others wait behind them: the log is read in its order.
    let (_, verdict) = world.judge(Vec::new(), BOUND).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
}

impl World {
    /// Waits until everything up to this sequence of the log is settled. The others' sets follow
    /// all the time.
    async fn has_passed(&self, last: u64) {
        self.within("the flood is through", async |world| {
            match world.log_range().await? {
                (first, _) if first > last => Ok(()),
                (first, _) => Err(format!("the log begins at {first}, before {last}")),
            }
        })
        .await;
    }

    /// Returns the first and the last sequence of the log.
    async fn log_range(&self) -> Result<(u64, u64), String> {
        let log = self.installation.jetstream.get_stream("BELLHOP_LOG").await;
        let log = log.map_err(|error| error.to_string())?;
        let state = &log.cached_info().state;
        Ok((state.first_sequence, state.last_sequence))
    }
}
