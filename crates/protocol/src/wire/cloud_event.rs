//! Published messages, which are sets, or [CloudEvents](https://cloudevents.io) that carry one, in
//! the two modes of the NATS binding: *structured*, where the body is the whole event in JSON, and
//! *binary*, where headers `ce-…` are the event's attributes and the body is its data.
//! `Content-Type` says that a message is structured; Go's SDK sends none, so the body counts, too.
//!
//! An event is turned into the set that it stands for, so that nothing further in knows of events.
//! Its `source` and `id` name the set and, by that, its reminders: an event that comes again is
//! known as a repeat.

use std::borrow::Cow;
use std::fmt::Display;

use base64::prelude::{BASE64_STANDARD, Engine};
use memchr::memmem;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::reminder::body::from_body;
use crate::reminder::fields::Fields;
use crate::reminder::id::id_error;
use crate::reminder::reject::{RejectCode, Rejection};
use crate::trace::{self, TraceParent};

/// The `Content-Type` of an event in JSON.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The beginning of the attributes' header names, in binary mode.
pub const PREFIX: &str = "ce-";

/// The version of CloudEvents that is known here.
pub const VERSION: &str = "1.0";

/// The attributes that every event has. A message with the header of any of them is an event in
/// binary mode.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// The lists of which a set has at least one.
const SET_LISTS: [&str; 2] = ["reminders", "cancel"];

/// A published message.
#[derive(Debug)]
pub struct Published<'m> {
    /// The JSON of the set that it holds, which may not be one; or what is wrong with the event
    /// that should hold it.
    pub set: Result<Cow<'m, [u8]>, Rejection>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

impl<'m> Published<'m> {
    /// Reads a message, by its headers, which are looked up without regard to case, and its body.
    pub fn read(header: impl Fn(&str) -> Option<&'m str>, body: &'m [u8]) -> Self {
        let header_trace = header(trace::HEADER).and_then(|text| text.parse().ok());
        let media_type = header("content-type").map(media_type).unwrap_or_default();
        let event = if media_type.starts_with("application/cloudevents") {
            Event::structured(&media_type, body)
        } else if REQUIRED
            .iter()
            .any(|name| attribute_header(&header, name).is_some())
        {
            Event::binary(&header, body)
        } else if is_event(body) {
            Event::structured(STRUCTURED, body)
        } else {
            return Self {
                set: Ok(body.into()),
                trace: header_trace,
            };
        };
        match event {
            Ok(event) => {
                let trace = header_trace.or_else(|| event.traceparent.as_ref()?.parse().ok());
                Self {
                    set: event.set(),
                    trace,
                }
            }
            Err(rejection) => Self {
                set: Err(rejection),
                trace: header_trace,
            },
        }
    }
}

/// Returns true for a header that marks its message as an event, or is an attribute of one.
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
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [
    { "required": ["data"], "properties": { "data": true } },
    { "required": ["data_base64"], "properties": { "data_base64": true } },
])))]
pub struct Structured<'a> {
    /// The version of CloudEvents.
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    specversion: String,
    /// The event's own name, unique within its `source`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1), regex(pattern = crate::token::NO_CONTROL)))]
    id: String,
    /// The event's source: a URI. `source`, a space, and `id` have up to 256 bytes together.
    #[cfg_attr(feature = "schema", schemars(length(min = 1), regex(pattern = NO_SPACE)))]
    source: String,
    /// The event's type. It may be any.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    r#type: String,
    /// The media type of the data: a JSON type.
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

/// The pattern of a URI, as far as Bellhop checks it.
#[cfg(feature = "schema")]
const NO_SPACE: &str = r"^[^\s\x00-\x1f\x7f-\x9f]*$";

/// The pattern of JSON media types.
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
        let event: Structured<'m> = from_body(body, RejectCode::InvalidCloudEvent)?;
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
        let optional = |name: &str| attribute_header(header, name).map(attribute);
        let required = |name: &str| {
            attribute_header(header, name)
                .ok_or_else(|| refusal(format!("header `{PREFIX}{name}` is missing")))
        };
        let [specversion, id, source, r#type] = REQUIRED.map(required);
        let (specversion, r#type) = (attribute(specversion?), attribute(r#type?));
        let (id, source) = (in_name(id?, false), in_name(source?, true));
        let content_type =
            optional("datacontenttype").or_else(|| header("content-type").map(ToOwned::to_owned));
        check(
            [&specversion, &id, &source, &r#type],
            content_type.as_deref(),
        )?;
        Ok(Self {
            id,
            source,
            traceparent: optional("traceparent"),
            data: body.into(),
        })
    }

    /// The set that it stands for: its data under the event's name, unless it has one, or a set of
    /// the reminder that its data is.
    fn set(self) -> Result<Cow<'m, [u8]>, Rejection> {
        // The reader of the set refuses a body that is neither a set nor a reminder.
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(&self.data) else {
            return Ok(self.data);
        };
        let is_set = SET_LISTS.iter().any(|name| fields.get(name).is_some());
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

/// Returns true if a body without headers of events is an event, as Go's SDK sends them over NATS:
/// it has a `specversion`, and none of a set's lists.
fn is_event(body: &[u8]) -> bool {
    // Hardly a set has this word in it, so hardly one is read for this.
    memmem::find(body, br#""specversion""#).is_some()
        && serde_json::from_slice::<Fields<'_>>(body).is_ok_and(|fields| {
            let has = |name: &&str| fields.get(name).is_some();
            has(&"specversion") && !SET_LISTS.iter().any(has)
        })
}

/// A media type without its parameters.
fn media_type(text: &str) -> String {
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// The characters that the binding wants encoded, beside all that are not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Returns a value percent-encoded as the binding says.
fn encoded(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ENCODED).into()
}

/// Returns the value of `ce-id`, or of `ce-source`, as it stands in the set's id. Different values
/// never become the same: some SDKs encode, others send `50%25` for an event of that very id.
///
/// A value that is encoded as the binding says is decoded, unless that leaves a `%` or what no
/// attribute has. Any other value with a `%` stays as it is. Nothing that was decoded has a `%` or
/// begins with a quotation mark, so a value that should have been encoded goes into these.
fn in_name(value: &str, is_source: bool) -> String {
    let is_attribute = |text: &str| {
        let is_uri = !is_source || !text.contains(char::is_whitespace);
        is_uri && !text.contains(char::is_control)
    };
    let decoded = percent_decode_str(value).decode_utf8().ok().filter(|text| {
        encoded(text) == value
            && !text.contains('%')
            && !text.starts_with('"')
            && is_attribute(text)
    });
    match decoded {
        Some(text) => text.into_owned(),
        None if value.contains('%') => value.to_owned(),
        None => format!("\"{value}\""),
    }
}

fn attribute_header<'m>(header: &impl Fn(&str) -> Option<&'m str>, name: &str) -> Option<&'m str> {
    header(&format!("{PREFIX}{name}"))
}

/// Returns an attribute that is not a part of a name, from its header: percent-encoded, and in
/// quotes by an older rule of the binding.
fn attribute(value: &str) -> String {
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    percent_decode_str(quoted.unwrap_or(value))
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn other_messages_are_plain_sets() {
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
    fn event_id_names_an_unnamed_set() {
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

    /// The name of the set of an event in binary mode.
    fn name(source: &str, id: &str) -> String {
        let set = set(
            &with(&[("ce-source", source), ("ce-id", id)]),
            r#"{"reminders":[]}"#,
        );
        let set: serde_json::Value = serde_json::from_str(&set).unwrap();
        set["id"].as_str().unwrap().to_owned()
    }

    #[test]
    fn encoded_values_are_decoded_and_others_stay() {
        for (source, id, expected) in [
            ("/billing", "981", "/billing 981"),
            ("urn:%C3%A9", "a%20%E2%82%AC", "urn:é a €"),
            // Go's SDK encodes nothing, so these may be meant as they are.
            ("/invoices/May%202026", "982", "/invoices/May%202026 982"),
            ("/billing", "50%", "/billing 50%"),
            ("/billing", "50%25", "/billing 50%25"),
            ("/billing", "%C0%A0", "/billing %C0%A0"),
            ("/billing", "a%00", "/billing a%00"),
            ("/billing", "%2Fa", "/billing %2Fa"),
            ("/billing", "a €", "/billing \"a €\""),
            ("/billing", "\"a\"", "/billing \"\"a\"\""),
        ] {
            assert_eq!(name(source, id), expected);
        }
    }

    #[test]
    fn attributes_that_name_nothing_may_be_in_quotes() {
        let headers = with(&[
            ("ce-specversion", "\"1.0\""),
            ("ce-type", "100%FF"),
            ("ce-datacontenttype", "application%2Fjson"),
        ]);
        assert_eq!(
            set(&headers, r#"{"cancel":[]}"#),
            r#"{"id":"/billing/invoices 981","cancel":[]}"#
        );
    }

    #[test]
    fn event_without_headers_is_recognized_by_body() {
        let event = r#"{ "data": {"reminders":[]}, "source": "/b", "specversion": "1.0", "id": "1", "type": "t" }"#;
        for headers in [
            &[][..],
            &[("Content-Type", "application/json"), ("ce-time", "now")],
        ] {
            assert_eq!(set(headers, event), r#"{"id":"/b 1","reminders":[]}"#);
            let without = event.replace("\"id\": \"1\", ", "");
            let rejection = read(headers, &without).set.unwrap_err();
            assert_eq!(rejection.code, RejectCode::InvalidCloudEvent);
            assert!(rejection.detail.contains("`id`"), "{rejection}");
        }
        for other in [
            r#"{"specversion":"1.0","reminders":[]}"#,
            r#"{"specversion":"1.0","cancel":["a"]}"#,
            r#"{"reminders":[{"user":"a","content":"c","data":{"specversion":"1.0"}}]}"#,
            r#"{"user":"a","content":"\"specversion\""}"#,
            r#"{"specversion":"1.0","#,
            r#"["specversion"]"#,
        ] {
            assert_eq!(set(&[], other), other);
        }
    }

    proptest! {
        #[test]
        fn two_header_values_never_make_one_name(one in value(), other in value()) {
            prop_assume!(one != other);
            prop_assert_ne!(in_name(&one, false), in_name(&other, false));
            prop_assert_ne!(in_name(&one, true), in_name(&other, true));
        }

        #[test]
        fn encoded_attributes_are_decoded(text in r"[a-c/:=é€ ]{1,8}") {
            prop_assert_eq!(in_name(&encoded(&text), false), text);
        }
    }

    /// Values near to each other under percent-encoding.
    fn value() -> impl Strategy<Value = String> {
        let pieces = [
            "%", "25", "%20", " ", "a", "%61", "é", "%C3%A9", "%c3%a9", "\"", "%22",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 1..5)
            .prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn trace_header_precedes_event_attribute() {
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
    fn invalid_event_is_explained() {
        let code = |headers: &[(&str, &str)], body: &str| read(headers, body).set.unwrap_err();
        let long = "x".repeat(253);
        for (header, part) in [
            (("ce-specversion", "0.3"), "`0.3`"),
            (("ce-id", ""), "`id`"),
            (("ce-type", "\"\""), "`type`"),
            (("ce-source", "a b"), "`source`"),
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
