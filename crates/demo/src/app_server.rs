//! An app server: a program that holds users' long connections, on [`bellhop::client`](bellhop_client).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_client::app_server::Options;
use bellhop_client::{Deliveries, Delivery, Reason, Reminder, UserId};
use bellhop_protocol::numbers;
use tokio::sync::mpsc;

use crate::board::{Board, Kind, Line};
use crate::error::{DemoError, During};
use crate::ledger::Accepted;
use crate::stage::DELIVERY_TIMEOUT;

/// Just below the timeout: a delivery that is answered later is redelivered, and the ledger counts a
/// redelivery as a fault.
const ANSWER_WITHIN: Duration = DELIVERY_TIMEOUT.saturating_sub(Duration::from_millis(100));

/// An event of an app server.
#[derive(Debug)]
pub(crate) enum Event {
    /// A user's terminal connects.
    Comes(UserId),
    /// A user's terminal leaves.
    Goes(UserId),
    /// The process is killed: its connections are gone at once, its routes stay behind.
    Killed,
    /// The process starts, and knows no user.
    Started,
}

/// The sender of events to an app server.
#[derive(Debug, Clone)]
pub(crate) struct AppServer {
    events: mpsc::Sender<Event>,
}

impl AppServer {
    /// Returns an app server that is not started yet, and the task to run for it.
    pub(crate) fn new(
        number: usize,
        name: &'static str,
        url: &str,
        board: Arc<Board>,
    ) -> (Self, impl Future<Output = Result<(), DemoError>> + use<>) {
        let (events, received) = mpsc::channel(64);
        let process = Process {
            number,
            name,
            url: url.to_owned(),
            board,
            life: None,
        };
        (Self { events }, process.run(received))
    }

    /// Sends an event.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.events.send(event).await; // Its task ends with the demo only.
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
    app: bellhop_client::AppServer,
    deliveries: Deliveries,
    connected: HashSet<UserId>,
}

impl Process {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) -> Result<(), DemoError> {
        loop {
            let deliveries = self.life.as_mut().map(|life| &mut life.deliveries);
            let batch = async {
                match deliveries {
                    Some(deliveries) => deliveries.next_batch().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batch = batch => match batch {
                    Some(batch) => self.deliver(batch),
                    None => return Err(DemoError::Ended("an app server lost its connection")),
                },
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), DemoError> {
        match (event, &mut self.life) {
            (Event::Started, None) => {
                self.life = Some(Life::begin(&self.url, self.name).await?);
                self.board
                    .with(|board| board.servers[self.number].life += 1);
            }
            (Event::Killed, Some(life)) => {
                // What was accepted is answered, or the account would count its redelivery as a fault.
                life.app.abandon().await;
                self.life = None;
            }
            (Event::Comes(user), Some(life)) => {
                if life.connected.insert(user.clone()) {
                    life.app.connect(user);
                }
            }
            (Event::Goes(user), Some(life)) => {
                if life.connected.remove(&user) {
                    life.app.disconnect(user);
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

    /// Shows each reminder on its user's terminal. One whose user has just left is refused.
    fn deliver(&self, batch: Vec<Delivery>) {
        let now = Instant::now();
        let is_connected = |delivery: &Delivery| {
            self.life
                .as_ref()
                .is_some_and(|it| it.connected.contains(&delivery.reminder.user))
        };
        let (shown, refused): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_connected);
        refused
            .into_iter()
            .for_each(|delivery| delivery.refuse(Reason::NotConnected));
        self.board.with(|board| {
            for delivery in &shown {
                let reminder @ Reminder {
                    id,
                    source,
                    user,
                    merged,
                    ..
                } = &delivery.reminder;
                let has_waited = reminder.parked_at.is_some();
                let accepted = Accepted {
                    source: source.as_str(),
                    id,
                    user: user.as_str(),
                    merged,
                    has_waited,
                };
                let latency = board.ledger.accept(now, &accepted);
                board.servers[self.number].accepted += 1;
                if latency.is_none() || board.wants_sample(now, source.as_str()) {
                    let after = latency.map_or_else(
                        || "from outside".to_owned(),
                        |it| format!("after {}", numbers::time(it)),
                    );
                    board.say(in_full(reminder, self.name, &after));
                }
            }
        });
        shown
            .into_iter()
            .for_each(|delivery| drop(delivery.accept()));
    }
}

impl Life {
    async fn begin(url: &str, name: &'static str) -> Result<Self, DemoError> {
        let action = || format!("start {name}");
        let connection = async_nats::ConnectOptions::new()
            .name(name)
            .connect(url)
            .await
            .during(action())?;
        // The account judges redeliveries, so it must see them.
        let options = Options {
            remember: 0,
            answer_within: ANSWER_WITHIN,
            ..Options::default()
        };
        let instance = name.parse().expect("it is a name");
        let started = bellhop_client::AppServer::start(connection, instance, options).await;
        let (app, deliveries) = started.during(action())?;
        Ok(Self {
            app,
            deliveries,
            connected: HashSet::new(),
        })
    }
}

fn in_full(reminder: &Reminder, instance: &str, after: &str) -> Line {
    let Reminder {
        id,
        user,
        priority,
        content,
        ..
    } = reminder;
    let priority = priority.as_str();
    let waited = if reminder.parked_at.is_some() {
        " in the mailbox"
    } else {
        ""
    };
    let title = reminder
        .title
        .as_ref()
        .map(|title| format!("{title}: "))
        .unwrap_or_default();
    let tags = reminder
        .tags
        .iter()
        .map(|tag| format!(" #{tag}"))
        .collect::<String>();
    let stands_for = match reminder.merged.len() {
        0 => String::new(),
        n => format!(" (stands for {})", n + 1),
    };
    Line {
        kind: Kind::Reminder,
        text: format!("{id} ({priority}) → {user} at {instance} {after}{waited}"),
        detail: Some(format!("{title}{content}{stands_for} {tags}")),
    }
}
