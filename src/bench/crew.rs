//! The parts of every measurement, as whoever measures sees them.

use std::ops::Range;
use std::time::Duration;

use super::arrivals::{Expected, Tally};
use super::load::Load;
#[cfg(feature = "bench-mqtt")]
use super::mqtt;
use super::part::Part;
use super::publisher::{self, Batch, Published};
use super::task::Task;
use super::verifier::{Order, Report};
use super::{BenchError, acceptor};

/// Where progress is told.
pub(super) type Progress<'p> = &'p mut dyn FnMut(String);

/// App servers of one crowd, in a process of their own.
pub(super) struct AppServers(Part);

impl AppServers {
    /// Starts them. Their users are not connected yet.
    pub(super) async fn start(task: acceptor::Task) -> Result<Self, BenchError> {
        Self::ready(Part::start("app servers", &Task::Accept(task)).await?).await
    }

    /// Starts those that are subscribed at a broker: it knows nothing of users.
    #[cfg(feature = "bench-mqtt")]
    pub(super) async fn over_mqtt(task: mqtt::subscribers::Task) -> Result<Self, BenchError> {
        Self::ready(Part::start("MQTT subscribers", &Task::MqttSubscribe(task)).await?).await
    }

    async fn ready(mut part: Part) -> Result<Self, BenchError> {
        let _ready: Report = part.hear().await?;
        Ok(Self(part))
    }

    /// Connects the users of the reminders of these numbers.
    pub(super) async fn connect(&mut self, numbers: Range<usize>, progress: Progress<'_>) -> Result<(), BenchError> {
        let count = numbers.len();
        self.0.tell(&Order::Connect(numbers)).await?;
        loop {
            match self.0.hear().await? {
                Report::Connected => return Ok(()),
                Report::Progress(put) => progress(format!("{put} of {count} users are connected")),
                Report::Ready | Report::Done(_) => {}
            }
        }
    }

    /// Tells them what is to arrive.
    pub(super) async fn expect(&mut self, expected: Expected) -> Result<(), BenchError> {
        self.0.tell(&Order::Expect(expected)).await
    }

    /// What arrived, once everything has that they expect or nothing does any more.
    pub(super) async fn arrived(&mut self, what: &str, progress: Progress<'_>) -> Result<Tally, BenchError> {
        loop {
            match self.0.hear().await? {
                Report::Done(tally) => return Ok(tally),
                Report::Progress(accepted) => progress(format!("{what}: {accepted} accepted")),
                Report::Ready | Report::Connected => {}
            }
        }
    }

    /// What arrived, where nothing from `end` on is to arrive any more.
    pub(super) async fn arrived_until(
        &mut self,
        end: usize,
        what: &str,
        progress: Progress<'_>,
    ) -> Result<Tally, BenchError> {
        self.0.tell(&Order::Until(end)).await?;
        self.arrived(what, progress).await
    }

    /// CPU time that they have used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.0.cpu_time()
    }
}

/// A business system, in a process of its own.
pub(super) struct Publisher(Part);

impl Publisher {
    /// Starts it.
    pub(super) async fn start(url: &str, load: Load) -> Result<Self, BenchError> {
        let task = Task::Publish(publisher::Task { url: url.to_owned(), load });
        Ok(Self(Part::start("publisher", &task).await?))
    }

    /// Starts one that publishes to a broker, as fast as it goes.
    #[cfg(feature = "bench-mqtt")]
    pub(super) async fn over_mqtt(task: mqtt::publisher::Task) -> Result<Self, BenchError> {
        Ok(Self(Part::start("MQTT publisher", &Task::MqttPublish(task)).await?))
    }

    /// Begins to publish.
    pub(super) async fn begin(&mut self, batch: Batch) -> Result<(), BenchError> {
        self.0.tell(&publisher::Order::Publish(batch)).await
    }

    /// What it has published, once all of it is stored.
    pub(super) async fn published(&mut self, progress: Progress<'_>) -> Result<Published, BenchError> {
        loop {
            match self.0.hear().await? {
                publisher::Report::Done(published) => return Ok(published),
                publisher::Report::Progress(count) => progress(format!("{count} published")),
            }
        }
    }

    /// Ends what it publishes at a rate.
    pub(super) async fn stop(&mut self, progress: Progress<'_>) -> Result<Published, BenchError> {
        self.0.tell(&publisher::Order::Stop).await?;
        self.published(progress).await
    }

    /// CPU time that it has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.0.cpu_time()
    }
}
