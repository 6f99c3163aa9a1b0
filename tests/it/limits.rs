//! Limits that a server or an account sets to what Bellhop may have.

use crate::harness::{LATER, World, numbers, reminder};

#[tokio::test]
async fn servers_limits_are_kept_to() {
    let limits = "jetstream { max_file_store: 10GB, limits { max_ack_pending: 2000, max_request_batch: 50 } }";
    let world = World::without_members(limits, &[]).await;
    world.serve().await;
    let ids = numbers(0..300);
    for ids in ids.chunks(100) {
        let set: Vec<_> = ids.iter().map(|id| reminder(id, "alice")).collect();
        world.publish("billing", set).await;
    }
    world.all_became("billing", &ids, "parked").await;
    world.kill_and_revive().await;
    world.app("app-1", &["alice"]).await;
    world.taken_within(LATER, &ids).await;
    let again = world.run(&["setup"]).await.succeeded();
    assert!(again.contains("everything is set up already"), "{again}");
}

/// Accounts in which a test works without a password.
fn account(limits: &str) -> String {
    format!(
        "accounts {{ HOME {{ jetstream {{ {limits} }}, users: [ {{ user: test, password: unused }} ] }} }}\n\
         no_auth_user: test"
    )
}

#[tokio::test]
async fn setup_foresees_the_accounts_limits() {
    for (limits, expected) in [
        ("max_file: 1GB, max_streams: 5", "they permit 5 streams"),
        ("max_file: 1GB, max_consumers: 1", "they permit 1 consumers"),
    ] {
        let world = World::without_members(&account(limits), &[]).await;
        let dry = world.run(&["setup", "--dry-run"]).await;
        assert!(
            dry.code == Some(1) && dry.stderr.contains(expected),
            "{limits}: {dry:?}"
        );
        let streams = world.jetstream.query_account().await.unwrap().streams;
        assert_eq!(streams, 0, "nothing is made");
    }
}

#[tokio::test]
async fn required_limits_are_set_on_every_stream() {
    let limits = "max_file: 8GB, max_bytes_required: true";
    let world = World::without_members(&account(limits), &[]).await;
    world.serve().await;
    let scheduled = world.stream("BELLHOP_SCHEDULED").await;
    assert!(scheduled.config.max_bytes > 0, "{scheduled:?}");
    let again = world.run(&["setup"]).await.succeeded();
    assert!(again.contains("everything is set up already"), "{again}");
}
