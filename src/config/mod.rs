//! Every setting, with its unit, default, bounds and reason, in one place.
//!
//! Settings come in layers: the defaults here, then a TOML file, then `BELLHOP_*` variables, then
//! flags. [`load`] merges them, refuses what it does not know, and remembers where each value came
//! from, so that `bellhop check` can tell.

mod exposures;
mod layers;
mod units;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::{HistoryUrl, without_password};
use crate::reminder::Priority;
use crate::token::Source;

pub use exposures::Exposure;
pub use layers::{ConfigError, Layers, Loaded, load};
pub use units::parse as parse_duration;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// The whole configuration.
    Config {
        /// Beginning of all subjects, streams and buckets: `bellhop.sets.*`, `BELLHOP_LOG`,
        /// `bellhop_routes`.
        prefix: String = "bellhop".to_owned(),
        /// This member's name among the installation's `bellhop serve` processes; empty for one
        /// made of host and chance.
        name: String = String::new(),
        /// Partitions that users are spread over, 1 to 1,024. Events and mailboxes lie under their
        /// numbers, so another one needs `bellhop repartition`. More than the cores of all members
        /// together keeps every core busy; 32 suits up to eight members.
        partitions: u16 = 32,
        /// Address of probes and metrics, as `address:port`; port 0 takes a free one; empty for
        /// none. If it is not set and another process has the port, probes are left out with a
        /// warning.
        http: String = DEFAULT_HTTP.to_owned(),
        /// Connection to NATS.
        nats: Nats = Nats::default(),
        /// Streams and buckets that `setup` makes.
        streams: Streams = Streams::default(),
        /// Taking published sets in.
        intake: Intake = Intake::default(),
        /// Dropping repeats of a reminder.
        idempotency: Idempotency = Idempotency::default(),
        /// Merging reminders that say the same.
        merge: Merge = Merge::default(),
        /// Asking who is connected.
        heartbeat: Heartbeat = Heartbeat::default(),
        /// Handing reminders to app servers.
        delivery: Delivery = Delivery::default(),
        /// Bringing reminders of users who are away to their associates.
        reroute: Reroute = Reroute::default(),
        /// Reminders of users who are away.
        mailbox: Mailbox = Mailbox::default(),
        /// Working a partition.
        dispatch: Dispatch = Dispatch::default(),
        /// Sharing the work among members.
        members: Members = Members::default(),
        /// Keeping every reminder and its outcomes in a database.
        history: History = History::default(),
        /// Log of `bellhop serve` on stderr. Which lines, the variable `BELLHOP_LOG` says.
        log: Log = Log::default(),
    }
}

section! {
    /// Log of `bellhop serve` on stderr.
    Log {
        /// Lines for people (`text`), or one JSON object each (`json`).
        format: LogFormat = LogFormat::Text,
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object each.
    Json,
}

section! {
    /// Connection to NATS. Files are read again each time that a connection is made.
    Nats {
        /// Server addresses, separated by commas. `tls://` asks for TLS, `wss://` for a WebSocket
        /// over TLS; WebSockets and other addresses do not mix. `NATS_URL` sets it too.
        url: String = "nats://127.0.0.1:4222".to_owned(),
        /// A credentials file. `NATS_CREDS` sets it too.
        creds: String = String::new(),
        /// A user name, with `nats.password`. `NATS_USER` sets it too.
        user: String = String::new(),
        /// That user's password. `NATS_PASSWORD` sets it too.
        password: String = String::new(),
        /// A file with that password, instead of `nats.password`.
        password_file: String = String::new(),
        /// A token. `NATS_TOKEN` sets it too.
        token: String = String::new(),
        /// A file with a token, instead of `nats.token`.
        token_file: String = String::new(),
        /// A file with the seed of an NKEY. `NATS_NKEY` sets it too.
        nkey: String = String::new(),
        /// A file with certificates (PEM): servers are trusted by these alone, instead of by the
        /// system's, and TLS is asked for. `NATS_CA` sets it too.
        ca: String = String::new(),
        /// A file with this client's certificate (PEM), for servers that ask for one, with
        /// `nats.key`. `NATS_CERT` sets it too.
        cert: String = String::new(),
        /// A file with that certificate's private key (PEM). `NATS_KEY` sets it too.
        key: String = String::new(),
        /// True if TLS begins before the server sends anything, as a server with `handshake_first`
        /// expects.
        tls_first: bool = false,
        /// Beginning of the reply subjects. A user who may subscribe to them can read the answers,
        /// so a user that may do more than others has a prefix of its own, such as
        /// `_INBOX_bellhop`.
        inbox_prefix: String = "_INBOX".to_owned(),
        /// The JetStream domain that is asked; empty for the connection's own. Commands at a leaf
        /// node need it where JetStream is at the hub, and a user whose account imports JetStream's
        /// API under a domain, such as `monitoring` of `nats-config/accounts.conf`. Members are
        /// connected where JetStream is.
        domain: String = String::new(),
        /// Beginning of the subjects of JetStream's API, if an account imports them under a prefix
        /// other than `$JS.API` and than that of a domain.
        api_prefix: String = String::new(),
        /// Maximum time for an acknowledgement or an API answer of JetStream.
        #[serde(with = "units")]
        timeout: Duration = Duration::from_secs(5),
        /// Interval between pings to the server. One that gives no sign of life for three of these
        /// is left for another one of `nats.url`: a machine that vanishes closes no connection.
        #[serde(with = "units")]
        ping_interval: Duration = Duration::from_secs(1),
    }
}

section! {
    /// Streams and buckets that `setup` makes.
    Streams {
        /// Copies of everything: 1, or 3 or 5 on a cluster.
        replicas: usize = 1,
        /// Bytes that all streams and buckets may take together, on each server that has a copy;
        /// every one has a fixed share as its limit. 0 is 4 GiB, or what there is room for where
        /// that is less, and leaves limits as they were first set.
        storage: usize = 0,
        /// Time for which outcomes are kept, for business systems and the history.
        #[serde(with = "units")]
        outcomes_age: Duration = Duration::from_secs(7 * 86_400),
        /// Time for which refused input is kept, for operators.
        #[serde(with = "units")]
        rejected_age: Duration = Duration::from_secs(30 * 86_400),
    }
}

section! {
    /// Taking published sets in.
    Intake {
        /// Bytes of sets that wait in a member at a time, as they are in memory; each partition has
        /// its part of it. More stay in JetStream. One set over it is still taken, alone.
        max_bytes_in_flight: usize = 16 << 20,
    }
}

section! {
    /// Dropping repeats of a reminder.
    Idempotency {
        /// Time for which the same (source, id, user) is the same reminder. The sets of a source
        /// with the same `Nats-Msg-Id` are one for as long.
        #[serde(with = "units")]
        window: Duration = Duration::from_secs(600),
        /// Names remembered, 48 bytes each: of reminders, of cancelled ones, and `Nats-Msg-Id`s.
        /// Where more are published within the window, it is shorter;
        /// `bellhop_idempotency_ids_forgotten_total` counts that.
        max_ids: usize = 1_000_000,
    }
}

section! {
    /// Merging reminders that say the same.
    Merge {
        /// Time for which later duplicates are merged into an accepted reminder of the same source,
        /// user, title and content; `0s` merges within a set only. It is kept in memory: a member
        /// that takes over begins with none.
        #[serde(with = "units")]
        window: Duration = Duration::ZERO,
        /// Reminders remembered in one partition, some 200 bytes each; beyond it the window is
        /// shorter.
        max_reminders: usize = 10_000,
    }
}

section! {
    /// Asking who is connected.
    Heartbeat {
        /// Maximum time for an instance's answer.
        #[serde(with = "units")]
        timeout: Duration = Duration::from_secs(1),
        /// Time for which a confirmed connection counts as held; `0s` asks before every delivery.
        #[serde(with = "units")]
        lease: Duration = Duration::from_secs(10),
        /// Users in one heartbeat, up to the contract's 1,000.
        max_users: usize = 1_000,
        /// The first pause before a silent instance is asked again; it doubles up to `backoff_max`.
        #[serde(with = "units")]
        backoff_min: Duration = Duration::from_millis(500),
        /// The longest pause before a silent instance is asked again.
        #[serde(with = "units")]
        backoff_max: Duration = Duration::from_secs(30),
    }
}

section! {
    /// Handing reminders to app servers.
    Delivery {
        /// Maximum time for an instance's answer.
        #[serde(with = "units")]
        timeout: Duration = Duration::from_secs(2),
        /// Recipients among several confirmed routes of a user: `all` of them, or the one put
        /// `latest`.
        devices: Devices = Devices::All,
        /// True if users also get, on their return, a copy of their rerouted reminders.
        copy_rerouted: bool = false,
        /// Bytes of one request, up to the contract's 256 KiB.
        max_bytes: usize = crate::reminder::MAX_DELIVERY_BYTES,
        /// The first pause after `busy`; it doubles up to `busy_max`.
        #[serde(with = "units")]
        busy_min: Duration = Duration::from_millis(100),
        /// The longest pause after `busy`.
        #[serde(with = "units")]
        busy_max: Duration = Duration::from_secs(5),
    }
}

section! {
    /// Bringing reminders of users who are away to their associates.
    Reroute {
        /// Sources whose reminders may go to associates, separated by commas; empty for all
        /// sources.
        sources: Vec<Source> = Vec::new(),
        /// The least priority that may.
        min_priority: Priority = Priority::Low,
        /// The time for which a user who held a connection is expected back. Until then reminders
        /// wait for the user alone; what still waits then goes to associates. 0 for at once.
        #[serde(with = "units")]
        after: Duration = Duration::from_secs(10),
        /// Maximum time for trying all associates of a user, before the mailbox.
        #[serde(with = "units")]
        timeout: Duration = Duration::from_secs(5),
        /// Associates' routes looked up at a time in one partition; more wait their turn.
        lookups_in_flight: usize = 64,
    }
}

section! {
    /// Reminders of users who are away.
    Mailbox {
        /// Reminders in one user's mailbox. One without room is refused: outcome `rejected`, error
        /// `mailbox_full`, and it lies in the stream of refused input.
        limit: usize = 10_000,
        /// Percent of `limit` kept for each higher priority: with 10, `low` fills a mailbox up to
        /// 70 %, `normal` 80 %, `high` 90 %, and `urgent` all of it. A limit below 10 is not
        /// shared.
        reserve: usize = 10,
        /// Percent of `limit` that one source may have in a mailbox. A limit below 10 is not
        /// shared.
        source_share: usize = 50,
        /// Reminders and
        park_messages: usize = 500,
        /// bytes appended to a partition's mailboxes in one go.
        park_bytes: usize = 1 << 20,
        /// Reminders and
        page_messages: usize = 500,
        /// bytes read from a mailbox in one go.
        page_bytes: usize = 256 << 10,
        /// Mailboxes of one partition read, or counted, at a time.
        reads_in_flight: usize = 8,
        /// Removals of one partition's mailboxes under way at a time.
        removals_in_flight: usize = 32,
        /// The least time between two searches of one mailbox for expired reminders.
        #[serde(with = "units")]
        expiry_interval: Duration = Duration::from_secs(1),
        /// Announcing reminders that stay parked.
        escalate_after: EscalateAfter = EscalateAfter::default(),
    }
}

section! {
    /// Announcing reminders that stay parked: after how long, by priority. `0s` is never.
    EscalateAfter {
        /// Those of priority `low`.
        #[serde(with = "units")]
        low: Duration = Duration::ZERO,
        /// Those of priority `normal`.
        #[serde(with = "units")]
        normal: Duration = Duration::ZERO,
        /// Those of priority `high`.
        #[serde(with = "units")]
        high: Duration = Duration::ZERO,
        /// Those of priority `urgent`.
        #[serde(with = "units")]
        urgent: Duration = Duration::ZERO,
    }
}

impl EscalateAfter {
    /// The priorities that have a limit.
    pub fn limits(&self) -> impl Iterator<Item = (Priority, Duration)> + use<> {
        let all = [
            (Priority::Low, self.low),
            (Priority::Normal, self.normal),
            (Priority::High, self.high),
            (Priority::Urgent, self.urgent),
        ];
        all.into_iter().filter(|(_, after)| !after.is_zero())
    }
}

section! {
    /// Working a partition.
    Dispatch {
        /// Bytes of events in work in one partition at a time; more stay in JetStream.
        max_bytes_in_flight: usize = 4 << 20,
        /// Events in work in one partition at a time; JetStream's `max_ack_pending`.
        max_events_in_flight: usize = 1_000,
        /// After this time JetStream redelivers an unacknowledged event. Longer than a partition
        /// can need for one.
        #[serde(with = "units")]
        ack_wait: Duration = Duration::from_secs(60),
        /// JetStream's `priority_timeout`: after this without a pull another member may be pinned.
        #[serde(with = "units")]
        pin_timeout: Duration = Duration::from_secs(3),
    }
}

section! {
    /// Sharing the work among members.
    Members {
        /// Interval between a member's announcements.
        #[serde(with = "units")]
        interval: Duration = Duration::from_millis(1_000),
        /// A member not heard of for this long is gone, and one that could not say so for this long
        /// stops working.
        #[serde(with = "units")]
        ttl: Duration = Duration::from_secs(4),
        /// Maximum time for which a stopping member finishes work in flight.
        #[serde(with = "units")]
        grace: Duration = Duration::from_secs(10),
    }
}

section! {
    /// Keeping every reminder and its outcomes in a database.
    History {
        /// Database of the history: `sqlite:PATH`; `sqlite` for a file of the installation's own in
        /// `$STATE_DIRECTORY` or the user's state directory; `postgres://user@host/database`;
        /// `none` to keep nothing. Several hosts need PostgreSQL.
        url: String = "sqlite".to_owned(),
        /// A file with the password of PostgreSQL, where it is not in `history.url`. It is read
        /// when the database is opened.
        password_file: String = String::new(),
        /// Time for which a reminder is kept after its publication.
        #[serde(with = "units")]
        keep: Duration = Duration::from_secs(90 * 86_400),
        /// Outcomes written in one transaction; while it runs, as many are read ahead.
        batch: usize = 5_000,
        /// Queries answered at a time by a member; more wait.
        queries_in_flight: usize = 8,
    }
}

impl History {
    /// Returns true if there is to be a history.
    pub fn is_on(&self) -> bool {
        self.url != "none"
    }
}

/// A user's connections that get reminders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Devices {
    /// All whose connection is confirmed.
    All,
    /// The one whose route was put last.
    Latest,
}

impl Nats {
    /// Returns what the subjects of JetStream's API begin with.
    pub fn api(&self) -> String {
        match (self.domain.as_str(), self.api_prefix.as_str()) {
            ("", "") => "$JS.API".to_owned(),
            ("", prefix) => prefix.to_owned(),
            (domain, _) => format!("$JS.{domain}.API"),
        }
    }

    /// Returns whether the servers are reached by WebSockets.
    pub fn is_web(&self) -> bool {
        is_web(&self.url)
    }

    /// Returns whether a connection is made by TLS alone.
    pub fn asks_for_tls(&self) -> bool {
        self.tls_first || !self.ca.is_empty() || !self.cert.is_empty()
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let prefix = &self.inbox_prefix;
        let is_token = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        check(
            "nats.inbox_prefix",
            prefix,
            prefix.split('.').all(is_token),
            "tokens of A-Z a-z 0-9 - _, separated by dots",
        )?;
        check(
            "nats.domain",
            &self.domain,
            self.domain.is_empty() || is_token(&self.domain),
            "a token of A-Z a-z 0-9 - _, or empty",
        )?;
        let api = &self.api_prefix;
        let is_prefix = api
            .strip_prefix('$')
            .unwrap_or(api)
            .split('.')
            .all(is_token);
        check(
            "nats.api_prefix",
            api,
            api.is_empty() || (is_prefix && self.domain.is_empty()),
            "tokens of A-Z a-z 0-9 - _, separated by dots; or empty, as it must be with `nats.domain`",
        )?;
        let mut addresses = self.url.split(',').map(is_web);
        // An address may have a password in it: it is not shown.
        check(
            "nats.url",
            "a list",
            addresses.all(|address| address == is_web(&self.url)),
            "addresses that are all WebSockets (ws://, wss://), or none of them",
        )?;
        // It is not a file, and a secret: it is not shown.
        check(
            "nats.nkey",
            "a seed",
            !self.nkey.starts_with("SU"),
            "the name of a file that has the seed",
        )?;
        let is_pair = self.cert.is_empty() == self.key.is_empty();
        check(
            "nats.key",
            format!("`{}`", self.key),
            is_pair,
            "set together with `nats.cert`, or not at all",
        )
    }
}

/// Returns whether an address, or the first one of a list, is a WebSocket's.
fn is_web(url: &str) -> bool {
    let url = url.trim_start();
    url.starts_with("ws://") || url.starts_with("wss://")
}

/// The default of `http`.
pub const DEFAULT_HTTP: &str = "127.0.0.1:9411";

impl Config {
    /// Checks what a type cannot.
    ///
    /// # Errors
    /// The first setting out of bounds, with its value and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let prefix_is_right =
            !self.prefix.is_empty() && self.prefix.len() <= 32 && self.prefix.chars().all(token);
        check(
            "prefix",
            &self.prefix,
            prefix_is_right,
            "1 to 32 of A-Z a-z 0-9 - _",
        )?;
        check(
            "name",
            &self.name,
            self.name.len() <= 64 && self.name.chars().all(token),
            "up to 64 of A-Z a-z 0-9 - _",
        )?;
        self.nats.validate()?;
        let http_is_right =
            self.http.is_empty() || self.http.parse::<std::net::SocketAddr>().is_ok();
        check(
            "http",
            &self.http,
            http_is_right,
            "an address and port such as 127.0.0.1:9411, or empty",
        )?;
        within("partitions", usize::from(self.partitions), 1, 1_024)?;
        let replicas = self.streams.replicas;
        check(
            "streams.replicas",
            replicas,
            [1, 3, 5].contains(&replicas),
            "1, 3 or 5",
        )?;
        let storage = self.streams.storage;
        let storage_is_right = storage == 0 || (64 << 20..=1 << 50).contains(&storage);
        check(
            "streams.storage",
            storage,
            storage_is_right,
            "0, or 67108864 (64 MiB) to 1125899906842624 bytes",
        )?;
        within(
            "intake.max_bytes_in_flight",
            self.intake.max_bytes_in_flight,
            1 << 20,
            1 << 30,
        )?;
        within(
            "idempotency.max_ids",
            self.idempotency.max_ids,
            1_000,
            100_000_000,
        )?;
        within(
            "merge.max_reminders",
            self.merge.max_reminders,
            1,
            1_000_000,
        )?;
        within("heartbeat.max_users", self.heartbeat.max_users, 1, 1_000)?;
        within(
            "delivery.max_bytes",
            self.delivery.max_bytes,
            1 << 10,
            crate::reminder::MAX_DELIVERY_BYTES,
        )?;
        within(
            "reroute.lookups_in_flight",
            self.reroute.lookups_in_flight,
            1,
            1_024,
        )?;
        within("mailbox.limit", self.mailbox.limit, 1, 10_000_000)?;
        within("mailbox.reserve", self.mailbox.reserve, 0, 30)?;
        within("mailbox.source_share", self.mailbox.source_share, 10, 100)?;
        within(
            "mailbox.park_messages",
            self.mailbox.park_messages,
            1,
            1_000,
        )?;
        within(
            "mailbox.park_bytes",
            self.mailbox.park_bytes,
            1 << 10,
            16 << 20,
        )?;
        within(
            "mailbox.page_messages",
            self.mailbox.page_messages,
            1,
            1_000,
        )?;
        within(
            "mailbox.page_bytes",
            self.mailbox.page_bytes,
            1 << 10,
            16 << 20,
        )?;
        within(
            "mailbox.removals_in_flight",
            self.mailbox.removals_in_flight,
            1,
            1_024,
        )?;
        within(
            "mailbox.reads_in_flight",
            self.mailbox.reads_in_flight,
            1,
            256,
        )?;
        within(
            "dispatch.max_bytes_in_flight",
            self.dispatch.max_bytes_in_flight,
            1 << 20,
            1 << 30,
        )?;
        let history = &self.history.url;
        let is_history = history == "sqlite" || history.parse::<HistoryUrl>().is_ok();
        let histories = "sqlite, sqlite:PATH, postgres://USER@HOST/DATABASE, or none";
        check(
            "history.url",
            without_password(history),
            is_history,
            histories,
        )?;
        within("history.batch", self.history.batch, 1, 100_000)?;
        within(
            "history.queries_in_flight",
            self.history.queries_in_flight,
            1,
            256,
        )?;
        within(
            "dispatch.max_events_in_flight",
            self.dispatch.max_events_in_flight,
            1,
            100_000,
        )?;
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        for (name, value, least, most) in [
            ("nats.timeout", self.nats.timeout, ms(100), s(300)),
            (
                "nats.ping_interval",
                self.nats.ping_interval,
                ms(100),
                s(300),
            ),
            (
                "streams.outcomes_age",
                self.streams.outcomes_age,
                s(60),
                s(3_650 * 86_400),
            ),
            (
                "streams.rejected_age",
                self.streams.rejected_age,
                s(60),
                s(3_650 * 86_400),
            ),
            (
                "idempotency.window",
                self.idempotency.window,
                s(1),
                s(7 * 86_400),
            ),
            ("merge.window", self.merge.window, ms(0), s(86_400)),
            ("heartbeat.timeout", self.heartbeat.timeout, ms(10), s(60)),
            ("heartbeat.lease", self.heartbeat.lease, ms(0), s(3_600)),
            (
                "heartbeat.backoff_min",
                self.heartbeat.backoff_min,
                ms(10),
                s(30),
            ),
            (
                "heartbeat.backoff_max",
                self.heartbeat.backoff_max,
                self.heartbeat.backoff_min,
                s(30),
            ),
            ("delivery.timeout", self.delivery.timeout, ms(10), s(60)),
            ("delivery.busy_min", self.delivery.busy_min, ms(1), s(60)),
            (
                "delivery.busy_max",
                self.delivery.busy_max,
                self.delivery.busy_min,
                s(600),
            ),
            // What waits is in memory, and a member that stops parks it.
            ("reroute.after", self.reroute.after, ms(0), s(600)),
            ("reroute.timeout", self.reroute.timeout, ms(10), s(60)),
            (
                "mailbox.expiry_interval",
                self.mailbox.expiry_interval,
                ms(10),
                s(3_600),
            ),
            (
                "mailbox.escalate_after.low",
                self.mailbox.escalate_after.low,
                ms(0),
                s(365 * 86_400),
            ),
            (
                "mailbox.escalate_after.normal",
                self.mailbox.escalate_after.normal,
                ms(0),
                s(365 * 86_400),
            ),
            (
                "mailbox.escalate_after.high",
                self.mailbox.escalate_after.high,
                ms(0),
                s(365 * 86_400),
            ),
            (
                "mailbox.escalate_after.urgent",
                self.mailbox.escalate_after.urgent,
                ms(0),
                s(365 * 86_400),
            ),
            ("dispatch.ack_wait", self.dispatch.ack_wait, s(10), s(3_600)),
            (
                "dispatch.pin_timeout",
                self.dispatch.pin_timeout,
                s(2),
                s(60),
            ),
            (
                "history.keep",
                self.history.keep,
                s(3_600),
                s(36_500 * 86_400),
            ),
            ("members.interval", self.members.interval, ms(100), s(60)),
            (
                "members.ttl",
                self.members.ttl,
                self.members.interval * 2,
                s(600),
            ),
            ("members.grace", self.members.grace, ms(0), s(600)),
        ] {
            let bounds = format!("{} to {}", units::show(least), units::show(most));
            check(
                name,
                units::show(value),
                least <= value && value <= most,
                &bounds,
            )?;
        }
        Ok(())
    }
}

fn within(name: &'static str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    check(
        name,
        value,
        (least..=most).contains(&value),
        &format!("{least} to {most}"),
    )
}

fn check(
    name: &'static str,
    value: impl std::fmt::Display,
    is_right: bool,
    bounds: &str,
) -> Result<(), ConfigError> {
    if is_right {
        return Ok(());
    }
    Err(ConfigError::OutOfBounds {
        name,
        value: value.to_string(),
        bounds: bounds.to_owned(),
    })
}
