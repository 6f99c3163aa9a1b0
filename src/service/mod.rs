//! Runs the router: starts the tasks, feeds the state machines, performs their actions, stops in
//! order.
//!
//! | task | | |
//! | --- | --- | --- |
//! | [`members`] | one | says that this process lives, takes and gives up roles |
//! | [`reader`] | one | the log of published sets → slices for what is worked here |
//! | [`intake`] | one in the installation | what belongs to sets themselves → refusals, schedules, cancellations |
//! | [`escalation`] | one in the installation | reminders parked for long → outcomes |
//! | [`history`] | one in the installation | outcomes → the database |
//! | [`api`] | one, or one for each process | the database, mailboxes → answers to queries |
//! | [`partition`] | one for each partition held | slices, routes, answers → deliveries, mailboxes, outcomes |
//! | [`bucket_watch`] | two | the buckets of routes and associates → each partition's own |
//! | [`rules`] | one | the bucket of rules → compiled documents |
//! | [`outcomes`] | one | outcomes → their stream, in batches |
//! | [`gauges`] | one | what is held and what waits → metrics |
//! | `credentials` | one | the JWT of this member → warnings, readiness |
//! | `neighbours` | one | other installations that are heard → the log, a metric |
//! | [`systemd`] | one | readiness → systemd |
//! | [`links`] | one for each connection | clients that have ended → new ones |
//! | [`figures`] | one | metrics of this member → queries to all members |
//!
//! Each owns its state; between them are bounded channels, and no lock.

#![allow(clippy::disallowed_methods)] // This is where the clocks are read.

pub mod api;
pub mod archive;
mod asker;
pub mod associates;
mod batch_queues;
pub mod bucket_watch;
mod catch_up;
mod credentials;
pub mod erasure;
pub mod escalation;
pub mod figures;
pub mod gauges;
pub mod history;
pub mod intake;
pub mod lease;
pub mod links;
pub mod members;
mod neighbours;
pub mod outcomes;
pub mod ownership;
pub mod partition;
mod pause;
pub mod reader;
pub mod recorded;
mod refusals;
pub mod rejected;
pub mod repartition;
pub mod request_batcher;
pub mod routes;
pub mod rules;
mod seen;
pub mod shared_names;
pub mod spans;
mod surviving;
mod sweep;
pub mod systemd;
pub mod unreadable;
pub mod upgrade;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DEFAULT_HTTP};
use crate::http::{self, Readiness};
use crate::metrics::{Connection, Metrics, SetAside};
use crate::nats::{Nats, NatsError, chain, topology};
use crate::reminder::finished::to_the_millisecond;
use archive::Archive;
use archive::handle::{HistoryHandle, state_directory};
use bucket_watch::{Follow, Source};
use gauges::Gauges;
use links::Links;
use members::Roles;
use outcomes::Recorder;
use ownership::Owner;
use reader::Log;
use request_batcher::RequestBatcher;
use unreadable::{InputContext, Losses};

/// For so long it is tried again to set up what JetStream did not answer for.
const SETUP_PATIENCE: Duration = Duration::from_secs(10);
/// Maximum time for the last writes after the grace period.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sets the installation up where needed and serves it until `stop` is cancelled; then finishes
/// what is in flight, within `members.grace`, and leaves the rest to the other members.
///
/// # Errors
/// When NATS cannot be reached, or the installation cannot be set up.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<(), NatsError> {
    let member = member_name(&config);
    let nats =
        crate::nats::connect(&config, &links::client_name(&member, Connection::Main)).await?;
    let voice = crate::nats::connect(
        &of_voice(&config),
        &links::client_name(&member, Connection::Members),
    )
    .await?;
    let (links, ends) = Links::connect(&config, &member, nats.clone(), voice.clone()).await?;
    set_up(&nats, &config).await?;
    let config = Arc::new(config);
    let installation = topology::installation(&nats).await?;
    let history = HistoryHandle::new(&config.history, &state_directory(), &installation)?;
    tracing::info!(url = %history.url(), "keeping the history");
    let (renewer, lease) = lease::new(config.members.ttl);
    let metrics = Metrics::default();
    let (recorder, recording) = Recorder::start(
        nats.clone(),
        lease.clone(),
        metrics.clone(),
        config.history.is_on(),
    );
    let (readiness, ready) = watch::channel(Readiness::default());
    let follow = |source| {
        let (link, metrics, readiness) =
            (links.buckets.clone(), metrics.clone(), readiness.clone());
        Follow::start(
            link,
            nats.clone(),
            config.partitions,
            metrics,
            readiness,
            source,
        )
    };
    let (routes, watching_routes) = follow(Source {
        bucket: nats.names.routes_bucket(),
        what: "a route",
        kind: SetAside::Route,
        read: routes::read,
        reading: |reading| &mut reading.routes,
    });
    let (associates, watching_associates) = follow(Source {
        bucket: nats.names.associates_bucket(),
        what: "a list of associates",
        kind: SetAside::Associates,
        read: associates::read,
        reading: |reading| &mut reading.associates,
    });
    let recorded = recorded::Reader::start(nats.clone());
    let input = InputContext {
        nats: nats.clone(),
        sets: links.sets.clone(),
        losses: Losses::default(),
        metrics: metrics.clone(),
    };
    let (log, reading) = Log::start(input.clone(), &config);
    let (rules, watching_rules) = rules::Watch::start(
        links.buckets.clone(),
        nats.clone(),
        metrics.clone(),
        readiness.clone(),
    );
    let (gauges, gauging) = Gauges::start(nats.clone(), &links, config.clone(), metrics.clone());
    let watching_credentials = tokio::spawn(credentials::run(
        links.clone(),
        metrics.clone(),
        readiness.clone(),
    ));
    let keeping = links::keep(ends, &config, &member, &metrics, &readiness);
    let notifying = tokio::spawn(systemd::tell(ready.clone()));
    let probes = listen(&config)
        .await?
        .map(|listener| tokio::spawn(http::run(listener, ready, metrics.clone())));
    tracing::info!(
        member,
        server = nats.client.server_info().version,
        "serving"
    );
    let client = nats.client.clone();
    let batcher = RequestBatcher::start(&links.apps, &metrics, &config);
    let records = Archive {
        config: config.clone(),
        nats: nats.clone(),
        installation: installation.clone(),
        buckets: links.buckets.clone(),
        queries: links.queries.clone(),
        history,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
    };
    let answering = records
        .history
        .is_shared()
        .then(|| tokio::spawn(answer_queries(records.clone())));
    let telling = tokio::spawn(figures::run(
        links.queries.clone(),
        member.clone(),
        metrics.clone(),
    ));
    let listening = tokio::spawn(neighbours::run(
        links.queries.clone(),
        installation,
        metrics.clone(),
    ));
    let owner = Owner {
        config: config.clone(),
        nats: nats.clone(),
        member: member.clone(),
        recorder,
        recorded,
    };
    let shared_names = batcher.shared_names();
    let roles = Roles {
        intake: intake::Context {
            owner: owner.clone(),
            input,
            log: log.clone(),
            metrics: metrics.clone(),
        },
        partition: partition::Context {
            owner,
            log,
            buckets: links.buckets.clone(),
            batcher,
            routes,
            associates,
            rules,
            metrics: metrics.clone(),
            gauges: gauges.clone(),
        },
        history: records,
    };
    let context = members::Context {
        config,
        nats,
        member,
        voice,
        lease,
        metrics,
        gauges,
        readiness,
        shared_names,
    };
    let served = members::run(context, roles, renewer, stop).await;
    drop(keeping);
    telling.abort();
    listening.abort();
    answering.inspect(JoinHandle::abort);
    reading.abort();
    watching_credentials.abort();
    watching_routes.abort();
    watching_rules.abort();
    watching_associates.abort();
    gauging.abort();
    notifying.abort();
    probes.inspect(JoinHandle::abort);
    // All recorders are gone, so it writes what it has and ends; unless JetStream is away.
    // Reminders that are not recorded then are not removed either, and the next member finds them.
    let _ = tokio::time::timeout(LAST_WORDS, recording).await;
    let _ = tokio::time::timeout(LAST_WORDS, client.drain()).await;
    served
}

/// Makes what is missing. A cluster that is electing leaders may need some seconds for its answer.
async fn set_up(nats: &Nats, config: &Config) -> Result<(), NatsError> {
    let give_up_at = Instant::now() + SETUP_PATIENCE;
    loop {
        let error = match try_to_set_up(nats, config).await {
            Err(error @ NatsError::Failed { .. }) if Instant::now() < give_up_at => error,
            result => return result,
        };
        tracing::warn!(error = %chain(&error), "failed to set up, retrying");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn try_to_set_up(nats: &Nats, config: &Config) -> Result<(), NatsError> {
    let changes = topology::set_up(nats, config, true).await?.len();
    if changes > 0 {
        tracing::info!(changes, "set up streams, buckets and consumers");
    }
    Ok(())
}

/// Answers queries for as long as this process runs.
async fn answer_queries(context: Archive) {
    while let Err(error) = api::run(&context).await {
        tracing::warn!(error = %chain(&error), "query service ended, restarting it");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Members wait for each other's word, so what gets no answer is asked again while there is time
/// before the TTL.
fn of_voice(config: &Config) -> Config {
    let mut of_voice = config.clone();
    of_voice.nats.timeout = of_voice.nats.timeout.min(config.members.ttl / 2);
    of_voice
}

/// Listens for probes. A second member on one machine needs no address of its own to start.
async fn listen(config: &Config) -> Result<Option<TcpListener>, NatsError> {
    let Ok(address) = config.http.parse() else {
        return Ok(None);
    };
    match http::bind(address).await {
        Ok(listener) => {
            tracing::info!(address = %listener.local_addr().unwrap_or(address), "answering probes");
            Ok(Some(listener))
        }
        Err(error) if config.http == DEFAULT_HTTP => {
            tracing::warn!(%address, error = %chain(&error), "no probes; set --http to another address");
            Ok(None)
        }
        Err(error) => Err(NatsError::failed(
            format!("answer probes at {address}"),
            error,
        )),
    }
}

/// The time, to the millisecond: what people read.
fn now_ms() -> Timestamp {
    to_the_millisecond(Timestamp::now())
}

/// Returns the configured name, or a unique one.
fn member_name(config: &Config) -> String {
    if !config.name.is_empty() {
        return config.name.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(40)
        .collect();
    let chance = fastrand::u32(..);
    if host.is_empty() {
        format!("member-{chance:08x}")
    } else {
        format!("{host}-{chance:08x}")
    }
}
