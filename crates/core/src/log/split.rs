//! Splits a published set into what each partition takes of it, and what belongs to the set itself.
//!
//! It depends on the message alone, so every reader splits a set in the same way. No input ends it:
//! what is wrong with a set or a reminder becomes a refusal. Slices are copies, so nothing keeps
//! the message in memory.

use std::sync::Arc;

use bellhop_protocol::reminder::Reminder;
use bellhop_protocol::reminder::cancellation::Cancellation;
use bellhop_protocol::reminder::finished::{as_published, with_repeat};
use bellhop_protocol::reminder::id::is_default_id;
use bellhop_protocol::reminder::raw;
use bellhop_protocol::reminder::reject::{RejectCode, Rejection};
use bellhop_protocol::reminder::set::{self, Candidate, Common, Origin, Refused, ReminderSet};
use bellhop_protocol::token::{Source, UserId};
use bellhop_protocol::trace::TraceParent;
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;

use super::position::Mark;
use super::window::{Id, Name, hash_of, identity, partition_of};
use crate::event::OfSet;
use crate::partition::Partition;

/// Bytes that the refusals of one set's reminders may take for each byte of the set, and
const REFUSALS_FACTOR: usize = 8;
/// beside that, so that a few mistakes in a small set are refused alone. They are kept for weeks:
/// without a bound a few sets would fill the store.
const REFUSALS_BYTES: usize = 4 << 10;
/// Bytes that a refusal takes beside the reminder and its names, with its outcome: headers,
/// subjects, JSON.
const REFUSAL_BYTES: usize = 400;
/// Bytes that a reminder of a slice takes in memory beside its own texts, about.
const REMINDER_BYTES: usize = size_of::<Published>() + 64;

/// A message of the log.
#[derive(Debug, Clone)]
pub struct Message<'m> {
    /// The last token of its subject: the source, escaped.
    pub source_token: &'m str,
    /// Its sequence.
    pub sequence: u64,
    /// Time at which it was stored, in milliseconds since 1970.
    pub stored_ms: i64,
    /// Its body as published.
    pub body: &'m [u8],
    /// The set that it holds, as JSON; or what is wrong with the CloudEvent that should hold it.
    pub set: Result<&'m [u8], Rejection>,
    /// Its `Nats-Msg-Id`.
    pub message_id: Option<&'m str>,
    /// It was refused before, and is published again: its reminders are not repeats.
    pub is_requeued: bool,
    /// It was scheduled, and has come due.
    pub is_due: bool,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

/// A message, split by recipient.
#[derive(Debug)]
pub struct Split {
    /// The part that belongs to the set itself, if there is one.
    pub of_set: Option<OfSetItself>,
    /// The parts of the partitions, one slice each.
    pub slices: Vec<(Partition, Slice)>,
}

/// A partition's part of a set.
#[derive(Debug)]
pub struct Slice {
    /// The set.
    pub set: Arc<OfSet>,
    /// Properties of all its reminders.
    pub common: Arc<Common>,
    /// The fields added to each of its reminders that is forwarded as it was published.
    pub added: Arc<[u8]>,
    /// Under which `Nats-Msg-Id` it was published.
    pub message_id: Option<Arc<str>>,
    /// Its reminders are not repeats.
    pub is_requeued: bool,
    /// Its reminders, in the order of the set.
    pub reminders: Vec<Published>,
    /// Bytes that it takes in memory, about.
    pub bytes: usize,
}

/// A reminder as published, valid.
#[derive(Debug)]
pub struct Published {
    /// Its place in the set.
    pub place: usize,
    /// Its identity by its id, as of one that is delivered at once.
    pub identity: Id,
    /// The reminder's content.
    pub reminder: Reminder,
    /// Its bytes.
    pub raw: Bytes,
}

impl Published {
    /// Returns how a reminder is known to its source. None if it has no name by which it could come
    /// again: neither it nor its set has one, and no `Nats-Msg-Id`.
    pub fn name<'s>(&'s self, set: &Common, message_id: Option<&'s str>) -> Option<Name<'s>> {
        let (place, id) = (self.place, &self.reminder.id);
        if set.is_named || !is_default_id(id, &set.id, place) {
            return Some(Name::Id(id));
        }
        message_id.map(|message| Name::InMessage(message, place))
    }
}

/// The part of a set that belongs to none of its users.
#[derive(Debug)]
pub struct OfSetItself {
    /// The last token of its subject: the source, escaped.
    pub source_token: String,
    /// The sequence of the set.
    pub sequence: u64,
    /// Time at which it was stored, in milliseconds since 1970.
    pub stored_ms: i64,
    /// Under which `Nats-Msg-Id` it was published.
    pub message_id: Option<Box<str>>,
    /// A hash of the body, by which a set that comes again under the same `Nats-Msg-Id` is known.
    pub body_hash: u64,
    /// The work.
    pub work: SetWork,
}

/// The work for a set itself.
#[derive(Debug)]
pub enum SetWork {
    /// It is refused as a whole.
    Refuse {
        /// Its body.
        body: Bytes,
        /// The reason.
        rejection: Rejection,
    },
    /// Some of it is not for partitions.
    Parts(SetParts),
}

/// The parts of a set that are not for partitions.
#[derive(Debug)]
pub struct SetParts {
    /// The set.
    pub set: Arc<OfSet>,
    /// Reminders that are refused.
    pub refused: Vec<RefusedReminder>,
    /// Reminders that are not to be delivered, if earlier sets scheduled them.
    pub cancel: Vec<Cancellation>,
    /// Reminders that the set has itself: what earlier sets scheduled under these names gives way
    /// without an outcome.
    pub replaced: Vec<(String, UserId)>,
    /// The reminders to deliver later.
    pub scheduled: Vec<Scheduled>,
}

/// A reminder that is refused.
#[derive(Debug)]
pub struct RefusedReminder {
    /// Its place in the set.
    pub place: usize,
    /// Its id, or the one that Bellhop made up.
    pub id: String,
    /// Its user, if that is a name.
    pub user: Option<UserId>,
    /// Its bytes as published.
    pub raw: Bytes,
    /// The reason.
    pub rejection: Rejection,
}

impl RefusedReminder {
    /// Returns true if an outcome records the refusal. Where the id is another reminder's, the id's
    /// outcome is that one's.
    pub fn has_outcome(&self) -> bool {
        self.rejection.code != RejectCode::DuplicateId
    }

    fn bytes(&self) -> usize {
        let names = self.id.len() + self.user.as_ref().map_or(0, |user| user.as_str().len());
        REFUSAL_BYTES + self.raw.len() + self.rejection.detail.len() + 2 * names
    }
}

/// A reminder that is to be delivered later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Its id.
    pub id: String,
    /// The user for whom it is published.
    pub user: UserId,
    /// Its place in the set that schedules it.
    pub place: usize,
    /// Its due time.
    pub at: Timestamp,
    /// A set of this one reminder, which may be published then.
    pub set: Bytes,
}

/// Splits a message for an installation with so many partitions.
pub fn split(message: &Message<'_>, partitions: u16) -> Split {
    let refused = |rejection| {
        let work = SetWork::Refuse {
            body: Bytes::copy_from_slice(message.body),
            rejection,
        };
        Split {
            of_set: Some(of_set(message, work)),
            slices: Vec::new(),
        }
    };
    let source = match Source::from_token(message.source_token) {
        Ok(source) => source,
        Err(error) => return refused(Rejection::new(RejectCode::InvalidSource, error)),
    };
    let origin = Origin::new(source, message.sequence, message.stored_ms);
    let set = message
        .set
        .as_ref()
        .map_err(Rejection::clone)
        .and_then(|set| set::parse(&origin, set));
    match set.and_then(|set| Sorted::sort(message, &origin, set)) {
        Err(rejection) => refused(rejection),
        Ok(sorted) => sorted.split(message, &origin, partitions),
    }
}

fn of_set(message: &Message<'_>, work: SetWork) -> OfSetItself {
    let Message {
        sequence,
        stored_ms,
        message_id,
        body,
        ..
    } = message;
    let (source_token, body_hash) = (message.source_token.to_owned(), hash_of(body));
    let (sequence, stored_ms, message_id) = (*sequence, *stored_ms, message_id.map(Into::into));
    OfSetItself {
        source_token,
        sequence,
        stored_ms,
        message_id,
        body_hash,
        work,
    }
}

/// A set's reminders, sorted by what becomes of them.
struct Sorted<'m> {
    set: Arc<OfSet>,
    common: Common,
    now: Vec<ForNow<'m>>,
    parts: SetParts,
}

/// A reminder that is not for later, and its bytes.
struct ForNow<'m> {
    place: usize,
    identity: Id,
    raw: &'m str,
    reminder: Reminder,
}

impl<'m> Sorted<'m> {
    /// # Errors
    /// When refusing the wrong ones one by one would take too much: then the whole set is to be
    /// refused.
    fn sort(
        message: &Message<'_>,
        origin: &Origin,
        parsed: ReminderSet<'m>,
    ) -> Result<Self, Rejection> {
        let ReminderSet {
            common,
            cancel,
            reminders,
        } = parsed;
        let (source, id) = (origin.source.clone(), common.id.to_string());
        let (sequence, published_ms, trace) =
            (message.sequence, message.stored_ms, message.trace.clone());
        let set = Arc::new(OfSet {
            source,
            id,
            sequence,
            published_ms,
            trace,
        });
        let (refused, replaced, scheduled) = Default::default();
        let parts = SetParts {
            set: set.clone(),
            refused,
            cancel,
            replaced,
            scheduled,
        };
        let mut sorted = Self {
            set,
            common,
            now: Vec::with_capacity(reminders.len()),
            parts,
        };
        let mut first: HashMap<u128, usize> = HashMap::with_capacity(reminders.len());
        let raws: Vec<&str> = reminders.iter().map(|candidate| candidate.raw).collect();
        let cancelled: HashSet<Cancellation> = sorted.parts.cancel.iter().cloned().collect();
        let (mut room, all) = (
            REFUSALS_BYTES + REFUSALS_FACTOR * message.body.len(),
            reminders.len(),
        );
        for (place, Candidate { raw, parsed }) in reminders.into_iter().enumerate() {
            let refused = match parsed {
                Ok(reminder) => {
                    let name = Name::Id(&reminder.id);
                    let identity = identity(&origin.source, name, &reminder.user, None);
                    match *first.entry(identity).or_insert(place) {
                        earlier if earlier == place => {
                            let is_cancelled = is_in(&cancelled, &reminder);
                            let one = ForNow {
                                place,
                                identity,
                                raw,
                                reminder,
                            };
                            sorted.sort_one(one, is_cancelled, message.is_due, origin);
                            continue;
                        }
                        earlier if raws[earlier] == raw => continue,
                        _ => Refused {
                            rejection: duplicate(&reminder.id),
                            id: reminder.id,
                            user: Some(reminder.user),
                        },
                    }
                }
                Err(refused) => refused,
            };
            let Refused {
                id,
                user,
                rejection,
            } = refused;
            let raw = Bytes::copy_from_slice(raw.as_bytes());
            let refused = RefusedReminder {
                place,
                id,
                user,
                raw,
                rejection,
            };
            let left = room.checked_sub(refused.bytes());
            room = left.ok_or_else(|| too_many(&sorted.parts.refused, all, &refused.rejection))?;
            sorted.parts.refused.push(refused);
        }
        Ok(sorted)
    }

    fn sort_one(&mut self, one: ForNow<'m>, is_cancelled: bool, is_due: bool, origin: &Origin) {
        let reminder = &one.reminder;
        // By the server's clock: read again, a set means the same.
        let later = reminder.deliver_at.filter(|at| *at > origin.published_at);
        // An earlier set may have scheduled it, and this one moves it to now.
        let is_moved = later.is_none() && reminder.deliver_at.is_some() && !is_due;
        if is_cancelled || is_moved {
            self.parts
                .replaced
                .push((reminder.id.clone(), reminder.user.clone()));
        }
        match later {
            Some(at) => {
                let scheduled = scheduled(at, one.reminder, one.place);
                self.parts.scheduled.push(scheduled);
            }
            None => self.now.push(one),
        }
    }

    fn split(self, message: &Message<'_>, origin: &Origin, partitions: u16) -> Split {
        let Self {
            set,
            common,
            now,
            parts,
        } = self;
        let added = raw::of_set(&origin.source, &common.id, origin.published_at);
        let slicer = Slicer {
            set,
            common: Arc::new(common),
            added: added.into(),
            message_id: message.message_id.map(Arc::from),
            is_requeued: message.is_requeued,
        };
        let slices = slicer.slices(now, partitions);
        let SetParts {
            refused,
            cancel,
            replaced,
            scheduled,
            ..
        } = &parts;
        let has_parts = !(refused.is_empty()
            && cancel.is_empty()
            && replaced.is_empty()
            && scheduled.is_empty());
        let of_set = has_parts.then(|| of_set(message, SetWork::Parts(parts)));
        Split { of_set, slices }
    }
}

/// The part that all slices of a set share.
struct Slicer {
    set: Arc<OfSet>,
    common: Arc<Common>,
    added: Arc<[u8]>,
    message_id: Option<Arc<str>>,
    is_requeued: bool,
}

impl Slicer {
    /// Returns the slices of the partitions that have any of these reminders, in order.
    fn slices(&self, now: Vec<ForNow<'_>>, partitions: u16) -> Vec<(Partition, Slice)> {
        let of = |one: &ForNow<'_>| partition_of(one.identity, partitions);
        let mut order: Vec<(Partition, usize)> = now.iter().map(of).zip(0..).collect();
        order.sort_unstable();
        let mut now: Vec<Option<ForNow<'_>>> = now.into_iter().map(Some).collect();
        let groups = order.chunk_by(|(one, _), (other, _)| one == other);
        groups
            .map(|group| {
                let mut its = Vec::with_capacity(group.len());
                its.extend(group.iter().filter_map(|(_, at)| now[*at].take()));
                (group[0].0, self.slice(its))
            })
            .collect()
    }

    fn slice(&self, reminders: Vec<ForNow<'_>>) -> Slice {
        // One buffer for all of them.
        let all = reminders.iter().map(|one| one.raw.len()).sum();
        let mut raws = Vec::with_capacity(all);
        for one in &reminders {
            raws.extend_from_slice(one.raw.as_bytes());
        }
        let mut rest = Bytes::from(raws);
        // The texts are in memory twice: as published, and read.
        let bytes = size_of::<Slice>() + REMINDER_BYTES * reminders.len() + 2 * all;
        let published = reminders.into_iter().map(|one| Published {
            place: one.place,
            identity: one.identity,
            reminder: one.reminder,
            raw: rest.split_to(one.raw.len()),
        });
        Slice {
            set: self.set.clone(),
            common: self.common.clone(),
            added: self.added.clone(),
            message_id: self.message_id.clone(),
            is_requeued: self.is_requeued,
            reminders: published.collect(),
            bytes,
        }
    }
}

/// Returns true if one of these cancels an earlier reminder with the names of this one.
fn is_in(cancelled: &HashSet<Cancellation>, reminder: &Reminder) -> bool {
    // Most sets cancel nothing.
    !cancelled.is_empty()
        && [None, Some(&reminder.user)].into_iter().any(|user| {
            cancelled.contains(&Cancellation {
                id: reminder.id.clone(),
                user: user.cloned(),
            })
        })
}

fn duplicate(id: &str) -> Rejection {
    Rejection::new(
        RejectCode::DuplicateId,
        format!("`{id}` is the id of another reminder of the set for this user"),
    )
}

fn too_many(refused: &[RefusedReminder], all: usize, latest: &Rejection) -> Rejection {
    let wrong = refused.len() + 1;
    let detail = format!(
        "refusing the first {wrong} wrong ones of {all} reminders alone takes more than {REFUSALS_FACTOR} times the set's \
         bytes and {REFUSALS_BYTES}, so the whole set is refused; correct it and publish it again. The latest: {latest}"
    );
    Rejection::new(RejectCode::TooManyRefused, detail)
}

/// A reminder for later, as a set of its own that may be published then.
pub(super) fn scheduled(at: Timestamp, reminder: Reminder, place: usize) -> Scheduled {
    let set = set_of(&reminder);
    Scheduled {
        id: reminder.id,
        user: reminder.user,
        place,
        at,
        set,
    }
}

/// Returns a set of one reminder.
pub(super) fn set_of(reminder: &Reminder) -> Bytes {
    let set = serde_json::to_string(&reminder.set).expect("a name is text");
    let mut json = as_published(reminder.to_json(), reminder.stays, reminder.is_single);
    if let Some(repeat) = &reminder.repeat {
        json = with_repeat(&json, repeat.raw());
    }
    [
        br#"{"id":"#,
        set.as_bytes(),
        br#","reminders":["#,
        &json,
        b"]}",
    ]
    .concat()
    .into()
}

impl OfSetItself {
    /// Returns the place just behind the set, if `before` is just before it.
    pub fn after(&self, before: Mark) -> Mark {
        before.after(self.sequence, self.stored_ms)
    }

    /// Returns how many bytes it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let work = match &self.work {
            SetWork::Refuse {
                body, rejection, ..
            } => body.len() + rejection.detail.len(),
            SetWork::Parts(SetParts {
                refused,
                cancel,
                replaced,
                scheduled,
                ..
            }) => {
                let refused: usize = refused.iter().map(RefusedReminder::bytes).sum();
                let names = cancel
                    .iter()
                    .map(|one| size_of::<Cancellation>() + one.id.len());
                let replaced = replaced
                    .iter()
                    .map(|(id, _)| size_of::<(String, UserId)>() + id.len());
                let scheduled = scheduled
                    .iter()
                    .map(|one| size_of::<Scheduled>() + one.id.len() + one.set.len());
                refused + names.chain(replaced).chain(scheduled).sum::<usize>()
            }
        };
        size_of::<Self>() + work
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(body: &str) -> Message<'_> {
        let set = Ok(body.as_bytes());
        let (body, message_id, trace) = (body.as_bytes(), None, None);
        let (source_token, sequence, stored_ms) = ("billing", 9, 1_000);
        let (is_requeued, is_due) = (false, false);
        Message {
            source_token,
            sequence,
            stored_ms,
            body,
            set,
            message_id,
            is_requeued,
            is_due,
            trace,
        }
    }

    fn parts(split: Split) -> SetParts {
        match split.of_set.expect("something is not for partitions").work {
            SetWork::Parts(parts) => parts,
            SetWork::Refuse { rejection, .. } => panic!("refused: {rejection}"),
        }
    }

    fn code(split: &Split) -> RejectCode {
        match &split.of_set.as_ref().expect("it is refused").work {
            SetWork::Refuse { rejection, .. } => rejection.code,
            SetWork::Parts(parts) => panic!("not refused as a whole: {parts:?}"),
        }
    }

    fn ids(slice: &Slice) -> Vec<&str> {
        slice
            .reminders
            .iter()
            .map(|published| published.reminder.id.as_str())
            .collect()
    }

    #[test]
    fn each_partition_takes_its_users_in_order() {
        let reminders: Vec<_> = (0..40)
            .map(|i| format!(r#"{{"id":"{i}","user":"u{}","content":"text {i}"}}"#, i % 5))
            .collect();
        let body = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
        let split = split(&message(&body), 4);
        assert!(
            split.of_set.is_none()
                && split.slices.len() > 1
                && split.slices.is_sorted_by_key(|slice| slice.0)
        );
        let mut all = 0;
        for (partition, slice) in &split.slices {
            assert!(
                slice.bytes
                    > slice
                        .reminders
                        .iter()
                        .map(|published| published.raw.len())
                        .sum()
            );
            for published in &slice.reminders {
                all += 1;
                assert_eq!(
                    crate::partition::of_user(&published.reminder.user, 4),
                    *partition
                );
                assert_eq!(published.reminder.id, published.place.to_string());
                assert_eq!(reminders[published.place].as_bytes(), published.raw);
            }
            assert!(
                slice
                    .reminders
                    .is_sorted_by_key(|published| published.place)
            );
        }
        assert_eq!(all, 40);
    }

    #[test]
    fn one_id_may_go_to_many_users() {
        let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"},{"id":"a","user":"v","content":"c"},
            {"id":"a","user":"u","content":"c"},{"id":"a","user":"u","content":"d"}]}"#;
        let split = split(&message(body), 1);
        assert_eq!(ids(&split.slices[0].1), ["a", "a"], "the same twice is one");
        let refused = parts(split).refused;
        assert_eq!(
            (refused.len(), refused[0].place, refused[0].rejection.code),
            (1, 3, RejectCode::DuplicateId)
        );
        assert!(!refused[0].has_outcome());
    }

    #[test]
    fn names_are_chosen_or_derived() {
        let of = |body: &str, message_id| {
            let message = Message {
                message_id,
                ..message(body)
            };
            let slice = split(&message, 1).slices.remove(0).1;
            slice.reminders[0]
                .name(&slice.common, message_id)
                .map(|name| format!("{name:?}"))
        };
        let unnamed = r#"{"reminders":[{"user":"u","content":"c"}]}"#;
        assert_eq!(of(unnamed, None), None, "it cannot come again");
        assert_eq!(of(unnamed, Some("m")).unwrap(), r#"InMessage("m", 0)"#);
        let named = r#"{"id":"s","reminders":[{"user":"u","content":"c"}]}"#;
        assert_eq!(of(named, Some("m")).unwrap(), r##"Id("s#0")"##);
        let chosen = r#"{"reminders":[{"id":"9#1","user":"u","content":"c"}]}"#;
        assert_eq!(of(chosen, Some("m")).unwrap(), r##"Id("9#1")"##);
    }

    #[test]
    fn refusals_schedules_and_cancellations_belong_to_the_set() {
        let later = r#""deliver_at":"2026-11-29T00:00:00Z""#;
        let past = r#""deliver_at":"1970-01-01T00:00:01Z""#;
        let body = format!(
            r#"{{"id":"s","cancel":["x","y"],"reminders":[{{"id":"a","user":"","content":"c"}},
            {{"id":"x","user":"u","content":"c",{later},"reroute":false,"merge":false}},{{"id":"z","user":"u","content":"c",{past}}}]}}"#
        );
        let split = super::split(&message(&body), 1);
        assert_eq!(ids(&split.slices[0].1), ["z"]);
        let SetParts {
            refused,
            cancel,
            replaced,
            scheduled,
            ..
        } = parts(split);
        assert_eq!(
            (refused[0].id.as_str(), refused[0].rejection.code),
            ("a", RejectCode::InvalidUser)
        );
        assert!(refused[0].has_outcome());
        assert_eq!(cancel, ["x", "y"].map(|id| id.to_owned().into()));
        let user: UserId = "u".parse().unwrap();
        assert_eq!(
            replaced,
            [
                ("x".to_owned(), user.clone()),
                ("z".to_owned(), user.clone())
            ]
        );
        assert_eq!((scheduled[0].id.as_str(), &scheduled[0].user), ("x", &user));
        let due = Message {
            is_due: true,
            stored_ms: 1_795_910_400_000,
            ..message("")
        };
        let due = Message {
            body: &scheduled[0].set,
            set: Ok(&scheduled[0].set),
            ..due
        };
        let due = super::split(&due, 1);
        let reminder = &due.slices[0].1.reminders[0].reminder;
        assert!(due.of_set.is_none() && reminder.stays && reminder.is_single);
    }

    #[test]
    fn cancelling_one_user_replaces_that_users_reminder() {
        let body = r#"{"cancel":[{"id":"x","user":"u"}],"reminders":[
            {"id":"x","user":"u","content":"c"},{"id":"x","user":"v","content":"c"}]}"#;
        let SetParts { replaced, .. } = parts(split(&message(body), 1));
        assert_eq!(replaced, [("x".to_owned(), "u".parse().unwrap())]);
    }

    #[test]
    fn set_is_refused_as_a_whole() {
        let refused = |message: &Message<'_>| code(&split(message, 4));
        assert_eq!(refused(&message("?")), RejectCode::NotJson);
        assert_eq!(
            refused(&message(r#"{"reminders":[]}"#)),
            RejectCode::NoReminders
        );
        assert_eq!(
            refused(&Message {
                source_token: "=",
                ..message("{}")
            }),
            RejectCode::InvalidSource
        );
        let event = Err(Rejection::new(RejectCode::InvalidCloudEvent, "no data"));
        assert_eq!(
            refused(&Message {
                set: event,
                ..message("{}")
            }),
            RejectCode::InvalidCloudEvent
        );
        let valid = r#"{"user":"u","content":"c"}"#;
        let wrong = |count: usize| format!(r#"{{"reminders":[{valid}{}]}}"#, ",{}".repeat(count));
        assert_eq!(parts(split(&message(&wrong(3)), 4)).refused.len(), 3);
        assert_eq!(refused(&message(&wrong(2_000))), RejectCode::TooManyRefused);
    }

    /// A reminder, mostly a wrong one.
    fn reminder() -> impl Strategy<Value = String> {
        let field = |name: &'static str, values: &'static [&'static str]| {
            prop::option::of(prop::sample::select(values))
                .prop_map(move |value| value.map(|v| format!("\"{name}\":{v}")))
        };
        let fields = (
            field("id", &["\"a\"", "\"b\"", "\"\"", "1"]),
            field("user", &["\"u\"", "\"v\"", "\"\""]),
            field("content", &["\"c\"", "\"d\"", "null"]),
            field(
                "deliver_at",
                &[
                    "\"2026-11-29T00:00:00Z\"",
                    "\"1970-01-01T00:00:00Z\"",
                    "\"x\"",
                ],
            ),
        );
        fields.prop_map(|(a, b, c, d)| {
            format!(
                "{{{}}}",
                [a, b, c, d]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(",")
            )
        })
    }

    proptest! {
        /// Nothing of a set is lost: each reminder goes one way, or is a copy of one that does.
        #[test]
        fn each_reminder_goes_one_way(reminders in prop::collection::vec(reminder(), 1..12), partitions in 1..5u16) {
            let body = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
            let split = split(&message(&body), partitions);
            let mut places: Vec<usize> = Vec::new();
            let slices = split.slices.iter().flat_map(|(_, slice)| &slice.reminders);
            places.extend(slices.map(|published| published.place));
            let later = match split.of_set.map(|of_set| of_set.work) {
                None => 0,
                Some(SetWork::Refuse { .. }) => return Ok(()),
                Some(SetWork::Parts(parts)) => {
                    places.extend(parts.refused.iter().map(|refused| refused.place));
                    parts.scheduled.len()
                }
            };
            places.sort_unstable();
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
            let copies = reminders.iter().enumerate().filter(|(at, one)| reminders[..*at].contains(one)).count();
            prop_assert!(places.len() + later <= reminders.len());
            prop_assert!(places.len() + later + copies >= reminders.len());
        }

        #[test]
        fn any_message_is_split(body in r#"([\[\]{}:,"a-z]|\PC|"(id|user|content|reminders|cancel)":){0,60}"#, token in "[a-z=.]{0,4}") {
            split(&Message { source_token: &token, ..message(&body) }, 3);
        }
    }
}
