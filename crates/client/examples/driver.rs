//! The driver of the Rust client for the behaviour suite. See clients/behaviour/README.md.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bellhop_client::publisher::PublishError;
use bellhop_client::queries::{Fate, HistoryQuery, PastReminder, QueryError};
use bellhop_client::{AppServer, Deliveries, Delivery, Draft, Publisher, Queries, Source, UserId};
use bellhop_client::{Reason, app_server, publisher, queries};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A command of the runner. Its other fields depend on `act`.
#[derive(Deserialize)]
struct Command {
    n: u64,
    #[serde(rename = "do")]
    act: String,
    #[serde(flatten)]
    arguments: Value,
}

/// An error with one of the suite's kinds.
struct Failure(&'static str, String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self("invalid", error.to_string())
    }
}

fn refused(error: PublishError) -> Failure {
    let kind = match error {
        PublishError::Invalid(_) => "invalid",
        PublishError::Unconfirmed { .. } => "unconfirmed",
        PublishError::Ended => "closed",
    };
    Failure(kind, error.to_string())
}

fn misrouted(error: app_server::RouteError) -> Failure {
    let kind = match error {
        app_server::RouteError::Late { .. } => "late",
        app_server::RouteError::Stopped => "closed",
    };
    Failure(kind, error.to_string())
}

fn unanswered(error: QueryError) -> Failure {
    let kind = match error {
        QueryError::Invalid(_) => "invalid",
        QueryError::Forbidden(_) => "forbidden",
        QueryError::NotFound(_) => "not_found",
        QueryError::Unavailable(_) => "unavailable",
    };
    Failure(kind, error.to_string())
}

fn write(line: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}"); // The runner has gone if this fails.
    let _ = out.flush();
}

/// A driver: at most one app server and one publisher.
struct Driver {
    nats: Client,
    app: Option<App>,
    publisher: Option<Publisher>,
}

struct App {
    server: AppServer,
    behaviour: watch::Sender<String>,
    ended: watch::Receiver<bool>,
}

/// Takes the reminders, and does with them what the latest behaviour says.
async fn apply(
    mut deliveries: Deliveries,
    mut behaviour: watch::Receiver<String>,
    ended: watch::Sender<bool>,
) {
    let mut held = Vec::new();
    loop {
        let current = behaviour.borrow_and_update().clone();
        if current == "accept" {
            held.drain(..).for_each(accept);
        }
        tokio::select! {
            changed = behaviour.changed() => if changed.is_err() { return },
            delivery = deliveries.next(), if current != "stop" => match delivery {
                None => break,
                Some(delivery) if current == "hold" => held.push(delivery),
                Some(delivery) if current == "later" => delivery.refuse(Reason::Busy),
                Some(delivery) => accept(delivery),
            },
        }
    }
    ended.send_replace(true);
}

fn accept(delivery: Delivery) {
    write(&json!({ "accepted": delivery.json() }));
    delivery.accept();
}

fn text<'a>(arguments: &'a Value, name: &str) -> Result<&'a str, Failure> {
    let value = arguments[name].as_str();
    value.ok_or_else(|| Failure("invalid", format!("`{name}` is missing")))
}

fn seconds(arguments: &Value, name: &str, default: Duration) -> Duration {
    arguments[name]
        .as_f64()
        .map_or(default, Duration::from_secs_f64)
}

fn users(arguments: &Value) -> Result<Vec<UserId>, Failure> {
    Ok(serde_json::from_value(arguments["users"].clone())?)
}

fn draft(reminder: &Value) -> Result<Draft, Failure> {
    let field = |name: &str| reminder.get(name).filter(|value| !value.is_null()).cloned();
    let mut draft = Draft::new(
        text(reminder, "user")?.parse()?,
        text(reminder, "content")?.to_owned(),
    );
    draft.id = field("id").map(serde_json::from_value).transpose()?;
    draft.title = field("title").map(serde_json::from_value).transpose()?;
    draft.deliver_at = field("deliver_at")
        .map(serde_json::from_value)
        .transpose()?;
    draft.repeat = field("repeat").map(serde_json::from_value).transpose()?;
    draft.data = field("data")
        .map(|data| RawValue::from_string(data.to_string()))
        .transpose()?;
    if let Some(tags) = field("tags") {
        draft.tags = serde_json::from_value(tags)?;
    }
    Ok(draft)
}

impl Driver {
    /// Starts a command, and answers it when it is done. Actions that affect the order are done
    /// before this returns.
    async fn obey(&mut self, command: Command) {
        let Command { n, act, arguments } = command;
        let started = match act.as_str() {
            "app_server" => self.start_app(&arguments).await,
            "publisher" => self.start_publisher(&arguments),
            _ => Ok(()),
        };
        if let Err(Failure(kind, message)) = started {
            return write(&json!({ "n": n, "error": kind, "message": message }));
        }
        let work = self.work(&act, arguments);
        tokio::spawn(async move {
            match work.await {
                Ok(ok) => write(&json!({ "n": n, "ok": ok })),
                Err(Failure(kind, message)) => {
                    write(&json!({ "n": n, "error": kind, "message": message }));
                }
            }
        });
        tokio::task::yield_now().await;
    }

    async fn start_app(&mut self, arguments: &Value) -> Result<(), Failure> {
        let mut options = app_server::Options::default();
        options.answer_within = seconds(arguments, "answer_within", options.answer_within);
        options.check_routes_every =
            seconds(arguments, "check_routes_every", options.check_routes_every);
        if let Some(capacity) = arguments["capacity"].as_u64() {
            options.capacity = usize::try_from(capacity)?;
        }
        let instance = text(arguments, "instance")?.parse()?;
        let (server, deliveries) = AppServer::start(self.nats.clone(), instance, options).await?;
        let (behaviour, behaves) = watch::channel("accept".to_owned());
        let (ending, ended) = watch::channel(false);
        tokio::spawn(apply(deliveries, behaves, ending));
        self.app = Some(App {
            server,
            behaviour,
            ended,
        });
        Ok(())
    }

    fn start_publisher(&mut self, arguments: &Value) -> Result<(), Failure> {
        let mut options = publisher::Options::default();
        if let Some(most) = arguments["max_reminders"].as_u64() {
            options.max_reminders = usize::try_from(most)?;
        }
        options.give_up_after = seconds(arguments, "give_up_after", options.give_up_after);
        let source = text(arguments, "source")?.parse()?;
        self.publisher = Some(Publisher::start(self.nats.clone(), source, options));
        Ok(())
    }

    fn work(
        &self,
        act: &str,
        arguments: Value,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send>> {
        let (app, publisher) = (self.app.as_ref(), self.publisher.clone());
        match act {
            "app_server" | "publisher" => Box::pin(async { Ok(json!({})) }),
            "connect" | "disconnect" => {
                let server = app.map(|app| app.server.clone());
                let is_connect = act == "connect";
                let routed = users(&arguments).and_then(|users| {
                    let server = server.ok_or_else(|| Failure("closed", "no app server".into()))?;
                    Ok(match is_connect {
                        true => server.connect_all(users),
                        false => server.disconnect_all(users),
                    })
                });
                Box::pin(async {
                    routed?.await.map_err(misrouted)?;
                    Ok(json!({}))
                })
            }
            "behave" => {
                let behaviour = arguments["as"].as_str().unwrap_or_default().to_owned();
                app.map(|app| app.behaviour.send_replace(behaviour));
                Box::pin(async { Ok(json!({})) })
            }
            "drain" => {
                app.inspect(|app| app.server.drain());
                let ended = app.map(|app| app.ended.clone());
                Box::pin(async {
                    if let Some(mut ended) = ended {
                        ended.wait_for(|ended| *ended).await?;
                    }
                    Ok(json!({}))
                })
            }
            "publish" => Box::pin(publish(publisher, arguments)),
            "cancel" => Box::pin(cancel(publisher, arguments)),
            "history" | "why" | "mailbox" | "erase" => {
                let queries = Queries::new(self.nats.clone(), queries::Options::default());
                Box::pin(ask(queries, act.to_owned(), arguments))
            }
            other => {
                let problem = format!("the Rust client has no `{other}`");
                Box::pin(async { Err(Failure("unsupported", problem)) })
            }
        }
    }
}

async fn publish(publisher: Option<Publisher>, arguments: Value) -> Result<Value, Failure> {
    let publisher = publisher.ok_or_else(|| Failure("closed", "no publisher".into()))?;
    let mut publishing = Vec::new();
    for reminder in arguments["reminders"].as_array().into_iter().flatten() {
        publishing.push(publisher.publish(draft(reminder)?).await.map_err(refused)?);
    }
    let mut ids = Vec::new();
    for one in publishing {
        ids.push(one.await.map_err(refused)?.id);
    }
    Ok(json!({ "ids": ids }))
}

async fn cancel(publisher: Option<Publisher>, arguments: Value) -> Result<Value, Failure> {
    let publisher = publisher.ok_or_else(|| Failure("closed", "no publisher".into()))?;
    let ids: Vec<String> = serde_json::from_value(arguments["ids"].clone())?;
    let user: Option<UserId> = serde_json::from_value(arguments["user"].clone())?;
    for id in ids {
        match &user {
            Some(user) => publisher.cancel_for(id, user).await.map_err(refused)?,
            None => publisher.cancel(id).await.map_err(refused)?,
        };
    }
    publisher.flush().await.map_err(refused)?;
    Ok(json!({}))
}

async fn ask(queries: Queries, question: String, arguments: Value) -> Result<Value, Failure> {
    let user = || Ok::<UserId, Failure>(text(&arguments, "user")?.parse()?);
    let source = || Ok::<Source, Failure>(text(&arguments, "source")?.parse()?);
    let id = |id: &str| json!({ "id": id });
    Ok(match question.as_str() {
        "history" => {
            let query = HistoryQuery {
                user: arguments.get("user").map(|_| user()).transpose()?,
                limit: serde_json::from_value(arguments["limit"].clone())?,
                ..HistoryQuery::default()
            };
            let page = queries.history(&query).await.map_err(unanswered)?;
            let past =
                |past: &PastReminder| json!({ "id": past.reminder.id, "outcome": past.outcome });
            json!({ "reminders": page.reminders.iter().map(past).collect::<Vec<_>>() })
        }
        "why" => {
            let (source, id) = (source()?, text(&arguments, "id")?);
            let user = arguments.get("user").map(|_| user()).transpose()?;
            let fate = queries.why(&source, id, user.as_ref()).await;
            let Fate {
                reminder, trail, ..
            } = fate.map_err(unanswered)?;
            json!({ "reminder": { "id": reminder.id, "user": reminder.user }, "trail": trail })
        }
        "mailbox" => {
            let limit = serde_json::from_value(arguments["limit"].clone())?;
            let mailbox = queries.mailbox(&user()?, limit).await.map_err(unanswered)?;
            let reminders: Vec<_> = mailbox.reminders.iter().map(|one| id(&one.id)).collect();
            json!({ "parked": mailbox.parked, "reminders": reminders })
        }
        _ => json!({ "erased": queries.erase(&user()?).await.map_err(unanswered)? }),
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address: async_nats::ServerAddr = std::env::var("NATS_URL")?.parse()?;
    let (user, password) = (address.username(), address.password());
    let options = match user.zip(password) {
        Some((user, password)) => {
            async_nats::ConnectOptions::with_user_and_password(user.into(), password.into())
        }
        None => async_nats::ConnectOptions::new(),
    };
    let nats = options.max_reconnects(None).connect(address).await?;
    let mut driver = Driver {
        nats,
        app: None,
        publisher: None,
    };
    let (lines, mut commands) = mpsc::unbounded_channel();
    let lines = Arc::new(lines);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = commands.recv().await {
        driver.obey(serde_json::from_str(&line)?).await;
    }
    std::process::exit(0); // Without draining: routes stay as they are.
}
