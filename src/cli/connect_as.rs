//! `bellhop connect-as`: poses as an app server, to see what arrives there and to try what happens when one refuses.

mod pose;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::Store;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use self::pose::Pose;
use super::{CliError, SettingsArgs};
use crate::nats::instance::Reason;
use crate::nats::{Nats, NatsError, bucket, keys};
use crate::token::{InstanceName, UserId};
use crate::wire::route::{key, value};
use crate::wire::subject::read_value;

/// A signal so soon after the first one is the same wish: shells and `timeout` signal a process and then its group.
const SAME_WISH: Duration = Duration::from_millis(500);
/// How long answers may take once the routes are deleted; later nobody waits for them.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Routes put or deleted at a time.
const ROUTES_IN_FLIGHT: usize = 64;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It does what an app server does: it subscribes to its deliver and heartbeat subjects, then puts a route for \
each user, answers heartbeats for these users, and deletes the routes when it is stopped (Ctrl-C, SIGTERM).

Examples:
  bellhop connect-as app-1 --user alice --user bob
  bellhop connect-as app-1 --user alice --refuse busy --delay 300ms
  bellhop connect-as app-1 --user alice --json | jq 'select(.event == \"reminder\").reminder.content'

With --json each line is an event: `connected` once all routes are put, `reminder` for each one that arrives, and \
`disconnected`."
)]
pub(super) struct Args {
    /// The instance's name
    instance: InstanceName,
    /// A user who is connected to it; may be repeated
    #[arg(long = "user", value_name = "USER", required = true)]
    users: Vec<UserId>,
    /// What the instance's subjects begin with [default: bellhop.app.INSTANCE]
    #[arg(long)]
    subject: Option<String>,
    /// Accept every reminder of these users; so it does by default
    #[arg(long, conflicts_with = "refuse")]
    accept: bool,
    /// Refuse every reminder: not_connected or busy
    #[arg(long, value_name = "REASON", value_parser = reason)]
    refuse: Option<Reason>,
    /// Wait before a delivery is answered, such as 300ms; longer than delivery.timeout is no answer
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
    let delay: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(delay).map_err(|_| "it is negative".to_owned())
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let (_, nats) = settings.connect().await?;
    let subject = args.subject.unwrap_or_else(|| nats.names.instance(&args.instance));
    read_value(&nats.names, &args.instance, value(&subject, Timestamp::now()).as_bytes()).map_err(|error| {
        CliError::Usage(format!("--subject: {error}; write one such as eu.app.7, without wildcards"))
    })?;
    let users: BTreeSet<UserId> = args.users.into_iter().collect();
    let listen = |kind| signal(kind).map_err(|error| CliError::Io("cannot listen for signals".to_owned(), error));
    let signals = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let subscribe = async |what: &str| {
        let subject = format!("{subject}.{what}");
        let subscribed = nats.client.subscribe(subject.clone()).await;
        subscribed.map_err(|error| NatsError::failed(format!("subscribe to {subject}"), error))
    };
    // A route promises that somebody answers, so that somebody is there first.
    let (deliveries, heartbeats) = (subscribe("deliver").await?, subscribe("heartbeat").await?);
    let routes = Routes {
        nats: nats.clone(),
        bucket: bucket::open(&nats, nats.names.routes_bucket()).await?,
        instance: args.instance.clone(),
        revisions: users.iter().map(|user| (user.clone(), None)).collect(),
    };
    let connection = Connection { client: nats.client.clone(), delay: args.delay, signals, deliveries, heartbeats };
    let pose = Pose::new(args.instance, subject, users, args.refuse, args.json);
    connection.run(pose, routes).await
}

/// The routes of the posed instance, and the revisions that they were put with.
struct Routes {
    nats: Nats,
    bucket: Store,
    instance: InstanceName,
    revisions: BTreeMap<UserId, Option<u64>>,
}

type Change = Result<(UserId, Option<u64>), NatsError>;

impl Routes {
    fn put(&self, subject: &str) -> BoxStream<'static, Change> {
        let value = value(subject, Timestamp::now());
        self.change(move |bucket, user, _, key| {
            let value = value.clone();
            async move {
                let put = bucket.put(key, value.into()).await;
                let revision = put.map_err(|error| NatsError::failed(format!("put a route for {user}"), error))?;
                Ok((user, Some(revision)))
            }
        })
    }

    fn delete(&self) -> BoxStream<'static, Change> {
        let nats = self.nats.clone();
        self.change(move |bucket, user, revision, key| {
            let nats = nats.clone();
            async move {
                // It is not deleted where Bellhop dropped it, or another process poses as the instance now.
                keys::delete(&nats, &bucket.name, &key, revision).await?;
                Ok((user, None))
            }
        })
    }

    fn change<F: Future<Output = Change> + Send + 'static>(
        &self,
        one: impl Fn(Store, UserId, Option<u64>, String) -> F + Send + 'static,
    ) -> BoxStream<'static, Change> {
        let (bucket, instance) = (self.bucket.clone(), self.instance.clone());
        let work = move |(user, revision): (UserId, Option<u64>)| {
            let key = key(&user, &instance);
            one(bucket.clone(), user, revision, key)
        };
        stream::iter(self.revisions.clone()).map(work).buffer_unordered(ROUTES_IN_FLIGHT).boxed()
    }
}

#[derive(PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected,
    Leaving,
}

struct Connection {
    client: Client,
    delay: Duration,
    signals: (Signal, Signal),
    deliveries: Subscriber,
    heartbeats: Subscriber,
}

impl Connection {
    /// Answers from before the first route is put until after the last one is deleted.
    async fn run(mut self, mut pose: Pose, mut routes: Routes) -> Result<(), CliError> {
        let mut phase = Phase::Connecting;
        let mut changes = routes.put(pose.subject());
        let mut answers = JoinSet::new();
        let (mut result, mut leaving_since) = (Ok(()), None);
        loop {
            let step = tokio::select! {
                () = signalled(&mut self.signals) => Err(None),
                change = changes.next(), if phase != Phase::Connected => match change {
                    Some(Ok((user, revision))) => {
                        routes.revisions.insert(user, revision);
                        Ok(())
                    }
                    Some(Err(error)) => Err(Some(error.into())),
                    None if phase == Phase::Leaving => break,
                    None => {
                        phase = Phase::Connected;
                        pose.connected().map_err(Some)
                    }
                },
                Some(request) = self.deliveries.next() => self.deliver(&mut pose, request, &mut answers),
                Some(request) = self.heartbeats.next() => {
                    answer(&self.client, &request, pose.heartbeat(&request.payload)).await;
                    Ok(())
                }
                Some(_) = answers.join_next() => Ok(()),
            };
            let Err(why) = step else { continue };
            let is_impatient = leaving_since.is_some_and(|since: Instant| since.elapsed() > SAME_WISH);
            if is_impatient && why.is_none() {
                let problem = "left at a second signal; `bellhop routes ls` shows which routes remain";
                return Err(CliError::Failed(problem.to_owned()));
            }
            result = result.and(why.map_or(Ok(()), Err));
            if phase != Phase::Leaving {
                (phase, leaving_since) = (Phase::Leaving, Some(Instant::now()));
                pose.leave();
                changes = routes.delete();
            }
        }
        self.finish(&mut pose, answers).await;
        result.and(pose.disconnected())
    }

    /// Answers what is on its way here already.
    async fn finish(mut self, pose: &mut Pose, mut answers: JoinSet<()>) {
        let rest = async {
            if self.deliveries.drain().await.is_ok() {
                while let Some(request) = self.deliveries.next().await {
                    let _ = self.deliver(pose, request, &mut answers);
                }
            }
            while answers.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(LAST_ANSWERS, rest).await;
        let _ = self.client.flush().await;
    }

    fn deliver(&self, pose: &mut Pose, request: Message, answers: &mut JoinSet<()>) -> Result<(), Option<CliError>> {
        let reply = pose.delivery(Timestamp::now(), &request.payload).map_err(Some)?;
        let (client, delay) = (self.client.clone(), self.delay);
        answers.spawn(async move {
            tokio::time::sleep(delay).await;
            answer(&client, &request, reply).await;
        });
        Ok(())
    }
}

async fn signalled((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn answer(client: &Client, request: &Message, body: Option<Vec<u8>>) {
    let (Some(reply), Some(body)) = (request.reply.clone(), body) else { return };
    if let Err(error) = client.publish(reply, body.into()).await {
        tracing::warn!(%error, "answer not sent");
    }
}
