//! Real messages match the schemas, to the last field; and `bellhop schema` prints the schemas.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use bellhop::schema::Body;
use futures_util::StreamExt;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::{LATER, World, reminder, with};

/// A body's schema, or that of a part of it, letting through no field that it does not know.
fn strict(name: &str, part: Option<&str>) -> Validator {
    let mut schema = Body::named(name).unwrap().schema().to_value();
    if let Some(part) = part {
        schema = json!({ "$ref": format!("#/$defs/{part}"), "$defs": schema["$defs"] });
    }
    schema["unevaluatedProperties"] = false.into();
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

fn check(validator: &Validator, value: &Value) {
    let problems: Vec<_> = validator
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(problems, Vec::<String>::new(), "{value}");
}

fn fields<'v>(values: impl Iterator<Item = &'v Value>) -> BTreeSet<&'v str> {
    values
        .flat_map(|value| value.as_object().unwrap().keys())
        .map(String::as_str)
        .collect()
}

fn list<'v>(bodies: &'v [Value], name: &str) -> Vec<&'v Value> {
    bodies
        .iter()
        .flat_map(|body| body[name].as_array().unwrap())
        .collect()
}

impl World {
    async fn put(&self, bucket: &str, key: &str, value: Value) {
        let bucket = self.jetstream.get_key_value(bucket).await.unwrap();
        bucket.put(key, value.to_string().into()).await.unwrap();
    }

    /// Asks the micro service, until the answer is right, and holds it against its schema.
    async fn asked(&self, what: &str, body: Value, is_right: impl Fn(&Value) -> bool) -> Value {
        let query = jsonschema::validator_for(
            &Body::named(&format!("{what}-query"))
                .unwrap()
                .schema()
                .to_value(),
        );
        check(&query.unwrap(), &body);
        let ask = async || {
            let answer = self
                .client
                .request(format!("bellhop.api.{what}"), body.to_string().into())
                .await;
            let answer = answer.map_err(|error| error.to_string())?;
            let json = serde_json::from_slice(&answer.payload)
                .map_err(|_| format!("{:?}", answer.headers))?;
            if is_right(&json) {
                Ok(json)
            } else {
                Err(json.to_string())
            }
        };
        let answer = self
            .within(LATER, &format!("{what} is answered"), ask)
            .await;
        check(&strict(&format!("{what}-answer"), None), &answer);
        answer
    }
}

#[tokio::test]
async fn all_messages_match_their_schemas() {
    let world = World::without_members("", &[("delivery.copy_rerouted", "true")]).await;
    world.run(&["setup"]).await.succeeded();
    let rule =
        |name: &str, action: &str| json!({ "name": name, "keywords": [name], "action": action });
    world
        .put(
            "bellhop_rules",
            "t",
            json!({ "rules": [rule("due", "highlight"), rule("secret", "block")] }),
        )
        .await;
    world
        .put(
            "bellhop_associates",
            "carol",
            json!({ "associates": ["alice"] }),
        )
        .await;
    let traffic = |subject: &'static str| {
        let subscriber = world.client.subscribe(subject);
        async { subscriber.await.unwrap() }
    };
    let (mut deliveries, mut heartbeats) = (
        traffic("bellhop.app.*.deliver").await,
        traffic("bellhop.app.*.heartbeat").await,
    );
    let mut outcomes = traffic("bellhop.outcomes.*").await;
    world.app("app-1", &["alice"]).await;
    let full = json!({ "title": "Invoice", "content": "it is due", "tags": ["t"], "priority": "high", "data": { "n": [1.50] },
        "deliver_at": "2020-11-29T00:00:00Z", "expires_at": "2096-11-29T00:00:00Z" });
    let twin = |id: &str| with(reminder(id, "alice"), full.clone());
    let blocked = with(
        reminder("blocked", "alice"),
        json!({ "tags": ["t"], "content": "secret" }),
    );
    let set = json!({ "id": "s", "reminders": [twin("full"), twin("twin"), blocked, reminder("wrong", ""), reminder("for carol", "carol"),
        reminder("for bob", "bob")] });
    check(
        &strict("set", None),
        &with(set.clone(), json!({ "reminders": [twin("full")] })),
    );
    world.serve().await;
    world.publish_set("billing", set, HeaderMap::new()).await;
    for (id, outcome) in [
        ("full", "delivered"),
        ("twin", "merged"),
        ("blocked", "blocked"),
        ("wrong", "rejected"),
        ("for carol", "rerouted"),
        ("for bob", "parked"),
    ] {
        world.became("billing", id, outcome).await;
    }
    let mailbox = world
        .asked("mailbox", json!({ "user": "bob" }), |answer| {
            answer["parked"] == 1
        })
        .await;
    check(&strict("reminder", None), &mailbox["reminders"][0]);
    world.app("app-2", &["bob", "carol"]).await;
    world.became("billing", "for bob", "delivered").await;
    world.quiet().await;

    let known = world
        .asked("history", json!({ "source": "billing" }), |answer| {
            answer["reminders"]
                .as_array()
                .is_some_and(|all| all.len() == 6)
        })
        .await;
    let (announced, step) = (
        strict("history-answer", Some("HistoryReminder")),
        strict("why-answer", Some("Step")),
    );
    list(std::slice::from_ref(&known), "reminders")
        .into_iter()
        .for_each(|reminder| check(&announced, reminder));
    list(known["reminders"].as_array().unwrap(), "trail")
        .into_iter()
        .for_each(|one| check(&step, one));
    world
        .asked(
            "why",
            json!({ "source": "billing", "id": "blocked" }),
            |answer| answer["trail"].is_array(),
        )
        .await;
    world
        .asked("erase", json!({ "user": "carol" }), |answer| {
            answer["erased"]["history"].as_u64() > Some(0)
        })
        .await;

    let (delivery, heartbeat) = (strict("delivery", None), strict("heartbeat", None));
    let (one, outcome) = (
        strict("reminder", None),
        strict("outcomes", Some("Outcome")),
    );
    let (requests, asked, announced) = (
        all(&mut deliveries).await,
        all(&mut heartbeats).await,
        all(&mut outcomes).await,
    );
    requests
        .iter()
        .for_each(|request| check(&delivery, request));
    asked.iter().for_each(|request| check(&heartbeat, request));
    let (reminders, outcomes) = (list(&requests, "reminders"), list(&announced, "outcomes"));
    reminders.iter().for_each(|reminder| check(&one, reminder));
    outcomes.iter().for_each(|one| check(&outcome, one));
    // The checked parts are all that a schema describes.
    let schema = Body::named("reminder").unwrap().schema().to_value();
    assert_eq!(
        fields(reminders.into_iter()),
        fields([&schema["properties"]].into_iter())
    );
    let names: BTreeSet<_> = outcomes
        .iter()
        .map(|one| one["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from([
            "blocked",
            "delivered",
            "merged",
            "parked",
            "rejected",
            "rerouted"
        ])
    );
    assert!(!asked.is_empty());
}

/// Returns the messages that have arrived so far.
async fn all(subscriber: &mut async_nats::Subscriber) -> Vec<Value> {
    let mut bodies = Vec::new();
    while let Ok(Some(message)) =
        tokio::time::timeout(std::time::Duration::ZERO, subscriber.next()).await
    {
        bodies.push(serde_json::from_slice(&message.payload).unwrap());
    }
    bodies
}

#[tokio::test]
async fn the_contract_is_printed() {
    let world = World::without_members("", &[]).await;
    let print = async |arguments: &[&str]| -> Value {
        serde_json::from_str(
            &world
                .run(&[&["schema"], arguments].concat())
                .await
                .succeeded(),
        )
        .unwrap()
    };
    let listed = print(&["--json"]).await;
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"set") && names.last() == Some(&"asyncapi"),
        "{names:?}"
    );
    assert_eq!(print(&["set"]).await["title"], "ReminderSet");
    let rules: Value =
        serde_json::from_str(&world.run(&["rules", "schema"]).await.succeeded()).unwrap();
    assert_eq!(print(&["rules"]).await, rules);
    let document = print(&["asyncapi", "--set", "prefix=eu"]).await;
    assert_eq!(document["channels"]["sets"]["address"], "eu.sets.{source}");
    assert_eq!(
        document["channels"]["routes"]["address"],
        "$KV.eu_routes.{user}.{instance}"
    );
    assert_eq!(world.run(&["schema", "nothing"]).await.code, Some(2));
}
