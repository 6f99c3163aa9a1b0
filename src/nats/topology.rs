//! The streams, buckets and consumers of an installation: what is wanted, what is there, and how to
//! get from one to the other. `bellhop setup` and `bellhop serve` both come here.

use std::collections::BTreeMap;
use std::fmt;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::account::Account;
use async_nats::jetstream::consumer::{self, PriorityPolicy};
use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{
    Config as StreamConfig, ConsumerError, ConsumerErrorKind, DiscardPolicy, Info, RetentionPolicy,
    StorageType,
};
use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::Value;

use super::neighbours;
use super::storage;
use super::upgrade;
use super::{Cause, During, Names, Nats, NatsError, chain};
use crate::config::Config;
use crate::partition::Role;
use crate::reminder::set::max_bytes;

/// The name of the one priority group of every pinned consumer.
pub const GROUP: &str = "bellhop";

/// The log's note of how many partitions the installation has.
pub(super) const PARTITIONS_KEY: &str = "bellhop.partitions";
/// The same stream's note that their number is being changed: under the numbers of how many
/// mailboxes may lie.
pub(super) const SPREAD_KEY: &str = "bellhop.partitions.spread";

/// Every stream's note of the installation that it belongs to.
const INSTALLATION_KEY: &str = "bellhop.installation";

/// One difference between what is wanted and what is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// `stream BELLHOP_LOG`, `bucket bellhop_routes`, `consumer due of BELLHOP_SCHEDULED`.
    pub what: String,
    /// True if it is missing; else it exists and differs.
    pub is_new: bool,
    /// The differences: field, actual value, expected value.
    pub fields: Vec<(String, Value, Value)>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_new {
            return write!(f, "create {}", self.what);
        }
        write!(f, "update {}:", self.what)?;
        self.fields
            .iter()
            .try_for_each(|(field, from, to)| write!(f, " {field} {from} → {to}"))
    }
}

enum Step {
    /// A stream as it is, if it is there, and as it is wanted.
    Stream {
        there: Option<Box<StreamConfig>>,
        wanted: Box<StreamConfig>,
    },
    Consumer(String, Box<consumer::pull::Config>),
}

/// The necessary changes, in order.
pub struct Plan {
    steps: Vec<(Change, Step)>,
    /// True if smaller limits are tried when there is no room for these.
    adapts: bool,
    /// The storage of all streams together, of which each has its share.
    bytes: usize,
    /// The installation's name.
    installation: String,
    /// Copies of each stream.
    replicas: usize,
}

impl Plan {
    /// The changes, for people and programs.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().map(|(change, _)| change)
    }

    /// Makes the changes, and adds those that were made to `made`.
    ///
    /// # Errors The first one that NATS refused. An existing object that could not be updated,
    /// because the account may not, is logged and skipped when `may_skip_updates`.
    async fn apply(
        self,
        nats: &Nats,
        may_skip_updates: bool,
        made: &mut Vec<Change>,
    ) -> Result<(), NatsError> {
        let mut skipped = Vec::new();
        for (change, step) in self.steps {
            let wanted = match &step {
                Step::Stream { wanted, .. } => wanted.max_bytes,
                Step::Consumer(..) => 0,
            };
            match step.make(nats, &change).await {
                Ok(()) => made.push(change),
                Err((error, Some(code)))
                    if storage::is_lack(code)
                        && (self.adapts || change.is_new || !may_skip_updates) =>
                {
                    let problem = chain(&error).to_string();
                    return Err(storage::lack(nats, change.to_string(), wanted, &problem).await);
                }
                Err((error, _)) if may_skip_updates && !change.is_new => {
                    skipped.push(chain(&error).to_string())
                }
                Err((error, _)) => return Err(error),
            }
        }
        if !skipped.is_empty() {
            let updates = skipped.len();
            tracing::warn!(
                updates,
                "continuing with the existing objects; `bellhop setup` as an operator makes these updates: {}",
                skipped.join("; ")
            );
        }
        Ok(())
    }

    /// Checks that the account may have as many streams and consumers as the changes make, in the
    /// tier of their replicas where the account has tiers.
    fn foresee_counts(&self, account: &Account) -> Result<(), NatsError> {
        let refuse = |problem: String| {
            let what = "the account's limits of JetStream".to_owned();
            Err(NatsError::Contrary { what, problem })
        };
        let new = |is_stream: bool| {
            let is_counted = |(change, step): &&(Change, Step)| {
                change.is_new && matches!(step, Step::Stream { .. }) == is_stream
            };
            self.steps.iter().filter(is_counted).count()
        };
        let tier = format!("R{}", self.replicas);
        let (streams, consumers, limits) = match account.tiers.get(&tier) {
            Some(tier) => (tier.streams, tier.consumers, &tier.limits),
            None if account.tiers.is_empty() => {
                (account.streams, account.consumers, &account.limits)
            }
            None => {
                return refuse(format!(
                    "they have no tier {tier}, which `streams.replicas = {}` needs; add it, or set another number",
                    self.replicas
                ));
            }
        };
        for (kind, used, new, limit) in [
            ("streams", streams, new(true), limits.max_streams),
            ("consumers", consumers, new(false), limits.max_consumers),
        ] {
            let is_over = |limit: &i64| *limit > 0 && (used + new) as i64 > *limit;
            if let Some(limit) = limit.filter(is_over) {
                return refuse(format!(
                    "they permit {limit} {kind}; {used} are there, and {new} more are needed; raise `max_{kind}`"
                ));
            }
        }
        Ok(())
    }

    /// Checks that the account has room for what the changes reserve. Of the server's own limit
    /// nothing is known here.
    ///
    /// # Errors
    /// [`NatsError::NoRoom`] when it has not.
    async fn foresee(&self, nats: &Nats) -> Result<(), NatsError> {
        // A user without the permission learns it when the changes are made.
        let has_streams = self
            .steps
            .iter()
            .any(|(_, step)| matches!(step, Step::Stream { .. }));
        let Some(account) = (if has_streams {
            storage::account(nats).await.ok()
        } else {
            None
        }) else {
            return Ok(());
        };
        self.foresee_counts(&account)?;
        let Some(limit) = account.limits.max_storage.filter(|limit| *limit > 0) else {
            return Ok(());
        };
        let reserves = |config: &StreamConfig| {
            i128::from(config.max_bytes.max(0)) * config.num_replicas.max(1) as i128
        };
        let mut reserved = i128::from(account.reserved_storage);
        for (change, step) in &self.steps {
            let Step::Stream { there, wanted } = step else {
                continue;
            };
            reserved += reserves(wanted) - there.as_deref().map_or(0, reserves);
            if reserved > i128::from(limit) {
                let problem = format!("{reserved} bytes of the account would be reserved");
                return Err(
                    storage::lack(nats, change.to_string(), wanted.max_bytes, &problem).await,
                );
            }
        }
        Ok(())
    }
}

impl Step {
    /// Makes the change. The error has JetStream's code, where JetStream refused it.
    async fn make(
        self,
        nats: &Nats,
        change: &Change,
    ) -> Result<(), (NatsError, Option<ErrorCode>)> {
        let made = match self {
            Self::Stream { there, wanted } => {
                let request = format!(
                    "STREAM.{}.{}",
                    if there.is_some() { "UPDATE" } else { "CREATE" },
                    wanted.name
                );
                let making = async {
                    match there {
                        Some(_) => nats.jetstream.update_stream(*wanted).await.map(drop),
                        None => nats.jetstream.create_stream(*wanted).await.map(drop),
                    }
                };
                let made = nats
                    .if_permitted(&request, || change.to_string(), making)
                    .await;
                made.map(|made| made.map_err(refused))
            }
            Self::Consumer(stream, config) => {
                let name = config.durable_name.as_deref().unwrap_or_default();
                let filter =
                    Some(config.filter_subject.as_str()).filter(|filter| !filter.is_empty());
                let request = [Some("CONSUMER.CREATE"), Some(&stream), Some(name), filter];
                let request = request.into_iter().flatten().collect::<Vec<_>>().join(".");
                let making = create_consumer(nats, &stream, *config);
                let made = nats
                    .if_permitted(&request, || change.to_string(), making)
                    .await;
                made.map(|made| made.map_err(|error| (error.into(), None)))
            }
        };
        match made {
            Ok(Ok(())) => Ok(()),
            Ok(Err((cause, code))) => Err((NatsError::failed(change.to_string(), cause), code)),
            Err(error) => Err((error, None)),
        }
    }
}

/// Makes or changes a consumer, with as many unacknowledged messages as the server or the account
/// permits.
async fn create_consumer(
    nats: &Nats,
    stream: &str,
    mut config: consumer::pull::Config,
) -> Result<(), ConsumerError> {
    loop {
        let made = nats
            .jetstream
            .create_consumer_on_stream(config.clone(), stream)
            .await;
        let Err(error) = made else { return Ok(()) };
        let limit = match error.kind() {
            ConsumerErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::CONSUMER_MAX_PENDING_ACK_EXCESS =>
            {
                let words = refusal.to_string();
                let number = words.split(|c: char| !c.is_ascii_digit());
                number
                    .filter_map(|number| number.parse::<i64>().ok())
                    .find(|limit| (LEAST_ACK_PENDING..config.max_ack_pending).contains(limit))
            }
            _ => None,
        };
        match limit {
            Some(limit) => config.max_ack_pending = limit,
            None => return Err(error),
        }
    }
}

/// The least messages handed out and not acknowledged with which a consumer's work goes on.
const LEAST_ACK_PENDING: i64 = 100;

/// Returns why a stream was not made or changed, with JetStream's code where it refused it.
fn refused(error: CreateStreamError) -> (Cause, Option<ErrorCode>) {
    let code = match error.kind() {
        CreateStreamErrorKind::JetStream(answer) => Some(answer.error_code()),
        _ => None,
    };
    (error.into(), code)
}

/// Makes the installation what the configuration wants, and returns what was changed. Where
/// `streams.storage` is 0 and there is no room for its default, it tries again with half as much.
///
/// # Errors
/// The first change that NATS refused. [`NatsError::NoRoom`] when the limits of the streams do not
/// fit.
pub async fn set_up(
    nats: &Nats,
    config: &Config,
    may_skip_updates: bool,
) -> Result<Vec<Change>, NatsError> {
    let (mut plan, mut made) = (plan(nats, config).await?, Vec::new());
    loop {
        let (bytes, installation) = (plan.bytes / 2, plan.installation.clone());
        match plan.apply(nats, may_skip_updates, &mut made).await {
            Err(error @ NatsError::NoRoom { .. })
                if config.streams.storage == 0 && bytes >= storage::LEAST =>
            {
                tracing::warn!(error = %chain(&error), bytes, "trying with less storage");
                plan = plan_within(nats, config, &installation, bytes, true).await?;
            }
            applied => return applied.map(|()| made),
        }
    }
}

/// Compares what is wanted with what is there. Where `streams.storage` is 0 and the account has no
/// room for its default, half as much is wanted, and so on.
///
/// # Errors
/// When JetStream cannot be asked, the installation has another number of partitions, or the
/// account has no room.
pub async fn plan(nats: &Nats, config: &Config) -> Result<Plan, NatsError> {
    if let Some(former) = upgrade::former_streams(nats).await?.first() {
        return Err(NatsError::Contrary {
            what: shown(former),
            problem: "an earlier version set up this installation; run `bellhop upgrade`"
                .to_owned(),
        });
    }
    let installation = match name_in_streams(nats, config).await? {
        Some(name) => name,
        None => {
            refuse_neighbours(nats).await?;
            nuid::next().to_string()
        }
    };
    let within =
        async |bytes, resizes| plan_within(nats, config, &installation, bytes, resizes).await;
    let mut plan = match config.streams.storage {
        // Limits that fitted before: with more, it would be found out each time again.
        0 => {
            within(
                storage_in_use(nats, config)
                    .await?
                    .unwrap_or(storage::DEFAULT),
                false,
            )
            .await?
        }
        bytes => within(bytes, true).await?,
    };
    loop {
        match plan.foresee(nats).await {
            Err(NatsError::NoRoom { .. })
                if config.streams.storage == 0 && plan.bytes / 2 >= storage::LEAST =>
            {
                plan = within(plan.bytes / 2, true).await?;
            }
            foreseen => return foreseen.map(|()| plan),
        }
    }
}

/// Returns the storage of which the streams have their shares, by the limits that Bellhop has given
/// them, if it has.
async fn storage_in_use(nats: &Nats, config: &Config) -> Result<Option<usize>, NatsError> {
    for wanted in streams(nats, config) {
        let there = existing_stream(nats, &wanted.name).await?;
        if let Some(bytes) = there.and_then(|there| storage::in_use(&there.config, &nats.names)) {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Plans with this storage for all streams together. Limits that Bellhop has set before are changed
/// if `resizes`.
async fn plan_within(
    nats: &Nats,
    config: &Config,
    installation: &str,
    bytes: usize,
    resizes: bool,
) -> Result<Plan, NatsError> {
    let mut steps = Vec::new();
    let account = storage::account(nats).await;
    let needs_limits = account.is_ok_and(|account| account.limits.max_bytes_required);
    for mut wanted in streams(nats, config) {
        storage::limit(&mut wanted, bytes, &nats.names);
        if needs_limits && wanted.max_bytes < 0 {
            wanted.max_bytes = storage::beyond_schedules(bytes);
        }
        let note = (INSTALLATION_KEY.to_owned(), installation.to_owned());
        wanted.metadata.extend([note]);
        steps.extend(plan_stream(nats, wanted, resizes).await?);
    }
    for (stream, wanted) in consumers(nats, config) {
        let missing_stream = steps
            .iter()
            .any(|(change, _)| change.is_new && change.what.ends_with(&stream));
        let there = if missing_stream {
            BTreeMap::new()
        } else {
            existing_consumers(nats, &stream).await?
        };
        for wanted in wanted {
            steps.extend(plan_consumer(&stream, wanted, &there));
        }
    }
    Ok(Plan {
        steps,
        adapts: config.streams.storage == 0,
        bytes,
        installation: installation.to_owned(),
        replicas: config.streams.replicas,
    })
}

/// Returns the installation's name. It stays the same when streams are restored, moved or made
/// again.
///
/// # Errors
/// When JetStream cannot be asked, or the streams are not set up.
pub async fn installation(nats: &Nats) -> Result<String, NatsError> {
    let stream = nats.names.outcomes_stream();
    let found = existing_stream(nats, &stream).await?;
    let found = found.ok_or_else(|| NatsError::Missing {
        what: shown(&stream),
    })?;
    Ok(name_of(&found).unwrap_or_else(|| name_by_age(&found)))
}

/// Returns the name that the streams have, or that those of an earlier version get; none where
/// there are no streams.
async fn name_in_streams(nats: &Nats, config: &Config) -> Result<Option<String>, NatsError> {
    let mut by_age = None;
    for wanted in streams(nats, config) {
        let Some(there) = existing_stream(nats, &wanted.name).await? else {
            continue;
        };
        if let Some(name) = name_of(&there) {
            return Ok(Some(name));
        }
        if by_age.is_none() || wanted.name == nats.names.outcomes_stream() {
            by_age = Some(name_by_age(&there));
        }
    }
    Ok(by_age)
}

fn name_of(stream: &Info) -> Option<String> {
    stream.config.metadata.get(INSTALLATION_KEY).cloned()
}

/// Returns the name of an installation that an earlier version set up: when its stream of outcomes
/// was made. The file of its history has this name.
fn name_by_age(stream: &Info) -> String {
    format!("{:x}", stream.created.unix_timestamp_nanos())
}

/// Refuses to make a second installation whose subjects another one hears: each would take in the
/// sets of both.
async fn refuse_neighbours(nats: &Nats) -> Result<(), NatsError> {
    let other = match neighbours::others(nats, "").await {
        Ok(mut others) => others.pop_first(),
        Err(NatsError::NotPermitted { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(other) = other else {
        return Ok(());
    };
    Err(NatsError::Contrary {
        what: format!("prefix {}", nats.names.prefix()),
        problem: neighbours::problem(&other),
    })
}

/// Returns a stream, if there is one.
async fn existing_stream(nats: &Nats, name: &str) -> Result<Option<Info>, NatsError> {
    match nats.jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(NatsError::failed(format!("look at {}", shown(name)), error)),
        },
    }
}

/// Returns what a stream is called: some are buckets.
fn shown(name: &str) -> String {
    match name.strip_prefix("KV_") {
        Some(bucket) => format!("bucket {bucket}"),
        None => format!("stream {name}"),
    }
}

async fn plan_stream(
    nats: &Nats,
    wanted: StreamConfig,
    resizes: bool,
) -> Result<Option<(Change, Step)>, NatsError> {
    let what = shown(&wanted.name);
    let Some(Info {
        config: info,
        state,
        ..
    }) = existing_stream(nats, &wanted.name).await?
    else {
        let change = Change {
            what,
            is_new: true,
            fields: Vec::new(),
        };
        return Ok(Some((
            change,
            Step::Stream {
                there: None,
                wanted: wanted.into(),
            },
        )));
    };
    if info.metadata.contains_key(SPREAD_KEY) {
        let problem =
            "the number of partitions is being changed; run `bellhop repartition` to its end";
        return Err(NatsError::Contrary {
            what,
            problem: problem.to_owned(),
        });
    }
    if let (Some(there), Some(set)) = (
        info.metadata.get(PARTITIONS_KEY),
        wanted.metadata.get(PARTITIONS_KEY),
    ) && there != set
    {
        let problem = format!(
            "the installation has {there} partitions and the configuration says {set}; the number is fixed once positions \
             and mailboxes lie under it, so set `partitions = {there}`, or change it with `bellhop repartition {set}`"
        );
        return Err(NatsError::Contrary { what, problem });
    }
    if let (Some(there), Some(name)) = (
        info.metadata.get(INSTALLATION_KEY),
        wanted.metadata.get(INSTALLATION_KEY),
    ) && there != name
    {
        let problem = format!(
            "it belongs to installation {there}, and other streams to {name}; restore all streams from one backup, or \
             delete the ones that do not belong here"
        );
        return Err(NatsError::Contrary { what, problem });
    }
    let wanted = storage::resized(&info, state.bytes, wanted, resizes);
    let merged = overlay(info.clone(), wanted);
    let fields = differences(&info, &merged);
    let change = Change {
        what,
        is_new: false,
        fields,
    };
    let is_needed = !change.fields.is_empty();
    Ok(is_needed.then(|| {
        (
            change,
            Step::Stream {
                there: Some(info.into()),
                wanted: merged.into(),
            },
        )
    }))
}

/// Returns the existing configuration, with the fields that Bellhop decides. The rest (placement,
/// compression, …) is the operator's.
fn overlay(there: StreamConfig, wanted: StreamConfig) -> StreamConfig {
    let mut metadata = there.metadata.clone();
    metadata.extend(wanted.metadata);
    StreamConfig {
        metadata,
        subjects: wanted.subjects,
        retention: wanted.retention,
        max_age: wanted.max_age,
        duplicate_window: wanted.duplicate_window,
        num_replicas: wanted.num_replicas,
        allow_direct: wanted.allow_direct,
        allow_rollup: wanted.allow_rollup,
        allow_atomic_publish: wanted.allow_atomic_publish,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_bytes: wanted.max_bytes,
        discard: wanted.discard,
        max_message_size: wanted.max_message_size,
        allow_message_ttl: wanted.allow_message_ttl,
        allow_message_schedules: wanted.allow_message_schedules,
        ..there
    }
}

fn differences<T: Serialize>(there: &T, wanted: &T) -> Vec<(String, Value, Value)> {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (there, wanted) = (fields(there), fields(wanted));
    let names: std::collections::BTreeSet<_> = there.keys().chain(wanted.keys()).cloned().collect();
    let pair = |name: String| {
        let (from, to) = (there.get(&name).cloned(), wanted.get(&name).cloned());
        (from != to).then(|| (name, from.unwrap_or(Value::Null), to.unwrap_or(Value::Null)))
    };
    names.into_iter().filter_map(pair).collect()
}

type Existing = BTreeMap<String, consumer::Config>;

async fn existing_consumers(nats: &Nats, stream: &str) -> Result<Existing, NatsError> {
    let action = || format!("list the consumers of {stream}");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .during_with(action)?;
    let infos: Vec<_> = handle.consumers().try_collect().await.during_with(action)?;
    Ok(infos
        .into_iter()
        .map(|info| (info.name, info.config))
        .collect())
}

fn plan_consumer(
    stream: &str,
    wanted: consumer::pull::Config,
    there: &Existing,
) -> Option<(Change, Step)> {
    use consumer::IntoConsumerConfig;
    let name = wanted.durable_name.clone().unwrap_or_default();
    let what = format!("consumer {name} of {stream}");
    let target = wanted.clone().into_consumer_config();
    let Some(existing) = there.get(&name) else {
        let change = Change {
            what,
            is_new: true,
            fields: Vec::new(),
        };
        return Some((change, Step::Consumer(stream.to_owned(), wanted.into())));
    };
    let merged = consumer::Config {
        filter_subject: target.filter_subject,
        ack_policy: target.ack_policy,
        ack_wait: target.ack_wait,
        // The server or the account may have permitted less.
        max_ack_pending: match existing.max_ack_pending {
            less if (LEAST_ACK_PENDING..target.max_ack_pending).contains(&less) => less,
            _ => target.max_ack_pending,
        },
        priority_policy: target.priority_policy,
        priority_groups: target.priority_groups,
        priority_timeout: target.priority_timeout,
        ..existing.clone()
    };
    let fields = differences(existing, &merged);
    let change = Change {
        what,
        is_new: false,
        fields,
    };
    (!change.fields.is_empty()).then(|| (change, Step::Consumer(stream.to_owned(), wanted.into())))
}

/// Every stream and bucket of an installation. A bucket is a stream too, and is made like one.
fn streams(nats: &Nats, config: &Config) -> Vec<StreamConfig> {
    let names = &nats.names;
    let base = |name: String, subjects: Vec<String>, description: &str| StreamConfig {
        name,
        subjects,
        description: Some(description.to_owned()),
        storage: StorageType::File,
        num_replicas: config.streams.replicas,
        // Only Bellhop writes there, and repeats at once what it writes.
        duplicate_window: config.idempotency.window.min(OWN_DUPLICATE_WINDOW),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_message_size: -1,
        ..StreamConfig::default()
    };
    let work_queue = |stream| StreamConfig {
        retention: RetentionPolicy::WorkQueue,
        ..stream
    };
    let kept_for = |stream: StreamConfig, age: std::time::Duration| StreamConfig {
        max_age: age,
        duplicate_window: stream.duplicate_window.min(age),
        allow_direct: true,
        ..stream
    };
    // The settings that async-nats and nats.go choose for a bucket with a history of one, except
    // for roll-ups.
    let bucket = |name: String, description: &str| StreamConfig {
        max_messages_per_subject: 1,
        // By a roll-up, a program that may write one key could remove all others.
        allow_rollup: false,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        discard: DiscardPolicy::New,
        duplicate_window: OWN_DUPLICATE_WINDOW,
        ..base(
            format!("KV_{name}"),
            vec![format!("$KV.{name}.>")],
            description,
        )
    };
    let log = base(
        names.log_stream(),
        vec![names.all_sets()],
        "reminder sets as published, until all are settled",
    );
    let of_schedules = vec![names.all_scheduled(), names.all_due()];
    let scheduled = base(
        names.scheduled_stream(),
        of_schedules,
        "reminders to be delivered later, and those that are due",
    );
    let partitions = (PARTITIONS_KEY.to_owned(), config.partitions.to_string());
    let mailboxes = vec![names.all_mailboxes(), names.all_fences()];
    let parked = base(
        names.parked_stream(),
        mailboxes,
        "mailboxes of users who are away",
    );
    let outcomes = base(
        names.outcomes_stream(),
        vec![names.all_outcomes(), names.all_outcomes_fences()],
        "what became of each reminder",
    );
    let rejected = base(
        names.rejected_stream(),
        vec![names.all_rejected()],
        "refused input, untouched",
    );
    let seen = base(
        names.seen_stream(),
        vec![names.all_seen()],
        "reminder ids of the idempotency windows",
    );
    vec![
        StreamConfig {
            max_message_size: max_bytes(nats.client.max_payload()) as i32,
            duplicate_window: SETS_DUPLICATE_WINDOW,
            metadata: [partitions].into(),
            ..log
        },
        // nats-server has a schedule take the place of an earlier one on its subject, which it
        // calls a roll-up.
        work_queue(StreamConfig {
            allow_message_schedules: true,
            allow_rollup: true,
            allow_direct: true,
            ..scheduled
        }),
        StreamConfig {
            allow_direct: true,
            allow_rollup: true,
            allow_atomic_publish: true,
            ..parked
        },
        StreamConfig {
            allow_atomic_publish: true,
            ..kept_for(outcomes, config.streams.outcomes_age)
        },
        StreamConfig {
            max_messages_per_subject: REJECTED_OF_SOURCE,
            ..kept_for(rejected, config.streams.rejected_age)
        },
        kept_for(seen, config.idempotency.window),
        bucket(
            names.routes_bucket(),
            "which instance holds which user's connection",
        ),
        StreamConfig {
            // A bad document leaves the last good one in force, also for a process that starts
            // later.
            max_messages_per_subject: RULES_HISTORY,
            ..bucket(
                names.rules_bucket(),
                "what happens to the reminders of each tag",
            )
        },
        bucket(
            names.associates_bucket(),
            "who may get a user's reminders while the user is away",
        ),
        bucket(
            names.positions_bucket(),
            "how far each partition has come in the log of sets",
        ),
        StreamConfig {
            // Gone members' keys vanish; who is gone is decided by `members.ttl` on the observer's
            // own clock.
            max_age: config.members.ttl * 10,
            duplicate_window: std::time::Duration::from_secs(1),
            ..bucket(
                names.members_bucket(),
                "the running bellhop serve processes and what they hold",
            )
        },
    ]
}

/// The durable consumers that a role reads, each behind its stream.
pub fn consumers_of(names: &Names, config: &Config, role: Role) -> Vec<(String, String)> {
    match role {
        Role::Intake => vec![(names.scheduled_stream(), names.due_consumer().to_owned())],
        Role::Partition(_) => Vec::new(),
        Role::History if config.history.is_on() => {
            vec![(names.outcomes_stream(), names.history_consumer().to_owned())]
        }
        Role::History => Vec::new(),
        Role::Escalation => {
            let limits = config.mailbox.escalate_after.limits();
            limits
                .map(|(priority, _)| (names.parked_stream(), names.escalate_consumer(priority)))
                .collect()
        }
    }
}

fn consumers(nats: &Nats, config: &Config) -> Vec<(String, Vec<consumer::pull::Config>)> {
    let pinned = |name: String, filter: String, max_ack_pending: usize| consumer::pull::Config {
        durable_name: Some(name),
        filter_subject: filter,
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: config.dispatch.ack_wait,
        max_ack_pending: i64::try_from(max_ack_pending).unwrap_or(i64::MAX),
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec![GROUP.to_owned()],
        priority_timeout: config.dispatch.pin_timeout,
        ..consumer::pull::Config::default()
    };
    let names = &nats.names;
    let escalate = |(priority, _)| consumer::pull::Config {
        durable_name: Some(names.escalate_consumer(priority)),
        filter_subject: names.all_mailboxes(),
        ack_policy: consumer::AckPolicy::All,
        ack_wait: config.dispatch.ack_wait,
        max_ack_pending: ESCALATE_ACK_PENDING,
        headers_only: true,
        ..consumer::pull::Config::default()
    };
    let due = pinned(
        names.due_consumer().to_owned(),
        names.all_due(),
        DUE_ACK_PENDING,
    );
    let history = consumer::pull::Config {
        // One acknowledgement for all that a transaction wrote.
        ack_policy: consumer::AckPolicy::All,
        ..pinned(
            names.history_consumer().to_owned(),
            names.all_outcomes(),
            HISTORY_ACK_PENDING,
        )
    };
    vec![
        (names.scheduled_stream(), vec![due]),
        (
            names.parked_stream(),
            config
                .mailbox
                .escalate_after
                .limits()
                .map(escalate)
                .collect(),
        ),
        (
            names.outcomes_stream(),
            config
                .history
                .is_on()
                .then_some(history)
                .into_iter()
                .collect(),
        ),
    ]
}

/// Refused input kept of each source: a flood of one drops its own, and not the others'.
const REJECTED_OF_SOURCE: i64 = 100_000;

/// The longest time for which nats-server remembers the ids of Bellhop's own messages.
const OWN_DUPLICATE_WINDOW: std::time::Duration = std::time::Duration::from_secs(120);

/// Time for which JetStream itself remembers a `Nats-Msg-Id` in the stream of sets: the least that
/// nats-server permits. It cannot tell sources apart, so one's message ids keep another's sets out;
/// the intake can, for all of `idempotency.window`.
const SETS_DUPLICATE_WINDOW: std::time::Duration = std::time::Duration::from_millis(100);

/// Versions kept of each document of rules.
const RULES_HISTORY: i64 = 16;

/// Messages of outcomes read and not yet written: more than fit into two transactions.
const HISTORY_ACK_PENDING: usize = 250_000;

/// Reminders that are due, read and not yet published: more than fit into what is held of them at a
/// time.
const DUE_ACK_PENDING: usize = 100_000;

/// Messages of mailboxes read and not yet acknowledged, of which only the last one waits: more than
/// one pull takes.
const ESCALATE_ACK_PENDING: i64 = 1_000;
