//! The app server: routes for connected users, answers to heartbeats, and reminders for the
//! application.

mod connections;
mod deliveries;
mod duplicates;
mod pending;
mod routes;
mod task;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use async_nats::Client;
use tokio::sync::mpsc;

use self::connections::Waiter;
pub use self::deliveries::{Deliveries, Delivery};
use self::duplicates::Accepted;
use self::task::{Command, Task};
use bellhop_protocol::names::Names;
use bellhop_protocol::token::{InstanceName, UserId};
use bellhop_protocol::wire::route;

/// Settings of an app server, each with its default.
#[derive(Debug, Clone)]
pub struct Options {
    /// The prefix of the installation's names: `bellhop`.
    pub prefix: String,
    /// The prefix of the instance's subjects: `<prefix>.app.<instance>`.
    pub subject: Option<String>,
    /// The most reminders without a decision, in the stream or taken from it: 10,000. More are
    /// refused as busy. Those in the stream take at most 256 KiB for each member of the
    /// installation.
    pub capacity: usize,
    /// Time for which a request waits for the application's decisions: 1.5 s. It must be below
    /// Bellhop's `delivery.timeout` (2 s).
    pub answer_within: Duration,
    /// Time for which accepted reminders are remembered, to recognize redeliveries: 10 minutes.
    pub remember_for: Duration,
    /// The most accepted reminders that are remembered: 100,000, about 60 bytes each. With 0 the
    /// application gets every redelivery and decides about it, for example by its own database.
    pub remember: usize,
    /// The most routes that are written at the same time: 256.
    pub routes_in_flight: usize,
    /// Time for which [`Routed`] and draining wait for JetStream: 5 s.
    pub patience: Duration,
    /// The time between two checks whether the bucket of routes is still the same one: 10 s. After
    /// it was deleted and created again, all routes are put again.
    pub check_routes_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "bellhop".to_owned(),
            subject: None,
            capacity: 10_000,
            answer_within: Duration::from_millis(1_500),
            remember_for: Duration::from_secs(600),
            remember: 100_000,
            routes_in_flight: 256,
            patience: Duration::from_secs(5),
            check_routes_every: Duration::from_secs(10),
        }
    }
}

/// The reason why an app server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An app server cannot have the subject in its options.
    #[error("`subject`: {0}; write one such as eu.app.7, without wildcards")]
    Subject(#[from] route::RouteError),
    /// The connection to NATS is closed.
    #[error("subscribe to {subject}: {problem}")]
    Subscribe {
        /// The subject that it tried to subscribe to.
        subject: String,
        /// The cause.
        problem: String,
    },
}

/// The reason why routes are not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// JetStream has not confirmed all of them yet. The app server goes on trying.
    #[error("not all routes are confirmed after {after:?}: {problem}; still retrying")]
    Late {
        /// Time for which the call has waited.
        after: Duration,
        /// The latest problem.
        problem: String,
    },
    /// The app server has drained, or its connection to NATS is closed.
    #[error("the app server has stopped; start another one")]
    Stopped,
}

/// An instance of an app server. Clones are the same instance; when the last one is dropped, it
/// [drains](Self::drain).
///
/// It keeps a table of connected users, and answers Bellhop from it. Routes follow the table: after
/// each reconnect to NATS all are put again, and so are they after the bucket was deleted and
/// created again. (Where an installation delivers to a user's latest device alone, this makes the
/// devices of this instance the latest.)
///
/// ```text
/// connect(user) ─▶ table ─▶ route in the bucket ─▶ Bellhop
///                    │                               │ heartbeat: answered from the table
///                    └── not_connected, busy ◀───────│ deliver
/// Deliveries ◀── queue of `capacity` ◀───────────────┘
/// ```
#[derive(Debug, Clone)]
pub struct AppServer {
    commands: mpsc::UnboundedSender<Command>,
    patience: Duration,
}

impl AppServer {
    /// Starts an instance over this connection, inside a Tokio runtime, and subscribes to its
    /// requests. No user is connected yet. Two processes must not have the same name at the same
    /// time.
    ///
    /// # Errors
    /// When it cannot subscribe.
    pub async fn start(
        client: Client,
        instance: InstanceName,
        options: Options,
    ) -> Result<(Self, Deliveries), StartError> {
        let names = Names::new(&options.prefix);
        let subject = options
            .subject
            .clone()
            .unwrap_or_else(|| names.instance(&instance));
        let routes = routes::Writer::new(&client, &names, instance, subject.clone())?;
        let requests = task::subscribe(&client, &subject).await?;
        let (queue, deliveries) = deliveries::queue();
        let accepted = Accepted::new(options.remember_for, options.remember);
        let (commands, received) = mpsc::unbounded_channel();
        let patience = options.patience;
        tokio::spawn(
            Task::new(
                client,
                requests,
                received,
                routes,
                (queue, accepted),
                options,
            )
            .run(),
        );
        Ok((Self { commands, patience }, deliveries))
    }

    /// Registers a terminal of the user. The user counts as connected until as many terminals have
    /// left.
    ///
    /// The route is put each time, which makes this the user's latest device.
    pub fn connect(&self, user: UserId) -> Routed {
        self.connect_all([user])
    }

    /// Registers a terminal of each user, for example when an app server takes existing connections
    /// over.
    pub fn connect_all(&self, users: impl IntoIterator<Item = UserId>) -> Routed {
        let instance = Some(self.commands.clone());
        Routed {
            instance,
            ..self.change(|waiter| Command::Connect(users.into_iter().collect(), waiter))
        }
    }

    /// Removes a terminal of the user. After the last one the user no longer counts as connected,
    /// and the user's reminders in the stream are refused.
    pub fn disconnect(&self, user: UserId) -> Routed {
        self.disconnect_all([user])
    }

    /// Removes a terminal of each user.
    pub fn disconnect_all(&self, users: impl IntoIterator<Item = UserId>) -> Routed {
        self.change(|waiter| Command::Disconnect(users.into_iter().collect(), waiter))
    }

    /// Begins to stop: no user counts as connected any more, and the routes are deleted. The stream
    /// still yields the reminders in it, and ends when all are answered and all routes deleted. If
    /// JetStream does not answer, it ends after [`Options::patience`], and Bellhop drops the routes
    /// after its next heartbeats.
    pub fn drain(&self) {
        let _ = self.commands.send(Command::Drain); // One that has stopped has drained.
    }

    /// Ends at once and leaves the routes, for a process whose successor has the same name and
    /// takes its users over: no reminder goes to a mailbox meanwhile. Returns when the decisions
    /// made before this call are sent. Later decisions are not sent, so those reminders come again.
    ///
    /// Without a successor, Bellhop drops the routes after its next heartbeats or deliveries, which
    /// get no answer.
    pub async fn abandon(&self) {
        let _ = self.commands.send(Command::Abandon); // One that has stopped is gone already.
        self.commands.closed().await;
    }

    fn change(&self, command: impl FnOnce(Waiter) -> Command) -> Routed {
        let (waiter, problems) = mpsc::channel(1);
        let sent = self.commands.send(command(waiter));
        Routed {
            problems: sent.is_ok().then_some(problems),
            instance: None,
            patience: self.patience,
        }
    }
}

/// A change of routes. It takes effect at once; await it to know when JetStream has confirmed it.
#[derive(Debug)]
pub struct Routed {
    problems: Option<mpsc::Receiver<String>>,
    /// The instance, when users connect: it must still run when the routes are written.
    instance: Option<mpsc::UnboundedSender<Command>>,
    patience: Duration,
}

impl Routed {
    async fn wait(self) -> Result<(), RouteError> {
        let mut problems = self.problems.ok_or(RouteError::Stopped)?;
        let mut problem = "JetStream has not answered".to_owned();
        let written = async {
            while let Some(latest) = problems.recv().await {
                problem = latest;
            }
        };
        match tokio::time::timeout(self.patience, written).await {
            Ok(()) if self.instance.is_some_and(|instance| instance.is_closed()) => {
                Err(RouteError::Stopped)
            }
            Ok(()) => Ok(()),
            Err(_) => Err(RouteError::Late {
                after: self.patience,
                problem,
            }),
        }
    }
}

impl IntoFuture for Routed {
    type Output = Result<(), RouteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
