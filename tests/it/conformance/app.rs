//! An app server that keeps the contract, but for one planted fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::harness::{World, escape};

/// The connected users.
pub(super) const USERS: [&str; 2] = ["alice", "a.b 张三"];

/// The user who leaves when a heartbeat asks only about this one.
pub(super) const LEAVER: &str = USERS[1];

/// A fault of an app server. `Mute`, `Dies` and `Slow` are about requests of one kind, `heartbeat`
/// or `deliver`.
pub(super) enum Fault {
    None,
    /// Puts other routes: for a key and its value; none, if the key is empty.
    Route(fn(String) -> (String, &'static str)),
    /// Confirms others, of those asked about.
    Confirms(fn(&[String]) -> Vec<String>),
    /// Refuses others, of those in the request.
    Refuses(fn(&[Value]) -> Vec<Value>),
    /// Answers with this body.
    Says(&'static str, &'static str),
    /// Answers with an error of a NATS micro service.
    ServiceError(&'static str),
    /// Delays its answers by this much.
    Slow(&'static str, Duration),
    /// Leaves requests unanswered.
    Mute(&'static str, fn(&[u8]) -> bool),
    /// Leaves deliveries with such a reminder unanswered.
    Chokes(fn(&Value) -> bool),
    /// Goes away, subscriptions and all.
    Dies(&'static str, fn(&[u8]) -> bool),
    /// Sees to one request after the other, each of which takes this long.
    Serial(Duration),
    /// Takes a reminder that comes again for a stranger's.
    RefusesRepeats,
    /// Answers all requests in flight with the refusals of all of them.
    MixesUp,
    /// Reads JSON of up to 32 levels.
    ReadsShallow,
    /// Lets a user go, and keeps the `route`, the `place` among the connected, or the `reminders`.
    Keeps(&'static str),
}

struct App {
    client: Client,
    fault: Fault,
    accepted: Mutex<BTreeSet<String>>,
    refused: Mutex<Vec<Value>>,
    /// True if it was asked only about [`LEAVER`], who leaves then.
    has_left: AtomicBool,
    leavers_route: String,
}

/// Returns those of these users who are connected.
pub(super) fn connected(asked: &[String]) -> Vec<String> {
    asked
        .iter()
        .filter(|user| USERS.contains(&user.as_str()))
        .cloned()
        .collect()
}

/// Returns the refusals of these reminders: those for users who are not connected.
pub(super) fn refused(reminders: &[Value]) -> Vec<Value> {
    let is_for_stranger = |one: &&Value| !USERS.iter().any(|user| one["user"] == **user);
    reminders
        .iter()
        .filter(is_for_stranger)
        .map(refuse)
        .collect()
}

/// A refusal.
pub(super) fn refuse(one: &Value) -> Value {
    json!({ "id": one["id"], "source": one["source"], "user": one["user"], "reason": "not_connected" })
}

/// Starts one, and puts its routes. It runs until the test ends.
pub(super) async fn start(world: &World, name: &str, fault: Fault) {
    let client = async_nats::connect(&world.url).await.unwrap();
    let mut requests = client
        .subscribe(format!("bellhop.app.{}.*", escape(name)))
        .await
        .unwrap();
    client.flush().await.unwrap();
    for user in USERS {
        let right = format!("{}.{}", escape(user), escape(name));
        let (key, value) = if let Fault::Route(wrong) = &fault {
            wrong(right)
        } else {
            (right, "")
        };
        if !key.is_empty() {
            let put = world
                .jetstream
                .publish(format!("$KV.bellhop_routes.{key}"), value.into())
                .await
                .unwrap();
            put.await.unwrap();
        }
    }
    let app = Arc::new(App {
        client,
        fault,
        accepted: Mutex::default(),
        refused: Mutex::default(),
        has_left: AtomicBool::new(false),
        leavers_route: format!("$KV.bellhop_routes.{}.{}", escape(LEAVER), escape(name)),
    });
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let verb = request.subject.rsplit('.').next().unwrap().to_owned();
            match app.fault {
                Fault::Dies(of, is_deadly) if of == verb && is_deadly(&request.payload) => return,
                Fault::Serial(time) => {
                    tokio::time::sleep(time).await;
                    app.serve(verb, request).await;
                }
                _ => drop(tokio::spawn({
                    let app = app.clone();
                    async move { app.serve(verb, request).await }
                })),
            }
        }
    });
}

impl App {
    /// Sees to one request. One that it cannot read stays unanswered.
    async fn serve(&self, verb: String, Message { payload, reply, .. }: Message) {
        let (mut headers, mut answer) = (HeaderMap::new(), None);
        match &self.fault {
            Fault::Mute(of, is_muting) if *of == verb && is_muting(&payload) => return,
            Fault::Says(of, text) if *of == verb => answer = Some((*text).to_owned()),
            Fault::ServiceError(of) if *of == verb => {
                headers.insert("Nats-Service-Error-Code", "500")
            }
            _ => {}
        }
        let answer = match answer {
            None if verb == "heartbeat" => self.heartbeat(&payload).await,
            None => self.delivery(&payload).await,
            answer => answer,
        };
        if let Fault::Slow(of, time) = &self.fault
            && *of == verb
        {
            tokio::time::sleep(*time).await;
        }
        if let (Some(answer), Some(reply)) = (answer, reply) {
            let _ = self
                .client
                .publish_with_headers(reply, headers, answer.into())
                .await; // Tests end at any time.
        }
    }

    async fn heartbeat(&self, payload: &[u8]) -> Option<String> {
        let request: Value = serde_json::from_slice(payload).ok()?;
        let asked: Vec<String> = serde_json::from_value(request["users"].clone()).ok()?;
        if asked == [LEAVER] && !self.has_left.swap(true, Ordering::SeqCst) && !self.keeps("route")
        {
            let mut headers = HeaderMap::new();
            headers.insert("KV-Operation", "DEL");
            self.client
                .publish_with_headers(self.leavers_route.clone(), headers, "".into())
                .await
                .ok()?;
        }
        let confirm = if let Fault::Confirms(wrong) = self.fault {
            wrong
        } else {
            connected
        };
        let mut confirmed = confirm(&asked);
        if self.has_left.load(Ordering::SeqCst) && !self.keeps("place") {
            confirmed.retain(|user| user != LEAVER);
        }
        Some(json!({ "connected": confirmed }).to_string())
    }

    fn keeps(&self, what: &str) -> bool {
        matches!(self.fault, Fault::Keeps(kept) if kept == what)
    }

    /// A delivery's reminders. Data may be such as no [`Value`] can hold, and is its text then.
    fn read(&self, payload: &[u8]) -> Option<Vec<Value>> {
        #[derive(Deserialize)]
        struct Delivery {
            reminders: Vec<BTreeMap<String, Box<RawValue>>>,
        }
        if matches!(self.fault, Fault::ReadsShallow)
            && payload.windows(32).any(|levels| levels == [b'['; 32])
        {
            return None;
        }
        let field = |(name, json): (String, Box<RawValue>)| {
            let value =
                serde_json::from_str(json.get()).unwrap_or_else(|_| Value::from(json.get()));
            (name, value)
        };
        let Delivery { reminders } = serde_json::from_slice(payload).ok()?;
        Some(
            reminders
                .into_iter()
                .map(|fields| fields.into_iter().map(field).collect())
                .collect(),
        )
    }

    async fn delivery(&self, payload: &[u8]) -> Option<String> {
        let reminders = &self.read(payload)?[..];
        if !reminders
            .iter()
            .all(|one| one["id"].is_string() && one["content"].is_string())
        {
            return None;
        }
        if let Fault::Chokes(on) = self.fault
            && reminders.iter().any(on)
        {
            return None;
        }
        let refuses = if let Fault::Refuses(wrong) = self.fault {
            wrong
        } else {
            refused
        };
        let mut refused = refuses(reminders);
        if self.has_left.load(Ordering::SeqCst) && !self.keeps("reminders") {
            refused.extend(
                reminders
                    .iter()
                    .filter(|one| one["user"] == LEAVER)
                    .map(refuse),
            );
        }
        match self.fault {
            Fault::RefusesRepeats => {
                let mut accepted = self.accepted.lock().unwrap();
                let repeats = reminders
                    .iter()
                    .filter(|one| !accepted.insert(format!("{} {}", one["id"], one["user"])));
                refused.extend(repeats.map(refuse));
            }
            Fault::MixesUp => {
                self.refused.lock().unwrap().append(&mut refused);
                tokio::time::sleep(Duration::from_millis(50)).await;
                refused = std::mem::take(&mut self.refused.lock().unwrap());
            }
            _ => {}
        }
        Some(
            if refused.is_empty() {
                json!({})
            } else {
                json!({ "refused": refused })
            }
            .to_string(),
        )
    }
}
