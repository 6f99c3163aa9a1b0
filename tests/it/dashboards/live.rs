//! Every query has an answer where a real Prometheus scrapes a real Bellhop that has much to do.

use std::time::Duration;

use async_nats::HeaderMap;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::alerts::Loaded;
use super::exported::Exported;
use super::files::{self, Dashboard};
use super::query;
use crate::harness::prometheus::Prometheus;
use crate::harness::{Reply, World, from_now, reminder, with};

/// The values of Grafana's variables, with a scrape each second.
const VARIABLES: [(&str, &str); 4] = [
    ("$__rate_interval", "10s"),
    ("$__range", "1m"),
    ("$job", "bellhop"),
    ("$instance", ".+"),
];
/// It takes some ten seconds, and more on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two rounds of what business systems say.
const ROUND: Duration = Duration::from_millis(200);

#[tokio::test]
#[cfg_attr(
    not(has_prometheus),
    ignore = "no Prometheus here: apt-get install prometheus"
)]
async fn every_panel_and_alert_query_has_data() {
    // The account has a limit, to which its use is compared.
    let account = "accounts { A { jetstream { max_file: 100MB }, users: [{user: a, password: a}] } }\nno_auth_user: a";
    let settings = [
        ("mailbox.limit", "20"),
        ("heartbeat.timeout", "200ms"),
        ("streams.storage", "67108864"),
    ];
    let world = World::without_members(account, &settings).await;
    world.serve().await;
    every_exported_metric_is_known(&world).await;
    let address = world.member().address().unwrap().to_string();
    let config = files::text("dashboards/prometheus.yml")
        .replace("127.0.0.1:9411", &address)
        .replace("15s", "1s");
    let Some(prometheus) = Prometheus::start(&config, &files::path("dashboards/alerts.yml")).await
    else {
        return;
    };
    assert_eq!(prometheus.values("bellhop_nothing").await, Ok(vec![]));
    people(&world).await;
    let mut silent = queries(&prometheus).await;
    let all_speak = world.within(DEADLINE, "every query has data", async || {
        silent = without_data(&prometheus, &silent).await;
        if silent.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{} have none:\n{}",
                silent.len(),
                silent.join("\n")
            ))
        }
    });
    tokio::select! {
        () = all_speak => {}
        () = business(&world) => {}
    }
}

/// Checks that the dashboards' list of metrics has everything that the member exports.
async fn every_exported_metric_is_known(world: &World) {
    let exported_text = world.member().probe("GET", "/metrics").await.unwrap().body;
    let exported_text = exported_text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(
        exported_text.collect::<Vec<_>>(),
        Exported::read().names().collect::<Vec<_>>()
    );
}

/// The queries of all panels, and what alerts compare.
async fn queries(prometheus: &Prometheus) -> Vec<String> {
    let dashboards = Dashboard::all();
    let of_panels = dashboards
        .iter()
        .flat_map(Dashboard::queries)
        .map(|(_, target)| target.expr.clone());
    let loaded = Loaded::by(prometheus).await;
    let of_alerts = loaded
        .alerts()
        .flat_map(|alert| query::operands(&alert.query));
    let filled = |query| {
        VARIABLES
            .iter()
            .fold(query, |query: String, (name, value)| {
                query.replace(name, value)
            })
    };
    of_panels.chain(of_alerts).map(filled).collect()
}

async fn without_data(prometheus: &Prometheus, queries: &[String]) -> Vec<String> {
    let mut silent = Vec::new();
    for query in queries {
        let values = prometheus
            .values(query)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        if values.is_empty() {
            silent.push(query.clone());
        }
    }
    silent
}

/// Alice is there and stands in for carol; dave's app server is busy, erin's says nothing; there
/// are rules, good and bad.
async fn people(world: &World) {
    world.app("app-1", &["alice"]).await;
    world
        .app("app-busy", &["dave"])
        .await
        .on_delivery(|batch| Reply::refuse(batch, "busy", |_| true));
    world
        .app("app-silent", &["erin"])
        .await
        .on_heartbeat(|_| Reply::silence());
    world
        .put_associates("carol", json!({ "associates": ["alice"] }))
        .await;
    let rules = world
        .jetstream
        .get_key_value("bellhop_rules")
        .await
        .unwrap();
    rules
        .put(
            "secret",
            r#"{"rules":[{"name":"all","keywords":["secret"],"action":"block"}]}"#.into(),
        )
        .await
        .unwrap();
    rules.put("broken", "no rules".into()).await.unwrap();
}

/// Publishes something of every kind, and asks, again and again.
async fn business(world: &World) {
    let mut rounds = tokio::time::interval(ROUND);
    for round in 0.. {
        rounds.tick().await;
        let of =
            |user: &str, fields: Value| with(reminder(format!("{user}-{round}"), user), fields);
        let alike = |n| {
            with(
                reminder(format!("alike-{round}-{n}"), "alice"),
                json!({ "content": format!("{round}") }),
            )
        };
        let priorities = ["low", "normal", "high", "urgent"];
        let direct = priorities.map(|name| {
            with(
                reminder(format!("{name}-{round}"), "alice"),
                json!({ "priority": name }),
            )
        });
        let others = [
            alike(1),
            alike(2),
            of(
                "bob",
                json!({ "expires_at": from_now(SignedDuration::from_secs(2)) }),
            ),
            of("carol", json!({})),
            of("dave", json!({})),
            of("erin", json!({})),
            of(
                "frank",
                json!({ "tags": ["secret"], "content": "a secret" }),
            ),
        ];
        world
            .publish("billing", direct.into_iter().chain(others))
            .await;
        world
            .publish_bytes("billing", b"no json", HeaderMap::new())
            .await;
        for (question, body) in [
            ("mailbox", r#"{"user":"bob"}"#),
            ("history", r#"{"user":"alice"}"#),
        ] {
            // An unanswered query is repeated.
            let _ = world
                .client
                .request(format!("bellhop.api.{question}"), body.into())
                .await;
        }
    }
}
