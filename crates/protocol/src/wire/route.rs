//! Routes: which app-server instance holds which user's connection, as a key and a value of their
//! bucket.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reminder::finished::to_the_millisecond;
use crate::token::{InstanceName, NameError, UserId};

/// The reason why an entry of the bucket is not a route.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The key has not two tokens.
    #[error("the key is not `<user>.<instance>`")]
    Key,
    /// A token is not a name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The value is not the contract's.
    #[error("the value is neither empty nor JSON with a `subject`: {0}")]
    Value(#[from] serde_json::Error),
    /// The subject cannot be published to, or is not for this app server.
    #[error(
        "{} is not a subject that this app server can have: {MAX_SUBJECT_BYTES} bytes at most, no wildcard, beginning with \
         neither `$` nor `_`, and none of Bellhop's own but that of the key's instance",
        shown(.0)
    )]
    Subject(String),
}

/// Bytes of a subject that a route names: with what requests add to it, any server takes it for a
/// subject.
pub const MAX_SUBJECT_BYTES: usize = 256;

/// Characters of a wrong subject that are shown.
const MAX_SHOWN_CHARS: usize = 100;

/// Quotes the beginning of a wrong subject: it may have line breaks, and be of any length.
fn shown(subject: &str) -> String {
    let beginning: String = subject.chars().take(MAX_SHOWN_CHARS).collect();
    let rest = if beginning.len() < subject.len() {
        format!("… ({} bytes)", subject.len())
    } else {
        String::new()
    };
    format!("{beginning:?}{rest}")
}

/// The pattern of an app server's subject, in the schema of routes.
#[cfg(feature = "schema")]
const SUBJECT: &str = r"^(?![$_])(?![*>](\.|$))[^.\s\x00-\x1f\x7f-\x9f]+(\.(?![*>](\.|$))[^.\s\x00-\x1f\x7f-\x9f]+)*$";

/// The value of a route. It may be empty, too.
#[derive(Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Route")
)]
pub struct Value {
    /// The beginning of the instance's subjects, of at most 256 bytes; default:
    /// `bellhop.app.<instance>`. It begins with neither `$` nor `_`, and with `bellhop.` only if it
    /// is `bellhop.app.<instance>`.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = SUBJECT)))]
    subject: Option<String>,
}

#[derive(Serialize)]
struct NewValue<'a> {
    subject: &'a str,
    since: Timestamp,
}

/// The key of a user's route to an instance.
pub fn key(user: &UserId, instance: &InstanceName) -> String {
    format!("{}.{}", user.escaped(), instance.escaped())
}

/// The value of a route that begins now.
pub fn value(subject: &str, now: Timestamp) -> String {
    let value = NewValue {
        subject,
        since: to_the_millisecond(now),
    };
    serde_json::to_string(&value).expect("a route is text")
}

/// Returns the user and the instance of a route's key.
///
/// # Errors
/// Says what is wrong with the key.
pub fn read_key(key: &str) -> Result<(UserId, InstanceName), RouteError> {
    let (user, instance) = key.split_once('.').ok_or(RouteError::Key)?;
    Ok((
        UserId::from_token(user)?,
        InstanceName::from_token(instance)?,
    ))
}

/// Returns the beginning of an instance's subjects, if its route's value contains it. An empty
/// value leaves it to the default.
///
/// # Errors
/// Says what is wrong with the value.
pub fn read_subject(value: &[u8]) -> Result<Option<String>, RouteError> {
    let subject = match value {
        b"" => None,
        json => super::object::<Value>(json)?.subject,
    };
    match subject {
        Some(subject) if !is_for_app_servers(&subject) => Err(RouteError::Subject(subject)),
        subject => Ok(subject),
    }
}

/// `$JS`, `$KV`, `$SYS`: a route must not turn Bellhop's own permissions against the server.
fn is_for_app_servers(subject: &str) -> bool {
    let is_literal = subject.split('.').all(|token| {
        !token.is_empty()
            && token != "*"
            && token != ">"
            && !token.contains(|c: char| c.is_whitespace() || c.is_control())
    });
    is_literal && !subject.starts_with(['$', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_a_subject_or_default() {
        let read = |value: &str| read_subject(value.as_bytes());
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read(r#"{"since":"2026-11-22T00:00:00Z"}"#).unwrap(), None);
        assert_eq!(
            read(r#"{"subject":"eu.app.7"}"#).unwrap().as_deref(),
            Some("eu.app.7")
        );
        for value in ["yes", "[]", r#"["eu.app.7"]"#] {
            assert!(matches!(read(value), Err(RouteError::Value(_))), "{value}");
        }
        for subject in [
            "",
            "a..b",
            "a.*",
            ">",
            "$JS.API.STREAM.DELETE.X",
            "_INBOX.x",
            "a b",
            "a.\u{7}",
        ] {
            let value = serde_json::json!({ "subject": subject }).to_string();
            assert!(
                matches!(read(&value), Err(RouteError::Subject(_))),
                "{subject}"
            );
        }
    }

    #[test]
    fn written_routes_are_read_back() {
        let (user, instance) = ("a.b".parse().unwrap(), "张三".parse().unwrap());
        assert_eq!(read_key(&key(&user, &instance)).unwrap(), (user, instance));
        let value = value("eu.app.7", "2026-11-22T00:00:00.0004Z".parse().unwrap());
        assert_eq!(
            value,
            r#"{"subject":"eu.app.7","since":"2026-11-22T00:00:00Z"}"#
        );
        assert_eq!(
            read_subject(value.as_bytes()).unwrap().as_deref(),
            Some("eu.app.7")
        );
    }

    #[test]
    fn keys_have_two_names() {
        assert_eq!(
            read_key("a=2Eb.app-1").unwrap(),
            ("a.b".parse().unwrap(), "app-1".parse().unwrap())
        );
        for key in ["alice", "a.b.c", "=zz.app", ".app", "alice."] {
            assert!(read_key(key).is_err(), "{key}");
        }
    }
}
