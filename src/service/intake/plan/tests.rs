//! What a set means: repeats, duplicates, refusals, rules, and the events that carry the rest.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::headers;
use crate::rules::document::Document;
use crate::rules::engine::Engine;
use crate::service::seen::Taken;

struct Given<'g> {
    window: &'g Window,
    recorded: HashSet<Settled>,
    rules: &'g Rules,
    headers: Option<HeaderMap>,
    event_bytes: usize,
}

fn given<'g>(window: &'g Window, rules: &'g Rules) -> Given<'g> {
    Given {
        window,
        rules,
        recorded: HashSet::new(),
        headers: None,
        event_bytes: 1_200,
    }
}

fn plan_given(given: Given<'_>, sequence: u64, body: &str) -> Plan {
    let names = Names::new("bellhop");
    let planner = Planner {
        trace: None,
        names: &names,
        partitions: 4,
        event_bytes: given.event_bytes,
        merges: true,
        window: given.window,
        recorded: &given.recorded,
        rules: given.rules,
        now: Timestamp::UNIX_EPOCH,
    };
    let received = Received {
        sequence,
        stored_ns: 0,
        subject: "bellhop.sets.billing".into(),
        headers: given.headers,
        payload: Bytes::copy_from_slice(body.as_bytes()),
        reply: "reply".into(),
    };
    let published = Published::read(|name| received.header(name), &received.payload);
    planner.plan(&received, &published, 1_000)
}

fn plan_with(window: &Window, sequence: u64, body: &str, headers: Option<HeaderMap>) -> Plan {
    plan_given(
        Given {
            headers,
            ..given(window, &Rules::default())
        },
        sequence,
        body,
    )
}

fn rules(document: &str) -> Rules {
    let document = Document::parse(document.as_bytes()).unwrap();
    Rules::default().with(
        "t".parse().unwrap(),
        Some(Arc::new(Engine::new(&document).unwrap())),
    )
}

fn window() -> Window {
    Window::new(Duration::from_secs(600), 100)
}

fn messages(plan: Plan) -> Vec<Bytes> {
    plan.parts
        .into_iter()
        .map(|(_, part)| event(vec![part]))
        .collect()
}

/// What goes to partitions.
fn entries(plan: &Plan) -> impl Iterator<Item = &IndexEntry> {
    plan.parts
        .iter()
        .flat_map(|(_, part)| part.reminders.iter().map(|(entry, _)| entry))
}

fn ids(plan: &Plan) -> Vec<String> {
    entries(plan).map(|entry| entry.id.clone()).collect()
}

#[test]
fn the_same_set_makes_the_same_events_and_each_users_reminders_stay_in_order() {
    let reminders: Vec<_> = (0..40)
        .map(|i| format!(r#"{{"id":"{i}","user":"u{}","content":"text {i}"}}"#, i % 5))
        .collect();
    let body = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
    let plan = || plan_with(&window(), 9, &body, None);
    let events = messages(plan());
    assert_eq!(events, messages(plan()));
    assert!(events.len() > 4, "events are bounded in size");
    for user in 0..5 {
        let order: Vec<usize> = ids(&plan())
            .iter()
            .map(|id| id.parse().unwrap())
            .filter(|id: &usize| id % 5 == user)
            .collect();
        assert!(order.is_sorted() && order.len() == 8);
    }
}

#[test]
fn several_parts_of_a_lane_are_one_event_that_tells_which_set_each_reminder_came_in() {
    let body = |id: &str| {
        format!(
            r#"{{"id":"{id}","reminders":[{{"id":"x","user":"","content":"c"}},{{"id":"{id}1","user":"u","content":"c"}},
               {{"id":"{id}2","user":"u","content":"d"}}]}}"#
        )
    };
    let plans =
        [(3, "a"), (4, "b")].map(|(sequence, id)| plan_with(&window(), sequence, &body(id), None));
    let parts: Vec<Part> = plans
        .into_iter()
        .flat_map(|plan| plan.parts)
        .map(|(_, part)| part)
        .collect();
    let bound: usize = parts.iter().map(|part| part.bytes).sum();
    let message = event(parts);
    assert!(message.len() <= bound);
    let event = Event::decode(&message).unwrap();
    let read = |(at, entry): (usize, &IndexEntry)| {
        (event.set_of(at).sequence, entry.place, entry.id.clone())
    };
    let read: Vec<_> = event.index.reminders.iter().enumerate().map(read).collect();
    let wanted = [(3, 1, "a1"), (3, 2, "a2"), (4, 1, "b1"), (4, 2, "b2")];
    assert_eq!(
        read,
        wanted.map(|(sequence, place, id)| (sequence, place, id.to_owned()))
    );
}

#[test]
fn a_reminder_keeps_its_place_whatever_the_window_and_the_rules_say() {
    let text = |i| if i % 7 == 0 { "hide" } else { "grow" };
    let reminders: Vec<_> = (0..60)
        .map(|i| {
            format!(
                r#"{{"id":"{i}","user":"u{}","content":"{} {i}","tags":["t"]}}"#,
                i % 5,
                text(i)
            )
        })
        .collect();
    let body = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
    let (all, none) = (window(), Rules::default());
    let first = plan_given(given(&all, &none), 9, &body);
    let mut fewer = window();
    fewer.note(&Taken {
        sequence: 1,
        stored_ms: 1_000,
        ids: first.ids.iter().copied().step_by(3).collect(),
    });
    let changed = rules(
        r#"{"rules":[{"name":"b","keywords":["hide"],"action":"block"},
            {"name":"r","keywords":["grow"],"action":"replace","with":"a much longer text than it was before"}]}"#,
    );
    let again = plan_given(given(&fewer, &changed), 9, &body);
    assert!(first.parts.len() > 8 && (1..40).contains(&entries(&again).count()));
    for plan in [first, again] {
        assert!(entries(&plan).all(|entry| entry.id == entry.place.to_string()));
    }
}

#[test]
fn what_rules_make_large_goes_in_more_events() {
    let reminder = |i: usize| {
        format!(
            r#"{{"id":"{i}","user":"u","content":"{}","tags":["t"]}}"#,
            "x".repeat(i + 1)
        )
    };
    let body = format!(
        r#"{{"reminders":[{}]}}"#,
        (0..12).map(reminder).collect::<Vec<_>>().join(",")
    );
    let document = format!(
        r#"{{"rules":[{{"name":"r","keywords":["x"],"action":"replace","with":"{}"}}],"match":{{"words":"off"}}}}"#,
        "y".repeat(1_000)
    );
    let (window, rules) = (window(), rules(&document));
    let plan = |event_bytes| {
        plan_given(
            Given {
                event_bytes,
                ..given(&window, &rules)
            },
            9,
            &body,
        )
    };
    let (whole, split) = (plan(512 << 10), plan(40_000));
    assert_eq!((whole.parts.len(), ids(&whole)), (1, ids(&split)));
    let split = messages(split);
    assert!(split.len() > 2 && split.iter().all(|message| message.len() < 40_000));
}

#[test]
fn what_rules_block_or_cannot_process_has_its_outcome_and_its_neighbours_go_on() {
    let long = "y".repeat(1_000);
    let rules = rules(&format!(
        r#"{{"rules":[{{"name":"b","keywords":["hide"],"action":"block"}},
            {{"name":"r","keywords":["x"],"action":"replace","with":"{long}"}}],"match":{{"words":"off"}}}}"#
    ));
    let body = format!(
        r#"{{"reminders":[{{"id":"a","user":"u","content":"hide","tags":["t"]}},{{"id":"b","user":"u","content":"c"}},
            {{"id":"c","user":"u","content":"{}","tags":["t"]}}]}}"#,
        "x".repeat(400)
    );
    let plan = plan_given(given(&window(), &rules), 1, &body);
    assert_eq!(
        (ids(&plan), plan.rejected.len(), plan.ids.len()),
        (vec!["b".to_owned()], 1, 3)
    );
    let outcomes: Vec<_> = plan
        .outcomes
        .into_iter()
        .map(|told| (told.record.id, told.record.outcome))
        .collect();
    let blocked = Outcome::Blocked {
        tag: "t".parse().unwrap(),
        rule: "b".into(),
    };
    let rejected = Outcome::Rejected {
        error: RejectCode::ReminderTooLarge,
    };
    assert_eq!(
        outcomes,
        [("a".to_owned(), blocked), ("c".to_owned(), rejected)]
    );
}

#[test]
fn repeats_are_dropped_unless_they_are_the_set_itself_or_were_requeued() {
    let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"}]}"#;
    let mut window = window();
    let first = plan_with(&window, 1, body, None);
    window.note(&Taken {
        sequence: 1,
        stored_ms: 1_000,
        ids: first.ids,
    });
    assert_eq!(ids(&plan_with(&window, 1, body, None)), ["a"]);
    assert_eq!(ids(&plan_with(&window, 2, body, None)), [""; 0]);
    let mut headers = HeaderMap::new();
    headers.insert(headers::REQUEUE, "7");
    assert_eq!(ids(&plan_with(&window, 2, body, Some(headers))), ["a"]);
}

#[test]
fn what_is_recorded_of_a_set_is_left_out() {
    let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"},{"id":"b","user":"u","content":"c"},
        {"id":"c","user":"u","content":"d"},{"id":"x","user":""},{"id":"y","user":""}]}"#;
    let (window, rules) = (window(), Rules::default());
    let recorded = [1, 2, 3]
        .map(|place| Settled::Published { set: 7, place })
        .into();
    let again = plan_given(
        Given {
            recorded,
            ..given(&window, &rules)
        },
        7,
        body,
    );
    let told: Vec<_> = again
        .outcomes
        .iter()
        .map(|told| told.record.id.as_str())
        .collect();
    assert_eq!((ids(&again), told), (vec!["a".to_owned()], vec!["y"]));
    assert_eq!(
        again.rejected.len(),
        2,
        "refused input has an id of its own against repeats"
    );
    let first = plan_given(given(&window, &rules), 7, body);
    let settles: Vec<_> = first
        .outcomes
        .iter()
        .filter_map(|told| Some(told.settles?.1))
        .collect();
    assert_eq!(
        settles,
        [3, 4, 1].map(|place| Settled::Published { set: 7, place })
    );
}

#[test]
fn a_message_id_makes_a_sources_set_one() {
    let mut window = window();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "m");
    let body = r#"{"cancel":["z"],"reminders":[{"user":"u","content":"c"},{"user":""}]}"#;
    let first = plan_with(&window, 1, body, Some(headers.clone()));
    window.note(&Taken {
        sequence: 1,
        stored_ms: 1_000,
        ids: [first.ids, first.marks].concat(),
    });
    for body in [body, "no set"] {
        let again = plan_with(&window, 2, body, Some(headers.clone()));
        let made = (
            again.parts.len(),
            again.rejected.len(),
            again.outcomes.len(),
            again.later.is_some(),
        );
        assert_eq!((made, again.marks.len()), ((0, 0, 0, false), 0));
    }
    assert_eq!(
        ids(&plan_with(&window, 1, body, Some(headers))),
        ["1#0"],
        "it comes again itself"
    );
    assert_eq!(ids(&plan_with(&window, 2, body, None)), ["2#0"]);
}

#[test]
fn a_reminder_that_was_cancelled_before_it_was_due_is_not_delivered() {
    let mut window = window();
    let cancelled = plan_with(&window, 1, r#"{"cancel":["a"]}"#, None);
    window.note(&Taken {
        sequence: 1,
        stored_ms: 500,
        ids: cancelled.marks,
    });
    let due = |scheduled_ms: i64, deliver_at: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(
            schedule::SET_TIME,
            (i128::from(scheduled_ms) * 1_000_000).to_string(),
        );
        let body = format!(
            r#"{{"reminders":[{{"id":"a","user":"u","content":"c","deliver_at":"{deliver_at}"}}]}}"#
        );
        plan_with(&window, 2, &body, Some(headers))
    };
    let in_time = due(499, "1970-01-01T00:00:00.501Z");
    assert_eq!(
        (ids(&in_time).len(), &in_time.outcomes[0].record.outcome),
        (0, &Outcome::Cancelled)
    );
    assert_eq!(
        ids(&due(499, "1970-01-01T00:00:00.500Z")),
        ["a"],
        "it was due before"
    );
    assert_eq!(
        ids(&due(500, "1970-01-01T00:00:00.501Z")),
        ["a"],
        "it was scheduled after"
    );
}

#[test]
fn an_id_twice_in_one_set_is_one_reminder_or_a_mistake() {
    let body = r#"{"reminders":[{"id":"a","user":"u","content":"c"},{"id":"a","user":"u","content":"c"},
        {"id":"a","user":"v","content":"c"}]}"#;
    let plan = plan_with(&window(), 1, body, None);
    assert_eq!(
        (ids(&plan).len(), plan.rejected.len(), plan.outcomes.len()),
        (1, 1, 0)
    );
}

#[test]
fn bad_reminders_and_duplicates_have_their_outcomes() {
    let body = r#"{"id":"s","reminders":[{"id":"a","user":"u","content":"c"},{"id":"b","user":"u","content":"c"},
        {"id":"x","user":"","content":"c"}]}"#;
    let plan = plan_with(&window(), 1, body, None);
    assert_eq!((ids(&plan), plan.rejected.len()), (vec!["a".to_owned()], 1));
    let outcomes: Vec<_> = plan
        .outcomes
        .iter()
        .map(|told| (told.record.id.as_str(), told.record.outcome.clone()))
        .collect();
    let rejected = Outcome::Rejected {
        error: RejectCode::InvalidUser,
    };
    assert_eq!(
        outcomes,
        [("x", rejected), ("b", Outcome::Merged { into: "a".into() })]
    );
}

/// The rules of tags `m` (masks), `b` (blocks), `r` (replaces by what `b` blocks).
fn rules_of_three() -> Rules {
    let document =
        |action: &str| format!(r#"{{"rules":[{{"name":"r","keywords":["x"],{action}}}]}}"#);
    let documents = [
        ("m", document(r#""action":"mask""#)),
        (
            "b",
            r#"{"rules":[{"name":"r","keywords":["y"],"action":"block"}]}"#.to_owned(),
        ),
        ("r", document(r#""action":"replace","with":"y""#)),
    ];
    documents
        .into_iter()
        .fold(Rules::default(), |rules, (tag, document)| {
            let document = Document::parse(document.as_bytes()).unwrap();
            rules.with(
                tag.parse().unwrap(),
                Some(Arc::new(Engine::new(&document).unwrap())),
            )
        })
}

proptest! {
    /// What would have been delivered alone is delivered, or merged into what is, whatever the others' tags do.
    #[test]
    fn no_reminder_is_lost_by_a_merge(
        picks in prop::collection::vec((0..2u8, 0..3usize, prop::collection::vec(0..3usize, 0..3)), 1..12),
    ) {
        let reminder = |(at, (user, content, tags)): (usize, &(u8, usize, Vec<usize>))| {
            let tags: Vec<_> = tags.iter().map(|tag| ["m", "b", "r"][*tag]).collect();
            let content = ["x", "y", "z"][*content];
            json!({ "id": at.to_string(), "user": user.to_string(), "content": content, "tags": tags })
        };
        let reminders: Vec<_> = picks.iter().enumerate().map(reminder).collect();
        let (window, rules) = (window(), rules_of_three());
        let plan = |reminders: &[Value]| {
            plan_given(given(&window, &rules), 1, &json!({ "reminders": reminders }).to_string())
        };
        let together = plan(&reminders);
        let delivered = ids(&together);
        for reminder in &reminders {
            let id = reminder["id"].as_str().unwrap();
            let ends: Vec<_> = together.outcomes.iter().map(|told| &told.record).filter(|record| record.id == id).collect();
            let is_delivered = delivered.iter().filter(|other| *other == id).count();
            prop_assert_eq!(is_delivered + ends.len(), 1, "{} has one end", id);
            let passes_alone = !ids(&plan(std::slice::from_ref(reminder))).is_empty();
            let is_blocked = ends.iter().any(|end| matches!(end.outcome, Outcome::Blocked { .. }));
            prop_assert!(!(passes_alone && is_blocked), "{} is lost: {:?}", id, together.outcomes);
            for end in ends {
                if let Outcome::Merged { into } = &end.outcome {
                    prop_assert!(delivered.contains(into), "{} is merged into {}, which is not delivered", id, into);
                }
            }
        }
        // Order is kept.
        for user in 0..2u8 {
            let of_user = |id: &&String| picks[id.parse::<usize>().unwrap()].0 == user;
            let order: Vec<usize> = delivered.iter().filter(of_user).map(|id| id.parse().unwrap()).collect();
            prop_assert!(order.is_sorted(), "{:?}", order);
        }
    }
}

#[test]
fn an_event_of_many_small_reminders_with_all_there_is_to_tell_of_them_fits_into_a_message() {
    let rules = rules(
        &json!({"rules": [
            {"name": "r", "keywords": ["x"], "action": "replace", "with": "y".repeat(400)}
        ]})
        .to_string(),
    );
    let reminder = |i: usize| {
        json!({"id": i.to_string(), "user": "u", "content": format!("x {i}"), "tags": ["t"], "priority": "urgent",
            "expires_at": "9999-12-01T00:00:00Z", "reroute": false})
    };
    let body = json!({"reminders": (0..1_000).map(reminder).collect::<Vec<_>>()}).to_string();
    let window = window();
    let most = 512 << 10;
    let plan = plan_given(
        Given {
            event_bytes: most,
            ..given(&window, &rules)
        },
        9,
        &body,
    );
    assert_eq!(ids(&plan).len(), 1_000);
    let messages = messages(plan);
    assert!(messages.len() > 1 && messages.iter().all(|message| message.len() <= most));
}
