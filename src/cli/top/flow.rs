//! Rates: the counts between two samples, per second. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::Figures;
use super::sample::Sample;

/// The installation's throughput, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Flow {
    /// Sets published.
    pub(super) sets: f64,
    /// Reminders taken in, without repeats.
    pub(super) reminders: f64,
    /// Reminders accepted by their users' app servers.
    pub(super) delivered: f64,
    /// Reminders accepted in a user's stead.
    pub(super) rerouted: f64,
    /// Duplicates merged.
    pub(super) merged: f64,
    /// Reminders that a rule blocked, or that expired.
    pub(super) dropped: f64,
    /// Reminders put into mailboxes.
    pub(super) parked: f64,
    /// Messages refused.
    pub(super) rejected: f64,
    /// Requests to app servers that failed.
    pub(super) failed: f64,
}

/// The time from publishing to acceptance of those that went straight to their users, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    /// Half of them took less.
    pub(super) median_seconds: f64,
    /// 99 % of them took less.
    pub(super) p99_seconds: f64,
}

/// Returns how much a member's counter grew. After a restart the counter started from zero.
fn grown(before: Option<&Figures>, now: &Figures, count: impl Fn(&Figures) -> f64) -> f64 {
    let (then, now) = (before.map(&count), count(now));
    match then {
        Some(then) if then <= now => now - then,
        Some(_) => now,
        // It did not answer, or was not there: what it counted before is not growth.
        None => 0.0,
    }
}

/// Returns the counts between two samples, of one member or of all.
pub(super) fn flow(before: &Sample, now: &Sample, member: Option<&str>) -> Flow {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    if seconds <= 0.0 {
        return Flow::default();
    }
    let rate = |metric: &str, labels: &[&str]| {
        counted(before, now, member, |figures| figures.sum(metric, labels)) / seconds
    };
    let outcomes = |name: &str| rate("bellhop_outcomes_total", &[&format!("outcome=\"{name}\"")]);
    let requests = |metric: &str| rate(metric, &[]) - rate(metric, &["result=\"answered\""]);
    Flow {
        sets: now.sets.saturating_sub(before.sets) as f64 / seconds,
        reminders: rate("bellhop_reminders_total", &["result=\"new\""]),
        delivered: outcomes("delivered"),
        rerouted: outcomes("rerouted"),
        merged: outcomes("merged"),
        dropped: outcomes("blocked") + outcomes("expired"),
        parked: outcomes("parked"),
        rejected: rate("bellhop_rejected_total", &[]),
        failed: requests("bellhop_deliveries_total") + requests("bellhop_heartbeats_total"),
    }
}

fn counted(
    before: &Sample,
    now: &Sample,
    member: Option<&str>,
    count: impl Fn(&Figures) -> f64,
) -> f64 {
    let is_asked = |name: &&String| member.is_none_or(|member| member == name.as_str());
    let members = now.figures.iter().filter(|(name, _)| is_asked(name));
    members
        .map(|(name, figures)| grown(before.figures.get(name), figures, &count))
        .sum()
}

/// Returns the latency of the reminders that were accepted between two samples; none without any.
pub(super) fn latency(before: &Sample, now: &Sample) -> Option<Latency> {
    let (metric, way) = ("bellhop_published_to_accepted_seconds", ["way=\"direct\""]);
    let mut counts: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (name, figures) in &now.figures {
        let Some(then) = before.figures.get(name) else {
            continue;
        };
        let then = then.buckets(metric, &way);
        for (at, (bound, count)) in figures.buckets(metric, &way).into_iter().enumerate() {
            let earlier = then.get(at).map_or(0.0, |(_, earlier)| *earlier);
            let grown = if earlier <= count {
                count - earlier
            } else {
                count
            };
            let sum = counts.entry(at).or_insert((bound, 0.0));
            sum.1 += grown;
        }
    }
    let buckets: Vec<(f64, f64)> = counts.into_values().collect();
    Some(Latency {
        median_seconds: quantile(&buckets, 0.5)?,
        p99_seconds: quantile(&buckets, 0.99)?,
    })
}

/// A quantile of cumulated counts, as Prometheus makes it: evenly spread within a bucket; what is
/// above all bounds is at the last one.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let wanted = buckets
        .last()
        .map(|(_, all)| all * share)
        .filter(|wanted| *wanted > 0.0)?;
    let at = buckets.iter().position(|(_, count)| *count >= wanted)?;
    let (low, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (high, count) = buckets[at];
    Some(if high.is_infinite() {
        low
    } else {
        low + (high - low) * (wanted - below) / (count - below).max(f64::MIN_POSITIVE)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let buckets = [(0.001, 50.0), (0.01, 90.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.001));
        assert_eq!(quantile(&buckets, 0.25), Some(0.0005));
        assert!((quantile(&buckets, 0.7).unwrap() - 0.0055).abs() < 1e-9);
        assert_eq!(
            quantile(&buckets, 0.99),
            Some(0.01),
            "the excess is unknown"
        );
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn earlier_counts_are_not_growth() {
        let delivered =
            |count: u32| format!("bellhop_outcomes_total{{outcome=\"delivered\"}} {count}\n");
        let before = sample(0, 10, &[("one", &delivered(100)), ("two", &delivered(50))]);
        let now = sample(
            2,
            30,
            &[
                ("one", &delivered(140)),
                ("two", &delivered(6)),
                ("three", &delivered(1_000)),
            ],
        );
        let all = flow(&before, &now, None);
        assert_eq!(
            (all.sets, all.delivered),
            (10.0, 23.0),
            "two restarted, three was not there"
        );
        assert_eq!(flow(&before, &now, Some("one")).delivered, 20.0);
        assert_eq!(flow(&before, &before, None), Flow::default());
    }

    #[test]
    fn latency_is_that_of_the_time_between() {
        let buckets = |fast: u32, all: u32| {
            format!(
                "bellhop_published_to_accepted_seconds_bucket{{priority=\"low\",way=\"direct\",le=\"0.01\"}} {fast}\n\
                 bellhop_published_to_accepted_seconds_bucket{{priority=\"low\",way=\"direct\",le=\"+Inf\"}} {all}\n"
            )
        };
        let (before, now) = (
            sample(0, 0, &[("one", &buckets(0, 1_000))]),
            sample(1, 0, &[("one", &buckets(100, 1_100))]),
        );
        let Latency {
            median_seconds,
            p99_seconds,
        } = latency(&before, &now).unwrap();
        assert!((median_seconds - 0.005).abs() < 1e-9 && (p99_seconds - 0.0099).abs() < 1e-9);
        assert_eq!(latency(&now, &now), None);
    }
}
