//! Everything that runs: three hosts with a NATS node and a `bellhop serve` each, app servers, and
//! their users.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;

use crate::apps::App;
use crate::arrivals::Arrivals;
use crate::check::STEADY;
use crate::client;
use crate::hosts::{self, Hosts};
use crate::installation::{self, Installation};
use crate::nodes::{self, Node};
use crate::program::{Member, bellhop, probe};

/// Users who are connected all the time, enough of them for every partition to have some.
const STEADY_USERS: usize = 32;
/// Number of partitions.
const PARTITIONS: u16 = 8;
/// Users who come and go, at the app servers that do, too.
const CROWD: usize = 48;
/// Users who never come.
const AWAY: usize = 2;
/// App servers that come and go.
pub(crate) const APPS: usize = 3;
/// Maximum time until everything is healthy again.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Settings of every member. A message whose acknowledgement was lost comes again after the first
/// of them; a request that is lost while a leader is elected is sent again after the second.
const SETTINGS: [(&str, &str); 3] = [
    ("dispatch.ack_wait", "10s"),
    ("nats.timeout", "2s"),
    ("streams.replicas", "3"),
];

/// Everything, in the order of dropping.
pub(crate) struct World {
    pub(crate) members: Vec<Member>,
    pub(crate) apps: Vec<App>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) hosts: Hosts,
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    pub(crate) url: String,
    /// A setting that changes now and then.
    pub(crate) lease: &'static str,
    probes: Vec<SocketAddr>,
    dir: PathBuf,
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Users who are connected all the time.
pub(crate) fn steady() -> Vec<String> {
    names("steady", STEADY_USERS)
}

/// Users who come and go.
pub(crate) fn crowd() -> Vec<String> {
    names("crowd", CROWD)
}

/// Users who never come.
pub(crate) fn away() -> Vec<String> {
    names("away", AWAY)
}

impl World {
    /// Starts all of it below this directory, and connects everybody.
    pub(crate) async fn start(dir: &Path) -> Self {
        let hosts = Hosts::start();
        std::fs::create_dir_all(dir.join("logs")).unwrap();
        let nodes = nodes::start(&hosts, dir).await;
        let url = nodes.iter().map(Node::url).collect::<Vec<_>>().join(",");
        let client = client::connect(&url, "test").await;
        let probe_at = |host| {
            format!("{}:{}", hosts.address(host), nodes::free_port())
                .parse()
                .unwrap()
        };
        let mut world = Self {
            members: Vec::new(),
            apps: Vec::new(),
            nodes,
            jetstream: client::jetstream(client.clone()),
            client,
            url,
            lease: "10s",
            probes: (0..hosts::COUNT).map(probe_at).collect(),
            dir: dir.to_owned(),
            hosts,
        };
        world
            .within("the cluster is whole", async |world| {
                world.nodes_are_whole().await
            })
            .await;
        // A cluster that has just found itself may still miss a peer for a moment.
        world
            .within("the installation is set up", async |world| {
                world.set_up().await
            })
            .await;
        for host in 0..hosts::COUNT {
            let member = world.member(host);
            world.members.push(member);
            world
                .within("a member is ready", async |world| {
                    world.is_ready(host).await
                })
                .await;
        }
        for app in names("app", APPS).into_iter().chain([STEADY.to_owned()]) {
            world.apps.push(App::spawn(&app, &world.url, dir));
        }
        for (n, user) in crowd().into_iter().enumerate() {
            world.apps[n % APPS].connect([user]);
        }
        world.apps[APPS].connect(steady());
        world
    }

    /// Returns the directory of all logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Returns the arguments of every member.
    fn arguments(&self, command: &str) -> Vec<String> {
        let partitions = PARTITIONS.to_string();
        let all = SETTINGS
            .into_iter()
            .chain([("heartbeat.lease", self.lease), ("partitions", &partitions)]);
        let set = all.flat_map(|(name, value)| ["--set".into(), format!("{name}={value}")]);
        [command, "--nats", &self.url]
            .map(Into::into)
            .into_iter()
            .chain(set)
            .collect()
    }

    async fn set_up(&self) -> Result<(), String> {
        let arguments = self.arguments("setup");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = bellhop(&arguments, &[], b"").await;
        if ended.code == Some(0) {
            Ok(())
        } else {
            Err(ended.stderr)
        }
    }

    /// A new process of this host's member.
    pub(crate) fn member(&self, host: usize) -> Member {
        let name = format!("member-{host}");
        let mut arguments = self.arguments("serve");
        let own = [
            ("http", self.probes[host].to_string()),
            ("name", name.clone()),
        ];
        arguments.extend(
            own.iter()
                .flat_map(|(name, value)| ["--set".into(), format!("{name}={value}")]),
        );
        Member::spawn(&name, &self.hosts.behind(host), &arguments, &self.dir)
    }

    /// A new process of this app server, without users.
    pub(crate) fn app(&self, index: usize) -> App {
        App::spawn(&self.apps[index].name, &self.url, &self.dir)
    }

    /// Waits until nothing is amiss: nodes, members and app servers say so, and every steady user
    /// has had a reminder since.
    ///
    /// # Errors
    /// What is amiss after a minute.
    pub(crate) async fn heal(&self) -> Result<(), String> {
        let mut arrivals = Arrivals::from_now(&self.logs());
        self.try_within(async |world| {
            let ready = world.everything_is_ready().await;
            if ready.is_err() {
                arrivals = Arrivals::from_now(&world.logs());
            }
            ready.and_then(|()| arrivals.are_everybodys(&steady()))
        })
        .await
    }

    async fn everything_is_ready(&self) -> Result<(), String> {
        self.nodes_are_whole().await?;
        for host in 0..hosts::COUNT {
            self.is_ready(host).await?;
        }
        for app in &self.apps {
            app.is_there(&self.client).await?;
        }
        Ok(())
    }

    async fn nodes_are_whole(&self) -> Result<(), String> {
        for node in &self.nodes {
            node.is_whole().await?;
        }
        Ok(())
    }

    async fn is_ready(&self, host: usize) -> Result<(), String> {
        match probe(self.probes[host], "GET", "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("member-{host} says {}", answer.body)),
            Err(error) => Err(format!("member-{host} does not answer: {error}")),
        }
    }

    /// Waits until nothing is under way, and nothing waits for anybody who is connected.
    ///
    /// # Errors
    /// What is under way or waits after a minute.
    pub(crate) async fn settle(&self) -> Result<(), String> {
        let settled = self.try_within(async |world| {
            let installation = world.installation();
            installation.is_quiet().await?;
            match installation
                .mailboxes()
                .await
                .iter()
                .find(|user| !away().contains(user))
            {
                Some(user) => Err(format!("reminders wait for {user}")),
                None => Ok(()),
            }
        });
        settled
            .await
            .map_err(|state| format!("not settled in a minute: {state}"))
    }

    /// All of it, as its operator sees it.
    pub(crate) fn installation(&self) -> Installation {
        Installation {
            jetstream: self.jetstream.clone(),
            url: self.url.clone(),
        }
    }

    /// Waits for a condition that must come about.
    pub(crate) async fn within(
        &self,
        what: &str,
        ready: impl AsyncFnMut(&Self) -> Result<(), String>,
    ) {
        if let Err(state) = self.try_within(ready).await {
            let tails: String = self.members.iter().map(Member::log_tail).collect();
            panic!("{what}: not within {WHOLE_WITHIN:?}: {state}\n{tails}");
        }
    }

    async fn try_within(
        &self,
        mut ready: impl AsyncFnMut(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        installation::try_within(WHOLE_WITHIN, async || ready(self).await).await
    }
}

#[test]
fn stalled_partition_is_seen_by_steady_user() {
    let partition = |user: String| bellhop::partition::of_user(&user.parse().unwrap(), PARTITIONS);
    let seen: std::collections::BTreeSet<_> = steady().into_iter().map(partition).collect();
    assert_eq!(seen.len(), usize::from(PARTITIONS), "{seen:?}");
}
