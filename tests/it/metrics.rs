//! `/metrics` as Prometheus reads it.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use serde_json::json;

use crate::harness::{Reply, World, reminder, with};

impl World {
    /// Every sample of the first member, by its name with its labels.
    async fn samples(&self) -> Result<BTreeMap<String, f64>, String> {
        let text = self.member().probe("GET", "/metrics").await?.body;
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect())
    }

    /// Waits until these samples have these values.
    async fn counted(&self, expected: &[(&str, f64)]) {
        self.eventually("all is counted", async || {
            let samples = self.samples().await?;
            let is_wrong = |(name, value): &&(&str, f64)| samples.get(*name) != Some(value);
            let wrong: Vec<_> = expected
                .iter()
                .filter(is_wrong)
                .map(|(name, _)| (name, samples.get(*name)))
                .collect();
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(format!("{wrong:?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn sets_and_outcomes_are_counted() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    let twin = |id| with(reminder(id, "alice"), json!({ "content": "the same" }));
    let urgent = with(reminder("urgent", "alice"), json!({ "priority": "urgent" }));
    world
        .publish(
            "billing",
            [
                urgent.clone(),
                twin("twin"),
                twin("other"),
                reminder("away", "bob"),
            ],
        )
        .await;
    world.publish("billing", [urgent]).await;
    world
        .publish_bytes(
            "billing",
            br#"{"reminders":[{"id":"bad","user":"alice","content":""}]}"#,
            HeaderMap::new(),
        )
        .await;
    world
        .publish_bytes("billing", b"no json", HeaderMap::new())
        .await;
    world
        .all_became("billing", &["urgent", "twin"], "delivered")
        .await;
    world.became("billing", "bad", "rejected").await;
    world
        .counted(&[
            ("bellhop_sets_total", 4.0),
            (r#"bellhop_reminders_total{result="new"}"#, 4.0),
            (r#"bellhop_reminders_total{result="repeat"}"#, 1.0),
            (r#"bellhop_reminders_total{result="refused"}"#, 2.0),
            (r#"bellhop_rejected_total{code="invalid_content"}"#, 1.0),
            (r#"bellhop_rejected_total{code="not_json"}"#, 1.0),
            (r#"bellhop_outcomes_total{outcome="delivered"}"#, 2.0),
            (r#"bellhop_outcomes_total{outcome="merged"}"#, 1.0),
            (r#"bellhop_outcomes_total{outcome="parked"}"#, 1.0),
            (r#"bellhop_outcomes_total{outcome="rejected"}"#, 1.0),
            (
                r#"bellhop_published_to_accepted_seconds_count{priority="urgent",way="direct"}"#,
                1.0,
            ),
            (
                r#"bellhop_published_to_accepted_seconds_count{priority="normal",way="direct"}"#,
                1.0,
            ),
            ("bellhop_delivery_reminders_total", 2.0),
            (r#"bellhop_roles{role="partition"}"#, 4.0),
            (r#"bellhop_roles{role="history"}"#, 1.0),
            ("bellhop_members", 1.0),
            ("bellhop_nats_connected", 1.0),
            ("bellhop_ready", 1.0),
            ("bellhop_routes", 1.0),
            ("bellhop_connected_users", 1.0),
            (r#"bellhop_parked_users{connected="false"}"#, 1.0),
            (r#"bellhop_parked_users{connected="true"}"#, 0.0),
            (r#"bellhop_parked_reminders{connected="false"}"#, 1.0),
            (r#"bellhop_instances{state="up"}"#, 1.0),
            (r#"bellhop_stream_messages{stream="rejected"}"#, 2.0),
            (r#"bellhop_consumer_pending{role="partition"}"#, 0.0),
            ("bellhop_events_in_flight_limit", 1_000.0),
            ("bellhop_deliveries_in_flight", 0.0),
            (r#"bellhop_history_reminders_total{result="new"}"#, 5.0),
        ])
        .await;

    // Through the mailbox, after an instance that is busy.
    app.on_delivery(|batch| Reply::refuse(batch, "busy", |_| true));
    world.publish("billing", [reminder("later", "alice")]).await;
    world
        .counted(&[(r#"bellhop_outcomes_total{outcome="parked"}"#, 2.0)])
        .await;
    app.recover();
    world.became("billing", "later", "delivered").await;
    world
        .counted(&[
            (
                r#"bellhop_published_to_accepted_seconds_count{priority="normal",way="mailbox"}"#,
                1.0,
            ),
            (r#"bellhop_history_reminders_total{result="changed"}"#, 1.0),
        ])
        .await;
    assert!(world.samples().await.unwrap()[r#"bellhop_refusals_total{reason="busy"}"#] >= 1.0);
}

#[tokio::test]
async fn results_of_requests_and_queries_are_counted() {
    let world = World::start(&[("heartbeat.timeout", "200ms")]).await;
    let app = world.app("app-1", &[]).await;
    app.on_heartbeat(|_| Reply::silence());
    app.connect(&["alice"]).await;
    world.publish("billing", [reminder("1", "alice")]).await;
    world.became("billing", "1", "parked").await;
    assert!(
        world.samples().await.unwrap()[r#"bellhop_heartbeats_total{result="timed_out"}"#] >= 1.0
    );
    app.recover();
    world.became("billing", "1", "delivered").await;
    app.expel("alice");
    app.on_delivery(|batch| Reply::refuse(batch, "not_connected", |_| true));
    world.publish("billing", [reminder("2", "alice")]).await;
    world.became("billing", "2", "parked").await;
    world
        .counted(&[
            (r#"bellhop_refusals_total{reason="not_connected"}"#, 1.0),
            ("bellhop_routes_dropped_total", 1.0),
            (r#"bellhop_deliveries_total{result="answered"}"#, 2.0),
        ])
        .await;
    for (question, body) in [
        ("mailbox", r#"{"user":"alice"}"#),
        ("mailbox", "{}"),
        ("why", r#"{"source":"a","id":"b"}"#),
    ] {
        let asked = async || {
            let answer = world
                .client
                .request(format!("bellhop.api.{question}"), body.into())
                .await;
            answer.map_err(|error| error.to_string())
        };
        world.eventually("the service answers", asked).await;
    }
    world
        .counted(&[
            (
                r#"bellhop_queries_total{question="mailbox",result="answered"}"#,
                1.0,
            ),
            (
                r#"bellhop_queries_total{question="mailbox",result="refused"}"#,
                1.0,
            ),
            (
                r#"bellhop_queries_total{question="why",result="refused"}"#,
                1.0,
            ),
            (r#"bellhop_query_seconds_count{question="mailbox"}"#, 2.0),
        ])
        .await;
}
