//! Decides what happens to the users of one partition. A pure state machine: no I/O, no clock, no
//! task, no randomness.
//!
//! The shell (`service::partition`) tells it what happened ([`Input`]) and performs what it decides
//! ([`Action`]). It moves ids and handles, never content. Since one machine alone decides for a
//! user, a user's reminders keep their order and nothing needs a lock.
//!
//! A reminder waits in exactly one place: the user's mailbox. A user without mailbox is served from
//! the events as they come; as soon as anything stops that (no route, an instance that is silent or
//! busy), what is waiting is parked, the events are settled, and whatever arrives meanwhile is
//! parked behind it. The mailbox is read back in order when a route is usable again. So memory
//! holds only what is in flight, and order needs no second rule. Before the mailbox, what is live
//! may be brought to an associate; that takes a bounded time, and what arrives meanwhile waits
//! behind it.
//!
//! | file | decides |
//! | --- | --- |
//! | [`partition`] | what happens next to a user; the whole machine |
//! | [`user`] | what is known of one user: routes, mailbox, what waits, what is under way |
//! | [`users`] | who is known: users by name, and by key within the machine |
//! | [`instance_queue`] | how an instance is spoken to: one delivery and one heartbeat at a time, and when not at all |
//! | [`instance_queues`] | which instances there are: by name, and by key within the machine |
//! | [`keys`] | the keys themselves |
//! | [`room`] | who may have how much of a mailbox |
//! | `suspicion` | which reminder an instance may be unable to read |
//! | [`merge_window`] | which reminder stands for a later one of the same text |

mod display;
pub mod instance_queue;
pub mod instance_queues;
pub mod keys;
pub mod merge_window;
pub mod partition;
pub mod room;
mod slab;
mod suspicion;
pub mod user;
pub mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_protocol::reminder::Priority;
use bellhop_protocol::token::{InstanceName, Source, UserId};
use bellhop_protocol::wire::answer::Reason;

pub use partition::Router;
pub use room::{BySource, Room};

/// The two clocks, read together by the shell. Only expiry looks at the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock: leases, back-off, deadlines.
    pub instant: Instant,
    /// Milliseconds since 1970: `expires_at`.
    pub unix_ms: i64,
}

impl Now {
    /// The instant at which the wall clock will show `unix_ms`, if it runs steadily; now, where
    /// that has passed.
    fn instant_of(self, unix_ms: i64) -> Instant {
        let ahead = u64::try_from(unix_ms.saturating_sub(self.unix_ms)).unwrap_or(0);
        // A century is later than any deadline, and an addition that cannot overflow.
        self.instant + Duration::from_millis(ahead.min(100 * 366 * 86_400_000))
    }
}

/// Bounds and times of a partition's decisions. Each is a setting of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time for which a confirmed connection counts as held. Zero asks before every delivery.
    pub lease: Duration,
    /// The rest of its lease at which a connection with a delivery is asked about again. Zero
    /// asks only when something is to be delivered.
    pub ask_ahead: Duration,
    /// First and longest pause before a silent instance is asked again.
    pub instance_backoff: (Duration, Duration),
    /// First and longest pause before a user whose instance answered `busy` is tried again.
    pub busy_backoff: (Duration, Duration),
    /// True if a user's reminders go to all connections, and not only to the one whose route was
    /// put last.
    pub all_devices: bool,
    /// Maximum time for which a request waits to be sent, and for which reminders that one of a
    /// user's connections has got wait for another connection.
    pub turn_timeout: Duration,
    /// The most users in one heartbeat.
    pub heartbeat_users: usize,
    /// The most bytes of reminders in one delivery.
    pub delivery_bytes: usize,
    /// Room in one user's mailbox. Beyond it the newest is refused.
    pub room: Room,
    /// The most reminders and bytes parked in one go.
    pub park_batch: (usize, usize),
    /// First and longest pause before reminders are parked that JetStream refused to store.
    pub park_again: (Duration, Duration),
    /// The most mailbox pages being read, and mailboxes being counted, at a time.
    pub reads_in_flight: usize,
    /// The least time between two searches of one mailbox for expired reminders.
    pub expiry_interval: Duration,
    /// True if the user's mailbox gets a copy of each rerouted reminder.
    pub copy_rerouted: bool,
    /// The time for which a user who held a connection is expected back. Until then associates get
    /// nothing.
    pub reroute_after: Duration,
    /// The most reminders and bytes that wait in memory for users who are expected back.
    pub expected_most: (usize, usize),
    /// Maximum time for trying associates, all of them together.
    pub reroute_timeout: Duration,
    /// Time for which later duplicates are merged into a reminder.
    pub merge_window: Duration,
    /// The most reminders remembered for that.
    pub merge_limit: usize,
}

/// The most associates of a user that are tried.
pub const MAX_ASSOCIATES: usize = 8;

/// The most instances that a user's reminders go to, those whose routes were put last: each gets a
/// copy of every delivery.
pub const MAX_DEVICES: usize = 16;

/// The maximum number of routes of a user that the router remembers: the newest ones. It is far
/// more than a user has devices, and each step for a user looks at all its routes.
pub const MAX_ROUTES: usize = 256;

/// An app-server instance as a route names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// The beginning of its subjects: requests go to `<subject>.deliver` and `<subject>.heartbeat`.
    pub subject: String,
}

/// The handle of one reminder; the shell has its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// One reminder of a message of the events stream.
    Event {
        /// The message's sequence.
        sequence: u64,
        /// The reminder's place in the message.
        index: usize,
    },
    /// One message of a mailbox.
    Parked {
        /// Its sequence in the stream of mailboxes.
        sequence: u64,
    },
}

/// The text of a reminder, as far as merging needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The reminder's id.
    pub id: String,
    /// A hash of its source, user, title and content as published.
    pub hash: u128,
    /// Its urgency.
    pub priority: Priority,
}

/// A reminder as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its handle.
    pub item: Item,
    /// Time of expiry, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Bytes that it takes in a delivery request.
    pub bytes: usize,
    /// It may go to an associate. Only for reminders of an event.
    pub may_reroute: bool,
    /// The reminder's source.
    pub source: Source,
    /// Its urgency.
    pub priority: Priority,
    /// Its text, if there is a window for merging.
    pub text: Option<Arc<Text>>,
}

impl Entry {
    fn is_expired(&self, now: Now) -> bool {
        self.expires_at.is_some_and(|at| at <= now.unix_ms)
    }
}

/// The state of one user's mailbox that a new owner finds in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxSummary {
    /// The sequence of its first message.
    pub first: u64,
    /// The sequence of its last message.
    pub last: u64,
    /// Number of its messages.
    pub count: usize,
    /// The earliest `expires_at` in it, in milliseconds since 1970.
    pub next_expiry: Option<i64>,
}

/// A page of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The reminders, oldest first.
    pub entries: Vec<Entry>,
    /// Nothing else lies in the mailbox before this sequence: the next page begins here.
    pub next: u64,
    /// Nothing lay behind it when it was read.
    pub is_last: bool,
}

/// The reason why an instance refused a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The user is not connected there: the route is dropped, the reminder goes on to its next
    /// choice.
    NotConnected,
    /// Not now: tried again later, in order.
    Busy,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotConnected => Self::NotConnected,
            Reason::Busy => Self::Busy,
        }
    }
}

/// The reason why a request counts as not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoAnswer {
    /// The subject has no subscriber. Known at once.
    NoResponders,
    /// No answer within the time. It may have been received or not.
    TimedOut,
    /// An answer that the contract does not know.
    Garbage,
}

/// The reason why no reminder of a delivery counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// It was sent, and not answered.
    Unanswered(NoAnswer),
    /// It was not sent, because the instance left a request before it unanswered.
    Withheld,
    /// It was not sent in time, because the instance was at work on other requests.
    NotSent,
}

impl From<NoAnswer> for Undelivered {
    fn from(why: NoAnswer) -> Self {
        Self::Unanswered(why)
    }
}

/// The way to send a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Company {
    /// In one request with what others have for the instance. One is under way at a time.
    Shared,
    /// In a request of its own, beside the shared one: a reminder in it may be one that the
    /// instance cannot read.
    Alone,
}

/// An event for the machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// A message of the events stream: its reminders in order.
    Event(Vec<(UserId, Entry)>),
    /// A mailbox was found in the stream when the partition was taken over.
    MailboxFound(UserId, MailboxSummary),
    /// A route was put.
    RouteUp {
        /// The connected user.
        user: UserId,
        /// The instance.
        instance: Arc<Instance>,
        /// The key's revision in the bucket.
        revision: u64,
    },
    /// A route was deleted.
    RouteDown {
        /// The user.
        user: UserId,
        /// The instance.
        instance: InstanceName,
        /// The deletion's revision in the bucket.
        revision: u64,
    },
    /// All routes were fed that had been put before the last [`Action::CatchUpWithRoutes`], or took
    /// too long.
    CaughtUpWithRoutes,
    /// The user's associates were replaced.
    Associates {
        /// The user.
        user: UserId,
        /// The associates, in order of preference.
        associates: Vec<UserId>,
    },
    /// An associate's routes were looked up.
    RoutesFound {
        /// The user whose associate it is.
        user: UserId,
        /// The user whose routes they are.
        associate: UserId,
        /// The instances at which the associate may be connected, in the order in which to try
        /// them.
        instances: Vec<Arc<Instance>>,
    },
    /// A delivery was answered: what was refused, as places in the request, or nothing at all.
    Delivered {
        /// The instance that was asked.
        instance: Arc<Instance>,
        /// The way in which it was sent.
        company: Company,
        /// Refused: (place of the share, place of the reminder in it, why). The others were
        /// accepted.
        answer: Result<Vec<(usize, usize, Refusal)>, Undelivered>,
    },
    /// A heartbeat was answered: who is connected.
    HeartbeatAnswered {
        /// The instance that was asked.
        instance: Arc<Instance>,
        /// The users named in the answer.
        answer: Result<Vec<UserId>, NoAnswer>,
    },
    /// The batch of the last [`Action::Park`] is durable, with these sequences.
    Parked(Vec<u64>),
    /// JetStream refused the batch of the last [`Action::Park`]: none of it is stored.
    ParkRefused,
    /// A page of a mailbox was read.
    MailboxRead {
        /// The user.
        user: UserId,
        /// The page that was read.
        page: Page,
    },
    /// A mailbox was counted.
    MailboxCounted {
        /// The user.
        user: UserId,
        /// Its reminders by source; none, if it has at least as many as were known.
        found: Option<BySource>,
    },
    /// A deadline of [`Router::next_deadline`] was reached.
    Tick,
    /// The partition is being given up: live reminders are finished, no mailbox is begun.
    Stop,
}

/// The final or preliminary outcome of a reminder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Accepted.
    Delivered {
        /// By these instances, the first first.
        by: Vec<InstanceName>,
        /// Number of other instances that were to get it, too.
        missed: usize,
    },
    /// Accepted for an associate of the user.
    Rerouted {
        /// By this instance.
        instance: InstanceName,
        /// The associate.
        to: UserId,
    },
    /// It is in the mailbox now. Only for reminders of an event.
    Parked,
    /// Too late.
    Expired,
    /// The reminder with this id, which says the same, stands for it.
    Merged {
        /// That one's id.
        into: String,
    },
    /// The mailbox has no room for it.
    MailboxFull,
}

/// The way in which a settled reminder is removed from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its event is acknowledged when all reminders of the event are settled.
    Event,
    /// Everything in the user's mailbox up to this sequence is settled.
    MailboxUpTo(u64),
    /// This message alone leaves the mailbox.
    MailboxOnly(u64),
}

/// A reminder that is done with here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The user.
    pub user: UserId,
    /// The reminder.
    pub item: Item,
    /// Its outcome; it is recorded before the removal.
    pub resolution: Resolution,
    /// The way to remove it, once the outcome is durable.
    pub removal: Removal,
}

/// One user's reminders in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The user of the reminders.
    pub user: UserId,
    /// The associate who gets them instead.
    pub to: Option<UserId>,
    /// The reminders, in order.
    pub items: Vec<Item>,
}

impl Share {
    /// Returns the recipient.
    pub fn recipient(&self) -> &UserId {
        self.to.as_ref().unwrap_or(&self.user)
    }
}

/// A reminder on its way into a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    /// The mailbox's user.
    pub user: UserId,
    /// The reminder of an event.
    pub item: Item,
    /// It is a copy: this associate has got the reminder, and that is what became of it.
    pub rerouted_to: Option<UserId>,
}

/// A request to the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Request a delivery; answer with [`Input::Delivered`].
    Deliver {
        /// To whom.
        instance: Arc<Instance>,
        /// The way to send it.
        company: Company,
        /// Users and their reminders, in order.
        shares: Vec<Share>,
        /// It is given back as [`Undelivered::NotSent`] where it is not sent by then.
        until: Instant,
    },
    /// Ask who is connected; answer with [`Input::HeartbeatAnswered`].
    Heartbeat {
        /// The instance to ask.
        instance: Arc<Instance>,
        /// About whom.
        users: Vec<UserId>,
    },
    /// Feed all routes that were put up to now; answer with [`Input::CaughtUpWithRoutes`]. One is
    /// under way at a time.
    CatchUpWithRoutes,
    /// Look up where the associate of a user may be connected; answer with [`Input::RoutesFound`].
    LookUpRoutes {
        /// The user whose associate it is.
        user: UserId,
        /// The user whose routes they are.
        associate: UserId,
    },
    /// The user is not connected there: delete the route, unless it was put again since.
    DropRoute {
        /// The user.
        user: UserId,
        /// The instance.
        instance: InstanceName,
        /// The revision that was found wrong.
        revision: u64,
    },
    /// Append to mailboxes, in order; answer with [`Input::Parked`] or [`Input::ParkRefused`]. One
    /// is under way at a time.
    Park(Vec<Parking>),
    /// Read a page of a mailbox; answer with [`Input::MailboxRead`].
    ReadMailbox {
        /// The user.
        user: UserId,
        /// The first sequence wanted.
        from: u64,
        /// The last sequence known: a page that ends before it is checked against the stream's
        /// leader.
        last: u64,
    },
    /// Count what lies in a mailbox, by source; answer with [`Input::MailboxCounted`].
    CountMailbox {
        /// The user.
        user: UserId,
        /// Number of known messages: their sources are needed only if there are fewer.
        known: Option<usize>,
    },
    /// Record what became of these, then remove them.
    Settle(Vec<Settled>),
    /// These parked reminders are no longer held in memory; they stay in the mailbox.
    Forget(Vec<Item>),
    /// An instance left this reminder unanswered, alone, several times. It is held back, and tried
    /// less and less often.
    HoldBack(HeldBack),
}

/// A reminder that an instance does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// The user.
    pub user: UserId,
    /// The reminder.
    pub item: Item,
    /// The instance that was tried last.
    pub instance: Arc<Instance>,
    /// Number of attempts to deliver it alone.
    pub tries: u32,
    /// Pause before the next attempt.
    pub pause: Duration,
}

/// The number of requests with one reminder alone after which that reminder is reported as held
/// back, if the app server answered none of them. The first failure may be chance, and the second
/// one a restart of the app server.
pub const HELD_BACK_AFTER: u32 = 3;
