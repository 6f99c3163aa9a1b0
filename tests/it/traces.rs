//! The trace that a set belongs to reaches the app server.

use async_nats::HeaderMap;
use serde_json::json;

use crate::harness::{App, Reply, World, reminder};

const TRACES: [&str; 3] = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01",
];

impl World {
    async fn publish_traced(&self, id: &str, header: &str, trace: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(header, trace);
        self.publish_set(
            "billing",
            json!({ "reminders": [reminder(id, "alice")] }),
            headers,
        )
        .await;
    }
}

/// The header of the last delivery that had this reminder.
fn header_of(app: &App, id: &str, header: &str) -> Option<String> {
    let has_it =
        |request: &[u8]| String::from_utf8_lossy(request).contains(&format!(r#""id":"{id}""#));
    let requests = app.requests();
    let last = requests
        .iter()
        .rev()
        .find(|request| has_it(&request.body))
        .unwrap();
    last.header(header).map(ToOwned::to_owned)
}

/// The trace of a `traceparent`; its span is the delivery's.
fn trace(header: Option<String>) -> Option<String> {
    Some(header?.get(3..35)?.to_owned())
}

#[tokio::test]
async fn delivery_carries_the_trace_of_its_set() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    world.publish_traced("live", "traceparent", TRACES[0]).await;
    world.became("billing", "live", "delivered").await;
    assert_eq!(
        trace(header_of(&app, "live", "traceparent")),
        trace(Some(TRACES[0].to_owned()))
    );
    assert_eq!(
        header_of(&app, "live", "Bellhop-Traces"),
        None,
        "there is one"
    );
    // However it is written; and what is not a trace is left away, and the reminder goes on.
    // Each waits for the one before, so that no delivery has two sets.
    world
        .publish_traced("capital", "Traceparent", TRACES[1])
        .await;
    world.became("billing", "capital", "delivered").await;
    world.publish_traced("odd", "traceparent", "00-what").await;
    world.became("billing", "odd", "delivered").await;
    world.publish("billing", [reminder("none", "alice")]).await;
    world.became("billing", "none", "delivered").await;
    assert_eq!(
        trace(header_of(&app, "capital", "traceparent")),
        trace(Some(TRACES[1].to_owned()))
    );
    assert_eq!(header_of(&app, "odd", "traceparent"), None);
    assert_eq!(header_of(&app, "none", "traceparent"), None);
}

#[tokio::test]
async fn mailbox_keeps_traces_for_the_delivery() {
    let world = World::start(&[]).await;
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|batch| Reply::refuse(batch, "busy", |_| true));
    for (id, trace) in ["a", "b", "c"].into_iter().zip(TRACES) {
        world.publish_traced(id, "traceparent", trace).await;
    }
    world.publish_traced("d", "traceparent", TRACES[0]).await;
    world
        .all_became("billing", &["a", "b", "c", "d"], "parked")
        .await;
    app.recover();
    world
        .all_became("billing", &["a", "b", "c", "d"], "delivered")
        .await;
    let requests = app.requests();
    let all = requests
        .iter()
        .rev()
        .find_map(|request| request.header("Bellhop-Traces"))
        .unwrap();
    assert_eq!(all, TRACES.join(","), "each once, in order");
    assert_eq!(
        trace(header_of(&app, "a", "traceparent")),
        trace(Some(TRACES[0].to_owned()))
    );
}

#[cfg(feature = "otlp")]
mod exported {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A collector: it takes what is posted to it.
    async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, posted) = (
            format!("http://{}", listener.local_addr().unwrap()),
            Arc::<Mutex<Vec<u8>>>::default(),
        );
        let taken = posted.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(take(connection, taken.clone()));
            }
        });
        (url, posted)
    }

    async fn take(connection: TcpStream, taken: Arc<Mutex<Vec<u8>>>) {
        let mut connection = BufReader::new(connection);
        let mut length = None;
        let mut line = String::new();
        while connection
            .read_line(&mut line)
            .await
            .is_ok_and(|bytes| bytes > 0)
        {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
            if line == "\r\n" {
                let mut body = vec![0; length.take().unwrap_or(0)];
                connection.read_exact(&mut body).await.unwrap();
                taken.lock().unwrap().extend(body);
                connection
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
            line.clear();
        }
    }

    /// The bytes of a trace's id, as they are in an export.
    fn id_bytes(traceparent: &str) -> Vec<u8> {
        let digits = traceparent.as_bytes()[3..35].chunks(2);
        digits
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    fn has(posted: &[u8], what: &[u8]) -> bool {
        posted.windows(what.len()).any(|window| window == what)
    }

    #[tokio::test]
    async fn spans_join_the_publishers_trace() {
        let world = World::without_members("", &[]).await;
        let (url, posted) = collector().await;
        world
            .serve_in(&[
                format!("OTEL_EXPORTER_OTLP_ENDPOINT={url}"),
                "OTEL_BSP_SCHEDULE_DELAY=100".into(),
            ])
            .await;
        let app = world.app("app-1", &["alice"]).await;
        world.publish_traced("one", "traceparent", TRACES[0]).await;
        world.became("billing", "one", "delivered").await;
        let header = header_of(&app, "one", "traceparent").unwrap();
        assert_eq!(header[3..35], TRACES[0][3..35], "the publisher's trace");
        assert_ne!(header, TRACES[0], "the span is the delivery's");
        world
            .eventually("both spans are exported", async || {
                let posted = posted.lock().unwrap();
                let missing: Vec<_> = ["take in", "deliver", "bellhop", "app-1"]
                    .into_iter()
                    .filter(|name| !has(&posted, name.as_bytes()))
                    .collect();
                let is_whole = missing.is_empty() && has(&posted, &id_bytes(TRACES[0]));
                if is_whole {
                    Ok(())
                } else {
                    Err(format!("{missing:?} in {} bytes", posted.len()))
                }
            })
            .await;
    }
}
