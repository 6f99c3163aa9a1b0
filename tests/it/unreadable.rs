//! JSON that its grammar permits and common readers refuse: such a reminder is refused alone, under
//! its own name.

use async_nats::HeaderMap;

use crate::harness::{World, reminder};

/// `data` that some app server could not read: what it is, and its JSON.
fn unreadable() -> Vec<(&'static str, String)> {
    let nested = |open: &str, close: &str, levels| {
        format!("{}0{}", open.repeat(levels), close.repeat(levels))
    };
    vec![
        ("65 lists", nested("[", "]", 65)),
        ("65 objects", nested("{\"k\":", "}", 65)),
        ("digits", "7".repeat(301)),
        (
            "digits behind the point",
            format!("[0.{}]", "7".repeat(299)),
        ),
        ("exponent", format!("{{\"n\":1e{}}}", "0".repeat(299))),
        ("overflow", "1e309".into()),
        ("negative overflow", "[-1E+400]".into()),
        ("high half", r#""paid \ud83d""#.into()),
        ("low half", r#"["\uDE00"]"#.into()),
        ("halves swapped", r#""\ude00\ud83d""#.into()),
        ("half before a pair", r#""\ud83d\ud83d\ude00""#.into()),
        ("half in a key", r#"{"\ud83d":1}"#.into()),
        ("long key", format!("{{\"{}\":1}}", "k".repeat(50_001))),
    ]
}

/// At every bound, and what only looks like a fault.
fn readable() -> Vec<(&'static str, String)> {
    vec![
        ("64 levels", format!("{}{}", "[".repeat(64), "]".repeat(64))),
        ("brackets in text", format!("\"{}\"", "[{".repeat(1_000))),
        ("300 digits", "7".repeat(300)),
        ("small", "[1e-400,-0.0,0e999]".into()),
        (
            "pair",
            r#"{"\ud83d\uDE00":"\\ud83d \\\ud83d\ude00"}"#.into(),
        ),
        ("key twice", r#"{"a":1,"a":2}"#.into()),
    ]
}

fn with_data(id: &str, data: &str) -> String {
    format!(r#"{{"id":"{id}","user":"alice","content":"{id}","data":{data}}}"#)
}

#[tokio::test]
async fn unreadable_data_refuses_its_reminder_alone() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let (bad, good) = (unreadable(), readable());
    let reminders: Vec<_> = bad
        .iter()
        .chain(&good)
        .map(|(id, data)| with_data(id, data))
        .collect();
    let set = format!(r#"{{"id":"mixed","reminders":[{}]}}"#, reminders.join(","));
    world
        .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
        .await;

    let ids: Vec<_> = bad.iter().map(|(id, _)| *id).collect();
    for outcome in world.all_became("billing", &ids, "rejected").await {
        let recorded = (outcome.error.as_deref(), outcome.user.as_deref());
        assert_eq!(
            recorded,
            (Some("invalid_data"), Some("alice")),
            "{}",
            outcome.id
        );
    }
    let ids: Vec<_> = good.iter().map(|(id, _)| *id).collect();
    world.taken(&ids).await;
    let rejected = world.all_rejected(bad.len()).await;
    assert!(
        rejected
            .iter()
            .all(|message| message.code() == "invalid_data" && message.detail().contains("`data`"))
    );

    let ended = world.run(&["rejected", "requeue", "1"]).await;
    assert!(
        ended.stderr.contains("would be refused again"),
        "{}",
        ended.stderr
    );
    world.settle().await;
}

#[tokio::test]
async fn unreadable_data_of_a_cloud_event_is_refused() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    for (n, (_, data)) in unreadable().iter().enumerate() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-id", &n.to_string()),
        ] {
            headers.insert(name, value);
        }
        let body = format!(r#"{{"user":"alice","content":"c","data":{data}}}"#);
        world
            .publish_bytes("billing", body.as_bytes(), headers)
            .await;
        let outcome = world
            .became("billing", &format!("/s {n}#0"), "rejected")
            .await;
        assert_eq!(outcome.error.as_deref(), Some("invalid_data"), "{body}");
    }
}

/// Whatever cannot be read beside them, the id and the user are.
#[tokio::test]
async fn refused_reminder_keeps_id_and_user() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob"]).await;
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let (half, huge) = (r#""paid \ud83d""#, "1e400");
    let beside = [
        format!(r#""content":{half}"#),
        format!(r#""content":"c","title":{half}"#),
        format!(r#""content":"c","tags":["t",{half}]"#),
        format!(r#""content":"c","expires_at":{half}"#),
        format!(r#""content":"c","priority":{huge}"#),
        format!(r#""content":7,"data":{huge}"#),
        format!(r#""content":7,"data":{deep}"#),
        format!(r#""content":{deep}"#),
        format!(r#""content":7,"unknown":[{half},{huge},{deep}]"#),
        r#""content":"c","\ud83d":1"#.to_owned(),
    ];
    let mut reminders = vec![reminder("first", "bob").to_string()];
    reminders.extend(
        beside
            .iter()
            .enumerate()
            .map(|(n, rest)| format!(r#"{{"id":"inv-{n}","user":"alice",{rest}}}"#)),
    );
    // An unknown field is not delivered, so it may be anything.
    reminders.push(format!(
        r#"{{"id":"last","user":"bob","content":"c","unknown":{{"a":[{half},{huge},{deep}]}}}}"#
    ));
    let set = format!(
        r#"{{"id":"p6","unknown":[{half},{huge},{deep}],"reminders":[{}]}}"#,
        reminders.join(",")
    );
    world
        .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
        .await;
    world.taken(&["first", "last"]).await;
    for (n, beside) in beside.iter().enumerate() {
        let outcome = world
            .became("billing", &format!("inv-{n}"), "rejected")
            .await;
        let recorded = (
            outcome.error.as_deref(),
            outcome.user.as_deref(),
            outcome.set.as_str(),
        );
        assert_eq!(
            recorded,
            (Some("invalid_reminder"), Some("alice"), "p6"),
            "{beside}"
        );
    }
    let why = world.run(&["why", "billing", "inv-0", "--json"]).await;
    assert!(why.stdout.contains("invalid_reminder"), "{why:?}");
    assert_eq!(world.order("bob"), ["first", "last"]);
    world.settle().await;
}
