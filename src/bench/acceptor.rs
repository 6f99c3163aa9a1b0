//! App servers: they hold their users' connections, and accept what comes.

use async_nats::{Client, ConnectOptions, Message, jetstream};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::BenchError;
use super::arrivals::{Report, Shared};
use super::load::{Load, instance_name, user_name, user_number};
use super::task::Conversation;

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
    /// The bucket of a simpler design: a user's instance by the user's name.
    pub(super) instances: String,
}

/// Routes put at a time.
const PUTS: usize = 1_000;

#[derive(Clone)]
struct Instance {
    number: usize,
    load: Load,
    client: Client,
    arrivals: Shared,
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

pub(super) async fn run(task: Task, mut conversation: Conversation) -> Result<(), BenchError> {
    let arrivals = Shared::new(&task.load);
    let mut instances = JoinSet::new();
    let all = task.prefixes.iter().flat_map(|prefix| (0..task.load.instances).map(move |number| (prefix, number)));
    for (prefix, number) in all {
        let name = instance_name(number);
        let client = ConnectOptions::new().name(&name).connect(&task.url).await;
        let client = client.map_err(|error| BenchError::nats(format!("connect {name}"), error))?;
        let subject = format!("{prefix}.{name}.>");
        let requests = client.subscribe(subject.clone()).await;
        let requests = requests.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        client.flush().await.map_err(|error| BenchError::nats(format!("subscribe to {subject}"), error))?;
        let instance = Instance { number, load: task.load, client, arrivals: arrivals.clone() };
        instances.spawn(requests.for_each(move |request| {
            let instance = instance.clone();
            async move { instance.serve(request).await }
        }));
    }
    put_routes(&task).await?;
    conversation.say(&Report::Ready).await?;
    arrivals.verify(conversation).await
}

async fn put_routes(task: &Task) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::nats("put routes", error);
    let client = async_nats::connect(&task.url).await.map_err(|error| failed(&error))?;
    let jetstream = jetstream::new(client);
    let routes = jetstream.get_key_value(&task.routes).await.map_err(|error| failed(&error))?;
    let instances = jetstream.get_key_value(&task.instances).await.map_err(|error| failed(&error))?;
    let puts = (0..task.load.users).map(|user| {
        let (user, instance) = (user_name(user), instance_name(task.load.instance_of(user)));
        let (routes, instances) = (&routes, &instances);
        async move {
            routes.put(format!("{user}.{instance}"), "".into()).await?;
            instances.put(user, instance.into()).await
        }
    });
    stream::iter(puts).buffer_unordered(PUTS).try_for_each(|_| async { Ok(()) }).await.map_err(|error| failed(&error))
}

impl Instance {
    async fn serve(&self, request: Message) {
        let answer = if request.subject.ends_with(".heartbeat") {
            self.heartbeat(&request.payload)
        } else {
            self.arrivals.take(&self.load, self.number, &request.payload);
            b"{}".to_vec()
        };
        if let Some(reply) = request.reply {
            let _ = self.client.publish(reply, answer.into()).await; // Without an answer the count is wrong, and told.
        }
    }

    fn heartbeat(&self, body: &[u8]) -> Vec<u8> {
        let Ok(Heartbeat { users }) = serde_json::from_slice(body) else { return Vec::new() };
        let is_here = |user: &&str| user_number(user).is_some_and(|user| self.load.instance_of(user) == self.number);
        let connected = users.into_iter().filter(is_here).collect();
        serde_json::to_vec(&Connected { connected }).expect("names are text")
    }
}
