//! A business system: publishes sets of reminders to JetStream at a steady rate, each set after the last one is stored,
//! so that its reminders have an order.
//!
//! A few of its reminders are duplicates under another id, as happens where two jobs remind of the same thing. Now and
//! then one is bad, as happens too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::catalogue::{self, BILLING, CLAIMS, HR, Kind};
use super::crowd::between;
use super::{ALICE, DemoError};

/// The demo's sources.
pub(super) const SOURCES: [&str; 3] = ["billing", "claims", "hr"];
const KINDS: [&[Kind]; 3] = [BILLING, CLAIMS, HR];

/// Reminders in one set; what is more goes into the next one.
const MAX_SET: usize = 500;
/// Alice gets this share of all reminders, so that something is seen of her.
const ALICES_SHARE: f64 = 0.02;
/// A machine that is this far behind is given time: the demo shows what it can do, not how it drowns.
const MOST_BEHIND: Duration = Duration::from_millis(1_500);
const DUPLICATES: f64 = 0.03;
/// Seconds between two bad reminders of one source.
const BAD_EVERY: std::ops::Range<f64> = 6.0..18.0;
/// A set that is not stored after this long ends the demo.
const PATIENCE: Duration = Duration::from_secs(15);

/// One of them.
pub(super) struct Business {
    source: usize,
    users: Arc<[String]>,
    per_second: f64,
    chance: fastrand::Rng,
    sets: u64,
    bad_at: Instant,
}

struct Draft {
    user: usize,
    fields: Value,
    is_valid: bool,
}

impl Business {
    /// The source with this number, which publishes so many reminders a second to these users.
    pub(super) fn new(source: usize, users: Arc<[String]>, per_second: f64) -> Self {
        let mut chance = fastrand::Rng::new();
        // The first ones not all at once.
        let first = 1.5 + 4.0 * source as f64;
        let bad_at = Instant::now() + between(&mut chance, first..first + 1.0);
        Self { source, users, per_second, chance, sets: 0, bad_at }
    }

    /// Publishes until `stop`.
    pub(super) async fn run(
        mut self,
        url: String,
        board: Arc<Board>,
        stop: CancellationToken,
    ) -> Result<(), DemoError> {
        let failed = |problem: &dyn std::fmt::Display| DemoError::nats(SOURCES[self.source], problem);
        let client = async_nats::ConnectOptions::new().name(SOURCES[self.source]).connect(url);
        let jetstream = jetstream::new(client.await.map_err(|e| failed(&e))?);
        let seconds_behind = SOURCES.len() as f64 * MOST_BEHIND.as_secs_f64();
        let most_under_way = (self.per_second * seconds_behind) as usize + MAX_SET;
        let (mut due, mut last) = (0.0, Instant::now());
        while !stop.is_cancelled() {
            let pause = Duration::from_millis(self.chance.u64(30..120));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            let now = Instant::now();
            // What could not be published for more than a second is not made good.
            due = (due + self.per_second * (now - last).as_secs_f64()).min(self.per_second.max(1.0));
            last = now;
            while due >= 1.0 && board.with(|board| board.ledger.under_way()) < most_under_way {
                let size = (due as usize).min(MAX_SET);
                due -= size as f64;
                self.publish(&jetstream, &board, size).await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, jetstream: &Context, board: &Board, size: usize) -> Result<(), DemoError> {
        let source = SOURCES[self.source];
        let drafts = self.drafts(size);
        let now = Instant::now();
        // It is entered before it is on its way: an app server may have it before the acknowledgement is here.
        let ids: Vec<String> = board.with(|board| {
            board.sets += 1;
            drafts.iter().map(|it| board.ledger.publish(now, self.source, it.user, it.is_valid)).collect()
        });
        self.sets += 1;
        let set = format!("{}/{source}/{}", &Timestamp::now().to_string()[..10], self.sets);
        let with_id = |(Draft { mut fields, .. }, id)| {
            fields["id"] = json!(id);
            fields
        };
        let reminders: Vec<Value> = drafts.into_iter().zip(ids).map(with_id).collect();
        let body = json!({ "id": set, "reminders": reminders }).to_string();
        store(jetstream, format!("bellhop.sets.{source}"), &set, body).await.map_err(|e| DemoError::nats(source, e))
    }

    /// A set's reminders, without their ids.
    fn drafts(&mut self, size: usize) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::with_capacity(size);
        while drafts.len() < size {
            let twin =
                (!drafts.is_empty() && self.chance.f64() < DUPLICATES).then(|| self.chance.usize(..drafts.len()));
            let draft = match twin.map(|at| &drafts[at]).filter(|twin| twin.is_valid) {
                Some(Draft { user, fields, .. }) => Draft { user: *user, fields: fields.clone(), is_valid: true },
                None => self.draft(),
            };
            drafts.push(draft);
        }
        let now = Instant::now();
        if now >= self.bad_at {
            self.bad_at = now + between(&mut self.chance, BAD_EVERY);
            self.spoil(&mut drafts[size - 1]);
        }
        drafts
    }

    fn draft(&mut self) -> Draft {
        let chance = &mut self.chance;
        let kind = &KINDS[self.source][chance.usize(..KINDS[self.source].len())];
        let user = if chance.f64() < ALICES_SHARE { ALICE } else { chance.usize(..self.users.len()) };
        let mut fields = json!({
            "user": self.users[user],
            "title": kind.title,
            "content": catalogue::fill(kind.content, chance),
            "tags": [SOURCES[self.source], kind.tag],
            "priority": kind.priority,
        });
        if kind.expires {
            fields["expires_at"] = json!(Timestamp::now() + SignedDuration::from_hours(7 * 24));
        }
        if chance.f64() < 0.1 {
            fields["data"] = json!({ "case": chance.u32(..) });
        }
        Draft { user, fields, is_valid: true }
    }

    fn spoil(&mut self, draft: &mut Draft) {
        let (field, value) = [("priority", "asap"), ("expires_at", "tomorrow"), ("content", "")][self.source];
        draft.fields[field] = json!(value);
        draft.is_valid = false;
    }
}

/// Publishes until it is stored. The message id makes all tries one message.
async fn store(jetstream: &Context, subject: String, id: &str, body: String) -> Result<(), String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let headers = HeaderMap::from_iter([("Nats-Msg-Id".parse().expect("a header's name"), id.into())]);
        let sent = jetstream.publish_with_headers(subject.clone(), headers, body.clone().into()).await;
        let problem = match sent {
            Ok(acknowledgement) => match acknowledgement.await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() >= give_up {
            return Err(problem);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
