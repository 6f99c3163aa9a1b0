//! An app server: a process of its own, so that it can be killed and stopped as a real one. It
//! knows the contract only.
//!
//! It reads commands from its standard input, one per line: `connect USER…`, `leave
//! USER…`, and `be MOOD`. At the end of the input everybody leaves, and it ends in good order.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;
use bellhop_testkit::app_server::{Reply, ScriptedApp};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client;
use crate::logs::{Log, Reminder, Served};

/// Of so many deliveries one is answered with `busy` by an app server that is moody.
const BUSY_ONE_IN: u32 = 50;
/// Time that a slow one takes for an answer: within `delivery.timeout`, with a margin for a busy
/// machine.
const SLOW: Duration = Duration::from_millis(1_500);
/// Routes that are being written at a time.
const ROUTES_IN_FLIGHT: usize = 256;

/// The reaction to deliveries. Heartbeats are answered truly in any mood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mood {
    /// Accepts reminders for connected users, except for a busy moment now and then.
    Moody,
    /// Accepts reminders for connected users.
    Well,
    /// Everything is refused as `busy`.
    Busy,
    /// Accepts reminders for connected users, and answers late, but in time.
    Slow,
    /// There is no answer.
    Hung,
    /// The answer is nothing that the contract knows.
    Garbled,
    /// Everything is refused as `not_connected`.
    Estranged,
    /// There is no answer to a request with a reminder for [`UNREADABLE`]. All others are taken.
    Unreadable,
}

/// The user whose reminders an app server in the mood `Unreadable` cannot read.
pub(crate) const UNREADABLE: &str = "user-0";

/// The state for answers to deliveries.
struct State {
    log: Log,
    mood: Mood,
    connected: BTreeSet<String>,
}

struct App {
    scripted: Arc<ScriptedApp>,
    state: Arc<Mutex<State>>,
    /// The users whose routes are to be written, and whether they are connected.
    routes: mpsc::UnboundedSender<(Vec<String>, bool)>,
}

impl Mood {
    /// As commands name it.
    pub(crate) fn name(self) -> String {
        serde_json::to_value(self)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn named(name: &str) -> Self {
        serde_json::from_value(name.into()).unwrap()
    }
}

/// Serves until the end of the input.
pub(crate) async fn serve(name: &str, url: &str, logs: &Path) {
    let client = client::connect(url, name).await;
    let state = State {
        log: Log::open(logs, &format!("served.{name}")),
        mood: Mood::Moody,
        connected: BTreeSet::new(),
    };
    let state = Arc::new(Mutex::new(state));
    let scripted = Arc::new(ScriptedApp::new(name, client.clone()));
    scripted.on_delivery({
        let state = state.clone();
        move |batch| state.lock().unwrap().reply(batch)
    });
    scripted.start(client.clone()).await;
    let (routes, writing) = write_routes(client, scripted.clone());
    state.lock().unwrap().log.tell([Served::Started]);
    let app = App {
        scripted,
        state,
        routes,
    };
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await.unwrap() {
        app.obey(&command);
    }
    let everybody: Vec<String> = app
        .state
        .lock()
        .unwrap()
        .connected
        .iter()
        .cloned()
        .collect();
    app.see_off(everybody);
    let App { routes, .. } = app;
    drop(routes);
    writing.await.unwrap();
}

impl App {
    fn obey(&self, command: &str) {
        let mut words = command.split_whitespace().map(ToOwned::to_owned);
        match words.next().as_deref() {
            Some("be") => self.state.lock().unwrap().mood = Mood::named(&words.next().unwrap()),
            Some("connect") => self.admit(words.collect()),
            _ => self.see_off(words.collect()),
        }
    }

    fn admit(&self, users: Vec<String>) {
        users.iter().for_each(|user| self.scripted.admit(user));
        let mut state = self.state.lock().unwrap();
        state.connected.extend(users.iter().cloned());
        self.routes.send((users.clone(), true)).unwrap();
        state.log.tell([Served::Connected { users }]);
    }

    fn see_off(&self, users: Vec<String>) {
        let mut state = self.state.lock().unwrap();
        for user in &users {
            self.scripted.expel(user);
            state.connected.remove(user);
        }
        self.routes.send((users.clone(), false)).unwrap();
        state.log.tell([Served::Left { users }]);
    }
}

impl State {
    /// Answers a delivery by its mood, after it has logged the accepted reminders.
    fn reply(&self, batch: &[Value]) -> Reply {
        match self.mood {
            Mood::Hung => return Reply::silence(),
            Mood::Garbled => return Reply::say("\"what?\""),
            Mood::Unreadable if batch.iter().any(|one| one["user"] == UNREADABLE) => {
                return Reply::silence();
            }
            Mood::Moody
            | Mood::Well
            | Mood::Slow
            | Mood::Busy
            | Mood::Estranged
            | Mood::Unreadable => {}
        }
        let is_busy = self.mood == Mood::Busy
            || self.mood == Mood::Moody && fastrand::u32(0..BUSY_ONE_IN) == 0;
        let is_here = |one: &Value| {
            self.mood != Mood::Estranged && self.connected.contains(one["user"].as_str().unwrap())
        };
        let reason = |one: &Value| match (is_here(one), is_busy) {
            (false, _) => Some("not_connected"),
            (true, true) => Some("busy"),
            (true, false) => None,
        };
        let taken = batch.iter().filter(|one| reason(one).is_none());
        let accepted = |one: &Value| {
            Served::Accepted(serde_json::from_value::<Reminder>(one.clone()).unwrap())
        };
        self.log.tell(taken.map(accepted));
        let reply = Reply::judge(batch, reason);
        if self.mood == Mood::Slow {
            reply.after(SLOW)
        } else {
            reply
        }
    }
}

/// Writes routes in the order in which users come and go, each until it is stored.
fn write_routes(
    client: Client,
    app: Arc<ScriptedApp>,
) -> (mpsc::UnboundedSender<(Vec<String>, bool)>, JoinHandle<()>) {
    let (routes, mut waiting) = mpsc::unbounded_channel::<(Vec<String>, bool)>();
    let jetstream = client::jetstream(client);
    let writing = tokio::spawn(async move {
        while let Some((users, is_put)) = waiting.recv().await {
            let write = |user: String| write_route(&jetstream, &app, user, is_put);
            stream::iter(users)
                .for_each_concurrent(ROUTES_IN_FLIGHT, write)
                .await;
        }
    });
    (routes, writing)
}

async fn write_route(jetstream: &Context, app: &ScriptedApp, user: String, is_put: bool) {
    let (subject, headers, body) = app.route(&user, is_put);
    while !client::store(jetstream, &subject, headers.clone(), body.to_vec()).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
