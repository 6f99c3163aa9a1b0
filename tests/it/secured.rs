//! Servers that let in whom they know: everybody of `nats-config/accounts.conf`, with secrets made
//! for the test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, StatusCode};
use bellhop_testkit::nats_server::{NatsServer, Options};
use futures_util::StreamExt;
use nkeys::KeyPair;
use tempfile::TempDir;

use crate::harness::{Ended, LATER, Member, bellhop};

/// Everybody whom the file knows.
pub(crate) const USERS: [&str; 7] = [
    "bellhop",
    "operator",
    "monitoring",
    "billing",
    "claims",
    "app-1",
    "app-2",
];
/// The users in the account of Bellhop's streams.
const AT_HOME: [&str; 2] = ["bellhop", "operator"];
/// The users with an NKEY,
const WITH_NKEYS: [&str; 3] = ["bellhop", "app-1", "app-2"];
/// and the password of all others, with its hash: `htpasswd -bnBC 4 '' 'only for tests'`, and `$2a`
/// for `$2y`.
const PASSWORD: &str = "only for tests";
const HASH: &str = "$2a$04$ntTqoZqxAahGmAC2QVbHd.ylDOLERdHyd8TgevwawzoFWLdDahuhy";

/// A file of `nats-config`.
pub(crate) fn nats_config(name: &str) -> String {
    format!("{}/nats-config/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Everybody's secrets.
pub(crate) struct Secrets {
    dir: PathBuf,
    variables: Vec<(String, String)>,
}

impl Secrets {
    /// Makes them, with seeds in files of this directory.
    pub(crate) fn make(dir: &Path) -> Self {
        let secrets = USERS.map(|user| {
            let name = user.to_uppercase().replace('-', "_");
            if !WITH_NKEYS.contains(&user) {
                return (format!("PASSWORD_{name}"), HASH.to_owned());
            }
            let pair = KeyPair::new_user();
            std::fs::write(dir.join(user).with_extension("nk"), pair.seed().unwrap()).unwrap();
            (format!("NKEY_{name}"), pair.public_key())
        });
        Self {
            dir: dir.to_owned(),
            variables: secrets.into(),
        }
    }

    /// Returns nats-server's variables.
    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    fn seed_file(&self, user: &str) -> String {
        self.dir
            .join(user)
            .with_extension("nk")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Bellhop's settings for a user.
    pub(crate) fn settings(&self, user: &str) -> Vec<String> {
        let mut settings = vec![format!("nats.inbox_prefix={}", inbox_prefix(user))];
        if user == "monitoring" {
            settings.push("nats.domain=bellhop".to_owned());
        }
        if WITH_NKEYS.contains(&user) {
            settings.push(format!("nats.nkey={}", self.seed_file(user)));
        } else {
            settings.extend([
                format!("nats.user={user}"),
                format!("nats.password={PASSWORD}"),
            ]);
        }
        settings
            .into_iter()
            .flat_map(|setting| ["--set".to_owned(), setting])
            .collect()
    }

    /// Connects as a user.
    pub(crate) async fn connect(&self, url: &str, user: &str, ca: Option<&Path>) -> NatsUser {
        let options = ConnectOptions::new().custom_inbox_prefix(inbox_prefix(user));
        let options = match ca {
            Some(ca) => options
                .add_root_certificates(ca.to_owned())
                .require_tls(true),
            None => options,
        };
        let options = if WITH_NKEYS.contains(&user) {
            options.nkey(std::fs::read_to_string(self.seed_file(user)).unwrap())
        } else {
            options.user_and_password(user.to_owned(), PASSWORD.to_owned())
        };
        let refused = Arc::<Mutex<BTreeSet<String>>>::default();
        let recorded = refused.clone();
        let options = options.event_callback(move |event| {
            let recorded = recorded.clone();
            async move {
                if let Event::ServerError(error) = event {
                    recorded.lock().unwrap().insert(error.to_string());
                }
            }
        });
        NatsUser {
            name: user.to_owned(),
            client: options.connect(url).await.unwrap(),
            refused,
        }
    }
}

fn inbox_prefix(user: &str) -> String {
    if AT_HOME.contains(&user) {
        format!("_INBOX_{user}")
    } else {
        "_INBOX".to_owned()
    }
}

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It was answered.
    Answered(async_nats::Message),
    /// The server did not let it through.
    Refused,
}

/// A user's connection.
pub(crate) struct NatsUser {
    pub(crate) name: String,
    pub(crate) client: Client,
    /// The actions that the server refused.
    refused: Arc<Mutex<BTreeSet<String>>>,
}

impl NatsUser {
    /// Returns true if the server refused this action: `Publish` or `Subscription`, and the
    /// subject.
    pub(crate) fn is_refused(&self, act: &str, subject: &str) -> bool {
        self.refused.lock().unwrap().contains(&format!(
            "nats: Permissions Violation for {act} to \"{subject}\""
        ))
    }

    /// Returns true if this user is in the account of Bellhop's streams, with permissions there.
    /// All others have an account where nothing is but what it imports.
    pub(crate) fn is_at_home(&self) -> bool {
        AT_HOME.contains(&self.name.as_str())
    }

    /// Asks, and waits until it is clear what became of it.
    pub(crate) async fn ask(&self, subject: &str, body: &str) -> Verdict {
        // JetStream's own words for an account that has none.
        let is_elsewhere =
            |payload: &[u8]| String::from_utf8_lossy(payload).contains(r#""err_code":10039"#);
        let refusal = async {
            while !self.is_refused("Publish", subject) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // A message that was pulled has its own subject, by which the client's own requests would
        // not know their answer.
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.unwrap();
        self.client
            .publish_with_reply(subject.to_owned(), inbox, body.to_owned().into())
            .await
            .unwrap();
        tokio::select! {
            answer = tokio::time::timeout(LATER, answers.next()) => match answer {
                Ok(Some(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => Verdict::Refused,
                Ok(Some(answer)) if is_elsewhere(&answer.payload) => Verdict::Refused,
                Ok(Some(answer)) => Verdict::Answered(answer),
                silence => panic!("{} asks {subject}: {silence:?}", self.name),
            },
            () = refusal => Verdict::Refused,
        }
    }

    /// Waits until the server has seen to all that this connection said, and has said all that it
    /// had for it.
    pub(crate) async fn round_trip(&self) {
        if self.is_at_home() {
            let verdict = self.ask("$JS.API.STREAM.INFO.BELLHOP_LOG", "").await;
            assert!(
                matches!(verdict, Verdict::Answered(_)),
                "{}: {verdict:?}",
                self.name
            );
        } else {
            let inbox = self.client.new_inbox();
            let mut own = self.client.subscribe(inbox.clone()).await.unwrap();
            self.client.publish(inbox, "".into()).await.unwrap();
            own.next().await.unwrap();
        }
    }
}

/// A nats-server that runs `accounts.conf`, and what runs with it.
pub(crate) struct Realm {
    pub(crate) server: NatsServer,
    pub(crate) secrets: Secrets,
    pub(crate) dir: TempDir,
}

impl Realm {
    /// Starts the server. Nothing is set up.
    pub(crate) async fn start() -> Self {
        let dir = TempDir::with_prefix("bellhop-it-").unwrap();
        let secrets = Secrets::make(dir.path());
        let config = nats_config("accounts.conf");
        let options = Options {
            extra_args: &["-c", &config, "-js"],
            variables: &secrets.variables(),
            ..Options::default()
        };
        let server = NatsServer::start(&dir.path().join("nats"), options)
            .await
            .unwrap();
        Self {
            server,
            secrets,
            dir,
        }
    }

    /// A user's connection.
    pub(crate) async fn nats_user(&self, user: &str) -> NatsUser {
        self.secrets.connect(self.server.url(), user, None).await
    }

    /// Runs a command as a user.
    pub(crate) async fn run(&self, user: &str, arguments: &[&str], input: &str) -> Ended {
        let settings = self.secrets.settings(user);
        let arguments: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(settings.iter().map(String::as_str))
            .collect();
        bellhop(
            &arguments,
            &[("NATS_URL", self.server.url())],
            input.as_bytes(),
        )
        .await
    }

    /// Starts a member as user `bellhop`, and waits until it is ready.
    pub(crate) async fn serve(&self, name: &str, settings: &[&str]) -> Member {
        serve(
            &self.secrets,
            self.server.url(),
            name,
            settings,
            self.dir.path(),
        )
        .await
    }

    /// Returns nats-server's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("nats/nats-server.log")).unwrap()
    }
}

/// Starts a member as user `bellhop`, and waits until it is ready.
pub(crate) async fn serve(
    secrets: &Secrets,
    url: &str,
    name: &str,
    settings: &[&str],
    dir: &Path,
) -> Member {
    let mut arguments: Vec<String> = ["serve", "--nats", url, "--http", "127.0.0.1:0"]
        .map(Into::into)
        .into();
    arguments.extend(["--set".to_owned(), format!("name={name}")]);
    arguments.extend(
        settings
            .iter()
            .flat_map(|setting| ["--set", setting])
            .map(ToOwned::to_owned),
    );
    arguments.extend(secrets.settings("bellhop"));
    let member = Member::spawn(name, &[], &arguments, dir);
    eventually(&format!("{name} is ready"), async || {
        member
            .is_ready()
            .await
            .map_err(|state| format!("{state}\n{}", member.log_tail()))
    })
    .await;
    member
}

/// Waits for a condition, which tells what it saw for as long as it does not hold.
pub(crate) async fn eventually<T>(
    what: &str,
    mut ready: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + 2 * LATER;
    loop {
        match ready().await {
            Ok(value) => return value,
            Err(state) if Instant::now() >= until => {
                panic!("{what}: not in time; last seen: {state}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
