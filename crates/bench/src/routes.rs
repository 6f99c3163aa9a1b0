//! Many routes: the rate of putting them, their memory, the time to load them, and the cost of
//! heartbeats.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::environment::{BELLHOP_PREFIX, Environment, MAILBOXES};
use super::error::BenchError;
use super::load::{Crowd, Load};
use super::population::{Population, Rounds, SET_SIZE};
use super::publisher::{Batch, Publisher, To};
use super::usage::{CpuTimes, used_since};
use super::{Options, Progress, median};

/// The result.
///
/// Memory is the resident set of `bellhop serve` (`VmRSS`) once it is stable. An allocator keeps
/// freed memory, and buffers grow to the size they need, so growth is measured from a warm state,
/// with a tenth of the routes, or mailboxes, already there. Hash tables double, so figures depend
/// on how full they are. Mailboxes are measured without routes.
#[derive(Debug, Serialize)]
pub struct Routes {
    /// Number of routes, each for a different user.
    pub routes: usize,
    /// Routes a second that app servers put, while `bellhop serve` reads them.
    pub puts_per_second: f64,
    /// Seconds from the last put until a reminder has reached each of the users with the last
    /// routes.
    pub followed_seconds: f64,
    /// The growth of memory for one more route.
    pub bytes_per_route: f64,
    /// The memory for a route of a process that started with all routes in the bucket, less the
    /// memory of one that started with none.
    pub bytes_per_loaded_route: f64,
    /// Seconds until a `bellhop serve` is ready that starts with no route in the bucket.
    pub ready_without_seconds: f64,
    /// Seconds until a `bellhop serve` is ready that starts with all routes.
    pub ready_seconds: f64,
    /// Number of users with a mailbox.
    pub mailboxes: usize,
    /// The growth of memory for one more user without a route and with one reminder in the mailbox.
    /// The ids that the intake remembers (`idempotency.max_ids`) are not included.
    pub bytes_per_mailbox: f64,
    /// The cost of heartbeats.
    pub heartbeats: Heartbeats,
}

/// A connection, once confirmed, stays so. Ids of reminders have a limit of their own: it is as low
/// as possible, to keep them out of the memory measured.
const SETTINGS: [&str; 2] = ["heartbeat.lease=1h", "idempotency.max_ids=1000"];
/// One in this many is there already when growth is measured.
const WARM: usize = 10;
/// The subject of reminders for users without a route: a source of their own.
const AWAY_SUBJECT: &str = "bellhop.sets.away";
/// The number of last users whose reminders show that all routes are read: enough for each
/// partition to have some.
const WITNESSES: usize = 1_000;

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Routes, BenchError> {
    let (routes, warm) = (options.routes, options.routes / WARM);
    let mut environment = Environment::start(options, &SETTINGS).await?;
    let ready_without = environment.restart().await?;
    let empty_bytes = environment.stable_memory().await;
    let load = Load {
        crowd: Crowd::Bench,
        users: routes,
        instances: options.instances,
    };
    let mut rounds = Rounds::new(Population::start(&environment, load, BELLHOP_PREFIX).await?);

    rounds
        .population
        .app_servers
        .connect(0..warm, progress)
        .await?;
    let witnesses = WITNESSES.min(warm);
    rounds
        .deliver(&environment, warm - witnesses..warm, progress)
        .await?;
    let warm_bytes = environment.stable_memory().await;
    let began = Instant::now();
    rounds
        .population
        .app_servers
        .connect(warm..routes, progress)
        .await?;
    let put = began.elapsed();
    rounds
        .deliver(&environment, routes - witnesses..routes, progress)
        .await?;
    let followed = began.elapsed() - put;
    let full_bytes = environment.stable_memory().await;

    let users = options
        .users
        .min((routes - witnesses) / (options.rounds + 1));
    let heartbeats =
        measure_heartbeats(&environment, &mut rounds, (users, options.rounds), progress).await?;
    progress("restarting bellhop serve".to_owned());
    let ready = environment.restart().await?;
    let loaded_bytes = environment.stable_memory().await;
    environment.close().await;
    // Hash tables that have grown for the routes would have room for mailboxes, so start without
    // routes.
    let environment = Environment::start(options, &SETTINGS).await?;
    let bytes_per_mailbox = park(&environment, options.users, progress).await?;
    environment.close().await;
    Ok(Routes {
        routes,
        puts_per_second: (routes - warm) as f64 / put.as_secs_f64(),
        followed_seconds: followed.as_secs_f64(),
        bytes_per_route: (full_bytes - warm_bytes) / (routes - warm) as f64,
        bytes_per_loaded_route: (loaded_bytes - empty_bytes) / routes as f64,
        ready_without_seconds: ready_without.as_secs_f64(),
        ready_seconds: ready.as_secs_f64(),
        mailboxes: options.users,
        bytes_per_mailbox,
        heartbeats,
    })
}

/// Parks a reminder for each of these users, who have no route. Returns the growth of memory for
/// each.
async fn park(
    environment: &Environment,
    users: usize,
    progress: Progress<'_>,
) -> Result<f64, BenchError> {
    let mut publisher = Publisher::start(
        &environment.url,
        Load {
            crowd: Crowd::Away,
            users,
            instances: 1,
        },
    )
    .await?;
    let warm = users / WARM;
    let mut bytes = [0.0; 2];
    progress("parking reminders in mailboxes".to_owned());
    for ((first, end), bytes) in [(0, warm), (warm, users)].into_iter().zip(&mut bytes) {
        let (to, count) = (To::Subject(AWAY_SUBJECT.to_owned()), end - first);
        let all = environment.messages(MAILBOXES).await? + count as u64;
        publisher
            .begin(Batch {
                to,
                first,
                count,
                set_size: SET_SIZE,
                rate: None,
            })
            .await?;
        publisher.published(progress).await?;
        environment
            .wait_for(MAILBOXES, |messages| messages >= all, |_| ())
            .await?;
        environment.settled().await?;
        *bytes = environment.stable_memory().await;
    }
    Ok((bytes[1] - bytes[0]) / (users - warm) as f64)
}

/// The cost of confirming connections: what delivering to users with unconfirmed connections takes
/// more than delivering to the same users again while their connections count as confirmed.
#[derive(Debug, Serialize)]
pub struct Heartbeats {
    /// Number of users in one measurement, with one reminder each.
    pub users: usize,
    /// Heartbeat requests for a thousand users.
    pub requests_per_1000: f64,
    /// The mean time of a request, in milliseconds.
    pub request_ms: f64,
    /// The additional time for a thousand users, in milliseconds; the median of all rounds.
    pub ms_per_1000: f64,
    /// The additional CPU time for a thousand users, in milliseconds, by process; the median of all
    /// rounds.
    pub cpu_ms_per_1000: BTreeMap<&'static str, f64>,
}

const REQUESTS: &str = "bellhop_heartbeats_total{result=\"answered\"}";
const SECONDS: &str = "bellhop_heartbeat_seconds_sum";

/// The cost of one delivery to all users.
struct Used {
    took: Duration,
    cpu: CpuTimes,
    requests: f64,
    request_seconds: f64,
}

/// Measures with different users in each round. They must be connected, with connections not yet
/// confirmed, and confirmed for long once they are.
async fn measure_heartbeats(
    environment: &Environment,
    rounds: &mut Rounds,
    (users, count): (usize, usize),
    progress: Progress<'_>,
) -> Result<Heartbeats, BenchError> {
    let mut found = Vec::new();
    // The first round warms up.
    for round in 0..=count {
        progress(format!("heartbeats, round {round} of {count}"));
        let numbers = round * users..(round + 1) * users;
        let asked = deliver(environment, rounds, numbers.clone(), progress).await?;
        let confirmed = deliver(environment, rounds, numbers, progress).await?;
        if confirmed.requests > 0.0 {
            let problem = format!("{} requests for confirmed connections", confirmed.requests);
            return Err(BenchError::Void {
                what: "heartbeats".to_owned(),
                problem,
            });
        }
        found.push((asked, confirmed));
    }
    let found = &found[1..];
    let thousands = users as f64 / 1e3;
    let sum = |of: fn(&Used) -> f64| found.iter().map(|(asked, _)| of(asked)).sum::<f64>();
    let (requests, request_seconds) = (sum(|used| used.requests), sum(|used| used.request_seconds));
    let more = |of: &dyn Fn(&Used) -> Duration| {
        let more = |(asked, confirmed): &(Used, Used)| {
            of(asked).as_secs_f64() - of(confirmed).as_secs_f64()
        };
        let more = |pair| more(pair) * 1e3 / thousands;
        median(found.iter().map(more).collect())
    };
    let processes = found[0].0.cpu.keys();
    Ok(Heartbeats {
        users,
        requests_per_1000: requests / (found.len() as f64 * thousands),
        request_ms: request_seconds * 1e3 / requests,
        ms_per_1000: more(&|used| used.took),
        cpu_ms_per_1000: processes
            .map(|process| (*process, more(&|used| used.cpu[process])))
            .collect(),
    })
}

async fn deliver(
    environment: &Environment,
    rounds: &mut Rounds,
    numbers: Range<usize>,
    progress: Progress<'_>,
) -> Result<Used, BenchError> {
    let (requests, seconds) = (
        environment.metric(REQUESTS).await?,
        environment.metric(SECONDS).await?,
    );
    let cpu = rounds.population.cpu_times(environment);
    let took = rounds.deliver(environment, numbers, progress).await?;
    Ok(Used {
        took,
        cpu: used_since(&cpu, rounds.population.cpu_times(environment)),
        requests: environment.metric(REQUESTS).await? - requests,
        request_seconds: environment.metric(SECONDS).await? - seconds,
    })
}
