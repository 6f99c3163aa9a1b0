//! The NATS cluster: a node on each host.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bellhop_testkit::nats_server::{self, NatsServer, Options};

use crate::hosts::{self, Hosts};
use crate::program::{probe, signal};

/// One of the cluster's servers.
pub(crate) struct Node {
    pub(crate) name: String,
    server: NatsServer,
    monitor: SocketAddr,
    config: PathBuf,
}

/// Starts a cluster, and does not wait until it has found itself.
pub(crate) async fn start(hosts: &Hosts, dir: &Path) -> Vec<Node> {
    let ports: Vec<(u16, u16)> = (0..hosts::COUNT)
        .map(|_| (free_port(), free_port()))
        .collect();
    let listen = |host: usize, port| format!("{}:{port}", hosts.address(host));
    let routes: Vec<String> = (0..hosts::COUNT)
        .map(|host| format!("\"nats://{}\"", listen(host, ports[host].0)))
        .collect();
    let starting = (0..hosts::COUNT).map(|host| {
        let (cluster, monitor) = (listen(host, ports[host].0), listen(host, ports[host].1));
        let extra_config = format!(
            "server_name: nats-{host}\nhttp: \"{monitor}\"\n\
             cluster {{ name: chaos, listen: \"{cluster}\", routes: [{}] }}",
            routes.join(", ")
        );
        Node::start(hosts, dir, host, monitor.parse().unwrap(), extra_config)
    });
    futures_util::future::join_all(starting).await
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Node {
    async fn start(
        hosts: &Hosts,
        dir: &Path,
        host: usize,
        monitor: SocketAddr,
        extra_config: String,
    ) -> Self {
        let name = format!("nats-{host}");
        let dir = dir.join(&name);
        let program = program_on(hosts, host, &dir).await;
        let address = hosts.address(host);
        let options = Options {
            program: Some(&program),
            extra_config: &extra_config,
            extra_args: &["-a", &address],
            ..Options::default()
        };
        let server = NatsServer::start(&dir, options).await.unwrap();
        Self {
            name,
            server,
            monitor,
            config: dir.join("nats-server.conf"),
        }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// Kills it without warning.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Starts it again; ends it in good order before, if it is running.
    pub(crate) async fn restart(&mut self) {
        self.server.restart().await.unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        assert!(
            signal(self.server.pid().unwrap(), name),
            "{} cannot be sent {name}",
            self.name
        );
    }

    /// Changes a setting in its file. It counts when the server reloads it, or starts again.
    pub(crate) fn configure(&self, setting: &str, value: &str) {
        let before = fs::read_to_string(&self.config).unwrap();
        let mut text: String = before
            .lines()
            .filter(|line| !line.starts_with(setting))
            .collect::<Vec<_>>()
            .join("\n");
        write!(text, "\n{setting}: {value}\n").unwrap();
        fs::write(&self.config, text).unwrap();
    }

    /// Whether it says that it, its streams and its consumers are all up to date.
    pub(crate) async fn is_whole(&self) -> Result<(), String> {
        match probe(self.monitor, "GET", "/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} says {}", self.name, answer.body)),
            Err(error) => Err(format!("{} does not answer: {error}", self.name)),
        }
    }
}

/// A program that runs nats-server on this host.
async fn program_on(hosts: &Hosts, host: usize, dir: &Path) -> PathBuf {
    let found = nats_server::find().await.unwrap().path;
    let path = dir.join("nats-server");
    fs::create_dir_all(dir).unwrap();
    let script = format!(
        "#!/bin/sh\nexec {} '{}' \"$@\"\n",
        hosts.behind(host).join(" "),
        found.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}
