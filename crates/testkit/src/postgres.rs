//! A PostgreSQL: one server for the test process, a database for each test.
//!
//! It lives in a temporary directory and listens on a socket there. A shell watches over it: when
//! the test process ends, however that happens, the shell's input ends, and it stops the server and
//! removes the directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// With `none`, tests that need PostgreSQL are left out; with the address of a server, they use
/// that one.
const POSTGRES_ENV: &str = "BELLHOP_TEST_POSTGRES";
/// To make a new server's files and start it, on a loaded machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// $1: the server's programs; $2: its directory; the rest: how to become who may run it.
const WATCH: &str = r#"
    bin=$1 dir=$2; shift 2
    "$@" "$bin/initdb" -D "$dir/data" -U bellhop -A trust -E UTF8 --locale=C --no-sync || exit
    "$@" "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=300 </dev/null &
    read -r _; kill -INT $!; wait; rm -rf "$dir""#;

struct Server {
    /// Its address up to the database's name, and from there on.
    address: (String, String),
    /// The watching shell; its input ends with this process.
    _watch: Option<Child>,
}

/// Returns the address of a new database, or none if `BELLHOP_TEST_POSTGRES` is `none`. Each call
/// makes another database.
///
/// # Panics
/// When no PostgreSQL is found, or it does not start.
pub async fn database() -> Option<String> {
    static SERVER: OnceCell<Option<Server>> = OnceCell::const_new();
    static DATABASES: AtomicUsize = AtomicUsize::new(0);
    let (before, after) = &SERVER.get_or_init(server).await.as_ref()?.address;
    let name = format!(
        "bellhop_{}_{}",
        std::process::id(),
        DATABASES.fetch_add(1, Ordering::Relaxed)
    );
    let client = connect(&format!("{before}postgres{after}")).await.unwrap();
    client
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    Some(format!("{before}{name}{after}"))
}

/// Connects to a database. The connection ends when the client is dropped.
///
/// # Errors
/// When the server refuses the connection, or is not there.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn server() -> Option<Server> {
    match std::env::var(POSTGRES_ENV) {
        Ok(none) if none == "none" => None,
        Ok(url) => {
            let (scheme, rest) = url
                .split_once("://")
                .expect("BELLHOP_TEST_POSTGRES is an address or `none`");
            let host_ends = rest.find(['/', '?']).unwrap_or(rest.len());
            let after = rest[host_ends..]
                .split_once('?')
                .map(|(_, parameters)| format!("?{parameters}"));
            let before = format!("{scheme}://{}/", &rest[..host_ends]);
            Some(Server {
                address: (before, after.unwrap_or_default()),
                _watch: None,
            })
        }
        Err(_) => Some(start().await),
    }
}

async fn start() -> Server {
    let programs = programs().unwrap_or_else(|| {
        panic!(
            "found no PostgreSQL: `apt-get install postgresql`, or set {POSTGRES_ENV} to the address of a server, \
             or to `none` to leave these tests out"
        )
    });
    let dir = tempfile::Builder::new()
        .prefix("bellhop-pg-")
        .tempdir()
        .unwrap()
        .keep();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut watch = Command::new("sh");
    watch
        .args(["-c", WATCH, "watch"])
        .arg(&programs)
        .arg(&dir)
        .args(as_other_user(&dir));
    watch
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .current_dir(&dir);
    let watch = watch.spawn().unwrap();
    let address = (
        "postgres:///".to_owned(),
        format!("?host={}&user=bellhop", dir.display()),
    );
    let until = Instant::now() + START_DEADLINE;
    while let Err(error) = connect(&format!("{}postgres{}", address.0, address.1)).await {
        let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(
            Instant::now() < until,
            "PostgreSQL does not come up: {error}\n{}",
            log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Server {
        address,
        _watch: Some(watch),
    }
}

/// Returns Debian's directory of its programs, the latest version first; else the one in `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut versions: Vec<u32> = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let of_debian = versions
        .iter()
        .rev()
        .map(|version| format!("/usr/lib/postgresql/{version}/bin").into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    of_debian
        .chain(std::env::split_paths(&path))
        .find(|dir| dir.join("initdb").is_file())
}

/// PostgreSQL does not run as root: how root becomes a user who may, who gets the directory.
fn as_other_user(dir: &Path) -> Vec<String> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id")
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<u32>()
            .ok()
    };
    if id(&["-u"]) != Some(0) {
        return Vec::new();
    }
    let user = if id(&["-u", "postgres"]).is_some() {
        "postgres"
    } else {
        "nobody"
    };
    let (user, group) = (id(&["-u", user]).unwrap(), id(&["-g", user]).unwrap());
    std::os::unix::fs::chown(dir, Some(user), Some(group)).unwrap();
    // It becomes the server itself, which then gets the watcher's signal.
    [
        "setpriv".to_owned(),
        format!("--reuid={user}"),
        format!("--regid={group}"),
        "--clear-groups".to_owned(),
    ]
    .into()
}
