//! What protects a page from other sites: whom a request is for, where it comes from, and what a browser may do with the
//! answer.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::http::is_local_name;

/// On every answer. Content comes from strangers, so a page may load and do nothing but what this server serves; and with
/// `require-trusted-types-for` a browser refuses to make markup of text at all.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Nobody learns in whose reminder a link was. With `no-referrer` browsers would not say where a form comes from.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    (header::CACHE_CONTROL, "no-store"),
];

/// A browser, as far as its connection tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The address that it comes from.
    pub address: IpAddr,
    /// It came over TLS.
    pub is_secure: bool,
}

impl Visitor {
    /// Returns the visitor of a connection. What `X-Forwarded-For` and `X-Forwarded-Proto` say counts only if the connection
    /// is the proxy's: anybody can write them.
    pub(super) fn of(headers: &HeaderMap, peer: IpAddr, proxy: Option<IpAddr>) -> Self {
        if proxy != Some(peer.to_canonical()) {
            return Self { address: peer, is_secure: false };
        }
        // The proxy appends; what stands before is the browser's own word.
        let last = |name| headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next().map(str::trim);
        Self {
            address: last("x-forwarded-for").and_then(|address| address.parse().ok()).unwrap_or(peer),
            is_secure: last("x-forwarded-proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        }
    }
}

/// Puts on an answer what every answer has.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Whether a request was meant for this server. A page of somebody else's site can have its name lead here (DNS
/// rebinding), and would then be of the same origin; but its requests still say that name.
pub(super) fn is_for_us(headers: &HeaderMap, names: &[String]) -> bool {
    let Some(host) = text(headers, &header::HOST) else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    is_local_name(host) || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether a request that changes something comes from one of our own pages. Browsers always say where it comes from.
pub(super) fn is_from_us(headers: &HeaderMap) -> bool {
    let origin = text(headers, &header::ORIGIN).and_then(|origin| Some(origin.split_once("://")?.1));
    origin.is_some() && origin == text(headers, &header::HOST)
}

/// A header, if it is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_strangers_name_leads_nowhere() {
        let names = ["Reminders.example".to_owned()];
        for good in ["localhost:9480", "127.0.0.1", "[::1]:9480", "192.168.0.7:80", "reminders.example:443"] {
            assert!(is_for_us(&headers(&[(header::HOST, good)]), &names), "{good}");
        }
        for bad in ["evil.example", "evil.example:9480", "127.0.0.1.evil.example", "localhost.evil.example:1", ""] {
            assert!(!is_for_us(&headers(&[(header::HOST, bad)]), &names), "{bad}");
        }
        assert!(!is_for_us(&HeaderMap::new(), &names));
    }

    #[test]
    fn only_the_proxy_says_who_asks() {
        let [proxy, other, browser] = ["10.0.0.1", "10.0.0.2", "192.0.2.7"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let names = ["x-forwarded-for", "x-forwarded-proto"].map(HeaderName::from_static);
        let said = headers(&[(names[0].clone(), "127.0.0.1, 192.0.2.7"), (names[1].clone(), "https")]);
        let direct = |address| Visitor { address, is_secure: false };
        assert_eq!(Visitor::of(&said, proxy, Some(proxy)), Visitor { address: browser, is_secure: true });
        assert_eq!(Visitor::of(&said, other, Some(proxy)), direct(other));
        assert_eq!(Visitor::of(&said, proxy, None), direct(proxy));
        assert_eq!(Visitor::of(&HeaderMap::new(), proxy, Some(proxy)), direct(proxy));
    }

    #[test]
    fn only_our_own_pages_may_change_something() {
        let from = |origin| is_from_us(&headers(&[(header::HOST, "localhost:9480"), (header::ORIGIN, origin)]));
        assert!(from("http://localhost:9480") && from("https://localhost:9480"));
        for bad in ["null", "", "http://evil.example", "http://localhost:9481", "http://127.0.0.1:9480"] {
            assert!(!from(bad), "{bad}");
        }
        assert!(!is_from_us(&headers(&[(header::HOST, "localhost:9480")])));
    }
}
