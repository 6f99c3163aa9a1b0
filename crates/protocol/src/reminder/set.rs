//! Reads a published reminder set: what is wrong with the whole refuses the set, what is wrong with
//! one reminder refuses that reminder and leaves its neighbours alone.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::from_body;
use super::cancellation::Cancellation;
#[cfg(feature = "schema")]
use super::cancellation::RawCancellation;
use super::fields::Fields;
#[cfg(feature = "schema")]
use super::id::MAX_ID_BYTES;
use super::id::{default_id, id_error};
use super::raw::{Lacking, RawReminder, Text};
use super::readable::{self, Unreadable};
use super::reject::{RejectCode, Rejection};
use super::repeat::{MAX_RECURRING_ID_BYTES, RawRepeat, Repeat};
use super::{MAX_REMINDER_BYTES, Priority, Reminder, time};
use crate::json::from_object;
use crate::token::{Source, Tag, UserId};

/// The most reminders in one set, and the most that it cancels.
pub const MAX_REMINDERS: usize = 10_000;
/// The longest `title`, in bytes.
pub const MAX_TITLE_BYTES: usize = 1024;
/// The longest `content`, in bytes.
pub const MAX_CONTENT_BYTES: usize = 64 * 1024;
/// The most tags of one reminder.
pub const MAX_TAGS: usize = 16;
/// The latest `deliver_at`, 2262-01-01T00:00:00Z: nats-server counts nanoseconds in 64 bits, which
/// end in April of that year.
pub const LATEST_DELIVER_AT: Timestamp = Timestamp::constant(9_214_646_400, 0);

/// Returns the most bytes of a set's message, headers included, on a server with this
/// `max_payload`. JetStream refuses a larger one when it is published. A rejected set is stored
/// again with the reason in its headers, and 4 KiB are for these.
pub fn max_bytes(max_payload: usize) -> usize {
    max_payload.saturating_sub(4 << 10).min(64 << 20)
}

/// A set that is valid as a whole. Its reminders may not be.
#[derive(Debug)]
pub struct ReminderSet<'a> {
    /// Properties of all its reminders.
    pub common: Common,
    /// Reminders of earlier sets that are not to be delivered, if they are not due yet.
    pub cancel: Vec<Cancellation>,
    /// The reminders in the order of the set.
    pub reminders: Vec<Candidate<'a>>,
}

/// Properties of all reminders of a set.
#[derive(Debug, Clone)]
pub struct Common {
    /// The set's own name, or its stream sequence.
    pub id: Arc<str>,
    /// True if its publisher chose the id.
    pub is_named: bool,
    /// The due time of its reminders, if they have none of their own.
    pub deliver_at: Option<Timestamp>,
}

/// One reminder of a set: valid, or refused with its own bytes.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Its bytes as published.
    pub raw: &'a str,
    /// The reminder, or why it is refused.
    pub parsed: Result<Reminder, Refused>,
}

/// A reminder that is refused.
#[derive(Debug)]
pub struct Refused {
    /// Its id, or `<set id>#<index>`.
    pub id: String,
    /// Its user, where that is a name: outcomes and the history have room for names.
    pub user: Option<UserId>,
    /// The reason.
    pub rejection: Rejection,
}

impl Candidate<'_> {
    /// The reminder's id, or `<set id>#<index>`.
    pub fn id(&self) -> &str {
        match &self.parsed {
            Ok(reminder) => &reminder.id,
            Err(refused) => &refused.id,
        }
    }
}

/// The origin of a set: JetStream's data of its message.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The business system, from the subject.
    pub source: Source,
    /// The message's sequence in the stream of sets.
    pub sequence: u64,
    /// Time at which JetStream stored it.
    pub published_at: Timestamp,
}

impl Origin {
    /// Of a set that JetStream stored in this millisecond since 1970.
    pub fn new(source: Source, sequence: u64, stored_ms: i64) -> Self {
        let published_at = Timestamp::from_millisecond(stored_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            source,
            sequence,
            published_at,
        }
    }

    /// For a set that is checked before it is published, as the intake will have it. Sequence and
    /// time are as long as they can get: they count in a reminder's size.
    pub fn unpublished(source: &Source) -> Self {
        Self::new(source.clone(), u64::MAX, 1)
    }
}

/// A set as it is published: reminders, or ids of those that it cancels, or both.
#[derive(Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "ReminderSet")
)]
#[cfg_attr(feature = "schema", schemars(extend("anyOf" = [
    { "required": ["reminders"], "properties": { "reminders": { "description": "One at least.", "type": "array", "minItems": 1 } } },
    { "required": ["cancel"], "properties": { "cancel": { "description": "One at least.", "type": "array", "minItems": 1 } } },
])))]
pub struct RawSet<'a> {
    /// The set's own name, 1 to 256 bytes without control characters; else its sequence in its
    /// stream.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = crate::token::NO_CONTROL)))]
    id: Option<String>,
    /// The due time of its reminders, if they have none of their own.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Timestamp>"))]
    deliver_at: Option<String>,
    /// Scheduled reminders of its source that are not to be delivered, up to 10,000.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<RawCancellation>>", length(max = MAX_REMINDERS)))]
    cancel: Option<Vec<&'a RawValue>>,
    /// The reminders, 1 to 10,000. One that is wrong is refused alone.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<RawReminder<'a>>>", length(max = MAX_REMINDERS)))]
    reminders: Option<Vec<&'a RawValue>>,
}

/// A reminder that has fewer bytes when it is published is far from the limit when it is delivered.
pub(super) const SMALL_BYTES: usize = MAX_REMINDER_BYTES / 8;

/// Reads a set.
///
/// # Errors
/// The refusal of the set as a whole; nothing of it may go on then.
pub fn parse<'a>(origin: &Origin, body: &'a [u8]) -> Result<ReminderSet<'a>, Rejection> {
    let set: RawSet = from_body(body, RejectCode::InvalidSet)?;
    let is_named = set.id.is_some();
    let id = match set.id {
        Some(id) => checked_id(id, RejectCode::InvalidSetId)?,
        None => origin.sequence.to_string(),
    };
    let common = Common {
        id: id.into(),
        is_named,
        deliver_at: deliver_at(set.deliver_at.as_deref())?,
    };
    if set.reminders.is_none() && set.cancel.is_none() {
        return Err(Rejection::new(
            RejectCode::InvalidSet,
            "it has neither a list `reminders` nor a list `cancel`. If it is a CloudEvent: a whole one as the body has a \
             `specversion`; with its data as the body, it has the headers `ce-specversion`, `ce-id`, `ce-source` and `ce-type`",
        ));
    }
    let (reminders, cancel) = (
        set.reminders.unwrap_or_default(),
        set.cancel.unwrap_or_default(),
    );
    for (field, entries) in [("reminders", reminders.len()), ("cancel", cancel.len())] {
        if entries > MAX_REMINDERS {
            let detail =
                format!("`{field}` has {entries} entries; a set has 1 to 10,000, so split it");
            return Err(Rejection::new(RejectCode::TooManyReminders, detail));
        }
    }
    if reminders.is_empty() && cancel.is_empty() {
        return Err(Rejection::new(
            RejectCode::NoReminders,
            "`reminders` is empty; a set has 1 to 10,000",
        ));
    }
    let cancel = cancel.iter().enumerate().map(|(index, raw)| {
        Cancellation::read(raw.get()).map_err(|problem| {
            let detail = format!("`cancel[{index}]`: {problem}");
            Rejection::new(RejectCode::InvalidCancel, detail)
        })
    });
    let cancel = cancel.collect::<Result<_, _>>()?;
    let reminders = reminders.iter().enumerate().map(|(index, raw)| {
        let raw = raw.get();
        Candidate {
            raw,
            parsed: read(origin, &common, index, raw),
        }
    });
    Ok(ReminderSet {
        reminders: reminders.collect(),
        common,
        cancel,
    })
}

/// Reads one reminder of a set: the one at `index`.
///
/// # Errors
/// Why it is refused.
pub fn read(
    origin: &Origin,
    common: &Common,
    index: usize,
    text: &str,
) -> Result<Reminder, Refused> {
    let default_id = || default_id(&common.id, index);
    let mut raw: RawReminder<'_> = from_object(text).map_err(|error| {
        let fields = serde_json::from_str::<Fields<'_>>(text).ok();
        let readable = |name| fields.as_ref()?.text(name);
        Refused {
            id: readable("id")
                .filter(|id| id_error(id).is_none())
                .unwrap_or_else(default_id),
            user: readable("user").and_then(|user| user.parse().ok()),
            rejection: Rejection::new(RejectCode::InvalidReminder, error),
        }
    })?;
    let lacks_id = raw.repeat.is_some() && raw.id.is_none();
    let id = raw.id.take().map_or_else(
        || Ok(default_id()),
        |id| checked_id(id.into_owned(), RejectCode::InvalidId),
    );
    let user = raw.user.parse::<UserId>();
    let refused = |id, user: Option<UserId>, rejection| Refused {
        id,
        user,
        rejection,
    };
    let (id, user) = match (id, user) {
        (Err(rejection), user) => return Err(refused(default_id(), user.ok(), rejection)),
        (Ok(id), Err(error)) => {
            let rejection = Rejection::new(RejectCode::InvalidUser, format!("`user` {error}"));
            return Err(refused(id, None, rejection));
        }
        (Ok(id), Ok(user)) if lacks_id => {
            let detail = "`repeat` needs an `id`, by which it can be cancelled";
            let rejection = Rejection::new(RejectCode::InvalidRepeat, detail);
            return Err(refused(id, Some(user), rejection));
        }
        (Ok(id), Ok(user)) => (id, user),
    };
    let checked = match Checked::check(&mut raw, origin, common, &id) {
        Ok(checked) => checked,
        Err(rejection) => return Err(refused(id, Some(user), rejection)),
    };
    let (source, set) = (origin.source.clone(), common.id.clone());
    let content = raw.content.into_owned();
    let reminder = Reminder {
        title: raw.title.map(Cow::into_owned),
        tags: checked.tags,
        priority: checked.priority,
        deliver_at: checked.deliver_at,
        expires_at: checked.expires_at,
        data: raw.data.map(ToOwned::to_owned),
        stays: raw.reroute == Some(false),
        is_single: raw.merge == Some(false),
        repeat: checked.repeat,
        lacking: checked.lacking.filter(|_| text.len() < SMALL_BYTES),
        ..Reminder::new(id, source, set, user, content, origin.published_at)
    };
    // What is far below the limit need not be written to know it.
    let bytes = if text.len() < SMALL_BYTES {
        0
    } else {
        reminder.to_json().len()
    };
    if bytes > MAX_REMINDER_BYTES {
        let detail = format!(
            "the reminder as delivered has {bytes} bytes; at most {MAX_REMINDER_BYTES} fit"
        );
        let rejection = Rejection::new(RejectCode::ReminderTooLarge, detail);
        return Err(refused(reminder.id, Some(reminder.user), rejection));
    }
    Ok(reminder)
}

/// The fields of a reminder that are not texts.
struct Checked {
    tags: Vec<Tag>,
    priority: Priority,
    deliver_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    repeat: Option<Box<Repeat>>,
    lacking: Option<Lacking>,
}

impl Checked {
    /// Checks all fields but the names.
    fn check(
        raw: &mut RawReminder<'_>,
        origin: &Origin,
        common: &Common,
        id: &str,
    ) -> Result<Self, Rejection> {
        if let Some(title) = raw
            .title
            .as_ref()
            .filter(|title| title.len() > MAX_TITLE_BYTES)
        {
            let detail = format!(
                "`title` has {} bytes; at most {MAX_TITLE_BYTES} are allowed",
                title.len()
            );
            return Err(Rejection::new(RejectCode::InvalidTitle, detail));
        }
        if raw.content.is_empty() || raw.content.len() > MAX_CONTENT_BYTES {
            let detail = format!(
                "`content` has {} bytes; 1 to {MAX_CONTENT_BYTES} are allowed",
                raw.content.len()
            );
            return Err(Rejection::new(RejectCode::InvalidContent, detail));
        }
        let tags = raw.tags.take().unwrap_or_default();
        if tags.len() > MAX_TAGS {
            let detail = format!(
                "`tags` has {} entries; at most {MAX_TAGS} are allowed",
                tags.len()
            );
            return Err(Rejection::new(RejectCode::TooManyTags, detail));
        }
        let tag = |(index, Text(tag)): (usize, &Text<'_>)| {
            tag.parse::<Tag>()
                .map_err(|e| Rejection::new(RejectCode::InvalidTag, format!("`tags[{index}]` {e}")))
        };
        let tags = tags.iter().enumerate().map(tag).collect::<Result<_, _>>()?;
        let deliver_at = deliver_at(raw.deliver_at.as_deref())?.or(common.deliver_at);
        let repeat = repeat(raw.repeat.take(), id)?;
        let deliver_at = match &repeat {
            None => deliver_at,
            Some(repeat) => Some(first(repeat, origin.published_at, deliver_at)?),
        };
        let written = raw.expires_at.as_deref();
        let expires_at = expires_at(written)?;
        if let (Some(deliver_at), Some(expires_at)) = (deliver_at, expires_at)
            && deliver_at >= expires_at
        {
            let detail = format!(
                "`deliver_at` is {deliver_at}, and `expires_at` {expires_at}: it could never be delivered"
            );
            return Err(Rejection::new(RejectCode::InvalidDeliverAt, detail));
        }
        if let Some(data) = raw.data {
            let detail = |problem: Unreadable| {
                Rejection::new(RejectCode::InvalidData, format!("`data` {problem}"))
            };
            readable::check(data.get()).map_err(detail)?;
        }
        // A time that is written in another way is delivered in the usual one.
        let is_usual =
            || written.is_none_or(|written| expires_at.is_some_and(|at| at.to_string() == written));
        Ok(Self {
            tags,
            priority: raw
                .priority
                .as_deref()
                .map(priority)
                .transpose()?
                .unwrap_or_default(),
            lacking: raw.lacking.filter(|_| deliver_at.is_none() && is_usual()),
            deliver_at,
            expires_at,
            repeat: repeat.map(Box::new),
        })
    }
}

/// Reads when the reminder with this id repeats.
fn repeat(raw: Option<RawRepeat>, id: &str) -> Result<Option<Repeat>, Rejection> {
    let Some(raw) = raw else { return Ok(None) };
    let repeat = Repeat::read(raw).map_err(|problem| invalid_repeat(&problem))?;
    if id.len() > MAX_RECURRING_ID_BYTES {
        return Err(invalid_repeat(&format!(
            "the `id` has {} bytes; at most {MAX_RECURRING_ID_BYTES} are allowed with it",
            id.len()
        )));
    }
    Ok(Some(repeat))
}

/// Returns the first moment of a recurring reminder.
fn first(
    repeat: &Repeat,
    published_at: Timestamp,
    deliver_at: Option<Timestamp>,
) -> Result<Timestamp, Rejection> {
    let first = repeat.first(published_at, deliver_at);
    let first = first.filter(|at| *at <= LATEST_DELIVER_AT);
    first.ok_or_else(|| invalid_repeat("it has no moment within four years"))
}

fn invalid_repeat(problem: &str) -> Rejection {
    Rejection::new(RejectCode::InvalidRepeat, format!("`repeat`: {problem}"))
}

fn priority(text: &str) -> Result<Priority, Rejection> {
    Priority::named(text).ok_or_else(|| {
        let detail = format!("`priority` is `{text}`; it is one of low, normal, high, urgent");
        Rejection::new(RejectCode::InvalidPriority, detail)
    })
}

/// Reads an `expires_at`; none if it means "never".
fn expires_at(text: Option<&str>) -> Result<Option<Timestamp>, Rejection> {
    let Some(text) = text else { return Ok(None) };
    let refused = |problem: String| {
        let detail = format!("`expires_at` is `{text}`, {problem}");
        Rejection::new(RejectCode::InvalidExpiresAt, detail)
    };
    let at = time::read(text).map_err(|error| refused(error.to_string()))?;
    if at <= Timestamp::UNIX_EPOCH {
        let problem =
            "which programs write where no time is set; leave the field out, and it never expires";
        return Err(refused(problem.to_owned()));
    }
    Ok(Some(at).filter(|at| *at < time::NEVER))
}

/// Reads a `deliver_at`, which is a time that nats-server can hold a schedule for.
fn deliver_at(text: Option<&str>) -> Result<Option<Timestamp>, Rejection> {
    let Some(text) = text else { return Ok(None) };
    let refused = |problem: String| {
        let detail = format!("`deliver_at` is `{text}`{problem}");
        Rejection::new(RejectCode::InvalidDeliverAt, detail)
    };
    match time::read(text) {
        Ok(at) if at > LATEST_DELIVER_AT => Err(refused(format!(
            "; nats-server holds a reminder until {LATEST_DELIVER_AT} at the latest"
        ))),
        Ok(at) => Ok(Some(at)),
        Err(error) => Err(refused(format!(
            ", {error}; the latest is {LATEST_DELIVER_AT}"
        ))),
    }
}

fn checked_id(id: String, code: RejectCode) -> Result<String, Rejection> {
    match id_error(&id) {
        Some(detail) => Err(Rejection::new(code, detail)),
        None => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        let published_at = "2026-11-22T08:00:00Z".parse().unwrap();
        Origin {
            source: "billing".parse().unwrap(),
            sequence: 7,
            published_at,
        }
    }

    fn refused(body: &str) -> RejectCode {
        parse(&origin(), body.as_bytes()).unwrap_err().code
    }

    fn reminder_code(reminder: &str) -> Option<RejectCode> {
        let body = format!(r#"{{"reminders":[{reminder},{{"user":"neighbour","content":"c"}}]}}"#);
        let set = parse(&origin(), body.as_bytes()).unwrap();
        assert!(
            set.reminders[1].parsed.is_ok(),
            "a bad reminder leaves its neighbour alone"
        );
        set.reminders
            .into_iter()
            .next()
            .unwrap()
            .parsed
            .err()
            .map(|refused| refused.rejection.code)
    }

    #[test]
    fn a_set_is_refused_as_a_whole() {
        use RejectCode::*;
        assert_eq!(refused("not json"), NotJson);
        assert_eq!(refused(""), NotJson);
        assert_eq!(refused(r#"{"reminders":["#), NotJson);
        assert_eq!(refused(r#"{"reminders":[]} x"#), NotJson);
        assert_eq!(refused("[]"), InvalidSet);
        assert_eq!(refused("[null,[]]"), InvalidSet);
        assert_eq!(refused("[null"), NotJson);
        assert_eq!(refused("{}"), InvalidSet);
        assert_eq!(refused(r#"{"reminders":7}"#), InvalidSet);
        assert_eq!(refused(r#"{"id":7,"reminders":[{}]}"#), InvalidSet);
        assert_eq!(refused(r#"{"id":"","reminders":[{}]}"#), InvalidSetId);
        assert_eq!(
            refused(r#"{"deliver_at":"soon","reminders":[{}]}"#),
            InvalidDeliverAt
        );
        assert_eq!(refused(r#"{"cancel":["a",""]}"#), InvalidCancel);
        assert_eq!(refused(r#"{"cancel":["a",7]}"#), InvalidCancel);
        assert_eq!(refused(r#"{"cancel":[]}"#), NoReminders);
        assert_eq!(
            refused(&format!(r#"{{"cancel":{:?}}}"#, vec!["a"; 10_001])),
            TooManyReminders
        );
        assert_eq!(refused(r#"{"reminders":[]}"#), NoReminders);
        let many = |n| {
            format!(
                r#"{{"reminders":[{}]}}"#,
                vec![r#"{"user":"a","content":"c"}"#; n].join(",")
            )
        };
        assert_eq!(refused(&many(10_001)), TooManyReminders);
        assert_eq!(
            parse(&origin(), many(10_000).as_bytes())
                .unwrap()
                .reminders
                .len(),
            10_000
        );
        assert_eq!(parse(&origin(), b"\xff").unwrap_err().code, NotJson);
    }

    #[test]
    fn a_reminder_is_refused_alone() {
        use RejectCode::*;
        let long = "x".repeat(129);
        let cases = [
            ("7".to_owned(), InvalidReminder),
            (r#"[null,"a",null,"c",[],null,null,null,null,null,null]"#.into(), InvalidReminder),
            (r#"{"user":"a"}"#.into(), InvalidReminder),
            (r#"{"content":"c"}"#.into(), InvalidReminder),
            (r#"{"user":7,"content":"c"}"#.into(), InvalidReminder),
            (r#"{"user":"a","content":"c","reroute":"no"}"#.into(), InvalidReminder),
            (r#"{"user":"a","content":"c","merge":0}"#.into(), InvalidReminder),
            (format!(r#"{{"user":"{long}","content":"c"}}"#), InvalidUser),
            (r#"{"user":"","content":"c"}"#.into(), InvalidUser),
            (r#"{"user":"a\u0007","content":"c"}"#.into(), InvalidUser),
            (r#"{"user":"a","content":""}"#.into(), InvalidContent),
            (format!(r#"{{"user":"a","content":"{}"}}"#, "x".repeat(64 * 1024 + 1)), InvalidContent),
            (format!(r#"{{"user":"a","content":"c","title":"{}"}}"#, "x".repeat(1025)), InvalidTitle),
            (format!(r#"{{"user":"a","content":"c","tags":["{long}"]}}"#), InvalidTag),
            (format!(r#"{{"user":"a","content":"c","tags":{:?}}}"#, vec!["t"; 17]), TooManyTags),
            (r#"{"user":"a","content":"c","priority":"asap"}"#.into(), InvalidPriority),
            (r#"{"user":"a","content":"c","expires_at":"tomorrow"}"#.into(), InvalidExpiresAt),
            (r#"{"user":"a","content":"c","expires_at":"2030-01-01T00Z"}"#.into(), InvalidExpiresAt),
            (r#"{"user":"a","content":"c","expires_at":"0001-01-01T00:00:00Z"}"#.into(), InvalidExpiresAt),
            (r#"{"user":"a","content":"c","expires_at":"1970-01-01T00:00:00Z"}"#.into(), InvalidExpiresAt),
            (r#"{"user":"a","content":"c","deliver_at":"9999-12-31T23:59:59Z"}"#.into(), InvalidDeliverAt),
            (r#"{"user":"a","content":"c","deliver_at":"20300101T000000Z"}"#.into(), InvalidDeliverAt),
            (r#"{"user":"a","content":"c","deliver_at":"2026-11-29"}"#.into(), InvalidDeliverAt),
            (
                r#"{"user":"a","content":"c","deliver_at":"2026-11-29T00:00:00Z","expires_at":"2026-11-29T00:00:00Z"}"#
                    .into(),
                InvalidDeliverAt,
            ),
            (r#"{"user":"a","content":"c","id":""}"#.into(), InvalidId),
            (format!(r#"{{"user":"a","content":"c","data":"{}"}}"#, "x".repeat(256 * 1024)), ReminderTooLarge),
        ];
        for (reminder, code) in cases {
            assert_eq!(
                reminder_code(&reminder),
                Some(code),
                "{}",
                &reminder[..reminder.len().min(80)]
            );
        }
    }

    #[test]
    fn a_refused_reminder_keeps_its_names() {
        for wrong in [
            r#""content":"Invoice 981 paid \ud83d""#,
            r#""content":"c","title":"\ud83d""#,
            r#""content":7,"data":1e400"#,
            r#""content":"c","tags":[1e400]"#,
            r#""content":"c","more":"\ude00","priority":[]"#,
            r#""content":"c","content":"d""#,
            r#""\ud83d":1,"content":{"a":1e999}"#,
        ] {
            let body = format!(
                r#"{{"reminders":[{{{wrong},"id":"inv-981","user":"alice"}},{{"id":"inv-982","user":"bob","content":"fine"}}]}}"#
            );
            let set = parse(&origin(), body.as_bytes()).unwrap();
            let refused = set.reminders[0].parsed.as_ref().unwrap_err();
            assert_eq!(
                (refused.id.as_str(), refused.rejection.code),
                ("inv-981", RejectCode::InvalidReminder),
                "{wrong}"
            );
            assert_eq!(refused.user.as_ref().unwrap().as_str(), "alice", "{wrong}");
            assert_eq!(set.reminders[1].id(), "inv-982");
        }
    }

    #[test]
    fn refused_user_is_named_only_if_valid() {
        let named = |user: &str| {
            let body = format!(
                r#"{{"reminders":[{{"user":"{user}","content":""}},{{"user":"{user}"}}]}}"#
            );
            let set = parse(&origin(), body.as_bytes()).unwrap();
            let users = set
                .reminders
                .into_iter()
                .map(|one| one.parsed.unwrap_err().user.map(|user| user.to_string()));
            users.collect::<Vec<_>>()
        };
        assert_eq!(
            named("alice"),
            [Some("alice".to_owned()), Some("alice".to_owned())]
        );
        for wrong in ["", "a\\u0000b", &"x".repeat(129)] {
            assert_eq!(named(wrong), [None, None], "{wrong}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let detail = |body: &[u8]| parse(&origin(), body).unwrap_err().detail;
        assert!(detail(b"\xef\xbb\xbf{\"reminders\":[]}").contains("byte order mark"));
        assert!(detail(b"\xff\xfe{\0}\0").contains("UTF-16"));
        for body in [r#"{"user":"alice","content":"due"}"#, "{}"] {
            let detail = detail(body.as_bytes());
            assert!(
                detail.contains("`ce-id`") && detail.contains("`reminders`"),
                "{detail}"
            );
        }
    }

    #[test]
    fn allowed_values_pass() {
        let limit = "x".repeat(64 * 1024);
        for reminder in [
            r#"{"user":"a.b *>","content":"c","unknown":{"x":1}}"#.to_owned(),
            r#"{"user":"张三","content":"c","title":null,"tags":null,"priority":null,"expires_at":null,"data":null,"reroute":null,"merge":null}"#
                .into(),
            r#"{"user":"a","content":"c","expires_at":"2026-11-29T08:00:00+08:00"}"#.into(),
            format!(r#"{{"user":"a","content":"{limit}"}}"#),
        ] {
            assert_eq!(reminder_code(&reminder), None);
        }
    }

    #[test]
    fn the_end_of_9999_means_never() {
        let expiry = |text: &str| {
            let body = format!(r#"{{"user":"a","content":"c","expires_at":"{text}"}}"#);
            let common = Common {
                id: "s".into(),
                is_named: true,
                deliver_at: None,
            };
            read(&origin(), &common, 0, &body).unwrap().expires_at
        };
        assert_eq!(expiry("9999-12-31T23:59:59Z"), None);
        assert_eq!(expiry("9999-12-31T23:59:59.9999999Z"), None);
        assert!(expiry("9998-12-31T23:59:59Z").is_some());
    }

    #[test]
    fn deliver_at_is_the_reminders_or_the_sets() {
        let body = br#"{"deliver_at":"2026-12-01T08:00:00Z","cancel":["x"],
            "reminders":[{"user":"a","content":"c"},{"user":"a","content":"d","deliver_at":"2026-12-02T09:00:00+01:00"}]}"#;
        let set = parse(&origin(), body).unwrap();
        assert_eq!(set.cancel, [String::from("x").into()]);
        let due = |at: usize| {
            set.reminders[at]
                .parsed
                .as_ref()
                .unwrap()
                .deliver_at
                .unwrap()
                .to_string()
        };
        assert_eq!(
            (due(0), due(1)),
            (
                "2026-12-01T08:00:00Z".to_owned(),
                "2026-12-02T08:00:00Z".to_owned()
            )
        );
        assert_eq!(
            parse(&origin(), br#"{"cancel":["x"]}"#)
                .unwrap()
                .reminders
                .len(),
            0
        );
    }

    #[test]
    fn defaults_and_data_are_the_contracts() {
        let body = br#"{"reminders":[{"user":"alice","content":"hi","data":{"b": 1.50,  "a":[]},"reroute":false,"merge":false}]}"#;
        let set = parse(&origin(), body).unwrap();
        assert_eq!(&*set.common.id, "7");
        let reminder = set.reminders[0].parsed.as_ref().unwrap();
        assert!(reminder.stays && reminder.is_single);
        let json = reminder.to_json();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"id":"7#0","source":"billing","set":"7","user":"alice","content":"hi","tags":[],"priority":"normal","published_at":"2026-11-22T08:00:00Z","data":{"b": 1.50,  "a":[]}}"#
        );
    }
}
