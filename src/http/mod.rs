//! Probes and metrics over HTTP: is the process alive, is it ready, which version is it, what does
//! it count.
//!
//! Alive does not depend on a server that can be reached: restarting a process does not fix that.
//! It depends on a client that can still connect. Ready means connected, at work on every role that
//! is this member's without failing again and again, and not stopping.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::metrics::Metrics;

/// The conditions for this member to be ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The connection to NATS is up.
    pub is_connected: bool,
    /// Roles that are this member's by the last look at the members, once there was one.
    pub roles_due: Option<usize>,
    /// Roles that it works: consumers bound, mailboxes and routes known.
    pub roles_working: usize,
    /// A role failed several times of late, and was taken over each time.
    pub is_flapping: bool,
    /// It was asked to stop.
    pub is_stopping: bool,
    /// The connection whose client has ended for good and cannot be replaced.
    pub ended: Option<&'static str>,
    /// NATS does not let this member in.
    pub refused: Option<Refused>,
    /// The buckets that are still being read. Roles wait for them.
    pub reading: Reading,
    /// The history waits for its database. Reminders do not wait for it, so that is not a reason
    /// not to be ready.
    pub is_history_behind: bool,
}

/// The reason why NATS rejects this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The JWT in its credentials file has expired.
    Expired(Timestamp),
    /// The server does not say why.
    Unknown,
}

/// Buckets that are not read to their end yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// That of routes.
    pub routes: bool,
    /// That of associates.
    pub associates: bool,
    /// That of rules.
    pub rules: bool,
}

impl Reading {
    /// Returns the names of the buckets that are being read.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.routes, "routes"),
            (self.associates, "associates"),
            (self.rules, "rules"),
        ];
        all.into_iter()
            .filter_map(|(is_read, name)| is_read.then_some(name))
    }
}

impl Readiness {
    /// Each condition by name, and whether it holds.
    pub fn conditions(&self) -> [(&'static str, bool); 4] {
        [
            ("nats connected", self.is_connected),
            (
                "consumers bound",
                self.roles_due.is_some_and(|due| self.roles_working >= due),
            ),
            ("roles not failing again and again", !self.is_flapping),
            ("not stopping", !self.is_stopping),
        ]
    }

    /// Returns whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.conditions().iter().all(|(_, holds)| *holds)
    }
}

/// Listens.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Connections at a time: more than all probes of a machine and its Prometheus need, and few beside
/// the files that a process may have open. Behind them the oldest one is closed, so that strangers
/// who hold connections cannot keep a probe waiting.
pub const MAX_CONNECTIONS: usize = 64;
/// The time for a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The time for a whole connection, which has one request.
const CONNECTION_WITHIN: Duration = Duration::from_secs(15);

/// Serves probes and metrics until the task is aborted.
pub async fn run(listener: TcpListener, readiness: watch::Receiver<Readiness>, metrics: Metrics) {
    // On a developer's machine a page could otherwise read this by having its own name lead here
    // (DNS rebinding). Where others may connect, the names that they use are not known here.
    let is_for_this_machine = listener
        .local_addr()
        .is_ok_and(|address| address.ip().is_loopback());
    let mut connections: VecDeque<AbortOnDrop> = VecDeque::new();
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others must close theirs first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (readiness, metrics) = (readiness.clone(), metrics.clone());
        let service = service_fn(move |request| {
            let answer = match is_for_this_machine && !is_for_local_name(&request) {
                true => text(
                    StatusCode::MISDIRECTED_REQUEST,
                    "ask by an address or by localhost\n".to_owned(),
                ),
                false => answer(&request, &readiness.borrow(), &metrics),
            };
            async move { Ok::<_, Infallible>(answer) }
        });
        let serving = async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .keep_alive(false);
            let served = server.serve_connection(TokioIo::new(connection), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_WITHIN, served).await {
                tracing::debug!(%error, "http connection");
            }
        };
        connections.retain(|connection| !connection.0.is_finished());
        if connections.len() == MAX_CONNECTIONS {
            connections.pop_front();
        }
        connections.push_back(AbortOnDrop(tokio::spawn(serving).abort_handle()));
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns whether a `Host` is an address or `localhost`, with or without a port: names that no
/// stranger's page can have.
pub fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
}

/// Returns whether a request has a local name, or none: every browser sends one.
fn is_for_local_name<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(HOST)
        .is_none_or(|host| host.to_str().is_ok_and(is_local_name))
}

fn answer<B>(
    request: &Request<B>,
    readiness: &Readiness,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered\n".to_owned(),
        );
        refusal
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/livez" => match readiness.ended {
            None => text(StatusCode::OK, "ok\n".to_owned()),
            Some(connection) => {
                let problem = format!(
                    "the client of the connection `{connection}` has ended; restart this process\n"
                );
                text(StatusCode::SERVICE_UNAVAILABLE, problem)
            }
        },
        "/readyz" | "/healthz" => ready(
            readiness,
            request
                .uri()
                .query()
                .is_some_and(|query| query.contains("verbose")),
        ),
        "/metrics" => {
            let mut answer = text(StatusCode::OK, metrics.text());
            // The version is the format's, and Prometheus asks for it.
            let format =
                hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, format);
            answer
        }
        "/version" => text(
            StatusCode::OK,
            concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz, /healthz, /metrics and /version\n".to_owned(),
        ),
    }
}

fn ready(readiness: &Readiness, is_verbose: bool) -> Response<Full<Bytes>> {
    let mut body = String::new();
    for (name, holds) in readiness.conditions() {
        if is_verbose || !holds {
            body.push_str(&format!("[{}] {name}\n", if holds { "+" } else { "-" }));
        }
    }
    match readiness.refused {
        Some(Refused::Expired(at)) => body.push_str(&format!(
            "[!] nats does not let this member in: the credentials of nats.creds expired at {at}\n"
        )),
        Some(Refused::Unknown) => {
            body.push_str("[!] nats does not let this member in with its credentials\n");
        }
        None => {}
    }
    if is_verbose || !readiness.is_ready() {
        for name in readiness.reading.names() {
            body.push_str(&format!("[!] the bucket of {name} is being read\n"));
        }
    }
    if is_verbose && readiness.is_history_behind {
        body.push_str(
            "[!] history is behind, its database is away or slow; reminders do not wait for it\n",
        );
    }
    let (status, verdict) = match readiness.is_ready() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    text(status, body + verdict)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        CACHE_CONTROL,
        hyper::header::HeaderValue::from_static("no-store"),
    );
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(method: Method, uri: &str, readiness: Readiness) -> (u16, String) {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let response = answer(&request, &readiness, &Metrics::default());
        let status = response.status().as_u16();
        (
            status,
            String::from_utf8(
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .to_vec(),
            )
            .unwrap(),
        )
    }

    #[tokio::test]
    async fn each_condition_is_named_and_decides() {
        let ready = Readiness {
            is_connected: true,
            roles_due: Some(3),
            roles_working: 3,
            ..Readiness::default()
        };
        assert_eq!(
            ask(Method::GET, "/readyz", ready).await,
            (200, "ok\n".into())
        );
        assert_eq!(ask(Method::GET, "/healthz", ready).await.0, 200);
        for (unready, name) in [
            (
                Readiness {
                    is_connected: false,
                    ..ready
                },
                "nats connected",
            ),
            (
                Readiness {
                    roles_due: None,
                    ..ready
                },
                "consumers bound",
            ),
            (
                Readiness {
                    roles_working: 2,
                    ..ready
                },
                "consumers bound",
            ),
            (
                Readiness {
                    is_flapping: true,
                    ..ready
                },
                "roles not failing again and again",
            ),
            (
                Readiness {
                    is_stopping: true,
                    ..ready
                },
                "not stopping",
            ),
        ] {
            assert_eq!(
                ask(Method::GET, "/readyz", unready).await,
                (503, format!("[-] {name}\nnot ready\n"))
            );
            assert_eq!(ask(Method::GET, "/livez", unready).await.0, 200);
            let (_, verbose) = ask(Method::GET, "/readyz?verbose", unready).await;
            assert!(
                verbose.contains(&format!("[-] {name}")) && verbose.matches("[+]").count() == 3
            );
        }
    }

    #[tokio::test]
    async fn a_bucket_that_is_being_read_is_named() {
        let reading = Reading {
            associates: true,
            ..Reading::default()
        };
        let waiting = Readiness {
            reading,
            ..Readiness::default()
        };
        let (_, body) = ask(Method::GET, "/readyz", waiting).await;
        assert!(
            body.contains("[!] the bucket of associates is being read\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn expired_credentials_are_named() {
        let expired = Readiness {
            refused: Some(Refused::Expired(Timestamp::UNIX_EPOCH)),
            ..Readiness::default()
        };
        let (_, body) = ask(Method::GET, "/readyz", expired).await;
        assert!(
            body.contains("nats.creds expired at 1970-01-01T00:00:00Z\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn an_ended_client_is_named_by_livez() {
        let ended = Readiness {
            ended: Some("members"),
            ..Readiness::default()
        };
        let (status, body) = ask(Method::GET, "/livez", ended).await;
        assert!(
            status == 503 && body.contains("`members`"),
            "{status} {body}"
        );
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        assert_eq!(
            ask(Method::POST, "/livez", Readiness::default()).await.0,
            405
        );
        assert_eq!(ask(Method::GET, "/", Readiness::default()).await.0, 404);
        assert_eq!(
            ask(Method::HEAD, "/version", Readiness::default()).await.0,
            200
        );
    }
}
