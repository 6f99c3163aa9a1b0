//! All users are away while reminders arrive, and then all come back at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use async_nats::jetstream::stream;
use serde::Serialize;

use super::baselines::{Return, Returned, ServeReturns};
use super::environment::{BELLHOP_PREFIX, Environment, MAILBOXES};
use super::error::{BenchError, During};
use super::load::{Crowd, Load};
use super::population::Population;
use super::publisher::{Batch, Published, To, now_us};
use super::trial::System;
use super::usage::{CpuTimes, used_since};
use super::{Options, Progress};

/// The return of one system's users, in the round with the median `users_per_second`.
#[derive(Debug, Serialize)]
pub struct Offline {
    /// The system.
    pub system: System,
    /// Number of users, all of them away.
    pub users: usize,
    /// Number of reminders for them.
    pub reminders: usize,
    /// Reminders a second, from the first set published until all are stored for their users.
    pub parked_per_second: f64,
    /// Users a second, from the return of the first one until nothing is stored any more.
    pub users_per_second: f64,
    /// Reminders a second, in the same time.
    pub reminders_per_second: f64,
    /// Seconds from the return of the first user until the last reminder is accepted.
    pub accepted_seconds: f64,
    /// Seconds from the return of the first user until nothing is stored any more.
    pub emptied_seconds: f64,
    /// `users_per_second` of each round.
    pub rounds: Vec<f64>,
    /// CPU seconds of the return for a million reminders, by process, without the live traffic's
    /// app servers.
    pub cpu_per_million: BTreeMap<&'static str, f64>,
    /// The effect on live traffic; not for the baseline.
    pub live: Option<LiveLatency>,
}

/// The latency of live reminders for a few users who stay connected, from when they were due to be
/// published to their acceptance.
#[derive(Debug, Serialize)]
pub struct LiveLatency {
    /// Reminders a second, in sets of one.
    pub rate: usize,
    /// The median before the return, in milliseconds.
    pub before_p50_ms: f64,
    /// The 99th percentile before the return.
    pub before_p99_ms: f64,
    /// The median during the return.
    pub during_p50_ms: f64,
    /// The 99th percentile during the return.
    pub during_p99_ms: f64,
}

/// The straightforward design gets one in this many users, because it is slow.
const PER_EVENT_SHARE: usize = 50;
/// The stream of the straightforward design.
const STREAM: &str = "BENCH_AWAY";
/// The beginning of its users' subjects.
const USERS_SUBJECT: &str = "bench.away";
/// The beginning of its instances' subjects.
const EACH_PREFIX: &str = "each.app";

/// The result of one round.
#[derive(Debug)]
struct Round {
    parked: Duration,
    back: Back,
    live: Option<LiveLatency>,
}

/// The result of a return.
#[derive(Debug)]
struct Back {
    accepted: Duration,
    emptied: Duration,
    cpu: CpuTimes,
}

pub(super) async fn run(
    options: &Options,
    progress: Progress<'_>,
) -> Result<Vec<Offline>, BenchError> {
    let few = Options {
        users: (options.users / PER_EVENT_SHARE).max(1),
        reminders: (options.reminders / PER_EVENT_SHARE).max(1),
        ..options.clone()
    };
    let mut rounds = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        let mut progress =
            |text: String| progress(format!("round {} of {}: {text}", round + 1, options.rounds));
        let environment = Environment::start(options, &[]).await?;
        rounds[0].push(bellhop(&environment, options, round, &mut progress).await?);
        rounds[1].push(per_event(&environment, &few, &mut progress).await?);
        environment.close().await;
    }
    let [bellhop, per_event] = rounds;
    Ok(vec![
        summary(System::Bellhop, options, bellhop),
        summary(System::PerEvent, &few, per_event),
    ])
}

/// Parks reminders in Bellhop's mailboxes, and lets their users come back.
async fn bellhop(
    environment: &Environment,
    options: &Options,
    round: usize,
    progress: Progress<'_>,
) -> Result<Round, BenchError> {
    // A given server may remember the reminders of earlier rounds.
    let mut away = Away::start(
        environment,
        options,
        BELLHOP_PREFIX,
        round * options.reminders,
    )
    .await?;
    let mut live =
        LiveTraffic::start(environment, options.live_rate, round << 32, progress).await?;
    let fences = environment.messages(MAILBOXES).await?;
    let count = options.reminders as u64;
    let set_size = options.set_size();
    let subject = To::Subject(System::Bellhop.subject().to_owned());
    let Published { began_us, .. } = away.publish(subject, set_size, progress).await?;
    let parking = |messages| progress(format!("{} of {count} are parked", messages - fences));
    environment
        .wait_for(MAILBOXES, |messages| messages >= fences + count, parking)
        .await?;
    environment.settled().await?;
    let parked = since(began_us);

    progress("live traffic alone".to_owned());
    let before = live.send_for(options.duration, progress).await?;
    live.begin().await?;
    let begun = away.begin_return().await?;
    away.connect(progress).await?;
    let back = away.returned(begun, MAILBOXES, fences, progress).await?;
    let during = live.end(progress).await?;
    environment.settled().await?;
    away.verify("the return", progress).await?;
    Ok(Round {
        parked,
        back,
        live: Some(live_latency(options.live_rate, before, during)),
    })
}

/// Does the same with the straightforward design.
async fn per_event(
    environment: &Environment,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Round, BenchError> {
    let mut away = Away::start(environment, options, EACH_PREFIX, 0).await?;
    make_stream(environment).await?;
    let task = ServeReturns {
        url: environment.url.clone(),
        stream: STREAM.to_owned(),
        subject: USERS_SUBJECT.to_owned(),
        prefix: EACH_PREFIX.to_owned(),
        load: away.population.load,
    };
    let mut worker = task.start().await?;
    let published = away
        .publish(To::Users(USERS_SUBJECT.to_owned()), 1, progress)
        .await?;
    let parked = Duration::from_micros(published.ended_us.saturating_sub(published.began_us));

    let begun = away.begin_return().await?;
    worker.order(&Return(0..options.users)).await?;
    while let Returned::Progress(users) = worker.report().await? {
        progress(format!(
            "per-event: {users} of {} users are back",
            options.users
        ));
    }
    let mut back = away.returned(begun, STREAM, 0, progress).await?;
    back.cpu.insert("forwarder", worker.cpu_time());
    away.verify("per-event", progress).await?;
    let gone = environment.jetstream.delete_stream(STREAM).await;
    gone.during(format!("delete {STREAM}"))?;
    Ok(Round {
        parked,
        back,
        live: None,
    })
}

async fn make_stream(environment: &Environment) -> Result<(), BenchError> {
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{USERS_SUBJECT}.*")],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    let made = environment.jetstream.create_stream(config).await;
    made.map(drop).during(format!("make {STREAM}"))
}

/// Users who are away, and the numbers of the reminders for them.
struct Away<'e> {
    environment: &'e Environment,
    population: Population,
    numbers: Range<usize>,
}

/// The begin of a return, and the CPU time used until then.
struct Begun {
    began_us: u64,
    cpu: CpuTimes,
}

impl<'e> Away<'e> {
    async fn start(
        environment: &'e Environment,
        options: &Options,
        prefix: &str,
        first: usize,
    ) -> Result<Self, BenchError> {
        let population = Population::start(environment, options.load(), prefix).await?;
        Ok(Self {
            environment,
            population,
            numbers: first..first + options.reminders,
        })
    }

    async fn publish(
        &mut self,
        to: To,
        set_size: usize,
        progress: Progress<'_>,
    ) -> Result<Published, BenchError> {
        let (first, count) = (self.numbers.start, self.numbers.len());
        self.population
            .publisher
            .begin(Batch {
                to,
                first,
                count,
                set_size,
                rate: None,
            })
            .await?;
        self.population.publisher.published(progress).await
    }

    async fn begin_return(&mut self) -> Result<Begun, BenchError> {
        self.population.expect(self.numbers.clone()).await?;
        Ok(Begun {
            began_us: now_us(),
            cpu: self.population.cpu_times(self.environment),
        })
    }

    async fn connect(&mut self, progress: Progress<'_>) -> Result<(), BenchError> {
        let first = self.numbers.start;
        self.population
            .app_servers
            .connect(first..first + self.population.load.users, progress)
            .await
    }

    /// Waits until everything has arrived, and at most `left` messages are left in the stream.
    async fn returned(
        &mut self,
        begun: Begun,
        stream: &str,
        left: u64,
        progress: Progress<'_>,
    ) -> Result<Back, BenchError> {
        let last_us = self
            .population
            .app_servers
            .arrived("the return", progress)
            .await?
            .last_us;
        self.environment
            .wait_for(stream, |messages| messages <= left, |_| ())
            .await?;
        Ok(Back {
            accepted: Duration::from_micros(last_us.saturating_sub(begun.began_us)),
            emptied: since(begun.began_us),
            cpu: used_since(&begun.cpu, self.population.cpu_times(self.environment)),
        })
    }

    /// Verifies that everything arrived once and in order, including what arrived after the wait.
    async fn verify(&mut self, what: &str, progress: Progress<'_>) -> Result<(), BenchError> {
        self.population
            .verify(self.numbers.clone(), what, progress)
            .await
            .map(drop)
    }
}

/// Live traffic to a few users who stay connected, at a low rate, with a source and instances of
/// its own.
struct LiveTraffic {
    population: Population,
    rate: usize,
    /// The number of the next reminder.
    next: usize,
}

/// The users of live traffic.
const LIVE: Load = Load {
    crowd: Crowd::Live,
    users: 100,
    instances: 2,
};
/// The subject of its source.
const LIVE_SUBJECT: &str = "bellhop.sets.live";
/// Longer than any traffic lasts.
const LIVE_LONGEST: Duration = Duration::from_secs(3_600);

impl LiveTraffic {
    /// Connects the users. Reminders will have numbers from `first` on.
    async fn start(
        environment: &Environment,
        rate: usize,
        first: usize,
        progress: Progress<'_>,
    ) -> Result<Self, BenchError> {
        let mut population = Population::start(environment, LIVE, BELLHOP_PREFIX).await?;
        population
            .app_servers
            .connect(0..LIVE.users, progress)
            .await?;
        Ok(Self {
            population,
            rate,
            next: first,
        })
    }

    /// Sends for this long. Returns the time from when reminders were due to be published to
    /// acceptance, in microseconds: p50, p99, p99.9 and the longest.
    ///
    /// # Errors
    /// [`BenchError::Void`] if not everything arrived once and in order.
    async fn send_for(
        &mut self,
        time: Duration,
        progress: Progress<'_>,
    ) -> Result<[u64; 4], BenchError> {
        self.begin_for(time).await?;
        let published = self.population.publisher.published(progress).await?;
        self.arrived(published, progress).await
    }

    /// Begins to send.
    async fn begin(&mut self) -> Result<(), BenchError> {
        self.begin_for(LIVE_LONGEST).await
    }

    /// Stops sending. Returns the same as [`send_for`](Self::send_for).
    ///
    /// # Errors
    /// The same as [`send_for`](Self::send_for).
    async fn end(&mut self, progress: Progress<'_>) -> Result<[u64; 4], BenchError> {
        let published = self.population.publisher.stop(progress).await?;
        self.arrived(published, progress).await
    }

    async fn begin_for(&mut self, time: Duration) -> Result<(), BenchError> {
        let (first, rate) = (self.next, self.rate);
        let count = (rate as f64 * time.as_secs_f64()).ceil() as usize;
        self.population.expect(first..first + count).await?;
        let to = To::Subject(LIVE_SUBJECT.to_owned());
        self.population
            .publisher
            .begin(Batch {
                to,
                first,
                count,
                set_size: 1,
                rate: Some(rate),
            })
            .await
    }

    async fn arrived(
        &mut self,
        published: Published,
        progress: Progress<'_>,
    ) -> Result<[u64; 4], BenchError> {
        let tally = self
            .population
            .verify(self.next..published.end, "live traffic", progress)
            .await?;
        self.next = published.end;
        Ok(tally.latency_us)
    }
}

fn since(began_us: u64) -> Duration {
    Duration::from_micros(now_us().saturating_sub(began_us))
}

fn live_latency(rate: usize, before: [u64; 4], during: [u64; 4]) -> LiveLatency {
    let ms = |us: u64| us as f64 / 1e3;
    let [before_p50_ms, before_p99_ms, ..] = before.map(ms);
    let [during_p50_ms, during_p99_ms, ..] = during.map(ms);
    LiveLatency {
        rate,
        before_p50_ms,
        before_p99_ms,
        during_p50_ms,
        during_p99_ms,
    }
}

fn summary(system: System, options: &Options, mut rounds: Vec<Round>) -> Offline {
    let Options {
        users, reminders, ..
    } = *options;
    let a_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    let users_a_second = rounds
        .iter()
        .map(|round| a_second(users, round.back.emptied))
        .collect();
    rounds.sort_by_key(|round| round.back.emptied);
    let Round {
        parked,
        back: Back {
            accepted,
            emptied,
            cpu,
        },
        live,
    } = rounds.swap_remove(rounds.len() / 2);
    let cpu = cpu
        .into_iter()
        .map(|(process, time)| (process, time.as_secs_f64() / (reminders as f64 / 1e6)));
    Offline {
        system,
        users,
        reminders,
        parked_per_second: a_second(reminders, parked),
        users_per_second: a_second(users, emptied),
        reminders_per_second: a_second(reminders, emptied),
        accepted_seconds: accepted.as_secs_f64(),
        emptied_seconds: emptied.as_secs_f64(),
        rounds: users_a_second,
        cpu_per_million: cpu.collect(),
        live,
    }
}
