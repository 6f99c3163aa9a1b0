//! A web terminal: an app server that holds browsers' connections and shows people their reminders.
//!
//! It is an example that works, and uses nothing of Bellhop's but the client: an application that has its own pages and
//! its own authentication takes from it how an app server holds connections. `docs/terminal.md` tells how it is used.
//!
//! ```text
//! Bellhop ─▶ client::AppServer ─▶ lobby ─▶ a user's desk ─▶ Server-Sent Events ─▶ windows
//!    ◀── accepted ──────────────────┴────────── seen ◀───── POST ◀──────────────────┘
//! ```
//!
//! | module | |
//! | --- | --- |
//! | `desk` | one user's windows, what they have, and what they owe their word for. Pure |
//! | `lobby` | the task that has all desks, between browsers and Bellhop |
//! | `web`, `history` | what browsers ask |
//! | `guard`, `session` | who may ask |
//! | `events` | what goes over a window's connection |
//! | `page/` | the pages, as browsers get them; no build step |

#![allow(clippy::disallowed_methods)] // It runs things, so it reads the clock.

mod desk;
mod events;
mod guard;
mod history;
mod lobby;
mod session;
mod web;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::app_server::{self, AppServer, StartError};
use crate::config::Config;
use crate::nats::{self, NatsError};
use crate::token::{InstanceName, UserId};
use lobby::Porter;
use session::Sessions;
pub use session::SigningKey;
use web::Site;

/// Connections of browsers at a time. More wait to be accepted.
const MOST_CONNECTIONS: usize = 20_000;

/// How a terminal is to be.
pub struct Options {
    /// Where browsers find it.
    pub listen: SocketAddr,
    /// Its name among the app servers. Two must not have the same one.
    pub instance: InstanceName,
    /// Names that the page suggests to sign in as.
    pub names: Vec<String>,
    /// Names by which browsers call it, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Signs cookies.
    pub key: SigningKey,
    /// The address of the proxy before it, whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
    pub proxy: Option<IpAddr>,
}

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The address cannot be had.
    #[error("cannot listen on {0}: {1}; choose another address")]
    Listen(SocketAddr, std::io::Error),
    /// There is no connection to NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// It cannot be an app server.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A terminal that listens.
pub struct Terminal {
    listener: TcpListener,
    address: SocketAddr,
    site: Site,
    work: JoinSet<()>,
    stop: CancellationToken,
    visitors: watch::Receiver<Vec<UserId>>,
}

impl Terminal {
    /// Listens, and takes its place among the app servers of an installation.
    ///
    /// # Errors
    /// When the address is taken, or NATS is away or refuses.
    pub async fn start(config: &Config, options: Options) -> Result<Self, TerminalError> {
        let Options { listen, instance, names, hosts, key, proxy } = options;
        let nats = nats::connect(config, "bellhop terminal").await?;
        let failed = |error| TerminalError::Listen(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let settings = app_server::Options {
            prefix: config.prefix.clone(),
            // Desks answer sooner, unless that setting is small.
            answer_within: config.delivery.timeout / 2,
            ..app_server::Options::default()
        };
        let (app, deliveries) = AppServer::start(nats.client.clone(), instance.clone(), settings).await?;
        let (lobby, commands) = Porter::door();
        let (tell_visitors, visitors) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let mut work = JoinSet::new();
        work.spawn(Porter::new(app, instance, tell_visitors).run(commands, deliveries, stop.clone()));
        let site = Site { lobby, nats, sessions: Sessions::new(key), names, hosts, proxy };
        Ok(Self { listener, address, site, work, stop, visitors })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who is here, from now on.
    pub fn visitors(&self) -> watch::Receiver<Vec<UserId>> {
        self.visitors.clone()
    }

    /// Answers browsers until `stop`. Then windows are closed and routes deleted. Dropped, it ends at once.
    pub async fn run(self, stop: CancellationToken) {
        let site = Arc::new(self.site);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                    Ok((connection, peer)) => drop(connections.spawn(serve(connection, peer.ip(), site.clone()))),
                    // Out of file descriptors, most likely: others must close theirs first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = connections.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        self.stop.cancel();
        self.work.join_all().await;
    }
}

async fn serve(connection: TcpStream, peer: IpAddr, site: Arc<Site>) {
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { site.answer(request, peer).await }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    if let Err(error) = server.serve_connection(TokioIo::new(connection), service).await {
        tracing::debug!(%error, "http connection");
    }
}
