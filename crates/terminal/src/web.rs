//! The requests of browsers.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | the page to sign in; its files |
//! | `GET /names` | names that one could sign in as |
//! | `POST /sign-in` | the form `user=NAME`; a cookie for `/as/<user>/`, and the way there |
//! | `GET /as/<user>/` | the user's page |
//! | `GET /as/<user>/events` | Server-Sent Events, from `Last-Event-ID` or `?after=` on |
//! | `POST /as/<user>/seen` | the number of an event: the page shows everything up to there |
//! | `GET /as/<user>/history` | older reminders, from `?cursor=` on |
//! | `POST /as/<user>/sign-out` | the session is over, and the cookie gone |
//!
//! `<user>` is escaped as in a subject of NATS. Every handler below it takes a [`Session`], so none
//! can be reached without.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRef, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_extra::extract::cookie::{Key, SignedCookieJar};
use bellhop_protocol::token::{InstanceName, NameError, UserId};
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tower_http::timeout::TimeoutLayer;

use super::feed::Item;
use super::guard::{self, Trusted, Visitor};
use super::history::{History, HistoryError, Page};
use super::hub::{Hub, NoRoom};
use super::pages;
use super::refusal::{Refusal, refuse};
use super::session::{Session, Sessions, home};

/// The most bytes of a body: a form with an escaped name, or a number.
const MAX_BODY_BYTES: usize = 1024;
/// The time for a body. It is asked for before anybody is signed in, and browsers send so little at
/// once.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// Pause of a browser before it reconnects.
const RETRY: Duration = Duration::from_millis(500);
/// The pause after which a window is sent a comment: proxies close a connection that is silent for
/// a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Everything that answers are made of.
#[derive(Clone)]
pub(super) struct Site {
    /// The connected users.
    pub hub: Hub,
    /// Older reminders.
    pub history: History,
    /// The signed-in users.
    pub sessions: Arc<Sessions>,
    /// The name of this app server.
    pub instance: InstanceName,
    /// Names to suggest.
    pub names: Arc<[String]>,
    /// The names in a request that count.
    pub trusted: Trusted,
}

impl FromRef<Site> for Trusted {
    fn from_ref(site: &Site) -> Self {
        site.trusted.clone()
    }
}

impl FromRef<Site> for Arc<Sessions> {
    fn from_ref(site: &Site) -> Self {
        site.sessions.clone()
    }
}

impl FromRef<Site> for Key {
    fn from_ref(site: &Site) -> Self {
        site.sessions.key()
    }
}

/// Returns everything that the site answers.
pub(super) fn routes(site: Site) -> Router {
    let changes = Router::new()
        .route("/sign-in", post(sign_in))
        .route("/as/{user}/seen", post(seen))
        .route("/as/{user}/sign-out", post(sign_out))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            BODY_WITHIN,
        ));
    pages::routes()
        .route("/names", get(names))
        .route("/as/{user}/", get(page))
        // Otherwise `get` answers HEAD, too, and a user would count as connected for nothing.
        .route(
            "/as/{user}/events",
            get(events).head(StatusCode::METHOD_NOT_ALLOWED),
        )
        .route("/as/{user}/history", get(history))
        .merge(changes)
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(from_fn_with_state(site.clone(), guard::check))
        .layer(map_response(guard::protect))
        .with_state(site)
}

async fn names(State(site): State<Site>) -> Json<Arc<[String]>> {
    Json(site.names)
}

/// Signs anybody in as anybody. An application checks a password here.
async fn sign_in(
    visitor: Visitor,
    jar: SignedCookieJar,
    form: String,
) -> Result<impl IntoResponse, Refusal> {
    let name = form_urlencoded::parse(form.as_bytes())
        .find(|(key, _)| key == "user")
        .map(|(_, name)| name);
    let user: Result<UserId, NameError> = name.unwrap_or_default().trim().parse();
    let user =
        user.map_err(|error| refuse(StatusCode::BAD_REQUEST, format!("the name {error}")))?;
    let session = Session::begin(user, Timestamp::now());
    Ok((
        jar.add(session.cookie(visitor)),
        Redirect::to(&home(&session.user)),
    ))
}

async fn sign_out(
    session: Session,
    visitor: Visitor,
    jar: SignedCookieJar,
    State(site): State<Site>,
) -> impl IntoResponse {
    site.sessions.end(&session, Timestamp::now());
    (jar.remove(session.cookie(visitor)), Redirect::to("/"))
}

async fn page(session: Result<Session, Refusal>) -> Result<Html<&'static str>, impl IntoResponse> {
    match session {
        Ok(_) => Ok(pages::HOME),
        Err((StatusCode::UNAUTHORIZED, _)) => Err(Redirect::to("/").into_response()),
        Err(refusal) => Err(refusal.into_response()),
    }
}

#[derive(Deserialize)]
struct From {
    after: Option<String>,
}

/// Opens a window. It is closed when its session is over.
async fn events(
    session: Session,
    visitor: Visitor,
    State(site): State<Site>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    // The header is a browser's that connects again by itself; a page that makes a new connection
    // cannot set it.
    let last = headers
        .get("last-event-id")
        .and_then(|last| last.to_str().ok())
        .map(str::to_owned);
    let after = last.or(from.after).and_then(|after| after.parse().ok());
    let over = site.sessions.over(&session, Timestamp::now());
    let user = session.user.clone();
    let window = site.hub.open(session.user, visitor.address, after).await;
    let window = window.map_err(|NoRoom(why)| refuse(StatusCode::SERVICE_UNAVAILABLE, why))?;
    let hello = json!({ "user": user, "instance": site.instance, "resumed": window.resumed });
    let hello = Event::default()
        .event("hello")
        .retry(RETRY)
        .data(hello.to_string());
    let mut live = window.live;
    let items =
        stream::iter(window.missed).chain(stream::poll_fn(move |context| live.poll_recv(context)));
    let events = stream::iter([hello])
        .chain(items.map(event))
        .take_until(over);
    Ok(Sse::new(events.map(Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn event(item: Item) -> Event {
    Event::default()
        .id(item.number.to_string())
        .event("reminder")
        .data(item.json)
}

async fn seen(
    session: Session,
    State(site): State<Site>,
    number: String,
) -> Result<StatusCode, Refusal> {
    let number = number
        .parse()
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "not a number"))?;
    site.hub.seen(session.user, number).await;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Place {
    cursor: Option<String>,
}

async fn history(
    session: Session,
    State(site): State<Site>,
    Query(place): Query<Place>,
) -> Result<Json<Page>, Refusal> {
    let page = site.history.page(&session.user, place.cursor).await;
    page.map(Json).map_err(|error| match error {
        HistoryError::Refused { status, problem } => (status, problem),
        HistoryError::Away(problem) => {
            tracing::warn!(%problem, "no history");
            refuse(StatusCode::SERVICE_UNAVAILABLE, "the history is away")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A carriage return ends a line, too.
    #[tokio::test]
    async fn json_lines_are_event_lines() {
        let item = Item {
            number: 7,
            json: "{\"data\":{\n\"a\":\r1}}".into(),
        };
        let answer = Sse::new(stream::iter([Ok::<_, Infallible>(event(item))])).into_response();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX)
            .await
            .unwrap();
        assert_eq!(
            body,
            "id: 7\nevent: reminder\ndata: {\"data\":{\ndata: \"a\":\rdata: 1}}\n\n"
        );
    }
}
