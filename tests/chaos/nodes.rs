//! The NATS cluster: a node on each host.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::mem;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bellhop_testkit::nats_server::{self, NatsServer, Options};

use crate::hosts::{self, Hosts};
use crate::program::{probe, signal};

/// Names another nats-server, to which nodes are upgraded or downgraded and back while they are
/// under load.
pub(crate) const OTHER_ENV: &str = "BELLHOP_CHAOS_OTHER_NATS";

/// One of the cluster's servers.
pub(crate) struct Node {
    pub(crate) name: String,
    server: NatsServer,
    monitor: SocketAddr,
    config: PathBuf,
    /// The script that runs it on its host, and what stands there before the program.
    script: (PathBuf, String),
    program: PathBuf,
    /// The program that runs after the next switch.
    other: PathBuf,
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
        let program = nats_server::find().await.unwrap().path;
        let script = (dir.join("nats-server"), hosts.behind(host).join(" "));
        write_script(&script, &program);
        let address = hosts.address(host);
        let options = Options {
            program: Some(&script.0),
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
            other: std::env::var_os(OTHER_ENV).map_or_else(|| program.clone(), PathBuf::from),
            script,
            program,
        }
    }

    /// Returns the address for clients.
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

    /// Takes the other program at the next start.
    pub(crate) fn switch(&mut self) {
        mem::swap(&mut self.program, &mut self.other);
        write_script(&self.script, &self.program);
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

    /// Checks that it reports itself, its streams and its consumers as up to date.
    pub(crate) async fn is_whole(&self) -> Result<(), String> {
        match probe(self.monitor, "GET", "/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} says {}", self.name, answer.body)),
            Err(error) => Err(format!("{} does not answer: {error}", self.name)),
        }
    }
}

/// Writes a program that runs nats-server on its host. A running one is not disturbed.
fn write_script((path, behind): &(PathBuf, String), program: &Path) {
    let fresh = path.with_extension("new");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let script = format!("#!/bin/sh\nexec {behind} '{}' \"$@\"\n", program.display());
    fs::write(&fresh, script).unwrap();
    fs::set_permissions(&fresh, Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, path).unwrap();
}
