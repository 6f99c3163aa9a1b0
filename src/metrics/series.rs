//! Makes series: each exists from the start, for each value of its label.

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::labels::Label;

/// One metric for each value of a label, looked up without hashing.
#[derive(Debug)]
pub(super) struct Series<L, M>(Vec<(L, M)>);

impl<L: Label, M> Series<L, M> {
    fn new(make: impl Fn(L) -> M) -> Self {
        Self(
            L::all()
                .iter()
                .map(|value| (*value, make(*value)))
                .collect(),
        )
    }

    /// Returns the metric of this value.
    pub(super) fn of(&self, value: L) -> &M {
        let found = self.0.iter().find(|(one, _)| *one == value);
        found
            .map(|(_, metric)| metric)
            .expect("each value has a series")
    }
}

/// Registers metrics. Names, helps and labels are constants, so nothing can be wrong with them but
/// in a test.
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

    /// Makes a gauge with the version of this program as its label.
    pub(super) fn version(&self, name: &str, help: &str, version: &str) -> IntGauge {
        let all = self.registered(IntGaugeVec::new(Opts::new(name, help), &["version"]));
        all.with_label_values(&[version])
    }

    pub(super) fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::new(name, help))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.registered(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        ))
    }

    pub(super) fn counters<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Series<L, IntCounter> {
        self.series(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    pub(super) fn gauges<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Series<L, IntGauge> {
        self.series(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub(super) fn histograms<L: Label>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        label: &str,
    ) -> Series<L, Histogram> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.series(HistogramVec::new(opts, &[label]))
    }

    /// Counters with two labels: a series of the second for each value of the first.
    pub(super) fn counters_by<K: Label, L: Label>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
    ) -> Series<K, Series<L, IntCounter>> {
        self.series_by(IntCounterVec::new(Opts::new(name, help), &labels))
    }

    /// Histograms with two labels.
    pub(super) fn histograms_by<K: Label, L: Label>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: [&str; 2],
    ) -> Series<K, Series<L, Histogram>> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.series_by(HistogramVec::new(opts, &labels))
    }

    fn series<L: Label, B: MetricVecBuilder + 'static>(
        &self,
        all: prometheus::Result<MetricVec<B>>,
    ) -> Series<L, B::M>
    where
        MetricVec<B>: Collector,
    {
        let all = self.registered(all);
        Series::new(|one: L| all.with_label_values(&[one.value()]))
    }

    fn series_by<K: Label, L: Label, B: MetricVecBuilder + 'static>(
        &self,
        all: prometheus::Result<MetricVec<B>>,
    ) -> Series<K, Series<L, B::M>>
    where
        MetricVec<B>: Collector,
    {
        let all = self.registered(all);
        Series::new(|one: K| {
            Series::new(|two: L| all.with_label_values(&[one.value(), two.value()]))
        })
    }
}
