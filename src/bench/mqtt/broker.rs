//! A Mosquitto of the measurement's own, where it is installed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::super::{BenchError, usage};
use crate::local::free_address;
use crate::nats_server::tied_to_its_spawner;

const READY_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Where distributions put it, which is not on everybody's `PATH`.
const SBIN: &str = "/usr/sbin";

/// A broker that runs. Dropping it kills it.
pub(super) struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts one that keeps its state in `dir`, and waits until it accepts connections; nothing where there is none.
    pub(super) async fn start(dir: &Path) -> Result<Option<Self>, BenchError> {
        let Some(program) = find() else { return Ok(None) };
        let failed = |error| BenchError::Io("cannot start mosquitto".to_owned(), error);
        let address = free_address().map_err(failed)?;
        let (settings, log) = (dir.join("mosquitto.conf"), dir.join("mosquitto.log"));
        fs::write(&settings, config(dir, address)).map_err(failed)?;
        let mut command = tied_to_its_spawner(&program).await;
        command.arg("-c").arg(&settings).stderr(File::create(&log).map_err(failed)?);
        let mut child = command.kill_on_drop(true).process_group(0).spawn().map_err(failed)?;
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            if child.try_wait().map_err(failed)?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(super::failed("mosquitto", format!("it does not become ready; it wrote: {log}")));
            }
            sleep(POLL).await;
        }
        Ok(Some(Self { child, address }))
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// CPU time that it has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.child.id().map_or(Duration::ZERO, usage::cpu_time)
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from(SBIN)]);
    directories.map(|directory| directory.join("mosquitto")).find(|program| program.is_file())
}

/// Nothing is dropped, however much waits, and nothing waits for a session that has too much on its way. As root it would
/// become another user, who cannot write here.
fn config(dir: &Path, address: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nset_tcp_nodelay true\nlog_dest stderr\n\
         log_type error\n",
        address.port(),
        address.ip(),
        dir.display()
    )
}
