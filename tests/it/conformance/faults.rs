//! The faults that are planted, and the rules that each of them breaks.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::app::{Fault, USERS, connected, refuse, refused};

/// Longer than the five seconds that an answer may take here, and shorter than anybody waits for
/// one.
const LATE: Duration = Duration::from_secs(7);

/// A fault's name, its construction, and the rules that it breaks.
pub(super) type Planted = (&'static str, fn() -> Fault, &'static [&'static str]);

const HEARTBEAT: &str = "heartbeat";
const DELIVER: &str = "deliver";

fn has(field: &str, one: &Value) -> bool {
    one.get(field).is_some()
}

fn bytes(field: &str, one: &Value) -> usize {
    one[field].as_str().map_or(0, str::len)
}

fn json(request: &[u8]) -> Option<Value> {
    serde_json::from_slice(request).ok()
}

/// Returns true if a request has an unknown field.
fn is_unknown(request: &[u8]) -> bool {
    json(request)
        .and_then(|request| Some(request.as_object()?.contains_key("version")))
        .unwrap_or(false)
}

fn is_unreadable(request: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(request).is_err()
}

/// Every fault.
pub(super) const FAULTS: &[Planted] = &[
    (
        "puts no route",
        || Fault::Route(|_| (String::new(), "")),
        &["route"],
    ),
    (
        "writes a key in lower case",
        || Fault::Route(|key| (key.replace("=2E", "=2e"), "")),
        &["route-key"],
    ),
    (
        "has a subject of JetStream's",
        || Fault::Route(|key| (key, r#"{"subject":"$JS.API"}"#)),
        &["route-value"],
    ),
    (
        "has a time of its own",
        || Fault::Route(|key| (key, r#"{"since":"yesterday"}"#)),
        &["route-value"],
    ),
    (
        "is late with heartbeats",
        || Fault::Slow(HEARTBEAT, LATE),
        &["heartbeat-in-time"],
    ),
    (
        "never answers heartbeats",
        || Fault::Mute(HEARTBEAT, |_| true),
        &["heartbeat-in-time"],
    ),
    (
        "says ok to heartbeats",
        || Fault::Says(HEARTBEAT, "ok"),
        &["heartbeat-answer"],
    ),
    (
        "answers heartbeats with a list",
        || Fault::Says(HEARTBEAT, r#"["alice"]"#),
        &["heartbeat-answer"],
    ),
    (
        "answers heartbeats with an error",
        || Fault::ServiceError(HEARTBEAT),
        &["heartbeat-answer"],
    ),
    (
        "confirms no user",
        || Fault::Confirms(|_| Vec::new()),
        &["heartbeat-connected"],
    ),
    (
        "confirms escaped names",
        || {
            Fault::Confirms(|asked| {
                connected(asked)
                    .into_iter()
                    .filter(|user| user == "alice")
                    .collect()
            })
        },
        &["heartbeat-connected"],
    ),
    (
        "confirms everybody",
        || Fault::Confirms(<[String]>::to_vec),
        &["heartbeat-stranger", "heartbeat-names"],
    ),
    (
        "names users outside the request",
        || Fault::Confirms(|_| USERS.map(str::to_owned).into()),
        &["heartbeat-asked"],
    ),
    (
        "folds case",
        || {
            Fault::Confirms(|asked| {
                asked
                    .iter()
                    .filter(|user| USERS.contains(&user.to_lowercase().as_str()))
                    .cloned()
                    .collect()
            })
        },
        &["heartbeat-names"],
    ),
    (
        "drops large heartbeats",
        || Fault::Mute(HEARTBEAT, |request| request.len() > 8_000),
        &["heartbeat-largest"],
    ),
    (
        "looks at 100 users",
        || Fault::Confirms(|asked| connected(&asked[..asked.len().min(100)])),
        &["heartbeat-largest"],
    ),
    (
        "knows all fields of heartbeats",
        || Fault::Mute(HEARTBEAT, is_unknown),
        &["heartbeat-unknown-fields"],
    ),
    (
        "is late with deliveries",
        || Fault::Slow(DELIVER, LATE),
        &["delivery-in-time"],
    ),
    (
        "never answers deliveries",
        || Fault::Mute(DELIVER, |_| true),
        &["delivery-in-time"],
    ),
    (
        "says ok to deliveries",
        || Fault::Says(DELIVER, "ok"),
        &["delivery-answer"],
    ),
    (
        "has reasons of its own",
        || {
            Fault::Refuses(|all| {
                let away = |mut one: Value| {
                    one["reason"] = "away".into();
                    one
                };
                refused(all).into_iter().map(away).collect()
            })
        },
        &["delivery-answer"],
    ),
    (
        "answers deliveries with an error",
        || Fault::ServiceError(DELIVER),
        &["delivery-answer"],
    ),
    (
        "refuses everything",
        || Fault::Refuses(|all| all.iter().map(refuse).collect()),
        &["delivery-accepted"],
    ),
    (
        "takes reminders for strangers",
        || Fault::Refuses(|_| Vec::new()),
        &["delivery-stranger"],
    ),
    (
        "refuses all with a stranger's",
        || {
            Fault::Refuses(|all| {
                if refused(all).is_empty() {
                    Vec::new()
                } else {
                    all.iter().map(refuse).collect()
                }
            })
        },
        &["delivery-others", "delivery-full"],
    ),
    (
        "refuses by id",
        || {
            Fault::Refuses(|all| {
                let ids: BTreeSet<String> = refused(all)
                    .iter()
                    .map(|one| one["id"].to_string())
                    .collect();
                let is_refused = |one: &&Value| ids.contains(&one["id"].to_string());
                all.iter().filter(is_refused).map(refuse).collect()
            })
        },
        &["delivery-others"],
    ),
    (
        "mistakes the source",
        || {
            Fault::Refuses(|all| {
                let of_first = |mut one: Value| {
                    one["source"] = all[0]["source"].clone();
                    one
                };
                refused(all).into_iter().map(of_first).collect()
            })
        },
        &["delivery-refused"],
    ),
    (
        "refuses repeats",
        || Fault::RefusesRepeats,
        &["delivery-repeat"],
    ),
    (
        "drops large requests",
        || Fault::Mute(DELIVER, |request| request.len() > 100_000),
        &["delivery-full", "delivery-largest"],
    ),
    (
        "takes 100 reminders",
        || {
            Fault::Mute(DELIVER, |request| {
                json(request).is_some_and(|request| {
                    request["reminders"]
                        .as_array()
                        .is_some_and(|all| all.len() > 100)
                })
            })
        },
        &["delivery-full"],
    ),
    (
        "drops large data",
        || Fault::Chokes(|one| bytes("data", one) > 100_000),
        &["delivery-largest"],
    ),
    (
        "knows all fields of deliveries",
        || Fault::Mute(DELIVER, is_unknown),
        &["delivery-unknown-fields"],
    ),
    (
        "knows all fields of reminders",
        || Fault::Chokes(|one| has("later", one)),
        &["delivery-unknown-fields"],
    ),
    (
        "knows no expiry",
        || Fault::Chokes(|one| has("expires_at", one)),
        &["field-optional"],
    ),
    (
        "has five tags",
        || Fault::Chokes(|one| one["tags"].as_array().is_some_and(|tags| tags.len() > 5)),
        &["field-optional"],
    ),
    (
        "wants an object or a text for data",
        || {
            Fault::Chokes(|one| {
                has("data", one) && !one["data"].is_object() && !one["data"].is_string()
            })
        },
        &["field-data"],
    ),
    (
        "reads no deep JSON",
        || Fault::ReadsShallow,
        &["field-data-odd"],
    ),
    (
        "knows no merged ones",
        || Fault::Chokes(|one| has("merged", one)),
        &["field-merged"],
    ),
    (
        "knows no mailbox",
        || Fault::Chokes(|one| has("parked_at", one) && !has("rerouted_to", one)),
        &["field-parked-at"],
    ),
    (
        "knows no marks",
        || Fault::Chokes(|one| has("marks", one)),
        &["field-marks"],
    ),
    (
        "counts marks in bytes",
        || {
            Fault::Chokes(|one| {
                one["marks"].as_array().is_some_and(|marks| {
                    marks.iter().any(|mark| {
                        let text = one[mark["field"].as_str().unwrap_or_default()]
                            .as_str()
                            .unwrap_or_default();
                        !text.is_char_boundary(mark["end"].as_u64().unwrap_or(0) as usize)
                    })
                })
            })
        },
        &["field-marks"],
    ),
    (
        "knows no associates",
        || Fault::Chokes(|one| has("for", one)),
        &["field-for"],
    ),
    (
        "knows no copies",
        || Fault::Chokes(|one| has("rerouted_to", one)),
        &["field-rerouted-to"],
    ),
    (
        "knows three priorities",
        || Fault::Chokes(|one| one["priority"] == "urgent"),
        &["field-priority"],
    ),
    (
        "has room for 64 bytes of id",
        || Fault::Chokes(|one| bytes("id", one) > 64),
        &["field-id"],
    ),
    (
        "takes the end of a text for its own",
        || {
            Fault::Chokes(|one| {
                one["content"]
                    .as_str()
                    .is_some_and(|text| text.contains('\0'))
            })
        },
        &["text-odd"],
    ),
    (
        "wants a text",
        || Fault::Chokes(|one| one["content"] == ""),
        &["text-empty"],
    ),
    (
        "has room for 10 KB of text",
        || Fault::Chokes(|one| bytes("content", one) > 10_000),
        &["text-longest"],
    ),
    (
        "sees to one request at a time",
        || Fault::Serial(Duration::from_millis(180)),
        &["at-once"],
    ),
    (
        "mixes up what it is asked at once",
        || Fault::MixesUp,
        &["at-once"],
    ),
    (
        "dies of a heartbeat that is none",
        || Fault::Dies(HEARTBEAT, is_unreadable),
        &["unreadable-heartbeat"],
    ),
    (
        "dies of a delivery that is none",
        || Fault::Dies(DELIVER, is_unreadable),
        &["unreadable-delivery"],
    ),
    (
        "dies of too much",
        || Fault::Dies(DELIVER, |request| request.len() > 256 << 10),
        &["oversize"],
    ),
    (
        "keeps the route of one who has left",
        || Fault::Keeps("route"),
        &["leaving-route"],
    ),
    (
        "confirms one who has left",
        || Fault::Keeps("place"),
        &["leaving-heartbeat"],
    ),
    (
        "takes reminders for one who has left",
        || Fault::Keeps("reminders"),
        &["leaving-delivery"],
    ),
];
