//! CloudEvents on `bellhop.sets.<source>`, as any SDK of theirs publishes them.

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{World, reminder, with};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers<'h>(pairs: impl IntoIterator<Item = (&'h str, &'h str)>) -> HeaderMap {
    pairs
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

/// The headers of an event of billing, in binary mode.
fn binary(id: &str) -> HeaderMap {
    headers([
        ("ce-specversion", "1.0"),
        ("Ce-Source", "/billing"),
        ("ce-type", "reminders"),
        ("CE-ID", id),
    ])
}

fn structured() -> HeaderMap {
    headers([(
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    )])
}

fn event(id: &str, data: Value) -> String {
    json!({ "specversion": "1.0", "id": id, "source": "/billing", "type": "reminders", "data": data, "more": 1 })
        .to_string()
}

fn unnamed(content: &str) -> Value {
    json!({ "user": "alice", "content": content })
}

#[tokio::test]
async fn both_modes_carry_sets_and_single_reminders() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let set = json!({ "reminders": [unnamed("one"), unnamed("two")] });
    world
        .publish_bytes("billing", set.to_string().as_bytes(), binary("10%25"))
        .await;
    world
        .publish_bytes(
            "billing",
            unnamed("three").to_string().as_bytes(),
            binary("11"),
        )
        .await;
    let named = json!({ "id": "own", "reminders": [unnamed("four"), reminder("named", "alice")] });
    world
        .publish_bytes("billing", event("12", named).as_bytes(), structured())
        .await;
    let traced = with(
        serde_json::from_str(&event("13", unnamed("five"))).unwrap(),
        json!({ "traceparent": TRACE }),
    );
    world
        .publish_bytes("billing", traced.to_string().as_bytes(), structured())
        .await;

    let ids = [
        "/billing 10%25#0",
        "/billing 10%25#1",
        "/billing 11#0",
        "own#0",
        "named",
        "/billing 13#0",
    ];
    world.taken(&ids).await;
    assert_eq!(world.order("alice"), ids);
    let last = world.became("billing", "/billing 13#0", "delivered").await;
    assert_eq!(last.set, "/billing 13");
    let trace = app
        .requests()
        .iter()
        .find_map(|request| request.header("traceparent").map(ToOwned::to_owned));
    assert_eq!(trace.unwrap()[3..35], TRACE[3..35]);
}

/// As Go's SDK sends them: a whole event without headers, and attributes that are not encoded.
#[tokio::test]
async fn events_of_gos_sdk_are_delivered() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    for _ in 0..2 {
        world
            .publish_bytes(
                "billing",
                event("1", unnamed("bare")).as_bytes(),
                HeaderMap::new(),
            )
            .await;
    }
    for id in ["50%25", "50%", "a b", "a%20b"] {
        let body = unnamed(id).to_string();
        world
            .publish_bytes("billing", body.as_bytes(), binary(id))
            .await;
    }
    let mut spaced = binary("2");
    spaced.insert("Ce-Source", "/invoices/May%202026");
    world
        .publish_bytes("billing", unnamed("source").to_string().as_bytes(), spaced)
        .await;
    let ids = [
        "/billing 1#0",
        "/billing 50%25#0",
        "/billing 50%#0",
        "/billing \"a b\"#0",
        "/billing a b#0",
        "/invoices/May%202026 2#0",
    ];
    world.taken(&ids).await;
    assert_eq!(world.order("alice"), ids);
}

#[tokio::test]
async fn repeated_event_has_the_same_reminders() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    for content in ["once", "once more"] {
        world
            .publish_bytes(
                "billing",
                unnamed(content).to_string().as_bytes(),
                binary("1"),
            )
            .await;
        world
            .publish_bytes(
                "billing",
                event("2", unnamed(content)).as_bytes(),
                structured(),
            )
            .await;
    }
    world.publish("billing", [reminder("end", "alice")]).await;
    world.taken(&["end"]).await;
    assert_eq!(
        world.order("alice"),
        ["/billing 1#0", "/billing 2#0", "end"]
    );
}

#[tokio::test]
async fn refused_event_returns_when_fixed() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let mut traced = binary("1");
    traced.insert("traceparent", TRACE);
    traced.insert("Nats-Msg-Id", "once");
    world
        .publish_bytes("billing", b"{\"reminders\": [] }", traced)
        .await;
    let older = headers([
        ("ce-specversion", "0.3"),
        ("ce-source", "/b"),
        ("ce-type", "t"),
        ("ce-id", "2"),
    ]);
    world
        .publish_bytes(
            "billing",
            reminder("older", "alice").to_string().as_bytes(),
            older,
        )
        .await;
    world
        .publish_bytes(
            "billing",
            br#"{"specversion":"1.0","data":{}}"#,
            structured(),
        )
        .await;
    let refused = world.all_rejected(3).await;
    let codes: Vec<_> = refused.iter().map(|message| message.code()).collect();
    assert_eq!(
        codes,
        ["no_reminders", "invalid_cloud_event", "invalid_cloud_event"]
    );
    assert_eq!(refused[0].payload, "{\"reminders\": [] }");
    let header = |at: usize, name: &str| {
        refused[at]
            .headers
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    assert_eq!(header(0, "CE-ID").as_deref(), Some("1"));
    assert_eq!(
        (
            header(0, "traceparent").as_deref(),
            header(1, "ce-specversion").as_deref()
        ),
        (Some(TRACE), Some("0.3"))
    );
    assert!(
        header(2, "content-type").is_some()
            && header(0, "Nats-Msg-Id").is_none_or(|id| id != "once")
    );

    // As they are, all three would be refused again, and are so if an operator insists.
    for sequence in ["1", "2", "3"] {
        assert_eq!(
            world.run(&["rejected", "requeue", sequence]).await.code,
            Some(1)
        );
    }
    world
        .run(&["rejected", "requeue", "1", "--force"])
        .await
        .succeeded();
    let again = world.all_rejected(4).await;
    assert_eq!(
        again[3].headers.get("CE-ID").map(|value| value.as_str()),
        Some("1"),
        "{:?}",
        again[3].headers
    );

    let fixed = world.dir().join("fixed.json");
    let path = fixed.to_str().unwrap();
    for (sequence, body) in [
        ("4", json!({ "reminders": [unnamed("fixed")] }).to_string()),
        ("2", reminder("older", "alice").to_string()),
        ("3", event("3", unnamed("structured"))),
    ] {
        std::fs::write(&fixed, body).unwrap();
        world
            .run(&["rejected", "requeue", sequence, "--body", path])
            .await
            .succeeded();
    }
    // The data was wrong and is an event's still; the attributes were, and their set has no name;
    // and a whole event.
    world
        .taken(&["/billing 1#0", "older", "/billing 3#0"])
        .await;
    let traces: Vec<_> = app
        .requests()
        .iter()
        .filter_map(|request| request.header("traceparent").map(ToOwned::to_owned))
        .collect();
    assert!(
        traces.iter().any(|trace| trace[3..35] == TRACE[3..35]),
        "{traces:?}"
    );
    assert_eq!(
        world
            .run(&["rejected", "ls", "--json"])
            .await
            .succeeded()
            .trim(),
        "[]"
    );
}

/// "Its data is a set, or one reminder": whatever a set may say counts.
#[tokio::test]
async fn every_field_of_an_events_set_counts() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let hour = || crate::harness::from_now(jiff::SignedDuration::from_hours(1));
    let later = |id: &str| with(reminder(id, "alice"), json!({ "deliver_at": hour() }));
    world
        .publish(
            "billing",
            [later("alone"), later("beside"), later("structured")],
        )
        .await;
    let send = async |id: &str, data: Value| {
        world
            .publish_bytes("billing", data.to_string().as_bytes(), binary(id))
            .await;
    };
    send("1", json!({ "cancel": ["alone"] })).await;
    send(
        "2",
        json!({ "id": null, "cancel": ["beside"], "reminders": [reminder("now", "alice")] }),
    )
    .await;
    send(
        "3",
        json!({ "deliver_at": hour(), "reminders": [reminder("of its set", "alice")] }),
    )
    .await;
    let cancel = event("4", json!({ "cancel": ["structured"] }));
    world
        .publish_bytes("billing", cancel.as_bytes(), structured())
        .await;
    world
        .all_became("billing", &["alone", "beside", "structured"], "cancelled")
        .await;
    world.taken(&["now"]).await;
    assert_eq!(world.first("now").reminder["set"], "/billing 2");
    let listed = world.run(&["scheduled", "ls", "--json"]).await.succeeded();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (listed[0]["id"].as_str(), listed.as_array().unwrap().len()),
        (Some("of its set"), 1)
    );
    assert!(world.all_rejected(0).await.is_empty());
}
