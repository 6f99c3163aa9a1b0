//! The demo's own account of its reminders, which decides the verdict. Pure, and it knows nothing of how Bellhop works:
//! only what was published, what app servers accepted, and what the outcomes say.
//!
//! A reminder that is settled is forgotten, so that an endless demo needs no endless memory. Numbers count up in each
//! source, and that is enough to know a settled reminder again: it is one that was published and is not open.
//!
//! Others may publish too, or take a user's reminders by a route of their own. Their reminders are none of the ledger's,
//! and what went to their instances is counted apart: no fault of the router's.

mod questions;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::latency::Latencies;
pub(crate) use terms::{Accepted, Counts, Record, Trouble};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: usize,
    number: u64,
}

/// A published reminder that is not settled.
#[derive(Debug)]
struct Open {
    user: usize,
    published_at: Instant,
    is_valid: bool,
    is_parked: bool,
    taken: Taken,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Not,
    /// An app server accepted it.
    Itself,
    /// An app server accepted the one that it was merged into.
    Merged,
    /// A visitor's instance took one or the other.
    Elsewhere,
}

/// A final outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    DeliveredElsewhere,
    Merged(Option<Key>),
    Refused,
}

#[derive(Debug, Default)]
struct User {
    /// Of each source, the last number that was accepted.
    accepted: Vec<Option<u64>>,
    parked: usize,
    troubles: usize,
}

/// The account.
#[derive(Debug)]
pub(crate) struct Ledger {
    sources: Vec<(String, u64)>,
    instances: Vec<String>,
    names: Vec<String>,
    users: Vec<User>,
    open: BTreeMap<Key, Open>,
    /// What visitors' instances took, by instance.
    elsewhere: BTreeMap<String, u64>,
    taken_elsewhere: BTreeSet<Key>,
    troubles: BTreeMap<Trouble, (u64, String)>,
    counts: Counts,
    /// From publishing to acceptance, where the user was connected all the time.
    pub live: Latencies,
    /// The same for those that waited in a mailbox.
    pub waited: Latencies,
}

impl Ledger {
    /// An empty account of these sources, users and app servers.
    pub(crate) fn new(sources: &[&str], users: &[String], instances: &[&str]) -> Self {
        Self {
            sources: sources
                .iter()
                .map(|source| ((*source).to_owned(), 0))
                .collect(),
            instances: instances
                .iter()
                .map(|instance| (*instance).to_owned())
                .collect(),
            names: users.to_vec(),
            users: users
                .iter()
                .map(|_| User {
                    accepted: vec![None; sources.len()],
                    ..User::default()
                })
                .collect(),
            open: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            taken_elsewhere: BTreeSet::new(),
            troubles: BTreeMap::new(),
            counts: Counts::default(),
            live: Latencies::default(),
            waited: Latencies::default(),
        }
    }

    /// Enters a reminder that is about to be published, in the order of publishing. Answers its id.
    pub(crate) fn publish(
        &mut self,
        now: Instant,
        source: usize,
        user: usize,
        is_valid: bool,
    ) -> String {
        let (name, next) = &mut self.sources[source];
        let key = Key {
            source,
            number: *next,
        };
        let id = format!("{name}-{next}");
        *next += 1;
        self.counts.published += 1;
        let (taken, end) = (Taken::Not, None);
        self.open.insert(
            key,
            Open {
                user,
                published_at: now,
                is_valid,
                is_parked: false,
                taken,
                end,
            },
        );
        id
    }

    /// Records that an app server accepted a reminder. Returns how long it took, or `None` where it is a visitor's.
    pub(crate) fn accept(&mut self, now: Instant, accepted: &Accepted<'_>) -> Option<Duration> {
        let Some(key) = self.key(accepted.source, accepted.id) else {
            self.counts.visitors += 1;
            return None;
        };
        let mut latency = Duration::ZERO;
        match self.open.get_mut(&key) {
            Some(open) if open.taken == Taken::Not => {
                open.taken = Taken::Itself;
                latency = now.duration_since(open.published_at);
                let user = open.user;
                self.counts.delivered += 1;
                self.counts.waited += u64::from(accepted.has_waited);
                if accepted.has_waited {
                    &mut self.waited
                } else {
                    &mut self.live
                }
                .note(latency);
                self.leaves_mailbox(key);
                if self.names[user] != accepted.user {
                    self.trouble(Trouble::Misdelivered, key, Some(user));
                }
                if self.users[user].accepted[key.source].is_some_and(|last| last > key.number) {
                    self.trouble(Trouble::OutOfOrder, key, Some(user));
                }
                let last = &mut self.users[user].accepted[key.source];
                *last = (*last).max(Some(key.number));
                self.judge(key);
            }
            again => {
                let user = again.map(|open| open.user);
                self.trouble(Trouble::Repeated, key, user);
            }
        }
        for merged in accepted
            .merged
            .iter()
            .filter_map(|one| self.key(accepted.source, &one.id))
            .collect::<Vec<_>>()
        {
            self.merge(merged, Taken::Merged);
        }
        Some(latency)
    }

    /// The one that this one was merged into has been taken.
    fn merge(&mut self, key: Key, taken: Taken) {
        match self.open.get_mut(&key) {
            Some(open) if open.taken == Taken::Not => {
                open.taken = taken;
                match taken {
                    Taken::Elsewhere => self.counts.elsewhere += 1,
                    _ => self.counts.merged += 1,
                }
                self.judge(key);
            }
            again => {
                let user = again.map(|open| open.user);
                self.trouble(Trouble::Repeated, key, user);
            }
        }
    }

    /// Takes in what the router says became of a reminder.
    pub(crate) fn outcome(&mut self, record: &Record) {
        let Some(key) = self.key(&record.source, &record.id) else {
            return;
        };
        let end = match record.outcome.as_str() {
            "parked" => return self.enters_mailbox(key),
            "delivered" | "rerouted"
                if record
                    .accepted_by()
                    .any(|instance| self.instances.contains(instance)) =>
            {
                End::Delivered
            }
            "delivered" | "rerouted" => End::DeliveredElsewhere,
            "merged" => End::Merged(
                record
                    .into
                    .as_ref()
                    .and_then(|into| self.key(&record.source, into)),
            ),
            _ => End::Refused,
        };
        match self.open.get_mut(&key) {
            Some(open) if open.end.is_none() => open.end = Some(end),
            _ => return self.trouble(Trouble::SecondOutcome, key, None),
        }
        match end {
            End::DeliveredElsewhere => {
                let instance = record.instance.clone().unwrap_or_default();
                self.take_elsewhere(key, instance);
            }
            End::Merged(Some(into)) if self.taken_elsewhere.contains(&into) => {
                self.merge(key, Taken::Elsewhere)
            }
            _ => {}
        }
        self.judge(key);
    }

    fn take_elsewhere(&mut self, key: Key, instance: String) {
        let Some(open) = self
            .open
            .get_mut(&key)
            .filter(|open| open.taken == Taken::Not)
        else {
            return;
        };
        open.taken = Taken::Elsewhere;
        self.counts.elsewhere += 1;
        *self.elsewhere.entry(instance).or_default() += 1;
        self.taken_elsewhere.insert(key);
        self.leaves_mailbox(key);
        let into_it = |(other, open): (&Key, &Open)| {
            (open.end == Some(End::Merged(Some(key)))).then_some(*other)
        };
        for merged in self.open.iter().filter_map(into_it).collect::<Vec<_>>() {
            self.merge(merged, Taken::Elsewhere);
        }
    }

    fn enters_mailbox(&mut self, key: Key) {
        // Outcomes arrive a little later than what they tell of: it may have been delivered meanwhile.
        if let Some(open) = self
            .open
            .get_mut(&key)
            .filter(|open| open.taken == Taken::Not && !open.is_parked)
        {
            open.is_parked = true;
            self.users[open.user].parked += 1;
        }
    }

    fn leaves_mailbox(&mut self, key: Key) {
        if let Some(open) = self.open.get_mut(&key).filter(|open| open.is_parked) {
            open.is_parked = false;
            self.users[open.user].parked -= 1;
        }
    }

    /// Forgets a reminder about which everything is known, and notes what is wrong with it.
    fn judge(&mut self, key: Key) {
        let Some(open) = self.open.get(&key) else {
            return;
        };
        let user = open.user;
        let trouble = match (open.is_valid, open.taken, open.end) {
            (true, Taken::Itself, Some(End::Delivered))
            | (true, Taken::Merged | Taken::Elsewhere, Some(End::Merged(_)))
            | (true, Taken::Elsewhere, Some(End::DeliveredElsewhere)) => None,
            (false, Taken::Not, Some(End::Refused)) => {
                self.counts.rejected += 1;
                None
            }
            (_, _, None) | (true, Taken::Not, Some(End::Merged(_))) => return,
            (true, Taken::Not, Some(End::Refused)) => Some(Trouble::Refused),
            // It is accepted before it is answered, and answered before that is recorded.
            (_, Taken::Not, Some(_)) => Some(Trouble::Lost),
            _ => Some(Trouble::WrongOutcome),
        };
        self.leaves_mailbox(key);
        self.open.remove(&key);
        if let Some(trouble) = trouble {
            self.trouble(trouble, key, Some(user));
        }
    }

    /// The end: whatever is still open is trouble.
    pub(crate) fn close(&mut self) {
        for (key, open) in std::mem::take(&mut self.open) {
            let trouble = match open {
                Open {
                    taken: Taken::Not,
                    is_parked: true,
                    ..
                } => Trouble::LeftInMailbox,
                Open {
                    taken: Taken::Not, ..
                } => Trouble::Lost,
                _ => Trouble::NoOutcome,
            };
            self.trouble(trouble, key, Some(open.user));
        }
    }

    fn trouble(&mut self, trouble: Trouble, key: Key, user: Option<usize>) {
        let example = format!("{}-{}", self.sources[key.source].0, key.number);
        self.troubles.entry(trouble).or_insert((0, example)).0 += 1;
        if let Some(user) = user {
            self.users[user].troubles += 1;
        }
    }

    /// The demo's reminder with this id, if it is one.
    fn key(&self, source: &str, id: &str) -> Option<Key> {
        let at = self.sources.iter().position(|(name, _)| name == source)?;
        let number = id.strip_prefix(source)?.strip_prefix('-')?.parse().ok()?;
        // `+7` and `007` are numbers too, and no ids of the demo.
        (number < self.sources[at].1 && id == format!("{source}-{number}"))
            .then_some(Key { source: at, number })
    }
}
