//! Credentials that end or are replaced while members run.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellhop_testkit::nats_server::{NatsServer, Options};
use jiff::{SignedDuration, Timestamp};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Member, World, bellhop, reminder};
use crate::secured::eventually;

/// A nats-server that knows users by JWTs of an operator, with the keys that issue them.
struct Operator {
    server: NatsServer,
    account: KeyPair,
    dir: TempDir,
}

impl Operator {
    async fn start() -> Self {
        let (operator, account, system) = (
            KeyPair::new_operator(),
            KeyPair::new_account(),
            KeyPair::new_account(),
        );
        let own = json!({ "type": "operator", "version": 2 });
        let config = format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {}, {}: {} }}",
            jwt(&operator, &operator, own, None),
            system.public_key(),
            account.public_key(),
            jwt(&operator, &account, account_claims(-1), None),
            system.public_key(),
            jwt(&operator, &system, account_claims(0), None),
        );
        let dir = TempDir::with_prefix("bellhop-it-").unwrap();
        let options = Options {
            extra_config: &config,
            ..Options::default()
        };
        let server = NatsServer::start(&dir.path().join("nats"), options)
            .await
            .unwrap();
        Self {
            server,
            account,
            dir,
        }
    }

    /// Writes a credentials file of a new user, whose JWT lasts for so long.
    fn write_creds(&self, path: &Path, life: Duration) {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
        let jwt = jwt(&self.account, &user, claims, Some(life));
        let seed = user.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        // As tools do, so that a reader never sees half a file.
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

/// The claims of an account that may have so much of JetStream: -1 for no limit. The system account
/// must have none.
fn account_claims(jetstream: i64) -> Value {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": jetstream, "disk_storage": jetstream, "streams": jetstream, "consumer": jetstream
    });
    json!({ "type": "account", "version": 2, "limits": limits })
}

/// Issues a JWT, as nsc does.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value, life: Option<Duration>) -> String {
    let now = Timestamp::now().as_second();
    let mut claims = json!({
        "jti": "test", "iat": now, "iss": issuer.public_key(), "name": "test", "sub": subject.public_key(), "nats": nats
    });
    if let Some(life) = life {
        claims["exp"] = json!(now + life.as_secs() as i64);
    }
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let signed = format!("{header}.{}", part(claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn renewed_jwt_lets_a_member_in_again() {
    let operator = Operator::start().await;
    let (dir, url) = (operator.dir.path(), operator.server.url());
    let creds = dir.join("bellhop.creds");
    let path = creds.to_str().unwrap();
    operator.write_creds(&creds, Duration::from_secs(12));
    let arguments = ["serve", "--nats", url, "--http", "127.0.0.1:0"].map(String::from);
    let variables = [("NATS_URL", url), ("NATS_CREDS", path)];
    let settings = [format!("nats.creds={path}"), "partitions=4".to_owned()];
    let settings = settings
        .into_iter()
        .flat_map(|setting| ["--set".to_owned(), setting]);
    let arguments: Vec<_> = arguments.into_iter().chain(settings).collect();
    let member = Member::spawn("member-1", &[], &arguments, dir);
    let ready = async |what| {
        eventually(what, async || {
            let log = |state| format!("{state}\n{}", member.log_tail());
            member.is_ready().await.map_err(log)
        })
        .await;
    };
    ready("the member is ready").await;

    eventually("the probe names the credentials", async || {
        match member.probe("GET", "/readyz").await?.body {
            body if body.contains("credentials of nats.creds expired at") => Ok(()),
            body => Err(body),
        }
    })
    .await;
    let doctor = bellhop(&["doctor"], &variables, b"").await;
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("a JWT until"), "{doctor:?}");

    operator.write_creds(&creds, Duration::from_secs(3_600));
    ready("the member is ready again").await;
    let published = [
        "publish",
        "--source",
        "billing",
        "--user",
        "alice",
        "--content",
        "still here",
    ];
    bellhop(&published, &variables, b"").await.succeeded();
    eventually("the reminder is parked", async || {
        let found = bellhop(&["mailbox", "info", "alice"], &variables, b"").await;
        match found.stdout.contains("still here") {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    })
    .await;
    let doctor = bellhop(&["doctor"], &variables, b"").await;
    assert!(
        doctor.stdout.contains("the JWT of nats.creds ends at"),
        "{doctor:?}"
    );
    let log = member.log();
    for expected in ["expires soon", "have expired", "rejects this client"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let metrics = member.probe("GET", "/metrics").await.unwrap().body;
    let metric = "bellhop_nats_credentials_expiry_timestamp_seconds ";
    let end: f64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix(metric))
        .unwrap()
        .parse()
        .unwrap();
    let in_half_an_hour = Timestamp::now() + SignedDuration::from_mins(30);
    assert!(end > in_half_an_hour.as_second() as f64, "{end}");
}

/// A server that lets in a user with this secret, and the test itself without one.
fn letting_in(user: &str) -> String {
    format!(
        "authorization {{ users: [ {{ {user} }}, {{ user: test, password: unused }} ] }}\nno_auth_user: test"
    )
}

/// Starts a member with these settings, replaces its secret here and at the server, and waits for a
/// reminder that it takes in.
async fn rotates(settings: &[(&str, &str)], users: [&str; 2], replace: impl FnOnce()) {
    let world = World::without_members(&letting_in(users[0]), settings).await;
    let member = world.serve().await;
    replace();
    world.reconfigure_nats(&letting_in(users[1])).await;
    world
        .eventually("the server closes the old connections", async || {
            let log = member.log();
            let closed = log.matches("disconnected from nats").count();
            if closed >= 6 { Ok(()) } else { Err(log) }
        })
        .await;
    world
        .eventually("the member is ready again", async || {
            member.is_ready().await
        })
        .await;
    world.publish("billing", [reminder("r1", "alice")]).await;
    world.became("billing", "r1", "parked").await;
}

#[tokio::test]
async fn rotated_nkey_is_read_again() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let path = dir.path().join("bellhop.nk");
    let keys = [KeyPair::new_user(), KeyPair::new_user()];
    let users = keys
        .each_ref()
        .map(|key| format!("nkey: {}", key.public_key()));
    let write = |key: &KeyPair| std::fs::write(&path, key.seed().unwrap()).unwrap();
    write(&keys[0]);
    let settings = [("nats.nkey", path.to_str().unwrap())];
    rotates(&settings, users.each_ref().map(String::as_str), || {
        write(&keys[1]);
    })
    .await;
}

#[tokio::test]
async fn rotated_password_file_is_read_again() {
    let dir = TempDir::with_prefix("bellhop-it-").unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, "first\n").unwrap();
    let settings = [
        ("nats.user", "bellhop"),
        ("nats.password_file", path.to_str().unwrap()),
    ];
    let users = [
        "user: bellhop, password: first",
        "user: bellhop, password: second",
    ];
    rotates(&settings, users, || {
        std::fs::write(&path, "second\n").unwrap()
    })
    .await;
}
