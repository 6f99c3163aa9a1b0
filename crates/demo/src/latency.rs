//! Durations in buckets, so that quantiles of any number of them take the same small memory. Pure.

use std::time::Duration;

/// Each doubling is divided into this many buckets: a quantile is at most 1/32 above the truth.
const STEPS: u64 = 32;

/// How many durations fell into each bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Latencies {
    /// Takes one in.
    pub(crate) fn note(&mut self, latency: Duration) {
        let bucket = bucket_of(
            u64::try_from(latency.as_micros())
                .unwrap_or(u64::MAX)
                .min(1 << 40),
        );
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// Returns the duration that this share of them (0 to 1) did not exceed; `None` where there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(longest_in(bucket as u64)))
    }
}

/// Up to [`STEPS`] microseconds have a bucket each; from there on, each doubling has [`STEPS`].
fn bucket_of(us: u64) -> usize {
    let shift = us.max(STEPS).ilog2() - STEPS.ilog2();
    (u64::from(shift) * STEPS + (us >> shift)) as usize
}

fn longest_in(bucket: u64) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        (1..=10_000).for_each(|ms| latencies.note(Duration::from_millis(ms)));
        for (share, ms) in [(0.0, 1.0), (0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = latencies.quantile(share).unwrap().as_secs_f64() * 1e3;
            assert!(
                (ms..ms * 1.04).contains(&found),
                "{share}: {found} ms, not {ms} ms"
            );
        }
    }

    #[test]
    fn every_duration_lies_in_its_bucket() {
        for us in (0..5_000).chain([1 << 20, u64::MAX >> 8]) {
            let bucket = bucket_of(us);
            assert!(us <= longest_in(bucket as u64));
            assert!(bucket == 0 || us > longest_in(bucket as u64 - 1), "{us}");
        }
    }
}
