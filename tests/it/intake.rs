//! Publishing reminder sets: what arrives of them, what is refused and how, and that a repeat is no
//! second reminder.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::harness::{Asked, World, escape, from_now, instant, numbers, reminder, with};

const KIB: usize = 1024;

fn message_id(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    headers
}

/// "Unknown fields from outside are ignored and, in a reminder, carried through untouched inside
/// `data` only."
#[tokio::test]
async fn every_field_arrives_and_data_to_the_letter() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let data = r#"{"z": 1, "a": [1.10, 1E5, -0.0, 12345678901234567890123, null, "\u0000\ud83d\ude00 张"], "": {"n": {}}}"#;
    let fields = json!({
        "id": "inv-981", "user": "alice", "title": "Invoice due", "content": "Invoice 981 is due on Friday",
        "tags": ["billing", "été"], "priority": "high", "expires_at": "2096-11-29T00:00:00Z",
    });
    let published = with(fields.clone(), json!({ "surprise": [1] })).to_string();
    let published = format!(
        r#"{},"data":{data}}}"#,
        published.strip_suffix('}').unwrap()
    );
    let set = format!(r#"{{"id":"2096-11-22/billing/7","unknown":1,"reminders":[{published}]}}"#);
    let before = jiff::Timestamp::now();
    world
        .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
        .await;
    world.taken(&["inv-981"]).await;

    let mut got = world.first("inv-981").reminder.clone();
    // It may have waited until the route was known.
    got.as_object_mut().unwrap().remove("parked_at");
    let published_at = instant(got["published_at"].as_str().unwrap());
    assert!(
        (published_at - before).get_seconds().abs() <= 2,
        "{published_at} is not when it was published"
    );
    let due = json!({
        "source": "billing", "set": "2096-11-22/billing/7", "published_at": got["published_at"], "data": got["data"],
    });
    assert_eq!(got, with(fields, due));
    let delivery = app
        .requests()
        .into_iter()
        .find(|request| matches!(request.asked, Asked::Delivery(_)))
        .unwrap();
    let body = std::str::from_utf8(&delivery.body).unwrap();
    assert!(body.contains(&format!(r#""data":{data}"#)), "{body}");
}

/// "`id` (set) … default: `<stream sequence>`", "`id` … default `<set id>#<index>`", "`priority` …
/// `normal` (default)"
#[tokio::test]
async fn omitted_fields_have_defaults() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let bare = |content: &str| json!({ "user": "alice", "content": content });
    let ack = world
        .publish(
            "billing",
            [bare("one"), reminder("named", "alice"), bare("two")],
        )
        .await;
    let named_set = json!({ "id": "7 é", "reminders": [bare("three")] });
    world
        .publish_set("billing", named_set, HeaderMap::new())
        .await;
    world.taken(&["named", "7 é#0"]).await;

    let sequence = ack.sequence;
    assert_eq!(
        world.order("alice"),
        [
            format!("{sequence}#0"),
            "named".into(),
            format!("{sequence}#2"),
            "7 é#0".into()
        ]
    );
    let got = world.first("named").reminder.clone();
    let plain = json!({
        "source": "billing", "set": sequence.to_string(), "priority": "normal", "tags": [],
        "published_at": got["published_at"],
    });
    assert_eq!(
        got,
        with(reminder("named", "alice"), plain),
        "nothing unexpected"
    );
    assert_eq!(world.first("7 é#0").reminder["set"], "7 é");
    let outcome = world.became("billing", "7 é#0", "delivered").await;
    assert_eq!(
        (outcome.set.as_str(), outcome.user.as_deref()),
        ("7 é", Some("alice"))
    );
    world.settle().await;
}

/// "1 to 10,000 of them", "1 byte to 64 KiB", "`title` (optional, up to 1 KiB)", "up to 16"
#[tokio::test]
async fn the_upper_limits_are_good() {
    let world = World::start(&[]).await;
    let user = "u".repeat(128);
    world.app("app-1", &["alice", &user]).await;
    let tags: Vec<_> = (0..16).map(|n| format!("{n:x}").repeat(128)).collect();
    let most = json!({ "title": "é".repeat(512), "tags": tags, "content": "c".repeat(64 * KIB) });
    let one_byte = with(reminder("one", "alice"), json!({ "content": "!" }));
    world
        .publish(
            "billing",
            [with(reminder("most", &user), most.clone()), one_byte],
        )
        .await;
    let names: Vec<_> = (0..10_000).map(|n| format!("x#{n}")).collect();
    let bare = names
        .iter()
        .map(|name| json!({ "user": "alice", "content": name }));
    let set = json!({ "id": "x", "reminders": bare.collect::<Vec<_>>() });
    world.publish_set("billing", set, HeaderMap::new()).await;
    world.taken(&["most", "one"]).await;
    world.taken(&names).await;

    for (field, value) in most.as_object().unwrap() {
        assert_eq!(&world.first("most").reminder[field], value, "{field}");
    }
    assert_eq!(world.order("alice")[1..], names);
    world.settle().await;
}

#[tokio::test]
async fn every_priority_arrives() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let priorities = ["low", "normal", "high", "urgent"];
    let reminders = priorities
        .map(|priority| with(reminder(priority, "alice"), json!({ "priority": priority })));
    world.publish("billing", reminders).await;
    world.taken(&priorities).await;
    for priority in priorities {
        assert_eq!(world.first(priority).reminder["priority"], priority);
    }
}

/// "A set that is not valid as a whole (not JSON, over a limit, no reminders) goes, byte for byte,
/// to stream `BELLHOP_REJECTED` (subject `bellhop.rejected.<source>`) with headers `Bellhop-Error`
/// (a stable code) and `Bellhop-Error-Detail`."
#[tokio::test]
async fn invalid_set_is_rejected_byte_for_byte() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let text = |value: Value| value.to_string().into_bytes();
    let too_many: Vec<_> = (0..10_001)
        .map(|n| json!({ "user": "alice", "content": n.to_string() }))
        .collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not_json", b"".into()),
        ("not_json", b"not json".into()),
        ("not_json", b"{ \"reminders\" : [ ".into()),
        (
            "not_json",
            b"{\"reminders\":[{\"user\":\"alice\",\"content\":\"\xff\"}]}".into(),
        ),
        ("not_json", b"{\"reminders\":[]} trailing".into()),
        ("invalid_set", b"[]".into()),
        ("invalid_set", b"\"text\"".into()),
        ("invalid_set", b"null".into()),
        ("invalid_set", b"{}".into()),
        ("invalid_set", b"{\"reminders\": 7}".into()),
        (
            "invalid_set",
            text(json!({ "reminders": { "0": reminder("2", "alice") } })),
        ),
        (
            "invalid_set",
            text(json!({ "id": 7, "reminders": [reminder("1", "alice")] })),
        ),
        (
            "invalid_set_id",
            text(json!({ "id": "", "reminders": [reminder("1", "alice")] })),
        ),
        (
            "invalid_set_id",
            text(json!({ "id": "x".repeat(257), "reminders": [reminder("1", "alice")] })),
        ),
        ("no_reminders", b"{\"reminders\": []}".into()),
        ("too_many_reminders", text(json!({ "reminders": too_many }))),
    ];
    for (_, body) in &cases {
        world
            .publish_bytes("odd ones", body, HeaderMap::new())
            .await;
    }
    world.publish("odd ones", [reminder("good", "alice")]).await;
    world.taken(&["good"]).await;

    let rejected = world.all_rejected(cases.len()).await;
    assert_eq!(rejected.len(), cases.len());
    for (code, body) in &cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        let message = rejected
            .iter()
            .find(|message| message.payload == *body)
            .unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(
            (message.code(), message.subject.as_str()),
            (*code, "bellhop.rejected.odd=20ones"),
            "{shown}"
        );
        assert!(!message.detail().is_empty(), "{shown}");
    }
    assert_eq!(world.order("alice"), ["good"]);
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .all(|outcome| outcome.id == "good")
    );
}

/// "One bad reminder in a good set is rejected alone, in the same way; its neighbours go on."
/// Outcome `rejected`.
#[tokio::test]
async fn a_bad_reminder_is_rejected_alone() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let cases = [
        ("invalid_user", json!({ "user": "u".repeat(129) })),
        ("invalid_user", json!({ "user": "界".repeat(43) })),
        ("invalid_user", json!({ "user": "a\u{7}b" })),
        ("invalid_user", json!({ "user": "alice\n" })),
        ("invalid_user", json!({ "user": "" })),
        ("invalid_reminder", json!({ "user": 7 })),
        ("invalid_reminder", json!({ "user": null })),
        ("invalid_reminder", json!({ "content": null })),
        ("invalid_content", json!({ "content": "" })),
        (
            "invalid_content",
            json!({ "content": "c".repeat(64 * KIB + 1) }),
        ),
        (
            "invalid_content",
            json!({ "content": "é".repeat(32 * KIB + 1) }),
        ),
        ("invalid_title", json!({ "title": "t".repeat(KIB + 1) })),
        ("too_many_tags", json!({ "tags": numbers(0..17) })),
        ("invalid_tag", json!({ "tags": ["t".repeat(129)] })),
        ("invalid_tag", json!({ "tags": [""] })),
        ("invalid_tag", json!({ "tags": ["\u{0}"] })),
        ("invalid_reminder", json!({ "tags": "billing" })),
        ("invalid_priority", json!({ "priority": "vital" })),
        ("invalid_priority", json!({ "priority": "HIGH" })),
        ("invalid_expires_at", json!({ "expires_at": "tomorrow" })),
        (
            "invalid_expires_at",
            json!({ "expires_at": "2096-02-30T00:00:00Z" }),
        ),
        (
            "reminder_too_large",
            json!({ "data": "d".repeat(256 * KIB) }),
        ),
    ];
    let bad = |n: usize| with(reminder(format!("bad {n}"), "alice"), cases[n].1.clone());
    let mut reminders = Vec::new();
    for n in 0..cases.len() {
        reminders.extend([reminder(format!("good {n}"), "alice"), bad(n)]);
    }
    reminders.push(reminder("last", "alice"));
    // Spaces that no serializer would write, to see that bytes stay bytes.
    let list: Vec<_> = reminders
        .iter()
        .map(|one| one.to_string().replacen("{", "{  ", 1))
        .collect();
    let set = format!(r#"{{"id":"mixed","reminders":[{}]}}"#, list.join(" ,\n"));
    world
        .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
        .await;
    world.taken(&["last"]).await;

    let good: Vec<_> = (0..cases.len())
        .map(|n| format!("good {n}"))
        .chain(["last".to_owned()])
        .collect();
    assert_eq!(world.order("alice"), good);
    let rejected = world.all_rejected(cases.len()).await;
    assert_eq!(rejected.len(), cases.len());
    for (n, (code, _)) in cases.iter().enumerate() {
        let outcome = world
            .became("billing", &format!("bad {n}"), "rejected")
            .await;
        assert_eq!(
            (outcome.error.as_deref(), outcome.set.as_str()),
            (Some(*code), "mixed"),
            "{n}"
        );
        let payload = bad(n).to_string().replacen("{", "{  ", 1);
        let message = rejected
            .iter()
            .find(|message| message.payload == payload)
            .unwrap_or_else(|| panic!("{n}"));
        assert_eq!(
            (message.code(), message.subject.as_str()),
            (*code, "bellhop.rejected.billing"),
            "{n}"
        );
        assert!(!message.detail().is_empty(), "{n}");
    }
    world.settle().await;
}

#[tokio::test]
async fn unreadable_reminder_is_named_by_place() {
    let world = World::start(&[]).await;
    let bad = [
        json!(42),
        json!({ "content": "without a user" }),
        with(reminder("", "alice"), json!({})),
    ];
    let set = json!({ "id": "s", "reminders": bad });
    world
        .publish_bytes("billing", set.to_string().as_bytes(), HeaderMap::new())
        .await;
    let errors = world
        .all_became("billing", &["s#0", "s#1", "s#2"], "rejected")
        .await;
    let errors: Vec<_> = errors
        .iter()
        .map(|outcome| outcome.error.as_deref().unwrap_or_default())
        .collect();
    assert_eq!(
        errors,
        ["invalid_reminder", "invalid_reminder", "invalid_id"]
    );
}

/// "User IDs … are free UTF-8 text of 1 to 128 bytes", "JSON bodies always carry the text itself."
#[tokio::test]
async fn users_may_have_any_name() {
    let world = World::start(&[]).await;
    let (longest, chinese) = ("x".repeat(128), format!("{}ab", "界".repeat(42)));
    let users = [
        "a.b *>", "张三", &longest, &chinese, "a=2Eb", ">", ".", "$KV", " ~ ", "\"\\", "-_", "=",
        "a.b@c", "Ünï",
    ];
    let ids = |when: &str| users.map(|user| format!("{when} {user}"));
    world
        .publish(
            "billing",
            users.map(|user| reminder(format!("early {user}"), user)),
        )
        .await;
    let parked = world.all_became("billing", &ids("early"), "parked").await;
    assert_eq!(
        parked
            .iter()
            .map(|outcome| outcome.user.clone().unwrap())
            .collect::<Vec<_>>(),
        users
    );
    for user in users {
        assert_eq!(
            world
                .mailboxes(&format!("bellhop.parked.*.{}", escape(user)))
                .await,
            Ok(1),
            "{user}"
        );
    }

    world.app("app-1", &users).await;
    world.taken(&ids("early")).await;
    world
        .publish(
            "billing",
            users.map(|user| reminder(format!("late {user}"), user)),
        )
        .await;
    world.taken(&ids("late")).await;
    for user in users {
        assert_eq!(
            world.order(user),
            [format!("early {user}"), format!("late {user}")]
        );
    }
    world.settle().await;
}

/// The contract's own examples of escaping, as they stand on the wire.
#[tokio::test]
async fn names_are_escaped_as_the_contract_shows() {
    let world = World::start(&[]).await;
    let routes = world.routes().await;
    let app = world.app("a.b@c", &[]).await;
    for (user, token) in [
        ("alice", "alice"),
        ("a.b@c", "a=2Eb=40c"),
        ("张三", "=E5=BC=A0=E4=B8=89"),
    ] {
        app.admit(user);
        routes
            .put(format!("{token}.a=2Eb=40c"), "".into())
            .await
            .unwrap();
        world.publish("billing", [reminder(token, user)]).await;
        world.taken(&[token]).await;
    }
}

/// "JetStream publish to `bellhop.sets.<source>`", "unique within the source"
#[tokio::test]
async fn sources_may_have_any_name_and_are_apart() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let longest = "s".repeat(128);
    let sources = ["a.b", "a=2Eb", "计费", "x y>*", &longest, "ab"];
    for source in sources {
        let mine = with(
            reminder("1", "alice"),
            json!({ "content": format!("from {source}") }),
        );
        world
            .publish(
                source,
                [
                    mine,
                    with(reminder("bad", "alice"), json!({ "priority": "vital" })),
                ],
            )
            .await;
        world
            .publish_bytes(source, b"nonsense", HeaderMap::new())
            .await;
        world.became(source, "1", "delivered").await;
        world.became(source, "bad", "rejected").await;
    }
    let taken: Vec<_> = world
        .takes()
        .iter()
        .map(|take| take.source().to_owned())
        .collect();
    assert_eq!(taken, sources);
    let rejected = world.all_rejected(2 * sources.len()).await;
    let subjects: BTreeSet<_> = rejected
        .iter()
        .map(|message| message.subject.clone())
        .collect();
    assert_eq!(
        subjects,
        sources
            .iter()
            .map(|source| format!("bellhop.rejected.{}", escape(source)))
            .collect()
    );
    world.settle().await;
}

#[tokio::test]
async fn a_subject_that_names_no_source_is_rejected() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let body = json!({ "reminders": [reminder("1", "alice")] }).to_string();
    let tokens = ["a=zz", "a=2e", "=FF", "=0A", "a=", "b%c"];
    for token in tokens {
        let ack = world
            .jetstream
            .publish(format!("bellhop.sets.{token}"), body.clone().into())
            .await
            .unwrap();
        ack.await.unwrap();
    }
    world.publish("billing", [reminder("good", "alice")]).await;
    world.taken(&["good"]).await;
    let rejected = world.all_rejected(tokens.len()).await;
    let found: BTreeSet<_> = rejected
        .iter()
        .map(|message| (message.code(), message.subject.clone()))
        .collect();
    assert_eq!(
        found,
        tokens
            .iter()
            .map(|token| ("invalid_source", format!("bellhop.rejected.{token}")))
            .collect()
    );
    assert!(rejected.iter().all(|message| message.payload == body));
    assert_eq!(world.order("alice"), ["good"]);
}

/// "Header `Nats-Msg-Id` is optional and gives the set JetStream's idempotency."
#[tokio::test]
async fn repeated_message_id_is_one_set() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let nameless: Vec<_> = numbers(0..3)
        .iter()
        .map(|n| json!({ "user": "alice", "content": n }))
        .collect();
    let set = json!({ "reminders": nameless });
    let first = world
        .publish_set("billing", set.clone(), message_id("billing/7"))
        .await;
    let second = world
        .publish_bytes(
            "billing",
            set.to_string().as_bytes(),
            message_id("billing/7"),
        )
        .await;
    assert!(
        second.duplicate && second.sequence == first.sequence,
        "{second:?}"
    );
    world.publish("billing", [reminder("fence", "alice")]).await;
    world.taken(&["fence"]).await;
    world.settle().await;
    let taken: Vec<_> = world
        .takes()
        .iter()
        .map(|take| take.id().to_owned())
        .collect();
    assert_eq!(taken, ["1#0", "1#1", "1#2", "fence"]);
}

/// "The same (source, id) is one reminder, however often it arrives within the idempotency window"
#[tokio::test]
async fn a_reminder_in_several_sets_is_one() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let nameless = json!({ "id": "7", "reminders": [{ "user": "alice", "content": "0" }, { "user": "alice", "content": "1" }] });
    let named = json!({ "id": "8", "reminders": [reminder("a", "alice"), reminder("b", "alice"), reminder("a", "alice")] });
    for _ in 0..2 {
        world
            .publish_set("billing", nameless.clone(), HeaderMap::new())
            .await;
        world
            .publish_set("billing", named.clone(), HeaderMap::new())
            .await;
    }
    world
        .publish("billing", [reminder("b", "alice"), reminder("c", "alice")])
        .await;
    let other = with(
        reminder("a", "alice"),
        json!({ "content": "another source's" }),
    );
    world
        .publish("hr", [other, reminder("fence", "alice")])
        .await;
    for _ in 0..2 {
        world.publish("billing", [reminder("away", "bob")]).await;
    }
    world.became("billing", "away", "parked").await;
    world.settle().await;
    app.connect(&["bob"]).await;
    world.taken(&["fence", "away"]).await;
    world.settle().await;
    let mut taken: Vec<_> = world
        .takes()
        .iter()
        .filter(|take| take.user() == "alice")
        .map(|take| take.key())
        .collect();
    // Two sources have no order between them.
    taken.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let due = [
        ("billing", "7#0"),
        ("billing", "7#1"),
        ("billing", "a"),
        ("billing", "b"),
        ("billing", "c"),
        ("hr", "a"),
    ];
    let due = due.into_iter().chain([("hr", "fence")]);
    assert_eq!(
        taken,
        due.map(|(source, id)| (source.into(), id.into(), "alice".into()))
            .collect::<Vec<_>>()
    );
    assert_eq!(world.repeats(), []);
    assert_eq!(world.order("bob"), ["away"]);
}

#[tokio::test]
async fn the_window_outlasts_a_restart() {
    for how in ["TERM", "KILL"] {
        let world = World::start(&[]).await;
        world.app("app-1", &["alice"]).await;
        let set = || [reminder("a", "alice"), reminder("b", "alice")];
        world.publish("billing", set()).await;
        world.became("billing", "b", "delivered").await;
        world.settle().await;
        let member = world.member();
        member.signal(how);
        world.ended(&member).await;
        world.serve_as(member.name()).await;
        world.publish("billing", set()).await;
        world.publish("billing", [reminder("fence", "alice")]).await;
        world.taken(&["fence"]).await;
        world.settle().await;
        let taken: Vec<_> = world
            .takes()
            .iter()
            .map(|take| take.id().to_owned())
            .collect();
        assert_eq!(taken, ["a", "b", "fence"], "after SIG{how}");
    }
}

/// JetStream forgets the message ids of sets that are worked off when it restarts. Bellhop
/// remembers their reminders.
#[tokio::test]
async fn the_window_outlasts_a_restart_of_nats() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let set = json!({ "reminders": [reminder("a", "alice"), reminder("b", "alice")] });
    world
        .publish_set("billing", set.clone(), message_id("billing/7"))
        .await;
    world.became("billing", "b", "delivered").await;
    world.settle().await;
    world.kill_nats().await;
    world.restart_nats().await;
    let member = world.member();
    world
        .eventually("it is ready again", async || member.is_ready().await)
        .await;
    world
        .publish_surely("billing", vec![reminder("fence", "alice")])
        .await;
    world
        .publish_set("billing", set, message_id("billing/7"))
        .await;
    world.publish("billing", [reminder("last", "alice")]).await;
    world.taken(&["fence", "last"]).await;
    world.settle().await;
    let taken: Vec<_> = world
        .takes()
        .iter()
        .map(|take| take.id().to_owned())
        .collect();
    assert_eq!(taken, ["a", "b", "fence", "last"]);
}

/// "within the idempotency window (default 10 minutes)": after it, the same id is another reminder.
#[tokio::test]
async fn after_the_window_an_id_is_new() {
    let world = World::start(&[("idempotency.window", "1s")]).await;
    world.app("app-1", &["alice"]).await;
    let began = std::time::Instant::now();
    world.publish("billing", [reminder("a", "alice")]).await;
    world.taken(&["a"]).await;
    world
        .eventually("the id is taken for a new one", async || {
            world.publish("billing", [reminder("a", "alice")]).await;
            if world.takes().len() > 1 {
                Ok(())
            } else {
                Err("it is a repeat".to_owned())
            }
        })
        .await;
    assert!(
        began.elapsed() >= std::time::Duration::from_millis(990),
        "{:?}",
        began.elapsed()
    );
}

/// "`count`/`merged` appear when duplicates were merged", outcome "`merged` (`into`)"
#[tokio::test]
async fn duplicates_of_a_set_are_merged() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let text = json!({ "title": "Backup failed", "content": "The backup of db-1 failed" });
    let alike =
        |id: &str, user: &str, fields: Value| with(with(reminder(id, user), text.clone()), fields);
    let reminders = [
        alike(
            "d-1",
            "alice",
            json!({ "tags": ["ops"], "priority": "low", "data": 1 }),
        ),
        alike(
            "d-2",
            "alice",
            json!({ "tags": ["db"], "priority": "high", "data": 2 }),
        ),
        reminder("other", "alice"),
        alike("titled", "alice", json!({ "title": "Another" })),
        alike("d-3", "alice", json!({})),
        alike("bobs", "bob", json!({})),
    ];
    world.publish("ops", reminders).await;
    world.taken(&["d-1", "other", "titled"]).await;
    let merged = world.all_became("ops", &["d-2", "d-3"], "merged").await;
    assert!(
        merged
            .iter()
            .all(|outcome| outcome.into.as_deref() == Some("d-1")),
        "{merged:?}"
    );
    world.became("ops", "bobs", "parked").await;
    world.settle().await;

    assert_eq!(world.order("alice"), ["d-1", "other", "titled"]);
    let kept = &world.first("d-1").reminder;
    assert_eq!(
        (&kept["count"], &kept["merged"]),
        (&json!(3), &json!([{ "id": "d-2", "data": 2 }, "d-3"]))
    );
    assert_eq!(
        (&kept["priority"], &kept["tags"], &kept["data"]),
        (&json!("high"), &json!(["ops", "db"]), &json!(1))
    );
    let other = &world.first("other").reminder;
    assert!(
        other.get("count").is_none() && other.get("merged").is_none(),
        "{other}"
    );
}

#[tokio::test]
async fn one_id_goes_to_many_users() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob", "carol"]).await;
    world
        .publish(
            "billing",
            [
                reminder("a", "alice"),
                reminder("a", "bob"),
                reminder("b", "bob"),
            ],
        )
        .await;
    world
        .publish(
            "billing",
            [
                reminder("a", "carol"),
                reminder("a", "alice"),
                reminder("fence", "carol"),
            ],
        )
        .await;
    world.taken(&["a", "b", "fence"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["a"]);
    assert_eq!(world.order("bob"), ["a", "b"]);
    assert_eq!(world.order("carol"), ["a", "fence"]);
    assert_eq!(world.repeats(), []);
}

#[tokio::test]
async fn one_id_with_another_text_is_refused() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let other = |text: &str| with(reminder("a", "alice"), json!({ "content": text }));
    world
        .publish(
            "billing",
            [reminder("a", "alice"), other("in the same set")],
        )
        .await;
    world
        .publish(
            "billing",
            [other("in another set"), reminder("fence", "alice")],
        )
        .await;
    world.taken(&["a", "fence"]).await;
    let rejected = world.all_rejected(2).await;
    assert!(
        rejected
            .iter()
            .all(|message| message.code() == "duplicate_id"),
        "{rejected:?}"
    );
    for text in ["in the same set", "in another set"] {
        assert!(
            rejected
                .iter()
                .any(|message| message.payload == other(text).to_string()),
            "{text}"
        );
    }
    world.settle().await;
    assert_eq!(world.order("alice"), ["a", "fence"]);
    assert_eq!(world.trail("billing", "a").await, ["delivered"]);
}

/// "`expires_at` … never delivered after this"
#[tokio::test]
async fn late_reminder_expires_at_once() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let late = |id: &str, user: &str| {
        with(
            reminder(id, user),
            json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        )
    };
    let soon = json!({ "expires_at": from_now(SignedDuration::from_mins(5)) });
    world
        .publish(
            "billing",
            [
                late("1", "alice"),
                with(reminder("2", "alice"), soon),
                late("3", "bob"),
            ],
        )
        .await;
    world.all_became("billing", &["1", "3"], "expired").await;
    world.taken(&["2"]).await;
    world.settle().await;
    assert_eq!(world.order("alice"), ["2"]);
    assert_eq!(
        world.trail("billing", "3").await,
        ["expired"],
        "it is not parked first"
    );
}

/// "Every reminder of every acknowledged set gets exactly one final outcome in the end, or is in a
/// mailbox."
#[tokio::test]
async fn every_reminder_is_settled_or_parked() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    for n in 0..20 {
        let twin = json!({ "content": format!("twin {n}") });
        let set = [
            reminder(format!("delivered-{n}"), "alice"),
            with(
                reminder(format!("rejected-{n}"), "alice"),
                json!({ "priority": "vital" }),
            ),
            with(
                reminder(format!("expired-{n}"), "alice"),
                json!({ "expires_at": "2020-01-01T00:00:00Z" }),
            ),
            reminder(format!("parked-{n}"), "bob"),
            with(reminder(format!("kept-{n}"), "alice"), twin.clone()),
            with(reminder(format!("merged-{n}"), "alice"), twin),
        ];
        world.publish("billing", set).await;
    }
    world.settle().await;
    let outcomes = world.outcomes.all().await;
    for (outcome, prefix) in [
        ("delivered", "delivered"),
        ("rejected", "rejected"),
        ("expired", "expired"),
        ("parked", "parked"),
        ("delivered", "kept"),
        ("merged", "merged"),
    ] {
        let ids: BTreeSet<_> = (0..20).map(|n| format!("{prefix}-{n}")).collect();
        let found = outcomes
            .iter()
            .filter(|one| one.outcome == outcome && ids.contains(&one.id))
            .count();
        assert_eq!(found, 20, "{prefix}");
    }
    assert_eq!(outcomes.len(), 120);
}

/// A set over the server's `max_payload` never becomes a message; what the server lets through is
/// taken.
#[tokio::test]
async fn largest_possible_set_is_accepted() {
    let world = World::without_members("max_payload: 8MB", &[]).await;
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    let large = |n: usize| {
        with(
            reminder(n.to_string(), "alice"),
            json!({ "content": format!("{n:03}{}", "c".repeat(60 * KIB)) }),
        )
    };
    world.publish("billing", (0..120).map(large)).await;
    world.taken(&numbers(0..120)).await;
    assert_eq!(world.order("alice"), numbers(0..120));
    world.settle().await;
}

/// Systems of one business may depend on the order in which they publish.
#[tokio::test]
async fn sources_keep_their_order() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let ids = numbers(0..600);
    for (number, id) in ids.iter().enumerate() {
        world
            .publish(
                ["billing", "hr", "claims"][number % 3],
                [reminder(id, "alice")],
            )
            .await;
    }
    world.taken(&ids).await;
    assert_eq!(world.order("alice"), ids);
}

/// The same message id of another source does not hide a set.
#[tokio::test]
async fn message_ids_count_within_a_source() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world
        .publish_set(
            "hr",
            json!({ "reminders": [reminder("h", "alice")] }),
            message_id("2026-11-22/1"),
        )
        .await;
    world.taken(&["h"]).await;
    tokio::time::sleep(JETSTREAM_FORGETS).await;
    let nameless = json!({ "reminders": [{ "user": "alice", "content": "once" }] });
    let first = world
        .publish_set("billing", nameless.clone(), message_id("2026-11-22/1"))
        .await;
    assert!(
        !first.duplicate,
        "JetStream took it for the other source's: {first:?}"
    );
    world.taken(&[format!("{}#0", first.sequence)]).await;
    // The same source's set is a repeat, also when JetStream itself has forgotten the first one.
    tokio::time::sleep(JETSTREAM_FORGETS).await;
    world
        .publish_bytes(
            "billing",
            nameless.to_string().as_bytes(),
            message_id("2026-11-22/1"),
        )
        .await;
    world.publish("billing", [reminder("fence", "alice")]).await;
    world.taken(&["fence"]).await;
    world.settle().await;
    assert_eq!(world.takes().len(), 3);
}

/// Longer than JetStream itself knows a message id in the stream of sets.
const JETSTREAM_FORGETS: std::time::Duration = std::time::Duration::from_millis(500);

#[tokio::test]
async fn made_up_ids_never_equal_chosen_ones() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob"]).await;
    let nameless = |user: &str, content: &str| json!({ "user": user, "content": content });
    let first = world
        .publish("billing", [nameless("alice", "A")])
        .await
        .sequence;
    world.taken(&[format!("{first}#0")]).await;
    // A set that is named like the one before, and one like the one that comes next.
    for name in [first, first + 3] {
        let set = json!({ "id": name.to_string(), "reminders": [nameless("bob", &format!("named {name}"))] });
        world.publish_set("billing", set, HeaderMap::new()).await;
    }
    let last = world
        .publish("billing", [nameless("alice", "last")])
        .await
        .sequence;
    assert_eq!(last, first + 3);
    world
        .eventually("all four are delivered", async || {
            let contents: Vec<_> = world
                .takes()
                .iter()
                .map(|take| take.reminder["content"].to_string())
                .collect();
            if contents.len() == 4 {
                Ok(())
            } else {
                Err(format!("{contents:?}"))
            }
        })
        .await;
}

#[tokio::test]
async fn an_id_is_new_after_a_quiet_window() {
    let world = World::start(&[("idempotency.window", "1s")]).await;
    world.app("app-1", &["alice"]).await;
    for number in 1..=3 {
        world.publish("billing", [reminder("daily", "alice")]).await;
        world
            .eventually(&format!("publication {number} is delivered"), async || {
                let takes = world.takes().len();
                if takes == number {
                    Ok(())
                } else {
                    Err(format!("{takes} are"))
                }
            })
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    }
}

/// An id with an outcome may be free: it was refused, or its window is over.
#[tokio::test]
async fn a_restart_takes_no_free_id_for_taken() {
    let world = World::start(&[("idempotency.window", "2s")]).await;
    let app = world.app("app-1", &["alice"]).await;
    world
        .publish_bytes(
            "billing",
            br#"{"reminders":[{"id":"fixed","user":""}]}"#,
            HeaderMap::new(),
        )
        .await;
    world.became("billing", "fixed", "rejected").await;
    world.publish("billing", [reminder("weekly", "bob")]).await;
    world.became("billing", "weekly", "parked").await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    app.connect(&["bob"]).await;
    world.became("billing", "weekly", "delivered").await;
    let member = world.member();
    member.signal("TERM");
    world.ended(&member).await;
    world
        .publish(
            "billing",
            [reminder("fixed", "alice"), reminder("weekly", "bob")],
        )
        .await;
    world.serve_as(member.name()).await;
    world.taken(&["fixed"]).await;
    world
        .eventually("the new one is delivered, too", async || {
            let times = world
                .takes()
                .iter()
                .filter(|take| take.id() == "weekly")
                .count();
            if times == 2 {
                Ok(())
            } else {
                Err(format!("{times} times"))
            }
        })
        .await;
}

#[tokio::test]
async fn ids_forgotten_early_are_warned_of_once() {
    let world = World::start(&[("idempotency.max_ids", "1000")]).await;
    for set in 0..3 {
        world
            .publish(
                "billing",
                (0..600).map(|n| reminder(format!("{set}-{n}"), "alice")),
            )
            .await;
    }
    let is_counted = async || {
        let metrics = world.member().probe("GET", "/metrics").await?.body;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("bellhop_idempotency_ids_forgotten_total "));
        let count = line
            .and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
            .unwrap_or(0.0);
        if count >= 800.0 {
            Ok(())
        } else {
            Err(format!("{count}"))
        }
    };
    world
        .eventually("forgotten ids are counted", is_counted)
        .await;
    assert_eq!(
        world
            .member()
            .log()
            .matches("raise `idempotency.max_ids`")
            .count(),
        1
    );
    world.settle().await;
}
