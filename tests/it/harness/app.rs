//! Scripted app servers: core NATS and the contract's words, nothing of Bellhop's own client.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::client::Request as NatsRequest;
use async_nats::{Client, HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{World, escape};

/// The contract's bounds of one request.
const MAX_DELIVERY_BYTES: usize = 256 * 1024;
const MAX_HEARTBEAT_USERS: usize = 1_000;

/// An app server took a reminder.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) app: String,
    pub(crate) at: Instant,
    pub(crate) reminder: Value,
}

impl Take {
    fn text(&self, field: &str) -> &str {
        self.reminder[field].as_str().unwrap_or_default()
    }

    pub(crate) fn id(&self) -> &str {
        self.text("id")
    }

    pub(crate) fn source(&self) -> &str {
        self.text("source")
    }

    pub(crate) fn user(&self) -> &str {
        self.text("user")
    }

    /// What the contract calls the key to drop repeats by.
    pub(crate) fn key(&self) -> (String, String, String) {
        (self.source().to_owned(), self.id().to_owned(), self.user().to_owned())
    }
}

/// What the app servers of a world saw.
#[derive(Clone, Default)]
pub(super) struct Seen {
    takes: Arc<Mutex<Vec<Arc<Take>>>>,
    /// What broke the contract in passing.
    violations: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    pub(super) fn takes(&self) -> Vec<Arc<Take>> {
        self.takes.lock().unwrap().clone()
    }

    pub(super) fn first_violation(&self) -> Option<String> {
        self.violations.lock().unwrap().first().cloned()
    }

    fn check(&self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.violations.lock().unwrap().push(violation());
        }
    }
}

/// What an app server was asked.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// Who of these is connected.
    Heartbeat(Vec<String>),
    /// To take these reminders.
    Delivery(Vec<Value>),
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) asked: Asked,
    pub(crate) body: Bytes,
    headers: Option<HeaderMap>,
}

impl Request {
    /// A header that it had.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name).map(|value| value.as_str())
    }
}

/// What an app server does with a request.
pub(crate) struct Reply {
    body: Option<Bytes>,
    headers: HeaderMap,
    /// Which of the reminders it takes, whatever it answers.
    takes: Box<dyn Fn(&Value) -> bool + Send>,
    after: Duration,
    dies: bool,
}

impl Reply {
    /// Answers this, whatever it means, and takes nothing.
    pub(crate) fn say(body: impl AsRef<[u8]>) -> Self {
        let body = Some(Bytes::copy_from_slice(body.as_ref()));
        Self { body, headers: HeaderMap::new(), takes: Box::new(|_| false), after: Duration::ZERO, dies: false }
    }

    /// Answers nothing, and takes nothing.
    pub(crate) fn silence() -> Self {
        Self { body: None, ..Self::say("") }
    }

    /// Accepts all.
    pub(crate) fn accept() -> Self {
        Self { takes: Box::new(|_| true), ..Self::say("{}") }
    }

    /// Refuses some, and takes the others.
    pub(crate) fn refuse(batch: &[Value], reason: &str, is_refused: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        let refuse =
            |one: &Value| json!({ "id": one["id"], "source": one["source"], "user": one["user"], "reason": reason });
        let refused: Vec<_> = batch.iter().filter(|one| is_refused(one)).map(refuse).collect();
        let body = if refused.is_empty() { json!({}) } else { json!({ "refused": refused }) };
        Self { takes: Box::new(move |one| !is_refused(one)), ..Self::say(body.to_string()) }
    }

    /// Takes these, whatever it answers.
    pub(crate) fn taking(self, is_taken: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        Self { takes: Box::new(is_taken), ..self }
    }

    /// Answers this much later; what comes meanwhile is seen to at once.
    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// Ends with the request unanswered, its connection and all.
    pub(crate) fn dying(self) -> Self {
        Self { dies: true, ..self }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }
}

type OnDelivery = Box<dyn FnMut(&[Value]) -> Reply + Send>;
type OnHeartbeat = Box<dyn FnMut(&[String]) -> Reply + Send>;

/// What an app server knows and how it behaves.
#[derive(Default)]
struct State {
    connected: BTreeSet<String>,
    /// Users that the router was told are connected here.
    confirmed: BTreeSet<String>,
    requests: Vec<Arc<Request>>,
    on_delivery: Option<OnDelivery>,
    on_heartbeat: Option<OnHeartbeat>,
}

#[derive(Clone)]
struct Shared {
    name: String,
    state: Arc<Mutex<State>>,
    seen: Seen,
}

/// An app-server instance that knows its users, behaves as scripted, and remembers every request in order.
pub(crate) struct App {
    shared: Shared,
    subject: String,
    route: Bytes,
    url: String,
    /// The test's connection, for routes: what an app server says there outlives its own.
    client: Client,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl App {
    pub(super) fn new(world: &World, name: &str, subject: Option<&str>) -> Self {
        let route = subject.map(|subject| json!({ "subject": subject, "since": "2026-11-22T08:00:00Z" }).to_string());
        let state = Arc::default();
        Self {
            shared: Shared { name: name.to_owned(), state, seen: world.seen_by_apps.clone() },
            subject: subject.map_or(format!("bellhop.app.{}", escape(name)), ToOwned::to_owned),
            route: route.unwrap_or_default().into(),
            url: world.url.clone(),
            client: world.client.clone(),
            running: Mutex::default(),
        }
    }

    /// Connects and subscribes. It behaves as scripted from here on.
    pub(crate) async fn start(&self, world: &World) {
        let client = async_nats::connect(&self.url).await.unwrap();
        let mut requests = client.subscribe(format!("{}.*", self.subject)).await.unwrap();
        let shared = self.shared.clone();
        let serving = tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                if shared.serve(&client, request).await.is_break() {
                    return; // With the connection.
                }
            }
        });
        *self.running.lock().unwrap() = Some(serving);
        world.eventually("an app server is there", async || self.ping().await).await;
    }

    /// Goes away without a word: its connection closes, its routes stay.
    pub(crate) async fn stop(&self, world: &World) {
        if let Some(serving) = self.running.lock().unwrap().take() {
            serving.abort();
        }
        let gone = async || if self.ping().await.is_err() { Ok(()) } else { Err("it is there".to_owned()) };
        world.eventually("an app server is gone", gone).await;
    }

    async fn ping(&self) -> Result<(), String> {
        let request = NatsRequest::new().timeout(Some(Duration::from_secs(1)));
        match self.client.send_request(format!("{}.ping", self.subject), request).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Err("nobody subscribes".to_owned()),
            _ => Ok(()),
        }
    }

    /// How deliveries are answered from here on. Without a script those for connected users are accepted, and the
    /// others refused.
    pub(crate) fn on_delivery(&self, script: impl FnMut(&[Value]) -> Reply + Send + 'static) {
        self.shared.state.lock().unwrap().on_delivery = Some(Box::new(script));
    }

    /// How heartbeats are answered from here on. Without a script the connected users are named.
    pub(crate) fn on_heartbeat(&self, script: impl FnMut(&[String]) -> Reply + Send + 'static) {
        self.shared.state.lock().unwrap().on_heartbeat = Some(Box::new(script));
    }

    /// Behaves well from here on.
    pub(crate) fn recover(&self) {
        let mut state = self.shared.state.lock().unwrap();
        (state.on_delivery, state.on_heartbeat) = (None, None);
    }

    /// Users connect: they are known here, and have routes.
    pub(crate) async fn connect(&self, users: &[&str]) {
        for user in users {
            self.admit(user);
            self.put_route(user).await;
        }
    }

    /// The user is connected here from now on, whatever the routes say.
    pub(crate) fn admit(&self, user: &str) {
        self.shared.state.lock().unwrap().connected.insert((*user).to_owned());
    }

    /// The user is not connected here from now on, whatever the routes say.
    pub(crate) fn expel(&self, user: &str) {
        self.shared.state.lock().unwrap().connected.remove(user);
    }

    /// Puts the user's route.
    pub(crate) async fn put_route(&self, user: &str) {
        let headers = HeaderMap::new();
        self.write_route(user, headers, self.route.clone()).await;
    }

    /// Deletes the user's route, as when its last terminal leaves.
    pub(crate) async fn delete_route(&self, user: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        self.write_route(user, headers, Bytes::new()).await;
    }

    async fn write_route(&self, user: &str, headers: HeaderMap, value: Bytes) {
        let key = format!("$KV.bellhop_routes.{}.{}", escape(user), escape(&self.shared.name));
        let jetstream = async_nats::jetstream::new(self.client.clone());
        jetstream.publish_with_headers(key, headers, value).await.unwrap().await.unwrap();
    }

    /// Every request so far, in order.
    pub(crate) fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// `heartbeat` and `deliver`, in order.
    pub(crate) fn verbs(&self) -> Vec<&'static str> {
        let verb = |request: &Arc<Request>| match request.asked {
            Asked::Heartbeat(_) => "heartbeat",
            Asked::Delivery(_) => "deliver",
        };
        self.requests().iter().map(verb).collect()
    }

    /// How often it was asked about a user.
    pub(crate) fn heartbeats(&self, user: &str) -> usize {
        let names = |request: &&Arc<Request>| match &request.asked {
            Asked::Heartbeat(users) => users.iter().any(|one| one == user),
            Asked::Delivery(_) => false,
        };
        self.requests().iter().filter(names).count()
    }

    /// How often a reminder was brought to it.
    pub(crate) fn attempts(&self, id: &str) -> usize {
        let has = |request: &&Arc<Request>| match &request.asked {
            Asked::Heartbeat(_) => false,
            Asked::Delivery(batch) => batch.iter().any(|one| one["id"] == id),
        };
        self.requests().iter().filter(has).count()
    }
}

impl Shared {
    /// Sees to one request. Breaks when the app server dies of it.
    async fn serve(&self, client: &Client, request: Message) -> std::ops::ControlFlow<()> {
        let Some(inbox) = request.reply else { return std::ops::ControlFlow::Continue(()) };
        let (body, headers) = (request.payload, request.headers);
        let reply = match request.subject.rsplit('.').next() {
            Some("deliver") => self.delivery(&body, headers),
            Some("heartbeat") => self.heartbeat(&body, headers),
            _ => Reply::say("pong"),
        };
        if reply.dies {
            return std::ops::ControlFlow::Break(());
        }
        if let Some(body) = reply.body {
            let (client, headers, after) = (client.clone(), reply.headers, reply.after);
            let answer = async move { client.publish_with_headers(inbox, headers, body).await };
            if after.is_zero() {
                let _ = answer.await; // A test that ends is not interested.
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    answer.await
                });
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn delivery(&self, body: &Bytes, headers: Option<HeaderMap>) -> Reply {
        let at = Instant::now();
        let batch: Value = serde_json::from_slice(body).unwrap_or_default();
        let batch = batch["reminders"].as_array().cloned().unwrap_or_default();
        self.seen.check(!batch.is_empty(), || format!("{} got an odd delivery: {body:?}", self.name));
        self.seen.check(body.len() <= MAX_DELIVERY_BYTES, || format!("a delivery of {} bytes", body.len()));
        let mut state = self.state.lock().unwrap();
        for one in &batch {
            let is_confirmed = one["user"].as_str().is_some_and(|user| state.confirmed.contains(user));
            self.seen.check(is_confirmed, || format!("{} was never asked for the user of {one}", self.name));
        }
        let asked = Asked::Delivery(batch.clone());
        state.requests.push(Arc::new(Request { at, asked, body: body.clone(), headers }));
        let reply = match &mut state.on_delivery {
            Some(script) => script(&batch),
            None => {
                let connected = state.connected.clone();
                let is_away = move |one: &Value| !one["user"].as_str().is_some_and(|user| connected.contains(user));
                Reply::refuse(&batch, "not_connected", is_away)
            }
        };
        drop(state);
        let taken = batch.into_iter().filter(|one| (reply.takes)(one));
        let take = |reminder| Arc::new(Take { app: self.name.clone(), at, reminder });
        self.seen.takes.lock().unwrap().extend(taken.map(take));
        reply
    }

    fn heartbeat(&self, body: &Bytes, headers: Option<HeaderMap>) -> Reply {
        let at = Instant::now();
        let users: Value = serde_json::from_slice(body).unwrap_or_default();
        let users: Vec<String> = serde_json::from_value(users["users"].clone()).unwrap_or_default();
        self.seen.check(users.len() <= MAX_HEARTBEAT_USERS, || format!("a heartbeat for {} users", users.len()));
        let mut state = self.state.lock().unwrap();
        let asked = Asked::Heartbeat(users.clone());
        state.requests.push(Arc::new(Request { at, asked, body: body.clone(), headers }));
        let reply = match &mut state.on_heartbeat {
            Some(script) => script(&users),
            None => {
                let connected: Vec<_> = users.iter().filter(|user| state.connected.contains(*user)).collect();
                Reply::say(json!({ "connected": connected, "unknown": "field" }).to_string())
            }
        };
        let answer: Value =
            reply.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        let connected: Vec<String> = serde_json::from_value(answer["connected"].clone()).unwrap_or_default();
        state.confirmed.extend(connected);
        reply
    }
}
