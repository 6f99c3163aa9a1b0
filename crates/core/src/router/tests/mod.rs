//! The contract, scenario by scenario.
//!
//! A [`TestRouter`] is a machine with a clock that stands still until [`TestRouter::wait`] moves
//! it. Every step answers what the machine wants done, one line for each action, and audits the
//! machine.

mod catching_up;
mod delivery;
mod devices;
mod exhaustive;
mod expected;
mod expiry;
mod instance;
mod keys;
mod mailbox;
mod merge;
mod parks;
mod renewals;
mod rerouting;
mod room;
mod slow;
mod stats;
mod suspects;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Action, Company, Entry, HELD_BACK_AFTER, Input, Instance, Item, MAX_ROUTES, MailboxSummary,
    NoAnswer, Now, Page, Refusal, Room, Router, Settings, Settled, Text, Undelivered,
};
use bellhop_protocol::reminder::Priority;
use bellhop_protocol::token::{Source, UserId};

/// No action.
const NOTHING: [&str; 0] = [];

/// A machine and its clock. Events and revisions are numbered from 1.
struct TestRouter {
    partition: Router,
    now: Now,
    sequence: u64,
    revision: u64,
    /// Every route that was put is fed at once, so that catching up takes no time.
    knows_all_routes: bool,
}

/// A reminder to be published.
struct Draft {
    user: UserId,
    expires_at: Option<i64>,
    bytes: usize,
    says: Option<(u128, Priority)>,
    may_reroute: bool,
    source: Source,
    priority: Priority,
}

fn reminder(user: &str) -> Draft {
    let (source, priority) = (source("billing"), Priority::Normal);
    Draft {
        user: name(user),
        expires_at: None,
        bytes: 100,
        says: None,
        may_reroute: true,
        source,
        priority,
    }
}

fn source(name: &str) -> Source {
    name.parse().unwrap()
}

impl Draft {
    fn expires(self, at_ms: i64) -> Self {
        Self {
            expires_at: Some(at_ms),
            ..self
        }
    }

    fn of(self, of: &str, priority: Priority) -> Self {
        Self {
            source: source(of),
            priority,
            ..self
        }
    }

    fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    fn stays(self) -> Self {
        Self {
            may_reroute: false,
            ..self
        }
    }

    fn says(self, what: u128) -> Self {
        Self {
            says: Some((what, Priority::Normal)),
            ..self
        }
    }

    fn urgently(self) -> Self {
        Self {
            says: self.says.map(|(what, _)| (what, Priority::Urgent)),
            ..self
        }
    }
}

/// A message of a mailbox.
fn mail(sequence: u64) -> Entry {
    let (source, priority) = (source("billing"), Priority::Normal);
    let item = Item::Parked { sequence };
    Entry {
        item,
        expires_at: None,
        bytes: 100,
        may_reroute: false,
        source,
        priority,
        text: None,
    }
}

/// A message of a mailbox that says something; it was published as the reminder of this id.
fn saying(sequence: u64, id: &str, what: u128) -> Entry {
    Entry {
        text: Some(text(id, what, Priority::Normal)),
        ..mail(sequence)
    }
}

fn text(id: &str, hash: u128, priority: Priority) -> Arc<Text> {
    Arc::new(Text {
        id: id.to_owned(),
        hash,
        priority,
    })
}

fn expiring(sequence: u64, at_ms: i64) -> Entry {
    Entry {
        expires_at: Some(at_ms),
        ..mail(sequence)
    }
}

impl TestRouter {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            lease: Duration::from_secs(10),
            ask_ahead: Duration::ZERO,
            instance_backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            busy_backoff: (Duration::from_millis(200), Duration::from_secs(5)),
            all_devices: false,
            turn_timeout: Duration::from_secs(2),
            heartbeat_users: 1_000,
            delivery_bytes: 1_000,
            room: Room {
                limit: 100,
                reserve: 0,
                source_share: 100,
            },
            park_batch: (100, 10_000),
            park_again: (Duration::from_millis(100), Duration::from_millis(300)),
            reads_in_flight: 8,
            expiry_interval: Duration::from_secs(60),
            copy_rerouted: false,
            reroute_after: Duration::ZERO,
            expected_most: (100, 10_000),
            reroute_timeout: Duration::from_secs(5),
            merge_window: Duration::from_secs(30),
            merge_limit: 100,
        };
        change(&mut settings);
        Self {
            partition: Router::new(settings),
            now: start(),
            sequence: 0,
            revision: 0,
            knows_all_routes: true,
        }
    }

    fn step(&mut self, input: Input) -> Vec<String> {
        let mut actions = Vec::new();
        self.partition.handle(self.now, input, &mut actions);
        self.partition.audit();
        let before = actions.len();
        if self.knows_all_routes {
            actions.retain(|action| *action != Action::CatchUpWithRoutes);
        }
        let mut lines: Vec<_> = actions.iter().flat_map(show).collect();
        if actions.len() < before {
            lines.extend(self.step(Input::CaughtUpWithRoutes));
        }
        lines
    }

    /// Lets time pass, with a tick at every deadline on the way.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let until = later(self.now, ms);
        let mut actions = Vec::new();
        while let Some(at) = self
            .partition
            .next_deadline()
            .filter(|at| *at <= until.instant)
        {
            let ahead = at.saturating_duration_since(self.now.instant);
            self.now = later(self.now, u64::try_from(ahead.as_millis()).unwrap());
            actions.extend(self.step(Input::Tick));
        }
        self.now = until;
        actions
    }

    /// One event with a reminder for each of these users.
    fn publish(&mut self, users: &str) -> Vec<String> {
        self.event(users.split(' ').map(reminder))
    }

    fn event(&mut self, drafts: impl IntoIterator<Item = Draft>) -> Vec<String> {
        self.sequence += 1;
        let sequence = self.sequence;
        let entry = |(
            index,
            Draft {
                user,
                expires_at,
                bytes,
                says,
                may_reroute,
                source,
                priority,
            },
        )| {
            let item = Item::Event { sequence, index };
            let text = says.map(|(what, priority)| text(&item.to_string(), what, priority));
            (
                user,
                Entry {
                    item,
                    expires_at,
                    bytes,
                    may_reroute,
                    source,
                    priority,
                    text,
                },
            )
        };
        self.step(Input::Event(
            drafts.into_iter().enumerate().map(entry).collect(),
        ))
    }

    fn stop(&mut self) -> Vec<String> {
        self.step(Input::Stop)
    }

    fn found(&mut self, user: &str, (first, last): (u64, u64), count: usize) -> Vec<String> {
        self.step(Input::MailboxFound(
            name(user),
            MailboxSummary {
                first,
                last,
                count,
                next_expiry: None,
            },
        ))
    }

    /// The user's mailbox was counted: the sequences of each source's reminders; or they are no
    /// fewer than were known.
    fn counted(
        &mut self,
        user: &str,
        found: Option<&[(&str, std::ops::Range<u64>)]>,
    ) -> Vec<String> {
        let found = found.map(|all| {
            all.iter()
                .map(|(of, all)| (Some(source(of)), all.clone().collect()))
                .collect()
        });
        self.step(Input::MailboxCounted {
            user: name(user),
            found,
        })
    }

    fn up(&mut self, user: &str, at: &str) -> Vec<String> {
        self.revision += 1;
        self.up_at(self.revision, user, at)
    }

    fn up_at(&mut self, revision: u64, user: &str, at: &str) -> Vec<String> {
        self.step(Input::RouteUp {
            user: name(user),
            instance: instance(at),
            revision,
        })
    }

    fn caught_up(&mut self) -> Vec<String> {
        self.step(Input::CaughtUpWithRoutes)
    }

    /// The user's associates are these from now on.
    fn associates(&mut self, user: &str, associates: &str) -> Vec<String> {
        let associates = associates.split_whitespace().map(name).collect();
        self.step(Input::Associates {
            user: name(user),
            associates,
        })
    }

    /// The associate's routes were looked up: these instances.
    fn looked_up(&mut self, user: &str, associate: &str, instances: &str) -> Vec<String> {
        let instances = instances.split_whitespace().map(instance).collect();
        self.step(Input::RoutesFound {
            user: name(user),
            associate: name(associate),
            instances,
        })
    }

    fn down(&mut self, user: &str, at: &str) -> Vec<String> {
        self.revision += 1;
        self.down_at(self.revision, user, at)
    }

    fn down_at(&mut self, revision: u64, user: &str, at: &str) -> Vec<String> {
        self.step(Input::RouteDown {
            user: name(user),
            instance: name(at),
            revision,
        })
    }

    /// A heartbeat is answered with these users.
    fn connected(&mut self, at: &str, users: &str) -> Vec<String> {
        let users = users.split_whitespace().map(name).collect();
        self.step(Input::HeartbeatAnswered {
            instance: instance(at),
            answer: Ok(users),
        })
    }

    fn heartbeat_fails(&mut self, at: &str, why: NoAnswer) -> Vec<String> {
        self.step(Input::HeartbeatAnswered {
            instance: instance(at),
            answer: Err(why),
        })
    }

    fn accepted(&mut self, at: &str) -> Vec<String> {
        self.refused(at, &[])
    }

    fn refused(&mut self, at: &str, refused: &[(usize, usize, Refusal)]) -> Vec<String> {
        self.answered(at, Ok(refused.to_vec()))
    }

    fn delivery_fails(&mut self, at: &str, why: impl Into<Undelivered>) -> Vec<String> {
        self.answered(at, Err(why.into()))
    }

    /// The shared delivery is answered; or, where none is under way, the one that went alone.
    fn answered(
        &mut self,
        at: &str,
        answer: Result<Vec<(usize, usize, Refusal)>, Undelivered>,
    ) -> Vec<String> {
        let company = if self.partition.is_sharing(&instance(at)) {
            Company::Shared
        } else {
            Company::Alone
        };
        self.answered_in(company, at, answer)
    }

    fn answered_in(
        &mut self,
        company: Company,
        at: &str,
        answer: Result<Vec<(usize, usize, Refusal)>, Undelivered>,
    ) -> Vec<String> {
        self.step(Input::Delivered {
            instance: instance(at),
            company,
            answer,
        })
    }

    fn parked(&mut self, sequences: &[u64]) -> Vec<String> {
        self.step(Input::Parked(sequences.to_vec()))
    }

    fn park_refused(&mut self) -> Vec<String> {
        self.step(Input::ParkRefused)
    }

    /// A page behind which nothing lies.
    fn last_page(&mut self, user: &str, entries: &[Entry], next: u64) -> Vec<String> {
        let page = Page {
            entries: entries.to_vec(),
            next,
            is_last: true,
        };
        self.step(Input::MailboxRead {
            user: name(user),
            page,
        })
    }

    /// A page that another one follows.
    fn page(&mut self, user: &str, entries: &[Entry], next: u64) -> Vec<String> {
        let page = Page {
            entries: entries.to_vec(),
            next,
            is_last: false,
        };
        self.step(Input::MailboxRead {
            user: name(user),
            page,
        })
    }

    /// A user with a held connection.
    fn hold(&mut self, user: &str, at: &str) {
        self.up(user, at);
        self.publish(user);
        self.connected(at, user);
        self.accepted(at);
    }

    /// A user without route and with these messages in the mailbox.
    fn away_with_mail(&mut self, user: &str, entries: &[Entry]) {
        let Item::Parked { sequence: mut next } = entries[0].item else {
            panic!("not mail: {entries:?}")
        };
        for entry in entries {
            let Item::Parked { sequence } = entry.item else {
                panic!("not mail: {entries:?}")
            };
            assert!(sequence >= next, "in order: {entries:?}");
            next = sequence + 1;
            self.event([Draft {
                expires_at: entry.expires_at,
                bytes: entry.bytes,
                ..reminder(user)
            }]);
            self.parked(&[sequence]);
        }
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        assert!(self.partition.is_empty(), "{:#?}", self.partition);
        assert!(self.partition.is_quiet());
        assert_eq!(self.partition.next_deadline(), None);
    }
}

/// The clocks at the start of a test: wall-clock times are milliseconds from here.
#[allow(clippy::disallowed_methods)] // Some instant is needed to count from; which one makes no difference.
pub(super) fn start() -> Now {
    Now {
        instant: Instant::now(),
        unix_ms: 0,
    }
}

pub(super) fn later(now: Now, ms: u64) -> Now {
    Now {
        instant: now.instant + Duration::from_millis(ms),
        unix_ms: now.unix_ms + i64::try_from(ms).unwrap(),
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn instance(at: &str) -> Arc<Instance> {
    Arc::new(Instance {
        name: name(at),
        subject: format!("bellhop.app.{at}"),
    })
}

/// An action in words, each settled reminder by itself.
fn show(action: &Action) -> Vec<String> {
    match action {
        Action::Settle(settled) => settled.iter().map(Settled::to_string).collect(),
        action => vec![action.to_string()],
    }
}
