//! What browsers ask, and what they are answered.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | the page to sign in; its files |
//! | `GET /names` | names that one could sign in as |
//! | `POST /sign-in` | the form `user=NAME`; a cookie for `/as/<user>/`, and the way there |
//! | `GET /as/<user>/` | the user's page |
//! | `GET /as/<user>/events` | Server-Sent Events, from `Last-Event-ID` or `?after=` on |
//! | `POST /as/<user>/seen` | the number of an event: up to there, everything is on a page |
//! | `GET /as/<user>/history` | what came before, from `?cursor=` on |
//! | `POST /as/<user>/sign-out` | the session is over, and the cookie gone |
//!
//! `<user>` is escaped as in a subject of NATS.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;

use super::events::Events;
use super::guard::Visitor;
use super::lobby::{Lobby, NoRoom};
use super::session::Sessions;
use super::{guard, history};
use crate::nats::Nats;
use crate::nats::api::ApiError;
use crate::token::UserId;

/// A form with a name, escaped, or a number.
const MOST_BODY_BYTES: usize = 1024;
/// The time for a body. It is asked for before anybody is signed in, and browsers send so little at once.
const BODY_WITHIN: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const SIGN_IN: (&str, &str) = ("text/html; charset=utf-8", include_str!("page/sign-in.html"));
const HOME: (&str, &str) = ("text/html; charset=utf-8", include_str!("page/home.html"));
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// The pages' files.
const FILES: [(&str, &str, &str); 9] = [
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/bell.svg", "image/svg+xml", include_str!("page/bell.svg")),
    ("/sign-in.js", JAVASCRIPT, include_str!("page/sign-in.js")),
    ("/home.js", JAVASCRIPT, include_str!("page/home.js")),
    ("/connection.js", JAVASCRIPT, include_str!("page/connection.js")),
    ("/feed.js", JAVASCRIPT, include_str!("page/feed.js")),
    ("/reminder.js", JAVASCRIPT, include_str!("page/reminder.js")),
    ("/history.js", JAVASCRIPT, include_str!("page/history.js")),
    ("/time.js", JAVASCRIPT, include_str!("page/time.js")),
];

type Answer = Response<Either<Full<Bytes>, Events>>;

/// Everything that an answer is made of.
pub(super) struct Site {
    /// Who is here.
    pub lobby: Lobby,
    /// Where the history is asked for.
    pub nats: Nats,
    /// Who is signed in.
    pub sessions: Sessions,
    /// Names to suggest.
    pub names: Vec<String>,
    /// Names of this server, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The proxy whose word counts on where a request comes from.
    pub proxy: Option<IpAddr>,
}

/// Where a user's page is.
pub(super) fn home(user: &UserId) -> String {
    format!("/as/{}/", user.escaped())
}

impl Site {
    /// Answers a request of a connection from `peer`.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Result<Answer, Infallible> {
        let visitor = Visitor::of(request.headers(), peer, self.proxy);
        let answer = self.route(request, visitor).await.unwrap_or_else(|refusal| refusal);
        let (mut parts, body) = answer.into_parts();
        guard::protect(&mut parts.headers);
        Ok(Response::from_parts(parts, body))
    }

    async fn route(&self, request: Request<Incoming>, visitor: Visitor) -> Result<Answer, Answer> {
        if !guard::is_for_us(request.headers(), &self.hosts) {
            return Err(say(StatusCode::MISDIRECTED_REQUEST, "this server has another name; see --host"));
        }
        let is_post = match *request.method() {
            Method::GET | Method::HEAD => false,
            Method::POST if guard::is_from_us(request.headers()) => true,
            Method::POST => return Err(say(StatusCode::FORBIDDEN, "only this server's own pages may ask for that")),
            _ => return Err(say(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST are answered")),
        };
        let path = request.uri().path().to_owned();
        if let Some(below) = path.strip_prefix("/as/") {
            return self.route_user(below, is_post, request, visitor).await;
        }
        match (path.as_str(), is_post) {
            ("/", false) => Ok(file(SIGN_IN)),
            ("/names", false) => Ok(json(&self.names)),
            ("/sign-in", true) => self.sign_in(request, visitor).await,
            (path, false) => {
                let found = FILES.into_iter().find(|(name, ..)| *name == path);
                found.map(|(_, kind, text)| file((kind, text))).ok_or_else(nothing)
            }
            _ => Err(nothing()),
        }
    }

    async fn route_user(
        &self,
        below: &str,
        is_post: bool,
        request: Request<Incoming>,
        visitor: Visitor,
    ) -> Result<Answer, Answer> {
        let (user, what) = below.split_once('/').ok_or_else(nothing)?;
        let user = UserId::from_token(user).map_err(|_| nothing())?;
        let cookies = guard::text(request.headers(), &header::COOKIE).unwrap_or_default();
        let now = Timestamp::now();
        if !self.sessions.accepts(&user, cookies, now) {
            return match what {
                "" => Ok(see("/")),
                _ => Err(say(StatusCode::UNAUTHORIZED, "sign in first")),
            };
        }
        match (what, is_post) {
            ("", false) => Ok(file(HOME)),
            ("events", false) if request.method() == Method::GET => self.events(user, &request, visitor).await,
            ("seen", true) => {
                let number = body(request).await?.parse().map_err(|_| say(StatusCode::BAD_REQUEST, "not a number"))?;
                self.lobby.seen(user, number).await;
                Ok(say(StatusCode::NO_CONTENT, ""))
            }
            ("history", false) => self.history(&user, &request).await,
            ("sign-out", true) => Ok(with_cookie(see("/"), &self.sessions.sign_out(&user, cookies, visitor, now))),
            _ => Err(nothing()),
        }
    }

    async fn sign_in(&self, request: Request<Incoming>, visitor: Visitor) -> Result<Answer, Answer> {
        let form = body(request).await?;
        let name = field(&form, "user").unwrap_or_default();
        let user: UserId = name
            .trim()
            .parse()
            .map_err(|error: crate::token::NameError| say(StatusCode::BAD_REQUEST, &format!("the name {error}")))?;
        Ok(with_cookie(see(&home(&user)), &self.sessions.sign_in(&user, visitor, Timestamp::now())))
    }

    async fn events(&self, user: UserId, request: &Request<Incoming>, visitor: Visitor) -> Result<Answer, Answer> {
        // A browser's own try to connect again has the header; a page that makes a new connection cannot set it.
        let last = guard::text(request.headers(), &LAST_EVENT_ID).map(ToOwned::to_owned);
        let after = last.or_else(|| field(request.uri().query().unwrap_or_default(), "after"));
        let after = after.and_then(|after| after.parse().ok());
        let events = self
            .lobby
            .open(user, visitor.address, after)
            .await
            .map_err(|NoRoom(why)| say(StatusCode::SERVICE_UNAVAILABLE, why))?;
        let mut answer = Response::new(Either::Right(events));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(answer)
    }

    async fn history(&self, user: &UserId, request: &Request<Incoming>) -> Result<Answer, Answer> {
        let cursor = field(request.uri().query().unwrap_or_default(), "cursor");
        let page = history::page(&self.nats, user, cursor.as_deref()).await;
        page.map(|page| json(&page)).map_err(|error| match error {
            ApiError::Invalid(problem) => say(StatusCode::BAD_REQUEST, &problem),
            ApiError::Forbidden(problem) => say(StatusCode::FORBIDDEN, &problem),
            error => {
                tracing::warn!(%error, "no history");
                say(StatusCode::SERVICE_UNAVAILABLE, "the history is away")
            }
        })
    }
}

/// A field of a form or a query.
fn field(form: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(form.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

async fn body(request: Request<Incoming>) -> Result<String, Answer> {
    let body = Limited::new(request.into_body(), MOST_BODY_BYTES).collect();
    let body = tokio::time::timeout(BODY_WITHIN, body).await;
    let body = body.map_err(|_| say(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    let bytes = body.map_err(|_| say(StatusCode::PAYLOAD_TOO_LARGE, "that is too much"))?.to_bytes();
    String::from_utf8(bytes.into()).map_err(|_| say(StatusCode::BAD_REQUEST, "not UTF-8"))
}

fn nothing() -> Answer {
    say(StatusCode::NOT_FOUND, "there is nothing here")
}

fn say(status: StatusCode, text: &str) -> Answer {
    let mut answer = file(("text/plain; charset=utf-8", text));
    *answer.status_mut() = status;
    answer
}

fn see(path: &str) -> Answer {
    let mut answer = say(StatusCode::SEE_OTHER, "");
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_str(path).expect("paths are escaped"));
    answer
}

fn with_cookie(mut answer: Answer, cookie: &str) -> Answer {
    answer.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_str(cookie).expect("cookies are ASCII"));
    answer
}

fn json(value: &impl serde::Serialize) -> Answer {
    file(("application/json", &serde_json::to_string(value).expect("what is answered has only string keys")))
}

fn file((kind, text): (&'static str, &str)) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(text.to_owned())));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
