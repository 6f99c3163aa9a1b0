//! An app server's part: routes for the users who are connected, answers to heartbeats, reminders for the application.

mod deliveries;
mod desk;
mod handover;
mod repeats;
mod routes;
mod table;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use async_nats::Client;
use tokio::sync::mpsc;

pub use self::deliveries::{Deliveries, Delivery};
use self::desk::{Command, Desk};
use self::repeats::Repeats;
use self::table::Ticket;
use bellhop_protocol::names::Names;
use bellhop_protocol::token::{InstanceName, UserId};
use bellhop_protocol::wire::route;

/// What an app server may be told. Each has its default.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the names of the installation begin with: `bellhop`.
    pub prefix: String,
    /// What the instance's subjects begin with, where it is not `<prefix>.app.<instance>`.
    pub subject: Option<String>,
    /// How many reminders may be without the application's word, in the stream or taken from it; what is more is refused as
    /// `busy`: 10,000. The stream alone has no more than requests wait for: one of 256 KiB for each member of the installation.
    pub capacity: usize,
    /// How long a request waits for the application's word on its reminders; it must be below Bellhop's `delivery.timeout` (2 s):
    /// 1.5 s.
    pub answer_within: Duration,
    /// How long accepted reminders are remembered, to know repeats by: 10 minutes.
    pub remember_for: Duration,
    /// How many accepted reminders are remembered at most: 100,000. One takes some 60 bytes. With 0, the application gets each
    /// redelivery too, and answers it: for one that knows them by its own database.
    pub remember: usize,
    /// How many routes are being put or deleted at a time: 256.
    pub routes_in_flight: usize,
    /// How long [`Routed`] waits for JetStream, and how long an app server that drains does: 5 s.
    pub patience: Duration,
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
        }
    }
}

/// Why an app server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The subject of the options is none that an app server can have.
    #[error("`subject`: {0}; write one such as eu.app.7, without wildcards")]
    Subject(#[from] route::RouteError),
    /// The connection to NATS is closed.
    #[error("subscribe to {subject}: {problem}")]
    Subscribe {
        /// What was to be subscribed to.
        subject: String,
        /// Why it could not be.
        problem: String,
    },
}

/// Why routes are not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// JetStream has not confirmed all of them yet. That goes on being tried, for as long as it is what is wanted.
    #[error("not all routes are written after {after:?}: {problem}; it goes on being tried")]
    Late {
        /// How long was waited.
        after: Duration,
        /// What went wrong last.
        problem: String,
    },
    /// The app server has drained, or its connection to NATS is closed.
    #[error("the app server has stopped; start another one")]
    Stopped,
}

/// An instance of an app server. Clones are the same instance; when the last one is dropped, it [drains](Self::drain).
///
/// It keeps the table of who is connected, and that is what it answers Bellhop from. Routes follow the table, also when NATS was away
/// or has lost them: after each reconnect all are put again. (Where a user's reminders go to the latest device, all of this
/// instance's are that then.)
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
    /// Starts an instance over this connection, inside a Tokio runtime. It is subscribed before a route is put, and nobody is
    /// connected yet. Two processes must not have the same name at the same time.
    ///
    /// # Errors
    /// When it cannot subscribe.
    pub async fn start(
        client: Client,
        instance: InstanceName,
        options: Options,
    ) -> Result<(Self, Deliveries), StartError> {
        let names = Names::new(&options.prefix);
        let subject = options.subject.clone().unwrap_or_else(|| names.instance(&instance));
        let routes = routes::Writer::new(&client, &names, instance, subject.clone())?;
        let requests = desk::subscribe(&client, &subject).await?;
        let (queue, deliveries) = deliveries::queue();
        let repeats = Repeats::new(options.remember_for, options.remember);
        let (commands, received) = mpsc::unbounded_channel();
        let patience = options.patience;
        tokio::spawn(Desk::new(client, requests, received, routes, (queue, repeats), options).run());
        Ok((Self { commands, patience }, deliveries))
    }

    /// A terminal of the user connects. From now on the user counts as connected, until as many terminals have left.
    ///
    /// The route is put each time: where a user's reminders go to the latest device, this one is.
    pub fn connect(&self, user: UserId) -> Routed {
        self.connect_all([user])
    }

    /// The same for many: as when an app server starts with connections that it has taken over.
    pub fn connect_all(&self, users: impl IntoIterator<Item = UserId>) -> Routed {
        let instance = Some(self.commands.clone());
        Routed { instance, ..self.change(|ticket| Command::Connect(users.into_iter().collect(), ticket)) }
    }

    /// A terminal of the user leaves. When it is the last, the user does not count as connected any more, and what waits for the
    /// user in the stream is refused.
    pub fn disconnect(&self, user: UserId) -> Routed {
        self.disconnect_all([user])
    }

    /// The same for many.
    pub fn disconnect_all(&self, users: impl IntoIterator<Item = UserId>) -> Routed {
        self.change(|ticket| Command::Disconnect(users.into_iter().collect(), ticket))
    }

    /// Begins to stop: nobody counts as connected, the routes are deleted, and what is under way is answered. The stream of
    /// deliveries goes on with what was in it, and ends when all that is done. Where JetStream is away it ends after
    /// [`Options::patience`], and Bellhop finds out by heartbeats that nobody is there.
    pub fn drain(&self) {
        let _ = self.commands.send(Command::Drain); // One that has stopped has drained.
    }

    /// Ends at once and leaves the routes: for a process whose successor has the same name and takes its users over, since a
    /// route that is deleted and put again sends what comes meanwhile to mailboxes. Returns when what the application had said
    /// before this call is answered. What it says later is not, so those reminders come again.
    ///
    /// Without a successor Bellhop finds out by its next heartbeat, or by the deliveries that are not answered.
    pub async fn abandon(&self) {
        let _ = self.commands.send(Command::Abandon); // One that has stopped is gone already.
        self.commands.closed().await;
    }

    fn change(&self, command: impl FnOnce(Ticket) -> Command) -> Routed {
        let (ticket, problems) = mpsc::channel(1);
        let sent = self.commands.send(command(ticket));
        Routed { problems: sent.is_ok().then_some(problems), instance: None, patience: self.patience }
    }
}

/// Routes that are to be written. The change is made already; awaited, this tells when JetStream has confirmed it.
#[derive(Debug)]
pub struct Routed {
    problems: Option<mpsc::Receiver<String>>,
    /// The instance that has to be there in the end, where somebody connects to it.
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
            Ok(()) if self.instance.is_some_and(|instance| instance.is_closed()) => Err(RouteError::Stopped),
            Ok(()) => Ok(()),
            Err(_) => Err(RouteError::Late { after: self.patience, problem }),
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
