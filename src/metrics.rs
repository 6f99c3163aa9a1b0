//! What Prometheus sees of this process: one method for each fact. Every series exists from the start, at zero; labels are of
//! small closed sets.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The metrics of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    rules_documents: IntGauge,
    rules_loaded: IntCounter,
    rules_ignored: IntCounter,
    devices_missed: IntCounter,
    history_lag: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let loads = Opts::new("bellhop_rules_loads_total", "Documents of rules that were read, by what came of it.");
        let loads = registered(&registry, IntCounterVec::new(loads, &["result"]));
        let documents = IntGauge::new("bellhop_rules_documents", "Documents of rules in use, one for each tag.");
        let missed = IntCounter::new(
            "bellhop_devices_missed_total",
            "Instances that did not take a reminder while another instance of its user did.",
        );
        let lag = Gauge::new(
            "bellhop_history_lag_seconds",
            "Age of the oldest outcome that is read and not yet in the database; 0 where another member writes the history.",
        );
        Self {
            history_lag: registered(&registry, lag),
            devices_missed: registered(&registry, missed),
            rules_documents: registered(&registry, documents),
            rules_loaded: loads.with_label_values(&["loaded"]),
            rules_ignored: loads.with_label_values(&["ignored"]),
            registry,
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels are constants, and right");
    registry.register(Box::new(metric.clone())).expect("no name comes twice");
    metric
}

impl Metrics {
    /// So many documents of rules are in use.
    pub fn rules_in_use(&self, documents: usize) {
        self.rules_documents.set(i64::try_from(documents).unwrap_or(i64::MAX));
    }

    /// A document of rules was compiled.
    pub fn rules_loaded(&self) {
        self.rules_loaded.inc();
    }

    /// A document of rules cannot be used; the last good one stays.
    pub fn rules_ignored(&self) {
        self.rules_ignored.inc();
    }

    /// So many instances did not take a reminder that another instance of its user took.
    pub fn devices_missed(&self, instances: usize) {
        self.devices_missed.inc_by(instances as u64);
    }

    /// The history is this far behind.
    pub fn history_lags(&self, lag: Duration) {
        self.history_lag.set(lag.as_secs_f64());
    }

    /// All of them, in Prometheus's text format.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("a text is written to memory")
    }
}
