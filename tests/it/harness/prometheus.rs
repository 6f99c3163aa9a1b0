//! Prometheus, from Debian's package: its checker of rules, and servers of the tests' own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{POLL, escape, program};

/// With `none`, tests that need Prometheus are left out; with a directory, the programs in there
/// are used.
const PROMETHEUS_ENV: &str = "BELLHOP_TEST_PROMETHEUS";
/// To start on a loaded machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Its log line when its configuration is loaded.
const READY: &str = "Server is ready";

/// A running Prometheus. It ends with this value.
pub(crate) struct Prometheus {
    server: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one with this configuration and a file of rules beside it; none if tests are to do
    /// without.
    pub(crate) async fn start(config: &str, rules: &Path) -> Option<Self> {
        let programs = programs()?;
        let dir = TempDir::with_prefix("bellhop-prometheus-").unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("prometheus.yml"), config).unwrap();
        fs::copy(rules, dir.path().join(rules.file_name().unwrap())).unwrap();
        let log = File::create(at("log")).unwrap();
        let mut server = program::tied(&[programs.join("prometheus").as_os_str()]);
        server.args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
        ]);
        server
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .current_dir(&dir);
        let server = server.spawn().unwrap();
        let address = address(&at("log")).await;
        Some(Self {
            server,
            address,
            _dir: dir,
        })
    }

    /// Returns its API's answer on this path.
    pub(crate) async fn ask(&self, path: &str) -> Result<Value, String> {
        // A body comes in one piece by HTTP/1.0 alone.
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\n\r\n");
        let answer = program::exchange(self.address, &request)
            .await
            .map_err(|error| error.to_string())?;
        let mut said: Value =
            serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {answer:?}"))?;
        if said["status"] == "success" {
            Ok(said["data"].take())
        } else {
            Err(said["error"].to_string())
        }
    }

    /// The values of an expression at this moment, except for values that are not numbers.
    pub(crate) async fn values(&self, expression: &str) -> Result<Vec<f64>, String> {
        // Percent-encoding is the contract's escaping by another character.
        let encoded = escape(expression).replace('=', "%");
        let said = self.ask(&format!("query?query={encoded}")).await?;
        let samples = said["result"]
            .as_array()
            .ok_or_else(|| format!("no vector: {said}"))?;
        let values = samples
            .iter()
            .filter_map(|sample| sample["value"][1].as_str()?.parse().ok());
        Ok(values.filter(|value: &f64| !value.is_nan()).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Runs Prometheus's checker in this directory. It must find nothing wrong.
#[track_caller]
pub(crate) fn promtool(dir: &Path, arguments: &[&str]) {
    let Some(programs) = programs() else { return };
    let output = Command::new(programs.join("promtool"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool {}:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&said)
    );
}

/// Returns its address once it is ready, from its log.
async fn address(log: &Path) -> SocketAddr {
    let until = Instant::now() + START_DEADLINE;
    loop {
        let said = fs::read_to_string(log).unwrap();
        let listening = said
            .split(r#"msg="Listening on" address="#)
            .nth(1)
            .filter(|_| said.contains(READY));
        if let Some(address) =
            listening.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        {
            return address;
        }
        assert!(
            Instant::now() < until,
            "Prometheus does not come up:\n{said}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The directory of Prometheus's programs; none if tests are to do without.
fn programs() -> Option<PathBuf> {
    let configured = std::env::var_os(PROMETHEUS_ENV);
    if configured
        .as_ref()
        .is_some_and(|configured| configured == "none")
    {
        return None;
    }
    let path = configured
        .or_else(|| std::env::var_os("PATH"))
        .unwrap_or_default();
    let found = std::env::split_paths(&path).find(|dir| {
        ["prometheus", "promtool"]
            .iter()
            .all(|name| dir.join(name).is_file())
    });
    Some(found.unwrap_or_else(|| {
        panic!(
            "found no Prometheus: `apt-get install prometheus` (its server need not run), or set {PROMETHEUS_ENV} to the \
             directory of `prometheus` and `promtool`, or to `none` to leave these tests out"
        )
    }))
}
