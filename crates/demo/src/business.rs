//! A business system: publishes reminders at a steady rate by [`bellhop::client`](bellhop_client), in order.
//!
//! A few of its reminders are duplicates under another id, as happens where two jobs remind of the same thing. Now and
//! then one is bad, as happens too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_client::publisher::Options;
use bellhop_client::{Draft, Priority, Publisher, UserId};
use bellhop_protocol::reminder::set::{MAX_CONTENT_BYTES, MAX_TITLE_BYTES};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::catalogue::{self, ALICE, BILLING, CLAIMS, HR, Kind, SOURCES};
use crate::chance::between;
use crate::error::{DemoError, During};

const KINDS: [&[Kind]; 3] = [BILLING, CLAIMS, HR];

/// The most reminders in one set.
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
pub(crate) struct Business {
    source: usize,
    users: Arc<[UserId]>,
    per_second: f64,
    chance: fastrand::Rng,
    bad_at: Instant,
}

#[derive(Clone)]
struct Entry {
    user: usize,
    draft: Draft,
    is_valid: bool,
}

impl Business {
    /// The source with this number, which publishes so many reminders a second to these users.
    pub(crate) fn new(source: usize, users: Arc<[UserId]>, per_second: f64) -> Self {
        let mut chance = fastrand::Rng::new();
        // The first ones not all at once.
        let first = 1.5 + 4.0 * source as f64;
        let bad_at = Instant::now() + between(&mut chance, first..first + 1.0);
        Self {
            source,
            users,
            per_second,
            chance,
            bad_at,
        }
    }

    /// Publishes until `stop`.
    pub(crate) async fn run(
        mut self,
        url: String,
        board: Arc<Board>,
        stop: CancellationToken,
    ) -> Result<(), DemoError> {
        let source = SOURCES[self.source];
        let connection = async_nats::ConnectOptions::new()
            .name(source)
            .connect(url)
            .await;
        let connection = connection.during(source)?;
        // The bad ones are for Bellhop to reject.
        let options = Options {
            max_reminders: MAX_SET,
            validate: false,
            give_up_after: PATIENCE,
            ..Options::default()
        };
        let publisher =
            Publisher::start(connection, source.parse().expect("it is a name"), options);
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
            due =
                (due + self.per_second * (now - last).as_secs_f64()).min(self.per_second.max(1.0));
            last = now;
            while due >= 1.0 && board.with(|board| board.ledger.under_way()) < most_under_way {
                let size = (due as usize).min(MAX_SET);
                due -= size as f64;
                self.publish(&publisher, &board, size).await?;
            }
        }
        Ok(())
    }

    /// Publishes reminders, and waits until JetStream has them.
    async fn publish(
        &mut self,
        publisher: &Publisher,
        board: &Board,
        size: usize,
    ) -> Result<(), DemoError> {
        let source = SOURCES[self.source];
        let entries = self.entries(size);
        let now = Instant::now();
        // It is entered before it is on its way: an app server may have it before the acknowledgement is here.
        let ids: Vec<String> = board.with(|board| {
            entries
                .iter()
                .map(|it| board.ledger.publish(now, self.source, it.user, it.is_valid))
                .collect()
        });
        let mut publishing = Vec::with_capacity(size);
        for (Entry { draft, .. }, id) in entries.into_iter().zip(ids) {
            publishing.push(
                publisher
                    .publish(Draft {
                        id: Some(id),
                        ..draft
                    })
                    .await
                    .during(source)?,
            );
        }
        let mut last_set = None;
        for stored in publishing {
            let set = Some(stored.await.during(source)?.set);
            if std::mem::replace(&mut last_set, set) != set {
                board.with(|board| board.sets += 1);
            }
        }
        Ok(())
    }

    /// Makes reminders, without their ids.
    fn entries(&mut self, size: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(size);
        while entries.len() < size {
            let twin = (!entries.is_empty() && self.chance.f64() < DUPLICATES)
                .then(|| self.chance.usize(..entries.len()));
            let entry = twin.map(|at| entries[at].clone());
            entries.push(entry.unwrap_or_else(|| self.entry()));
        }
        let now = Instant::now();
        if now >= self.bad_at {
            self.bad_at = now + between(&mut self.chance, BAD_EVERY);
            self.spoil(&mut entries[size - 1]);
        }
        entries
    }

    fn entry(&mut self) -> Entry {
        let chance = &mut self.chance;
        let kind = &KINDS[self.source][chance.usize(..KINDS[self.source].len())];
        let user = if chance.f64() < ALICES_SHARE {
            ALICE
        } else {
            chance.usize(..self.users.len())
        };
        let data = |number: u32| {
            to_raw_value(&json!({ "case": number })).expect("it has only string keys")
        };
        let draft = Draft {
            title: Some(kind.title.to_owned()),
            tags: [SOURCES[self.source], kind.tag]
                .map(|tag| tag.parse().expect("it is a name"))
                .into(),
            priority: Priority::named(kind.priority).unwrap_or_default(),
            expires_at: kind
                .expires
                .then(|| Timestamp::now() + SignedDuration::from_hours(7 * 24)),
            data: (chance.f64() < 0.1).then(|| data(chance.u32(..))),
            ..Draft::new(
                self.users[user].clone(),
                catalogue::fill(kind.content, chance),
            )
        };
        Entry {
            user,
            draft,
            is_valid: true,
        }
    }

    fn spoil(&self, entry: &mut Entry) {
        match SOURCES[self.source] {
            "billing" => entry.draft.title = Some("!".repeat(MAX_TITLE_BYTES + 1)),
            "claims" => entry.draft.content = "!".repeat(MAX_CONTENT_BYTES + 1),
            _ => entry.draft.content.clear(),
        }
        entry.is_valid = false;
    }
}
