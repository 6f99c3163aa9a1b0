//! What one would write for users who are away without Bellhop: every event on a subject of its user's, and a durable
//! consumer for each user who comes back, which is made, read and deleted.

use std::ops::Range;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::load::Load;
use super::task::Conversation;

/// Whose events lie where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    /// The nats-server.
    pub(super) url: String,
    /// The stream.
    pub(super) stream: String,
    /// What the subjects of users begin with.
    pub(super) subject: String,
    /// What the subjects of instances begin with.
    pub(super) prefix: String,
    /// Where each user is connected.
    pub(super) load: Load,
}

/// The users of the reminders of these numbers come back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Return(pub(super) Range<usize>);

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It is connected.
    Ready,
    /// So many users have got what was kept for them.
    Progress(usize),
    /// All have.
    Done,
}

/// Users in work at a time; more bring no more.
const IN_WORK: usize = 64;
/// Events fetched at a time.
const FETCH: usize = 100;
/// How long an instance may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(task: Task, mut conversation: Conversation) -> Result<(), BenchError> {
    let failed = |error: async_nats::Error| BenchError::nats("bring users what was kept for them", error);
    let client = ConnectOptions::new().name("bench per-event").connect(&task.url).await;
    let client = client.map_err(|error| failed(error.into()))?;
    let jetstream = jetstream::context::ContextBuilder::new().timeout(PATIENCE).build(client.clone());
    conversation.say(&Report::Ready).await?;
    while let Some(Return(numbers)) = conversation.next().await? {
        let users = numbers.map(|number| bring(&jetstream, &client, &task, task.load.user_of(number)));
        conversation.count(stream::iter(users).buffer_unordered(IN_WORK), failed, Report::Progress).await?;
        conversation.say(&Report::Done).await?;
    }
    Ok(())
}

/// Brings a user everything, one event after the other.
async fn bring(jetstream: &Context, client: &Client, task: &Task, user: usize) -> Result<(), async_nats::Error> {
    let name = task.load.user_name(user);
    let instance = task.load.instance_name(task.load.instance_of(user));
    let deliver = format!("{}.{instance}.deliver", task.prefix);
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: format!("{}.{name}", task.subject),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    let consumer: PullConsumer = jetstream.create_consumer_on_stream(config, &task.stream).await?;
    let mut last = None;
    loop {
        let mut messages = consumer.fetch().max_messages(FETCH).messages().await?;
        let mut count = 0;
        while let Some(message) = messages.next().await.transpose()? {
            let request = async_nats::client::Request::new().payload(message.payload.clone()).timeout(Some(PATIENCE));
            client.send_request(deliver.clone(), request).await?;
            message.ack().await?;
            (last, count) = (Some(message), count + 1);
        }
        if count < FETCH {
            break;
        }
    }
    // Acknowledgements are taken in order: when the last one is confirmed the consumer is needed no more.
    if let Some(last) = last {
        last.double_ack().await?;
    }
    jetstream.delete_consumer_from_stream(&name, &task.stream).await?;
    Ok(())
}
