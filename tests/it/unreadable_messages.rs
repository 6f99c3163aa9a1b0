//! A message that the client library cannot read: it is set aside, or passed by, and stops nothing
//! else.
//!
//! Messages that end the library's connection are not written down here. A proxy cuts the
//! connection instead, each time that nats-server hands a chosen message out.

use async_nats::HeaderMap;
use serde_json::json;

use crate::harness::{LATER, Proxy, Reply, World, from_now, reminder};

const MARKER: &str = "the-connection-is-cut-here";

async fn with_proxy(settings: &[(&str, &str)]) -> (World, Proxy) {
    let world = World::without_members("", settings).await;
    let proxy = Proxy::before(&world).await;
    proxy.cut_at(MARKER);
    (world, proxy)
}

#[tokio::test]
async fn an_unreadable_set_is_rejected_and_others_arrive() {
    let (world, proxy) = with_proxy(&[]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["alice"]).await;
    let marked = json!({ "reminders": [{ "id": "marked", "user": "alice", "content": MARKER }] })
        .to_string();
    world.publish("claims", [reminder("before", "alice")]).await;
    world
        .publish_bytes("billing", marked.as_bytes(), HeaderMap::new())
        .await;
    world.publish("claims", [reminder("behind", "alice")]).await;

    world
        .all_became("claims", &["before", "behind"], "delivered")
        .await;
    let rejected = world.all_rejected(1).await;
    assert_eq!(rejected[0].code(), "unreadable_message");
    assert_eq!(rejected[0].subject, "bellhop.rejected.billing");
    assert_eq!(rejected[0].payload, marked.as_bytes());
    assert!(proxy.cuts() >= 2, "it was cut {} times", proxy.cuts());
}

#[tokio::test]
async fn a_restarted_member_gets_past_unreadable_sets() {
    let (world, proxy) = with_proxy(&[]).await;
    world.client.flush().await.unwrap();
    let set_up = world.run(&["setup"]).await;
    set_up.succeeded();
    for _ in 0..2 {
        let marked = json!({ "reminders": [{ "user": "alice", "content": MARKER }] }).to_string();
        world
            .publish_bytes("billing", marked.as_bytes(), HeaderMap::new())
            .await;
    }
    world.publish("claims", [reminder("behind", "alice")]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world.became("claims", "behind", "parked").await;
    world.member().kill();
    world.serve_at(&proxy.url, "member-2").await;
    world.publish("claims", [reminder("later", "alice")]).await;
    world.became("claims", "later", "parked").await;
    assert_eq!(world.all_rejected(2).await.len(), 2);
}

#[tokio::test]
async fn cut_connections_set_nothing_aside() {
    let (world, proxy) = with_proxy(&[]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["alice"]).await;
    let mut ids = Vec::new();
    for round in 0..6 {
        let of_round: Vec<String> = (0..40).map(|number| format!("{round}-{number}")).collect();
        for id in &of_round {
            world
                .publish_surely("claims", vec![reminder(id, "alice")])
                .await;
        }
        proxy.cut_all();
        ids.extend(of_round);
    }
    world.all_became("claims", &ids, "delivered").await;
    assert!(world.rejected.all().await.is_empty());
}

#[tokio::test]
async fn an_unreadable_route_holds_up_no_start() {
    let (world, proxy) = with_proxy(&[]).await;
    world.run(&["setup"]).await.succeeded();
    let bob = world.app("app-1", &["bob"]).await;
    let value = json!({ "subject": "bellhop.app.app-2", "since": MARKER }).to_string();
    let put = async || {
        let sent = world
            .jetstream
            .publish("$KV.bellhop_routes.carol.app-2", value.clone().into())
            .await;
        sent.unwrap().await.unwrap();
    };
    put().await;
    let alice = world.app("app-3", &["alice"]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world
        .publish("claims", [reminder("one", "alice"), reminder("two", "bob")])
        .await;
    world
        .all_became("claims", &["one", "two"], "delivered")
        .await;

    put().await;
    alice.connect(&["dora"]).await;
    world.publish("claims", [reminder("three", "dora")]).await;
    world.became("claims", "three", "delivered").await;
    assert!(proxy.cuts() >= 2, "it was cut {} times", proxy.cuts());
    drop(bob);
}

#[tokio::test]
async fn an_unreadable_query_stops_no_delivery() {
    let (world, proxy) = with_proxy(&[]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["alice"]).await;
    world.publish("claims", [reminder("one", "alice")]).await;
    world.became("claims", "one", "delivered").await;
    let taken_over = |log: &str| log.matches("taking over").count();
    let before = taken_over(&world.member().log());
    for number in 0..3 {
        let question = json!({ "user": MARKER }).to_string();
        world
            .client
            .publish_with_reply(
                "bellhop.api.mailbox",
                world.client.new_inbox(),
                question.into(),
            )
            .await
            .unwrap();
        let cut = async || {
            if proxy.cuts() > number {
                Ok(())
            } else {
                Err("it is not".to_owned())
            }
        };
        world.eventually("the connection is cut", cut).await;
        world
            .publish("claims", [reminder(format!("two-{number}"), "alice")])
            .await;
        world
            .became("claims", &format!("two-{number}"), "delivered")
            .await;
        let asked = async || {
            let question = json!({ "source": "claims", "id": "one" }).to_string();
            let answer = world
                .client
                .request("bellhop.api.why", question.into())
                .await
                .map_err(|e| e.to_string())?;
            if answer.payload.is_empty() {
                Err("no answer yet".to_owned())
            } else {
                Ok(())
            }
        };
        world.eventually("a query is answered", asked).await;
    }
    assert_eq!(
        taken_over(&world.member().log()),
        before,
        "no role is touched"
    );
}

#[tokio::test]
async fn an_unreadable_answer_stops_no_other_instance() {
    let (world, proxy) = with_proxy(&[]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["alice"]).await;
    let bad = world.app("app-2", &["bob"]).await;
    bad.on_heartbeat(|_| Reply::say(json!({ "connected": [], "note": MARKER }).to_string()));
    for number in 0..3 {
        let ids = [format!("alice-{number}"), format!("bob-{number}")];
        world
            .publish(
                "claims",
                [reminder(&ids[0], "alice"), reminder(&ids[1], "bob")],
            )
            .await;
        world.became("claims", &ids[0], "delivered").await;
        world.became("claims", &ids[1], "parked").await;
    }
    assert!(proxy.cuts() >= 1);
}

#[tokio::test]
async fn a_role_that_keeps_failing_is_not_ready() {
    let world = World::start(&[]).await;
    let stream = world
        .jetstream
        .get_stream("BELLHOP_SCHEDULED")
        .await
        .unwrap();
    stream.delete_consumer("due").await.unwrap();
    world
        .within(LATER, "it is not ready, and says why", async || {
            let probed = world.member().probe("GET", "/readyz").await?;
            let names_it = probed
                .body
                .contains("[-] roles not failing again and again");
            if probed.status == 503 && names_it {
                Ok(())
            } else {
                Err(format!("{probed:?}"))
            }
        })
        .await;
    assert_eq!(
        world.member().probe("GET", "/livez").await.unwrap().status,
        200
    );
    world.run(&["setup"]).await.succeeded();
    world
        .within(LATER, "it is ready again", async || {
            world.member().is_ready().await
        })
        .await;
}

#[tokio::test]
async fn rules_that_end_the_connection_apply() {
    let (world, proxy) = with_proxy(&[]).await;
    world.run(&["setup"]).await.succeeded();
    let document = json!({ "rules": [
        { "name": "r", "keywords": ["falcon"], "action": "replace", "with": "bird" },
        { "name": "cut", "keywords": [MARKER], "action": "remove" }] });
    let rules = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    rules
        .put("billing", document.to_string().into())
        .await
        .unwrap();
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["alice"]).await;
    let tagged =
        json!({ "id": "one", "user": "alice", "content": "the falcon", "tags": ["billing"] });
    world.publish("claims", [tagged]).await;
    world.became("claims", "one", "delivered").await;
    assert_eq!(world.first("one").reminder["content"], "the bird");
    let cuts = proxy.cuts();
    assert!(cuts >= 1);
    let doctor = world.run(&["doctor", "--nats", &proxy.url]).await;
    assert!(doctor.stdout.contains("1 document in use"), "{doctor:?}");
    assert_eq!(proxy.cuts(), cuts, "the doctor reads it as JSON");
}

#[tokio::test]
async fn associates_that_end_the_connection_are_read() {
    let (world, proxy) = with_proxy(&[]).await;
    world.run(&["setup"]).await.succeeded();
    world
        .put_associates("alice", json!({ "associates": [MARKER, "bob"] }))
        .await;
    world
        .put_associates("zoe", json!({ "associates": ["bob"] }))
        .await;
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["bob"]).await;
    world
        .publish("claims", [reminder("one", "alice"), reminder("two", "zoe")])
        .await;
    world
        .all_became("claims", &["one", "two"], "rerouted")
        .await;
    assert!(proxy.cuts() >= 1);
}

#[tokio::test]
async fn due_set_that_ends_connection_is_refused() {
    let (world, proxy) = with_proxy(&[]).await;
    world.serve_at(&proxy.url, "member-1").await;
    world.app("app-1", &["alice"]).await;
    let soon = |id: &str, content: &str| {
        let due = from_now(jiff::SignedDuration::from_millis(1_000));
        json!({ "id": id, "user": "alice", "content": content, "deliver_at": due })
    };
    world
        .publish_bytes(
            "billing",
            json!({ "reminders": [soon("cut", MARKER)] })
                .to_string()
                .as_bytes(),
            HeaderMap::new(),
        )
        .await;
    world.publish("claims", [soon("behind", "fine")]).await;
    world.became("claims", "behind", "delivered").await;
    let rejected = world.all_rejected(1).await;
    assert_eq!(rejected[0].code(), "unreadable_message");
    assert!(String::from_utf8_lossy(&rejected[0].payload).contains(MARKER));
}
