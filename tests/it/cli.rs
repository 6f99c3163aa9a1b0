//! The commands that are clients: what a business system or an operator would do by hand.

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{World, bellhop, numbers, reminder, with};

fn lines(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

async fn sets(world: &World) -> u64 {
    world.stream("BELLHOP_LOG").await.state.last_sequence
}

#[tokio::test]
async fn publish_sends_one_reminder_from_its_arguments() {
    let world = World::start(&[]).await;
    world.app("app-1", &["a.b *>"]).await;
    let arguments = [
        "publish",
        "--source",
        "bil.ling",
        "--id",
        "inv-981",
        "--user",
        "a.b *>",
        "--title",
        "Invoice due",
        "--content",
        "Invoice 981 is due",
        "--tag",
        "billing",
        "--tag",
        "due",
        "--priority",
        "urgent",
        "--expires-at",
        "2096-11-29T00:00:00Z",
        "--data",
        r#"{"n": 1.50}"#,
        "--set-id",
        "7",
    ];
    world.run(&arguments).await.succeeded();
    world.taken(&["inv-981"]).await;
    let got = world.first("inv-981").reminder.clone();
    let due = json!({
        "id": "inv-981", "source": "bil.ling", "set": "7", "user": "a.b *>", "title": "Invoice due",
        "content": "Invoice 981 is due", "tags": ["billing", "due"], "priority": "urgent",
        "published_at": got["published_at"], "expires_at": "2096-11-29T00:00:00Z", "data": { "n": 1.50 },
    });
    assert_eq!(got, due);
}

#[tokio::test]
async fn publish_reads_a_set_a_list_or_lines() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let list = |ids: &[&str]| {
        ids.iter()
            .map(|id| reminder(id, "alice"))
            .collect::<Vec<_>>()
    };
    let set = json!({ "id": "s", "reminders": list(&["1", "2"]) }).to_string();
    let lines_of = list(&["5", "6"])
        .iter()
        .map(Value::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    for input in [
        set,
        json!(list(&["3", "4"])).to_string(),
        lines_of,
        reminder("7", "alice").to_string(),
    ] {
        world
            .run_with_input(&["publish", "-", "--source", "billing"], input.as_bytes())
            .await
            .succeeded();
    }
    world.taken(&["7"]).await;
    assert_eq!(world.order("alice"), ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(world.first("1").reminder["set"], "s");
}

/// A set over the server's max_payload is refused here, with what to do about it; the server would
/// close the connection.
#[tokio::test]
async fn publish_refuses_too_large_sets() {
    let world = World::without_members("max_payload: 512KB", &[]).await;
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    let list: Vec<_> = numbers(0..200)
        .iter()
        .map(|id| with(reminder(id, "alice"), json!({ "data": "d".repeat(10_000) })))
        .collect();
    let set = json!({ "reminders": list }).to_string();
    let refused = world
        .run_with_input(&["publish", "-", "--source", "billing"], set.as_bytes())
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stdout.is_empty() && refused.stderr.contains("max_payload"),
        "{refused:?}"
    );
    assert!(
        refused.stderr.lines().count() < 5,
        "one clear message: {refused:?}"
    );
    assert_eq!(sets(&world).await, 0, "nothing was sent");

    // As a list it is cut into sets that fit, in order.
    let list = json!(list).to_string();
    let output = world
        .run_with_input(
            &["publish", "-", "--source", "billing", "--json"],
            list.as_bytes(),
        )
        .await
        .succeeded();
    let output = lines(&output);
    assert!(output.len() > 3, "{output:?}");
    assert_eq!(
        output
            .iter()
            .map(|set| set["reminders"].as_u64().unwrap())
            .sum::<u64>(),
        200
    );
    world.taken(&numbers(0..200)).await;
    world.settle().await;
    assert_eq!(world.order("alice"), numbers(0..200));
}

/// Whatever the stream of sets takes, the stream of refused input takes too, with the reason.
#[tokio::test]
async fn largest_stored_set_can_be_rejected() {
    let world = World::start(&[]).await;
    let bound = i64::from(world.stream("BELLHOP_LOG").await.config.max_message_size);
    let most = usize::try_from(bound).unwrap_or(world.client.max_payload());
    let garbage = vec![b'x'; most];
    world
        .publish_bytes("billing", &garbage, HeaderMap::new())
        .await;
    let rejected = world.all_rejected(1).await;
    assert_eq!(
        (rejected[0].code(), rejected[0].payload.len()),
        ("not_json", most)
    );

    // A set that is good but for one reminder, which takes all of it.
    let bad = |bytes: usize| {
        json!({ "reminders": [with(reminder("1", ""), json!({ "data": "x".repeat(bytes) }))] })
            .to_string()
    };
    let body = bad(most - bad(0).len());
    assert_eq!(body.len(), most);
    world
        .publish_bytes("billing", body.as_bytes(), HeaderMap::new())
        .await;
    let rejected = world.all_rejected(2).await;
    assert_eq!(rejected[1].code(), "invalid_user");
    world.settle().await;
}

#[tokio::test]
async fn publish_sends_nothing_when_anything_is_wrong() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let good = reminder("1", "alice");
    let bad = [
        with(reminder("2", "alice"), json!({ "priority": "vital" })),
        with(reminder("3", &"u".repeat(129)), json!({})),
    ];
    let input = [&good, &bad[0], &bad[1]].map(Value::to_string).join("\n");
    let publish = async |more: &[&str]| {
        let arguments = [&["publish", "-", "--source", "billing"], more].concat();
        world.run_with_input(&arguments, input.as_bytes()).await
    };
    let refused = publish(&[]).await;
    assert_eq!(refused.code, Some(1));
    for part in ["line 2", "invalid_priority", "line 3", "invalid_user"] {
        assert!(
            refused.stderr.contains(part),
            "{part} is missing: {refused:?}"
        );
    }
    assert_eq!(sets(&world).await, 0);
    publish(&["--dry-run", "--skip-invalid"]).await.succeeded();
    assert_eq!(sets(&world).await, 0);
    publish(&["--skip-invalid"]).await.succeeded();
    world.taken(&["1"]).await;
    assert_eq!(sets(&world).await, 1);
}

#[tokio::test]
async fn message_id_makes_publishing_idempotent() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let input = numbers(0..3)
        .iter()
        .map(|id| reminder(id, "alice").to_string())
        .collect::<Vec<_>>()
        .join("\n");
    let arguments = [
        "publish",
        "-",
        "--source",
        "billing",
        "--msg-id",
        "2026-11-22",
        "--json",
    ];
    let first = lines(
        &world
            .run_with_input(&arguments, input.as_bytes())
            .await
            .succeeded(),
    );
    assert_eq!(first[0]["duplicate"], json!(false));
    world
        .run_with_input(&arguments, input.as_bytes())
        .await
        .succeeded();
    world.publish("billing", [reminder("fence", "alice")]).await;
    world.taken(&["fence"]).await;
    assert_eq!(world.order("alice"), ["0", "1", "2", "fence"]);
    let dry = lines(
        &world
            .run_with_input(&[&arguments[..], &["--dry-run"]].concat(), input.as_bytes())
            .await
            .succeeded(),
    );
    assert_eq!(
        dry[0]["msg_id"], "billing/2026-11-22",
        "another source's is another one"
    );
}

#[tokio::test]
async fn publish_of_nothing_is_a_mistake() {
    for (input, code) in [
        ("", 1),
        ("   \n", 1),
        ("[]", 1),
        ("nonsense", 1),
        (r#"{"reminders":[]}"#, 1),
    ] {
        let world_less = [
            "publish",
            "-",
            "--source",
            "billing",
            "--dry-run",
            "--nats",
            "nats://127.0.0.1:1",
        ];
        let ended = bellhop(&world_less, &[], input.as_bytes()).await;
        assert_eq!(ended.code, Some(code), "{input}: {ended:?}");
        assert!(
            ended.stdout.is_empty() && !ended.stderr.is_empty(),
            "{input}: {ended:?}"
        );
    }
    for arguments in [
        &["publish", "--user", "alice", "--content", "c"][..],
        &["publish", "--source", "billing", "--user", "alice"],
        &[
            "publish",
            "--source",
            "",
            "--user",
            "alice",
            "--content",
            "c",
        ],
        &[
            "publish",
            "file",
            "--source",
            "billing",
            "--user",
            "alice",
            "--content",
            "c",
        ],
    ] {
        let ended = bellhop(arguments, &[], b"").await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
    }
}

/// Refused input is fixed and published again; its reminders are accepted.
#[tokio::test]
async fn rejected_input_can_be_fixed_and_requeued() {
    let world = World::start(&[("mailbox.limit", "1")]).await;
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "alice")])
        .await;
    world.became("billing", "2", "rejected").await;
    world
        .publish_bytes("billing", b"{\"reminders\": oops}", HeaderMap::new())
        .await;
    world.all_rejected(2).await;
    let listed = world.run(&["rejected", "ls", "--json"]).await.succeeded();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let codes: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["not_json", "mailbox_full"]);
    assert_eq!(
        world
            .run(&["rejected", "info", "2", "--body"])
            .await
            .succeeded(),
        "{\"reminders\": oops}"
    );

    world.app("app-1", &["alice"]).await;
    world.taken(&["1"]).await;
    world.quiet().await;
    world.run(&["rejected", "requeue", "1"]).await.succeeded();
    world.taken(&["2"]).await;
    assert_eq!(world.order("alice"), ["1", "2"]);
    let fixed = world.dir().join("fixed.json");
    std::fs::write(
        &fixed,
        json!({ "reminders": [reminder("3", "alice")] }).to_string(),
    )
    .unwrap();
    world
        .run(&[
            "rejected",
            "requeue",
            "2",
            "--body",
            fixed.to_str().unwrap(),
        ])
        .await
        .succeeded();
    world.taken(&["3"]).await;
    let left = world.run(&["rejected", "ls", "--json"]).await.succeeded();
    assert_eq!(left.trim(), "[]");
}

/// An operator looks at members, connected users, app servers, and mailboxes.
#[tokio::test]
async fn existing_objects_can_be_listed() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    world
        .publish("billing", [reminder("1", "张三"), reminder("2", "张三")])
        .await;
    world.all_became("billing", &["1", "2"], "parked").await;
    let list = async |arguments: &[&str]| -> Value {
        let output = world
            .run(&[arguments, &["--json"]].concat())
            .await
            .succeeded();
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error} in {output}"))
    };
    let members = list(&["members", "ls"]).await;
    assert_eq!(
        (members.as_array().unwrap().len(), &members[0]["member"]),
        (1, &json!("member-1")),
        "{members}"
    );
    let routes = list(&["routes", "ls"]).await;
    assert_eq!(
        (&routes[0]["user"], &routes[0]["instance"]),
        (&json!("alice"), &json!("app-1")),
        "{routes}"
    );
    let instances = list(&["instances", "ls"]).await;
    assert_eq!(&instances[0]["instance"], &json!("app-1"), "{instances}");
    let mailboxes = list(&["mailbox", "ls"]).await;
    assert_eq!(
        (&mailboxes[0]["user"], &mailboxes[0]["parked"]),
        (&json!("张三"), &json!(2)),
        "{mailboxes}"
    );

    app.admit("张三");
    world
        .run(&["routes", "put", "张三", "app-1"])
        .await
        .succeeded();
    world.taken(&["1", "2"]).await;
    world
        .run(&["routes", "rm", "--force", "张三", "app-1"])
        .await
        .succeeded();
    assert!(!world.has_route("张三", "app-1").await);
}

#[tokio::test]
async fn associates_can_be_listed_put_and_removed() {
    let world = World::start(&[]).await;
    world.app("app-1", &["bob"]).await;
    world
        .run(&["associates", "put", "张三", "stranger", "bob"])
        .await
        .succeeded();
    world.publish("billing", [reminder("1", "张三")]).await;
    world
        .eventually("it reaches bob", async || {
            let id = format!("{:?}", std::time::Instant::now());
            world.publish("billing", [reminder(&id, "张三")]).await;
            let outcome = world.outcome("billing", &id).await;
            if outcome == "rerouted" {
                Ok(())
            } else {
                Err(outcome)
            }
        })
        .await;
    let listed = world
        .run(&["associates", "ls", "--user", "张三", "--json"])
        .await
        .succeeded();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["user"], &listed[0]["associates"]),
        (&json!("张三"), &json!(["stranger", "bob"]))
    );
    world.put_associates("alice", "none").await;
    let output = world.run(&["associates", "ls"]).await.succeeded();
    assert!(
        output.contains("stranger, bob") && output.contains("1 key that Bellhop ignores"),
        "{output}"
    );
    for wrong in [
        &["associates", "put", "bob", "bob"][..],
        &["associates", "put", "bob"],
    ] {
        assert_eq!(world.run(wrong).await.code, Some(2), "{wrong:?}");
    }
    world
        .run(&["associates", "rm", "-f", "张三"])
        .await
        .succeeded();
    assert_eq!(
        world.run(&["associates", "rm", "-f", "张三"]).await.code,
        Some(1)
    );
    world.settle().await;
}

#[tokio::test]
async fn bellhop_why_shows_steps_and_places() {
    let world = World::start(&[("mailbox.limit", "2")]).await;
    let why = async |id: &str| -> Value {
        let output = world
            .run(&["why", "bil.ling", id, "--json"])
            .await
            .succeeded();
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error} in {output}"))
    };
    let steps = |answer: &Value| -> Vec<String> {
        answer["trail"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["outcome"].as_str().unwrap().to_owned())
            .collect()
    };
    let same = with(
        reminder("same", "alice"),
        json!({ "content": "content of 1 for alice" }),
    );
    world
        .publish(
            "bil.ling",
            ["1", "\"2\"", "3"]
                .map(|id| reminder(id, "alice"))
                .into_iter()
                .chain([same]),
        )
        .await;
    world.became("bil.ling", "3", "rejected").await;
    world.settle().await;
    let waits = why("\"2\"").await;
    assert_eq!(steps(&waits), ["parked"]);
    assert_eq!(
        (&waits["places"][0]["in"], &waits["places"][0]["before"]),
        (&json!("mailbox"), &json!(1)),
        "{waits}"
    );
    let refused = why("3").await;
    assert_eq!(steps(&refused), ["rejected"]);
    assert_eq!(refused["places"][0]["code"], "mailbox_full", "{refused}");
    assert_eq!(why("same").await["trail"][0]["into"], "1");

    world.app("app-1", &["alice"]).await;
    world.became("bil.ling", "1", "delivered").await;
    world.settle().await;
    let delivered = why("1").await;
    assert_eq!(
        (steps(&delivered), &delivered["places"]),
        (vec!["parked".into(), "delivered".into()], &json!([]))
    );
    let output = world.run(&["why", "bil.ling", "1"]).await.succeeded();
    assert!(
        output.contains("parked") && output.contains("instance app-1"),
        "{output}"
    );
    assert_eq!(world.run(&["why", "bil.ling", "4"]).await.code, Some(1));
    assert_eq!(
        world.run(&["why", "hr", "1"]).await.code,
        Some(1),
        "the id is another source's"
    );
}

/// Names and texts may have direction marks, and texts control characters: a terminal shows them
/// and does not obey.
#[tokio::test]
async fn tables_escape_control_characters() {
    let world = World::start(&[]).await;
    let (user, id) = ("ev\u{202e}il", "1\u{2066}");
    let nasty = |id: &str| {
        with(
            reminder(id, user),
            json!({ "title": "t\u{1b}[2J\u{200f}", "content": "a\u{202d}\nb" }),
        )
    };
    world.publish("bil\u{61c}ling", [nasty(id)]).await;
    world
        .publish(
            "bil\u{61c}ling",
            [with(
                nasty("2\u{2066}"),
                json!({ "deliver_at": "2096-11-29T00:00:00Z" }),
            )],
        )
        .await;
    world
        .publish(
            "bil\u{61c}ling",
            [with(
                nasty("3\u{2066}"),
                json!({ "priority": "hi\u{202e}gh" }),
            )],
        )
        .await;
    world.outcome("bil\u{61c}ling", id).await;
    world.app("app-\u{2069}1", &["bob\u{202e}"]).await;
    world
        .run(&["associates", "put", user, "carol\u{200e}"])
        .await
        .succeeded();
    let recorded = async || {
        let output = world.run(&["history"]).await.succeeded();
        if output.contains("parked") {
            Ok(())
        } else {
            Err(output)
        }
    };
    world.eventually("the history has it", recorded).await;
    for command in [
        &["mailbox", "ls"][..],
        &["mailbox", "info", user],
        &["history"],
        &["why", "bil\u{61c}ling", id],
        &["why", "bil\u{61c}ling", "no\u{202e}ne"],
        &["rejected", "ls"],
        &["scheduled", "ls"],
        &["associates", "ls"],
        &["routes", "ls"],
        &["instances", "ls"],
        &["doctor"],
        &["mailbox", "purge", user],
        &["mailbox", "info", "no\u{202e}ne"],
    ] {
        let ended = world.run(command).await;
        let output = ended.stdout + &ended.stderr;
        let is_obeyed = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!output.contains(is_obeyed), "{command:?}: {output:?}");
        assert!(
            output.contains(r"\u{") || command == ["doctor"],
            "{command:?}: {output:?}"
        );
    }
}
