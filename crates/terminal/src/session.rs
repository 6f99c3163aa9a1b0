//! Sessions of signed-in users. A session is a signed cookie (HMAC-SHA-256) that names its user and
//! its end.
//!
//! Servers that share a key accept each other's cookies. A server remembers the sessions that were
//! signed out before their end; others that share its key do not know of them. **Users may sign in
//! under any name:** `web::sign_in` is where an application has its own authentication.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{self, FromRef, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum_extra::extract::cookie::{Cookie, Key, SameSite, SignedCookieJar};
use bellhop_protocol::token::UserId;
use jiff::Timestamp;
use tokio::sync::watch;

use super::guard::Visitor;
use super::refusal::{Refusal, refuse};

/// The age at which a session ends.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions remembered as signed out, 16 bytes each.
const MAX_SIGNED_OUT: usize = 100_000;
/// The shortest key that a file may have, in bytes: as many as the hash has.
const MIN_KEY_BYTES: usize = 32;
const COOKIE: &str = "bellhop_session";

/// The key that cookies are signed with.
#[derive(Clone)]
pub struct SigningKey(Key);

impl SigningKey {
    /// Returns a key from the operating system's randomness.
    ///
    /// # Errors
    /// When there is none.
    pub fn random() -> io::Result<Self> {
        Key::try_generate()
            .map(Self)
            .ok_or_else(|| io::Error::other("the operating system has no randomness"))
    }

    /// Returns the key of a file of 32 bytes or more, which is made if it is not there.
    ///
    /// # Errors
    /// When the file can neither be read nor made, or is shorter.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
        {
            Ok(mut file) => file.write_all(Self::random()?.0.master())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match fs::read(path)? {
            key if key.len() >= MIN_KEY_BYTES => Ok(Self(Key::derive_from(&key))),
            _ => Err(io::Error::other(format!(
                "it has less than {MIN_KEY_BYTES} bytes; delete it for a new one"
            ))),
        }
    }
}

/// Returns the path of a user's page.
pub(super) fn home(user: &UserId) -> String {
    format!("/as/{}/", user.escaped())
}

/// A signed-in user. A handler that takes it answers that user alone, about whom the request's path
/// is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub user: UserId,
    id: Id,
}

/// A session's end, in seconds of Unix time, and a number that tells it from others. The signature
/// makes it unforgeable, so the number need not be a secret.
type Id = (i64, u64);

impl Session {
    /// Begins a session of a user.
    pub(super) fn begin(user: UserId, now: Timestamp) -> Self {
        Self {
            user,
            id: ((now + LASTS).as_second(), fastrand::u64(..)),
        }
    }

    /// Returns the cookie that carries the session. No script sees it, no other site can have a
    /// browser send it, and it stays on TLS if it was set over TLS. It is good for the pages of its
    /// user alone, so one browser can have windows of several users.
    pub(super) fn cookie(&self, visitor: Visitor) -> Cookie<'static> {
        let (until, number) = self.id;
        Cookie::build((COOKIE, format!("{until}.{number:x}.{}", self.user)))
            .path(home(&self.user))
            .max_age(LASTS.try_into().expect("hours fit"))
            .http_only(true)
            .same_site(SameSite::Strict)
            .secure(visitor.is_secure)
            .build()
    }

    fn of_cookie(cookie: &Cookie<'_>) -> Option<Self> {
        let mut parts = cookie.value().splitn(3, '.');
        let until = parts.next()?.parse().ok()?;
        let number = u64::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self {
            user: parts.next()?.parse().ok()?,
            id: (until, number),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session
where
    Arc<Sessions>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let sessions = Arc::<Sessions>::from_ref(state);
        let path = extract::Path::<String>::from_request_parts(parts, state).await;
        let user = path.ok().and_then(|path| UserId::from_token(&path).ok());
        let user = user.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "there is nothing here"))?;
        let jar = SignedCookieJar::from_headers(&parts.headers, sessions.key());
        let session = jar.get(COOKIE).and_then(|cookie| Self::of_cookie(&cookie));
        session
            .filter(|session| session.user == user && sessions.is_open(session, Timestamp::now()))
            .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "sign in first"))
    }
}

/// The sessions of this server.
pub(super) struct Sessions {
    key: SigningKey,
    signed_out: watch::Sender<SignedOut>,
}

#[derive(Debug, Default)]
struct SignedOut {
    sessions: BTreeSet<Id>,
    /// Sessions that end by then count as signed out, in seconds of Unix time.
    until: i64,
}

impl SignedOut {
    fn has(&self, id: Id) -> bool {
        id.0 <= self.until || self.sessions.contains(&id)
    }
}

impl Sessions {
    /// Returns the sessions that are signed with this key.
    pub(super) fn new(key: SigningKey) -> Self {
        Self {
            key,
            signed_out: watch::Sender::default(),
        }
    }

    /// Returns the key that cookies are signed with.
    pub(super) fn key(&self) -> Key {
        self.key.0.clone()
    }

    /// Signs a session out. Beyond the limit, those that end first are signed out with all that end
    /// before them, so that no session comes back.
    pub(super) fn end(&self, session: &Session, now: Timestamp) {
        self.signed_out.send_modify(|signed_out| {
            signed_out.sessions.insert(session.id);
            signed_out.until = signed_out.until.max(now.as_second());
            if signed_out.sessions.len() > MAX_SIGNED_OUT
                && let Some((until, _)) = signed_out.sessions.first()
            {
                signed_out.until = signed_out.until.max(*until);
            }
            signed_out.sessions = signed_out.sessions.split_off(&(signed_out.until + 1, 0));
        });
    }

    fn is_open(&self, session: &Session, now: Timestamp) -> bool {
        now.as_second() < session.id.0 && !self.signed_out.borrow().has(session.id)
    }

    /// Waits until a session is over, be it signed out or too old.
    pub(super) fn over(
        &self,
        session: &Session,
        now: Timestamp,
    ) -> impl Future<Output = ()> + use<> {
        let (mut signed_out, id) = (self.signed_out.subscribe(), session.id);
        let left = Duration::from_secs((id.0 - now.as_second()).try_into().unwrap_or(0));
        async move {
            // An error would mean that there are no sessions any more.
            let _ =
                tokio::time::timeout(left, signed_out.wait_for(|signed_out| signed_out.has(id)))
                    .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const VISITOR: Visitor = Visitor {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        is_secure: false,
    };

    fn sessions() -> Sessions {
        Sessions::new(SigningKey::random().unwrap())
    }

    fn alice(now: Timestamp) -> Session {
        Session::begin("alice".parse().unwrap(), now)
    }

    #[test]
    fn a_cookie_is_for_its_users_pages_alone() {
        let cookie = alice(Timestamp::now()).cookie(VISITOR).to_string();
        assert!(cookie.starts_with("bellhop_session="), "{cookie}");
        for attribute in [
            "; Path=/as/alice/",
            "; Max-Age=43200",
            "; HttpOnly",
            "; SameSite=Strict",
        ] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
    }

    #[test]
    fn cookies_over_tls_stay_on_tls() {
        let session = alice(Timestamp::now());
        assert!(!session.cookie(VISITOR).to_string().contains("Secure"));
        assert!(
            session
                .cookie(Visitor {
                    is_secure: true,
                    ..VISITOR
                })
                .to_string()
                .contains("; Secure")
        );
    }

    #[test]
    fn a_cookie_brings_its_session_back() {
        let now = Timestamp::now();
        for user in ["alice", "b.o.b", "A; Path=/", "李 =%"] {
            let session = Session::begin(user.parse().unwrap(), now);
            assert_eq!(Session::of_cookie(&session.cookie(VISITOR)), Some(session));
        }
        for other in ["", "x", "..", "1.2", "1.2.", "x.2.alice", "1.x.alice"] {
            assert_eq!(
                Session::of_cookie(&Cookie::new(COOKIE, other)),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn sessions_end_at_their_age() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let session = alice(now);
        assert!(sessions.is_open(&session, now + LASTS - Duration::from_secs(1)));
        assert!(!sessions.is_open(&session, now + LASTS));
    }

    #[test]
    fn signed_out_sessions_end_and_others_stay() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let (here, there) = (alice(now), alice(now));
        sessions.end(&here, now);
        assert!(!sessions.is_open(&here, now) && sessions.is_open(&there, now));
        sessions.end(&there, now + LASTS);
        assert_eq!(
            sessions.signed_out.borrow().sessions.len(),
            0,
            "sessions past their end are not remembered"
        );
    }

    #[test]
    fn no_session_comes_back_beyond_the_limit() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let (first, later) = (alice(now), alice(now + Duration::from_secs(2)));
        sessions.end(&first, now);
        for _ in 0..MAX_SIGNED_OUT {
            sessions.end(&alice(now + Duration::from_secs(1)), now);
        }
        assert!(!sessions.is_open(&first, now));
        assert!(sessions.is_open(&later, now));
        assert!(sessions.signed_out.borrow().sessions.len() <= MAX_SIGNED_OUT);
    }

    #[tokio::test]
    async fn windows_learn_that_their_session_ended() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let (session, other) = (alice(now), alice(now));
        let (over, others) = (sessions.over(&session, now), sessions.over(&other, now));
        sessions.end(&session, now);
        over.await;
        assert!(
            tokio::time::timeout(Duration::from_millis(10), others)
                .await
                .is_err()
        );
        sessions.over(&other, now + LASTS).await;
    }

    #[test]
    fn servers_may_share_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let [first, second] = [(), ()].map(|()| SigningKey::of_file(&path).unwrap());
        assert!(first.0 == second.0);
        fs::write(&path, "short").unwrap();
        assert!(SigningKey::of_file(&path).is_err());
    }
}
