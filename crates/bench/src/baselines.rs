//! Hand-written alternatives to Bellhop, as workers: they take messages from a stream, and forward
//! them to app servers. No rules, no merging, no mailboxes, no history.

use std::ops::Range;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::error::{BenchError, During};
use super::load::Load;
use super::worker::{Conversation, Role, Worker};

/// The task of a forwarder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Forward {
    pub(super) url: String,
    pub(super) stream: String,
    /// The prefix of instances' subjects.
    pub(super) prefix: String,
    pub(super) load: Load,
    pub(super) way: Way,
}

/// The way in which a message is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// To any instance, unread, and acknowledged without waiting for an answer: no system that
    /// delivers reminders can do less.
    Bare,
    /// The straightforward design, with one reminder in a message: looks up the user's instance in
    /// this bucket, sends it a request, and acknowledges.
    PerEvent(String),
}

/// The report that a worker is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Ready;

impl Forward {
    /// Starts the forwarder, and waits until it is ready.
    pub(super) async fn start(&self) -> Result<Worker, BenchError> {
        let mut worker = Worker::start(Role::Forwarder, self).await?;
        let Ready = worker.report().await?;
        Ok(worker)
    }
}

/// Messages that are processed concurrently.
const IN_WORK: usize = 256;
/// Most messages, and bytes, of a pull request.
const PULL: (usize, usize) = (1_000, 4 << 20);
/// The expiry of a pull request. It is long, since a server that syncs published messages may not
/// answer for seconds, and heartbeats missed for this long count as its failure.
const PULL_EXPIRES: Duration = Duration::from_secs(60);

/// Runs a forwarder.
pub(super) async fn forward(mut conversation: Conversation) -> Result<(), BenchError> {
    let task: Forward = conversation.task().await?;
    let action = || format!("forward {}", task.stream);
    let client = ConnectOptions::new()
        .name("bench forwarder")
        .connect(&task.url)
        .await;
    let client = client.during(action())?;
    let jetstream = jetstream::new(client.clone());
    let messages = messages(&jetstream, &task.stream).await.during(action())?;
    conversation.report(&Ready).await?;
    let forwarding = async {
        match &task.way {
            Way::Bare => forward_unread(messages, &client, &task).await,
            Way::PerEvent(bucket) => {
                let routes = jetstream.get_key_value(bucket).await?;
                forward_each(messages, &client, &routes, &task).await
            }
        }
    };
    tokio::select! {
        ended = forwarding => ended.during(action()),
        _ = conversation.next::<()>() => Ok(()),
    }
}

async fn messages(jetstream: &Context, stream: &str) -> Result<pull::Stream, async_nats::Error> {
    let config = pull::Config {
        durable_name: Some("forwarder".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 50_000,
        ..pull::Config::default()
    };
    let consumer: PullConsumer = jetstream.create_consumer_on_stream(config, stream).await?;
    let pull = consumer
        .stream()
        .max_messages_per_batch(PULL.0)
        .max_bytes_per_batch(PULL.1);
    Ok(pull
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_EXPIRES / 2)
        .messages()
        .await?)
}

async fn forward_unread(
    mut messages: pull::Stream,
    client: &Client,
    task: &Forward,
) -> Result<(), async_nats::Error> {
    let subject = |number| {
        format!(
            "{}.{}.deliver",
            task.prefix,
            task.load.instance_name(number)
        )
        .into()
    };
    let subjects: Vec<async_nats::Subject> = (0..task.load.instances).map(subject).collect();
    let mut turn = subjects.iter().cycle();
    while let Some(message) = messages.try_next().await? {
        let subject = turn.next().ok_or("there is no instance")?;
        client
            .publish(subject.clone(), message.payload.clone())
            .await?;
        message.ack().await?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Set<'s> {
    #[serde(borrow)]
    reminders: [Addressed<'s>; 1],
}

#[derive(Deserialize)]
struct Addressed<'s> {
    user: &'s str,
}

async fn forward_each(
    messages: pull::Stream,
    client: &Client,
    routes: &Store,
    task: &Forward,
) -> Result<(), async_nats::Error> {
    let each = |message: jetstream::Message| async move {
        let Set {
            reminders: [Addressed { user }],
        } = serde_json::from_slice(&message.payload)?;
        let instance: Bytes = routes.get(user).await?.ok_or("the user has no route")?;
        let subject = format!(
            "{}.{}.deliver",
            task.prefix,
            std::str::from_utf8(&instance)?
        );
        let request = async_nats::client::Request::new().payload(message.payload.clone());
        client
            .send_request(subject, request.timeout(Some(Duration::from_secs(5))))
            .await?;
        message.ack().await
    };
    messages
        .map_err(async_nats::Error::from)
        .try_for_each_concurrent(IN_WORK, each)
        .await
}

/// The task of a worker that serves users who come back: each user's events are on a subject of
/// their own, and a durable consumer for each returning user is made, read and deleted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ServeReturns {
    pub(super) url: String,
    pub(super) stream: String,
    /// The prefix of users' subjects.
    pub(super) subject: String,
    /// The prefix of instances' subjects.
    pub(super) prefix: String,
    pub(super) load: Load,
}

/// The order that the users of the reminders with these numbers come back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Return(pub(super) Range<usize>);

/// A report on users who come back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Returned {
    /// The number of users who have everything so far.
    Progress(usize),
    /// All users have everything.
    Done,
}

impl ServeReturns {
    /// Starts the worker, and waits until it is ready.
    pub(super) async fn start(&self) -> Result<Worker, BenchError> {
        let mut worker = Worker::start(Role::PerUser, self).await?;
        let Ready = worker.report().await?;
        Ok(worker)
    }
}

/// Users that are served concurrently; more are not faster.
const USERS_IN_WORK: usize = 64;
/// Events in a fetch request.
const FETCH: usize = 100;
/// The time within which JetStream or an instance must answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Runs a worker that serves users who come back.
pub(super) async fn serve_returns(mut conversation: Conversation) -> Result<(), BenchError> {
    let task: ServeReturns = conversation.task().await?;
    let action = "deliver to returning users";
    let client = ConnectOptions::new()
        .name("bench per-event")
        .connect(&task.url)
        .await;
    let client = client.during(action)?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(ANSWER_DEADLINE)
        .build(client.clone());
    conversation.report(&Ready).await?;
    while let Some(Return(numbers)) = conversation.next().await? {
        let users =
            numbers.map(|number| serve_user(&jetstream, &client, &task, task.load.user_of(number)));
        let users = stream::iter(users).buffer_unordered(USERS_IN_WORK);
        conversation
            .count(users, action, Returned::Progress)
            .await?;
        conversation.report(&Returned::Done).await?;
    }
    Ok(())
}

/// Delivers all stored events to a user, one by one.
async fn serve_user(
    jetstream: &Context,
    client: &Client,
    task: &ServeReturns,
    user: usize,
) -> Result<(), async_nats::Error> {
    let name = task.load.user_name(user);
    let instance = task.load.instance_name(task.load.instance_of(user));
    let deliver = format!("{}.{instance}.deliver", task.prefix);
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: format!("{}.{name}", task.subject),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    let consumer: PullConsumer = jetstream
        .create_consumer_on_stream(config, &task.stream)
        .await?;
    let mut last = None;
    loop {
        let mut messages = consumer.fetch().max_messages(FETCH).messages().await?;
        let mut count = 0;
        while let Some(message) = messages.next().await.transpose()? {
            let request = async_nats::client::Request::new().payload(message.payload.clone());
            client
                .send_request(deliver.clone(), request.timeout(Some(ANSWER_DEADLINE)))
                .await?;
            message.ack().await?;
            (last, count) = (Some(message), count + 1);
        }
        if count < FETCH {
            break;
        }
    }
    // Acknowledgements are processed in order, so all are once the last one is confirmed.
    if let Some(last) = last {
        last.double_ack().await?;
    }
    jetstream
        .delete_consumer_from_stream(&name, &task.stream)
        .await?;
    Ok(())
}
