//! Buckets as members watch them: read to their end at the start, and followed from then on.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use crate::harness::{LATER, Proxy, World, reminder};

#[tokio::test]
async fn a_bucket_whose_last_key_goes_is_loaded() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    world
        .put_associates("alice", json!({ "associates": ["bob"] }))
        .await;
    let proxy = Proxy::before(&world).await;
    let hold = proxy.hold_at("CONSUMER.CREATE.KV_bellhop_associates");
    let member = world.launch_at(&proxy.url, "member-1");
    tokio::time::timeout(LATER, hold.reached())
        .await
        .expect("the bucket is watched");
    let is_named = async || {
        let probed = member.probe("GET", "/readyz").await?;
        let names_it = probed
            .body
            .contains("[!] the bucket of associates is being read");
        if probed.status == 503 && names_it {
            Ok(())
        } else {
            Err(format!("{probed:?}"))
        }
    };
    world.eventually("the bucket is named", is_named).await;
    world
        .jetstream
        .get_stream("KV_bellhop_associates")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    hold.release();
    world
        .within(LATER, "it is ready", async || member.is_ready().await)
        .await;
}

#[tokio::test]
async fn a_bucket_that_was_made_again_is_followed() {
    let world = World::start(&[]).await;
    let app = world
        .app("app-1", &["alice", "carol", "dora", "emil"])
        .await;
    world
        .publish("billing", [reminder("before", "alice")])
        .await;
    world.taken(&["before"]).await;
    world
        .jetstream
        .delete_stream("KV_bellhop_routes")
        .await
        .unwrap();
    world.run(&["setup"]).await.succeeded();
    app.connect(&["bob"]).await;
    world.publish("billing", [reminder("behind", "bob")]).await;
    world.became("billing", "behind", "delivered").await;
    assert_eq!(world.first("behind").user(), "bob");
}

/// Each member would ask all day long otherwise, for nothing.
#[tokio::test]
async fn watches_of_quiet_buckets_ask_nothing() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("one", "alice")]).await;
    world.taken(&["one"]).await;
    let mut asked = world.client.subscribe("$JS.API.>").await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut of_buckets = Vec::new();
    while let Ok(Some(request)) = tokio::time::timeout_at(until, asked.next()).await {
        // Positions are not watched: figures ask for them, and what removes the front of the log.
        let is_of_watch = !request.subject.contains("KV_bellhop_members")
            && !request.subject.contains("DIRECT.GET.KV_bellhop_positions")
            && !request.subject.contains("STREAM.INFO");
        if request.subject.contains("KV_") && is_of_watch {
            of_buckets.push(request.subject);
        }
    }
    assert!(of_buckets.is_empty(), "{of_buckets:?}");
}
