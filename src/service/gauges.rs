//! Gauges of this member's state and backlog. Partitions count themselves; of consumers and streams
//! JetStream is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::links::Links;
use super::now_ms;
use crate::config::Config;
use crate::log::Subscriber;
use crate::metrics::{Connection, Label, Metrics, RoleKind, Stream};
use crate::nats::behind::{self, Behind, furthest};
use crate::nats::link::Link;
use crate::nats::names::bucket_stream;
use crate::nats::pinned::{self, Waiting};
use crate::nats::storage;
use crate::nats::topology::consumers_of;
use crate::nats::{Nats, NatsError, chain};
use crate::partition::{Partition, Role};
use crate::router::partition::stats::PartitionStats;
use crate::wire::member::{HeldBack, MAX_HELD_BACK};

/// Interval at which JetStream is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Counts that wait to be taken in; more are left to the next round.
const MAX_WAITING: usize = 1_024;

/// The state of a partition, counted.
#[derive(Debug)]
pub struct Count {
    /// The numbers of its state machine.
    pub stats: PartitionStats,
    /// Events in work.
    pub events: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Time at which the oldest reminder in its mailboxes was parked.
    pub oldest_parked: Option<Timestamp>,
    /// Reminders that are held back, as far as they are named.
    pub held_back: Vec<HeldBack>,
}

/// Receives what this member holds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gauges {
    counts: mpsc::Sender<(Partition, Count)>,
    roles: watch::Sender<BTreeSet<Role>>,
    held_back: watch::Receiver<Vec<HeldBack>>,
}

impl Gauges {
    /// Starts the task that tells Prometheus.
    pub fn start(
        nats: Nats,
        links: &Links,
        config: Arc<Config>,
        metrics: Metrics,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (counts, counted) = mpsc::channel(MAX_WAITING);
        let (roles, worked) = watch::channel(BTreeSet::new());
        metrics.event_limits(
            config.dispatch.max_events_in_flight,
            config.dispatch.max_bytes_in_flight,
        );
        let (naming, held_back) = watch::channel(Vec::new());
        let connects = links
            .all()
            .into_iter()
            .map(|(name, link)| (name, link.clone(), 1))
            .collect();
        let board = Board {
            nats,
            config,
            metrics,
            worked,
            naming,
            counts: BTreeMap::new(),
            connects,
            may_not_ask_account: false,
        };
        (
            Self {
                counts,
                roles,
                held_back,
            },
            tokio::spawn(board.run(counted)),
        )
    }

    /// The roles that this member works.
    pub fn roles(&self, roles: BTreeSet<Role>) {
        self.roles.send_if_modified(|before| {
            let is_new = *before != roles;
            *before = roles;
            is_new
        });
    }

    /// Returns the reminders that are held back here, up to [`MAX_HELD_BACK`] of them.
    pub fn held_back(&self) -> Vec<HeldBack> {
        self.held_back.borrow().clone()
    }

    /// Records the counts of a partition. It is not a loss if this cannot be taken in: the next
    /// count is.
    pub fn counted(&self, partition: Partition, count: Count) {
        let _ = self.counts.try_send((partition, count));
    }
}

struct Board {
    nats: Nats,
    config: Arc<Config>,
    metrics: Metrics,
    worked: watch::Receiver<BTreeSet<Role>>,
    naming: watch::Sender<Vec<HeldBack>>,
    /// Of the partitions worked here.
    counts: BTreeMap<Partition, Count>,
    /// The connections, and how often each one's client had connected at the last look.
    connects: Vec<(Connection, Link, u64)>,
    /// This user lacks the permission to ask for the account.
    may_not_ask_account: bool,
}

impl Board {
    async fn run(mut self, mut counted: mpsc::Receiver<(Partition, Count)>) {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((partition, count)) = counted.recv() => {
                    self.counts.insert(partition, count);
                }
                changed = self.worked.changed() => if changed.is_err() { return },
                _ = tick.tick() => self.ask().await,
            }
            self.tell();
        }
    }

    /// Sets the gauges to the sums over all partitions.
    fn tell(&mut self) {
        let roles = self.worked.borrow_and_update().clone();
        self.counts
            .retain(|partition, _| roles.contains(&Role::Partition(*partition)));
        for kind in RoleKind::all().iter().copied() {
            self.metrics.roles_worked(
                kind,
                roles
                    .iter()
                    .filter(|role| RoleKind::from(**role) == kind)
                    .count(),
            );
        }
        let mut sum = PartitionStats::default();
        for Count { stats, .. } in self.counts.values() {
            sum.add(stats);
        }
        self.metrics.held(&sum);
        let named = self
            .counts
            .values()
            .flat_map(|count| &count.held_back)
            .take(MAX_HELD_BACK)
            .cloned()
            .collect();
        self.naming.send_replace(named);
        self.metrics.oldest_parked(
            self.counts
                .values()
                .filter_map(|count| count.oldest_parked)
                .min(),
        );
        let most = |of: fn(&Count) -> usize| self.counts.values().map(of).max().unwrap_or(0);
        self.metrics
            .events_in_flight(most(|count| count.events), most(|count| count.bytes));
    }

    /// Asks JetStream for the backlog of the roles that this member holds. A gauge that cannot be
    /// read keeps its last value.
    async fn ask(&mut self) {
        let roles = self.worked.borrow().clone();
        let behind = behind::all(&self.nats).await;
        if let Err(error) = &behind {
            tracing::debug!(error = %chain(error), "how far the positions are is not known");
        }
        let behind = behind.unwrap_or_default();
        self.ask_oldest(furthest(&behind).filter(|_| roles.contains(&Role::Intake)))
            .await;
        for kind in RoleKind::all().iter().copied() {
            let of_kind = roles.iter().filter(|role| RoleKind::from(**role) == kind);
            match self
                .waiting(
                    of_kind
                        .flat_map(|role| consumers_of(&self.nats.names, &self.config, *role))
                        .collect(),
                )
                .await
            {
                Ok(waiting) => {
                    let own = behind.iter().filter(|one| {
                        roles.contains(&role(one)) && RoleKind::from(role(one)) == kind
                    });
                    let in_log = own.map(|one| one.sets).max().unwrap_or(0);
                    let sum = in_log + waiting.iter().map(|one| one.pending).sum::<u64>();
                    let fullest = waiting.iter().max_by_key(|one| one.ack_pending);
                    let (ack_pending, limit) =
                        fullest.map_or((0, 0), |one| (one.ack_pending, one.ack_pending_limit));
                    self.metrics.waiting(kind, sum, ack_pending, limit);
                }
                Err(error) => tracing::debug!(error = %chain(&error), "what waits is not known"),
            }
        }
        self.ask_streams(roles.contains(&Role::Intake)).await;
        self.ask_account(roles.contains(&Role::Intake)).await;
        for (name, link, before) in &mut self.connects {
            // A client that was replaced counts from one again.
            let connects = link.client().statistics().connects.load(Ordering::Relaxed);
            self.metrics
                .nats_reconnected(*name, connects.saturating_sub(*before));
            *before = connects;
        }
    }

    async fn waiting(&self, consumers: Vec<(String, String)>) -> Result<Vec<Waiting>, NatsError> {
        let ask = |(stream, consumer): (String, String)| async move {
            pinned::waiting(&self.nats, &stream, &consumer).await
        };
        try_join_all(consumers.into_iter().map(ask)).await
    }

    /// Asks for the oldest set that this subscriber has not settled.
    async fn ask_oldest(&self, furthest: Option<&Behind>) {
        let Some(one) = furthest else {
            return self.metrics.log_held_back(None);
        };
        match behind::oldest(&self.nats, one).await {
            Ok(oldest) => self.metrics.log_held_back(oldest.map(|oldest| {
                // Another machine's clock may be ahead.
                let age = now_ms().duration_since(oldest.stored_at).try_into();
                let partition = role(one).partition().map(|Partition(number)| number);
                (
                    one.sets,
                    oldest.sequence,
                    partition,
                    age.unwrap_or_default(),
                )
            })),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "the age of the oldest set is not known");
            }
        }
    }

    /// Asks for the account's storage: the member that works the intake does.
    async fn ask_account(&mut self, is_mine: bool) {
        if !is_mine || self.may_not_ask_account {
            return self.metrics.account_stored(0, 0);
        }
        match storage::account(&self.nats).await {
            Ok(account) => {
                let limit = account
                    .limits
                    .max_storage
                    .and_then(|limit| u64::try_from(limit).ok());
                self.metrics
                    .account_stored(account.storage, limit.unwrap_or(0));
            }
            Err(error) => {
                // Each time the log would say so.
                self.may_not_ask_account = matches!(error, NatsError::NotPermitted { .. });
                tracing::debug!(error = %chain(&error), "the account's storage is not known");
            }
        }
    }

    /// One member reports the streams: the one with the intake.
    async fn ask_streams(&self, is_mine: bool) {
        let names = &self.nats.names;
        let mut sets = None;
        for (stream, name) in [
            (Stream::Log, names.log_stream()),
            (Stream::Positions, bucket_stream(&names.positions_bucket())),
            (Stream::Scheduled, names.scheduled_stream()),
            (Stream::Parked, names.parked_stream()),
            (Stream::Outcomes, names.outcomes_stream()),
            (Stream::Rejected, names.rejected_stream()),
            (Stream::Seen, names.seen_stream()),
            (Stream::Routes, bucket_stream(&names.routes_bucket())),
            (
                Stream::Associates,
                bucket_stream(&names.associates_bucket()),
            ),
            (Stream::Rules, bucket_stream(&names.rules_bucket())),
            (Stream::Members, bucket_stream(&names.members_bucket())),
        ] {
            if !is_mine {
                self.metrics.stored(stream, 0, 0, 0);
            } else if let Ok(found) = self.nats.jetstream.get_stream(name).await {
                let Info { config, state, .. } = found.cached_info();
                let limit = match stream {
                    // nats-server knows none for it.
                    Stream::Scheduled => {
                        storage::of_schedules(sets.as_ref(), self.config.streams.storage, names)
                    }
                    _ => u64::try_from(config.max_bytes).unwrap_or(0),
                };
                if stream == Stream::Log {
                    sets = Some(config.clone());
                }
                self.metrics
                    .stored(stream, state.messages, state.bytes, limit);
            }
        }
    }
}

/// Returns the role that works for a subscriber of the log.
fn role(behind: &Behind) -> Role {
    match behind.subscriber {
        Subscriber::Sets => Role::Intake,
        Subscriber::Partition(partition) => Role::Partition(partition),
    }
}
