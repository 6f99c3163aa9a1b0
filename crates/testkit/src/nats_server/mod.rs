//! Finds a real nats-server, and runs it for the demo and the tests.
//!
//! Bellhop's promises rest on what JetStream really does, so nothing here stands in for NATS: the
//! demo and every test have a server of their own, on a port that the server picks, ready in some
//! 20 ms. `bellhop serve` never comes here: it connects to the server it is given.
//!
//! A server started here ends with its [`NatsServer`]. On Linux it also ends when this process is
//! killed with SIGKILL, by way of util-linux's `setpriv`, as the system call behind it needs
//! `unsafe`. Where that tool is missing, and on other systems, a SIGKILL leaves it running.

mod cluster;
mod find;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::sync::{OnceCell, oneshot};
use tokio::time::{sleep, timeout};

use crate::signal::signal;

pub use cluster::start_cluster;
pub use find::{FindError, Found, OLDEST, SERVER_ENV, Unusable, Version, find};

const DEV_CONF: &str = include_str!("../../../../nats-config/dev.conf");
/// A large store may take seconds to be read back.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// It takes some 10 ms; a server that hangs is killed after this.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(3);
const LOG_TAIL_LINES: usize = 20;

/// The options of a server; by default it uses the development configuration unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The program; by default what [`find()`] finds.
    pub program: Option<&'a Path>,
    /// Configuration after the development one. A setting given again replaces the earlier one, and
    /// a `jetstream` block all of that block. It must not set `store_dir`.
    pub extra_config: &'a str,
    /// Arguments after the usual ones; of a flag given twice, the last one counts.
    pub extra_args: &'a [&'a str],
    /// Environment variables beside this process's own; a configuration can name them as `$NAME`.
    pub variables: &'a [(&'a str, &'a str)],
}

/// The reason why a server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The program does not run, or its directory cannot be written.
    #[error("cannot use {0:?} to run a nats-server: {1}")]
    Io(PathBuf, io::Error),
    /// It ended before it was ready: it refuses a setting, or its port is taken. With the end of
    /// its log.
    #[error("nats-server ended before it was ready ({0}); its log ends with:\n{1}")]
    Ended(ExitStatus, String),
    /// It was not ready in 10 s, and was killed. With the end of its log.
    #[error("nats-server was not ready in {START_DEADLINE:?}; its log ends with:\n{0}")]
    Late(String),
}

/// A nats-server of one's own, on loopback. Dropping it kills the server, and blocks for the moment
/// that takes.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    dir: PathBuf,
    extra_args: Vec<String>,
    variables: Vec<(String, String)>,
    url: String,
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Dropping it ends the thread that spawned the child; see [`spawn`].
    _spawner: mpsc::Sender<()>,
}

impl NatsServer {
    /// Starts a server on a free port and waits until it accepts connections.
    ///
    /// Its configuration, log (`nats-server.log`) and store are inside `dir`, which is created
    /// where it is missing; a store that is already there is used.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(dir: &Path, options: Options<'_>) -> Result<NatsServer, StartError> {
        let program = match options.program {
            Some(program) => program.into(),
            None => find().await?.path,
        };
        let extra_args = options.extra_args.iter().map(ToString::to_string).collect();
        let variables = options
            .variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let config = format!(
            "{DEV_CONF}\n# Added by what started this server.\n{}\n",
            options.extra_config
        );
        let written =
            fs::create_dir_all(dir).and_then(|()| fs::write(dir.join("nats-server.conf"), config));
        written.map_err(|why| StartError::Io(dir.into(), why))?;
        let mut server = NatsServer {
            program,
            dir: dir.into(),
            extra_args,
            variables,
            url: String::new(),
            port: 0,
            running: None,
        };
        server.launch("-1").await?;
        Ok(server)
    }

    /// Returns the address for clients, such as `nats://127.0.0.1:36433`; the same after a restart.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the port in [`url`](Self::url).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process, or `None` between [`kill`](Self::kill) and [`restart`](Self::restart).
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref()?.child.id()
    }

    /// Ends the server in good order (SIGTERM), and kills it if that takes more than 5 s.
    ///
    /// # Errors
    /// What the operating system said when it could not even be killed.
    pub async fn stop(mut self) -> io::Result<()> {
        self.terminate().await
    }

    /// Kills the server without warning (SIGKILL) and waits for its end; does nothing if it is not
    /// running. Messages that JetStream has acknowledged stay: the process is gone, the machine is
    /// not.
    ///
    /// # Errors
    /// What the operating system said when it could not be killed.
    pub async fn kill(&mut self) -> io::Result<()> {
        let Some(Running { mut child, .. }) = self.running.take() else {
            return Ok(());
        };
        if child.try_wait()?.is_none() {
            child.kill().await
        } else {
            Ok(())
        }
    }

    /// Starts the server again on the same port and store, after ending it in good order if it is
    /// running.
    ///
    /// # Errors
    /// [`StartError`]; it can be tried again.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.terminate()
            .await
            .map_err(|why| StartError::Io(self.program.clone(), why))?;
        let port = self.port.to_string();
        for _ in 0..50 {
            match self.launch(&port).await {
                // An outgoing connection may have been given the port meanwhile, for a moment.
                Err(StartError::Ended(_, log)) if log.contains("address already in use") => {}
                result => return result,
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.launch(&port).await
    }

    async fn terminate(&mut self) -> io::Result<()> {
        if let (Some(pid), Some(running)) = (self.pid(), &mut self.running)
            && signal(pid, "TERM")
        {
            let _ = timeout(STOP_DEADLINE, running.child.wait()).await;
        }
        self.kill().await
    }

    async fn launch(&mut self, port: &str) -> Result<(), StartError> {
        let (log, ports) = (self.dir.join("nats-server.log"), self.dir.join("ports"));
        // A killed server leaves its ports file behind.
        let _ = fs::remove_dir_all(&ports);
        let output = fs::create_dir_all(&ports)
            .and_then(|()| File::options().create(true).append(true).open(&log))
            .map_err(|why| StartError::Io(self.dir.clone(), why))?;

        let mut command = tied_to_its_spawner(&self.program).await;
        command
            .arg("-c")
            .arg(self.dir.join("nats-server.conf"))
            .args(["-a", "127.0.0.1", "-p", port]);
        command
            .arg("-sd")
            .arg(self.dir.join("store"))
            .arg("--ports_file_dir")
            .arg(&ports);
        // Ctrl-C at a terminal is for the foreground group: this process decides when its server
        // ends.
        command
            .args(&self.extra_args)
            .envs(self.variables.iter().cloned());
        command.stderr(output).process_group(0).kill_on_drop(true);
        let running = spawn(command).await;
        let mut running = running.map_err(|why| StartError::Io(self.program.clone(), why))?;

        let log_tail = || tail(&fs::read(&log).unwrap_or_default());
        match timeout(START_DEADLINE, ready(&mut running.child, &ports)).await {
            Ok(Ok(opened)) => (self.url, self.port) = opened,
            Ok(Err(status)) => return Err(StartError::Ended(status, log_tail())),
            Err(_) => {
                let _ = running.child.kill().await;
                return Err(StartError::Late(log_tail()));
            }
        }
        self.running = Some(running);
        Ok(())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let Some(Running { child, .. }) = &mut self.running else {
            return;
        };
        let _ = child.start_kill();
        // Until it is gone it may write, and its temporary directory could not be removed.
        for _ in 0..500 {
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn quiet(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A command, without input and output, that Linux kills when the thread that spawned it ends,
/// where that can be had.
pub async fn tied_to_its_spawner(program: &Path) -> Command {
    static HAS_SETPRIV: OnceCell<bool> = OnceCell::const_new();
    const TIE: [&str; 2] = ["--pdeathsig", "KILL"];
    let trial = || async {
        quiet("setpriv")
            .args(TIE)
            .arg("true")
            .status()
            .await
            .is_ok_and(|it| it.success())
    };
    if !cfg!(target_os = "linux") || !*HAS_SETPRIV.get_or_init(trial).await {
        return quiet(program);
    }
    let mut command = quiet("setpriv");
    command.args(TIE).arg(program);
    command
}

/// Spawns on a thread that lasts as long as the server: the caller's thread may end sooner, and
/// Linux takes that for the death of the parent.
async fn spawn(mut command: Command) -> io::Result<Running> {
    let (_spawner, server_dropped) = mpsc::channel::<()>();
    let (tell, started) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("nats-server".into())
        .spawn(move || {
            let spawned = {
                let _entered = runtime.enter();
                command.spawn()
            };
            if tell.send(spawned).is_ok() {
                let _ = server_dropped.recv();
            }
        })?;
    let child = started.await.map_err(io::Error::other)??;
    Ok(Running { child, _spawner })
}

/// Waits for the ports file, which the server writes once it accepts connections, or for its end.
async fn ready(child: &mut Child, ports: &Path) -> Result<(String, u16), ExitStatus> {
    loop {
        if let Some(opened) = opened(ports) {
            return Ok(opened);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(status);
        }
        sleep(POLL).await;
    }
}

/// The URL and port for clients; `None` while the ports file is not there or half written.
fn opened(ports: &Path) -> Option<(String, u16)> {
    #[derive(Deserialize)]
    struct Ports {
        nats: [String; 1],
    }
    let file = fs::read_dir(ports).ok()?.next()?.ok()?.path();
    let Ports { nats: [url] } = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let port = url.rsplit(':').next()?.parse().ok()?;
    Some((url, port))
}

fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::net::TcpStream;

    use async_nats::jetstream::{self, stream};
    use tempfile::TempDir;

    use super::*;

    async fn started(dir: &TempDir) -> NatsServer {
        NatsServer::start(dir.path(), Options::default())
            .await
            .unwrap()
    }

    async fn jetstream_of(server: &NatsServer) -> jetstream::Context {
        jetstream::new(async_nats::connect(server.url()).await.unwrap())
    }

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_data() {
        let dir = TempDir::new().unwrap();
        let mut server = started(&dir).await;
        let config = stream::Config {
            name: "KEPT".into(),
            ..Default::default()
        };
        let js = jetstream_of(&server).await;
        js.create_stream(config).await.unwrap();
        js.publish("KEPT", "reminder".into())
            .await
            .unwrap()
            .await
            .unwrap();
        let (url, pid) = (server.url().to_owned(), server.pid().unwrap());

        server.kill().await.unwrap();
        assert_eq!(server.pid(), None);
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
        for _ in 0..2 {
            server.restart().await.unwrap();
            assert_eq!(server.url(), url);
            assert_ne!(server.pid(), Some(pid));
            let stream = jetstream_of(&server)
                .await
                .get_stream("KEPT")
                .await
                .unwrap();
            assert_eq!(stream.cached_info().state.messages, 1);
        }
    }

    #[tokio::test]
    async fn servers_do_not_meet_and_leave_nothing_running() {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (one, two) = tokio::join!(started(&here), started(&there));
        assert_ne!(one.port(), two.port());
        let ports = [one.port(), two.port()];
        one.stop().await.unwrap();
        drop(two);
        assert!(
            ports
                .iter()
                .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        );
        let log = fs::read_to_string(here.path().join("nats-server.log")).unwrap();
        assert!(log.contains("Server Exiting"), "{log}");
    }

    #[tokio::test]
    async fn configuration_can_be_added_and_mistakes_are_shown() {
        let dir = TempDir::new().unwrap();
        let options = Options {
            extra_config: "max_payload: 4KB",
            ..Options::default()
        };
        let server = NatsServer::start(dir.path(), options).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        assert_eq!(client.server_info().max_payload, 4096);

        let options = Options {
            extra_config: "max_payloda: 4KB",
            ..Options::default()
        };
        let dir = TempDir::new().unwrap();
        let error = NatsServer::start(dir.path(), options).await.unwrap_err();
        let StartError::Ended(_, tail) = error else {
            panic!("{error}")
        };
        assert!(tail.contains("max_payloda"), "{tail}");
    }

    /// The other half of the next test, run as a process of its own.
    #[tokio::test]
    #[ignore = "waits to be killed"]
    async fn parent() {
        let Some(dir) = env::var_os("BELLHOP_TEST_DIR") else {
            return;
        };
        let server = NatsServer::start(Path::new(&dir), Options::default())
            .await
            .unwrap();
        fs::write(Path::new(&dir).join("up"), server.port().to_string()).unwrap();
        std::future::pending().await
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_server_dies_with_its_killed_parent() {
        // Not on the parent's time, should it have to be fetched.
        find().await.unwrap();
        let dir = TempDir::new().unwrap();
        let mut parent = Command::new(env::current_exe().unwrap());
        parent.args(["--ignored", "--exact", "nats_server::tests::parent"]);
        parent
            .env("BELLHOP_TEST_DIR", dir.path())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let mut parent = parent.spawn().unwrap();
        let port = wait_for(|| fs::read_to_string(dir.path().join("up")).ok()?.parse().ok()).await;
        let connect = || TcpStream::connect(("127.0.0.1", port));
        assert!(connect().is_ok());
        parent.kill().await.unwrap();
        wait_for(|| connect().err()).await;
    }

    async fn wait_for<T>(condition: impl Fn() -> Option<T>) -> T {
        let poll = async {
            loop {
                if let Some(value) = condition() {
                    return value;
                }
                sleep(POLL).await;
            }
        };
        timeout(START_DEADLINE, poll).await.expect("in time")
    }
}
