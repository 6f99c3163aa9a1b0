//! A web terminal: an app server that holds browsers' connections and shows people their reminders.
//!
//! It is an example that works, and uses nothing of Bellhop's but the client. An application that
//! has its own pages and its own authentication can copy from it how an app server holds
//! connections. `docs/terminal.md` shows how it is used.
//!
//! ```text
//! Bellhop ─▶ client::AppServer ─▶ hub ─▶ a user's feed ─▶ Server-Sent Events ─▶ windows
//!    ◀── accepted ─────────────────┴───────── seen ◀───── POST ◀──────────────────┘
//! ```
//!
//! | module | |
//! | --- | --- |
//! | `feed` | one user's windows, what they have, and what they have yet to confirm. Pure |
//! | `hub` | the task that has all feeds, between browsers and Bellhop |
//! | `web` | routes and handlers (axum) |
//! | `session`, `guard` | who may ask |
//! | `history` | older reminders |
//! | `server` | connections, and their bounds |
//! | `pages` and `page/` | the pages, as browsers get them; no build step |

#![allow(clippy::disallowed_methods)] // It runs things, so it reads the clock.

mod feed;
mod guard;
mod history;
mod hub;
mod pages;
mod refusal;
mod server;
mod session;
mod web;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use axum::Router;
use bellhop_client::app_server::{self, AppServer, StartError};
use bellhop_protocol::token::{InstanceName, UserId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use guard::Trusted;
use history::History;
use hub::Hub;
use session::Sessions;
pub use session::SigningKey;
use web::Site;

/// The settings of a terminal.
pub struct Options {
    /// The address for browsers.
    pub listen: SocketAddr,
    /// Its name among the app servers. Two must not have the same one.
    pub instance: InstanceName,
    /// The beginning of the installation's names: `bellhop`.
    pub prefix: String,
    /// Maximum time for which a request of Bellhop waits for a browser; it must be below
    /// `delivery.timeout`.
    pub answer_within: Duration,
    /// Names that the page suggests to sign in as.
    pub names: Vec<String>,
    /// Names by which browsers call it, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Signs cookies.
    pub key: SigningKey,
    /// The address of the proxy before it, whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
    pub proxy: Option<IpAddr>,
}

/// The reason why a terminal cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The address cannot be had.
    #[error("cannot listen on {0}: {1}; choose another address")]
    Listen(SocketAddr, std::io::Error),
    /// It cannot be an app server.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A terminal that listens.
pub struct Terminal {
    listener: TcpListener,
    address: SocketAddr,
    pages: Router,
    hub: JoinSet<()>,
    stop: CancellationToken,
    visitors: watch::Receiver<Vec<UserId>>,
}

impl Terminal {
    /// Listens, and becomes an app server of the installation on this NATS.
    ///
    /// # Errors
    /// When the address is taken, or the connection to NATS is closed.
    pub async fn start(nats: Client, options: Options) -> Result<Self, TerminalError> {
        let Options {
            listen,
            instance,
            prefix,
            answer_within,
            names,
            hosts,
            key,
            proxy,
        } = options;
        let not_listening = |error| TerminalError::Listen(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(not_listening)?;
        let address = listener.local_addr().map_err(not_listening)?;
        let history = History::new(nats.clone(), &prefix);
        // Feeds answer sooner, unless that setting is small.
        let settings = app_server::Options {
            prefix,
            answer_within,
            ..app_server::Options::default()
        };
        let (app, deliveries) = AppServer::start(nats, instance.clone(), settings).await?;
        let (report, visitors) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let (hub, task) = Hub::new(app, deliveries, report, stop.clone());
        let sessions = Arc::new(Sessions::new(key));
        let site = Site {
            hub,
            history,
            sessions,
            instance,
            names: names.into(),
            trusted: Trusted {
                hosts: hosts.into(),
                proxy,
            },
        };
        let hub = JoinSet::from_iter([task]);
        Ok(Self {
            listener,
            address,
            pages: web::routes(site),
            hub,
            stop,
            visitors,
        })
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the connected users, now and as they change.
    pub fn visitors(&self) -> watch::Receiver<Vec<UserId>> {
        self.visitors.clone()
    }

    /// Serves browsers until `stop`. Then windows are closed and routes deleted. Dropped, it ends
    /// at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        tokio::select! {
            never = server::serve(self.listener, self.pages, &mut connections) => match never {},
            () = stop.cancelled() => {}
        }
        self.stop.cancel();
        self.hub.join_all().await;
    }
}

/// The example of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
