//! Protects pages from other sites: which requests are answered, and what a browser may do with an
//! answer.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::refusal::{Refusal, refuse};

/// On every answer. Content comes from strangers, so a page may load and do nothing but what this
/// server serves; and with `require-trusted-types-for` a browser refuses to make markup of text at
/// all. The policy `worker` names the one address of the shared worker (`windows.js`).
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types worker",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // No other site learns in whose reminder a link was. With `no-referrer` browsers would not say
    // where a form comes from.
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

/// The names in a request that this server believes.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    /// Names of this server, besides addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// The proxy that may say where a request comes from.
    pub proxy: Option<IpAddr>,
}

/// Middleware that puts [`HEADERS`] on an answer.
pub(super) async fn protect(mut answer: Response) -> Response {
    answer
        .headers_mut()
        .extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

/// Middleware that lets requests pass which are for this server, and changes which come from its
/// own pages.
pub(super) async fn check(
    State(trusted): State<Trusted>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if !is_for_us(request.headers(), &trusted.hosts) {
        return Err(refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "this server has another name; see --host",
        ));
    }
    match *request.method() {
        Method::GET | Method::HEAD => Ok(next.run(request).await),
        Method::POST if is_from_us(request.headers()) => Ok(next.run(request).await),
        Method::POST => Err(refuse(
            StatusCode::FORBIDDEN,
            "only this server's own pages may ask for that",
        )),
        _ => Err(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET, HEAD and POST are answered",
        )),
    }
}

/// Returns whether a request was meant for this server: by an address, `localhost`, or one of its
/// names. A page of another site can have its own name lead here (DNS rebinding), and would then be
/// of the same origin; but its requests still say that name.
fn is_for_us(headers: &HeaderMap, names: &[String]) -> bool {
    let host = text(headers, &header::HOST).filter(|host| !host.contains('@')); // A user's name belongs in no `Host`.
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let name = host.host();
    let is_local = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost");
    is_local || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Returns whether a request comes from one of this server's pages. Browsers say where a POST comes
/// from.
fn is_from_us(headers: &HeaderMap) -> bool {
    let origin =
        text(headers, &header::ORIGIN).and_then(|origin| Some(origin.split_once("://")?.1));
    origin.is_some() && origin == text(headers, &header::HOST)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A browser, as far as its connection tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The address that it comes from.
    pub address: IpAddr,
    /// True if it came over TLS.
    pub is_secure: bool,
}

impl Visitor {
    /// Returns the visitor of a connection. `X-Forwarded-For` and `X-Forwarded-Proto` count only if
    /// the connection is the proxy's: anybody can write them.
    fn of(headers: &HeaderMap, peer: IpAddr, proxy: Option<IpAddr>) -> Self {
        if proxy != Some(peer.to_canonical()) {
            return Self {
                address: peer,
                is_secure: false,
            };
        }
        // The proxy appends; what stands before is the browser's own word.
        let last = |name| {
            headers
                .get_all(name)
                .iter()
                .next_back()?
                .to_str()
                .ok()?
                .rsplit(',')
                .next()
                .map(str::trim)
        };
        Self {
            address: last("x-forwarded-for")
                .and_then(|address| address.parse().ok())
                .unwrap_or(peer),
            is_secure: last("x-forwarded-proto")
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor
where
    Trusted: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let ConnectInfo(peer) = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .expect("the server puts it there");
        Ok(Self::of(
            &parts.headers,
            peer.ip(),
            Trusted::from_ref(state).proxy,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn requests_under_other_names_are_not_answered() {
        let names = ["Reminders.example".to_owned()];
        for good in [
            "localhost:9480",
            "127.0.0.1",
            "[::1]:9480",
            "192.168.0.7:80",
            "reminders.example:443",
        ] {
            assert!(
                is_for_us(&headers(&[(header::HOST, good)]), &names),
                "{good}"
            );
        }
        for bad in [
            "evil.example",
            "evil.example:9480",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1",
            "a@localhost",
            "",
        ] {
            assert!(
                !is_for_us(&headers(&[(header::HOST, bad)]), &names),
                "{bad}"
            );
        }
        assert!(!is_for_us(&HeaderMap::new(), &names));
    }

    #[test]
    fn only_the_proxy_names_the_visitor() {
        let [proxy, other, browser] =
            ["10.0.0.1", "10.0.0.2", "192.0.2.7"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let names = ["x-forwarded-for", "x-forwarded-proto"].map(HeaderName::from_static);
        let said = headers(&[
            (names[0].clone(), "127.0.0.1, 192.0.2.7"),
            (names[1].clone(), "https"),
        ]);
        let direct = |address| Visitor {
            address,
            is_secure: false,
        };
        assert_eq!(
            Visitor::of(&said, proxy, Some(proxy)),
            Visitor {
                address: browser,
                is_secure: true
            }
        );
        assert_eq!(Visitor::of(&said, other, Some(proxy)), direct(other));
        assert_eq!(Visitor::of(&said, proxy, None), direct(proxy));
        assert_eq!(
            Visitor::of(&HeaderMap::new(), proxy, Some(proxy)),
            direct(proxy)
        );
    }

    #[test]
    fn changes_come_from_own_pages_alone() {
        let from = |origin| {
            is_from_us(&headers(&[
                (header::HOST, "localhost:9480"),
                (header::ORIGIN, origin),
            ]))
        };
        assert!(from("http://localhost:9480") && from("https://localhost:9480"));
        for bad in [
            "null",
            "",
            "http://evil.example",
            "http://localhost:9481",
            "http://127.0.0.1:9480",
        ] {
            assert!(!from(bad), "{bad}");
        }
        assert!(!is_from_us(&headers(&[(header::HOST, "localhost:9480")])));
    }
}
