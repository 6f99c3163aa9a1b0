//! App servers from outside: processes that are started, get commands to connect and disconnect
//! users, and are made to suffer.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use async_nats::Client;

use crate::app::Mood;
use crate::program::{signal, tied};

/// The test that is an app server when it is run by itself.
const TEST: &str = "app_server";
/// The inputs of the app server: a name, the NATS servers, and the directory of logs.
const ENV: [&str; 3] = [
    "BELLHOP_CHAOS_APP",
    "BELLHOP_CHAOS_URL",
    "BELLHOP_CHAOS_LOGS",
];
/// Maximum time for one to stop in order: its users' routes must be deleted.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// An app server's process. Dropping it kills it.
pub(crate) struct App {
    pub(crate) name: String,
    /// The connected users, or those who will be connected when it goes on.
    users: Vec<String>,
    child: Child,
    commands: Option<ChildStdin>,
}

/// Returns this process's arguments, if it was started as an app server.
pub(crate) fn asked_to_be() -> Option<(String, String, PathBuf)> {
    let [name, url, logs] = ENV.map(|name| std::env::var(name).ok());
    Some((name?, url?, logs?.into()))
}

impl App {
    /// Starts one without users, and does not wait for it.
    pub(crate) fn spawn(name: &str, url: &str, dir: &Path) -> Self {
        let output = File::options()
            .create(true)
            .append(true)
            .open(dir.join(format!("{name}.log")))
            .unwrap();
        let this = std::env::current_exe().unwrap();
        let mut command = tied(&[this.as_os_str(), OsStr::new("--exact"), OsStr::new(TEST)]);
        command.args(["--ignored", "--nocapture"]);
        command
            .env(ENV[0], name)
            .env(ENV[1], url)
            .env(ENV[2], dir.join("logs"));
        command
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut child = command.spawn().unwrap();
        let commands = child.stdin.take();
        Self {
            name: name.to_owned(),
            users: Vec::new(),
            child,
            commands,
        }
    }

    /// Users connect.
    pub(crate) fn connect(&mut self, users: impl IntoIterator<Item = String>) {
        let users: Vec<String> = users.into_iter().collect();
        self.tell("connect", &users);
        self.users.extend(users);
    }

    /// All users leave. Answers who they were.
    pub(crate) fn clear(&mut self) -> Vec<String> {
        let users = std::mem::take(&mut self.users);
        self.tell("leave", &users);
        users
    }

    /// Sets its reaction to deliveries from now on.
    pub(crate) fn be(&mut self, mood: Mood) {
        self.tell("be", &[mood.name()]);
    }

    fn tell(&mut self, command: &str, words: &[String]) {
        writeln!(
            self.commands.as_mut().unwrap(),
            "{command} {}",
            words.join(" ")
        )
        .unwrap();
    }

    /// Checks that it answers a heartbeat without users.
    ///
    /// # Errors
    /// What the asking came to.
    pub(crate) async fn is_there(&self, client: &Client) -> Result<(), String> {
        let asked = client
            .request(
                format!("bellhop.app.{}.heartbeat", self.name),
                r#"{"users":[]}"#.into(),
            )
            .await;
        asked
            .map(drop)
            .map_err(|error| format!("{} does not answer: {error}", self.name))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        assert!(
            signal(self.child.id(), name),
            "{} cannot be sent {name}",
            self.name
        );
    }

    /// Kills it without warning. Answers who was connected.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.users)
    }

    /// Ends it in good order: everybody leaves. Answers who they were.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        self.commands = None;
        let until = Instant::now() + STOPS_WITHIN;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "{} does not stop", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::mem::take(&mut self.users)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
