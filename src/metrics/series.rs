//! Makes series: each exists from the start, for each value of its label.

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// One metric for each value of a label, looked up without hashing.
#[derive(Debug)]
pub(super) struct Series<M>(Vec<(&'static str, M)>);

impl<M> Series<M> {
    /// Returns the one of this value, which is one of those it was made with.
    pub(super) fn of(&self, value: &str) -> &M {
        let found = self.0.iter().find(|(one, _)| *one == value);
        debug_assert!(found.is_some(), "no series of {value}");
        // An unknown value is counted with the last, rather than not at all.
        found
            .or(self.0.last())
            .map(|(_, metric)| metric)
            .expect("a label has values")
    }
}

/// A label's name and all its values.
pub(super) type Label<'l> = (&'l str, &'l [&'static str]);

/// Registers metrics. Names, helps and labels are constants, so nothing can be wrong with them but in a test.
pub(super) struct Maker<'r>(pub(super) &'r Registry);

impl Maker<'_> {
    fn registered<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("names and labels are constants, and right");
        self.0
            .register(Box::new(metric.clone()))
            .expect("no name comes twice");
        metric
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::new(name, help))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::new(name, help))
    }

    pub(super) fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::new(name, help))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.registered(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        ))
    }

    pub(super) fn counters(&self, name: &str, help: &str, label: Label<'_>) -> Series<IntCounter> {
        self.series(IntCounterVec::new(Opts::new(name, help), &[label.0]), label)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, label: Label<'_>) -> Series<IntGauge> {
        self.series(IntGaugeVec::new(Opts::new(name, help), &[label.0]), label)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        label: Label<'_>,
    ) -> Series<Histogram> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.series(HistogramVec::new(opts, &[label.0]), label)
    }

    /// Counters with two labels: a series of the second for each value of the first.
    pub(super) fn counters_by(
        &self,
        name: &str,
        help: &str,
        first: Label<'_>,
        second: Label<'_>,
    ) -> Series<Series<IntCounter>> {
        self.series_by(
            IntCounterVec::new(Opts::new(name, help), &[first.0, second.0]),
            first,
            second,
        )
    }

    /// Histograms with two labels.
    pub(super) fn histograms_by(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        first: Label<'_>,
        second: Label<'_>,
    ) -> Series<Series<Histogram>> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.series_by(HistogramVec::new(opts, &[first.0, second.0]), first, second)
    }

    fn series<B: MetricVecBuilder + 'static>(
        &self,
        all: prometheus::Result<MetricVec<B>>,
        (_, values): Label<'_>,
    ) -> Series<B::M>
    where
        MetricVec<B>: Collector,
    {
        let all = self.registered(all);
        Series(
            values
                .iter()
                .map(|value| (*value, all.with_label_values(&[value])))
                .collect(),
        )
    }

    fn series_by<B: MetricVecBuilder + 'static>(
        &self,
        all: prometheus::Result<MetricVec<B>>,
        (_, firsts): Label<'_>,
        (_, seconds): Label<'_>,
    ) -> Series<Series<B::M>>
    where
        MetricVec<B>: Collector,
    {
        let all = self.registered(all);
        let of = |one: &'static str| {
            Series(
                seconds
                    .iter()
                    .map(|two| (*two, all.with_label_values(&[one, two])))
                    .collect(),
            )
        };
        Series(firsts.iter().map(|one| (*one, of(one))).collect())
    }
}
