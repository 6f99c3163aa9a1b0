//! The history and the micro service that answers from it, asked as any program may ask.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::harness::{LATER, Reply, World, from_now, numbers, reminder, with};

/// What the service answers, or its code and what it says is wrong.
type Answer = Result<Value, (u16, String)>;

impl World {
    /// Asks the micro service once.
    async fn ask_once(&self, question: &str, body: &str) -> Result<Answer, String> {
        let answer = self.client.request(format!("bellhop.api.{question}"), body.to_owned().into()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let header = |name| answer.headers.as_ref()?.get(name).map(|value| value.to_string());
        Ok(match header("Nats-Service-Error-Code") {
            Some(code) => Err((code.parse().unwrap(), header("Nats-Service-Error").unwrap())),
            None => Ok(serde_json::from_slice(&answer.payload).unwrap()),
        })
    }

    /// Asks the micro service, as soon as one answers.
    async fn ask(&self, question: &str, body: Value) -> Answer {
        self.eventually("the service answers", async || self.ask_once(question, &body.to_string()).await).await
    }

    /// Asks until the answer is as it should be.
    async fn told<T>(&self, question: &str, body: Value, is_right: impl Fn(&Value) -> Option<T>) -> T {
        self.within(LATER, &format!("{question} {body} is answered rightly"), async || {
            let answer = self.ask_once(question, &body.to_string()).await?;
            answer.as_ref().ok().and_then(&is_right).ok_or_else(|| format!("{answer:?}"))
        })
        .await
    }

    /// The reminders that a query finds, once there are so many.
    async fn found(&self, query: Value, count: usize) -> Vec<Value> {
        let list = |answer: &Value| Some(answer["reminders"].as_array()?.clone()).filter(|list| list.len() == count);
        self.told("history", query, list).await
    }
}

fn ids(reminders: &[Value]) -> Vec<&str> {
    reminders.iter().map(|reminder| reminder["id"].as_str().unwrap()).collect()
}

fn steps(of: &Value) -> Vec<&str> {
    of["trail"].as_array().unwrap().iter().map(|step| step["outcome"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_reminder_and_its_fate_can_be_asked_for() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let full = with(
        reminder("full", "alice"),
        json!({ "title": "Invoice due", "content": "Invoice 981 is due on Friday",
        "tags": ["billing", "费用"], "priority": "high", "data": { "invoice": 981 } }),
    );
    let reminders = [
        full,
        with(reminder("twin", "alice"), json!({ "content": "the same" })),
        with(reminder("other twin", "alice"), json!({ "content": "the same" })),
        with(reminder("late", "alice"), json!({ "expires_at": "2020-01-01T00:00:00Z" })),
        with(reminder("parked", "bob"), json!({ "content": "您的费用已到期" })),
    ];
    world.publish("billing", reminders).await;
    world
        .publish_bytes("billing", br#"{"reminders":[{"id":"bad","user":"alice","content":""}]}"#, HeaderMap::new())
        .await;
    let all = world.found(json!({}), 6).await;
    assert_eq!(ids(&all)[0], "bad", "newest first");
    let by_id: BTreeMap<&str, &Value> = all.iter().map(|one| (one["id"].as_str().unwrap(), one)).collect();
    let fates: BTreeMap<_, _> = by_id.iter().map(|(id, one)| (*id, one["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("bad", "rejected"),
        ("full", "delivered"),
        ("late", "expired"),
        ("other twin", "merged"),
        ("parked", "parked"),
        ("twin", "delivered"),
    ];
    assert_eq!(fates, expected.into());

    // As delivered, and what became of it.
    let mut known = by_id["full"].clone();
    let fate = ["outcome", "at", "trail"].map(|field| known.as_object_mut().unwrap().remove(field));
    assert_eq!(known, world.first("full").reminder);
    assert_eq!(fate[2], Some(json!([{ "outcome": "delivered", "at": fate[1], "instance": "app-1" }])));
    assert_eq!(by_id["other twin"]["trail"][0]["into"], "twin");
    assert_eq!(by_id["other twin"]["content"], "the same");
    assert_eq!(by_id["bad"]["trail"][0]["error"], "invalid_content");
    assert_eq!(by_id["bad"]["user"], "alice");

    // Step by step.
    world.app("app-2", &["bob"]).await;
    let query = json!({ "source": "billing", "id": "parked" });
    let why = world.told("why", query, |why| (steps(why).len() == 2).then(|| why.clone())).await;
    assert_eq!(steps(&why), ["parked", "delivered"]);
    assert_eq!(why["reminder"]["content"], "您的费用已到期");
    let unknown = world.ask("why", json!({ "source": "billing", "id": "nothing" })).await.unwrap_err();
    assert!(unknown.0 == 404 && unknown.1.contains("nothing"), "{unknown:?}");

    // By whatever is known of it.
    for (query, expected) in [
        (json!({ "user": "bob" }), vec!["parked"]),
        (json!({ "source": "nobody" }), vec![]),
        (json!({ "id": "full" }), vec!["full"]),
        (json!({ "tag": "费用" }), vec!["full"]),
        (json!({ "outcome": "merged" }), vec!["other twin"]),
        (json!({ "outcome": "delivered", "user": "bob", "source": "billing" }), vec!["parked"]),
        (json!({ "contains": "INVOICE 98" }), vec!["full"]),
        (json!({ "contains": "费用" }), vec!["parked"]),
        (json!({ "contains": "费用", "user": "alice" }), vec![]),
        (json!({ "from": from_now(SignedDuration::from_mins(1)) }), vec![]),
        (json!({ "to": from_now(SignedDuration::from_hours(-1)) }), vec![]),
        (
            json!({ "from": from_now(SignedDuration::from_hours(-1)), "to": from_now(SignedDuration::from_mins(1)), "tag": "billing" }),
            vec!["full"],
        ),
    ] {
        let found = world.found(query.clone(), expected.len()).await;
        assert_eq!(ids(&found), expected, "{query}");
    }
}

#[tokio::test]
async fn a_wrong_question_is_refused_by_the_name_of_its_field() {
    let world = World::start(&[]).await;
    for (question, body, named) in [
        ("history", r#"{"limit":0}"#, "`limit`"),
        ("history", r#"{"limit":1001}"#, "`limit`"),
        ("history", r#"{"cursor":"x"}"#, "`cursor`"),
        ("history", r#"{"from":"soon"}"#, "`from`"),
        ("history", "[]", "JSON object"),
        ("why", r#"{"source":"billing"}"#, "`id`"),
        ("mailbox", "{}", "`user`"),
        ("erase", r#"{"user":""}"#, "`user`"),
    ] {
        let asked = async || world.ask_once(question, body).await;
        let (code, problem) = world.eventually("the service answers", asked).await.unwrap_err();
        assert!(code == 400 && problem.contains(named), "{question} {body}: {code} {problem}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_while_reminders_arrive() {
    let world = World::start(&[]).await;
    world.publish("billing", numbers(0..60).iter().map(|n| reminder(format!("old-{n}"), "alice"))).await;
    world.found(json!({ "user": "alice" }), 60).await;
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    for page in 0.. {
        world.publish("billing", [reminder(format!("new-{page}"), "alice")]).await;
        world.found(json!({ "id": format!("new-{page}") }), 1).await;
        let query = json!({ "user": "alice", "limit": 7, "cursor": cursor });
        let answer = world.ask("history", query).await.unwrap();
        seen.extend(answer["reminders"].as_array().unwrap().clone());
        cursor = answer["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let old: Vec<_> = seen.iter().map(|one| one["id"].as_str().unwrap()).filter(|id| id.starts_with("old-")).collect();
    assert_eq!(old.len(), 60);
    assert_eq!(old.iter().collect::<BTreeSet<_>>().len(), 60);
    assert_eq!(seen.len(), 61, "what came before the first page was read, and nothing that came later");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_split_by_the_cursor() {
    let world = World::start(&[]).await;
    let large = |n: usize| {
        with(reminder(format!("large-{n}"), "alice"), json!({ "content": format!("{n} ") + &"x".repeat(60_000) }))
    };
    for n in 0..40 {
        world.publish("billing", [large(n)]).await;
    }
    world.told("history", json!({ "id": "large-39" }), |answer| answer["reminders"].as_array()?.first().cloned()).await;
    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, Value::Null);
    while pages == 0 || !cursor.is_null() {
        let answer = world.ask("history", json!({ "user": "alice", "limit": 1000, "cursor": cursor })).await.unwrap();
        seen.extend(answer["reminders"].as_array().unwrap().clone());
        (cursor, pages) = (answer["cursor"].clone(), pages + 1);
    }
    let expected: Vec<_> = (0..40).rev().map(|n| format!("large-{n}")).collect();
    assert_eq!(ids(&seen), expected);
    assert!(pages >= 3, "2.4 MB in {pages} answers");
}

#[tokio::test]
async fn a_mailbox_can_be_looked_into() {
    let world = World::start(&[]).await;
    world.publish("billing", numbers(0..5).iter().map(|n| reminder(n, "alice"))).await;
    world.all_became("billing", &numbers(0..5), "parked").await;
    let mailbox = world.ask("mailbox", json!({ "user": "alice", "limit": 2 })).await.unwrap();
    assert_eq!(mailbox["parked"], 5);
    let reminders = mailbox["reminders"].as_array().unwrap();
    assert_eq!(reminders.len(), 2);
    assert_eq!(reminders[0]["parked_at"].as_str().unwrap()[..16], mailbox["oldest"].as_str().unwrap()[..16]);
    let empty = world.ask("mailbox", json!({ "user": "bob" })).await.unwrap();
    assert_eq!(empty, json!({ "parked": 0, "reminders": [] }));
}

#[tokio::test]
async fn the_service_is_seen_by_tools() {
    let world = World::start(&[]).await;
    world.ask("history", json!({})).await.unwrap();
    let ask = async |verb: &str| {
        let answer = world.client.request(format!("$SRV.{verb}.bellhop"), "".into()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()
    };
    let info = ask("INFO").await;
    assert_eq!((&info["name"], &info["version"]), (&json!("bellhop"), &json!(env!("CARGO_PKG_VERSION"))));
    let subjects: BTreeSet<_> =
        info["endpoints"].as_array().unwrap().iter().map(|one| one["subject"].as_str().unwrap()).collect();
    let expected = ["history", "why", "mailbox", "erase"].map(|question| format!("bellhop.api.{question}"));
    assert_eq!(subjects, expected.iter().map(String::as_str).collect());
    assert!(ask("STATS").await["endpoints"].as_array().unwrap().iter().any(|one| one["num_requests"] == 1));
}

#[tokio::test]
async fn without_a_history_its_questions_say_so_and_the_others_are_answered() {
    let world = World::start(&[("history.url", "none")]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    let (code, problem) = world.ask("history", json!({})).await.unwrap_err();
    assert!(code == 503 && problem.contains("history.url"), "{code} {problem}");
    assert_eq!(world.ask("mailbox", json!({ "user": "alice" })).await.unwrap()["parked"], 1);
    let why = world.run(&["why", "billing", "1"]).await;
    assert!(why.succeeded().contains("parked"));
    let outcomes = world.jetstream.get_stream("BELLHOP_OUTCOMES").await.unwrap().direct_get(1).await.unwrap();
    assert!(!String::from_utf8_lossy(&outcomes.payload).contains("content"), "nobody would read it");
}

#[tokio::test]
async fn a_user_is_erased_and_what_was_removed_is_counted() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice", "carol"]).await;
    for (user, list) in [("alice", "bob"), ("bob", "alice"), ("dave", "carol")] {
        let list = json!({ "associates": [list] }).to_string();
        let bucket = world.jetstream.get_key_value("bellhop_associates").await.unwrap();
        bucket.put(user, list.into()).await.unwrap();
    }
    world.publish("billing", ["1", "2"].map(|id| reminder(id, "alice"))).await;
    world.publish("billing", [reminder("3", "carol")]).await;
    world.found(json!({ "outcome": "delivered" }), 3).await;
    app.stop(&world).await;
    world.publish("billing", [with(reminder("4", "alice"), json!({ "reroute": false }))]).await;
    world.found(json!({ "user": "alice", "outcome": "parked" }), 1).await;

    let erased = world.ask("erase", json!({ "user": "alice" })).await.unwrap();
    let routes = erased["erased"]["routes"].clone();
    assert!(routes == 0 || routes == 1, "the router may have dropped it: {erased}");
    assert_eq!(erased, json!({ "erased": { "history": 3, "parked": 1, "routes": routes, "associates": 2 } }));
    assert_eq!(ids(&world.found(json!({}), 1).await), ["3"]);
    assert_eq!(world.ask("mailbox", json!({ "user": "alice" })).await.unwrap()["parked"], 0);
    let again = world.ask("erase", json!({ "user": "alice" })).await.unwrap();
    assert_eq!(again, json!({ "erased": { "history": 0, "parked": 0, "routes": 0, "associates": 0 } }));
    // Life goes on.
    world.publish("billing", [reminder("5", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
}

#[tokio::test]
async fn what_is_on_its_way_to_an_erased_user_is_not_kept() {
    let world = World::start(&[("delivery.timeout", "3s"), ("heartbeat.lease", "60s")]).await;
    let app = world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
    // A delivery is not answered, so the reminder is parked after the erasure.
    app.on_delivery(|_| Reply::silence());
    world.publish("billing", [reminder("2", "alice")]).await;
    let is_asked = async || if app.attempts("2") > 0 { Ok(()) } else { Err("not yet".to_owned()) };
    world.eventually("the delivery is under way", is_asked).await;
    world.ask("erase", json!({ "user": "alice" })).await.unwrap();
    world.became("billing", "2", "parked").await;
    world.publish("billing", [reminder("3", "bob")]).await;
    assert_eq!(ids(&world.found(json!({}), 1).await), ["3"], "nothing of alice");
    world
        .eventually("the mailbox is empty", async || {
            let mailbox = world.ask("mailbox", json!({ "user": "alice" })).await.unwrap();
            if mailbox["parked"] == 0 { Ok(()) } else { Err(mailbox.to_string()) }
        })
        .await;
}
