//! The input of `publish`: a set, a list of reminders, or one reminder per line. It is checked as
//! the intake will check it, and cut into sets that fit. Pure.

use std::collections::HashMap;
use std::fmt;

use serde_json::value::RawValue;

use crate::byte_order_mark;
use crate::cli::CliError;
use crate::cli::output::thousands;
use crate::reminder::reject::RejectCode;
use crate::reminder::set::{self, MAX_REMINDERS, Origin, Refused};
use crate::token::Source;

/// The arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) source: &'a Source,
    pub(super) set_id: Option<&'a str>,
    pub(super) msg_id: Option<&'a str>,
    /// Bytes of one set's message, headers included.
    pub(super) max_bytes: usize,
}

/// The sets to send.
#[derive(Debug)]
pub(super) struct Plan {
    /// Reminders in the input.
    pub(super) reminders: usize,
    /// Those that would be refused, in order.
    pub(super) bad: Vec<Bad>,
    /// Sets of the others.
    pub(super) sets: Vec<Set>,
}

/// A reminder that would be refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) place: Place,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The position of a reminder in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A line, counted from 1.
    Line(usize),
    /// A place in a list, counted from 0.
    Index(usize),
    /// There is no other.
    Only,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Index(index) => write!(f, "reminders[{index}]"),
            Self::Only => f.write_str("the reminder"),
        }
    }
}

/// A set to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) id: Option<String>,
    pub(super) msg_id: Option<String>,
    pub(super) reminders: usize,
    pub(super) body: String,
}

/// Reads the input, checks everything, and makes sets of it.
///
/// # Errors
/// When there is nothing that could be sent, or a set that would be refused as a whole.
pub(super) fn plan(text: &str, request: Request<'_>) -> Result<Plan, CliError> {
    match read(text)? {
        Input::Set { own_id, rest } => plan_set(text, own_id, &rest, request),
        Input::Reminders(items) => plan_list(&items, request),
    }
}

fn plan_set(
    text: &str,
    own_id: Option<String>,
    rest: &str,
    request: Request<'_>,
) -> Result<Plan, CliError> {
    let origin = Origin::unpublished(request.source);
    let set = set::parse(&origin, text.as_bytes()).map_err(|rejection| {
        CliError::Failed(format!("the set would be refused as a whole: {rejection}"))
    })?;
    let place = |(index, raw)| (Place::Index(index), Ok(raw));
    let items: Vec<Item<'_>> = set
        .reminders
        .iter()
        .map(|candidate| candidate.raw)
        .enumerate()
        .map(place)
        .collect();
    let (good, bad) = check(&items, rest, request, usize::MAX)?;
    let id = request.set_id.map(ToOwned::to_owned).or(own_id);
    let is_as_given = bad.is_empty() && request.set_id.is_none();
    let body = if is_as_given {
        text.to_owned()
    } else {
        body(id.as_deref(), rest, &good)
    };
    let bytes = headers_bytes(request.msg_id) + body.len();
    if bytes > request.max_bytes {
        return Err(CliError::Failed(format!(
            "the set has {} bytes, and one message takes {}, by the server's max_payload; give its reminders as a list, which \
             is cut into sets that fit: `jq .reminders FILE | bellhop publish - ...`, or raise max_payload in nats-server's \
             configuration and run `bellhop setup`",
            thousands(bytes),
            thousands(request.max_bytes)
        )));
    }
    let msg_id = request.msg_id.map(ToOwned::to_owned);
    let is_empty = good.is_empty() && set.cancel.is_empty();
    let sets = if is_empty {
        vec![]
    } else {
        vec![Set {
            id,
            msg_id,
            reminders: good.len(),
            body,
        }]
    };
    Ok(Plan {
        reminders: items.len(),
        bad,
        sets,
    })
}

fn plan_list(items: &[Item<'_>], request: Request<'_>) -> Result<Plan, CliError> {
    // `/` and a number may come behind each id.
    let frame_bytes =
        headers_bytes(request.msg_id) + body(request.set_id, "", &[]).len() + 2 * (1 + 20);
    let room = request.max_bytes.saturating_sub(frame_bytes);
    let (good, bad) = check(items, "", request, room)?;
    let cut = cut(&good, room);
    let numbered = |id: Option<&str>, at: usize| match id {
        Some(id) if cut.len() > 1 => Some(format!("{id}/{}", at + 1)),
        id => id.map(ToOwned::to_owned),
    };
    let set = |(at, reminders): (usize, &&[&str])| {
        let id = numbered(request.set_id, at);
        let body = body(id.as_deref(), "", reminders);
        Set {
            id,
            msg_id: numbered(request.msg_id, at),
            reminders: reminders.len(),
            body,
        }
    };
    let sets = cut.iter().enumerate().map(set).collect();
    Ok(Plan {
        reminders: items.len(),
        bad,
        sets,
    })
}

/// A reminder of the input, or why it is none.
type Item<'a> = (Place, Result<&'a str, String>);

enum Input<'a> {
    /// A set, with its id and what else it says of all its reminders.
    Set {
        own_id: Option<String>,
        rest: String,
    },
    Reminders(Vec<Item<'a>>),
}

fn read(text: &str) -> Result<Input<'_>, CliError> {
    if text.trim().is_empty() {
        return Err(CliError::Failed(
            "the input is empty, there is nothing to publish".to_owned(),
        ));
    }
    let document = match serde_json::from_str::<&RawValue>(text) {
        Ok(document) => document.get(),
        Err(error) => return lines(text, &error),
    };
    if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(document) {
        let items = list
            .into_iter()
            .enumerate()
            .map(|(index, raw)| (Place::Index(index), Ok(raw.get())));
        return Ok(Input::Reminders(items.collect()));
    }
    match serde_json::from_str::<HashMap<String, &RawValue>>(document) {
        Ok(fields) if fields.contains_key("reminders") || fields.contains_key("cancel") => {
            let own_id = fields
                .get("id")
                .and_then(|id| serde_json::from_str(id.get()).ok());
            let rest = ["deliver_at", "cancel"].map(|name| (name, fields.get(name)));
            let rest = rest
                .iter()
                .filter_map(|(name, value)| Some(format!("\"{name}\":{},", (*value)?)));
            Ok(Input::Set {
                own_id,
                rest: rest.collect(),
            })
        }
        _ => Ok(Input::Reminders(vec![(Place::Only, Ok(document))])),
    }
}

/// Reads a reminder a line. Where most lines are not JSON of their own, the input is rather one
/// damaged document.
fn lines<'a>(text: &'a str, error: &serde_json::Error) -> Result<Input<'a>, CliError> {
    let item = |(at, line): (usize, &'a str)| {
        let raw = serde_json::from_str::<&RawValue>(line)
            .map(RawValue::get)
            .map_err(|error| {
                // Files that were put together can have one in the middle.
                byte_order_mark::complaint(line.as_bytes())
                    .map_or_else(|| error.to_string(), ToOwned::to_owned)
            });
        (Place::Line(at + 1), raw)
    };
    let items: Vec<_> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(item)
        .collect();
    let good = items.iter().filter(|(_, raw)| raw.is_ok()).count();
    if good == 0 || good * 2 < items.len() {
        return Err(CliError::Failed(format!(
            "the input is neither one JSON text ({error}) nor one a line; `jq -c` writes one a line"
        )));
    }
    Ok(Input::Reminders(items))
}

/// Parts the good from the bad, the way the intake will. `rest` is what their set says of them all,
/// and `room` what one reminder may take.
fn check<'a>(
    items: &[Item<'a>],
    rest: &str,
    request: Request<'_>,
    room: usize,
) -> Result<(Vec<&'a str>, Vec<Bad>), CliError> {
    let origin = Origin::unpublished(request.source);
    let (mut good, mut bad) = (Vec::with_capacity(items.len()), Vec::new());
    let mut known: HashMap<String, (Place, &str)> = HashMap::new();
    for chunk in items.chunks(MAX_REMINDERS) {
        let mut refuse = |place, code, detail| {
            bad.push(Bad {
                place,
                code,
                detail,
            })
        };
        let mut texts: Vec<(Place, &'a str)> = Vec::with_capacity(chunk.len());
        for (place, text) in chunk {
            match text {
                Ok(text) => texts.push((*place, text)),
                Err(problem) => refuse(*place, RejectCode::NotJson.as_str(), within(problem)),
            }
        }
        if texts.is_empty() {
            continue;
        }
        let body = body(
            request.set_id,
            rest,
            &texts.iter().map(|(_, text)| *text).collect::<Vec<_>>(),
        );
        let set = set::parse(&origin, body.as_bytes())
            .map_err(|rejection| CliError::Failed(rejection.to_string()))?;
        for (index, (candidate, (place, text))) in set.reminders.iter().zip(texts).enumerate() {
            let has_own_id = candidate.id() != format!("{}#{index}", set.common.id);
            let twin = known
                .get(candidate.id())
                .filter(|(_, twin)| has_own_id && *twin != text);
            match (&candidate.parsed, twin) {
                (Err(Refused { rejection, .. }), _) => {
                    refuse(place, rejection.code.as_str(), within(&rejection.detail))
                }
                (Ok(_), _) if text.len() >= room => {
                    let (bytes, most) = (thousands(text.len()), thousands(request.max_bytes));
                    let detail = format!(
                        "it has {bytes} bytes, and one message takes {most}, by the server's max_payload"
                    );
                    refuse(place, "max_payload", detail);
                }
                (Ok(_), Some((other, _))) => {
                    let detail = format!(
                        "`{}` is the id of {other} too, which says something else",
                        candidate.id()
                    );
                    refuse(place, RejectCode::DuplicateId.as_str(), detail);
                }
                (Ok(_), None) => {
                    if has_own_id {
                        known.insert(candidate.id().to_owned(), (place, text));
                    }
                    good.push(text);
                }
            }
        }
    }
    bad.sort_by_key(|bad| bad.place);
    Ok((good, bad))
}

/// Cuts the reminders into runs that make a set each.
fn cut<'a, 'b>(reminders: &'a [&'b str], room: usize) -> Vec<&'a [&'b str]> {
    let (mut runs, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, reminder) in reminders.iter().enumerate() {
        let cost = reminder.len() + 1;
        if at > begin && (bytes + cost > room || at - begin == MAX_REMINDERS) {
            runs.push(&reminders[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += cost;
    }
    if begin < reminders.len() {
        runs.push(&reminders[begin..]);
    }
    runs
}

/// A set of these reminders, byte for byte.
fn body(id: Option<&str>, rest: &str, reminders: &[&str]) -> String {
    let id = id.map_or_else(String::new, |id| {
        format!("\"id\":{},", serde_json::Value::from(id))
    });
    format!("{{{id}{rest}\"reminders\":[{}]}}", reminders.join(","))
}

/// Returns the number of bytes of a message's headers.
fn headers_bytes(msg_id: Option<&str>) -> usize {
    msg_id.map_or(0, |id| "NATS/1.0\r\nNats-Msg-Id: \r\n\r\n".len() + id.len())
}

/// An error's text without its place in the reminder; the reminder's place in the input is shown
/// instead.
fn within(problem: &str) -> String {
    problem
        .rsplit_once(" at line ")
        .map_or(problem, |(problem, _)| problem)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_BYTES: usize = 1 << 20;

    fn planned(text: &str, change: impl FnOnce(&mut Request<'_>)) -> Result<Plan, CliError> {
        let source = "billing".parse().unwrap();
        let mut request = Request {
            source: &source,
            set_id: None,
            msg_id: None,
            max_bytes: MAX_BYTES,
        };
        change(&mut request);
        plan(text, request)
    }

    fn bodies(text: &str) -> Vec<String> {
        let plan = planned(text, |_| {}).unwrap();
        assert_eq!(plan.bad, []);
        plan.sets.into_iter().map(|set| set.body).collect()
    }

    fn bad(text: &str) -> Vec<(String, &'static str)> {
        planned(text, |_| {})
            .unwrap()
            .bad
            .into_iter()
            .map(|bad| (bad.place.to_string(), bad.code))
            .collect()
    }

    const A: &str = r#"{"id":"a","user":"alice","content":"c",  "data":1.50}"#;
    const B: &str = r#"{"id":"b","user":"bob","content":"c"}"#;

    #[test]
    fn every_form_keeps_the_reminders_bytes() {
        let set = format!("{{\"reminders\":[{A},\n{B}]}}");
        assert_eq!(
            bodies(&format!(
                " {{\"more\":0,\"id\":\"s\", \"reminders\":[{A}]}}\n"
            )),
            [format!(
                " {{\"more\":0,\"id\":\"s\", \"reminders\":[{A}]}}\n"
            )]
        );
        assert_eq!(bodies(&set)[..], [set]);
        let list = format!("{{\"reminders\":[{A},{B}]}}");
        assert_eq!(bodies(&format!("[ {A} ,\n {B}]"))[0], list);
        assert_eq!(bodies(&format!("{A}\n\n{B}\r\n"))[0], list);
        assert_eq!(bodies(A), [format!("{{\"reminders\":[{A}]}}")]);
    }

    #[test]
    fn a_mark_inside_the_lines_is_named() {
        let plan = planned(&format!("{A}\n\u{feff}{B}\n"), |_| {}).unwrap();
        assert_eq!(plan.bad[0].place, Place::Line(2));
        assert!(
            plan.bad[0].detail.contains("byte order mark"),
            "{:?}",
            plan.bad
        );
    }

    #[test]
    fn ids_are_given_and_numbered() {
        let ids = |text: &str, max_bytes: usize| {
            let plan = planned(text, |request| {
                (request.set_id, request.msg_id, request.max_bytes) =
                    (Some("s"), Some("m"), max_bytes);
            });
            plan.unwrap()
                .sets
                .into_iter()
                .map(|set| (set.id.unwrap(), set.msg_id.unwrap()))
                .collect::<Vec<_>>()
        };
        let text = format!("{A}\n{B}");
        assert_eq!(ids(&text, MAX_BYTES), [("s".into(), "m".into())]);
        assert_eq!(
            ids(&text, 180),
            [("s/1".into(), "m/1".into()), ("s/2".into(), "m/2".into())]
        );
        let set = planned(
            &format!("{{\"id\":\"own\",\"reminders\":[{A}]}}"),
            |request| request.set_id = Some("s\""),
        )
        .unwrap();
        assert_eq!(
            set.sets[0].body,
            format!("{{\"id\":\"s\\\"\",\"reminders\":[{A}]}}")
        );
    }

    #[test]
    fn every_bad_one_is_named() {
        let text = format!(
            "{A}\n{{\"user\":\"u\"}}\n\n{{oops\n{B}\n{}\n7",
            B.replace("bob", "eve")
        );
        let expected = [
            (2, "invalid_reminder"),
            (4, "not_json"),
            (6, "duplicate_id"),
            (7, "invalid_reminder"),
        ];
        assert_eq!(
            bad(&text),
            expected.map(|(line, code)| (format!("line {line}"), code))
        );
        assert_eq!(
            bad(&format!("[{A},null]")),
            [("reminders[1]".to_owned(), "invalid_reminder")]
        );
        assert_eq!(
            bad(&format!("{{\"reminders\":[{{}},{A}]}}")),
            [("reminders[0]".to_owned(), "invalid_reminder")]
        );
        let plan = planned(&text, |_| {}).unwrap();
        assert_eq!(
            (plan.reminders, plan.sets[0].body.as_str()),
            (6, format!("{{\"reminders\":[{A},{B}]}}").as_str())
        );
        assert_eq!(plan.bad[0].detail, "missing field `content`");
    }

    #[test]
    fn the_same_reminder_twice_is_no_mistake() {
        assert_eq!(bad(&format!("{A}\n{A}")), []);
        // Without an id of their own, the first ones of two chunks are not the same.
        let lines: String = (0..=MAX_REMINDERS)
            .map(|i| format!("{{\"user\":\"u\",\"content\":\"{i}\"}}\n"))
            .collect();
        let plan = planned(&lines, |_| {}).unwrap();
        assert_eq!(
            (plan.bad.len(), plan.sets.len(), plan.sets[1].reminders),
            (0, 2, 1)
        );
    }

    #[test]
    fn rejects_unparsable_input() {
        for text in [
            "",
            " \n",
            "{\"reminders\":[\n{},\n{},\n{}\n",
            "[1,\n2,\n",
            "oops",
            "{\"reminders\":[]}",
            "{\"reminders\":7}",
        ] {
            assert!(
                matches!(planned(text, |_| {}), Err(CliError::Failed(_))),
                "{text}"
            );
        }
        let too_large = planned(&format!("{{\"reminders\":[{A}]}}"), |request| {
            request.max_bytes = 30
        });
        assert!(
            too_large
                .unwrap_err()
                .to_string()
                .contains("one message takes 30")
        );
        let one = planned(A, |request| request.max_bytes = 100).unwrap();
        assert_eq!((one.bad[0].code, one.sets.len()), ("max_payload", 0));
        assert_eq!(planned("[]", |_| {}).unwrap().reminders, 0);
    }

    proptest! {
        #[test]
        fn sets_fit_and_lose_nothing(lengths in prop::collection::vec(1..400usize, 1..60), max_bytes in 700..3_000usize) {
            let lines: Vec<_> = lengths.iter().enumerate()
                .map(|(i, n)| format!(r#"{{"id":"{i}","user":"u","content":"{}"}}"#, "x".repeat(*n))).collect();
            let plan = planned(&lines.join("\n"), |request| {
                (request.set_id, request.msg_id, request.max_bytes) = (Some("set"), Some("msg"), max_bytes);
            }).unwrap();
            prop_assert!(plan.bad.is_empty());
            let mut sent = Vec::new();
            for set in &plan.sets {
                prop_assert!(headers_bytes(set.msg_id.as_deref()) + set.body.len() <= max_bytes);
                let body: serde_json::Value = serde_json::from_str(&set.body).unwrap();
                sent.extend(body["reminders"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()));
            }
            prop_assert_eq!(sent, (0..lengths.len()).map(|i| i.to_string()).collect::<Vec<_>>());
        }
    }
}
