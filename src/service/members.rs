//! Shares the work among members: the running `bellhop serve` processes of an installation.
//!
//! Each member says in a bucket, every `members.interval`, that it lives and which roles it holds.
//! Every member computes from that which roles it should hold ([`assign`]), takes one when no
//! living member holds it, and gives one up when it should not hold it. That keeps a planned change
//! free of repeats. It is never what makes things correct: pins, fences and message ids are.
//!
//! Two members may find the same role free. So a member first *claims* a role in its record, and
//! takes it when it hears that record from the bucket. By then it has heard earlier records of
//! others, so of two claims only the first counts.
//!
//! A member that could not say that it lives for `members.ttl` must expect that others have taken
//! over (it was stopped, or cut off), so it drops everything at once and starts again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::Store;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::gauges::Gauges;
use super::lease::{Lease, LeaseRenewer};
use super::shared_names::SharedNames;
use super::{escalation, history, intake, partition};
use crate::config::Config;
use crate::http::Readiness;
use crate::metrics::Metrics;
use crate::nats::bucket::{self, Entry, Operation, Unreadable, Watched};
use crate::nats::link::Link;
use crate::nats::{Nats, NatsError, chain};
use crate::partition::{Partition, Role, assign};
use crate::wire::member::MemberRecord;

/// Returns what a record says of the work: who should hold which role depends on nothing else.
fn work(record: &MemberRecord) -> MemberRecord {
    MemberRecord {
        held_back: Vec::new(),
        shared_names: Vec::new(),
        ..record.clone()
    }
}

/// Another member, as last heard of.
struct Peer {
    record: MemberRecord,
    /// Time at which it counts as gone without another record.
    gone_at: Instant,
}

/// A role held here.
#[derive(Default)]
struct Held {
    stop: CancellationToken,
    /// Its worker is past the take-over.
    is_working: bool,
}

/// The resources that a member needs to share the work.
#[derive(Debug, Clone)]
pub struct Context {
    /// The settings.
    pub config: Arc<Config>,
    /// The connection.
    pub nats: Nats,
    /// This member's name.
    pub member: String,
    /// A connection of its own for what members say to each other: it must not wait behind a
    /// mailbox that is being read.
    pub voice: Nats,
    /// Knows whether this member still owns its roles.
    pub lease: Lease,
    /// The metrics.
    pub metrics: Metrics,
    /// The gauges of state and backlog.
    pub gauges: Gauges,
    /// The readiness of this member.
    pub readiness: watch::Sender<Readiness>,
    /// Names under which several app servers answer.
    pub shared_names: SharedNames,
}

/// The resources that the roles need.
#[derive(Debug, Clone)]
pub struct Roles {
    /// The role for sets.
    pub intake: intake::Context,
    /// Each partition.
    pub partition: partition::Context,
    /// The history.
    pub history: Archive,
}

impl Roles {
    /// Returns what the roles need to record outcomes in a term of the lease.
    fn of_term(&self, term: u64) -> Self {
        let mut roles = self.clone();
        let recorder = roles.partition.owner.recorder.of_term(term);
        roles.intake.owner.recorder = recorder.clone();
        roles.partition.owner.recorder = recorder;
        roles
    }
}

struct Membership {
    context: Context,
    roles: Roles,
    members: Store,
    peers: BTreeMap<String, Peer>,
    held: BTreeMap<Role, Held>,
    /// Roles that this member will take, and the revision of the record that says so; none if that
    /// could not be written.
    claims: BTreeMap<Role, Option<u64>>,
    workers: JoinSet<(Role, Result<(), NatsError>)>,
    /// Workers say here that they are past the take-over.
    working: (mpsc::Sender<Role>, mpsc::Receiver<Role>),
    /// Roles that failed lately, and when they may be taken again.
    resting: BTreeMap<Role, Instant>,
    /// Roles that are this member's by the last look.
    due: Option<usize>,
    /// Times of each role's recent failures, the latest last.
    failures: BTreeMap<Role, VecDeque<Instant>>,
    /// Keeps this member's lease.
    renewer: LeaseRenewer,
    /// Time at which the watch last showed this member's own entry, and
    heard_itself: Instant,
    /// the revision of that.
    heard_revision: u64,
    is_stopping: bool,
}

/// Pause of a role after a failure.
const REST: Duration = Duration::from_millis(500);

/// A role that fails so often within this time makes no progress, and a role that has worked for so
/// long does.
const FAILURES: usize = 3;
const FAILURES_WITHIN: Duration = Duration::from_secs(30);
const STEADY_AFTER: Duration = Duration::from_secs(5);

/// Takes part until `stop`, then gives everything up in order, within `members.grace`.
///
/// # Errors
/// When it cannot even begin.
pub async fn run(
    context: Context,
    roles: Roles,
    renewer: LeaseRenewer,
    stop: CancellationToken,
) -> Result<(), NatsError> {
    let bucket = context.nats.names.members_bucket();
    let members = bucket::open(&context.voice, bucket).await?;
    let mut membership = Membership {
        context,
        roles,
        members,
        peers: BTreeMap::new(),
        held: BTreeMap::new(),
        claims: BTreeMap::new(),
        workers: JoinSet::new(),
        working: mpsc::channel(64),
        resting: BTreeMap::new(),
        due: None,
        failures: BTreeMap::new(),
        renewer,
        heard_itself: Instant::now(),
        heard_revision: 0,
        is_stopping: false,
    };
    membership.run(stop).await
}

impl Membership {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), NatsError> {
        let mut watch = self.begin().await?;
        let mut tick = tokio::time::interval(self.context.config.members.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let grace = self.context.config.members.grace;
        let mut give_up_at: Option<Instant> = None;
        loop {
            if self.context.lease.is_over() {
                self.drop_everything().await;
                match self.begin().await {
                    Ok(fresh) => watch = fresh,
                    Err(_) if stop.is_cancelled() => return Ok(()),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "failed to join");
                        tokio::time::sleep(REST).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled(), if !self.is_stopping => {
                    self.is_stopping = true;
                    self.claims.clear();
                    give_up_at = Some(Instant::now() + grace);
                    self.held.values().for_each(|held| held.stop.cancel());
                    self.say().await;
                }
                _ = tick.tick() => {
                    if self.say().await.is_some() && self.is_deaf() {
                        tracing::warn!("the watch of members is silent, restarting it");
                        if let Ok(fresh) = self.begin().await { watch = fresh; }
                    }
                    self.review().await;
                }
                entry = watch.next() => match entry {
                    Ok(entry) => if entry.is_some_and(|entry| self.heard(&entry)) { self.review().await },
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "watch of members ended, restarting it");
                        tokio::time::sleep(REST).await;
                        if let Ok(fresh) = self.begin().await { watch = fresh; }
                    }
                },
                Some(role) = self.working.1.recv() => if let Some(held) = self.held.get_mut(&role) {
                    held.is_working = true;
                },
                Some(ended) = self.workers.join_next() => self.ended(ended).await,
            }
            self.tell_readiness();
            let is_late = give_up_at.is_some_and(|at| Instant::now() >= at);
            if is_late {
                tracing::warn!(
                    roles = self.held.len(),
                    "grace period over, other members take the rest"
                );
            }
            if is_late || (self.is_stopping && self.held.is_empty()) {
                self.workers.shutdown().await;
                let _ = self.members.delete(&self.context.member).await; // Else it is gone after its TTL.
                return Ok(());
            }
        }
    }

    async fn drop_everything(&mut self) {
        if !self.held.is_empty() {
            tracing::error!(roles = self.held.len(), "lease expired: dropping all roles");
        }
        self.workers.abort_all();
        while self.workers.join_next().await.is_some() {}
        self.held.clear();
        self.claims.clear();
        self.peers.clear();
        self.due = None;
        self.tell_readiness();
    }

    /// Joins the others, in a new term if the last one is over. A member that cannot hear them must
    /// not go on as if it were alone.
    async fn begin(&mut self) -> Result<Watched, NatsError> {
        // A watch that broke is not a new term: what the workers decide is this member's to decide
        // still.
        let is_new_term = self.context.lease.is_over();
        if is_new_term {
            self.renewer.begin();
        }
        let joined = self.join().await;
        if joined.is_err() && is_new_term {
            self.renewer.end();
        }
        joined
    }

    /// Announces this member, and reads the records of the others. The bucket is judged by the
    /// server's clock: a member whose last word is older than its TTL is gone already.
    async fn join(&mut self) -> Result<Watched, NatsError> {
        if self.say().await.is_none() {
            return Err(NatsError::failed(
                "join the members",
                "no answer from JetStream",
            ));
        }
        let (voice, bucket) = (
            &self.context.voice,
            self.context.nats.names.members_bucket(),
        );
        let (_, link) = Link::new(voice.clone());
        let mut watch = Watched::new(&link, voice, bucket, Unreadable::Removed);
        let mut found = Vec::new();
        while !watch.is_loaded() {
            found.extend(watch.next().await?);
        }
        self.heard_itself = Instant::now(); // So that the words' own age decides.
        let server_now = found.iter().map(|entry| entry.stored_ns).max().unwrap_or(0);
        for entry in found {
            self.heard(&entry);
            let age_ns = u64::try_from(server_now - entry.stored_ns).unwrap_or(0);
            if let Some(peer) = self.peers.get_mut(&entry.key) {
                let age = Duration::from_nanos(age_ns);
                peer.gone_at = Instant::now() + self.context.config.members.ttl.saturating_sub(age);
            }
        }
        Ok(watch)
    }

    /// Returns true if the watch reports nothing, not even this member's own record: then its
    /// silence proves nothing about the others.
    fn is_deaf(&self) -> bool {
        self.heard_itself.elapsed() > self.context.config.members.interval * 2
    }

    fn hear_itself(&mut self) {
        if self.is_deaf() {
            // The others' records of the meantime may come next.
            let soon = Instant::now() + self.context.config.members.interval;
            self.peers
                .values_mut()
                .for_each(|peer| peer.gone_at = peer.gone_at.max(soon));
        }
        self.heard_itself = Instant::now();
    }

    /// Takes in what a member said. Answers whether that can change who should hold what.
    fn heard(&mut self, entry: &Entry) -> bool {
        if entry.key == self.context.member {
            self.hear_itself();
            self.heard_revision = self.heard_revision.max(entry.revision);
            return !self.claims.is_empty();
        }
        let record = match entry.operation {
            Operation::Put => serde_json::from_slice::<MemberRecord>(&entry.value).ok(),
            Operation::Delete | Operation::Purge => None,
        };
        match record {
            Some(record) => {
                let gone_at = Instant::now() + self.context.config.members.ttl;
                let before = self.peers.insert(
                    entry.key.clone(),
                    Peer {
                        record: record.clone(),
                        gone_at,
                    },
                );
                before.is_none_or(|before| work(&before.record) != work(&record))
            }
            None => self.peers.remove(&entry.key).is_some(),
        }
    }

    /// Announces that this member lives, and the roles that it holds or claims. Returns the
    /// record's revision if it is written. A member that is overdue has nothing to say any more:
    /// what it believes to hold may be another's.
    async fn say(&mut self) -> Option<u64> {
        if self.context.lease.is_over() {
            return None;
        }
        let settings = &self.context.config.members;
        let roles: BTreeSet<_> = self.held.keys().chain(self.claims.keys()).collect();
        let partitions = roles.iter().filter_map(|role| role.partition());
        let record = MemberRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            partitions: partitions.map(|Partition(number)| number).collect(),
            intake: roles.contains(&Role::Intake),
            escalation: roles.contains(&Role::Escalation),
            history: roles.contains(&Role::History),
            stopping: self.is_stopping,
            held_back: self.context.gauges.held_back(),
            shared_names: self.context.shared_names.found(),
        };
        let json = serde_json::to_vec(&record).expect("a record is JSON");
        let sent = Instant::now();
        let put = self.members.put(&self.context.member, json.into());
        match tokio::time::timeout(settings.interval, put).await {
            Ok(Ok(revision)) => {
                self.renewer.renew(sent, Instant::now());
                return Some(revision);
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "failed to renew the lease")
            }
            Err(_) => tracing::warn!("failed to renew the lease: no answer"),
        }
        None
    }

    fn tell_readiness(&self) {
        use async_nats::connection::State;
        let is_flapping = |failures: &VecDeque<Instant>| {
            let of_late = failures
                .iter()
                .filter(|at| at.elapsed() < FAILURES_WITHIN)
                .count();
            of_late >= FAILURES
                && failures
                    .back()
                    .is_some_and(|at| at.elapsed() < STEADY_AFTER)
        };
        let mut readiness = Readiness {
            is_connected: self.context.nats.client.connection_state() == State::Connected,
            roles_due: self.due,
            roles_working: self.held.values().filter(|held| held.is_working).count(),
            is_flapping: self.failures.values().any(is_flapping),
            is_stopping: self.is_stopping,
            ..Readiness::default()
        };
        self.context.readiness.send_if_modified(|before| {
            // Others tell these.
            (readiness.is_history_behind, readiness.ended) =
                (before.is_history_behind, before.ended);
            readiness.reading = before.reading;
            readiness.refused = before.refused;
            std::mem::replace(before, readiness) != readiness
        });
        let metrics = &self.context.metrics;
        metrics.nats_connected(readiness.is_connected);
        metrics.members_alive(self.peers.len() + 1);
        metrics.ready(readiness.is_ready());
        self.context.gauges.roles(
            self.held
                .iter()
                .filter(|(_, held)| held.is_working)
                .map(|(role, _)| *role)
                .collect(),
        );
    }

    /// Takes and gives up roles.
    async fn review(&mut self) {
        let now = Instant::now();
        if self.is_stopping || self.context.lease.is_over() {
            return;
        }
        let is_deaf = self.is_deaf();
        self.peers.retain(|name, peer| {
            let is_alive = is_deaf || peer.gone_at > now;
            if !is_alive {
                tracing::warn!(member = name, "member is gone");
            }
            is_alive
        });
        let active = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.record.stopping)
            .map(|(name, _)| name.clone());
        let members: Vec<String> = active.chain([self.context.member.clone()]).collect();
        let assignment = assign(&members, self.context.config.partitions);
        let mine: BTreeSet<Role> = assignment
            .into_iter()
            .filter(|(_, member)| *member == self.context.member)
            .map(|(role, _)| role)
            .collect();
        for (_, held) in self.held.iter().filter(|(role, _)| !mine.contains(role)) {
            held.stop.cancel();
        }
        self.due = Some(mine.len());
        self.resting.retain(|_, until| *until > now);
        let before = std::mem::take(&mut self.claims);
        let take = self.claim(&mine, &before);
        let is_kept = |role| self.claims.contains_key(role) || take.contains(role);
        let is_less = !before.keys().all(is_kept);
        self.take(take, members.len());
        if (is_less || self.claims.values().any(Option::is_none))
            && let Some(revision) = self.say().await
        {
            let unwritten = self.claims.values_mut().filter(|at| at.is_none());
            unwritten.for_each(|at| *at = Some(revision));
        }
    }

    /// Claims what is free of this member's roles. Returns those whose claim it has heard: they are
    /// to be taken.
    fn claim(&mut self, mine: &BTreeSet<Role>, before: &BTreeMap<Role, Option<u64>>) -> Vec<Role> {
        let is_free = |role: &&Role| {
            let mut peers = self.peers.values();
            !self.held.contains_key(role)
                && !self.resting.contains_key(role)
                && !peers.any(|peer| role.is_held_by(&peer.record))
        };
        let free = mine.iter().filter(is_free);
        let claims = free.map(|role| (*role, before.get(role).copied().flatten()));
        let is_heard =
            |(_, at): &(Role, Option<u64>)| at.is_some_and(|at| at <= self.heard_revision);
        let (take, claims): (Vec<_>, Vec<_>) = claims.partition(is_heard);
        self.claims = claims.into_iter().collect();
        take.into_iter().map(|(role, _)| role).collect()
    }

    /// Starts the work of these roles.
    fn take(&mut self, take: Vec<Role>, members: usize) {
        if take.is_empty() {
            return;
        }
        tracing::info!(roles = take.len(), members, "taking over");
        self.held
            .extend(take.iter().map(|role| (*role, Held::default())));
        let roles = self.roles.of_term(self.context.lease.term());
        let (config, nats) = (&self.context.config, &self.context.nats);
        for role in take {
            let (roles, config, nats) = (roles.clone(), config.clone(), nats.clone());
            let (stop, working) = (self.held[&role].stop.clone(), self.working.0.clone());
            self.workers
                .spawn(super::surviving::panics(role, async move {
                    let result = match role {
                        Role::Intake => intake::run(roles.intake, stop, working).await,
                        Role::Escalation => escalation::run(config, nats, stop, working).await,
                        Role::History => history::run(roles.history, stop, working).await,
                        Role::Partition(number) => {
                            partition::run(roles.partition, number, stop, working).await
                        }
                    };
                    (role, result)
                }));
        }
    }

    /// A role's worker ended: given up in order, or to be taken over again.
    async fn ended(
        &mut self,
        ended: Result<(Role, Result<(), NatsError>), tokio::task::JoinError>,
    ) {
        match ended {
            Ok((role, result)) => {
                self.held.remove(&role);
                if let Err(error) = result {
                    tracing::warn!(error = %chain(&error), %role, "role ended, taking over again");
                    self.failed(role);
                }
            }
            Err(error) if error.is_cancelled() => {}
            // A worker's own panic is one of its errors.
            Err(error) => tracing::error!(error = %chain(&error), "worker ended with an error"),
        }
        // Of roles that end together, others hear at once.
        while let Some(ended) = self.workers.try_join_next() {
            if let Ok((role, result)) = ended {
                self.held.remove(&role);
                if let Err(error) = result {
                    tracing::warn!(error = %chain(&error), %role, "role ended, taking over again");
                    self.failed(role);
                }
            }
        }
        self.say().await;
        self.review().await;
    }

    fn failed(&mut self, role: Role) {
        let now = Instant::now();
        self.context.metrics.role_failed();
        self.resting.insert(role, now + REST);
        let failures = self.failures.entry(role).or_default();
        failures.push_back(now);
        failures.drain(..failures.len().saturating_sub(FAILURES));
    }
}
