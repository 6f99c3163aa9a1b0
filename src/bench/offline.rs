//! Everybody is away while reminders come, and then everybody is back at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use async_nats::jetstream::stream;
use serde::Serialize;

use super::crew::Progress;
use super::live::Live;
use super::part::Part;
use super::people::People;
use super::per_user::{self, Report, Return};
use super::publisher::{Batch, Published, To, now_us};
use super::site::{BELLHOP_PREFIX, MAILBOXES, Site};
use super::stage::System;
use super::task::Task;
use super::usage::{CpuTimes, used_since};
use super::{BenchError, Options};

/// One system, in the round that is the middle one by its `users_per_second`.
#[derive(Debug, Serialize)]
pub struct Offline {
    /// Who kept the reminders and brought them.
    pub system: System,
    /// Users, all of them away.
    pub users: usize,
    /// Reminders for them.
    pub reminders: usize,
    /// Reminders a second, from the first set published until all are kept for their users and nothing else is in work.
    pub parked_per_second: f64,
    /// Users a second, from when the first one is back until nothing is kept for anybody any more.
    pub users_per_second: f64,
    /// Reminders a second, in the same time.
    pub reminders_per_second: f64,
    /// Seconds from when the first user is back until the last reminder is accepted.
    pub accepted_seconds: f64,
    /// Seconds from when the first user is back until nothing is kept for anybody any more.
    pub emptied_seconds: f64,
    /// Each round's `users_per_second`.
    pub rounds: Vec<f64>,
    /// CPU seconds of the return for a million reminders, by process; without the live traffic's.
    pub cpu_per_million: BTreeMap<&'static str, f64>,
    /// What others felt of it; not for the baseline.
    pub live: Option<Felt>,
}

/// How long live reminders of a few users who stayed connected took from when they were due to be published to acceptance.
#[derive(Debug, Serialize)]
pub struct Felt {
    /// Reminders a second, in sets of one.
    pub rate: usize,
    /// The median before the return, in milliseconds.
    pub before_p50_ms: f64,
    /// What one in a hundred exceeded then.
    pub before_p99_ms: f64,
    /// The median during the return.
    pub during_p50_ms: f64,
    /// What one in a hundred exceeded then.
    pub during_p99_ms: f64,
}

/// The straightforward design is so slow that fewer users show it.
const PER_EVENT_SHARE: usize = 50;
/// Its stream,
const STREAM: &str = "BENCH_AWAY";
/// what its users' subjects begin with,
const USERS_SUBJECT: &str = "bench.away";
/// and its instances'.
const EACH_PREFIX: &str = "each.app";

/// What one round found.
#[derive(Debug)]
struct Round {
    parked: Duration,
    back: Back,
    live: Option<Felt>,
}

/// What a return found.
#[derive(Debug)]
struct Back {
    accepted: Duration,
    emptied: Duration,
    cpu: CpuTimes,
}

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Vec<Offline>, BenchError> {
    let few = Options {
        users: (options.users / PER_EVENT_SHARE).max(1),
        reminders: (options.reminders / PER_EVENT_SHARE).max(1),
        ..options.clone()
    };
    let mut rounds = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        let mut tell = |text: String| progress(format!("round {} of {}: {text}", round + 1, options.rounds));
        let site = Site::open(options, &[]).await?;
        rounds[0].push(bellhop(&site, options, round, &mut tell).await?);
        rounds[1].push(per_event(&site, &few, &mut tell).await?);
        site.close().await;
    }
    let [bellhop, per_event] = rounds;
    Ok(vec![told(System::Bellhop, options, bellhop), told(System::PerEvent, &few, per_event)])
}

/// Reminders in mailboxes, and back.
async fn bellhop(site: &Site, options: &Options, round: usize, progress: Progress<'_>) -> Result<Round, BenchError> {
    // A server that was named may remember what earlier rounds published.
    let mut away = Away::start(site, options, BELLHOP_PREFIX, round * options.reminders).await?;
    let mut live = Live::start(site, options.live_rate, round << 32, progress).await?;
    let fences = site.messages(MAILBOXES).await?;
    let count = options.reminders as u64;
    let set_size = options.set_size();
    let subject = To::Subject(System::Bellhop.subject().to_owned());
    let Published { began_us, .. } = away.publish(subject, set_size, progress).await?;
    let tell = |messages| progress(format!("{} of {count} are parked", messages - fences));
    site.wait_for(MAILBOXES, |messages| messages >= fences + count, tell).await?;
    site.settled().await?;
    let parked = since(began_us);

    progress("live traffic alone".to_owned());
    let before = live.send_for(options.duration, progress).await?;
    live.begin().await?;
    let begun = away.begin_return().await?;
    away.connect(progress).await?;
    let back = away.returned(begun, MAILBOXES, fences, progress).await?;
    let during = live.end(progress).await?;
    site.settled().await?;
    away.verify("the return", progress).await?;
    Ok(Round { parked, back, live: Some(felt(options.live_rate, before, during)) })
}

/// Events on subjects of their users', and a durable consumer for each user who comes back.
async fn per_event(site: &Site, options: &Options, progress: Progress<'_>) -> Result<Round, BenchError> {
    let mut away = Away::start(site, options, EACH_PREFIX, 0).await?;
    make_stream(site).await?;
    let task = per_user::Task {
        url: site.url.clone(),
        stream: STREAM.to_owned(),
        subject: USERS_SUBJECT.to_owned(),
        prefix: EACH_PREFIX.to_owned(),
        load: away.people.load,
    };
    let mut per_user = Part::start("per-event", &Task::PerUser(task)).await?;
    let _ready: Report = per_user.hear().await?;
    let published = away.publish(To::Users(USERS_SUBJECT.to_owned()), 1, progress).await?;
    let parked = Duration::from_micros(published.ended_us.saturating_sub(published.began_us));

    let begun = away.begin_return().await?;
    per_user.tell(&Return(0..options.users)).await?;
    while let Report::Progress(users) = per_user.hear().await? {
        progress(format!("per-event: {users} of {} users are back", options.users));
    }
    let mut back = away.returned(begun, STREAM, 0, progress).await?;
    back.cpu.insert("forwarder", per_user.cpu_time());
    away.verify("per-event", progress).await?;
    let gone = site.jetstream.delete_stream(STREAM).await;
    gone.map_err(|error| BenchError::nats(format!("remove {STREAM}"), error))?;
    Ok(Round { parked, back, live: None })
}

async fn make_stream(site: &Site) -> Result<(), BenchError> {
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{USERS_SUBJECT}.*")],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    let made = site.jetstream.create_stream(config).await;
    made.map(drop).map_err(|error| BenchError::nats(format!("make {STREAM}"), error))
}

/// Those who are away, and the reminders for them.
struct Away<'s> {
    site: &'s Site,
    people: People,
    numbers: Range<usize>,
}

/// When a return began, and what had been used until then.
struct Begun {
    began_us: u64,
    cpu: CpuTimes,
}

impl<'s> Away<'s> {
    async fn start(site: &'s Site, options: &Options, prefix: &str, first: usize) -> Result<Self, BenchError> {
        let people = People::start(site, options.load(), prefix).await?;
        Ok(Self { site, people, numbers: first..first + options.reminders })
    }

    async fn publish(&mut self, to: To, set_size: usize, progress: Progress<'_>) -> Result<Published, BenchError> {
        let (first, count) = (self.numbers.start, self.numbers.len());
        self.people.publisher.begin(Batch { to, first, count, set_size, rate: None }).await?;
        self.people.publisher.published(progress).await
    }

    async fn begin_return(&mut self) -> Result<Begun, BenchError> {
        self.people.expect(self.numbers.clone()).await?;
        Ok(Begun { began_us: now_us(), cpu: self.people.cpu_times(self.site) })
    }

    async fn connect(&mut self, progress: Progress<'_>) -> Result<(), BenchError> {
        let first = self.numbers.start;
        self.people.app_servers.connect(first..first + self.people.load.users, progress).await
    }

    /// Waits until everything has arrived, and no more than `left` messages are in the stream where it was.
    async fn returned(
        &mut self,
        begun: Begun,
        stream: &str,
        left: u64,
        progress: Progress<'_>,
    ) -> Result<Back, BenchError> {
        let last_us = self.people.app_servers.arrived("the return", progress).await?.last_us;
        self.site.wait_for(stream, |messages| messages <= left, |_| ()).await?;
        Ok(Back {
            accepted: Duration::from_micros(last_us.saturating_sub(begun.began_us)),
            emptied: since(begun.began_us),
            cpu: used_since(&begun.cpu, self.people.cpu_times(self.site)),
        })
    }

    /// That everything arrived once and in order, with what came after that.
    async fn verify(&mut self, what: &str, progress: Progress<'_>) -> Result<(), BenchError> {
        self.people.verify(self.numbers.clone(), what, progress).await.map(drop)
    }
}

fn since(began_us: u64) -> Duration {
    Duration::from_micros(now_us().saturating_sub(began_us))
}

fn felt(rate: usize, before: [u64; 4], during: [u64; 4]) -> Felt {
    let ms = |us: u64| us as f64 / 1e3;
    let [before_p50_ms, before_p99_ms, ..] = before.map(ms);
    let [during_p50_ms, during_p99_ms, ..] = during.map(ms);
    Felt { rate, before_p50_ms, before_p99_ms, during_p50_ms, during_p99_ms }
}

fn told(system: System, options: &Options, mut rounds: Vec<Round>) -> Offline {
    let Options { users, reminders, .. } = *options;
    let a_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    let users_a_second = rounds.iter().map(|round| a_second(users, round.back.emptied)).collect();
    rounds.sort_by_key(|round| round.back.emptied);
    let Round { parked, back: Back { accepted, emptied, cpu }, live } = rounds.swap_remove(rounds.len() / 2);
    let cpu = cpu.into_iter().map(|(part, time)| (part, time.as_secs_f64() / (reminders as f64 / 1e6)));
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
