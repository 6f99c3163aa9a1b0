//! The task of an app server: it knows who is connected, answers Bellhop, and writes routes. It
//! never waits for the application.

#![allow(clippy::disallowed_methods)] // This is where the clock is read.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subject, Subscriber};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, Select};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::connections::{Connections, Waiter};
use super::deliveries::{Queued, Verdict};
use super::duplicates::Accepted;
use super::pending::Pending;
use super::routes::Writer;
use super::{Options, StartError};
use bellhop_protocol::token::UserId;
use bellhop_protocol::wire::answer::{Heartbeat, HeartbeatAnswer};

/// Interval at which the task checks for a reconnect, and retries failed writes.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The time limit for requests that are still arriving when the app server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A request of the application.
#[derive(Debug)]
pub(super) enum Command {
    Connect(Vec<UserId>, Waiter),
    Disconnect(Vec<UserId>, Waiter),
    Drain,
    /// End with the routes left as they are.
    Abandon,
}

type Requests = Select<Subscriber, Subscriber>;
type Write = BoxFuture<'static, (UserId, Result<Option<u64>, String>)>;
type Check = BoxFuture<'static, Result<Option<u64>, String>>;

pub(super) struct Task {
    client: Client,
    requests: Requests,
    commands: mpsc::UnboundedReceiver<Command>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    routes: Writer,
    options: Options,
    connections: Connections,
    pending: Pending,
    writes: FuturesUnordered<Write>,
    /// The check under way whether the bucket is still the same one.
    bucket_check: Check,
    /// The revision that the last check has written.
    checked: Option<u64>,
    /// Number of the client's connections at the last check.
    connects: u64,
    draining_since: Option<Instant>,
}

/// Subscribes to an instance's deliveries and heartbeats.
pub(super) async fn subscribe(client: &Client, subject: &str) -> Result<Requests, StartError> {
    let subscribe = async |what: &str| {
        let subject = format!("{subject}.{what}");
        let subscribed = client.subscribe(subject.clone()).await;
        subscribed.map_err(|error| StartError::Subscribe {
            subject,
            problem: error.to_string(),
        })
    };
    Ok(stream::select(
        subscribe("deliver").await?,
        subscribe("heartbeat").await?,
    ))
}

impl Task {
    pub(super) fn new(
        client: Client,
        requests: Requests,
        commands: mpsc::UnboundedReceiver<Command>,
        routes: Writer,
        (queue, accepted): (mpsc::UnboundedSender<Vec<Queued>>, Accepted),
        options: Options,
    ) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let pending = Pending::new(queue, options.capacity, sender, accepted);
        let bucket_check = routes.clone().check(None).boxed();
        Self {
            connects: connects(&client),
            client,
            requests,
            commands,
            verdicts,
            routes,
            options,
            connections: Connections::default(),
            pending,
            writes: FuturesUnordered::new(),
            bucket_check,
            checked: None,
            draining_since: None,
        }
    }

    /// Runs until the instance has drained, or its connection is closed.
    pub(super) async fn run(mut self) {
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.has_drained() {
            self.write_routes();
            self.send_answers().await;
            let deadline = self.pending.next_deadline();
            tokio::select! {
                request = self.requests.next() => match request {
                    Some(request) => self.answer(request).await,
                    None => return,
                },
                command = self.commands.recv(), if self.draining_since.is_none() => {
                    if self.obey(command.unwrap_or(Command::Drain)).is_break() {
                        return self.abandon().await;
                    }
                }
                Some(verdict) = self.verdicts.recv() => self.pending.decide(Instant::now(), verdict),
                Some((user, result)) = self.writes.next() => self.connections.written(user, result),
                result = &mut self.bucket_check => self.bucket_checked(result),
                () = until(deadline) => self.pending.expire(Instant::now()),
                _ = check.tick() => self.check(),
            }
        }
        let _ = tokio::time::timeout(LAST_ANSWERS, self.finish()).await;
    }

    /// Breaks when the instance is to end at once.
    fn obey(&mut self, command: Command) -> ControlFlow<()> {
        match command {
            Command::Connect(users, waiter) => {
                users
                    .into_iter()
                    .for_each(|user| self.connections.connect(user, waiter.clone()));
            }
            Command::Disconnect(users, waiter) => {
                for user in users {
                    if self.connections.disconnect(&user, waiter.clone()) {
                        self.pending.disconnected(&user);
                    }
                }
            }
            Command::Drain => {
                self.draining_since = Some(Instant::now());
                self.commands.close();
                self.connections.disconnect_all();
            }
            Command::Abandon => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Puts all routes again after a reconnect: they may be lost.
    fn check(&mut self) {
        let connects = connects(&self.client);
        if connects != std::mem::replace(&mut self.connects, connects) {
            tracing::info!("reconnected to NATS, putting all routes again");
            self.connections.put_all_again();
        }
        self.connections.retry();
    }

    /// Puts all routes again after the bucket was deleted and created again. An app server may not
    /// be allowed to read the bucket, so it finds out by writing.
    fn bucket_checked(&mut self, result: Result<Option<u64>, String>) {
        let mut pause = self.options.check_routes_every;
        match result {
            Ok(Some(revision)) => self.checked = Some(revision),
            Ok(None) => {
                tracing::warn!("the bucket of routes is a new one, putting all routes again");
                self.connections.put_all_again();
                (self.checked, pause) = (None, Duration::ZERO);
            }
            Err(problem) => tracing::debug!(problem, "cannot check the bucket of routes"),
        }
        let (routes, last) = (self.routes.clone(), self.checked);
        self.bucket_check = async move {
            tokio::time::sleep(pause).await;
            routes.check(last).await
        }
        .boxed();
    }

    fn write_routes(&mut self) {
        while self.writes.len() < self.options.routes_in_flight.max(1) {
            let Some((user, change)) = self.connections.next_change() else {
                return;
            };
            self.writes.push(
                self.routes
                    .clone()
                    .write(Timestamp::now(), user, change)
                    .boxed(),
            );
        }
    }

    /// Replies to a request. An unreadable one gets no answer, so Bellhop notices that something is
    /// wrong here.
    async fn answer(
        &mut self,
        Message {
            subject,
            payload,
            reply,
            ..
        }: Message,
    ) {
        let Some(inbox) = reply else { return };
        let understood = match subject.ends_with(".heartbeat") {
            true => self.heartbeat(inbox, &payload).await,
            false => self.delivery(inbox, &payload),
        };
        if let Err(error) = understood {
            tracing::error!(%subject, %error, "cannot read a request of Bellhop, so it gets no answer");
        }
    }

    async fn heartbeat(&mut self, inbox: Subject, body: &[u8]) -> Result<(), serde_json::Error> {
        let Heartbeat::<UserId> { mut users } = serde_json::from_slice(body)?;
        users.retain(|user| self.connections.is_connected(user));
        send(&self.client, inbox, &HeartbeatAnswer { connected: users }).await;
        Ok(())
    }

    fn delivery(&mut self, inbox: Subject, body: &[u8]) -> Result<(), serde_json::Error> {
        let deadline = Instant::now() + self.options.answer_within;
        self.pending.request(deadline, inbox, body, |user| {
            self.connections.is_connected(user)
        })
    }

    async fn send_answers(&mut self) {
        for answer in self.pending.answers() {
            send(&self.client, answer.inbox, &answer.body).await;
        }
    }

    fn has_drained(&self) -> bool {
        let is_settled = |since: Instant| {
            self.connections.is_settled() || since.elapsed() >= self.options.patience
        };
        self.draining_since.is_some_and(is_settled) && self.pending.is_idle()
    }

    /// Replies to all requests with the application's decisions so far.
    async fn abandon(&mut self) {
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.pending.decide(Instant::now(), verdict);
        }
        self.send_answers().await;
        let _ = tokio::time::timeout(LAST_ANSWERS, self.client.flush()).await;
    }

    /// Replies to the requests that are still arriving.
    async fn finish(&mut self) {
        self.send_answers().await;
        let (deliver, heartbeat) = self.requests.get_mut();
        if deliver.drain().await.is_ok() && heartbeat.drain().await.is_ok() {
            while let Some(request) = self.requests.next().await {
                self.answer(request).await;
                self.send_answers().await;
            }
        }
        let _ = self.client.flush().await; // The rest has no receiver.
    }
}

async fn send(client: &Client, inbox: Subject, answer: &impl Serialize) {
    let body = serde_json::to_vec(answer).expect("an answer is text");
    if let Err(error) = client.publish(inbox, body.into()).await {
        tracing::warn!(%error, "failed to send an answer");
    }
}

/// Returns how often the client has connected.
fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
