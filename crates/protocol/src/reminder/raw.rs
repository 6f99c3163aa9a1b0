//! A reminder as it is published, read without copying its texts.
//!
//! Most reminders can be forwarded as they came. [`Lacking`] says which, and what is added to them.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

#[cfg(feature = "schema")]
use super::Priority;
use super::Reminder;
#[cfg(feature = "schema")]
use super::id::MAX_ID_BYTES;
use super::repeat::RawRepeat;
#[cfg(feature = "schema")]
use super::set::{MAX_CONTENT_BYTES, MAX_TAGS, MAX_TITLE_BYTES};
use crate::token::Source;
#[cfg(feature = "schema")]
use crate::token::{Tag, UserId};

/// A reminder as it is published.
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "PublishedReminder")
)]
pub struct RawReminder<'a> {
    /// Unique within the source, 1 to 256 bytes without control characters; else `<set
    /// id>#<index>`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = crate::token::NO_CONTROL)))]
    pub(super) id: Option<Cow<'a, str>>,
    /// The user for whom it is published.
    #[cfg_attr(feature = "schema", schemars(with = "UserId"))]
    pub(super) user: Cow<'a, str>,
    /// A short headline, up to 1 KiB.
    #[cfg_attr(feature = "schema", schemars(length(max = MAX_TITLE_BYTES)))]
    pub(super) title: Option<Cow<'a, str>>,
    /// The text, 1 byte to 64 KiB.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_CONTENT_BYTES)))]
    pub(super) content: Cow<'a, str>,
    /// They select the rules; up to 16.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Tag>>", length(max = MAX_TAGS)))]
    pub(super) tags: Option<Vec<Text<'a>>>,
    /// Its urgency; default: `normal`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Priority>"))]
    pub(super) priority: Option<Cow<'a, str>>,
    /// Not delivered before this.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Timestamp>"))]
    pub(super) deliver_at: Option<Cow<'a, str>>,
    /// Not delivered after this.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Timestamp>"))]
    pub(super) expires_at: Option<Cow<'a, str>>,
    /// The pattern of its recurrence. Each occurrence is a reminder of its own.
    pub(super) repeat: Option<RawRepeat>,
    /// `false`: only the user may get it; else `true`.
    pub(super) reroute: Option<bool>,
    /// `false`: it is not merged with its duplicates; else `true`.
    pub(super) merge: Option<bool>,
    /// Any JSON that common readers can hold, delivered byte for byte: at most 64 levels, numbers
    /// of up to 300 characters that fit into a double, whole characters.
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    pub(super) data: Option<&'a RawValue>,
    /// The fields that its bytes lack; none if they cannot be forwarded as they are, because they
    /// have a field that app servers do not receive, one that is `null`, or one whose name has
    /// escapes.
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub(super) lacking: Option<Lacking>,
}

/// A text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The fields that the published bytes of a reminder lack and that each delivered one has, beside
/// what its set knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    pub(super) id: bool,
    pub(super) tags: bool,
    pub(super) priority: bool,
}

impl Reminder {
    /// Returns the reminder's finished JSON. `published` are its bytes as they were published,
    /// which are forwarded if nothing about them changes; `of_set` is what [`of_set`] returns.
    pub fn finish(&self, published: &[u8], of_set: &[u8]) -> Vec<u8> {
        let Some(lacking) = self.lacking else {
            return self.to_json();
        };
        let added = of_set.len() + self.id.len() + LACKING_BYTES;
        let mut json = Vec::with_capacity(published.len() + added);
        json.extend_from_slice(published.strip_suffix(b"}").unwrap_or(published));
        json.push(b',');
        json.extend_from_slice(of_set);
        if lacking.id {
            json.extend_from_slice(br#","id":"#);
            serde_json::to_writer(&mut json, &self.id).expect("a text is JSON");
        }
        if lacking.tags {
            json.extend_from_slice(br#","tags":[]"#);
        }
        if lacking.priority {
            json.extend_from_slice(br#","priority":"normal""#);
        }
        json.push(b'}');
        json
    }
}

/// Bytes of all that may be lacking, beside the id, mostly.
const LACKING_BYTES: usize = 64;

/// Returns the fields that each delivered reminder of a set has, as they are added to its published
/// bytes.
pub fn of_set(source: &Source, set: &str, published_at: Timestamp) -> Vec<u8> {
    let mut json = Vec::with_capacity(OF_SET_BYTES + source.as_str().len() + set.len());
    json.extend_from_slice(br#""source":"#);
    serde_json::to_writer(&mut json, source.as_str()).expect("a text is JSON");
    json.extend_from_slice(br#","set":"#);
    serde_json::to_writer(&mut json, set).expect("a text is JSON");
    json.extend_from_slice(br#","published_at":"#);
    serde_json::to_writer(&mut json, &published_at).expect("a time is JSON");
    json
}

/// Bytes of these fields beside both names, mostly.
const OF_SET_BYTES: usize = 80;

impl<'de> Deserialize<'de> for RawReminder<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReminderVisitor)
    }
}

struct ReminderVisitor;

impl<'de> Visitor<'de> for ReminderVisitor {
    type Value = RawReminder<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reminder")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut id, mut user, mut title, mut content) = (None, None, None, None);
        let (mut tags, mut priority, mut deliver_at, mut expires_at) = (None, None, None, None);
        let (mut repeat, mut reroute, mut merge, mut data) = (None, None, None, None);
        let mut is_plain = true;
        while let Some(Text(name)) = map.next_key()? {
            is_plain &= matches!(name, Cow::Borrowed(_));
            match &*name {
                "id" => is_plain &= once(&mut id, "id", &mut map)?,
                "user" => once_always(&mut user, "user", &mut map)?,
                "title" => is_plain &= once(&mut title, "title", &mut map)?,
                "content" => once_always(&mut content, "content", &mut map)?,
                "tags" => is_plain &= once(&mut tags, "tags", &mut map)?,
                "priority" => is_plain &= once(&mut priority, "priority", &mut map)?,
                "expires_at" => is_plain &= once(&mut expires_at, "expires_at", &mut map)?,
                "data" => is_plain &= once(&mut data, "data", &mut map)?,
                other => {
                    is_plain = false;
                    match other {
                        "deliver_at" => once(&mut deliver_at, "deliver_at", &mut map).map(drop)?,
                        "repeat" => once(&mut repeat, "repeat", &mut map).map(drop)?,
                        "reroute" => once(&mut reroute, "reroute", &mut map).map(drop)?,
                        "merge" => once(&mut merge, "merge", &mut map).map(drop)?,
                        _ => map.next_value::<IgnoredAny>().map(drop)?,
                    }
                }
            }
        }
        let lacking = is_plain.then_some(Lacking {
            id: id.is_none(),
            tags: tags.is_none(),
            priority: priority.is_none(),
        });
        let text = |text: Option<Option<Text<'de>>>| text.flatten().map(|Text(text)| text);
        let Text(user) = user.ok_or_else(|| A::Error::missing_field("user"))?;
        let Text(content) = content.ok_or_else(|| A::Error::missing_field("content"))?;
        Ok(RawReminder {
            id: text(id),
            user,
            title: text(title),
            content,
            tags: tags.flatten(),
            priority: text(priority),
            deliver_at: text(deliver_at),
            expires_at: text(expires_at),
            repeat: repeat.flatten(),
            reroute: reroute.flatten(),
            merge: merge.flatten(),
            data: data.flatten(),
            lacking,
        })
    }
}

/// Reads a field that stands there for the first time. Returns true if it is not `null`.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<Option<T>>,
    name: &'static str,
    map: &mut A,
) -> Result<bool, A::Error> {
    once_always(slot, name, map)?;
    Ok(matches!(slot, Some(Some(_))))
}

/// Reads a field that stands there for the first time.
fn once_always<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *slot = Some(map.next_value()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::fields::Fields;
    use super::super::set::{self, Common, Origin};
    use super::*;

    fn origin() -> Origin {
        Origin::new("bil\"ling".parse().unwrap(), 7, 1_795_910_400_123)
    }

    fn common() -> Common {
        Common {
            id: "s\"1".into(),
            is_named: true,
            deliver_at: None,
        }
    }

    fn read(json: &str) -> Option<Reminder> {
        set::read(&origin(), &common(), 3, json).ok()
    }

    fn finish(json: &str) -> String {
        let Origin {
            source,
            published_at,
            ..
        } = origin();
        let added = of_set(&source, &common().id, published_at);
        let finished = read(json).unwrap().finish(json.as_bytes(), &added);
        String::from_utf8(finished).unwrap()
    }

    fn is_forwarded(json: &str) -> bool {
        read(json).unwrap().lacking.is_some()
    }

    #[test]
    fn plain_reminder_is_forwarded_with_what_it_lacks() {
        assert_eq!(
            finish(r#"{"user":"a","data":{"b": 1.50},  "content":"\u4e00"}"#),
            r##"{"user":"a","data":{"b": 1.50},  "content":"\u4e00","source":"bil\"ling","set":"s\"1","published_at":"2026-11-29T00:00:00.123Z","id":"s\"1#3","tags":[],"priority":"normal"}"##
        );
    }

    #[test]
    fn changed_reminder_is_rewritten() {
        for field in [
            r#""unknown":1"#,
            r#""for":"b""#,
            r#""parked_at":"2026-11-29T00:00:00Z""#,
            r#""merged":[]"#,
            r#""source":"b""#,
            r#""title":null"#,
            r#""tags":null"#,
            r#""data":null"#,
            r#""id":null"#,
            r#""priority":null"#,
            r#""expires_at":null"#,
            r#""t\u0069tle":"t""#,
            r#""reroute":true"#,
            r#""merge":true"#,
            r#""deliver_at":"2026-11-30T00:00:00Z""#,
            r#""expires_at":"2030-01-01T00:00:00.0Z""#,
            r#""expires_at":"2030-01-01T01:00:00+01:00""#,
            r#""expires_at":"9999-12-31T23:59:59Z""#,
        ] {
            let json = format!(r#"{{"user":"a","content":"c",{field}}}"#);
            assert!(!is_forwarded(&json), "{field}");
            let written = read(&json).unwrap().to_json();
            assert_eq!(finish(&json).as_bytes(), written, "{field}");
        }
        let expiring = r#"{"user":"a","content":"c","expires_at":"2030-01-01T00:00:00Z"}"#;
        assert!(is_forwarded(expiring));
        assert!(!is_forwarded(r#"{"us\u0065r":"a","content":"c"}"#));
    }

    #[test]
    fn long_reminder_is_rewritten() {
        let spaces = " ".repeat(set::SMALL_BYTES);
        let json = format!(r#"{{"user":"a",{spaces}"content":"c"}}"#);
        assert!(!is_forwarded(&json));
    }

    /// A field of a reminder, as it may be or not.
    fn field() -> impl Strategy<Value = String> {
        const NAMES: &[&str] = &[
            "id",
            "title",
            "tags",
            "priority",
            "expires_at",
            "data",
            "deliver_at",
            "reroute",
            "merge",
            "repeat",
            "for",
            "source",
            "published_at",
            "count",
            "t\\u0069tle",
        ];
        const VALUES: &[&str] = &[
            "null",
            "true",
            "1.50",
            "[]",
            r#"["a","b"]"#,
            r#"["\u0061"]"#,
            r#"{"a": [1e3, {"a":1,"a":2}]}"#,
            r#""high""#,
            r#""n\u006frmal""#,
            r#""2030-01-01T00:00:00Z""#,
            r#""2030-01-01T00:00:00.500Z""#,
            r#""2030-01-01t00:00:00+00:00""#,
            r#""9999-12-31T00:00:00Z""#,
            r#""\/\n""#,
        ];
        let text = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        let value = prop::sample::select(VALUES).prop_map(ToOwned::to_owned);
        let value = prop_oneof![text, value];
        (prop::sample::select(NAMES), "[ \n]{0,2}", value)
            .prop_map(|(name, space, value)| format!("\"{name}\":{space}{value}"))
    }

    proptest! {
        /// Forwarded or rewritten, app servers read the same.
        #[test]
        fn finished_reminder_reads_as_a_rewritten_one(
            mut fields in prop::collection::vec(field(), 0..4),
            user in any::<char>(),
            content in any::<String>(),
        ) {
            let json = |text: &str| serde_json::to_string(text).unwrap();
            fields.insert(fields.len() / 2, format!("\"user\":{}", json(&user.to_string())));
            fields.push(format!("\"content\" : {}", json(&content)));
            let published = format!("{{{}}}", fields.join(","));
            if let Some(reminder) = read(&published) {
                let (finished, written) = (finish(&published), reminder.to_json());
                let written = std::str::from_utf8(&written).unwrap();
                let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
                prop_assert_eq!(value(&finished), value(written));
                // No name stands twice, and data is the same byte for byte.
                let fields = |json| serde_json::from_str::<Fields<'_>>(json).unwrap();
                let (finished, written) = (fields(&finished), fields(written));
                prop_assert_eq!(finished.0.len(), written.0.len());
                let data = |fields: &Fields<'_>| fields.get("data").map(|data| data.get().to_owned());
                prop_assert_eq!(data(&finished), data(&written));
            }
        }
    }
}
