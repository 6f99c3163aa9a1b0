//! Refused input is bounded: what the refusals of a set take, the headers that they keep, and what
//! does not fit.

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{World, numbers, reminder, with};

/// "So many of the set's reminders are invalid that refusing each alone would use more than 8 times
/// the set's bytes".
#[tokio::test]
async fn a_set_of_mistakes_is_refused_whole() {
    const SETS: usize = 3;
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let zeros = format!(r#"{{"reminders":[{}]}}"#, vec!["0"; 10_000].join(","));
    // A valid reminder in it is refused with the others, and does not reserve its id.
    let mixed: Vec<Value> = std::iter::once(reminder("right", "alice"))
        .chain(vec![json!({}); 1_000])
        .collect();
    let mixed = json!({ "reminders": mixed }).to_string();
    for _ in 0..SETS {
        world
            .publish_bytes("flood", zeros.as_bytes(), HeaderMap::new())
            .await;
    }
    world
        .publish_bytes("billing", mixed.as_bytes(), HeaderMap::new())
        .await;
    let rejected = world.all_rejected(SETS + 1).await;
    world
        .publish(
            "billing",
            [reminder("right", "alice"), reminder("other", "alice")],
        )
        .await;
    world.taken(&["right", "other"]).await;

    assert!(
        rejected
            .iter()
            .all(|message| message.code() == "too_many_refused")
    );
    assert_eq!(
        rejected
            .iter()
            .filter(|message| message.payload == zeros)
            .count(),
        SETS
    );
    let whole = rejected
        .iter()
        .find(|message| message.payload == mixed)
        .unwrap();
    assert!(
        whole.detail().contains("of 1001 reminders") && whole.detail().contains("invalid_reminder"),
        "{}",
        whole.detail()
    );
    assert_eq!(world.all_rejected(SETS + 1).await.len(), SETS + 1);
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .all(|outcome| outcome.outcome == "delivered")
    );
}

/// Its id and user can be read, though a text or a number beside them cannot.
#[tokio::test]
async fn a_refused_reminder_is_found_by_its_id() {
    let world = World::start(&[]).await;
    world.app("app-1", &["bob"]).await;
    let bodies = [
        r#"{"id":"s1","reminders":[{"id":"inv-981","user":"alice","content":"Invoice 981 paid \ud83d"},{"id":"inv-982","user":"bob","content":"fine"}]}"#,
        r#"{"id":"s2","reminders":[{"id":"inv-983","user":"alice","content":7,"data":1e400}]}"#,
        r#"{"specversion":"1.0","id":"1","source":"/b","type":"t","data":{"id":"inv-984","user":"alice","content":"\udc00"}}"#,
    ];
    for body in bodies {
        world
            .publish_bytes("billing", body.as_bytes(), HeaderMap::new())
            .await;
    }
    world.taken(&["inv-982"]).await;
    world.all_rejected(bodies.len()).await;
    let listed = world.run(&["rejected", "ls", "--json"]).await.succeeded();
    for id in ["inv-981", "inv-983", "inv-984"] {
        let outcome = world.became("billing", id, "rejected").await;
        assert_eq!(outcome.user.as_deref(), Some("alice"), "{id}");
        let why = world
            .run(&["why", "billing", id, "--json"])
            .await
            .succeeded();
        let why: Value = serde_json::from_str(&why).unwrap();
        assert_eq!(why["trail"][0]["outcome"], "rejected", "{why}");
        assert!(listed.contains(&json!(id).to_string()), "{listed}");
    }
}

/// The mark cannot be seen, and errors of JSON readers do not name it.
#[tokio::test]
async fn a_byte_order_mark_is_named() {
    let world = World::start(&[]).await;
    let set = json!({ "reminders": [reminder("1", "alice")] }).to_string();
    let rules = json!({ "rules": [] }).to_string();
    let file = world.dir().join("marked.json");
    let path = file.to_str().unwrap();
    for mark in [&b"\xef\xbb\xbf"[..], b"\xff\xfe"] {
        std::fs::write(&file, [mark, set.as_bytes()].concat()).unwrap();
        let ended = world.run(&["publish", path, "--source", "billing"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("byte order mark"), "{ended:?}");
        std::fs::write(&file, [mark, rules.as_bytes()].concat()).unwrap();
        let ended = world.run(&["rules", "put", "billing", path]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("byte order mark"), "{ended:?}");
        world
            .publish_bytes(
                "billing",
                &[mark, set.as_bytes()].concat(),
                HeaderMap::new(),
            )
            .await;
    }
    for message in world.all_rejected(2).await {
        assert_eq!(message.code(), "not_json");
        assert!(message.detail().contains("byte order mark"));
    }
}

#[tokio::test]
async fn refusals_are_bounded_by_the_set() {
    let world = World::start(&[("history.url", "none")]).await;
    world.app("app-1", &["alice", "bob"]).await;
    // From very short ones to such as are refused alone: short in the set, with long names in each
    // refusal.
    let long = "x".repeat(256);
    let wrong = [
        json!(0),
        json!([]),
        json!({ "id": "x" }),
        json!({ "user": "alice" }),
        json!({ "id": "same", "user": "alice", "content": "c" }),
        json!({ "user": "u".repeat(128) }),
        json!({ "content": "c".repeat(100) }),
    ];
    let mut published = 0;
    for (n, wrong) in wrong.iter().enumerate() {
        for count in [1, 10, 100, 1_000] {
            let mut set = json!({ "id": format!("{n} {count} {long}")[..256], "reminders": vec![wrong.clone(); count] });
            if n == 4 {
                // One id for many texts.
                for (place, one) in set["reminders"]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .enumerate()
                {
                    one["content"] = json!(place.to_string());
                }
            }
            let set = set.to_string();
            world
                .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
                .await;
            published += 8 * set.len() + (4 << 10);
        }
    }
    world.publish("billing", [reminder("last", "bob")]).await;
    world.taken(&["last"]).await;
    let mut taken = 0;
    for stream in ["BELLHOP_REJECTED", "BELLHOP_OUTCOMES"] {
        taken += usize::try_from(world.stream(stream).await.state.bytes).unwrap();
    }
    assert!(
        taken <= published,
        "{taken} bytes are kept of at most {published}"
    );
}

/// Real mistakes are refused alone.
#[tokio::test]
async fn a_few_mistakes_are_refused_alone() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let all = numbers(0..100);
    let is_wrong = |n: usize| n.is_multiple_of(20);
    let reminders = all.iter().enumerate().map(|(n, id)| match is_wrong(n) {
        true => with(reminder(id, "alice"), json!({ "priority": "vital" })),
        false => reminder(id, "alice"),
    });
    world.publish("billing", reminders).await;
    let right: Vec<_> = all
        .iter()
        .enumerate()
        .filter(|(n, _)| !is_wrong(*n))
        .map(|(_, id)| id.clone())
        .collect();
    world.taken(&right).await;
    let rejected = world.all_rejected(5).await;
    assert!(
        rejected
            .iter()
            .all(|message| message.code() == "invalid_priority")
    );
    world.settle().await;
}

#[tokio::test]
async fn a_whole_refused_set_can_be_requeued() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let wrong = vec![json!({}); 1_000];
    world
        .publish_bytes(
            "billing",
            json!({ "reminders": wrong }).to_string().as_bytes(),
            HeaderMap::new(),
        )
        .await;
    world.all_rejected(1).await;
    let refused = world.run(&["rejected", "requeue", "1"]).await;
    assert_eq!(
        refused.code,
        Some(1),
        "it would be refused again: {refused:?}"
    );
    let file = world.dir().join("corrected.json");
    std::fs::write(
        &file,
        json!({ "reminders": [reminder("1", "alice")] }).to_string(),
    )
    .unwrap();
    world
        .run(&["rejected", "requeue", "1", "--body", file.to_str().unwrap()])
        .await
        .succeeded();
    world.taken(&["1"]).await;
}

/// Headers of so many bytes altogether, as many small ones or few large ones.
fn headers(bytes: usize, each: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for n in 0..bytes / each {
        headers.insert(
            format!("x-{n:05}"),
            "v".repeat(each - "x-00000: \r\n".len()),
        );
    }
    headers
}

/// Whatever headers JetStream takes with a set, the refusal is stored, and says which are missing.
#[tokio::test]
async fn a_refusal_keeps_the_headers_that_fit() {
    const ROOM: usize = 60 << 10;
    let world = World::start(&[]).await;
    let sizes = [
        (1_000, 100),
        (ROOM, 100),
        (64_000, 100),
        (65_000, 1_000),
        (65_000, 32),
        (65_400, 32_000),
    ];
    for (n, (bytes, each)) in sizes.into_iter().enumerate() {
        let mut headers = headers(bytes, each);
        headers.insert("ce-id", "981");
        world
            .publish_bytes("billing", format!("no json {n}").as_bytes(), headers)
            .await;
    }
    let rejected = world.all_rejected(sizes.len()).await;
    for (n, (bytes, each)) in sizes.into_iter().enumerate() {
        let message = rejected
            .iter()
            .find(|message| message.payload == format!("no json {n}"))
            .unwrap();
        let kept = message
            .headers
            .iter()
            .filter(|(name, _)| AsRef::<str>::as_ref(*name).starts_with("x-"))
            .count();
        let cut = message
            .headers
            .get("Bellhop-Headers-Cut")
            .map_or(0, |cut| cut.as_str().parse().unwrap());
        assert_eq!(kept + cut, bytes / each, "{bytes} bytes of {each}");
        let (all, room) = (bytes / each * each, ROOM - "ce-id: 981\r\n".len());
        assert_eq!(
            cut > 0,
            all > room,
            "{bytes} bytes of {each}: {cut} are cut"
        );
        assert!(
            cut == 0 || (kept + 1) * each > room,
            "{bytes} bytes of {each}: {kept} are kept"
        );
        assert_eq!(
            message.headers.get("ce-id").unwrap().as_str(),
            "981",
            "what says what it is is kept first"
        );
    }
    world.settle().await;
}

/// The server's `max_payload` is lowered while a set waits: its refusal is stored as far as it
/// fits.
#[tokio::test]
async fn oversized_refusal_is_cut() {
    let world = World::without_members("max_payload: 4MB", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let body = vec![b'x'; 3 << 20];
    world
        .publish_bytes("billing", &body, HeaderMap::new())
        .await;
    world.reconfigure_nats("max_payload: 1MB").await;
    world.restart_nats().await;
    world.serve().await;
    let rejected = world.all_rejected(1).await;
    let (message, cut) = (
        &rejected[0],
        rejected[0].headers.get("Bellhop-Cut").unwrap(),
    );
    assert_eq!(
        (message.code(), cut.as_str()),
        ("not_json", body.len().to_string().as_str())
    );
    assert!(
        message.payload.len() > 1_000_000 && body.starts_with(&message.payload),
        "{}",
        message.payload.len()
    );
    world.settle().await;
}
