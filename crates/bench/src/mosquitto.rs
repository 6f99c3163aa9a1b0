//! Mosquitto, the best-known MQTT broker, as a baseline.
//!
//! The publisher looks up nothing: a reminder goes to the topic of its user's instance. There are
//! no rules, no merging and no history, and only instances can be away. Mosquitto acknowledges
//! messages that are in its memory, and saves them every half hour; JetStream has written them to a
//! file by then.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellhop_testkit::local::free_address;
use bellhop_testkit::nats_server::tied_to_its_spawner;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::app_servers::AppServers;
use super::error::{BenchError, During};
use super::load::Load;
use super::publisher::Publisher;
use super::usage;
use super::worker::Role;

/// The beginning of the topics of all instances.
pub(super) const TOPICS: &str = "app";

/// The task of a worker on Mosquitto.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) address: SocketAddr,
    pub(super) load: Load,
}

/// A running Mosquitto, its publisher and its subscribers. Dropping it ends all processes.
pub(super) struct Mosquitto {
    broker: Broker,
    pub(super) publisher: Publisher,
    pub(super) subscribers: AppServers,
}

impl Mosquitto {
    /// Starts everything. Returns none if Mosquitto is not installed, or this program was built
    /// without its feature `mqtt`.
    pub(super) async fn start(dir: &Path, load: Load) -> Result<Option<Self>, BenchError> {
        if !cfg!(feature = "mqtt") {
            return Ok(None);
        }
        let Some(broker) = Broker::start(dir).await? else {
            return Ok(None);
        };
        let task = Task {
            address: broker.address,
            load,
        };
        let subscribers = AppServers::with(Role::MqttSubscribers, &task).await?;
        let publisher = Publisher::with(Role::MqttPublisher, &task).await?;
        Ok(Some(Self {
            broker,
            publisher,
            subscribers,
        }))
    }

    /// Returns the CPU time that the broker has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.broker
            .child
            .id()
            .map_or(Duration::ZERO, usage::cpu_time)
    }
}

const READY_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// The directory that distributions install it into, which is often not in `PATH`.
const SBIN: &str = "/usr/sbin";

/// A running broker. Dropping it kills the process.
struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts a broker that keeps its state in `dir`, and waits until it accepts connections.
    /// Returns none if it is not installed.
    async fn start(dir: &Path) -> Result<Option<Self>, BenchError> {
        let Some(program) = find() else {
            return Ok(None);
        };
        let action = "start mosquitto";
        let address = free_address().during(action)?;
        let (settings, log) = (dir.join("mosquitto.conf"), dir.join("mosquitto.log"));
        fs::write(&settings, config(dir, address)).during(action)?;
        let mut command = tied_to_its_spawner(&program).await;
        command
            .arg("-c")
            .arg(&settings)
            .stderr(File::create(&log).during(action)?);
        let mut child = command
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .during(action)?;
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            if child.try_wait().during(action)?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(BenchError::process(
                    "mosquitto",
                    format!("it did not become ready; its log: {log}"),
                ));
            }
            sleep(POLL).await;
        }
        Ok(Some(Self { child, address }))
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from(SBIN)]);
    directories
        .map(|directory| directory.join("mosquitto"))
        .find(|program| program.is_file())
}

/// Returns a configuration that never drops or delays a queued message. Root stays root: Mosquitto
/// would become another user, who cannot write to `dir`.
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
