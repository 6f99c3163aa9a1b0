//! Worker processes of a measurement.
//!
//! A worker is this program in another role. The measuring process sends its task and its orders as
//! lines of JSON on standard input; the worker reports as lines of JSON on standard output. A
//! worker ends when its input ends, so it never outlives the measuring process.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, Stdout};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::error::{BenchError, Cause, During};
use super::usage;

/// The role of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// Holds users' connections, and accepts their reminders.
    AppServers,
    /// Publishes sets.
    Publisher,
    /// Forwards messages to app servers, as a baseline.
    Forwarder,
    /// Delivers stored messages to users who come back, as a baseline.
    PerUser,
    /// App servers that subscribe at Mosquitto.
    MqttSubscribers,
    /// Publishes to Mosquitto.
    MqttPublisher,
}

/// A worker that reports nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(300);
/// The time between two reports of progress.
pub(super) const PROGRESS: Duration = Duration::from_millis(500);

/// A worker, as the measuring process sees it. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Worker {
    role: &'static str,
    child: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts a worker, and sends it its task.
    pub(super) async fn start(role: Role, task: &impl Serialize) -> Result<Self, BenchError> {
        let role = role.into();
        let action = || format!("start the worker `{role}`");
        let mut command = Command::new(std::env::current_exe().during(action())?);
        command
            .args(["--worker", role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .during(action())?;
        let (orders, reports) = (
            child.stdin.take().expect("it is piped"),
            child.stdout.take().expect("it is piped"),
        );
        let mut worker = Self {
            role,
            child,
            orders,
            reports: BufReader::new(reports).lines(),
        };
        worker.order(task).await?;
        Ok(worker)
    }

    /// Sends an order.
    pub(super) async fn order(&mut self, order: &impl Serialize) -> Result<(), BenchError> {
        self.orders
            .write_all(&line(order))
            .await
            .map_err(|error| self.problem(error))
    }

    /// Waits for the next report.
    pub(super) async fn report<R: DeserializeOwned>(&mut self) -> Result<R, BenchError> {
        let line = timeout(SILENCE, self.reports.next_line()).await;
        let line = line.map_err(|_| self.problem(format!("no report for {SILENCE:?}")))?;
        let line = line.map_err(|error| self.problem(error))?;
        let line =
            line.ok_or_else(|| self.problem("the process ended; its standard error is above"))?;
        serde_json::from_str(&line).map_err(|error| self.problem(format!("{error} in {line}")))
    }

    /// Returns the CPU time that the process has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.child.id().map_or(Duration::ZERO, usage::cpu_time)
    }

    fn problem(&self, problem: impl std::fmt::Display) -> BenchError {
        BenchError::process(self.role, problem)
    }
}

/// The worker's side of the exchange.
pub(super) struct Conversation {
    orders: Lines<BufReader<Stdin>>,
    reports: Stdout,
}

impl Conversation {
    pub(super) fn on_standard_streams() -> Self {
        Self {
            orders: BufReader::new(tokio::io::stdin()).lines(),
            reports: tokio::io::stdout(),
        }
    }

    /// Waits for the task, which comes before all orders.
    pub(super) async fn task<T: DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        self.next()
            .await?
            .ok_or_else(|| BenchError::process("worker", "its input ended before its task"))
    }

    /// Waits for the next order. Returns none once the measuring process is done or gone.
    pub(super) async fn next<O: DeserializeOwned>(&mut self) -> Result<Option<O>, BenchError> {
        let line = self.orders.next_line().await.during("read an order")?;
        let unreadable =
            |line: &str, error| BenchError::process("worker", format!("{error} in {line}"));
        line.map(|line| serde_json::from_str(&line).map_err(|error| unreadable(&line, error)))
            .transpose()
    }

    /// Completes all of this work, which is an `action`, and reports from time to time how much is
    /// done.
    pub(super) async fn count<E: Into<Cause>, R: Serialize>(
        &mut self,
        mut work: impl Stream<Item = Result<(), E>> + Unpin,
        action: &'static str,
        report: impl Fn(usize) -> R,
    ) -> Result<(), BenchError> {
        let mut count = 0;
        let mut reported = Instant::now();
        while work.try_next().await.during(action)?.is_some() {
            count += 1;
            if reported.elapsed() > PROGRESS {
                reported = Instant::now();
                self.report(&report(count)).await?;
            }
        }
        Ok(())
    }

    /// Sends a report.
    pub(super) async fn report(&mut self, report: &impl Serialize) -> Result<(), BenchError> {
        self.reports
            .write_all(&line(report))
            .await
            .during("report")?;
        self.reports.flush().await.during("report")
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("orders and reports serialize");
    line.push(b'\n');
    line
}
