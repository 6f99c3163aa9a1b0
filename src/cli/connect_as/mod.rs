//! `bellhop connect-as`: acts as an app server, to see what arrives there and to try what happens
//! when it refuses.

mod printer;

use std::collections::BTreeSet;
use std::future::{IntoFuture, pending};
use std::pin::pin;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use self::printer::Printer;
use super::{CliError, SettingsArgs};
use crate::client::app_server::{Options, RouteError, StartError};
use crate::client::{AppServer, Deliveries, Delivery, InstanceName, Reason, UserId};
use crate::nats::chain;

/// A second signal this soon after the first is the same request: shells and `timeout` signal a
/// process and then its group.
const SAME_REQUEST: Duration = Duration::from_millis(500);
/// Maximum time for the last answers, after the routes were deleted.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It does what an app server does: it subscribes to its deliver and heartbeat subjects, puts a route for \
each user, answers heartbeats for these users, and deletes the routes when it stops (Ctrl-C, SIGTERM).

Examples:
  bellhop connect-as app-1 --user alice --user bob
  bellhop connect-as app-1 --user alice --refuse busy --delay 300ms
  bellhop connect-as app-1 --user alice --json | jq 'select(.event == \"reminder\").reminder.content'

With --json each line is an event: `connected` when all routes are put, `reminder` for each reminder, and \
`disconnected`."
)]
pub(super) struct Args {
    /// The instance's name
    instance: InstanceName,
    /// A user who is connected to it; may be repeated
    #[arg(long = "user", value_name = "USER", required = true)]
    users: Vec<UserId>,
    /// Prefix of the instance's subjects [default: bellhop.app.INSTANCE]
    #[arg(long)]
    subject: Option<String>,
    /// Accept every reminder for these users (default)
    #[arg(long, conflicts_with = "refuse")]
    accept: bool,
    /// Refuse every reminder: not_connected or busy
    #[arg(long, value_name = "REASON", value_parser = reason)]
    refuse: Option<Reason>,
    /// Delay before each answer, such as 300ms; longer than delivery.timeout counts as no answer
    #[arg(long, value_name = "TIME", value_parser = delay, default_value = "0s")]
    delay: Duration,
    /// Print JSON: one line for each event
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<Reason, String> {
    serde_json::from_value(text.into()).map_err(|_| "it is one of not_connected, busy".to_owned())
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay: SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(delay).map_err(|_| "it is negative".to_owned())
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let (config, nats) = settings.connect().await?;
    let users: BTreeSet<UserId> = args.users.into_iter().collect();
    let subject = args
        .subject
        .clone()
        .unwrap_or_else(|| nats.names.instance(&args.instance));
    let printer = Printer::new(args.instance.clone(), subject, args.json);
    let options = Options {
        prefix: config.prefix,
        subject: args.subject,
        // Each delivery is shown and answered by itself, also one that is brought again.
        remember: 0,
        answer_within: args.delay.saturating_add(LAST_ANSWERS),
        ..Options::default()
    };
    let listen = |kind| {
        signal(kind).map_err(|error| CliError::Io("cannot listen for signals".to_owned(), error))
    };
    let signals = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let (app, deliveries) = AppServer::start(nats.client.clone(), args.instance, options)
        .await
        .map_err(unstarted)?;
    let answers = JoinSet::new();
    let application = Application {
        deliveries,
        printer,
        refuse: args.refuse,
        delay: args.delay,
        answers,
        signals,
    };
    application.run(app, users).await
}

fn unstarted(error: StartError) -> CliError {
    match error {
        StartError::Subject(error) => CliError::Usage(format!(
            "--subject: {error}; write one such as eu.app.7, without wildcards"
        )),
        error => CliError::Failed(chain(&error).to_string()),
    }
}

fn unrouted(error: RouteError) -> CliError {
    match error {
        RouteError::Late { after, problem } => CliError::Failed(format!(
            "routes not confirmed within {after:?}: {problem}; `bellhop setup` creates a missing bucket, and \
             `bellhop doctor` finds other causes"
        )),
        error => CliError::Failed(chain(&error).to_string()),
    }
}

/// The application of the app server.
struct Application {
    deliveries: Deliveries,
    printer: Printer,
    refuse: Option<Reason>,
    delay: Duration,
    answers: JoinSet<()>,
    signals: (Signal, Signal),
}

/// The reason why the application stops.
enum Stop {
    Signal,
    Failed(CliError),
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

impl Application {
    async fn run(mut self, app: AppServer, users: BTreeSet<UserId>) -> Result<(), CliError> {
        let result = match self.serve(&app, &users).await {
            Stop::Signal => Ok(()),
            Stop::Failed(error) => Err(error),
        };
        let left = self.leave(&app, users).await;
        result.and(left)?;
        self.printer.disconnected()
    }

    /// Puts the routes, and takes deliveries until there is a reason to stop.
    async fn serve(&mut self, app: &AppServer, users: &BTreeSet<UserId>) -> Stop {
        let served = async {
            self.until(app.connect_all(users.clone()))
                .await?
                .map_err(unrouted)?;
            self.printer.connected(users)?;
            self.until(pending::<()>()).await
        };
        served.await.err().unwrap_or(Stop::Signal)
    }

    /// Deletes the routes, and answers what is on its way here already.
    async fn leave(&mut self, app: &AppServer, users: BTreeSet<UserId>) -> Result<(), CliError> {
        let since = Instant::now();
        let mut result = Ok(());
        let mut deleted = pin!(app.disconnect_all(users).into_future());
        loop {
            match self.until(&mut deleted).await {
                Ok(deleted) => break result = result.and(deleted.map_err(unrouted)),
                Err(Stop::Failed(error)) => result = result.and(Err(error)),
                Err(Stop::Signal) if since.elapsed() <= SAME_REQUEST => {}
                Err(Stop::Signal) => {
                    let problem =
                        "stopped by a second signal; `bellhop routes ls` shows which routes remain";
                    return Err(CliError::Failed(problem.to_owned()));
                }
            }
        }
        app.drain();
        let last_answers = async {
            while let Some(batch) = self.deliveries.next_batch().await {
                let _ = self.take(batch);
            }
            while self.answers.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(LAST_ANSWERS, last_answers).await;
        result
    }

    /// Takes deliveries until `done` is ready.
    async fn until<T>(&mut self, done: impl IntoFuture<Output = T>) -> Result<T, Stop> {
        let mut done = pin!(done.into_future());
        loop {
            tokio::select! {
                done = &mut done => return Ok(done),
                () = signalled(&mut self.signals) => return Err(Stop::Signal),
                batch = self.deliveries.next_batch() => match batch {
                    Some(batch) => self.take(batch)?,
                    None => return Err(CliError::Failed("the connection to NATS is closed".to_owned()).into()),
                },
                Some(_) = self.answers.join_next() => {}
            }
        }
    }

    /// Shows reminders, and answers them after the delay.
    fn take(&mut self, batch: Vec<Delivery>) -> Result<(), CliError> {
        let now = Timestamp::now();
        let refuse = self.refuse;
        let shown = batch
            .iter()
            .try_for_each(|delivery| self.printer.reminder(now, delivery, refuse));
        let delay = self.delay;
        self.answers.spawn(async move {
            tokio::time::sleep(delay).await;
            for delivery in batch {
                match refuse {
                    Some(reason) => delivery.refuse(reason),
                    None => drop(delivery.accept()),
                }
            }
        });
        shown.and_then(|()| self.printer.flush())
    }
}

async fn signalled((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
