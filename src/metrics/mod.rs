//! The metrics of this process: one method for each fact. Every series exists from the start, at
//! zero; labels are of small closed sets, and never a user, a reminder, a source or an instance.

mod labels;
mod series;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use crate::reminder::Priority;
use crate::reminder::reject::RejectCode;
use crate::router::partition::stats::PartitionStats;
use crate::router::{NoAnswer, Refusal};
pub use labels::{
    Answer, Connected, Connection, Ending, Label, Load, OutcomeKind, Question, Reason, RoleKind,
    Row, SetAside, State, Stream, Taken, Way,
};
use series::{Maker, Series};

/// The metrics of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    registry: Registry,
    sets: IntCounter,
    reminders: Series<Taken, IntCounter>,
    rejected: Series<RejectCode, IntCounter>,
    ids_forgotten: IntCounter,
    outcomes: Series<OutcomeKind, IntCounter>,
    accepted: Series<Priority, Series<Way, Histogram>>,
    deliveries: Series<Ending, IntCounter>,
    delivery_time: Histogram,
    delivery_reminders: IntCounter,
    refusals: Series<Reason, IntCounter>,
    devices_missed: IntCounter,
    heartbeats: Series<Ending, IntCounter>,
    heartbeat_time: Histogram,
    routes_dropped: IntCounter,
    deliveries_in_flight: IntGauge,
    events_in_flight: IntGauge,
    events_in_flight_limit: IntGauge,
    bytes_in_flight: IntGauge,
    bytes_in_flight_limit: IntGauge,
    routes: IntGauge,
    connected_users: IntGauge,
    parked_users: Series<Connected, IntGauge>,
    parked_reminders: Series<Connected, IntGauge>,
    oldest_parked: Gauge,
    instances: Series<State, IntGauge>,
    shared_names: IntGauge,
    pending: Series<RoleKind, IntGauge>,
    log_behind: IntGauge,
    log_oldest_set: IntGauge,
    log_oldest_partition: IntGauge,
    log_oldest_age: Gauge,
    ack_pending: Series<RoleKind, IntGauge>,
    ack_pending_limit: Series<RoleKind, IntGauge>,
    stream_messages: Series<Stream, IntGauge>,
    stream_bytes: Series<Stream, IntGauge>,
    stream_limit: Series<Stream, IntGauge>,
    account_storage: IntGauge,
    account_storage_limit: IntGauge,
    ready: IntGauge,
    members: IntGauge,
    other_installations: IntGauge,
    roles: Series<RoleKind, IntGauge>,
    take_overs: IntCounter,
    nats_connected: IntGauge,
    nats_reconnects: Series<Connection, IntCounter>,
    nats_replaced: Series<Connection, IntCounter>,
    credentials_end: Gauge,
    set_aside: Series<SetAside, IntCounter>,
    rules_revision: IntGauge,
    rules_documents: IntGauge,
    rules_ignored: IntGauge,
    rules_refusing: IntGauge,
    rules_loads: Series<Load, IntCounter>,
    rules_loaded_at: Gauge,
    history_lag: Gauge,
    history_reminders: Series<Row, IntCounter>,
    history_time: Histogram,
    history_failures: IntCounter,
    queries: Series<Question, Series<Answer, IntCounter>>,
    query_time: Series<Question, Histogram>,
}

/// From a millisecond to a quarter of an hour: the time through the system, with and without
/// trouble.
const THROUGH: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
    900.0,
];
/// From half a millisecond to the longest time-out.
const REQUEST: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

impl Default for Handles {
    fn default() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(
                prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("a new registry has no other of these");
        let make = Maker(&registry);
        let build = make.version(
            "bellhop_build_info",
            "Always 1; the version is in the label.",
            env!("CARGO_PKG_VERSION"),
        );
        build.set(1);
        Self {
            sets: make.counter("bellhop_sets_total", "Published sets read, including refused ones."),
            reminders: make.counters(
                "bellhop_reminders_total",
                "Reminders of the sets taken in: new ones go on, repeats are dropped, refused ones are set aside.",
                "result",
            ),
            rejected: make.counters(
                "bellhop_rejected_total",
                "Messages stored as refused input, by code.",
                "code",
            ),
            ids_forgotten: make.counter(
                "bellhop_idempotency_ids_forgotten_total",
                "Ids forgotten before the end of `idempotency.window`, because there were more than `idempotency.max_ids`.",
            ),
            outcomes: make.counters(
                "bellhop_outcomes_total",
                "Outcomes recorded. All but `parked` are final.",
                "outcome",
            ),
            accepted: make.histograms_by(
                "bellhop_published_to_accepted_seconds",
                "Time from storing a set in JetStream to acceptance of the reminder by an app server, by priority and way.",
                &THROUGH,
                ["priority", "way"],
            ),
            deliveries: make.counters("bellhop_deliveries_total", "Delivery requests, by result.", "result"),
            delivery_time: make.histogram("bellhop_delivery_seconds", "Duration of delivery requests.", &REQUEST),
            delivery_reminders: make.counter("bellhop_delivery_reminders_total", "Reminders in delivery requests."),
            refusals: make.counters(
                "bellhop_refusals_total",
                "Reminders that app servers refused, by reason.",
                "reason",
            ),
            devices_missed: make.counter(
                "bellhop_devices_missed_total",
                "Instances that did not accept a reminder that another instance of the user accepted.",
            ),
            heartbeats: make.counters("bellhop_heartbeats_total", "Heartbeat requests, by result.", "result"),
            heartbeat_time: make.histogram("bellhop_heartbeat_seconds", "Duration of heartbeat requests.", &REQUEST),
            routes_dropped: make.counter(
                "bellhop_routes_dropped_total",
                "Routes deleted because their instance said that the user is not connected there.",
            ),
            deliveries_in_flight: make.gauge("bellhop_deliveries_in_flight", "Delivery requests in flight."),
            events_in_flight: make.gauge(
                "bellhop_events_in_flight",
                "Reminders in work: the highest of this member's partitions.",
            ),
            events_in_flight_limit: make.gauge(
                "bellhop_events_in_flight_limit",
                "Limit of reminders in work in a partition: dispatch.max_events_in_flight.",
            ),
            bytes_in_flight: make.gauge(
                "bellhop_events_in_flight_bytes",
                "Bytes of reminders in work: the highest of this member's partitions.",
            ),
            bytes_in_flight_limit: make.gauge(
                "bellhop_events_in_flight_limit_bytes",
                "Limit of bytes in work in a partition: dispatch.max_bytes_in_flight.",
            ),
            routes: make.gauge("bellhop_routes", "Routes of the users of this member's partitions."),
            connected_users: make.gauge("bellhop_connected_users", "Users of this member's partitions with a route."),
            parked_users: make.gauges(
                "bellhop_parked_users",
                "Users of this member's partitions with reminders in their mailbox, by whether they have a route.",
                "connected",
            ),
            parked_reminders: make.gauges(
                "bellhop_parked_reminders",
                "Reminders in the mailboxes of this member's partitions, by whether their users have a route.",
                "connected",
            ),
            oldest_parked: make.seconds(
                "bellhop_oldest_parked_timestamp_seconds",
                "Unix time at which the oldest reminder in this member's mailboxes was parked; 0 for none.",
            ),
            instances: make.gauges(
                "bellhop_instances",
                "App-server instances with routes of this member's users. One that is down did not answer and is probed.",
                "state",
            ),
            shared_names: make.gauge(
                "bellhop_instance_names_shared",
                "Names under which several app servers answered heartbeats of this member. Only the first answer counts.",
            ),
            pending: make.gauges(
                "bellhop_consumer_pending",
                "Sets between the position that is furthest behind and the end of the log, for `intake` and `partition`; messages that wait to be delivered to this member, for other roles.",
                "role",
            ),
            log_behind: make.gauge(
                "bellhop_log_behind_sets",
                "Sets between the position that is furthest behind and the end of the log, reported by the member with the intake; 0 on others.",
            ),
            log_oldest_set: make.gauge(
                "bellhop_log_oldest_set",
                "Sequence of the oldest set that a partition has not settled, reported by the member with the intake; 0 on others and without such a set.",
            ),
            log_oldest_partition: make.gauge(
                "bellhop_log_oldest_partition",
                "Partition that has not settled the oldest set; -1 is the intake. Meaningless while `bellhop_log_oldest_set` is 0.",
            ),
            log_oldest_age: make.seconds(
                "bellhop_log_oldest_set_age_seconds",
                "Age of the oldest set that a partition has not settled; 0 without such a set.",
            ),
            ack_pending: make.gauges(
                "bellhop_consumer_ack_pending",
                "Unacknowledged messages of this member: the highest of a role's consumers.",
                "role",
            ),
            ack_pending_limit: make.gauges(
                "bellhop_consumer_ack_pending_limit",
                "Limit of that consumer, at which JetStream stops delivering; 0 if this member does not hold the role.",
                "role",
            ),
            stream_messages: make.gauges(
                "bellhop_stream_messages",
                "Messages in the streams, reported by the member with the intake; 0 on others.",
                "stream",
            ),
            stream_bytes: make.gauges(
                "bellhop_stream_bytes",
                "Bytes of the streams, reported by the member with the intake; 0 on others.",
                "stream",
            ),
            stream_limit: make.gauges(
                "bellhop_stream_limit_bytes",
                "Limit of the streams and buckets in bytes, reported by the member with the intake; 0 on others and without a limit.",
                "stream",
            ),
            account_storage: make.gauge(
                "bellhop_account_storage_bytes",
                "Bytes on disk of all streams of the account, Bellhop's and others', reported by the member with the intake; 0 on others.",
            ),
            account_storage_limit: make.gauge(
                "bellhop_account_storage_limit_bytes",
                "Limit of the account's storage in bytes, reported by the member with the intake; 0 on others and without a limit.",
            ),
            ready: make.gauge("bellhop_ready", "1 while /readyz answers ok."),
            members: make.gauge("bellhop_members", "Members alive, including this one, as this member sees them."),
            roles: make.gauges(
                "bellhop_roles",
                "Roles of this member: partitions, and the roles of the installation.",
                "role",
            ),
            take_overs: make.counter(
                "bellhop_role_failures_total",
                "Roles that ended with an error; they restart at once.",
            ),
            other_installations: make.gauge(
                "bellhop_other_installations",
                "Other installations that hear the subjects of this one's prefix. Then each set is taken in by all of them.",
            ),
            nats_connected: make.gauge("bellhop_nats_connected", "1 while the connection to NATS is up."),
            nats_reconnects: make.counters(
                "bellhop_nats_reconnects_total",
                "Reconnects to NATS, by the purpose of the connection.",
                "connection",
            ),
            nats_replaced: make.counters(
                "bellhop_nats_clients_replaced_total",
                "NATS clients that ended and were replaced, by the purpose of the connection.",
                "connection",
            ),
            credentials_end: make.seconds(
                "bellhop_nats_credentials_expiry_timestamp_seconds",
                "When the JWT in the file of nats.creds expires, in seconds since 1970; 0 for never.",
            ),
            set_aside: make.counters(
                "bellhop_unreadable_total",
                "Messages that the NATS client cannot read and that were set aside or skipped, by kind.",
                "kind",
            ),
            rules_revision: make.gauge(
                "bellhop_rules_revision",
                "Revision of the rules that this member uses; a member that stays behind uses old rules.",
            ),
            rules_documents: make.gauge("bellhop_rules_documents", "Rule documents in use, one for each tag."),
            rules_ignored: make.gauge(
                "bellhop_rules_ignored_documents",
                "Rule documents that cannot be used; the last good version of each stays in use, if there is one.",
            ),
            rules_refusing: make.gauge(
                "bellhop_rules_refusing_tags",
                "Tags whose reminders are refused, because no version of their rule document can be used.",
            ),
            rules_loads: make.counters(
                "bellhop_rules_loads_total",
                "Rule documents read, by result.",
                "result",
            ),
            rules_loaded_at: make.seconds(
                "bellhop_rules_last_load_timestamp_seconds",
                "Unix time at which a rule document was last loaded; 0 for never.",
            ),
            history_lag: make.seconds(
                "bellhop_history_lag_seconds",
                "Age of the oldest outcome that is read but not written; 0 if another member writes the history.",
            ),
            history_reminders: make.counters(
                "bellhop_history_reminders_total",
                "Reminders written into the database: new and updated rows.",
                "result",
            ),
            history_time: make.histogram("bellhop_history_write_seconds", "Duration of transactions of the history.", &REQUEST),
            history_failures: make.counter(
                "bellhop_history_failures_total",
                "Failed transactions of the history; they are retried.",
            ),
            queries: make.counters_by(
                "bellhop_queries_total",
                "Queries answered by this member, by question and result.",
                ["question", "result"],
            ),
            query_time: make.histograms(
                "bellhop_query_seconds",
                "Duration of queries, by question.",
                &REQUEST,
                "question",
            ),
            registry,
        }
    }
}

impl Metrics {
    /// A set was taken in.
    pub fn set_taken(&self) {
        self.0.sets.inc();
    }

    /// So many reminders of each kind were taken in.
    pub fn reminders_taken(&self, new: usize, repeats: usize, refused: usize) {
        for (result, count) in [
            (Taken::New, new),
            (Taken::Repeat, repeats),
            (Taken::Refused, refused),
        ] {
            self.0.reminders.of(result).inc_by(count as u64);
        }
    }

    /// Something was stored in the stream of refused input.
    pub fn rejected(&self, code: RejectCode) {
        self.0.rejected.of(code).inc();
    }

    /// So many names were forgotten before the idempotency window was over.
    pub fn ids_forgotten(&self, count: usize) {
        self.0.ids_forgotten.inc_by(count as u64);
    }

    /// So many outcomes of a kind are durable.
    pub fn outcomes(&self, kind: OutcomeKind, count: u64) {
        self.0.outcomes.of(kind).inc_by(count);
    }

    /// An app server accepted a reminder, so long after it was published.
    pub fn accepted(&self, priority: Priority, way: Way, after: Duration) {
        self.0
            .accepted
            .of(priority)
            .of(way)
            .observe(after.as_secs_f64());
    }

    /// A delivery request is under way until what this answers is dropped.
    pub fn delivery_begins(&self) -> InFlight {
        self.0.deliveries_in_flight.inc();
        InFlight(self.0.deliveries_in_flight.clone())
    }

    /// A delivery request with so many reminders ended.
    pub fn delivery_ended<T>(
        &self,
        answer: &Result<T, NoAnswer>,
        reminders: usize,
        took: Duration,
    ) {
        self.0.deliveries.of(answer.into()).inc();
        self.0.delivery_time.observe(took.as_secs_f64());
        self.0.delivery_reminders.inc_by(reminders as u64);
    }

    /// An app server refused a reminder.
    pub fn refused(&self, why: Refusal) {
        self.0.refusals.of(why.into()).inc();
    }

    /// Sets under how many names several app servers answer.
    pub fn shared_names(&self, names: usize) {
        self.0.shared_names.set(as_gauge(names));
    }

    /// So many instances did not take a reminder that another instance of its user took.
    pub fn devices_missed(&self, instances: usize) {
        self.0.devices_missed.inc_by(instances as u64);
    }

    /// A heartbeat request ended.
    pub fn heartbeat_ended<T>(&self, answer: &Result<T, NoAnswer>, took: Duration) {
        self.0.heartbeats.of(answer.into()).inc();
        self.0.heartbeat_time.observe(took.as_secs_f64());
    }

    /// A route is being deleted.
    pub fn route_dropped(&self) {
        self.0.routes_dropped.inc();
    }

    /// Sets the limits of a partition's work: events, and their bytes.
    pub fn event_limits(&self, events: usize, bytes: usize) {
        self.0.events_in_flight_limit.set(as_gauge(events));
        self.0.bytes_in_flight_limit.set(as_gauge(bytes));
    }

    /// Sets the work of the fullest partition: events, and their bytes.
    pub fn events_in_flight(&self, events: usize, bytes: usize) {
        self.0.events_in_flight.set(as_gauge(events));
        self.0.bytes_in_flight.set(as_gauge(bytes));
    }

    /// Sets the state that this member's partitions hold together.
    pub fn held(&self, stats: &PartitionStats) {
        self.0.routes.set(as_gauge(stats.routes));
        self.0.connected_users.set(as_gauge(stats.connected_users));
        for (is_connected, mail) in [
            (Connected::True, stats.mail_of_connected),
            (Connected::False, stats.mail_of_away),
        ] {
            self.0
                .parked_users
                .of(is_connected)
                .set(as_gauge(mail.users));
            self.0
                .parked_reminders
                .of(is_connected)
                .set(as_gauge(mail.reminders));
        }
        self.0.instances.of(State::Up).set(as_gauge(stats.up.len()));
        self.0
            .instances
            .of(State::Down)
            .set(as_gauge(stats.down.len()));
    }

    /// Sets the time at which the oldest parked reminder was parked.
    pub fn oldest_parked(&self, at: Option<Timestamp>) {
        self.0
            .oldest_parked
            .set(at.map_or(0.0, |at| at.as_millisecond() as f64 / 1_000.0));
    }

    /// Sets the backlog of the roles of a kind: messages, and for the fullest consumer its
    /// unacknowledged messages and their limit.
    pub fn waiting(&self, kind: RoleKind, pending: u64, ack_pending: usize, limit: i64) {
        self.0
            .pending
            .of(kind)
            .set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.0.ack_pending.of(kind).set(as_gauge(ack_pending));
        self.0.ack_pending_limit.of(kind).set(limit);
    }

    /// Sets the set that holds the front of the log back: the number of sets behind that position,
    /// the set's sequence, the partition that has not settled it, and its age. None where another
    /// member reports it, or there is no such set.
    pub fn log_held_back(&self, by: Option<(u64, u64, Option<u16>, Duration)>) {
        let (behind, oldest, partition, age) = by.unwrap_or((0, 0, Some(0), Duration::ZERO));
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.0.log_behind.set(gauge(behind));
        self.0.log_oldest_set.set(gauge(oldest));
        self.0
            .log_oldest_partition
            .set(partition.map_or(-1, i64::from));
        self.0.log_oldest_age.set(age.as_secs_f64());
    }

    /// Sets the messages and bytes of a stream or bucket, and its limit in bytes; 0 for any number.
    pub fn stored(&self, stream: Stream, messages: u64, bytes: u64, limit: u64) {
        self.0
            .stream_limit
            .of(stream)
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
        self.0
            .stream_messages
            .of(stream)
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.0
            .stream_bytes
            .of(stream)
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets the bytes on disk of the account's streams, and their limit in bytes; 0 for any number.
    pub fn account_stored(&self, bytes: u64, limit: u64) {
        self.0
            .account_storage
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.0
            .account_storage_limit
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Sets whether this member is ready.
    pub fn ready(&self, is_ready: bool) {
        self.0.ready.set(is_ready.into());
    }

    /// So many members live, this one too.
    pub fn members_alive(&self, members: usize) {
        self.0.members.set(as_gauge(members));
    }

    /// This member works so many roles of a kind.
    pub fn roles_worked(&self, kind: RoleKind, count: usize) {
        self.0.roles.of(kind).set(as_gauge(count));
    }

    /// The work of a role ended with an error.
    pub fn role_failed(&self) {
        self.0.take_overs.inc();
    }

    /// So many other installations hear the same subjects.
    pub fn other_installations(&self, count: usize) {
        self.0.other_installations.set(as_gauge(count));
    }

    /// Sets whether the connection to NATS is up.
    pub fn nats_connected(&self, is_connected: bool) {
        self.0.nats_connected.set(is_connected.into());
    }

    /// The connection to NATS was made again, so many times.
    pub fn nats_reconnected(&self, connection: Connection, times: u64) {
        self.0.nats_reconnects.of(connection).inc_by(times);
    }

    /// A client that had ended for good was replaced.
    pub fn nats_client_replaced(&self, connection: Connection) {
        self.0.nats_replaced.of(connection).inc();
    }

    /// Sets the time at which this member's JWT expires, if it does.
    pub fn credentials_end(&self, at: Option<Timestamp>) {
        self.0
            .credentials_end
            .set(at.map_or(0.0, |at| at.as_second() as f64));
    }

    /// A message that cannot be read was set aside or passed by.
    pub fn set_aside(&self, kind: SetAside) {
        self.0.set_aside.of(kind).inc();
    }

    /// Everything up to this revision of the bucket of rules is taken in.
    pub fn rules_revised(&self, revision: u64) {
        self.0
            .rules_revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
    }

    /// So many documents of rules are in use, so many cannot be used, and so many tags have no
    /// usable one.
    pub fn rules_in_use(&self, documents: usize, ignored: usize, refusing: usize) {
        self.0.rules_documents.set(as_gauge(documents));
        self.0.rules_ignored.set(as_gauge(ignored));
        self.0.rules_refusing.set(as_gauge(refusing));
    }

    /// A document of rules was compiled, at this time in seconds since 1970.
    pub fn rules_loaded(&self, at: f64) {
        self.0.rules_loads.of(Load::Loaded).inc();
        self.0.rules_loaded_at.set(at);
    }

    /// A document of rules cannot be used; the last good one stays.
    pub fn rules_ignored(&self) {
        self.0.rules_loads.of(Load::Ignored).inc();
    }

    /// The history is this far behind.
    pub fn history_lags(&self, lag: Duration) {
        self.0.history_lag.set(lag.as_secs_f64());
    }

    /// A transaction of the history was committed.
    pub fn history_written(&self, new: u64, changed: u64, took: Duration) {
        self.0.history_reminders.of(Row::New).inc_by(new);
        self.0.history_reminders.of(Row::Changed).inc_by(changed);
        self.0.history_time.observe(took.as_secs_f64());
    }

    /// A transaction of the history failed.
    pub fn history_failed(&self) {
        self.0.history_failures.inc();
    }

    /// A query was answered; or refused, since what was asked is wrong or unknown; or it failed.
    pub fn queried(&self, question: Question, result: Answer, took: Duration) {
        self.0.queries.of(question).of(result).inc();
        self.0.query_time.of(question).observe(took.as_secs_f64());
    }

    /// All of them, in Prometheus's text format.
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .expect("a text is written to memory")
    }
}

/// A request under way.
#[must_use]
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
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

    /// Returns the metrics that are not the library's own.
    fn ours() -> impl Iterator<Item = prometheus::proto::MetricFamily> {
        let all = Metrics::default().0.registry.gather().into_iter();
        all.filter(|family| !family.name().starts_with("process_"))
    }

    /// Returns a table of all metrics, by what the registry tells.
    fn table() -> String {
        let mut table = String::from("| metric | type | labels | |\n| --- | --- | --- | --- |\n");
        for family in ours() {
            let mut labels = BTreeMap::<String, BTreeSet<String>>::new();
            for pair in family
                .get_metric()
                .iter()
                .flat_map(|metric| metric.get_label())
            {
                labels
                    .entry(pair.name().to_owned())
                    .or_default()
                    .insert(pair.value().to_owned());
            }
            let shown = |(name, values): (&String, &BTreeSet<String>)| {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                // Of a version there is one, and another one with the next release.
                if name == "version" {
                    format!("`{name}`")
                } else {
                    format!("`{name}`: {}", values.join(", "))
                }
            };
            let labels: Vec<_> = labels.iter().map(shown).collect();
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            writeln!(
                table,
                "| `{}` | {kind} | {} | {} |",
                family.name(),
                labels.join("; "),
                family.help()
            )
            .unwrap();
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
            "{FILE} is out of date; write it again: BELLHOP_BLESS=1 cargo test --lib metrics"
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in ours() {
            let (name, kind) = (family.name(), format!("{:?}", family.get_field_type()));
            assert!(name.starts_with("bellhop_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                kind == "COUNTER",
                "{name} is a {kind}"
            );
            assert!(kind != "HISTOGRAM" || name.ends_with("_seconds"), "{name}");
            assert!(family.help().ends_with('.'), "{name}: {}", family.help());
        }
    }
}
