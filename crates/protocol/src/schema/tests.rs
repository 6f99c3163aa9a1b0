//! The documents are up to date, the page's examples are right, and no schema says other than the
//! reader of its body.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::*;
use crate::names::Names;
use crate::reminder::outcome::Outcome;
use crate::reminder::{finished, reject::RejectCode, set};
use crate::wire::cloud_event::{self, Published};
use crate::wire::{answer, query};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/asyncapi.json");

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

fn schema(name: &str) -> Value {
    Body::named(name).unwrap().schema().to_value()
}

#[test]
fn the_docs_have_the_document_of_the_types() {
    let document = pretty(&asyncapi::document(&Names::new("bellhop")));
    if std::env::var_os("BELLHOP_BLESS").is_some() {
        std::fs::write(FILE, &document).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        written == document,
        "{FILE} is out of date; write it again: BELLHOP_BLESS=1 cargo test --lib schema"
    );
}

#[test]
fn page_examples_match_their_schemas() {
    let mut seen = BTreeSet::new();
    for (name, text) in examples::all() {
        let body = Body::named(name).unwrap_or_else(|| panic!("unknown schema `{name}`: {text}"));
        let example: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let problems: Vec<_> = validator(&body.schema().to_value())
            .iter_errors(&example)
            .map(|error| error.to_string())
            .collect();
        assert_eq!(problems, Vec::<String>::new(), "{name}: {text}");
        seen.insert(name);
    }
    let all: BTreeSet<_> = BODIES.iter().map(|body| body.name).collect();
    assert_eq!(seen, all, "each body has an example");
}

/// Values of all kinds, right and wrong for whatever field they stand in.
fn oddities() -> Vec<Value> {
    let long = |bytes| Value::from("x".repeat(bytes));
    let texts = [
        "",
        "alice",
        "high",
        "asap",
        "delivered",
        "a\u{7}",
        "a\u{85}b",
        "a b",
        "张三",
        "1.0",
        "application/json",
    ];
    let times = [
        "2026-11-22T08:00:00Z",
        "2026-11-22T08:00:00.5+01:00",
        "2026-13-01T00:00:00Z",
        "tomorrow",
    ];
    let subjects = [
        "bellhop.app.x",
        "$JS.x",
        "_INBOX.x",
        "a..b",
        "a.*",
        ">",
        "a.b*",
        "*a",
        "a.",
        "eyJyZW1pbmRlcnMiOltdfQ==",
    ];
    let texts = texts
        .into_iter()
        .chain(times)
        .chain(subjects)
        .map(Value::from);
    let lists = [
        json!([]),
        json!(["alice"]),
        json!([""]),
        json!([7]),
        json!([null]),
        json!([{}]),
        json!([["bob"]]),
        json!(vec!["t"; 16]),
        json!(vec!["t"; 17]),
    ];
    let sizes = [128, 129, 256, 257, 1_024, 1_025].map(long);
    let numbers = [
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(1_000),
        json!(1_001),
    ];
    let others = [
        Value::Null,
        json!(true),
        json!(false),
        json!({}),
        json!({ "user": "alice", "content": "c" }),
    ];
    texts
        .chain(lists)
        .chain(sizes)
        .chain(numbers)
        .chain(others)
        .collect()
}

/// Puts every odd value into every field that the schema knows of a right body, and takes every
/// field away: the schema must let through what the reader takes, and nothing else.
fn agree(name: &str, right: &Value, read: impl Fn(&str) -> bool) {
    let schema = schema(name);
    let validator = validator(&schema);
    let compare = |body: Value| {
        let text = body.to_string();
        assert_eq!(validator.is_valid(&body), read(&text), "{name}: {text}");
    };
    let fields = schema["properties"].as_object().unwrap();
    compare(right.clone());
    assert!(read(&right.to_string()), "{name}");
    for field in fields
        .keys()
        .map(String::as_str)
        .chain(["a field that is not known"])
    {
        let mut without = right.clone();
        without.as_object_mut().unwrap().remove(field);
        compare(without);
        for odd in oddities() {
            let mut body = right.clone();
            body[field] = odd;
            compare(body);
        }
    }
    oddities()
        .into_iter()
        .filter(|odd| !odd.is_object())
        .for_each(compare);
}

fn origin() -> set::Origin {
    let published_at = "2026-11-22T08:00:00Z".parse().unwrap();
    set::Origin {
        source: "billing".parse().unwrap(),
        sequence: 7,
        published_at,
    }
}

fn common() -> set::Common {
    set::Common {
        id: "s".into(),
        is_named: true,
        deliver_at: None,
    }
}

fn is_good_set(body: &[u8]) -> bool {
    set::parse(&origin(), body).is_ok_and(|set| {
        set.reminders
            .iter()
            .all(|candidate| candidate.parsed.is_ok())
    })
}

#[test]
fn sets_are_taken_as_their_schema_says() {
    let reminder = json!({ "user": "alice", "content": "c" });
    agree("set", &json!({ "reminders": [reminder] }), |text| {
        is_good_set(text.as_bytes())
    });
    let cancel = json!(["inv-981", { "id": "inv-982", "user": "alice" }]);
    agree("set", &json!({ "cancel": cancel }), |text| {
        is_good_set(text.as_bytes())
    });
    agree("published-reminder", &reminder, |text| {
        set::read(&origin(), &common(), 0, text).is_ok()
    });
    let many = |count| json!({ "reminders": vec![&reminder; count] });
    let validator = validator(&schema("set"));
    for odd in oddities() {
        let of_user = json!({ "id": "a", "user": odd });
        for entry in [odd.clone(), json!({ "id": odd }), of_user] {
            let set = json!({ "cancel": [entry] });
            let is_good = is_good_set(set.to_string().as_bytes());
            assert_eq!(validator.is_valid(&set), is_good, "{set}");
        }
    }
    assert!(
        validator.is_valid(&many(set::MAX_REMINDERS))
            && !validator.is_valid(&many(set::MAX_REMINDERS + 1))
    );
}

#[test]
fn cloud_events_are_taken_as_their_schema_says() {
    let right = json!({ "specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": { "reminders": [] } });
    let read = |text: &str| {
        let structured = |name: &str| (name == "content-type").then_some(cloud_event::STRUCTURED);
        Published::read(structured, text.as_bytes()).set.is_ok()
    };
    // A schema can say neither how long two fields are together nor what is base64; and `null` is
    // no data.
    let fields: Vec<_> = schema("cloud-event")["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let validator = validator(&schema("cloud-event"));
    for field in fields
        .iter()
        .filter(|field| !["data", "data_base64"].contains(&field.as_str()))
    {
        for odd in oddities()
            .into_iter()
            .filter(|odd| odd.as_str().is_none_or(|text| text.len() < 250))
        {
            let mut event = right.clone();
            event[field] = odd;
            assert_eq!(
                validator.is_valid(&event),
                read(&event.to_string()),
                "{event}"
            );
        }
        let mut event = right.clone();
        event.as_object_mut().unwrap().remove(field);
        assert_eq!(
            validator.is_valid(&event),
            read(&event.to_string()),
            "{event}"
        );
    }
}

#[test]
fn parsers_agree_with_schemas() {
    let refused =
        json!({ "refused": [{ "id": "i", "source": "s", "user": "u", "reason": "busy" }] });
    agree("delivery-answer", &refused, |text| {
        answer::read::<answer::DeliveryAnswer>(text.as_bytes()).is_some()
    });
    let connected = json!({ "connected": ["alice"] });
    agree("heartbeat-answer", &connected, |text| {
        answer::read::<answer::HeartbeatAnswer<String>>(text.as_bytes()).is_some()
    });
    agree("route", &json!({ "subject": "eu.app.7" }), |text| {
        route::read_subject(text.as_bytes()).is_ok()
    });
    agree("associates", &json!({ "associates": ["bob"] }), |text| {
        Associates::read(text.as_bytes()).is_ok()
    });
}

#[test]
fn queries_are_taken_as_their_schemas_say() {
    // A cursor is opaque text.
    let history = |text: &str| {
        let is_cursor = |body: &Value| body.get("cursor").is_some_and(|cursor| cursor.is_string());
        query::history(text.as_bytes()).is_ok()
            || serde_json::from_str(text).is_ok_and(|body: Value| is_cursor(&body))
    };
    agree("history-query", &json!({ "user": "alice" }), history);
    agree("why-query", &json!({ "source": "s", "id": "i" }), |text| {
        query::why(text.as_bytes()).is_ok()
    });
    agree("mailbox-query", &json!({ "user": "alice" }), |text| {
        query::mailbox(text.as_bytes()).is_ok()
    });
    agree("erase-query", &json!({ "user": "alice" }), |text| {
        query::erase(text.as_bytes()).is_ok()
    });
}

/// The schema, letting through no field that it does not know.
fn strict(name: &str) -> Validator {
    let mut schema = schema(name);
    schema["unevaluatedProperties"] = false.into();
    validator(&schema)
}

#[test]
fn added_fields_are_in_the_schema() {
    let right = r#"{"id":"i","user":"alice","title":"t","content":"c","tags":["x"],"deliver_at":"2026-12-01T00:00:00Z","expires_at":"2027-01-01T00:00:00Z","data":[1]}"#;
    let mut reminder = set::read(&origin(), &common(), 0, right).unwrap();
    (reminder.count, reminder.merged) = (
        Some(2),
        serde_json::from_str(r#"["j",{"id":"k","data":null}]"#).unwrap(),
    );
    let bob = "bob".parse().unwrap();
    let json = finished::with_parked_at(
        &finished::rerouted(&reminder.to_json(), &bob).unwrap(),
        origin().published_at,
    );
    let json = finished::with_rerouted_to(&json, &bob);
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert!(strict("reminder").is_valid(&json), "{json}");
    let known: BTreeSet<_> = schema("reminder")["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let mut there: BTreeSet<_> = json.as_object().unwrap().keys().cloned().collect();
    there.insert("marks".to_owned());
    assert_eq!(there, known);
}

#[test]
fn a_step_has_the_fields_of_all_outcomes() {
    let outcome = schemars::schema_for!(Outcome).to_value();
    let variants = outcome["oneOf"].as_array().unwrap();
    let fields = |schema: &Value| {
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    let mut all: BTreeSet<_> = variants.iter().flat_map(fields).collect();
    all.insert("at".to_owned());
    assert_eq!(
        fields(&schemars::schema_for!(queries::Step).to_value()),
        all
    );
}

#[test]
fn a_schema_names_every_code() {
    let codes =
        &asyncapi::document(&Names::new("b"))["components"]["schemas"]["RejectCode"]["oneOf"];
    let codes: Vec<_> = codes
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code["const"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        RejectCode::ALL
            .iter()
            .map(|code| code.as_str())
            .collect::<Vec<_>>()
    );
}

/// Every value below, with the path to it.
fn walk<'v>(value: &'v Value, path: &str, each: &mut impl FnMut(&str, &'v Value)) {
    each(path, value);
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| walk(value, &format!("{path}/{name}"), each)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, item)| walk(item, &format!("{path}/{at}"), each)),
        _ => {}
    }
}

#[test]
fn examples_of_messages_are_right() {
    let document = asyncapi::document(&Names::new("bellhop"));
    let mut looked_at = 0;
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        let schema = json!({ "components": document["components"], "properties": {
            "headers": message.get("headers").unwrap_or(&Value::Bool(true)),
            "payload": message.get("payload").unwrap_or(&Value::Bool(true)) } });
        let needs_headers = message["headers"]["required"]
            .as_array()
            .is_some_and(|required| !required.is_empty());
        let validator = jsonschema::draft7::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        for example in message
            .get("examples")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            assert!(validator.is_valid(example), "{name}: {example}");
            assert_eq!(example.get("headers").is_some(), needs_headers, "{name}");
            let empty = example["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .find(|(_, value)| *value == "");
            assert_eq!(empty, None, "{name}");
            looked_at += 1;
        }
    }
    assert!(looked_at >= BODIES.len(), "{looked_at}");
}

#[test]
fn references_resolve_and_fields_are_described() {
    let document = asyncapi::document(&Names::new("bellhop"));
    let mut references = 0;
    walk(&document, "", &mut |path, value| {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            let target = target
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{path} leads away"));
            assert!(document.pointer(target).is_some(), "{path}: {target}");
            references += 1;
        }
        // An enum's tag needs no description of its own.
        let fields = value
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        for (name, field) in
            fields.filter(|(_, field)| field.is_object() && field.get("const").is_none())
        {
            let is_described = field.get("description").is_some() || field.get("$ref").is_some();
            assert!(
                is_described && field["description"] != "",
                "{path}: {name} says nothing of itself"
            );
        }
    });
    assert!(references > 50, "{references}");
    let empty = Map::new();
    let used = |kind: &str| {
        document["components"][kind]
            .as_object()
            .unwrap_or(&empty)
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let text = document.to_string();
    for kind in ["messages", "schemas", "parameters"] {
        for name in used(kind) {
            let refers = format!(r##""$ref":"#/components/{kind}/{name}""##);
            assert!(text.contains(&refers), "nothing refers to {kind}/{name}");
        }
    }
}

/// Bellhop's own, which are not part of the contract.
const OWN: [&str; 7] = [
    "due",
    "fence",
    "members",
    "parked",
    "positions",
    "scheduled",
    "seen",
];

#[test]
fn every_subject_is_a_channel_or_internal() {
    let names = include_str!("../names.rs");
    let captured = |begin: &str, ends: &[char]| -> BTreeSet<String> {
        let rest = names.split(begin).skip(1);
        rest.map(|rest| rest.split(ends).next().unwrap().to_owned())
            .collect()
    };
    let mut there = captured(r#""{}."#, &['.', '"']);
    there.extend(captured(r#"self.bucket(""#, &['"']));
    let document = asyncapi::document(&Names::new("bellhop"));
    let addresses = document["channels"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|channel| channel["address"].as_str());
    let kind = |address: &str| {
        let rest = address
            .strip_prefix("bellhop.")
            .or_else(|| address.strip_prefix("$KV.bellhop_"));
        rest.unwrap_or_else(|| panic!("{address}"))
            .split('.')
            .next()
            .unwrap()
            .to_owned()
    };
    let mut known: BTreeSet<_> = addresses.map(kind).collect();
    known.extend(OWN.map(ToOwned::to_owned));
    assert_eq!(there, known);
}
