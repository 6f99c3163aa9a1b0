//! The app server that is tried: what it is asked as Bellhop asks it, and what it answers, with the time that it took.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::client::{Request, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;

use super::sample::Sample;
use super::{ConformanceError, Options};
use crate::nats::bucket::{self, Found};
use crate::nats::instance::{self, DeliveryAnswer, Heartbeat, HeartbeatAnswer, Reason, Refused};
use crate::nats::{Nats, NatsError};
use crate::reminder::Reminder;
use crate::token::{InstanceName, UserId};
use crate::wire::route;
use crate::wire::subject::read_value;

/// Routes of an instance that are looked at. JetStream hands out no more than 1,024 keys at once.
const MOST_ROUTES: usize = 1_000;
/// Users who are asked about and get reminders. What one rule cannot see with these, it does not see with more.
const MOST_USERS: usize = 20;
/// How long `busy` may go on before it counts as never.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// The pauses that Bellhop makes after `busy`, in the beginning and at last.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What an app server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Who is connected.
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
    message: async_nats::Message,
    pub(super) took: Duration,
}

/// An app server, and who is connected to it.
pub struct Peer {
    pub(super) nats: Nats,
    pub(super) instance: InstanceName,
    subject: String,
    timeouts: (Duration, Duration),
    /// Who is connected, by the word of whoever runs this, or by the routes: one at least.
    pub(super) users: Vec<UserId>,
    leaver: Option<UserId>,
    /// The routes, as they stand in the bucket.
    pub(super) routes: Vec<Found>,
    /// Makes what is sent in this run differ from what was sent in others.
    run: String,
    sent: AtomicUsize,
}

impl Peer {
    /// Learns from the bucket who is connected to the instance, and where it is asked.
    ///
    /// # Errors
    /// When nobody is connected, or the bucket cannot be read.
    pub async fn find(nats: &Nats, options: Options) -> Result<Self, ConformanceError> {
        let Options { instance, mut users, leaver, heartbeat_timeout, delivery_timeout } = options;
        let named: Vec<_> = users.iter().chain(&leaver).cloned().collect();
        let routes = routes(nats, &instance, if users.is_empty() { &[] } else { &named }).await?;
        let user = |found: &Found| UserId::from_token(found.key.split('.').next()?).ok();
        for user in routes.iter().filter_map(user).take(MOST_USERS).chain(named) {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        if users.is_empty() {
            return Err(ConformanceError::NobodyConnected(instance));
        }
        let subject = routes.iter().find_map(|found| read_value(&nats.names, &instance, &found.value).ok());
        Ok(Self {
            nats: nats.clone(),
            subject: subject.unwrap_or_else(|| nats.names.instance(&instance)),
            instance,
            timeouts: (heartbeat_timeout, delivery_timeout),
            users,
            leaver,
            routes,
            run: format!("{:08x}", fastrand::u32(..)),
            sent: AtomicUsize::new(0),
        })
    }

    /// What the app server's subjects begin with.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who is held to be connected there.
    pub fn users(&self) -> &[UserId] {
        &self.users
    }

    /// Somebody who is connected.
    pub(super) fn user(&self) -> UserId {
        self.users[0].clone()
    }

    /// Somebody who leaves.
    pub(super) fn leaver(&self) -> Result<&UserId, String> {
        self.leaver.as_ref().ok_or_else(|| "nobody was to leave".to_owned())
    }

    /// The key of a user's route.
    pub(super) fn key(&self, user: &UserId) -> String {
        route::key(user, &self.instance)
    }

    /// Somebody of whom nobody has heard.
    pub(super) fn stranger(&self) -> UserId {
        self.stranger_with("")
    }

    /// Somebody of whom nobody has heard, with this at the end of the name: up to 64 bytes.
    pub(super) fn stranger_with(&self, end: &str) -> UserId {
        format!("nobody-{}-{}{end}", self.run, self.count()).parse().expect("it is short and has no control characters")
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

    /// How long an answer may take.
    pub(super) fn timeout(&self, what: Ask) -> Duration {
        match what {
            Ask::Heartbeat => self.timeouts.0,
            Ask::Delivery => self.timeouts.1,
        }
    }

    /// Asks, and waits longer than Bellhop does, so that a late answer is told from none.
    pub(super) async fn ask(&self, what: Ask, body: Bytes) -> Result<Answer, String> {
        let patience = self.timeout(what) * 2;
        let subject = format!("{}.{}", self.subject, what.verb());
        let began = Instant::now();
        let request = Request::new().payload(body).timeout(Some(patience));
        match self.nats.client.send_request(subject.clone(), request).await {
            Ok(message) => Ok(Answer { message, took: began.elapsed() }),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => format!("nobody subscribes to {subject}"),
                RequestErrorKind::TimedOut => format!("no answer within {patience:?}"),
                _ => error.to_string(),
            }),
        }
    }

    /// Asks, and does not care for an answer.
    pub(super) async fn send(&self, what: Ask, body: Bytes) -> Result<(), String> {
        let (subject, inbox) = (format!("{}.{}", self.subject, what.verb()), self.nats.client.new_inbox());
        self.nats.client.publish_with_reply(subject, inbox, body).await.map_err(|error| error.to_string())
    }

    /// Asks, and takes an answer that is late for none, as Bellhop does.
    pub(super) async fn ask_in_time(&self, what: Ask, body: Bytes) -> Result<Answer, String> {
        let (answer, timeout) = (self.ask(what, body).await?, self.timeout(what));
        if answer.took <= timeout {
            return Ok(answer);
        }
        Err(format!("the answer took {:.1?}, and {timeout:?} are allowed", answer.took))
    }

    /// Whether it answers the simplest requests with anything at all.
    pub(super) async fn is_alive(&self) -> bool {
        let heartbeat = self.ask(Ask::Heartbeat, heartbeat_body(&[self.stranger()]));
        let delivery = self.ask(Ask::Delivery, body(&[self.sample(&self.stranger())]));
        let (heartbeat, delivery) = tokio::join!(heartbeat, delivery);
        heartbeat.is_ok() && delivery.is_ok()
    }

    /// Who of these it says is connected.
    pub(super) async fn heartbeat(&self, users: &[UserId]) -> Result<BTreeSet<String>, String> {
        let answer = self.ask_in_time(Ask::Heartbeat, heartbeat_body(users)).await?;
        answer.read::<HeartbeatAnswer<String>>().map(|answer| answer.connected.into_iter().collect())
    }

    /// What it refuses of these, asked once.
    pub(super) async fn deliver_once(&self, samples: &[Sample]) -> Result<Vec<Refused>, String> {
        let answer = self.ask_in_time(Ask::Delivery, body(samples)).await?;
        answer.read::<DeliveryAnswer>().map(|answer| answer.refused)
    }

    /// Whom of these it refuses as not connected. What it is too busy for is brought again, as Bellhop does.
    pub(super) async fn deliver(&self, samples: &[Sample]) -> Result<Vec<Refused>, String> {
        let (began, mut pause) = (Instant::now(), BUSY_PAUSES.0);
        let (mut not_connected, mut left) = (Vec::new(), samples.to_vec());
        loop {
            let refused = self.deliver_once(&left).await?;
            let (busy, gone): (Vec<_>, Vec<_>) = refused.into_iter().partition(|one| one.reason == Reason::Busy);
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
            Some(sample) => Err(format!("it refused {}, which is for {}, as not_connected", sample.id, sample.user)),
        }
    }
}

/// The routes of these users to an instance; everybody's, if nobody is named.
async fn routes(nats: &Nats, instance: &InstanceName, users: &[UserId]) -> Result<Vec<Found>, NatsError> {
    let keys = match users {
        [] => vec![format!("*.{}", instance.escaped())],
        users => users.iter().map(|user| route::key(user, instance)).collect(),
    };
    let what =
        || format!("look for the routes to {instance}; where they are more than {MOST_ROUTES}, name users with --user");
    let mut routes = Vec::new();
    for key in keys {
        let found = bucket::last(nats, &nats.names.routes_bucket(), &key, MOST_ROUTES).await;
        routes.extend(found.map_err(|error| NatsError::failed(what(), error))?);
    }
    Ok(routes)
}

impl Answer {
    /// Reads the contract's form, as Bellhop does.
    pub(super) fn read<A: for<'a> Deserialize<'a>>(&self) -> Result<A, String> {
        instance::read(&self.message).ok_or_else(|| {
            let shown = &self.message.payload[..self.message.payload.len().min(200)];
            let code = crate::nats::header(self.message.headers.as_ref(), "Nats-Service-Error-Code");
            let code = code.map(|code| format!("Nats-Service-Error-Code {code} with ")).unwrap_or_default();
            format!("it answered {code}`{}`", String::from_utf8_lossy(shown))
        })
    }
}

/// A heartbeat's body.
pub(super) fn heartbeat_body(users: &[UserId]) -> Bytes {
    let users = users.iter().map(UserId::as_str).collect();
    serde_json::to_vec(&Heartbeat::<&str> { users }).expect("names are text").into()
}

/// A delivery's body.
pub(super) fn body(samples: &[Sample]) -> Bytes {
    instance::delivery_body(samples.iter().map(|sample| sample.json.as_slice()))
}
