//! Answers to app servers' queries: only about users who have a route there.

use serde_json::{Value, json};

use crate::harness::{LATER, World, reminder};
use crate::secured::{NatsUser, Realm, Verdict, eventually};

#[tokio::test]
async fn app_server_sees_only_its_users() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    world.app("app-2", &["bob"]).await;
    world
        .publish(
            "billing",
            [
                reminder("1", "alice"),
                reminder("2", "bob"),
                reminder("3", "carol"),
            ],
        )
        .await;
    for (id, outcome) in [("1", "delivered"), ("2", "delivered"), ("3", "parked")] {
        world.became("billing", id, outcome).await;
    }
    let ask =
        async |question: &str, body: Value| world.ask(&format!("of.app-1.{question}"), body).await;
    let why = |id: &str| json!({ "source": "billing", "id": id });
    assert_eq!(
        ask("history", json!({ "user": "alice" })).await.unwrap()["reminders"][0]["id"],
        "1"
    );
    assert_eq!(
        ask("why", why("1")).await.unwrap()["reminder"]["user"],
        "alice"
    );
    assert_eq!(
        ask("mailbox", json!({ "user": "alice" })).await.unwrap()["parked"],
        0
    );
    for (question, body) in [
        ("history", json!({})),
        ("history", json!({ "source": "billing" })),
        ("history", json!({ "user": "bob" })),
        ("history", json!({ "user": "carol" })),
        ("why", why("2")),
        ("why", why("3")),
        // The answer does not reveal whether there is such a reminder.
        ("why", why("unknown")),
        ("mailbox", json!({ "user": "bob" })),
        ("mailbox", json!({ "user": "carol" })),
    ] {
        let (code, problem) = ask(question, body.clone()).await.unwrap_err();
        assert!(
            code == 403 && problem.contains("`app-1`"),
            "{question} {body}: {code} {problem}"
        );
    }
    // A wrong request, a name that no instance has, and a route that is refused.
    assert_eq!(ask("mailbox", json!({})).await.unwrap_err().0, 400);
    assert_eq!(
        world
            .ask("of.=zz.history", json!({ "user": "alice" }))
            .await
            .unwrap_err()
            .0,
        403
    );
    let wrong = json!({ "subject": "bellhop.app.app-2" }).to_string();
    world
        .routes()
        .await
        .put("carol.app-1", wrong.into())
        .await
        .unwrap();
    assert_eq!(
        ask("mailbox", json!({ "user": "carol" }))
            .await
            .unwrap_err()
            .0,
        403
    );
    // A user who leaves is gone at once; a trusted app server asks as before.
    app.delete_route("alice").await;
    assert_eq!(
        ask("history", json!({ "user": "alice" }))
            .await
            .unwrap_err()
            .0,
        403
    );
    assert_eq!(
        world.ask("why", why("2")).await.unwrap()["reminder"]["user"],
        "bob"
    );
    assert_eq!(world.ask("why", why("unknown")).await.unwrap_err().0, 404);
}

/// The code with which a question is refused; none if it is answered.
async fn refused(asker: &NatsUser, question: &str, body: Value) -> Option<String> {
    let verdict = asker
        .ask(&format!("bellhop.api.{question}"), &body.to_string())
        .await;
    let Verdict::Answered(answer) = verdict else {
        panic!("{question}: {verdict:?}")
    };
    answer.headers.and_then(|headers| {
        headers
            .get("Nats-Service-Error-Code")
            .map(ToString::to_string)
    })
}

#[tokio::test]
async fn account_identifies_the_asking_app_server() {
    let realm = Realm::start().await;
    let settings = ["partitions=1"];
    realm
        .run("operator", &["setup", "--set", "partitions=1"], "")
        .await
        .succeeded();
    let _member = realm.serve("member-1", &settings).await;
    let (first, second) = (
        realm.nats_user("app-1").await,
        realm.nats_user("app-2").await,
    );
    let operator = realm.nats_user("operator").await;
    let of_alice = json!({ "user": "alice" });
    eventually("the history is there", async || {
        let code = refused(&operator, "history", json!({})).await;
        code.map_or(Ok(()), Err)
    })
    .await;
    assert_eq!(
        refused(&first, "history", of_alice.clone())
            .await
            .as_deref(),
        Some("403")
    );
    let put = first.ask("$KV.bellhop_routes.alice.app-1", "").await;
    assert!(matches!(put, Verdict::Answered(_)), "{put:?}");
    for question in ["history", "mailbox"] {
        assert_eq!(
            refused(&first, question, of_alice.clone()).await,
            None,
            "{question}"
        );
        assert_eq!(
            refused(&second, question, of_alice.clone())
                .await
                .as_deref(),
            Some("403"),
            "{question}"
        );
    }
}

#[tokio::test]
async fn endpoints_are_made_once_they_are_permitted() {
    let config = |more: &str| {
        format!(
            "accounts {{ A {{ jetstream: enabled, users: [ {{ user: u, password: p{more} }} ] }} }}\nno_auth_user: u"
        )
    };
    let denied = r#", permissions: { subscribe: { deny: ["bellhop.api.of.*.mailbox", "bellhop.metrics"] } }"#;
    let world = World::without_members(&config(denied), &[]).await;
    world.serve().await;
    world.app("app-1", &["alice"]).await;
    let is_refused = async || {
        let log = world.member().log();
        let both = ["bellhop.api.of.*.mailbox", "bellhop.metrics"]
            .iter()
            .all(|subject| log.contains(subject));
        if both {
            Ok(())
        } else {
            Err("it is not".to_owned())
        }
    };
    world.eventually("it is refused", is_refused).await;
    world.reconfigure_nats(&config("")).await;
    let is_answered = async || {
        let asked = world.client.request(
            "bellhop.api.of.app-1.mailbox",
            json!({ "user": "alice" }).to_string().into(),
        );
        asked.await.map_err(|error| error.to_string())?;
        world
            .client
            .request("bellhop.metrics", "".into())
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    world.within(LATER, "both are answered", is_answered).await;
}
