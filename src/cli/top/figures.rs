//! Members' metrics, as every member answers them over NATS: the text that Prometheus reads.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Subject;
use futures_util::StreamExt;

use crate::headers;
use crate::nats::{During, Nats, NatsError};

/// The figures of one member: series, by their name with their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Reads the text. Lines that are not series of it are skipped.
    pub(super) fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .filter_map(|line| line.rsplit_once(' '))
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// The sum of a metric's series that have all of these labels, such as `outcome="delivered"`.
    pub(super) fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        self.series(metric, labels).map(|(_, value)| value).sum()
    }

    /// A histogram's counts by their upper bounds, summed over the series that have all of these
    /// labels.
    pub(super) fn buckets(&self, metric: &str, labels: &[&str]) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (name, count) in self.series(&format!("{metric}_bucket"), labels) {
            let Some(bound) =
                label(name, "le").and_then(|bound| bound.replace("+Inf", "inf").parse().ok())
            else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        buckets
    }

    fn series(&self, metric: &str, labels: &[&str]) -> impl Iterator<Item = (&str, f64)> {
        let from = self
            .0
            .range(metric.to_owned()..)
            .take_while(move |(name, _)| name.starts_with(metric));
        from.filter(move |(name, _)| {
            let rest = &name[metric.len()..];
            (rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| rest.contains(label))
        })
        .map(|(name, value)| (name.as_str(), *value))
    }
}

/// A label's value; Bellhop's have nothing in them that would be escaped.
fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    series
        .split_once(&format!("{name}=\""))?
        .1
        .split_once('"')
        .map(|(value, _)| value)
}

/// Maximum time for the last member's answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// Asks all members, of whom so many are alive.
pub(super) async fn ask(nats: &Nats, alive: usize) -> Result<BTreeMap<String, Figures>, NatsError> {
    let inbox = Subject::from(nats.client.new_inbox());
    let mut answers = nats
        .client
        .subscribe(inbox.clone())
        .await
        .during("ask the members for their metrics")?;
    let sent = nats
        .client
        .publish_with_reply(nats.names.metrics(), inbox, "".into())
        .await;
    sent.during("ask the members for their metrics")?;
    let mut received = BTreeMap::new();
    while received.len() < alive {
        let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, answers.next()).await else {
            break;
        };
        let Some(member) = answer
            .headers
            .as_ref()
            .and_then(|headers| headers.get(headers::MEMBER))
        else {
            break;
        };
        received.insert(
            member.to_string(),
            Figures::parse(&String::from_utf8_lossy(&answer.payload)),
        );
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, Way};
    use crate::reminder::Priority;

    #[test]
    fn member_metrics_are_read() {
        let metrics = Metrics::default();
        metrics.set_taken();
        metrics.reminders_taken(5, 2, 1);
        metrics.accepted(Priority::High, Way::Direct, Duration::from_millis(3));
        metrics.accepted(Priority::Low, Way::Direct, Duration::from_millis(30));
        metrics.accepted(Priority::Low, Way::Mailbox, Duration::from_secs(1_000));
        let figures = Figures::parse(&metrics.text());
        assert_eq!(figures.sum("bellhop_sets_total", &[]), 1.0);
        assert_eq!(figures.sum("bellhop_reminders_total", &[]), 8.0);
        assert_eq!(
            figures.sum("bellhop_reminders_total", &["result=\"new\""]),
            5.0
        );
        let buckets = figures.buckets("bellhop_published_to_accepted_seconds", &["way=\"direct\""]);
        assert_eq!(buckets.len(), 17);
        let at = |bound: f64| {
            buckets
                .iter()
                .find(|(known, _)| *known == bound)
                .map(|(_, count)| *count)
        };
        assert_eq!(
            [at(0.0025), at(0.005), at(0.05), at(f64::INFINITY)],
            [Some(0.0), Some(1.0), Some(2.0), Some(2.0)]
        );
        assert_eq!(figures.sum("bellhop_none", &[]), 0.0);
    }
}
