//! A source that floods.

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
            world
                .within("the flood is through", async |world| {
                    world.is_through().await
                })
                .await;
            // Where the machine is so busy that answers are late, some take the way through the mailbox.
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

impl World {
    /// Whether hardly anything is under way. The others' reminders always are.
    async fn is_through(&self) -> Result<(), String> {
        const FEW: u64 = 3;
        for stream in ["BELLHOP_LOG"] {
            match self.installation.messages(stream).await? {
                0..=FEW => {}
                left => return Err(format!("{left} messages in {stream}")),
            }
        }
        Ok(())
    }
}
