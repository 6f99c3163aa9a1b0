//! The demo's surroundings: a directory, a nats-server, and the service itself in this process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::{self, Context};
use bellhop_protocol::names::Names;
use bellhop_testkit::local::{free_address, is_ready};
use bellhop_testkit::nats_server::{self, Found, NatsServer, Options};
use tempfile::TempDir;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::{Cause, DemoError, During};

/// How long an app server may take to answer a delivery.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Setting up takes some 100 ms.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// The client connects again within some 100 ms.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(10);

/// The stage. Dropped, it leaves no process and no file behind.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The demo's own connection.
    pub client: async_nats::Client,
    /// JetStream, over that connection.
    pub jetstream: Context,
    /// The installation's names.
    pub names: Names,
    /// Which nats-server runs.
    pub found: Found,
    /// Where probes are answered.
    pub probes: SocketAddr,
    /// The one task of the service; dropping the set ends it.
    service: JoinSet<Result<(), Cause>>,
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
    /// When one of them cannot be started; nothing is left running then.
    pub(crate) async fn set<S>(
        serve: impl FnOnce(Vec<(String, String)>, CancellationToken) -> S,
    ) -> Result<Self, DemoError>
    where
        S: Future<Output = Result<(), Cause>> + Send + 'static,
    {
        let found = nats_server::find().await?;
        let scratch = TempDir::with_prefix("bellhop-demo-")
            .map_err(|error| DemoError::Io("no temporary directory", error))?;
        let options = Options {
            program: Some(&found.path),
            ..Options::default()
        };
        let server = NatsServer::start(scratch.path(), options).await?;
        let probes = free_address().map_err(|error| DemoError::Io("no free port", error))?;
        let client = async_nats::ConnectOptions::new()
            .name("bellhop demo")
            .connect(server.url())
            .await
            .during("connect to the demo's nats-server")?;
        let history = scratch.path().join("history.db");
        let settings = settings(server.url(), probes, &history.display().to_string());
        let stop_service = CancellationToken::new();
        let mut service = JoinSet::new();
        service.spawn(serve(settings, stop_service.clone()));
        let mut stage = Self {
            jetstream: jetstream::new(client.clone()),
            client,
            names: Names::new(PREFIX),
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

    /// Returns the address for clients.
    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(crate) async fn bucket(&self, name: String) -> Result<Store, DemoError> {
        let action = format!("open bucket {name}");
        self.jetstream.get_key_value(name).await.during(action)
    }

    /// Waits for the service to end, which it does not by itself.
    pub(crate) async fn failure(&mut self) -> DemoError {
        match self.service.join_next().await {
            Some(ended) => ended_early(ended),
            None => std::future::pending().await, // It was reported before.
        }
    }

    /// Checks that the nats-server is there. A user may have stopped it.
    ///
    /// # Errors
    /// When it has been away for some seconds.
    pub(crate) fn check_connection(&mut self) -> Result<(), DemoError> {
        if self.client.connection_state() == State::Connected {
            self.last_connected = Instant::now();
        }
        match self.last_connected.elapsed() < CONNECTION_DEADLINE {
            true => Ok(()),
            false => Err(DemoError::Ended("the nats-server of the demo is gone")),
        }
    }

    /// Returns the last message of the outcomes stream.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(crate) async fn last_outcome(&self) -> Result<u64, DemoError> {
        let stream = self.jetstream.get_stream(self.names.outcomes_stream());
        let stream = stream.await.during("look at the outcomes")?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Stops the service in good order.
    ///
    /// # Errors
    /// When it failed.
    pub(crate) async fn stop_service(&mut self) -> Result<(), DemoError> {
        self.stop_service.cancel();
        match self.service.join_next().await {
            Some(ended) => ended?.map_err(DemoError::Service),
            None => Ok(()),
        }
    }

    /// Stops the nats-server in good order.
    ///
    /// # Errors
    /// When it could not even be killed.
    pub(crate) async fn clear(self) -> Result<(), DemoError> {
        // Else it would try to connect again.
        let _ = self.client.drain().await;
        let stopped = self.server.stop().await;
        stopped.map_err(|error| DemoError::Io("cannot stop nats-server", error))
    }
}

const PREFIX: &str = "bellhop";

/// Returns the settings of the service; all others have their defaults.
fn settings(url: &str, probes: SocketAddr, history: &str) -> Vec<(String, String)> {
    let settings = [
        ("prefix", PREFIX.to_owned()),
        ("nats.url", url.to_owned()),
        ("http", probes.to_string()),
        ("history.url", format!("sqlite:{history}")),
        // Enough for the two cores of a small machine, and quicker to set up than the default.
        ("partitions", "8".to_owned()),
        (
            "delivery.timeout",
            format!("{}s", DELIVERY_TIMEOUT.as_secs()),
        ),
        // Half a minute, the default, is long for a spectator.
        ("heartbeat.backoff_max", "4s".to_owned()),
    ];
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

fn ended_early(ended: Result<Result<(), Cause>, JoinError>) -> DemoError {
    match ended {
        Ok(Ok(())) => DemoError::Ended("the service stopped by itself"),
        Ok(Err(error)) => DemoError::Service(error),
        Err(panic) => panic.into(),
    }
}
