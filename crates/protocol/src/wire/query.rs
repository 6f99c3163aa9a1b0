//! Request bodies of queries, checked field by field, so that an error names the invalid field.

use std::fmt::{self, Display};
use std::str::FromStr;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::reminder::id::id_error;
use crate::reminder::outcome;
use crate::reminder::time;
use crate::token::{Source, Tag, UserId};

/// Reminders in an answer, unless the query says how many.
pub const DEFAULT_LIMIT: usize = 100;
/// Reminders in an answer, at most.
pub const MAX_LIMIT: usize = 1_000;
/// Bytes of a text to search for.
pub const MAX_CONTAINS_BYTES: usize = 1_024;

/// A query for reminders. All that is said must hold; nothing said asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// The user for whom they were published.
    pub user: Option<String>,
    /// Their business system.
    pub source: Option<String>,
    /// Their id.
    pub id: Option<String>,
    /// One of their tags.
    pub tag: Option<String>,
    /// Their latest outcome.
    pub outcome: Option<String>,
    /// Published in this millisecond or later.
    pub from_ms: Option<i64>,
    /// Published before this millisecond.
    pub to_ms: Option<i64>,
    /// In their title or content, without regard to case. Nothing is in every text.
    pub contains: Option<String>,
    /// Maximum number of reminders.
    pub limit: usize,
    /// Only those after this place: the `next` of an earlier page.
    pub before: Option<Cursor>,
}

/// A place between two reminders of a history, by the number of the one before it. It stays right
/// while others come and go. Text to its bearer, who must not look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub i64);

/// The reason why a text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of an earlier answer")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{:016x}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('b').ok_or(CursorError)?;
        let is_lower_hex = digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != 16 || !is_lower_hex {
            return Err(CursorError);
        }
        i64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| CursorError)
    }
}

/// The reason why a request cannot be answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The body is not JSON object.
    #[error("the request is not a JSON object: {0}")]
    NotAnObject(String),
    /// A field that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field is not what it must be.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The problem of the field.
        problem: String,
    },
}

/// The fields of a request. Unknown ones are ignored.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(body: &[u8]) -> Result<Self, QueryError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|error| QueryError::NotAnObject(error.to_string()))
    }

    /// A field, if it is there and not `null`.
    fn take<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<Option<T>, QueryError> {
        let value = self.0.remove(field).filter(|value| !value.is_null());
        value
            .map(read)
            .transpose()
            .map_err(|problem| QueryError::Invalid { field, problem })
    }

    fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, QueryError> {
        self.take(field, |value| {
            text(value)?
                .parse()
                .map_err(|error: T::Err| error.to_string())
        })
    }

    fn needed<T>(field: &'static str, found: Option<T>) -> Result<T, QueryError> {
        found.ok_or(QueryError::Missing(field))
    }

    fn user(&mut self) -> Result<Option<UserId>, QueryError> {
        self.parsed("user")
    }

    fn source(&mut self) -> Result<Option<Source>, QueryError> {
        self.parsed("source")
    }

    fn id(&mut self) -> Result<Option<String>, QueryError> {
        self.take("id", |value| {
            let id = text(value)?;
            id_error(&id).map_or(Ok(id), Err)
        })
    }

    fn time(&mut self, name: &'static str) -> Result<Option<Timestamp>, QueryError> {
        self.take(name, |value| {
            let text = text(value)?;
            time::read(&text).map_err(|error| format!("it is `{text}`, {error}"))
        })
    }

    fn limit(&mut self) -> Result<usize, QueryError> {
        let limit = self.take("limit", |value| {
            let number = value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok());
            let limit = number.filter(|limit| (1..=MAX_LIMIT).contains(limit));
            limit.ok_or(format!(
                "it is {value}; a number from 1 to {MAX_LIMIT} is right"
            ))
        })?;
        Ok(limit.unwrap_or(DEFAULT_LIMIT))
    }
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("it is {other}; text is right")),
    }
}

fn sized(text: String, most: usize) -> Result<String, String> {
    match text.len() {
        bytes if (1..=most).contains(&bytes) => Ok(text),
        bytes => Err(format!("it has {bytes} bytes; 1 to {most} are right")),
    }
}

/// Reads what `history` is asked.
///
/// # Errors
/// Names the field that is wrong.
pub fn history(body: &[u8]) -> Result<Query, QueryError> {
    let mut fields = Fields::read(body)?;
    let query = Query {
        user: fields.user()?.map(|user| user.to_string()),
        source: fields.source()?.map(|source| source.to_string()),
        id: fields.id()?,
        tag: fields.parsed::<Tag>("tag")?.map(|tag| tag.to_string()),
        outcome: fields.take("outcome", |value| {
            let name = text(value)?;
            let is_one = outcome::NAMES.contains(&name.as_str());
            is_one
                .then_some(name)
                .ok_or(format!("one of {} is right", outcome::NAMES.join(", ")))
        })?,
        from_ms: fields.time("from")?.map(first_ms_from),
        to_ms: fields.time("to")?.map(first_ms_from),
        contains: fields.take("contains", |value| sized(text(value)?, MAX_CONTAINS_BYTES))?,
        limit: fields.limit()?,
        before: fields.parsed::<Cursor>("cursor")?,
    };
    match (query.from_ms, query.to_ms) {
        (Some(from), Some(to)) if from > to => Err(QueryError::Invalid {
            field: "to",
            problem: "it is before `from`".to_owned(),
        }),
        _ => Ok(query),
    }
}

/// The first millisecond that is not before this time: what is published has whole ones.
fn first_ms_from(time: Timestamp) -> i64 {
    let ms = time.as_millisecond();
    let is_whole = Timestamp::from_millisecond(ms).is_ok_and(|whole| whole >= time);
    if is_whole { ms } else { ms + 1 }
}

/// Reads which reminder `why` is asked about. Without a user it is that of any user.
///
/// # Errors
/// Names the field that is wrong or missing.
pub fn why(body: &[u8]) -> Result<(Source, String, Option<UserId>), QueryError> {
    let mut fields = Fields::read(body)?;
    Ok((
        Fields::needed("source", fields.source()?)?,
        Fields::needed("id", fields.id()?)?,
        fields.user()?,
    ))
}

/// Reads whose mailbox `mailbox` is asked about, and how much of it.
///
/// # Errors
/// Names the field that is wrong or missing.
pub fn mailbox(body: &[u8]) -> Result<(UserId, usize), QueryError> {
    let mut fields = Fields::read(body)?;
    Ok((Fields::needed("user", fields.user()?)?, fields.limit()?))
}

/// Reads whom `erase` is to erase.
///
/// # Errors
/// Names the field that is wrong or missing.
pub fn erase(body: &[u8]) -> Result<UserId, QueryError> {
    Fields::needed("user", Fields::read(body)?.user()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_everything() {
        for body in ["", " ", "{}", r#"{"user":null,"unknown":[1]}"#] {
            assert_eq!(
                history(body.as_bytes()),
                Ok(Query {
                    limit: DEFAULT_LIMIT,
                    ..Query::default()
                }),
                "{body}"
            );
        }
    }

    #[test]
    fn filters_combine() {
        let cursor: Cursor = "b0000000000000007".parse().unwrap();
        let query = history(
            r#"{"user":"张三","source":"billing","id":"inv-1","tag":"due","outcome":"parked","from":"2026-11-22T08:00:00.0004Z",
                "to":"2026-11-22T09:00:01+01:00","contains":"费用","limit":1000,"cursor":"b0000000000000007"}"#
                .as_bytes(),
        );
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap().as_millisecond());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            query,
            Ok(Query {
                user: text("张三"),
                source: text("billing"),
                id: text("inv-1"),
                tag: text("due"),
                outcome: text("parked"),
                from_ms: at("2026-11-22T08:00:00.001Z"),
                to_ms: at("2026-11-22T08:00:01Z"),
                contains: text("费用"),
                limit: 1_000,
                before: Some(cursor),
            })
        );
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |body: &str| history(body.as_bytes()).unwrap_err().to_string();
        for (body, field) in [
            (r#"{"user":""}"#, "`user`"),
            (r#"{"user":7}"#, "`user`"),
            (r#"{"source":["a"]}"#, "`source`"),
            (r#"{"id":""}"#, "`id`"),
            (r#"{"id":"a\u0000"}"#, "`id`"),
            (r#"{"tag":"a\nb"}"#, "`tag`"),
            (r#"{"outcome":"lost"}"#, "`outcome`"),
            (r#"{"from":"yesterday"}"#, "`from`"),
            (r#"{"to":1}"#, "`to`"),
            (
                r#"{"from":"2026-11-22T08:00:00Z","to":"2026-11-21T08:00:00Z"}"#,
                "`to`",
            ),
            (r#"{"contains":""}"#, "`contains`"),
            (r#"{"limit":0}"#, "`limit`"),
            (r#"{"limit":1001}"#, "`limit`"),
            (r#"{"limit":"5"}"#, "`limit`"),
            (r#"{"limit":-1}"#, "`limit`"),
            (r#"{"cursor":"x"}"#, "`cursor`"),
            ("[]", "JSON object"),
            ("{", "JSON object"),
        ] {
            let error = wrong(body);
            assert!(error.contains(field), "{body}: {error}");
        }
        assert_eq!(why(br#"{"source":"a"}"#), Err(QueryError::Missing("id")));
        assert_eq!(mailbox(b""), Err(QueryError::Missing("user")));
        assert_eq!(erase(br#"{"user":null}"#), Err(QueryError::Missing("user")));
    }

    #[test]
    fn only_valid_cursors_are_read() {
        for number in [0, 1, 1 << 62, i64::MAX] {
            assert_eq!(Cursor(number).to_string().parse(), Ok(Cursor(number)));
        }
        for wrong in [
            "",
            "b",
            "b1",
            "x0000000000000001",
            "b8000000000000000",
            "b+00000000000000A",
            "b000000000000000A",
        ] {
            assert_eq!(wrong.parse::<Cursor>(), Err(CursorError), "{wrong}");
        }
    }
}
