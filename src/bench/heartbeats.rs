//! What asking for connections costs: reminders for users whom nobody has asked about, and then the same again while their
//! connections count as held. What the first took more is the heartbeats'.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::crew::Progress;
use super::laps::Laps;
use super::site::Site;
use super::usage::{CpuTimes, used_since};
use super::{BenchError, median};

/// What it costs to confirm connections; all but the requests' own figures as the difference of two measurements.
#[derive(Debug, Serialize)]
pub struct Heartbeats {
    /// Users in one measurement, with one reminder each.
    pub users: usize,
    /// Heartbeat requests for a thousand users.
    pub requests_per_1000: f64,
    /// How long a request took, in milliseconds: the mean.
    pub request_ms: f64,
    /// How much longer a thousand users took, in milliseconds: the median of all rounds.
    pub ms_per_1000: f64,
    /// CPU milliseconds more for a thousand users, by process: the median of all rounds.
    pub cpu_ms_per_1000: BTreeMap<&'static str, f64>,
}

const REQUESTS: &str = "bellhop_heartbeats_total{result=\"answered\"}";
const SECONDS: &str = "bellhop_heartbeat_seconds_sum";

/// What one delivery to all users used.
struct Used {
    took: Duration,
    cpu: CpuTimes,
    requests: f64,
    request_seconds: f64,
}

/// Measures with other users in each round. They must be connected, their connections not yet confirmed, and held for long
/// once they are.
pub(super) async fn measure(
    site: &Site,
    laps: &mut Laps,
    (users, rounds): (usize, usize),
    progress: Progress<'_>,
) -> Result<Heartbeats, BenchError> {
    let mut found = Vec::new();
    // The first round warms up.
    for round in 0..=rounds {
        progress(format!("heartbeats, round {round} of {rounds}"));
        let numbers = round * users..(round + 1) * users;
        let asked = deliver(site, laps, numbers.clone(), progress).await?;
        let held = deliver(site, laps, numbers, progress).await?;
        if held.requests > 0.0 {
            let problem = format!("{} connections did not count as held", held.requests);
            return Err(BenchError::Wrong { what: "the cost of heartbeats".to_owned(), problem });
        }
        found.push((asked, held));
    }
    let found = &found[1..];
    let thousands = users as f64 / 1e3;
    let sum = |of: fn(&Used) -> f64| found.iter().map(|(asked, _)| of(asked)).sum::<f64>();
    let (requests, request_seconds) = (sum(|used| used.requests), sum(|used| used.request_seconds));
    let more = |of: &dyn Fn(&Used) -> Duration| {
        let more = |(asked, held): &(Used, Used)| (of(asked).as_secs_f64() - of(held).as_secs_f64()) * 1e3 / thousands;
        median(found.iter().map(more).collect())
    };
    let parts = found[0].0.cpu.keys();
    Ok(Heartbeats {
        users,
        requests_per_1000: requests / (found.len() as f64 * thousands),
        request_ms: request_seconds * 1e3 / requests,
        ms_per_1000: more(&|used| used.took),
        cpu_ms_per_1000: parts.map(|part| (*part, more(&|used| used.cpu[part]))).collect(),
    })
}

async fn deliver(
    site: &Site,
    laps: &mut Laps,
    numbers: Range<usize>,
    progress: Progress<'_>,
) -> Result<Used, BenchError> {
    let (requests, seconds) = (site.figure(REQUESTS).await?, site.figure(SECONDS).await?);
    let cpu = laps.people.cpu_times(site);
    let took = laps.deliver(site, numbers, progress).await?;
    Ok(Used {
        took,
        cpu: used_since(&cpu, laps.people.cpu_times(site)),
        requests: site.figure(REQUESTS).await? - requests,
        request_seconds: site.figure(SECONDS).await? - seconds,
    })
}
