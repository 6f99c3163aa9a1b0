//! What a part of the measurement is told, and what it says: a line of JSON each, on its standard input and output.

use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, Stdout};

#[cfg(feature = "bench-mqtt")]
use super::mqtt;
use super::{BenchError, acceptor, forwarder, per_user, publisher};

/// What a part is: its first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// App servers.
    Accept(acceptor::Task),
    /// A business system.
    Publish(publisher::Task),
    /// What one would write without Bellhop.
    Forward(forwarder::Task),
    /// What one would write for users who are away.
    PerUser(per_user::Task),
    /// A business system that publishes to Mosquitto.
    #[cfg(feature = "bench-mqtt")]
    MqttPublish(mqtt::publisher::Task),
    /// App servers that are subscribed there.
    #[cfg(feature = "bench-mqtt")]
    MqttSubscribe(mqtt::subscribers::Task),
}

/// How often a part that has much to do tells of its progress.
pub(super) const PROGRESS: Duration = Duration::from_millis(500);

/// A part's side of the conversation.
pub(super) struct Conversation {
    orders: Lines<BufReader<Stdin>>,
    reports: Stdout,
}

/// Runs a part: reads what it is to be from standard input, and is that until its input ends.
///
/// # Errors
/// When it cannot do what it was told.
pub async fn run() -> Result<(), BenchError> {
    let orders = BufReader::new(tokio::io::stdin()).lines();
    let mut conversation = Conversation { orders, reports: tokio::io::stdout() };
    match conversation.next().await? {
        Some(Task::Accept(task)) => acceptor::run(task, conversation).await,
        Some(Task::Publish(task)) => publisher::run(task, conversation).await,
        Some(Task::Forward(task)) => forwarder::run(task, conversation).await,
        Some(Task::PerUser(task)) => per_user::run(task, conversation).await,
        #[cfg(feature = "bench-mqtt")]
        Some(Task::MqttPublish(task)) => mqtt::publisher::run(task, conversation).await,
        #[cfg(feature = "bench-mqtt")]
        Some(Task::MqttSubscribe(task)) => mqtt::subscribers::run(task, conversation).await,
        None => Ok(()),
    }
}

impl Conversation {
    /// The next order; none when whoever measures is done or gone.
    pub(super) async fn next<O: DeserializeOwned>(&mut self) -> Result<Option<O>, BenchError> {
        let failed = |problem: String| BenchError::Part { part: "an order".to_owned(), problem };
        let line = self.orders.next_line().await.map_err(|error| failed(error.to_string()))?;
        line.map(|line| serde_json::from_str(&line).map_err(|error| failed(format!("{error} in {line}")))).transpose()
    }

    /// Does all of this work, and says from time to time how much is done.
    pub(super) async fn count<E, R: Serialize>(
        &mut self,
        mut work: impl Stream<Item = Result<(), E>> + Unpin,
        failed: impl Fn(E) -> BenchError,
        report: impl Fn(usize) -> R,
    ) -> Result<(), BenchError> {
        let (mut count, mut told) = (0, Instant::now());
        while work.try_next().await.map_err(&failed)?.is_some() {
            count += 1;
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                self.say(&report(count)).await?;
            }
        }
        Ok(())
    }

    /// Says something.
    pub(super) async fn say(&mut self, report: &impl Serialize) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(report).expect("a report is JSON");
        line.push(b'\n');
        let failed = |error| BenchError::Io("cannot report".to_owned(), error);
        self.reports.write_all(&line).await.map_err(failed)?;
        self.reports.flush().await.map_err(failed)
    }
}
