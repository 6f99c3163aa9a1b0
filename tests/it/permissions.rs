//! Permissions of `nats-config/accounts.conf`: necessary ones are granted, and everything else is
//! refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::{HeaderMap, Message, Subscriber, jetstream};
use bellhop_testkit::nats_server::{NatsServer, Options, StartError};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::harness::bellhop;
use crate::secured::{NatsUser, Realm, Secrets, USERS, Verdict, eventually, nats_config};

/// The requests, and the users who may send them: all others are refused. Destructive requests come
/// last.
const ASKED: [(&str, &[&str]); 63] = [
    // Published sets: each source is its own. Bellhop publishes scheduled reminders, which
    // no other user may schedule.
    ("bellhop.sets.billing", &["bellhop", "billing", "operator"]),
    ("bellhop.sets.claims", &["bellhop", "claims", "operator"]),
    ("bellhop.sets.hr", &["bellhop", "operator"]),
    ("bellhop.scheduled.billing.x.alice", &["bellhop"]),
    ("bellhop.due.billing", &[]),
    // Routes: each instance's are its own. Rules and associates are for those who know them.
    (
        "$KV.bellhop_routes.alice.app-1",
        &["app-1", "bellhop", "operator"],
    ),
    (
        "$KV.bellhop_routes.alice.app-2",
        &["app-2", "bellhop", "operator"],
    ),
    ("$KV.bellhop_rules.billing", &["operator"]),
    ("$KV.bellhop_associates.alice", &["bellhop", "operator"]),
    ("$KV.bellhop_members.mallory", &["bellhop"]),
    // Only Bellhop publishes these.
    ("$KV.bellhop_positions.0", &["bellhop"]),
    ("bellhop.parked.0.alice", &["bellhop"]),
    ("bellhop.fence.0", &["bellhop"]),
    ("bellhop.outcomes.billing", &["bellhop"]),
    ("bellhop.outcomes.claims", &["bellhop"]),
    ("bellhop.rejected.billing", &["bellhop"]),
    ("bellhop.seen.0", &["bellhop"]),
    // A user who listens in an account of its own can publish to itself there.
    ("bellhop.app.app-1.deliver", &["bellhop", "app-1"]),
    ("bellhop.app.app-2.deliver", &["bellhop", "app-2"]),
    (
        "bellhop.app.app-1.heartbeat",
        &["bellhop", "app-1", "operator"],
    ),
    // Queries.
    ("bellhop.api.history", &["app-1", "app-2", "operator"]),
    ("bellhop.api.why", &["app-1", "app-2", "operator"]),
    ("bellhop.api.mailbox", &["app-1", "app-2", "operator"]),
    ("bellhop.api.erase", &["operator"]),
    ("bellhop.api.of.app-1.history", &[]),
    ("bellhop.api.of.app-2.history", &[]),
    ("bellhop.metrics", &["monitoring", "operator"]),
    ("$SRV.PING.bellhop", &["bellhop", "monitoring", "operator"]),
    // Looking.
    ("$JS.API.INFO", &["bellhop", "operator"]),
    ("$JS.API.STREAM.NAMES", &["operator"]),
    (
        "$JS.API.STREAM.INFO.BELLHOP_PARKED",
        &["bellhop", "operator"],
    ),
    (
        "$JS.API.CONSUMER.INFO.BELLHOP_OUTCOMES.history",
        &["bellhop", "operator"],
    ),
    ("$JS.bellhop.API.INFO", &["monitoring"]),
    ("$JS.bellhop.API.STREAM.LIST", &["monitoring"]),
    (
        "$JS.bellhop.API.STREAM.INFO.BELLHOP_PARKED",
        &["monitoring"],
    ),
    (
        "$JS.bellhop.API.CONSUMER.INFO.BELLHOP_OUTCOMES.history",
        &["monitoring"],
    ),
    (
        "$JS.bellhop.API.DIRECT.GET.KV_bellhop_members",
        &["monitoring"],
    ),
    ("$JS.bellhop.API.DIRECT.GET.KV_bellhop_routes", &[]),
    ("$JS.bellhop.API.STREAM.MSG.GET.BELLHOP_PARKED", &[]),
    ("$JS.bellhop.API.STREAM.PURGE.BELLHOP_PARKED", &[]),
    (
        "$JS.bellhop.API.CONSUMER.MSG.NEXT.BELLHOP_OUTCOMES.history",
        &[],
    ),
    (
        "$JS.bellhop.API.CONSUMER.RESET.BELLHOP_OUTCOMES.outcomes-billing",
        &[],
    ),
    (
        "$JS.bellhop.API.CONSUMER.DELETE.BELLHOP_OUTCOMES.outcomes-billing",
        &[],
    ),
    ("$SYS.REQ.SERVER.PING", &[]),
    // Reading messages to others.
    (
        "$JS.API.STREAM.MSG.GET.BELLHOP_PARKED",
        &["bellhop", "operator"],
    ),
    (
        "$JS.API.STREAM.MSG.GET.BELLHOP_LOG",
        &["bellhop", "operator"],
    ),
    (
        "$JS.API.STREAM.MSG.GET.KV_bellhop_routes",
        &["bellhop", "operator"],
    ),
    (
        "$JS.API.STREAM.MSG.GET.BELLHOP_OUTCOMES",
        &["bellhop", "operator"],
    ),
    ("$JS.API.DIRECT.GET.BELLHOP_OUTCOMES", &["operator"]),
    (
        "$JS.API.CONSUMER.MSG.NEXT.BELLHOP_OUTCOMES.history",
        &["bellhop", "operator"],
    ),
    ("$JS.API.CONSUMER.CREATE.BELLHOP_LOG.thief", &["operator"]),
    (
        "$JS.API.CONSUMER.CREATE.BELLHOP_OUTCOMES.history.bellhop.outcomes.billing",
        &["operator"],
    ),
    (
        "$JS.bellhop.API.CONSUMER.INFO.BELLHOP_OUTCOMES.outcomes-billing",
        &["billing", "monitoring"],
    ),
    (
        "$JS.bellhop.API.CONSUMER.MSG.NEXT.BELLHOP_OUTCOMES.outcomes-billing",
        &["billing"],
    ),
    // Changing, and taking away.
    ("$JS.API.STREAM.CREATE.MINE", &["operator"]),
    ("$JS.API.STREAM.UPDATE.BELLHOP_LOG", &["operator"]),
    (
        "$JS.API.CONSUMER.PAUSE.BELLHOP_SCHEDULED.due",
        &["operator"],
    ),
    (
        "$JS.API.STREAM.MSG.DELETE.BELLHOP_LOG",
        &["bellhop", "operator"],
    ),
    ("$JS.API.STREAM.MSG.DELETE.BELLHOP_OUTCOMES", &["operator"]),
    ("$JS.API.STREAM.PURGE.BELLHOP_REJECTED", &["operator"]),
    (
        "$JS.API.STREAM.PURGE.BELLHOP_PARKED",
        &["bellhop", "operator"],
    ),
    (
        "$JS.API.CONSUMER.DELETE.BELLHOP_SCHEDULED.due",
        &["operator"],
    ),
    ("$JS.API.STREAM.DELETE.BELLHOP_SEEN", &["operator"]),
];

/// The subjects on which a user may listen, a message and its sender, and the users who receive it.
/// In accounts of their own people may listen anywhere, and hear what they say themselves.
const HEARD: [(&str, &str, &str, &[&str]); 19] = [
    (">", "bellhop", "bellhop.app.app-1.heartbeat", &["app-1"]),
    (
        "bellhop.>",
        "bellhop",
        "bellhop.app.app-2.heartbeat",
        &["app-2"],
    ),
    (
        "bellhop.app.>",
        "bellhop",
        "bellhop.app.app-1.deliver",
        &["app-1"],
    ),
    (
        "bellhop.app.app-1.deliver",
        "bellhop",
        "bellhop.app.app-1.deliver",
        &["app-1"],
    ),
    (
        "bellhop.app.app-2.deliver",
        "bellhop",
        "bellhop.app.app-2.deliver",
        &["app-2"],
    ),
    (
        "bellhop.sets.*",
        "billing",
        "bellhop.sets.billing",
        &["billing"],
    ),
    (
        "bellhop.outcomes.*",
        "bellhop",
        "bellhop.outcomes.billing",
        &["billing", "operator"],
    ),
    (
        "bellhop.outcomes.claims",
        "bellhop",
        "bellhop.outcomes.claims",
        &["claims", "operator"],
    ),
    ("bellhop.seen.*", "bellhop", "bellhop.seen.0", &[]),
    (
        "bellhop.parked.*.*",
        "bellhop",
        "bellhop.parked.0.alice",
        &[],
    ),
    (
        "bellhop.rejected.*",
        "bellhop",
        "bellhop.rejected.billing",
        &[],
    ),
    ("bellhop.api.*", "operator", "bellhop.api.why", &["bellhop"]),
    ("$KV.>", "operator", "$KV.bellhop_associates.alice", &[]),
    (
        "$KV.bellhop_routes.*.*",
        "app-1",
        "$KV.bellhop_routes.alice.app-1",
        &["app-1"],
    ),
    ("$JS.API.>", "operator", "$JS.API.STREAM.NAMES", &[]),
    ("$JS.ACK.>", "operator", "$JS.API.STREAM.NAMES", &[]),
    (
        "$SRV.>",
        "monitoring",
        "$SRV.PING.bellhop",
        &["bellhop", "monitoring"],
    ),
    (
        "_INBOX_bellhop.>",
        "bellhop",
        "$JS.API.STREAM.INFO.BELLHOP_LOG",
        &["bellhop"],
    ),
    (
        "_INBOX_operator.>",
        "operator",
        "$JS.API.STREAM.INFO.BELLHOP_LOG",
        &["operator"],
    ),
];

/// Minimum number of refusals for each of them.
const LEAST_REFUSALS: usize = 20;

#[tokio::test]
async fn each_user_has_exactly_its_permissions() {
    let realm = Realm::start().await;
    set_up(&realm, &[]).await;
    let _member = realm.serve("member-1", &["partitions=4"]).await;
    let mut people = Vec::new();
    for user in USERS {
        people.push(realm.nats_user(user).await);
    }
    let _apps = [answering(&people[5]).await, answering(&people[6]).await];
    let mut refusals = BTreeMap::new();
    for (pattern, asker, subject, hearers) in HEARD {
        for (name, hears) in who_hears(&people, pattern, asker, subject, hearers).await {
            assert_eq!(
                hears,
                hearers.contains(&name),
                "{name} listens at {pattern} while {asker} asks {subject}"
            );
            *refusals.entry(name).or_insert(0) += usize::from(!hears);
        }
    }
    for (subject, who) in ASKED {
        let may = |one: &&NatsUser| who.contains(&one.name.as_str());
        for one in people.iter().filter(|one| !may(one)) {
            let verdict = one.ask(subject, body(subject)).await;
            assert!(
                matches!(verdict, Verdict::Refused),
                "{} asks {subject}: {verdict:?}",
                one.name
            );
            *refusals.entry(&one.name).or_insert(0) += 1;
        }
        for one in people.iter().filter(may) {
            let verdict = one.ask(subject, body(subject)).await;
            assert!(
                matches!(verdict, Verdict::Answered(_)),
                "{} asks {subject}: {verdict:?}",
                one.name
            );
        }
    }
    assert!(
        refusals.values().all(|&count| count >= LEAST_REFUSALS),
        "{refusals:?}"
    );
}

/// The subjects on which foreign users may publish, and the parts of the installation that they may
/// change by that.
const PERMITTED: [(&str, &[&str], &[&str]); 4] = [
    (
        "monitoring",
        &[
            "$JS.bellhop.API.INFO",
            "$JS.bellhop.API.STREAM.NAMES",
            "$JS.bellhop.API.STREAM.LIST",
            "$JS.bellhop.API.STREAM.INFO.KV_bellhop_routes",
            "$JS.bellhop.API.CONSUMER.NAMES.BELLHOP_OUTCOMES",
            "$JS.bellhop.API.CONSUMER.LIST.BELLHOP_LOG",
            "$JS.bellhop.API.CONSUMER.INFO.BELLHOP_SCHEDULED.due",
            "$JS.bellhop.API.DIRECT.GET.KV_bellhop_members",
            "bellhop.metrics",
            "$SRV.PING",
            "$SRV.INFO.bellhop",
            "$SRV.STATS.bellhop",
        ],
        &[],
    ),
    (
        "billing",
        &[
            "bellhop.sets.billing",
            "$JS.bellhop.API.CONSUMER.INFO.BELLHOP_OUTCOMES.outcomes-billing",
            "$JS.bellhop.API.CONSUMER.MSG.NEXT.BELLHOP_OUTCOMES.outcomes-billing",
        ],
        &[
            "bellhop.sets.billing",
            "bellhop.rejected.billing",
            "bellhop.seen.0",
        ],
    ),
    (
        "claims",
        &["bellhop.sets.claims"],
        &[
            "bellhop.sets.claims",
            "bellhop.rejected.claims",
            "bellhop.seen.0",
        ],
    ),
    (
        "app-1",
        &[
            "$KV.bellhop_routes.alice.app-1",
            "bellhop.api.history",
            "bellhop.api.why",
            "bellhop.api.mailbox",
        ],
        &["$KV.bellhop_routes.alice.app-1"],
    ),
];

/// Headers by which JetStream does more than to store a message.
const WISHES: [&[(&str, &str)]; 21] = [
    &[],
    &[("Nats-Rollup", "all")],
    &[("Nats-Rollup", "sub")],
    &[("Nats-TTL", "1s")],
    &[("Nats-TTL", "never")],
    &[("Nats-Msg-Id", "x")],
    &[
        ("Nats-Schedule", "@at 2040-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "bellhop.parked.0.zoe"),
    ],
    &[
        ("Nats-Schedule", "@at 2040-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "bellhop.sets.hr"),
    ],
    &[("Nats-Schedule-TTL", "1s")],
    &[("Nats-Schedule-Rollup", "sub")],
    &[("Nats-Expected-Stream", "KV_bellhop_rules")],
    &[("Nats-Expected-Last-Sequence", "1")],
    &[("Nats-Expected-Last-Msg-Id", "x")],
    &[("Nats-Expected-Last-Subject-Sequence", "0")],
    &[
        ("Nats-Expected-Last-Subject-Sequence", "0"),
        (
            "Nats-Expected-Last-Subject-Sequence-Subject",
            "$KV.bellhop_routes.bob.app-2",
        ),
    ],
    &[("Nats-Incr", "+1")],
    &[("Nats-Batch-Id", "x"), ("Nats-Batch-Sequence", "1")],
    &[
        ("Nats-Batch-Id", "x"),
        ("Nats-Batch-Sequence", "1"),
        ("Nats-Batch-Commit", "1"),
    ],
    &[("Nats-Marker-Reason", "Purge")],
    &[("KV-Operation", "PURGE")],
    &[("Nats-Required-Api-Level", "99")],
];

/// JetStream's API, for every user of the account with the permission.
const ORDERS: [&str; 8] = [
    "STREAM.PURGE",
    "STREAM.DELETE",
    "STREAM.UPDATE",
    "STREAM.CREATE",
    "STREAM.MSG.DELETE",
    "STREAM.SNAPSHOT",
    "STREAM.LEADER.STEPDOWN",
    "CONSUMER.CREATE",
];

/// A permitted message can still ask for more: by its headers, and by where it wants its answer to
/// go.
#[tokio::test]
async fn a_permitted_message_changes_nothing_of_others() {
    let realm = Realm::start().await;
    // The member's own card stays as it is for the whole test.
    let settings = ["partitions=1", "members.interval=60s", "members.ttl=200s"];
    set_up(&realm, &settings).await;
    let _member = realm.serve("member-1", &settings).await;
    let operator = realm.nats_user("operator").await;
    let owned = something_of_everybodys(&realm, &operator).await;
    for (name, subjects, own) in PERMITTED {
        let actor = realm.nats_user(name).await;
        let before = stored(&operator, own).await;
        assert!(
            owned
                .iter()
                .all(|subject| own.contains(subject) || before.contains_key(*subject)),
            "{before:#?}"
        );
        let streams = before.keys().filter_map(|key| key.strip_prefix("stream "));
        let orders =
            streams.flat_map(|stream| ORDERS.map(|order| format!("$JS.API.{order}.{stream}")));
        let targets: Vec<String> = before
            .keys()
            .filter(|key| !key.contains(' '))
            .cloned()
            .chain(orders)
            .collect();
        for subject in subjects {
            for wish in WISHES {
                let mut headers = HeaderMap::new();
                wish.iter()
                    .for_each(|(header, value)| headers.insert(*header, *value));
                let inbox = actor.client.new_inbox();
                actor
                    .client
                    .publish_with_reply_and_headers(*subject, inbox, headers, "".into())
                    .await
                    .unwrap();
            }
            for target in &targets {
                actor
                    .client
                    .publish_with_reply(*subject, target.clone(), body(subject).into())
                    .await
                    .unwrap();
            }
            // Those before it were seen to when this one is answered.
            let verdict = actor.ask(subject, body(subject)).await;
            assert!(
                matches!(verdict, Verdict::Answered(_)),
                "{name} asks {subject}: {verdict:?}"
            );
        }
        settled(&operator).await;
        let after = stored(&operator, own).await;
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let changed: Vec<_> = keys
            .into_iter()
            .filter(|key| before.get(*key) != after.get(*key))
            .collect();
        assert!(
            changed.is_empty(),
            "{name} changed what is not its own: {changed:#?}"
        );
    }
}

/// Has something in every stream and bucket that others could change. Returns where.
async fn something_of_everybodys<'a>(realm: &Realm, operator: &NatsUser) -> [&'a str; 8] {
    let operate = async |arguments: &[&str], input: &str| {
        realm.run("operator", arguments, input).await.succeeded()
    };
    operate(&["rules", "put", "billing", "-"], r#"{"rules":[]}"#).await;
    operate(&["associates", "put", "zoe", "alice"], "").await;
    let claims = realm.nats_user("claims").await;
    let app = realm.nats_user("app-2").await;
    let later = r#"{"reminders":[{"id":"later","user":"zoe","content":"x","deliver_at":"2040-01-01T00:00:00Z"}]}"#;
    for (one, subject, body) in [
        (
            &claims,
            "bellhop.sets.claims",
            r#"{"reminders":[{"id":"now","user":"zoe","content":"x"}]}"#,
        ),
        (&claims, "bellhop.sets.claims", later),
        (&claims, "bellhop.sets.claims", "refused"),
        (&app, "$KV.bellhop_routes.bob.app-2", ""),
    ] {
        let verdict = one.ask(subject, body).await;
        assert!(
            matches!(verdict, Verdict::Answered(_)),
            "{} asks {subject}: {verdict:?}",
            one.name
        );
    }
    settled(operator).await;
    [
        "$KV.bellhop_rules.billing",
        "$KV.bellhop_associates.zoe",
        "$KV.bellhop_routes.bob.app-2",
        "$KV.bellhop_members.member-1",
        "bellhop.parked.0.zoe",
        "bellhop.outcomes.claims",
        "bellhop.rejected.claims",
        "bellhop.scheduled.claims.later.zoe",
    ]
}

/// Waits until what was published is taken in, and what became of it is stored.
async fn settled(operator: &NatsUser) {
    eventually("all sets are done with", async || {
        let stored = stored(operator, &[]).await;
        let waits = |key: &&String| key.starts_with("bellhop.sets.");
        match stored.keys().filter(waits).count() {
            0 => Ok(()),
            _ => Err(format!("{stored:#?}")),
        }
    })
    .await;
}

/// Returns the installation's content: each subject's number of messages and the last one's
/// sequence, and each stream's configuration and consumers. The content of a user's `own` subjects
/// is left out.
async fn stored(operator: &NatsUser, own: &[&str]) -> BTreeMap<String, String> {
    let ask = async |api: String, body: Value| {
        let verdict = operator
            .ask(&format!("$JS.API.{api}"), &body.to_string())
            .await;
        let Verdict::Answered(answer) = verdict else {
            panic!("{api}: {verdict:?}")
        };
        serde_json::from_slice::<Value>(&answer.payload).unwrap()
    };
    let mut stored = BTreeMap::new();
    for stream in ask("STREAM.NAMES".into(), json!({})).await["streams"]
        .as_array()
        .unwrap()
    {
        let stream = stream.as_str().unwrap();
        let info = ask(
            format!("STREAM.INFO.{stream}"),
            json!({ "subjects_filter": ">" }),
        )
        .await;
        let consumers = ask(format!("CONSUMER.NAMES.{stream}"), json!({})).await;
        let durable = consumers["consumers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        // Watchers of buckets and readers of the log have made-up names, and come and go.
        let durable: Vec<_> = durable
            .filter(|_| !stream.starts_with("KV_") && stream != "BELLHOP_LOG")
            .collect();
        stored.insert(
            format!("stream {stream}"),
            format!("{} {durable:?}", info["config"]),
        );
        for (subject, count) in info["state"]["subjects"].as_object().into_iter().flatten() {
            // Bellhop notes what it has read of anybody's sets.
            let is_note = ["$KV.bellhop_positions.", "bellhop.seen."]
                .iter()
                .any(|note| subject.starts_with(note));
            if !own.contains(&subject.as_str()) && !is_note {
                let last = ask(
                    format!("STREAM.MSG.GET.{stream}"),
                    json!({ "last_by_subj": subject }),
                )
                .await;
                stored.insert(
                    subject.clone(),
                    format!("{count}, the last {}", last["message"]["seq"]),
                );
            }
        }
    }
    stored
}

/// A pull that waits for nothing.
const PULL: &str = r#"{"batch":1,"no_wait":true}"#;

/// Returns the body of a request; mostly the subject is enough.
fn body(subject: &str) -> &'static str {
    if subject.contains("MSG.NEXT") {
        PULL
    } else {
        ""
    }
}

/// Returns the users who receive a message.
async fn who_hears<'a>(
    people: &'a [NatsUser],
    pattern: &str,
    asker: &str,
    subject: &str,
    hearers: &[&str],
) -> Vec<(&'a str, bool)> {
    let mut listening = Vec::new();
    for one in people {
        listening.push((one, one.client.subscribe(pattern.to_owned()).await.unwrap()));
    }
    for one in people {
        one.round_trip().await;
    }
    let asker = people.iter().find(|one| one.name == asker).unwrap();
    let verdict = asker.ask(subject, body(subject)).await;
    assert!(
        matches!(verdict, Verdict::Answered(_)),
        "{} asks {subject}: {verdict:?}",
        asker.name
    );
    let mut heard = Vec::new();
    for (one, mut listener) in listening {
        // A user who received it did so before the server handles this.
        one.round_trip().await;
        let is_it = |message: &Message| {
            pattern.starts_with("_INBOX") || message.subject.as_str() == subject
        };
        let hears = if hearers.contains(&one.name.as_str()) {
            eventually(&format!("{} hears {subject}", one.name), async || {
                next(&mut listener).ok_or("silence".into())
            })
            .await;
            true
        } else {
            std::iter::from_fn(|| next(&mut listener)).any(|message| is_it(&message))
        };
        assert!(
            hears || !one.is_at_home() || one.is_refused("Subscription", pattern),
            "{} may listen at {pattern}",
            one.name
        );
        heard.push((one.name.as_str(), hears));
    }
    heard
}

fn next(listener: &mut Subscriber) -> Option<Message> {
    listener.next().now_or_never().flatten()
}

/// JetStream's word that it has no message is an empty one, and goes wherever the asker says. So
/// does any other answer.
#[tokio::test]
async fn an_answer_is_no_order() {
    let realm = Realm::start().await;
    set_up(&realm, &[]).await;
    let (bellhop, billing) = (
        realm.nats_user("bellhop").await,
        realm.nats_user("billing").await,
    );
    assert!(matches!(
        bellhop.ask("bellhop.parked.0.alice", "").await,
        Verdict::Answered(_)
    ));
    let orders = [
        "$JS.API.STREAM.PURGE.BELLHOP_PARKED",
        "$JS.API.STREAM.DELETE.BELLHOP_PARKED",
    ];
    // The answer to a stranger arrives in the stranger's own account.
    for order in orders {
        let mut answers = billing.client.subscribe(order).await.unwrap();
        for subject in [
            "$JS.bellhop.API.CONSUMER.MSG.NEXT.BELLHOP_OUTCOMES.outcomes-billing",
            "bellhop.sets.billing",
        ] {
            billing
                .client
                .publish_with_reply(subject, order, body(subject).into())
                .await
                .unwrap();
            eventually("the answer is here", async || {
                next(&mut answers).ok_or("it is not".to_owned())
            })
            .await;
        }
    }
    bellhop.round_trip().await;
    assert_eq!(parked(&bellhop).await, 1);
    // A user who may pull in Bellhop's own account can do what strangers must not.
    let operator = realm.nats_user("operator").await;
    let pull = "$JS.API.CONSUMER.MSG.NEXT.BELLHOP_OUTCOMES.outcomes-billing";
    operator
        .client
        .publish_with_reply(pull, orders[0], PULL.into())
        .await
        .unwrap();
    eventually("the stream is purged", async || {
        match parked(&operator).await {
            0 => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
}

/// Returns the number of messages in the stream of mailboxes.
async fn parked(asker: &NatsUser) -> u64 {
    let verdict = asker.ask("$JS.API.STREAM.INFO.BELLHOP_PARKED", "").await;
    let Verdict::Answered(output) = verdict else {
        panic!("{verdict:?}")
    };
    let output: Value = serde_json::from_slice(&output.payload).unwrap();
    output["state"]["messages"]
        .as_u64()
        .unwrap_or_else(|| panic!("{output}"))
}

/// A business system reads what became of its reminders when it likes, and in order; and nothing of
/// others.
#[tokio::test]
async fn a_business_system_reads_its_own_outcomes() {
    let realm = Realm::start().await;
    set_up(&realm, &[]).await;
    let (bellhop, billing) = (
        realm.nats_user("bellhop").await,
        realm.nats_user("billing").await,
    );
    for (source, body) in [
        ("claims", "not for billing"),
        ("billing", "1"),
        ("billing", "2"),
    ] {
        assert!(matches!(
            bellhop
                .ask(&format!("bellhop.outcomes.{source}"), body)
                .await,
            Verdict::Answered(_)
        ));
    }
    let jetstream = jetstream::with_domain(billing.client.clone(), "bellhop");
    let stream = jetstream
        .get_stream_no_info("BELLHOP_OUTCOMES")
        .await
        .unwrap();
    let consumer = stream
        .get_consumer::<pull::Config>("outcomes-billing")
        .await
        .unwrap();
    for expected in ["1", "2"] {
        let mut batch = consumer.fetch().max_messages(1).messages().await.unwrap();
        let message = batch.next().await.unwrap().unwrap();
        assert_eq!(
            (message.subject.as_str(), &message.payload[..]),
            ("bellhop.outcomes.billing", expected.as_bytes())
        );
        message.double_ack().await.unwrap();
    }
    let mut none = consumer.fetch().max_messages(1).messages().await.unwrap();
    assert!(none.next().await.is_none());
}

/// The whole of it as the users of the file: the server refuses nothing.
#[tokio::test]
async fn all_of_bellhop_works_with_these_permissions() {
    let settings = [
        "partitions=4",
        "mailbox.escalate_after.high=1s",
        "delivery.copy_rerouted=true",
        "heartbeat.timeout=60s",
    ];
    let realm = Realm::start().await;
    set_up(&realm, &settings).await;
    let operate = async |arguments: &[&str], input: &str| {
        realm.run("operator", arguments, input).await.succeeded()
    };
    let rules =
        json!({ "rules": [{ "name": "numbers", "patterns": ["[0-9]{3,}"], "action": "mask" }] })
            .to_string();
    operate(&["rules", "put", "billing", "-"], &rules).await;
    operate(&["associates", "put", "carol", "alice"], "").await;
    let (first, second) = (
        realm.serve("member-1", &settings).await,
        realm.serve("member-2", &settings).await,
    );
    let publish = async |id: &str, user: &str, more: &[&str]| {
        let arguments = [
            "publish",
            "--source",
            "billing",
            "--id",
            id,
            "--user",
            user,
            "--content",
            "Invoice 981",
        ];
        realm
            .run("billing", &[&arguments, more].concat(), "")
            .await
            .succeeded();
    };
    let (app, silent) = (
        realm.nats_user("app-1").await,
        realm.nats_user("app-2").await,
    );
    let taken = answering(&app).await;
    let route = async |user: &str, app: &NatsUser| {
        let verdict = app
            .ask(&format!("$KV.bellhop_routes.{user}.{}", app.name), "")
            .await;
        assert!(matches!(verdict, Verdict::Answered(_)), "{verdict:?}");
    };
    let took = async |id: &str| {
        eventually(&format!("{id} is delivered"), async || {
            let taken = taken.lock().unwrap().clone();
            taken
                .get(id)
                .cloned()
                .ok_or(format!("{taken:?}\n{}", realm.log()))
        })
        .await
    };
    let became = async |id: &str, outcome: &str| {
        eventually(&format!("{id} is {outcome}"), async || {
            let output = realm.run("operator", &["why", "billing", id], "").await;
            if output.stdout.contains(outcome) {
                Ok(())
            } else {
                Err(format!("{output:?}"))
            }
        })
        .await;
    };

    let billing = realm.nats_user("billing").await;
    let mut outcomes = billing
        .client
        .subscribe("bellhop.outcomes.billing")
        .await
        .unwrap();

    // Delivered, by the rules; parked, and announced; brought to an associate.
    route("alice", &app).await;
    publish("live", "alice", &["--tag", "billing"]).await;
    assert_eq!(took("live").await["content"], "Invoice ***");
    publish("parked", "bob", &["--priority", "high"]).await;
    eventually("it is announced", async || match next(&mut outcomes) {
        Some(output) if String::from_utf8_lossy(&output.payload).contains("escalated") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    publish("rerouted", "carol", &[]).await;
    assert_eq!(took("rerouted").await["for"], "carol");
    // A member dies, and the other one reads back what waits.
    first.kill();
    route("bob", &app).await;
    took("parked").await;
    became("parked", "delivered").await;
    // The last one dies with a reminder in its hands, and the next one finds it.
    let mut asked = silent
        .client
        .subscribe("bellhop.app.app-2.*")
        .await
        .unwrap();
    silent.round_trip().await;
    route("eve", &silent).await;
    publish("held", "eve", &[]).await;
    asked.next().await.unwrap();
    second.kill();
    let third = realm.serve("member-3", &settings).await;
    let request = asked.next().await.unwrap();
    silent
        .client
        .publish(request.reply.unwrap(), r#"{"connected":[]}"#.into())
        .await
        .unwrap();
    became("held", "parked").await;

    // Everything that operators do.
    publish("waiting", "dave", &[]).await;
    became("waiting", "parked").await;
    assert!(matches!(
        billing.ask("bellhop.sets.billing", "oops").await,
        Verdict::Answered(_)
    ));
    eventually("something is refused", async || {
        match operate(&["rejected", "ls"], "").await {
            output if output.contains("not_json") => Ok(()),
            output => Err(output),
        }
    })
    .await;
    let refused: Value =
        serde_json::from_str(&operate(&["rejected", "ls", "--json"], "").await).unwrap();
    let refused = refused[0]["sequence"].to_string();
    let fixed = json!({ "reminders": [{ "id": "fixed", "user": "alice", "content": "fixed" }] })
        .to_string();
    let fixed_file = realm.dir.path().join("fixed.json");
    std::fs::write(&fixed_file, fixed).unwrap();
    for command in [
        &["rejected", "info", &refused][..],
        &[
            "rejected",
            "requeue",
            &refused,
            "--body",
            fixed_file.to_str().unwrap(),
        ],
        &["doctor", "--set", "partitions=4"],
        &["top", "--once"],
        &["members", "ls"],
        &["partitions", "ls"],
        &["instances", "ls"],
        &["routes", "ls"],
        &["routes", "put", "erin", "app-1"],
        &["routes", "rm", "-f", "erin", "app-1"],
        &["associates", "ls"],
        &["associates", "rm", "-f", "carol"],
        &["rules", "ls"],
        &["rules", "get", "billing"],
        &["rules", "try", "--tag", "billing", "Invoice 981"],
        &["rules", "rm", "-f", "billing"],
        &["mailbox", "ls"],
        &["mailbox", "info", "dave"],
        &["mailbox", "purge", "-f", "dave"],
        &["history"],
        &["why", "billing", "live"],
        &["erase", "-f", "alice"],
        &["setup", "--dry-run", "--set", "partitions=4"],
    ] {
        operate(command, "").await;
    }
    took("fixed").await;
    third.signal("TERM");
    eventually("it stops", async || {
        third.status().ok_or("it runs".to_owned())
    })
    .await;
    let log = realm.log();
    let refused: Vec<_> = log
        .lines()
        .filter(|line| line.contains("Violation"))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// The doctor's requests and the file's permissions are written in two places.
#[tokio::test]
async fn the_doctor_misses_nothing() {
    let realm = Realm::start().await;
    set_up(&realm, &["partitions=4"]).await;
    let output = realm
        .run(
            "bellhop",
            &["doctor", "--format", "json", "--set", "partitions=4"],
            "",
        )
        .await;
    let output: Value = serde_json::from_str(&output.stdout).unwrap();
    let checks = output["checks"].as_array().unwrap();
    let permissions: Vec<_> = checks
        .iter()
        .filter(|check| check["check"] == "permissions")
        .collect();
    assert!(
        permissions.iter().all(|check| check["status"] == "ok") && !permissions.is_empty(),
        "{permissions:#?}"
    );
}

#[tokio::test]
async fn the_doctor_of_a_member_calls_nothing_critical() {
    let realm = Realm::start().await;
    set_up(&realm, &[]).await;
    let _member = realm.serve("member-1", &["partitions=4"]).await;
    let ended = realm
        .run(
            "bellhop",
            &["doctor", "--format", "json", "--set", "partitions=4"],
            "",
        )
        .await;
    let output: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = output["checks"].as_array().unwrap();
    let history = checks
        .iter()
        .find(|check| check["check"] == "history")
        .unwrap();
    assert_eq!(history["status"], "unknown", "{history}");
    assert!(
        history["found"]
            .as_str()
            .unwrap()
            .contains("bellhop.api.history"),
        "{history}"
    );
}

/// Updates are the operator's. A member that waited for each answer that cannot come would start
/// late.
#[tokio::test]
async fn refused_updates_are_logged_once_and_at_once() {
    let realm = Realm::start().await;
    set_up(&realm, &[]).await;
    let patient = [
        "partitions=4",
        "streams.replicas=3",
        "nats.timeout=10s",
        "members.ttl=30s",
    ];
    let began = std::time::Instant::now();
    let member = realm.serve("member-1", &patient).await;
    // Eleven updates at 10 s each.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    let log = member.log();
    let output: Vec<_> = log
        .lines()
        .filter(|line| line.contains("continuing with the existing objects"))
        .collect();
    assert!(
        output.len() == 1 && output[0].contains("updates=11"),
        "{log}"
    );
}

/// Figures need no more than the account of those who watch has.
#[tokio::test]
async fn monitoring_may_run_top_and_doctor() {
    let realm = Realm::start().await;
    set_up(&realm, &[]).await;
    let _member = realm.serve("member-1", &["partitions=4"]).await;
    let run = async |command: &[&str]| {
        let ended = realm
            .run(
                "monitoring",
                &[command, &["--set", "partitions=4"]].concat(),
                "",
            )
            .await
            .succeeded();
        serde_json::from_str::<Value>(&ended).unwrap()
    };
    let top = run(&["top", "--once", "--json"]).await;
    assert_eq!(
        (&top["members"][0]["name"], &top["status"]),
        (&json!("member-1"), &json!("ok")),
        "{top}"
    );
    let page = realm
        .run(
            "monitoring",
            &["top", "--once", "--set", "partitions=4"],
            "",
        )
        .await
        .succeeded();
    assert!(
        page.contains("routes cannot be read by") && !page.contains("too many routes"),
        "{page}"
    );
    let output = run(&["doctor", "--format", "json"]).await;
    let unknown = output["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["status"] == "unknown");
    let unknown: Vec<_> = unknown
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(
        unknown,
        [
            "sync",
            "positions",
            "history",
            "rules",
            "routes",
            "lookalikes"
        ],
        "{output:#}"
    );
}

#[tokio::test]
async fn missing_permission_is_named() {
    let realm = Realm::start().await;
    let setup = realm
        .run("bellhop", &["setup", "--set", "nats.timeout=1s"], "")
        .await;
    assert_eq!(setup.code, Some(1), "{setup:?}");
    assert!(
        setup.stderr.contains("$JS.API.STREAM.CREATE.BELLHOP_LOG"),
        "{setup:?}"
    );
    assert!(setup.stderr.contains("docs/security.md"), "{setup:?}");
    set_up(&realm, &[]).await;
    // It does not wait for an answer that cannot come.
    let history = realm.run("bellhop", &["history"], "").await;
    assert_eq!(history.code, Some(1), "{history:?}");
    assert!(
        history.stderr.contains("does not permit")
            && history.stderr.contains("bellhop.api.history"),
        "{history:?}"
    );
    let serve = [
        "serve",
        "--http",
        "127.0.0.1:0",
        "--set",
        "partitions=4",
        "--set",
        "nats.timeout=1s",
    ];
    let serve = realm.run("operator", &serve, "").await;
    assert_eq!(serve.code, Some(1), "{serve:?}");
    assert!(
        serve.stderr.contains("does not permit") && serve.stderr.contains("$KV.bellhop_members."),
        "{serve:?}"
    );
    // A user who may not hear its own answers.
    let deaf = [
        "members",
        "ls",
        "--set",
        "nats.timeout=1s",
        "--set",
        "nats.inbox_prefix=_INBOX",
    ];
    let settings = realm.secrets.settings("operator");
    let (words, set) = deaf.split_at(2);
    let settings = settings.iter().map(String::as_str);
    let arguments: Vec<&str> = words
        .iter()
        .copied()
        .chain(settings)
        .chain(set.iter().copied())
        .collect();
    let deaf = bellhop(&arguments, &[("NATS_URL", realm.server.url())], b"").await;
    assert_eq!(deaf.code, Some(1), "{deaf:?}");
    assert!(deaf.stderr.contains("nats.inbox_prefix"), "{deaf:?}");
}

#[tokio::test]
async fn unknown_user_is_rejected_without_secrets() {
    let realm = Realm::start().await;
    let dry = ["setup", "--dry-run", "--nats", realm.server.url()];
    let stranger = realm.dir.path().join("stranger.nk");
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    std::fs::write(&stranger, &seed).unwrap();
    let stranger = stranger.to_str().unwrap();
    let output = async |variables: &[(&str, &str)]| {
        let ended = bellhop(&dry, variables, b"").await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            !ended.stderr.contains(&seed) && !ended.stderr.contains("hunter2"),
            "{ended:?}"
        );
        ended.stderr
    };
    for (variables, words) in [
        (&[][..], "without credentials"),
        (
            &[("NATS_USER", "operator"), ("NATS_PASSWORD", "hunter2")],
            "as user `operator`",
        ),
        (&[("NATS_NKEY", stranger)], "stranger.nk"),
        (&[("NATS_TOKEN", "hunter2")], "with this token"),
        (&[("NATS_NKEY", "/no/such.nk")], "/no/such.nk"),
        (
            &[("NATS_NKEY", &nats_config("accounts.conf"))],
            "no NKEY seed of a user",
        ),
        (&[("NATS_CREDS", "/no/such.creds")], "/no/such.creds"),
    ] {
        let stderr = output(variables).await;
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// No default password: a variable that is forgotten keeps the server from starting, and is named.
#[tokio::test]
async fn a_server_without_everybodys_secret_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::make(dir.path());
    let config = nats_config("accounts.conf");
    for (missing, _) in secrets.variables() {
        let others: Vec<_> = secrets
            .variables()
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        let options = Options {
            extra_args: &["-c", &config, "-js"],
            variables: &others,
            ..Options::default()
        };
        let error = NatsServer::start(&dir.path().join(missing), options)
            .await
            .unwrap_err();
        let StartError::Ended(_, log) = error else {
            panic!("{missing}: {error}")
        };
        assert!(log.contains(missing), "{log}");
    }
}

/// Does what an operator does before anything else.
async fn set_up(realm: &Realm, settings: &[&str]) {
    let set: Vec<&str> = ["partitions=4"]
        .iter()
        .chain(settings)
        .flat_map(|setting| ["--set", setting])
        .collect();
    realm
        .run("operator", &[&["setup"][..], &set].concat(), "")
        .await
        .succeeded();
    let config = pull::Config {
        durable_name: Some("outcomes-billing".to_owned()),
        filter_subject: "bellhop.outcomes.billing".to_owned(),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    let operator = realm.nats_user("operator").await;
    jetstream::new(operator.client)
        .create_consumer_on_stream(config, "BELLHOP_OUTCOMES")
        .await
        .unwrap();
}

/// An app server to which everybody is connected who is asked for. Answers what it took, by id.
async fn answering(app: &NatsUser) -> Arc<Mutex<BTreeMap<String, Value>>> {
    let taken = Arc::<Mutex<BTreeMap<String, Value>>>::default();
    let mut requests = app
        .client
        .subscribe(format!("bellhop.app.{}.*", app.name))
        .await
        .unwrap();
    let (client, takes) = (app.client.clone(), taken.clone());
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let body: Value = serde_json::from_slice(&request.payload).unwrap_or_default();
            for reminder in body["reminders"].as_array().into_iter().flatten() {
                takes.lock().unwrap().insert(
                    reminder["id"].as_str().unwrap().to_owned(),
                    reminder.clone(),
                );
            }
            let answer = json!({ "connected": body["users"] }).to_string();
            let _ = client.publish(request.reply.unwrap(), answer.into()).await;
        }
    });
    app.round_trip().await;
    taken
}
