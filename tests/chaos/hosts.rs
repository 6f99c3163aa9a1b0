//! Three hosts. Where the machine permits it each is a network namespace, joined to the others by a
//! bridge, so that cables can be pulled; elsewhere all three are the loopback, and nothing can be
//! cut.
//!
//! Namespaces are made inside one that the whole run has for itself, and held by processes: all of
//! it vanishes with them, whatever happens.

use std::ffi::OsStr;
use std::fs;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::program::tied;

/// Number of hosts.
pub(crate) const COUNT: usize = 3;
/// Set for a run that has a network namespace for itself.
const ENV: &str = "BELLHOP_CHAOS_NAMESPACE";
/// With and without being root.
const UNSHARE: [&[&str]; 2] = [
    &["unshare", "--net"],
    &["unshare", "--map-root-user", "--net"],
];

/// The hosts, by index. Dropping them ends them.
pub(crate) struct Hosts {
    /// Each keeps a namespace in being; none on the loopback.
    holders: Vec<Child>,
}

/// Runs this in a network namespace of its own, where that can be had.
pub(crate) fn run_apart(words: &[&OsStr]) -> ExitStatus {
    let found = UNSHARE.into_iter().find(|unshare| {
        run(&[*unshare, &["ip", "link", "add", "hosts", "type", "bridge"]].concat()).is_ok()
    });
    let mut command = match found {
        Some(unshare) => {
            let behind = unshare.iter().map(OsStr::new);
            let mut command = Command::new(unshare[0]);
            let tied = tied(words);
            command
                .args(behind.skip(1))
                .arg(tied.get_program())
                .args(tied.get_args())
                .env(ENV, "1");
            command
        }
        None => {
            eprintln!("no network namespaces here: cuts between hosts are skipped");
            tied(words)
        }
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap()
}

/// Runs a command to its end.
fn run(words: &[&str]) -> Result<(), String> {
    let Output { status, stderr, .. } = match Command::new(words[0]).args(&words[1..]).output() {
        Ok(output) => output,
        Err(error) => return Err(format!("{words:?}: {error}")),
    };
    if status.success() {
        Ok(())
    } else {
        Err(format!("{words:?}: {}", String::from_utf8_lossy(&stderr)))
    }
}

/// Runs an `ip` command that must work.
fn ip(behind: &[String], command: &str) {
    let words: Vec<&str> = behind
        .iter()
        .map(String::as_str)
        .chain(["ip"])
        .chain(command.split(' '))
        .collect();
    run(&words).unwrap();
}

impl Hosts {
    /// Makes them.
    pub(crate) fn start() -> Self {
        let mut hosts = Self {
            holders: Vec::new(),
        };
        if std::env::var_os(ENV).is_some() {
            for command in [
                "link set lo up",
                "link add hosts type bridge",
                "addr add 10.77.0.254/24 dev hosts",
                "link set hosts up",
            ] {
                ip(&[], command);
            }
            for host in 0..COUNT {
                hosts.holders.push(hold_namespace());
                let pid = hosts.holders[host].id();
                ip(
                    &[],
                    &format!("link add host-{host} type veth peer name eth0 netns {pid}"),
                );
                ip(&[], &format!("link set host-{host} master hosts up"));
                let inside = hosts.behind(host);
                ip(
                    &inside,
                    &format!("addr add {}/24 dev eth0", hosts.address(host)),
                );
                ip(&inside, "link set eth0 up");
                ip(&inside, "link set lo up");
            }
        }
        hosts
    }

    /// Returns true if cables can be pulled.
    pub(crate) fn can_cut(&self) -> bool {
        !self.holders.is_empty()
    }

    /// Returns the address of programs on this host.
    pub(crate) fn address(&self, host: usize) -> String {
        if self.can_cut() {
            format!("10.77.0.{}", host + 1)
        } else {
            "127.0.0.1".to_owned()
        }
    }

    /// Returns the prefix of a command that runs on this host.
    pub(crate) fn behind(&self, host: usize) -> Vec<String> {
        let enter = |holder: &Child| {
            [
                "nsenter".into(),
                "--target".into(),
                holder.id().to_string(),
                "--net".into(),
            ]
        };
        self.holders
            .get(host)
            .map(enter)
            .into_iter()
            .flatten()
            .collect()
    }

    /// Pulls a host's cable: no other host reaches it, and it reaches none.
    pub(crate) fn isolate(&self, host: usize) {
        ip(&[], &format!("link set host-{host} down"));
    }

    /// Plugs it in again.
    pub(crate) fn join(&self, host: usize) {
        ip(&[], &format!("link set host-{host} up"));
    }

    /// Cuts two hosts off from each other. Both reach everybody else.
    pub(crate) fn part(&self, one: usize, other: usize) {
        self.blackhole("add", one, other);
    }

    /// Joins them again.
    pub(crate) fn rejoin(&self, one: usize, other: usize) {
        self.blackhole("del", one, other);
    }

    fn blackhole(&self, change: &str, one: usize, other: usize) {
        for (here, there) in [(one, other), (other, one)] {
            ip(
                &self.behind(here),
                &format!("route {change} blackhole {}/32", self.address(there)),
            );
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A process in a network namespace of its own, when it is there.
fn hold_namespace() -> Child {
    let holder = tied(&["unshare", "--net", "sleep", "infinity"].map(OsStr::new))
        .spawn()
        .unwrap();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while namespace(&holder.id().to_string()) == namespace("self") {
        assert!(Instant::now() < until, "no namespace in 5 s");
        std::thread::sleep(Duration::from_millis(2));
    }
    holder
}
