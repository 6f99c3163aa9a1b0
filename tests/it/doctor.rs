//! `bellhop doctor`: a healthy installation is called healthy; a fault put into a real server is
//! named, with its fix.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::stream::DiscardPolicy;
use bellhop_testkit::nats_server::{find, start_cluster};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{Ended, LATER, World, bellhop, reminder};

/// The doctor's output for programs.
struct Diagnosis {
    code: Option<i32>,
    report: Value,
}

impl Diagnosis {
    fn of(ended: Ended) -> Self {
        let report = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error} in {ended:?}"));
        Self {
            code: ended.code,
            report,
        }
    }

    fn status(&self) -> &str {
        self.report["status"].as_str().unwrap()
    }

    /// The findings of one check, each as its status and all that it says.
    fn of_check(&self, check: &str) -> Vec<(&str, String)> {
        let checks = self.report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["check"] == check);
        checks
            .map(|finding| (finding["status"].as_str().unwrap(), finding.to_string()))
            .collect()
    }

    /// The one finding of a check that has this status and says all of this.
    #[track_caller]
    fn says(&self, check: &str, status: &str, words: &[&str]) {
        let findings = self.of_check(check);
        let is_it = |(found, text): &&(&str, String)| {
            *found == status && words.iter().all(|word| text.contains(word))
        };
        let count = findings.iter().filter(is_it).count();
        assert_eq!(
            count, 1,
            "{check} should be {status} and say {words:?}, and says {findings:#?}"
        );
    }

    /// Returns the worst status of each check.
    fn worst(&self) -> BTreeMap<&str, &str> {
        let rank = |status: &str| {
            ["ok", "unknown", "warning", "critical"]
                .iter()
                .position(|known| *known == status)
        };
        let mut worst: BTreeMap<&str, &str> = BTreeMap::new();
        for finding in self.report["checks"].as_array().unwrap() {
            let (check, status) = (
                finding["check"].as_str().unwrap(),
                finding["status"].as_str().unwrap(),
            );
            let known = worst.entry(check).or_insert(status);
            if rank(status) > rank(known) {
                *known = status;
            }
        }
        worst
    }
}

async fn doctor(world: &World, more: &[&str]) -> Diagnosis {
    Diagnosis::of(
        world
            .run(&[&["doctor", "--format", "json"], more].concat())
            .await,
    )
}

/// Every check, and its verdict on a healthy installation. Only the system account sees how a
/// server writes.
const HEALTHY: [(&str, &str); 25] = [
    ("account", "ok"),
    ("backlog", "ok"),
    ("clock", "ok"),
    ("connection", "ok"),
    ("consumers", "ok"),
    ("credentials", "ok"),
    ("history", "ok"),
    ("lookalikes", "ok"),
    ("members", "ok"),
    ("names", "ok"),
    ("neighbours", "ok"),
    ("permissions", "ok"),
    ("positions", "ok"),
    ("secrets", "ok"),
    ("rejected", "ok"),
    ("replicas", "ok"),
    ("roles", "ok"),
    ("room", "ok"),
    ("routes", "ok"),
    ("rules", "ok"),
    ("servers", "ok"),
    ("setup", "ok"),
    ("storage", "ok"),
    ("sync", "unknown"),
    ("unanswered", "ok"),
];

/// Waits until the doctor finds nothing to fix.
async fn healthy(world: &World) {
    let look = async || {
        let diagnosis = doctor(world, &[]).await;
        if diagnosis.worst() == HEALTHY.into() {
            Ok(())
        } else {
            Err(format!("{:#}", diagnosis.report))
        }
    };
    world.within(LATER, "the doctor is content", look).await;
}

/// The names are what scripts and dashboards rest on.
#[tokio::test]
async fn healthy_installation_is_ok_in_every_format() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world
        .publish("billing", [reminder("1", "alice"), reminder("2", "bob")])
        .await;
    world.settle().await;
    let before = world.jetstream.query_account().await.unwrap();
    let diagnosis = doctor(&world, &[]).await;
    assert_eq!(diagnosis.worst(), HEALTHY.into(), "{:#}", diagnosis.report);
    assert_eq!((diagnosis.code, diagnosis.status()), (Some(0), "ok"));
    let figures = diagnosis.report["figures"].as_object().unwrap();
    let names: Vec<_> = figures.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "clock_skew_seconds",
            "members",
            "oldest_seconds",
            "parked_reminders",
            "parked_users",
            "rejected",
            "round_trip_seconds",
            "sets",
            "stored_bytes"
        ]
    );
    assert_eq!(
        [
            &figures["parked_reminders"],
            &figures["parked_users"],
            &figures["members"]
        ],
        [1, 1, 1]
    );

    let text = world.run(&["doctor"]).await.succeeded();
    assert!(
        text.contains("0 critical, 0 warnings, 1 unknown, 24 ok"),
        "{text}"
    );
    let line = world
        .run(&["doctor", "--format", "nagios"])
        .await
        .succeeded();
    assert!(
        line.starts_with("BELLHOP OK - ") && line.lines().count() == 1,
        "{line}"
    );
    let data = line.trim_end().split_once('|').unwrap().1;
    let figures: Vec<_> = data
        .split(' ')
        .map(|figure| figure.split_once('=').unwrap().0)
        .collect();
    assert_eq!(figures[..3], ["round_trip", "clock_skew", "sets"], "{line}");
    assert!(
        data.contains(" parked_reminders=1 ") && data.contains(" members=1 "),
        "{line}"
    );

    let after = world.jetstream.query_account().await.unwrap();
    // The member's own readers end meanwhile.
    assert!(
        after.streams == before.streams && after.consumers <= before.consumers,
        "it leaves nothing behind: {before:?} {after:?}"
    );
    world.settle().await;
}

/// An installation of this machine's, without a member, right after `bellhop setup`.
async fn set_up(nats_config: &str, settings: &[(&str, &str)]) -> World {
    let world = World::without_members(nats_config, settings).await;
    world.run(&["setup"]).await.succeeded();
    world
}

/// Does what the doctor says, where that is a command of ours.
async fn obey(world: &World, command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    assert_eq!(words[0], "bellhop");
    world.run(&words[1..]).await.succeeded();
}

#[tokio::test]
async fn setup_fixes_an_empty_server() {
    let world = World::without_members("", &[]).await;
    let diagnosis = doctor(&world, &[]).await;
    assert_eq!((diagnosis.code, diagnosis.status()), (Some(1), "critical"));
    diagnosis.says(
        "setup",
        "critical",
        &[
            "there is no stream BELLHOP_LOG",
            "\"fix\":\"bellhop setup\"",
        ],
    );
    diagnosis.says(
        "members",
        "critical",
        &["no member is alive", "\"fix\":\"bellhop serve\""],
    );
    obey(&world, "bellhop setup").await;
    let diagnosis = doctor(&world, &[]).await;
    assert_eq!(diagnosis.worst()["setup"], "ok");
    world.serve().await;
    healthy(&world).await;
}

#[tokio::test]
async fn changed_streams_are_reported_and_setup_fixes_them() {
    let world = World::start(&[]).await;
    let mut config = world.stream("BELLHOP_PARKED").await.config;
    config.allow_direct = false;
    world.jetstream.update_stream(config).await.unwrap();
    let scheduled = world
        .jetstream
        .get_stream("BELLHOP_SCHEDULED")
        .await
        .unwrap();
    scheduled.delete_consumer("due").await.unwrap();
    let diagnosis = doctor(&world, &[]).await;
    diagnosis.says(
        "setup",
        "warning",
        &[
            "stream BELLHOP_PARKED has allow_direct",
            "allow_direct true",
            "bellhop setup",
        ],
    );
    diagnosis.says(
        "setup",
        "critical",
        &["there is no consumer due of BELLHOP_SCHEDULED"],
    );
    obey(&world, "bellhop setup").await;
    healthy(&world).await;
}

#[tokio::test]
async fn another_number_of_partitions_is_reported() {
    let world = set_up("", &[]).await;
    let arguments = ["doctor", "--format", "json", "--set", "partitions=5"];
    let diagnosis = Diagnosis::of(bellhop(&arguments, &[("NATS_URL", &world.url)], b"").await);
    diagnosis.says("setup", "critical", &["4 partitions", "partitions = 4"]);
}

#[tokio::test]
async fn unreachable_server_and_small_payload_are_critical() {
    let nowhere = ["doctor", "--nats", "nats://127.0.0.1:1"];
    let diagnosis =
        Diagnosis::of(bellhop(&[&nowhere[..], &["--format", "json"]].concat(), &[], b"").await);
    diagnosis.says(
        "connection",
        "critical",
        &["nats://127.0.0.1:1", "bellhop check"],
    );
    assert_eq!(diagnosis.code, Some(1));
    let line = bellhop(&[&nowhere[..], &["--format", "nagios"]].concat(), &[], b"").await;
    assert!(
        line.stdout
            .starts_with("BELLHOP CRITICAL - connection: cannot connect"),
        "{line:?}"
    );
    assert_eq!((line.code, line.stdout.lines().count()), (Some(2), 1));

    let world = World::without_members("max_payload: 64KB", &[]).await;
    doctor(&world, &[]).await.says(
        "payload",
        "critical",
        &["max_payload 65536", "max_payload: 1MB"],
    );
    world.reconfigure_nats("max_payload: 1MB").await;
    assert!(doctor(&world, &[]).await.of_check("payload").is_empty());
}

/// Plugins have a code of their own for what they could not find out.
#[tokio::test]
async fn wrong_arguments_are_unknown_to_nagios() {
    let nagios = ["doctor", "--format", "nagios"];
    for (wrong, word) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["--set", "no.such=1"], "no.such"),
    ] {
        let ended = bellhop(&[&nagios[..], wrong].concat(), &[], b"").await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(
            ended.stdout.starts_with("BELLHOP UNKNOWN - ") && ended.stdout.contains(word),
            "{ended:?}"
        );
    }
    for (wrong, code) in [(&["--nonsense"][..], 2), (&["--set", "no.such=1"], 78)] {
        assert_eq!(
            bellhop(&[&["doctor"], wrong].concat(), &[], b"").await.code,
            Some(code)
        );
    }
    bellhop(&["doctor", "--format", "nagios", "--help"], &[], b"")
        .await
        .succeeded();
}

#[tokio::test]
async fn server_without_jetstream_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    std::fs::write(
        dir.path().join("plain.conf"),
        format!("host: 127.0.0.1\nport: {port}\n"),
    )
    .unwrap();
    let mut server = tokio::process::Command::new(find().await.unwrap().path)
        .args(["-c", dir.path().join("plain.conf").to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = format!("nats://127.0.0.1:{port}");
    let deadline = std::time::Instant::now() + LATER;
    while async_nats::connect(&url).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "no server at {url}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report =
        Diagnosis::of(bellhop(&["doctor", "--format", "json", "--nats", &url], &[], b"").await);
    report.says("jetstream", "critical", &["enable JetStream"]);
    server.kill().await.unwrap();
}

#[tokio::test]
async fn killed_member_is_reported_until_it_returns() {
    let world = World::start(&[("members.ttl", "2s")]).await;
    world.serve_as("second").await;
    world.member_named("second").kill();
    world
        .within(LATER, "the doctor misses the member", async || {
            let diagnosis = doctor(&world, &[]).await;
            match diagnosis.of_check("members").first() {
                Some(("warning", text))
                    if text.contains("second disappeared without shutting down") =>
                {
                    Ok(())
                }
                found => Err(format!("{found:?}")),
            }
        })
        .await;
    world.serve_as("second").await;
    healthy(&world).await;
}

/// A member that says that it holds less than it should, and one that holds what another one has.
#[tokio::test]
async fn unassigned_and_contested_work_is_reported() {
    let world = set_up("", &[]).await;
    let members = world
        .jetstream
        .get_key_value("bellhop_members")
        .await
        .unwrap();
    let says = async |name: &str, version: &str, partitions: &str, intake: bool| {
        let card = format!(
            r#"{{"version":"{version}","partitions":{partitions},"intake":{intake},"escalation":{intake},"history":{intake},"stopping":false}}"#
        );
        members.put(name, card.into()).await.unwrap();
    };
    says("one", "0.1.0", "[0,1]", true).await;
    says("two", "0.2.0", "[1]", false).await;
    let diagnosis = doctor(&world, &["--set", "members.ttl=60s"]).await;
    diagnosis.says("roles", "critical", &["no member works partition 2-3"]);
    diagnosis.says(
        "roles",
        "critical",
        &["more than one member works partition 1"],
    );
    diagnosis.says(
        "members",
        "warning",
        &["0.1.0, 0.2.0", "finish the upgrade"],
    );
    diagnosis.says(
        "consumers",
        "critical",
        &["no member reads consumer due of BELLHOP_SCHEDULED"],
    );
    diagnosis.says(
        "history",
        "critical",
        &["no member answers queries", "bellhop serve"],
    );
}

#[tokio::test]
async fn old_sets_without_a_member_are_reported() {
    let world = set_up("", &[]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    assert_eq!(doctor(&world, &[]).await.worst()["backlog"], "ok");
    world
        .within(LATER, "the set is old", async || {
            let diagnosis = doctor(&world, &[]).await;
            match diagnosis.of_check("backlog").first() {
                Some(("warning", text)) if text.contains("1 set wait in BELLHOP_LOG") => Ok(()),
                found => Err(format!("{found:?}")),
            }
        })
        .await;
    let held_back = "the intake, which has no owner, holds the log back: set 1 has waited for";
    doctor(&world, &[]).await.says(
        "positions",
        "warning",
        &[held_back, "bellhop partitions ls"],
    );
    let listed = async || {
        let listed = world.run(&["partitions", "ls", "--json"]).await.succeeded();
        serde_json::from_str::<Vec<Value>>(&listed).unwrap()
    };
    let (before, table) = (listed().await, world.run(&["partitions", "ls"]).await);
    assert_eq!(before.len(), 5);
    for (one, name) in before.iter().zip(["sets", "0", "1", "2", "3"]) {
        let fields = [
            &one["partition"],
            &one["position"],
            &one["behind"],
            &one["oldest_set"],
        ];
        assert_eq!(fields, [&json!(name), &json!(0), &json!(1), &json!(1)]);
        assert_eq!(one["owner"], Value::Null);
    }
    let table = table.succeeded();
    assert!(
        table.contains("sets is furthest behind, by 1 set: set 1 has waited for"),
        "{table}"
    );
    world.serve().await;
    world.settle().await;
    let worst = doctor(&world, &[]).await;
    let worst = worst.worst();
    assert_eq!((worst["backlog"], worst["positions"]), ("ok", "ok"));
    for one in listed().await {
        assert_eq!((&one["position"], &one["behind"]), (&json!(1), &json!(0)));
        assert!(
            one["owner"].as_str().unwrap().starts_with("member-1"),
            "{one}"
        );
        assert_eq!(one["oldest_set_at"], Value::Null);
    }
}

/// Work that a client has fetched and does not acknowledge, and a consumer that an operator paused.
#[tokio::test]
async fn stuck_consumers_are_reported() {
    let world = set_up("", &[]).await;
    let scheduled = world
        .jetstream
        .get_stream("BELLHOP_SCHEDULED")
        .await
        .unwrap();
    let mut config = scheduled.consumer_info("due").await.unwrap().config;
    config.max_ack_pending = 3;
    scheduled.update_consumer(config).await.unwrap();
    for _ in 0..5 {
        world
            .jetstream
            .publish("bellhop.due.billing", "x".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let mut lost = world.lose(5, ["BELLHOP_SCHEDULED", "due"]).await;
    for _ in 0..3 {
        lost.next().await.unwrap();
    }
    let pause = r#"{"pause_until":"2099-01-01T00:00:00Z"}"#.to_owned();
    world
        .client
        .request(
            "$JS.API.CONSUMER.PAUSE.BELLHOP_OUTCOMES.history",
            pause.into(),
        )
        .await
        .unwrap();
    let diagnosis = doctor(&world, &[]).await;
    diagnosis.says(
        "consumers",
        "warning",
        &[
            "due of BELLHOP_SCHEDULED has 3 unacknowledged messages",
            "bellhop instances ls",
        ],
    );
    diagnosis.says(
        "consumers",
        "critical",
        &[
            "history of BELLHOP_OUTCOMES is paused",
            "nats consumer resume",
        ],
    );
    obey(&world, "bellhop instances ls").await;
}

#[tokio::test]
async fn limits_that_drop_or_refuse_are_reported() {
    let world = set_up("", &[]).await;
    let bound = async |name: &str, max_bytes: i64, discard: DiscardPolicy| {
        let mut config = world.stream(name).await.config;
        (config.max_bytes, config.discard) = (max_bytes, discard);
        world.jetstream.update_stream(config).await.unwrap();
    };
    world
        .jetstream
        .publish("bellhop.rejected.x", vec![b'x'; 9_000].into())
        .await
        .unwrap()
        .await
        .unwrap();
    bound("BELLHOP_LOG", 1 << 20, DiscardPolicy::Old).await;
    bound("BELLHOP_REJECTED", 10_000, DiscardPolicy::Old).await;
    let diagnosis = doctor(&world, &[]).await;
    diagnosis.says(
        "room",
        "critical",
        &[
            "BELLHOP_LOG has max_bytes 1048576 and drops its oldest",
            "--discard=new",
        ],
    );
    diagnosis.says(
        "room",
        "warning",
        &[
            "BELLHOP_REJECTED holds 8.8 KiB of max_bytes 9.8 KiB",
            "--max-bytes=20000",
        ],
    );
    bound("BELLHOP_LOG", 1 << 20, DiscardPolicy::New).await;
    bound("BELLHOP_REJECTED", 20_000, DiscardPolicy::Old).await;
    assert_eq!(doctor(&world, &[]).await.worst()["room"], "ok");
}

#[tokio::test]
async fn refusals_and_unusable_rules_name_a_command() {
    let world = World::start(&[]).await;
    world
        .jetstream
        .publish("bellhop.sets.billing", "no JSON".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let rules = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    rules
        .put(
            "billing",
            r#"{"rules":[{"name":"x","patterns":["("],"action":"mask"}]}"#.into(),
        )
        .await
        .unwrap();
    world.quiet().await;
    let diagnosis = doctor(&world, &[]).await;
    diagnosis.says(
        "rejected",
        "warning",
        &[
            "1 message refused and kept, the last one",
            "bellhop rejected ls",
        ],
    );
    diagnosis.says(
        "rules",
        "critical",
        &[
            "the rules of billing cannot be used",
            "bellhop rules put billing billing.json",
        ],
    );
    assert_eq!(diagnosis.code, Some(1));
    let line = world.run(&["doctor", "--format", "nagios"]).await;
    assert!(
        line.stdout
            .starts_with("BELLHOP CRITICAL - rules: the rules of billing"),
        "{line:?}"
    );
    assert!(
        line.stdout.contains("; rejected: 1 message") && line.stdout.contains(" rejected=1 "),
        "{line:?}"
    );
    obey(&world, "bellhop rejected ls").await;
    obey(&world, "bellhop rules rm -f billing").await;
    let diagnosis = doctor(&world, &[]).await;
    assert_eq!(
        (
            diagnosis.worst()["rules"],
            diagnosis.status(),
            diagnosis.code
        ),
        ("ok", "warning", Some(0))
    );
    assert_eq!(
        world.run(&["doctor", "--format", "nagios"]).await.code,
        Some(1)
    );
}

/// Names that differ only in case or composition are users of their own, and people mistake them.
#[tokio::test]
async fn mailboxes_beside_lookalikes_are_reported() {
    let (composed, decomposed) = ("Jos\u{e9}", "Jose\u{301}");
    let world = World::start(&[]).await;
    world.app("app-1", &["Alice", decomposed]).await;
    let waiting = [reminder("1", "alice"), reminder("2", composed)];
    world.publish("billing", waiting).await;
    world.publish("billing", [reminder("3", "Alice")]).await;
    world.became("billing", "1", "parked").await;
    world.became("billing", "2", "parked").await;
    world.became("billing", "3", "delivered").await;
    let diagnosis = doctor(&world, &[]).await;
    diagnosis.says("lookalikes", "warning", &["2 users", "alice beside Alice"]);
    let info = async |user: &str| {
        let shown = world.run(&["mailbox", "info", user, "--json"]).await;
        let shown: Value = serde_json::from_str(&shown.succeeded()).unwrap();
        shown["lookalikes"].clone()
    };
    let expected = json!([{ "user": decomposed, "route": true, "parked": 0 }]);
    assert_eq!(info(composed).await, expected);
    assert_eq!(info("Alice").await, Value::Null, "a route is enough");
    let page = world.run(&["mailbox", "info", "alice"]).await.succeeded();
    let hint =
        "Alice, with 0 parked reminders and a route, is another user whose name looks like alice";
    assert!(page.contains(hint), "{page}");
    let page = world.run(&["mailbox", "info", "ALICE"]).await.succeeded();
    assert!(page.contains("nothing is parked for ALICE"), "{page}");
    for known in [
        "Alice, with 0",
        "alice, with 1 parked reminder and no route",
    ] {
        assert!(page.contains(known), "{page}");
    }
    world.run(&["erase", "-f", "alice"]).await.succeeded();
    world.run(&["erase", "-f", composed]).await.succeeded();
    let diagnosis = doctor(&world, &[]).await;
    assert_eq!(diagnosis.worst()["lookalikes"], "ok");
    world.publish("billing", [reminder("4", decomposed)]).await;
    world.became("billing", "4", "delivered").await;
}

#[tokio::test]
async fn many_marks_of_deleted_routes_are_reported() {
    let world = set_up("", &[]).await;
    let mut stored = Vec::new();
    for n in 0..1_001 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        let subject = format!("$KV.bellhop_routes.user-{n}.app-1");
        stored.push(
            world
                .jetstream
                .publish_with_headers(subject, headers, "".into())
                .await
                .unwrap(),
        );
    }
    for stored in stored {
        stored.await.unwrap();
    }
    doctor(&world, &[]).await.says(
        "routes",
        "warning",
        &[
            "0 routes, and 1,001 marks",
            "nats kv compact bellhop_routes",
        ],
    );
}

#[tokio::test]
async fn nearly_full_account_is_reported() {
    let limited = "accounts { A { jetstream { max_file: 1GB, max_streams: 11, max_consumers: 100 }, users: [{user: a, password: a}] } }\nno_auth_user: a";
    let world = World::without_members(limited, &[]).await;
    world.run(&["setup"]).await.succeeded();
    let diagnosis = doctor(&world, &[]).await;
    diagnosis.says(
        "account",
        "critical",
        &[
            "11 of 11 streams are used",
            "raise the account's limit of streams",
        ],
    );
}

// Other servers than the plain one.

/// One account for Bellhop, which needs no name, and the system account.
const ACCOUNTS: &str =
    "accounts { SYS { users: [{user: sys, password: s}] }, A { jetstream: enabled, users: [{user: a, password: a}] } }
system_account: SYS
no_auth_user: a";

#[tokio::test]
async fn the_system_account_sees_how_servers_write() {
    let as_user =
        |world: &World, user: &str| world.url.replace("nats://", &format!("nats://{user}@"));
    let world = set_up(ACCOUNTS, &[]).await;
    let diagnosis = doctor(&world, &["--system", &as_user(&world, "sys:s")]).await;
    diagnosis.says(
        "sync",
        "warning",
        &[
            "writes to its disk every 120.0 s",
            "sync_interval: always",
            "durable.conf",
        ],
    );
    diagnosis.says("servers", "ok", &["1 of them, nats-server 2."]);
    let diagnosis = doctor(&world, &["--system", &as_user(&world, "a:a")]).await;
    diagnosis.says(
        "sync",
        "unknown",
        &["no server answers", "not in the system account"],
    );

    let world = set_up(
        &format!("{ACCOUNTS}\njetstream {{ sync_interval: always }}"),
        &[],
    )
    .await;
    let diagnosis = doctor(&world, &["--system", &as_user(&world, "sys:s")]).await;
    diagnosis.says("sync", "ok", &["before it acknowledges"]);
}

/// The doctor's own connections.
const LOOKING: [&str; 5] = [
    "$SYS.REQ.USER.INFO",
    "$JS.API.INFO",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.DIRECT.GET.>",
];

fn restricted(publish: &[String], subscribe: &[String]) -> String {
    format!(
        "authorization {{ users: [{{user: a, password: a}}, \
         {{user: m, password: m, permissions: {{ publish: {publish:?}, subscribe: {subscribe:?} }} }}] }}\nno_auth_user: a"
    )
}

/// A user with what the doctor says, and nothing else, is enough for everything that a member does.
#[tokio::test]
async fn missing_permissions_are_reported_and_suffice() {
    let mut publish = LOOKING.map(ToOwned::to_owned).to_vec();
    publish.push("bellhop.seen.*".to_owned()); // A user without this permission is not one of these.
    let mut subscribe = vec!["_INBOX.>".to_owned()];
    let world =
        World::without_members(&restricted(&publish, &subscribe), &[("nats.timeout", "1s")]).await;
    world.run(&["setup"]).await.succeeded();
    let as_m = ["--set", "nats.user=m", "--set", "nats.password=m"];
    let diagnosis = doctor(&world, &as_m).await;
    diagnosis.says(
        "permissions",
        "critical",
        &[
            "not permitted to publish",
            "$JS.API.CONSUMER.UNPIN.BELLHOP_SCHEDULED.due",
        ],
    );
    diagnosis.says(
        "permissions",
        "critical",
        &["not permitted to subscribe", "bellhop.api.*"],
    );
    for finding in diagnosis.report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["check"] == "permissions")
    {
        let fix = finding["fix"].as_str().unwrap();
        let subjects: Vec<String> = serde_json::from_str(&fix[fix.find('[').unwrap()..]).unwrap();
        if fix.contains("publish: [") {
            &mut publish
        } else {
            &mut subscribe
        }
        .extend(subjects);
    }
    // Queries are the doctor's, too.
    publish.push("bellhop.api.history".to_owned());
    world
        .reconfigure_nats(&restricted(&publish, &subscribe))
        .await;

    let member = world.launch("restricted", &[("nats.user", "m"), ("nats.password", "m")]);
    world
        .within(LATER, "the member is ready", async || {
            member.is_ready().await
        })
        .await;
    world
        .put_associates("carol", r#"{"associates":["bob"]}"#)
        .await;
    world
        .publish(
            "billing",
            [
                reminder("1", "alice"),
                reminder("2", "bob"),
                reminder("3", "carol"),
            ],
        )
        .await;
    world.became("billing", "1", "parked").await;
    let app = world.app("app-1", &["alice", "bob"]).await;
    world.publish("billing", [reminder("4", "carol")]).await;
    world.taken(&["1", "2", "4"]).await;
    world
        .jetstream
        .publish("bellhop.sets.billing", "no JSON".into())
        .await
        .unwrap()
        .await
        .unwrap();
    world.settle().await;
    app.stop().await;
    world.run(&["erase", "-f", "carol"]).await.succeeded();
    assert!(
        !member
            .log()
            .to_lowercase()
            .contains("permissions violation"),
        "{}",
        member.log_tail()
    );
    assert_eq!(doctor(&world, &as_m).await.worst()["permissions"], "ok");
}

#[tokio::test]
async fn missing_and_lagging_copies_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = start_cluster(dir.path(), "").await.unwrap();
    let url = servers[0].url().to_owned();
    let run = async |arguments: &[&str], replicas: &str| {
        let set = [
            "--nats",
            &url,
            "--set",
            "partitions=1",
            "--set",
            "members.ttl=600s",
            "--set",
            replicas,
        ];
        bellhop(&[arguments, &set].concat(), &[], b"").await
    };
    let examine =
        async |replicas| Diagnosis::of(run(&["doctor", "--format", "json"], replicas).await);
    let until = std::time::Instant::now() + 2 * LATER;
    while run(&["setup"], "streams.replicas=3").await.code != Some(0) {
        assert!(
            std::time::Instant::now() < until,
            "the cluster does not find itself"
        );
    }
    while examine("streams.replicas=3").await.worst()["replicas"] != "ok" {
        assert!(
            std::time::Instant::now() < until,
            "{:#}",
            examine("streams.replicas=3").await.report
        );
    }
    let diagnosis = examine("streams.replicas=1").await;
    diagnosis.says(
        "replicas",
        "warning",
        &[
            "one copy of everything, on a cluster",
            "streams.replicas to 3",
        ],
    );
    assert!(
        diagnosis
            .of_check("setup")
            .iter()
            .all(|(status, text)| *status == "warning" && text.contains("num_replicas 3"))
    );

    servers[2].kill().await.unwrap();
    loop {
        let diagnosis = examine("streams.replicas=3").await;
        let is_it = |text: &str| {
            text.contains("BELLHOP_PARKED at nats-2 is") && text.contains("nats server report")
        };
        if diagnosis
            .of_check("replicas")
            .iter()
            .any(|(status, text)| *status == "warning" && is_it(text))
        {
            break;
        }
        assert!(std::time::Instant::now() < until, "{:#}", diagnosis.report);
    }
}

#[tokio::test]
async fn missing_system_credentials_name_the_option() {
    let world = World::start(&[]).await;
    let ended = world
        .run(&["doctor", "--system-creds", "/no/such.creds"])
        .await;
    assert!(
        ended.stdout.contains("`--system-creds` is /no/such.creds"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("nats.creds"), "{ended:?}");
}
