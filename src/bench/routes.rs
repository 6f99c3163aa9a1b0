//! Very many routes: how fast they are put, what they weigh, how soon a process that starts has them, what it costs to ask
//! about them.

use std::time::Instant;

use serde::Serialize;

use super::crew::{Progress, Publisher};
use super::heartbeats::{self, Heartbeats};
use super::laps::{Laps, SET_SIZE};
use super::load::{Crowd, Load};
use super::people::People;
use super::publisher::{Batch, To};
use super::site::{BELLHOP_PREFIX, MAILBOXES, Site};
use super::{BenchError, Options};

/// What was found.
///
/// Memory is the resident set of `bellhop serve`, `VmRSS`, once it does not change any more. An allocator keeps what was freed, and
/// buffers grow to the size that they need, so growth is measured from a warm state: a tenth of the routes, or mailboxes, is there
/// already. Hash tables double, so figures depend on how full they are. Mailboxes are measured where no routes are.
#[derive(Debug, Serialize)]
pub struct Routes {
    /// Routes, each of another user.
    pub routes: usize,
    /// Routes a second that app servers put, while `bellhop serve` followed.
    pub puts_per_second: f64,
    /// Seconds from the last put until a reminder had reached each of the users put last.
    pub followed_seconds: f64,
    /// Growth of memory for a route more.
    pub bytes_per_route: f64,
    /// Memory of a process that started with all routes in the bucket, less that of one that started with none, for a route.
    pub bytes_per_loaded_route: f64,
    /// Seconds until a `bellhop serve` is ready that is started with no route in the bucket.
    pub ready_without_seconds: f64,
    /// The same with all routes.
    pub ready_seconds: f64,
    /// Users with a mailbox.
    pub mailboxes: usize,
    /// Growth of memory for a user more who has no route, and one reminder in the mailbox. What the intake remembers of ids
    /// (`idempotency.max_ids`) is not in it.
    pub bytes_per_mailbox: f64,
    /// What asking about connections costs.
    pub heartbeats: Heartbeats,
}

/// Connections that are confirmed once stay so. Ids of reminders are remembered in the same memory, and bounded by a setting of
/// their own: as few as possible, so that they are not measured.
const SETTINGS: [&str; 2] = ["heartbeat.lease=1h", "idempotency.max_ids=1000"];
/// What is there already when growth is measured, as a share of all.
const WARM: usize = 10;
/// Where reminders are published for those without a route: a source of their own.
const AWAY_SUBJECT: &str = "bellhop.sets.away";
/// The users put last who show that all are followed: so many that each partition has some.
const WITNESSES: usize = 1_000;

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Routes, BenchError> {
    let (routes, warm) = (options.routes, options.routes / WARM);
    let mut site = Site::open(options, &SETTINGS).await?;
    let ready_without = site.restart().await?;
    let empty_bytes = site.resting_bytes().await;
    let load = Load { crowd: Crowd::Bench, users: routes, instances: options.instances };
    let mut laps = Laps::new(People::start(&site, load, BELLHOP_PREFIX).await?);

    laps.people.app_servers.connect(0..warm, progress).await?;
    let witnesses = WITNESSES.min(warm);
    laps.deliver(&site, warm - witnesses..warm, progress).await?;
    let warm_bytes = site.resting_bytes().await;
    let began = Instant::now();
    laps.people.app_servers.connect(warm..routes, progress).await?;
    let put = began.elapsed();
    laps.deliver(&site, routes - witnesses..routes, progress).await?;
    let followed = began.elapsed() - put;
    let full_bytes = site.resting_bytes().await;

    let users = options.users.min((routes - witnesses) / (options.rounds + 1));
    let heartbeats = heartbeats::measure(&site, &mut laps, (users, options.rounds), progress).await?;
    progress("restarting bellhop serve".to_owned());
    let ready = site.restart().await?;
    let loaded_bytes = site.resting_bytes().await;
    site.close().await;
    // Tables that are made for the routes would have room for these: they are measured without.
    let site = Site::open(options, &SETTINGS).await?;
    let bytes_per_mailbox = park(&site, options.users, progress).await?;
    site.close().await;
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

/// Parks a reminder for each of so many users who have no route, and answers the growth of memory for each.
async fn park(site: &Site, users: usize, progress: Progress<'_>) -> Result<f64, BenchError> {
    let mut publisher = Publisher::start(&site.url, Load { crowd: Crowd::Away, users, instances: 1 }).await?;
    let warm = users / WARM;
    let mut bytes = [0.0; 2];
    progress("mailboxes".to_owned());
    for ((first, end), bytes) in [(0, warm), (warm, users)].into_iter().zip(&mut bytes) {
        let (to, count) = (To::Subject(AWAY_SUBJECT.to_owned()), end - first);
        let all = site.messages(MAILBOXES).await? + count as u64;
        publisher.begin(Batch { to, first, count, set_size: SET_SIZE, rate: None }).await?;
        publisher.published(progress).await?;
        site.wait_for(MAILBOXES, |messages| messages >= all, |_| ()).await?;
        site.settled().await?;
        *bytes = site.resting_bytes().await;
    }
    Ok((bytes[1] - bytes[0]) / (users - warm) as f64)
}
