//! The names of everything Bellhop has in NATS. One prefix, so that several installations can share
//! an account.

use crate::partition::Partition;
use crate::reminder::Priority;
use crate::token::{InstanceName, Source, UserId, escape};

/// Subjects, streams, buckets and consumers of one installation.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

/// The stream behind a bucket.
pub fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

impl Names {
    /// Names under `prefix`, such as `bellhop`.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Returns the prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn stream(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix.to_uppercase())
    }

    fn bucket(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    /// The log of published sets.
    pub fn log_stream(&self) -> String {
        self.stream("LOG")
    }

    /// The stream of reminders that are to be delivered later.
    pub fn scheduled_stream(&self) -> String {
        self.stream("SCHEDULED")
    }

    /// The stream of mailboxes.
    pub fn parked_stream(&self) -> String {
        self.stream("PARKED")
    }

    /// The stream of outcomes.
    pub fn outcomes_stream(&self) -> String {
        self.stream("OUTCOMES")
    }

    /// The stream of refused input.
    pub fn rejected_stream(&self) -> String {
        self.stream("REJECTED")
    }

    /// The stream of the reminders' ids of the idempotency window.
    pub fn seen_stream(&self) -> String {
        self.stream("SEEN")
    }

    /// The bucket of routes.
    pub fn routes_bucket(&self) -> String {
        self.bucket("routes")
    }

    /// The bucket of rules.
    pub fn rules_bucket(&self) -> String {
        self.bucket("rules")
    }

    /// The bucket of associates.
    pub fn associates_bucket(&self) -> String {
        self.bucket("associates")
    }

    /// The bucket of members: the running `bellhop serve` processes.
    pub fn members_bucket(&self) -> String {
        self.bucket("members")
    }

    /// The bucket of positions: how far each partition has come in the log.
    pub fn positions_bucket(&self) -> String {
        self.bucket("positions")
    }

    /// All streams, those of the buckets too.
    pub fn streams(&self) -> [String; 11] {
        let buckets = [
            self.routes_bucket(),
            self.rules_bucket(),
            self.associates_bucket(),
            self.members_bucket(),
        ];
        let [routes, rules, associates, members] = buckets.map(|bucket| bucket_stream(&bucket));
        let (log, parked, positions) = (
            self.log_stream(),
            self.parked_stream(),
            bucket_stream(&self.positions_bucket()),
        );
        let (outcomes, rejected, seen) = (
            self.outcomes_stream(),
            self.rejected_stream(),
            self.seen_stream(),
        );
        let scheduled = self.scheduled_stream();
        [
            log, parked, outcomes, rejected, seen, scheduled, positions, routes, rules, associates,
            members,
        ]
    }

    /// Returns the subject on which a source publishes its sets.
    pub fn sets(&self, source: &Source) -> String {
        format!("{}.sets.{}", self.prefix, source.escaped())
    }

    /// All sources' sets.
    pub fn all_sets(&self) -> String {
        format!("{}.sets.*", self.prefix)
    }

    /// A reminder that is to be delivered later: there is one of each source, id and user.
    pub fn scheduled(&self, source: &Source, id: &str, user: &UserId) -> String {
        format!(
            "{}.scheduled.{}.{}.{}",
            self.prefix,
            source.escaped(),
            escape(id),
            user.escaped()
        )
    }

    /// The reminders of an id that are to be delivered later, of all users.
    pub fn scheduled_under(&self, source: &Source, id: &str) -> String {
        format!(
            "{}.scheduled.{}.{}.*",
            self.prefix,
            source.escaped(),
            escape(id)
        )
    }

    /// A source's reminders that are to be delivered later.
    pub fn scheduled_of(&self, source: &Source) -> String {
        format!("{}.scheduled.{}.*.*", self.prefix, source.escaped())
    }

    /// All sources' reminders that are to be delivered later.
    pub fn all_scheduled(&self) -> String {
        format!("{}.scheduled.*.*.*", self.prefix)
    }

    /// Returns the subject on which a source's due reminders arrive.
    pub fn due(&self, source: &Source) -> String {
        format!("{}.due.{}", self.prefix, source.escaped())
    }

    /// All reminders for which it is time.
    pub fn all_due(&self) -> String {
        format!("{}.due.*", self.prefix)
    }

    /// A user's mailbox.
    pub fn mailbox(&self, partition: Partition, user: &UserId) -> String {
        format!("{}.parked.{partition}.{}", self.prefix, user.escaped())
    }

    /// A partition's mailboxes.
    pub fn mailboxes(&self, partition: Partition) -> String {
        format!("{}.parked.{partition}.*", self.prefix)
    }

    /// All mailboxes.
    pub fn all_mailboxes(&self) -> String {
        format!("{}.parked.*.*", self.prefix)
    }

    /// Returns the subject of the fence that a partition's new owner writes into the stream of
    /// mailboxes.
    pub fn fence(&self, partition: Partition) -> String {
        format!("{}.fence.{partition}", self.prefix)
    }

    /// All partitions' fences.
    pub fn all_fences(&self) -> String {
        format!("{}.fence.*", self.prefix)
    }

    /// The fence of what one incarnation of a member records: a message there ends it.
    pub fn outcomes_fence(&self, incarnation: &str) -> String {
        format!("{}.fence.outcomes.{incarnation}", self.prefix)
    }

    /// The fences of all incarnations.
    pub fn all_outcomes_fences(&self) -> String {
        format!("{}.fence.outcomes.*", self.prefix)
    }

    /// A source's outcomes.
    pub fn outcomes(&self, source: &Source) -> String {
        format!("{}.outcomes.{}", self.prefix, source.escaped())
    }

    /// All sources' outcomes.
    pub fn all_outcomes(&self) -> String {
        format!("{}.outcomes.*", self.prefix)
    }

    /// Refused input of the source with this token. The token may be none that a source can have.
    pub fn rejected(&self, source_token: &str) -> String {
        format!("{}.rejected.{source_token}", self.prefix)
    }

    /// All refused input.
    pub fn all_rejected(&self) -> String {
        format!("{}.rejected.*", self.prefix)
    }

    /// The entries of the idempotency window of a partition, or of the sets themselves, by the key
    /// of its position.
    pub fn seen(&self, subscriber: impl std::fmt::Display) -> String {
        format!("{}.seen.{subscriber}", self.prefix)
    }

    /// The entries of all idempotency windows.
    pub fn all_seen(&self) -> String {
        format!("{}.seen.*", self.prefix)
    }

    /// Returns the default beginning of an instance's subjects, used unless its routes name another
    /// one.
    pub fn instance(&self, instance: &InstanceName) -> String {
        format!("{}.app.{}", self.prefix, instance.escaped())
    }

    /// Returns true for a subject with a meaning for Bellhop or the server: one of the
    /// installation's own, or `$JS`, `$KV`, …. Subjects that strangers may choose, such as reply
    /// subjects, must not be among them.
    pub fn is_reserved(&self, subject: &str) -> bool {
        let is_own = || {
            subject
                .strip_prefix(&self.prefix)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        subject.starts_with('$') || is_own()
    }

    /// The subjects of all instances for one kind of request, `deliver` or `heartbeat`, unless
    /// their routes say otherwise.
    pub fn all_instances(&self, request: &str) -> String {
        format!("{}.app.*.{request}", self.prefix)
    }

    /// The consumer that takes in what was scheduled and is due.
    pub fn due_consumer(&self) -> &'static str {
        "due"
    }

    /// The consumer that remembers how far outcomes were written into the database.
    pub fn history_consumer(&self) -> &'static str {
        "history"
    }

    /// Returns the beginning of the subjects of queries.
    pub fn api(&self) -> String {
        format!("{}.api", self.prefix)
    }

    /// The instance, as a token, that a query comes from, if its subject says one:
    /// `bellhop.api.of.<instance>.<question>`.
    pub fn asking_instance<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let below = subject
            .strip_prefix(&self.prefix)?
            .strip_prefix(".api.of.")?;
        below.split_once('.').map(|(instance, _)| instance)
    }

    /// Returns the subject on which all members answer with their metrics.
    pub fn metrics(&self) -> String {
        format!("{}.metrics", self.prefix)
    }

    /// The consumer that remembers how far parked reminders of a priority were announced.
    pub fn escalate_consumer(&self, priority: Priority) -> String {
        format!("escalate-{}", priority.as_str())
    }
}
