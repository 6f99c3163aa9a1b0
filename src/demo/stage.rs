//! What the demo needs around it: a directory, a nats-server, and the service itself in this process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use bellhop_testkit::local::{free_address, is_ready};
use bellhop_testkit::nats_server::{self, Found, NatsServer, Options};
use tempfile::TempDir;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::DemoError;
use crate::config::Config;
use crate::nats::{self, Nats, NatsError};
use crate::service;

/// Setting up takes some 100 ms.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// The client connects again within some 100 ms.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(4);
/// Half a minute, the default, is long for a spectator.
const BACKOFF_MAX: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(10);
/// Enough for the two cores of a small machine, and quicker to set up than the default.
const PARTITIONS: u16 = 8;

/// The stage. Dropped, it leaves no process and no file behind.
#[derive(Debug)]
pub(super) struct Stage {
    /// A connection for spectators.
    pub nats: Nats,
    /// The service's settings.
    pub config: Config,
    /// Which nats-server runs.
    pub found: Found,
    /// Where probes are answered.
    pub probes: SocketAddr,
    /// The one task of the service; dropping the set ends it.
    service: JoinSet<Result<(), NatsError>>,
    stop_service: CancellationToken,
    last_connected: Instant,
    // Fields are dropped in this order: the server must be gone before its directory can be.
    server: NatsServer,
    _scratch: TempDir,
}

impl Stage {
    /// Starts a nats-server and the service, and waits until the service is ready.
    ///
    /// # Errors
    /// When one of them cannot be had; nothing is left running then.
    pub(super) async fn set() -> Result<Self, DemoError> {
        let found = nats_server::find().await?;
        let scratch = TempDir::with_prefix("bellhop-demo-")
            .map_err(|error| DemoError::Io("no temporary directory".to_owned(), error))?;
        let options = Options {
            program: Some(&found.path),
            ..Options::default()
        };
        let server = NatsServer::start(scratch.path(), options).await?;
        let probes =
            free_address().map_err(|error| DemoError::Io("no free port".to_owned(), error))?;
        let mut config = Config {
            partitions: PARTITIONS,
            http: probes.to_string(),
            ..Config::default()
        };
        config.nats.url = server.url().to_owned();
        config.heartbeat.backoff_max = BACKOFF_MAX;
        config.history.url = format!("sqlite:{}", scratch.path().join("history.db").display());
        let nats = nats::connect(&config, "bellhop demo").await?;
        let stop_service = CancellationToken::new();
        let mut service = JoinSet::new();
        service.spawn(service::serve(config.clone(), stop_service.clone()));
        let mut stage = Self {
            nats,
            config,
            found,
            probes,
            service,
            stop_service,
            last_connected: Instant::now(),
            server,
            _scratch: scratch,
        };
        stage.wait_until_ready().await?;
        Ok(stage)
    }

    async fn wait_until_ready(&mut self) -> Result<(), DemoError> {
        let poll = async {
            while !is_ready(self.probes).await.unwrap_or(false) {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            ready = timeout(READY_DEADLINE, poll) => {
                ready.map_err(|_| DemoError::Late(format!("the service was not ready in {READY_DEADLINE:?}")))
            }
            Some(ended) = self.service.join_next() => Err(ended_early(ended)),
        }
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> &str {
        self.server.url()
    }

    /// Waits for the service to end, which it does not by itself.
    pub(super) async fn failure(&mut self) -> DemoError {
        match self.service.join_next().await {
            Some(ended) => ended_early(ended),
            None => std::future::pending().await, // It was reported before.
        }
    }

    /// Whether the nats-server is there. A user may have stopped it.
    ///
    /// # Errors
    /// When it has been away for some seconds.
    pub(super) fn check_connection(&mut self) -> Result<(), DemoError> {
        if self.nats.client.connection_state() == State::Connected {
            self.last_connected = Instant::now();
        }
        match self.last_connected.elapsed() < CONNECTION_DEADLINE {
            true => Ok(()),
            false => Err(DemoError::Ended(
                "the nats-server of the demo is gone".to_owned(),
            )),
        }
    }

    /// Returns the last message of the outcomes stream.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(super) async fn last_outcome(&self) -> Result<u64, DemoError> {
        let stream = self
            .nats
            .jetstream
            .get_stream(self.nats.names.outcomes_stream())
            .await;
        let stream = stream.map_err(|error| DemoError::nats("look at the outcomes", error))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Stops the service in good order.
    ///
    /// # Errors
    /// When it failed.
    pub(super) async fn stop_service(&mut self) -> Result<(), DemoError> {
        self.stop_service.cancel();
        match self.service.join_next().await {
            Some(Err(panic)) => Err(DemoError::Ended(panic.to_string())),
            Some(Ok(result)) => Ok(result?),
            None => Ok(()),
        }
    }

    /// Stops the nats-server in good order.
    ///
    /// # Errors
    /// When it could not even be killed.
    pub(super) async fn clear(self) -> Result<(), DemoError> {
        // Else it would try to connect again.
        let _ = self.nats.client.drain().await;
        let stopped = self.server.stop().await;
        stopped.map_err(|error| DemoError::Io("cannot stop nats-server".to_owned(), error))
    }
}

fn ended_early(ended: Result<Result<(), NatsError>, JoinError>) -> DemoError {
    match ended {
        Ok(Ok(())) => DemoError::Ended("the service stopped by itself".to_owned()),
        Ok(Err(error)) => error.into(),
        Err(panic) => DemoError::Ended(panic.to_string()),
    }
}
