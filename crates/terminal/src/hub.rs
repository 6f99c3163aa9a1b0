//! The connected users: one task that has every user's feed, brings reminders to it, and reports to
//! Bellhop who connects, who leaves, and what was shown.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bellhop_client::{AppServer, Deliveries, Delivery, Reason};
use bellhop_protocol::token::UserId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::feed::{Added, Feed, Item, Key, Tick, Window};

/// The most users who are connected, or left not long ago.
const MAX_USERS: usize = 10_000;
/// The most of them from one address: one visitor cannot take all the room, and an office behind
/// one address has enough.
const MAX_USERS_OF_ADDRESS: usize = 500;
/// The pause between two looks at the time.
const TICK: Duration = Duration::from_millis(100);
/// The most commands that wait for the task.
const QUEUE: usize = 256;

/// A handle of the task.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    commands: mpsc::Sender<Command>,
}

/// The reason why no window can be opened.
#[derive(Debug)]
pub(super) struct NoRoom(pub &'static str);

#[derive(Debug)]
enum Command {
    Open {
        user: UserId,
        from: IpAddr,
        after: Option<u64>,
        opened: oneshot::Sender<Result<Window, NoRoom>>,
    },
    Seen {
        user: UserId,
        number: u64,
    },
}

impl Hub {
    /// Returns a hub and its task. The task works until `stop`; then it closes windows, deletes
    /// routes, and gives back what was not shown. `visitors` gets the connected users.
    pub(super) fn new(
        app: AppServer,
        deliveries: Deliveries,
        visitors: watch::Sender<Vec<UserId>>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (commands, received) = mpsc::channel(QUEUE);
        let last = jiff::Timestamp::now()
            .as_microsecond()
            .try_into()
            .unwrap_or(0);
        let task = Task {
            app,
            users: HashMap::new(),
            last,
            visitors,
        };
        (Self { commands }, task.run(received, deliveries, stop))
    }

    /// Opens a window for a user at this address, whose page has everything up to the event
    /// `after`, if it names one.
    ///
    /// # Errors
    /// When there are too many, or the server stops.
    pub(super) async fn open(
        &self,
        user: UserId,
        from: IpAddr,
        after: Option<u64>,
    ) -> Result<Window, NoRoom> {
        let (opened, open) = oneshot::channel();
        let _ = self
            .commands
            .send(Command::Open {
                user,
                from,
                after,
                opened,
            })
            .await;
        open.await.unwrap_or(Err(NoRoom("this server is stopping")))
    }

    /// Notes that a window of a user shows everything up to this event.
    pub(super) async fn seen(&self, user: UserId, number: u64) {
        let _ = self.commands.send(Command::Seen { user, number }).await;
    }
}

struct Task {
    app: AppServer,
    users: HashMap<UserId, User>,
    /// The number of the last event. Numbers begin with the time, in microseconds, so that those of
    /// an earlier run, or of another server, are none of this one's.
    last: u64,
    visitors: watch::Sender<Vec<UserId>>,
}

struct User {
    feed: Feed<Delivery>,
    /// The address of the first window.
    from: IpAddr,
}

impl Task {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut deliveries: Deliveries,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(command) = commands.recv() => self.obey(command),
                Some(delivery) = deliveries.next() => self.bring(delivery),
                _ = tick.tick() => self.tick(),
                () = stop.cancelled() => break,
            }
        }
        for (_, user) in self.users.drain() {
            give_back(user.feed.close());
        }
        self.app.drain();
        while let Some(delivery) = deliveries.next().await {
            give_back([delivery]);
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Open {
                user,
                from,
                after,
                opened,
            } => {
                let _ = opened.send(self.open(now, user, from, after)); // The browser may have left meanwhile.
            }
            Command::Seen { user, number } => {
                let shown = self
                    .users
                    .get_mut(&user)
                    .map(|user| user.feed.seen(now, number));
                shown
                    .into_iter()
                    .flatten()
                    .for_each(|delivery| drop(delivery.accept()));
            }
        }
    }

    fn open(
        &mut self,
        now: Instant,
        name: UserId,
        from: IpAddr,
        after: Option<u64>,
    ) -> Result<Window, NoRoom> {
        if !self.users.contains_key(&name) {
            if self.users.len() >= MAX_USERS {
                return Err(NoRoom("there is no room for more users"));
            }
            if self.users.values().filter(|user| user.from == from).count() >= MAX_USERS_OF_ADDRESS
            {
                return Err(NoRoom("there is no room for more users of your address"));
            }
        }
        let last = self.last;
        let user = self.users.entry(name.clone()).or_insert_with(|| User {
            feed: Feed::new(last, now),
            from,
        });
        let was_connected = user.feed.is_connected();
        let after = after.filter(|after| *after <= last);
        let window = user
            .feed
            .open(now, after)
            .ok_or(NoRoom("the user has too many windows"))?;
        if !was_connected {
            // The feed first: a reminder may come as soon as the route is there. Nothing here waits
            // for that.
            drop(self.app.connect(name));
            self.report_visitors();
        }
        Ok(window)
    }

    fn bring(&mut self, delivery: Delivery) {
        self.last += 1;
        let item = Item {
            number: self.last,
            json: delivery.json().get().into(),
        };
        let added = match self.users.get_mut(&delivery.reminder.user) {
            Some(user) => {
                user.feed
                    .add(Instant::now(), Key::of(&delivery.reminder), item, delivery)
            }
            None => Added::Refused(delivery, Reason::NotConnected),
        };
        match added {
            Added::Waits => {}
            Added::Shown(delivery) => drop(delivery.accept()),
            Added::Refused(delivery, reason) => delivery.refuse(reason),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let mut left = Vec::new();
        self.users.retain(|name, user| match user.feed.tick(now) {
            Tick::Nothing => true,
            Tick::Late(deliveries) => {
                deliveries
                    .into_iter()
                    .for_each(|delivery| delivery.refuse(Reason::Busy));
                true
            }
            Tick::Left(deliveries) => {
                give_back(deliveries);
                left.push(name.clone());
                true
            }
            Tick::Over => false,
        });
        if !left.is_empty() {
            drop(self.app.disconnect_all(left));
            self.report_visitors();
        }
    }

    fn report_visitors(&self) {
        let connected = self
            .users
            .iter()
            .filter(|(_, user)| user.feed.is_connected());
        self.visitors
            .send_replace(connected.map(|(name, _)| name.clone()).collect());
    }
}

/// Bellhop keeps for the user what was not shown.
fn give_back(deliveries: impl IntoIterator<Item = Delivery>) {
    deliveries
        .into_iter()
        .for_each(|delivery| delivery.refuse(Reason::NotConnected));
}
