//! An app server: a process of its own, so that it can be killed and stopped as a real one. It knows the contract only.
//!
//! Users come and go by its standard input, a line for each command: `connect USER…` and `leave USER…`. At the end of
//! the input everybody leaves, and it ends in good order.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client;
use crate::logs::{Log, Reminder, Served};

/// Of so many deliveries one is answered with `busy`.
const BUSY_ONE_IN: u32 = 50;

struct App {
    log: Log,
    connected: BTreeSet<String>,
    routes: mpsc::UnboundedSender<(String, bool)>,
}

/// Serves until the end of the input.
pub(crate) async fn serve(name: &str, url: &str, logs: &Path) {
    let client = client::connect(url, name).await;
    let mut requests = client.subscribe(format!("bellhop.app.{name}.*")).await.unwrap();
    client.flush().await.unwrap();
    let (routes, writing) = write_routes(client.clone(), name);
    let mut app = App { log: Log::open(logs, &format!("served.{name}")), connected: BTreeSet::new(), routes };
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
        let connects = words.next().as_deref() == Some("connect");
        let users: Vec<String> = words.collect();
        for user in &users {
            if connects {
                self.connected.insert(user.clone())
            } else {
                self.connected.remove(user)
            };
            self.routes.send((user.clone(), connects)).unwrap();
        }
        self.log.tell([if connects { Served::Connected { users } } else { Served::Left { users } }]);
    }

    async fn answer(&self, client: &Client, request: Message) {
        let Some(inbox) = request.reply else { return };
        let asked: Value = serde_json::from_slice(&request.payload).unwrap();
        let answer = if request.subject.ends_with(".deliver") { self.take(&asked) } else { self.name(&asked) };
        // Whoever asked may be gone.
        let _ = client.publish(inbox, answer.to_string().into()).await;
    }

    /// A heartbeat: who of these is connected.
    fn name(&self, asked: &Value) -> Value {
        let users = asked["users"].as_array().unwrap().iter();
        let connected: Vec<_> = users.filter(|user| self.connected.contains(user.as_str().unwrap())).collect();
        json!({ "connected": connected })
    }

    /// A delivery: takes what is for connected users, unless it is busy.
    fn take(&self, asked: &Value) -> Value {
        let is_busy = fastrand::u32(0..BUSY_ONE_IN) == 0;
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for one in asked["reminders"].as_array().unwrap() {
            let reminder: Reminder = serde_json::from_value(one.clone()).unwrap();
            let is_here = self.connected.contains(&reminder.user);
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
fn write_routes(client: Client, name: &str) -> (mpsc::UnboundedSender<(String, bool)>, JoinHandle<()>) {
    let (routes, mut waiting) = mpsc::unbounded_channel::<(String, bool)>();
    let jetstream = client::jetstream(client);
    let name = name.to_owned();
    let writing = tokio::spawn(async move {
        while let Some((user, connects)) = waiting.recv().await {
            let key = format!("$KV.bellhop_routes.{user}.{name}");
            let mut headers = HeaderMap::new();
            if !connects {
                headers.insert("KV-Operation", "DEL");
            }
            while !client::store(&jetstream, &key, headers.clone(), Vec::new()).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    (routes, writing)
}
