//! The alerts, as Prometheus understands them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::exported::Exported;
use super::{files, none, query};
use crate::harness::prometheus::{Prometheus, promtool};

/// The parts of every entry of the runbooks.
const PARTS: [&str; 3] = ["**Means.**", "**Confirm.**", "**Do.**"];

/// The alerts that Prometheus has loaded.
#[derive(Debug, Deserialize)]
pub(super) struct Loaded {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Rule {
    Recording { name: String },
    Alerting(Alert),
}

/// A rule that alerts.
#[derive(Debug, Deserialize)]
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) query: String,
    labels: BTreeMap<String, String>,
    /// The texts for people.
    annotations: BTreeMap<String, String>,
}

impl Loaded {
    pub(super) async fn by(prometheus: &Prometheus) -> Self {
        serde_json::from_value(prometheus.ask("rules").await.unwrap()).unwrap()
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }

    pub(super) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.rules().filter_map(|rule| match rule {
            Rule::Recording { .. } => None,
            Rule::Alerting(alert) => Some(alert),
        })
    }

    fn records(&self) -> impl Iterator<Item = &str> {
        self.rules().filter_map(|rule| match rule {
            Rule::Recording { name } => Some(name.as_str()),
            Rule::Alerting(_) => None,
        })
    }
}

impl Alert {
    /// Returns its problems: it must have a test in `tests` and an entry in `runbooks`.
    fn complaints(&self, tests: &str, runbooks: &BTreeMap<String, &str>) -> Vec<&'static str> {
        let said = |name| {
            self.annotations
                .get(name)
                .is_some_and(|text| !text.is_empty())
        };
        let severity = self.labels.get("severity").map(String::as_str);
        let anchor = self
            .annotations
            .get("runbook_url")
            .and_then(|url| url.strip_prefix("docs/runbooks.md#"));
        let runbook = anchor
            .and_then(|anchor| runbooks.get(anchor))
            .copied()
            .unwrap_or_default();
        let wrong = [
            (
                !matches!(severity, Some("critical" | "warning")),
                "its severity is neither critical nor warning",
            ),
            (
                !said("summary") || !said("description"),
                "it says not what is wrong",
            ),
            (
                !PARTS.iter().all(|part| runbook.contains(part)),
                "its runbook is missing, or a part of it",
            ),
            (
                !tests.contains(&format!(r#"alertname="{}""#, self.name)),
                "no test has it fire",
            ),
        ];
        wrong
            .into_iter()
            .filter_map(|(is_wrong, complaint)| is_wrong.then_some(complaint))
            .collect()
    }
}

/// The entries of the runbooks, by their anchors.
fn runbooks(text: &str) -> BTreeMap<String, &str> {
    let entries = text.split("\n## ").skip(1);
    entries
        .filter_map(|entry| entry.split_once('\n'))
        .map(|(title, text)| (title.to_lowercase(), text))
        .collect()
}

#[test]
#[cfg_attr(
    not(has_prometheus),
    ignore = "no Prometheus here: apt-get install prometheus"
)]
fn prometheus_finds_nothing_wrong() {
    let dir = files::path("dashboards");
    promtool(&dir, &["check", "config", "prometheus.yml"]);
    promtool(
        &dir,
        &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"],
    );
    promtool(&dir, &["test", "rules", "alerts.test.yml"]);
}

#[tokio::test]
#[cfg_attr(
    not(has_prometheus),
    ignore = "no Prometheus here: apt-get install prometheus"
)]
async fn alerts_are_tested_and_have_runbooks() {
    let rules = files::path("dashboards/alerts.yml");
    let Some(prometheus) =
        Prometheus::start(&files::text("dashboards/prometheus.yml"), &rules).await
    else {
        return;
    };
    let loaded = Loaded::by(&prometheus).await;
    let mut exported = Exported::read();
    loaded.records().for_each(|name| exported.record(name));
    let (tests, text) = (
        files::text("dashboards/alerts.test.yml"),
        files::text("docs/runbooks.md"),
    );
    let mut runbooks = runbooks(&text);
    let mut complaints = Vec::new();
    for alert in loaded.alerts() {
        let reads = query::complaints(&alert.query, &exported);
        let says = alert
            .complaints(&tests, &runbooks)
            .into_iter()
            .map(ToOwned::to_owned);
        complaints.extend(
            reads
                .into_iter()
                .chain(says)
                .map(|complaint| format!("{}: {complaint}", alert.name)),
        );
        runbooks.remove(&alert.name.to_lowercase());
    }
    complaints.extend(
        runbooks
            .keys()
            .map(|anchor| format!("docs/runbooks.md#{anchor} is of no alert")),
    );
    none(complaints);
}
