//! App servers: they hold their users' connections, and accept what comes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message, jetstream};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::BenchError;
use super::load::Load;
use super::task::Conversation;
use super::verifier::{Report, Verifier};

/// Which app servers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The nats-server.
    pub(super) url: String,
    /// Whose users are connected where.
    pub(super) load: Load,
    /// What instances' subjects begin with, for each who delivers.
    pub(super) prefixes: Vec<String>,
    /// The bucket of Bellhop's routes.
    pub(super) routes: String,
    /// The bucket of a simpler design, where there is one: a user's instance by the user's name.
    pub(super) instances: Option<String>,
}

/// How long JetStream may take over a route.
const PATIENCE: Duration = Duration::from_secs(30);
/// Routes put at a time.
const PUTS: usize = 1_000;
/// Messages that may wait for an instance. The client drops what is more, and who delivers without waiting for an answer can be
/// that much ahead.
const WAITING: usize = 1 << 20;

#[derive(Clone)]
struct Instance {
    number: usize,
    load: Load,
    client: Client,
    has_users: Arc<AtomicBool>,
    verifier: Verifier,
}

#[derive(Deserialize)]
struct Heartbeat<'d> {
    #[serde(borrow)]
    users: Vec<&'d str>,
}

#[derive(Serialize)]
struct Connected<'d> {
    connected: Vec<&'d str>,
}

pub(super) async fn run(task: Task, conversation: Conversation) -> Result<(), BenchError> {
    let (verifier, has_users) = (Verifier::new(task.load), Arc::new(AtomicBool::new(false)));
    let _instances = start_instances(&task, &verifier, &has_users).await?;
    let connect = async |numbers, conversation: &mut Conversation| {
        has_users.store(true, Ordering::Relaxed);
        put_routes(&task, numbers, conversation).await
    };
    verifier.run(conversation, connect).await
}

/// Every instance, for each who delivers. Dropped, they are gone.
async fn start_instances(
    task: &Task,
    verifier: &Verifier,
    has_users: &Arc<AtomicBool>,
) -> Result<JoinSet<()>, BenchError> {
    let mut instances = JoinSet::new();
    let all = task.prefixes.iter().flat_map(|prefix| (0..task.load.instances).map(move |number| (prefix, number)));
    for (prefix, number) in all {
        let name = task.load.instance_name(number);
        let client = ConnectOptions::new().name(&name).subscription_capacity(WAITING).connect(&task.url).await;
        let client = client.map_err(|error| BenchError::nats(format!("connect {name}"), error))?;
        let subject = format!("{prefix}.{name}.>");
        let requests = client.subscribe(subject.clone()).await;
        let requests = requests.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        client.flush().await.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        let (verifier, has_users) = (verifier.clone(), has_users.clone());
        let instance = Instance { number, load: task.load, client, has_users, verifier };
        instances.spawn(requests.for_each(move |request| {
            let instance = instance.clone();
            async move { instance.serve(request).await }
        }));
    }
    Ok(instances)
}

async fn put_routes(task: &Task, numbers: Range<usize>, conversation: &mut Conversation) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("put routes", error);
    let client = async_nats::connect(&task.url).await.map_err(|error| failed(&error))?;
    let jetstream = jetstream::context::ContextBuilder::new().timeout(PATIENCE).build(client);
    let routes = jetstream.get_key_value(&task.routes).await.map_err(|error| failed(&error))?;
    let instances = match &task.instances {
        Some(bucket) => Some(jetstream.get_key_value(bucket).await.map_err(|error| failed(&error))?),
        None => None,
    };
    let puts = numbers.map(|number| {
        let user = task.load.user_of(number);
        let (user, instance) = (task.load.user_name(user), task.load.instance_name(task.load.instance_of(user)));
        let (routes, instances) = (&routes, &instances);
        async move {
            routes.put(format!("{user}.{instance}"), "".into()).await?;
            match instances {
                Some(instances) => instances.put(user, instance.into()).await.map(drop),
                None => Ok(()),
            }
        }
    });
    let puts = stream::iter(puts).buffer_unordered(PUTS);
    conversation.count(puts, |error| failed(&error), Report::Progress).await
}

impl Instance {
    async fn serve(&self, request: Message) {
        let answer = if request.subject.ends_with(".heartbeat") {
            self.heartbeat(&request.payload)
        } else {
            self.verifier.take(self.number, &request.payload);
            b"{}".to_vec()
        };
        if let Some(reply) = request.reply {
            let _ = self.client.publish(reply, answer.into()).await; // Without an answer the count is wrong, and told.
        }
    }

    fn heartbeat(&self, body: &[u8]) -> Vec<u8> {
        let Ok(Heartbeat { users }) = serde_json::from_slice(body) else { return Vec::new() };
        let has_users = self.has_users.load(Ordering::Relaxed);
        let is_here =
            |user: &&str| self.load.user_number(user).is_some_and(|user| self.load.instance_of(user) == self.number);
        let connected = users.into_iter().filter(|user| has_users && is_here(user)).collect();
        serde_json::to_vec(&Connected { connected }).expect("names are text")
    }
}
