//! NATS over TLS: `nats-config/cluster/node.conf`, the very file, on three nodes; and the errors
//! where TLS fails.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::jetstream;
use bellhop_testkit::nats_server::{NatsServer, Options};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Ended, bellhop};
use crate::secured::{Secrets, Verdict, eventually, nats_config, serve};

/// Certificates of an authority, made by the script that comes with the file.
pub(crate) struct Certificates(PathBuf);

impl Certificates {
    pub(crate) fn make(dir: &Path, addresses: &[&str]) -> Self {
        let ca = dir.join("ca");
        let made = Command::new(nats_config("cluster/certificates.sh"))
            .arg(&ca)
            .args(addresses)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(ca)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

/// Three addresses of this machine, as if they were three machines'.
fn three_hosts() -> [String; 3] {
    loop {
        let net = format!("127.{}.{}", fastrand::u8(1..), fastrand::u8(..));
        let hosts = [1, 2, 3].map(|host| format!("{net}.{host}"));
        if hosts
            .iter()
            .all(|host| TcpListener::bind((host.as_str(), 6222)).is_ok())
        {
            return hosts;
        }
    }
}

#[tokio::test]
#[cfg_attr(not(has_openssl), ignore = "no openssl here: apt-get install openssl")]
async fn a_set_arrives_through_three_nodes_over_tls() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let (secrets, hosts) = (Secrets::make(dir.path()), three_hosts());
    let certificates = Certificates::make(dir.path(), &hosts.each_ref().map(String::as_str));
    let nodes = join_all(
        hosts
            .iter()
            .map(|host| start_node(dir.path(), host, &hosts, &secrets, &certificates)),
    )
    .await;
    let urls = nodes
        .iter()
        .map(NatsServer::url)
        .collect::<Vec<_>>()
        .join(",");
    let ca = certificates.file("ca.crt");
    let settings = [
        "partitions=4".to_owned(),
        "streams.replicas=3".to_owned(),
        format!("nats.ca={ca}"),
    ];
    let run = async |user: &str, arguments: &[&str]| {
        let set = settings
            .iter()
            .flat_map(|setting| ["--set".to_owned(), setting.clone()]);
        let set: Vec<String> = set.chain(secrets.settings(user)).collect();
        let arguments: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(set.iter().map(String::as_str))
            .collect();
        bellhop(&arguments, &[("NATS_URL", &urls)], b"").await
    };
    // Until the nodes have found each other, there is no JetStream.
    eventually("the cluster is set up", async || {
        match run("operator", &["setup"]).await {
            Ended { code: Some(0), .. } => Ok(()),
            ended => Err(ended.stderr),
        }
    })
    .await;
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let _members = join_all(
        ["member-1", "member-2"].map(|name| serve(&secrets, &urls, name, &settings, dir.path())),
    )
    .await;

    let app = secrets
        .connect(nodes[1].url(), "app-1", Some(ca.as_ref()))
        .await;
    let mut requests = app.client.subscribe("bellhop.app.app-1.*").await.unwrap();
    assert!(matches!(
        app.ask("$KV.bellhop_routes.alice.app-1", "").await,
        Verdict::Answered(_)
    ));
    run(
        "claims",
        &[
            "publish",
            "--source",
            "claims",
            "--user",
            "alice",
            "--content",
            "over tls",
        ],
    )
    .await
    .succeeded();
    let delivered = loop {
        let request = requests.next().await.unwrap();
        let body: Value = serde_json::from_slice(&request.payload).unwrap();
        let answer = json!({ "connected": body["users"] }).to_string();
        app.client
            .publish(request.reply.unwrap(), answer.into())
            .await
            .unwrap();
        if request.subject.ends_with(".deliver") {
            break body;
        }
    };
    assert_eq!(delivered["reminders"][0]["content"], "over tls");

    let operator = secrets
        .connect(nodes[2].url(), "operator", Some(ca.as_ref()))
        .await;
    let jetstream = jetstream::new(operator.client);
    for stream in ["BELLHOP_LOG", "BELLHOP_PARKED", "KV_bellhop_routes"] {
        let info = jetstream
            .get_stream(stream)
            .await
            .unwrap()
            .cached_info()
            .clone();
        assert_eq!(
            (
                info.config.num_replicas,
                info.cluster.unwrap().replicas.len()
            ),
            (3, 2),
            "{stream}"
        );
    }
    // A client that does not know the authority goes no further, and a node without a certificate
    // of it is not let in.
    let untrusting = bellhop(&["setup", "--dry-run", "--nats", &urls], &[], b"").await;
    assert_eq!(untrusting.code, Some(1), "{untrusting:?}");
    assert!(untrusting.stderr.contains("nats.ca"), "{untrusting:?}");
    let _stranger = start_stranger(dir.path(), &hosts[0], &ca).await;
    let log = dir.path().join("nats-1/nats-server.log");
    eventually("a stranger among the nodes is refused", async || {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains("TLS route handshake error") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

/// A node that knows the authority, and has a certificate of another one.
async fn start_stranger(dir: &Path, host: &str, ca: &str) -> NatsServer {
    let dir = dir.join("stranger");
    let own = Certificates::make(&dir, &["127.0.0.1"]);
    let (cert, key) = (own.file("127.0.0.1.crt"), own.file("127.0.0.1.key"));
    let config = format!(
        "server_name: stranger, cluster {{ name: bellhop, listen: '127.0.0.1:-1', routes: ['nats://{host}:6222']
         tls {{ ca_file: '{ca}', cert_file: '{cert}', key_file: '{key}' }} }}"
    );
    let options = Options {
        extra_config: &config,
        ..Options::default()
    };
    NatsServer::start(&dir.join("nats"), options).await.unwrap()
}

async fn start_node(
    dir: &Path,
    host: &str,
    hosts: &[String; 3],
    secrets: &Secrets,
    certificates: &Certificates,
) -> NatsServer {
    let routes = hosts
        .each_ref()
        .map(|host| format!("nats://{host}:6222"))
        .join(", ");
    let (routes, name) = (
        format!("[{routes}]"),
        format!("nats-{}", host.rsplit('.').next().unwrap()),
    );
    let file = |end: &str| certificates.file(&format!("{host}.{end}"));
    let (ca, cert, key) = (certificates.file("ca.crt"), file("crt"), file("key"));
    let mut variables = secrets.variables();
    variables.extend([
        ("NATS_NAME", name.as_str()),
        ("NATS_HOST", host),
        ("NATS_ROUTES", &routes),
    ]);
    variables.extend([
        ("NATS_CA", ca.as_str()),
        ("NATS_CERT", &cert),
        ("NATS_KEY", &key),
    ]);
    let config = nats_config("cluster/node.conf");
    let options = Options {
        extra_args: &["-c", &config, "-a", host],
        variables: &variables,
        ..Options::default()
    };
    NatsServer::start(&dir.join(&name), options).await.unwrap()
}

/// A server that asks its clients for certificates.
#[tokio::test]
#[cfg_attr(not(has_openssl), ignore = "no openssl here: apt-get install openssl")]
async fn requested_client_certificate_is_sent() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let ours = Certificates::make(dir.path(), &["127.0.0.1", "bellhop"]);
    let theirs = Certificates::make(&dir.path().join("theirs"), &["bellhop"]);
    let config = format!(
        "tls {{ ca_file: '{}', cert_file: '{}', key_file: '{}', verify: true }}",
        ours.file("ca.crt"),
        ours.file("127.0.0.1.crt"),
        ours.file("127.0.0.1.key")
    );
    let options = Options {
        extra_config: &config,
        ..Options::default()
    };
    let server = NatsServer::start(&dir.path().join("nats"), options)
        .await
        .unwrap();
    let dry = async |ca: String, own: Option<&Certificates>| {
        let files = own.map(|own| (own.file("bellhop.crt"), own.file("bellhop.key")));
        let mut variables = vec![("NATS_URL", server.url()), ("NATS_CA", &ca)];
        variables.extend(
            files
                .iter()
                .flat_map(|(cert, key)| [("NATS_CERT", cert.as_str()), ("NATS_KEY", key)]),
        );
        bellhop(&["setup", "--dry-run"], &variables, b"").await
    };
    dry(ours.file("ca.crt"), Some(&ours)).await.succeeded();
    for (ca, own) in [
        (ours.file("ca.crt"), None),
        (ours.file("ca.crt"), Some(&theirs)),
        (theirs.file("ca.crt"), Some(&ours)),
    ] {
        let ended = dry(ca, own).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("no secure connection") && ended.stderr.contains("nats.c"),
            "{ended:?}"
        );
    }
    // Files that are none are named.
    for (variable, file) in [
        ("NATS_CA", "/no/such.crt".to_owned()),
        ("NATS_CA", nats_config("dev.conf")),
    ] {
        let ended = bellhop(
            &["setup", "--dry-run"],
            &[("NATS_URL", server.url()), (variable, &file)],
            b"",
        )
        .await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains(&file) && ended.stderr.contains("nats.ca"),
            "{ended:?}"
        );
    }
}

/// A configured authority requires TLS: nothing is sent in the clear, not even the user.
#[tokio::test]
#[cfg_attr(not(has_openssl), ignore = "no openssl here: apt-get install openssl")]
async fn a_server_without_tls_is_not_spoken_to() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let ours = Certificates::make(dir.path(), &["127.0.0.1"]);
    let server = NatsServer::start(&dir.path().join("nats"), Options::default())
        .await
        .unwrap();
    let variables = [
        ("NATS_URL", server.url()),
        ("NATS_CA", &ours.file("ca.crt")),
    ];
    bellhop(&["setup", "--dry-run"], &variables[..1], b"")
        .await
        .succeeded();
    let ended = bellhop(&["setup", "--dry-run"], &variables, b"").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no secure connection"), "{ended:?}");
}
