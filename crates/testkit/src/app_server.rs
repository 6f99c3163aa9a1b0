//! Scripted app servers: core NATS and the words of the contract. They use nothing of Bellhop's own
//! code, since they judge it.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::client::Request as NatsRequest;
use async_nats::{Client, HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::escape;

/// The contract's bounds of one request.
const MAX_DELIVERY_BYTES: usize = 256 * 1024;
const MAX_HEARTBEAT_USERS: usize = 1_000;
/// Maximum time for an app server to start or to end on a loaded machine, and the interval between
/// two checks.
const DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// A reminder that an app server accepted.
#[derive(Debug)]
pub struct Take {
    /// The app server's name.
    pub app: String,
    /// Time of arrival.
    pub at: Instant,
    /// The reminder as it came.
    pub reminder: Value,
}

impl Take {
    fn text(&self, field: &str) -> &str {
        self.reminder[field].as_str().unwrap_or_default()
    }

    /// The reminder's id.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// The reminder's source.
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// The reminder's user.
    pub fn user(&self) -> &str {
        self.text("user")
    }

    /// The source, id and user, by which the contract knows a redelivery.
    pub fn key(&self) -> (String, String, String) {
        (
            self.source().to_owned(),
            self.id().to_owned(),
            self.user().to_owned(),
        )
    }
}

/// A record of what app servers saw, which several can share.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    takes: Arc<Mutex<Vec<Arc<Take>>>>,
    violations: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    /// Returns every accepted reminder so far, in order.
    pub fn takes(&self) -> Vec<Arc<Take>> {
        self.takes.lock().unwrap().clone()
    }

    /// Returns the first request that broke the contract, if there is one.
    pub fn first_violation(&self) -> Option<String> {
        self.violations.lock().unwrap().first().cloned()
    }
}

/// The request to an app server.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A heartbeat, with its users.
    Heartbeat(Vec<String>),
    /// To take these reminders.
    Delivery(Vec<Value>),
}

/// A request as it came.
#[derive(Debug)]
pub struct Request {
    /// Time of arrival.
    pub at: Instant,
    /// The request.
    pub asked: Asked,
    /// Its body.
    pub body: Bytes,
    headers: Option<HeaderMap>,
}

impl Request {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.as_ref()?.get(name).map(|value| value.as_str())
    }
}

/// An app server's reaction to a request.
pub struct Reply {
    body: Option<Bytes>,
    headers: HeaderMap,
    /// Selects the reminders that it takes, whatever it answers.
    takes: Box<dyn Fn(&Value) -> bool + Send>,
    after: Duration,
    dies: bool,
}

impl Reply {
    /// Returns a reply with this body, whatever it means, that takes no reminder.
    pub fn say(body: impl AsRef<[u8]>) -> Self {
        let body = Some(Bytes::copy_from_slice(body.as_ref()));
        Self {
            body,
            headers: HeaderMap::new(),
            takes: Box::new(|_| false),
            after: Duration::ZERO,
            dies: false,
        }
    }

    /// Returns no reply, and takes no reminder.
    pub fn silence() -> Self {
        Self {
            body: None,
            ..Self::say("")
        }
    }

    /// Accepts all.
    pub fn accept() -> Self {
        Self {
            takes: Box::new(|_| true),
            ..Self::say("{}")
        }
    }

    /// Refuses some for this reason, and takes the others.
    pub fn refuse(
        batch: &[Value],
        reason: &'static str,
        is_refused: impl Fn(&Value) -> bool + Send + 'static,
    ) -> Self {
        Self::judge(batch, |one| is_refused(one).then_some(reason))
            .taking(move |one| !is_refused(one))
    }

    /// Refuses each reminder for which there is a reason, and takes nothing by itself.
    pub fn judge(batch: &[Value], reason: impl Fn(&Value) -> Option<&'static str>) -> Self {
        let refuse = |one: &Value| {
            let reason = reason(one)?;
            Some(
                json!({ "id": one["id"], "source": one["source"], "user": one["user"], "reason": reason }),
            )
        };
        let refused: Vec<_> = batch.iter().filter_map(refuse).collect();
        Self::say(
            if refused.is_empty() {
                json!({})
            } else {
                json!({ "refused": refused })
            }
            .to_string(),
        )
    }

    /// Takes these, whatever it answers.
    pub fn taking(self, is_taken: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        Self {
            takes: Box::new(is_taken),
            ..self
        }
    }

    /// Delays the reply; requests that arrive meanwhile are handled at once.
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// Ends with the request unanswered, its connection and all.
    pub fn dying(self) -> Self {
        Self { dies: true, ..self }
    }

    /// Adds this header to the reply.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }
}

type OnDelivery = Box<dyn FnMut(&[Value]) -> Reply + Send>;
type OnHeartbeat = Box<dyn FnMut(&[String]) -> Reply + Send>;

/// An app server's knowledge and behaviour.
#[derive(Default)]
struct State {
    connected: BTreeSet<String>,
    /// Users that this server confirmed as connected.
    confirmed: BTreeSet<String>,
    requests: Vec<Arc<Request>>,
    on_delivery: Option<OnDelivery>,
    on_heartbeat: Option<OnHeartbeat>,
}

#[derive(Clone)]
struct Shared {
    name: String,
    state: Arc<Mutex<State>>,
    /// The memory for checks; without it nothing is remembered or checked.
    seen: Option<Seen>,
}

/// An app-server instance that knows its users and answers as scripted.
pub struct ScriptedApp {
    shared: Shared,
    subject: String,
    route: Bytes,
    /// For routes.
    client: Client,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl ScriptedApp {
    /// Returns an instance that is not started. It writes routes over this connection, so they
    /// outlive the instance's own.
    pub fn new(name: &str, client: Client) -> Self {
        Self {
            shared: Shared {
                name: name.to_owned(),
                state: Arc::default(),
                seen: None,
            },
            subject: format!("bellhop.app.{}", escape(name)),
            route: Bytes::new(),
            client,
            running: Mutex::default(),
        }
    }

    /// Has a subject of its own.
    pub fn at(self, subject: &str) -> Self {
        let route = json!({ "subject": subject, "since": "2026-11-22T08:00:00Z" })
            .to_string()
            .into();
        Self {
            subject: subject.to_owned(),
            route,
            ..self
        }
    }

    /// Remembers every request, and records what it takes and which requests break the contract.
    pub fn recording(mut self, seen: Seen) -> Self {
        self.shared.seen = Some(seen);
        self
    }

    /// Subscribes over this connection, and waits until requests arrive. It answers as scripted
    /// from here on.
    pub async fn start(&self, client: Client) {
        let mut requests = client
            .subscribe(format!("{}.*", self.subject))
            .await
            .unwrap();
        let shared = self.shared.clone();
        let serving = tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                if shared.serve(&client, request).await.is_break() {
                    return; // With the connection.
                }
            }
        });
        *self.running.lock().unwrap() = Some(serving);
        self.until(true).await;
    }

    /// Goes away without a word: its subscription ends, and the connection unless others hold it.
    /// Its routes stay.
    pub async fn stop(&self) {
        if let Some(serving) = self.running.lock().unwrap().take() {
            serving.abort();
        }
        self.until(false).await;
    }

    async fn until(&self, is_there: bool) {
        let until = Instant::now() + DEADLINE;
        while self.answers().await != is_there {
            assert!(
                Instant::now() < until,
                "{} subscribes to {}: not {is_there}",
                self.shared.name,
                self.subject
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns true if the server has a subscriber.
    async fn answers(&self) -> bool {
        let request = NatsRequest::new().timeout(Some(Duration::from_secs(1)));
        match self
            .client
            .send_request(format!("{}.ping", self.subject), request)
            .await
        {
            Err(error) => error.kind() != RequestErrorKind::NoResponders,
            Ok(_) => true,
        }
    }

    /// Sets the reaction to deliveries from now on. Without a script those for connected users are
    /// accepted, and the others refused.
    pub fn on_delivery(&self, script: impl FnMut(&[Value]) -> Reply + Send + 'static) {
        self.shared.state.lock().unwrap().on_delivery = Some(Box::new(script));
    }

    /// Sets the reaction to heartbeats from now on. Without a script the connected users are named.
    pub fn on_heartbeat(&self, script: impl FnMut(&[String]) -> Reply + Send + 'static) {
        self.shared.state.lock().unwrap().on_heartbeat = Some(Box::new(script));
    }

    /// Removes the scripts.
    pub fn recover(&self) {
        let mut state = self.shared.state.lock().unwrap();
        (state.on_delivery, state.on_heartbeat) = (None, None);
    }

    /// Users connect: they are known here, and have routes.
    pub async fn connect(&self, users: &[&str]) {
        for user in users {
            self.admit(user);
            self.put_route(user).await;
        }
    }

    /// The user is connected here from now on, whatever the routes say.
    pub fn admit(&self, user: &str) {
        self.shared
            .state
            .lock()
            .unwrap()
            .connected
            .insert(user.to_owned());
    }

    /// The user is not connected here from now on, whatever the routes say.
    pub fn expel(&self, user: &str) {
        self.shared.state.lock().unwrap().connected.remove(user);
    }

    /// Puts the user's route.
    pub async fn put_route(&self, user: &str) {
        self.write_route(user, true).await;
    }

    /// Deletes the user's route, as when its last terminal leaves.
    pub async fn delete_route(&self, user: &str) {
        self.write_route(user, false).await;
    }

    /// Returns the message that puts the user's route, or deletes it: its subject, headers and
    /// body.
    pub fn route(&self, user: &str, is_put: bool) -> (String, HeaderMap, Bytes) {
        let subject = format!(
            "$KV.bellhop_routes.{}.{}",
            escape(user),
            escape(&self.shared.name)
        );
        let mut headers = HeaderMap::new();
        if is_put {
            return (subject, headers, self.route.clone());
        }
        headers.insert("KV-Operation", "DEL");
        (subject, headers, Bytes::new())
    }

    async fn write_route(&self, user: &str, is_put: bool) {
        let (subject, headers, body) = self.route(user, is_put);
        let jetstream = async_nats::jetstream::new(self.client.clone());
        jetstream
            .publish_with_headers(subject, headers, body)
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// Returns every request so far, in order.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// Returns `heartbeat` or `deliver` for each request so far, in order.
    pub fn verbs(&self) -> Vec<&'static str> {
        let verb = |request: &Arc<Request>| match request.asked {
            Asked::Heartbeat(_) => "heartbeat",
            Asked::Delivery(_) => "deliver",
        };
        self.requests().iter().map(verb).collect()
    }

    /// Returns how often it was asked about a user.
    pub fn heartbeats(&self, user: &str) -> usize {
        let names = |request: &&Arc<Request>| match &request.asked {
            Asked::Heartbeat(users) => users.iter().any(|one| one == user),
            Asked::Delivery(_) => false,
        };
        self.requests().iter().filter(names).count()
    }

    /// Returns how often a reminder was brought to it.
    pub fn attempts(&self, id: &str) -> usize {
        let has = |request: &&Arc<Request>| match &request.asked {
            Asked::Heartbeat(_) => false,
            Asked::Delivery(batch) => batch.iter().any(|one| one["id"] == id),
        };
        self.requests().iter().filter(has).count()
    }
}

impl Shared {
    /// Sees to one request. Breaks when the app server dies of it.
    async fn serve(&self, client: &Client, request: Message) -> ControlFlow<()> {
        let Some(inbox) = request.reply else {
            return ControlFlow::Continue(());
        };
        let (body, headers) = (request.payload, request.headers);
        let reply = match request.subject.rsplit('.').next() {
            Some("deliver") => self.delivery(&body, headers),
            Some("heartbeat") => self.heartbeat(&body, headers),
            _ => Reply::say("pong"),
        };
        if reply.dies {
            return ControlFlow::Break(());
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
        ControlFlow::Continue(())
    }

    fn delivery(&self, body: &Bytes, headers: Option<HeaderMap>) -> Reply {
        let at = Instant::now();
        let batch: Value = serde_json::from_slice(body).unwrap_or_default();
        let batch = batch["reminders"].as_array().cloned().unwrap_or_default();
        self.check(!batch.is_empty(), || {
            format!("{} got an odd delivery: {body:?}", self.name)
        });
        self.check(body.len() <= MAX_DELIVERY_BYTES, || {
            format!("a delivery of {} bytes", body.len())
        });
        let mut state = self.state.lock().unwrap();
        for one in &batch {
            let is_confirmed = one["user"]
                .as_str()
                .is_some_and(|user| state.confirmed.contains(user));
            self.check(is_confirmed, || {
                format!("{} was never asked for the user of {one}", self.name)
            });
        }
        self.remember(
            &mut state,
            Request {
                at,
                asked: Asked::Delivery(batch.clone()),
                body: body.clone(),
                headers,
            },
        );
        let reply = match &mut state.on_delivery {
            Some(script) => script(&batch),
            None => {
                let connected = state.connected.clone();
                let is_away = move |one: &Value| {
                    !one["user"]
                        .as_str()
                        .is_some_and(|user| connected.contains(user))
                };
                Reply::refuse(&batch, "not_connected", is_away)
            }
        };
        drop(state);
        if let Some(seen) = &self.seen {
            let taken = batch.into_iter().filter(|one| (reply.takes)(one));
            let take = |reminder| {
                Arc::new(Take {
                    app: self.name.clone(),
                    at,
                    reminder,
                })
            };
            seen.takes.lock().unwrap().extend(taken.map(take));
        }
        reply
    }

    fn heartbeat(&self, body: &Bytes, headers: Option<HeaderMap>) -> Reply {
        let at = Instant::now();
        let users: Value = serde_json::from_slice(body).unwrap_or_default();
        let users: Vec<String> = serde_json::from_value(users["users"].clone()).unwrap_or_default();
        self.check(users.len() <= MAX_HEARTBEAT_USERS, || {
            format!("a heartbeat for {} users", users.len())
        });
        let mut state = self.state.lock().unwrap();
        self.remember(
            &mut state,
            Request {
                at,
                asked: Asked::Heartbeat(users.clone()),
                body: body.clone(),
                headers,
            },
        );
        let reply = match &mut state.on_heartbeat {
            Some(script) => script(&users),
            None => {
                let connected: Vec<_> = users
                    .iter()
                    .filter(|user| state.connected.contains(*user))
                    .collect();
                Reply::say(json!({ "connected": connected, "unknown": "field" }).to_string())
            }
        };
        if self.seen.is_some() {
            let answer: Value = reply
                .body
                .as_deref()
                .and_then(|body| serde_json::from_slice(body).ok())
                .unwrap_or_default();
            let connected: Vec<String> =
                serde_json::from_value(answer["connected"].clone()).unwrap_or_default();
            state.confirmed.extend(connected);
        }
        reply
    }

    fn check(&self, holds: bool, violation: impl FnOnce() -> String) {
        if let Some(seen) = self.seen.as_ref().filter(|_| !holds) {
            seen.violations.lock().unwrap().push(violation());
        }
    }

    fn remember(&self, state: &mut State, request: Request) {
        if self.seen.is_some() {
            state.requests.push(Arc::new(request));
        }
    }
}
