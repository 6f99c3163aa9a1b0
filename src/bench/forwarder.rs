//! What one would write without Bellhop: takes messages from a stream and forwards them to app servers. No rules, no merging,
//! no mailboxes, no history.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::load::Load;
use super::task::Conversation;

/// What is forwarded where.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The nats-server.
    pub(super) url: String,
    /// The stream.
    pub(super) stream: String,
    /// What instances' subjects begin with.
    pub(super) prefix: String,
    /// Whose instances.
    pub(super) load: Load,
    /// How.
    pub(super) way: Way,
}

/// How a message is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// To any instance, without looking at it, and acknowledged without waiting for an answer: no system that delivers
    /// reminders can do less.
    Bare,
    /// The straightforward design, one message a reminder: asks this bucket for the user's route, asks that instance to
    /// take it, acknowledges it.
    PerEvent(String),
}

/// It is forwarding.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Forwarding;

/// Messages in work at a time, where each waits for answers.
const IN_WORK: usize = 256;
/// What is pulled at a time.
const PULL: (usize, usize) = (1_000, 4 << 20);
/// What a pull has not got by then, the next one gets. Long, since a server that syncs what is published may say nothing
/// for seconds, and one that is silent for so long counts as gone.
const PULL_EXPIRES: Duration = Duration::from_secs(60);

pub(super) async fn run(task: Task, mut conversation: Conversation) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats(format!("forward {}", task.stream), error);
    let client = ConnectOptions::new().name("bench forwarder").connect(&task.url).await.map_err(|e| failed(&e))?;
    let jetstream = jetstream::new(client.clone());
    let messages = messages(&jetstream, &task.stream).await.map_err(|error| failed(&error))?;
    conversation.say(&Forwarding).await?;
    let forwarding = async {
        match &task.way {
            Way::Bare => forward(messages, &client, &task).await,
            Way::PerEvent(bucket) => {
                let routes = jetstream.get_key_value(bucket).await?;
                forward_each(messages, &client, &routes, &task).await
            }
        }
    };
    tokio::select! {
        ended = forwarding => ended.map_err(|error: async_nats::Error| failed(&error)),
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
    let pull = consumer.stream().max_messages_per_batch(PULL.0).max_bytes_per_batch(PULL.1);
    Ok(pull.expires(PULL_EXPIRES).heartbeat(PULL_EXPIRES / 2).messages().await?)
}

async fn forward(mut messages: pull::Stream, client: &Client, task: &Task) -> Result<(), async_nats::Error> {
    let subject = |number| format!("{}.{}.deliver", task.prefix, task.load.instance_name(number)).into();
    let subjects: Vec<async_nats::Subject> = (0..task.load.instances).map(subject).collect();
    let mut turn = subjects.iter().cycle();
    while let Some(message) = messages.try_next().await? {
        let subject = turn.next().ok_or("there is no instance")?;
        client.publish(subject.clone(), message.payload.clone()).await?;
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
    task: &Task,
) -> Result<(), async_nats::Error> {
    let each = |message: jetstream::Message| async move {
        let Set { reminders: [Addressed { user }] } = serde_json::from_slice(&message.payload)?;
        let instance: Bytes = routes.get(user).await?.ok_or("the user has no route")?;
        let subject = format!("{}.{}.deliver", task.prefix, std::str::from_utf8(&instance)?);
        let request = async_nats::client::Request::new().payload(message.payload.clone());
        client.send_request(subject, request.timeout(Some(Duration::from_secs(5)))).await?;
        message.ack().await
    };
    messages.map_err(async_nats::Error::from).try_for_each_concurrent(IN_WORK, each).await
}
