//! `bellhop` as real processes: members that keep running, and commands that end.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

pub(crate) use bellhop_testkit::signal::signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LOG_TAIL_LINES: usize = 25;
/// Enough for any command on a loaded machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// A running `bellhop serve`. Dropping it kills it.
pub(crate) struct Member {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
    /// The test has asked it to end.
    may_end: AtomicBool,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Member {
    /// Starts it, behind the words of a program that starts others, such as `nsenter`.
    pub(crate) fn spawn(name: &str, behind: &[String], arguments: &[String], dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = program(behind);
        command
            .args(arguments)
            .current_dir(dir)
            .env("BELLHOP_LOG", "warn,bellhop=debug");
        // As members of one host they share its history, and no other test's.
        command.env("STATE_DIRECTORY", dir);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = Mutex::new(command.spawn().unwrap());
        Self {
            name: name.to_owned(),
            log,
            child,
            may_end: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sends a signal, such as `TERM`. After one that ends it, it may end.
    pub(crate) fn signal(&self, signal: &str) {
        if ["TERM", "INT", "KILL"].contains(&signal) {
            self.may_end.store(true, Ordering::Relaxed);
        }
        assert!(
            self::signal(self.pid(), signal),
            "{} cannot be sent {signal}",
            self.name
        );
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Kills it without warning, and waits for its end.
    pub(crate) fn kill(&self) {
        self.may_end.store(true, Ordering::Relaxed);
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Returns its exit status, if it has ended.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    pub(super) fn may_end(&self) -> bool {
        self.may_end.load(Ordering::Relaxed)
    }

    /// Returns its log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!(
            "-- the log of {} ends with:\n{}\n",
            self.name,
            tail.join("\n")
        )
    }

    /// Returns the address of its probes, from its log.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let log = self.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("answering probes"))?;
        line.split("address=")
            .nth(1)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    }

    /// Asks it over HTTP.
    pub(crate) async fn probe(&self, method: &str, path: &str) -> Result<Probed, String> {
        let address = self.address().ok_or("it answers no probes yet")?;
        probe(address, method, path)
            .await
            .map_err(|error| error.to_string())
    }

    /// Checks that it reports itself as ready; else returns the missing conditions.
    pub(crate) async fn is_ready(&self) -> Result<(), String> {
        let answer = self.probe("GET", "/readyz").await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("{} says {answer:?}", self.name))
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let child = self
            .child
            .get_mut()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Asks an address over HTTP.
pub(crate) async fn probe(
    address: SocketAddr,
    method: &str,
    path: &str,
) -> std::io::Result<Probed> {
    exchange(
        address,
        &format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// Sends an address a request over HTTP, after which it closes the connection.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> std::io::Result<Probed> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Ok(Probed {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// The exit status and the output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Returns its output, if it succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Runs `bellhop` to its end, with these variables alone.
pub(crate) async fn bellhop(arguments: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Ended {
    bellhop_within(COMMAND_DEADLINE, arguments, variables, input).await
}

/// The same for a command that may take longer.
pub(crate) async fn bellhop_within(
    deadline: Duration,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &[u8],
) -> Ended {
    let mut command = program(&[]);
    command.args(arguments).envs(variables.iter().copied());
    let mut command = tokio::process::Command::from(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let run = async {
        // A command that does not read its input closes it.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    };
    let output = tokio::time::timeout(deadline, run).await;
    let output =
        output.unwrap_or_else(|_| panic!("bellhop {arguments:?} does not end in {deadline:?}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The program, without variables that the environment may have set for it.
fn program(behind: &[String]) -> Command {
    let words: Vec<&OsStr> = behind
        .iter()
        .map(OsStr::new)
        .chain([env!("CARGO_BIN_EXE_bellhop").as_ref()])
        .collect();
    let mut command = tied(&words);
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

/// A command of a program and its first arguments. Where util-linux has `setpriv`, Linux kills it
/// when the thread that spawned it ends, so that it does not outlive a test run that is killed.
pub(crate) fn tied(words: &[&OsStr]) -> Command {
    static HAS_SETPRIV: OnceLock<bool> = OnceLock::new();
    let tie = ["setpriv", "--pdeathsig", "KILL"].map(OsStr::new);
    let trial = || {
        Command::new(tie[0])
            .args(&tie[1..])
            .arg("true")
            .stderr(Stdio::null())
            .status()
    };
    let is_tied = *HAS_SETPRIV.get_or_init(|| trial().is_ok_and(|status| status.success()));
    let words: Vec<&OsStr> = tie
        .into_iter()
        .filter(|_| is_tied)
        .chain(words.iter().copied())
        .collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}
