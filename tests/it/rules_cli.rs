//! `bellhop rules`, as the people who write rules use it.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Ended, World, bellhop, blocks, page, reminder, shell, with};

fn due() -> Value {
    json!({ "rules": [{ "name": "due", "keywords": ["due"], "action": "highlight" }],
        "tests": [{ "content": "overdue", "expect": { "unchanged": true } }] })
}

/// A server with its streams and buckets, without a member.
async fn world(nats_config: &str) -> World {
    let world = World::without_members(nats_config, &[]).await;
    world.run(&["setup"]).await.succeeded();
    world
}

async fn put(world: &World, tag: &str, document: &Value) -> Ended {
    world
        .run_with_input(&["rules", "put", tag, "-"], document.to_string().as_bytes())
        .await
}

async fn listed(world: &World) -> Vec<Value> {
    serde_json::from_str(&world.run(&["rules", "ls", "--json"]).await.succeeded()).unwrap()
}

#[track_caller]
fn failed(ended: &Ended, error: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains(error),
        "{error} is missing: {ended:?}"
    );
}

#[tokio::test]
async fn documents_are_stored_listed_printed_and_deleted() {
    let world = world("").await;
    let began = put(&world, "bil.ling", &due()).await.succeeded();
    assert_eq!(
        began,
        "rules of bil.ling stored as revision 1: 1 rule, 1 keyword, 0 patterns\n"
    );
    let stored = world.run(&["rules", "get", "bil.ling"]).await.succeeded();
    assert_eq!(stored, due().to_string(), "byte for byte");
    assert!(
        put(&world, "bil.ling", &due())
            .await
            .succeeded()
            .contains("exactly these rules already, as revision 1")
    );

    let mut more = due();
    more["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "no", "keywords": ["no"], "action": "block" }));
    let dry = ["rules", "put", "bil.ling", "-", "--dry-run"];
    let would = world
        .run_with_input(&dry, more.to_string().as_bytes())
        .await
        .succeeded();
    assert!(
        would.contains("would be stored, in place of revision 1: +1 rule (\"no\"); 2 rules"),
        "{would}"
    );
    assert_eq!(listed(&world).await[0]["revision"], 1);
    let replaced = put(&world, "bil.ling", &more).await.succeeded();
    assert!(
        replaced.contains("stored as revision 2, in place of revision 1: +1 rule"),
        "{replaced}"
    );
    let listed_now = listed(&world).await;
    let expected = json!({ "tag": "bil.ling", "rules": 2, "keywords": 2, "patterns": 0, "revision": 2,
        "bytes": more.to_string().len(), "updated": listed_now[0]["updated"] });
    assert_eq!(listed_now, [expected]);

    assert_eq!(
        world.run(&["rules", "rm", "bil.ling"]).await.code,
        Some(2),
        "there is no terminal to ask at"
    );
    world
        .run(&["rules", "rm", "bil.ling", "-f"])
        .await
        .succeeded();
    failed(
        &world.run(&["rules", "get", "bil.ling"]).await,
        "`bellhop rules ls`",
    );
    failed(
        &world.run(&["rules", "rm", "bil.ling", "-f"]).await,
        "has no rules",
    );
    put(&world, "bil.ling", &due()).await.succeeded();
}

#[tokio::test]
async fn invalid_rules_are_not_stored() {
    let world = world("max_payload: 512KB").await;
    let wrong =
        json!({ "rules": [{ "name": "x", "keywords": ["a", ""], "action": "block" }], "rule": [] });
    let refused = put(&world, "t", &wrong).await;
    failed(
        &refused,
        "standard input: unknown field `rule`; did you mean `rules`?\n",
    );
    failed(
        &refused,
        "standard input: rule 1 \"x\": keywords[1]: empty; it would match everywhere\n",
    );
    let failing = with(
        due(),
        json!({ "tests": [{ "name": "t", "content": "due", "expect": { "unchanged": true } }] }),
    );
    failed(
        &put(&world, "t", &failing).await,
        "1 of 1 test in standard input failed, so nothing is stored",
    );
    let keywords: Vec<_> = (0..100_000).map(|n| n.to_string()).collect();
    let large = json!({ "rules": [{ "name": "x", "keywords": keywords, "action": "block" }] });
    failed(&put(&world, "t", &large).await, "max_payload");
    assert_eq!(listed(&world).await, [Value::Null; 0]);

    let doubtful = json!({ "rules": [{ "name": "x", "keywords": ["a", "A"], "action": "block" }] });
    let stored = put(&world, "t", &doubtful).await;
    assert!(
        stored
            .stderr
            .contains("warning: rule 1 \"x\": keywords[1]: \"A\": keywords[0] is the same"),
        "{stored:?}"
    );
    stored.succeeded();
}

/// Whatever stands in the bucket, `ls` shows it.
#[tokio::test]
async fn a_document_that_cannot_be_used_is_shown() {
    let world = world("").await;
    put(&world, "good", &due()).await.succeeded();
    let bucket = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    bucket
        .put("bad", "{\"rules\":[{\"name\":\"x\"}]}".into())
        .await
        .unwrap();
    let listed = listed(&world).await;
    assert_eq!(
        (listed.len(), &listed[1]["problem"]),
        (2, &json!("rule 1 \"x\": missing field `action`")),
        "{listed:?}"
    );
    let table = world.run(&["rules", "ls"]).await.succeeded();
    assert!(
        table.ends_with("1 document, and 1 that cannot be used\n"),
        "{table}"
    );
    failed(
        &world.run(&["rules", "try", "--tag", "bad", "text"]).await,
        "@bad: rule 1 \"x\": missing field `action`",
    );
}

/// `try` tells what is delivered.
#[tokio::test]
async fn try_shows_the_delivered_text() {
    let world = world("").await;
    let names = json!({ "rules": [
        { "name": "names", "keywords": ["falcon"], "action": "replace", "with": "the project" },
        { "name": "soon", "keywords": ["today"], "action": "priority", "with": "high" }] });
    put(&world, "names", &names).await.succeeded();
    put(&world, "due", &due()).await.succeeded();
    let arguments = [
        "rules",
        "try",
        "--tag",
        "names",
        "--tag",
        "due",
        "--title",
        "Due!",
        "Falcon is due today",
        "--json",
    ];
    let tried: Value = serde_json::from_str(&world.run(&arguments).await.succeeded()).unwrap();
    assert_eq!(tried["content"], "the project is due today");
    assert_eq!(
        (&tried["verdict"], tried["found"].as_array().unwrap().len()),
        (&json!("delivered"), 4),
        "{tried}"
    );

    world.serve().await;
    world.app("app-1", &["alice"]).await;
    let fields =
        json!({ "title": "Due!", "content": "Falcon is due today", "tags": ["names", "due"] });
    world
        .publish("billing", [with(reminder("1", "alice"), fields)])
        .await;
    world.taken(&["1"]).await;
    let got = world.first("1").reminder.clone();
    for field in ["title", "content", "priority", "marks"] {
        assert_eq!(got[field], tried[field], "{field}");
    }
}

/// Files of one test, and commands on them that need no server.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, Value)]) -> Self {
        let dir = TempDir::with_prefix("bellhop-rules-").unwrap();
        files.iter().for_each(|(name, json)| {
            std::fs::write(dir.path().join(name), json.to_string()).unwrap()
        });
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    async fn rules(&self, arguments: &[&str], input: &str) -> Ended {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|one| {
                one.strip_suffix(".json")
                    .map_or((*one).into(), |_| self.path(one))
            })
            .collect();
        let arguments: Vec<&str> = ["rules"]
            .into_iter()
            .chain(arguments.iter().map(String::as_str))
            .collect();
        bellhop(&arguments, &[], input.as_bytes()).await
    }
}

#[tokio::test]
async fn lint_and_test_judge_by_their_exit_code() {
    let failing = with(
        due(),
        json!({ "tests": [{ "content": "due", "expect": { "content": "paid" } }] }),
    );
    let files = Files::new(&[
        ("good.json", due()),
        ("bad.json", json!({ "rules": 7 })),
        ("failing.json", failing),
    ]);
    let output = files
        .rules(&["lint", "good.json", "failing.json"], "")
        .await
        .succeeded();
    assert_eq!(output, "2 documents: 0 errors, 0 warnings\n");
    let bad = files
        .rules(&["lint", "good.json", "bad.json", "--json"], "")
        .await;
    assert_eq!((bad.code, bad.stderr.as_str()), (Some(1), ""));
    let problems: Value = serde_json::from_str(&bad.stdout).unwrap();
    let expected = json!([{ "document": files.path("bad.json"), "part": null, "place": null, "severity": "error",
        "problem": "`rules` is a number, not a list" }]);
    assert_eq!(problems, expected);
    let place = files.rules(&["lint", "-"], "{\"rules\":[\n  {,}]}").await;
    assert!(place.stdout.contains("at line 2 column 4"), "{place:?}");

    assert!(
        files
            .rules(&["test", "good.json"], "")
            .await
            .succeeded()
            .ends_with("1 passed, 0 failed\n")
    );
    let failed = files
        .rules(&["test", "good.json", "failing.json", "--json"], "")
        .await;
    let tests: Value = serde_json::from_str(&failed.stdout).unwrap();
    let passed: Vec<_> = tests
        .as_array()
        .unwrap()
        .iter()
        .map(|test| test["passed"].as_bool().unwrap())
        .collect();
    assert_eq!(
        (failed.code, passed),
        (Some(1), vec![true, false]),
        "{tests}"
    );
    assert_eq!(files.rules(&["test", "bad.json"], "").await.code, Some(1));
}

#[tokio::test]
async fn diff_counts_changes() {
    let new = json!({ "rules": [{ "name": "due", "keywords": ["due"], "action": "block" }] });
    let files = Files::new(&[("old.json", due()), ("new.json", new)]);
    let texts: String = (0..1_000)
        .map(|n| {
            if n % 100 == 7 {
                "due\n".to_owned()
            } else {
                format!("{n}\n")
            }
        })
        .collect();
    let output = files
        .rules(&["diff", "old.json", "new.json", "--over", "-"], &texts)
        .await
        .succeeded();
    assert!(
        output.starts_with(
            "line 8\n- [due]{highlight}\n+ not delivered: blocked by \"due\"\nline 108\n"
        ),
        "{output}"
    );
    assert!(output.ends_with("\n10 of 1,000 texts change\n"), "{output}");
    let set = json!({ "reminders": [{ "user": "u", "content": "x" }, { "user": "u", "title": "Due", "content": "x" }] });
    let output = files
        .rules(
            &[
                "diff",
                "old.json",
                "new.json",
                "--over",
                "-",
                "--json",
                "--exit-code",
            ],
            &set.to_string(),
        )
        .await;
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (output.code, &lines[0]["place"], &lines[1]),
        (
            Some(1),
            &json!("reminders[1]"),
            &json!({ "texts": 2, "changed": 1 })
        )
    );
    let same = ["diff", "old.json", "old.json", "--over", "-", "--exit-code"];
    assert_eq!(
        files.rules(&same, "due").await.succeeded(),
        "0 of 1 text change\n"
    );
}

/// The consoles in `docs/rules.md` show the real output.
#[tokio::test]
async fn the_docs_consoles_are_right() {
    let page = page("docs/rules.md");
    let dir = TempDir::with_prefix("bellhop-rules-").unwrap();
    let mut commands = 0;
    for (kind, text) in blocks(&page) {
        if let Some(file) = kind.strip_prefix("json ") {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        if kind == "console" {
            for session in format!("\n{text}").split("\n$ ").skip(1) {
                let (command, expected) = session.split_once('\n').unwrap_or((session, ""));
                assert_eq!(
                    said(command, dir.path()).await.trim_end(),
                    expected.trim_end(),
                    "{command}"
                );
                commands += 1;
            }
        }
    }
    assert!(commands > 5, "{commands}");
}

async fn said(command: &str, dir: &Path) -> String {
    let ended = shell(&format!("exec 2>&1\n{command}"), dir)
        .output()
        .await
        .unwrap();
    String::from_utf8(ended.stdout).unwrap()
}
