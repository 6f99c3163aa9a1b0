//! What Prometheus sees of this process: one method for each fact. Every series exists from the start, at zero; labels are of
//! small closed sets, and never a user, a reminder, a source or an instance.

mod series;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use crate::partition::Role;
use crate::reminder::Priority;
use crate::reminder::outcome::{self, Outcome};
use crate::reminder::reject::RejectCode;
use crate::router::{NoAnswer, Refusal};
use series::{Maker, Series};

/// The metrics of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    registry: Registry,
    sets: IntCounter,
    reminders: Series<IntCounter>,
    rejected: Series<IntCounter>,
    outcomes: Series<IntCounter>,
    accepted: Series<Series<Histogram>>,
    deliveries: Series<IntCounter>,
    delivery_time: Histogram,
    delivery_reminders: IntCounter,
    refusals: Series<IntCounter>,
    devices_missed: IntCounter,
    heartbeats: Series<IntCounter>,
    heartbeat_time: Histogram,
    routes_dropped: IntCounter,
    members: IntGauge,
    roles: Series<IntGauge>,
    take_overs: IntCounter,
    nats_connected: IntGauge,
    rules_documents: IntGauge,
    rules_loads: Series<IntCounter>,
    rules_loaded_at: Gauge,
    history_lag: Gauge,
    history_reminders: Series<IntCounter>,
    history_time: Histogram,
    history_failures: IntCounter,
    queries: Series<Series<IntCounter>>,
    query_time: Series<Histogram>,
}

/// The way on which a reminder reached an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Straight to its user.
    Direct,
    /// To an associate.
    Rerouted,
    /// Through its user's mailbox.
    Mailbox,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Rerouted => "rerouted",
            Self::Mailbox => "mailbox",
        }
    }
}

const WAYS: [&str; 3] = [Way::Direct.name(), Way::Rerouted.name(), Way::Mailbox.name()];
const ENDINGS: [&str; 4] = ["answered", "no_responders", "timed_out", "garbage"];
const QUESTIONS: [&str; 4] = ["history", "why", "mailbox", "erase"];

/// How a request of ours ended.
fn ending<T>(answer: &Result<T, NoAnswer>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(NoAnswer::NoResponders) => "no_responders",
        Err(NoAnswer::TimedOut) => "timed_out",
        Err(NoAnswer::Garbage) => "garbage",
    }
}

/// From a millisecond to a quarter of an hour: the time through the system, with and without trouble.
const THROUGH: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 900.0];
/// From half a millisecond to the longest time-out.
const REQUEST: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Default for Handles {
    fn default() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let build = make.gauges(
            "bellhop_build_info",
            "Always 1; the version is in the label.",
            ("version", &[env!("CARGO_PKG_VERSION")]),
        );
        build.of(env!("CARGO_PKG_VERSION")).set(1);
        let priorities = Priority::ALL.map(Priority::as_str);
        let codes: Vec<_> = RejectCode::ALL.iter().map(|code| code.as_str()).collect();
        Self {
            sets: make.counter("bellhop_sets_total", "Published sets taken in, refused ones too."),
            reminders: make.counters(
                "bellhop_reminders_total",
                "Reminders of the sets taken in: new ones go on, repeats are dropped, refused ones are set aside.",
                ("result", &["new", "repeat", "refused"]),
            ),
            rejected: make.counters(
                "bellhop_rejected_total",
                "Messages stored in the stream of refused input, by their code.",
                ("code", &codes),
            ),
            outcomes: make.counters(
                "bellhop_outcomes_total",
                "Outcomes recorded. All are final but parked.",
                ("outcome", &outcome::NAMES),
            ),
            accepted: make.histograms_by(
                "bellhop_published_to_accepted_seconds",
                "Time from when JetStream stored a reminder's set to when an app server accepted the reminder, by its priority and way.",
                &THROUGH,
                ("priority", &priorities),
                ("way", &WAYS),
            ),
            deliveries: make.counters("bellhop_deliveries_total", "Delivery requests, by how they ended.", ("result", &ENDINGS)),
            delivery_time: make.histogram("bellhop_delivery_seconds", "Time that delivery requests took.", &REQUEST),
            delivery_reminders: make.counter("bellhop_delivery_reminders_total", "Reminders in delivery requests."),
            refusals: make.counters(
                "bellhop_refusals_total",
                "Reminders that app servers refused, by their reason.",
                ("reason", &["not_connected", "busy"]),
            ),
            devices_missed: make.counter(
                "bellhop_devices_missed_total",
                "Instances that did not take a reminder while another instance of its user did.",
            ),
            heartbeats: make.counters("bellhop_heartbeats_total", "Heartbeat requests, by how they ended.", ("result", &ENDINGS)),
            heartbeat_time: make.histogram("bellhop_heartbeat_seconds", "Time that heartbeat requests took.", &REQUEST),
            routes_dropped: make.counter(
                "bellhop_routes_dropped_total",
                "Routes deleted because their instance said that the user is not connected there.",
            ),
            members: make.gauge("bellhop_members", "Living members, this one too, as it sees them."),
            roles: make.gauges(
                "bellhop_roles",
                "Roles that this member works: partitions, and what one member of an installation does.",
                ("role", &Role::KINDS),
            ),
            take_overs: make.counter(
                "bellhop_role_failures_total",
                "Roles whose work ended with an error; they are taken over again at once.",
            ),
            nats_connected: make.gauge("bellhop_nats_connected", "1 while the connection to NATS is up."),
            rules_documents: make.gauge("bellhop_rules_documents", "Documents of rules in use, one for each tag."),
            rules_loads: make.counters(
                "bellhop_rules_loads_total",
                "Documents of rules that were read, by what came of it.",
                ("result", &["loaded", "ignored"]),
            ),
            rules_loaded_at: make.seconds(
                "bellhop_rules_last_load_timestamp_seconds",
                "When a document of rules was last loaded, in seconds since 1970; 0 for never.",
            ),
            history_lag: make.seconds(
                "bellhop_history_lag_seconds",
                "Age of the oldest outcome that is read and not yet in the database; 0 where another member writes the history.",
            ),
            history_reminders: make.counters(
                "bellhop_history_reminders_total",
                "Reminders written into the database: new rows, and rows of which more is known now.",
                ("result", &["new", "changed"]),
            ),
            history_time: make.histogram("bellhop_history_write_seconds", "Time that transactions of the history took.", &REQUEST),
            history_failures: make.counter(
                "bellhop_history_failures_total",
                "Transactions of the history that failed; they are tried again.",
            ),
            queries: make.counters_by(
                "bellhop_queries_total",
                "Queries answered by this member, by question and by what came of them.",
                ("question", &QUESTIONS),
                ("result", &["answered", "refused", "failed"]),
            ),
            query_time: make.histograms(
                "bellhop_query_seconds",
                "Time that queries took, by question.",
                &REQUEST,
                ("question", &QUESTIONS),
            ),
            registry,
        }
    }
}

impl Metrics {
    /// A set was taken in, with so many reminders of each kind.
    pub fn set_taken(&self, new: usize, repeats: usize, refused: usize) {
        self.0.sets.inc();
        for (result, count) in [("new", new), ("repeat", repeats), ("refused", refused)] {
            self.0.reminders.of(result).inc_by(count as u64);
        }
    }

    /// Something was stored in the stream of refused input.
    pub fn rejected(&self, code: RejectCode) {
        self.0.rejected.of(code.as_str()).inc();
    }

    /// An outcome is durable.
    pub fn outcome(&self, outcome: &Outcome) {
        self.0.outcomes.of(outcome.name()).inc();
    }

    /// An app server accepted a reminder, so long after it was published.
    pub fn accepted(&self, priority: Priority, way: Way, after: Duration) {
        self.0.accepted.of(priority.as_str()).of(way.name()).observe(after.as_secs_f64());
    }

    /// A delivery request with so many reminders ended.
    pub fn delivery_ended<T>(&self, answer: &Result<T, NoAnswer>, reminders: usize, took: Duration) {
        self.0.deliveries.of(ending(answer)).inc();
        self.0.delivery_time.observe(took.as_secs_f64());
        self.0.delivery_reminders.inc_by(reminders as u64);
    }

    /// An app server refused a reminder.
    pub fn refused(&self, why: Refusal) {
        let reason = match why {
            Refusal::NotConnected => "not_connected",
            Refusal::Busy => "busy",
        };
        self.0.refusals.of(reason).inc();
    }

    /// So many instances did not take a reminder that another instance of its user took.
    pub fn devices_missed(&self, instances: usize) {
        self.0.devices_missed.inc_by(instances as u64);
    }

    /// A heartbeat request ended.
    pub fn heartbeat_ended<T>(&self, answer: &Result<T, NoAnswer>, took: Duration) {
        self.0.heartbeats.of(ending(answer)).inc();
        self.0.heartbeat_time.observe(took.as_secs_f64());
    }

    /// A route is being deleted.
    pub fn route_dropped(&self) {
        self.0.routes_dropped.inc();
    }

    /// So many members live, this one too.
    pub fn members_alive(&self, members: usize) {
        self.0.members.set(as_gauge(members));
    }

    /// This member works so many roles of a kind: `partition`, or the name of one that is alone of its kind.
    pub fn roles_worked(&self, kind: &str, count: usize) {
        self.0.roles.of(kind).set(as_gauge(count));
    }

    /// The work of a role ended with an error.
    pub fn role_failed(&self) {
        self.0.take_overs.inc();
    }

    /// Whether the connection to NATS is up.
    pub fn nats_connected(&self, is_connected: bool) {
        self.0.nats_connected.set(is_connected.into());
    }

    /// So many documents of rules are in use.
    pub fn rules_in_use(&self, documents: usize) {
        self.0.rules_documents.set(as_gauge(documents));
    }

    /// A document of rules was compiled, at this time in seconds since 1970.
    pub fn rules_loaded(&self, at: f64) {
        self.0.rules_loads.of("loaded").inc();
        self.0.rules_loaded_at.set(at);
    }

    /// A document of rules cannot be used; the last good one stays.
    pub fn rules_ignored(&self) {
        self.0.rules_loads.of("ignored").inc();
    }

    /// The history is this far behind.
    pub fn history_lags(&self, lag: Duration) {
        self.0.history_lag.set(lag.as_secs_f64());
    }

    /// A transaction of the history was committed.
    pub fn history_written(&self, new: u64, changed: u64, took: Duration) {
        self.0.history_reminders.of("new").inc_by(new);
        self.0.history_reminders.of("changed").inc_by(changed);
        self.0.history_time.observe(took.as_secs_f64());
    }

    /// A transaction of the history failed.
    pub fn history_failed(&self) {
        self.0.history_failures.inc();
    }

    /// A query was answered; or refused, since what was asked is wrong or unknown; or it failed.
    pub fn queried(&self, question: &str, result: &str, took: Duration) {
        self.0.queries.of(question).of(result).inc();
        self.0.query_time.of(question).observe(took.as_secs_f64());
    }

    /// All of them, in Prometheus's text format.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0.registry.gather()).expect("a text is written to memory")
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write;

    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

    /// A table of all metrics, by what the registry tells.
    fn table() -> String {
        let mut table = String::from("| metric | type | labels | |\n| --- | --- | --- | --- |\n");
        for family in Metrics::default().0.registry.gather() {
            let mut labels = BTreeMap::<String, BTreeSet<String>>::new();
            for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
                labels.entry(pair.name().to_owned()).or_default().insert(pair.value().to_owned());
            }
            let shown = |(name, values): (&String, &BTreeSet<String>)| {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                // Of a version there is one, and another one with the next release.
                if name == "version" { format!("`{name}`") } else { format!("`{name}`: {}", values.join(", ")) }
            };
            let labels: Vec<_> = labels.iter().map(shown).collect();
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            writeln!(table, "| `{}` | {kind} | {} | {} |", family.name(), labels.join("; "), family.help()).unwrap();
        }
        table
    }

    #[test]
    fn the_documentation_has_every_metric() {
        let written = std::fs::read_to_string(FILE).unwrap_or_default();
        let begin = written.find("| metric |").unwrap_or(written.len());
        if std::env::var_os("BELLHOP_BLESS").is_some() {
            std::fs::write(FILE, format!("{}{}", &written[..begin], table())).unwrap();
            return;
        }
        assert!(
            written[begin..] == table(),
            "{FILE} is out of date; write it anew: BELLHOP_BLESS=1 cargo test --lib metrics"
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in Metrics::default().0.registry.gather() {
            let (name, kind) = (family.name(), format!("{:?}", family.get_field_type()));
            assert!(name.starts_with("bellhop_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "COUNTER", "{name} is a {kind}");
            assert!(kind != "HISTOGRAM" || name.ends_with("_seconds"), "{name}");
            assert!(family.help().ends_with('.'), "{name}: {}", family.help());
        }
    }
}
