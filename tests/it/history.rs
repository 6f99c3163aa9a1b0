//! The history and the micro service that answers from it, asked as any program may ask.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use bellhop_testkit::postgres;
use futures_util::StreamExt;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::harness::{LATER, Reply, World, from_now, instant, numbers, reminder, with};

/// The service's answer, or its code and the error.
type Answer = Result<Value, (u16, String)>;

impl World {
    /// Asks the micro service once.
    async fn ask_once(&self, question: &str, body: &str) -> Result<Answer, String> {
        let answer = self
            .client
            .request(format!("bellhop.api.{question}"), body.to_owned().into())
            .await;
        let answer = answer.map_err(|error| error.to_string())?;
        let header = |name| {
            answer
                .headers
                .as_ref()?
                .get(name)
                .map(|value| value.to_string())
        };
        Ok(match header("Nats-Service-Error-Code") {
            Some(code) => Err((code.parse().unwrap(), header("Nats-Service-Error").unwrap())),
            None => Ok(serde_json::from_slice(&answer.payload).unwrap()),
        })
    }

    /// Asks the micro service, as soon as one answers.
    pub(crate) async fn ask(&self, question: &str, body: Value) -> Answer {
        self.eventually("the service answers", async || {
            self.ask_once(question, &body.to_string()).await
        })
        .await
    }

    /// Asks until the answer is as it should be.
    async fn eventually_answers<T>(
        &self,
        question: &str,
        body: Value,
        is_right: impl Fn(&Value) -> Option<T>,
    ) -> T {
        self.within(
            LATER,
            &format!("{question} {body} is answered rightly"),
            async || {
                let answer = self.ask_once(question, &body.to_string()).await?;
                answer
                    .as_ref()
                    .ok()
                    .and_then(&is_right)
                    .ok_or_else(|| format!("{answer:?}"))
            },
        )
        .await
    }

    /// The reminders that a query finds, once there are so many.
    async fn found(&self, query: Value, count: usize) -> Vec<Value> {
        let list = |answer: &Value| {
            Some(answer["reminders"].as_array()?.clone()).filter(|list| list.len() == count)
        };
        self.eventually_answers("history", query, list).await
    }
}

fn ids(reminders: &[Value]) -> Vec<&str> {
    reminders
        .iter()
        .map(|reminder| reminder["id"].as_str().unwrap())
        .collect()
}

fn steps(of: &Value) -> Vec<&str> {
    of["trail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["outcome"].as_str().unwrap())
        .collect()
}

/// A world whose history is in PostgreSQL; none if tests are to do without.
async fn world_with_postgres() -> Option<World> {
    Some(World::start(&[("history.url", &postgres::database().await?)]).await)
}

#[tokio::test]
async fn history_answers_with_every_outcome() {
    fates_can_be_asked_for(World::start(&[]).await).await;
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn history_answers_with_every_outcome_in_postgres() {
    if let Some(world) = world_with_postgres().await {
        fates_can_be_asked_for(world).await;
    }
}

async fn fates_can_be_asked_for(world: World) {
    world.app("app-1", &["alice"]).await;
    let full = with(
        reminder("full", "alice"),
        json!({ "title": "Invoice due", "content": "Invoice 981 is due on Friday",
        "tags": ["billing", "费用"], "priority": "high", "data": { "invoice": 981 } }),
    );
    let reminders = [
        full,
        with(reminder("twin", "alice"), json!({ "content": "the same" })),
        with(
            reminder("other twin", "alice"),
            json!({ "content": "the same" }),
        ),
        with(
            reminder("late", "alice"),
            json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        ),
        with(
            reminder("parked", "bob"),
            json!({ "content": "您的费用已到期" }),
        ),
    ];
    world.publish("billing", reminders).await;
    world
        .publish_bytes(
            "billing",
            br#"{"reminders":[{"id":"bad","user":"alice","content":""}]}"#,
            HeaderMap::new(),
        )
        .await;
    let all = world.found(json!({}), 6).await;
    let published: Vec<_> = all
        .iter()
        .map(|one| instant(one["published_at"].as_str().unwrap()))
        .collect();
    assert!(
        published.is_sorted_by(|newer, older| newer >= older),
        "newest first: {published:?}"
    );
    let by_id: BTreeMap<&str, &Value> = all
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one))
        .collect();
    let fates: BTreeMap<_, _> = by_id
        .iter()
        .map(|(id, one)| (*id, one["outcome"].as_str().unwrap()))
        .collect();
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
    let parts =
        ["outcome", "at", "trail"].map(|field| known.as_object_mut().unwrap().remove(field));
    assert_eq!(known, world.first("full").reminder);
    assert_eq!(
        parts[2],
        Some(json!([{ "outcome": "delivered", "at": parts[1], "instance": "app-1" }]))
    );
    assert_eq!(by_id["other twin"]["trail"][0]["into"], "twin");
    assert_eq!(by_id["other twin"]["content"], "the same");
    assert_eq!(by_id["bad"]["trail"][0]["error"], "invalid_content");
    assert_eq!(by_id["bad"]["user"], "alice");

    // Step by step.
    world.app("app-2", &["bob"]).await;
    let query = json!({ "source": "billing", "id": "parked" });
    let why = world
        .eventually_answers("why", query, |why| {
            (steps(why).len() == 2).then(|| why.clone())
        })
        .await;
    assert_eq!(steps(&why), ["parked", "delivered"]);
    assert_eq!(why["reminder"]["content"], "您的费用已到期");
    let unknown = world
        .ask("why", json!({ "source": "billing", "id": "nothing" }))
        .await
        .unwrap_err();
    assert!(
        unknown.0 == 404 && unknown.1.contains("nothing"),
        "{unknown:?}"
    );

    // By whatever is known of it.
    for (query, expected) in [
        (json!({ "user": "bob" }), vec!["parked"]),
        (json!({ "source": "unknown" }), vec![]),
        (json!({ "id": "full" }), vec!["full"]),
        (json!({ "tag": "费用" }), vec!["full"]),
        (json!({ "outcome": "merged" }), vec!["other twin"]),
        (
            json!({ "outcome": "delivered", "user": "bob", "source": "billing" }),
            vec!["parked"],
        ),
        (json!({ "contains": "INVOICE 98" }), vec!["full"]),
        (json!({ "contains": "费用" }), vec!["parked"]),
        (json!({ "contains": "费用", "user": "alice" }), vec![]),
        (
            json!({ "from": from_now(SignedDuration::from_mins(1)) }),
            vec![],
        ),
        (
            json!({ "to": from_now(SignedDuration::from_hours(-1)) }),
            vec![],
        ),
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
async fn invalid_query_names_its_field() {
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
        let (code, problem) = world
            .eventually("the service answers", asked)
            .await
            .unwrap_err();
        assert!(
            code == 400 && problem.contains(named),
            "{question} {body}: {code} {problem}"
        );
    }
}

#[tokio::test]
async fn pages_follow_each_other_while_reminders_arrive() {
    let world = World::start(&[]).await;
    world
        .publish(
            "billing",
            numbers(0..60)
                .iter()
                .map(|n| reminder(format!("old-{n}"), "alice")),
        )
        .await;
    world.found(json!({ "user": "alice" }), 60).await;
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    for page in 0.. {
        world
            .publish("billing", [reminder(format!("new-{page}"), "alice")])
            .await;
        world.found(json!({ "id": format!("new-{page}") }), 1).await;
        let query = json!({ "user": "alice", "limit": 7, "cursor": cursor });
        let answer = world.ask("history", query).await.unwrap();
        seen.extend(answer["reminders"].as_array().unwrap().clone());
        cursor = answer["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let old: Vec<_> = seen
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .filter(|id| id.starts_with("old-"))
        .collect();
    assert_eq!(old.len(), 60);
    assert_eq!(old.iter().collect::<BTreeSet<_>>().len(), 60);
    assert_eq!(
        seen.len(),
        61,
        "what came before the first page was read, and nothing that came later"
    );
}

#[tokio::test]
async fn large_answer_is_split_by_cursor() {
    let world = World::start(&[]).await;
    let large = |n: usize| {
        with(
            reminder(format!("large-{n}"), "alice"),
            json!({ "content": format!("{n} ") + &"x".repeat(60_000) }),
        )
    };
    for n in 0..40 {
        world.publish("billing", [large(n)]).await;
    }
    world
        .eventually_answers("history", json!({ "id": "large-39" }), |answer| {
            answer["reminders"].as_array()?.first().cloned()
        })
        .await;
    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, Value::Null);
    while pages == 0 || !cursor.is_null() {
        let answer = world
            .ask(
                "history",
                json!({ "user": "alice", "limit": 1000, "cursor": cursor }),
            )
            .await
            .unwrap();
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
    world
        .publish(
            "billing",
            numbers(0..5).iter().map(|n| reminder(n, "alice")),
        )
        .await;
    world.all_became("billing", &numbers(0..5), "parked").await;
    let mailbox = world
        .ask("mailbox", json!({ "user": "alice", "limit": 2 }))
        .await
        .unwrap();
    assert_eq!(mailbox["parked"], 5);
    let reminders = mailbox["reminders"].as_array().unwrap();
    assert_eq!(reminders.len(), 2);
    assert_eq!(
        reminders[0]["parked_at"].as_str().unwrap()[..16],
        mailbox["oldest"].as_str().unwrap()[..16]
    );
    let empty = world
        .ask("mailbox", json!({ "user": "bob" }))
        .await
        .unwrap();
    assert_eq!(empty, json!({ "parked": 0, "reminders": [] }));
}

#[tokio::test]
async fn the_service_is_seen_by_tools() {
    let world = World::start(&[]).await;
    world.ask("history", json!({})).await.unwrap();
    let ask = async |verb: &str| {
        let answer = world
            .client
            .request(format!("$SRV.{verb}.bellhop"), "".into())
            .await
            .unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()
    };
    let info = ask("INFO").await;
    assert_eq!(
        (&info["name"], &info["version"]),
        (&json!("bellhop"), &json!(env!("CARGO_PKG_VERSION")))
    );
    let subjects: BTreeSet<_> = info["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["subject"].as_str().unwrap())
        .collect();
    let questions = [
        "history",
        "why",
        "mailbox",
        "erase",
        "of.*.history",
        "of.*.why",
        "of.*.mailbox",
    ];
    let expected = questions.map(|question| format!("bellhop.api.{question}"));
    assert_eq!(subjects, expected.iter().map(String::as_str).collect());
    assert!(
        ask("STATS").await["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["num_requests"] == 1)
    );
}

#[tokio::test]
async fn queries_without_history_say_so() {
    let world = World::start(&[("history.url", "none")]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    let (code, problem) = world.ask("history", json!({})).await.unwrap_err();
    assert!(
        code == 503 && problem.contains("history.url"),
        "{code} {problem}"
    );
    assert_eq!(
        world
            .ask("mailbox", json!({ "user": "alice" }))
            .await
            .unwrap()["parked"],
        1
    );
    let why = world.run(&["why", "billing", "1"]).await;
    assert!(why.succeeded().contains("parked"));
    let outcomes = world
        .jetstream
        .get_stream("BELLHOP_OUTCOMES")
        .await
        .unwrap()
        .direct_get(1)
        .await
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&outcomes.payload).contains("content"),
        "no member would read it"
    );
}

#[tokio::test]
async fn erasure_counts_removed_entries() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice", "carol"]).await;
    for (user, list) in [("alice", "bob"), ("bob", "alice"), ("dave", "carol")] {
        let list = json!({ "associates": [list] }).to_string();
        let bucket = world
            .jetstream
            .get_key_value("bellhop_associates")
            .await
            .unwrap();
        bucket.put(user, list.into()).await.unwrap();
    }
    world
        .publish("billing", ["1", "2"].map(|id| reminder(id, "alice")))
        .await;
    world.publish("billing", [reminder("3", "carol")]).await;
    world.found(json!({ "outcome": "delivered" }), 3).await;
    app.stop().await;
    world
        .publish(
            "billing",
            [with(reminder("4", "alice"), json!({ "reroute": false }))],
        )
        .await;
    world
        .found(json!({ "user": "alice", "outcome": "parked" }), 1)
        .await;

    let erased = world
        .ask("erase", json!({ "user": "alice" }))
        .await
        .unwrap();
    let routes = erased["erased"]["routes"].clone();
    assert!(
        routes == 0 || routes == 1,
        "the router may have dropped it: {erased}"
    );
    assert_eq!(
        erased,
        json!({ "erased": { "history": 3, "parked": 1, "routes": routes, "associates": 2 } })
    );
    assert_eq!(ids(&world.found(json!({}), 1).await), ["3"]);
    assert_eq!(
        world
            .ask("mailbox", json!({ "user": "alice" }))
            .await
            .unwrap()["parked"],
        0
    );
    let again = world
        .ask("erase", json!({ "user": "alice" }))
        .await
        .unwrap();
    assert_eq!(
        again,
        json!({ "erased": { "history": 0, "parked": 0, "routes": 0, "associates": 0 } })
    );
    // Life goes on.
    world.publish("billing", [reminder("5", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
}

#[tokio::test]
async fn reminders_in_flight_are_erased_too() {
    nothing_is_kept_of_an_erased_user(World::start(&[]).await).await;
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn reminders_in_flight_are_erased_too_in_postgres() {
    if let Some(world) = world_with_postgres().await {
        nothing_is_kept_of_an_erased_user(world).await;
    }
}

async fn nothing_is_kept_of_an_erased_user(world: World) {
    let app = world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
    // A delivery is not answered, so the reminder is parked after the erasure.
    app.on_delivery(|_| Reply::silence());
    world.publish("billing", [reminder("2", "alice")]).await;
    let is_asked = async || {
        if app.attempts("2") > 0 {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    };
    world
        .eventually("the delivery is under way", is_asked)
        .await;
    world
        .ask("erase", json!({ "user": "alice" }))
        .await
        .unwrap();
    world.became("billing", "2", "parked").await;
    world.publish("billing", [reminder("3", "bob")]).await;
    assert_eq!(
        ids(&world.found(json!({}), 1).await),
        ["3"],
        "nothing of alice"
    );
    world
        .eventually("the mailbox is empty", async || {
            let mailbox = world
                .ask("mailbox", json!({ "user": "alice" }))
                .await
                .unwrap();
            if mailbox["parked"] == 0 {
                Ok(())
            } else {
                Err(mailbox.to_string())
            }
        })
        .await;
}

/// Outcomes as the stream has them, and as the history does: what, when, of which reminder.
type Fates = BTreeMap<(String, String), BTreeSet<(String, String)>>;

impl World {
    async fn fates_by_stream(&self) -> Fates {
        let mut fates = Fates::new();
        for one in self.outcomes.all().await {
            let key = (one.source.clone(), one.id.clone());
            fates
                .entry(key)
                .or_default()
                .insert((one.outcome.clone(), one.at.clone()));
        }
        fates
    }

    /// All pages of the history; each reminder in it once, with what it said.
    async fn fates_by_history(&self) -> Fates {
        let (mut fates, mut cursor) = (Fates::new(), Value::Null);
        loop {
            let answer = self
                .ask("history", json!({ "limit": 1000, "cursor": cursor }))
                .await
                .unwrap();
            for reminder in answer["reminders"].as_array().unwrap() {
                let text =
                    |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
                let (id, user) = (text(reminder, "id"), text(reminder, "user"));
                assert_eq!(
                    text(reminder, "content"),
                    format!("content of {id} for {user}"),
                    "{reminder}"
                );
                let trail = reminder["trail"].as_array().unwrap().iter();
                let trail: BTreeSet<_> = trail
                    .map(|step| (text(step, "outcome"), text(step, "at")))
                    .collect();
                assert!(
                    fates
                        .insert((text(reminder, "source"), id), trail)
                        .is_none(),
                    "it is there twice: {reminder}"
                );
            }
            cursor = answer["cursor"].clone();
            if cursor.is_null() {
                return fates;
            }
        }
    }

    /// Kills the writer at random points while reminders are delivered, parked, and delivered when
    /// their users are back; in the end the database must have exactly what the stream has.
    async fn the_writer_is_killed(&self, times: usize) {
        self.app("app-1", &["alice", "bob"]).await;
        let mut count = 0;
        for round in 0..times {
            for user in ["alice", "bob", "carol"] {
                let reminders = (0..fastrand::usize(1..40))
                    .map(|n| reminder(format!("{round}-{user}-{n}"), user));
                let reminders: Vec<_> = reminders.collect();
                count += reminders.len();
                self.publish_surely("billing", reminders).await;
            }
            if round == times / 2 {
                self.app("app-2", &["carol"]).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..60))).await;
            self.kill_and_revive().await;
        }
        self.within(
            LATER,
            "the history has all that the stream has",
            async || {
                let (stream, history) =
                    (self.fates_by_stream().await, self.fates_by_history().await);
                match stream.len() == count && stream == history {
                    true => Ok(()),
                    false => Err(format!(
                        "{count} published, {} in the stream, {} known",
                        stream.len(),
                        history.len()
                    )),
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn killed_writer_loses_and_repeats_nothing() {
    World::start(&[]).await.the_writer_is_killed(20).await;
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn killed_writer_loses_and_repeats_nothing_in_postgres() {
    if let Some(world) = world_with_postgres().await {
        world.the_writer_is_killed(20).await;
    }
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn any_member_answers_from_shared_database() {
    let Some(world) = world_with_postgres().await else {
        return;
    };
    world.publish("billing", [reminder("1", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
    let first = world.member();
    world.serve().await;
    first.kill();
    // Before anybody has noticed that the first one is gone.
    assert_eq!(
        ids(&world.found(json!({ "user": "alice" }), 1).await),
        ["1"]
    );
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn returning_database_catches_up() {
    let Some(url) = postgres::database().await else {
        return;
    };
    let world = World::without_members("", &[]).await;
    // Its socket is in a directory that is not there yet.
    let (before, socket) = url.split_once("host=").unwrap();
    let (socket, after) = socket.split_once('&').unwrap();
    let link = world.dir().join("pg");
    let url = format!("{before}host={}&{after}", link.display());
    let member = world.launch("member-1", &[("history.url", &url)]);
    world
        .eventually("the member is ready", async || member.is_ready().await)
        .await;
    let app = world.app("app-1", &["alice"]).await;
    world
        .publish(
            "billing",
            numbers(0..300).iter().map(|id| reminder(id, "alice")),
        )
        .await;
    world.taken(&numbers(0..300)).await;
    let (code, problem) = world.ask("history", json!({})).await.unwrap_err();
    assert!(
        code == 503 && problem.contains("postgres://"),
        "{code} {problem}"
    );
    std::os::unix::fs::symlink(socket, &link).unwrap();
    world
        .found(json!({ "outcome": "delivered", "limit": 1000 }), 300)
        .await;
    drop(app);
}

#[tokio::test]
async fn unavailable_database_delays_only_the_history() {
    let world = World::start(&[("history.url", "sqlite:/dev/null/history.db")]).await;
    world.app("app-1", &["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "delivered").await;
    let (code, problem) = world.ask("history", json!({})).await.unwrap_err();
    assert!(
        code == 503 && problem.contains("/dev/null"),
        "{code} {problem}"
    );
    let member = world.member();
    let probe = async |path: &str| member.probe("GET", path).await.map(|answer| answer.body);
    world
        .eventually("the probe says that the history is behind", async || {
            let said = probe("/readyz?verbose").await?;
            if said.contains("history is behind") && said.ends_with("ok\n") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    world
        .eventually("a metric says so", async || {
            let metrics = probe("/metrics").await?;
            let lag = metrics.lines().find_map(|line| {
                line.strip_prefix("bellhop_history_lag_seconds ")?
                    .parse::<f64>()
                    .ok()
            });
            if lag > Some(0.5) {
                Ok(())
            } else {
                Err(format!("{lag:?}"))
            }
        })
        .await;
}

#[tokio::test]
async fn another_member_takes_the_history_over() {
    let world = World::start(&[("members.ttl", "2s"), ("members.interval", "500ms")]).await;
    world.serve().await;
    let holder_but = async |gone: &str| {
        let cards = world.cards().await;
        let held = cards
            .into_iter()
            .find(|(name, card)| card["history"] == true && name != gone);
        held.map(|(name, _)| name)
            .ok_or_else(|| "no member".to_owned())
    };
    let first = world
        .eventually("some member has the history", async || holder_but("").await)
        .await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
    world.member_named(&first).kill();
    world.publish("billing", [reminder("2", "alice")]).await;
    assert_eq!(
        ids(&world.found(json!({ "user": "alice" }), 2).await),
        ["2", "1"]
    );
    world
        .eventually("another member has the history", async || {
            holder_but(&first).await
        })
        .await;
}

#[tokio::test]
async fn commands_show_follow_and_erase_history() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    world
        .publish(
            "billing",
            [with(
                reminder("1", "alice"),
                json!({ "title": "Due", "content": "Invoice \u{7}981" }),
            )],
        )
        .await;
    world.found(json!({}), 1).await; // What is published within one millisecond has no order in the history.
    world.publish("billing", [reminder("2", "bob")]).await;
    world.found(json!({}), 2).await;
    let table = world.run(&["history", "--since", "1h"]).await.succeeded();
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines.len() == 3 && lines[1].contains("parked") && lines[1].contains("bob"),
        "{table}"
    );
    assert!(
        lines[2].contains("delivered")
            && lines[2].contains("Due: Invoice")
            && !table.contains('\u{7}'),
        "{table}"
    );
    let json = world
        .run(&["history", "--contains", "invoice", "--json"])
        .await
        .succeeded();
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap()["trail"][0]["instance"],
        "app-1"
    );
    assert!(
        world
            .run(&["history", "--user", "stranger"])
            .await
            .succeeded()
            .contains("no such reminder")
    );
    assert_eq!(
        world.run(&["history", "--since", "soon"]).await.code,
        Some(2)
    );

    let arguments = [
        "history",
        "--follow",
        "--json",
        "--contains",
        "content of",
        "--nats",
        &world.url,
    ]
    .map(ToOwned::to_owned);
    let following = world.launch_with("following", &arguments);
    let has_printed = async |what: &str| {
        if following.log().contains(what) {
            Ok(())
        } else {
            Err(following.log())
        }
    };
    world
        .eventually("known reminders are shown", async || {
            has_printed(r#""id":"2""#).await
        })
        .await;
    world.publish("billing", [reminder("3", "carol")]).await;
    world
        .eventually("new reminders are shown", async || {
            has_printed(r#""id":"3""#).await
        })
        .await;
    world.app("app-2", &["carol"]).await;
    world
        .eventually("outcomes are shown", async || {
            has_printed(r#""instance":"app-2""#).await
        })
        .await;
    assert!(!following.log().contains(r#""id":"1""#), "the filter holds");
    following.signal("KILL");

    let why = world.run(&["why", "billing", "2"]).await.succeeded();
    assert!(
        why.contains("for bob") && why.contains("parked") && why.contains("in the mailbox of bob"),
        "{why}"
    );

    let refused = world.run(&["erase", "bob"]).await;
    assert!(
        refused.code == Some(2) && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    let erased = world.run(&["erase", "bob", "-f"]).await.succeeded();
    assert!(
        erased.contains(
            "1 reminder of the history, 1 reminder of the mailbox, 0 scheduled reminders, 0 routes"
        ),
        "{erased}"
    );
    let gone = world.run(&["why", "billing", "2"]).await;
    assert!(
        gone.code == Some(1) && gone.stderr.contains("no outcome"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn no_copy_is_kept_for_an_erased_user() {
    let world = World::start(&[("delivery.copy_rerouted", "true")]).await;
    let app = world.app("app-1", &["bob"]).await;
    let bucket = world
        .jetstream
        .get_key_value("bellhop_associates")
        .await
        .unwrap();
    bucket
        .put("alice", r#"{"associates":["bob"]}"#.into())
        .await
        .unwrap();
    app.on_delivery(|_| Reply::accept().after(std::time::Duration::from_secs(1)));
    let is_asked = |id: &str| {
        if app.attempts(id) > 0 {
            Ok(())
        } else {
            Err("it was parked".to_owned())
        }
    };
    let mut ids = numbers(0..100).into_iter();
    let id = loop {
        let id = ids.next().expect("the associate is asked at last");
        world.publish("billing", [reminder(&id, "alice")]).await;
        let is_notified = async || {
            let is_parked = !world.trail("billing", &id).await.is_empty();
            if is_parked { Ok(()) } else { is_asked(&id) }
        };
        world
            .eventually("it is on its way, or parked", is_notified)
            .await;
        if is_asked(&id).is_ok() {
            break id;
        }
    };
    world
        .ask("erase", json!({ "user": "alice" }))
        .await
        .unwrap();
    world.became("billing", &id, "rerouted").await;
    world
        .eventually("the mailbox is empty", async || {
            let mailbox = world
                .ask("mailbox", json!({ "user": "alice" }))
                .await
                .unwrap();
            if mailbox["parked"] == 0 {
                Ok(())
            } else {
                Err(mailbox.to_string())
            }
        })
        .await;
}

#[tokio::test]
async fn refused_long_user_name_delays_nothing() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    // Outcomes that name them all would not fit into one message.
    let refused = json!({ "user": "x".repeat(4_100), "content": "c" });
    let set = json!({ "reminders": vec![refused; 250] }).to_string();
    world
        .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
        .await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "delivered").await;
    world
        .found(json!({ "outcome": "rejected", "limit": 1000 }), 250)
        .await;
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn unstorable_text_does_not_stop_postgres() {
    let Some(world) = world_with_postgres().await else {
        return;
    };
    for user in [json!("a\u{0}b"), json!("x".repeat(10_000))] {
        let set = json!({ "reminders": [{ "user": user, "content": "c" }] }).to_string();
        world
            .publish_bytes("billing", set.as_bytes(), HeaderMap::new())
            .await;
    }
    world.publish("billing", [reminder("1", "alice")]).await;
    world.found(json!({ "user": "alice" }), 1).await;
    world.found(json!({ "outcome": "rejected" }), 2).await;
}

#[tokio::test]
async fn refused_reminders_have_no_text() {
    let world = World::start(&[("mailbox.limit", "1")]).await;
    world
        .publish("billing", ["1", "2"].map(|id| reminder(id, "alice")))
        .await;
    let refused = world.found(json!({ "outcome": "rejected" }), 1).await;
    assert_eq!(refused[0]["trail"][0]["error"], "mailbox_full");
    assert_eq!(refused[0].get("content"), None);
}

#[tokio::test]
async fn restarted_service_is_listed_once() {
    let world = World::start(&[]).await;
    world.ask("history", json!({})).await.unwrap();
    let outcomes = world
        .jetstream
        .get_stream("BELLHOP_OUTCOMES")
        .await
        .unwrap();
    outcomes.delete_consumer("history").await.unwrap();
    let member = world.member();
    world
        .within(LATER, "the writer restarts a few times", async || {
            let times = member.log().matches("role=history").count();
            if times >= 3 {
                Ok(())
            } else {
                Err(times.to_string())
            }
        })
        .await;
    let inbox = world.client.new_inbox();
    let mut answers = world.client.subscribe(inbox.clone()).await.unwrap();
    world
        .client
        .publish_with_reply("$SRV.PING.bellhop", inbox, "".into())
        .await
        .unwrap();
    let mut seen = 0;
    while let Ok(Some(answer)) =
        tokio::time::timeout(std::time::Duration::from_millis(500), answers.next()).await
    {
        seen += usize::from(answer.status.is_none());
    }
    assert!(seen <= 1, "{seen} services");
}

/// Without a check, an answer without a body could remove every mailbox.
#[tokio::test]
async fn an_answer_is_no_order_to_jetstream() {
    let world = World::start(&[]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    let wrong = "{";
    let answer_seen = world
        .client
        .request("bellhop.api.why", wrong.into())
        .await
        .unwrap();
    assert!(answer_seen.payload.is_empty(), "a refusal is headers alone");
    for order in [
        "$JS.API.STREAM.PURGE.BELLHOP_PARKED",
        "bellhop.sets.billing",
    ] {
        world
            .client
            .publish_with_reply("bellhop.api.why", order, wrong.into())
            .await
            .unwrap();
        let member = world.member();
        let is_notified = async || {
            if member.log().contains(order) {
                Ok(())
            } else {
                Err("it is not".to_owned())
            }
        };
        world.eventually("the asker is notified", is_notified).await;
    }
    assert_eq!(
        world
            .ask("mailbox", json!({ "user": "alice" }))
            .await
            .unwrap()["parked"],
        1
    );
}

#[tokio::test]
async fn former_history_writer_reports_no_lag() {
    let world = World::start(&[("history.url", "sqlite:/dev/null/history.db")]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    let first = world.member();
    let probe = async || {
        first
            .probe("GET", "/readyz?verbose")
            .await
            .map(|answer| answer.body)
    };
    let is_behind = |said: &str| said.contains("history is behind");
    world
        .eventually("it is behind", async || {
            probe()
                .await
                .and_then(|said| is_behind(&said).then_some(()).ok_or(said))
        })
        .await;
    // A new member takes some roles; after a few, this one.
    while world.cards().await[first.name()]["history"] == true {
        let next = world.serve().await;
        world
            .within(LATER, "it works what it holds", async || {
                next.is_ready().await
            })
            .await;
    }
    world
        .eventually("it is not its own", async || {
            probe()
                .await
                .and_then(|said| if is_behind(&said) { Err(said) } else { Ok(()) })
        })
        .await;
}

#[cfg_attr(
    not(has_postgres),
    ignore = "no PostgreSQL here: apt-get install postgresql"
)]
#[tokio::test]
async fn hanging_database_is_reported_and_stopping_works() {
    let Some(url) = postgres::database().await else {
        return;
    };
    let world = World::start(&[("history.url", &url), ("members.grace", "1s")]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.found(json!({}), 1).await;
    let blocker = postgres::connect(&url).await.unwrap();
    blocker
        .batch_execute("BEGIN; LOCK TABLE reminders")
        .await
        .unwrap();
    world.publish("billing", [reminder("2", "alice")]).await;
    let member = world.member();
    world
        .within(
            2 * LATER,
            "the probe says that the history is behind",
            async || {
                let said = member.probe("GET", "/readyz?verbose").await?.body;
                if said.contains("history is behind") {
                    Ok(())
                } else {
                    Err(said)
                }
            },
        )
        .await;
    member.signal("TERM");
    world.ended(&member).await;
}

/// One announcement goes to many users under one id: each user's is a reminder of its own.
#[tokio::test]
async fn bellhop_why_answers_for_each_user() {
    for history in [&[][..], &[("history.url", "none")]] {
        let world = World::start(history).await;
        world.app("app-1", &["alice"]).await;
        let users = ["alice", "bob"];
        world
            .publish("hr", users.map(|user| reminder("meeting", user)))
            .await;
        let said = async |args: &[&str], expected: &[&str]| {
            let is_said = async || {
                let why = world.run(args).await;
                match expected.iter().find(|part| !why.stdout.contains(*part)) {
                    None => Ok(why.stdout),
                    Some(part) => Err(format!("{part} is missing: {why:?}")),
                }
            };
            world.eventually("why says it", is_said).await
        };
        let of_all = said(
            &["why", "hr", "meeting"],
            &["for alice", "for bob", "delivered", "in the mailbox of bob"],
        );
        of_all.await;
        let of_one = said(&["why", "hr", "meeting", "--user", "bob"], &["for bob"]).await;
        assert!(!of_one.contains("delivered"), "{of_one}");
        let json = world.run(&["why", "hr", "meeting", "--json"]).await;
        let json: Value = serde_json::from_str(&json.succeeded()).unwrap();
        assert_eq!(json["users"].as_array().map(Vec::len), Some(2), "{json}");
        if history.is_empty() {
            let query = json!({ "source": "hr", "id": "meeting", "user": "alice" });
            let why = world.ask("why", query).await.unwrap();
            assert_eq!(why["reminder"]["user"], "alice");
            assert_eq!(why["users"], Value::Null);
        }
    }
}
