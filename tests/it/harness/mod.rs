//! One test's world: a nats-server, members, app servers, business systems, and what all of them
//! said.
//!
//! Tests publish and read as strangers would, in the words of the contract; nothing here calls into
//! Bellhop but the module that starts a nats-server. They wait for conditions with a deadline,
//! never for a time. Everything ends with the [`World`], which also looks at what is wrong in any
//! test: a member that died or panicked, a request that breaks the contract.

mod checks;
mod crowd;
mod ledger;
mod pages;
mod program;
pub(crate) mod prometheus;
mod proxy;
mod publish;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, jetstream};
use bellhop_testkit::app_server::Seen;
pub(crate) use bellhop_testkit::app_server::{Asked, Reply, ScriptedApp as App, Take};
pub(crate) use bellhop_testkit::escape;
use bellhop_testkit::nats_server::{NatsServer, Options, start_cluster};
use tempfile::TempDir;

pub(crate) use ledger::{Outcome, Reader, Rejected, instant};
pub(crate) use pages::{blocks, page, shell};
pub(crate) use program::{Ended, Member, bellhop, bellhop_within, exchange};
pub(crate) use proxy::Proxy;
pub(crate) use publish::{from_now, numbers, reminder, with};

/// Maximum time for a condition, unless a test sets another one.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Maximum time for a condition that depends on many reminders, or on a failure.
pub(crate) const LATER: Duration = Duration::from_secs(30);
/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(5);

/// With this variable set, a test that fails leaves its directory behind: every log, and the
/// server's store.
const KEEP_ENV: &str = "BELLHOP_IT_KEEP";

/// A partition or two for each core is enough for a test, and quick to set up.
const SETTINGS: [(&str, &str); 1] = [("partitions", "4")];

/// Everything of one test. Fields are dropped in this order.
pub(crate) struct World {
    members: Mutex<Vec<Arc<Member>>>,
    settings: Vec<(String, String)>,
    /// The business systems' and the test's own connection.
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) outcomes: Reader<Outcome>,
    pub(crate) rejected: Reader<Rejected>,
    /// (source, id) of every reminder that was acknowledged in a valid set.
    sent: Mutex<BTreeSet<(String, String)>>,
    apps: Mutex<Vec<Arc<App>>>,
    seen_by_apps: Seen,
    nats: tokio::sync::Mutex<NatsServer>,
    /// The cluster's other servers.
    nodes: Vec<NatsServer>,
    pub(crate) url: String,
    dir: TempDir,
}

impl World {
    /// A nats-server and one member with these settings, ready.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let world = Self::without_members("", settings).await;
        world.serve().await;
        world
    }

    /// A nats-server with something added to its configuration, and no member yet.
    pub(crate) async fn without_members(nats_config: &str, settings: &[(&str, &str)]) -> Self {
        let dir = TempDir::with_prefix("bellhop-it-").unwrap();
        let options = Options {
            extra_config: nats_config,
            ..Options::default()
        };
        let nats = NatsServer::start(&dir.path().join("nats"), options)
            .await
            .unwrap();
        Self::around(nats, Vec::new(), settings, dir).await
    }

    /// A cluster of three nats-servers, and no member yet. Everything is at the first one.
    pub(crate) async fn on_cluster(settings: &[(&str, &str)]) -> Self {
        let dir = TempDir::with_prefix("bellhop-it-").unwrap();
        let mut nodes = start_cluster(dir.path(), "").await.unwrap();
        let world = Self::around(nodes.remove(0), nodes, settings, dir).await;
        let set_up = async || match world.run(&["setup"]).await {
            ended if ended.code == Some(0) => Ok(()),
            ended => Err(ended.stderr),
        };
        world
            .within(LATER, "the cluster has found itself", set_up)
            .await;
        world
    }

    async fn around(
        nats: NatsServer,
        nodes: Vec<NatsServer>,
        settings: &[(&str, &str)],
        dir: TempDir,
    ) -> Self {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let jetstream = ContextBuilder::new()
            .timeout(Duration::from_secs(2))
            .build(client.clone());
        let settings = SETTINGS
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Self {
            members: Mutex::default(),
            settings: settings.collect(),
            outcomes: Reader::new(&jetstream, "BELLHOP_OUTCOMES", ledger::outcomes).await,
            rejected: Reader::new(&jetstream, "BELLHOP_REJECTED", ledger::rejected).await,
            sent: Mutex::default(),
            apps: Mutex::default(),
            seen_by_apps: Seen::default(),
            url: nats.url().to_owned(),
            client,
            jetstream,
            nats: tokio::sync::Mutex::new(nats),
            nodes,
            dir,
        }
    }

    /// The test's own directory.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    // Programs.

    /// Starts another member and waits until it is ready.
    pub(crate) async fn serve(&self) -> Arc<Member> {
        let name = format!("member-{}", self.members.lock().unwrap().len() + 1);
        self.serve_as(&name).await
    }

    /// Starts a member of this name and waits until it is ready.
    pub(crate) async fn serve_as(&self, name: &str) -> Arc<Member> {
        let member = self.launch(name, &[]);
        self.eventually(&format!("{name} is ready"), async || {
            member.is_ready().await
        })
        .await;
        member
    }

    /// Kills the first member and starts it again under its name, as a supervisor does: no user
    /// must wait for its ttl.
    pub(crate) async fn kill_and_revive(&self) -> Arc<Member> {
        let name = self.member().name().to_owned();
        self.member_named(&name).kill(); // The latest of that name: the ones before are dead.
        self.serve_as(&name).await
    }

    /// Starts a member with these settings too, and waits for nothing.
    pub(crate) fn launch(&self, name: &str, settings: &[(&str, &str)]) -> Arc<Member> {
        self.launch_with(name, &self.serve_arguments(name, settings))
    }

    /// Starts a member in an environment with these variables too, and waits until it is ready.
    #[cfg(feature = "otlp")]
    pub(crate) async fn serve_in(&self, variables: &[String]) -> Arc<Member> {
        let behind: Vec<String> = std::iter::once(&"env".to_owned())
            .chain(variables)
            .cloned()
            .collect();
        let member =
            self.launch_behind(&behind, "member-1", &self.serve_arguments("member-1", &[]));
        self.eventually("it is ready", async || member.is_ready().await)
            .await;
        member
    }

    /// Starts a member that reaches nats-server at this address, and waits until it is ready.
    pub(crate) async fn serve_at(&self, url: &str, name: &str) -> Arc<Member> {
        let member = self.launch_at(url, name);
        self.within(LATER, &format!("{name} is ready"), async || {
            member.is_ready().await
        })
        .await;
        member
    }

    /// Starts a member that reaches nats-server at this address, and waits for nothing.
    pub(crate) fn launch_at(&self, url: &str, name: &str) -> Arc<Member> {
        let mut arguments = self.serve_arguments(name, &[]);
        arguments[2] = url.to_owned();
        self.launch_with(name, &arguments)
    }

    fn serve_arguments(&self, name: &str, settings: &[(&str, &str)]) -> Vec<String> {
        let mut arguments = vec!["serve".to_owned(), "--nats".into(), self.url.clone()];
        let set = |(name, value): (&str, &str)| ["--set".to_owned(), format!("{name}={value}")];
        arguments.extend(
            [("http", "127.0.0.1:0"), ("name", name)]
                .into_iter()
                .flat_map(set),
        );
        arguments.extend(
            self.settings
                .iter()
                .flat_map(|(name, value)| set((name, value))),
        );
        arguments.extend(settings.iter().copied().flat_map(set));
        arguments
    }

    /// Starts a `bellhop` that is to keep running, with exactly these arguments.
    pub(crate) fn launch_with(&self, name: &str, arguments: &[String]) -> Arc<Member> {
        self.launch_behind(&[], name, arguments)
    }

    /// Starts one behind the words of a program that starts others, such as `env`.
    fn launch_behind(&self, behind: &[String], name: &str, arguments: &[String]) -> Arc<Member> {
        let member = Arc::new(Member::spawn(name, behind, arguments, self.dir.path()));
        self.members.lock().unwrap().push(member.clone());
        member
    }

    /// The member that was started first.
    pub(crate) fn member(&self) -> Arc<Member> {
        self.members.lock().unwrap()[0].clone()
    }

    /// The member of this name.
    pub(crate) fn member_named(&self, name: &str) -> Arc<Member> {
        let members = self.members.lock().unwrap();
        members
            .iter()
            .rfind(|member| member.name() == name)
            .unwrap()
            .clone()
    }

    /// Runs a command on this world's nats-server, with its settings.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_input(arguments, b"").await
    }

    /// Runs a command that reads this from its standard input.
    pub(crate) async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<&str> = arguments.iter().copied().chain(set).collect();
        bellhop(&arguments, &[("NATS_URL", &self.url)], input).await
    }

    /// Waits for a member that was asked to end.
    pub(crate) async fn ended(&self, member: &Member) -> std::process::ExitStatus {
        let what = format!("{} ends", member.name());
        self.within(LATER, &what, async || {
            member.status().ok_or("it is running".to_owned())
        })
        .await
    }

    /// Kills the nats-server without warning.
    pub(crate) async fn kill_nats(&self) {
        self.nats.lock().await.kill().await.unwrap();
    }

    /// Returns the address of another server of the cluster.
    pub(crate) fn other_node(&self) -> &str {
        self.nodes[0].url()
    }

    /// Sends the nats-server a signal.
    pub(crate) async fn signal_nats(&self, name: &str) {
        assert!(program::signal(self.nats.lock().await.pid().unwrap(), name));
    }

    /// Has the nats-server take another addition to its configuration while it runs.
    pub(crate) async fn reconfigure_nats(&self, addition: &str) {
        let dir = self.dir.path().join("nats");
        let reloads = || {
            std::fs::read_to_string(dir.join("nats-server.log"))
                .unwrap()
                .matches("Reloaded server")
                .count()
        };
        let before = reloads();
        let config = format!(
            "{}\n{addition}",
            include_str!("../../../nats-config/dev.conf")
        );
        std::fs::write(dir.join("nats-server.conf"), config).unwrap();
        self.signal_nats("HUP").await;
        let is_done = async || {
            if reloads() > before {
                Ok(())
            } else {
                Err("it is not".to_owned())
            }
        };
        self.eventually("the configuration is reloaded", is_done)
            .await;
    }

    /// Starts the nats-server again, with what it had stored.
    pub(crate) async fn restart_nats(&self) {
        self.nats.lock().await.restart().await.unwrap();
    }

    // App servers.

    /// Starts an app server to which these users are connected. It runs until the test ends or
    /// stops it.
    pub(crate) async fn app(&self, name: &str, users: &[&str]) -> Arc<App> {
        self.app_at(name, None, users).await
    }

    /// Starts an app server with a subject of its own.
    pub(crate) async fn app_at(
        &self,
        name: &str,
        subject: Option<&str>,
        users: &[&str],
    ) -> Arc<App> {
        let app = App::new(name, self.client.clone()).recording(self.seen_by_apps.clone());
        let app = Arc::new(if let Some(subject) = subject {
            app.at(subject)
        } else {
            app
        });
        self.apps.lock().unwrap().push(app.clone());
        self.restart(&app).await;
        app.connect(users).await;
        app
    }

    /// Starts an app server again, with a connection of its own.
    pub(crate) async fn restart(&self, app: &App) {
        app.start(async_nats::connect(&self.url).await.unwrap())
            .await;
    }

    // Waiting.

    /// Waits for a condition, which tells what it saw for as long as it does not hold.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        ready: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        self.within(SOON, what, ready).await
    }

    /// Waits for a condition, within a time limit, and not at all once there is a problem.
    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut ready: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        let until = Instant::now() + deadline;
        loop {
            let state = match tokio::time::timeout(deadline, ready()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(state)) => state,
                Err(_) => "looking took too long".to_owned(),
            };
            if let Some(problem) = self.problem() {
                panic!(
                    "{what}: {problem}\nlast seen: {state}\n{}",
                    self.log_tails()
                );
            }
            if Instant::now() >= until {
                panic!(
                    "{what}: not within {deadline:?}\nlast seen: {state}\n{}",
                    self.log_tails()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns a problem that fails any test.
    fn problem(&self) -> Option<String> {
        let members = self.members.lock().unwrap();
        let died = members
            .iter()
            .find(|member| !member.may_end() && member.status().is_some());
        let died = died.map(|member| format!("{} ended unexpectedly", member.name()));
        self.seen_by_apps.first_violation().or(died)
    }

    /// A member goes on after a panic of one of its tasks, so only its log tells.
    fn panic(&self) -> Option<String> {
        let members = self.members.lock().unwrap();
        let panicked = members
            .iter()
            .find(|member| member.log().contains("panicked at"))?;
        Some(format!("{} panicked", panicked.name()))
    }

    fn log_tails(&self) -> String {
        self.members
            .lock()
            .unwrap()
            .iter()
            .map(|member| member.log_tail())
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if std::env::var_os(KEEP_ENV).is_some() {
                eprintln!("kept {}", self.dir.path().display());
                self.dir.disable_cleanup(true);
            }
        } else if let Some(problem) = self.problem().or_else(|| self.panic()) {
            panic!("{problem}\n{}", self.log_tails());
        }
    }
}

fn few<T: Debug>(all: &[T]) -> &[T] {
    &all[..all.len().min(3)]
}
