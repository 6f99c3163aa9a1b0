//! A member whose wall clock steps, by libfaketime; its monotonic clock goes on as it should.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::memory;
use crate::world::{World, names};

/// By how much, in seconds.
const STEP_S: i64 = 3_600;
/// From one step to the next.
const LASTS: Duration = Duration::from_secs(2);
/// The library, below a directory of `/usr/lib`.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock that can be set: a file that says how far it is ahead.
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(TempDir::with_prefix("bellhop-clock-").unwrap());
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("ahead")
    }

    /// Sets it this many seconds ahead.
    fn set(&self, seconds: i64) {
        let next = self.0.path().join("next");
        fs::write(&next, format!("{seconds:+}")).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    /// The words that start a program with this clock.
    fn behind(&self, library: &Path) -> Vec<String> {
        let variables = [
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file().display()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        ];
        ["env".to_owned()].into_iter().chain(variables).collect()
    }
}

fn library() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    directories
        .map(|directory| directory.join(LIBRARY))
        .find(|path| path.exists())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(has_faketime),
    ignore = "no libfaketime here: apt-get install libfaketime"
)]
async fn stepping_clock_loses_and_delays_nothing() {
    let library = library().expect("libfaketime is there: apt-get install libfaketime");
    let clock = Clock::new();
    let mut world = World::start(&[], &clock.behind(&library)).await;
    let mut abuses = Vec::new();
    for (n, ahead) in [STEP_S, 0, -STEP_S, 0].into_iter().enumerate() {
        // Some wait while it steps, and return after that.
        let users = names(&format!("sleeper-{n}"), 50);
        world
            .publish_all(["a", "b", "c", "d"][n], vec![users.clone(); 4])
            .await;
        world.has_parked(4 * users.len()).await;
        let abuse = world
            .abuse(async |world| {
                clock.set(ahead);
                tokio::time::sleep(LASTS / 2).await;
                world.app.connect(users);
                world.has_parked(0).await;
                tokio::time::sleep(LASTS / 2).await;
            })
            .await;
        abuses.push((format!("the clock is {ahead:+} s ahead"), abuse));
        world.quiet().await;
    }
    let (history, verdict) = world.judge(abuses, memory::bound(200)).await;
    assert!(verdict.wrong.is_empty(), "{verdict}");
    // The times of outcomes show that it stepped at all.
    let decided = || {
        history
            .outcomes
            .iter()
            .map(|outcome| outcome.decided_at.as_second())
    };
    let span_s = decided().max().unwrap() - decided().min().unwrap();
    assert!(
        span_s > 2 * STEP_S - 60,
        "the clock did not step: all was decided within {span_s} s"
    );
}
