//! The metrics that exist, by docs/metrics.md, which a test of the program keeps true.

use std::collections::BTreeMap;

use super::files;

/// Prometheus's own metrics, with their labels.
const OF_PROMETHEUS: [(&str, &[&str]); 2] = [("up", &[]), ("ALERTS", &["alertname", "alertstate"])];
/// The client library's metrics of the process.
const OF_PROCESS: [(&str, &str); 7] = [
    ("process_cpu_seconds_total", "counter"),
    ("process_max_fds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_threads", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
];
/// The labels that Prometheus adds to everything it scrapes.
const OF_TARGETS: [&str; 2] = ["job", "instance"];
/// The ends of the names of a histogram's series.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The metrics that exist.
pub(super) struct Exported(BTreeMap<String, Metric>);

/// A metric and its labels, each with all its values; none are known of an open one.
pub(super) struct Metric {
    pub(super) kind: String,
    labels: BTreeMap<String, Vec<String>>,
}

impl Exported {
    /// Those of the table, of the process, and Prometheus's own.
    pub(super) fn read() -> Self {
        let text = files::text("docs/metrics.md");
        let rows = text
            .lines()
            .filter_map(|line| row(line.strip_prefix("| `")?));
        let of_process = OF_PROCESS.map(|(name, kind)| (name.to_owned(), Metric::new(kind, [])));
        let of_prometheus = OF_PROMETHEUS.map(|(name, labels)| {
            let labels = labels.iter().map(|label| ((*label).to_owned(), Vec::new()));
            (name.to_owned(), Metric::new("gauge", labels))
        });
        Self(rows.chain(of_process).chain(of_prometheus).collect())
    }

    /// Those that a member tells.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(|name| OF_PROMETHEUS.iter().all(|(own, _)| own != name))
    }

    /// Adds what a rule records.
    pub(super) fn record(&mut self, name: &str) {
        self.0.insert(name.to_owned(), Metric::new("gauge", []));
    }

    /// The metric of a series, and its name.
    pub(super) fn of(&self, series: &str) -> Option<(&str, &Metric)> {
        let histogram = OF_HISTOGRAMS
            .iter()
            .find_map(|end| self.0.get_key_value(series.strip_suffix(end)?));
        let histogram = histogram.filter(|(_, metric)| metric.kind == "histogram");
        let plain = self
            .0
            .get_key_value(series)
            .filter(|(_, metric)| metric.kind != "histogram");
        histogram
            .or(plain)
            .map(|(name, metric)| (name.as_str(), metric))
    }
}

impl Metric {
    fn new(kind: &str, labels: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self {
            kind: kind.to_owned(),
            labels: labels.into_iter().collect(),
        }
    }

    /// Returns true if its series have this label.
    pub(super) fn has(&self, label: &str) -> bool {
        let of_kind = self.kind == "histogram" && label == "le";
        of_kind || OF_TARGETS.contains(&label) || self.labels.contains_key(label)
    }

    /// Returns true if a label can have this value.
    pub(super) fn can_be(&self, label: &str, value: &str) -> bool {
        self.labels
            .get(label)
            .is_none_or(|values| values.is_empty() || values.iter().any(|one| one == value))
    }
}

/// A metric of a row: name, type, labels, help.
fn row(row: &str) -> Option<(String, Metric)> {
    let mut cells = row.split(" | ");
    let (name, kind, labels) = (
        cells.next()?.strip_suffix('`')?,
        cells.next()?,
        cells.next()?,
    );
    let quoted = |text: &str| -> Vec<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(ToOwned::to_owned)
            .collect()
    };
    let labels = labels.split("; ").filter_map(|label| {
        let mut names = quoted(label).into_iter();
        Some((names.next()?, names.collect()))
    });
    Some((name.to_owned(), Metric::new(kind, labels)))
}

#[test]
fn the_table_is_read() {
    let exported = Exported::read();
    let (name, metric) = exported.of("bellhop_query_seconds_bucket").unwrap();
    assert_eq!(
        (name, metric.kind.as_str()),
        ("bellhop_query_seconds", "histogram")
    );
    assert!(
        ["question", "le", "job"]
            .iter()
            .all(|label| metric.has(label))
            && !metric.has("result")
    );
    assert!(metric.can_be("question", "why") && !metric.can_be("question", "where"));
    assert!(exported.of("bellhop_query_seconds").is_none());
    assert!(
        exported
            .of("bellhop_build_info")
            .unwrap()
            .1
            .can_be("version", "any")
    );
}
