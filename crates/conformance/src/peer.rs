//! The app server that is tried: what it is asked as Bellhop asks it, and what it answers, with the
//! time that it took.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::client::{Request, RequestErrorKind};
use async_nats::jetstream::Context;
use async_nats::{Client, Message};
use bellhop_protocol::names::Names;
use bellhop_protocol::reminder::Reminder;
use bellhop_protocol::token::{InstanceName, UserId};
use bellhop_protocol::wire::answer::{
    self, DeliveryAnswer, Heartbeat, HeartbeatAnswer, Reason, Refused, delivery_body,
};
use bellhop_protocol::wire::route;
use bellhop_protocol::wire::subject::read_value;
use bytes::Bytes;
use serde::Deserialize;

use super::bucket::{Bucket, Route};
use super::sample::Sample;
use super::{ConformanceError, Options};

/// Users who are asked about and get reminders. More users would not show more errors.
const MOST_USERS: usize = 20;
/// Time after which repeated `busy` counts as a failure.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// The pauses that Bellhop makes after `busy`, in the beginning and at last.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The verdict on a rule: `Ok` if it is kept, else what was found instead.
pub(super) type Kept = Result<(), String>;

/// A request to an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// The connected users.
    Heartbeat,
    /// To take reminders.
    Delivery,
}

impl Ask {
    fn verb(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Delivery => "deliver",
        }
    }
}

/// An answer, whatever it says.
pub(super) struct Answer {
    message: Message,
    pub(super) took: Duration,
}

/// An app server, and who is connected to it.
pub struct Peer {
    client: Client,
    pub(super) names: Names,
    bucket: Bucket,
    pub(super) instance: InstanceName,
    subject: String,
    timeouts: (Duration, Duration),
    /// The connected users, as the operator or the routes name them: one at least.
    pub(super) users: Vec<UserId>,
    leaver: Option<UserId>,
    /// The routes, as they stand in the bucket.
    pub(super) routes: Vec<Route>,
    /// Makes what is sent in this run differ from what was sent in others.
    run: String,
    sent: AtomicUsize,
}

impl Peer {
    /// Learns from the bucket of an installation's routes who is connected to the instance, and
    /// where it is asked.
    ///
    /// # Errors
    /// If no user is connected, or the bucket cannot be read.
    pub async fn find(
        jetstream: &Context,
        names: &Names,
        options: Options,
    ) -> Result<Self, ConformanceError> {
        let Options {
            instance,
            mut users,
            leaver,
            heartbeat_timeout,
            delivery_timeout,
        } = options;
        let bucket = Bucket::open(jetstream, names).await?;
        let named: Vec<_> = users.iter().chain(&leaver).cloned().collect();
        let mut routes = Vec::new();
        if users.is_empty() {
            routes = bucket.routes_to(&instance).await?;
        } else {
            for user in &named {
                routes.extend(bucket.route(route::key(user, &instance)).await?);
            }
        }
        let user = |route: &Route| UserId::from_token(route.key.split('.').next()?).ok();
        for user in routes.iter().filter_map(user).take(MOST_USERS).chain(named) {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        if users.is_empty() {
            return Err(ConformanceError::NobodyConnected(instance));
        }
        let subject = routes
            .iter()
            .find_map(|route| read_value(names, &instance, &route.value).ok());
        Ok(Self {
            client: jetstream.client(),
            subject: subject.unwrap_or_else(|| names.instance(&instance)),
            names: names.clone(),
            bucket,
            instance,
            timeouts: (heartbeat_timeout, delivery_timeout),
            users,
            leaver,
            routes,
            run: format!("{:08x}", fastrand::u32(..)),
            sent: AtomicUsize::new(0),
        })
    }

    /// Returns the beginning of the app server's subjects.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the users who should be connected there.
    pub fn users(&self) -> &[UserId] {
        &self.users
    }

    /// Returns a connected user.
    pub(super) fn user(&self) -> UserId {
        self.users[0].clone()
    }

    /// Returns the user who leaves.
    pub(super) fn leaver(&self) -> Result<&UserId, String> {
        self.leaver
            .as_ref()
            .ok_or_else(|| "no user was named to leave".to_owned())
    }

    /// The key of a user's route.
    pub(super) fn key(&self, user: &UserId) -> String {
        route::key(user, &self.instance)
    }

    /// Returns whether the user has a route.
    pub(super) async fn has_route(&self, user: &UserId) -> Result<bool, String> {
        let route = self.bucket.route(self.key(user)).await;
        route
            .map(|route| route.is_some())
            .map_err(|error| error.to_string())
    }

    /// Returns an unknown user.
    pub(super) fn stranger(&self) -> UserId {
        self.stranger_with("")
    }

    /// Returns an unknown user, with this at the end of the name: up to 64 bytes.
    pub(super) fn stranger_with(&self, end: &str) -> UserId {
        format!("stranger-{}-{}{end}", self.run, self.count())
            .parse()
            .expect("it is short and has no control characters")
    }

    /// A reminder for a user.
    pub(super) fn reminder(&self, user: &UserId) -> Reminder {
        super::sample::reminder(&self.run, self.count(), user)
    }

    /// A reminder for a user, finished.
    pub(super) fn sample(&self, user: &UserId) -> Sample {
        Sample::of(&self.reminder(user))
    }

    fn count(&self) -> usize {
        self.sent.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the maximum time for an answer.
    pub(super) fn timeout(&self, what: Ask) -> Duration {
        match what {
            Ask::Heartbeat => self.timeouts.0,
            Ask::Delivery => self.timeouts.1,
        }
    }

    /// Asks, and waits longer than Bellhop does, so that a late answer differs from none.
    pub(super) async fn ask(&self, what: Ask, body: Bytes) -> Result<Answer, String> {
        let patience = self.timeout(what) * 2;
        let subject = format!("{}.{}", self.subject, what.verb());
        let began = Instant::now();
        let request = Request::new().payload(body).timeout(Some(patience));
        match self.client.send_request(subject.clone(), request).await {
            Ok(message) => Ok(Answer {
                message,
                took: began.elapsed(),
            }),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => format!("no program subscribes to {subject}"),
                RequestErrorKind::TimedOut => format!("no answer within {patience:?}"),
                _ => error.to_string(),
            }),
        }
    }

    /// Asks, and does not care for an answer.
    pub(super) async fn send(&self, what: Ask, body: Bytes) -> Result<(), String> {
        let (subject, inbox) = (
            format!("{}.{}", self.subject, what.verb()),
            self.client.new_inbox(),
        );
        self.client
            .publish_with_reply(subject, inbox, body)
            .await
            .map_err(|error| error.to_string())
    }

    /// Asks, and takes an answer that is late for none, as Bellhop does.
    pub(super) async fn ask_in_time(&self, what: Ask, body: Bytes) -> Result<Answer, String> {
        let (answer, timeout) = (self.ask(what, body).await?, self.timeout(what));
        if answer.took <= timeout {
            return Ok(answer);
        }
        Err(format!(
            "the answer took {:.1?}; the limit is {timeout:?}",
            answer.took
        ))
    }

    /// Returns true if it answers the simplest requests at all.
    pub(super) async fn is_alive(&self) -> bool {
        let heartbeat = self.ask(Ask::Heartbeat, heartbeat_body(&[self.stranger()]));
        let delivery = self.ask(Ask::Delivery, body(&[self.sample(&self.stranger())]));
        let (heartbeat, delivery) = tokio::join!(heartbeat, delivery);
        heartbeat.is_ok() && delivery.is_ok()
    }

    /// Returns the users that it reports as connected.
    pub(super) async fn heartbeat(&self, users: &[UserId]) -> Result<BTreeSet<String>, String> {
        let answer = self
            .ask_in_time(Ask::Heartbeat, heartbeat_body(users))
            .await?;
        answer
            .read::<HeartbeatAnswer<String>>()
            .map(|answer| answer.connected.into_iter().collect())
    }

    /// Returns the reminders that it refuses, asked once.
    pub(super) async fn deliver_once(&self, samples: &[Sample]) -> Result<Vec<Refused>, String> {
        let answer = self.ask_in_time(Ask::Delivery, body(samples)).await?;
        answer.read::<DeliveryAnswer>().map(|answer| answer.refused)
    }

    /// Returns the reminders that it refuses as not connected. Reminders that it refuses as busy
    /// are sent again, as Bellhop does.
    pub(super) async fn deliver(&self, samples: &[Sample]) -> Result<Vec<Refused>, String> {
        let (began, mut pause) = (Instant::now(), BUSY_PAUSES.0);
        let (mut not_connected, mut left) = (Vec::new(), samples.to_vec());
        loop {
            let refused = self.deliver_once(&left).await?;
            let (busy, gone): (Vec<_>, Vec<_>) = refused
                .into_iter()
                .partition(|one| one.reason == Reason::Busy);
            not_connected.extend(gone);
            left.retain(|sample| sample.is_among(&busy));
            if left.is_empty() {
                return Ok(not_connected);
            }
            if began.elapsed() > BUSY_PATIENCE {
                return Err(format!("it was still busy after {BUSY_PATIENCE:?}"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BUSY_PAUSES.1);
        }
    }

    /// Has it accept all of these, or tells what it did instead.
    pub(super) async fn accepts(&self, samples: &[Sample]) -> Result<(), String> {
        let refused = self.deliver(samples).await?;
        match samples.iter().find(|sample| sample.is_among(&refused)) {
            None => Ok(()),
            Some(sample) => Err(format!(
                "it refused {}, which is for {}, as not_connected",
                sample.id, sample.user
            )),
        }
    }
}

impl Answer {
    /// Reads the contract's form, as Bellhop does: with a service error it is not an answer,
    /// whatever its body.
    pub(super) fn read<A: for<'a> Deserialize<'a>>(&self) -> Result<A, String> {
        let Message {
            headers, payload, ..
        } = &self.message;
        let code = headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Service-Error-Code"));
        let read = if code.is_some() {
            None
        } else {
            answer::read(payload)
        };
        read.ok_or_else(|| {
            let shown = String::from_utf8_lossy(&payload[..payload.len().min(200)]);
            let code = code
                .map(|code| format!("Nats-Service-Error-Code {code} with "))
                .unwrap_or_default();
            format!("it answered {code}`{shown}`")
        })
    }
}

/// A heartbeat's body.
pub(super) fn heartbeat_body(users: &[UserId]) -> Bytes {
    let users = users.iter().map(UserId::as_str).collect();
    serde_json::to_vec(&Heartbeat::<&str> { users })
        .expect("names are text")
        .into()
}

/// A delivery's body.
pub(super) fn body(samples: &[Sample]) -> Bytes {
    delivery_body(samples.iter().map(|sample| sample.json.as_slice()))
}
