//! Rule documents in their bucket: from when on they count, for whom, and what a bad one does. The
//! effect of rules on texts is tested beside the engine.

use serde_json::{Value, json};

use crate::harness::{World, escape, reminder, with};

/// Puts a tag's document as a foreign program would.
async fn put(world: &World, tag: &str, document: &Value) {
    let rules = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    rules
        .put(escape(tag), document.to_string().into())
        .await
        .unwrap();
}

fn tagged(id: &str, content: &str) -> Value {
    with(
        reminder(id, "alice"),
        json!({ "tags": ["ta.g"], "content": content }),
    )
}

fn replacing(keyword: &str, with: &str) -> Value {
    json!({ "rules": [{ "name": "r", "keywords": [keyword], "action": "replace", "with": with }] })
}

/// Publishes probes until one arrives with this content.
async fn until_delivered(world: &World, name: &str, published: &str, expected: &str) {
    let mut count = 0;
    let probe = async || {
        count += 1;
        let id = format!("{name}-{count}");
        world.publish("billing", [tagged(&id, published)]).await;
        world.taken(&[&id]).await;
        let content = world.first(&id).reminder["content"].clone();
        if content == expected {
            Ok(())
        } else {
            Err(format!("{id} has {content}, not {expected}"))
        }
    };
    world.eventually("the rules", probe).await;
}

/// "Key `<tag>`, value the rule document of that tag", "a mark is added", "offsets in Unicode
/// scalar values of the text as delivered"
#[tokio::test]
async fn existing_rules_apply_to_first_reminder() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let document = json!({ "rules": [
        { "name": "card numbers", "patterns": ["\\b\\d{16}\\b"], "action": "mask", "with": "•" },
        { "name": "due", "keywords": ["due"], "action": "highlight" },
        { "name": "pay", "keywords": ["pay here"], "action": "link", "href": "https://pay.example/" },
        { "name": "late", "keywords": ["overdue"], "action": "priority", "with": "urgent" }] });
    put(&world, "ta.g", &document).await;
    let text = "4111111111111111 is overdue, 张三; due! Pay here";
    let untagged = with(
        tagged("untagged", text),
        json!({ "tags": ["other"], "title": "not the same" }),
    );
    world
        .publish("billing", [tagged("marked", text), untagged])
        .await;
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    world.taken(&["marked", "untagged"]).await;

    let marked = world.first("marked").reminder.clone();
    assert_eq!(
        marked["content"],
        "•••••••••••••••• is overdue, 张三; due! Pay here"
    );
    assert_eq!(marked["priority"], "urgent");
    let mark = |rule, start, end, action| json!({ "tag": "ta.g", "rule": rule, "field": "content", "start": start, "end": end, "action": action });
    let link = with(
        mark("pay", 38, 46, "link"),
        json!({ "href": "https://pay.example/" }),
    );
    assert_eq!(
        marked["marks"],
        json!([mark("due", 33, 36, "highlight"), link])
    );
    let untagged = world.first("untagged").reminder.clone();
    assert_eq!(
        (&untagged["content"], untagged.get("marks")),
        (&json!(text), None)
    );
    world.settle().await;
}

/// "a change takes effect on every running instance without a restart, whole or not at all"
#[tokio::test]
async fn rule_change_reaches_every_member() {
    let world = World::start(&[]).await;
    let second = world.serve().await;
    world.app("app-1", &["alice"]).await;
    until_delivered(&world, "none", "the falcon", "the falcon").await;
    put(&world, "ta.g", &replacing("falcon", "project")).await;
    until_delivered(&world, "put", "the falcon", "the project").await;
    put(&world, "ta.g", &replacing("falcon", "bird")).await;
    until_delivered(&world, "changed", "the falcon", "the bird").await;
    // A new owner knows them, too.
    world.member().kill();
    until_delivered(&world, "taken-over", "the falcon", "the bird").await;
    let rules = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    rules.delete(escape("ta.g")).await.unwrap();
    until_delivered(&world, "deleted", "the falcon", "the falcon").await;
    assert!(second.status().is_none());
    world.settle().await;
}

/// "one that arrives otherwise is ignored with the last good one kept"
#[tokio::test]
async fn bad_document_keeps_last_good_one() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    put(&world, "ta.g", &replacing("falcon", "project")).await;
    until_delivered(&world, "good", "the falcon", "the project").await;
    put(
        &world,
        "ta.g",
        &json!({ "rules": [{ "name": "r", "patterns": ["("], "action": "remove" }] }),
    )
    .await;
    put(&world, "other", &replacing("falcon", "bird")).await;
    let is_reported = async || {
        if world.member().log().contains("rules loaded tag=\"other\"") {
            Ok(())
        } else {
            Err("not reported".to_owned())
        }
    };
    world
        .eventually("the other tag's document", is_reported)
        .await;
    until_delivered(&world, "kept", "the falcon", "the project").await;
    // A process that starts now has never seen the good one in force.
    let second = world.serve().await;
    world
        .eventually("the second member", async || second.is_ready().await)
        .await;
    let log = world.member().log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("ignored"))
        .collect();
    let metrics = world.member().probe("GET", "/metrics").await.unwrap().body;
    for line in [
        "bellhop_rules_documents 2",
        "bellhop_rules_ignored_documents 1",
        "bellhop_rules_loads_total{result=\"ignored\"} 1",
        "bellhop_rules_loads_total{result=\"loaded\"} 2",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} is not in\n{metrics}"
        );
    }
    assert!(
        warnings.len() == 1 && warnings[0].contains("WARN") && warnings[0].contains("patterns[0]"),
        "{warnings:?}"
    );
    world.member().kill();
    until_delivered(&world, "taken-over", "the falcon", "the project").await;
    world.settle().await;
}

/// "`block` (the reminder is not delivered: outcome `blocked`)" with `tag` and `rule`
#[tokio::test]
async fn blocked_reminder_affects_no_other() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let document = json!({ "rules": [
        { "name": "forbidden", "keywords": ["verboten"], "action": "block" },
        { "name": "r", "keywords": ["falcon"], "action": "remove" }] });
    put(&world, "ta.g", &document).await;
    until_delivered(&world, "put", "falcon", "").await;
    world
        .publish(
            "billing",
            [
                tagged("bad", "this is VERBOTEN"),
                tagged("good", "this is not"),
            ],
        )
        .await;
    world.taken(&["good"]).await;
    let blocked = world.became("billing", "bad", "blocked").await;
    assert_eq!(
        (blocked.tag.as_deref(), blocked.rule.as_deref()),
        (Some("ta.g"), Some("forbidden"))
    );
    assert!(
        app.requests()
            .iter()
            .all(|request| !String::from_utf8_lossy(&request.body).contains("VERBOTEN"))
    );
    world.settle().await;
}

#[tokio::test]
async fn a_tag_without_usable_rules_is_refused() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let unusable = json!({ "rules": [{ "name": "r", "patterns": ["("], "action": "remove" }] });
    put(&world, "ta.g", &unusable).await;
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    let other = with(tagged("other", "the falcon"), json!({ "tags": ["other"] }));
    world
        .publish("billing", [tagged("tagged", "the falcon"), other])
        .await;
    world.taken(&["other"]).await;
    let refused = world.became("billing", "tagged", "rejected").await;
    assert_eq!(refused.error.as_deref(), Some("rules_unusable"));
    let stored = world.all_rejected(1).await;
    assert!(
        stored[0].detail().contains("`ta.g`"),
        "{}",
        stored[0].detail()
    );

    let metrics = world.member().probe("GET", "/metrics").await.unwrap().body;
    assert!(
        metrics.contains("\nbellhop_rules_refusing_tags 1\n"),
        "{metrics}"
    );
    let doctor = world.run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("the rules of ta.g cannot be used"),
        "{doctor:?}"
    );
    assert!(
        doctor
            .stdout
            .contains("reminders with this tag are refused"),
        "{doctor:?}"
    );

    put(&world, "ta.g", &replacing("falcon", "project")).await;
    let is_read = async || {
        let metrics = world.member().probe("GET", "/metrics").await?.body;
        if metrics.contains("\nbellhop_rules_refusing_tags 0\n") {
            Ok(())
        } else {
            Err("not read".to_owned())
        }
    };
    world.eventually("the good document", is_read).await;
    until_delivered(&world, "good", "the falcon", "the project").await;
    world.settle().await;
}

/// A deleted document is not an earlier version: who deleted it wanted no rules, and who puts one
/// wants some.
#[tokio::test]
async fn a_deleted_document_is_no_earlier_version() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    put(&world, "ta.g", &replacing("falcon", "project")).await;
    until_delivered(&world, "good", "the falcon", "the project").await;
    let rules = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    rules.delete(escape("ta.g")).await.unwrap();
    until_delivered(&world, "deleted", "the falcon", "the falcon").await;
    put(&world, "ta.g", &json!({ "rules": "none" })).await;
    let is_read = async || {
        if world
            .member()
            .log()
            .contains("document of rules cannot be used")
        {
            Ok(())
        } else {
            Err("not read".to_owned())
        }
    };
    world.eventually("the unusable document", is_read).await;
    world
        .publish("billing", [tagged("refused", "the falcon")])
        .await;
    let refused = world.became("billing", "refused", "rejected").await;
    assert_eq!(refused.error.as_deref(), Some("rules_unusable"));
    world.settle().await;
}

#[tokio::test]
async fn unreadable_rule_history_affects_one_tag() {
    let denied = "$JS.API.STREAM.MSG.GET.KV_bellhop_rules";
    let user =
        format!("{{ user: u, password: p, permissions: {{ publish: {{ deny: \"{denied}\" }} }} }}");
    let config =
        format!("accounts {{ A {{ jetstream: enabled, users: [ {user} ] }} }}\nno_auth_user: u");
    let world = World::without_members(&config, &[]).await;
    world.run(&["setup"]).await.succeeded();
    put(&world, "bad", &json!({ "rules": "none" })).await;
    put(&world, "ta.g", &replacing("falcon", "project")).await;
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    until_delivered(&world, "good", "the falcon", "the project").await;
    world
        .publish(
            "billing",
            [with(tagged("bad", "text"), json!({ "tags": ["bad"] }))],
        )
        .await;
    let refused = world.became("billing", "bad", "rejected").await;
    assert_eq!(refused.error.as_deref(), Some("rules_unusable"));
    let log = world.member().log();
    assert!(log.contains(&format!("publish to {denied}")), "{log}");
    assert!(
        !log.contains("watch of rules ended, restarting it"),
        "{log}"
    );
}
