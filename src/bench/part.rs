//! A process of the measurement, as whoever measures sees it.

use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::task::Task;
use super::{BenchError, usage};

/// A part that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(300);

/// A process of this program. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Part {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts it. It has nothing to say yet.
    pub(super) async fn start(name: &'static str, task: &Task) -> Result<Self, BenchError> {
        let failed = |error| BenchError::Io(format!("cannot start {name}"), error);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("bench-part").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).process_group(0).spawn().map_err(failed)?;
        let (orders, reports) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        let mut part = Self { name, child, orders, reports: BufReader::new(reports).lines() };
        part.tell(task).await?;
        Ok(part)
    }

    /// Gives it an order.
    pub(super) async fn tell(&mut self, order: &impl Serialize) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(order).expect("an order is JSON");
        line.push(b'\n');
        self.orders.write_all(&line).await.map_err(|error| self.failed(error))
    }

    /// What it says next.
    pub(super) async fn hear<R: DeserializeOwned>(&mut self) -> Result<R, BenchError> {
        let line = timeout(SILENCE, self.reports.next_line()).await;
        let line = line.map_err(|_| self.failed(format!("it says nothing for {SILENCE:?}")))?;
        let line = line.map_err(|error| self.failed(error))?;
        let line = line.ok_or_else(|| self.failed("it ended; what it wrote to stderr stands above"))?;
        serde_json::from_str(&line).map_err(|error| self.failed(format!("{error} in {line}")))
    }

    /// CPU time that it has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.child.id().map_or(Duration::ZERO, usage::cpu_time)
    }

    fn failed(&self, problem: impl std::fmt::Display) -> BenchError {
        BenchError::Part { part: self.name.to_owned(), problem: problem.to_string() }
    }
}
