//! An app server: the program of somebody else that holds users' long connections, and the whole of what Bellhop asks of
//! one. It uses nothing of Bellhop's but the contract: two requests to answer and one bucket to write.
//!
//! Its answers come from its own table of connections alone, which one task owns: whoever is in it gets the reminder,
//! whoever is not is refused as `not_connected`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use async_nats::jetstream::{self, kv};
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::DemoError;
use super::board::{Board, Kind, Line};
use super::ledger::Accepted;
use super::text;
use crate::token::{UserId, escape};

/// What happens to an app server.
#[derive(Debug)]
pub(super) enum Happening {
    /// A user's terminal connects.
    Comes(UserId),
    /// A user's terminal leaves.
    Goes(UserId),
    /// The process is killed: its connections are gone at once, its routes stay behind.
    Killed,
    /// The process starts, and knows nobody.
    Started,
}

/// Where what happens to an app server is told to it.
#[derive(Debug, Clone)]
pub(super) struct AppServer {
    happenings: mpsc::Sender<Happening>,
}

impl AppServer {
    /// An app server that is not started yet, and the task that is to be run for it.
    pub(super) fn new(
        number: usize,
        name: &'static str,
        url: &str,
        board: Arc<Board>,
    ) -> (Self, impl Future<Output = Result<(), DemoError>> + use<>) {
        let (happenings, received) = mpsc::channel(64);
        let process = Process { number, name, url: url.to_owned(), board, life: None };
        (Self { happenings }, process.run(received))
    }

    /// Tells it.
    pub(super) async fn tell(&self, happening: Happening) {
        let _ = self.happenings.send(happening).await; // Its task ends with the demo only.
    }
}

struct Process {
    number: usize,
    name: &'static str,
    url: String,
    board: Arc<Board>,
    life: Option<Life>,
}

/// What there is from a start to a kill.
struct Life {
    client: Client,
    requests: Subscriber,
    connected: HashSet<UserId>,
    routes: mpsc::Sender<(UserId, bool)>,
    writer: JoinHandle<()>,
}

impl Process {
    async fn run(mut self, mut happenings: mpsc::Receiver<Happening>) -> Result<(), DemoError> {
        loop {
            let requests = self.life.as_mut().map(|life| &mut life.requests);
            let request = async {
                match requests {
                    Some(requests) => requests.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = request => match request {
                    Some(request) => self.answer(request).await?,
                    None => return Err(DemoError::nats(self.name, "its connection is gone")),
                },
                happening = happenings.recv() => match happening {
                    Some(happening) => self.happens(happening).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn happens(&mut self, happening: Happening) -> Result<(), DemoError> {
        match (happening, &mut self.life) {
            (Happening::Started, None) => {
                self.life = Some(Life::begin(&self.url, self.name, self.board.clone()).await?);
                self.board.with(|board| board.servers[self.number].life += 1);
            }
            (Happening::Killed, Some(life)) => {
                life.writer.abort();
                // What was accepted has been answered. Nothing after it is.
                let _ = life.client.flush().await;
                self.life = None;
            }
            // The table first: a reminder may come as soon as the route is there.
            (Happening::Comes(user), Some(life)) => {
                if life.connected.insert(user.clone()) {
                    let _ = life.routes.send((user, true)).await;
                }
            }
            (Happening::Goes(user), Some(life)) => {
                if life.connected.remove(&user) {
                    let _ = life.routes.send((user, false)).await;
                }
            }
            _ => return Ok(()),
        }
        let users = self.life.as_ref().map(|life| life.connected.len());
        self.board.with(|board| {
            let gauge = &mut board.servers[self.number];
            (gauge.is_up, gauge.users) = (users.is_some(), users.unwrap_or(0));
        });
        Ok(())
    }

    async fn answer(&mut self, Message { subject, payload, reply, .. }: Message) -> Result<(), DemoError> {
        let (Some(life), Some(reply)) = (&self.life, reply) else { return Ok(()) };
        let answer = match subject.ends_with(".heartbeat") {
            true => serde_json::from_slice(&payload).map(|asked| life.confirm(&asked)),
            false => serde_json::from_slice(&payload).map(|delivery| self.deliver(life, &delivery)),
        };
        match answer {
            Ok(answer) => {
                let sent = life.client.publish(reply, answer.to_string().into()).await;
                sent.map_err(|error| DemoError::nats(self.name, error))
            }
            Err(error) => {
                let text = format!("{} does not understand what it is asked at {subject}: {error}", self.name);
                self.board.say(Line { kind: Kind::Bad, text, detail: None });
                Ok(())
            }
        }
    }

    /// Shows each reminder on its user's terminal, or says that there is none.
    fn deliver(&self, life: &Life, delivery: &Delivery) -> serde_json::Value {
        let now = Instant::now();
        let mut refused = Vec::new();
        self.board.with(|board| {
            for reminder in &delivery.reminders {
                let Reminder { id, source, user, merged, .. } = reminder;
                if !life.connected.contains(user) {
                    refused.push(json!({ "id": id, "source": source, "user": user, "reason": "not_connected" }));
                    continue;
                }
                let has_waited = reminder.parked_at.is_some();
                let accepted = Accepted { source, id, user: user.as_str(), merged, has_waited };
                let latency = board.ledger.accept(now, &accepted);
                board.servers[self.number].accepted += 1;
                if latency.is_none() || board.wants_sample(now, source) {
                    let after =
                        latency.map_or_else(|| "from outside".to_owned(), |it| format!("after {}", text::time(it)));
                    board.say(reminder.in_full(self.name, &after));
                }
            }
        });
        if refused.is_empty() { json!({}) } else { json!({ "refused": refused }) }
    }
}

impl Life {
    /// Subscribes before anybody can be routed here.
    async fn begin(url: &str, name: &'static str, board: Arc<Board>) -> Result<Self, DemoError> {
        let failed = |problem: &dyn std::fmt::Display| DemoError::nats(format!("start {name}"), problem);
        let client = async_nats::ConnectOptions::new().name(name).connect(url).await.map_err(|e| failed(&e))?;
        let subject = format!("bellhop.app.{}", escape(name));
        let requests = client.subscribe(format!("{subject}.*")).await.map_err(|e| failed(&e))?;
        client.flush().await.map_err(|e| failed(&e))?;
        let bucket = jetstream::new(client.clone()).get_key_value("bellhop_routes").await.map_err(|e| failed(&e))?;
        let (routes, changes) = mpsc::channel(1_024);
        let writer = tokio::spawn(write_routes(bucket, escape(name), subject, board, changes));
        Ok(Self { client, requests, connected: HashSet::new(), routes, writer })
    }

    fn confirm(&self, asked: &Heartbeat) -> serde_json::Value {
        let is_connected = |user: &&UserId| self.connected.contains(*user);
        json!({ "connected": asked.users.iter().filter(is_connected).collect::<Vec<_>>() })
    }
}

/// Puts and deletes routes in the order in which users come and go, while deliveries are answered.
async fn write_routes(
    bucket: kv::Store,
    instance: String,
    subject: String,
    board: Arc<Board>,
    mut changes: mpsc::Receiver<(UserId, bool)>,
) {
    while let Some((user, is_connected)) = changes.recv().await {
        let key = format!("{}.{instance}", user.escaped());
        let value = || Bytes::from(json!({ "subject": subject, "since": Timestamp::now() }).to_string());
        let written = match is_connected {
            true => bucket.put(&key, value()).await.map(drop).map_err(|error| error.to_string()),
            false => bucket.delete(&key).await.map_err(|error| error.to_string()),
        };
        if let Err(error) = written {
            let text = format!("the route {key} could not be written: {error}");
            board.say(Line { kind: Kind::Bad, text, detail: None });
        }
    }
}

#[derive(Deserialize)]
struct Heartbeat {
    users: Vec<UserId>,
}

#[derive(Deserialize)]
struct Delivery {
    reminders: Vec<Reminder>,
}

#[derive(Deserialize)]
struct Reminder {
    id: String,
    source: String,
    user: UserId,
    title: Option<String>,
    content: String,
    #[serde(default)]
    tags: Vec<String>,
    priority: String,
    #[serde(default)]
    merged: Vec<String>,
    parked_at: Option<String>,
}

impl Reminder {
    fn in_full(&self, instance: &str, after: &str) -> Line {
        let Self { id, user, priority, content, .. } = self;
        let waited = if self.parked_at.is_some() { " in the mailbox" } else { "" };
        let title = self.title.as_ref().map(|title| format!("{title}: ")).unwrap_or_default();
        let tags = self.tags.iter().map(|tag| format!(" #{tag}")).collect::<String>();
        let stands_for = match self.merged.len() {
            0 => String::new(),
            n => format!(" (stands for {})", n + 1),
        };
        Line {
            kind: Kind::Reminder,
            text: format!("{id} ({priority}) → {user} at {instance} {after}{waited}"),
            detail: Some(format!("{title}{content}{stands_for} {tags}")),
        }
    }
}
