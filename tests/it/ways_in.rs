//! Ways to a JetStream that is not simply there: TLS first, WebSockets, a leaf node, another
//! account.

use std::net::TcpListener;
use std::path::Path;

use bellhop_testkit::nats_server::{NatsServer, Options};
use tempfile::TempDir;

use crate::harness::{World, bellhop, reminder};
use crate::secured::eventually;
use crate::tls::Certificates;

/// A port of loopback that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

async fn start(dir: &Path, config: &str) -> NatsServer {
    let options = Options {
        extra_config: config,
        ..Options::default()
    };
    NatsServer::start(dir, options).await.unwrap()
}

fn tls_block(certificates: &Certificates, more: &str) -> String {
    let [cert, key] = ["127.0.0.1.crt", "127.0.0.1.key"].map(|name| certificates.file(name));
    format!("tls {{ cert_file: '{cert}', key_file: '{key}'\n{more} }}")
}

#[tokio::test]
#[cfg_attr(not(has_openssl), ignore = "no openssl here: apt-get install openssl")]
async fn tls_begins_before_the_server_speaks() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let certificates = Certificates::make(dir.path(), &["127.0.0.1"]);
    let ca = certificates.file("ca.crt");
    let [first, usual] = ["handshake_first: true", ""];
    for (more, tls_first, expected) in [
        (first, "true", None),
        (first, "false", Some("Then set `nats.tls_first`")),
        (usual, "true", Some("`nats.tls_first` is for a server with")),
    ] {
        let config = tls_block(&certificates, more);
        let server = start(&dir.path().join("nats"), &config).await;
        let variables = [
            ("NATS_URL", server.url()),
            ("NATS_CA", &ca),
            ("BELLHOP_NATS_TLS_FIRST", tls_first),
        ];
        let ended = bellhop(&["setup", "--dry-run"], &variables, b"").await;
        match expected {
            None => _ = ended.succeeded(),
            Some(hint) => assert!(
                ended.code == Some(1) && ended.stderr.contains(hint),
                "{ended:?}"
            ),
        }
    }
}

#[tokio::test]
#[cfg_attr(not(has_openssl), ignore = "no openssl here: apt-get install openssl")]
async fn members_work_over_websockets() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let certificates = Certificates::make(dir.path(), &["127.0.0.1"]);
    let ca = certificates.file("ca.crt");
    let port = free_port();
    let tls = tls_block(&certificates, "");
    let config = format!("websocket {{ listen: '127.0.0.1:{port}', {tls} }}");
    let world = World::without_members(&config, &[("nats.ca", &ca)]).await;
    let url = format!("wss://127.0.0.1:{port}");
    world.serve_at(&url, "member-1").await;
    world.app("app-1", &["bob"]).await;
    world
        .publish("billing", [reminder("r1", "alice"), reminder("r2", "bob")])
        .await;
    world.became("billing", "r1", "parked").await;
    world.taken(&["r2"]).await;
    let untrusting = bellhop(&["setup", "--dry-run", "--nats", &url], &[], b"").await;
    assert!(
        untrusting.stderr.contains("no secure connection"),
        "{untrusting:?}"
    );
    let mixed = bellhop(
        &["check", "--nats", &format!("{url},nats://127.0.0.1")],
        &[],
        b"",
    )
    .await;
    assert!(mixed.stderr.contains("all WebSockets"), "{mixed:?}");
}

#[tokio::test]
async fn commands_at_a_leaf_node_reach_the_hub() {
    let port = free_port();
    let hub = format!(
        "server_name: hub\njetstream {{ domain: hub, max_file_store: 10GB }}\nleafnodes {{ listen: '127.0.0.1:{port}' }}"
    );
    let world = World::without_members(&hub, &[("nats.domain", "hub")]).await;
    let leaf = format!(
        "server_name: leaf\njetstream: disabled\nleafnodes {{ remotes: [ {{ url: 'nats://127.0.0.1:{port}' }} ] }}"
    );
    let leaf = start(&world.dir().join("leaf"), &leaf).await;
    let dry = ["setup", "--dry-run"];
    eventually("the leaf is linked", async || {
        let variables = [("NATS_URL", leaf.url()), ("BELLHOP_NATS_DOMAIN", "hub")];
        match bellhop(&dry, &variables, b"").await {
            ended if ended.code == Some(0) => Ok(()),
            ended => Err(ended.stderr),
        }
    })
    .await;
    let lost = bellhop(&dry, &[("NATS_URL", leaf.url())], b"").await;
    assert!(
        lost.code == Some(1) && lost.stderr.contains("nats.domain"),
        "{lost:?}"
    );

    // A member is where JetStream is; business systems and app servers may be at the leaf.
    world.serve().await;
    let app = world.app("app-1", &[]).await;
    app.stop().await;
    app.start(async_nats::connect(leaf.url()).await.unwrap())
        .await;
    app.connect(&["bob"]).await;
    for (id, user) in [("r1", "alice"), ("r2", "bob")] {
        let publish = ["publish", "--source", "billing", "--id", id, "--user", user];
        let arguments: Vec<_> = publish.into_iter().chain(["--content", "x"]).collect();
        let variables = [("NATS_URL", leaf.url()), ("BELLHOP_NATS_DOMAIN", "hub")];
        bellhop(&arguments, &variables, b"").await.succeeded();
    }
    world.became("billing", "r1", "parked").await;
    world.taken(&["r2"]).await;
}

#[tokio::test]
async fn imported_api_is_asked_by_its_prefix() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let config = "accounts {
        HOME { jetstream: enabled, users: [ { user: home, password: p } ]
               exports: [ { service: '$JS.API.>', response_type: stream } ] }
        AWAY { users: [ { user: away, password: p } ]
               imports: [ { service: { account: HOME, subject: '$JS.API.>' }, to: 'home.js.>' } ] }
    }";
    let server = start(&dir.path().join("nats"), config).await;
    let variables = |user| {
        [
            ("NATS_URL", server.url()),
            ("NATS_USER", user),
            ("NATS_PASSWORD", "p"),
        ]
    };
    bellhop(&["setup"], &variables("home"), b"")
        .await
        .succeeded();
    let set = ["setup", "--dry-run"];
    let lost = bellhop(&set, &variables("away"), b"").await;
    assert!(
        lost.code == Some(1) && lost.stderr.contains("nats.api_prefix"),
        "{lost:?}"
    );
    let mut imported = variables("away").to_vec();
    imported.push(("BELLHOP_NATS_API_PREFIX", "home.js"));
    let found = bellhop(&set, &imported, b"").await.succeeded();
    assert!(found.contains("everything is set up already"), "{found}");
}

/// A hub and a leaf node in one account, each with a JetStream of its own: both hear all subjects.
#[tokio::test]
async fn joined_installations_notice_each_other() {
    let port = free_port();
    let hub = format!(
        "server_name: hub\njetstream {{ domain: hub, max_file_store: 10GB }}\nleafnodes {{ listen: '127.0.0.1:{port}' }}"
    );
    let world = World::without_members(&hub, &[]).await;
    let joined = async |name: &str| {
        let config = format!(
            "server_name: {name}\njetstream {{ domain: {name}, max_file_store: 10GB }}\n\
             leafnodes {{ remotes: [ {{ url: 'nats://127.0.0.1:{port}' }} ] }}"
        );
        start(&world.dir().join(name), &config).await
    };
    let leaf = joined("leaf").await;
    let at_leaf = [("NATS_URL", leaf.url()), ("BELLHOP_PARTITIONS", "4")];
    // No member answers yet, so each is set up.
    world.run(&["setup"]).await.succeeded();
    bellhop(&["setup"], &at_leaf, b"").await.succeeded();
    let (home, away) = (
        world.serve().await,
        world.serve_at(leaf.url(), "at-leaf").await,
    );
    for member in [&home, &away] {
        eventually("it says that another one is heard", async || {
            let log = member.log();
            let metrics = member.probe("GET", "/metrics").await?.body;
            match log.contains("hears the same subjects")
                && metrics.contains("bellhop_other_installations 1")
            {
                true => Ok(()),
                false => Err(log),
            }
        })
        .await;
    }
    let doctor = world.run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("hears the same subjects"),
        "{doctor:?}"
    );
    let newcomer = joined("newcomer").await;
    eventually("a newcomer is refused", async || {
        let dry = ["setup", "--dry-run", "--nats", newcomer.url()];
        match bellhop(&dry, &[], b"").await {
            ended if ended.code == Some(1) && ended.stderr.contains("hears the same subjects") => {
                Ok(())
            }
            ended => Err(format!("{ended:?}")),
        }
    })
    .await;
    let other = ["setup", "--nats", newcomer.url(), "--set", "prefix=other"];
    bellhop(&other, &[], b"").await.succeeded();
}
