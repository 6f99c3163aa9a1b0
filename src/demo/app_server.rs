//! An app server: a program that holds users' long connections, on [`bellhop::client`](crate::client).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::DemoError;
use super::board::{Board, Kind, Line};
use super::ledger::Accepted;
use crate::client::app_server::Options;
use crate::client::{self, Deliveries, Delivery, Reason, Reminder, UserId};
use crate::numbers;

/// Just below `delivery.timeout` (2 s): a delivery that is answered later comes again, and the account takes that for a fault.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_900);

/// What happens to an app server.
#[derive(Debug)]
pub(super) enum Happening {
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
pub(super) struct AppServer {
    happenings: mpsc::Sender<Happening>,
}

impl AppServer {
    /// Returns an app server that is not started yet, and the task to run for it.
    pub(super) fn new(
        number: usize,
        name: &'static str,
        url: &str,
        board: Arc<Board>,
    ) -> (Self, impl Future<Output = Result<(), DemoError>> + use<>) {
        let (happenings, received) = mpsc::channel(64);
        let process = Process {
            number,
            name,
            url: url.to_owned(),
            board,
            life: None,
        };
        (Self { happenings }, process.run(received))
    }

    /// Sends an event.
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
    app: client::AppServer,
    deliveries: Deliveries,
    connected: HashSet<UserId>,
}

impl Process {
    async fn run(mut self, mut happenings: mpsc::Receiver<Happening>) -> Result<(), DemoError> {
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
                self.life = Some(Life::begin(&self.url, self.name).await?);
                self.board
                    .with(|board| board.servers[self.number].life += 1);
            }
            (Happening::Killed, Some(life)) => {
                // What was accepted is answered, or the account would count its redelivery as a fault.
                life.app.abandon().await;
                self.life = None;
            }
            (Happening::Comes(user), Some(life)) => {
                if life.connected.insert(user.clone()) {
                    life.app.connect(user);
                }
            }
            (Happening::Goes(user), Some(life)) => {
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
        let failed =
            |problem: &dyn std::fmt::Display| DemoError::nats(format!("start {name}"), problem);
        let connection = async_nats::ConnectOptions::new()
            .name(name)
            .connect(url)
            .await
            .map_err(|e| failed(&e))?;
        // The account judges redeliveries, so it must see them.
        let options = Options {
            remember: 0,
            answer_within: ANSWER_WITHIN,
            ..Options::default()
        };
        let instance = name.parse().expect("it is a name");
        let started = client::AppServer::start(connection, instance, options).await;
        let (app, deliveries) = started.map_err(|e| failed(&e))?;
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
