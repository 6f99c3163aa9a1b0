//! An app server: a process of its own, so that it can be killed and stopped as a real one. It knows the contract only.
//!
//! It is told what to do by its standard input, a line for each command: `connect USER…`, `leave USER…`, and `be MOOD`. At
//! the end of the input everybody leaves, and it ends in good order.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::{Client, HeaderMap, Message};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client;
use crate::logs::{Log, Reminder, Served};

/// Of so many deliveries one is answered with `busy` by an app server that is moody.
const BUSY_ONE_IN: u32 = 50;
/// How long a slow one takes to answer: within `delivery.timeout`, with something left for a busy machine.
const SLOW: Duration = Duration::from_millis(1_500);
/// Routes that are being written at a time.
const ROUTES_IN_FLIGHT: usize = 256;

/// How deliveries are answered. Heartbeats are answered truly in any mood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mood {
    /// What is for connected users is taken, but for a busy moment now and then.
    Moody,
    /// What is for connected users is taken.
    Well,
    /// Everything is refused as `busy`.
    Busy,
    /// What is for connected users is taken, and the answer comes late, but in time.
    Slow,
    /// There is no answer.
    Hung,
    /// The answer is nothing that the contract knows.
    Garbled,
    /// Everything is refused as `not_connected`.
    Estranged,
}

struct App {
    log: Log,
    mood: Mood,
    connected: BTreeSet<String>,
    /// Whose routes are to be written, and whether these users are here.
    routes: mpsc::UnboundedSender<(Vec<String>, bool)>,
}

impl Mood {
    /// As commands name it.
    pub(crate) fn name(self) -> String {
        serde_json::to_value(self).unwrap().as_str().unwrap().to_owned()
    }

    fn named(name: &str) -> Self {
        serde_json::from_value(name.into()).unwrap()
    }
}

/// Serves until the end of the input.
pub(crate) async fn serve(name: &str, url: &str, logs: &Path) {
    let client = client::connect(url, name).await;
    let mut requests = client.subscribe(format!("bellhop.app.{name}.*")).await.unwrap();
    client.flush().await.unwrap();
    let (routes, writing) = write_routes(client.clone(), name);
    let log = Log::open(logs, &format!("served.{name}"));
    let mut app = App { log, mood: Mood::Moody, connected: BTreeSet::new(), routes };
    app.log.tell([Served::Started]);
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            Some(request) = requests.next() => app.answer(&client, request).await,
            command = commands.next_line() => match command.unwrap() {
                Some(command) => app.obey(&command),
                None => break,
            }
        }
    }
    let everybody: Vec<String> = app.connected.iter().cloned().collect();
    app.obey(&format!("leave {}", everybody.join(" ")));
    drop(app);
    writing.await.unwrap();
}

impl App {
    fn obey(&mut self, command: &str) {
        let mut words = command.split_whitespace().map(ToOwned::to_owned);
        match words.next().as_deref() {
            Some("be") => self.mood = Mood::named(&words.next().unwrap()),
            Some("connect") => self.admit(words.collect()),
            _ => self.see_off(words.collect()),
        }
    }

    fn admit(&mut self, users: Vec<String>) {
        self.connected.extend(users.iter().cloned());
        self.routes.send((users.clone(), true)).unwrap();
        self.log.tell([Served::Connected { users }]);
    }

    fn see_off(&mut self, users: Vec<String>) {
        for user in &users {
            self.connected.remove(user);
        }
        self.routes.send((users.clone(), false)).unwrap();
        self.log.tell([Served::Left { users }]);
    }

    async fn answer(&self, client: &Client, request: Message) {
        let Some(inbox) = request.reply else { return };
        let asked: Value = serde_json::from_slice(&request.payload).unwrap();
        let answer = match self.mood {
            _ if !request.subject.ends_with(".deliver") => self.name(&asked),
            Mood::Hung => return,
            Mood::Garbled => json!("what?"),
            Mood::Moody | Mood::Well | Mood::Slow | Mood::Busy | Mood::Estranged => self.take(&asked),
        };
        if self.mood == Mood::Slow && request.subject.ends_with(".deliver") {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SLOW).await;
                let _ = client.publish(inbox, answer.to_string().into()).await;
            });
            return;
        }
        // Whoever asked may be gone.
        let _ = client.publish(inbox, answer.to_string().into()).await;
    }

    /// A heartbeat: who of these is connected.
    fn name(&self, asked: &Value) -> Value {
        let users = asked["users"].as_array().unwrap().iter();
        let connected: Vec<_> = users.filter(|user| self.connected.contains(user.as_str().unwrap())).collect();
        json!({ "connected": connected })
    }

    /// A delivery: takes what is for connected users, unless its mood is against it.
    fn take(&self, asked: &Value) -> Value {
        let is_busy = self.mood == Mood::Busy || self.mood == Mood::Moody && fastrand::u32(0..BUSY_ONE_IN) == 0;
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for one in asked["reminders"].as_array().unwrap() {
            let reminder: Reminder = serde_json::from_value(one.clone()).unwrap();
            let is_here = self.mood != Mood::Estranged && self.connected.contains(&reminder.user);
            if is_here && !is_busy {
                taken.push(Served::Accepted(reminder));
            } else {
                let reason = if is_here { "busy" } else { "not_connected" };
                let Reminder { source, id, user } = reminder;
                refused.push(json!({ "id": id, "source": source, "user": user, "reason": reason }));
            }
        }
        self.log.tell(taken);
        json!({ "refused": refused })
    }
}

/// Writes routes in the order in which users come and go, each until it is stored.
fn write_routes(client: Client, name: &str) -> (mpsc::UnboundedSender<(Vec<String>, bool)>, JoinHandle<()>) {
    let (routes, mut waiting) = mpsc::unbounded_channel::<(Vec<String>, bool)>();
    let jetstream = client::jetstream(client);
    let name = name.to_owned();
    let writing = tokio::spawn(async move {
        while let Some((users, connect)) = waiting.recv().await {
            let write = |user: String| write_route(&jetstream, format!("$KV.bellhop_routes.{user}.{name}"), connect);
            stream::iter(users).for_each_concurrent(ROUTES_IN_FLIGHT, write).await;
        }
    });
    (routes, writing)
}

async fn write_route(jetstream: &Context, key: String, connects: bool) {
    let mut headers = HeaderMap::new();
    if !connects {
        headers.insert("KV-Operation", "DEL");
    }
    while !client::store(jetstream, &key, headers.clone(), Vec::new()).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
