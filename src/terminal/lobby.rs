//! Who is here: one task that has every user's desk, brings reminders to them, and tells Bellhop who comes, who leaves,
//! and what was shown.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Key, MOST_BEHIND, Passed, Put};
use super::events::{Events, Hello};
use crate::client::{AppServer, Deliveries, Delivery, Reason};
use crate::token::{InstanceName, UserId};

/// Users who are here, or left not long ago.
const MOST_DESKS: usize = 10_000;
/// Users of one address among them: one visitor cannot take all the room, and an office behind one address has enough.
const MOST_DESKS_OF_ADDRESS: usize = 500;
const TICK: Duration = Duration::from_millis(100);
/// Between two words to a window that has nothing to get: proxies close a connection that is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(15);
/// What browsers may have asked, and nobody has looked at yet.
const QUEUE: usize = 256;

/// Where windows are opened.
#[derive(Debug, Clone)]
pub(super) struct Lobby {
    commands: mpsc::Sender<Command>,
}

/// Why no window can be opened.
#[derive(Debug)]
pub(super) struct NoRoom(pub &'static str);

#[derive(Debug)]
pub(super) enum Command {
    Open { user: UserId, from: IpAddr, after: Option<u64>, opened: oneshot::Sender<Result<Events, NoRoom>> },
    Seen { user: UserId, number: u64 },
}

impl Lobby {
    /// Opens a window for a user at this address, whose page has everything up to the event `after`, if it says one.
    ///
    /// # Errors
    /// When there are too many, or the server stops.
    pub(super) async fn open(&self, user: UserId, from: IpAddr, after: Option<u64>) -> Result<Events, NoRoom> {
        let (opened, open) = oneshot::channel();
        let _ = self.commands.send(Command::Open { user, from, after, opened }).await;
        open.await.unwrap_or(Err(NoRoom("this server is stopping")))
    }

    /// A window of a user has everything up to this event on its page.
    pub(super) async fn seen(&self, user: UserId, number: u64) {
        let _ = self.commands.send(Command::Seen { user, number }).await;
    }
}

/// The lobby's task.
pub(super) struct Porter {
    app: AppServer,
    instance: InstanceName,
    desks: HashMap<UserId, Desk<Delivery>>,
    /// The address from which each desk was opened.
    openers: HashMap<UserId, IpAddr>,
    /// The number of the last event. Numbers begin with the time, in microseconds, so that those of an earlier run, or of
    /// another server, are none of this one's.
    last: u64,
    visitors: watch::Sender<Vec<UserId>>,
}

impl Porter {
    /// An empty lobby of this instance; `visitors` is told who is here.
    pub(super) fn new(app: AppServer, instance: InstanceName, visitors: watch::Sender<Vec<UserId>>) -> Self {
        let last = jiff::Timestamp::now().as_microsecond().try_into().unwrap_or(0);
        Self { app, instance, desks: HashMap::new(), openers: HashMap::new(), last, visitors }
    }

    /// A lobby, and what it is asked.
    pub(super) fn door() -> (Lobby, mpsc::Receiver<Command>) {
        let (commands, received) = mpsc::channel(QUEUE);
        (Lobby { commands }, received)
    }

    /// Works until `stop`. Then windows are closed, routes deleted, and what was not shown is given back.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut deliveries: Deliveries,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            tokio::select! {
                Some(command) = commands.recv() => self.obey(command),
                Some(delivery) = deliveries.next() => self.bring(delivery),
                _ = tick.tick() => self.look_around(),
                _ = ping.tick() => self.desks.values_mut().for_each(|desk| desk.ping(Instant::now())),
                () = stop.cancelled() => break,
            }
        }
        for (_, desk) in self.desks.drain() {
            give_back(desk.clear());
        }
        self.app.drain();
        while let Some(delivery) = deliveries.next().await {
            give_back([delivery]);
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Open { user, from, after, opened } => {
                let _ = opened.send(self.open(now, user, from, after)); // Whoever asked may have left meanwhile.
            }
            Command::Seen { user, number } => {
                let shown = self.desks.get_mut(&user).map(|desk| desk.seen(now, number));
                shown.into_iter().flatten().for_each(|delivery| drop(delivery.accept()));
            }
        }
    }

    fn open(&mut self, now: Instant, user: UserId, from: IpAddr, after: Option<u64>) -> Result<Events, NoRoom> {
        if !self.desks.contains_key(&user) {
            if self.desks.len() >= MOST_DESKS {
                return Err(NoRoom("there is no room for more users"));
            }
            if self.openers.values().filter(|opener| **opener == from).count() >= MOST_DESKS_OF_ADDRESS {
                return Err(NoRoom("there is no room for more users of your address"));
            }
            self.openers.insert(user.clone(), from);
        }
        let last = self.last;
        let desk = self.desks.entry(user.clone()).or_insert_with(|| Desk::new(last, now));
        let (window, events) = mpsc::channel(MOST_BEHIND);
        let hello = Hello { user: user.as_str(), instance: self.instance.as_str() };
        let after = after.filter(|after| *after <= last);
        let has_come = desk.open(now, window, after, &hello).ok_or(NoRoom("the user has too many windows"))?;
        if has_come {
            // The desk first: a reminder may come as soon as the route is there. Nobody waits for that.
            drop(self.app.connect(user));
            self.tell_visitors();
        }
        Ok(Events(events))
    }

    fn bring(&mut self, delivery: Delivery) {
        self.last += 1;
        let (key, json) = (Key::of(&delivery.reminder), delivery.json().get().to_owned());
        let put = match self.desks.get_mut(&delivery.reminder.user) {
            Some(desk) => desk.put(Instant::now(), (self.last, key, &json), delivery),
            None => Put::Refused(delivery, Reason::NotConnected),
        };
        match put {
            Put::Waits => {}
            Put::Shown(delivery) => drop(delivery.accept()),
            Put::Refused(delivery, reason) => delivery.refuse(reason),
        }
    }

    fn look_around(&mut self) {
        let now = Instant::now();
        let mut left = Vec::new();
        self.desks.retain(|user, desk| match desk.pass(now) {
            Passed::Nothing => true,
            Passed::Late(deliveries) => {
                deliveries.into_iter().for_each(|delivery| delivery.refuse(Reason::Busy));
                true
            }
            Passed::Left(deliveries) => {
                give_back(deliveries);
                left.push(user.clone());
                true
            }
            Passed::Over => {
                self.openers.remove(user);
                false
            }
        });
        if !left.is_empty() {
            drop(self.app.disconnect_all(left));
            self.tell_visitors();
        }
    }

    fn tell_visitors(&self) {
        let here = self.desks.iter().filter(|(_, desk)| desk.is_here()).map(|(user, _)| user.clone());
        self.visitors.send_replace(here.collect());
    }
}

/// Bellhop keeps for the user what was not shown.
fn give_back(deliveries: impl IntoIterator<Item = Delivery>) {
    deliveries.into_iter().for_each(|delivery| delivery.refuse(Reason::NotConnected));
}
