//! MQTT's best-known broker in Bellhop's place: its publisher looks up nothing, since a reminder goes to the topic of its user's
//! instance. No rules, no merging, no history, nobody who is away but the instances.
//!
//! Mosquitto acknowledges what it has in memory and saves that every half hour; JetStream has written it to a file by then.

mod broker;
pub(super) mod publisher;
pub(super) mod subscribers;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet};

use super::BenchError;
use super::crew::{AppServers, Publisher};
use super::load::Load;
use broker::Broker;

/// What every instance's topic begins with.
pub(super) const TOPICS: &str = "app";
/// Messages without acknowledgement, at the most: as many as on the way to JetStream.
const WINDOW: u16 = 4_000;

/// A Mosquitto that runs, who publishes to it, and who is subscribed. Dropping it ends all.
pub(super) struct Mosquitto {
    broker: Broker,
    pub(super) publisher: Publisher,
    pub(super) subscribers: AppServers,
}

impl Mosquitto {
    /// Starts everything; nothing where Mosquitto is not installed.
    pub(super) async fn start(dir: &Path, load: Load) -> Result<Option<Self>, BenchError> {
        let Some(broker) = Broker::start(dir).await? else { return Ok(None) };
        let address = broker.address();
        let subscribers = AppServers::over_mqtt(subscribers::Task { address, load }).await?;
        let publisher = Publisher::over_mqtt(publisher::Task { address, load }).await?;
        Ok(Some(Self { broker, publisher, subscribers }))
    }

    /// CPU time that the broker has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.broker.cpu_time()
    }
}

fn topic(load: &Load, instance: usize) -> String {
    format!("{TOPICS}/{}", load.instance_name(instance))
}

/// A session that the broker keeps, and what is to be polled for anything to happen.
fn session(name: &str, address: SocketAddr) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, address.ip().to_string(), address.port());
    options.set_clean_session(false).set_inflight(WINDOW);
    // Between measurements nobody polls.
    options.set_keep_alive(Duration::ZERO);
    AsyncClient::new(options, WINDOW.into())
}

/// The next packet from the broker.
async fn next_packet(events: &mut EventLoop) -> Result<Packet, String> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(packet)) => return Ok(packet),
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn failed(what: impl Into<String>, problem: impl ToString) -> BenchError {
    BenchError::Part { part: what.into(), problem: problem.to_string() }
}
