//! Published messages, which are sets, or [CloudEvents](https://cloudevents.io) that carry one, in the two modes of the NATS
//! binding: *structured*, where `Content-Type` says that the body is the whole event in JSON, and *binary*, where headers `ce-…`
//! are the event's attributes and the body is its data.
//!
//! An event is turned into the set that it stands for, so that nothing further in knows of events. Its `source` and `id` name the
//! set and, by that, its reminders: an event that comes again is known as a repeat.

use std::borrow::Cow;
use std::fmt::Display;

use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::reminder::fields::Fields;
use crate::reminder::reject::{RejectCode, Rejection};
use crate::reminder::set::{from_object, id_error};
use crate::trace::{self, TraceParent};

/// The `Content-Type` of an event in JSON.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// What the headers of attributes begin with, in binary mode.
pub const PREFIX: &str = "ce-";

/// The version of CloudEvents that is known here.
pub const VERSION: &str = "1.0";

/// The attributes that every event has. A message with the header of any of them is an event in binary mode.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// A published message.
#[derive(Debug)]
pub struct Published<'m> {
    /// The JSON of the set that it holds, which may not be one; or what is wrong with the event that should hold it.
    pub set: Result<Cow<'m, [u8]>, Rejection>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

impl<'m> Published<'m> {
    /// Reads a message, by its headers, which are looked up without regard to case, and its body.
    pub fn read(header: impl Fn(&str) -> Option<&'m str>, body: &'m [u8]) -> Self {
        let told = header(trace::HEADER).and_then(|text| text.parse().ok());
        let media_type = header("content-type").map(media_type).unwrap_or_default();
        let event = if media_type.starts_with("application/cloudevents") {
            Event::structured(&media_type, body)
        } else if REQUIRED
            .iter()
            .any(|name| attribute_header(&header, name).is_some())
        {
            Event::binary(&header, body)
        } else {
            return Self {
                set: Ok(body.into()),
                trace: told,
            };
        };
        match event {
            Ok(event) => {
                let trace = told.or_else(|| event.traceparent.as_ref()?.parse().ok());
                Self {
                    set: event.set(),
                    trace,
                }
            }
            Err(rejection) => Self {
                set: Err(rejection),
                trace: told,
            },
        }
    }
}

/// Whether a header tells that its message is an event, or something of it.
pub fn is_about_events(header: &str) -> bool {
    let is_attribute = header
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    is_attribute || header.eq_ignore_ascii_case("content-type")
}

/// An event in JSON, as far as it matters here: other attributes are ignored.
#[derive(Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "CloudEvent")
)]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["data"]}, {"required": ["data_base64"]}])))]
pub struct Structured<'a> {
    /// The version of CloudEvents.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    specversion: String,
    /// The event's own name, unique within its `source`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1), regex(pattern = crate::token::NO_CONTROL)))]
    id: String,
    /// Where it comes from: a URI. `source`, a space, and `id` have up to 256 bytes together.
    #[cfg_attr(feature = "schema", schemars(length(min = 1), regex(pattern = NO_SPACE)))]
    source: String,
    /// What kind of event it is. It may be any.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    r#type: String,
    /// What the data is: some JSON.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = JSON_TYPE)))]
    datacontenttype: Option<String>,
    /// The trace that it belongs to, where no header says it.
    traceparent: Option<String>,
    /// A set, or one reminder.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    data: Option<&'a RawValue>,
    /// The same in base64.
    data_base64: Option<String>,
}

/// What a URI matches, as far as it is looked at.
#[cfg(feature = "schema")]
const NO_SPACE: &str = r"^[^\s\x00-\x1f\x7f-\x9f]*$";

/// What the media types of JSON match.
#[cfg(feature = "schema")]
const JSON_TYPE: &str = r"^\s*[^/;]+/([^;]*\+)?[jJ][sS][oO][nN]\s*(;|$)";

struct Event<'m> {
    id: String,
    source: String,
    traceparent: Option<String>,
    data: Cow<'m, [u8]>,
}

impl<'m> Event<'m> {
    fn structured(media_type: &str, body: &'m [u8]) -> Result<Self, Rejection> {
        if ![STRUCTURED, "application/cloudevents"].contains(&media_type) {
            let detail = format!(
                "`Content-Type` is `{media_type}`; a message holds one event in {STRUCTURED}"
            );
            return Err(refusal(detail));
        }
        let text = std::str::from_utf8(body)
            .map_err(|error| Rejection::new(RejectCode::NotJson, error))?;
        let event: Structured<'m> = from_object(text).map_err(|error| {
            let code = if error.is_data() {
                RejectCode::InvalidCloudEvent
            } else {
                RejectCode::NotJson
            };
            Rejection::new(code, error)
        })?;
        let data = match (event.data, event.data_base64) {
            (Some(data), None) => data.get().as_bytes().into(),
            (None, Some(text)) => {
                let bytes = BASE64_STANDARD.decode(text);
                bytes
                    .map_err(|error| refusal(format!("`data_base64` is not base64: {error}")))?
                    .into()
            }
            (None, None) => return Err(refusal("`data` is missing; it is a set or a reminder")),
            (Some(_), Some(_)) => return Err(refusal("it has both `data` and `data_base64`")),
        };
        let Structured {
            specversion,
            id,
            source,
            r#type,
            datacontenttype,
            traceparent,
            ..
        } = event;
        check(
            [&specversion, &id, &source, &r#type],
            datacontenttype.as_deref(),
        )?;
        Ok(Self {
            id,
            source,
            traceparent,
            data,
        })
    }

    fn binary(
        header: &impl Fn(&str) -> Option<&'m str>,
        body: &'m [u8],
    ) -> Result<Self, Rejection> {
        let optional = |name: &str| {
            attribute_header(header, name)
                .map(|value| attribute(name, value))
                .transpose()
        };
        let required = |name: &str| {
            optional(name)?.ok_or_else(|| refusal(format!("header `{PREFIX}{name}` is missing")))
        };
        let [specversion, id, source, r#type] = REQUIRED.map(required);
        let (id, source) = (id?, source?);
        let content_type =
            optional("datacontenttype")?.or_else(|| header("content-type").map(ToOwned::to_owned));
        check(
            [&specversion?, &id, &source, &r#type?],
            content_type.as_deref(),
        )?;
        Ok(Self {
            id,
            source,
            traceparent: optional("traceparent")?,
            data: body.into(),
        })
    }

    /// The set that it stands for: its data under the event's name, unless it has one, or a set of the reminder that its data is.
    fn set(self) -> Result<Cow<'m, [u8]>, Rejection> {
        // What is neither a set nor a reminder is refused by whoever reads the set.
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(&self.data) else {
            return Ok(self.data);
        };
        let is_set = ["reminders", "cancel"]
            .iter()
            .any(|name| fields.get(name).is_some());
        if is_set && fields.get("id").is_some() {
            return Ok(self.data);
        }
        // A source has no white space in it, so two events never have the same name.
        let name = format!("{} {}", self.source, self.id);
        if let Some(problem) = id_error(&name) {
            return Err(refusal(format!(
                "`source`, a space, and `id` are the set's id, and {problem}"
            )));
        }
        let rest = if is_set {
            let others = fields
                .without_null("id")
                .map(|(name, value)| format!("{}:{}", name.get(), value.get()));
            others.collect::<Vec<_>>().join(",")
        } else {
            format!(r#""reminders":[{}]"#, String::from_utf8_lossy(&self.data))
        };
        Ok(format!(r#"{{"id":{},{rest}}}"#, json!(name))
            .into_bytes()
            .into())
    }
}

fn refusal(detail: impl Display) -> Rejection {
    Rejection::new(RejectCode::InvalidCloudEvent, detail)
}

/// Looks at the required attributes, in the order of [`REQUIRED`], and at what the data is.
fn check(required: [&str; 4], content_type: Option<&str>) -> Result<(), Rejection> {
    if let Some((name, _)) = REQUIRED
        .iter()
        .zip(required)
        .find(|(_, value)| value.is_empty())
    {
        return Err(refusal(format!("`{name}` is empty")));
    }
    let [version, _, source, _] = required;
    if version != VERSION {
        return Err(refusal(format!(
            "`specversion` is `{version}`; {VERSION} is the one that is known here"
        )));
    }
    if source.contains(char::is_whitespace) {
        return Err(refusal(format!(
            "`source` is `{source}`; a URI has no white space"
        )));
    }
    let is_json = |subtype: &str| subtype == "json" || subtype.ends_with("+json");
    match content_type.map(media_type) {
        Some(found)
            if !found
                .split_once('/')
                .is_some_and(|(_, subtype)| is_json(subtype)) =>
        {
            Err(refusal(format!(
                "`datacontenttype` is `{found}`; reminders are JSON"
            )))
        }
        _ => Ok(()),
    }
}

/// A media type without its parameters.
fn media_type(text: &str) -> String {
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn attribute_header<'m>(header: &impl Fn(&str) -> Option<&'m str>, name: &str) -> Option<&'m str> {
    header(&format!("{PREFIX}{name}"))
}

/// An attribute from its header: in quotes by an older rule of the binding, and percent-encoded.
fn attribute(name: &str, value: &str) -> Result<String, Rejection> {
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let value = quoted.map_or(Cow::Borrowed(value), |quoted| unescaped(quoted).into());
    let decoded = percent_decode_str(&value).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|error| refusal(format!("header `{PREFIX}{name}` is not UTF-8: {error}")))
}

/// Text in quotes, where a backslash stands before what is meant as it is.
fn unescaped(quoted: &str) -> String {
    let mut characters = quoted.chars();
    std::iter::from_fn(|| match characters.next()? {
        '\\' => characters.next(),
        other => Some(other),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const BINARY: [(&str, &str); 4] = [
        ("ce-specversion", "1.0"),
        ("Ce-Id", "981"),
        ("CE-SOURCE", "/billing/invoices"),
        ("ce-type", "invoice.due"),
    ];

    fn read<'m>(headers: &[(&str, &'m str)], body: &'m str) -> Published<'m> {
        let header = |name: &str| {
            headers
                .iter()
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, v)| *v)
        };
        Published::read(header, body.as_bytes())
    }

    fn set(headers: &[(&str, &str)], body: &str) -> String {
        String::from_utf8(read(headers, body).set.unwrap().into_owned()).unwrap()
    }

    fn with<'h>(more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
        let kept = BINARY
            .into_iter()
            .filter(|(name, _)| !more.iter().any(|(new, _)| new.eq_ignore_ascii_case(name)));
        kept.chain(more.iter().copied()).collect()
    }

    #[test]
    fn what_does_not_say_that_it_is_an_event_is_a_set_as_it_stands() {
        for headers in [
            &[][..],
            &[
                ("Content-Type", "application/json"),
                ("ce-time", "now"),
                ("traceparent", "x"),
            ],
        ] {
            assert_eq!(set(headers, "anything at all"), "anything at all");
        }
    }

    #[test]
    fn an_event_names_its_set_unless_the_set_has_a_name() {
        let structured = |data: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"981","source":"/billing/invoices","type":"t","subject":null,"x":1,"data":{data}}}"#
            )
        };
        let named = |list: &str| format!(r#"{{"id":"/billing/invoices 981","reminders":{list}}}"#);
        let reminder = r#"{"id":"a","user":"u","data":{"n": 1.50}}"#;
        for (data, expected) in [
            (reminder.to_owned(), named(&format!("[{reminder}]"))),
            (
                r#"{"id":null,"reminders":[{ }, 7]}"#.to_owned(),
                named("[{ }, 7]"),
            ),
            (
                r#"{"deliver_at":"t", "id": null, "cancel":["a"],"x":{"id":null}}"#.to_owned(),
                r#"{"id":"/billing/invoices 981","deliver_at":"t","cancel":["a"],"x":{"id":null}}"#
                    .to_owned(),
            ),
            (
                r#"{"id":"own","cancel":["a"]}"#.to_owned(),
                r#"{"id":"own","cancel":["a"]}"#.to_owned(),
            ),
            (
                r#"{"id":"own","reminders":[]}"#.to_owned(),
                r#"{"id":"own","reminders":[]}"#.to_owned(),
            ),
            (
                r#"{"id":7,"reminders":[]}"#.to_owned(),
                r#"{"id":7,"reminders":[]}"#.to_owned(),
            ),
            ("[1]".to_owned(), "[1]".to_owned()),
            (r#""text""#.to_owned(), r#""text""#.to_owned()),
        ] {
            assert_eq!(set(&BINARY, &data), expected);
            for media_type in [STRUCTURED, "Application/CloudEvents; charset=UTF-8"] {
                assert_eq!(
                    set(
                        &[("content-type", media_type), ("ce-id", "x")],
                        &structured(&data)
                    ),
                    expected
                );
            }
        }
        assert_eq!(set(&BINARY, "no JSON"), "no JSON");
        let encoded = structured("null").replace(
            r#""data":null"#,
            r#""data_base64":"eyJyZW1pbmRlcnMiOltdfQ==""#,
        );
        assert_eq!(set(&[("Content-Type", STRUCTURED)], &encoded), named("[]"));
    }

    #[test]
    fn headers_are_unquoted_and_percent_decoded() {
        let headers = with(&[
            ("ce-id", r#""a \"b\" \\%E2%82%ac""#),
            ("ce-source", "urn:%C3%a9"),
        ]);
        assert_eq!(
            set(&headers, r#"{"reminders":[]}"#),
            r#"{"id":"urn:é a \"b\" \\€","reminders":[]}"#
        );
    }

    #[test]
    fn the_trace_is_the_messages_or_else_the_events() {
        let other = TRACE.replace("b7ad", "0000");
        let trace = |headers: &[(&str, &str)]| read(headers, "{}").trace.map(String::from);
        assert_eq!(
            trace(&with(&[("ce-traceparent", TRACE)])).as_deref(),
            Some(TRACE)
        );
        assert_eq!(
            trace(&with(&[("ce-traceparent", TRACE), ("Traceparent", &other)])),
            Some(other)
        );
        assert_eq!(trace(&[("traceparent", TRACE)]).as_deref(), Some(TRACE));
        assert_eq!(trace(&BINARY), None);
        let event = format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","traceparent":"{TRACE}","data":{{}}}}"#
        );
        assert_eq!(
            read(&[("Content-Type", STRUCTURED)], &event)
                .trace
                .map(String::from)
                .as_deref(),
            Some(TRACE)
        );
    }

    #[test]
    fn what_is_wrong_with_an_event_is_told() {
        let code = |headers: &[(&str, &str)], body: &str| read(headers, body).set.unwrap_err();
        let long = "x".repeat(253);
        for (header, part) in [
            (("ce-specversion", "0.3"), "`0.3`"),
            (("ce-id", ""), "`id`"),
            (("ce-type", "\"\""), "`type`"),
            (("ce-source", "a%20b"), "`source`"),
            (("ce-id", "%C0%A0"), "UTF-8"),
            (("ce-id", "a%00"), "control character"),
            (("ce-source", &long), "bytes"),
            (("ce-datacontenttype", "text/plain"), "text/plain"),
            (("content-type", "application/jsonp"), "application/jsonp"),
            (
                ("content-type", "application/cloudevents-batch+json"),
                "one event",
            ),
        ] {
            let rejection = code(&with(&[header]), "{}");
            assert_eq!(rejection.code, RejectCode::InvalidCloudEvent, "{header:?}");
            assert!(rejection.detail.contains(part), "{header:?}: {rejection}");
        }
        for missing in 0..BINARY.len() {
            let mut headers = BINARY.to_vec();
            let (name, _) = headers.remove(missing);
            assert!(
                code(&headers, "{}")
                    .detail
                    .contains(&name.to_ascii_lowercase()),
                "{name}"
            );
        }
        let structured = |body: &str| code(&[("Content-Type", STRUCTURED)], body).code;
        let event = |more: &str| {
            format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{more}}}"#)
        };
        for body in [
            event(""),
            event(r#","data":null"#),
            event(r#","data":{},"data_base64":"e30=""#),
            event(r#","data_base64":"?""#),
            event(r#","data":"<x/>","datacontenttype":"application/xml""#),
            event("").replace("\"1\"", "1"),
            "[]".to_owned(),
            "{}".to_owned(),
        ] {
            assert_eq!(structured(&body), RejectCode::InvalidCloudEvent, "{body}");
        }
        assert_eq!(structured("{"), RejectCode::NotJson);
    }
}
