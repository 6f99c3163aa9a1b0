//! `bellhop setup` and `bellhop check`, the layers of the configuration, and exit codes: 0, 1
//! failure, 2 usage, 78 configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::stream::Compression;
use serde_json::{Value, json};

use crate::harness::{LATER, World, bellhop, reminder};

const STREAMS: [&str; 11] = [
    "BELLHOP_OUTCOMES",
    "BELLHOP_PARKED",
    "BELLHOP_REJECTED",
    "BELLHOP_SCHEDULED",
    "BELLHOP_SEEN",
    "BELLHOP_LOG",
    "KV_bellhop_associates",
    "KV_bellhop_members",
    "KV_bellhop_positions",
    "KV_bellhop_routes",
    "KV_bellhop_rules",
];

async fn streams(world: &World) -> BTreeSet<String> {
    use futures_util::TryStreamExt;
    world.jetstream.stream_names().try_collect().await.unwrap()
}

fn changes(stdout: &str) -> Vec<Value> {
    let output: Value =
        serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error} in {stdout}"));
    output["changes"].as_array().unwrap().clone()
}

#[tokio::test]
async fn dry_run_reports_and_changes_nothing() {
    let world = World::without_members("", &[]).await;
    let output = world.run(&["setup", "--dry-run"]).await.succeeded();
    for name in STREAMS {
        assert!(
            output.contains(name.trim_start_matches("KV_")),
            "{name} is missing in\n{output}"
        );
    }
    assert!(
        output.contains("consumer due of BELLHOP_SCHEDULED"),
        "{output}"
    );
    assert!(
        output.lines().all(|line| line.starts_with("would create ")),
        "{output}"
    );
    assert_eq!(streams(&world).await, BTreeSet::new());
    let json = world
        .run(&["setup", "--dry-run", "--json"])
        .await
        .succeeded();
    assert_eq!(changes(&json).len(), output.lines().count());
    assert_eq!(streams(&world).await, BTreeSet::new());
}

#[tokio::test]
async fn setup_twice_is_once() {
    let world = World::without_members("", &[("mailbox.escalate_after.high", "1h")]).await;
    let first = world.run(&["setup"]).await.succeeded();
    assert_eq!(streams(&world).await, STREAMS.map(ToOwned::to_owned).into());
    assert!(
        first.lines().all(|line| line.starts_with("create ")),
        "{first}"
    );
    for again in [&["setup"][..], &["setup", "--dry-run"]] {
        let output = world.run(again).await.succeeded();
        assert!(
            !output.contains("create") && !output.contains("update"),
            "{output}"
        );
    }
    assert_eq!(
        changes(&world.run(&["setup", "--json"]).await.succeeded()),
        Vec::<Value>::new()
    );
    // What `serve` needs is what `setup` makes.
    world.serve().await;
    assert_eq!(
        changes(&world.run(&["setup", "--json"]).await.succeeded()),
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn serve_creates_missing_streams() {
    let world = World::start(&[]).await;
    assert_eq!(streams(&world).await, STREAMS.map(ToOwned::to_owned).into());
    assert_eq!(
        changes(&world.run(&["setup", "--json"]).await.succeeded()),
        Vec::<Value>::new()
    );
}

/// Positions and mailboxes lie under the partitions' numbers, so their count is fixed.
#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    for command in [
        &["setup"][..],
        &["setup", "--dry-run"],
        &["serve", "--http", "127.0.0.1:0"],
    ] {
        let arguments = [command, &["--set", "partitions=5"]].concat();
        let refused = bellhop(&arguments, &[("NATS_URL", &world.url)], b"").await;
        assert_eq!(refused.code, Some(1), "{command:?}: {refused:?}");
        assert!(
            refused.stderr.contains("4 partitions") && refused.stderr.contains("partitions = 4"),
            "{refused:?}"
        );
    }
    world.run(&["setup"]).await.succeeded();
}

/// Copies are added and taken away while reminders flow: no pause, nothing lost, repeated or out of
/// order.
#[tokio::test]
async fn the_number_of_replicas_is_changed_under_load() {
    const TOTAL: usize = 2_000;
    let world = World::on_cluster(&[("nats.timeout", "2s")]).await;
    world.serve().await;
    world.crowd().await;
    let change = async {
        for (replicas, taken) in [(3, TOTAL / 4), (1, TOTAL / 2)] {
            world.taken_so_far(taken).await;
            let output = world
                .run(&["setup", "--set", &format!("streams.replicas={replicas}")])
                .await
                .succeeded();
            assert!(
                output.contains("update stream BELLHOP_LOG: num_replicas"),
                "{output}"
            );
            for name in STREAMS {
                let has_all = async || {
                    let stream = world
                        .jetstream
                        .get_stream(name)
                        .await
                        .map_err(|error| error.to_string())?;
                    let peers = stream
                        .cached_info()
                        .cluster
                        .clone()
                        .map_or(Vec::new(), |cluster| cluster.replicas);
                    let is_whole =
                        peers.len() + 1 == replicas && peers.iter().all(|peer| peer.current);
                    if is_whole {
                        Ok(())
                    } else {
                        Err(format!("{peers:?}"))
                    }
                };
                world
                    .within(LATER, &format!("{name} has {replicas} copies"), has_all)
                    .await;
            }
        }
    };
    tokio::join!(world.flow(0..TOTAL, 200), change);
    world.complete(TOTAL).await;
    assert_eq!(world.repeats(), []);
}

/// The operator decides the settings that Bellhop does not: compression, description, bounds,
/// metadata.
#[tokio::test]
async fn an_operators_own_changes_survive() {
    let world = World::start(&[]).await;
    for name in STREAMS {
        let mut config = world.stream(name).await.config;
        config.description = Some("ours".into());
        config.compression = Some(Compression::S2);
        config.max_bytes = 1 << 29;
        config.metadata.insert("team".into(), "messaging".into());
        world.jetstream.update_stream(config).await.unwrap();
    }
    assert_eq!(
        changes(&world.run(&["setup", "--json"]).await.succeeded()),
        Vec::<Value>::new()
    );
    // A change of a setting is made, and of nothing else.
    let output = world
        .run(&["setup", "--json", "--set", "streams.outcomes_age=2d"])
        .await
        .succeeded();
    let output = changes(&output);
    assert_eq!(output.len(), 1, "{output:?}");
    assert_eq!(output[0]["what"], "stream BELLHOP_OUTCOMES");
    let fields: Vec<_> = output[0]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| &field[0])
        .collect();
    assert_eq!(fields, ["max_age"]);
    world.serve().await;
    for name in STREAMS {
        let config = world.stream(name).await.config;
        assert_eq!(config.description.as_deref(), Some("ours"), "{name}");
        assert_eq!(config.compression, Some(Compression::S2), "{name}");
        assert_eq!(config.max_bytes, 1 << 29, "{name}");
        assert_eq!(
            config.metadata.get("team").map(String::as_str),
            Some("messaging"),
            "{name}"
        );
    }
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.taken(&["1"]).await;
}

/// A change of Bellhop's own fields is reported, field by field, and corrected.
#[tokio::test]
async fn breaking_change_is_reported_and_fixed() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let mut config = world.stream("BELLHOP_PARKED").await.config;
    config.allow_direct = false;
    world.jetstream.update_stream(config).await.unwrap();
    let output = world.run(&["setup", "--dry-run"]).await.succeeded();
    assert!(
        output.contains("would update stream BELLHOP_PARKED") && output.contains("allow_direct"),
        "{output}"
    );
    assert!(!world.stream("BELLHOP_PARKED").await.config.allow_direct);
    world.run(&["setup"]).await.succeeded();
    assert!(world.stream("BELLHOP_PARKED").await.config.allow_direct);
}

/// A deleted consumer comes back with `setup`, and the flow with it, without a
/// restart.
#[tokio::test]
async fn setup_brings_a_deleted_consumer_back() {
    let world = World::start(&[("partitions", "1")]).await;
    world.app("app-1", &["alice"]).await;
    let handle = world
        .jetstream
        .get_stream("BELLHOP_SCHEDULED")
        .await
        .unwrap();
    handle.delete_consumer("due").await.unwrap();
    let soon = jiff::Timestamp::now() + Duration::from_secs(2);
    let later = json!({ "id": "1", "user": "alice", "content": "c", "deliver_at": soon });
    world.publish("billing", [later]).await;
    let output = world.run(&["setup"]).await.succeeded();
    assert!(
        output.contains("create consumer due of BELLHOP_SCHEDULED"),
        "{output}"
    );
    world.taken(&["1"]).await;
    world.settle().await;
}

/// Two installations in one account: `bellhop` is the default of a configurable prefix.
#[tokio::test]
async fn prefixes_separate_installations() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let other = world.launch("other", &[("prefix", "acme")]);
    world
        .eventually("the other installation is ready", async || {
            other.is_ready().await
        })
        .await;
    let made: BTreeSet<_> = streams(&world).await;
    let acme = STREAMS.map(|name| {
        name.replace("BELLHOP_", "ACME_")
            .replace("bellhop_", "acme_")
    });
    assert_eq!(
        made,
        STREAMS
            .map(ToOwned::to_owned)
            .into_iter()
            .chain(acme)
            .collect()
    );

    let app = world.app_at("app-2", Some("acme.app.app-2"), &[]).await;
    app.admit("alice");
    let routes = world.jetstream.get_key_value("acme_routes").await.unwrap();
    routes.put("alice.app-2", "".into()).await.unwrap();
    let set = |id: &str| json!({ "reminders": [reminder(id, "alice")] }).to_string();
    world
        .jetstream
        .publish("acme.sets.billing", set("theirs").into())
        .await
        .unwrap()
        .await
        .unwrap();
    world.publish("billing", [reminder("ours", "alice")]).await;
    world.taken(&["ours", "theirs"]).await;
    assert_eq!(
        (
            world.first("ours").app.as_str(),
            world.first("theirs").app.as_str()
        ),
        ("app-1", "app-2")
    );
    world.settle().await;
    assert!(
        world
            .outcomes
            .all()
            .await
            .iter()
            .all(|outcome| outcome.id == "ours")
    );
}

// The configuration.

#[tokio::test]
async fn check_prints_every_setting_with_its_origin() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bellhop.toml");
    std::fs::write(
        &file,
        "partitions = 8\n[heartbeat]\nlease = \"3s\"\n[mailbox]\nlimit = 7\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let variables = [
        ("BELLHOP_MAILBOX_LIMIT", "8"),
        ("BELLHOP_DELIVERY_TIMEOUT", "4s"),
        ("NATS_URL", "nats://one:1"),
    ];
    let arguments = ["check", "--config", file, "--set", "delivery.timeout=5s"];
    let output = bellhop(&arguments, &variables, b"").await.succeeded();
    let line = |name: &str| {
        let is_its = |line: &&str| line.split_whitespace().next() == Some(name);
        let line = output
            .lines()
            .find(is_its)
            .unwrap_or_else(|| panic!("no {name} in\n{output}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("partitions"), format!("partitions = 8 # {file}"));
    assert_eq!(
        line("heartbeat.lease"),
        format!("heartbeat.lease = \"3s\" # {file}")
    );
    assert_eq!(
        line("mailbox.limit"),
        "mailbox.limit = 8 # $BELLHOP_MAILBOX_LIMIT"
    );
    assert_eq!(line("delivery.timeout"), "delivery.timeout = \"5s\" # flag");
    assert_eq!(line("nats.url"), "nats.url = \"nats://one:1\" # $NATS_URL");
    assert_eq!(
        line("heartbeat.timeout"),
        "heartbeat.timeout = \"1s\" # default"
    );

    let arguments = [&arguments[..], &["--json"]].concat();
    let json: Value =
        serde_json::from_str(&bellhop(&arguments, &variables, b"").await.succeeded()).unwrap();
    assert_eq!(
        json["mailbox.limit"],
        json!({ "value": 8, "from": "$BELLHOP_MAILBOX_LIMIT" })
    );
    assert_eq!(json["partitions"], json!({ "value": 8, "from": file }));
    assert_eq!(json.as_object().unwrap().len(), output.lines().count());
}

/// The defaults that the contract names.
#[tokio::test]
async fn the_contracts_defaults_are_the_defaults() {
    let output = bellhop(&["check", "--json"], &[], b"").await.succeeded();
    let settings: Value = serde_json::from_str(&output).unwrap();
    for (name, value) in [
        ("prefix", json!("bellhop")),
        ("partitions", json!(32)),
        ("http", json!("127.0.0.1:9411")),
        ("idempotency.window", json!("10m")),
        ("delivery.timeout", json!("2s")),
        ("delivery.max_bytes", json!(262_144)),
        ("heartbeat.timeout", json!("1s")),
        ("heartbeat.max_users", json!(1_000)),
        ("heartbeat.backoff_max", json!("30s")),
        ("heartbeat.lease", json!("10s")),
    ] {
        assert_eq!(
            settings[name],
            json!({ "value": value, "from": "default" }),
            "{name}"
        );
    }
}

#[tokio::test]
async fn check_shows_no_secret_and_warns_of_strangers() {
    let variables = [
        ("BELLHOP_NATS_PASSWORD", "hunter2"),
        ("NATS_TOKEN", "hunter3"),
        ("BELLHOP_HEARTBEAT_LEESE", "1s"),
    ];
    for arguments in [&["check"][..], &["check", "--json"]] {
        let ended = bellhop(arguments, &variables, b"").await;
        assert!(
            !ended.stdout.contains("hunter") && !ended.stderr.contains("hunter"),
            "{ended:?}"
        );
        assert!(ended.stdout.contains("***"), "{ended:?}");
        assert!(
            ended.stderr.contains("BELLHOP_HEARTBEAT_LEESE"),
            "{ended:?}"
        );
        assert_eq!(ended.code, Some(0));
    }
}

#[tokio::test]
async fn passwords_are_printed_in_no_form() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bellhop.toml");
    for url in [
        "host=h user=b password=hunter2",
        "postgres://b:hunter2@h/d",
        "postgres://b:hunter2/x@h/d",
        "postgres:///d?password=hunter2",
        "mysql://b:hunter2@h",
        "b:hunter2@h/d",
    ] {
        for arguments in [&["check"][..], &["check", "--json"]] {
            let ended = bellhop(arguments, &[("BELLHOP_HISTORY_URL", url)], b"").await;
            assert!(
                !(ended.stdout.clone() + &ended.stderr).contains("hunter2"),
                "{url}: {ended:?}"
            );
        }
    }
    for url in [
        "nats://u:hunter2@h",
        "nats://u:hunter2,x@h",
        "nats://h/?auth=hunter2",
    ] {
        let ended = bellhop(&["check"], &[("NATS_URL", url)], b"").await;
        assert!(
            !(ended.stdout.clone() + &ended.stderr).contains("hunter2"),
            "{url}: {ended:?}"
        );
    }
    for broken in [
        "[nats]\npassword = hunter2",
        "[nats]\npassword = \"hunter2",
        "[nats]\nuser = 1 password = 'hunter2'",
    ] {
        std::fs::write(&file, broken).unwrap();
        let ended = bellhop(&["check", "--config", file.to_str().unwrap()], &[], b"").await;
        assert_eq!(ended.code, Some(78));
        assert!(
            ended.stderr.contains("line 2, column ") && !ended.stderr.contains("hunter2"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn failed_connections_print_no_password() {
    for url in [
        "nats://u:hunter2@127.0.0.1:1",
        "nats://hunter2@127.0.0.1:1",
        "u:hunter2@127.0.0.1:1",
        "tls://u:hunter2@127.0.0.1:1",
        "nats://127.0.0.1:1,nats://u:hunter2@127.0.0.1:1",
        "nats://u:a,hunter2@127.0.0.1:1",
        "nats://u:a@hunter2@127.0.0.1:1",
        "nats://u:a/hunter2@127.0.0.1:1",
        "nats://u:hunter2@127.0.0.1:port",
        "nats://127.0.0.1:1/?auth=hunter2",
    ] {
        for command in [
            &["setup"][..],
            &["members", "ls"],
            &["doctor"],
            &["serve", "--http", "127.0.0.1:0"],
        ] {
            let ended = bellhop(command, &[("NATS_URL", url)], b"").await;
            assert!(
                !(ended.stdout.clone() + &ended.stderr).contains("hunter2"),
                "{command:?} {url}: {ended:?}"
            );
            assert_ne!(ended.code, Some(0), "{command:?} {url}");
        }
    }
}

#[tokio::test]
async fn a_log_has_no_password_of_the_history() {
    let world = World::start(&[("history.url", "postgres://b:hunter2@127.0.0.1:1/d")]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    let member = world.member();
    let has_failed = async || match member.log() {
        log if log.contains("WARN") => Ok(()),
        log => Err(log),
    };
    world
        .within(LATER, "the history cannot be written", has_failed)
        .await;
    assert!(!member.log().contains("hunter2"), "{}", member.log());
}

#[tokio::test]
async fn secret_files_that_all_can_read_are_reported() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::without_members("", &[]).await;
    let file = world.dir().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let setting = ("history.password_file", file.to_str().unwrap());
    let member = world.launch("member-1", &[setting]);
    let warned = async || match member.log() {
        log if log.contains("every user of this machine can read")
            && log.contains("chmod o-rwx") =>
        {
            Ok(())
        }
        log => Err(log),
    };
    world.eventually("it warns", warned).await;
    world
        .eventually("it is ready", async || member.is_ready().await)
        .await;
    let output = world
        .run(&["doctor", "--set", &format!("{}={}", setting.0, setting.1)])
        .await
        .stdout;
    assert!(
        output.contains("the file of history.password_file"),
        "{output}"
    );
}

#[tokio::test]
async fn wrong_configuration_exits_78_and_names_setting() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (unknown, wrong) = (
        file("unknown.toml", "[heartbeat]\nleese = \"1s\"\n"),
        file("wrong.toml", "partitions = \"8\"\n"),
    );
    let (broken, missing) = (
        file("broken.toml", "partitions = = 8\n"),
        dir.path().join("missing.toml"),
    );
    let config = |path: &str| vec!["--config".to_owned(), path.to_owned()];
    let set = |pair: &str| vec!["--set".to_owned(), pair.to_owned()];
    let cases = [
        (config(&unknown), "heartbeat.leese"),
        (config(&wrong), "partitions"),
        (config(&broken), "broken.toml"),
        (config(missing.to_str().unwrap()), "missing.toml"),
        (set("no.such=1"), "no.such"),
        (set("heartbeat.lease=soon"), "heartbeat.lease"),
        (set("heartbeat.lease=-1s"), "heartbeat.lease"),
        (set("mailbox.limit=0"), "mailbox.limit"),
        (set("mailbox.limit=many"), "mailbox.limit"),
        (set("partitions=1025"), "partitions"),
        (set("heartbeat.max_users=1001"), "heartbeat.max_users"),
        (set("heartbeat.backoff_max=31s"), "heartbeat.backoff_max"),
        (set("delivery.max_bytes=262145"), "delivery.max_bytes"),
        (set("prefix=a.b"), "prefix"),
        (set("name=a b"), "name"),
        (set("http=here"), "http"),
        (set("streams.replicas=2"), "streams.replicas"),
    ];
    for (arguments, name) in &cases {
        for command in ["check", "serve", "setup"] {
            let arguments: Vec<_> = [command]
                .into_iter()
                .chain(arguments.iter().map(String::as_str))
                .collect();
            let ended = bellhop(&arguments, &[("NATS_URL", "nats://127.0.0.1:1")], b"").await;
            assert_eq!(ended.code, Some(78), "{arguments:?}: {ended:?}");
            assert!(ended.stderr.contains(name), "{arguments:?}: {ended:?}");
        }
    }
    let variable = bellhop(&["check"], &[("BELLHOP_HEARTBEAT_LEASE", "soon")], b"").await;
    assert_eq!(variable.code, Some(78));
    assert!(
        variable.stderr.contains("BELLHOP_HEARTBEAT_LEASE"),
        "{variable:?}"
    );
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["serve", "--nonsense"],
        &["serve", "more"],
        &["check", "--set", "pair"],
    ] {
        let ended = bellhop(arguments, &[], b"").await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(
            ended.stdout.is_empty() && ended.stderr.contains("--help"),
            "{ended:?}"
        );
    }
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        bellhop(arguments, &[], b"").await.succeeded();
    }
    assert!(
        bellhop(&["--version"], &[], b"")
            .await
            .stdout
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn unreachable_server_exits_1_with_address() {
    let nowhere = "nats://127.0.0.1:1";
    for command in [&["serve"][..], &["setup"], &["setup", "--dry-run"]] {
        let ended = bellhop(&[command, &["--nats", nowhere]].concat(), &[], b"").await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(nowhere), "{ended:?}");
    }
}

/// A delivery of 256 KiB must fit through the server.
#[tokio::test]
async fn server_with_small_payload_is_refused() {
    let world = World::without_members("max_payload: 64KB", &[]).await;
    for command in [&["serve", "--http", "127.0.0.1:0"][..], &["setup"]] {
        let ended = world.run(command).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("max_payload") && ended.stderr.contains("65536"),
            "{ended:?}"
        );
    }
    assert_eq!(streams(&world).await, BTreeSet::new());
}

/// "`NATS_URL` and `NATS_CREDS` are honoured", below `BELLHOP_NATS_URL`, below `--nats`.
#[tokio::test]
async fn the_address_of_nats_may_come_from_anywhere() {
    let world = World::without_members("", &[]).await;
    let (url, nowhere) = (world.url.as_str(), "nats://127.0.0.1:1");
    let dry = ["setup", "--dry-run"];
    bellhop(&dry, &[("NATS_URL", url)], b"").await.succeeded();
    bellhop(
        &dry,
        &[("NATS_URL", nowhere), ("BELLHOP_NATS_URL", url)],
        b"",
    )
    .await
    .succeeded();
    bellhop(
        &["setup", "--dry-run", "--nats", url],
        &[("BELLHOP_NATS_URL", nowhere)],
        b"",
    )
    .await
    .succeeded();
    bellhop(
        &["setup", "--dry-run", "--nats", &format!("{nowhere},{url}")],
        &[],
        b"",
    )
    .await
    .succeeded();
    let creds = bellhop(
        &dry,
        &[("NATS_URL", url), ("NATS_CREDS", "/no/such.creds")],
        b"",
    )
    .await;
    assert_eq!(creds.code, Some(1));
    assert!(creds.stderr.contains("/no/such.creds"), "{creds:?}");
}

#[tokio::test]
async fn credentials_are_used_and_never_shown() {
    let config = "authorization { user: bell, password: hunter2 }";
    let dir = tempfile::tempdir().unwrap();
    let options = bellhop_testkit::nats_server::Options {
        extra_config: config,
        ..Default::default()
    };
    let server = bellhop_testkit::nats_server::NatsServer::start(dir.path(), options)
        .await
        .unwrap();
    let dry = ["setup", "--dry-run", "--nats", server.url()];
    bellhop(
        &dry,
        &[("NATS_USER", "bell"), ("BELLHOP_NATS_PASSWORD", "hunter2")],
        b"",
    )
    .await
    .succeeded();
    let wrong = bellhop(
        &dry,
        &[("NATS_USER", "bell"), ("NATS_PASSWORD", "hunter3")],
        b"",
    )
    .await;
    assert_eq!(wrong.code, Some(1));
    assert!(!wrong.stderr.contains("hunter"), "{wrong:?}");
    let in_url = server.url().replace("nats://", "nats://bell:hunter3@");
    let wrong = bellhop(&["setup", "--dry-run", "--nats", &in_url], &[], b"").await;
    assert_eq!(wrong.code, Some(1));
    assert!(
        !wrong.stderr.contains("hunter"),
        "credentials in an address are not for the eyes either: {wrong:?}"
    );
}

/// An address for probes that is taken: fatal if the configuration names it, a warning where it is
/// the default.
#[tokio::test]
async fn occupied_probe_address_is_reported() {
    let world = World::without_members("", &[]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = world.run(&["serve", "--http", &address]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&address), "{ended:?}");

    // Another process may have the default port; then it is not free.
    let _default = std::net::TcpListener::bind("127.0.0.1:9411");
    let arguments = ["serve", "--nats", &world.url, "--set", "partitions=4"].map(ToOwned::to_owned);
    let member = world.launch_with("unprobed", &arguments);
    world.app("app-1", &[]).await;
    world
        .eventually("it serves without probes", async || {
            let log = member.log();
            if log.contains("no probes") && log.contains("taking over") {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
}

/// The limits of all streams that can have one, and what they are together.
async fn limits(world: &World) -> (Vec<(&'static str, i64)>, i64) {
    let mut limits = Vec::new();
    for name in STREAMS
        .into_iter()
        .filter(|name| *name != "BELLHOP_SCHEDULED")
    {
        limits.push((name, world.stream(name).await.config.max_bytes));
    }
    let sum = limits.iter().map(|(_, bytes)| bytes).sum();
    (limits, sum)
}

#[tokio::test]
async fn every_stream_has_a_share_of_the_storage() {
    const MIB: i64 = 1 << 20;
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let (of_default, sum) = limits(&world).await;
    assert!(
        of_default.iter().all(|(_, bytes)| *bytes > 0),
        "{of_default:?}"
    );
    assert!((3_680 * MIB..=3_687 * MIB).contains(&sum), "{sum}");
    for storage in [200 * MIB, 1_000 * MIB] {
        let setting = format!("streams.storage={storage}");
        world.run(&["setup", "--set", &setting]).await.succeeded();
        let (limits, sum) = limits(&world).await;
        assert!(
            sum <= storage / 10 * 9 && sum > storage / 10 * 9 - MIB,
            "{limits:?}"
        );
        let again = world
            .run(&["setup", "--json", "--set", &setting])
            .await
            .succeeded();
        assert_eq!(changes(&again), Vec::<Value>::new());
    }
}

/// nats-server remembers every id for so long. Only business systems repeat after minutes.
#[tokio::test]
async fn own_streams_have_short_duplicate_windows() {
    let world = World::without_members("", &[("idempotency.window", "1d")]).await;
    world
        .run(&["setup", "--set", "idempotency.window=1d"])
        .await
        .succeeded();
    for name in STREAMS {
        let window = world.stream(name).await.config.duplicate_window;
        assert!(window <= Duration::from_secs(120), "{name}: {window:?}");
    }
}

#[tokio::test]
async fn small_server_gets_smaller_limits() {
    let world = World::without_members("jetstream { max_file_store: 300MB }", &[]).await;
    world.serve().await;
    let (limits, sum) = limits(&world).await;
    assert!(
        limits.iter().all(|(_, bytes)| *bytes > 0) && sum <= 300 << 20,
        "{limits:?}"
    );
    assert_eq!(
        changes(&world.run(&["setup", "--json"]).await.succeeded()),
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn a_storage_without_room_names_the_limit() {
    let account = "accounts { A { jetstream { max_file: 200MB }, users: [{user: a, password: a}] } }\nno_auth_user: a";
    for (config, limit) in [
        ("jetstream { max_file_store: 200MB }", "max_file_store"),
        (account, "209715200"),
    ] {
        let world = World::without_members(config, &[("streams.storage", "1000000000")]).await;
        let refused = world.run(&["setup"]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for word in ["stream BELLHOP_", "`streams.storage`", limit] {
            assert!(refused.stderr.contains(word), "{word} in {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_dry_run_foresees_a_lack_of_room() {
    let account = "accounts { A { jetstream { max_file: 200MB }, users: [{user: a, password: a}] } }\nno_auth_user: a";
    let world = World::without_members(account, &[]).await;
    let refused = world
        .run(&["setup", "--dry-run", "--set", "streams.storage=1000000000"])
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("stream BELLHOP_") && refused.stderr.contains("209715200"),
        "{refused:?}"
    );
    // Without a number it would be what fits.
    world.run(&["setup", "--dry-run"]).await.succeeded();
    assert_eq!(streams(&world).await, BTreeSet::new());
}

/// A limit that cannot be set is not a change, whatever the storage that would be tried first.
#[tokio::test]
async fn an_outgrown_stream_is_no_change_each_time() {
    let world = World::without_members("jetstream { max_file_store: 300MB }", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let mut config = world.stream("BELLHOP_REJECTED").await.config;
    let share = usize::try_from(config.max_bytes).unwrap();
    config.max_bytes = -1;
    world.jetstream.update_stream(config).await.unwrap();
    for _ in 0..share / 500_000 + 2 {
        let body = vec![b'x'; 500_000];
        world
            .jetstream
            .publish("bellhop.rejected.x", body.into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    for again in [
        &["setup", "--json"][..],
        &["setup", "--json"],
        &["setup", "--dry-run", "--json"],
    ] {
        assert_eq!(
            changes(&world.run(again).await.succeeded()),
            Vec::<Value>::new(),
            "{again:?}"
        );
    }
    assert_eq!(world.stream("BELLHOP_REJECTED").await.config.max_bytes, -1);
}

/// An upgrade drops nothing: where an unlimited stream holds more than its share, it stays as it
/// is, and the doctor says so.
#[tokio::test]
async fn a_limit_drops_nothing_that_is_there() {
    let world = World::without_members("", &[("streams.storage", "67108864")]).await;
    world.run(&["setup"]).await.succeeded();
    let mut config = world.stream("BELLHOP_REJECTED").await.config;
    config.max_bytes = -1;
    world.jetstream.update_stream(config).await.unwrap();
    for _ in 0..8 {
        let body = vec![b'x'; 500_000];
        world
            .jetstream
            .publish("bellhop.rejected.x", body.into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    world.run(&["setup"]).await.succeeded();
    let stream = world.stream("BELLHOP_REJECTED").await;
    assert_eq!((stream.config.max_bytes, stream.state.messages), (-1, 8));
    let output = world.run(&["doctor"]).await.stdout;
    assert!(
        output.contains("BELLHOP_REJECTED has no max_bytes"),
        "{output}"
    );
}

/// Publishers who fill the stream of sets get an error. Others go on when there is room, by
/// themselves.
#[tokio::test]
async fn full_streams_stop_their_own_writers_alone() {
    let world = World::without_members("", &[("streams.storage", "67108864")]).await;
    world.run(&["setup"]).await.succeeded();
    let publish = async |body: Vec<u8>| {
        let sent = world
            .jetstream
            .publish("bellhop.sets.flood", body.into())
            .await
            .unwrap();
        sent.await.map_err(|error| error.to_string())
    };
    let mut stored = 0;
    let error = loop {
        match publish(vec![b'x'; 500_000]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "a stream of 10 MB takes everything");
    };
    assert!(error.contains("maximum bytes exceeded"), "{error}");
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    world
        .publish_surely("claims", vec![reminder("1", "alice")])
        .await;
    world.taken(&["1"]).await;
    world.settle().await;
    let rejected = world.stream("BELLHOP_REJECTED").await;
    assert!(
        rejected.state.bytes <= rejected.config.max_bytes as u64 && rejected.state.messages > 0
    );
}
